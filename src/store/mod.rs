//! The state at rest: the form of what outlives memory and the journal. sled itself is opened in `server`.
//!
//! Three things are kept for a partition: final messages and unfinished things in packed blocks, and the checkpoint that
//! says from which segment on the journal is still needed.

mod checkpoint;
mod finals;
mod rest;

use bytes::Bytes;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use finals::{Block, BlockError, BlockKey, FinalMessage, cut, find};
pub use rest::{
    RestBuilder, RestChanges, RestKey, RestNumber, RestPlace, gone_from_octets, gone_to_octets, rest_entries,
};

use crate::journal::SegmentNumber;

/// What the thread beside a partition is asked to do, in this order and no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreOp {
    /// Keep a generation of final messages, [`cut`] into blocks.
    PutFinals(u64, Bytes),
    /// Keep a block of unfinished things.
    PutRest(RestNumber, Vec<u8>),
    /// Tell what is in a block of unfinished things.
    GetRest(RestNumber),
    /// Make all of the above durable; then, as one, keep this checkpoint and change what it changes; then tell that
    /// segments below its own are free.
    Checkpoint(Checkpoint, RestChanges),
    /// Make a file for a segment of the journal, filled with zeros.
    MakeFile(u32),
}

/// What that thread answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreDone {
    /// The messages of the generation can be looked up.
    Finals(u64),
    /// The block can be read.
    Rest(RestNumber),
    /// This is in the block.
    GotRest(RestNumber, Bytes),
    /// The checkpoint is durable; segments below this one are not needed.
    Checkpoint(SegmentNumber),
    /// The file is there.
    File(u32),
    /// There is no room for the file; it may be asked for again.
    NoRoom(u32),
}
