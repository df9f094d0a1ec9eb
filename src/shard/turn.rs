//! A turn, the end of every input: no more than a portion of each kind of work, so that no session of the core waits long
//! for the crowd of another. What is left over goes on when the others had their turn.

use crate::session::Elapsed;
use crate::shard::Shard;
use crate::shard::mesh::Delivery;
use crate::shard::partition::{Earned, Follows, Partition};
use crate::time::Now;

impl Shard {
    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.now = now.instant;
        while let Some((_, connection)) = self.session_timers.pop_due(now.instant) {
            let Some(mut entry) = self.sessions.remove(&connection) else { continue };
            entry.alarm = None;
            while let Some(elapsed) = entry.session.handle_timeout(now.instant) {
                match elapsed {
                    Elapsed::Unanswered(sent) => self.report_delivery(&entry, sent, Delivery::Unanswered),
                    Elapsed::Close(_) => {}
                }
            }
            self.put_back(entry);
        }
        self.take_due(now);
        self.partitions.iter_mut().for_each(|partition| partition.go_on(&self.accounts));
        self.turn(now);
    }

    fn take_due(&mut self, now: Now) {
        self.has_due = false;
        for place in 0..self.partitions.len() {
            let mut taken = 0;
            while taken < self.settings.portion
                && let Some(due) = self.partitions[place].pop_due(now)
            {
                self.due(now, place, due);
                taken += 1;
            }
            self.has_due |= taken == self.settings.portion;
        }
    }

    /// Whether turns have left something over, so that others had theirs: then it is time to [`go_on`](Self::go_on).
    pub fn has_more(&self) -> bool {
        self.has_due
            || self.has_reports
            || !self.searches.is_empty()
            || self.partitions.iter().any(Partition::has_more)
    }

    /// Goes on with what turns have left over.
    pub fn go_on(&mut self, now: Now) {
        if self.has_due {
            self.take_due(now);
        }
        self.partitions.iter_mut().for_each(Partition::catch_up);
        self.turn(now);
    }

    /// The end of every input.
    pub(super) fn turn(&mut self, now: Now) {
        self.now = now.instant;
        self.partitions.iter_mut().for_each(|partition| partition.note_time(now));
        let portion = self.settings.portion;
        let (mut to_pay, mut to_hear, mut to_cancel) = (portion, portion, portion);
        loop {
            while let Some(message) = self.local.pop_front() {
                self.handle_message(now, message);
            }
            self.search(now, &mut to_cancel);
            self.pay_earned(now, &mut to_pay);
            self.hear_carriers(now, &mut to_hear);
            if !self.settings.is_durable {
                self.partitions.iter_mut().for_each(Partition::commit_unwritten);
                self.pay_earned(now, &mut to_pay);
            }
            self.move_parcels();
            if self.local.is_empty() {
                return;
            }
        }
    }

    /// What durable records have earned, no more than `to_pay`.
    fn pay_earned(&mut self, now: Now, to_pay: &mut usize) {
        let count = self.partitions.len();
        self.paid_first = (self.paid_first + 1) % count;
        for place in (self.paid_first..count).chain(0..self.paid_first) {
            while *to_pay > 0
                && let Some(stored) = self.partitions[place].take_earned()
            {
                *to_pay -= 1;
                match stored.into_inner() {
                    Earned::Submitted { reply_to, id, .. } => self.answer_submitted(reply_to, id),
                    Earned::Answer(answer) | Earned::Outcome(answer) => self.answer(answer.0, answer.1),
                    Earned::Follows(Follows::HandOver { id, deferrals }) => {
                        self.hand_over(now, id, Some(deferrals));
                    }
                    Earned::Follows(Follows::Deliver { key, account }) => {
                        // It may have grown cold since it was made: then its account asks for it.
                        if !self.enqueue(key) {
                            self.to_pump.insert(account);
                        }
                    }
                    // It stays charged.
                    Earned::Charge { .. } => {}
                    Earned::Acknowledge { carrier, token } => {
                        if let Some(carrier) = self.carriers.get_mut(usize::from(carrier)) {
                            carrier.acknowledge(token);
                        }
                    }
                }
            }
        }
    }
}
