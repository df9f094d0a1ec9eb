//! A partition: the messages it accepted, in memory, with every change on its way to the journal.
//!
//! One function, [`apply`](Partition::apply), changes a partition. Live traffic applies a record and appends
//! it; recovery only applies. What a record leads to (an answer, a hand-over, a delivery) is *earned*: it is
//! taken back from the journal once the record is durable.

mod apply;
mod recovery;
mod rest;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::account::{AccountIndex, Accounts};
use crate::journal::{Batch, Journal, Position, Record, SegmentNumber, Stored};
use crate::message::{IdSource, Message, MessageId, Parcel, ParcelKey, PartitionNumber};
use crate::shard::mesh::{Answer, ReplyTo};
use crate::store::{BlockBuilder, BlockKey, FinalMessage, RestKey, StoreOp};
use crate::time::Timestamp;
use crate::time::timers::Timers;

pub use apply::ApplyError;
pub use recovery::Unrecoverable;

use apply::{alarm, rest_key};
use recovery::Replaying;
use rest::Touched;

type FastMap<K, V> = HashMap<K, V, RandomState>;

/// What a partition obeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSettings {
    /// Messages, receipts and replies in memory; above it submissions are refused.
    pub messages_max: usize,
    /// Octets that they take in memory, roughly; above it submissions are refused.
    pub messages_octets_max: usize,
    /// Segments of the journal; above it submissions are refused until the state at rest has caught up.
    pub segments_max: usize,
    /// Octets of records waiting for a commit; above it submissions are refused.
    pub journal_waiting_octets_max: usize,
    /// A batch is closed when it has grown to this; it keeps one write, and one pause for it, short.
    pub batch_octets_max: usize,
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
            messages_octets_max: 2 << 30,
            segments_max: 64,
            journal_waiting_octets_max: 64 << 20,
            batch_octets_max: 1 << 20,
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
    HandOver {
        /// The message.
        id: MessageId,
        /// How often it had been deferred when the attempt began. When it has been again, another attempt follows.
        deferrals: u16,
    },
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
    waiting: FastMap<(AccountIndex, Box<[u8]>), BTreeSet<MessageId>>,
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
    segments_in_use: usize,
    /// What messages and parcels take in memory, roughly.
    octets: usize,
    is_disk_low: bool,
    failed: bool,
}

impl Partition {
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
    pub fn waiting_for(
        &self,
        account: AccountIndex,
        destination: &[u8],
    ) -> impl Iterator<Item = MessageId> + use<'_> {
        let key = (account, Box::from(destination));
        self.waiting.get(&key).into_iter().flatten().copied()
    }

    /// Whether one more message can be taken.
    pub fn has_room(&self) -> bool {
        let kept = self.messages.len() + self.parcels.len() + self.finals.len();
        kept < self.settings.messages_max
            && self.octets < self.settings.messages_octets_max
            && !self.is_disk_low
            && self.segments_in_use < self.settings.segments_max
            && self.journal.waiting_octets() < self.settings.journal_waiting_octets_max
            && self.store_ops.len() < self.settings.store_waiting_max
    }

    /// Whether the disk has little room left.
    pub const fn note_disk(&mut self, is_low: bool) {
        self.is_disk_low = is_low;
    }

    /// Whether a disk error has stopped this partition.
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// A write or sync failed: nothing is accepted any more, and what was recorded behind the last durable batch
    /// is never earned. Gives back who waits for an answer, to be told so. `in_flight`: the batch that is being
    /// written now may still become durable, because it was not the journal that failed.
    pub fn fail(&mut self, in_flight: bool) -> Vec<ReplyTo> {
        self.failed = true;
        let mut waiting = Vec::new();
        self.journal.abandon(in_flight, |earned| {
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
            // After eight million the numbers come round: those still in use are passed over. One that is only
            // known to the state at rest is not: query_sm then tells of the younger message.
            let has_parcel = ParcelKey::about(id).any(|key| self.parcels.contains_key(&key));
            if !has_parcel && !self.messages.contains_key(&id) && !self.finals.contains_key(&id) {
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

    /// Segments were freed; so many are still held.
    pub const fn segments_released(&mut self, segments_in_use: usize) {
        self.segments_in_use = segments_in_use;
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
        self.segments_in_use = segments_in_use;
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

    /// The next thing that is due by `now`; its timer is gone until it is dealt with.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Due> {
        loop {
            let (at, key) = self.timers.pop_due(now)?;
            match key {
                TimerKey::Message(id) => {
                    let Some(message) = self.messages.get(&id) else { continue };
                    if now >= message.expires_at() {
                        return Some(Due::Expired(id));
                    }
                    if message.standing.state.is_waiting() {
                        return Some(Due::Attempt(id));
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
            message.standing.deadline = at;
            self.timers.arm(alarm(message), TimerKey::Message(id));
        }
    }
}
