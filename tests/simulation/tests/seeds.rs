//! Many worlds, each from a seed. A seed that fails is named with the command that shows it again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use smppd_sim::{Seen, replay_command, run, run_caught};

/// Failures after which the others are not waited for.
const FAILURES_MAX: usize = 3;
/// So many runs together see everything that they are for.
const SEEDS_ENOUGH: u64 = 1_000;

/// A number from the environment, or the default when nothing is set.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var_os(name) {
        None => default,
        Some(text) => {
            let number = text.to_str().and_then(|text| text.parse().ok());
            number.unwrap_or_else(|| panic!("{name} is {text:?}, which is no number"))
        }
    }
}

#[test]
fn every_promise_is_kept() {
    let (from, seeds) = (setting("SMPPD_SIM_FROM", 1), setting("SMPPD_SIM_SEEDS", 2_000));
    assert!(seeds > 0, "SMPPD_SIM_SEEDS is 0: nothing would be looked at");
    let next = AtomicU64::new(0);
    let failures: Mutex<Vec<String>> = Mutex::default();
    let seen: Mutex<Seen> = Mutex::default();
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= seeds || failures.lock().expect("no panic").len() >= FAILURES_MAX {
            return;
        }
        let seed = from + number;
        let outcome = run_caught(seed);
        seen.lock().expect("no panic").add(&outcome.seen);
        if let Some(violation) = outcome.violations.first() {
            let text = format!("seed {seed}: {violation}\n    replay with: {}", replay_command(seed));
            failures.lock().expect("no panic").push(text);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(work)));
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
    let seen = seen.into_inner().expect("no panic");
    let unseen = seen.counts().into_iter().filter(|(_, count)| *count == 0).map(|(what, _)| what);
    let unseen: Vec<&str> = unseen.filter(|_| seeds >= SEEDS_ENOUGH).collect();
    assert!(unseen.is_empty(), "in {seeds} seeds there was nothing {unseen:?}: {seen:?}");
}

#[test]
fn a_seed_replays() {
    for seed in 1..20 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}
