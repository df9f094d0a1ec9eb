//! Rate limits: how fast an account may submit, over all cores together.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate limit with a burst, exact across threads, after the generic cell rate algorithm.
///
/// A rate divides every second into equal slots, and a message takes the next free one. The free slots
/// up to `burst` ahead of now are what may still pass. All that is stored is where the free slots begin.
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

    /// Changes the limit for everything admitted from now on. Another rate begins with its whole burst: what was taken at a
    /// slow one, perhaps for an hour ahead, would keep a fast one waiting. At the same rate what was taken stays taken.
    pub fn configure(&self, rate: u32, burst: u32) {
        let limits = Limits { rate, burst }.pack();
        let before = self.limits.swap(limits, Ordering::Relaxed);
        if Limits::unpack(before).rate != Limits::unpack(limits).rate {
            self.free_from.store(0, Ordering::Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// How many of `tries` single messages pass at `nanos`.
    fn admitted(throttle: &Throttle, nanos: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(throttle.admit(Instant::from_nanos(nanos), 1))).sum()
    }

    #[test]
    fn admits_the_burst_and_then_the_rate() {
        for (rate, burst) in [(1, 1), (1, 10), (3, 1), (7, 2), (100, 20), (999, 1), (70_000, 500)] {
            let throttle = Throttle::new(rate, burst);
            assert_eq!(admitted(&throttle, 0, burst + 1), burst, "{rate}/s + {burst}");
            for second in 1..=3 {
                // One thousand looks at the second, none of which may lose a fraction of a message.
                let passed: u32 = (1..=1_000)
                    .map(|millis| {
                        admitted(&throttle, (second - 1) * NANOS_PER_SECOND + millis * 1_000_000, 100)
                    })
                    .sum();
                assert_eq!(passed, rate, "{rate}/s + {burst}, second {second}");
            }
        }
    }

    #[test]
    fn fills_up_to_the_burst_and_no_further() {
        let throttle = Throttle::new(10, 5);
        assert_eq!(admitted(&throttle, 0, 100), 5);
        assert_eq!(admitted(&throttle, 250_000_000, 100), 2);
        assert_eq!(admitted(&throttle, 3_600 * NANOS_PER_SECOND, 100), 5);
    }

    #[test]
    fn no_burst_means_one_seconds_worth() {
        assert_eq!(admitted(&Throttle::new(30, 0), 0, 100), 30);
    }

    #[test]
    fn no_rate_means_no_limit() {
        assert!(Throttle::new(0, 1).admit(Instant::ZERO, u32::MAX));
    }

    #[test]
    fn a_refusal_changes_nothing() {
        let throttle = Throttle::new(10, 5);
        assert!(throttle.admit(Instant::ZERO, 3));
        for _ in 0..100 {
            assert!(!throttle.admit(Instant::ZERO, 3));
        }
        assert!(throttle.admit(Instant::ZERO, 2));
        assert!(!throttle.admit(Instant::ZERO, 1));
    }

    #[test]
    fn a_cost_above_the_burst_passes_when_the_burst_is_whole_and_is_paid_for() {
        let second = |seconds| Instant::from_nanos(seconds * NANOS_PER_SECOND);
        let throttle = Throttle::new(10, 5);
        assert!(throttle.admit(second(0), 1));
        assert!(!throttle.admit(second(0), 20));
        assert!(throttle.admit(second(1), 20));
        // 20 taken of 5: the next one must wait for 16 more.
        assert!(!throttle.admit(Instant::from_nanos(2_599_999_999), 1));
        assert!(throttle.admit(Instant::from_nanos(2_600_000_000), 1));
    }

    #[test]
    fn a_clock_slightly_behind_admits_nothing_extra() {
        let throttle = Throttle::new(10, 5);
        assert_eq!(admitted(&throttle, NANOS_PER_SECOND, 10), 5);
        assert_eq!(admitted(&throttle, NANOS_PER_SECOND - 1_000, 10), 0);
    }

    #[test]
    fn a_new_limit_holds_at_once() {
        let hour = 3_600 * NANOS_PER_SECOND;
        let throttle = Throttle::new(1_000, 100);
        assert_eq!(admitted(&throttle, hour, 200), 100);
        throttle.configure(1, 2);
        assert_eq!(admitted(&throttle, hour, 10), 2);
        throttle.configure(1, 2);
        assert_eq!(admitted(&throttle, hour, 10), 0, "it is no other one");
        assert_eq!(admitted(&throttle, hour + NANOS_PER_SECOND, 10), 1);
        throttle.configure(1_000, 100);
        assert_eq!(admitted(&throttle, hour + 10 * NANOS_PER_SECOND, 200), 100);
        throttle.configure(0, 0);
        assert_eq!(admitted(&throttle, hour + 10 * NANOS_PER_SECOND, 200), 200);
    }

    #[test]
    fn a_faster_limit_does_not_wait_for_what_was_taken_of_a_slower_one() {
        let throttle = Throttle::new(1, 3_600);
        let now = 7 * NANOS_PER_SECOND;
        assert_eq!(admitted(&throttle, now, 5_000), 3_600);
        throttle.configure(1_000, 100);
        assert_eq!(admitted(&throttle, now, 5_000), 100);
        throttle.configure(1_000, 200);
        assert_eq!(admitted(&throttle, now, 5_000), 100, "of the same rate");
    }

    #[test]
    fn survives_the_largest_numbers() {
        let throttle = Throttle::new(u32::MAX, u32::MAX);
        assert!(throttle.admit(Instant::from_nanos(u64::MAX), u32::MAX));
        throttle.configure(1, 1);
        throttle.admit(Instant::from_nanos(u64::MAX), u32::MAX);
    }

    #[test]
    fn threads_share_exactly_one_limit() {
        const RATE: u32 = 50_000;
        const BURST: u32 = 1_234;
        const THREADS: u64 = 8;
        let throttle = Throttle::new(RATE, BURST);
        // Every thread sees the second at its own pace and asks for more than there is.
        let simulate = |thread: u64| {
            let step = 1_000_000 + thread * 7;
            let seen = (0..).map(move |turn| turn * step).take_while(|&nanos| nanos < NANOS_PER_SECOND);
            seen.chain([NANOS_PER_SECOND]).map(|nanos| admitted(&throttle, nanos, 60)).sum::<u32>()
        };
        let total: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || simulate(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        let rest = admitted(&throttle, NANOS_PER_SECOND, BURST + 1);
        assert_eq!(total + rest, BURST + RATE);
    }

    proptest! {
        #[test]
        fn a_slot_survives_its_start(nanos: u64, rate in 1..=1_000_000_000_u32) {
            let slot = slot_at(nanos, rate);
            prop_assert!(slot_start(slot, rate) <= nanos);
            prop_assert_eq!(slot_at(slot_start(slot, rate), rate), slot);
        }
    }
}
