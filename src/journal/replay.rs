//! Reading segments back: where the journal ends, and what is damage.

use crate::journal::batch::{BATCH_ALIGN, BatchError, BatchHeader, Identity};
use crate::journal::{Position, SegmentNumber};

/// The batches of one segment, in order, up to its end.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Payloads (records behind one another) with their numbers.
    pub batches: Vec<(Position, &'a [u8])>,
    /// How it ended.
    pub end: ReplayEnd,
}

/// What stands behind the last whole batch of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayEnd {
    /// Nothing of this segment: it was full, or writing stopped here.
    Clean,
    /// A batch that was being written when the power went; it was never answered for.
    Torn,
}

/// Damage that must not be passed over: it lies before something that was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFault {
    /// Where in the segment the damaged batch begins.
    pub offset: usize,
    /// The batch that should be there.
    pub position: Position,
    /// A later batch that is whole.
    pub followed_by: Position,
}

/// Reads the batches of `segment`, the first of which must be `expected`.
///
/// One batch is in flight at a time, so a batch that is whole proves all batches before it were durable: a
/// hole in front of it is damage, not a torn write.
///
/// # Errors
/// A batch is missing or damaged though a later one is whole.
pub fn replay_segment(
    identity: Identity,
    segment: SegmentNumber,
    mut expected: Position,
    octets: &[u8],
) -> Result<Replay<'_>, SegmentFault> {
    let mut batches = Vec::new();
    let mut offset = 0;
    loop {
        let rest = octets.get(offset..).unwrap_or_default();
        match BatchHeader::read_batch(identity, rest) {
            Ok((header, payload)) if header.segment == segment && header.position == expected => {
                batches.push((expected, payload));
                expected = expected.next();
                offset += header.aligned_octets();
            }
            outcome => {
                if let Some(followed_by) = later_batch(identity, segment, expected, rest) {
                    return Err(SegmentFault { offset, position: expected, followed_by });
                }
                let torn = matches!(outcome, Err(BatchError::Checksum(header)) if header.segment == segment);
                return Ok(Replay { batches, end: if torn { ReplayEnd::Torn } else { ReplayEnd::Clean } });
            }
        }
    }
}

/// Where the first whole batch of `oldest` or a younger segment begins, in a file whose own first batch cannot
/// be read: what looks like a free file may be a damaged one.
pub fn find_batch(identity: Identity, oldest: SegmentNumber, octets: &[u8]) -> Option<(usize, BatchHeader)> {
    (0..octets.len()).step_by(BATCH_ALIGN).find_map(|offset| {
        let (header, _) = BatchHeader::read_batch(identity, &octets[offset..]).ok()?;
        (header.segment >= oldest).then_some((offset, header))
    })
}

/// A whole batch of the same segment behind the place where `expected` should be.
fn later_batch(
    identity: Identity,
    segment: SegmentNumber,
    expected: Position,
    octets: &[u8],
) -> Option<Position> {
    octets.chunks(BATCH_ALIGN).enumerate().find_map(|(block, _)| {
        let (header, _) = BatchHeader::read_batch(identity, &octets[block * BATCH_ALIGN..]).ok()?;
        (header.segment == segment && header.position >= expected).then_some(header.position)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{BATCH_OCTETS_MAX, Batch, Placement, Record};
    use crate::message::{MessageId, PartitionNumber};

    const IDENTITY: Identity = Identity { partition: PartitionNumber(3), salt: 0xABCD };
    const SEGMENT: SegmentNumber = SegmentNumber(5);

    fn sealed(segment: SegmentNumber, position: u64, records: u64) -> Vec<u8> {
        let placement = Placement { segment, file: 0, offset: 0 };
        let mut batch = Batch::new(placement, Position(position), Box::new(vec![0xEE; BATCH_OCTETS_MAX]));
        for number in 0..records {
            let record = Record::Settled { id: MessageId::from_u64(number), part: 0 };
            batch.append(&record, record.octets());
        }
        batch.seal(IDENTITY);
        batch.octets().to_vec()
    }

    /// Batches 10, 11, 12 and zeros, with an old batch somewhere behind them.
    fn segment() -> Vec<u8> {
        let mut octets = [sealed(SEGMENT, 10, 2), sealed(SEGMENT, 11, 900), sealed(SEGMENT, 12, 1)].concat();
        octets.resize(octets.len() + 3 * BATCH_ALIGN, 0);
        octets.extend(sealed(SegmentNumber(2), 4, 7));
        octets.resize(1 << 17, 0);
        octets
    }

    fn read(octets: &[u8]) -> Result<(usize, ReplayEnd), SegmentFault> {
        replay_segment(IDENTITY, SEGMENT, Position(10), octets)
            .map(|replay| (replay.batches.len(), replay.end))
    }

    #[test]
    fn whole_batches_come_back_and_older_ones_do_not() {
        assert_eq!(read(&segment()), Ok((3, ReplayEnd::Clean)));
    }

    #[test]
    fn every_cut_of_the_last_batch_is_a_torn_tail() {
        let whole = segment();
        let last = sealed(SEGMENT, 10, 2).len() + sealed(SEGMENT, 11, 900).len();
        for octet in [last, last + 4, last + 30, last + 51, last + 52, last + 60] {
            let mut torn = whole.clone();
            torn[octet] ^= 0x40;
            let (batches, _) = read(&torn).expect("a tail, not damage");
            assert_eq!(batches, 2, "octet {octet}");
        }
    }

    #[test]
    fn damage_before_a_whole_batch_is_named() {
        for octet in [0, 20, 60, 4096 + 3, 4096 + 5000] {
            let mut damaged = segment();
            damaged[octet] ^= 1;
            let fault = read(&damaged).expect_err("damage");
            assert_eq!(fault.offset, if octet < 4096 { 0 } else { 4096 }, "octet {octet}");
        }
    }

    #[test]
    fn a_batch_is_the_next_one_by_its_segment_and_by_its_position() {
        let octets = segment();
        let early =
            replay_segment(IDENTITY, SEGMENT, Position(9), &octets).expect_err("the ninth is missing");
        assert_eq!((early.offset, early.position, early.followed_by), (0, Position(9), Position(10)));
        let of_another = [sealed(SEGMENT, 10, 2), sealed(SegmentNumber(2), 11, 1)].concat();
        assert_eq!(read(&of_another), Ok((1, ReplayEnd::Clean)));
    }

    #[test]
    fn a_file_whose_first_batch_is_damaged_is_not_taken_for_a_free_one() {
        let mut damaged = segment();
        damaged[7] ^= 1;
        let found = find_batch(IDENTITY, SEGMENT, &damaged).map(|(offset, header)| (offset, header.position));
        assert_eq!(found, Some((4096, Position(11))));
        assert!(find_batch(IDENTITY, SegmentNumber(SEGMENT.0 + 1), &damaged).is_none(), "only old batches");
    }

    #[test]
    fn batches_of_another_partition_are_not_ours() {
        let foreign = Identity { salt: 1, ..IDENTITY };
        let octets = segment();
        let replay = replay_segment(foreign, SEGMENT, Position(10), &octets).expect("empty");
        assert!(replay.batches.is_empty());
    }
}
