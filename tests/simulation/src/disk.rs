//! The disk: journal files and the state at rest of every partition, and what a power cut leaves of them.
//!
//! All that the simulation knows of the core's interface to the disk is in this file: where a batch goes
//! ([`Ring`]), how it is sealed and read back, the orders to the state at rest, and recovery. The world asks
//! for the next thing, lets time pass, and is told what came of it as a [`Done`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use smppd::account::Accounts;
use smppd::journal::{
    BATCH_ALIGN, Batch, BatchHeader, Identity, Position, Record, Ring, SegmentNumber, find_batch,
    replay_segment,
};
use smppd::message::{Content, Parcel, PartitionNumber};
use smppd::shard::{Commit, Lookup, Partition, PartitionSettings, Shard};
use smppd::store::{Block, BlockKey, Checkpoint, FinalMessage, RestKey, StoreDone, StoreOp};
use smppd::time::Now;

use crate::random::Random;

const SECTOR: usize = 512;
/// Journal files that are made before the first message comes.
const FILES_READY: u32 = 3;

/// How this disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct DiskSettings {
    /// The size of a journal file.
    pub segment_octets: usize,
    /// Orders that wait for the state at rest before the partition keeps them.
    pub orders_max: usize,
    /// Of ten thousand writes, how many fail.
    pub failing_writes: u64,
    /// Of ten thousand orders, how many fail.
    pub failing_orders: u64,
    /// Microseconds of a write, about.
    pub write_micros: u64,
    /// Microseconds of an order, about.
    pub order_micros: u64,
}

/// What the disk has done for a partition.
#[derive(Debug)]
pub enum Done {
    /// A batch is durable.
    Written(Commit),
    /// A batch could not be written.
    WriteFailed,
    /// The state at rest has done something.
    Stored(StoreDone),
    /// It has answered.
    Found(Box<Lookup>, Vec<FinalMessage>),
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
    batch: Batch,
    segment: SegmentNumber,
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
    Rest(RestKey, Vec<u8>),
}

/// What the platters of one partition hold, and what is on its way there.
#[derive(Debug)]
pub struct PartitionDisk {
    identity: Identity,
    settings: DiskSettings,
    files: Vec<Vec<u8>>,
    rest: BTreeMap<[u8; 10], Vec<u8>>,
    blocks: BTreeMap<BlockKey, Vec<u8>>,
    checkpoint: Checkpoint,
    /// A write of a process that was killed: it may still reach the platters.
    late: Option<Write>,

    // What a process has in memory.
    ring: Ring,
    writing: Option<Write>,
    journal_failed: bool,
    released: Option<SegmentNumber>,
    newest: SegmentNumber,
    orders: VecDeque<Order>,
    is_ordering: bool,
    store_failed: bool,
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
            blocks: BTreeMap::new(),
            checkpoint: Checkpoint::initial(),
            late: None,
            ring: Ring::resume(settings.segment_octets as u64, &[], SegmentNumber(0), 0),
            writing: None,
            journal_failed: false,
            released: None,
            newest: SegmentNumber(0),
            orders: VecDeque::new(),
            is_ordering: false,
            store_failed: false,
            unsynced: Vec::new(),
        }
    }

    /// From now on the disk behaves so.
    pub const fn behave(&mut self, settings: DiskSettings) {
        let segment_octets = self.settings.segment_octets;
        // Files keep their size for life.
        self.settings = DiskSettings { segment_octets, ..settings };
    }

    // The journal.

    /// What is written now, if nothing is: segments freed come first, batch or no batch.
    pub fn begin_write(&mut self, shard: &mut Shard, place: usize, random: &mut Random) -> Option<Begun> {
        if self.writing.is_some() || self.journal_failed {
            return None;
        }
        if let Some(keep) = self.released.take() {
            self.ring.release_below(keep);
            shard.segments_released(place, self.ring.segments_in_use());
        }
        let (position, mut batch) = shard.take_batch(place)?;
        let placement = self.ring.place(batch.aligned_octets());
        if placement.is_new_file {
            self.files.push(vec![0; self.settings.segment_octets]);
        }
        let octets = batch.seal(self.identity, placement.segment, position).to_vec();
        let (file, offset, segment) = (placement.file as usize, placement.offset as usize, placement.segment);
        self.writing = Some(Write { file, offset, octets, position, batch, segment });
        Some(Begun { micros: random.delay(self.settings.write_micros / 4, self.settings.write_micros) })
    }

    /// The write is over.
    pub fn finish_write(&mut self, random: &mut Random) -> Option<(Done, Vec<u8>)> {
        let write = self.writing.take()?;
        if random.range(0, 9_999) < self.settings.failing_writes {
            self.journal_failed = true;
            self.tear(&write, random);
            return Some((Done::WriteFailed, Vec::new()));
        }
        self.put(&write, |_| true);
        self.newest = write.segment;
        // What the platters say, not what we meant to write.
        let octets = &self.files[write.file][write.offset..];
        let records = BatchHeader::read_batch(self.identity, octets).map(|(_, records)| records.to_vec());
        let commit = Commit {
            position: write.position,
            batch: write.batch,
            segment: write.segment,
            segments_in_use: self.ring.segments_in_use(),
            micros: 100,
        };
        Some((Done::Written(commit), records.unwrap_or_default()))
    }

    /// Whether a batch is being written.
    pub const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// The segment of the last batch that was written.
    pub const fn newest(&self) -> SegmentNumber {
        self.newest
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
        Some(Begun { micros: random.delay(micros / 4, micros) })
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
            Order::Lookup(lookup) => {
                let found = self.find(&lookup);
                return Some(Done::Found(lookup, found));
            }
            Order::Op(op) => op,
        };
        if random.range(0, 9_999) < self.settings.failing_orders {
            self.store_failed = true;
            // Perhaps it was carried out in part.
            if random.chance(50) {
                self.apply(op, random.range(0, 2));
            }
            return Some(Done::StoreFailed);
        }
        let done = self.apply(op, 3);
        if let Some(StoreDone::Checkpoint(keep, _)) = done {
            self.released = Some(keep);
        }
        done.map(Done::Stored)
    }

    /// Whether freed segments wait for the journal to know.
    pub const fn has_released(&self) -> bool {
        self.released.is_some()
    }

    /// Carries out an order; of a checkpoint only so many of its three steps.
    fn apply(&mut self, op: StoreOp, steps: u64) -> Option<StoreDone> {
        match op {
            StoreOp::PutBlock(key, octets) => {
                self.unsynced.push(Unsynced::Block(key, octets));
                Some(StoreDone::Block(key))
            }
            StoreOp::PutRest(key, octets) => {
                self.unsynced.push(Unsynced::Rest(key, octets));
                None
            }
            StoreOp::Checkpoint(checkpoint, gone) => {
                if steps > 0 {
                    for change in std::mem::take(&mut self.unsynced) {
                        self.make_durable(change);
                    }
                }
                if steps > 1 {
                    for key in gone {
                        self.rest.remove(&key.to_octets());
                    }
                    self.checkpoint = checkpoint.clone();
                }
                Some(StoreDone::Checkpoint(checkpoint.segment, checkpoint.first))
            }
        }
    }

    fn make_durable(&mut self, change: Unsynced) {
        match change {
            Unsynced::Block(key, octets) => _ = self.blocks.insert(key, octets),
            Unsynced::Rest(key, octets) => _ = self.rest.insert(key.to_octets(), octets),
        }
    }

    fn find(&self, lookup: &Lookup) -> Vec<FinalMessage> {
        let last = lookup.id.in_batch(lookup.count.saturating_sub(1));
        let young = self.unsynced.iter().filter_map(|change| match change {
            Unsynced::Block(_, octets) => Some(octets),
            Unsynced::Rest(..) => None,
        });
        let mut found: Vec<FinalMessage> = Vec::new();
        for octets in self.blocks.values().chain(young) {
            let Ok(block) = Block::read(octets) else { continue };
            for message in block.messages_in(lookup.id..=last).flatten() {
                found.retain(|known| known.id != message.id);
                found.push(message);
            }
        }
        found
    }

    // The end of a process and the beginning of the next.

    /// The power goes, or the process is killed.
    pub fn crash(&mut self, random: &mut Random) {
        if let Some(write) = self.writing.take() {
            if random.chance(10) {
                // The kernel has it: it may reach the platters when the next process has already read them.
                self.late = Some(write);
            } else {
                self.tear(&write, random);
            }
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
        self.released = None;
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
    pub fn open(&mut self, random: &mut Random) -> Result<Found, String> {
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
        while self.files.len() < FILES_READY as usize {
            self.files.push(vec![0; self.settings.segment_octets]);
        }
        let batches = self.read_batches(&segments)?;
        if let Some(late) = self.late.take() {
            self.tear(&late, random);
        }
        Ok(Found { segments, batches })
    }

    fn read_batches(
        &self,
        segments: &[(SegmentNumber, u32)],
    ) -> Result<Vec<(SegmentNumber, Position, Vec<u8>)>, String> {
        let mut batches = Vec::new();
        let mut expected = self.checkpoint.first;
        let first_of = |file: u32| {
            BatchHeader::read(self.identity, &self.files[file as usize]).map(|header| header.position)
        };
        for (place, (segment, file)) in segments.iter().enumerate() {
            if *segment == self.checkpoint.segment {
                expected = first_of(*file).unwrap_or(expected);
            }
            let replay = replay_segment(self.identity, *segment, expected, &self.files[*file as usize])
                .map_err(|fault| format!("partition {}: {fault:?}", self.identity.partition))?;
            let next = segments.get(place + 1).and_then(|(_, file)| first_of(*file).ok());
            for (position, records) in replay.batches {
                if next.is_some_and(|next| position >= next) {
                    break;
                }
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
        for mut record in self.rest.values().filter_map(|value| value.get(8..)) {
            names.extend(Record::take(&mut record).ok().flatten().and_then(system_id));
        }
        for (_, _, records) in &found.batches {
            let mut records = records.as_slice();
            while let Ok(Some(record)) = Record::take(&mut records) {
                names.extend(system_id(record));
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
    ) -> Result<Partition, String> {
        let number = self.identity.partition;
        let mut partition = Partition::recover(number, 0, settings, &self.checkpoint);
        for value in self.rest.values() {
            partition
                .restore(value, accounts)
                .map_err(|_| format!("partition {number}: something at rest cannot be read"))?;
        }
        let mut last = self.before_first();
        for (segment, position, records) in &found.batches {
            last = *position;
            partition
                .replay(*segment, *position, records, accounts)
                .map_err(|_| format!("partition {number}: batch {} cannot be read", position.0))?;
        }
        partition.finish_recovery(last);
        let files = self.files.len() as u32;
        let octets = self.settings.segment_octets as u64;
        self.ring = Ring::resume(octets, &found.segments, self.newest, files);
        Ok(partition)
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

    /// Tells the shard.
    pub fn tell(self, shard: &mut Shard, now: Now, number: PartitionNumber, place: usize) {
        match self {
            Self::Written(commit) => shard.committed(now, place, commit),
            Self::WriteFailed => shard.failed(now, place, "the simulated journal failed"),
            Self::Stored(done) => shard.handle_store(number, done),
            Self::Found(lookup, found) => shard.handle_lookup(now, *lookup, found),
            Self::NotFound(lookup) => shard.handle_lookup_failed(now, &lookup),
            Self::StoreFailed => shard.store_failed(now, place, "the simulated state at rest failed"),
        }
    }
}

/// The settings of partitions whose segments have so many octets.
pub fn partition_settings(segment_octets: usize, random: &mut Random) -> PartitionSettings {
    PartitionSettings {
        messages_max: random.pick(&[12, 40, 1_000, 1_000]),
        batch_octets_max: random.pick(&[1, 512, segment_octets / 4]),
        segments_max: random.pick(&[6, 12, 64]),
        journal_waiting_octets_max: random.pick(&[2_000, 1 << 20, 1 << 20]),
        store_waiting_max: random.pick(&[20, 1_000]),
        checkpoint_segments: random.range(1, 4) as usize,
        parcel_retention: Duration::from_secs(3_600),
        ..PartitionSettings::default()
    }
}

fn system_id(record: Record<'_>) -> Option<Box<[u8]>> {
    match record {
        Record::Accepted { content, .. } | Record::MessageAtRest { content, .. } => {
            Content::read(content).ok().map(|content| content.system_id.into())
        }
        Record::Mo(octets) | Record::DeliveryAtRest(octets) => {
            Parcel::read(octets).ok().map(|parcel| parcel.view().system_id.into())
        }
        Record::Attempt { .. }
        | Record::Forwarded { .. }
        | Record::Deferred { .. }
        | Record::Interim { .. }
        | Record::Final { .. }
        | Record::Replaced { .. }
        | Record::Settled { .. } => None,
    }
}
