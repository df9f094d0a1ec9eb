//! Messages that no carrier has, by who sent them to whom: what cancel_sm without an id and replace_if_present look for.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::account::{AccountIndex, Accounts};
use crate::message::{Content, Message, MessageId};

/// An account and two addresses as one number. Others may have the same: whoever finds a message by it compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Pair(u64);

/// A service_type, padded with zeros: five characters at most (§4.7.25).
type ServiceType = [u8; 5];

/// Where a message is among those that wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pair: Pair,
    service_type: ServiceType,
    id: MessageId,
}

/// The messages, in one order: growing moves none of them.
#[derive(Default, Debug)]
pub(super) struct Waiting {
    hasher: RandomState,
    places: BTreeSet<Place>,
}

impl Waiting {
    /// The number of what an account sends from `source` to `destination`.
    pub(super) fn pair(&self, account: AccountIndex, source: &[u8], destination: &[u8]) -> Pair {
        Pair(self.hasher.hash_one((account.0, source, destination)))
    }

    /// The number of what a message's account sends between its addresses.
    pub(super) fn pair_of(&self, content: &Content<'_>, accounts: &Accounts) -> Option<Pair> {
        let account = accounts.index_of(content.system_id)?;
        Some(self.pair(account, content.source.digits, content.destination.digits))
    }

    /// The place of a message, if it waits for its carrier.
    pub(super) fn place_of(&self, message: &Message, accounts: &Accounts) -> Option<Place> {
        if !message.standing.state.is_waiting() {
            return None;
        }
        let content = message.content();
        let pair = self.pair_of(&content, accounts)?;
        Some(Place { pair, service_type: padded(content.service_type), id: content.id })
    }

    /// A message may have moved. Most go to their carrier at once and have no place here, ever.
    #[inline(always)]
    pub(super) fn note(&mut self, from: Option<Place>, to: Option<Place>) {
        if from != to {
            self.move_message(from, to);
        }
    }

    fn move_message(&mut self, from: Option<Place>, to: Option<Place>) {
        if let Some(from) = from {
            self.places.remove(&from);
        }
        self.places.extend(to);
    }

    /// Those of one service_type, or of each.
    pub(super) fn of(&self, pair: Pair, service_type: Option<&[u8]>) -> impl Iterator<Item = MessageId> {
        let of_type = |service_type, id| Place { pair, service_type, id: MessageId::from_u64(id) };
        let (first, last) = service_type.map_or(([0; 5], [u8::MAX; 5]), |own| (padded(own), padded(own)));
        let places = self.places.range(of_type(first, 0)..=of_type(last, u64::MAX));
        places.map(|place| place.id)
    }
}

fn padded(service_type: &[u8]) -> ServiceType {
    std::array::from_fn(|place| service_type.get(place).copied().unwrap_or(0))
}
