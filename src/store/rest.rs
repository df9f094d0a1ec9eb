//! Unfinished things in packed blocks: messages that grew older than the journal, receipts and replies that nobody took.
//!
//! A block is written once. What of it has ended, or was put to rest again in a newer form, is *gone*: a short list beside
//! the block says so, and when everything in it is gone the block is removed.

use crate::journal::{Position, Record, RecordError};
use crate::message::{MessageId, ParcelKey};

/// The name of something unfinished.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RestKey {
    /// A message that is not over.
    Message(MessageId),
    /// A receipt or reply that is not settled.
    Parcel(ParcelKey),
}

/// The number of a block of unfinished things; ascends for the life of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RestNumber(pub u32);

/// Where something lies at rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RestPlace {
    /// The block.
    pub block: RestNumber,
    /// Which thing of the block.
    pub slot: u16,
}

/// What a checkpoint changes about blocks of unfinished things.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RestChanges {
    /// Everything in them has gone.
    pub removed: Vec<RestNumber>,
    /// All that has gone of each.
    pub gone: Vec<(RestNumber, Vec<u16>)>,
}

const FORMAT: u8 = 1;
/// A block is closed when it has grown to this; only a very long message makes a longer one.
const BLOCK_OCTETS: usize = 32 << 10;

/// A block being filled.
#[derive(Clone, Debug)]
pub struct RestBuilder {
    octets: Vec<u8>,
    members: Vec<RestKey>,
}

impl Default for RestBuilder {
    fn default() -> Self {
        Self { octets: vec![FORMAT], members: Vec::new() }
    }
}

impl RestBuilder {
    /// Adds something, as the journal up to `as_of` has it.
    pub fn push(&mut self, as_of: Position, key: RestKey, record: &Record<'_>) {
        self.octets.extend_from_slice(&as_of.0.to_le_bytes());
        record.put(&mut self.octets);
        self.members.push(key);
    }

    /// The slot of the next thing.
    pub const fn next_slot(&self) -> u16 {
        self.members.len() as u16
    }

    /// Whether it should be closed.
    pub const fn is_full(&self) -> bool {
        self.octets.len() >= BLOCK_OCTETS
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The octets of the block, and what is in it, by slot.
    pub fn finish(self) -> (Vec<u8>, Vec<RestKey>) {
        (self.octets, self.members)
    }
}

/// Reads a block: each thing with the batch up to which it holds the journal, slot by slot.
pub fn rest_entries(octets: &[u8]) -> impl Iterator<Item = Result<(Position, Record<'_>), RecordError>> {
    let (format, mut rest) = octets.split_first().map_or((0, octets), |(format, rest)| (*format, rest));
    let mut is_whole = true;
    std::iter::from_fn(move || {
        if !is_whole || (rest.is_empty() && format == FORMAT) {
            return None;
        }
        let entry = (|| {
            let (as_of, tail) = rest.split_first_chunk().filter(|_| format == FORMAT).ok_or(RecordError)?;
            rest = tail;
            let record = Record::take(&mut rest)?.ok_or(RecordError)?;
            Ok((Position(u64::from_le_bytes(*as_of)), record))
        })();
        is_whole = entry.is_ok();
        Some(entry)
    })
}

/// The octets of a list of what has gone.
pub fn gone_to_octets(gone: &[u16]) -> Vec<u8> {
    gone.iter().flat_map(|slot| slot.to_le_bytes()).collect()
}

/// Reads [`gone_to_octets`]; `None` when it is no list.
pub fn gone_from_octets(octets: &[u8]) -> Option<Vec<u16>> {
    let slots = octets.chunks_exact(2);
    slots.remainder().is_empty().then(|| slots.map(|slot| u16::from_le_bytes([slot[0], slot[1]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_back_and_its_cuts_are_noticed() {
        let mut builder = RestBuilder::default();
        let parcel = [7; 40];
        let record = Record::DeliveryAtRest(&parcel);
        let mut slots = 0;
        while !builder.is_full() {
            assert_eq!(builder.next_slot(), slots);
            let key = ParcelKey { id: MessageId::from_u64(slots.into()), part: 1 };
            builder.push(Position(u64::from(slots) + 5), RestKey::Parcel(key), &record);
            slots += 1;
        }
        let (octets, members) = builder.finish();
        assert_eq!(members.len(), usize::from(slots));
        let read: Result<Vec<_>, _> = rest_entries(&octets).collect();
        let read = read.expect("whole");
        assert_eq!(read.len(), members.len());
        assert_eq!(read[3], (Position(8), record));
        for cut in [0, 1, 2, 9, 30, octets.len() - 1] {
            let whole = rest_entries(&octets[..cut]).collect::<Result<Vec<_>, _>>();
            // Nothing but the format is an empty block.
            assert_eq!(whole.is_ok(), cut == 1, "{cut}");
        }
        assert!(rest_entries(&[&[9][..], &octets[1..]].concat()).next().is_some_and(|entry| entry.is_err()));
    }

    #[test]
    fn a_list_of_what_has_gone_reads_back() {
        let gone = vec![0, 1, 700, u16::MAX];
        assert_eq!(gone_from_octets(&gone_to_octets(&gone)), Some(gone));
        assert_eq!(gone_from_octets(&[1, 2, 3]), None);
    }
}
