//! Messages that are over and have not left memory.

use std::collections::VecDeque;

use bytes::Bytes;

use super::FastMap;
use crate::journal::Position;
use crate::message::MessageId;
use crate::store::FinalMessage;

/// A generation goes to rest when it has grown to this.
const GENERATION_OCTETS: usize = 4 << 20;

/// Generations that may be put to rest behind one batch of the journal, in bits.
const GENERATIONS_OF_BATCH_BITS: u32 = 20;

/// The messages that ended since the last generation left, and the generations that are on their way to rest.
#[derive(Debug)]
pub(super) struct Finals {
    octets: Vec<u8>,
    places: FastMap<MessageId, u32>,
    leaving: VecDeque<Leaving>,
    /// The table of a generation that has left: it is as large as the next one will be, and never grows amid traffic.
    spare: FastMap<MessageId, u32>,
    next_generation: u64,
}

/// A generation that the state at rest is still putting away.
#[derive(Debug)]
struct Leaving {
    generation: u64,
    octets: Bytes,
    places: FastMap<MessageId, u32>,
}

impl Finals {
    pub(super) fn new(next_generation: u64) -> Self {
        Self {
            octets: Vec::new(),
            places: FastMap::default(),
            leaving: VecDeque::new(),
            spare: FastMap::default(),
            next_generation,
        }
    }

    /// The generations of this process come behind all that are at rest. The last checkpoint does not know how many went there
    /// since; but each of them had to wait for a later batch of the journal, of which none holds a million.
    pub(super) fn begin_behind(&mut self, last: Position) {
        self.next_generation = self.next_generation.max((last.0 + 1) << GENERATIONS_OF_BATCH_BITS);
    }

    /// Adds a message; true when the generation should leave.
    pub(super) fn put(&mut self, ended: &FinalMessage<'_>) -> bool {
        self.places.insert(ended.id, self.octets.len() as u32);
        ended.put(&mut self.octets);
        self.octets.len() >= GENERATION_OCTETS
    }

    /// What is known of a message.
    pub(super) fn get(&self, id: MessageId) -> Option<FinalMessage<'_>> {
        let open = (&self.places, &self.octets[..]);
        let leaving = self.leaving.iter().rev().map(|leaving| (&leaving.places, &leaving.octets[..]));
        let (place, octets) = std::iter::once(open)
            .chain(leaving)
            .find_map(|(places, octets)| Some((*places.get(&id)?, octets)))?;
        let read = FinalMessage::read(&octets[place as usize..]);
        Some(read.unwrap_or_else(|_| unreachable!("it was put there whole")))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = FinalMessage<'_>> {
        let leaving = self.leaving.iter().flat_map(|leaving| leaving.places.keys());
        self.places.keys().chain(leaving).filter_map(|id| self.get(*id))
    }

    /// Whether a message of this id is over.
    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.places.contains_key(&id) || self.leaving.iter().any(|leaving| leaving.places.contains_key(&id))
    }

    /// Ends the generation: its number and octets, for the state at rest.
    pub(super) fn take_generation(&mut self) -> Option<(u64, Bytes)> {
        if self.places.is_empty() {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        let next_octets = Vec::with_capacity(self.octets.len());
        let octets = Bytes::from(std::mem::replace(&mut self.octets, next_octets));
        let places = std::mem::replace(&mut self.places, std::mem::take(&mut self.spare));
        self.leaving.push_back(Leaving { generation, octets: octets.clone(), places });
        Some((generation, octets))
    }

    /// A generation is at rest: memory forgets it.
    pub(super) fn stored(&mut self, generation: u64) {
        let stored = self.leaving.iter().position(|leaving| leaving.generation == generation);
        if let Some(Leaving { mut places, .. }) = stored.and_then(|place| self.leaving.remove(place)) {
            places.clear();
            if places.capacity() > self.spare.capacity() {
                self.spare = places;
            }
        }
    }

    pub(super) const fn next_generation(&self) -> u64 {
        self.next_generation
    }

    /// Messages, and the octets they take.
    pub(super) fn len(&self) -> (usize, usize) {
        let leaving = self.leaving.iter().map(|leaving| (leaving.places.len(), leaving.octets.len()));
        leaving.fold((self.places.len(), self.octets.len()), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }
}
