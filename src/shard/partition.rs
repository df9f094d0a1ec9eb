//! A partition: the messages it accepted, in memory, with every change on its way to the journal.
//!
//! One function, `Memory::apply`, changes a partition. Live traffic applies a record and appends it; recovery only
//! applies. What a record leads to (an answer, a hand-over, a delivery) is *earned*: it is taken back from the journal
//! once the record is durable.
//!
//! What has grown old goes to rest, so that the journal can be used again (`checkpoint`), and leaves memory when that
//! is short (`cold`).

mod apply;
mod checkpoint;
mod cold;
mod finals;
mod memory;
mod recovery;
mod rest;
mod waiting;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::account::{AccountIndex, Accounts};
use crate::journal::{Batch, BatchBuffer, Buffers, Journal, Position, Record, SegmentNumber, Stored};
use crate::message::{Content, Message, MessageId, Parcel, ParcelKey, PartitionNumber, Standing, State};
use crate::pdu::CommandStatus;
use crate::shard::mesh::{Answer, Matching, ReplyTo};
use crate::store::{FinalMessage, RestKey, RestNumber, StoreDone, StoreOp};
use crate::time::{Instant, Now, Timestamp};

pub use apply::{ApplyError, subject};
pub use recovery::{Recovered, Recovery, Unrecoverable};

use apply::Source;
use checkpoint::Checkpointing;
use memory::{DueThing, HeldMessage, Kept, Memory};

type FastMap<K, V> = HashMap<K, V, RandomState>;

/// What a partition obeys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionSettings {
    /// Messages that are not over, receipts and replies, in memory or at rest; above it submissions are refused.
    pub messages_max: usize,
    /// Octets that those in memory take, roughly. Above half of it, what is at rest leaves memory; above it submissions
    /// are refused.
    pub messages_octets_max: usize,
    /// Segments of the journal; above it submissions are refused until the state at rest has caught up.
    pub segments_max: usize,
    /// Octets of records waiting for a commit; above it submissions are refused.
    pub journal_waiting_octets_max: usize,
    /// Orders to the state at rest that wait; above it submissions are refused.
    pub store_waiting_max: usize,
    /// Segments in use above which a checkpoint frees the older ones.
    pub checkpoint_segments: usize,
    /// Things that a checkpoint looks at in one step, between which the partition goes on; at least one.
    pub checkpoint_visits: usize,
    /// How long unsettled receipts and replies are kept.
    pub parcel_retention: Duration,
    /// The longest pause before another attempt: a restart waits no longer, whatever the clock was when it was recorded.
    pub retry_delay_max: Duration,
    /// Whether anything is to outlive the process.
    pub is_durable: bool,
}

impl Default for PartitionSettings {
    fn default() -> Self {
        Self {
            messages_max: 20_000_000,
            messages_octets_max: 2 << 30,
            segments_max: 64,
            journal_waiting_octets_max: 64 << 20,
            store_waiting_max: 1_000,
            checkpoint_segments: 4,
            checkpoint_visits: 1_024,
            parcel_retention: Duration::from_secs(72 * 3600),
            retry_delay_max: Duration::from_secs(300),
            is_durable: true,
        }
    }
}

/// When there is no room for a file of the journal, it is tried again after this.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// Short ids in use that are passed over for one message.
const SHORT_IDS_PASSED_MAX: usize = 1_024;

/// What a durable record earned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Earned {
    /// A message is accepted: its sender is told its id, and the credits that it took are used.
    Submitted {
        /// Who asked.
        reply_to: ReplyTo,
        /// Its name.
        id: MessageId,
        /// Whose credits; should it never be durable, they are to be given back.
        account: AccountIndex,
        /// So many.
        segments: u16,
    },
    /// An answer to whoever asked. Rare and large, so elsewhere: what is earned moves through a queue.
    Answer(Box<(ReplyTo, Answer)>),
    /// What became of a message, to the sender who waits for that (transaction mode).
    Outcome(Box<(ReplyTo, Answer)>),
    /// What the event leads to may happen.
    Follows(Follows),
    /// The credits that a submission has taken are used; should it never be durable, they are to be given back.
    Charge {
        /// Of this account.
        account: AccountIndex,
        /// So many.
        segments: u32,
    },
    /// A report need not be said again.
    Acknowledge {
        /// By this carrier.
        carrier: u8,
        /// This one.
        token: u64,
    },
}

/// What an event leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follows {
    /// A message goes to its carrier.
    HandOver {
        /// The message.
        id: MessageId,
        /// How often it had been deferred when the attempt began. When it has been again, another attempt follows.
        deferrals: u16,
    },
    /// A receipt or reply is delivered.
    Deliver {
        /// Which one.
        key: ParcelKey,
        /// To whom.
        account: AccountIndex,
    },
}

impl Follows {
    /// What follows from a message that is accepted with its first attempt.
    const fn first_attempt(id: MessageId) -> Self {
        Self::HandOver { id, deferrals: 0 }
    }
}

impl Earned {
    /// Whether somebody waits for it: then its batch is written as soon as the one before it is.
    const fn is_awaited(&self) -> bool {
        match self {
            Self::Submitted { .. } | Self::Answer(..) | Self::Outcome(..) => true,
            Self::Follows(_) => true,
            Self::Charge { .. } | Self::Acknowledge { .. } => false,
        }
    }
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
    /// When it is given up.
    pub expires_at: Timestamp,
    /// When it is tried again; [`Instant::MAX`] when it makes no pause.
    pub paused_until: Instant,
    /// Whether it is with its home now.
    pub in_flight: bool,
    kept: Kept,
}

/// Which of two messages was accepted later. A clock that is put back makes no younger message older than another of its
/// partition: there the ids tell, as long as both are of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Age {
    /// The message.
    pub id: MessageId,
    accepted_at: Timestamp,
    /// Short ids of its partition that were given out behind it, if its own is one.
    short_ids_behind: Option<u64>,
}

impl Age {
    /// Whether the message is the younger one.
    pub fn is_younger_than(&self, other: &Self) -> bool {
        match (self.short_ids_behind, other.short_ids_behind) {
            (None, None) => self.id > other.id,
            (Some(own), Some(others)) if self.id.partition() == other.id.partition() => own < others,
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => self.accepted_at > other.accepted_at,
        }
    }

    /// The younger one of two, if there are any.
    pub fn younger(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if other.is_younger_than(&one) { other } else { one }),
            (one, other) => one.or(other),
        }
    }
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

/// What failed of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// A write of the journal.
    Journal,
    /// The state at rest, or a file that was to be made for the journal.
    Store,
}

/// What a partition that failed gives up.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Abandoned {
    /// Who waits for an answer that does not come, and what to tell them.
    pub waiting: Vec<(ReplyTo, CommandStatus)>,
    /// Credits that were taken for what is never durable.
    pub charges: Vec<(AccountIndex, u32)>,
}

/// One partition of the message store.
#[derive(Debug)]
pub struct Partition {
    /// Its number.
    pub number: PartitionNumber,
    settings: PartitionSettings,
    memory: Memory,
    journal: Journal<Earned>,
    /// Orders to the state at rest, each of which may go once its position is durable.
    store_ops: VecDeque<(Position, StoreOp)>,
    checkpointing: Option<Checkpointing>,
    /// Octets that were written since, and that the checkpoint has still to keep pace with.
    checkpoint_debt: usize,
    /// The checkpoint is made, and on its way to rest.
    checkpoint_pending: bool,
    /// Cold blocks that are on their way back, and those of them that nobody was asked for yet.
    fetching: BTreeSet<RestNumber>,
    fetches: VecDeque<RestNumber>,
    /// Those that somebody asked for.
    asked_for: BTreeSet<RestNumber>,
    /// Accounts that take what is cold, and for which there was no room.
    hungry: BTreeSet<AccountIndex>,
    /// The one of them that had its turn last.
    fed: AccountIndex,
    /// Cold blocks in which something is due.
    due_blocks: VecDeque<RestNumber>,
    /// Short ids of messages whose attempt is on record and not durable yet: no carrier was offered them so far.
    unoffered: BTreeSet<MessageId>,
    /// After a restart: cold blocks with messages that a carrier had.
    to_resume: BTreeSet<RestNumber>,
    /// Everything is to go to rest: the server stops.
    stops: bool,
    is_disk_low: bool,
    /// There was no room for a file of the journal; until then none is asked for.
    no_room_until: Instant,
    failed: bool,
}

/// What comes from memory at once.
const LINE_OCTETS: usize = 64;

impl Partition {
    /// A partition that goes on where recovery left it, gathering its batches in such buffers.
    pub fn open(recovered: Recovered, buffers: Buffers) -> Self {
        let Recovered { number, settings, memory, journal, to_resume } = recovered;
        Self {
            number,
            settings,
            memory,
            journal: Journal::resume(journal, buffers),
            store_ops: VecDeque::new(),
            checkpointing: None,
            checkpoint_debt: 0,
            checkpoint_pending: false,
            fetching: BTreeSet::new(),
            fetches: VecDeque::new(),
            asked_for: BTreeSet::new(),
            hungry: BTreeSet::new(),
            fed: AccountIndex(u32::MAX),
            due_blocks: VecDeque::new(),
            unoffered: BTreeSet::new(),
            to_resume,
            stops: false,
            is_disk_low: false,
            no_room_until: Instant::ZERO,
            failed: false,
        }
    }

    /// Credits that accounts have used here, ever.
    pub fn credits_used(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.memory.credits_used.iter().map(|(system_id, used)| (&**system_id, *used))
    }

    /// Messages that are not over, and unsettled parcels, cold ones too.
    pub fn unfinished(&self) -> (usize, usize) {
        let (messages, parcels) = self.memory.rest.cold();
        (self.memory.messages.len() + messages, self.memory.parcels.len() + parcels)
    }

    /// A message that is not over; one that is cold is not here.
    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.memory.messages.get(id).map(|held| &held.message)
    }

    /// Looks at whatever an event of a message needs; what that was means nothing.
    pub fn look_at(&self, id: MessageId) -> u8 {
        let Some(HeldMessage { message, kept, .. }) = self.memory.messages.get(id) else { return 0 };
        // Both ends of the message, and the begin of its content, where all that is asked for at its end lies.
        let octets = message.content_octets();
        let octet = |place: usize| octets.get(place).copied().unwrap_or_default();
        octet(0)
            ^ octet(LINE_OCTETS)
            ^ octet(2 * LINE_OCTETS)
            ^ message.standing.notifications
            ^ u8::from(kept.place().is_some())
    }

    /// A message that is over and not yet at rest.
    pub fn final_message(&self, id: MessageId) -> Option<FinalMessage<'_>> {
        self.memory.finals.get(id)
    }

    /// A parcel that is not settled; one that is cold is not here.
    pub fn parcel(&self, key: ParcelKey) -> Option<&HeldParcel> {
        self.memory.parcels.get(key)
    }

    /// A parcel waits to be offered to its home from now on, unless it is there already; whose it is, unless it is not
    /// here.
    pub fn await_offer(&mut self, key: ParcelKey) -> Option<AccountIndex> {
        let Memory { parcels, pending, .. } = &mut self.memory;
        let held = parcels.get_mut(key)?;
        // It may have been cold, and come back and been offered, before it was paid out.
        if !held.in_flight {
            pending.entry(held.account).or_default().insert(key);
        }
        Some(held.account)
    }

    /// The oldest parcel of an account that waits to be offered.
    pub fn oldest_pending(&self, account: AccountIndex) -> Option<ParcelKey> {
        self.memory.pending.get(&account)?.first().copied()
    }

    /// Takes one that waits, to be offered to its home now.
    pub fn offer(&mut self, key: ParcelKey) -> Option<Parcel> {
        let Memory { parcels, pending, .. } = &mut self.memory;
        let held = parcels.get_mut(key)?;
        if !pending.get_mut(&held.account)?.remove(&key) {
            return None;
        }
        held.in_flight = true;
        Some(held.parcel.clone())
    }

    /// A parcel is back from its home; `retry_at` when it is to be tried again.
    pub fn returned(&mut self, key: ParcelKey, retry_at: Option<Instant>) {
        let Some(held) = self.memory.parcels.get_mut(key) else { return };
        held.in_flight = false;
        held.attempts = held.attempts.saturating_add(u16::from(retry_at.is_some()));
        // Its retention may have ended meanwhile.
        self.memory.pause_parcel(key, retry_at.unwrap_or(Instant::MAX));
    }

    /// The last ids that were given out, long and short: what a later message has lies behind them.
    pub const fn last_ids(&self) -> [MessageId; 2] {
        self.memory.ids.floors()
    }

    /// The messages with ids up to these that no carrier has yet and that are not cold.
    pub fn waiting(
        &self,
        account: AccountIndex,
        matching: &Matching,
        up_to: [MessageId; 2],
        accounts: &Accounts,
    ) -> impl Iterator<Item = MessageId> {
        let Matching { service_type, source, destination } = matching;
        let pair = self.memory.waiting.pair(account, &source.digits, &destination.digits);
        let waiting = self.memory.waiting.of(pair, service_type.as_deref());
        waiting.filter(move |id| !self.is_behind(*id, up_to)).filter(move |id| {
            // Two pairs may share a number.
            self.message(*id).map(Message::content).is_some_and(|content| {
                content.source.digits == &*source.digits
                    && content.destination.digits == &*destination.digits
                    && accounts.index_of(content.system_id) == Some(account)
            })
        })
    }

    /// Whether an id was given out behind those that were the last ones then.
    fn is_behind(&self, id: MessageId, last: [MessageId; 2]) -> bool {
        self.memory.ids.is_behind(id, last) && !self.memory.passed_over.contains(&id)
    }

    /// The age of a message that has one of the ids up to these; `None` when it is not here (any more).
    pub fn age(&self, id: MessageId, up_to: [MessageId; 2]) -> Option<Age> {
        let accepted_at = self.message(id)?.content().accepted_at;
        let [_, last_short] = up_to;
        let short_ids_behind = id.is_short().then(|| id.short_ids_until(last_short));
        Some(Age { id, accepted_at, short_ids_behind })
    }

    /// Whether one more message can be taken.
    pub fn has_room(&self) -> bool {
        let (messages, parcels) = self.unfinished();
        let (finals, _) = self.memory.finals.len();
        messages + parcels + finals < self.settings.messages_max
            && self.memory_octets() < self.settings.messages_octets_max
            && !self.is_disk_low
            && self.no_room_until <= self.memory.now.instant
            && self.journal.segments_in_use() < self.settings.segments_max
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

    /// A disk error: nothing is recorded any more. When the journal failed, what was recorded behind the last durable
    /// batch is never earned; when the state at rest did, what is recorded already is still written as far as there are
    /// files for it, and earned then.
    pub fn fail(&mut self, failed: Failed) -> Abandoned {
        self.failed = true;
        let Abandoned { mut waiting, mut charges } = Abandoned::default();
        let give_up = |earned| match earned {
            Earned::Submitted { reply_to, account, segments, .. } => {
                waiting.push((reply_to, CommandStatus::ESME_RSYSERR));
                charges.push((account, segments.into()));
            }
            Earned::Answer(answer) => waiting.push((answer.0, CommandStatus::ESME_RSYSERR)),
            Earned::Outcome(answer) => waiting.push((answer.0, CommandStatus::ESME_RDELIVERYFAILURE)),
            Earned::Charge { account, segments } => charges.push((account, segments)),
            Earned::Follows(_) | Earned::Acknowledge { .. } => {}
        };
        match failed {
            Failed::Journal => self.journal.abandon(give_up),
            Failed::Store => self.journal.abandon_without_file(give_up),
        }
        Abandoned { waiting, charges }
    }

    /// The first of the ids of `count` new messages.
    pub fn next_id(&mut self, now: Timestamp, count: u8) -> MessageId {
        self.memory.ids.next(now, count)
    }

    /// The id of a new message of a peer that takes eight characters; `None` when none is to be had, for now: after eight
    /// million the numbers come round, and those still in use are passed over, so many at a time. One that only the
    /// state at rest knows to be over is not: query_sm then tells of the younger message. But one that is still at rest as
    /// an unfinished message is, though it has ended: a restart would find two.
    pub fn next_short_id(&mut self) -> Option<MessageId> {
        (0..SHORT_IDS_PASSED_MAX).find_map(|_| {
            let id = self.memory.ids.next_short();
            let memory = &mut self.memory;
            let has_parcel = ParcelKey::about(id).any(|key| memory.parcels.contains(key));
            let is_message = memory.messages.contains(id) || memory.finals.contains(id);
            let is_in_use = has_parcel || is_message || memory.rest.holds(id);
            if is_in_use {
                memory.passed_over.insert(id);
            } else {
                memory.passed_over.remove(&id);
            }
            (!is_in_use).then_some(id)
        })
    }

    /// Puts a message on record, with `content`; `attempt` is the carrier that its first attempt begins with at once, and `earned` is
    /// due once the record is durable.
    ///
    /// # Errors
    /// The partition has stopped, or knows the id; nothing happened.
    pub fn accept(
        &mut self,
        attempt: Option<u8>,
        content: &Content<'_>,
        accounts: &Accounts,
        earned: Option<Earned>,
    ) -> Result<(), ApplyError> {
        if self.failed {
            return Err(ApplyError::Unknown);
        }
        let mut octets = self.memory.spares.take(content.octets());
        content.put(&mut octets);
        let segment = self.begin_record(&Record::Accepted { attempt, content: &octets });
        let live = Source::live(segment);
        let octets = self.memory.accept(attempt, content, octets, &live, accounts)?;
        self.journal.append(&Record::Accepted { attempt, content: octets });
        let follows = attempt.map(|_| Follows::first_attempt(content.id));
        self.earn_in_order(earned, follows.as_ref());
        Ok(())
    }

    /// Has the messages that are accepted next share a batch: all of them will be durable at once, or none ever. Their
    /// contents have these lengths; false when that is more than a batch holds.
    pub fn keep_together(&mut self, lengths: impl Iterator<Item = usize>) -> bool {
        self.journal.keep_together(lengths.map(Record::accepted_octets).sum())
    }

    /// Applies an event and puts it on record; `earned` is due once it is durable, and before what the event leads to.
    ///
    /// # Errors
    /// The event does not apply; nothing happened.
    pub fn record(
        &mut self,
        record: &Record<'_>,
        accounts: &Accounts,
        earned: Option<Earned>,
    ) -> Result<(), ApplyError> {
        if self.failed {
            return Err(ApplyError::Unknown);
        }
        let segment = self.begin_record(record);
        let applied = self.memory.apply(record, &Source::live(segment), accounts);
        // Looked at where it is. Taken out, it would be copied, and a copy of what was only just written in pieces waits
        // for all writes before them, those of a message that has to come from far away in memory as well.
        match &applied {
            Err(error) => Err(*error),
            Ok(follows) => {
                self.journal.append(record);
                self.earn_in_order(earned, follows.as_ref());
                Ok(())
            }
        }
    }

    /// Whoever waits for an answer has it before what follows from it.
    fn earn_in_order(&mut self, answer: Option<Earned>, follows: Option<&Follows>) {
        if let Some(answer) = answer {
            self.earn(answer);
        }
        if let Some(follows) = follows {
            if let Follows::HandOver { id, .. } = *follows
                && id.is_short()
            {
                self.unoffered.insert(id);
            }
            self.earn(Earned::Follows(*follows));
        }
    }

    /// A carrier is about to be offered the message.
    pub fn begin_offer(&mut self, id: MessageId) {
        if id.is_short() {
            self.unoffered.remove(&id);
        }
    }

    /// Whether the attempt at a message with a short id is not durable yet, so that no carrier knows of it.
    pub fn is_unoffered(&self, id: MessageId) -> bool {
        self.unoffered.contains(&id)
    }

    /// The segment that a record is about to go to.
    fn begin_record(&mut self, record: &Record<'_>) -> SegmentNumber {
        let (segment, position) = self.journal.place_for(record);
        self.memory.journaled.note(segment, position);
        segment
    }

    /// Something that is due once everything recorded so far is durable. A partition that has failed earns nothing more:
    /// answers do not wait for it.
    pub fn earn(&mut self, earned: Earned) {
        if self.failed {
            debug_assert!(!earned.is_awaited(), "{earned:?} waits for a partition that has failed");
            return;
        }
        let is_awaited = earned.is_awaited();
        self.journal.earn(earned);
        if is_awaited {
            self.journal.want();
        }
    }

    /// The next thing earned.
    pub fn take_earned(&mut self) -> Option<Stored<Earned>> {
        self.journal.take_earned()
    }

    /// Whether something durable was not paid out yet, or a checkpoint is behind.
    pub fn has_more(&self) -> bool {
        self.journal.has_earned() || self.checkpoint_debt > 0
    }

    /// A step of the checkpoint, if it is behind.
    pub fn catch_up(&mut self) {
        if self.checkpoint_debt > 0 {
            self.go_on_with_checkpoint();
        }
    }

    /// Whether there is a batch that somebody waits for. What nobody waits for is written with the next of those, or
    /// after the next tick.
    pub fn wants_batch(&self) -> bool {
        self.journal.is_wanted()
    }

    /// Whether there is a batch to write.
    pub fn has_batch(&self) -> bool {
        self.journal.has_batch()
    }

    /// The next batch to write.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.journal.take_batch()
    }

    /// The batch is durable.
    pub fn commit(&mut self, position: Position, payload_octets: usize, spare: Option<Box<dyn BatchBuffer>>) {
        self.journal.commit(position, payload_octets, spare);
        self.free_segments();
        self.checkpoint_debt += payload_octets;
        self.go_on_with_checkpoint();
    }

    /// Begins a checkpoint if more segments are in use than should be. Every batch asks for that, and time does: when the
    /// journal is full nothing is written any more, and the checkpoint that was under way then may free too few.
    fn free_segments(&mut self) {
        if self.journal.segments_in_use() > self.settings.checkpoint_segments {
            // The younger half stays: most of what it holds ends by itself before its turn comes.
            let kept = (self.settings.checkpoint_segments / 2) as u64;
            self.begin_checkpoint(SegmentNumber(self.journal.segment().0.saturating_sub(kept)));
        }
    }

    /// Durability without a journal (`--durability memory`): everything recorded is earned at once.
    pub fn commit_unwritten(&mut self) {
        self.journal.commit_unwritten();
    }

    /// Segments of the journal that hold something needed.
    pub fn segments_in_use(&self) -> usize {
        self.journal.segments_in_use()
    }

    /// Blocks of unfinished things at rest, and those of them that are cold.
    pub fn blocks_at_rest(&self) -> (usize, usize) {
        self.memory.rest.blocks()
    }

    /// What messages, receipts and replies take in memory, roughly.
    pub fn memory_octets(&self) -> usize {
        self.memory.octets + self.memory.finals.len().1
    }

    /// What the state at rest has done. Things that came back from it are in the second part: messages that a carrier
    /// had before a restart, and parcels.
    ///
    /// # Errors
    /// What came back cannot be read.
    pub fn store_done(&mut self, done: StoreDone, accounts: &Accounts) -> Result<Returned, Unrecoverable> {
        match done {
            StoreDone::Finals(generation) => self.memory.finals.stored(generation),
            StoreDone::Rest(number) => {
                self.memory.rest.stored(number);
                self.cool_down(accounts);
            }
            StoreDone::GotRest(number, octets) => return self.warm_up(number, &octets, accounts),
            StoreDone::Checkpoint(keep) => {
                self.checkpoint_pending = false;
                self.journal.release_below(keep);
            }
            StoreDone::File(file) => self.journal.add_file(file),
            StoreDone::NoRoom(file) => {
                self.journal.miss_file(file);
                self.no_room_until = self.memory.now.instant + NO_ROOM_PAUSE;
            }
        }
        Ok(Returned::default())
    }

    /// It is so late. Told at the begin of every turn.
    pub const fn note_time(&mut self, now: Now) {
        self.memory.now = now;
    }

    /// The next thing that is due by `now`; its timer is gone until it is dealt with. What has left its timer and is not
    /// due (any more) has its timer set again.
    pub fn pop_due(&mut self, now: Now) -> Option<Due> {
        self.memory.now = now;
        loop {
            match self.memory.pop_due(now)? {
                DueThing::Of(RestKey::Message(id)) => {
                    let Some(held) = self.memory.messages.get(id) else { continue };
                    if now.wall >= held.message.expires_at() {
                        return Some(Due::Expired(id));
                    }
                    let Standing { state, deadline, .. } = held.message.standing;
                    let is_before_its_date = state == State::Scheduled && now.wall < deadline;
                    if !held.due_at().has_come(now) {
                        self.memory.set_alarm_again(RestKey::Message(id));
                    } else if state.is_waiting() && !is_before_its_date {
                        return Some(Due::Attempt(id));
                    } else {
                        // A pause is over that it does not wait for: its date had come, nobody could make the attempt, and
                        // the clock was put back since.
                        self.memory.pause_message(id, Instant::MAX);
                    }
                }
                DueThing::Of(RestKey::Parcel(key)) => {
                    let Some(held) = self.memory.parcels.get(key) else { continue };
                    // What its home has may be confirmed yet: it is dealt with when it is back.
                    if held.in_flight {
                        continue;
                    }
                    if now.wall >= held.expires_at {
                        return Some(Due::GiveUp(key));
                    }
                    let is_due = held.due_at().has_come(now);
                    let pause = if is_due { Instant::MAX } else { held.paused_until };
                    self.memory.pause_parcel(key, pause);
                    if is_due {
                        return Some(Due::Deliver(key));
                    }
                }
                DueThing::Block(number) => self.due_blocks.push_back(number),
            }
        }
    }

    /// A message that was due was held back: the next [`pop_due`](Self::pop_due) finds it, if it still is.
    pub fn look_again(&mut self, id: MessageId) {
        self.memory.due.push_back(RestKey::Message(id));
    }

    /// Puts a message back that was due for an attempt nobody could make, until a pause ends.
    pub fn pause(&mut self, id: MessageId, until: Instant) {
        self.memory.pause_message(id, until);
    }

    /// Every message that a carrier had or may have had, and every parcel: what goes on after a restart. Those that are
    /// cold come back by and by.
    pub fn resume(&self) -> (Vec<MessageId>, Vec<ParcelKey>) {
        let with_carrier = |held: &HeldMessage| !held.message.standing.state.is_waiting();
        let messages = self.memory.messages.iter();
        let mut messages: Vec<MessageId> =
            messages.filter(|(_, held)| with_carrier(held)).map(|(id, _)| id).collect();
        // Short ids come round: the one that most were given out behind is the oldest.
        let [_, last_short] = self.last_ids();
        messages.sort_unstable_by_key(|id| match id.is_short() {
            true => (true, u64::MAX - id.short_ids_until(last_short)),
            false => (false, id.as_u64()),
        });
        let mut parcels: Vec<ParcelKey> = self.memory.parcels.iter().map(|(key, _)| key).collect();
        parcels.sort_unstable();
        (messages, parcels)
    }
}

/// What has come back from the state at rest.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Returned {
    /// Messages that a carrier had or may have had before a restart: it is to be offered them again.
    pub with_carrier: Vec<MessageId>,
    /// Receipts and replies, to be delivered.
    pub parcels: Vec<ParcelKey>,
}
