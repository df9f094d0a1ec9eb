//! Rate limits: how fast an account may submit, over all cores together.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate limit with a burst, exact across threads, after the generic cell rate algorithm.
///
/// A rate divides every second into equal slots, and a message takes the next free one. The free slots
/// up to `burst` ahead of now are what may still pass. All that is stored is where the free slots begin;
/// it is a point in time rather than a slot number, so it keeps its meaning when the rate changes.
/// One compare-and-exchange decides, so no two threads are given the same slot.
#[derive(Debug)]
pub struct Throttle {
    /// The theoretical arrival time: where the first free slot begins, in nanoseconds of [`Instant`].
    free_from: AtomicU64,
    /// Rate and burst in one word, so that nobody sees one half of a change.
    limits: AtomicU64,
}

impl Throttle {
    /// A limit with its whole burst available. `rate` is in messages per second, 0 for no limit and a
    /// thousand million at most; `burst` is in messages, 0 for one second's worth.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self { free_from: AtomicU64::new(0), limits: AtomicU64::new(Limits { rate, burst }.pack()) }
    }

    /// Changes the limit for everything admitted from now on; what was taken stays taken.
    pub fn configure(&self, rate: u32, burst: u32) {
        self.limits.store(Limits { rate, burst }.pack(), Ordering::Relaxed);
    }

    /// Takes `cost` messages, or refuses and changes nothing.
    ///
    /// A cost above the burst passes when the whole burst is available, and whoever comes after it waits
    /// until it is paid for; otherwise it could never pass.
    pub fn admit(&self, now: Instant, cost: u32) -> bool {
        let Limits { rate, burst } = Limits::unpack(self.limits.load(Ordering::Relaxed));
        if rate == 0 {
            return true;
        }
        let current = slot_at(now.as_nanos(), rate);
        // Relaxed: the word guards nothing but itself.
        self.free_from
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free_from| {
                let free = slot_at(free_from, rate).max(current);
                let next = free.saturating_add(u64::from(cost));
                let fits = next <= current.saturating_add(u64::from(burst)) || free == current;
                fits.then(|| slot_start(next, rate))
            })
            .is_ok()
    }
}

/// Rate per second and burst in messages.
struct Limits {
    rate: u32,
    burst: u32,
}

impl Limits {
    fn pack(self) -> u64 {
        // A slot shorter than a nanosecond could not be told from the next one.
        let rate = u64::from(self.rate).min(NANOS_PER_SECOND);
        let burst = if self.burst == 0 { rate } else { u64::from(self.burst) };
        rate << 32 | burst
    }

    fn unpack(word: u64) -> Self {
        Self { rate: (word >> 32) as u32, burst: word as u32 }
    }
}

/// The slot that contains `nanos`. Every second begins with a slot, which keeps the products small and
/// the count free of drift.
fn slot_at(nanos: u64, rate: u32) -> u64 {
    let rate = u64::from(rate);
    nanos / NANOS_PER_SECOND * rate + nanos % NANOS_PER_SECOND * rate / NANOS_PER_SECOND
}

/// The first nanosecond inside `slot`: `slot_at` takes it back to `slot`, as no slot is shorter.
fn slot_start(slot: u64, rate: u32) -> u64 {
    let rate = u64::from(rate);
    let within_second = (slot % rate * NANOS_PER_SECOND).div_ceil(rate);
    (slot / rate).saturating_mul(NANOS_PER_SECOND).saturating_add(within_second)
}
