//! A partition: the messages it accepted, in memory, with every change on its way to the journal.
//!
//! One function, [`apply`](Partition::apply), changes a partition. Live traffic applies a record and appends
//! it; recovery only applies. What a record leads to (an answer, a hand-over, a delivery) is *earned*: it is
//! taken back from the journal once the record is durable.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::account::{AccountIndex, Accounts};
use crate::journal::{Batch, Journal, Position, Record, SegmentNumber, Standing, Stored};
use crate::message::{
    Content, Event, IdSource, Message, MessageId, Parcel, ParcelKey, PartitionNumber, Refused, State, next,
    receipt_for, wants_receipt,
};
use crate::pdu::receipt::MessageState;
use crate::shard::mesh::{Answer, ReplyTo};
use crate::store::{BlockBuilder, BlockKey, Checkpoint, FinalMessage, RestKey, StoreDone, StoreOp};
use crate::time::Timestamp;
use crate::time::timers::Timers;

type FastMap<K, V> = HashMap<K, V, RandomState>;

/// What a partition obeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSettings {
    /// Messages that are not over; above it submissions are refused.
    pub messages_max: usize,
    /// Octets of records waiting for a commit; above it submissions are refused.
    pub journal_waiting_octets_max: usize,
    /// Orders to the state at rest that wait; above it submissions are refused.
    pub store_waiting_max: usize,
    /// Segments in use above which a checkpoint frees the older ones.
    pub checkpoint_segments: usize,
    /// How long unsettled receipts and replies are kept.
    pub parcel_retention: Duration,
}

impl Default for PartitionSettings {
    fn default() -> Self {
        Self {
            messages_max: 5_000_000,
            journal_waiting_octets_max: 64 << 20,
            store_waiting_max: 100_000,
            checkpoint_segments: 4,
            parcel_retention: Duration::from_secs(72 * 3600),
        }
    }
}

/// What a durable record earned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Earned {
    /// An answer to whoever asked.
    Answer(ReplyTo, Answer),
    /// A message may go to its carrier.
    HandOver(MessageId),
    /// A receipt or reply may go to its account.
    Deliver(ParcelKey),
    /// A report need not be said again.
    Acknowledge {
        /// By this carrier.
        carrier: u8,
        /// This one.
        token: u64,
    },
}

/// A receipt or reply that is not settled.
#[derive(Clone, Debug)]
pub struct HeldParcel {
    /// What is delivered.
    pub parcel: Parcel,
    /// To whom.
    pub account: AccountIndex,
    /// Deliveries tried.
    pub attempts: u16,
    /// When it is tried again, or given up; the armed timer.
    pub alarm: Timestamp,
    /// Whether it is with its home now.
    pub in_flight: bool,
}

/// What a timer of a partition is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum TimerKey {
    Message(MessageId),
    Parcel(ParcelKey),
}

/// Something that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// A message waits for its next attempt.
    Attempt(MessageId),
    /// A message's validity is over.
    Expired(MessageId),
    /// A parcel is to be offered again.
    Deliver(ParcelKey),
    /// A parcel was kept as long as it is kept.
    GiveUp(ParcelKey),
}

/// Things touched by the records of one segment.
#[derive(Debug)]
struct Touched {
    segment: SegmentNumber,
    first: Position,
    keys: Vec<RestKey>,
}

/// One partition of the message store.
#[derive(Debug)]
pub struct Partition {
    /// Its number.
    pub number: PartitionNumber,
    settings: PartitionSettings,
    ids: IdSource,
    journal: Journal<Earned>,
    messages: FastMap<MessageId, Message>,
    parcels: FastMap<ParcelKey, HeldParcel>,
    /// Messages that no carrier has, by account and destination: what cancel_sm without an id looks through.
    waiting: FastMap<(AccountIndex, Box<[u8]>), Vec<MessageId>>,
    finals: FastMap<MessageId, FinalMessage>,
    timers: Timers<Timestamp, TimerKey>,
    credits_used: BTreeMap<Box<[u8]>, u64>,
    blocks: BTreeMap<u64, BlockBuilder>,
    full_blocks: Vec<(u64, BlockBuilder)>,
    block_members: FastMap<BlockKey, Vec<MessageId>>,
    next_block: u64,
    /// Keys touched by batches that are not committed yet, batch by batch.
    touched_open: VecDeque<(Position, Vec<RestKey>)>,
    touched: VecDeque<Touched>,
    at_rest: HashSet<RestKey, RandomState>,
    /// Orders to the state at rest, each of which may go once its position is durable.
    store_ops: VecDeque<(Position, StoreOp)>,
    checkpoint_pending: bool,
    replaying: Option<Replaying>,
    failed: bool,
}

/// What recovery knows while it replays.
#[derive(Debug)]
struct Replaying {
    /// Things at rest hold the journal up to these batches.
    at_rest_as_of: FastMap<RestKey, Position>,
    credits_as_of: Position,
    position: Position,
}

impl Partition {
    /// An empty partition in recovery: give it what is at rest, then the journal, then
    /// [`finish_recovery`](Self::finish_recovery).
    pub fn recover(
        number: PartitionNumber,
        node: u8,
        settings: PartitionSettings,
        checkpoint: &Checkpoint,
    ) -> Self {
        let mut ids = IdSource::new(node, number);
        checkpoint.floors.iter().for_each(|floor| ids.observe(*floor));
        Self {
            number,
            settings,
            ids,
            journal: Journal::resume(Position(0)),
            messages: FastMap::default(),
            parcels: FastMap::default(),
            waiting: FastMap::default(),
            finals: FastMap::default(),
            timers: Timers::new(),
            credits_used: checkpoint.credits_used.iter().cloned().collect(),
            blocks: BTreeMap::new(),
            full_blocks: Vec::new(),
            block_members: FastMap::default(),
            next_block: checkpoint.next_block,
            touched_open: VecDeque::new(),
            touched: VecDeque::new(),
            at_rest: HashSet::default(),
            store_ops: VecDeque::new(),
            checkpoint_pending: false,
            replaying: Some(Replaying {
                at_rest_as_of: FastMap::default(),
                credits_as_of: checkpoint.as_of,
                position: Position(0),
            }),
            failed: false,
        }
    }

    /// Recovery: something unfinished from the state at rest, as [`StoreOp::PutRest`] kept it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restore(&mut self, octets: &[u8], accounts: &Accounts) -> Result<(), Unrecoverable> {
        let (as_of, mut record) = octets.split_first_chunk().ok_or(Unrecoverable)?;
        let as_of = Position(u64::from_le_bytes(*as_of));
        let record = Record::take(&mut record).ok().flatten().ok_or(Unrecoverable)?;
        let key = rest_key(&record).ok_or(Unrecoverable)?;
        self.apply(&record, accounts).map_err(|_| Unrecoverable)?;
        self.at_rest.insert(key);
        if let Some(replaying) = &mut self.replaying {
            replaying.at_rest_as_of.insert(key, as_of);
        }
        Ok(())
    }

    /// Recovery: the records of one batch of the journal.
    ///
    /// # Errors
    /// A record cannot be read though its batch was whole: it comes from another version.
    pub fn replay(
        &mut self,
        segment: SegmentNumber,
        position: Position,
        mut records: &[u8],
        accounts: &Accounts,
    ) -> Result<(), Unrecoverable> {
        while let Some(record) = Record::take(&mut records).map_err(|_| Unrecoverable)? {
            let key = rest_key(&record);
            let known = self
                .replaying
                .as_ref()
                .zip(key)
                .and_then(|(replaying, key)| replaying.at_rest_as_of.get(&key).copied());
            if let Some(replaying) = &mut self.replaying {
                replaying.position = position;
            }
            // What was put to rest later than this record holds it already.
            if known.is_none_or(|as_of| position > as_of) {
                // A record about something that is gone by now changes nothing.
                match self.apply(&record, accounts) {
                    Ok(_) | Err(ApplyError::Refused(_) | ApplyError::Unknown) => {}
                    Err(ApplyError::Unreadable) => return Err(Unrecoverable),
                }
            }
            if let Some(key) = key {
                self.touch_segment(segment, position, key);
            }
        }
        Ok(())
    }

    /// Recovery is over; the next batch follows `last`. What has to go on is told by [`resume`](Self::resume).
    pub fn finish_recovery(&mut self, last: Position) {
        self.replaying = None;
        self.journal = Journal::resume(last);
    }

    /// Every message that a carrier had or may have had, and every parcel: what goes on after a restart.
    pub fn resume(&self) -> (Vec<MessageId>, Vec<ParcelKey>) {
        let with_carrier = |message: &Message| match message.state {
            State::Attempting | State::Forwarded => true,
            State::Scheduled | State::Queued | State::Final(_) => false,
        };
        let mut messages: Vec<MessageId> =
            self.messages.iter().filter(|(_, message)| with_carrier(message)).map(|(id, _)| *id).collect();
        messages.sort_unstable();
        let mut parcels: Vec<ParcelKey> = self.parcels.keys().copied().collect();
        parcels.sort_unstable();
        (messages, parcels)
    }

    /// Credits that accounts have used here, ever.
    pub fn credits_used(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.credits_used.iter().map(|(system_id, used)| (&**system_id, *used))
    }

    /// Messages that are not over, and unsettled parcels.
    pub fn unfinished(&self) -> (usize, usize) {
        (self.messages.len(), self.parcels.len())
    }

    /// A message that is not over.
    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// A message that is over and not yet at rest.
    pub fn final_message(&self, id: MessageId) -> Option<&FinalMessage> {
        self.finals.get(&id)
    }

    /// A parcel that is not settled.
    pub fn parcel(&self, key: ParcelKey) -> Option<&HeldParcel> {
        self.parcels.get(&key)
    }

    /// Notes where a parcel is; `retry_at` when it comes back to be tried again.
    pub fn note_delivery(&mut self, key: ParcelKey, in_flight: bool, retry_at: Option<Timestamp>) {
        let retention = self.settings.parcel_retention;
        let Some(held) = self.parcels.get_mut(&key) else { return };
        held.in_flight = in_flight;
        if let Some(retry_at) = retry_at {
            held.attempts = held.attempts.saturating_add(1);
            self.timers.disarm(held.alarm, TimerKey::Parcel(key));
            held.alarm = retry_at.min(held.parcel.expires_at(retention));
            self.timers.arm(held.alarm, TimerKey::Parcel(key));
        }
    }

    /// The messages between two addresses that no carrier has yet, oldest first.
    pub fn waiting_for(&self, account: AccountIndex, destination: &[u8]) -> &[MessageId] {
        let key = (account, Box::from(destination));
        self.waiting.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether one more message can be taken.
    pub fn has_room(&self) -> bool {
        self.messages.len() < self.settings.messages_max
            && self.journal.waiting_octets() < self.settings.journal_waiting_octets_max
            && self.store_ops.len() < self.settings.store_waiting_max
    }

    /// Whether a disk error has stopped this partition.
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// A write or sync failed: nothing is accepted any more, nothing that waits is ever earned.
    /// Gives back who waits for an answer, to be told so.
    pub fn fail(&mut self) -> Vec<ReplyTo> {
        self.failed = true;
        let mut waiting = Vec::new();
        self.journal.abandon(|earned| {
            if let Earned::Answer(reply_to, _) = earned {
                waiting.push(reply_to);
            }
        });
        waiting
    }

    /// The ids of `count` new messages; `short` for a peer that takes eight characters.
    pub fn next_id(&mut self, now: Timestamp, count: u8, short: bool) -> MessageId {
        if !short {
            return self.ids.next(now, count);
        }
        loop {
            let id = self.ids.next_short();
            // After eight million the numbers come round: those still in use are passed over.
            if !self.messages.contains_key(&id) && !self.finals.contains_key(&id) {
                return id;
            }
        }
    }

    /// Applies an event and puts it on record; `earned` is due once it is durable.
    ///
    /// # Errors
    /// The event does not apply; nothing happened.
    pub fn record(
        &mut self,
        record: &Record<'_>,
        accounts: &Accounts,
        earned: impl IntoIterator<Item = Earned>,
    ) -> Result<(), ApplyError> {
        if self.failed {
            return Err(ApplyError::Unknown);
        }
        let parcel = self.apply(record, accounts)?;
        self.journal.append(record);
        if let Some(key) = rest_key(record) {
            self.touch(key);
        }
        if let Some(key) = parcel {
            self.touch(RestKey::Parcel(key));
            self.journal.earn(Earned::Deliver(key));
        }
        earned.into_iter().for_each(|earned| self.journal.earn(earned));
        Ok(())
    }

    /// An answer that may go once everything recorded so far is durable.
    pub fn earn(&mut self, earned: Earned) {
        self.journal.earn(earned);
    }

    /// The next thing earned.
    pub fn take_earned(&mut self) -> Option<Stored<Earned>> {
        self.journal.take_earned()
    }

    /// Whether there is a batch to write.
    pub fn has_batch(&self) -> bool {
        !self.failed && self.journal.has_batch()
    }

    /// The next batch to write.
    pub fn take_batch(&mut self) -> Option<(Position, Batch)> {
        if self.failed { None } else { self.journal.take_batch() }
    }

    /// The batch is durable, in this segment, of which `segments_in_use` are held.
    pub fn commit(
        &mut self,
        position: Position,
        segment: SegmentNumber,
        batch: Batch,
        segments_in_use: usize,
    ) {
        self.journal.commit(position, batch);
        while let Some((batch_position, _)) = self.touched_open.front() {
            if *batch_position > position {
                break;
            }
            let Some((batch_position, keys)) = self.touched_open.pop_front() else { break };
            for key in keys {
                self.touch_segment(segment, batch_position, key);
            }
        }
        if segments_in_use > self.settings.checkpoint_segments {
            // The younger half stays: most of what it holds ends by itself before its turn comes.
            let kept = (self.settings.checkpoint_segments / 2) as u64;
            self.checkpoint(SegmentNumber(segment.0.saturating_sub(kept)));
        }
    }

    /// Durability without a journal (`--durability memory`): everything recorded is earned at once.
    pub fn commit_unwritten(&mut self) {
        while let Some((position, batch)) = self.journal.take_batch() {
            self.touched_open.clear();
            self.journal.commit(position, batch);
        }
    }

    /// The next order for the state at rest, if what it holds is durable.
    pub fn take_store_op(&mut self) -> Option<StoreOp> {
        self.put_full_blocks();
        let (gate, _) = self.store_ops.front()?;
        if *gate > self.journal.committed() || self.failed {
            return None;
        }
        self.store_ops.pop_front().map(|(_, op)| op)
    }

    /// Whether orders for the state at rest wait.
    pub fn has_store_ops(&self) -> bool {
        !self.store_ops.is_empty() || !self.full_blocks.is_empty()
    }

    /// The state at rest has done something.
    pub fn store_done(&mut self, done: StoreDone) {
        match done {
            StoreDone::Block(key) => {
                for id in self.block_members.remove(&key).unwrap_or_default() {
                    self.finals.remove(&id);
                }
            }
            StoreDone::Checkpoint(..) => self.checkpoint_pending = false,
        }
    }

    /// Sends half-filled blocks to rest, so that memory does not hold the past.
    pub fn flush_blocks(&mut self) {
        self.full_blocks.extend(std::mem::take(&mut self.blocks));
        self.put_full_blocks();
    }

    /// Orders full blocks kept, once everything recorded so far is durable.
    fn put_full_blocks(&mut self) {
        let gate = self.journal.last();
        for (period, block) in std::mem::take(&mut self.full_blocks) {
            self.put_block(gate, period, block);
        }
    }

    /// Puts everything to rest that only segments before `keep_from` hold, so that they can be used again.
    pub fn checkpoint(&mut self, keep_from: SegmentNumber) {
        if self.checkpoint_pending || self.failed {
            return;
        }
        let Some(first) = self.touched.iter().find(|touched| touched.segment >= keep_from) else { return };
        let (segment, first) = (first.segment, first.first);
        self.checkpoint_pending = true;
        // The memory holds everything recorded so far, so what is put to rest now may go when that is durable.
        let as_of = self.journal.seal();
        self.flush_blocks();
        // What ended in these segments is taken from rest together with the checkpoint, not before: as long
        // as the old checkpoint holds, the records that ended it must find it.
        let mut gone = Vec::new();
        while self.touched.front().is_some_and(|oldest| oldest.segment < keep_from) {
            let keys = self.touched.pop_front().map(|oldest| oldest.keys).unwrap_or_default();
            for key in keys {
                if !self.put_to_rest(as_of, key) && self.at_rest.remove(&key) {
                    gone.push(key);
                }
                // The record that made a parcel may stay while the message it is about goes: replay could
                // not make the parcel again.
                if let RestKey::Message(id) = key {
                    for parcel in ParcelKey::about(id) {
                        self.put_to_rest(as_of, RestKey::Parcel(parcel));
                    }
                }
            }
        }
        let checkpoint = Checkpoint {
            segment,
            first,
            as_of,
            floors: self.ids.floors(),
            next_block: self.next_block,
            credits_used: self.credits_used.iter().map(|(name, used)| (name.clone(), *used)).collect(),
        };
        self.store_ops.push_back((as_of, StoreOp::Checkpoint(checkpoint, gone)));
    }

    /// The next thing that is due by `now`; its timer is gone until it is dealt with.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Due> {
        loop {
            let (at, key) = self.timers.pop_due(now)?;
            match key {
                TimerKey::Message(id) => {
                    let Some(message) = self.messages.get(&id) else { continue };
                    if now >= message.content().expires_at {
                        return Some(Due::Expired(id));
                    }
                    match message.state {
                        State::Scheduled | State::Queued => return Some(Due::Attempt(id)),
                        State::Attempting | State::Forwarded | State::Final(_) => {}
                    }
                }
                TimerKey::Parcel(key) => {
                    let Some(held) = self.parcels.get_mut(&key) else { continue };
                    let expires_at = held.parcel.expires_at(self.settings.parcel_retention);
                    debug_assert_eq!(at, held.alarm);
                    if now >= expires_at {
                        return Some(Due::GiveUp(key));
                    }
                    held.alarm = expires_at;
                    self.timers.arm(expires_at, TimerKey::Parcel(key));
                    if !held.in_flight {
                        return Some(Due::Deliver(key));
                    }
                }
            }
        }
    }

    /// Puts a message back that was due for an attempt nobody could make.
    pub fn rearm(&mut self, id: MessageId, at: Timestamp) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.deadline = at;
            self.timers.arm(alarm(message), TimerKey::Message(id));
        }
    }

    /// Changes the partition as `record` says; the parcel that came of it.
    fn apply(&mut self, record: &Record<'_>, accounts: &Accounts) -> Result<Option<ParcelKey>, ApplyError> {
        match *record {
            Record::Accepted(content) => {
                let message = Message::accept(content.into()).map_err(|_| ApplyError::Unreadable)?;
                let view = message.content();
                let (id, segments) = (view.id, u64::from(view.segments));
                let system_id = Box::from(view.system_id);
                self.insert(id, message, accounts)?;
                self.count_credits(system_id, segments);
                Ok(None)
            }
            Record::MessageAtRest { standing, content } => {
                let mut message = Message::accept(content.into()).map_err(|_| ApplyError::Unreadable)?;
                let Standing { state, attempts, deferrals, error, deadline, notifications } = standing;
                (message.state, message.attempts, message.deferrals) = (state, attempts, deferrals);
                (message.error, message.deadline, message.notifications) = (error, deadline, notifications);
                let id = message.content().id;
                self.insert(id, message, accounts)?;
                Ok(None)
            }
            Record::Attempt { id, carrier: _ } => self.change(id, Event::Attempt, accounts, |message| {
                message.attempts = message.attempts.saturating_add(1);
                message.deadline = Timestamp::MAX;
            }),
            Record::Forwarded { id, carrier_id: _ } => {
                self.change(id, Event::Forwarded, accounts, |message| message.deferrals = 0)
            }
            Record::Deferred { id, until, error } => self.change(id, Event::Deferred, accounts, |message| {
                message.deferrals = message.deferrals.saturating_add(1);
                message.deadline = until;
                message.error = error;
            }),
            Record::Interim { id, state, at } => self.interim(id, state, at, accounts),
            Record::Final { id, state, error, at } => self.finish(id, state, error, at, accounts),
            Record::Replaced(content) => {
                let view = Content::read(content).map_err(|_| ApplyError::Unreadable)?;
                let event = Event::Replaced { scheduled: view.is_scheduled() };
                let deadline = if view.is_scheduled() { view.deliver_at } else { view.accepted_at };
                let mut old_segments = view.segments;
                self.change(view.id, event, accounts, |message| {
                    old_segments = message.content().segments;
                    // The content was read a moment ago, so it can be read again.
                    _ = message.replace_content(content.into());
                    message.deadline = deadline;
                })?;
                let more = view.segments.saturating_sub(old_segments);
                self.count_credits(view.system_id.into(), more.into());
                Ok(None)
            }
            Record::Mo(octets) | Record::DeliveryAtRest(octets) => {
                let parcel = Parcel::read(octets).map_err(|_| ApplyError::Unreadable)?;
                Ok(self.hold(parcel, accounts))
            }
            Record::Settled { id, part } => {
                let key = ParcelKey { id, part };
                let held = self.parcels.remove(&key).ok_or(ApplyError::Unknown)?;
                self.timers.disarm(held.alarm, TimerKey::Parcel(key));
                Ok(None)
            }
        }
    }

    /// Adds to what an account has used, unless the checkpoint's sum holds it already.
    fn count_credits(&mut self, system_id: Box<[u8]>, segments: u64) {
        if self.replaying.as_ref().is_none_or(|replaying| replaying.position > replaying.credits_as_of) {
            *self.credits_used.entry(system_id).or_default() += segments;
        }
    }

    fn insert(&mut self, id: MessageId, message: Message, accounts: &Accounts) -> Result<(), ApplyError> {
        if self.messages.contains_key(&id) {
            return Err(ApplyError::Refused(Refused::InTransit));
        }
        self.ids.observe(id);
        self.timers.arm(alarm(&message), TimerKey::Message(id));
        if is_waiting(message.state)
            && let Some(key) = waiting_key(&message, accounts)
        {
            self.waiting.entry(key).or_default().push(id);
        }
        self.messages.insert(id, message);
        Ok(())
    }

    fn change(
        &mut self,
        id: MessageId,
        event: Event,
        accounts: &Accounts,
        change: impl FnOnce(&mut Message),
    ) -> Result<Option<ParcelKey>, ApplyError> {
        let message = self.messages.get_mut(&id).ok_or(ApplyError::Unknown)?;
        let state = next(message.state, event).map_err(ApplyError::Refused)?;
        let was_waiting = is_waiting(message.state).then(|| waiting_key(message, accounts)).flatten();
        self.timers.disarm(alarm(message), TimerKey::Message(id));
        message.state = state;
        change(message);
        self.timers.arm(alarm(message), TimerKey::Message(id));
        let waits = is_waiting(state).then(|| waiting_key(message, accounts)).flatten();
        if let Some(key) = was_waiting {
            self.waits_no_more(&key, id);
        }
        if let Some(key) = waits {
            self.waiting.entry(key).or_default().push(id);
        }
        Ok(None)
    }

    fn waits_no_more(&mut self, key: &(AccountIndex, Box<[u8]>), id: MessageId) {
        if let Some(ids) = self.waiting.get_mut(key) {
            ids.retain(|waiting| *waiting != id);
            if ids.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    fn interim(
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
            if !wanted || message.notifications >= ParcelKey::NOTIFICATIONS_MAX {
                return;
            }
            let part = ParcelKey::NOTIFICATION_FIRST + message.notifications;
            let alphabet = account.map_or_else(Default::default, |account| account.settings.default_alphabet);
            let kind_state = if accepted_receipt { state } else { MessageState::ENROUTE };
            notification = Some(receipt_for(&content, part, kind_state, 0, at, alphabet.into()));
            message.notifications += 1;
        })?;
        Ok(notification.and_then(|parcel| self.hold(parcel, accounts)))
    }

    fn finish(
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
            MessageState::DELETED if is_waiting(message.state) => Event::Cancelled,
            _ => Event::Reported(state),
        };
        next(message.state, event).map_err(ApplyError::Refused)?;
        let Some(message) = self.messages.remove(&id) else { return Err(ApplyError::Unknown) };
        self.timers.disarm(alarm(&message), TimerKey::Message(id));
        if is_waiting(message.state)
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
        let alphabet = accounts
            .index_of(content.system_id)
            .map_or_else(Default::default, |index| accounts.get(index).settings.default_alphabet);
        let parcel = receipt_for(&content, ParcelKey::FINAL_RECEIPT, state, error, at, alphabet.into());
        Ok(self.hold(parcel, accounts))
    }

    /// Keeps a parcel until it is settled.
    fn hold(&mut self, parcel: Parcel, accounts: &Accounts) -> Option<ParcelKey> {
        let view = parcel.view();
        let key = view.key;
        let account = accounts.index_of(view.system_id)?;
        if key.part == ParcelKey::REPLY {
            self.ids.observe(key.id);
        }
        let alarm = parcel.expires_at(self.settings.parcel_retention);
        let held = HeldParcel { parcel, account, attempts: 0, alarm, in_flight: false };
        if let Some(old) = self.parcels.insert(key, held) {
            self.timers.disarm(old.alarm, TimerKey::Parcel(key));
        }
        self.timers.arm(alarm, TimerKey::Parcel(key));
        Some(key)
    }

    fn put_final(&mut self, ended: FinalMessage) {
        let period = ended.id.period();
        let full = self.blocks.entry(period).or_default().push(&ended);
        self.finals.insert(ended.id, ended);
        if full && let Some(block) = self.blocks.remove(&period) {
            self.full_blocks.push((period, block));
        }
    }

    fn put_block(&mut self, gate: Position, period: u64, block: BlockBuilder) {
        let key = BlockKey { period, number: self.next_block };
        self.next_block += 1;
        let (octets, members) = block.finish();
        self.block_members.insert(key, members);
        self.store_ops.push_back((gate, StoreOp::PutBlock(key, octets)));
    }

    /// Orders the newest form of something kept; `false` when it has ended.
    fn put_to_rest(&mut self, as_of: Position, key: RestKey) -> bool {
        let mut octets = as_of.0.to_le_bytes().to_vec();
        match key {
            RestKey::Message(id) => {
                let Some(message) = self.messages.get(&id) else { return false };
                let standing = Standing {
                    state: message.state,
                    attempts: message.attempts,
                    deferrals: message.deferrals,
                    error: message.error,
                    deadline: message.deadline,
                    notifications: message.notifications,
                };
                Record::MessageAtRest { standing, content: message.content_octets() }.put(&mut octets);
            }
            RestKey::Parcel(key) => {
                let Some(held) = self.parcels.get(&key) else { return false };
                Record::DeliveryAtRest(held.parcel.as_octets()).put(&mut octets);
            }
        }
        self.at_rest.insert(key);
        self.store_ops.push_back((as_of, StoreOp::PutRest(key, octets)));
        true
    }

    fn touch(&mut self, key: RestKey) {
        let position = self.journal.position();
        match self.touched_open.back_mut() {
            Some((open, keys)) if *open == position => keys.push(key),
            Some(_) | None => self.touched_open.push_back((position, vec![key])),
        }
    }

    fn touch_segment(&mut self, segment: SegmentNumber, position: Position, key: RestKey) {
        match self.touched.back_mut() {
            Some(touched) if touched.segment == segment => touched.keys.push(key),
            Some(_) | None => {
                self.touched.push_back(Touched { segment, first: position, keys: vec![key] });
            }
        }
    }
}

/// A record from the state at rest or the journal that this version cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unrecoverable;

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
fn rest_key(record: &Record<'_>) -> Option<RestKey> {
    match *record {
        Record::Accepted(content) | Record::Replaced(content) | Record::MessageAtRest { content, .. } => {
            Content::read(content).ok().map(|content| RestKey::Message(content.id))
        }
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
fn alarm(message: &Message) -> Timestamp {
    message.deadline.min(message.content().expires_at)
}

fn is_waiting(state: State) -> bool {
    match state {
        State::Scheduled | State::Queued => true,
        State::Attempting | State::Forwarded | State::Final(_) => false,
    }
}

fn waiting_key(message: &Message, accounts: &Accounts) -> Option<(AccountIndex, Box<[u8]>)> {
    let content = message.content();
    Some((accounts.index_of(content.system_id)?, content.destination.digits.into()))
}
