//! What a shard obeys, and where the partitions are.

use std::sync::Arc;

use crate::message::{Backoff, PartitionNumber};
use crate::session::SessionSettings;
use crate::shard::mesh::ShardNumber;
use crate::shard::submission::Validity;

/// What a shard obeys.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Which shard this is.
    pub number: ShardNumber,
    /// How many there are.
    pub shards: u8,
    /// Our name in bind responses, 15 octets at most.
    pub system_id: Box<[u8]>,
    /// Limits and timers of sessions.
    pub session: SessionSettings,
    /// How long messages are tried.
    pub validity: Validity,
    /// Pauses between offers to a carrier.
    pub retry: Backoff,
    /// Pauses between deliveries to an account.
    pub deliver_retry: Backoff,
    /// Things of one kind that are dealt with in one turn: what is due, what was earned, what carriers say, what is to be
    /// cancelled.
    pub portion: usize,
    /// Whether records are written before they earn anything (`--durability memory` says no).
    pub is_durable: bool,
}

/// Which shard has which partition.
#[derive(Clone, Debug)]
pub struct PartitionMap(Arc<[Option<ShardNumber>; 256]>);

impl PartitionMap {
    /// From pairs of partition and shard.
    pub fn new(pairs: impl IntoIterator<Item = (PartitionNumber, ShardNumber)>) -> Self {
        let mut map = [None; 256];
        for (partition, shard) in pairs {
            map[usize::from(partition.0)] = Some(shard);
        }
        Self(Arc::new(map))
    }

    /// How many there are.
    pub fn partitions(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// The shard that owns messages of this partition.
    pub fn shard_of(&self, partition: PartitionNumber) -> Option<ShardNumber> {
        self.0[usize::from(partition.0)]
    }
}
