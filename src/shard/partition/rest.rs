//! What leaves memory: blocks of final messages, and checkpoints that free the journal.

use std::collections::{BTreeSet, HashSet};

use foldhash::fast::RandomState;

use super::Partition;
use crate::journal::{Position, Record, SegmentNumber};
use crate::message::ParcelKey;
use crate::store::{BlockBuilder, BlockKey, Checkpoint, FinalMessage, RestKey, StoreDone, StoreOp};

impl Partition {
    /// The next order for the state at rest, if what it holds is durable.
    pub fn take_store_op(&mut self) -> Option<StoreOp> {
        self.put_full_blocks();
        let (gate, _) = self.store_ops.front()?;
        if *gate > self.journal.committed() || self.failed {
            return None;
        }
        self.store_ops.pop_front().map(|(_, op)| op)
    }

    /// Whether orders for the state at rest wait.
    pub fn has_store_ops(&self) -> bool {
        !self.store_ops.is_empty() || !self.full_blocks.is_empty()
    }

    /// The state at rest has done something.
    pub fn store_done(&mut self, done: StoreDone) {
        match done {
            StoreDone::Block(key) => {
                for id in self.block_members.remove(&key).unwrap_or_default() {
                    self.finals.remove(&id);
                }
            }
            StoreDone::Checkpoint(..) => self.checkpoint_pending = false,
        }
    }

    /// Sends half-filled blocks to rest, so that memory does not hold the past.
    pub fn flush_blocks(&mut self) {
        self.full_blocks.extend(std::mem::take(&mut self.blocks));
        self.put_full_blocks();
    }

    /// Orders full blocks kept, once everything recorded so far is durable.
    pub(super) fn put_full_blocks(&mut self) {
        let gate = self.journal.last();
        for (period, block) in std::mem::take(&mut self.full_blocks) {
            self.put_block(gate, period, block);
        }
    }

    /// Puts everything to rest that only segments before `keep_from` hold, so that they can be used again.
    pub fn checkpoint(&mut self, keep_from: SegmentNumber) {
        if self.checkpoint_pending || self.failed {
            return;
        }
        let Some(first) = self.touched.iter().find(|touched| touched.segment >= keep_from) else { return };
        let (segment, first) = (first.segment, first.first);
        self.checkpoint_pending = true;
        // The memory holds everything recorded so far, so what is put to rest now may go when that is durable.
        let as_of = self.journal.seal();
        self.flush_blocks();
        // What ended in these segments is taken from rest together with the checkpoint, not before: as long
        // as the old checkpoint holds, the records that ended it must find it.
        let (mut parcels, mut messages) = (BTreeSet::new(), BTreeSet::new());
        while self.touched.front().is_some_and(|oldest| oldest.segment < keep_from) {
            let Some(oldest) = self.touched.pop_front() else { break };
            for key in oldest.keys {
                match key {
                    RestKey::Message(id) => {
                        messages.insert(id);
                        parcels.extend(ParcelKey::about(id).filter(|key| self.parcels.contains_key(key)));
                    }
                    RestKey::Parcel(key) => _ = parcels.insert(key),
                }
            }
        }
        // The record that made a parcel may stay while the message it is about goes, or is put to rest: replay
        // could not make the parcel again. So parcels go first.
        let parcels = parcels.into_iter().map(RestKey::Parcel);
        let mut gone = Vec::new();
        for key in parcels.chain(messages.into_iter().map(RestKey::Message)) {
            if !self.put_to_rest(as_of, key) && self.at_rest.remove(&key) {
                gone.push(key);
            }
        }
        let checkpoint = Checkpoint {
            segment,
            first,
            as_of,
            floors: self.ids.floors(),
            next_block: self.next_block,
            credits_used: self.credits_used.iter().map(|(name, used)| (name.clone(), *used)).collect(),
        };
        self.store_ops.push_back((as_of, StoreOp::Checkpoint(checkpoint, gone)));
    }

    pub(super) fn put_final(&mut self, ended: FinalMessage) {
        let period = ended.id.period();
        let full = self.blocks.entry(period).or_default().push(&ended);
        self.finals.insert(ended.id, ended);
        if full && let Some(block) = self.blocks.remove(&period) {
            self.full_blocks.push((period, block));
        }
    }

    pub(super) fn put_block(&mut self, gate: Position, period: u64, block: BlockBuilder) {
        let key = BlockKey { period, number: self.next_block };
        self.next_block += 1;
        let (octets, members) = block.finish();
        self.block_members.insert(key, members);
        self.store_ops.push_back((gate, StoreOp::PutBlock(key, octets)));
    }

    /// Orders the newest form of something kept; `false` when it has ended.
    pub(super) fn put_to_rest(&mut self, as_of: Position, key: RestKey) -> bool {
        let mut octets = as_of.0.to_le_bytes().to_vec();
        match key {
            RestKey::Message(id) => {
                let Some(message) = self.messages.get(&id) else { return false };
                let standing = message.standing;
                Record::MessageAtRest { standing, content: message.content_octets() }.put(&mut octets);
            }
            RestKey::Parcel(key) => {
                let Some(held) = self.parcels.get(&key) else { return false };
                Record::DeliveryAtRest(held.parcel.as_octets()).put(&mut octets);
            }
        }
        self.at_rest.insert(key);
        self.store_ops.push_back((as_of, StoreOp::PutRest(key, octets)));
        true
    }

    pub(super) fn touch(&mut self, key: RestKey) {
        let position = self.journal.position();
        match self.touched_open.back_mut() {
            Some((open, keys)) if *open == position => keys.push(key),
            Some(_) | None => self.touched_open.push_back((position, vec![key])),
        }
    }

    pub(super) fn touch_segment(&mut self, segment: SegmentNumber, position: Position, key: RestKey) {
        match self.touched.back_mut() {
            Some(touched) if touched.segment == segment => _ = touched.keys.insert(key),
            Some(_) | None => {
                let keys = [key].into_iter().collect();
                self.touched.push_back(Touched { segment, first: position, keys });
            }
        }
    }
}

/// Things touched by the records of one segment.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) segment: SegmentNumber,
    pub(super) first: Position,
    pub(super) keys: HashSet<RestKey, RandomState>,
}
