//! How still a machine is: the time that a thread loses that does nothing but look at the clock, one on each CPU. No
//! server that shares this machine can have better tails than that.
//!
//!     cargo run --release --example stalls -- [SECONDS]

use std::thread;
use std::time::{Duration, Instant};

/// Shorter ones are interrupts.
const STALL: Duration = Duration::from_micros(300);

/// How many stalls there were, how long they were together, and the longest.
fn watch(time: Duration) -> (u32, Duration, Duration) {
    let start = Instant::now();
    let (mut count, mut lost, mut longest) = (0, Duration::ZERO, Duration::ZERO);
    let mut last = start;
    while last - start < time {
        let now = Instant::now();
        let gap = now - last;
        if gap > STALL {
            (count, lost, longest) = (count + 1, lost + gap, longest.max(gap));
        }
        last = now;
    }
    (count, lost, longest)
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(5, |text| text.parse().expect("a number"));
    let time = Duration::from_secs(seconds);
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let watchers: Vec<_> = (0..cpus).map(|_| thread::spawn(move || watch(time))).collect();
    for watcher in watchers {
        let (count, lost, longest) = watcher.join().expect("a watcher");
        let share = 100.0 * lost.as_secs_f64() / time.as_secs_f64();
        println!("{share:.2} % of the time lost in {count} stalls, the longest {longest:.1?}");
    }
}
