//! Where a message goes: the longest prefix of its destination decides.

use std::collections::BTreeMap;

/// A carrier, by its place in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CarrierIndex(pub u8);

/// Destination prefixes and their carriers.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Routes {
    by_prefix: BTreeMap<Box<[u8]>, CarrierIndex>,
    prefix_octets_max: usize,
}

impl Routes {
    /// A table of `(prefix, carrier)`; the empty prefix takes whatever no other does.
    pub fn new(routes: impl IntoIterator<Item = (String, CarrierIndex)>) -> Self {
        let by_prefix: BTreeMap<Box<[u8]>, CarrierIndex> =
            routes.into_iter().map(|(prefix, carrier)| (prefix.into_bytes().into(), carrier)).collect();
        let prefix_octets_max = by_prefix.keys().map(|prefix| prefix.len()).max().unwrap_or(0);
        Self { by_prefix, prefix_octets_max }
    }

    /// The carrier for a destination, given without a leading `+`.
    pub fn find(&self, destination_addr: &[u8]) -> Option<CarrierIndex> {
        let longest = destination_addr.len().min(self.prefix_octets_max);
        (0..=longest).rev().find_map(|length| self.by_prefix.get(&destination_addr[..length]).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let routes =
            Routes::new([("", 0), ("1", 1), ("1212", 2)].map(|(p, c)| (p.to_owned(), CarrierIndex(c))));
        let table: [(&[u8], u8); 4] = [(b"4412345", 0), (b"13125550100", 1), (b"12125550100", 2), (b"", 0)];
        for (destination, carrier) in table {
            assert_eq!(routes.find(destination), Some(CarrierIndex(carrier)), "{destination:?}");
        }
        assert_eq!(Routes::new([("44".to_owned(), CarrierIndex(0))]).find(b"12125550100"), None);
    }
}
