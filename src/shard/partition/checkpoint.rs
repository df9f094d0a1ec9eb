//! Checkpoints: what old segments of the journal alone hold goes to rest, so that they can be used again.
//!
//! A checkpoint is made in steps, between which the partition goes on. It visits everything that needs one of the old
//! segments ([`Journaled`](super::memory::Journaled)); what has not ended by then is sorted, so that what will be wanted
//! together lies together, and packed into blocks. Three rules keep it honest:
//!
//! - A receipt needs the segments that its message needs: replay makes it from the message. So when a message that has
//!   changed goes to rest, so do its receipts.
//! - What has ended stays at rest as long as a segment is kept that knew it: its end must find it when it is replayed.
//! - The block first, then, together, the checkpoint and what it takes away; then the segments are free.

use std::collections::{BTreeMap, BTreeSet};

use super::Partition;
use super::memory::Kept;
use crate::account::AccountIndex;
use crate::journal::{Position, Record, SegmentNumber};
use crate::message::ParcelKey;
use crate::store::{Checkpoint, RestBuilder, RestChanges, RestKey, RestNumber, RestPlace, StoreOp};
use crate::time::Timestamp;

/// What a block of which something has gone counts for, beside things that have.
const CHANGE: usize = 16;
/// So much of what was written is made up for in one step.
const STEP_OCTETS: usize = 32 << 10;

/// What one step does: by default a millisecond's work, about.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Things looked at.
    visits: usize,
    /// Things packed.
    packed: usize,
    /// Places forgotten.
    forgotten: usize,
}

impl Step {
    /// After so many octets were written it does more: a checkpoint goes faster than what it has to look after comes in,
    /// which takes a hundred octets at least for each thing, and sixteen for each that ends.
    const fn after(visits: usize, octets: usize) -> Self {
        Self {
            visits: visits + visits * octets / (64 * 1_024),
            packed: visits.div_ceil(8) + visits * octets / (128 * 1_024),
            forgotten: 4 * visits + visits * octets / (16 * 1_024),
        }
    }
}

/// A checkpoint that is being made.
#[derive(Debug)]
pub(super) struct Checkpointing {
    /// The oldest segment that stays, and its first batch.
    keep_from: SegmentNumber,
    first: Position,
    /// Memory is short: these need this segment, which stays, and go to rest as well.
    younger: (SegmentNumber, Vec<RestKey>),
    /// What goes to rest.
    survivors: BTreeSet<(Order, RestKey)>,
    block: RestBuilder,
    /// The first block that is made.
    first_block: RestNumber,
    /// Places of forms that a newer one replaces.
    replaced: Vec<RestPlace>,
    /// Blocks of which little is left, whose rest goes into new ones; once they have been looked for.
    sparse: Option<Vec<RestNumber>>,
    /// Blocks of which something has gone that is not among the changes yet.
    touched: BTreeSet<RestNumber>,
    /// What has gone of each block, and blocks of which nothing is left.
    gone: BTreeMap<RestNumber, Vec<u16>>,
    removed: Vec<RestNumber>,
}

/// What lies beside what: messages that are due together, receipts and replies of one account.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Order {
    Message(Timestamp),
    Parcel(AccountIndex),
}

impl Partition {
    /// The next order for the state at rest, if what it holds is durable.
    pub fn take_store_op(&mut self) -> Option<StoreOp> {
        if self.failed {
            return None;
        }
        // Whatever else is done, the journal goes on.
        if let Some(file) = self.file_wanted() {
            return Some(StoreOp::MakeFile(file));
        }
        if let Some(number) = self.fetches.pop_front() {
            return Some(StoreOp::GetRest(number));
        }
        let (gate, _) = self.store_ops.front()?;
        if *gate > self.journal.committed() {
            return None;
        }
        self.store_ops.pop_front().map(|(_, op)| op)
    }

    fn file_wanted(&mut self) -> Option<u32> {
        let may_ask = self.settings.is_durable && self.no_room_until <= self.memory.now.instant;
        if may_ask { self.journal.file_wanted() } else { None }
    }

    /// Whether orders for the state at rest wait, or a checkpoint is being made.
    pub fn has_store_ops(&self) -> bool {
        !self.store_ops.is_empty() || self.checkpointing.is_some() || self.stops
    }

    /// Sends messages that are over to rest, so that memory does not hold the past.
    pub fn flush_finals(&mut self) {
        self.memory.finals_full = false;
        if let Some((generation, octets)) = self.memory.finals.take_generation() {
            self.store_ops.push_back((self.journal.last(), StoreOp::PutFinals(generation, octets)));
        }
    }

    /// The server stops: messages that are over go to rest, and a last checkpoint frees all segments but the newest.
    pub fn stop(&mut self) {
        self.flush_finals();
        self.stops = self.settings.is_durable;
    }

    /// Begins to put everything to rest that needs a segment before `keep_from`.
    pub(super) fn begin_checkpoint(&mut self, keep_from: SegmentNumber) {
        self.begin_to_rest(keep_from, (keep_from, Vec::new()));
    }

    /// Puts to rest whatever needs the journal at all, because memory is short.
    pub(super) fn begin_to_rest_all(&mut self) {
        if self.can_begin() {
            let newest = self.journal.segment();
            let younger = self.memory.journaled.take_keys(newest);
            self.begin_to_rest(newest, (newest, younger));
        }
    }

    fn can_begin(&self) -> bool {
        let is_busy = self.checkpointing.is_some() || self.checkpoint_pending;
        self.settings.is_durable && !self.failed && !is_busy
    }

    fn begin_to_rest(&mut self, keep_from: SegmentNumber, younger: (SegmentNumber, Vec<RestKey>)) {
        if !self.can_begin() {
            return;
        }
        let Some((keep_from, first)) = self.memory.journaled.kept_from(keep_from) else { return };
        self.checkpointing = Some(Checkpointing {
            keep_from,
            first,
            younger,
            survivors: BTreeSet::new(),
            block: RestBuilder::default(),
            first_block: self.memory.rest.next(),
            replaced: Vec::new(),
            sparse: None,
            touched: BTreeSet::new(),
            gone: BTreeMap::new(),
            removed: Vec::new(),
        });
    }

    /// A step of the checkpoint that is being made, if one is.
    pub(super) fn go_on_with_checkpoint(&mut self) {
        let octets = self.checkpoint_debt.min(STEP_OCTETS);
        self.checkpoint_debt -= octets;
        if self.memory.finals_full {
            self.flush_finals();
        }
        if self.failed {
            self.checkpointing = None;
            self.stops = false;
        }
        if self.stops && self.checkpointing.is_none() && !self.checkpoint_pending {
            self.stops = false;
            self.begin_checkpoint(self.journal.segment());
        }
        // Orders that wait take memory; the thread that carries them out comes first.
        let is_ahead = self.store_ops.len() >= self.settings.store_waiting_max / 2;
        let checkpointing = if is_ahead { None } else { self.checkpointing.take() };
        let Some(mut checkpointing) = checkpointing else {
            self.checkpoint_debt = 0;
            return;
        };
        if !self.step(&mut checkpointing, octets) {
            self.checkpointing = Some(checkpointing);
            if self.journal.segments_in_use() >= self.settings.segments_max {
                // No message is accepted before it is made, and nothing that is written drives it on: it goes on at once.
                self.checkpoint_debt = self.checkpoint_debt.max(STEP_OCTETS);
            }
        }
    }

    /// Whether the checkpoint is made.
    fn step(&mut self, checkpointing: &mut Checkpointing, octets: usize) -> bool {
        let Step { visits, packed, forgotten } = Step::after(self.settings.checkpoint_visits, octets);
        for _ in 0..visits {
            let next = self.memory.journaled.pop_key(checkpointing.keep_from);
            let (segment, younger) = &mut checkpointing.younger;
            let Some((segment, key)) = next.or_else(|| Some((*segment, younger.pop()?))) else { break };
            self.visit(checkpointing, key, |kept| kept.since() == Some(segment));
        }
        self.visit_sparse(checkpointing, visits);
        if !checkpointing.survivors.is_empty() {
            // The memory holds everything recorded so far: what goes to rest now may go there when that is durable.
            let as_of = self.journal.seal();
            for _ in 0..packed {
                let Some((_, key)) = checkpointing.survivors.pop_first() else { break };
                self.put_to_rest(checkpointing, as_of, key);
            }
        }
        let is_visited =
            checkpointing.younger.1.is_empty() && !self.memory.journaled.has_keys(checkpointing.keep_from);
        if !is_visited || !checkpointing.survivors.is_empty() {
            return false;
        }
        match &checkpointing.sparse {
            None => {
                checkpointing.sparse = Some(self.memory.rest.take_sparse());
                return false;
            }
            Some(sparse) if !sparse.is_empty() => return false,
            Some(_) => {}
        }
        if !checkpointing.block.is_empty() {
            // Nothing comes behind it, and a place in it may be among those that a newer form has replaced.
            let as_of = self.journal.seal();
            self.put_block(checkpointing, as_of);
        }
        self.forget(checkpointing, forgotten)
    }

    /// A step through what has gone; whether that was the last, and the checkpoint is made.
    fn forget(&mut self, checkpointing: &mut Checkpointing, forgotten: usize) -> bool {
        let mut left = forgotten;
        while left > 0 {
            let gone = self.memory.journaled.pop_gone(checkpointing.keep_from);
            if let Some(place) = gone.or_else(|| checkpointing.replaced.pop()) {
                self.memory.rest.forget(place);
                checkpointing.touched.insert(place.block);
                left -= 1;
            } else if let Some(number) = checkpointing.touched.pop_first() {
                match self.memory.rest.change(number) {
                    Some(gone) => _ = checkpointing.gone.insert(number, gone),
                    None => {
                        checkpointing.gone.remove(&number);
                        checkpointing.removed.push(number);
                    }
                }
                left = left.saturating_sub(CHANGE);
            } else {
                self.complete(checkpointing);
                return true;
            }
        }
        false
    }

    /// Something goes to rest if it has not ended and is kept so.
    fn visit(
        &mut self,
        checkpointing: &mut Checkpointing,
        key: RestKey,
        if_kept: impl FnOnce(&Kept) -> bool,
    ) {
        let goes_to_rest = self.memory.kept_mut(key).is_some_and(|kept| if_kept(kept));
        if goes_to_rest && let Some(order) = self.order_of(key) {
            checkpointing.survivors.insert((order, key));
        }
    }

    /// A step through the blocks of which little is left.
    fn visit_sparse(&mut self, checkpointing: &mut Checkpointing, visits: usize) {
        let mut seen = 0;
        while seen < visits
            && let Some(number) = checkpointing.sparse.as_mut().and_then(Vec::pop)
        {
            let members = self.memory.rest.members(number);
            seen += members.len();
            for (place, key) in members {
                self.visit(checkpointing, key, |kept| kept.place() == Some(place));
            }
        }
    }

    fn order_of(&self, key: RestKey) -> Option<Order> {
        match key {
            RestKey::Message(id) => {
                let message = self.memory.messages.get(id).map(|held| &held.message);
                message.map(|message| Order::Message(message.standing.deadline.min(message.expires_at())))
            }
            RestKey::Parcel(key) => self.memory.parcels.get(key).map(|held| Order::Parcel(held.account)),
        }
    }

    /// Packs the newest form of something, unless it has ended by now.
    fn put_to_rest(&mut self, checkpointing: &mut Checkpointing, as_of: Position, key: RestKey) {
        // A receipt may have gone there with its message.
        let is_new = |kept: &Kept| kept.place().is_some_and(|place| place.block >= checkpointing.first_block);
        if self.memory.kept_mut(key).is_none_or(|kept| kept.since().is_none() && is_new(kept)) {
            return;
        }
        let block = &mut checkpointing.block;
        let place = RestPlace { block: self.memory.rest.next(), slot: block.next_slot() };
        let kept = match key {
            RestKey::Message(id) => {
                let Some(held) = self.memory.messages.get_mut(id) else { return };
                let (standing, content) = (held.message.standing, held.message.content_octets());
                block.push(as_of, key, &Record::MessageAtRest { standing, content });
                &mut held.kept
            }
            RestKey::Parcel(key) => {
                let Some(held) = self.memory.parcels.get_mut(key) else { return };
                let record = Record::DeliveryAtRest(held.parcel.as_octets());
                block.push(as_of, RestKey::Parcel(key), &record);
                &mut held.kept
            }
        };
        let older = std::mem::replace(kept, Kept::at_rest(place));
        let had_changed = older.since().is_some();
        if let Some(older) = older.place() {
            self.memory.rest.end(older, key);
            checkpointing.replaced.push(older);
        }
        if block.is_full() {
            self.put_block(checkpointing, as_of);
        }
        if had_changed && let RestKey::Message(id) = key {
            // Replay passes over the records that made its receipts, because they are older than this form of it.
            for key in ParcelKey::about(id) {
                if self.memory.parcels.get(key).is_some_and(|held| held.kept.since().is_some()) {
                    self.put_to_rest(checkpointing, as_of, RestKey::Parcel(key));
                }
            }
        }
    }

    fn put_block(&mut self, checkpointing: &mut Checkpointing, as_of: Position) {
        let (octets, members) = std::mem::take(&mut checkpointing.block).finish();
        let number = self.memory.rest.next();
        // Some may have ended since they were packed.
        let places = (0..).map(|slot| RestPlace { block: number, slot });
        let ended = places.zip(&members).filter(|(place, key)| {
            self.memory.kept_mut(**key).is_none_or(|kept| kept.place() != Some(*place))
        });
        let ended: Vec<u16> = ended.map(|(place, _)| place.slot).collect();
        self.memory.rest.add(number, members, ended);
        self.store_ops.push_back((as_of, StoreOp::PutRest(number, octets)));
    }

    /// Everything is packed: what is left is ordered.
    fn complete(&mut self, checkpointing: &mut Checkpointing) {
        let as_of = self.journal.seal();
        self.flush_finals();
        self.memory.journaled.release(checkpointing.keep_from);
        let changes = RestChanges {
            removed: std::mem::take(&mut checkpointing.removed),
            gone: std::mem::take(&mut checkpointing.gone).into_iter().collect(),
        };
        let credits_used = self.memory.credits_used.iter();
        let checkpoint = Checkpoint {
            segment: checkpointing.keep_from,
            first: checkpointing.first,
            as_of,
            floors: self.memory.ids.floors(),
            next_generation: self.memory.finals.next_generation(),
            next_rest: self.memory.rest.next(),
            at_rest: self.memory.rest.at_rest(),
            credits_used: credits_used.map(|(name, used)| (name.clone(), *used)).collect(),
        };
        self.checkpoint_pending = true;
        self.store_ops.push_back((as_of, StoreOp::Checkpoint(checkpoint, changes)));
    }
}
