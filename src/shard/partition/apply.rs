//! The one place where a partition changes: a record, applied.

use std::borrow::Cow;

use super::memory::{Kept, Memory, TimerKey};
use super::{Follows, HeldMessage, HeldParcel};
use crate::account::{AccountIndex, Accounts};
use crate::journal::{Record, SegmentNumber};
use crate::message::{
    Content, Effect, Event, Message, MessageId, Neighbourhood, Parcel, ParcelKey, Refused, Standing, State,
    next, receipt_for, wants_receipt,
};
use crate::pdu::receipt::MessageState;
use crate::store::{FinalMessage, RestKey, RestPlace};
use crate::time::{Instant, Timestamp};

/// Where a record comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A segment of the journal; the sum of credits may hold the record already.
    Journal {
        /// Which one.
        segment: SegmentNumber,
        /// Whether its credits are still to be counted.
        counts_credits: bool,
    },
    /// The state at rest.
    Rest(RestPlace),
}

impl Source {
    /// A record that is being made.
    pub(super) const fn live(segment: SegmentNumber) -> Self {
        Self::Journal { segment, counts_credits: true }
    }

    const fn counts_credits(&self) -> bool {
        matches!(self, Self::Journal { counts_credits: true, .. })
    }
}

impl Memory {
    /// Changes the memory as `record` says; what that earns once it is durable.
    pub(super) fn apply(
        &mut self,
        record: &Record<'_>,
        source: &Source,
        accounts: &Accounts,
    ) -> Result<Option<Follows>, ApplyError> {
        let from = From { source, accounts };
        match *record {
            Record::Accepted { attempt, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                self.accept(attempt, &view, content.into(), source, accounts)?;
                Ok(attempt.map(|_| Follows::first_attempt(view.id)))
            }
            Record::MessageAtRest { standing, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                if self.messages.contains(view.id) {
                    return Err(ApplyError::Refused(Refused::InTransit));
                }
                self.insert(&view, Message::new(content.into(), view.expires_at, standing), source, accounts);
                Ok(None)
            }
            Record::Attempt { id, carrier } => self.happen(id, Event::Attempt, from, |message| {
                message.standing.begin_attempt(carrier);
            }),
            Record::Forwarded { id, carrier_id: _ } => {
                self.happen(id, Event::Forwarded, from, |message| message.standing.deferrals = 0)
            }
            Record::Deferred { id, until, error } => self.happen(id, Event::Deferred, from, |message| {
                message.standing.deferrals = message.standing.deferrals.saturating_add(1);
                message.standing.deadline = until;
                message.standing.error = error;
            }),
            Record::Interim { id, state, at, told } => self.notify(id, state, told, at, from),
            Record::Final { id, state, error, at } => {
                let message = &self.messages.get(id).ok_or(ApplyError::Unknown)?.message;
                let event = match state {
                    MessageState::EXPIRED => Event::Expired,
                    MessageState::DELETED if message.standing.state.is_waiting() => Event::Cancelled,
                    _ => Event::Reported(state),
                };
                let (_, effect) = next(message.standing.state, event).map_err(ApplyError::Refused)?;
                let Effect::End(ended) = effect else { return Err(ApplyError::Unreadable) };
                self.end(id, ended, error, at, from)
            }
            Record::Replaced { more, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                let event = Event::Replaced { scheduled: view.is_scheduled() };
                let mut old_octets = content.len();
                let earned = self.happen(view.id, event, from, |message| {
                    old_octets = message.content_octets().len();
                    message.replace_content(&view, content.into());
                })?;
                self.octets = self.octets + content.len() - old_octets;
                self.count_credits(view.system_id, more.into(), source);
                Ok(earned)
            }
            Record::Mo(octets) | Record::DeliveryAtRest(octets) => {
                let parcel = Parcel::read(octets).map_err(|_| ApplyError::Unreadable)?;
                let account = accounts.index_of(parcel.view().system_id);
                Ok(account.map(|account| self.hold(account, parcel, from, None)))
            }
            Record::Settled { id, part } => {
                let key = ParcelKey { id, part };
                let held = self.remove_parcel(key).ok_or(ApplyError::Unknown)?;
                if let Source::Journal { segment, .. } = *source {
                    self.mark_gone(RestKey::Parcel(key), held.kept, segment);
                }
                Ok(None)
            }
        }
    }

    /// A message is accepted, with the content `view` that is written in `octets`; `attempt` is the carrier that its first
    /// attempt begins with at once. Gives the octets back, to be put on record.
    pub(super) fn accept(
        &mut self,
        attempt: Option<u8>,
        view: &Content<'_>,
        octets: Vec<u8>,
        source: &Source,
        accounts: &Accounts,
    ) -> Result<&[u8], ApplyError> {
        if self.messages.contains(view.id) {
            return Err(ApplyError::Refused(Refused::InTransit));
        }
        let mut standing = Standing::accepted(view);
        if let Some(carrier) = attempt {
            let (state, _) = next(standing.state, Event::Attempt).map_err(ApplyError::Refused)?;
            standing.state = state;
            standing.begin_attempt(carrier);
        }
        self.count_credits(view.system_id, view.segments.into(), source);
        let held = self.insert(view, Message::new(octets, view.expires_at, standing), source, accounts);
        Ok(held.message.content_octets())
    }

    /// Adds to what an account has used, unless that was counted already.
    #[inline(always)]
    pub(super) fn count_credits(&mut self, system_id: &[u8], segments: u64, source: &Source) {
        if source.counts_credits() {
            self.add_credits(system_id, segments);
        }
    }

    fn add_credits(&mut self, system_id: &[u8], segments: u64) {
        match self.credits_used.get_mut(system_id) {
            Some(used) => *used += segments,
            None => _ = self.credits_used.insert(system_id.into(), segments),
        }
    }

    /// A message that is not here yet is.
    #[inline(always)]
    fn insert(
        &mut self,
        view: &Content<'_>,
        message: Message,
        source: &Source,
        accounts: &Accounts,
    ) -> &HeldMessage {
        // The ids of a submit_multi belong together, even where the power went before all of it was durable. What is
        // at rest the checkpoint vouches for; an old short id would look like a young one.
        if matches!(source, Source::Journal { .. }) {
            self.ids.observe(view.last_id());
        }
        let kept = self.kept_by(source, RestKey::Message(view.id), None);
        let paused_until = self.pause_of(&message.standing);
        self.add_message(view.id, message, kept, paused_until, accounts)
    }

    /// When the pause ends that a message makes before its next attempt, as the record of its last one says.
    #[inline(always)]
    pub(super) fn pause_of(&self, standing: &Standing) -> Instant {
        if standing.state == State::Queued && standing.deferrals > 0 {
            self.now.pause_until(standing.deadline, self.retry_delay_max)
        } else {
            Instant::MAX
        }
    }

    /// How something is kept that comes from `source`, and from something that needs the journal from `origin` on: replay
    /// makes a receipt from the message it is about, and needs what the message needs.
    #[inline(always)]
    fn kept_by(&mut self, source: &Source, key: RestKey, origin: Option<SegmentNumber>) -> Kept {
        match *source {
            Source::Journal { segment, .. } => {
                let since = origin.unwrap_or(segment);
                self.journaled.add(since, key);
                Kept::in_journal(since)
            }
            Source::Rest(place) => Kept::at_rest(place),
        }
    }

    /// Something happens to a message that goes on: as the table says, and `change`.
    fn happen(
        &mut self,
        id: MessageId,
        event: Event,
        from: From<'_>,
        change: impl FnOnce(&mut Message),
    ) -> Result<Option<Follows>, ApplyError> {
        let (message, effect) = self.change(id, event, from, change)?;
        match effect {
            Effect::HandOver => Ok(Some(hand_over(id, message))),
            Effect::Nothing => Ok(None),
            Effect::Notify | Effect::End(_) => unreachable!("only reports lead to these"),
        }
    }

    /// A message is reported on, short of its end; its sender is told so, if anything.
    fn notify(
        &mut self,
        id: MessageId,
        said: MessageState,
        told: Option<MessageState>,
        at: Timestamp,
        from: From<'_>,
    ) -> Result<Option<Follows>, ApplyError> {
        if said.is_final() {
            return Err(ApplyError::Unreadable);
        }
        let origin = self.messages.get(id).ok_or(ApplyError::Unknown)?.kept.since();
        let mut notification = None;
        self.change(id, Event::Reported(said), from, |message| {
            notification = told.and_then(|told| self::notification(message, told, at, from.accounts));
        })?;
        Ok(notification.map(|(account, parcel)| self.hold(account, parcel, from, origin)))
    }

    /// A message that goes on gets the state that the table says and whatever else `change` changes, with its alarm and
    /// its place among those that wait.
    fn change(
        &mut self,
        id: MessageId,
        event: Event,
        from: From<'_>,
        change: impl FnOnce(&mut Message),
    ) -> Result<(&Message, Effect), ApplyError> {
        let Self { messages, waiting, wheels, journaled, now, retry_delay_max, .. } = self;
        let (held, note) = messages.get_with_note(id).ok_or(ApplyError::Unknown)?;
        let message = &mut held.message;
        let (state, effect) = next(message.standing.state, event).map_err(ApplyError::Refused)?;
        let waited = waiting.place_of(message, from.accounts);
        message.standing.state = state;
        change(message);
        let waits = waiting.place_of(message, from.accounts);
        waiting.note(waited, waits);
        held.paused_until = match event {
            Event::Deferred => now.pause_until(message.standing.deadline, *retry_delay_max),
            Event::Attempt
            | Event::Forwarded
            | Event::Reported(_)
            | Event::Expired
            | Event::Cancelled
            | Event::Replaced { .. } => Instant::MAX,
        };
        note.set(wheels, held.due_at(), TimerKey::Messages(Neighbourhood::of(id)));
        if let Source::Journal { segment, .. } = *from.source {
            Self::mark(journaled, &mut held.kept, segment, RestKey::Message(id));
        }
        Ok((&held.message, effect))
    }

    /// A message leaves: what query_sm needs of it stays, and a receipt if its sender wants one.
    fn end(
        &mut self,
        id: MessageId,
        state: MessageState,
        error: u16,
        at: Timestamp,
        from: From<'_>,
    ) -> Result<Option<Follows>, ApplyError> {
        let HeldMessage { message, kept, .. } =
            self.remove_message(id, from.accounts).ok_or(ApplyError::Unknown)?;
        if let Source::Journal { segment, .. } = *from.source {
            self.mark_gone(RestKey::Message(id), kept, segment);
        }
        let content = message.content();
        self.finals_full |= self.finals.put(&FinalMessage {
            id,
            batch_offset: content.batch_offset,
            batch_count: content.batch_count,
            state,
            error,
            final_date: at,
            system_id: Cow::Borrowed(content.system_id),
            source_addr: Cow::Borrowed(content.source.digits),
        });
        let receipt = wants_receipt(&content, state)
            .then(|| receipt(&content, ParcelKey::FINAL_RECEIPT, state, error, at, from.accounts));
        self.spares.give(message.into_content_octets());
        Ok(receipt.flatten().map(|(account, parcel)| self.hold(account, parcel, from, kept.since())))
    }

    /// Keeps an account's parcel until it is settled; `origin` is where the journal is needed from for the message that it is
    /// about.
    fn hold(
        &mut self,
        account: AccountIndex,
        parcel: Parcel,
        from: From<'_>,
        origin: Option<SegmentNumber>,
    ) -> Follows {
        let source = from.source;
        let view = parcel.view();
        let key = view.key;
        if key.part == ParcelKey::REPLY && matches!(source, Source::Journal { .. }) {
            self.ids.observe(key.id);
            // Costs nothing, but the checkpoint names every account that something at rest is for.
            self.count_credits(view.system_id, 0, source);
        }
        if let Some(kept) = self.parcels.get(key).map(|old| old.kept) {
            if let Source::Journal { segment, .. } = *source {
                // Replay makes a receipt again that is at rest already: there it stays, once.
                if kept.since().is_none() && kept.place().is_some() {
                    return Follows::Deliver { key, account };
                }
                self.mark_gone(RestKey::Parcel(key), kept, segment);
            }
            self.remove_parcel(key);
        }
        let expires_at = parcel.expires_at(self.parcel_retention);
        let kept = self.kept_by(source, RestKey::Parcel(key), origin);
        let paused_until = Instant::MAX;
        let held =
            HeldParcel { parcel, account, attempts: 0, expires_at, paused_until, in_flight: false, kept };
        self.add_parcel(key, held);
        Follows::Deliver { key, account }
    }
}

/// A record's source, and the accounts there are.
#[derive(Clone, Copy)]
struct From<'a> {
    source: &'a Source,
    accounts: &'a Accounts,
}

/// The attempt that a message has begun.
const fn hand_over(id: MessageId, message: &Message) -> Follows {
    Follows::HandOver { id, deferrals: message.standing.deferrals }
}

/// One more thing that a message's sender is told on the way.
fn notification(
    message: &mut Message,
    told: MessageState,
    at: Timestamp,
    accounts: &Accounts,
) -> Option<(AccountIndex, Parcel)> {
    let part = ParcelKey::NOTIFICATION_FIRST + message.standing.notifications;
    message.standing.notifications += 1;
    receipt(&message.content(), part, told, 0, at, accounts)
}

/// What a message's sender is told of it, in the account's alphabet; nothing if there is no such account any more.
fn receipt(
    content: &Content<'_>,
    part: u8,
    state: MessageState,
    error: u16,
    at: Timestamp,
    accounts: &Accounts,
) -> Option<(AccountIndex, Parcel)> {
    let account = accounts.index_of(content.system_id)?;
    let alphabet = accounts.get(account).settings.default_alphabet;
    let parcel = receipt_for(content, part, state, error, at, alphabet.into())
        .unwrap_or_else(|_| unreachable!("the addresses were checked when the message was accepted"));
    Some((account, parcel))
}

/// Why a record changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplyError {
    /// The life cycle does not allow it.
    Refused(Refused),
    /// What it is about is not here, or not any more.
    Unknown,
    /// It is not a record of this version.
    Unreadable,
}

/// What a record is about.
pub fn subject(record: &Record<'_>) -> Option<RestKey> {
    match *record {
        Record::Accepted { content, .. }
        | Record::Replaced { content, .. }
        | Record::MessageAtRest { content, .. } => Content::id_of(content).map(RestKey::Message),
        Record::Attempt { id, .. }
        | Record::Forwarded { id, .. }
        | Record::Deferred { id, .. }
        | Record::Interim { id, .. }
        | Record::Final { id, .. } => Some(RestKey::Message(id)),
        Record::Mo(octets) | Record::DeliveryAtRest(octets) => Parcel::key_of(octets).map(RestKey::Parcel),
        Record::Settled { id, part } => Some(RestKey::Parcel(ParcelKey { id, part })),
    }
}
