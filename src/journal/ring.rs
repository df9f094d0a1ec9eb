//! Which file a batch goes to: segments follow one another, files are used again.

use std::collections::VecDeque;

/// The number of a segment; ascends by one for the life of a partition, while files come round again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The segment behind this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Where a batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The segment.
    pub segment: SegmentNumber,
    /// The file that holds it.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
}

/// The segments in use and the files free for the next ones.
///
/// A segment has a number from the moment its first record comes, and a file when its first batch is to be written:
/// files are made, filled with zeros, by a thread that may be behind.
#[derive(Clone, Debug)]
pub struct Ring {
    segment_octets: u64,
    batch_octets_max: usize,
    /// Oldest first.
    in_use: VecDeque<(SegmentNumber, Option<u32>)>,
    free: VecDeque<u32>,
    /// Files that exist or are being made, and those below that could not be made.
    files: u32,
    missed: Vec<u32>,
    next: SegmentNumber,
    /// Where the next batch goes in the newest segment.
    offset: u64,
}

impl Ring {
    /// A ring that goes on behind `in_use` (oldest first) with a fresh segment; all files below `files` exist. No batch
    /// is longer than `batch_octets_max`, padding included.
    pub fn resume(
        segment_octets: u64,
        batch_octets_max: usize,
        in_use: &[(SegmentNumber, u32)],
        last: SegmentNumber,
        files: u32,
    ) -> Self {
        assert!(segment_octets >= batch_octets_max as u64, "a batch fits a segment");
        let free = (0..files).filter(|file| in_use.iter().all(|(_, used)| used != file)).collect();
        Self {
            segment_octets,
            batch_octets_max,
            in_use: in_use.iter().map(|(segment, file)| (*segment, Some(*file))).collect(),
            free,
            files,
            missed: Vec::new(),
            next: last.next(),
            offset: segment_octets,
        }
    }

    /// The segment of a batch that begins now, however long it will become.
    pub(super) fn begin(&mut self) -> (SegmentNumber, u64) {
        if self.segment_behind(0) == self.next {
            self.in_use.push_back((self.next, None));
            self.next = self.next.next();
            self.offset = 0;
        }
        (self.current(), self.offset)
    }

    /// The segment of the next batch to begin, when the newest has grown by so many octets.
    pub(super) fn segment_behind(&self, octets: usize) -> SegmentNumber {
        let is_full = self.offset + (octets + self.batch_octets_max) as u64 > self.segment_octets;
        if is_full { self.next } else { self.current() }
    }

    /// The batch that began last has so many octets.
    pub(super) const fn end(&mut self, octets: usize) {
        self.offset += octets as u64;
    }

    /// See [`Batch`](crate::journal::Batch).
    pub(super) const fn batch_octets_max(&self) -> usize {
        self.batch_octets_max
    }

    /// The segment that records go to.
    pub(super) fn current(&self) -> SegmentNumber {
        self.in_use.back().map_or(self.next, |(segment, _)| *segment)
    }

    /// The file of a segment in use; `None` while there is none.
    pub(super) fn file_of(&mut self, segment: SegmentNumber) -> Option<u32> {
        let free = &mut self.free;
        let (_, file) = self.in_use.iter_mut().rfind(|(number, _)| *number == segment)?;
        if file.is_none() {
            *file = free.pop_front();
        }
        *file
    }

    /// The file to be made next, so that there is always a free one; `None` when there is, or it is on its way.
    pub(super) fn file_wanted(&mut self) -> Option<u32> {
        let used = self.in_use.iter().filter(|(_, file)| file.is_some()).count();
        let waiting = self.in_use.len() - used;
        let on_their_way = self.files as usize - used - self.free.len() - self.missed.len();
        // One at a time: were a later one made where this one found no room, the next start would miss it.
        if on_their_way > 0 || self.free.len() > waiting {
            return None;
        }
        Some(self.missed.pop().unwrap_or_else(|| {
            self.files += 1;
            self.files - 1
        }))
    }

    /// A file that was wanted is there.
    pub(super) fn add_file(&mut self, file: u32) {
        self.free.push_back(file);
    }

    /// A file that was wanted cannot be made now: it is wanted again.
    pub(super) fn miss_file(&mut self, file: u32) {
        self.missed.push(file);
    }

    /// Nothing below `keep` is needed any more: those files are free.
    pub(super) fn release_below(&mut self, keep: SegmentNumber) {
        while let Some((segment, file)) = self.in_use.front().copied() {
            if segment >= keep || self.in_use.len() == 1 {
                return;
            }
            self.in_use.pop_front();
            self.free.extend(file);
        }
    }

    /// Segments that hold something needed.
    pub(super) fn segments_in_use(&self) -> usize {
        self.in_use.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: u64 = 1 << 16;
    const BATCH_OCTETS_MAX: usize = 1 << 16;

    fn place(ring: &mut Ring, octets: usize) -> (u64, Option<u32>, u64) {
        let (segment, offset) = ring.begin();
        ring.end(octets);
        (segment.0, ring.file_of(segment), offset)
    }

    #[test]
    fn files_come_round_again_after_their_release() {
        let mut ring = Ring::resume(2 * BATCH, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 3);
        assert_eq!(place(&mut ring, 4096), (1, Some(0), 0));
        assert_eq!(place(&mut ring, BATCH_OCTETS_MAX), (1, Some(0), 4096));
        assert_eq!(place(&mut ring, 4096), (2, Some(1), 0), "the next might not fit");
        assert_eq!(place(&mut ring, BATCH_OCTETS_MAX), (2, Some(1), 4096));
        ring.release_below(SegmentNumber(2));
        assert_eq!(ring.segments_in_use(), 1);
        assert_eq!(place(&mut ring, 4096), (3, Some(2), 0));
        ring.end(BATCH_OCTETS_MAX);
        assert_eq!(place(&mut ring, 4096), (4, Some(0), 0));
    }

    #[test]
    fn a_restart_begins_a_fresh_segment_in_a_free_file() {
        let mut ring = Ring::resume(BATCH, BATCH_OCTETS_MAX, &[(SegmentNumber(6), 1)], SegmentNumber(6), 3);
        assert_eq!(place(&mut ring, 4096), (7, Some(0), 0));
    }

    #[test]
    fn the_segment_being_written_is_never_released() {
        let mut ring = Ring::resume(BATCH, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 1);
        place(&mut ring, 4096);
        ring.release_below(SegmentNumber(9));
        assert_eq!(ring.segments_in_use(), 1);
    }

    #[test]
    fn a_segment_waits_for_its_file_and_one_more_is_always_wanted() {
        let mut ring = Ring::resume(BATCH, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 0);
        assert_eq!(ring.file_wanted(), Some(0), "one ahead");
        assert_eq!(ring.file_wanted(), None, "it is on its way");
        assert_eq!(place(&mut ring, BATCH_OCTETS_MAX), (1, None, 0));
        assert_eq!(place(&mut ring, BATCH_OCTETS_MAX), (2, None, 0));
        assert_eq!(ring.file_wanted(), None, "the first is still on its way");
        ring.add_file(0);
        assert_eq!((ring.file_wanted(), ring.file_wanted()), (Some(1), None));
        ring.miss_file(1);
        assert_eq!(
            (ring.file_wanted(), ring.file_wanted()),
            (Some(1), None),
            "again, and none behind it before"
        );
        ring.add_file(1);
        assert_eq!(ring.file_of(SegmentNumber(1)), Some(0));
        assert_eq!(ring.file_of(SegmentNumber(1)), Some(0), "it stays");
        assert_eq!(ring.file_of(SegmentNumber(2)), Some(1));
        assert_eq!((ring.file_wanted(), ring.file_wanted()), (Some(2), None));
        ring.add_file(2);
        assert_eq!(ring.file_wanted(), None, "one is free");
    }
}
