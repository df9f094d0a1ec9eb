//! A message's way out: to its carrier, what the carrier says, and its end.

use std::rc::Rc;

use crate::carrier::{News, Report};
use crate::journal::Record;
use crate::message::{MessageId, Reply, notification_of, reply_for};
use crate::pdu::receipt::MessageState;
use crate::pdu::{CommandStatus, MessagingMode};
use crate::route::CarrierIndex;
use crate::shard::mesh::Answer;
use crate::shard::parked::Parked;
use crate::shard::partition::{Due, Earned};
use crate::shard::{Event, Shard};
use crate::time::Now;

/// Reports that are heard together.
const REPORTS: usize = 64;

impl Shard {
    /// Gives a message, whose attempt is durable, to the carrier of that attempt, whatever the routes are by now: after a
    /// restart another one would send it a second time. `deferrals`, as of when the attempt began: when it has been deferred
    /// since, by a late report of an earlier attempt (from before a restart), it goes with the next one. `None` after a
    /// restart: then the carrier may have it already.
    pub(super) fn hand_over(&mut self, now: Now, id: MessageId, deferrals: Option<u16>) {
        let Some(place) = self.place_of(id.partition()) else { return };
        self.partitions[place].begin_offer(id);
        let Some(message) = self.partitions[place].message(id) else { return };
        let standing = &message.standing;
        let is_over = deferrals.is_some_and(|deferrals| deferrals != standing.deferrals);
        // A carrier that was offered another message may have turned this one down.
        if is_over || standing.state.is_waiting() {
            return;
        }
        let number = standing.carrier;
        let Some(carrier) = self.carriers.get_mut(usize::from(number)) else {
            // The configuration has fewer than before the restart. What it had taken stays with it.
            return self.defer(now, id, 0);
        };
        if let Some(report) = carrier.offer(now.instant, &message.content(), deferrals.is_none()) {
            self.reported(now, number, report);
        }
    }

    /// What carriers have to say, a little of each in turn, no more than `to_hear`.
    pub(super) fn hear_carriers(&mut self, now: Now, to_hear: &mut usize) {
        loop {
            let mut is_quiet = true;
            for carrier in 0..self.carriers.len() {
                let room = REPORTS.min(*to_hear);
                let news = std::iter::from_fn(|| self.carriers[carrier].poll(now.instant)).take(room);
                self.reports.extend(news.map(|report| (carrier as u8, report)));
                if self.reports.is_empty() {
                    continue;
                }
                is_quiet = false;
                *to_hear = to_hear.saturating_sub(self.reports.len());
                self.look_ahead(self.reports.iter().filter_map(|(_, report)| match report.news {
                    News::Taken { id, .. } | News::Busy { id, .. } | News::State { id, .. } => Some(id),
                    News::Reply(_) => None,
                }));
                // Should one of them meet a fault of ours, the next turn goes on with those behind it.
                while let Some((carrier, report)) = self.reports.pop_front() {
                    self.reported(now, carrier, report);
                }
            }
            self.has_reports = *to_hear == 0;
            if is_quiet || self.has_reports {
                return;
            }
        }
    }

    /// Looks at messages that are about to be dealt with, one right after the other: what has to come from far away in
    /// memory comes for all of them at once, where each would wait for its own.
    pub(super) fn look_ahead(&self, ids: impl Iterator<Item = MessageId>) {
        let seen = ids.fold(0, |seen, id| {
            let place = self.place_of(id.partition());
            seen ^ place.map_or(0, |place| self.partitions[place].look_at(id))
        });
        std::hint::black_box(seen);
    }

    /// A carrier says something. What does not apply (any more) is acknowledged and forgotten.
    pub(super) fn reported(&mut self, now: Now, carrier: u8, report: Report) {
        let acknowledge = report.token.map(|token| Earned::Acknowledge { carrier, token });
        if let News::Taken { id, .. } | News::Busy { id, .. } | News::State { id, .. } = report.news {
            if let Some(block) = self.cold_block_of(id, 1) {
                self.park(block, Parked::Report(carrier, report));
                return;
            }
            if self.is_anothers(carrier, id) {
                // Nothing happens to this one; the carrier need not say it again.
                self.acknowledge(id, acknowledge);
                return;
            }
        }
        if let News::Reply(_) = report.news
            && !self.partitions[0].has_room()
        {
            if let Some(carrier) = self.carriers.get_mut(usize::from(carrier)) {
                carrier.take_back(now.instant, report);
            }
            return;
        }
        match report.news {
            News::Taken { id, carrier_id } => {
                self.record(id, &Record::Forwarded { id, carrier_id: &carrier_id }, None);
                self.acknowledge(id, acknowledge);
            }
            News::Busy { id, error } => {
                self.defer(now, id, error);
                self.acknowledge(id, acknowledge);
            }
            News::State { id, state, error } => {
                if state.is_final() {
                    self.finish(now, id, state, error);
                } else if self.transactions.contains_key(&id) {
                    // Its sender waits for the outcome and has no name for the message yet: nothing is told of it
                    // before that.
                    self.record(id, &Record::Forwarded { id, carrier_id: &[] }, None);
                } else {
                    let told = self.notification_of(id, state);
                    self.record(id, &Record::Interim { id, state, at: now.wall, told }, None);
                }
                self.acknowledge(id, acknowledge);
            }
            News::Reply(reply) => {
                let reply = Reply {
                    source: reply.source.as_address(),
                    destination: reply.destination.as_address(),
                    data_coding: reply.data_coding,
                    user_data: &reply.user_data,
                    has_udh: false,
                };
                self.accept_reply(now, &reply, acknowledge);
            }
        }
    }

    /// Whether a carrier must mean the message that had a short id before: this one was not offered to it, nor ever.
    fn is_anothers(&self, carrier: u8, id: MessageId) -> bool {
        let Some(place) = self.place_of(id.partition()).filter(|_| id.is_short()) else { return false };
        let partition = &self.partitions[place];
        partition.message(id).is_some_and(|message| {
            let standing = &message.standing;
            let is_elsewhere =
                standing.state.is_waiting() || standing.carrier != carrier || partition.is_unoffered(id);
            standing.deferrals == 0 && is_elsewhere
        })
    }

    /// What a message's sender is told when its carrier says this. It goes on record: after a restart the account may be
    /// set otherwise.
    fn notification_of(&self, id: MessageId, state: MessageState) -> Option<MessageState> {
        let message = self.partitions[self.place_of(id.partition())?].message(id)?;
        let content = message.content();
        let account = self.accounts.get(self.accounts.index_of(content.system_id)?);
        let has_accepted_receipts = account.settings.accepted_receipts;
        notification_of(&content, state, message.standing.notifications, has_accepted_receipts)
    }

    /// The report need not be said again once all that it led to is durable; after a disk error it must be.
    fn acknowledge(&mut self, id: MessageId, acknowledge: Option<Earned>) {
        let Some(acknowledge) = acknowledge else { return };
        // A partition that is not here any more has no use for the report, ever.
        let place = self.place_of(id.partition()).unwrap_or(0);
        self.partitions[place].earn(acknowledge);
    }

    fn accept_reply(&mut self, now: Now, reply: &Reply<'_>, acknowledge: Option<Earned>) {
        let accounts = Rc::clone(&self.accounts);
        let parcel = accounts.owner_of(reply.destination.digits).and_then(|account| {
            let id = self.partitions[0].next_id(now.wall, 1);
            reply_for(id, account.settings.system_id.as_bytes(), reply, now.wall).ok()
        });
        let Some(parcel) = parcel else {
            acknowledge.into_iter().for_each(|acknowledge| self.partitions[0].earn(acknowledge));
            self.counters.replies_unroutable += 1;
            let destination_addr = String::from_utf8_lossy(reply.destination.digits).into();
            self.outputs.events.push(Event::ReplyUnroutable { destination_addr });
            return;
        };
        // After a disk error the carrier is not told that we have it.
        _ = self.partitions[0].record(&Record::Mo(parcel.as_octets()), &accounts, acknowledge);
    }

    /// The carrier did not take a message: try again later, unless one try was all it was given.
    pub(super) fn defer(&mut self, now: Now, id: MessageId, error: u16) {
        let Some(place) = self.place_of(id.partition()) else { return };
        let Some(message) = self.partitions[place].message(id) else { return };
        if message.content().esm_class.mode() == MessagingMode::Datagram {
            self.finish(now, id, MessageState::UNDELIVERABLE, error);
            return;
        }
        let until = now.wall + self.settings.retry.delay(message.standing.deferrals.saturating_add(1));
        self.record(id, &Record::Deferred { id, until, error }, None);
    }

    /// A message comes to its end, on record, with whoever waits for that.
    pub(super) fn finish(&mut self, now: Now, id: MessageId, state: MessageState, error: u16) -> bool {
        let reply_to = self.transactions.get(&id);
        let is_awaited = reply_to.is_some();
        let outcome = reply_to.map(|reply_to| {
            let answer = match state {
                MessageState::DELIVERED => Answer::Submitted(id),
                _ => Answer::Status(CommandStatus::ESME_RDELIVERYFAILURE),
            };
            Earned::Outcome(Box::new((*reply_to, answer)))
        });
        let done = self.record(id, &Record::Final { id, state, error, at: now.wall }, outcome);
        if done {
            self.counters.finals += 1;
            if is_awaited {
                self.transactions.remove(&id);
            }
        }
        done
    }

    /// Puts an event of one message on record; whether it applied.
    pub(super) fn record(&mut self, id: MessageId, record: &Record<'_>, earned: Option<Earned>) -> bool {
        let Some(place) = self.place_of(id.partition()) else { return false };
        self.partitions[place].record(record, &self.accounts, earned).is_ok()
    }

    /// Something of a partition is due.
    pub(super) fn due(&mut self, now: Now, place: usize, due: Due) {
        if let Due::Attempt(id) | Due::Expired(id) = due
            && let Some((_, is_due)) = self.untold.get_mut(&id)
        {
            *is_due = true;
            return;
        }
        match due {
            Due::Attempt(id) => {
                if self.is_draining {
                    self.partitions[place].pause(id, now.instant + self.settings.retry.delay_min);
                    return;
                }
                let Some(message) = self.partitions[place].message(id) else { return };
                match self.routes.find(message.content().destination.digits) {
                    Some(CarrierIndex(carrier)) => {
                        self.record(id, &Record::Attempt { id, carrier }, None);
                    }
                    // The route went while the message waited; it may come back with the next reload.
                    None => self.partitions[place].pause(id, now.instant + self.settings.retry.delay_min),
                }
            }
            Due::Expired(id) => {
                let error = self.partitions[place].message(id).map_or(0, |message| message.standing.error);
                self.finish(now, id, MessageState::EXPIRED, error);
            }
            Due::Deliver(key) => _ = self.enqueue(key),
            Due::GiveUp(key) => self.give_up(key, "retention is over"),
        }
    }
}
