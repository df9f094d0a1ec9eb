//! Things by the message that they are about, in a table that never moves much at once.
//!
//! A hash table that is full moves all that it holds before anything else can happen: with a million messages everybody
//! would wait for a tenth of a second. And it spreads its things all over memory, where each has to be fetched for itself.
//! So messages that are accepted one after another, *neighbours*, lie together, in the order in which they came; only the
//! neighbourhoods are found by a hash, in one of many small tables.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use crate::message::{MessageId, ParcelKey};

/// The name of a message, or of something that is about one.
pub trait AboutMessage: Copy + Eq {
    /// Whether several things may be about the same message.
    const HAS_PARTS: bool;

    /// The message.
    fn message_id(self) -> MessageId;
}

impl AboutMessage for MessageId {
    const HAS_PARTS: bool = false;

    fn message_id(self) -> MessageId {
        self
    }
}

impl AboutMessage for ParcelKey {
    const HAS_PARTS: bool = true;

    fn message_id(self) -> MessageId {
        self.id
    }
}

/// So many consecutive ids, by a power of two, are neighbours.
const NEIGHBOUR_BITS: u32 = 6;
const NEIGHBOURS: usize = 1 << NEIGHBOUR_BITS;
/// The places of so many things can be noted.
const NOTED_MAX: usize = u8::MAX as usize;
/// So many small tables, by a power of two: with a million things the one that grows moves sixty neighbourhoods.
const PART_BITS: u32 = 8;
/// So many neighbourhoods are young: most of what is in them will be gone in a moment, and then all their room can be used
/// again. Of older ones, what stays gives the room back that it does not need.
const YOUNG_MAX: usize = 16_384;
/// So many empty neighbourhoods are kept.
const SPARES_MAX: usize = 4_096;

/// The name of a neighbourhood.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Neighbourhood(u64);

impl Neighbourhood {
    /// Where a message belongs.
    pub const fn of(id: MessageId) -> Self {
        Self(id.as_u64() >> NEIGHBOUR_BITS)
    }

    const fn part(self) -> usize {
        // Fibonacci hashing: times come in steps, and their low bits alone would not spread them.
        (self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PART_BITS)) as usize
    }
}

/// A table of things that are about messages. Each neighbourhood has a note `N` for whoever owns the table.
#[derive(Debug)]
pub struct MessageTable<K, V, N = ()> {
    parts: Box<[Part<K, V, N>]>,
    len: usize,
    /// The neighbourhood that began last, and how many things came into it: the next one will be like it.
    latest: (Neighbourhood, usize),
    /// The last that began, in this order; some may be gone.
    young: VecDeque<Neighbourhood>,
    /// Neighbourhoods that are empty, for those that begin.
    spares: Vec<Box<Neighbours<K, V, N>>>,
}

type Part<K, V, N> = HashMap<Neighbourhood, Box<Neighbours<K, V, N>>, RandomState>;

/// The things of one neighbourhood.
#[derive(Debug)]
struct Neighbours<K, V, N> {
    /// By the low bits of an id: one more than the place of something that is about it, or was; 0 when none is noted.
    places: [u8; NEIGHBOURS],
    /// In the order in which they came. What has gone leaves its place empty: nothing else is touched for it.
    things: Vec<Option<(K, V)>>,
    /// How many are there.
    count: usize,
    is_old: bool,
    note: N,
}

impl<K: AboutMessage, V, N: Default> Neighbours<K, V, N> {
    /// With room for so many.
    fn with_room(expected: usize) -> Self {
        let things = Vec::with_capacity(expected);
        Self { places: [0; NEIGHBOURS], things, count: 0, is_old: false, note: N::default() }
    }

    fn low_bits(key: K) -> usize {
        key.message_id().as_u64() as usize % NEIGHBOURS
    }

    fn place(&self, key: K) -> Option<usize> {
        let is_it = |thing: &Option<(K, V)>| thing.as_ref().is_some_and(|(known, _)| *known == key);
        let noted = usize::from(self.places[Self::low_bits(key)]);
        if noted > 0 && is_it(&self.things[noted - 1]) {
            return Some(noted - 1);
        }
        // Only one of several parts is noted. Where there is none, nothing is about that message, as far as places can be
        // noted: what is new is not looked for among all others.
        let may_be_elsewhere = K::HAS_PARTS && (noted > 0 || self.things.len() > NOTED_MAX);
        if may_be_elsewhere { self.things.iter().position(is_it) } else { None }
    }

    /// A place for something that is not there yet.
    fn make_place(&mut self, key: K) -> usize {
        if self.things.len() == self.things.capacity() && self.count < self.things.len() / 2 {
            self.tidy();
        }
        self.things.push(None);
        self.count += 1;
        let place = self.things.len() - 1;
        self.note_place(key, place);
        place
    }

    fn note_place(&mut self, key: K, place: usize) {
        // What lies further on is found by looking at all of them.
        if let Ok(noted) = u8::try_from(place + 1) {
            self.places[Self::low_bits(key)] = noted;
        }
    }

    fn take(&mut self, place: usize) -> Option<V> {
        let (_, value) = self.things[place].take()?;
        self.count -= 1;
        if self.is_old {
            self.give_room_back();
        }
        Some(value)
    }

    /// Keeps no more than twice the room it needs, if it has four times as much.
    fn give_room_back(&mut self) {
        if self.things.capacity() > 4 * self.count {
            self.tidy();
            self.things.shrink_to(2 * self.count);
        }
    }

    /// Moves all that is there together.
    fn tidy(&mut self) {
        self.things.retain(Option::is_some);
        self.places = [0; NEIGHBOURS];
        for place in 0..self.things.len() {
            let key = self.things[place].as_ref().map(|(key, _)| *key);
            key.into_iter().for_each(|key| self.note_place(key, place));
        }
    }

    fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.things.iter().flatten().map(|(key, value)| (*key, value))
    }
}

impl<K: AboutMessage, V, N: Default> MessageTable<K, V, N> {
    /// An empty one.
    pub fn new() -> Self {
        let hasher = RandomState::default();
        let part = || HashMap::with_hasher(hasher.clone());
        let parts = (0..1 << PART_BITS).map(|_| part()).collect();
        Self { parts, len: 0, latest: (Neighbourhood(0), 0), young: VecDeque::new(), spares: Vec::new() }
    }

    fn neighbours(&self, key: K) -> Option<&Neighbours<K, V, N>> {
        let neighbourhood = Neighbourhood::of(key.message_id());
        self.parts[neighbourhood.part()].get(&neighbourhood).map(|neighbours| &**neighbours)
    }

    fn neighbours_mut(&mut self, key: K) -> Option<&mut Neighbours<K, V, N>> {
        let neighbourhood = Neighbourhood::of(key.message_id());
        self.parts[neighbourhood.part()].get_mut(&neighbourhood).map(|neighbours| &mut **neighbours)
    }

    /// How many things are in it.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is something of this name.
    pub fn contains(&self, key: K) -> bool {
        self.neighbours(key).is_some_and(|neighbours| neighbours.place(key).is_some())
    }

    /// What has this name.
    pub fn get(&self, key: K) -> Option<&V> {
        let neighbours = self.neighbours(key)?;
        let thing = neighbours.things[neighbours.place(key)?].as_ref();
        thing.map(|(_, value)| value)
    }

    /// What has this name, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.get_with_note(key).map(|(value, _)| value)
    }

    /// What has this name, with the note of its neighbourhood.
    pub fn get_with_note(&mut self, key: K) -> Option<(&mut V, &mut N)> {
        let neighbours = self.neighbours_mut(key)?;
        let place = neighbours.place(key)?;
        let Neighbours { things, note, .. } = neighbours;
        things[place].as_mut().map(|(_, value)| (value, note))
    }

    /// Puts something in, in the place of what had its name before; gives it with the note of its neighbourhood.
    #[inline(always)]
    pub fn insert(&mut self, key: K, value: V) -> (&mut V, &mut N) {
        self.age();
        let neighbourhood = Neighbourhood::of(key.message_id());
        let neighbours = match self.parts[neighbourhood.part()].entry(neighbourhood) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                self.young.push_back(neighbourhood);
                let (_, expected) = std::mem::replace(&mut self.latest, (neighbourhood, 0));
                // One that had many neighbours has room for as many: too much for a few.
                let spare = if expected > NEIGHBOURS / 2 { self.spares.pop() } else { None };
                let expected = expected.min(NEIGHBOURS);
                vacant.insert(spare.unwrap_or_else(|| Box::new(Neighbours::with_room(expected))))
            }
        };
        let place = match neighbours.place(key) {
            Some(place) => place,
            None => {
                self.len += 1;
                self.latest.1 += usize::from(self.latest.0 == neighbourhood);
                neighbours.make_place(key)
            }
        };
        let Neighbours { things, note, .. } = &mut **neighbours;
        // Written once, where it stays: copied from place to place, it would wait for all that was written before it.
        let (_, value) = things[place].insert((key, value));
        (value, note)
    }

    /// The oldest of the young is not that any more, when there are too many.
    fn age(&mut self) {
        if self.young.len() > YOUNG_MAX
            && let Some(oldest) = self.young.pop_front()
            && let Some(neighbours) = self.parts[oldest.part()].get_mut(&oldest)
        {
            neighbours.is_old = true;
            neighbours.give_room_back();
        }
    }

    /// Takes something out, and the note of its neighbourhood with the last of it.
    pub fn remove(&mut self, key: K) -> Option<(V, Option<N>)> {
        let neighbourhood = Neighbourhood::of(key.message_id());
        let Entry::Occupied(mut occupied) = self.parts[neighbourhood.part()].entry(neighbourhood) else {
            return None;
        };
        let neighbours = occupied.get_mut();
        let place = neighbours.place(key)?;
        let value = neighbours.take(place)?;
        self.len -= 1;
        if neighbours.count > 0 {
            return Some((value, None));
        }
        let mut empty = occupied.remove();
        let note = std::mem::take(&mut empty.note);
        if !empty.is_old && empty.things.capacity() > NEIGHBOURS / 2 && self.spares.len() < SPARES_MAX {
            empty.things.clear();
            empty.places = [0; NEIGHBOURS];
            self.spares.push(empty);
        }
        Some((value, Some(note)))
    }

    /// Everything in a neighbourhood, and its note; nothing when it is empty.
    pub fn neighbourhood(&mut self, of: Neighbourhood) -> Option<(impl Iterator<Item = (K, &V)>, &mut N)> {
        let Neighbours { things, note, .. } = &mut **self.parts[of.part()].get_mut(&of)?;
        Some((things.iter().flatten().map(|(key, value)| (*key, value)), note))
    }

    /// Everything, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.parts.iter().flat_map(HashMap::values).flat_map(|neighbours| neighbours.iter())
    }
}

impl<K: AboutMessage, V, N: Default> Default for MessageTable<K, V, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::message::{IdSource, PartitionNumber};
    use crate::time::Timestamp;

    /// Ids as a busy partition gives them out, a hundred a millisecond, or one that has little to do.
    fn ids(count: u64, a_millisecond: u64) -> impl Iterator<Item = MessageId> {
        let mut source = IdSource::new(3, PartitionNumber(200));
        let begin = 1_790_000_000_000;
        (0..count).map(move |number| source.next(Timestamp::from_millis(begin + number / a_millisecond), 1))
    }

    /// Puts things in and takes them out again in another order, in a table and in a map.
    fn hold<K: AboutMessage + Ord + std::fmt::Debug>(all: &[K]) {
        let mut table = MessageTable::<K, usize, u8>::new();
        let mut map = BTreeMap::new();
        let mut dice = 1_u64;
        for (number, key) in all.iter().enumerate() {
            assert_eq!((*table.insert(*key, number).0, map.insert(*key, number)), (number, None));
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number as u64);
            let other = all[(dice >> 33) as usize % (number + 1)];
            match number % 3 {
                0 => assert_eq!(table.remove(other).map(|(value, _)| value), map.remove(&other)),
                1 => assert_eq!(
                    table.get_mut(other).map(|value| std::mem::replace(value, number)),
                    map.get_mut(&other).map(|value| std::mem::replace(value, number))
                ),
                _ => {
                    *table.insert(other, 0).0 += number;
                    map.insert(other, number);
                }
            }
            assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
        }
        for key in all {
            assert_eq!(table.get(*key), map.get(key));
            assert_eq!(table.contains(*key), map.contains_key(key));
        }
        assert_eq!(table.iter().map(|(key, value)| (key, *value)).collect::<BTreeMap<_, _>>(), map);
        for key in all {
            assert_eq!(table.remove(*key).map(|(value, _)| value), map.remove(key));
        }
        assert!(table.is_empty() && table.parts.iter().all(HashMap::is_empty), "nothing is left behind");
    }

    #[test]
    fn it_holds_what_a_map_holds() {
        for a_millisecond in [1, 100] {
            hold(&ids(5_000, a_millisecond).collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_holds_every_part_of_a_message() {
        for parts in [2, 5] {
            let keys = ids(2_000, 100).flat_map(|id| (0..parts).map(move |part| ParcelKey { id, part }));
            hold(&keys.collect::<Vec<_>>());
        }
    }

    #[test]
    fn neighbours_share_a_note_that_goes_with_the_last() {
        let mut table = MessageTable::<MessageId, (), u8>::new();
        let all: Vec<MessageId> = ids(3, 100).collect();
        for (number, id) in (1..).zip(&all) {
            *table.insert(*id, ()).1 += number;
        }
        assert_eq!(table.get_with_note(all[0]).map(|(_, note)| *note), Some(6));
        let (neighbours, _) = table.neighbourhood(Neighbourhood::of(all[1])).expect("three of them");
        assert_eq!(neighbours.map(|(id, _)| id).collect::<Vec<_>>(), all);
        assert_eq!(table.remove(all[1]), Some(((), None)));
        assert_eq!(table.remove(all[0]), Some(((), None)));
        assert_eq!(table.remove(all[2]), Some(((), Some(6))));
        assert!(table.neighbourhood(Neighbourhood::of(all[1])).is_none());
    }

    #[test]
    fn no_part_is_much_fuller_than_others() {
        for a_millisecond in [1, 7, 100, 1_000] {
            let mut table = MessageTable::<MessageId, ()>::new();
            let count = 400_000;
            ids(count, a_millisecond).for_each(|id| _ = table.insert(id, ()));
            let of_part =
                |part: &Part<_, _, _>| part.values().map(|neighbours| neighbours.count).sum::<usize>();
            let longest = table.parts.iter().map(of_part).max().expect("parts");
            // Of neighbours, so many at most come together.
            let even = (count >> PART_BITS) as usize;
            assert!(longest < 3 * even + 64, "{a_millisecond} a millisecond: {longest}, {even} on average");
        }
    }

    #[test]
    fn few_that_stay_keep_little_room() {
        let mut table = MessageTable::<MessageId, [u8; 100]>::new();
        let all: Vec<MessageId> = ids((YOUNG_MAX as u64 + 200) * 64, 1_000).collect();
        let (older, younger) = all.split_at(100 * 64);
        let stays = |id: &&MessageId| id.as_u64().is_multiple_of(64);
        older.iter().for_each(|id| _ = table.insert(*id, [0; 100]));
        let (before, after) = older.split_at(older.len() / 2);
        before.iter().filter(|id| !stays(id)).for_each(|id| _ = table.remove(*id));
        for id in younger {
            table.insert(*id, [0; 100]);
            table.remove(*id);
        }
        assert!(table.spares.len() < 10, "empty ones are used again: {}", table.spares.len());
        after.iter().filter(|id| !stays(id)).for_each(|id| _ = table.remove(*id));
        let room =
            table.parts.iter().flat_map(HashMap::values).map(|neighbours| neighbours.things.capacity());
        assert!(room.sum::<usize>() <= 4 * table.len(), "{} are left", table.len());
    }

    #[test]
    fn what_is_empty_is_used_again_for_many_neighbours_and_kept_in_moderation() {
        let mut table = MessageTable::<MessageId, u8>::new();
        let all: Vec<MessageId> = ids((SPARES_MAX as u64 + 500) * 64, 1_000).collect();
        for id in &all {
            table.insert(*id, 7);
        }
        all.iter().for_each(|id| _ = table.remove(*id));
        assert_eq!(table.spares.len(), SPARES_MAX);
        // The first of them knows of no neighbours, and makes room of its own.
        all[..640].iter().for_each(|id| _ = table.insert(*id, 7));
        let neighbourhoods: usize = table.parts.iter().map(HashMap::len).sum();
        let used = SPARES_MAX - table.spares.len();
        assert!(neighbourhoods - used <= 1, "{used} of {neighbourhoods}");
    }
}
