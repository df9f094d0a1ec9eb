//! A batch: the records of one commit behind a header that proves them whole.

use crate::journal::{Position, Record, SegmentNumber};
use crate::message::PartitionNumber;

/// Batches begin and end at multiples of this, as O_DIRECT asks.
pub const BATCH_ALIGN: usize = 4096;

const MAGIC: [u8; 4] = *b"SMPJ";
/// Version of the records and of this header.
const FORMAT: u16 = 1;
const HEADER_OCTETS: usize = 52;

/// What every batch of a partition carries, so that no other octets pass for one of its batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The partition.
    pub partition: PartitionNumber,
    /// Random, made with the partition: a peer cannot put something that looks like a batch into a message.
    pub salt: u64,
}

/// Records on their way to a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    octets: Vec<u8>,
    payload_octets: usize,
}

/// The facts in front of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// The segment it was written for; an older number is what a recycled file still holds.
    pub segment: SegmentNumber,
    /// Its number.
    pub position: Position,
    /// Octets of records behind the header.
    pub payload_octets: usize,
}

/// Why octets are not a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// No header of this partition begins here.
    NoHeader,
    /// The header is whole, the records are not.
    Checksum(BatchHeader),
    /// The header names a format that this version does not know.
    Format(u16),
}

/// What a batch with so many octets of records takes in a segment.
const fn aligned(payload_octets: usize) -> usize {
    (HEADER_OCTETS + payload_octets).next_multiple_of(BATCH_ALIGN)
}

impl Batch {
    /// An empty batch in a used buffer.
    pub fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_OCTETS, 0);
        Self { octets: buffer, payload_octets: 0 }
    }

    /// Adds a record and tells how many octets it took.
    pub fn append(&mut self, record: &Record<'_>) -> usize {
        let before = self.octets.len();
        record.put(&mut self.octets);
        let grown = self.octets.len() - before;
        self.payload_octets += grown;
        grown
    }

    /// Octets of records.
    pub const fn payload_octets(&self) -> usize {
        self.payload_octets
    }

    /// Whether it has no record.
    pub const fn is_empty(&self) -> bool {
        self.payload_octets == 0
    }

    /// What it will take in a segment.
    pub const fn aligned_octets(&self) -> usize {
        aligned(self.payload_octets)
    }

    /// Writes the header and pads to [`aligned_octets`](Self::aligned_octets): what goes to disk.
    pub fn seal(&mut self, identity: Identity, segment: SegmentNumber, position: Position) -> &[u8] {
        self.octets.truncate(HEADER_OCTETS + self.payload_octets);
        let checksum = crc32c::crc32c(&self.octets[HEADER_OCTETS..]);
        let mut header = Vec::with_capacity(HEADER_OCTETS);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&u16::from(identity.partition.0).to_le_bytes());
        header.extend_from_slice(&identity.salt.to_le_bytes());
        header.extend_from_slice(&segment.0.to_le_bytes());
        header.extend_from_slice(&position.0.to_le_bytes());
        header.extend_from_slice(&(self.payload_octets as u64).to_le_bytes());
        header.extend_from_slice(&checksum.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let own = crc32c::crc32c(&header);
        header.extend_from_slice(&own.to_le_bytes());
        self.octets[..HEADER_OCTETS].copy_from_slice(&header);
        self.octets.resize(self.aligned_octets(), 0);
        &self.octets
    }

    /// The buffer, for another batch.
    pub fn into_buffer(self) -> Vec<u8> {
        self.octets
    }
}

impl BatchHeader {
    /// Reads a header without looking at the records behind it.
    ///
    /// # Errors
    /// See [`BatchError`]; never [`BatchError::Checksum`].
    pub fn read(identity: Identity, octets: &[u8]) -> Result<Self, BatchError> {
        let header: &[u8; HEADER_OCTETS] = octets.first_chunk().ok_or(BatchError::NoHeader)?;
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|octet| header[at + octet]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|octet| header[at + octet]));
        let format = u16::from_le_bytes([header[4], header[5]]);
        let own = u32_at(HEADER_OCTETS - 4) == crc32c::crc32c(&header[..HEADER_OCTETS - 4]);
        let ours = header[..4] == MAGIC
            && u16::from_le_bytes([header[6], header[7]]) == u16::from(identity.partition.0)
            && u64_at(8) == identity.salt;
        if !own || !ours {
            return Err(BatchError::NoHeader);
        }
        if format != FORMAT {
            return Err(BatchError::Format(format));
        }
        let payload_octets = usize::try_from(u64_at(32)).map_err(|_| BatchError::NoHeader)?;
        Ok(Self { segment: SegmentNumber(u64_at(16)), position: Position(u64_at(24)), payload_octets })
    }

    /// Reads a header and checks the records behind it.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn read_batch(identity: Identity, octets: &[u8]) -> Result<(Self, &[u8]), BatchError> {
        let header = Self::read(identity, octets)?;
        let checksum = u32::from_le_bytes(std::array::from_fn(|octet| octets[40 + octet]));
        match octets.get(HEADER_OCTETS..HEADER_OCTETS.saturating_add(header.payload_octets)) {
            Some(payload) if crc32c::crc32c(payload) == checksum => Ok((header, payload)),
            Some(_) | None => Err(BatchError::Checksum(header)),
        }
    }

    /// Where the next batch begins, counted from this one.
    pub const fn aligned_octets(&self) -> usize {
        aligned(self.payload_octets)
    }
}
