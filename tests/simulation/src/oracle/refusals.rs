//! Refusals must be deserved: each has a reason that can be seen from outside.

use std::collections::BTreeMap;

use smppd::account::AccountSettings;
use smppd::message::PartitionNumber;
use smppd::pdu::CommandStatus;

use super::replacements::Candidate;
use super::submissions::Submission;
use super::{Connection, HEARSAY, Oracle, Token};
use crate::terms::When;

/// How long a reason to refuse may be felt after it has gone, in nanoseconds.
const FELT: u64 = 300_000_000;
/// How long a request may be on its way to the server.
const UNDER_WAY: u64 = 2_000_000_000;
/// How long what a lost line left unanswered may take until it is on record, or given up, where the disk takes anything.
const PENDING: u64 = 5_000_000_000;
/// The shortest segment of a long message.
pub(super) const SEGMENT_OCTETS: usize = 60;

/// What a message takes in memory beside its text, about.
const MESSAGE_OCTETS: usize = 600;

/// How much each partition can take.
pub(super) type Loads = BTreeMap<PartitionNumber, Loaded>;

/// How much a partition could take.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// From when on how much, in this process.
    history: Vec<(u64, Load)>,
    /// Until when it may have a reason to take nothing.
    full_until: u64,
    /// When its last batch was durable, and the one before.
    durable_at: (u64, u64),
}

/// How much a partition can take.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Whether it has a reason to take no message.
    pub is_full: bool,
    /// How many messages it has room for.
    pub messages_left: usize,
    /// How many octets in memory.
    pub octets_left: usize,
}

impl Oracle {
    /// How much a partition can take now, as far as it can be seen from outside.
    pub fn loaded(&mut self, partition: PartitionNumber, load: Load) {
        let loaded = self.loads.entry(partition).or_default();
        if load.is_full {
            loaded.full_until = self.now + FELT;
        }
        if loaded.history.last().is_none_or(|(_, before)| *before != load) {
            loaded.history.push((self.now, load));
        }
    }

    /// A batch of a partition is durable.
    pub(super) fn wrote(&mut self, partition: PartitionNumber) {
        let loaded = self.loads.entry(partition).or_default();
        loaded.durable_at = (self.now, loaded.durable_at.0);
    }

    /// Whether what a partition took in then may wait for the disk still: what came while a batch was on its way waits for
    /// the next one.
    fn may_be_unwritten(&self, partition: PartitionNumber, taken_in: u64) -> bool {
        let loaded = self.loads.get(&partition);
        taken_in >= self.begun_at && loaded.is_none_or(|loaded| taken_in >= loaded.durable_at.1)
    }

    /// Whether one partition, or any, had a reason to take no message that was asked for then.
    fn may_be_full(&self, one: Option<PartitionNumber>, since: u64) -> bool {
        // What came together counts together, even if some of it is cancelled in the same moment. So does what ended before
        // it was on record.
        let together = self.submissions.iter().filter(|other| {
            let is_open = |at| other.outcome.is_none() && self.may_be_unwritten(other.partition, at);
            other.taken_in.is_some_and(|(at, _)| at == since || is_open(at))
        });
        let (messages, octets) = together.fold((0, 0), |(messages, octets), other| {
            let count = other.wish.destinations.len().max(1);
            (messages + count, octets + count * (other.wish.text.len() + MESSAGE_OCTETS))
        });
        // What is over may wait for a while to leave memory.
        let (messages, octets) = (messages + 4, octets + 4 * MESSAGE_OCTETS);
        let is_short = |load: &Load| messages > load.messages_left || octets > load.octets_left;
        let loads = self.loads.iter().filter(|(partition, _)| one.is_none_or(|one| one == **partition));
        loads.into_iter().any(|(_, Loaded { history, full_until, .. })| {
            // How it stood when the request came, and ever since.
            let begin = history.partition_point(|(at, _)| *at < since).saturating_sub(1);
            *full_until >= since || history[begin..].iter().any(|(_, load)| is_short(load))
        })
    }

    /// How many messages of a partition have ended since.
    pub fn ended_since(&self, partition: PartitionNumber, since: u64) -> usize {
        let ended = self.ends.get(&partition).map_or(&[][..], Vec::as_slice);
        ended.len() - ended.partition_point(|noted| *noted < since)
    }

    /// How many messages of a partition have no end on record.
    pub fn open(&self, partition: PartitionNumber) -> usize {
        self.open.get(&partition).copied().unwrap_or_default()
    }

    /// A submission or replacement was refused.
    pub(super) fn check_refusal(&mut self, token: Token, status: CommandStatus) {
        let submission = self.submissions[token as usize].clone();
        let Some((since, _)) = submission.taken_in else { return };
        if self.is_leaving(submission.connection) {
            return;
        }
        let is_deserved = match status {
            CommandStatus::ESME_RTHROTTLED => self.may_throttle(token, &submission),
            CommandStatus::ESME_RSUBMITFAIL => self.may_be_unpaid(&submission, since),
            CommandStatus::ESME_RMSGQFUL => {
                // What is to be replaced may be anywhere.
                let one = (!submission.wish.replaces_if_present).then_some(submission.partition);
                self.may_be_full(one, since) || self.frozen_until + FELT >= since
            }
            CommandStatus::ESME_RSYSERR => {
                self.failed.contains_key(&submission.partition)
                    || submission.wish.replaces_if_present && !self.failed.is_empty()
            }
            CommandStatus::ESME_RDELIVERYFAILURE => submission.wish.is_transaction,
            CommandStatus::ESME_RINVESMCLASS => submission.wish.is_transaction && self.window_in_max == 1,
            CommandStatus::ESME_RINVDSTADR => {
                let known = submission.wish.destinations.iter();
                known.filter(|to| to.iter().all(u8::is_ascii_digit) && self.has_route(to, since)).count() == 0
            }
            CommandStatus::ESME_RINVSRCADR => {
                let source = &submission.wish.source;
                let may_send = |settings: &AccountSettings| {
                    let owns = settings.numbers.iter().any(|own| own.as_bytes() == &**source);
                    settings.any_source || owns || source.is_empty() && !settings.numbers.is_empty()
                };
                let book = &self.books[submission.account];
                book.in_force(since.saturating_sub(HEARSAY)).any(|settings| !settings.is_some_and(may_send))
            }
            CommandStatus::ESME_RINVEXPIRY => self.may_be_expired(&submission, since),
            CommandStatus::ESME_RINVNUMDESTS => {
                submission.wish.destinations.len() * (submission.wish.text.len() + 100) > 4096
            }
            CommandStatus::ESME_RREPLACEFAIL | CommandStatus::ESME_RINVMSGID => {
                submission.is_replacement && !self.could_replace(&submission, since)
            }
            _ => false,
        };
        self.require(is_deserved, || {
            format!("submission {token} was refused with {status} without a reason: {submission:?}")
        });
    }

    fn may_throttle(&self, token: Token, submission: &Submission) -> bool {
        if submission.wish.is_transaction {
            let waiting = self.lines.get(&submission.connection).map_or(0, |line| {
                // This one has its answer by now.
                line.asked.values().filter(|(_, taken_in)| taken_in.is_some()).count() + 1
            });
            if waiting > self.window_in_max / 2 {
                return true;
            }
        }
        let taken = |other: Token| {
            let Some(other) = self.submissions.get(other as usize) else { return 0 };
            // Where the disk fails it was admitted before.
            let is_refused = other.outcome.is_some_and(|status| {
                status != CommandStatus::ESME_ROK && status != CommandStatus::ESME_RSYSERR
            });
            // One that looks for what it replaces is charged once, whatever becomes of it.
            let is_search = other.wish.replaces_if_present || other.is_replacement;
            if is_refused && !is_search && !other.is_doubtful { 0 } else { cost(other) as u64 }
        };
        let allowance = &self.books[submission.account].allowance;
        allowance.may_be_too_fast(token, cost(submission) as u64, taken)
    }

    fn may_be_unpaid(&self, submission: &Submission, since: u64) -> bool {
        let book = &self.books[submission.account];
        let used = self.credits_used(book.name.as_bytes()) as usize;
        // Whatever is unanswered may have taken some, or give them back.
        let is_pending = |other: &&Submission| {
            other.taken_in.is_some_and(|(at, _)| {
                let is_young = at >= self.begun_at && at + PENDING >= since;
                is_young || self.may_be_unwritten(other.partition, at)
            })
        };
        let pending: usize = self
            .submissions
            .iter()
            .filter(|other| other.account == submission.account && other.outcome.is_none())
            .filter(is_pending)
            .map(cost)
            .sum();
        book.may(since.saturating_sub(HEARSAY), |settings| {
            settings.credits != 0 && used + pending + cost(submission) > settings.credits as usize
        })
    }

    fn may_be_expired(&self, submission: &Submission, since: u64) -> bool {
        let terms = &submission.terms;
        match (terms.validity, terms.schedule) {
            _ if submission.is_replacement => true,
            (When::Nothing, _) | (When::After(_), When::Nothing) => false,
            (When::At(at), When::Nothing) => at <= self.wall.latest_since(since, self.now),
            (When::At(at), When::At(begin)) => at <= begin || at <= self.wall.latest_since(since, self.now),
            (When::After(seconds), When::After(begin)) => seconds <= begin,
            (When::At(at), When::After(seconds)) => {
                let latest = self.wall.latest_since(since, self.now);
                at.as_millis() <= latest.as_millis() + seconds * 1_000
            }
            (When::After(seconds), When::At(begin)) => {
                let earliest = self.wall.earliest_since(since, self.now);
                earliest.as_millis() + seconds * 1_000 <= begin.as_millis()
            }
        }
    }

    /// Whether a replace_sm names a message that waits and has waited for its time ever since.
    fn could_replace(&self, submission: &Submission, since: u64) -> bool {
        let is_open = |candidate: &Candidate| self.waits_still(candidate.life, candidate.attempts);
        submission.candidates.iter().any(is_open) && !self.could_not_ask(submission.id, since)
    }

    /// A bind with the right password was refused.
    pub(super) fn check_bind_refusal(&mut self, connection: Connection, status: CommandStatus, since: u64) {
        let Some(line) = self.lines.get(&connection) else { return };
        let account = line.esme_account;
        let book = &self.books[account];
        let heard = since.saturating_sub(HEARSAY);
        let gone = since.saturating_sub(self.mesh_nanos + HEARSAY);
        // It heard late of whoever has left.
        if self.frozen_until > 0 && self.frozen_until + self.mesh_nanos + HEARSAY >= since {
            return;
        }
        let others = self
            .lines
            .iter()
            .filter(|(other, line)| **other != connection && line.esme_account == account)
            .filter(|(_, line)| line.may_have_counted(gone))
            .count();
        let is_full = book.may_be_full(heard, others);
        let is_deserved = match status {
            // Nobody had time to look at the password.
            CommandStatus::ESME_RSYSERR => true,
            CommandStatus::ESME_RBINDFAIL => {
                // It was right when it was written; the account may have been away then, and be back with another.
                let written = since.saturating_sub(UNDER_WAY);
                let is_outdated = book.has_other_password(written) || book.may_be_removed(written);
                is_full || is_outdated || line.is_leaving
            }
            _ => line.is_leaving,
        };
        self.require(is_deserved, || {
            format!("connection {connection} of account {account} may not bind ({status}), {others} others may be bound")
        });
    }
}

/// How many segments a submission is, at most.
fn cost(submission: &Submission) -> usize {
    let wish = &submission.wish;
    (wish.text.len() / SEGMENT_OCTETS + 1) * wish.destinations.len().max(1)
}

/// From here on an account of this world has words of its own for the status so far behind.
pub const OWN_WORDS: u32 = 0x400;

/// The status for which an account has a word of its own.
pub(super) const fn unmapped(status: CommandStatus) -> CommandStatus {
    CommandStatus(if status.0 >= OWN_WORDS { status.0 - OWN_WORDS } else { status.0 })
}
