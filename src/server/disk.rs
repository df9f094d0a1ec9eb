//! The journal's files: zero-filled segments, written through io_uring, used again and again.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions};

use crate::config::Durability;
use crate::journal::{Batch, Identity, Placement, Position, Ring, SegmentNumber};
use crate::server::fault::{self, Layer};

/// Zeros are written in pieces of this.
const FILL_OCTETS: usize = 1 << 20;

/// The journal of one partition, before its core has it.
pub(super) struct JournalFolder {
    /// Where the segment files are.
    pub(super) folder: PathBuf,
    /// What each batch carries.
    pub(super) identity: Identity,
    /// What a write has to survive.
    pub(super) durability: Durability,
    /// The size of a segment file.
    pub(super) segment_octets: u64,
    /// Which file is next.
    pub(super) ring: Ring,
}

/// The journal files of one partition, as its core writes them.
pub(super) struct JournalFiles {
    folder: PathBuf,
    identity: Identity,
    durability: Durability,
    segment_octets: u64,
    ring: Ring,
    files: Vec<Option<Rc<DmaFile>>>,
}

impl JournalFiles {
    /// Files that [`prepare`] has made ready; they are opened when first used.
    pub(super) fn new(journal: JournalFolder) -> Self {
        let JournalFolder { folder, identity, durability, segment_octets, ring } = journal;
        Self { folder, identity, durability, segment_octets, ring, files: Vec::new() }
    }

    /// Makes a batch durable: where it is, or why it is not. A batch is never tried twice: after a failed
    /// write nobody knows what the disk holds.
    ///
    /// # Errors
    /// A file could not be made or written.
    pub(super) async fn write(&mut self, position: Position, batch: &mut Batch) -> io::Result<SegmentNumber> {
        let octets = batch.aligned_octets();
        let placement = self.ring.place(octets);
        let file = self.file(placement).await?;
        let sealed = batch.seal(self.identity, placement.segment, position);
        let mut buffer = file.alloc_dma_buffer(octets);
        buffer.as_bytes_mut()[..octets].copy_from_slice(sealed);
        let fate = fault::write(&self.folder, octets);
        buffer.trim_to_size(fate.octets);
        let written = file.write_at(buffer, placement.offset).await?;
        fate.outcome?;
        if written < octets {
            return Err(io::Error::other(format!("only {written} of {octets} octets were written")));
        }
        Ok(placement.segment)
    }

    /// Segments below `keep` may be written over.
    pub(super) fn release_below(&mut self, keep: SegmentNumber) {
        self.ring.release_below(keep);
    }

    /// Segments that hold something needed.
    pub(super) fn segments_in_use(&self) -> usize {
        self.ring.segments_in_use()
    }

    async fn file(&mut self, placement: Placement) -> io::Result<Rc<DmaFile>> {
        let place = placement.file as usize;
        if self.files.len() <= place {
            self.files.resize(place + 1, None);
        }
        if let Some(file) = &self.files[place] {
            return Ok(Rc::clone(file));
        }
        let path = segment_path(&self.folder, placement.file);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(placement.is_new_file);
        if self.durability == Durability::Fsync && !fault::is_unsynced(Layer::Journal) {
            options.custom_flags(libc::O_DSYNC);
        }
        let file = Rc::new(options.dma_open(&path).await?);
        if placement.is_new_file {
            for offset in (0..self.segment_octets).step_by(FILL_OCTETS) {
                let mut zeros = file.alloc_dma_buffer(FILL_OCTETS);
                zeros.as_bytes_mut().fill(0);
                file.write_at(zeros, offset).await?;
            }
            glommio::io::Directory::open(&self.folder).await?.sync().await?;
        }
        self.files[place] = Some(Rc::clone(&file));
        Ok(file)
    }
}

/// The file of a segment.
pub(super) fn segment_path(folder: &Path, file: u32) -> PathBuf {
    folder.join(format!("segment-{file:03}.log"))
}

/// Before the executors start: makes sure that `count` whole segment files are there, written, not merely
/// promised, so that a full disk is met now and not by a message.
///
/// # Errors
/// There is no room, or the folder cannot be written.
pub(super) fn prepare(folder: &Path, files: u32, count: u32, segment_octets: u64) -> io::Result<u32> {
    use std::io::Write;
    for file in files..count {
        let path = segment_path(folder, file);
        let filled = (|| {
            let mut segment = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            let zeros = vec![0; FILL_OCTETS];
            for _ in 0..segment_octets / FILL_OCTETS as u64 {
                segment.write_all(&zeros)?;
            }
            segment.sync_all()
        })();
        if let Err(error) = filled {
            // Half a segment is worse than none: it would be taken for a whole one next time.
            _ = std::fs::remove_file(&path);
            return Err(error);
        }
    }
    std::fs::File::open(folder)?.sync_all()?;
    Ok(files.max(count))
}
