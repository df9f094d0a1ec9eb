//! What a partition has at rest of its unfinished things: blocks, of which some are *cold*, in the state at rest alone.
//!
//! Most of what lies at rest is in memory too, and at rest only for a restart. When memory is short, blocks grow cold:
//! what is in them leaves memory, but for what finds it again: its id, the account of a receipt or reply, the addresses
//! of a message that waits, and the time when the first thing in the block is due. A block is cold as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use super::memory::Alarm;
use super::waiting::Pair;
use crate::account::AccountIndex;
use crate::message::{MessageId, ParcelKey};
use crate::store::{RestKey, RestNumber, RestPlace};
use crate::time::Instant;

/// The blocks of unfinished things.
#[derive(Debug, Default)]
pub(super) struct Rest {
    blocks: BTreeMap<RestNumber, RestBlock>,
    next: u32,
    /// Things in all blocks that have not gone.
    things: u64,
    /// Blocks of which more than half has ended.
    sparse: BTreeSet<RestNumber>,
    /// Places of what has ended and has not gone, if its id is a short one, and how many each such id has.
    ended_short: BTreeMap<RestPlace, MessageId>,
    places_of_short: BTreeMap<MessageId, u32>,
    /// Blocks that may grow cold, the one that was put there first in front.
    to_cool: VecDeque<RestNumber>,
    cold: Cold,
}

/// One block.
#[derive(Debug, Default)]
struct RestBlock {
    /// How many things were put in.
    total: u16,
    /// Slots of those that have ended, or are at rest in a newer form elsewhere.
    ended: Vec<u16>,
    /// Those of them of which a checkpoint says so.
    gone: Vec<u16>,
    /// What was put in, by slot; not of a cold block.
    members: Vec<RestKey>,
    /// Rings when the first thing of a cold block is due.
    alarm: Alarm,
    is_cold: bool,
    /// Until when a block that came back does not grow cold again.
    fresh_until: Instant,
    /// It can be read.
    is_stored: bool,
}

/// How what is cold is found.
#[derive(Debug, Default)]
struct Cold {
    messages: BTreeMap<MessageId, RestNumber>,
    parcels: usize,
    blocks: usize,
    /// Blocks with parcels of an account.
    accounts: BTreeSet<(AccountIndex, RestNumber)>,
    /// Blocks with messages that wait.
    waiting: BTreeSet<(Pair, RestNumber)>,
    /// Messages that were put off.
    pauses: BTreeMap<MessageId, Instant>,
    /// Parcels that were refused.
    retries: BTreeMap<ParcelKey, Retry>,
    /// Short ids that parcels are about: no other message may get them.
    short_ids: BTreeSet<(MessageId, RestNumber)>,
}

/// What a cold block is found by.
#[derive(Debug)]
pub(super) enum Trace {
    /// A message.
    Message {
        /// Its name.
        id: MessageId,
        /// Account and addresses, when it waits for its carrier.
        pair: Option<Pair>,
        /// When the pause before its next attempt ends; [`Instant::MAX`] when there is none.
        paused_until: Instant,
    },
    /// A parcel.
    Parcel {
        /// Its name.
        key: ParcelKey,
        /// The account that it waits for, unless it waits for its time.
        account: Option<AccountIndex>,
        /// If it was refused: how often, and until when it waits.
        retry: Option<Retry>,
    },
}

/// How a receipt or reply that was refused goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// Deliveries tried.
    pub(super) attempts: u16,
    /// When it is tried again.
    pub(super) paused_until: Instant,
}

impl RestBlock {
    /// More than half of it has ended.
    fn is_sparse(&self) -> bool {
        2 * self.ended.len() > usize::from(self.total)
    }
}

impl Rest {
    /// No block yet; the first will have this number.
    pub(super) fn new(next: RestNumber) -> Self {
        Self { next: next.0, ..Self::default() }
    }

    /// The number of the next block.
    pub(super) const fn next(&self) -> RestNumber {
        RestNumber(self.next)
    }

    /// A block is put to rest, of which these have ended already.
    pub(super) fn add(&mut self, number: RestNumber, members: Vec<RestKey>, ended: Vec<u16>) {
        let total = members.len() as u16;
        self.insert(number, RestBlock { total, ended, members, ..RestBlock::default() });
    }

    /// A block was found at rest. Its members that have gone are among `members` too.
    pub(super) fn restore(&mut self, number: RestNumber, members: Vec<RestKey>, gone: Vec<u16>) {
        let (total, ended) = (members.len() as u16, gone.clone());
        self.insert(
            number,
            RestBlock { total, ended, gone, members, is_stored: true, ..RestBlock::default() },
        );
        self.to_cool.push_back(number);
    }

    /// A block was found at rest, and grows cold at once.
    pub(super) fn restore_cold(&mut self, number: RestNumber, total: u16, gone: Vec<u16>) {
        let ended = gone.clone();
        self.insert(number, RestBlock { total, ended, gone, is_stored: true, ..RestBlock::default() });
    }

    fn insert(&mut self, number: RestNumber, block: RestBlock) {
        self.things += u64::from(block.total) - block.gone.len() as u64;
        self.next = self.next.max(number.0 + 1);
        if block.is_sparse() {
            self.sparse.insert(number);
        }
        self.blocks.insert(number, block);
    }

    /// A block can be read from now on.
    pub(super) fn stored(&mut self, number: RestNumber) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.is_stored = true;
            self.to_cool.push_back(number);
        }
    }

    /// Something has ended, or is put to rest elsewhere. The block still says otherwise, and must until a checkpoint
    /// [forgets](Self::forget) it.
    pub(super) fn end(&mut self, place: RestPlace, key: RestKey) {
        let (RestKey::Message(id) | RestKey::Parcel(ParcelKey { id, .. })) = key;
        if id.is_short() && self.ended_short.insert(place, id).is_none() {
            *self.places_of_short.entry(id).or_default() += 1;
        }
        if let Some(block) = self.blocks.get_mut(&place.block) {
            block.ended.push(place.slot);
            if block.is_sparse() {
                self.sparse.insert(place.block);
            }
        }
    }

    /// Slots of a block of which nothing is left.
    pub(super) fn ended(&self, number: RestNumber) -> &[u16] {
        self.blocks.get(&number).map_or(&[], |block| &block.ended)
    }

    /// Something that has ended is gone with the next checkpoint, which takes the [`change`](Self::change).
    pub(super) fn forget(&mut self, place: RestPlace) {
        // A block stays until all of it has gone. One that is not here yet would keep what has ended for ever.
        let Some(block) = self.blocks.get_mut(&place.block) else { unreachable!("{place:?} is in no block") };
        block.gone.push(place.slot);
        self.things -= 1;
        if let Some(id) = self.ended_short.remove(&place)
            && let Some(places) = self.places_of_short.get_mut(&id)
        {
            *places -= 1;
            if *places == 0 {
                self.places_of_short.remove(&id);
            }
        }
    }

    /// What has gone of a block, for a checkpoint that takes it away; `None` when nothing is left of it: it ends here.
    pub(super) fn change(&mut self, number: RestNumber) -> Option<Vec<u16>> {
        let block = self.blocks.get(&number)?;
        if block.gone.len() < usize::from(block.total) {
            return Some(block.gone.clone());
        }
        self.blocks.remove(&number);
        self.sparse.remove(&number);
        None
    }

    /// Takes the blocks of which more than half has ended: the rest should be put to rest anew. Those that cannot be
    /// looked at now come another time.
    pub(super) fn take_sparse(&mut self) -> Vec<RestNumber> {
        let blocks = &self.blocks;
        let can_be =
            |number: &RestNumber| blocks.get(number).is_some_and(|block| !block.is_cold && block.is_stored);
        let taken: Vec<RestNumber> = self.sparse.iter().copied().filter(can_be).collect();
        taken.iter().for_each(|number| _ = self.sparse.remove(number));
        taken
    }

    /// What was put into a block that is not cold.
    pub(super) fn members(&self, number: RestNumber) -> Vec<(RestPlace, RestKey)> {
        let members = self.blocks.get(&number).map_or(&[][..], |block| &block.members);
        (0..).zip(members).map(|(slot, key)| (RestPlace { block: number, slot }, *key)).collect()
    }

    /// The next block that may grow cold, with what is in it.
    pub(super) fn next_to_cool(&mut self) -> Option<(RestNumber, Vec<(RestPlace, RestKey)>)> {
        loop {
            let number = self.to_cool.pop_front()?;
            if self.blocks.get(&number).is_some_and(|block| !block.is_cold) {
                return Some((number, self.members(number)));
            }
        }
    }

    /// How many blocks may grow cold.
    pub(super) fn to_cool(&self) -> usize {
        self.to_cool.len()
    }

    /// A block cannot grow cold now.
    pub(super) fn cool_later(&mut self, number: RestNumber) {
        self.to_cool.push_back(number);
    }

    /// A block grows cold; `alarm` rings when the first thing in it is due.
    pub(super) fn cool(&mut self, number: RestNumber, alarm: Alarm, traces: impl IntoIterator<Item = Trace>) {
        let Some(block) = self.blocks.get_mut(&number) else { return };
        block.is_cold = true;
        self.cold.blocks += 1;
        block.alarm = alarm;
        block.members = Vec::new();
        for trace in traces {
            match trace {
                Trace::Message { id, pair, paused_until } => {
                    self.cold.messages.insert(id, number);
                    self.cold.waiting.extend(pair.map(|pair| (pair, number)));
                    if paused_until < Instant::MAX {
                        self.cold.pauses.insert(id, paused_until);
                    }
                }
                Trace::Parcel { key, account, retry } => {
                    self.cold.parcels += 1;
                    self.cold.accounts.extend(account.map(|account| (account, number)));
                    self.cold.retries.extend(retry.map(|retry| (key, retry)));
                    if key.id.is_short() {
                        self.cold.short_ids.insert((key.id, number));
                    }
                }
            }
        }
    }

    /// A cold block comes back with these members, and was found by these traces; its alarm, if it was cold.
    pub(super) fn warm(
        &mut self,
        number: RestNumber,
        fresh_until: Instant,
        members: Vec<RestKey>,
        traces: impl IntoIterator<Item = Trace>,
    ) -> Option<Alarm> {
        let block = self.blocks.get_mut(&number).filter(|block| block.is_cold)?;
        block.is_cold = false;
        block.fresh_until = fresh_until;
        if block.is_sparse() {
            self.sparse.insert(number);
        }
        self.cold.blocks -= 1;
        block.members = members;
        for trace in traces {
            match trace {
                Trace::Message { id, pair, .. } => {
                    self.cold.messages.remove(&id);
                    pair.map(|pair| self.cold.waiting.remove(&(pair, number)));
                }
                Trace::Parcel { key, account, .. } => {
                    self.cold.parcels -= 1;
                    account.map(|account| self.cold.accounts.remove(&(account, number)));
                    self.cold.short_ids.remove(&(key.id, number));
                }
            }
        }
        self.to_cool.push_back(number);
        Some(std::mem::take(&mut block.alarm))
    }

    /// Until when a message that has come back pauses, if it was put off before it left.
    pub(super) fn take_pause(&mut self, id: MessageId) -> Option<Instant> {
        self.cold.pauses.remove(&id)
    }

    /// How often a parcel that has come back was refused before it left, if it was.
    pub(super) fn take_retry(&mut self, key: ParcelKey) -> Option<Retry> {
        self.cold.retries.remove(&key)
    }

    /// Whether a block came back a moment ago.
    pub(super) fn is_fresh(&self, number: RestNumber, now: Instant) -> bool {
        self.blocks.get(&number).is_some_and(|block| now < block.fresh_until)
    }

    pub(super) fn is_cold(&self, number: RestNumber) -> bool {
        self.blocks.get(&number).is_some_and(|block| block.is_cold)
    }

    /// The block of a message that is in no other place.
    pub(super) fn block_of(&self, id: MessageId) -> Option<RestNumber> {
        self.cold.messages.get(&id).copied()
    }

    /// Whether a message with this short id, or a parcel about one, is in a block: it is cold, or has ended and a restart
    /// would still find it there.
    pub(super) fn holds(&self, short_id: MessageId) -> bool {
        let blocks = (short_id, RestNumber(0))..=(short_id, RestNumber(u32::MAX));
        self.cold.messages.contains_key(&short_id)
            || self.cold.short_ids.range(blocks).next().is_some()
            || self.places_of_short.contains_key(&short_id)
    }

    /// A cold block with parcels of an account, the oldest.
    pub(super) fn block_for(&self, account: AccountIndex) -> Option<RestNumber> {
        let blocks = (account, RestNumber(0))..=(account, RestNumber(u32::MAX));
        self.cold.accounts.range(blocks).next().map(|(_, number)| *number)
    }

    /// The first cold block behind `after` with a message that waits between these addresses, or so it seems.
    pub(super) fn block_waiting(&self, pair: Pair, after: Option<RestNumber>) -> Option<RestNumber> {
        let begin =
            after.map_or(Bound::Included((pair, RestNumber(0))), |after| Bound::Excluded((pair, after)));
        let blocks = (begin, Bound::Included((pair, RestNumber(u32::MAX))));
        self.cold.waiting.range(blocks).next().map(|(_, number)| *number)
    }

    /// Blocks, and things in them that have not gone.
    pub(super) fn at_rest(&self) -> (u64, u64) {
        (self.blocks.len() as u64, self.things)
    }

    /// Messages and parcels that are cold.
    pub(super) fn cold(&self) -> (usize, usize) {
        (self.cold.messages.len(), self.cold.parcels)
    }

    /// Blocks at rest, cold ones among them.
    pub(super) fn blocks(&self) -> (usize, usize) {
        (self.blocks.len(), self.cold.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_is_held_until_a_checkpoint_says_that_every_place_of_it_has_gone() {
        let id = MessageId::from_u64(0x8000_0300);
        let (message, receipt) = (RestKey::Message(id), RestKey::Parcel(ParcelKey { id, part: 4 }));
        let mut rest = Rest::new(RestNumber(1));
        let number = rest.next();
        let [first, second] = [0, 1].map(|slot| RestPlace { block: number, slot });
        // The message ends before its block is there.
        rest.end(first, message);
        rest.add(number, vec![message, receipt], vec![0]);
        assert!(rest.holds(id));
        rest.end(second, receipt);
        rest.forget(first);
        assert!(rest.holds(id));
        rest.forget(second);
        assert!(!rest.holds(id) && rest.ended_short.is_empty() && rest.places_of_short.is_empty());
    }

    #[test]
    fn a_sparse_block_that_grows_cold_is_packed_anew_when_it_is_back() {
        let mut rest = Rest::new(RestNumber(1));
        let number = rest.next();
        let members: Vec<RestKey> = (1..5).map(|id| RestKey::Message(MessageId::from_u64(id))).collect();
        rest.add(number, members.clone(), Vec::new());
        (0..3).for_each(|slot| rest.end(RestPlace { block: number, slot }, members[usize::from(slot)]));
        assert_eq!(rest.take_sparse(), [], "it is not there yet");
        rest.stored(number);
        assert_eq!(rest.take_sparse(), [number]);
        assert_eq!(rest.take_sparse(), []);
        rest.cool(number, Alarm::default(), []);
        assert_eq!(rest.take_sparse(), [], "nobody can look at it");
        rest.warm(number, Instant::ZERO, members, []);
        assert_eq!(rest.take_sparse(), [number]);
    }
}
