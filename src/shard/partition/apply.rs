//! The one place where a partition changes: a record, applied.

use super::{HeldParcel, Partition, TimerKey};
use crate::account::{AccountIndex, Accounts};
use crate::journal::Record;
use crate::message::{
    Content, Event, Message, MessageId, Parcel, ParcelKey, Refused, next, receipt_for, wants_receipt,
};
use crate::pdu::receipt::MessageState;
use crate::store::{FinalMessage, RestKey};
use crate::time::Timestamp;

/// What a message or parcel takes in memory beside its octets: its fields, its places in the tables, its timer.
const BESIDE_OCTETS: usize = 256;

impl Partition {
    /// Changes the partition as `record` says; the parcel that came of it.
    pub(super) fn apply(
        &mut self,
        record: &Record<'_>,
        accounts: &Accounts,
    ) -> Result<Option<ParcelKey>, ApplyError> {
        match *record {
            Record::Accepted { attempt, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                let mut message = Message::accept(&view, content.into());
                if let Some(carrier) = attempt {
                    let state = next(message.standing.state, Event::Attempt);
                    message.standing.state = state.map_err(ApplyError::Refused)?;
                    message.standing.begin_attempt(carrier);
                }
                self.insert(view.id, message, accounts)?;
                self.count_credits(view.system_id, view.segments.into());
                Ok(None)
            }
            Record::MessageAtRest { standing, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                let mut message = Message::accept(&view, content.into());
                message.standing = standing;
                self.insert(view.id, message, accounts)?;
                Ok(None)
            }
            Record::Attempt { id, carrier } => self.change(id, Event::Attempt, accounts, |message| {
                message.standing.begin_attempt(carrier);
            }),
            Record::Forwarded { id, carrier_id: _ } => {
                self.change(id, Event::Forwarded, accounts, |message| message.standing.deferrals = 0)
            }
            Record::Deferred { id, until, error } => self.change(id, Event::Deferred, accounts, |message| {
                message.standing.deferrals = message.standing.deferrals.saturating_add(1);
                message.standing.deadline = until;
                message.standing.error = error;
            }),
            Record::Interim { id, state, at } => self.interim(id, state, at, accounts),
            Record::Final { id, state, error, at } => self.finish(id, state, error, at, accounts),
            Record::Replaced { more, content } => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                let event = Event::Replaced { scheduled: view.is_scheduled() };
                let mut old_octets = content.len();
                self.change(view.id, event, accounts, |message| {
                    old_octets = message.content_octets().len();
                    message.replace_content(&view, content.into());
                })?;
                self.octets = self.octets + content.len() - old_octets;
                self.count_credits(view.system_id, more.into());
                Ok(None)
            }
            Record::Mo(octets) | Record::DeliveryAtRest(octets) => {
                let parcel = Parcel::read(octets).map_err(|_| ApplyError::Unreadable)?;
                Ok(self.hold(parcel, accounts))
            }
            Record::Settled { id, part } => {
                let key = ParcelKey { id, part };
                let held = self.parcels.remove(&key).ok_or(ApplyError::Unknown)?;
                self.octets -= BESIDE_OCTETS + held.parcel.as_octets().len();
                self.timers.disarm(held.alarm, TimerKey::Parcel(key));
                Ok(None)
            }
        }
    }

    /// Adds to what an account has used, unless the checkpoint's sum holds it already.
    pub(super) fn count_credits(&mut self, system_id: &[u8], segments: u64) {
        if self.replaying.as_ref().is_some_and(|replaying| replaying.position <= replaying.credits_as_of) {
            return;
        }
        match self.credits_used.get_mut(system_id) {
            Some(used) => *used += segments,
            None => _ = self.credits_used.insert(system_id.into(), segments),
        }
    }

    pub(super) fn insert(
        &mut self,
        id: MessageId,
        message: Message,
        accounts: &Accounts,
    ) -> Result<(), ApplyError> {
        if self.messages.contains_key(&id) {
            return Err(ApplyError::Refused(Refused::InTransit));
        }
        // The ids of a submit_multi belong together, even where the power went before all of it was durable.
        let Content { batch_offset, batch_count, .. } = message.content();
        self.ids.observe(id.of_batch(batch_offset).in_batch(batch_count.saturating_sub(1)));
        self.timers.arm(alarm(&message), TimerKey::Message(id));
        if message.standing.state.is_waiting()
            && let Some(key) = waiting_key(&message, accounts)
        {
            self.waiting.entry(key).or_default().insert(id);
        }
        self.octets += BESIDE_OCTETS + message.content_octets().len();
        self.messages.insert(id, message);
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        id: MessageId,
        event: Event,
        accounts: &Accounts,
        change: impl FnOnce(&mut Message),
    ) -> Result<Option<ParcelKey>, ApplyError> {
        let message = self.messages.get_mut(&id).ok_or(ApplyError::Unknown)?;
        let state = next(message.standing.state, event).map_err(ApplyError::Refused)?;
        let was_waiting =
            message.standing.state.is_waiting().then(|| waiting_key(message, accounts)).flatten();
        self.timers.disarm(alarm(message), TimerKey::Message(id));
        message.standing.state = state;
        change(message);
        self.timers.arm(alarm(message), TimerKey::Message(id));
        let waits = state.is_waiting().then(|| waiting_key(message, accounts)).flatten();
        if let Some(key) = was_waiting {
            self.waits_no_more(&key, id);
        }
        if let Some(key) = waits {
            self.waiting.entry(key).or_default().insert(id);
        }
        Ok(None)
    }

    pub(super) fn waits_no_more(&mut self, key: &(AccountIndex, Box<[u8]>), id: MessageId) {
        if let Some(ids) = self.waiting.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    pub(super) fn interim(
        &mut self,
        id: MessageId,
        state: MessageState,
        at: Timestamp,
        accounts: &Accounts,
    ) -> Result<Option<ParcelKey>, ApplyError> {
        let mut notification = None;
        self.change(id, Event::Reported(state), accounts, |message| {
            let content = message.content();
            let account = accounts.index_of(content.system_id).map(|index| accounts.get(index));
            let accepted_receipt = state == MessageState::ACCEPTED
                && account.is_some_and(|account| account.settings.accepted_receipts)
                && wants_receipt(&content, MessageState::DELIVERED);
            let wanted = content.registered_delivery.intermediate() || accepted_receipt;
            if !wanted || message.standing.notifications >= ParcelKey::NOTIFICATIONS_MAX {
                return;
            }
            let part = ParcelKey::NOTIFICATION_FIRST + message.standing.notifications;
            let kind_state = if accepted_receipt { state } else { MessageState::ENROUTE };
            notification = Some(receipt(&content, part, kind_state, 0, at, accounts));
            message.standing.notifications += 1;
        })?;
        Ok(notification.and_then(|parcel| self.hold(parcel, accounts)))
    }

    pub(super) fn finish(
        &mut self,
        id: MessageId,
        state: MessageState,
        error: u16,
        at: Timestamp,
        accounts: &Accounts,
    ) -> Result<Option<ParcelKey>, ApplyError> {
        let message = self.messages.get(&id).ok_or(ApplyError::Unknown)?;
        let event = match state {
            MessageState::EXPIRED => Event::Expired,
            MessageState::DELETED if message.standing.state.is_waiting() => Event::Cancelled,
            _ => Event::Reported(state),
        };
        next(message.standing.state, event).map_err(ApplyError::Refused)?;
        let Some(message) = self.messages.remove(&id) else { return Err(ApplyError::Unknown) };
        self.octets -= BESIDE_OCTETS + message.content_octets().len();
        self.timers.disarm(alarm(&message), TimerKey::Message(id));
        if message.standing.state.is_waiting()
            && let Some(key) = waiting_key(&message, accounts)
        {
            self.waits_no_more(&key, id);
        }
        let content = message.content();
        let ended = FinalMessage {
            id,
            batch_offset: content.batch_offset,
            batch_count: content.batch_count,
            state,
            error,
            final_date: at,
            system_id: content.system_id.into(),
            source_addr: content.source.digits.into(),
        };
        self.put_final(ended);
        if !wants_receipt(&content, state) {
            return Ok(None);
        }
        let parcel = receipt(&content, ParcelKey::FINAL_RECEIPT, state, error, at, accounts);
        Ok(self.hold(parcel, accounts))
    }

    /// Keeps a parcel until it is settled.
    pub(super) fn hold(&mut self, parcel: Parcel, accounts: &Accounts) -> Option<ParcelKey> {
        let view = parcel.view();
        let key = view.key;
        let account = accounts.index_of(view.system_id)?;
        if key.part == ParcelKey::REPLY {
            self.ids.observe(key.id);
        }
        let alarm = parcel.expires_at(self.settings.parcel_retention);
        let held = HeldParcel { parcel, account, attempts: 0, alarm, in_flight: false };
        self.octets += BESIDE_OCTETS + held.parcel.as_octets().len();
        if let Some(old) = self.parcels.insert(key, held) {
            self.octets -= BESIDE_OCTETS + old.parcel.as_octets().len();
            self.timers.disarm(old.alarm, TimerKey::Parcel(key));
        }
        self.timers.arm(alarm, TimerKey::Parcel(key));
        Some(key)
    }
}

/// What a message's sender is told of it, in the account's alphabet.
fn receipt(
    content: &Content<'_>,
    part: u8,
    state: MessageState,
    error: u16,
    at: Timestamp,
    accounts: &Accounts,
) -> Parcel {
    let account = accounts.index_of(content.system_id).map(|index| accounts.get(index));
    let alphabet = account.map_or_else(Default::default, |account| account.settings.default_alphabet);
    receipt_for(content, part, state, error, at, alphabet.into())
        .unwrap_or_else(|_| unreachable!("the addresses were checked when the message was accepted"))
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

/// What a record is about, in the state at rest.
pub(super) fn rest_key(record: &Record<'_>) -> Option<RestKey> {
    match *record {
        Record::Accepted { content, .. }
        | Record::Replaced { content, .. }
        | Record::MessageAtRest { content, .. } => Content::id_of(content).map(RestKey::Message),
        Record::Attempt { id, .. }
        | Record::Forwarded { id, .. }
        | Record::Deferred { id, .. }
        | Record::Interim { id, .. }
        | Record::Final { id, .. } => Some(RestKey::Message(id)),
        Record::Mo(octets) | Record::DeliveryAtRest(octets) => {
            Parcel::read(octets).ok().map(|parcel| RestKey::Parcel(parcel.view().key))
        }
        Record::Settled { id, part } => Some(RestKey::Parcel(ParcelKey { id, part })),
    }
}

/// When a message is to be looked at: at its deadline, or when its validity ends.
pub(super) fn alarm(message: &Message) -> Timestamp {
    message.standing.deadline.min(message.expires_at())
}

pub(super) fn waiting_key(message: &Message, accounts: &Accounts) -> Option<(AccountIndex, Box<[u8]>)> {
    let content = message.content();
    Some((accounts.index_of(content.system_id)?, content.destination.digits.into()))
}
