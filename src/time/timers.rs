//! Deadlines of many things: a hierarchical timing wheel.
//!
//! Time is counted in ticks. The wheel has seven rings of 64 slots; a slot of the innermost ring is one tick, a
//! slot of each other ring a whole turn of the ring inside it. A deadline lies in the ring of the highest digit (to
//! base 64) in which it differs from the present, so everything in an inner ring is due before anything in an outer
//! one. When the present reaches a slot of an outer ring, what is in it moves inwards.

use crate::time::{Instant, Timestamp};

/// A point in time that a wheel can count.
pub trait Tick: Copy + Ord {
    /// The number of the first tick that is not before this point.
    fn tick(self) -> u64;
}

impl Tick for Timestamp {
    /// A tick is a millisecond.
    fn tick(self) -> u64 {
        self.as_millis()
    }
}

impl Tick for Instant {
    /// A tick is 2^20 nanoseconds, a little more than a millisecond.
    fn tick(self) -> u64 {
        self.as_nanos().div_ceil(1 << 20)
    }
}

/// The name of an armed deadline. It means nothing once the deadline has rung or was disarmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId {
    entry: u32,
    /// Tells those apart that had the same entry one after another.
    generation: u32,
}

/// The deadlines of many things. `T` is the clock's point, `K` names the thing. Those of one tick ring in the order
/// in which they were armed.
///
/// A thing that waits for several events arms the earliest and decides what happened when it rings: then there is one
/// entry per session or message whatever it waits for. Arming and disarming take constant time; a tick at which
/// nothing is due costs nothing, however many are armed. A deadline may ring late by the time it takes to move its
/// neighbours inwards, [`MOVES_MAX`] at a time, and never early.
#[derive(Debug)]
pub struct Timers<T, K> {
    /// The first entry of each slot, ring by ring.
    slots: Vec<[u32; SLOTS]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; RINGS],
    /// In chunks, so that growing moves nothing.
    chunks: Vec<Vec<Entry<T, K>>>,
    free: u32,
    present: u64,
    len: usize,
}

#[derive(Clone, Debug)]
struct Entry<T, K> {
    at: T,
    key: K,
    generation: u32,
    /// Neighbours in the slot, of which the first has the last in front of it; `next` is also the next free entry.
    previous: u32,
    next: u32,
    ring: u8,
    slot: u8,
}

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const RINGS: usize = 7;
/// Later ticks wait in the outermost ring, 139 years from now, and are looked at again there.
const SPAN: u64 = 1 << (DIGIT_BITS * RINGS as u32);
const CHUNK_BITS: u32 = 10;
const NONE: u32 = u32::MAX;
/// A ring value of entries that are not armed.
const FREE: u8 = u8::MAX;
/// Deadlines that one call of [`Timers::pop_due`] moves inwards.
pub const MOVES_MAX: usize = 2_048;
/// A clock that goes back by less is waited for; by more, and the wheel is set back.
const PATIENCE_TICKS: u64 = 1_000;

impl<T: Tick, K: Copy> Timers<T, K> {
    /// No deadline at all.
    pub fn new() -> Self {
        Self {
            slots: vec![[NONE; SLOTS]; RINGS],
            occupied: [0; RINGS],
            chunks: Vec::new(),
            free: NONE,
            present: 0,
            len: 0,
        }
    }

    /// Sets a deadline of `key`.
    pub fn arm(&mut self, at: T, key: K) -> TimerId {
        let number = self.free;
        self.len += 1;
        let number = if number == NONE {
            self.push(Entry { at, key, generation: 0, previous: NONE, next: NONE, ring: FREE, slot: 0 })
        } else {
            let entry = self.entry_mut(number);
            (entry.at, entry.key) = (at, key);
            self.free = entry.next;
            number
        };
        self.link(number);
        TimerId { entry: number, generation: self.entry(number).generation }
    }

    /// Removes a deadline; false when it has rung or was removed before, and then nothing changes.
    pub fn disarm(&mut self, timer: TimerId) -> bool {
        let is_armed = self.is_armed(timer);
        if is_armed {
            self.unlink(timer.entry);
            self.release(timer.entry);
        }
        is_armed
    }

    /// Whether a deadline has neither rung nor been removed.
    fn is_armed(&self, timer: TimerId) -> bool {
        let entry = self.entry(timer.entry);
        entry.generation == timer.generation && entry.ring != FREE
    }

    /// Takes a deadline that is `now` or before, earlier ticks first.
    pub fn pop_due(&mut self, now: T) -> Option<(T, K)> {
        let tick = now.tick();
        if tick + PATIENCE_TICKS < self.present {
            self.set_back(tick);
        }
        let mut moves = 0;
        loop {
            // What the present has reached moves inwards first: it may be due.
            while let Some((ring, slot)) = self.reached() {
                let number = self.slots[ring][slot];
                if number == NONE || moves == MOVES_MAX {
                    break;
                }
                self.unlink(number);
                self.link(number);
                moves += 1;
            }
            if let Some(number) = self.due_at_present(now) {
                self.unlink(number);
                let Entry { at, key, .. } = *self.entry(number);
                self.release(number);
                return Some((at, key));
            }
            if moves == MOVES_MAX || !self.advance(tick) {
                return None;
            }
        }
    }

    /// The earliest deadline: nothing is due before it.
    pub fn next_due(&self) -> Option<T> {
        let ring = self.occupied.iter().position(|occupied| *occupied != 0)?;
        let slot = self.occupied[ring].trailing_zeros() as usize;
        self.in_slot(ring, slot).map(|number| self.entry(number).at).min()
    }

    /// How many deadlines are armed.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has a deadline.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A slot of an outer ring whose time has begun.
    fn reached(&self) -> Option<(usize, usize)> {
        (1..RINGS).rev().find_map(|ring| {
            let slot = digit(self.present, ring);
            (self.occupied[ring] & (1 << slot) != 0).then_some((ring, slot))
        })
    }

    /// Something in the innermost slot of the present. Only a clock that went back finds it not due.
    fn due_at_present(&self, now: T) -> Option<u32> {
        self.in_slot(0, digit(self.present, 0)).find(|number| self.entry(*number).at <= now)
    }

    /// Goes on to the next slot that holds something, or to `tick`; whether a slot was reached.
    fn advance(&mut self, tick: u64) -> bool {
        for ring in 0..RINGS {
            let behind = digit(self.present, ring);
            let later = self.occupied[ring] & !(u64::MAX >> (SLOTS - 1 - behind));
            if later == 0 {
                continue;
            }
            let slot = u64::from(later.trailing_zeros());
            let shift = DIGIT_BITS * ring as u32;
            let outer = (self.present >> shift >> DIGIT_BITS) << DIGIT_BITS;
            let begins = (outer | slot) << shift;
            if begins > tick {
                break;
            }
            self.present = begins;
            return true;
        }
        self.present = self.present.max(tick);
        false
    }

    /// The clock went back: everything finds its slot anew.
    fn set_back(&mut self, tick: u64) {
        self.slots.fill([NONE; SLOTS]);
        self.occupied = [0; RINGS];
        self.present = tick;
        let armed: Vec<u32> = (0_u32..)
            .zip(self.chunks.iter().flatten())
            .filter(|(_, entry)| entry.ring != FREE)
            .map(|(number, _)| number)
            .collect();
        armed.into_iter().for_each(|number| self.link(number));
    }

    fn link(&mut self, number: u32) {
        // What should have rung rings at once; what is beyond the wheel waits at its end.
        let tick = self.entry(number).at.tick().clamp(self.present, self.present | (SPAN - 1));
        let ring = match self.present ^ tick {
            0 => 0,
            differs => (differs.ilog2() / DIGIT_BITS) as usize,
        };
        let slot = digit(tick, ring);
        let previous = match self.slots[ring][slot] {
            NONE => {
                self.slots[ring][slot] = number;
                self.occupied[ring] |= 1 << slot;
                number
            }
            first => {
                let last = std::mem::replace(&mut self.entry_mut(first).previous, number);
                self.entry_mut(last).next = number;
                last
            }
        };
        let entry = self.entry_mut(number);
        (entry.previous, entry.next) = (previous, NONE);
        (entry.ring, entry.slot) = (ring as u8, slot as u8);
    }

    fn unlink(&mut self, number: u32) {
        let Entry { previous, next, ring, slot, .. } = *self.entry(number);
        let (ring, slot) = (usize::from(ring), usize::from(slot));
        let first = self.slots[ring][slot];
        if first == number {
            self.slots[ring][slot] = next;
        } else {
            self.entry_mut(previous).next = next;
        }
        match (next, first == number) {
            (NONE, true) => self.occupied[ring] &= !(1 << slot),
            (NONE, false) => self.entry_mut(first).previous = previous,
            (next, _) => self.entry_mut(next).previous = previous,
        }
    }

    fn release(&mut self, number: u32) {
        let free = std::mem::replace(&mut self.free, number);
        let entry = self.entry_mut(number);
        entry.generation = entry.generation.wrapping_add(1);
        entry.ring = FREE;
        entry.next = free;
        self.len -= 1;
    }

    fn in_slot(&self, ring: usize, slot: usize) -> impl Iterator<Item = u32> {
        let existing = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(existing(self.slots[ring][slot]), move |number| {
            existing(self.entry(*number).next)
        })
    }

    fn push(&mut self, entry: Entry<T, K>) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == 1 << CHUNK_BITS) {
            self.chunks.push(Vec::with_capacity(1 << CHUNK_BITS));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(entry);
        let number = (chunk << CHUNK_BITS) + self.chunks[chunk].len() - 1;
        u32::try_from(number)
            .ok()
            .filter(|number| *number != NONE)
            .expect("fewer than four billion deadlines")
    }

    fn entry(&self, number: u32) -> &Entry<T, K> {
        &self.chunks[(number >> CHUNK_BITS) as usize][number as usize & ((1 << CHUNK_BITS) - 1)]
    }

    fn entry_mut(&mut self, number: u32) -> &mut Entry<T, K> {
        &mut self.chunks[(number >> CHUNK_BITS) as usize][number as usize & ((1 << CHUNK_BITS) - 1)]
    }
}

/// A digit of a tick's number: its slot in that ring.
const fn digit(tick: u64, ring: usize) -> usize {
    (tick >> (DIGIT_BITS * ring as u32)) as usize & (SLOTS - 1)
}

impl<T: Tick, K: Copy> Default for Timers<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn due(timers: &mut Timers<Timestamp, u32>, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| timers.pop_due(at(now))).map(|(at, _)| at.as_millis()).collect()
    }

    #[test]
    fn rings_in_order_and_not_before() {
        let mut timers = Timers::new();
        for millis in [30, 10, 5_000, 64, 10, 262_144] {
            timers.arm(at(millis), 0);
        }
        assert_eq!(timers.next_due(), Some(at(10)));
        assert_eq!(due(&mut timers, 9), [0_u64; 0]);
        assert_eq!(due(&mut timers, 29), [10, 10]);
        assert_eq!(due(&mut timers, 30), [30]);
        assert_eq!(timers.next_due(), Some(at(64)));
        assert_eq!(due(&mut timers, 4_999), [64]);
        assert_eq!((due(&mut timers, 1 << 40), timers.len()), (vec![5_000, 262_144], 0));
        assert_eq!(timers.next_due(), None);
    }

    #[test]
    fn those_of_one_tick_ring_in_the_order_of_their_arming() {
        let mut timers = Timers::new();
        let armed: Vec<TimerId> = (0..6).map(|key| timers.arm(at(70), key)).collect();
        for gone in [0, 3, 5] {
            assert!(timers.disarm(armed[gone]));
        }
        timers.arm(at(70), 6);
        let rung: Vec<u32> = std::iter::from_fn(|| timers.pop_due(at(70))).map(|(_, key)| key).collect();
        assert_eq!(rung, [1, 2, 4, 6]);
    }

    #[test]
    fn a_disarmed_deadline_does_not_ring_nor_does_its_entry_for_another() {
        let mut timers = Timers::new();
        let first = timers.arm(at(10), 1);
        timers.arm(at(10), 2);
        assert!(timers.disarm(first));
        let third = timers.arm(at(70), 3);
        assert!(!timers.disarm(first), "its entry has another deadline now");
        assert_eq!(timers.pop_due(at(100)), Some((at(10), 2)));
        assert_eq!(timers.pop_due(at(100)), Some((at(70), 3)));
        assert!(!timers.disarm(third), "it has rung");
        assert!(timers.is_empty());
    }

    #[test]
    fn what_is_past_rings_at_once_and_what_is_very_far_waits() {
        let mut timers = Timers::new();
        assert_eq!(timers.pop_due(at(1_000_000)), None);
        timers.arm(at(5), 1);
        timers.arm(Timestamp::MAX, 2);
        assert_eq!(timers.pop_due(at(1_000_000)), Some((at(5), 1)));
        assert_eq!(timers.pop_due(at(9_000_000_000_000)), None);
        assert_eq!(timers.pop_due(Timestamp::MAX), Some((Timestamp::MAX, 2)));
    }

    #[test]
    fn a_clock_that_goes_back_rings_nothing_early() {
        for back in [500, 5_000_000] {
            let mut timers = Timers::new();
            let start = 10_000_000;
            assert_eq!(timers.pop_due(at(start)), None);
            timers.arm(at(start + 100), 1);
            let earlier = start - back;
            assert_eq!(timers.pop_due(at(earlier)), None);
            timers.arm(at(earlier + 50), 2);
            assert_eq!(timers.pop_due(at(earlier + 49)), None);
            assert_eq!(timers.pop_due(at(earlier + 50)), Some((at(earlier + 50), 2)), "{back}");
            assert_eq!(timers.pop_due(at(start + 99)), None);
            assert_eq!(timers.pop_due(at(start + 100)), Some((at(start + 100), 1)));
        }
    }

    #[test]
    fn a_crowded_slot_moves_inwards_piece_by_piece() {
        let mut timers = Timers::new();
        let count = 3 * MOVES_MAX as u32;
        for key in 0..count {
            timers.arm(at((1 << 20) + u64::from(key)), key);
        }
        let (mut rung, mut calls) = (0, 0);
        while rung < count {
            calls += 1;
            assert!(calls < count + 10, "{rung} of {count} rang");
            rung += u32::from(timers.pop_due(at(1 << 21)).is_some());
        }
        assert_eq!(timers.pop_due(at(1 << 21)), None);
    }

    #[test]
    fn does_what_a_sorted_set_does() {
        let mut timers = Timers::new();
        let mut model = BTreeSet::new();
        let mut armed = Vec::new();
        let (mut random, mut now) = (7_u64, 1_790_000_000_000_u64);
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for key in 0..60_000_u32 {
            let span = [3, 60, 5_000, 300_000, 80_000_000][draw(5) as usize];
            let deadline = now + draw(span);
            armed.push((deadline, key, timers.arm(at(deadline), key)));
            model.insert((deadline, key));
            if draw(3) == 0 {
                let (deadline, key, timer) = armed.swap_remove(draw(armed.len() as u64) as usize);
                assert_eq!(timers.disarm(timer), model.remove(&(deadline, key)));
            }
            if draw(20) == 0 {
                now += draw(span);
                let mut rung = BTreeSet::new();
                while let Some((deadline, key)) = timers.pop_due(at(now)) {
                    assert!(rung.insert((deadline.as_millis(), key)));
                }
                let later = model.split_off(&(now + 1, 0));
                assert_eq!(rung, std::mem::replace(&mut model, later));
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.next_due().map(Timestamp::as_millis), model.first().map(|(at, _)| *at));
        }
    }
}
