//! What the durable records tell of each message.

use smppd::journal::{Position, Record};
use smppd::message::{Content, MessageId, Parcel, ParcelKey, PartitionNumber, wants_receipt};
use smppd::pdu::RegisteredDelivery;
use smppd::pdu::receipt::MessageState;

use super::{Oracle, Token, token_of};
use crate::terms::Times;

/// A message, as the records that are durable tell of it.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Whose it is.
    pub account: Box<[u8]>,
    /// The tokens in its texts, the newest last.
    pub tokens: Vec<Token>,
    /// Its place in its submit_multi.
    pub batch_offset: u8,
    /// How many that made.
    pub batch_count: u8,
    /// Its sender.
    pub source: Box<[u8]>,
    /// Its recipient.
    pub destination: Box<[u8]>,
    /// How it ended.
    pub ended: Option<MessageState>,
    pub(super) registered_delivery: RegisteredDelivery,
    pub(super) wants_success: bool,
    pub(super) wants_failure: bool,
    pub(super) segments: u16,
    pub(super) attempts: u32,
    pub(super) times: Times,
}

impl Fact {
    fn read(&mut self, content: &Content<'_>) {
        self.registered_delivery = content.registered_delivery;
        self.wants_success = wants_receipt(content, MessageState::DELIVERED);
        self.wants_failure = wants_receipt(content, MessageState::UNDELIVERABLE);
        self.segments = content.segments;
        self.times = content.into();
        self.tokens.extend(token_of(content.user_data));
    }

    /// Whether its end is told.
    pub const fn wants_receipt(&self) -> bool {
        match self.ended {
            Some(MessageState::DELIVERED) => self.wants_success,
            Some(_) => self.wants_failure,
            None => false,
        }
    }
}

impl Oracle {
    /// A batch is durable.
    pub fn stored(&mut self, partition: PartitionNumber, position: Position, records: &[u8]) {
        let last = self.indexed.insert(partition, position).unwrap_or_default();
        self.require(position == last.next(), || format!("batch {position:?} is durable behind {last:?}"));
        let mut records = records;
        loop {
            match Record::take(&mut records) {
                Ok(Some(record)) => self.recorded(partition, &record),
                Ok(None) => return,
                Err(_) => return self.violate(format!("partition {partition}: a record cannot be read")),
            }
        }
    }

    /// A new process has read the journal up to `last`; what it found behind what we know was in flight when the
    /// old one ended.
    pub fn recovered<'a>(
        &mut self,
        partition: PartitionNumber,
        last: Position,
        batches: impl Iterator<Item = (Position, &'a [u8])>,
    ) {
        let known = self.indexed.get(&partition).copied().unwrap_or_default();
        self.require(last >= known, || {
            format!("partition {partition}: batch {known:?} was durable, recovery ends at {last:?}")
        });
        for (position, records) in batches.filter(|(position, _)| *position > known) {
            self.stored(partition, position, records);
        }
    }

    pub(super) fn recorded(&mut self, partition: PartitionNumber, record: &Record<'_>) {
        match *record {
            Record::Accepted { attempt, content } => {
                let Ok(content) = Content::read(content) else {
                    return self.violate("a content cannot be read".to_owned());
                };
                let mut fact = Fact {
                    account: content.system_id.into(),
                    tokens: Vec::new(),
                    batch_offset: content.batch_offset,
                    batch_count: content.batch_count,
                    source: content.source.digits.into(),
                    destination: content.destination.digits.into(),
                    ended: None,
                    registered_delivery: content.registered_delivery,
                    wants_success: false,
                    wants_failure: false,
                    segments: content.segments,
                    attempts: u32::from(attempt.is_some()),
                    times: (&content).into(),
                };
                fact.read(&content);
                self.seen.scheduled += u64::from(content.is_scheduled());
                self.check_times(&content, None);
                self.pay(&content, content.segments, content.segments);
                let id = content.id;
                self.require(id.partition() == partition, || format!("{id} is in partition {partition}"));
                let is_new = self.facts.insert(id, fact).is_none();
                self.require(is_new, || format!("message_id {id} was given out twice"));
            }
            Record::Replaced { content, .. } => {
                let Ok(content) = Content::read(content) else { return };
                let Some(fact) = self.facts.get_mut(&content.id) else { return };
                let (more, before) = (content.segments.saturating_sub(fact.segments), fact.times);
                fact.read(&content);
                self.check_times(&content, Some(before));
                // How long the new text is does not show when the old one was longer.
                self.pay(&content, more, 1);
                self.seen.replaced += 1;
            }
            Record::Attempt { id, .. } => {
                if let Some(fact) = self.facts.get_mut(&id) {
                    fact.attempts += 1;
                }
            }
            Record::Final { id, state, at, .. } => {
                self.seen.ended += 1;
                let Some(fact) = self.facts.get_mut(&id) else {
                    return self.violate(format!("{id} has ended without being accepted"));
                };
                let expires_at = fact.times.expires_at;
                if let Some(before) = fact.ended.replace(state) {
                    self.violate(format!("{id} ended {before:?}, then {state:?}"));
                }
                let was_cancelled = self.cancelled.contains(&id);
                self.require(!was_cancelled || state == MessageState::DELETED, || {
                    format!("{id} was cancelled and ended {state:?}")
                });
                if state == MessageState::EXPIRED && !self.said_expired.contains(&id) {
                    self.seen.expired += 1;
                    self.require(at >= expires_at, || {
                        format!("{id} expired at {at}, it was valid until {expires_at}")
                    });
                }
            }
            Record::Settled { id, part } => _ = self.settled.insert(ParcelKey { id, part }),
            Record::Mo(octets) => {
                if let Ok(parcel) = Parcel::read(octets) {
                    self.stored_replies.extend(token_of(parcel.view().mandatory));
                }
            }
            Record::Forwarded { .. }
            | Record::Deferred { .. }
            | Record::Interim { .. }
            | Record::MessageAtRest { .. }
            | Record::DeliveryAtRest(_) => {}
        }
    }

    /// Whether the times on record are those that were asked for. `before`: those of the message that was replaced.
    pub(super) fn check_times(&mut self, content: &Content<'_>, before: Option<Times>) {
        let id = content.id;
        let Some(submission) =
            token_of(content.user_data).and_then(|token| self.submissions.get(token as usize))
        else {
            return self.violate(format!("{id} was submitted by nobody"));
        };
        let Some((_, taken_in)) = submission.taken_in else {
            return self.violate(format!("{id} is on record before it was asked for"));
        };
        let (is, accepted_at, latest) = (Times::from(content), content.accepted_at, self.wall_latest);
        let expected = match before {
            Some(before) if submission.is_replacement => submission.terms.replaced(before, is, latest),
            Some(_) | None => submission.terms.accepted(accepted_at),
        };
        let (terms, is_new) = (submission.terms, !submission.is_replacement);
        self.require(is == expected, || {
            format!("{id}: {terms:?} should be {expected:?}, on record is {is:?}")
        });
        self.require(!is_new || (taken_in..=latest).contains(&accepted_at), || {
            format!("{id} was accepted at {accepted_at}, which is not between {taken_in} and {latest}")
        });
    }

    /// A record takes credits of its account, and took so many messages of its rate, at least.
    pub(super) fn pay(&mut self, content: &Content<'_>, credits: u16, messages: u16) {
        let used = self.credits.entry(content.system_id.into()).or_default();
        *used += u64::from(credits);
        let used = *used;
        let submission =
            token_of(content.user_data).and_then(|token| self.submissions.get_mut(token as usize));
        let Some(submission) = submission else { return };
        submission.admitted += u64::from(messages);
        let Some((asked_at, _)) = submission.taken_in.filter(|_| credits > 0) else { return };
        if let Some(wrong) = self.allowances[submission.account].check_credits(used, asked_at) {
            self.violate(format!("{}: {wrong}", content.id));
        }
    }

    /// Credits that the durable records have used.
    pub fn credits_used(&self, account: &[u8]) -> u64 {
        self.credits.get(account).copied().unwrap_or(0)
    }

    /// Messages that an account may ask after, as their senders know them.
    pub fn messages_of(&self, account: &[u8]) -> Vec<(MessageId, Box<[u8]>)> {
        let own = self.facts.iter().filter(|(_, fact)| *fact.account == *account && fact.batch_offset == 0);
        own.map(|(id, fact)| (*id, fact.source.clone())).collect()
    }

    /// A message.
    pub fn fact(&self, id: MessageId) -> Option<&Fact> {
        self.facts.get(&id)
    }
}
