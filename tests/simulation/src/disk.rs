//! The disk: journal files and the state at rest of every partition, and what a power cut leaves of them.
//!
//! All that the simulation knows of the core's interface to the disk is in this file: how a batch is written and read
//! back, the orders to the state at rest, and recovery. The world asks
//! for the next thing, lets time pass, and is told what came of it as a [`Done`].

mod round;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use smppd::account::Accounts;
use smppd::journal::{
    BATCH_ALIGN, BatchHeader, Buffers, Identity, JournalStart, Position, Record, Ring, SegmentNumber,
    find_batch, replay_segment,
};
use smppd::message::PartitionNumber;
use smppd::shard::{Commit, Lookup, Partition, PartitionSettings, Recovery, Shard};
use smppd::store::{
    self, BlockError, BlockKey, Checkpoint, FinalMessage, RestChanges, RestNumber, StoreDone, StoreOp,
};
use smppd::time::Now;

use crate::random::Random;

const SECTOR: usize = 512;
/// No order takes longer.
const ORDER_MICROS_MAX: u64 = 3_000_000;
/// Journal files that are made before the first message comes.
const FILES_READY: usize = 3;

/// How this disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct DiskSettings {
    /// The size of a journal file, and of the longest batch.
    pub segment_octets: usize,
    /// See above.
    pub batch_octets_max: usize,
    /// Orders that wait for the state at rest before the partition keeps them.
    pub orders_max: usize,
    /// Of ten thousand writes, how many fail.
    pub failing_writes: u64,
    /// Of ten thousand orders, how many fail.
    pub failing_orders: u64,
    /// Of ten thousand questions, how many cannot be answered.
    pub failing_lookups: u64,
    /// Of a hundred files that are to be made, for how many there is no room at first.
    pub no_room: u64,
    /// Microseconds of a write, about.
    pub write_micros: u64,
    /// Microseconds of an order, about.
    pub order_micros: u64,
}

/// What the disk has done for a partition.
pub enum Done {
    /// A batch is durable.
    Written(Commit),
    /// A batch could not be written.
    WriteFailed,
    /// The state at rest has done something.
    Stored(StoreDone),
    /// It has answered.
    Found(Box<Lookup>, Vec<FinalMessage<'static>>),
    /// It could not answer.
    NotFound(Box<Lookup>),
    /// It failed.
    StoreFailed,
}

/// What a write or an order will need until it is done.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    /// How long it takes, in microseconds.
    pub micros: u64,
}

#[derive(Debug)]
struct Write {
    file: usize,
    offset: usize,
    octets: Vec<u8>,
    position: Position,
    payload_octets: usize,
}

#[derive(Debug)]
enum Order {
    Op(StoreOp),
    Lookup(Box<Lookup>),
}

/// A change of the state at rest that no sync has made durable.
#[derive(Debug)]
enum Unsynced {
    Block(BlockKey, Vec<u8>),
    Rest(RestNumber, Vec<u8>),
    /// What a start removed.
    Removed(RestNumber),
}

/// What the platters of one partition hold, and what is on its way there.
#[derive(Debug)]
pub struct PartitionDisk {
    identity: Identity,
    settings: DiskSettings,
    files: Vec<Vec<u8>>,
    rest: BTreeMap<RestNumber, Vec<u8>>,
    gone: BTreeMap<RestNumber, Vec<u16>>,
    blocks: BTreeMap<BlockKey, Vec<u8>>,
    checkpoint: Checkpoint,

    // What a process has in memory.
    writing: Option<Write>,
    journal_failed: bool,
    newest: SegmentNumber,
    orders: VecDeque<Order>,
    is_ordering: bool,
    store_failed: bool,
    /// No file can be made, nor opened for the first time.
    has_no_files: bool,
    unsynced: Vec<Unsynced>,
}

/// What a recovery has found on the platters.
#[derive(Debug)]
pub struct Found {
    /// Segments needed, oldest first, with their files.
    segments: Vec<(SegmentNumber, u32)>,
    /// Whole batches behind the checkpoint.
    pub batches: Vec<(SegmentNumber, Position, Vec<u8>)>,
}

impl PartitionDisk {
    /// A new partition.
    pub fn new(number: PartitionNumber, settings: DiskSettings, random: &mut Random) -> Self {
        Self {
            identity: Identity { partition: number, salt: random.number() },
            settings,
            files: Vec::new(),
            rest: BTreeMap::new(),
            gone: BTreeMap::new(),
            blocks: BTreeMap::new(),
            checkpoint: Checkpoint::initial(),
            writing: None,
            journal_failed: false,
            newest: SegmentNumber(0),
            orders: VecDeque::new(),
            is_ordering: false,
            store_failed: false,
            has_no_files: false,
            unsynced: Vec::new(),
        }
    }

    /// From now on the disk behaves so.
    pub const fn behave(&mut self, settings: DiskSettings) {
        let DiskSettings { segment_octets, batch_octets_max, .. } = self.settings;
        // Files keep their size for life.
        self.settings = DiskSettings { segment_octets, batch_octets_max, ..settings };
    }

    /// Whether files can be made.
    pub const fn deny_files(&mut self, has_no_files: bool) {
        self.has_no_files = has_no_files;
    }

    // The journal.

    /// What is written now, if nothing is.
    pub fn begin_write(&mut self, shard: &mut Shard, place: usize, random: &mut Random) -> Option<Begun> {
        if self.writing.is_some() || self.journal_failed {
            return None;
        }
        let batch = shard.take_batch(place)?;
        let placement = batch.placement();
        self.writing = Some(Write {
            file: placement.file as usize,
            offset: placement.offset as usize,
            octets: batch.octets().to_vec(),
            position: batch.position(),
            payload_octets: batch.payload_octets(),
        });
        Some(Begun { micros: random.delay(self.settings.write_micros / 4, self.settings.write_micros) })
    }

    /// The write is over.
    pub fn finish_write(&mut self, random: &mut Random) -> Option<(Done, Vec<u8>)> {
        let write = self.writing.take()?;
        if random.range(0, 9_999) < self.settings.failing_writes {
            self.journal_failed = true;
            self.tear(&write, random);
            // As the server does before anybody is refused: no replay takes it for a batch.
            self.files[write.file][write.offset..write.offset + BATCH_ALIGN].fill(0);
            return Some((Done::WriteFailed, Vec::new()));
        }
        self.put(&write, |_| true);
        // What the platters say, not what we meant to write.
        let octets = &self.files[write.file][write.offset..];
        let records = BatchHeader::read_batch(self.identity, octets).map(|(_, records)| records.to_vec());
        let commit = Commit {
            position: write.position,
            payload_octets: write.payload_octets,
            octets: write.octets.len(),
            micros: 100,
            spare: None,
        };
        Some((Done::Written(commit), records.unwrap_or_default()))
    }

    /// Whether a batch is being written.
    pub const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    fn put(&mut self, write: &Write, mut reaches: impl FnMut(usize) -> bool) {
        for (number, sector) in write.octets.chunks(SECTOR).enumerate() {
            if reaches(number) {
                let start = write.offset + number * SECTOR;
                self.files[write.file][start..start + sector.len()].copy_from_slice(sector);
            }
        }
    }

    /// A write that nobody knows the end of: lost, whole, or torn in blocks or in sectors.
    fn tear(&mut self, write: &Write, random: &mut Random) {
        match random.range(0, 3) {
            0 => {}
            1 => self.put(write, |_| true),
            2 => {
                let kept = random.number();
                self.put(write, |sector| kept >> (sector * SECTOR / BATCH_ALIGN % 64) & 1 == 1);
            }
            _ => self.put(write, |_| random.chance(50)),
        }
    }

    // The state at rest.

    /// Takes orders while there is room for them.
    pub fn take_orders(&mut self, shard: &mut Shard, place: usize) {
        while self.orders.len() < self.settings.orders_max {
            let Some(op) = shard.take_store_op(place) else { return };
            self.orders.push_back(Order::Op(op));
        }
    }

    /// Takes a question; gives it back when there is no room for it.
    ///
    /// # Errors
    /// The queue is full.
    pub fn ask(&mut self, lookup: Lookup) -> Result<(), Lookup> {
        if self.orders.len() >= self.settings.orders_max {
            return Err(lookup);
        }
        self.orders.push_back(Order::Lookup(Box::new(lookup)));
        Ok(())
    }

    /// Whether orders wait or are being carried out.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// What is carried out now, if nothing is.
    pub fn begin_order(&mut self, random: &mut Random) -> Option<Begun> {
        if self.is_ordering || self.orders.is_empty() {
            return None;
        }
        self.is_ordering = true;
        let slow = match self.orders.front() {
            Some(Order::Op(StoreOp::Checkpoint(..))) => 10,
            Some(_) | None => 1,
        };
        let micros = self.settings.order_micros * slow;
        Some(Begun { micros: random.delay(micros / 4, micros).min(ORDER_MICROS_MAX) })
    }

    /// The order is carried out.
    pub fn finish_order(&mut self, random: &mut Random) -> Option<Done> {
        self.is_ordering = false;
        let order = self.orders.pop_front()?;
        if self.store_failed {
            return match order {
                Order::Lookup(lookup) => Some(Done::NotFound(lookup)),
                Order::Op(_) => None,
            };
        }
        let op = match order {
            Order::Lookup(lookup) if random.range(0, 9_999) < self.settings.failing_lookups => {
                return Some(Done::NotFound(lookup));
            }
            Order::Lookup(lookup) => {
                let found = self.find(&lookup);
                return Some(Done::Found(lookup, found));
            }
            Order::Op(op) => op,
        };
        if let StoreOp::MakeFile(file) = op
            && (self.has_no_files || random.range(0, 99) < self.settings.no_room)
        {
            return Some(Done::Stored(StoreDone::NoRoom(file)));
        }
        if random.range(0, 9_999) < self.settings.failing_orders {
            self.store_failed = true;
            // Perhaps it was carried out in part.
            if random.chance(50) {
                self.apply(op, random.range(0, 2));
            }
            return Some(Done::StoreFailed);
        }
        Some(Done::Stored(self.apply(op, 3)))
    }

    /// Carries out an order; of a checkpoint only so many of its three steps.
    fn apply(&mut self, op: StoreOp, steps: u64) -> StoreDone {
        match op {
            StoreOp::PutFinals(generation, octets) => {
                let blocks = store::cut(generation, &octets).unwrap_or_default();
                self.unsynced.extend(blocks.into_iter().map(|(key, octets)| Unsynced::Block(key, octets)));
                StoreDone::Finals(generation)
            }
            StoreOp::PutRest(number, octets) => {
                self.unsynced.push(Unsynced::Rest(number, octets));
                StoreDone::Rest(number)
            }
            StoreOp::GetRest(number) => {
                let young = self.unsynced.iter().rev().find_map(|change| match change {
                    Unsynced::Rest(young, octets) if *young == number => Some(octets),
                    Unsynced::Rest(..) | Unsynced::Block(..) | Unsynced::Removed(_) => None,
                });
                let octets = young.or_else(|| self.rest.get(&number)).cloned().unwrap_or_default();
                StoreDone::GotRest(number, octets.into())
            }
            StoreOp::Checkpoint(checkpoint, RestChanges { removed, gone }) => {
                if steps > 0 {
                    for change in std::mem::take(&mut self.unsynced) {
                        self.make_durable(change);
                    }
                }
                if steps > 1 {
                    for number in removed {
                        self.rest.remove(&number);
                        self.gone.remove(&number);
                    }
                    self.gone.extend(gone);
                    self.checkpoint = checkpoint.clone();
                }
                StoreDone::Checkpoint(checkpoint.segment)
            }
            StoreOp::MakeFile(file) => {
                // A start takes a gap for damage.
                assert!(file as usize <= self.files.len(), "file {file} is made before those below it");
                self.make_files(file as usize + 1);
                StoreDone::File(file)
            }
        }
    }

    fn make_files(&mut self, count: usize) {
        let missing = count.saturating_sub(self.files.len());
        let segment_octets = self.settings.segment_octets;
        self.files.extend((0..missing).map(|_| vec![0; segment_octets]));
    }

    fn make_durable(&mut self, change: Unsynced) {
        match change {
            Unsynced::Block(key, octets) => _ = self.blocks.insert(key, octets),
            Unsynced::Rest(number, octets) => _ = self.rest.insert(number, octets),
            Unsynced::Removed(number) => _ = self.rest.remove(&number),
        }
    }

    fn find(&self, lookup: &Lookup) -> Vec<FinalMessage<'static>> {
        let ids = lookup.id..=lookup.id.in_batch(lookup.count.saturating_sub(1));
        let mut blocks: BTreeMap<[u8; 16], &[u8]> = BTreeMap::new();
        blocks.extend(self.blocks.iter().map(|(key, octets)| (key.to_octets(), octets.as_slice())));
        blocks.extend(self.unsynced.iter().filter_map(|change| match change {
            Unsynced::Block(key, octets) => Some((key.to_octets(), octets.as_slice())),
            Unsynced::Rest(..) | Unsynced::Removed(_) => None,
        }));
        let candidates = blocks.range(BlockKey::range(&ids)).rev();
        store::find(&ids, candidates.map(Ok::<_, BlockError>)).unwrap_or_default()
    }

    // The end of a process and the beginning of the next.

    /// The power goes, or the process is killed.
    pub fn crash(&mut self, random: &mut Random) {
        if let Some(write) = self.writing.take() {
            // The next process reads the platters when the kernel has done with it: its lock says so.
            self.tear(&write, random);
        }
        if self.is_ordering
            && !self.store_failed
            && let Some(Order::Op(op)) = self.orders.pop_front()
        {
            self.apply(op, random.range(0, 2));
        }
        // Nothing orders the changes since the last sync.
        for change in std::mem::take(&mut self.unsynced) {
            if random.chance(50) {
                self.make_durable(change);
            }
        }
        self.forget();
    }

    /// The process ends as it should.
    pub fn stop(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.make_durable(change);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.orders.clear();
        self.is_ordering = false;
        self.store_failed = false;
        self.journal_failed = false;
        self.writing = None;
    }

    /// The batch before the first one that is needed.
    pub const fn before_first(&self) -> Position {
        Position(self.checkpoint.first.0.saturating_sub(1))
    }

    /// Reads the platters as the server does when it starts.
    ///
    /// # Errors
    /// Damage that must not be passed over.
    pub fn open(&mut self) -> Result<Found, String> {
        let number = self.identity.partition;
        let mut segments = Vec::new();
        self.newest = SegmentNumber(self.checkpoint.segment.0.saturating_sub(1));
        for (file, octets) in (0..).zip(&self.files) {
            match BatchHeader::read(self.identity, octets) {
                Ok(header) => {
                    self.newest = self.newest.max(header.segment);
                    if header.segment >= self.checkpoint.segment {
                        segments.push((header.segment, file));
                    }
                }
                Err(_) => {
                    if let Some((offset, header)) = find_batch(self.identity, self.checkpoint.segment, octets)
                    {
                        return Err(format!(
                            "partition {number}: file {file} is damaged before batch {} at {offset}",
                            header.position.0
                        ));
                    }
                }
            }
        }
        segments.sort_unstable();
        self.make_files(FILES_READY);
        let batches = self.read_batches(&segments)?;
        Ok(Found { segments, batches })
    }

    fn read_batches(
        &self,
        segments: &[(SegmentNumber, u32)],
    ) -> Result<Vec<(SegmentNumber, Position, Vec<u8>)>, String> {
        let mut batches = Vec::new();
        let mut expected = self.checkpoint.first;
        for (segment, file) in segments {
            if *segment == self.checkpoint.segment {
                let first = BatchHeader::read(self.identity, &self.files[*file as usize]);
                expected = first.map_or(expected, |header| header.position);
            }
            let replay = replay_segment(self.identity, *segment, expected, &self.files[*file as usize])
                .map_err(|fault| format!("partition {}: {fault:?}", self.identity.partition))?;
            for (position, records) in replay.batches {
                batches.push((*segment, position, records.to_vec()));
                expected = position.next();
            }
        }
        Ok(batches)
    }

    /// The accounts that messages and parcels name.
    pub fn system_ids(&self, found: &Found) -> BTreeSet<Box<[u8]>> {
        let mut names: BTreeSet<Box<[u8]>> =
            self.checkpoint.credits_used.iter().map(|(system_id, _)| system_id.clone()).collect();
        for (_, _, records) in &found.batches {
            let mut records = records.as_slice();
            while let Ok(Some(record)) = Record::take(&mut records) {
                names.extend(record.system_id().map(Box::from));
            }
        }
        names
    }

    /// A partition that goes on where it was.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn recover(
        &mut self,
        settings: PartitionSettings,
        found: &Found,
        accounts: &Accounts,
        now: Now,
    ) -> Result<Partition, String> {
        let number = self.identity.partition;
        let mut recovery = Recovery::new(number, 0, settings, &self.checkpoint, now);
        let other_version =
            |position: Position| format!("partition {number}: batch {} cannot be read", position.0);
        for (_, position, records) in &found.batches {
            recovery.foresee(records).map_err(|_| other_version(*position))?;
        }
        // What a checkpoint left that was never made.
        let left: Vec<RestNumber> =
            self.rest.range(self.checkpoint.next_rest..).map(|(number, _)| *number).collect();
        self.unsynced.extend(left.iter().map(|number| Unsynced::Removed(*number)));
        for (block, octets) in self.rest.range(..self.checkpoint.next_rest) {
            let gone = self.gone.get(block).cloned().unwrap_or_default();
            recovery
                .restore(*block, octets, gone, accounts)
                .map_err(|_| format!("partition {number}: block {} cannot be read", block.0))?;
        }
        if recovery.at_rest() != self.checkpoint.at_rest {
            let (found, wanted) = (recovery.at_rest(), self.checkpoint.at_rest);
            return Err(format!("partition {number}: {found:?} of {wanted:?} blocks and things are at rest"));
        }
        let mut last = self.before_first();
        for (segment, position, records) in &found.batches {
            last = *position;
            recovery.replay(*segment, *position, records, accounts).map_err(|_| other_version(*position))?;
        }
        if last < self.checkpoint.as_of {
            return Err(format!(
                "partition {number}: the journal ends with {last:?} before {:?}",
                self.checkpoint.as_of
            ));
        }
        let DiskSettings { segment_octets, batch_octets_max, .. } = self.settings;
        let (files, newest) = (self.files.len() as u32, self.newest);
        let ring = Ring::resume(segment_octets as u64, batch_octets_max, &found.segments, newest, files);
        let buffers: Buffers = Box::new(|octets| Box::new(vec![0xEE; octets]));
        Ok(Partition::open(recovery.finish(JournalStart { identity: self.identity, ring, last }), buffers))
    }
}

impl Done {
    /// Whether a disk has failed.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::WriteFailed | Self::StoreFailed)
    }

    /// Whether a checkpoint was made.
    pub const fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Stored(StoreDone::Checkpoint(..)))
    }

    /// Whether a question could not be answered.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(..))
    }

    /// Whether there was no room for a file.
    pub const fn is_no_room(&self) -> bool {
        matches!(self, Self::Stored(StoreDone::NoRoom(..)))
    }

    /// Whether a block came back.
    pub const fn is_fetch(&self) -> bool {
        matches!(self, Self::Stored(StoreDone::GotRest(..)))
    }

    /// Tells the shard.
    pub fn tell(self, shard: &mut Shard, now: Now, number: PartitionNumber, place: usize) {
        match self {
            Self::Written(commit) => shard.committed(now, place, commit),
            Self::WriteFailed => shard.failed(now, place, "the simulated journal failed"),
            Self::Stored(done) => shard.handle_store(now, number, done),
            Self::Found(lookup, found) => shard.handle_lookup(now, *lookup, found),
            Self::NotFound(lookup) => shard.handle_lookup_failed(now, &lookup),
            Self::StoreFailed => shard.store_failed(now, place, "the simulated state at rest failed"),
        }
    }
}

/// The settings of partitions.
pub fn partition_settings(random: &mut Random) -> PartitionSettings {
    PartitionSettings {
        messages_max: random.pick(&[12, 40, 1_000, 1_000]),
        segments_max: random.pick(&[6, 12, 64]),
        journal_waiting_octets_max: random.pick(&[2_000, 1 << 20, 1 << 20]),
        store_waiting_max: random.pick(&[20, 1_000]),
        messages_octets_max: random.pick(&[30_000, 100_000, 1 << 30]),
        checkpoint_segments: random.range(1, 4) as usize,
        checkpoint_visits: random.range(1, 40) as usize,
        parcel_retention: Duration::from_secs(3_600),
        retry_delay_max: crate::world::RETRY.delay_max,
        ..PartitionSettings::default()
    }
}
