//! cancel_sm, of one message or of all between two addresses: what it must take back, and what it must not.

use smppd::message::MessageId;
use smppd::pdu::CommandStatus;
use smppd::pdu::receipt::MessageState;

use super::{Connection, Fact, Life, Oracle};

/// What a cancel_sm is to take back.
#[derive(Clone, Debug)]
pub enum Target {
    /// One message, or a whole submit_multi.
    One {
        /// message_id.
        id: MessageId,
        /// source_addr.
        source: Box<[u8]>,
    },
    /// All that waits between two addresses, of one service_type if it names one.
    Many {
        /// source_addr.
        source: Box<[u8]>,
        /// destination_addr.
        destination: Box<[u8]>,
        /// Empty for all.
        service_type: Box<[u8]>,
    },
}

/// A cancel_sm.
#[derive(Clone, Debug)]
pub(super) struct Cancel {
    account: usize,
    connection: Connection,
    target: Target,
    /// When a core took it in, and its place among all that was.
    taken_in: Option<(u64, u64)>,
    /// In which process.
    epoch: u32,
    /// Which message had the name of the one then.
    life: Option<Life>,
    answered_at: Option<u64>,
    /// What waited for certain when it was taken in, and how often it had been tried.
    must: Vec<(Life, u32)>,
}

impl Oracle {
    /// A new cancel_sm; its number.
    pub fn cancelling(&mut self, account: usize, connection: Connection, target: Target) -> u32 {
        self.cancels.push(Cancel {
            account,
            connection,
            target,
            taken_in: None,
            epoch: 0,
            life: None,
            answered_at: None,
            must: Vec::new(),
        });
        (self.cancels.len() - 1) as u32
    }

    pub(super) fn cancel_taken_in(&mut self, number: u32) {
        let Some(cancel) = self.cancels.get(number as usize) else { return };
        let must = self
            .facts
            .iter()
            .filter(|(life, fact)| fact.waits() && self.concerns(cancel, **life, fact))
            .map(|(life, fact)| (*life, fact.attempts))
            .collect();
        let life = match cancel.target {
            Target::One { id, .. } => Some(self.life(id)),
            Target::Many { .. } => None,
        };
        let (now, order, epoch) = (self.now, self.order, self.epoch);
        if let Some(cancel) = self.cancels.get_mut(number as usize) {
            (cancel.taken_in, cancel.epoch) = (Some((now, order)), epoch);
            (cancel.must, cancel.life) = (must, life);
        }
    }

    fn concerns(&self, cancel: &Cancel, life: Life, fact: &Fact) -> bool {
        let is_theirs = *fact.account == *self.books[cancel.account].name.as_bytes();
        is_theirs
            && match &cancel.target {
                Target::One { id, source } => {
                    let is_named = life.id == *id || life.id.of_batch(fact.batch_offset) == *id;
                    is_named && (source.is_empty() || fact.source == *source)
                }
                Target::Many { source, destination, service_type } => {
                    fact.source == *source
                        && fact.destination == *destination
                        && (service_type.is_empty() || fact.service_type == *service_type)
                }
            }
    }

    /// Whether a message that had been tried so often when it waited has waited ever since. An attempt that begins before a
    /// request is dealt with is on record before that is answered.
    pub(super) fn waits_still(&self, life: Life, attempts: u32) -> bool {
        self.facts.get(&life).is_some_and(|fact| fact.waits() && fact.attempts == attempts)
    }

    pub(super) fn cancel_answered(&mut self, number: u32, status: CommandStatus) {
        let now = self.now;
        let Some(cancel) = self.cancels.get_mut(number as usize) else { return };
        cancel.answered_at = Some(now);
        let cancel = cancel.clone();
        let Some((since, _)) = cancel.taken_in else { return };
        let left = cancel.must.iter().find(|(life, attempts)| self.waits_still(*life, *attempts));
        let left = left.copied();
        // A member that was superseded has left its submit_multi.
        let is_named = |life: Life| match cancel.target {
            Target::One { id, .. } => id == life.id || self.facts.get(&life).is_some_and(|fact| !fact.is_own),
            Target::Many { .. } => true,
        };
        let left = left.filter(|(life, _)| is_named(*life)).map(|(life, _)| life);
        if status == CommandStatus::ESME_ROK {
            let has_ended = |(life, fact): (&Life, &Fact)| {
                let is_taken =
                    fact.end.is_some_and(|end| end.state == MessageState::DELETED && end.noted >= since);
                is_taken && self.concerns(&cancel, *life, fact)
            };
            let has_any = self.facts.iter().any(has_ended);
            self.seen.cancelled += 1;
            self.require(has_any || cancel.life.is_some_and(|life| life != self.life(life.id)), || {
                format!("{:?} was cancelled, and nothing is DELETED", cancel.target)
            });
            self.require(left.is_none(), || {
                format!("{:?} was cancelled, and {left:?} waits as before", cancel.target)
            });
            match cancel.target {
                // Another message has come by the name meanwhile.
                Target::One { id, .. } if cancel.life != Some(self.life(id)) => {}
                Target::One { id, .. } => self.one_cancelled(id),
                Target::Many { .. } => {
                    self.seen.cancelled_many += 1;
                    let unasked = self.failed.iter().find(|(_, failed_at)| **failed_at < since);
                    let unasked = unasked.map(|(partition, _)| *partition);
                    self.require(unasked.is_none(), || {
                        format!("{:?} was cancelled, and partition {unasked:?} had failed", cancel.target)
                    });
                }
            }
            return;
        }
        let one = match cancel.target {
            Target::One { id, .. } => Some(id),
            Target::Many { .. } => None,
        };
        let has_failed = self.could_not_ask(one, since);
        let is_left = left.is_some() && !has_failed && !self.is_leaving(cancel.connection);
        self.require(!is_left, || {
            format!("cancel of {:?} was answered with {status}, and {left:?} waited", cancel.target)
        });
    }

    fn one_cancelled(&mut self, id: MessageId) {
        let life = self.life(id);
        let fact = self.facts.get(&life);
        let is_single = fact.is_some_and(|fact| fact.batch_count == 1);
        let ended = fact.and_then(Fact::ended);
        if is_single {
            self.cancelled.insert(life);
            self.require(ended == Some(MessageState::DELETED), || {
                format!("cancel of {id} was answered, and on record it is {ended:?}")
            });
        }
    }

    /// A message that waited is on record as DELETED: somebody must have asked for that, and not before it was there.
    pub(super) fn taken_back(&mut self, life: Life, fact: &Fact) {
        let Some(token) = fact.tokens.first() else { return };
        let Some(submission) = self.submissions.get(*token as usize) else { return };
        let (connection, order) = (submission.connection, submission.order);
        let begun = submission.taken_in.map_or(0, |(at, _)| at);
        let explains = |cancel: &&Cancel| {
            let Some((_, place)) = cancel.taken_in else { return false };
            // While the state at rest looks for a short id it may come again: then it is the younger message that is meant.
            let is_renamed = life.number > 0 && matches!(cancel.target, Target::One { .. });
            let is_behind = match cancel.connection == connection && !is_renamed {
                true => place > order,
                // What a process had recorded is found by the next one.
                false => cancel.epoch >= self.heard_in && cancel.answered_at.is_none_or(|at| at >= begun),
            };
            is_behind && self.concerns(cancel, life, fact)
        };
        let is_explained = self.cancels.iter().rev().any(|cancel| explains(&cancel));
        self.require(is_explained, || format!("{life:?} is DELETED, and nobody behind it asked for that"));
    }

    /// Whether a session is on its way out: what comes then may be refused.
    pub(super) fn is_leaving(&self, connection: Connection) -> bool {
        self.lines.get(&connection).is_none_or(|line| line.is_leaving || !line.is_bound)
    }
}
