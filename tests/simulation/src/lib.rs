//! A deterministic simulation of `smppd`: the real core, with a disk, a network, clocks, carriers and customers
//! that follow from a seed, and an oracle that knows what was promised.

pub mod allowance;
pub mod carrier;
pub mod disk;
pub mod esme;
pub mod network;
pub mod oracle;
pub mod random;
pub mod terms;
pub mod trace;
pub mod workload;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use oracle::Seen;
pub use world::{Outcome, run};

/// Runs a seed; a panic is a violation like any other.
pub fn run_caught(seed: u64) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, false))).unwrap_or_else(|fault| {
        let text = fault
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| fault.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        Outcome { violations: vec![format!("panic: {text}")], hash: 0, events: 0, seen: Seen::default() }
    })
}

/// How to see a run again.
pub fn replay_command(seed: u64) -> String {
    format!("cargo run -p smppd-sim -- --seed {seed}")
}
