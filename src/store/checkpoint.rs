//! The checkpoint: where replay begins, and what the journal before that had added up to.

use crate::journal::{Position, SegmentNumber};
use crate::message::MessageId;
use crate::store::RestNumber;

/// Where replay begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// The oldest segment that is needed.
    pub segment: SegmentNumber,
    /// The first batch of that segment.
    pub first: Position,
    /// Everything at rest, and the sums below, hold the journal up to this batch.
    pub as_of: Position,
    /// The highest ids given out, long and short.
    pub floors: [MessageId; 2],
    /// The next generation of final messages.
    pub next_generation: u64,
    /// The next block of unfinished things: whatever has a higher number belongs to a checkpoint that was never made,
    /// and the journal still holds all of it.
    pub next_rest: RestNumber,
    /// How many blocks of unfinished things are below that, and things in them that have not gone: whoever finds
    /// another number has found damage.
    pub at_rest: (u64, u64),
    /// Credits each account has used in this partition.
    pub credits_used: Vec<(Box<[u8]>, u64)>,
}

/// Octets that are not a checkpoint of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointError;

const FORMAT: u8 = 2;

impl Checkpoint {
    /// The checkpoint of a partition that has never made one.
    pub fn initial() -> Self {
        Self {
            segment: SegmentNumber(1),
            first: Position(1),
            as_of: Position(0),
            floors: [MessageId::from_u64(0); 2],
            next_generation: 0,
            next_rest: RestNumber(0),
            at_rest: (0, 0),
            credits_used: Vec::new(),
        }
    }

    /// The octets to keep.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut octets = vec![FORMAT];
        let numbers = [
            self.segment.0,
            self.first.0,
            self.as_of.0,
            self.floors[0].as_u64(),
            self.floors[1].as_u64(),
            self.next_generation,
            self.next_rest.0.into(),
            self.at_rest.0,
            self.at_rest.1,
        ];
        for number in numbers {
            octets.extend_from_slice(&number.to_le_bytes());
        }
        for (system_id, used) in &self.credits_used {
            octets.push(system_id.len() as u8);
            octets.extend_from_slice(system_id);
            octets.extend_from_slice(&used.to_le_bytes());
        }
        octets
    }

    /// Reads [`to_octets`](Self::to_octets).
    ///
    /// # Errors
    /// Not a checkpoint of this version.
    pub fn read(octets: &[u8]) -> Result<Self, CheckpointError> {
        let (format, mut rest) = octets.split_first().ok_or(CheckpointError)?;
        if *format != FORMAT {
            return Err(CheckpointError);
        }
        fn number(rest: &mut &[u8]) -> Result<u64, CheckpointError> {
            let (head, tail) = rest.split_first_chunk().ok_or(CheckpointError)?;
            *rest = tail;
            Ok(u64::from_le_bytes(*head))
        }
        let mut checkpoint = Self {
            segment: SegmentNumber(number(&mut rest)?),
            first: Position(number(&mut rest)?),
            as_of: Position(number(&mut rest)?),
            floors: [MessageId::from_u64(number(&mut rest)?), MessageId::from_u64(number(&mut rest)?)],
            next_generation: number(&mut rest)?,
            next_rest: RestNumber(u32::try_from(number(&mut rest)?).map_err(|_| CheckpointError)?),
            at_rest: (number(&mut rest)?, number(&mut rest)?),
            credits_used: Vec::new(),
        };
        while let Some((length, tail)) = rest.split_first() {
            let (system_id, tail) = tail.split_at_checked((*length).into()).ok_or(CheckpointError)?;
            rest = tail;
            checkpoint.credits_used.push((system_id.into(), number(&mut rest)?));
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_whole_or_not_at_all() {
        let checkpoint = Checkpoint {
            segment: SegmentNumber(9),
            first: Position(100),
            as_of: Position(150),
            floors: [MessageId::from_u64(5), MessageId::from_u64(6)],
            next_generation: 7,
            next_rest: RestNumber(8),
            at_rest: (3, 500),
            credits_used: vec![(Box::from(*b"demo"), 12), (Box::from(*b"other"), u64::MAX)],
        };
        let octets = checkpoint.to_octets();
        assert_eq!(Checkpoint::read(&octets), Ok(checkpoint));
        assert_eq!(Checkpoint::read(&octets[..octets.len() - 3]), Err(CheckpointError));
        assert_eq!(Checkpoint::read(&[9]), Err(CheckpointError));
        let initial = Checkpoint::initial();
        assert_eq!(Checkpoint::read(&initial.to_octets()), Ok(initial));
    }
}
