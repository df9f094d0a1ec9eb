//! From a data directory to partitions that go on where they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::account::Accounts;
use crate::config::{Config, Durability};
use crate::journal::{BATCH_OCTETS_MAX, Identity, JournalStart, Record, Ring};
use crate::message::PartitionNumber;
use crate::server::disk::{self, JournalFolder, segment_path};
use crate::server::durable_file;
use crate::server::segments::{Segments, segment_files};
use crate::server::state::{self, EMPTY, REMEDY, State};
use crate::shard::{PartitionSettings, Recovered, Recovery};
use crate::store::Checkpoint;
use crate::time::Now;

/// Segments that are ready before the first message comes.
const SEGMENTS_READY: u32 = 3;
/// How often a recovery that takes long tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A partition folder, opened and not replayed yet.
pub(super) struct Found {
    pub(super) number: PartitionNumber,
    journal: PathBuf,
    segments: Segments,
    state: State,
    identity: Identity,
    checkpoint: Checkpoint,
    recovery: Recovery,
    /// The accounts that its messages and parcels name.
    pub(super) system_ids: BTreeSet<Box<[u8]>>,
}

/// A partition, ready to go on.
pub(super) struct Opened {
    pub(super) partition: Recovered,
    pub(super) journal: JournalFolder,
    pub(super) state: State,
}

/// The partitions there are in `data_dir`, and those that `cores` cores need.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn partitions(data_dir: &Path, cores: usize) -> io::Result<BTreeSet<PartitionNumber>> {
    let mut numbers: BTreeSet<PartitionNumber> =
        (0..cores).map(|core| PartitionNumber(u8::try_from(core).unwrap_or(u8::MAX))).collect();
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("partition-")?.parse().ok());
        numbers.extend(number.map(PartitionNumber));
    }
    Ok(numbers)
}

impl Found {
    /// Opens a partition, making its folder when there is none, and looks through its journal. Pauses go on from `now`.
    ///
    /// # Errors
    /// See the message: it names the file.
    pub(super) fn open(config: &Config, number: PartitionNumber, now: Now) -> Result<Self, String> {
        let folder = config.data_dir.join(format!("partition-{number}"));
        let journal = folder.join("journal");
        durable_file::make_folder(&journal).map_err(|error| format!("{}: {error}", journal.display()))?;
        let segment_octets = config.journal_segment_octets;
        let state_folder = folder.join("state");
        let in_state = |error: io::Error| state::told(&state_folder, &error);
        let state = State::open(&folder, segment_octets).map_err(in_state)?;
        // What an earlier process wrote and had not synced is there until the power goes. It must not go then: we go by it.
        state.sync().map_err(in_state)?;
        // The database is made, and durable, before the journal. sled takes one whose beginning is damaged for
        // an empty one, and with a new salt no batch of the journal would be ours.
        if state.is_new().map_err(in_state)? && !segment_files(&journal).map_err(in_state)?.is_empty() {
            return Err(format!(
                "{}: {EMPTY}, but there is a journal beside it; {REMEDY}",
                state_folder.display()
            ));
        }
        let identity = state.identity(number).map_err(in_state)?;
        // Each time, and not only by who made them: that start may have ended before it came to this.
        for folder in [&folder, &config.data_dir] {
            durable_file::sync_folder(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let checkpoint = state.checkpoint().map_err(in_state)?;
        for file in segment_files(&journal).map_err(|error| format!("{}: {error}", journal.display()))? {
            let path = segment_path(&journal, file);
            disk::take_over(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let segments = Segments::find(&journal, identity, &checkpoint, segment_octets)?;

        let is_durable = config.durability != Durability::Memory;
        let retry_delay_max = config.retry.delay_max;
        let settings = PartitionSettings { is_durable, retry_delay_max, ..config.partition };
        let mut recovery = Recovery::new(number, config.node, settings, &checkpoint, now);
        let mut system_ids: BTreeSet<Box<[u8]>> =
            checkpoint.credits_used.iter().map(|(system_id, _)| system_id.clone()).collect();
        segments.each_batch(|_, position, mut records| {
            recovery.foresee(records).map_err(|_| {
                format!("partition {number}: batch {} was written by another version", position.0)
            })?;
            while let Ok(Some(record)) = Record::take(&mut records) {
                if let Some(name) = record.system_id().filter(|name| !system_ids.contains(*name)) {
                    system_ids.insert(name.into());
                }
            }
            Ok(())
        })?;
        Ok(Self { number, journal, segments, state, identity, checkpoint, recovery, system_ids })
    }

    /// Takes in what is at rest and replays the journal on top of it.
    ///
    /// # Errors
    /// Damage: the message names file and position. Nothing is passed over silently.
    pub(super) fn recover(self, config: &Config, accounts: &Accounts) -> Result<Opened, String> {
        let Self { number, journal, mut segments, state, identity, checkpoint, mut recovery, .. } = self;
        let segment_octets = config.journal_segment_octets;
        let mut progress = Progress { number, begun: Instant::now(), told: Instant::now() };
        let state_folder = journal.with_file_name("state");
        let at_rest = |error: io::Error| state::told(&state_folder, &error);
        for block in state.rest(&checkpoint).map_err(at_rest)? {
            let (block, octets, gone) = block.map_err(at_rest)?;
            recovery
                .restore(block, &octets, gone, accounts)
                .map_err(|_| state::damaged(&state_folder, &format!("block {} cannot be read", block.0)))?;
            progress.tell(|| format!("{} things at rest so far", sum(recovery.unfinished())));
        }
        if let Some(missing) = missing_at_rest(recovery.at_rest(), &checkpoint) {
            return Err(state::damaged(&state_folder, &missing));
        }
        let mut batches = 0_u64;
        let last = segments.each_batch(|segment, position, records| {
            batches += 1;
            progress.tell(|| {
                let whole = segments.needed.len();
                let done = segments.needed.iter().filter(|(needed, _)| *needed < segment).count();
                format!("{done} of {whole} journal segments replayed")
            });
            recovery.replay(segment, position, records, accounts).map_err(|_| {
                format!("partition {number}: batch {} was written by another version", position.0)
            })
        })?;
        if last < checkpoint.as_of {
            let message = format!(
                "{}: the journal ends with batch {}, but batch {} was durable: what came between is lost",
                journal.display(),
                last.0,
                checkpoint.as_of.0
            );
            // Only a server that syncs can hold the disk to that.
            if config.durability == Durability::Fsync {
                return Err(format!(
                    "{message}; restore the files from a copy, or start once with --durability os to go on without it"
                ));
            }
            log::error!("{message}");
        }
        let last = last.max(checkpoint.as_of);
        // Not before everything that is there was read.
        for file in segments.files..SEGMENTS_READY {
            disk::make_segment(&journal, file, segment_octets).map_err(|error| {
                let mib = (u64::from(SEGMENTS_READY) * segment_octets) >> 20;
                format!("{}: {error} (the journal needs {mib} MiB of free space)", journal.display())
            })?;
            segments.files = file + 1;
        }
        let (messages, parcels) = recovery.unfinished();
        log::info!(
            "partition {number}: {messages} messages and {parcels} deliveries go on; {batches} batches replayed in {} ms",
            progress.begun.elapsed().as_millis()
        );
        let Segments { needed, newest, files, .. } = segments;
        let ring = Ring::resume(config.journal_segment_octets, BATCH_OCTETS_MAX, &needed, newest, files);
        let partition = recovery.finish(JournalStart { identity, ring, last });
        Ok(Opened {
            partition,
            journal: JournalFolder { folder: journal, durability: config.durability, files },
            state,
        })
    }
}

/// The file in a data directory that names the carriers of the last start, by their places.
const CARRIERS_FILE: &str = "carriers";

/// A message that a carrier has names it by its place in the configuration. So the carriers of a start are those of the one
/// before, in their places, as far as messages are with them: another one would send those a second time.
///
/// # Errors
/// A carrier that has messages is in another place, or gone; or the names cannot be read or written.
pub(super) fn keep_carriers(data_dir: &Path, names: &[&str], opened: &[Opened]) -> Result<(), String> {
    let path = data_dir.join(CARRIERS_FILE);
    let cannot = |error: io::Error| format!("{}: {error}", path.display());
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    let before = match fs::read_to_string(&path) {
        Ok(before) if before == text => return Ok(()),
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot(error)),
    };
    let mut with = BTreeMap::<usize, usize>::new();
    for place in opened.iter().flat_map(|opened| opened.partition.carriers()) {
        *with.entry(place.into()).or_default() += 1;
    }
    let has_more = opened.iter().any(|opened| opened.partition.has_more_with_carriers());
    for (place, name) in before.lines().enumerate() {
        let now = names.get(place).copied();
        let count = with.get(&place).copied().unwrap_or(0);
        if now == Some(name) || count == 0 && !has_more {
            continue;
        }
        let messages = match (count, has_more) {
            (1, false) => "1 message is".to_owned(),
            (_, false) => format!("{count} messages are"),
            (_, true) => format!("{count} or more messages are"),
        };
        let now = now.map_or("there is none".to_owned(), |now| format!("that is \"{now}\""));
        return Err(format!(
            "{}: {messages} with carrier \"{name}\", which was number {} of the carriers in the order of their names, and \
             now {now}. What is with it would be sent a second time: put the carriers back as they were until that is over",
            data_dir.display(),
            place + 1
        ));
    }
    durable_file::replace(&path, &text, 0o644).map_err(cannot)
}

/// The file in a data directory that says which form it has, and what it says.
pub(super) const FORMAT_FILE: &str = "FORMAT";
pub(super) const FORMAT: &str = "smppd data 1\n";

/// Whether a data directory says that it has our form. One that is new says nothing yet.
///
/// # Errors
/// It is of another version, or cannot be read.
pub(super) fn has_format(data_dir: &Path) -> Result<bool, String> {
    let path = data_dir.join(FORMAT_FILE);
    match fs::read(&path) {
        Ok(format) if format == FORMAT.as_bytes() => Ok(true),
        // A first start that met a power cut: nothing was accepted yet.
        Ok(format) if format.is_empty() && partitions(data_dir, 0).is_ok_and(|found| found.is_empty()) => {
            Ok(false)
        }
        Ok(format) => {
            let other = String::from_utf8_lossy(&format);
            Err(format!("{}: written by another version ({:?})", path.display(), other.trim()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// What is not there, if not all is that a checkpoint vouches for: so many blocks at rest, with so many things.
pub(super) fn missing_at_rest(found: (u64, u64), checkpoint: &Checkpoint) -> Option<String> {
    let ((blocks, things), (wanted_blocks, wanted_things)) = (found, checkpoint.at_rest);
    (found != checkpoint.at_rest).then(|| {
        format!(
            "{blocks} of {wanted_blocks} blocks with {things} of {wanted_things} unfinished messages and deliveries are \
             there"
        )
    })
}

/// Says how far a recovery is, when it takes long.
struct Progress {
    number: PartitionNumber,
    begun: Instant,
    told: Instant,
}

impl Progress {
    fn tell(&mut self, how_far: impl FnOnce() -> String) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            log::info!("partition {}: recovering, {}", self.number, how_far());
        }
    }
}

const fn sum((messages, parcels): (usize, usize)) -> usize {
    messages + parcels
}
