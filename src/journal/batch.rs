//! A batch: the records of one commit behind a header that proves them whole.

use std::any::Any;
use std::fmt;

use crate::journal::{Placement, Position, Record, SegmentNumber};
use crate::message::PartitionNumber;

/// Batches begin and end at multiples of this, as O_DIRECT asks.
pub const BATCH_ALIGN: usize = 4096;
/// As long as a batch should become; it keeps one write, and one pause for it, short. Every record fits.
pub const BATCH_OCTETS_MAX: usize = 1 << 20;

const BATCH_MAGIC: [u8; 4] = *b"SMPJ";
/// Version of the records and of this header.
const FORMAT: u16 = 4;
const HEADER_OCTETS: usize = 52;

/// What every batch of a partition carries, so that no other octets pass for one of its batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The partition.
    pub partition: PartitionNumber,
    /// Random, made with the partition: a peer cannot put something that looks like a batch into a message.
    pub salt: u64,
}

/// The memory that a batch is gathered in and written from. Whoever writes it makes it, aligned as the disk wants it,
/// and finds it again in [`Batch::into_buffer`].
pub trait BatchBuffer: Any {
    /// The octets; as many as the longest batch.
    fn octets(&self) -> &[u8];

    /// The octets, to be filled.
    fn octets_mut(&mut self) -> &mut [u8];
}

impl BatchBuffer for Vec<u8> {
    fn octets(&self) -> &[u8] {
        self
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Records on their way to a segment.
pub struct Batch {
    /// Where it goes, once it is closed.
    placement: Placement,
    position: Position,
    buffer: Box<dyn BatchBuffer>,
    /// Octets of the buffer, which is asked once: each record wants to know.
    room: usize,
    /// Octets used: header and records; once sealed, zeros up to the next multiple of [`BATCH_ALIGN`] too.
    length: usize,
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
    /// An empty batch; what the buffer holds does not matter.
    pub(super) fn new(placement: Placement, position: Position, buffer: Box<dyn BatchBuffer>) -> Self {
        let room = buffer.octets().len();
        Self { placement, position, buffer, room, length: HEADER_OCTETS, payload_octets: 0 }
    }

    /// Octets of records that a batch of so many octets holds.
    pub(super) const fn payload_octets_max(octets: usize) -> usize {
        octets - HEADER_OCTETS
    }

    /// Whether a record of so many octets can be added.
    pub(super) fn fits(&self, octets: usize) -> bool {
        self.length + octets <= self.room
    }

    /// Adds a record, which takes so many octets and fits.
    pub(super) fn append(&mut self, record: &Record<'_>, octets: usize) {
        assert!(self.fits(octets), "a record is shorter than a batch");
        let end = self.length + octets;
        let mut room = &mut self.buffer.octets_mut()[self.length..end];
        record.put(&mut room);
        debug_assert!(room.is_empty(), "a record is as long as it says");
        self.length = end;
        self.payload_octets += octets;
    }

    /// Writes the header, and zeros behind the records: what [`octets`](Self::octets) then gives is what goes to disk.
    pub(super) fn seal(&mut self, identity: Identity) {
        let octets = self.buffer.octets_mut();
        let payload = &octets[HEADER_OCTETS..HEADER_OCTETS + self.payload_octets];
        let checksum = crc32c::crc32c(payload);
        let mut header = [0; HEADER_OCTETS];
        header[..4].copy_from_slice(&BATCH_MAGIC);
        header[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        header[6..8].copy_from_slice(&u16::from(identity.partition.0).to_le_bytes());
        header[8..16].copy_from_slice(&identity.salt.to_le_bytes());
        header[16..24].copy_from_slice(&self.placement.segment.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.position.0.to_le_bytes());
        header[32..40].copy_from_slice(&(self.payload_octets as u64).to_le_bytes());
        header[40..44].copy_from_slice(&checksum.to_le_bytes());
        let own = crc32c::crc32c(&header[..HEADER_OCTETS - 4]);
        header[HEADER_OCTETS - 4..].copy_from_slice(&own.to_le_bytes());
        octets[..HEADER_OCTETS].copy_from_slice(&header);
        let end = aligned(self.payload_octets);
        octets[HEADER_OCTETS + self.payload_octets..end].fill(0);
        self.length = end;
    }

    /// Octets of records.
    pub const fn payload_octets(&self) -> usize {
        self.payload_octets
    }

    /// What it takes in a segment.
    pub const fn aligned_octets(&self) -> usize {
        aligned(self.payload_octets)
    }

    /// Its number.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Where it goes.
    pub const fn placement(&self) -> Placement {
        self.placement
    }

    pub(super) const fn placement_mut(&mut self) -> &mut Placement {
        &mut self.placement
    }

    /// What goes to disk.
    pub fn octets(&self) -> &[u8] {
        &self.buffer.octets()[..self.length]
    }

    /// The buffer, to be written from; what goes to disk is its first [`aligned_octets`](Self::aligned_octets).
    pub fn into_buffer(self) -> Box<dyn BatchBuffer> {
        self.buffer
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { placement, position, payload_octets, .. } = self;
        write!(f, "Batch({position:?}, {payload_octets} octets, {placement:?})")
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
        let ours = header[..4] == BATCH_MAGIC
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
