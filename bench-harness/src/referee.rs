//! What must hold for every run, over all connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// What is known of one id.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    responses: u32,
    receipts: u32,
    is_early: bool,
}

/// Matches receipts to responses. Sharded, so that it is no bottleneck.
#[derive(Debug)]
pub(crate) struct Referee {
    shards: Vec<Mutex<HashMap<Box<[u8]>, Seen>>>,
}

impl Default for Referee {
    fn default() -> Self {
        Self { shards: (0..64).map(|_| Mutex::default()).collect() }
    }
}

impl Referee {
    /// A submit_sm_resp brought this id.
    pub(crate) fn response(&self, id: &[u8]) {
        self.with(id, |seen| seen.responses += 1);
    }

    /// A receipt brought this id. Receipts on the connection of their message come after its response; the
    /// others may overtake it in the network, which proves nothing, so only `same_connection` counts as early.
    pub(crate) fn receipt(&self, id: &[u8], same_connection: bool) {
        self.with(id, |seen| {
            seen.receipts += 1;
            seen.is_early |= same_connection && seen.responses == 0;
        });
    }

    /// What was broken.
    pub(crate) fn verdict(&self, receipts: bool) -> Vec<String> {
        let (mut repeated, mut lost, mut duplicate, mut unknown, mut early) = (0, 0, 0, 0, 0);
        for shard in &self.shards {
            for seen in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                repeated += u64::from(seen.responses > 1);
                lost += u64::from(receipts && seen.responses > 0 && seen.receipts == 0);
                duplicate += u64::from(seen.receipts > 1);
                unknown += u64::from(seen.responses == 0);
                early += u64::from(seen.is_early);
            }
        }
        let kinds = [
            (repeated, "message_ids given out twice"),
            (lost, "receipts lost"),
            (duplicate, "receipts delivered twice"),
            (unknown, "receipts for messages that were never answered"),
            (early, "receipts before their responses"),
        ];
        kinds
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, kind)| format!("{count} {kind}"))
            .collect()
    }

    fn with(&self, id: &[u8], change: impl FnOnce(&mut Seen)) {
        let place =
            id.iter().fold(0_usize, |hash, octet| hash.wrapping_mul(31).wrapping_add(usize::from(*octet)));
        let shard = &self.shards[place % self.shards.len()];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match shard.entry(id.into()) {
            Entry::Occupied(mut seen) => change(seen.get_mut()),
            Entry::Vacant(vacant) => change(vacant.insert(Seen::default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_promise_is_named() {
        let referee = Referee::default();
        referee.response(b"1");
        referee.receipt(b"1", true);
        assert!(referee.verdict(true).is_empty());
        referee.response(b"1");
        referee.response(b"2");
        referee.receipt(b"3", true);
        referee.receipt(b"1", true);
        let faults = referee.verdict(true).join("; ");
        for kind in ["given out twice", "lost", "delivered twice", "never answered", "before their responses"]
        {
            assert!(faults.contains(kind), "{kind}: {faults}");
        }
    }
}
