//! The state at rest: the form of what outlives memory and the journal. sled itself is opened in `server`.
//!
//! Three things are kept for a partition: final messages in packed blocks, unfinished things that grew older
//! than the journal, and the checkpoint that says from which segment on the journal is still needed.

mod block;
mod checkpoint;

pub use block::{Block, BlockBuilder, BlockError, BlockKey, FinalMessage};
pub use checkpoint::{Checkpoint, CheckpointError, RestKey};

use crate::journal::{Position, SegmentNumber};

/// What the state at rest is asked to do, in this order and no other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreOp {
    /// Keep a block of final messages.
    PutBlock(BlockKey, Vec<u8>),
    /// Keep the newest form of something unfinished.
    PutRest(RestKey, Vec<u8>),
    /// Make all of the above durable; then, as one, keep this checkpoint and forget what has ended before
    /// it; then tell that segments below its own are free.
    Checkpoint(Checkpoint, Vec<RestKey>),
}

/// What the state at rest answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreDone {
    /// The block can be read.
    Block(BlockKey),
    /// The checkpoint is durable; segments below this one are not needed.
    Checkpoint(SegmentNumber, Position),
}
