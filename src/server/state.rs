//! The state at rest: sled, behind the journal. One thread a partition, for sled may block for long.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::journal::Identity;
use crate::message::{IdSource, MessageId, PartitionNumber};
use crate::server::barrier;
use crate::server::clock::Clock;
use crate::server::descriptors::{self, is_shortage, patiently};
use crate::server::disk;
use crate::server::durable_file;
use crate::server::fault::{self, Layer, Point};
use crate::server::mesh::{Inbound, MailSender};
use crate::shard::Lookup;
use crate::store::{
    self, Block, BlockError, BlockKey, Checkpoint, FinalMessage, RestChanges, RestNumber, StoreDone, StoreOp,
    gone_from_octets, gone_to_octets,
};
use crate::time::{Now, Timestamp};

/// Orders and questions that may wait for the thread.
const WAITING_MAX: usize = 4_096;
/// With so many of them waiting no more orders come: the partition keeps them, and refuses messages when it has many.
pub(super) const ORDERS_MAX: usize = 64;
/// Niceness of the thread.
const PATIENCE: i32 = 10;
/// How often blocks past their retention are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Blocks looked at in one sweep, so that queries are not kept waiting.
const SWEEP_MAX: usize = 10_000;
/// Ids this far ahead of the clock are of a time when it was ahead.
const AHEAD: Duration = Duration::from_secs(3_600);
const CACHE_OCTETS: u64 = 64 << 20;
/// What is put is sent to the disk in portions of this.
const PORTION_OCTETS: usize = 512 << 10;
/// Segments of sled's own log. A page of more than a quarter of one would go to a file of its own, which sled never
/// syncs: a power cut could lose it behind a checkpoint.
const SEGMENT_OCTETS: usize = 8 << 20;
const FORMAT: &[u8] = b"smppd partition 3";
/// Keys of blocks of unfinished things, of what has gone of each, and of the checkpoint: one tree, so that one batch
/// changes all.
const BLOCK: u8 = 0;
const GONE: u8 = 1;
const CHECKPOINT: &[u8] = &[0xFF];
/// The key of how many blocks of final messages a checkpoint vouches for, in the same tree and the same batch: what loses it
/// loses the checkpoint as well.
const FINAL_BLOCKS: &[u8] = &[0xFF, 0];
/// What the keys of counts begin with, beside the format and the salt.
const COUNT: &[u8] = b"blocks of generation ";

/// An order for the thread of a partition.
pub(super) enum Order {
    /// Do this.
    Op(StoreOp),
    /// Answer this.
    Lookup(Box<Lookup>),
    /// Finish what is there, then end.
    Stop,
}

/// What is at rest of a partition, for whoever only reads; sled lets them read beside the thread that writes.
#[derive(Clone)]
pub(super) struct AtRest {
    meta: sled::Tree,
    rest: sled::Tree,
    finals: sled::Tree,
    folder: PathBuf,
}

/// An entry beside the checkpoint in the tree of unfinished things.
pub(super) enum RestEntry {
    /// A block of them.
    Block(RestNumber, sled::IVec),
    /// What has gone of a block, as it was kept.
    Gone(RestNumber, sled::IVec),
    /// A key that nobody knows.
    Unknown(sled::IVec),
}

impl AtRest {
    /// Opens a database in the folder that it is itself in. sled writes when it opens one: this is for copies.
    ///
    /// # Errors
    /// It cannot be opened, or is none.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        opening(|| {
            remove_unfinished_snapshots(folder)?;
            let db = match State::config(folder).open() {
                Err(sled::Error::Corruption { .. }) => {
                    remove_snapshots(folder)?;
                    State::config(folder).open()
                }
                opened => opened,
            }
            .map_err(unopened)?;
            let names = db.tree_names();
            let tree = |name: &str| match names.iter().any(|known| known == name.as_bytes()) {
                true => db.open_tree(name).map_err(unopened),
                false => Err(io::Error::other(format!("{EMPTY}; {REMEDY}"))),
            };
            Ok(Self {
                meta: tree("meta")?,
                rest: tree("rest")?,
                finals: tree("final")?,
                folder: folder.into(),
            })
        })
    }

    /// What the partition's batches carry.
    ///
    /// # Errors
    /// The database is of another version, or cannot be read.
    pub(super) fn identity(&self, partition: PartitionNumber) -> io::Result<Identity> {
        match self.meta.get("format").map_err(unread)? {
            Some(format) if format == FORMAT => salt(&self.meta, partition),
            Some(format) => Err(another_version(&format)),
            None => Err(io::Error::other("it was never used: its format is missing")),
        }
    }

    /// Where replay begins.
    ///
    /// # Errors
    /// The checkpoint cannot be read.
    pub(super) fn checkpoint(&self) -> io::Result<Checkpoint> {
        checkpoint(&self.rest)
    }

    /// The blocks of unfinished things, each before what has gone of any.
    pub(super) fn rest(&self) -> impl Iterator<Item = io::Result<RestEntry>> {
        self.rest.range(..CHECKPOINT).map(|entry| {
            let (key, octets) = entry.map_err(unread)?;
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
            Ok(match (key.first(), number.map(RestNumber)) {
                (Some(&BLOCK), Some(number)) => RestEntry::Block(number, octets),
                (Some(&GONE), Some(number)) => RestEntry::Gone(number, octets),
                _ => RestEntry::Unknown(key),
            })
        })
    }

    /// What has gone of a block, as it was kept.
    ///
    /// # Errors
    /// That of sled.
    pub(super) fn gone(&self, number: RestNumber) -> io::Result<Option<sled::IVec>> {
        self.rest.get(rest_key(GONE, number)).map_err(unread)
    }

    /// The blocks of final messages, with their keys.
    pub(super) fn finals(&self) -> impl Iterator<Item = io::Result<(sled::IVec, sled::IVec)>> {
        self.finals.iter().map(|entry| entry.map_err(unread))
    }

    /// How many blocks of final messages each generation has, if it can be read.
    pub(super) fn counts(&self) -> impl Iterator<Item = io::Result<(u64, Option<u32>)>> {
        self.meta.scan_prefix(COUNT).map(|entry| {
            let (key, count) = entry.map_err(unread)?;
            let generation = key[COUNT.len()..].try_into().map(u64::from_be_bytes);
            let generation = generation.map_err(|_| io::Error::other("the key of a count cannot be read"))?;
            Ok((generation, count_from_octets(&count)))
        })
    }

    /// How many blocks of final messages there are at least, in all generations together; nothing if no checkpoint has said it.
    ///
    /// # Errors
    /// That of sled.
    pub(super) fn final_blocks(&self) -> io::Result<Option<u64>> {
        final_blocks(&self.rest)
    }

    /// The blocks of final messages that may hold one of these ids, which are of one period.
    pub(super) fn blocks_of(
        &self,
        ids: &RangeInclusive<MessageId>,
    ) -> impl Iterator<Item = io::Result<(sled::IVec, sled::IVec)>> {
        self.finals.range(BlockKey::range(ids)).map(|entry| entry.map_err(unread))
    }

    /// Octets of everything that is kept, keys and values.
    ///
    /// # Errors
    /// That of sled.
    pub(super) fn octets(&self) -> io::Result<u64> {
        let mut octets = 0;
        for entry in self.meta.iter().chain(self.rest.iter()).chain(self.finals.iter()) {
            let (key, value) = entry.map_err(unread)?;
            octets += (key.len() + value.len()) as u64;
        }
        Ok(octets)
    }

    /// The folder that the database is in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The sled database of a partition.
pub(super) struct State {
    /// Never dropped: sled waits there for a thread of its own, for ever when that has panicked. What has to be durable
    /// we sync ourselves, and the process ends with the database.
    db: ManuallyDrop<sled::Db>,
    meta: sled::Tree,
    rest: sled::Tree,
    finals: sled::Tree,
    folder: PathBuf,
    /// sled's file, to be synced: open from the beginning, since later there may be no descriptor for it.
    file: File,
    journal: PathBuf,
    segment_octets: u64,
    /// Octets that were put since the last were sent to the disk.
    unsent: Cell<usize>,
    /// Blocks of final messages that were put since the last checkpoint.
    unvouched: Cell<u64>,
}

impl State {
    /// Opens the database of a partition in `folder`, making it when there is none; files for its journal are made on
    /// order. A damaged snapshot is removed, once, and the log read again, which nearly always has all that was in it.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub(super) fn open(folder: &Path, segment_octets: u64) -> io::Result<Self> {
        // What sled finds damaged it may panic about.
        opening(|| Self::open_database(folder.join("journal"), &folder.join("state"), segment_octets))
    }

    fn open_database(journal: PathBuf, folder: &Path, segment_octets: u64) -> io::Result<Self> {
        remove_unfinished_snapshots(folder)?;
        let db = match Self::config(folder).open() {
            Err(error @ sled::Error::Corruption { .. }) => {
                let removed = remove_snapshots(folder)?;
                log::error!(
                    "{}: {error}; {removed} snapshot files removed, reading the whole log again",
                    folder.display()
                );
                Self::config(folder).open()
            }
            opened => opened,
        }
        .map_err(unopened)?;
        let tree = |name: &str| db.open_tree(name).map_err(unopened);
        let (meta, rest, finals) = (tree("meta")?, tree("rest")?, tree("final")?);
        let unvouched = Cell::new(unvouched(&meta, &rest)?);
        sync_names(folder)?;
        Ok(Self {
            meta,
            rest,
            finals,
            db: ManuallyDrop::new(db),
            folder: folder.to_owned(),
            file: File::open(folder.join("db"))?,
            journal,
            segment_octets,
            unsent: Cell::new(0),
            unvouched,
        })
    }

    fn config(folder: &Path) -> sled::Config {
        let flush_every_ms = if fault::is_unsynced(Layer::State) { None } else { Some(500) };
        sled::Config::new()
            .path(folder)
            .segment_size(SEGMENT_OCTETS)
            .cache_capacity(CACHE_OCTETS)
            .flush_every_ms(flush_every_ms)
    }

    /// Whether there is nothing in it yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn is_new(&self) -> io::Result<bool> {
        Ok(self.meta.get("format").map_err(unread)?.is_none())
    }

    /// The salt of the partition's journal; made and made durable when there is none.
    ///
    /// # Errors
    /// The database is of another version, or cannot be written.
    pub(super) fn identity(&self, partition: PartitionNumber) -> io::Result<Identity> {
        match self.meta.get("format").map_err(unread)? {
            None => {
                let mut salt = [0; 8];
                getrandom::fill(&mut salt).map_err(io::Error::other)?;
                self.meta.insert("salt", &salt).map_err(io::Error::other)?;
                self.meta.insert("format", FORMAT).map_err(io::Error::other)?;
                self.sync()?;
            }
            Some(format) if format == FORMAT => {}
            Some(format) => return Err(another_version(&format)),
        }
        salt(&self.meta, partition)
    }

    /// For whoever only reads.
    pub(super) fn reader(&self) -> AtRest {
        let Self { meta, rest, finals, folder, .. } = self;
        AtRest { meta: meta.clone(), rest: rest.clone(), finals: finals.clone(), folder: folder.clone() }
    }

    /// Where replay begins.
    ///
    /// # Errors
    /// The checkpoint cannot be read.
    pub(super) fn checkpoint(&self) -> io::Result<Checkpoint> {
        checkpoint(&self.rest)
    }

    /// The blocks of unfinished things that a checkpoint vouches for, with what has gone of each. Whatever a checkpoint
    /// left behind that was never made is removed first: the journal still holds all of it.
    ///
    /// # Errors
    /// Something cannot be read.
    pub(super) fn rest(
        &self,
        checkpoint: &Checkpoint,
    ) -> io::Result<impl Iterator<Item = io::Result<(RestNumber, sled::IVec, Vec<u16>)>>> {
        for key in self.rest.range(rest_key(BLOCK, checkpoint.next_rest).as_slice()..&[GONE]).keys() {
            self.rest.remove(key.map_err(unread)?).map_err(io::Error::other)?;
        }
        Ok(self.rest.range([BLOCK]..[GONE]).map(|entry| {
            let (key, octets) = entry.map_err(unread)?;
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
            let number = RestNumber(number.ok_or_else(|| damage("a key at rest cannot be read"))?);
            let gone = self.rest.get(rest_key(GONE, number)).map_err(unread)?;
            let gone = gone.map_or(Some(Vec::new()), |gone| gone_from_octets(&gone));
            let gone = gone.ok_or_else(|| damage("a list at rest cannot be read"))?;
            Ok((number, octets, gone))
        }))
    }

    /// What is known of `count` messages from `id` on.
    fn find(&self, lookup: &Lookup) -> io::Result<Vec<FinalMessage<'static>>> {
        let ids = lookup.id..=lookup.id.in_batch(lookup.count.saturating_sub(1));
        find(&self.finals, &ids)
    }

    fn apply(&self, op: StoreOp) -> io::Result<Option<StoreDone>> {
        fault::strike(Point::StateOp, &self.folder)?;
        match op {
            StoreOp::PutFinals(generation, octets) => {
                let blocks = store::cut(generation, &octets).map_err(Unreadable::Block)?;
                let count = blocks.len() as u32;
                for (key, octets) in blocks {
                    self.note_put(octets.len())?;
                    self.finals.insert(key.to_octets(), octets).map_err(io::Error::other)?;
                }
                // The same again, when it was put before a crash.
                let before = self.count(generation)?.unwrap_or_default();
                self.put_count(generation, count)?;
                self.unvouched.update(|blocks| blocks + u64::from(count.saturating_sub(before)));
                Ok(Some(StoreDone::Finals(generation)))
            }
            StoreOp::PutRest(number, octets) => {
                self.note_put(octets.len())?;
                self.rest.insert(rest_key(BLOCK, number), octets).map_err(io::Error::other)?;
                Ok(Some(StoreDone::Rest(number)))
            }
            StoreOp::GetRest(number) => {
                let octets = self.rest.get(rest_key(BLOCK, number)).map_err(io::Error::other)?;
                let octets = octets.ok_or_else(|| io::Error::other("a block is missing"))?;
                Ok(Some(StoreDone::GotRest(number, Bytes::copy_from_slice(&octets))))
            }
            StoreOp::Checkpoint(checkpoint, RestChanges { removed, gone }) => {
                // First what the checkpoint stands on, then the checkpoint with what it forgets, as one.
                self.sync()?;
                let mut batch = sled::Batch::default();
                for number in removed {
                    batch.remove(&rest_key(BLOCK, number));
                    batch.remove(&rest_key(GONE, number));
                }
                for (number, gone) in gone {
                    batch.insert(&rest_key(GONE, number), gone_to_octets(&gone));
                }
                batch.insert(CHECKPOINT, checkpoint.to_octets());
                let blocks = self.final_blocks()? + self.unvouched.take();
                batch.insert(FINAL_BLOCKS, &blocks.to_be_bytes());
                self.rest.apply_batch(batch).map_err(io::Error::other)?;
                self.sync()?;
                Ok(Some(StoreDone::Checkpoint(checkpoint.segment)))
            }
            StoreOp::MakeFile(file) => {
                use io::ErrorKind::{QuotaExceeded, StorageFull};
                match disk::make_segment(&self.journal, file, self.segment_octets) {
                    Ok(()) => {
                        descriptors::note(false, self.journal.display());
                        Ok(Some(StoreDone::File(file)))
                    }
                    // Nothing is lost by that: no message is accepted until there is room.
                    Err(error) if is_shortage(error.raw_os_error()) => {
                        descriptors::note(true, self.journal.display());
                        Ok(Some(StoreDone::NoRoom(file)))
                    }
                    Err(error) if matches!(error.kind(), StorageFull | QuotaExceeded) => {
                        log::error!("{}: {error}; no message is accepted", self.journal.display());
                        Ok(Some(StoreDone::NoRoom(file)))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// A generation of final messages has so many blocks from now on.
    fn put_count(&self, generation: u64, blocks: u32) -> io::Result<()> {
        let key = count_key(generation);
        match blocks {
            0 => self.meta.remove(key),
            _ => self.meta.insert(key, &blocks.to_be_bytes()),
        }
        .map(|_| ())
        .map_err(io::Error::other)
    }

    /// How many blocks a generation of final messages has, if it has any.
    fn count(&self, generation: u64) -> io::Result<Option<u32>> {
        let count = self.meta.get(count_key(generation)).map_err(io::Error::other)?;
        Ok(count.as_deref().and_then(count_from_octets))
    }

    /// How many blocks of final messages the last checkpoint vouches for.
    fn final_blocks(&self) -> io::Result<u64> {
        Ok(final_blocks(&self.rest)?.unwrap_or_default())
    }

    /// So much is about to be put. Now and then it is sent to the disk, in small portions: a checkpoint that sent all of
    /// it at once would keep the journal waiting.
    fn note_put(&self, octets: usize) -> io::Result<()> {
        let waiting = self.unsent.get() + octets;
        self.unsent.set(waiting);
        if waiting >= PORTION_OCTETS {
            self.unsent.set(0);
            self.db.flush().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Makes durable what was put. sled's own flush does it with the barrier beneath it (`barrier`); what a checkpoint
    /// stands on does not hang on that alone.
    ///
    /// # Errors
    /// The disk's: what was put may be lost.
    pub(super) fn sync(&self) -> io::Result<()> {
        fault::strike(Point::StateSync, &self.folder)?;
        let written = self.db.flush().map_err(io::Error::other)?;
        if written > 0 && !barrier::is_in_use() {
            return Err(io::Error::other("this program was linked without the barrier that sled needs"));
        }
        if fault::is_unsynced(Layer::State) {
            return Ok(());
        }
        self.sync_blobs()?;
        self.file.sync_data()
    }

    /// Should there be files of their own all the same.
    fn sync_blobs(&self) -> io::Result<()> {
        let folder = self.folder.join("blobs");
        let mut is_empty = true;
        for entry in patiently(&folder, || std::fs::read_dir(&folder))? {
            is_empty = false;
            let path = entry?.path();
            match patiently(&path, || File::open(&path)) {
                Ok(blob) => blob.sync_all()?,
                // sled removes what it does not need any more, in threads of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if is_empty { Ok(()) } else { patiently(&folder, || File::open(&folder))?.sync_all() }
    }

    /// Removes blocks whose messages were all final before `before`, among the next ones from `cursor` on.
    fn sweep(&self, before: Timestamp, cursor: &mut Vec<u8>) -> io::Result<usize> {
        let mut old = Vec::new();
        let first_id = IdSource::new(0, PartitionNumber(0)).next(before, 1);
        // No message ends before it was accepted, so blocks that begin with this period or later are young, and not
        // read at all; nearly all of them are. Short ids tell no time: they come before all others.
        let end = BlockKey { first: first_id.period_begin(), generation: 0 }.to_octets();
        let from = std::mem::take(cursor);
        if from.as_slice() >= end.as_slice() {
            // The clock was set back.
            return Ok(0);
        }
        for (seen, entry) in self.finals.range(from.as_slice()..end.as_slice()).enumerate() {
            let (key, octets) = entry.map_err(io::Error::other)?;
            if seen == SWEEP_MAX {
                *cursor = key.to_vec();
                break;
            }
            let Ok(block) = Block::read(&octets) else {
                // It stays: nobody knows how old it is, and whoever asks for what is in it is told that it is damaged.
                log::error!("{}: a block of final messages cannot be read", self.folder.display());
                continue;
            };
            if block.newest() < before {
                old.push(key);
            }
        }
        self.forget_finals(&old)
    }

    /// Removes blocks of messages that were accepted in the future, when they have been here for as long as the retention is.
    /// The clock was ahead when they came, and nobody knows by how much; by their dates they would stay until then.
    fn sweep_ahead(&self, now: Now, retention: Duration, ahead: &mut Ahead) -> io::Result<usize> {
        let first_id = IdSource::new(0, PartitionNumber(0)).next(now.wall + AHEAD, 1);
        let begin = BlockKey { first: first_id.period_begin(), generation: 0 }.to_octets();
        let (mut seen, mut old) = (Ahead::new(), Vec::new());
        for key in self.finals.range(begin.as_slice()..).keys().take(SWEEP_MAX) {
            let key = key.map_err(io::Error::other)?;
            let since = ahead.get(&*key).copied().unwrap_or(now.instant);
            if now.instant >= since + retention {
                old.push(key);
            } else {
                seen.insert(key.to_vec(), since);
            }
        }
        *ahead = seen;
        self.forget_finals(&old)
    }

    /// Removes blocks of final messages; how many.
    fn forget_finals(&self, keys: &[sled::IVec]) -> io::Result<usize> {
        if keys.is_empty() {
            return Ok(0);
        }
        // First what is said of them: a number that is too low is no loss.
        let (vouched, gone) = (self.final_blocks()?, keys.len() as u64);
        let left = vouched.saturating_sub(gone).to_be_bytes();
        self.rest.insert(FINAL_BLOCKS, &left).map_err(io::Error::other)?;
        self.unvouched.update(|blocks| blocks.saturating_sub(gone.saturating_sub(vouched)));
        for key in keys {
            let generation = BlockKey::from_octets(key).map(|key| key.generation);
            let generation =
                generation.ok_or_else(|| io::Error::other("the key of a block cannot be read"))?;
            if let Some(count) = self.count(generation)? {
                self.put_count(generation, count.saturating_sub(1))?;
            }
            self.finals.remove(key).map_err(io::Error::other)?;
        }
        Ok(keys.len())
    }
}

/// Blocks of final messages whose ids lie in the future, and when each was seen first.
type Ahead = BTreeMap<Vec<u8>, crate::time::Instant>;

/// What the batches of a partition carry.
fn salt(meta: &sled::Tree, partition: PartitionNumber) -> io::Result<Identity> {
    let salt = meta.get("salt").map_err(unread)?;
    let salt = salt.and_then(|salt| salt.as_ref().try_into().ok()).map(u64::from_le_bytes);
    let salt = salt.ok_or_else(|| damage("the partition's salt is missing"))?;
    Ok(Identity { partition, salt })
}

fn another_version(format: &[u8]) -> io::Error {
    let format = String::from_utf8_lossy(format);
    io::Error::other(format!("written by another version ({format:?})"))
}

fn checkpoint(rest: &sled::Tree) -> io::Result<Checkpoint> {
    match rest.get(CHECKPOINT).map_err(unread)? {
        None => Ok(Checkpoint::initial()),
        Some(octets) => Checkpoint::read(&octets).map_err(|_| damage("the checkpoint cannot be read")),
    }
}

/// How many blocks of final messages were put since the last checkpoint: before a crash, or all of them if it has not said how
/// many there were.
fn unvouched(meta: &sled::Tree, rest: &sled::Tree) -> io::Result<u64> {
    let first = match final_blocks(rest)? {
        // One that cannot be read may be of another version: whoever asks for it is told.
        Some(_) => checkpoint(rest).map_or(0, |checkpoint| checkpoint.next_generation),
        None => 0,
    };
    meta.range(count_key(first)..count_key(u64::MAX)).try_fold(0, |sum, entry| {
        let (_, count) = entry.map_err(unread)?;
        Ok(sum + u64::from(count_from_octets(&count).unwrap_or_default()))
    })
}

fn final_blocks(rest: &sled::Tree) -> io::Result<Option<u64>> {
    let Some(octets) = rest.get(FINAL_BLOCKS).map_err(unread)? else { return Ok(None) };
    let blocks = octets.as_ref().try_into().map(u64::from_be_bytes);
    blocks.map(Some).map_err(|_| damage("the number of blocks of final messages cannot be read"))
}

fn find(finals: &sled::Tree, ids: &RangeInclusive<MessageId>) -> io::Result<Vec<FinalMessage<'static>>> {
    let blocks = finals.range(BlockKey::range(ids)).rev();
    store::find(ids, blocks.map(|entry| entry.map_err(Unreadable::Store))).map_err(Unreadable::into)
}

/// The key of how many blocks of final messages a generation has. sled passes over what it finds damaged: only the count
/// tells that blocks are missing.
fn count_key(generation: u64) -> Vec<u8> {
    [COUNT, &generation.to_be_bytes()].concat()
}

fn count_from_octets(octets: &[u8]) -> Option<u32> {
    octets.try_into().ok().map(u32::from_be_bytes)
}

/// The key of a block of unfinished things, or of what has gone of it.
fn rest_key(kind: u8, number: RestNumber) -> [u8; 5] {
    let [a, b, c, d] = number.0.to_be_bytes();
    [kind, a, b, c, d]
}

/// Why a block of final messages cannot be had.
enum Unreadable {
    Store(sled::Error),
    Block(BlockError),
}

impl From<BlockError> for Unreadable {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl From<Unreadable> for io::Error {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Store(error) => Self::other(error),
            Unreadable::Block(BlockError) => Self::new(io::ErrorKind::InvalidData, "a block cannot be read"),
        }
    }
}

/// Removes what a start has left that was killed while it wrote a snapshot. sled would take it for the newest, find it
/// damaged, and have the whole one removed with it.
fn remove_unfinished_snapshots(folder: &Path) -> io::Result<()> {
    match remove(folder, |name| name.starts_with("snap.") && name.ends_with(".generating")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map(|_| ()),
    }
}

/// Makes durable what sled does not: its settings, and the name of the snapshot that it makes at a start.
fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder.join("conf"))?.sync_all()?;
    durable_file::sync_folder(folder)
}

fn remove_snapshots(folder: &Path) -> io::Result<usize> {
    remove(folder, |name| name.starts_with("snap."))
}

/// Removes the files of such names; how many.
fn remove(folder: &Path, is_such: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_such(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The thread of a partition: it ends with why the state at rest failed, if it did.
pub(super) type StateThread = JoinHandle<Result<(), String>>;

/// Starts the thread of a partition; call it before any thread is pinned, for sled's threads stay where
/// the first use of them was.
///
/// # Errors
/// No thread can be made.
pub(super) fn start(
    partition: PartitionNumber,
    state: State,
    mail: MailSender,
    clock: Clock,
    retention: Duration,
) -> io::Result<(Sender<Order>, StateThread)> {
    let (sender, orders) = bounded(WAITING_MAX);
    let thread = std::thread::Builder::new()
        .name(format!("state-{partition}"))
        .spawn(move || run(partition, &state, &orders, &mail, clock, retention))?;
    Ok((sender, thread))
}

/// What a database is that has nothing in it.
pub(super) const EMPTY: &str = "the database is empty, or its beginning is damaged";

/// What is to be done about damage.
pub(super) const REMEDY: &str =
    "restore the partition's folder from a copy, or move it away to start without it";

/// The state at rest in this folder is damaged: what of it, and what is to be done.
pub(super) fn damaged(folder: &Path, what: &dyn fmt::Display) -> String {
    format!("{}: damaged: {what}; {REMEDY}", folder.display())
}

/// What went wrong with the state at rest in this folder; what is to be done when it is damage.
pub(super) fn told(folder: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::InvalidData {
        return damaged(folder, error);
    }
    format!("{}: {error}", folder.display())
}

fn damage(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Opens a database. At some kinds of damage sled panics.
fn opening<T>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(panicked()))
}

/// sled has panicked when it opened a database.
pub(super) fn panicked() -> io::Error {
    damage("the database cannot be opened: sled panics at what it finds, or at what it misses")
}

/// Nothing but damage makes sled refuse a database that it has made itself, and with these settings.
fn unopened(error: sled::Error) -> io::Error {
    refused("opened", error)
}

fn unread(error: sled::Error) -> io::Error {
    refused("read", error)
}

fn refused(done: &str, error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => {
            damage(format!("the database cannot be {done}: sled finds a file of it corrupt"))
        }
        sled::Error::CollectionNotFound(_) | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => {
            damage(format!("the database cannot be {done}: sled says \"{error}\""))
        }
    }
}

/// Does something with sled. What panics there would end the thread without a word, and its core would wait
/// for it for ever.
pub(super) fn caught<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // After a panic the state is not used any more, whatever it left behind.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(io::Error::other("a panic, of which the log says more")))
}

fn run(
    partition: PartitionNumber,
    state: &State,
    orders: &Receiver<Order>,
    mail: &MailSender,
    clock: Clock,
    retention: Duration,
) -> Result<(), String> {
    // A core goes first where the two have to share one. What sled starts from here is as patient.
    _ = rustix::process::nice(PATIENCE);
    let mut swept = Instant::now();
    let (mut cursor, mut ahead) = (Vec::new(), Ahead::new());
    loop {
        let outcome = match orders.recv_timeout(SWEEP_INTERVAL) {
            Ok(Order::Op(op)) => caught(|| state.apply(op)).map(|done| {
                if let Some(done) = done {
                    mail.send(Inbound::Stored(partition, done));
                }
            }),
            Ok(Order::Lookup(lookup)) => match caught(|| state.find(&lookup)) {
                Ok(found) => {
                    mail.send(Inbound::Found(lookup, found));
                    Ok(())
                }
                // One block is damaged, and whoever asks for what is in it is told so. All else goes on.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    log::error!("partition {partition}: query_sm of {}: {error}", lookup.id);
                    mail.send(Inbound::NotFound(lookup));
                    Ok(())
                }
                Err(error) => {
                    mail.send(Inbound::NotFound(lookup));
                    Err(error)
                }
            },
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => {
                return caught(|| state.sync()).map_err(|error| {
                    log::error!("partition {partition}: the state at rest was not synced: {error}");
                    error.to_string()
                });
            }
        };
        let outcome = outcome.and_then(|()| {
            if swept.elapsed() < SWEEP_INTERVAL {
                return Ok(());
            }
            swept = Instant::now();
            let now = clock.now();
            let before = now.wall.as_millis().saturating_sub(retention.as_millis() as u64);
            let removed = caught(|| state.sweep(Timestamp::from_millis(before), &mut cursor))?
                + caught(|| state.sweep_ahead(now, retention, &mut ahead))?;
            if removed > 0 {
                log::info!(
                    "partition {partition}: {removed} blocks of final messages are past their retention"
                );
            }
            Ok(())
        });
        if let Err(error) = outcome {
            // The partition stops. Nothing is written any more, but whoever asks is told that there is no answer.
            // Its core may have ended already, and nobody else would say it.
            log::error!("partition {partition}: the state at rest failed: {error}");
            mail.send(Inbound::StoreFailed(partition, format!("the state at rest failed: {error}")));
            for order in orders {
                match order {
                    Order::Lookup(lookup) => mail.send(Inbound::NotFound(lookup)),
                    Order::Op(_) => {}
                    Order::Stop => break,
                }
            }
            return Err(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::pdu::receipt::MessageState;

    const MINUTE: u64 = 60_000;
    /// Some day of 2026.
    const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    const fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + minute * MINUTE)
    }

    /// A generation of one message that ended at a time.
    fn put(state: &State, generation: u64, id: MessageId, final_date: Timestamp) -> BlockKey {
        let mut octets = Vec::new();
        let ended = FinalMessage {
            id,
            batch_offset: 0,
            batch_count: 1,
            state: MessageState::DELIVERED,
            error: 0,
            final_date,
            system_id: Cow::Borrowed(b"demo"),
            source_addr: Cow::Borrowed(b"12125550100"),
        };
        ended.put(&mut octets);
        let done = state.apply(StoreOp::PutFinals(generation, octets.into())).expect("stored");
        assert_eq!(done, Some(StoreDone::Finals(generation)));
        BlockKey { first: id, generation }
    }

    fn state(name: &str) -> (PathBuf, State) {
        let folder = std::env::temp_dir().join(format!("smppd-{name}-{}", std::process::id()));
        let state = State::open(&folder, 1 << 20).expect("a database");
        (folder, state)
    }

    #[test]
    fn a_sweep_removes_what_is_old_and_reads_nothing_that_is_young() {
        let (folder, state) = state("sweep");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        put(&state, 1, ids.next_short(), at(0));
        let short = put(&state, 2, ids.next_short(), at(50));
        put(&state, 3, ids.next(at(0), 1), at(1));
        // It took an hour to deliver.
        let late = put(&state, 4, ids.next(at(1), 1), at(61));
        put(&state, 5, ids.next(at(2), 1), at(3));
        // Whatever is read of this one is an error.
        let young = BlockKey { first: ids.next(at(40), 1), generation: 6 };
        state.finals.insert(young.to_octets(), b"no block").expect("stored");
        let keys = || -> Vec<BlockKey> {
            let keys = state.finals.iter().keys();
            keys.map(|key| BlockKey::from_octets(&key.expect("a key")).expect("a key")).collect()
        };
        let mut cursor = Vec::new();
        assert_eq!(state.sweep(at(30), &mut cursor).expect("swept"), 3);
        assert_eq!((keys(), cursor.len()), (vec![short, late, young], 0));
        // A cursor behind everything that can be old, left by a time that is taken back.
        let mut cursor = young.to_octets().to_vec();
        assert_eq!(state.sweep(at(30), &mut cursor).expect("swept"), 0);
        assert_eq!(cursor.len(), 0);
        assert_eq!(state.sweep(Timestamp::ZERO, &mut cursor).expect("swept"), 0);
        state.finals.remove(young.to_octets()).expect("removed");
        assert_eq!(state.sweep(at(62), &mut cursor).expect("swept"), 2);
        assert_eq!(keys(), []);
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn what_was_accepted_by_a_clock_that_was_ahead_goes_after_its_retention_all_the_same() {
        let (folder, state) = state("ahead");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        let retention = Duration::from_millis(30 * MINUTE);
        let young = put(&state, 1, ids.next(at(10), 1), at(10));
        // The clock was two days ahead for a moment; ids count on from there.
        put(&state, 2, ids.next(at(2 * 1_440), 1), at(2 * 1_440));
        put(&state, 3, ids.next(at(11), 1), at(11));
        let mut ahead = Ahead::new();
        let mut sweep = |minute: u64| {
            let instant = crate::time::Instant::ZERO + Duration::from_millis(minute * MINUTE);
            let now = Now { instant, wall: at(minute) };
            state.sweep_ahead(now, retention, &mut ahead).expect("swept")
        };
        assert_eq!([12, 13, 41].map(&mut sweep), [0, 0, 0]);
        put(&state, 4, ids.next(at(40), 1), at(40));
        assert_eq!([42, 43, 71, 72, 73].map(&mut sweep), [2, 0, 0, 1, 0]);
        let keys: Vec<_> = state.finals.iter().keys().map(|key| key.expect("a key")).collect();
        assert_eq!(keys, [young.to_octets()], "what is not ahead is another's to sweep");
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_damaged_block_of_what_is_over_is_told_apart_and_passed_over() {
        let (folder, state) = state("damaged-block");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        let (lost, kept) = (ids.next(at(0), 1), ids.next(at(1), 1));
        state
            .finals
            .insert(BlockKey { first: lost, generation: 1 }.to_octets(), b"no block")
            .expect("stored");
        put(&state, 2, kept, at(1));
        let found = |id: MessageId| find(&state.finals, &(id..=id));
        assert_eq!(found(lost).expect_err("damage").kind(), io::ErrorKind::InvalidData);
        assert_eq!(found(kept).expect("whole").len(), 1);
        assert_eq!(state.sweep(at(60), &mut Vec::new()).expect("swept"), 1);
        assert_eq!(found(kept).expect("gone").len(), 0);
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn what_a_checkpoint_left_that_was_never_made_is_not_found() {
        let (folder, state) = state("leftovers");
        for number in 0..5 {
            state.apply(StoreOp::PutRest(RestNumber(number), vec![number as u8])).expect("stored");
        }
        let changes = RestChanges { removed: vec![RestNumber(1)], gone: vec![(RestNumber(2), vec![0, 7])] };
        let checkpoint = Checkpoint { next_rest: RestNumber(3), ..Checkpoint::initial() };
        state.apply(StoreOp::Checkpoint(checkpoint.clone(), changes)).expect("stored");
        assert_eq!(state.checkpoint().expect("readable"), checkpoint);
        let rest = || -> Vec<(u32, Vec<u8>, Vec<u16>)> {
            let rest = state.rest(&checkpoint).expect("readable").map(|block| block.expect("readable"));
            rest.map(|(number, octets, gone)| (number.0, octets.to_vec(), gone)).collect()
        };
        let whole = vec![(0, vec![0], vec![]), (2, vec![2], vec![0, 7])];
        assert_eq!((rest(), rest()), (whole.clone(), whole));
        let got = state.apply(StoreOp::GetRest(RestNumber(2))).expect("read");
        assert_eq!(got, Some(StoreDone::GotRest(RestNumber(2), Bytes::from_static(&[2]))));
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_panic_beside_the_core_is_an_error() {
        assert_eq!(caught(|| Ok(7)).expect("no panic"), 7);
        let error = caught(|| -> io::Result<()> { panic!("this panic is a part of the test") });
        assert!(error.expect_err("an error").to_string().contains("panic"));
    }

    #[test]
    fn what_is_damaged_is_told_with_what_to_do_and_what_failed_is_not_called_damaged() {
        let panicked = opening(|| -> io::Result<()> { panic!("this panic is a part of the test") });
        let corrupt = unread(sled::Error::Corruption { at: None, bt: () });
        for error in [panicked.expect_err("an error"), corrupt] {
            let said = told(Path::new("/data/partition-003/state"), &error);
            assert!(
                said.starts_with("/data/partition-003/state: damaged: the database cannot be "),
                "{said}"
            );
            assert!(said.ends_with(REMEDY), "{said}");
        }
        let full = unopened(sled::Error::Io(io::ErrorKind::StorageFull.into()));
        assert_eq!(told(Path::new("state"), &full), "state: no storage space");
    }

    /// At each sync while `what` is done: whether the checkpoint with this next block is there by then.
    #[cfg(debug_assertions)]
    fn synced<R>(
        state: &State,
        next_rest: RestNumber,
        what: impl FnOnce(&State) -> io::Result<R>,
    ) -> (io::Result<R>, Vec<bool>) {
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let watcher = {
            let (seen, rest) = (std::rc::Rc::clone(&seen), state.rest.clone());
            move |point, _: &Path| {
                if point == Point::StateSync {
                    seen.borrow_mut().push(checkpoint(&rest)?.next_rest == next_rest);
                }
                Ok(())
            }
        };
        (fault::watch(watcher, || what(state)), seen.take())
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_a_checkpoint_stands_on_is_synced_before_it_and_it_before_that_is_said() {
        let (folder, state) = state("checkpoint-synced");
        let next_rest = RestNumber(3);
        let order = || {
            let checkpoint = Checkpoint { next_rest, ..Checkpoint::initial() };
            StoreOp::Checkpoint(checkpoint, RestChanges { removed: vec![RestNumber(1)], gone: Vec::new() })
        };
        let before: [StoreOp; 3] = [
            StoreOp::PutRest(RestNumber(1), vec![1]),
            StoreOp::PutRest(RestNumber(2), vec![2]),
            StoreOp::PutFinals(1, Vec::new().into()),
        ];
        for op in before {
            let (done, syncs) = synced(&state, next_rest, |state| state.apply(op));
            assert!(done.is_ok() && syncs.is_empty(), "the checkpoint syncs for all of them");
        }
        let (done, syncs) = synced(&state, next_rest, |state| state.apply(order()));
        assert_eq!(done.expect("stored"), Some(StoreDone::Checkpoint(Checkpoint::initial().segment)));
        assert_eq!(syncs, [false, true]);
        // The first sync fails: the checkpoint must not be there. The second fails: it must not be said to be made.
        for (number, other) in [(1, RestNumber(4)), (2, RestNumber(5))] {
            let mut passed = 0;
            let watcher = move |point, _: &Path| {
                passed += usize::from(point == Point::StateSync);
                if passed == number { Err(io::Error::other("the test says so")) } else { Ok(()) }
            };
            let checkpoint = Checkpoint { next_rest: other, ..Checkpoint::initial() };
            let op = StoreOp::Checkpoint(checkpoint, RestChanges { removed: Vec::new(), gone: Vec::new() });
            assert!(fault::watch(watcher, || state.apply(op)).is_err(), "sync {number}");
            assert_eq!(
                state.checkpoint().expect("readable").next_rest == other,
                number == 2,
                "sync {number}"
            );
        }
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn the_salt_of_a_journal_is_durable_before_anybody_uses_it() {
        let (folder, state) = state("salt-synced");
        let identity = |state: &State| state.identity(PartitionNumber(0));
        let (made, syncs) = synced(&state, RestNumber(9), identity);
        assert_eq!(syncs, [false]);
        let (found, syncs) = synced(&state, RestNumber(9), identity);
        assert_eq!((found.expect("an identity"), syncs), (made.expect("an identity"), vec![]));
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_database_of_which_a_part_cannot_be_synced_is_not_taken_for_durable() {
        // The kernel syncs no such file.
        let unsyncable = Path::new("/dev/null");
        let (folder, mut state) = state("unsyncable");
        let put_aside = |name: &str| {
            std::fs::rename(folder.join("state").join(name), folder.join("aside")).expect("it is there");
            std::os::unix::fs::symlink(unsyncable, folder.join("state").join(name)).expect("a link");
        };
        let put_back = |name: &str| {
            std::fs::rename(folder.join("aside"), folder.join("state").join(name)).expect("it is there");
        };
        state.sync().expect("as it is");
        put_aside("conf");
        assert!(sync_names(&folder.join("state")).is_err(), "its settings");
        put_back("conf");
        let log = std::mem::replace(&mut state.file, File::open(unsyncable).expect("a device"));
        assert!(state.sync().is_err(), "its log");
        state.file = log;
        let blob = folder.join("state/blobs/7");
        std::os::unix::fs::symlink(unsyncable, &blob).expect("a link");
        assert!(state.sync().is_err(), "its large values");
        std::fs::remove_file(&blob).expect("removed");
        state.sync().expect("as it was");
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn what_ended_when_its_retention_ends_stays_and_no_millisecond_longer() {
        let (folder, state) = state("retention");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        put(&state, 1, ids.next(at(0), 1), at(5));
        assert_eq!(state.sweep(at(5), &mut Vec::new()).expect("swept"), 0);
        let later = Timestamp::from_millis(at(5).as_millis() + 1);
        assert_eq!(state.sweep(later, &mut Vec::new()).expect("swept"), 1);
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn blocks_are_counted_as_they_come_and_go_and_one_that_is_missing_is_an_error() {
        let (folder, state) = state("counted");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        let counts = || -> Vec<(u64, Option<u32>)> {
            state.reader().counts().map(|count| count.expect("a count")).collect()
        };
        put(&state, 1, ids.next(at(0), 1), at(1));
        put(&state, 2, ids.next(at(0), 1), at(9));
        assert_eq!(counts(), [(1, Some(1)), (2, Some(1))]);
        // The same again, after a crash before that was said.
        put(&state, 2, ids.next(at(0), 1), at(9));
        assert_eq!(counts(), [(1, Some(1)), (2, Some(1))]);
        assert_eq!(state.sweep(at(5), &mut Vec::new()).expect("swept"), 1);
        assert_eq!(counts(), [(2, Some(1))]);
        state.apply(StoreOp::PutFinals(2, Vec::new().into())).expect("nothing is over");
        assert_eq!(counts(), []);
        assert!(state.apply(StoreOp::GetRest(RestNumber(9))).is_err(), "it was never put");
        state.apply(StoreOp::PutRest(RestNumber(9), vec![7])).expect("stored");
        let got = state.apply(StoreOp::GetRest(RestNumber(9))).expect("it is there");
        assert_eq!(got, Some(StoreDone::GotRest(RestNumber(9), Bytes::from_static(&[7]))));
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    /// How many blocks are there, how many are counted, and how many the checkpoint vouches for.
    fn final_blocks_of(at_rest: &AtRest) -> io::Result<(u64, u64, u64)> {
        let found = at_rest.finals().try_fold(0, |sum, entry| entry.map(|_| sum + 1))?;
        let counted = at_rest.counts().try_fold(0, |sum, entry| {
            let (_, count) = entry?;
            Ok::<_, io::Error>(sum + u64::from(count.unwrap_or_default()))
        })?;
        Ok((found, counted, at_rest.final_blocks()?.unwrap_or_default()))
    }

    /// Makes a checkpoint, of all generations below this one.
    fn vouch(state: &State, next_generation: u64, changes: RestChanges) {
        let checkpoint = Checkpoint { next_generation, ..Checkpoint::initial() };
        state.apply(StoreOp::Checkpoint(checkpoint, changes)).expect("stored");
    }

    #[test]
    fn a_checkpoint_vouches_for_the_blocks_that_were_put_and_have_not_gone() {
        let (folder, state) = state("vouched");
        let nothing = || RestChanges { removed: Vec::new(), gone: Vec::new() };
        let mut ids = IdSource::new(0, PartitionNumber(0));
        let numbers = |state: &State| final_blocks_of(&state.reader()).expect("readable");
        put(&state, 1, ids.next(at(0), 1), at(1));
        // Put again with one more, and again.
        put(&state, 1, ids.next(at(0), 1), at(2));
        put(&state, 2, ids.next(at(0), 1), at(9));
        assert_eq!(numbers(&state), (3, 2, 0));
        vouch(&state, 3, nothing());
        assert_eq!(numbers(&state), (3, 2, 2));
        put(&state, 3, ids.next(at(0), 1), at(3));
        put(&state, 4, ids.next(at(0), 1), at(9));
        // All that ended before goes, more than is vouched for.
        assert_eq!(state.sweep(at(5), &mut Vec::new()).expect("swept"), 3);
        assert_eq!(numbers(&state), (2, 2, 0));
        vouch(&state, 5, nothing());
        assert_eq!(numbers(&state), (2, 2, 1), "one that goes before it was vouched for is not missed");
        put(&state, 5, ids.next(at(0), 1), at(9));
        state.sync().expect("synced");
        // What was put before a crash is vouched for by the next process.
        let again = folder.with_extension("again");
        copy_folder(&folder.join("state"), &again.join("state"));
        let recovered = State::open(&again, 1 << 20).expect("a database");
        vouch(&recovered, 6, nothing());
        assert_eq!(numbers(&recovered), (3, 3, 2));
        // A database whose checkpoints did not say it yet.
        recovered.rest.remove(FINAL_BLOCKS).expect("removed");
        recovered.sync().expect("synced");
        copy_folder(&again.join("state"), &folder.with_extension("third").join("state"));
        let third = State::open(&folder.with_extension("third"), 1 << 20).expect("a database");
        vouch(&third, 6, nothing());
        assert_eq!(numbers(&third), (3, 3, 3));
        for folder in [&folder, &again, &folder.with_extension("third")] {
            std::fs::remove_dir_all(folder).expect("removed");
        }
    }

    /// Copies a database that is at rest.
    fn copy_folder(from: &Path, to: &Path) {
        std::fs::create_dir_all(to.join("blobs")).expect("a folder");
        for entry in std::fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
            }
        }
    }

    /// While it starts sled gives up the last segment of its log but one, when nothing in it is of use. Without a snapshot it
    /// misses it the next time, and gives up everything.
    #[test]
    fn a_snapshot_that_was_not_finished_does_not_take_the_whole_one_with_it() {
        let (folder, state) = state("unfinished");
        state.identity(PartitionNumber(0)).expect("an identity");
        let copy = folder.with_extension("copy");
        let mut given_up = 0;
        for round in 0..24 {
            state.apply(StoreOp::PutRest(RestNumber(0), vec![round; 1 << 20])).expect("stored");
            state.sync().expect("synced");
            copy_folder(&folder.join("state"), &copy);
            drop(State::config(&copy).open().expect("a database"));
            let log = std::fs::read(copy.join("db")).expect("a log");
            let is_given_up = |segment: &&[u8]| segment.iter().all(|octet| *octet == 0);
            given_up += log.chunks(SEGMENT_OCTETS).filter(is_given_up).count();
            std::fs::write(copy.join("snap.FFFFFFFFFFFFFFFF.generating"), b"snap").expect("written");
            let again = AtRest::open(&copy).and_then(|again| again.identity(PartitionNumber(0)));
            assert!(again.is_ok(), "after {round} rounds: {again:?}");
            std::fs::remove_dir_all(&copy).expect("removed");
        }
        assert!(given_up > 0, "sled has all the segments that it made");
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    /// Behind a message that it cannot read sled passes over the rest of that segment of its log, and most often goes on with
    /// the next one.
    #[test]
    fn final_messages_that_sled_lost_with_their_count_are_missed() {
        const GENERATIONS: u64 = 40;
        let (folder, state) = state("lost");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        for generation in 0..GENERATIONS {
            let id = ids.next(at(generation), 1);
            put(&state, generation, id, at(generation));
            // So that the log is long.
            let number = RestNumber(generation as u32);
            state.apply(StoreOp::PutRest(number, vec![7; 1 << 20])).expect("stored");
            let removed = generation.checked_sub(1).map(|before| RestNumber(before as u32));
            let removed = removed.into_iter().collect();
            vouch(&state, generation + 1, RestChanges { removed, gone: Vec::new() });
        }
        let log = std::fs::read(folder.join("state/db")).expect("a file");
        let damaged = folder.with_extension("damaged");
        for begin in (0..log.len()).step_by(SEGMENT_OCTETS / 8) {
            let Some(offset) = log[begin..].windows(4).position(|octets| octets == b"demo") else { continue };
            copy_folder(&folder.join("state"), &damaged);
            let mut octets = log.clone();
            octets[begin + offset] ^= 1;
            std::fs::write(damaged.join("db"), octets).expect("written");
            let read = caught(|| {
                let at_rest = AtRest::open(&damaged)?;
                Ok((at_rest.checkpoint()?.next_generation, final_blocks_of(&at_rest)?))
            });
            match read {
                // The checkpoint before: the journal has what came after it.
                Ok((next_generation, _)) if next_generation < GENERATIONS => {}
                Ok((_, (GENERATIONS, ..))) | Err(_) => {}
                Ok((_, (found, counted, vouched))) => {
                    let place = begin + offset;
                    assert!(found < counted || counted < vouched, "{found} found after a flip at {place}");
                }
            }
            std::fs::remove_dir_all(&damaged).expect("removed");
        }
        drop(state);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
