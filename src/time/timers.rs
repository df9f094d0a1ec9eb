//! Deadlines, ordered.

use std::collections::BTreeSet;

/// The deadlines of many things, at most one each. `T` is the clock's point, `K` names the thing.
///
/// A thing that waits for several events arms the earliest and decides what happened when it rings: then
/// there is one entry per session or message whatever it waits for, and nothing stale to skip. The thing
/// keeps its deadline, because disarming needs it; moving one is `disarm`, then `arm`.
///
/// Every change costs O(log n), without allocation for most; looking at the next one is O(log n) too.
#[derive(Clone, Debug)]
pub struct Timers<T, K> {
    deadlines: BTreeSet<(T, K)>,
}

impl<T: Ord + Copy, K: Ord + Copy> Timers<T, K> {
    /// No deadline at all.
    pub const fn new() -> Self {
        Self { deadlines: BTreeSet::new() }
    }

    /// Sets the deadline of `key`, which has none.
    pub fn arm(&mut self, at: T, key: K) {
        self.deadlines.insert((at, key));
    }

    /// Removes the deadline of `key`; false when `at` was not it, and then nothing changes.
    pub fn disarm(&mut self, at: T, key: K) -> bool {
        self.deadlines.remove(&(at, key))
    }

    /// Takes the earliest deadline that is `now` or before; at equal times the lowest key.
    pub fn pop_due(&mut self, now: T) -> Option<(T, K)> {
        let (at, _) = *self.deadlines.first()?;
        if at <= now { self.deadlines.pop_first() } else { None }
    }

    /// The earliest deadline: nothing is due before it.
    pub fn next_due(&self) -> Option<T> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// How many things have a deadline.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether nothing has a deadline.
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

impl<T: Ord + Copy, K: Ord + Copy> Default for Timers<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_in_order_and_not_before() {
        let mut timers = Timers::new();
        timers.arm(30, 'a');
        timers.arm(10, 'c');
        timers.arm(10, 'b');
        assert_eq!(timers.next_due(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.len(), 3);
        assert_eq!(timers.pop_due(29), Some((10, 'b')));
        assert_eq!(timers.pop_due(29), Some((10, 'c')));
        assert_eq!(timers.pop_due(29), None);
        assert_eq!(timers.pop_due(30), Some((30, 'a')));
        assert!(timers.is_empty());
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn a_disarmed_deadline_does_not_ring() {
        let mut timers = Timers::new();
        timers.arm(10, 1);
        timers.arm(10, 2);
        assert!(!timers.disarm(11, 1));
        assert!(timers.disarm(10, 1));
        assert!(!timers.disarm(10, 1));
        assert_eq!(timers.pop_due(10), Some((10, 2)));
        assert_eq!(timers.pop_due(10), None);
    }

    #[test]
    fn a_moved_deadline_rings_once() {
        let mut timers = Timers::new();
        timers.arm(10, 1);
        assert!(timers.disarm(10, 1));
        timers.arm(20, 1);
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(20), Some((20, 1)));
        assert!(timers.is_empty());
    }
}
