//! Things by the message that they are about, in a table that never moves much at once.
//!
//! A hash table that is full moves all that it holds before anything else can happen: with a million messages everybody
//! would wait for a tenth of a second. This one is made of many small ones. Messages that are accepted one after another
//! are in the same one, so that what is wanted at about the same time lies within a few pages of memory.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

use crate::message::{MessageId, ParcelKey};

/// The name of a message, or of something that is about one.
pub trait AboutMessage: Copy + Eq + Hash {
    /// The message.
    fn message_id(self) -> MessageId;
}

impl AboutMessage for MessageId {
    fn message_id(self) -> MessageId {
        self
    }
}

impl AboutMessage for ParcelKey {
    fn message_id(self) -> MessageId {
        self.id
    }
}

/// A table of things that are about messages.
#[derive(Debug)]
pub struct MessageTable<K, V> {
    parts: Box<[HashMap<K, V, RandomState>]>,
    len: usize,
}

/// So many small tables, by a power of two: with a million things the one that grows moves four thousand.
const PART_BITS: u32 = 8;
/// So many consecutive ids, by a power of two, are in the same part.
const NEIGHBOUR_BITS: u32 = 6;

impl<K: AboutMessage, V> MessageTable<K, V> {
    /// An empty one.
    pub fn new() -> Self {
        let hasher = RandomState::default();
        let part = || HashMap::with_hasher(hasher.clone());
        Self { parts: (0..1 << PART_BITS).map(|_| part()).collect(), len: 0 }
    }

    fn place(key: K) -> usize {
        // Fibonacci hashing: times come in steps, and their low bits alone would not spread them.
        let neighbours = key.message_id().as_u64() >> NEIGHBOUR_BITS;
        (neighbours.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - PART_BITS)) as usize
    }

    fn part(&self, key: K) -> &HashMap<K, V, RandomState> {
        &self.parts[Self::place(key)]
    }

    fn part_mut(&mut self, key: K) -> &mut HashMap<K, V, RandomState> {
        &mut self.parts[Self::place(key)]
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
        self.part(key).contains_key(&key)
    }

    /// What has this name.
    pub fn get(&self, key: K) -> Option<&V> {
        self.part(key).get(&key)
    }

    /// What has this name, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.part_mut(key).get_mut(&key)
    }

    /// Puts something in; what had its name before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let earlier = self.part_mut(key).insert(key, value);
        self.len += usize::from(earlier.is_none());
        earlier
    }

    /// Takes something out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let removed = self.part_mut(key).remove(&key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Everything, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.parts.iter().flatten().map(|(key, value)| (*key, value))
    }
}

impl<K: AboutMessage, V> Default for MessageTable<K, V> {
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

    #[test]
    fn it_holds_what_a_map_holds() {
        let mut table = MessageTable::new();
        let mut map = BTreeMap::new();
        let all: Vec<MessageId> = ids(5_000, 100).collect();
        for (number, id) in all.iter().enumerate() {
            assert_eq!(table.insert(*id, number), map.insert(*id, number));
            if number % 3 == 0 {
                let other = all[number / 2];
                assert_eq!(table.remove(other), map.remove(&other));
            }
            if number % 7 == 0 {
                assert_eq!(table.insert(*id, 0), map.insert(*id, 0));
            }
        }
        assert_eq!((table.len(), table.is_empty()), (map.len(), false));
        for id in &all {
            assert_eq!(table.get(*id), map.get(id));
            assert_eq!(table.contains(*id), map.contains_key(id));
        }
        assert_eq!(table.iter().map(|(id, value)| (id, *value)).collect::<BTreeMap<_, _>>(), map);
    }

    #[test]
    fn no_part_is_much_fuller_than_others() {
        for a_millisecond in [1, 7, 100, 1_000] {
            let mut table = MessageTable::new();
            let count = 400_000;
            ids(count, a_millisecond).for_each(|id| _ = table.insert(id, ()));
            let longest = table.parts.iter().map(HashMap::len).max().expect("parts");
            // Of neighbours, so many at most come together.
            let even = (count >> PART_BITS) as usize;
            assert!(longest < 3 * even + 64, "{a_millisecond} a millisecond: {longest}, {even} on average");
        }
    }
}
