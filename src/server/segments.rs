//! A journal's files, as they are found: which hold what, and every batch in them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::journal::{
    BatchError, BatchHeader, Identity, Position, ReplayEnd, SegmentFault, SegmentNumber, find_batch,
    replay_segment,
};
use crate::server::disk::segment_path;
use crate::store::Checkpoint;

/// The files of a partition's journal.
pub(super) struct Segments {
    folder: PathBuf,
    identity: Identity,
    /// Where replay begins.
    from: SegmentNumber,
    first: Position,
    /// The checkpoint holds the journal up to this batch.
    as_of: Position,
    /// Segments that are needed, oldest first, with their files.
    pub(super) needed: Vec<(SegmentNumber, u32)>,
    /// The newest segment there ever was.
    pub(super) newest: SegmentNumber,
    /// Whole files.
    pub(super) files: u32,
}

impl Segments {
    /// Looks through the files in `folder`; those that are shorter than `segment_octets` are no files yet, unless there is
    /// something in them.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged where it begins: the message names it.
    pub(super) fn find(
        folder: &Path,
        identity: Identity,
        checkpoint: &Checkpoint,
        segment_octets: u64,
    ) -> Result<Self, String> {
        let mut needed = Vec::new();
        let mut files = 0;
        let mut newest = SegmentNumber(checkpoint.segment.0.saturating_sub(1));
        let present = segment_files(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for (place, file) in (0..).zip(&present) {
            let path = segment_path(folder, place);
            let header = if place == *file { read_header(identity, &path)? } else { None };
            let Some(header) = header else {
                // The last file may have been in the making when the server stopped. No other was ever missing.
                if place == *file && present.len() == place as usize + 1 {
                    break;
                }
                return Err(format!(
                    "{}: missing, or empty, but others that came after it are there; restore it from a copy, or move \
                     the partition's folder away to start without it",
                    path.display()
                ));
            };
            let file = place;
            match header {
                Ok(header) => {
                    newest = newest.max(header.segment);
                    if header.segment >= checkpoint.segment {
                        needed.push((header.segment, file));
                    }
                    files = file + 1;
                }
                Err(_) => {
                    refuse_damaged(identity, checkpoint, &path)?;
                    let found =
                        fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                    // One that was being filled with zeros when the server stopped is the last one; it is not
                    // counted, and made again. Before a file that holds something (of a time when segments
                    // were smaller) it stays, and grows as it is written.
                    if found.len() >= segment_octets {
                        files = file + 1;
                    }
                }
            }
        }
        needed.sort_unstable();
        let folder = folder.to_owned();
        let Checkpoint { segment: from, first, as_of, .. } = *checkpoint;
        Ok(Self { folder, identity, from, first, as_of, needed, newest, files })
    }

    /// Every whole batch from the checkpoint on, in order. The last one's number; without any, the one before the first.
    ///
    /// # Errors
    /// That of `each`; or damage: the message names file and place. Nothing is passed over silently.
    pub(super) fn each_batch(
        &self,
        mut each: impl FnMut(SegmentNumber, Position, &[u8]) -> Result<(), String>,
    ) -> Result<Position, String> {
        let mut expected = self.first;
        for (segment, file) in &self.needed {
            let path = segment_path(&self.folder, *file);
            let octets = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            if *segment == self.from {
                // The checkpoint names its first batch; an empty checkpoint begins where the journal does.
                let first = BatchHeader::read(self.identity, &octets).map(|header| header.position);
                expected = first.unwrap_or(expected);
            }
            let first = BatchHeader::read(self.identity, &octets).map(|header| header.position);
            if expected <= self.as_of && first == Ok(self.as_of.next()) {
                // An earlier start went on without the batches between: it said so, and the checkpoint holds them.
                expected = self.as_of.next();
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
            for (position, records) in replay.batches {
                each(*segment, position, records)?;
                expected = position.next();
            }
        }
        Ok(Position(expected.0.saturating_sub(1)))
    }
}

/// The numbers of the segment files in a folder, ascending.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn segment_files(folder: &Path) -> io::Result<Vec<u32>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".log")?.parse::<u32>().ok());
        files.extend(number);
    }
    files.sort_unstable();
    Ok(files)
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
        // Nothing can be in it.
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
