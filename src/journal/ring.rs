//! Which file a batch goes to: segments follow one another, files are used again.

use std::collections::VecDeque;

/// The number of a segment; ascends by one for the life of a partition, while files come round again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct SegmentNumber(pub u64);

/// Where a batch goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The segment.
    pub segment: SegmentNumber,
    /// The file that holds it.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// The file does not exist yet and must be made.
    pub is_new_file: bool,
    /// The batch begins its segment.
    pub begins_segment: bool,
}

/// The segments in use and the files free for the next ones.
#[derive(Debug)]
pub struct Ring {
    segment_octets: u64,
    in_use: VecDeque<(SegmentNumber, u32)>,
    free: VecDeque<u32>,
    files: u32,
    next: SegmentNumber,
    offset: u64,
}

impl Ring {
    /// A ring that goes on behind `in_use` (oldest first) with a fresh segment; all files below `files` exist.
    pub fn resume(
        segment_octets: u64,
        in_use: &[(SegmentNumber, u32)],
        last: SegmentNumber,
        files: u32,
    ) -> Self {
        let free = (0..files).filter(|file| in_use.iter().all(|(_, used)| used != file)).collect();
        Self {
            segment_octets,
            in_use: in_use.iter().copied().collect(),
            free,
            files,
            next: SegmentNumber(last.0 + 1),
            offset: segment_octets,
        }
    }

    /// The place of the next batch; `octets` is at most a segment.
    pub fn place(&mut self, octets: usize) -> Placement {
        let octets = octets as u64;
        assert!(octets <= self.segment_octets, "a batch fits a segment");
        let begins_segment = self.offset + octets > self.segment_octets;
        let mut is_new_file = false;
        if begins_segment {
            let file = self.free.pop_front().unwrap_or_else(|| {
                is_new_file = true;
                self.files += 1;
                self.files - 1
            });
            self.in_use.push_back((self.next, file));
            self.next = SegmentNumber(self.next.0 + 1);
            self.offset = 0;
        }
        let Some((segment, file)) = self.in_use.back().copied() else {
            unreachable!("the offset of a new ring is at the end of a segment");
        };
        let offset = self.offset;
        self.offset += octets;
        Placement { segment, file, offset, is_new_file, begins_segment }
    }

    /// Nothing below `keep` is needed any more: those files are free.
    pub fn release_below(&mut self, keep: SegmentNumber) {
        while let Some((segment, file)) = self.in_use.front().copied() {
            if segment >= keep || self.in_use.len() == 1 {
                return;
            }
            self.in_use.pop_front();
            self.free.push_back(file);
        }
    }

    /// Segments that hold something needed.
    pub fn segments_in_use(&self) -> usize {
        self.in_use.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_round_again_after_their_release() {
        let mut ring = Ring::resume(8192, &[], SegmentNumber(0), 0);
        let places: Vec<_> = (0..5).map(|_| ring.place(4096)).collect();
        let seen: Vec<_> = places.iter().map(|p| (p.segment.0, p.file, p.offset, p.is_new_file)).collect();
        assert_eq!(
            seen,
            [(1, 0, 0, true), (1, 0, 4096, false), (2, 1, 0, true), (2, 1, 4096, false), (3, 2, 0, true)]
        );
        ring.release_below(SegmentNumber(3));
        assert_eq!((ring.segments_in_use(), ring.free.len()), (1, 2));
        let place = ring.place(8192);
        assert_eq!((place.segment.0, place.file, place.is_new_file), (4, 0, false));
    }

    #[test]
    fn a_restart_begins_a_fresh_segment_in_a_free_file() {
        let mut ring = Ring::resume(8192, &[(SegmentNumber(6), 1)], SegmentNumber(6), 3);
        let place = ring.place(4096);
        assert_eq!((place.segment.0, place.file, place.is_new_file), (7, 0, false));
    }

    #[test]
    fn the_segment_being_written_is_never_released() {
        let mut ring = Ring::resume(8192, &[], SegmentNumber(0), 0);
        ring.place(4096);
        ring.release_below(SegmentNumber(9));
        assert_eq!(ring.segments_in_use(), 1);
    }
}
