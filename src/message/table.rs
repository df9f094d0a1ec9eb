//! Things by the message that they are about, in a table that never moves much at once.
//!
//! A hash table that is full moves all that it holds before anything else can happen: with a million messages everybody
//! would wait for a tenth of a second. And it spreads its things all over memory, where each has to be fetched for itself.
//! So messages that are accepted one after another, *neighbours*, lie together, in the order in which they came; only the
//! neighbourhoods are found by a hash, in one of many small tables.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

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
/// So many small tables, by a power of two: with a million things the one that grows moves sixty neighbourhoods.
const PART_BITS: u32 = 8;

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
}

type Part<K, V, N> = HashMap<Neighbourhood, Box<Neighbours<K, V, N>>, RandomState>;

/// The things of one neighbourhood.
#[derive(Debug)]
struct Neighbours<K, V, N> {
    /// By the low bits of an id: one more than the place of something that is about it; 0 when it is not noted.
    places: [u8; NEIGHBOURS],
    things: Vec<(K, V)>,
    note: N,
}

impl<K: AboutMessage, V, N> Neighbours<K, V, N> {
    fn noted(&mut self, key: K) -> &mut u8 {
        &mut self.places[key.message_id().as_u64() as usize % NEIGHBOURS]
    }

    fn place(&self, key: K) -> Option<usize> {
        let noted = usize::from(self.places[key.message_id().as_u64() as usize % NEIGHBOURS]);
        if noted > 0 && self.things[noted - 1].0 == key {
            return Some(noted - 1);
        }
        // Only one of several parts is noted.
        if K::HAS_PARTS { self.things.iter().position(|(known, _)| *known == key) } else { None }
    }

    fn push(&mut self, key: K, value: V) {
        self.things.push((key, value));
        // A place beyond that is found by looking at all of them.
        if let Ok(noted) = u8::try_from(self.things.len()) {
            *self.noted(key) = noted;
        }
    }

    fn take(&mut self, place: usize) -> V {
        let last = self.things.len() - 1;
        let (key, value) = self.things.swap_remove(place);
        let is_at = |noted: u8, place: usize| usize::from(noted) == place + 1;
        if is_at(*self.noted(key), place) {
            *self.noted(key) = 0;
        }
        if let Some((moved, _)) = self.things.get(place) {
            let noted = self.noted(*moved);
            if is_at(*noted, last) || *noted == 0 {
                *noted = u8::try_from(place + 1).unwrap_or(0);
            }
        }
        if self.things.capacity() > 4 * self.things.len() + 4 {
            self.things.shrink_to(2 * self.things.len());
        }
        value
    }
}

impl<K: AboutMessage, V, N: Default> MessageTable<K, V, N> {
    /// An empty one.
    pub fn new() -> Self {
        let hasher = RandomState::default();
        let part = || HashMap::with_hasher(hasher.clone());
        Self { parts: (0..1 << PART_BITS).map(|_| part()).collect(), len: 0 }
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
        neighbours.place(key).map(|place| &neighbours.things[place].1)
    }

    /// What has this name, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.get_with_note(key).map(|(value, _)| value)
    }

    /// What has this name, with the note of its neighbourhood.
    pub fn get_with_note(&mut self, key: K) -> Option<(&mut V, &mut N)> {
        let neighbours = self.neighbours_mut(key)?;
        let place = neighbours.place(key)?;
        Some((&mut neighbours.things[place].1, &mut neighbours.note))
    }

    /// Puts something in, in the place of what had its name before; gives it with the note of its neighbourhood.
    pub fn insert(&mut self, key: K, value: V) -> (&mut V, &mut N) {
        let neighbourhood = Neighbourhood::of(key.message_id());
        let neighbours = match self.parts[neighbourhood.part()].entry(neighbourhood) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                let (places, things) = ([0; NEIGHBOURS], Vec::new());
                vacant.insert(Box::new(Neighbours { places, things, note: N::default() }))
            }
        };
        let place = neighbours.place(key).unwrap_or(neighbours.things.len());
        match neighbours.things.get_mut(place) {
            Some((_, old)) => *old = value,
            None => {
                neighbours.push(key, value);
                self.len += 1;
            }
        }
        let Neighbours { things, note, .. } = &mut **neighbours;
        (&mut things[place].1, note)
    }

    /// Takes something out, and the note of its neighbourhood with the last of it.
    pub fn remove(&mut self, key: K) -> Option<(V, Option<N>)> {
        let neighbourhood = Neighbourhood::of(key.message_id());
        let Entry::Occupied(mut occupied) = self.parts[neighbourhood.part()].entry(neighbourhood) else {
            return None;
        };
        let neighbours = occupied.get_mut();
        let place = neighbours.place(key)?;
        let value = neighbours.take(place);
        self.len -= 1;
        let note = neighbours.things.is_empty().then(|| occupied.remove().note);
        Some((value, note))
    }

    /// Everything in a neighbourhood, and its note; nothing when it is empty.
    pub fn neighbourhood(&mut self, of: Neighbourhood) -> Option<(impl Iterator<Item = (K, &V)>, &mut N)> {
        let Neighbours { things, note, .. } = &mut **self.parts[of.part()].get_mut(&of)?;
        Some((things.iter().map(|(key, value)| (*key, value)), note))
    }

    /// Everything, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let neighbours = self.parts.iter().flat_map(HashMap::values);
        neighbours.flat_map(|neighbours| neighbours.things.iter().map(|(key, value)| (*key, value)))
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
                |part: &Part<_, _, _>| part.values().map(|neighbours| neighbours.things.len()).sum::<usize>();
            let longest = table.parts.iter().map(of_part).max().expect("parts");
            // Of neighbours, so many at most come together.
            let even = (count >> PART_BITS) as usize;
            assert!(longest < 3 * even + 64, "{a_millisecond} a millisecond: {longest}, {even} on average");
        }
    }

    #[test]
    fn few_that_stay_keep_little_room() {
        let mut table = MessageTable::<MessageId, [u8; 100]>::new();
        let all: Vec<MessageId> = ids(6_400, 1_000).collect();
        all.iter().for_each(|id| _ = table.insert(*id, [0; 100]));
        for id in all.iter().filter(|id| id.as_u64() % 64 != 0) {
            table.remove(*id);
        }
        let room =
            table.parts.iter().flat_map(HashMap::values).map(|neighbours| neighbours.things.capacity());
        assert!(room.sum::<usize>() <= 8 * table.len(), "{} are left", table.len());
    }
}
