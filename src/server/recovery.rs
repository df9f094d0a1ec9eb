//! From a data directory to partitions that go on where they were.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::account::Accounts;
use crate::config::Config;
use crate::journal::{
    BatchError, BatchHeader, Identity, Position, Record, ReplayEnd, Ring, SegmentFault, SegmentNumber,
    find_batch, replay_segment,
};
use crate::message::{Content, Parcel, PartitionNumber};
use crate::server::disk::{self, JournalFolder, segment_path};
use crate::server::durable_file;
use crate::server::state::{self, State};
use crate::shard::Partition;
use crate::store::Checkpoint;

/// Segments that are ready before the first message comes.
const SEGMENTS_READY: u32 = 3;

/// A partition folder, opened and not replayed yet.
pub(super) struct Found {
    pub(super) number: PartitionNumber,
    journal: PathBuf,
    state: State,
    identity: Identity,
    checkpoint: Checkpoint,
    /// Segments that are needed, oldest first.
    segments: Vec<(SegmentNumber, u32)>,
    newest: SegmentNumber,
    files: u32,
}

/// A partition, ready to go on.
pub(super) struct Recovered {
    pub(super) partition: Partition,
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
    /// Opens a partition, making its folder when there is none.
    ///
    /// # Errors
    /// See the message: it names the file.
    pub(super) fn open(config: &Config, number: PartitionNumber) -> Result<Self, String> {
        let folder = config.data_dir.join(format!("partition-{number}"));
        let journal = folder.join("journal");
        let state_folder = folder.join("state");
        durable_file::make_folder(&journal).map_err(|error| format!("{}: {error}", journal.display()))?;
        let in_state = |error: io::Error| format!("{}: {error}", state_folder.display());
        let state = State::open(&state_folder).map_err(in_state)?;
        // The database is made, and durable, before the journal. sled takes one whose beginning is damaged for
        // an empty one, and with a new salt no batch of the journal would be ours.
        if state.is_new().map_err(in_state)? && segment_path(&journal, 0).exists() {
            return Err(format!(
                "{}: the database is empty, or its beginning is damaged, but there is a journal beside it; \
                 restore the folder from a copy, or move the partition's folder away to start without it",
                state_folder.display()
            ));
        }
        let identity = state.identity(number).map_err(in_state)?;
        // Each time, and not only by who made them: that start may have ended before it came to this.
        for folder in [&folder, &config.data_dir] {
            durable_file::sync_folder(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let checkpoint = state.checkpoint().map_err(in_state)?;

        let mut segments = Vec::new();
        let mut files = 0;
        let mut newest = SegmentNumber(checkpoint.segment.0.saturating_sub(1));
        for file in 0.. {
            let path = segment_path(&journal, file);
            let Some(header) = read_header(identity, &path)? else { break };
            match header {
                Ok(header) => {
                    newest = newest.max(header.segment);
                    if header.segment >= checkpoint.segment {
                        segments.push((header.segment, file));
                    }
                    files = file + 1;
                }
                Err(_) => {
                    refuse_damaged(identity, &checkpoint, &path)?;
                    let found =
                        fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                    // One that was being filled with zeros when the server stopped is the last one; it is not
                    // counted, and made again. Before a file that holds something (of a time when segments
                    // were smaller) it stays, and grows as it is written.
                    if found.len() >= config.journal_segment_octets {
                        files = file + 1;
                    }
                }
            }
        }
        segments.sort_unstable();
        let in_journal = |error: io::Error| {
            let mib = (u64::from(SEGMENTS_READY) * config.journal_segment_octets) >> 20;
            format!("{}: {error} (the journal needs {mib} MiB of free space)", journal.display())
        };
        let files = disk::prepare(&journal, files, SEGMENTS_READY, config.journal_segment_octets)
            .map_err(in_journal)?;
        Ok(Self { number, journal, state, identity, checkpoint, segments, newest, files })
    }

    /// The accounts that its messages and parcels name.
    ///
    /// # Errors
    /// See the message.
    pub(super) fn system_ids(&self) -> Result<BTreeSet<Box<[u8]>>, String> {
        let mut names: BTreeSet<Box<[u8]>> =
            self.checkpoint.credits_used.iter().map(|(system_id, _)| system_id.clone()).collect();
        for value in self.state.rest() {
            let value = value.map_err(|error| format!("partition {}: {error}", self.number))?;
            names.extend(
                value.get(8..).and_then(|mut record| Record::take(&mut record).ok()?).and_then(system_id),
            );
        }
        self.each_batch(|_, _, mut records| {
            while let Ok(Some(record)) = Record::take(&mut records) {
                names.extend(system_id(record));
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// Replays the journal on top of what is at rest.
    ///
    /// # Errors
    /// Damage: the message names file and position. Nothing is passed over silently.
    pub(super) fn recover(self, config: &Config, accounts: &Accounts) -> Result<Recovered, String> {
        let start = Instant::now();
        let mut partition = Partition::recover(self.number, config.node, config.partition, &self.checkpoint);
        for value in self.state.rest() {
            let value = value.map_err(|error| format!("partition {}: {error}", self.number))?;
            partition
                .restore(&value, accounts)
                .map_err(|_| format!("partition {}: something at rest cannot be read", self.number))?;
        }
        let mut last = state::last_before(&self.checkpoint);
        let mut batches = 0_u64;
        self.each_batch(|segment, position, records| {
            last = position;
            batches += 1;
            partition.replay(segment, position, records, accounts).map_err(|_| {
                format!("partition {}: batch {} was written by another version", self.number, position.0)
            })
        })?;
        partition.finish_recovery(last);
        let (messages, parcels) = partition.unfinished();
        log::info!(
            "partition {}: {messages} messages and {parcels} deliveries go on; {batches} batches replayed in {} ms",
            self.number,
            start.elapsed().as_millis()
        );
        let ring = Ring::resume(config.journal_segment_octets, &self.segments, self.newest, self.files);
        let journal = JournalFolder {
            folder: self.journal,
            identity: self.identity,
            durability: config.durability,
            segment_octets: config.journal_segment_octets,
            ring,
        };
        Ok(Recovered { partition, journal, state: self.state })
    }

    /// The number of the batch that a segment file begins with.
    fn first_of(&self, file: u32) -> Option<Position> {
        let header = read_header(self.identity, &segment_path(&self.journal, file)).ok()??;
        header.ok().map(|header| header.position)
    }

    /// Every whole batch behind the checkpoint, in order.
    fn each_batch(
        &self,
        mut each: impl FnMut(SegmentNumber, Position, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut expected = self.checkpoint.first;
        for (place, (segment, file)) in self.segments.iter().enumerate() {
            let path = segment_path(&self.journal, *file);
            let octets = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let first = BatchHeader::read(self.identity, &octets).map(|header| header.position);
            if *segment == self.checkpoint.segment {
                // The checkpoint names its first batch; an empty checkpoint begins where the journal does.
                expected = first.unwrap_or(expected);
            }
            let replay = replay_segment(self.identity, *segment, expected, &octets).map_err(|fault| {
                let SegmentFault { offset, position, followed_by } = fault;
                damage(&path, offset, &format!("batch {}", position.0), followed_by)
            })?;
            if replay.end == ReplayEnd::Torn {
                log::warn!(
                    "{}: a batch was being written when the server stopped; it was not answered",
                    path.display()
                );
            }
            // Where the next segment begins an earlier recovery ended: a batch that reached the disk after it,
            // from a process that was killed while writing, was never answered for.
            let next = self.segments.get(place + 1);
            let next = next.and_then(|(_, file)| self.first_of(*file));
            for (position, records) in replay.batches {
                if next.is_some_and(|next| position >= next) {
                    break;
                }
                each(*segment, position, records)?;
                expected = position.next();
            }
        }
        Ok(())
    }
}

/// The header a segment file begins with; `None` when there is no such file.
fn read_header(identity: Identity, path: &Path) -> Result<Option<Result<BatchHeader, BatchError>>, String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut block = [0; 4096];
    match file.read_exact(&mut block) {
        Ok(()) => {}
        // It was being made when the server stopped; nothing can be in it, and no file comes after it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    match BatchHeader::read(identity, &block) {
        Err(BatchError::Format(format)) => {
            Err(format!("{}: written by another version (format {format})", path.display()))
        }
        header => Ok(Some(header)),
    }
}

/// What is wrong with a file in which something that can be read stands behind something that cannot.
fn damage(path: &Path, offset: usize, what: &str, followed_by: Position) -> String {
    format!(
        "{}: damaged at offset {offset}: {what} cannot be read, but batch {} behind it can; \
         restore the file from a copy, or move the partition's folder away to start without it",
        path.display(),
        followed_by.0
    )
}

/// A file that begins with no batch is free, unless something that is needed follows.
fn refuse_damaged(identity: Identity, checkpoint: &Checkpoint, path: &Path) -> Result<(), String> {
    let octets = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match find_batch(identity, checkpoint.segment, &octets) {
        None => Ok(()),
        Some((_, header)) => Err(damage(path, 0, "the first batch", header.position)),
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
        | Record::Replaced(_)
        | Record::Settled { .. } => None,
    }
}
