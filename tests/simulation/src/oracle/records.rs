//! What the durable records tell of each message.

use smppd::account::AccountSettings;
use smppd::journal::{Position, Record};
use smppd::message::{Content, MessageId, Parcel, ParcelKey, PartitionNumber, wants_receipt};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{CommandId, DataCoding, RegisteredDelivery, Tag, Tlvs};
use smppd::time::Timestamp;

use super::lateness::Due;
use super::refusals::SEGMENT_OCTETS;
use super::{Life, Oracle, Token, token_of};
use crate::random::Random;
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
    pub(super) service_type: Box<[u8]>,
    /// It was a member of a submit_multi until a submit_sm superseded it: it has a name of its own.
    pub(super) is_own: bool,
    /// How it ended.
    pub(super) end: Option<End>,
    pub(super) standing: Standing,
    pub(super) registered_delivery: RegisteredDelivery,
    pub(super) wants_success: bool,
    pub(super) wants_failure: bool,
    pub(super) segments: u16,
    pub(super) attempts: u32,
    pub(super) times: Times,
    pub(super) accepted_at: Timestamp,
    /// When it was asked for.
    pub(super) begun: u64,
    /// When its acceptance was durable.
    pub(super) noted: u64,
    /// When it was last changed by its sender.
    pub(super) changed: u64,
    pub(super) notifications: u8,
    pub(super) data_coding: DataCoding,
    pub(super) text: Vec<u8>,
    pub(super) reference: Option<Vec<u8>>,
    /// A carrier has told this process of its end.
    pub(super) is_said_over: bool,
    /// How often nothing kept it from going on, and since when; what was due.
    pub(super) late: (u32, u64),
    pub(super) due: Option<Due>,
}

/// How a message ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// Its final state.
    pub state: MessageState,
    /// The carrier's error.
    pub error: u16,
    /// When.
    pub at: Timestamp,
    /// When that was durable.
    pub(super) noted: u64,
}

/// Where a message stands that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// For its time, or for another try: it begins by then at the latest, by the clock that is never put back. The date is
    /// what is on record.
    Waits { pause_until: u64, date: Timestamp },
    /// An attempt is on record; whether its carrier was offered it in this process.
    WithCarrier { is_offered: bool },
}

impl Fact {
    fn read(&mut self, content: &Content<'_>) {
        self.registered_delivery = content.registered_delivery;
        self.wants_success = wants_receipt(content, MessageState::DELIVERED);
        self.wants_failure = wants_receipt(content, MessageState::UNDELIVERABLE);
        self.segments = content.segments;
        self.times = content.into();
        self.accepted_at = content.accepted_at;
        self.tokens.extend(token_of(content.user_data));
        self.data_coding = content.data_coding;
        self.text = content.user_data.to_vec();
        let tlvs = Tlvs::read(content.tlvs, CommandId::SUBMIT_SM).unwrap_or(Tlvs::EMPTY);
        self.reference = tlvs.get(Tag::USER_MESSAGE_REFERENCE).map(<[u8]>::to_vec);
    }

    /// Its final state.
    pub fn ended(&self) -> Option<MessageState> {
        self.end.map(|end| end.state)
    }

    /// Whether no carrier has it, as far as is on record.
    pub(super) const fn waits(&self) -> bool {
        self.end.is_none() && matches!(self.standing, Standing::Waits { .. })
    }

    /// Whether a carrier has it, or may have it.
    pub(super) const fn is_with_carrier(&self) -> bool {
        self.end.is_none() && matches!(self.standing, Standing::WithCarrier { .. })
    }

    /// Whether its end is told.
    pub fn wants_receipt(&self) -> bool {
        match self.ended() {
            Some(MessageState::DELIVERED) => self.wants_success,
            Some(_) => self.wants_failure,
            None => false,
        }
    }

    /// The id that its sender knows it by.
    pub fn public_id(&self, id: MessageId) -> MessageId {
        if self.is_own { id } else { id.of_batch(self.batch_offset) }
    }
}

impl Oracle {
    /// A batch is durable.
    pub fn stored(&mut self, partition: PartitionNumber, position: Position, records: &[u8]) {
        self.wrote(partition);
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

    fn recorded(&mut self, partition: PartitionNumber, record: &Record<'_>) {
        match *record {
            Record::Accepted { attempt, content } => match Content::read(content) {
                Ok(content) => self.accepted(partition, attempt.is_some(), &content),
                Err(_) => self.violate("a content cannot be read".to_owned()),
            },
            Record::Replaced { content, .. } => match Content::read(content) {
                Ok(content) => self.replaced(&content),
                Err(_) => self.violate("the content of a replacement cannot be read".to_owned()),
            },
            Record::Attempt { id, .. } => {
                let waited = self.fact(id).is_some_and(Fact::waits);
                self.require(waited, || format!("an attempt with {id} begins, which does not wait for one"));
                if let Some(fact) = self.fact_mut(id) {
                    fact.attempts += 1;
                    fact.standing = Standing::WithCarrier { is_offered: false };
                    fact.late.0 = 0;
                }
            }
            Record::Deferred { id, until, .. } => {
                let pause_until = self.now + self.retry_nanos;
                let is_with_carrier = self.fact(id).is_some_and(Fact::is_with_carrier);
                self.require(is_with_carrier, || format!("{id} is put off, and no carrier had it"));
                if let Some(fact) = self.fact_mut(id) {
                    fact.standing = Standing::Waits { pause_until, date: until };
                    fact.late.0 = 0;
                }
            }
            Record::Interim { id, state, at, told } => self.reported(id, state, at, told),
            Record::Final { id, state, error, at } => self.finished(id, state, error, at),
            Record::Settled { id, part } => self.settled(id, part),
            Record::Mo(octets) => {
                let Ok(parcel) = Parcel::read(octets) else {
                    return self.violate("a reply cannot be read".to_owned());
                };
                let view = parcel.view();
                let Some(token) = token_of(view.mandatory) else {
                    return self.violate("a reply that nobody wrote is on record".to_owned());
                };
                let name = (Life::first(view.key.id), ParcelKey::REPLY);
                self.owe(name, view.system_id, None, view.created_at, Some(token));
                self.check_reply(token, view.system_id);
            }
            Record::Forwarded { .. } | Record::MessageAtRest { .. } | Record::DeliveryAtRest(_) => {}
        }
    }

    fn accepted(&mut self, partition: PartitionNumber, is_attempted: bool, content: &Content<'_>) {
        let id = content.id;
        let standing = match is_attempted {
            true => Standing::WithCarrier { is_offered: false },
            false => Standing::Waits { pause_until: 0, date: Timestamp::ZERO },
        };
        let token = token_of(content.user_data);
        let asked = token.and_then(|token| self.submissions.get(token as usize));
        let begun = asked.and_then(|asked| asked.taken_in).map_or(self.now, |(at, _)| at);
        let mut fact = Fact {
            account: content.system_id.into(),
            tokens: Vec::new(),
            batch_offset: content.batch_offset,
            batch_count: content.batch_count,
            source: content.source.digits.into(),
            destination: content.destination.digits.into(),
            service_type: content.service_type.into(),
            is_own: false,
            end: None,
            standing,
            registered_delivery: content.registered_delivery,
            wants_success: false,
            wants_failure: false,
            segments: content.segments,
            attempts: u32::from(is_attempted),
            times: content.into(),
            accepted_at: content.accepted_at,
            begun,
            noted: self.now,
            changed: self.now,
            notifications: 0,
            data_coding: content.data_coding,
            text: Vec::new(),
            reference: None,
            is_said_over: false,
            late: (0, self.now),
            due: None,
        };
        fact.read(content);
        self.check_content(content, None);
        self.seen.scheduled += u64::from(content.is_scheduled());
        self.check_times(content, None);
        self.pay(content, content.segments, content.segments);
        self.require(id.partition() == partition, || format!("{id} is in partition {partition}"));
        let before = self.life(id);
        if let Some(old) = self.facts.get(&before) {
            // After eight million messages short ids come again, when nothing is left of the old one.
            let is_over = id.is_short() && old.end.is_some() && self.is_all_settled(before);
            self.require(is_over, || format!("message_id {id} was given out twice"));
            self.seen.reused += 1;
            self.lives.insert(id, before.number + 1);
        }
        *self.open.entry(partition).or_default() += 1;
        self.facts.insert(self.life(id), fact);
    }

    fn replaced(&mut self, content: &Content<'_>) {
        let life = self.life(content.id);
        let token = token_of(content.user_data);
        let now = self.now;
        let is_replace_sm = token.is_some_and(|token| {
            self.submissions.get(token as usize).is_some_and(|submission| submission.is_replacement)
        });
        let waited = self.facts.get(&life).is_some_and(Fact::waits);
        self.require(waited, || format!("{life:?} is replaced, and does not wait"));
        let Some(fact) = self.facts.get_mut(&life) else { return };
        let (paid, before) = (fact.segments, fact.times);
        let more = content.segments.saturating_sub(paid);
        fact.read(content);
        fact.changed = now;
        fact.is_own |= !is_replace_sm && fact.batch_offset > 0;
        fact.late.0 = 0;
        self.seen.superseded += u64::from(!is_replace_sm);
        self.check_times(content, Some(before));
        self.check_content(content, Some((paid, is_replace_sm)));
        // How long the new text is does not show when the old one was longer.
        self.pay(content, more, 1);
        self.seen.replaced += 1;
    }

    /// A carrier has said something of a message, short of its end.
    fn reported(&mut self, id: MessageId, said: MessageState, at: Timestamp, told: Option<MessageState>) {
        let life = self.life(id);
        let Some(fact) = self.facts.get(&life).cloned() else {
            return self.violate(format!("{id} is told of without being accepted"));
        };
        let since = self.now.saturating_sub(super::HEARSAY);
        let may_be_accepted = self.account_of(&fact.account).is_some_and(|account| {
            let book = &self.books[account];
            // An account that is removed, or that only the journal knows, has nothing of its own.
            book.may(since, |settings| settings.accepted_receipts) || book.may_be_removed(since)
        });
        let has_room = fact.notifications < ParcelKey::NOTIFICATIONS_MAX;
        match told {
            None => {
                let is_owed = fact.registered_delivery.intermediate() && has_room;
                self.require(!is_owed, || format!("{id} came to {said:?}, and its sender is not told"));
            }
            Some(MessageState::ACCEPTED) => {
                let is_asked = fact.wants_success && may_be_accepted && said == MessageState::ACCEPTED;
                self.require(is_asked && has_room, || {
                    format!("nobody asked for the notification ACCEPTED of {id}")
                });
            }
            Some(told) => {
                let is_asked = fact.registered_delivery.intermediate();
                self.require(is_asked && has_room && told == MessageState::ENROUTE, || {
                    format!("nobody asked for the notification {told:?} of {id}")
                });
            }
        }
        let is_shown = self.wall.has_shown(at, fact.begun, self.now);
        self.require(is_shown, || format!("{id} came to {said:?} at {at}, which the clock did not show"));
        if told.is_some() {
            let part = ParcelKey::NOTIFICATION_FIRST + fact.notifications;
            if let Some(fact) = self.facts.get_mut(&life) {
                fact.notifications += 1;
            }
            self.owe((life, part), &fact.account, told, at, None);
        }
    }

    fn finished(&mut self, id: MessageId, state: MessageState, error: u16, at: Timestamp) {
        self.seen.ended += 1;
        let (life, noted) = (self.life(id), self.now);
        self.ends.entry(id.partition()).or_default().push(noted);
        let open = self.open.entry(id.partition()).or_default();
        *open = open.saturating_sub(1);
        let Some(fact) = self.facts.get_mut(&life) else {
            return self.violate(format!("{id} has ended without being accepted"));
        };
        let before = fact.clone();
        fact.end = Some(End { state, error, at, noted });
        let is_told = fact.wants_receipt();
        if let Some(end) = before.end {
            return self.violate(format!("{id} ended {:?}, then {state:?}", end.state));
        }
        let was_cancelled = self.cancelled.contains(&life);
        self.require(!was_cancelled || state == MessageState::DELETED, || {
            format!("{id} was cancelled and ended {state:?}")
        });
        let is_shown = self.wall.has_shown(at, before.begun, self.now);
        self.require(is_shown, || format!("{id} ended at {at}, which the clock did not show"));
        let is_said = self.said.get(&life).is_some_and(|said| said.contains(&(state, error)));
        match state {
            _ if is_said => {}
            MessageState::EXPIRED => {
                self.seen.expired += 1;
                let expires_at = before.times.expires_at;
                self.require(at >= expires_at, || {
                    format!("{id} expired at {at}, it was valid until {expires_at}")
                });
            }
            MessageState::DELETED if before.waits() => self.taken_back(life, &before),
            _ => self.violate(format!("{id} ended {state:?} with error {error}, and no carrier has said so")),
        }
        if is_told {
            self.owe((life, ParcelKey::FINAL_RECEIPT), &before.account, Some(state), at, None);
        }
    }

    /// Whether what is on record is what was asked for. `replaced`: the segments of what was replaced, which are paid for,
    /// and whether by replace_sm, which says only some of it.
    fn check_content(&mut self, content: &Content<'_>, replaced: Option<(u16, bool)>) {
        let id = content.id;
        let token = token_of(content.user_data);
        let Some(submission) = token.and_then(|token| self.submissions.get(token as usize)) else { return };
        let wish = submission.wish.clone();
        let since = submission.taken_in.map_or(0, |(at, _)| at).saturating_sub(super::HEARSAY);
        let is_own = |settings: &AccountSettings| {
            settings.numbers.first().is_some_and(|first| first.as_bytes() == content.source.digits)
        };
        let is_source = match wish.source.is_empty() {
            true => self.books[submission.account].may(since, is_own),
            false => *wish.source == *content.source.digits,
        };
        let tlvs = Tlvs::read(content.tlvs, CommandId::SUBMIT_SM).unwrap_or(Tlvs::EMPTY);
        let reference = tlvs.get(Tag::USER_MESSAGE_REFERENCE);
        let octets = wish.text.len();
        let (paid, is_replace_sm) = replaced.unwrap_or_default();
        let most = (octets / SEGMENT_OCTETS + 1).max(paid.into());
        let segments = octets.div_ceil(160)..=most;
        let is_right = content.registered_delivery == wish.registered_delivery
            && *content.user_data == *wish.text
            && segments.contains(&usize::from(content.segments))
            && wish.data_coding.is_none_or(|data_coding| data_coding == content.data_coding);
        let is_right = is_right
            && (is_replace_sm
                || is_source
                    && reference == wish.reference.as_deref()
                    && wish.destinations.iter().any(|to| **to == *content.destination.digits)
                    && *content.service_type == *wish.service_type);
        self.require(is_right, || format!("{id}: on record is {content:?}, it should be {wish:?}"));
    }

    /// Whether the times on record are those that were asked for. `before`: those of the message that was replaced.
    fn check_times(&mut self, content: &Content<'_>, before: Option<Times>) {
        let id = content.id;
        let Some(submission) =
            token_of(content.user_data).and_then(|token| self.submissions.get(token as usize))
        else {
            return self.violate(format!("{id} was submitted by nobody"));
        };
        let Some((since, _)) = submission.taken_in else {
            return self.violate(format!("{id} is on record before it was asked for"));
        };
        let (is, accepted_at) = (Times::from(content), content.accepted_at);
        let wall = self.wall.earliest_since(since, self.now)..=self.wall.latest_since(since, self.now);
        let expected = match before {
            Some(before) if submission.is_replacement => submission.terms.replaced(before, is, wall),
            Some(_) | None => submission.terms.accepted(accepted_at),
        };
        let (terms, is_new) = (submission.terms, !submission.is_replacement);
        self.require(is == expected, || {
            format!("{id}: {terms:?} should be {expected:?}, on record is {is:?}")
        });
        self.require(!is_new || self.wall.has_shown(accepted_at, since, self.now), || {
            format!("{id} was accepted at {accepted_at}, which the clock did not show")
        });
    }

    /// A record takes credits of its account, and took so many messages of its rate, at least.
    fn pay(&mut self, content: &Content<'_>, credits: u16, messages: u16) {
        let used = self.credits.entry(content.system_id.into()).or_default();
        *used += u64::from(credits);
        let used = *used;
        let submission =
            token_of(content.user_data).and_then(|token| self.submissions.get_mut(token as usize));
        let Some(submission) = submission else { return };
        submission.admitted += u64::from(messages);
        let Some((asked_at, _)) = submission.taken_in.filter(|_| credits > 0) else { return };
        if let Some(wrong) = self.books[submission.account].allowance.check_credits(used, asked_at) {
            self.violate(format!("{}: {wrong}", content.id));
        }
    }

    /// Credits that the durable records have used.
    pub fn credits_used(&self, account: &[u8]) -> u64 {
        self.credits.get(account).copied().unwrap_or(0)
    }

    /// Messages that an account may ask after, as their senders know them; of those with one name the youngest.
    pub fn messages_of(&self, account: &[u8]) -> Vec<(MessageId, Box<[u8]>)> {
        let own = self.facts.iter().filter(|(life, fact)| {
            *fact.account == *account
                && (fact.batch_offset == 0 || fact.is_own)
                && **life == self.life(life.id)
        });
        own.map(|(life, fact)| (life.id, fact.source.clone())).collect()
    }

    /// The short ids that a partition has given out, as far as they led to a message, and those of them whose message has
    /// not ended.
    pub fn short_ids(&self, partition: PartitionNumber) -> (Vec<MessageId>, Vec<MessageId>) {
        let own =
            || self.facts.iter().filter(|(life, _)| life.id.is_short() && life.id.partition() == partition);
        let used = own().filter(|(life, _)| life.number == 0).map(|(life, _)| life.id).collect();
        let open = own().filter(|(_, fact)| fact.end.is_none()).map(|(life, _)| life.id).collect();
        (used, open)
    }

    /// A message of an account that has not ended, as its sender knows it.
    pub fn open_message(&self, account: usize, random: &mut Random) -> Option<(MessageId, Box<[u8]>)> {
        let name = self.books[account].name.as_bytes();
        let open: Vec<_> =
            self.facts.iter().filter(|(_, fact)| *fact.account == *name && fact.end.is_none()).collect();
        let (life, fact) = if open.is_empty() { return None } else { open[random.place(open.len())] };
        Some((life.id, fact.source.clone()))
    }

    /// The youngest message of a name.
    pub fn fact(&self, id: MessageId) -> Option<&Fact> {
        self.facts.get(&self.life(id))
    }

    pub(super) fn fact_mut(&mut self, id: MessageId) -> Option<&mut Fact> {
        let life = self.life(id);
        self.facts.get_mut(&life)
    }

    /// The youngest life of a name.
    pub(super) fn life(&self, id: MessageId) -> Life {
        Life { id, number: self.lives.get(&id).copied().unwrap_or(0) }
    }
}
