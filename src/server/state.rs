//! The state at rest: sled, behind the journal. One thread a partition, for sled may block for long.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::journal::{Identity, Position};
use crate::message::{IdSource, PartitionNumber};
use crate::server::clock::Clock;
use crate::server::fault::{self, Layer, Point};
use crate::server::mesh::{Inbound, MailSender};
use crate::shard::Lookup;
use crate::store::{Block, BlockKey, Checkpoint, FinalMessage, StoreDone, StoreOp};
use crate::time::Timestamp;

/// Orders that may wait for the thread; a partition keeps the rest, and refuses messages when it has many.
const ORDERS_MAX: usize = 4_096;
/// How often blocks past their retention are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Blocks looked at in one sweep, so that queries are not kept waiting.
const SWEEP_MAX: usize = 10_000;
const CACHE_OCTETS: u64 = 64 << 20;
const FORMAT: &[u8] = b"smppd partition 1";
/// The key of the checkpoint, behind the keys of everything at rest: one tree, so that one batch changes both.
const CHECKPOINT: &[u8] = &[0xFF];

/// An order for the thread of a partition.
pub(super) enum Order {
    /// Do this.
    Op(StoreOp),
    /// Answer this.
    Lookup(Box<Lookup>),
    /// Finish what is there, then end.
    Stop,
}

/// The sled database of a partition.
pub(super) struct State {
    db: sled::Db,
    meta: sled::Tree,
    rest: sled::Tree,
    finals: sled::Tree,
    folder: PathBuf,
}

impl State {
    /// Opens the database in `folder`, making it when there is none. A damaged snapshot is removed, once,
    /// and the log read again: sled keeps nothing in a snapshot that is not in its log.
    ///
    /// # Errors
    /// It cannot be opened, or is of another version.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
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
        .map_err(io::Error::other)?;
        let tree = |name: &str| db.open_tree(name).map_err(io::Error::other);
        let (meta, rest, finals) = (tree("meta")?, tree("rest")?, tree("final")?);
        Ok(Self { meta, rest, finals, db, folder: folder.to_owned() })
    }

    fn config(folder: &Path) -> sled::Config {
        let flush_every_ms = if fault::is_unsynced(Layer::State) { None } else { Some(500) };
        sled::Config::new().path(folder).cache_capacity(CACHE_OCTETS).flush_every_ms(flush_every_ms)
    }

    /// Whether there is nothing in it yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn is_new(&self) -> io::Result<bool> {
        Ok(self.meta.get("format").map_err(io::Error::other)?.is_none())
    }

    /// The salt of the partition's journal; made and made durable when there is none.
    ///
    /// # Errors
    /// The database is of another version, or cannot be written.
    pub(super) fn identity(&self, partition: PartitionNumber) -> io::Result<Identity> {
        match self.meta.get("format").map_err(io::Error::other)? {
            None => {
                let mut salt = [0; 8];
                getrandom::fill(&mut salt).map_err(io::Error::other)?;
                self.meta.insert("salt", &salt).map_err(io::Error::other)?;
                self.meta.insert("format", FORMAT).map_err(io::Error::other)?;
                self.sync()?;
                for name in ["conf", "."] {
                    File::open(self.folder.join(name))?.sync_all()?;
                }
            }
            Some(format) if format == FORMAT => {}
            Some(format) => {
                let format = String::from_utf8_lossy(&format).into_owned();
                return Err(io::Error::other(format!("written by another version ({format:?})")));
            }
        }
        let salt = self.meta.get("salt").map_err(io::Error::other)?;
        let salt = salt.and_then(|salt| salt.as_ref().try_into().ok()).map(u64::from_le_bytes);
        let salt = salt.ok_or_else(|| io::Error::other("the partition's salt is missing"))?;
        Ok(Identity { partition, salt })
    }

    /// Where replay begins.
    ///
    /// # Errors
    /// The checkpoint cannot be read.
    pub(super) fn checkpoint(&self) -> io::Result<Checkpoint> {
        match self.rest.get(CHECKPOINT).map_err(io::Error::other)? {
            None => Ok(Checkpoint::initial()),
            Some(octets) => {
                Checkpoint::read(&octets).map_err(|_| io::Error::other("the checkpoint cannot be read"))
            }
        }
    }

    /// Everything unfinished that is at rest.
    pub(super) fn rest(&self) -> impl Iterator<Item = io::Result<sled::IVec>> {
        self.rest.range(..CHECKPOINT).values().map(|value| value.map_err(io::Error::other))
    }

    /// What is known of `count` messages from `id` on.
    fn find(&self, lookup: &Lookup) -> io::Result<Vec<FinalMessage>> {
        let last = lookup.id.in_batch(lookup.count.saturating_sub(1));
        let mut found = Vec::new();
        for entry in self.finals.scan_prefix(lookup.id.period().to_be_bytes()) {
            let (_, octets) = entry.map_err(io::Error::other)?;
            let block = Block::read(&octets).map_err(|_| io::Error::other("a block cannot be read"))?;
            for message in block.messages_in(lookup.id..=last) {
                let message = message.map_err(|_| io::Error::other("a block cannot be read"))?;
                found.retain(|known: &FinalMessage| known.id != message.id);
                found.push(message);
            }
        }
        Ok(found)
    }

    fn apply(&self, op: StoreOp) -> io::Result<Option<StoreDone>> {
        fault::strike(Point::StateOp, &self.folder)?;
        match op {
            StoreOp::PutBlock(key, octets) => {
                self.finals.insert(key.to_octets(), octets).map_err(io::Error::other)?;
                Ok(Some(StoreDone::Block(key)))
            }
            StoreOp::PutRest(key, octets) => {
                self.rest.insert(key.to_octets(), octets).map_err(io::Error::other)?;
                Ok(None)
            }
            StoreOp::Checkpoint(checkpoint, gone) => {
                // First what the checkpoint stands on, then the checkpoint with what it forgets, as one.
                self.sync()?;
                let mut batch = sled::Batch::default();
                for key in gone {
                    batch.remove(&key.to_octets());
                }
                batch.insert(CHECKPOINT, checkpoint.to_octets());
                self.rest.apply_batch(batch).map_err(io::Error::other)?;
                self.sync()?;
                Ok(Some(StoreDone::Checkpoint(checkpoint.segment, checkpoint.first)))
            }
        }
    }

    /// sled's own flush stops short of the disk on Linux: sync_file_range is no barrier. This is one.
    fn sync(&self) -> io::Result<()> {
        fault::strike(Point::StateSync, &self.folder)?;
        self.db.flush().map_err(io::Error::other)?;
        if fault::is_unsynced(Layer::State) {
            return Ok(());
        }
        File::open(self.folder.join("db"))?.sync_data()
    }

    /// Removes blocks whose messages were all final before `before`, among the next ones from `cursor` on.
    fn sweep(&self, before: Timestamp, cursor: &mut Vec<u8>) -> io::Result<usize> {
        let mut removed = 0;
        let first_id = IdSource::new(0, PartitionNumber(0)).next(before, 1);
        // No message ends before it was accepted, so blocks of this period and later ones are young, and not
        // read at all; nearly all of them are. Short ids tell no time: their periods come before all others.
        let end = BlockKey { period: first_id.period(), number: 0 }.to_octets();
        let from = std::mem::take(cursor);
        if from.as_slice() >= end.as_slice() {
            // The clock was set back.
            return Ok(removed);
        }
        for (seen, entry) in self.finals.range(from.as_slice()..end.as_slice()).enumerate() {
            let (key, octets) = entry.map_err(io::Error::other)?;
            if seen == SWEEP_MAX {
                *cursor = key.to_vec();
                break;
            }
            let block = Block::read(&octets).map_err(|_| io::Error::other("a block cannot be read"))?;
            if block.newest() < before {
                self.finals.remove(key).map_err(io::Error::other)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn remove_snapshots(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

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
) -> io::Result<(Sender<Order>, JoinHandle<()>)> {
    let (sender, orders) = bounded(ORDERS_MAX);
    let thread = std::thread::Builder::new()
        .name(format!("state-{partition}"))
        .spawn(move || run(partition, &state, &orders, &mail, clock, retention))?;
    Ok((sender, thread))
}

/// Does something with sled. What panics there would end the thread without a word, and its core would wait
/// for it for ever.
fn caught<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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
) {
    let mut swept = Instant::now();
    let mut cursor = Vec::new();
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
                Err(error) => {
                    mail.send(Inbound::NotFound(lookup));
                    Err(error)
                }
            },
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = caught(|| state.sync()) {
                    log::error!("partition {partition}: the state at rest was not flushed: {error}");
                }
                return;
            }
        };
        let outcome = outcome.and_then(|()| {
            if swept.elapsed() < SWEEP_INTERVAL {
                return Ok(());
            }
            swept = Instant::now();
            let before = clock.now().wall.as_millis().saturating_sub(retention.as_millis() as u64);
            let removed = caught(|| state.sweep(Timestamp::from_millis(before), &mut cursor))?;
            if removed > 0 {
                log::info!(
                    "partition {partition}: {removed} blocks of final messages are past their retention"
                );
            }
            Ok(())
        });
        if let Err(error) = outcome {
            // The partition stops. Nothing is written any more, but whoever asks is told that there is no answer.
            mail.send(Inbound::StoreFailed(partition, format!("the state at rest failed: {error}")));
            for order in orders {
                match order {
                    Order::Lookup(lookup) => mail.send(Inbound::NotFound(lookup)),
                    Order::Op(_) => {}
                    Order::Stop => return,
                }
            }
            return;
        }
    }
}

/// Tells what replay must begin with, for messages.
pub(super) fn last_before(checkpoint: &Checkpoint) -> Position {
    Position(checkpoint.first.0.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;
    use crate::pdu::receipt::MessageState;
    use crate::store::BlockBuilder;

    const MINUTE: u64 = 60_000;
    /// Some day of 2026.
    const NOW: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    const fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + minute * MINUTE)
    }

    /// A block with one message that ended at a time.
    fn put(state: &State, number: u64, id: MessageId, final_date: Timestamp) -> BlockKey {
        let mut block = BlockBuilder::default();
        block.push(&FinalMessage {
            id,
            batch_offset: 0,
            batch_count: 1,
            state: MessageState::DELIVERED,
            error: 0,
            final_date,
            system_id: Box::from(*b"demo"),
            source_addr: Box::from(*b"12125550100"),
        });
        let key = BlockKey { period: id.period(), number };
        let done = state.apply(StoreOp::PutBlock(key, block.finish().0)).expect("stored");
        assert_eq!(done, Some(StoreDone::Block(key)));
        key
    }

    #[test]
    fn a_sweep_removes_what_is_old_and_reads_nothing_that_is_young() {
        let folder = std::env::temp_dir().join(format!("smppd-sweep-{}", std::process::id()));
        let state = State::open(&folder).expect("a database");
        let mut ids = IdSource::new(0, PartitionNumber(0));
        put(&state, 1, ids.next_short(), at(0));
        let short = put(&state, 2, ids.next_short(), at(50));
        put(&state, 3, ids.next(at(0), 1), at(1));
        // It took an hour to deliver.
        let late = put(&state, 4, ids.next(at(1), 1), at(61));
        put(&state, 5, ids.next(at(2), 1), at(3));
        // Whatever is read of this one is an error.
        let young = BlockKey { period: ids.next(at(40), 1).period(), number: 6 };
        state.apply(StoreOp::PutBlock(young, b"no block".to_vec())).expect("stored");
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
    fn a_panic_beside_the_core_is_an_error() {
        assert_eq!(caught(|| Ok(7)).expect("no panic"), 7);
        let error = caught(|| -> io::Result<()> { panic!("this panic is a part of the test") });
        assert!(error.expect_err("an error").to_string().contains("panic"));
    }
}
