//! A journal as it is found, damage and all: recovery stops at the first fault, whoever looks into a store wants all.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Fault;
use crate::journal::{BATCH_ALIGN, BatchError, BatchHeader, Identity, Position, SegmentNumber, find_batch};
use crate::store::Checkpoint;

/// The files of a partition's journal.
pub(super) struct JournalScan {
    identity: Identity,
    folder: PathBuf,
    checkpoint: Checkpoint,
    /// All files, by name.
    pub(super) files: Vec<JournalFile>,
    /// Those that are needed, oldest segment first.
    pub(super) needed: Vec<(SegmentNumber, PathBuf)>,
}

/// A file of the journal.
pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) octets: u64,
    /// What it is.
    pub(super) holds: Holds,
}

/// What a file of the journal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
    /// A segment that is needed.
    Needed(SegmentNumber),
    /// A segment that was needed once.
    Old(SegmentNumber),
    /// Nothing yet.
    Nothing,
    /// What another version wrote.
    Foreign(u16),
}

/// A batch, where it was found.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) segment: SegmentNumber,
    pub(super) position: Position,
    pub(super) path: &'a Path,
    pub(super) offset: usize,
    /// Records behind one another.
    pub(super) records: &'a [u8],
}

/// What a walk through the journal has come to.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) segments: Vec<SegmentWalked>,
    /// Damage: something that can be read stands behind it.
    pub(super) faults: Vec<Fault>,
    /// A batch that was being written when the server stopped, and where it is.
    pub(super) torn: Option<(PathBuf, usize)>,
    /// The last batch; without any, the one before the first.
    pub(super) last: Position,
    pub(super) batches: u64,
    pub(super) octets: u64,
}

/// A segment that was walked through.
pub(super) struct SegmentWalked {
    pub(super) segment: SegmentNumber,
    pub(super) path: PathBuf,
    /// Its first and last batch.
    pub(super) batches: Option<(Position, Position)>,
    pub(super) used_octets: u64,
}

impl JournalScan {
    /// Looks through the files in `folder`.
    ///
    /// # Errors
    /// The folder, or a file in it, cannot be read.
    pub(super) fn find(folder: &Path, identity: Identity, checkpoint: &Checkpoint) -> Result<Self, String> {
        let named = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| named(folder, &error))? {
            let path = entry.map_err(|error| named(folder, &error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("segment-") && name.ends_with(".log") {
                paths.push(path);
            }
        }
        paths.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        let (mut files, mut needed) = (Vec::new(), Vec::new());
        for path in paths {
            let octets = fs::metadata(&path).map_err(|error| named(&path, &error))?.len();
            let holds = look_at(&path, identity, checkpoint).map_err(|error| named(&path, &error))?;
            if let Holds::Needed(segment) = holds {
                needed.push((segment, path.clone()));
            }
            files.push(JournalFile { path, octets, holds });
        }
        needed.sort();
        Ok(Self { identity, folder: folder.to_owned(), checkpoint: checkpoint.clone(), files, needed })
    }

    /// Every whole batch that recovery would replay, in order.
    ///
    /// # Errors
    /// That of `each`, or a file cannot be read. Damage is no error, but told in the result.
    pub(super) fn each_batch<E: From<String>>(
        &self,
        mut each: impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<Walked, E> {
        let mut walked = Walked::default();
        let mut expected = self.checkpoint.first;
        for (place, (segment, path)) in self.needed.iter().enumerate() {
            let octets = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            if *segment == self.checkpoint.segment {
                let first = BatchHeader::read(self.identity, &octets).map(|header| header.position);
                // Only a partition without a checkpoint does not know its first batch.
                expected = first.unwrap_or(expected);
            }
            let next = self.needed.get(place + 1).and_then(|(_, path)| first_of(self.identity, path));
            let mut of_segment =
                SegmentWalked { segment: *segment, path: path.clone(), batches: None, used_octets: 0 };
            let mut offset = 0;
            loop {
                let rest = octets.get(offset..).unwrap_or_default();
                match BatchHeader::read_batch(self.identity, rest) {
                    Ok((header, records)) if header.segment == *segment && header.position == expected => {
                        each(Found { segment: *segment, position: expected, path, offset, records })?;
                        offset += header.aligned_octets();
                        of_segment.note(expected, offset);
                        walked.batches += 1;
                        expected = expected.next();
                    }
                    outcome => match self.next_whole(*segment, expected, rest) {
                        Some((skipped, header)) if next.is_none_or(|next| header.position < next) => {
                            walked.faults.push(missing(path, offset, expected, header.position));
                            expected = header.position;
                            offset += skipped;
                        }
                        Some(_) | None => {
                            let torn = matches!(outcome, Err(BatchError::Checksum(header)) if header.segment == *segment);
                            if torn && next.is_none() {
                                walked.torn = Some((path.clone(), offset));
                            }
                            break;
                        }
                    },
                }
            }
            if let Some(next) = next.filter(|next| *next > expected) {
                let end = of_segment.used_octets as usize;
                walked.faults.push(missing(path, end, expected, next));
                expected = next;
            }
            walked.octets += of_segment.used_octets;
            walked.segments.push(of_segment);
        }
        walked.last = Position(expected.0.saturating_sub(1));
        let as_of = self.checkpoint.as_of;
        if walked.last < as_of {
            walked.faults.push(Fault::of_file(
                &self.folder,
                None,
                format!(
                    "the journal ends with batch {}, but batch {} was durable: what came between is lost",
                    walked.last.0, as_of.0
                ),
            ));
        }
        Ok(walked)
    }

    /// Every whole batch in any file, needed or not, in no order.
    ///
    /// # Errors
    /// That of `each`, or a file cannot be read.
    pub(super) fn each_batch_anywhere<E: From<String>>(
        &self,
        mut each: impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for file in self.files.iter().filter(|file| file.holds != Holds::Nothing) {
            let path = &file.path;
            let octets = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let mut offset = 0;
            while offset < octets.len() {
                match BatchHeader::read_batch(self.identity, &octets[offset..]) {
                    Ok((header, records)) => {
                        let (segment, position) = (header.segment, header.position);
                        each(Found { segment, position, path, offset, records })?;
                        offset += header.aligned_octets();
                    }
                    Err(_) => offset += BATCH_ALIGN,
                }
            }
        }
        Ok(())
    }

    /// The first whole batch of a segment, no older than `expected`, and where it is.
    fn next_whole(
        &self,
        segment: SegmentNumber,
        expected: Position,
        octets: &[u8],
    ) -> Option<(usize, BatchHeader)> {
        (0..octets.len()).step_by(BATCH_ALIGN).find_map(|offset| {
            let (header, _) = BatchHeader::read_batch(self.identity, &octets[offset..]).ok()?;
            (header.segment == segment && header.position >= expected).then_some((offset, header))
        })
    }
}

impl SegmentWalked {
    const fn note(&mut self, position: Position, end: usize) {
        self.used_octets = end as u64;
        self.batches = Some(match self.batches {
            Some((first, _)) => (first, position),
            None => (position, position),
        });
    }
}

fn missing(path: &Path, offset: usize, from: Position, to: Position) -> Fault {
    let what = if from.0 + 1 >= to.0 {
        format!("batch {} is damaged", from.0)
    } else {
        format!("batches {} to {} are damaged", from.0, to.0 - 1)
    };
    Fault::of_file(path, Some(offset), format!("{what}, but batch {} behind can be read", to.0))
}

fn first_of(identity: Identity, path: &Path) -> Option<Position> {
    let mut block = Vec::with_capacity(BATCH_ALIGN);
    File::open(path).ok()?.take(BATCH_ALIGN as u64).read_to_end(&mut block).ok()?;
    BatchHeader::read(identity, &block).ok().map(|header| header.position)
}

fn look_at(path: &Path, identity: Identity, checkpoint: &Checkpoint) -> io::Result<Holds> {
    let mut block = Vec::with_capacity(BATCH_ALIGN);
    File::open(path)?.take(BATCH_ALIGN as u64).read_to_end(&mut block)?;
    Ok(match BatchHeader::read(identity, &block) {
        Ok(header) if header.segment >= checkpoint.segment => Holds::Needed(header.segment),
        Ok(header) => Holds::Old(header.segment),
        Err(BatchError::Format(format)) => Holds::Foreign(format),
        // What looks like a free file may be a damaged one.
        Err(BatchError::NoHeader | BatchError::Checksum(_)) => {
            match find_batch(identity, checkpoint.segment, &fs::read(path)?) {
                Some((_, header)) => Holds::Needed(header.segment),
                None => Holds::Nothing,
            }
        }
    })
}
