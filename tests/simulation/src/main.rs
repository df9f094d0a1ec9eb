//! `smppd-sim`: runs seeds, or one seed with everything that happens in it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use smppd_sim::{Outcome, Seen, replay_command, run, run_caught};

const USAGE: &str = "\
smppd-sim --seed N [--trace]          one run, with every event on request
smppd-sim --seeds N [--from SEED]     so many runs
smppd-sim --seconds N [--from SEED]   as many as fit";

struct Arguments {
    seed: Option<u64>,
    from: u64,
    seeds: u64,
    seconds: u64,
    is_traced: bool,
}

fn arguments() -> Option<Arguments> {
    let mut arguments =
        Arguments { seed: None, from: 1, seeds: u64::MAX, seconds: u64::MAX, is_traced: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--trace" {
            arguments.is_traced = true;
            continue;
        }
        let number = words.next()?.parse().ok()?;
        match word.as_str() {
            "--seed" => arguments.seed = Some(number),
            "--from" => arguments.from = number,
            "--seeds" => arguments.seeds = number,
            "--seconds" => arguments.seconds = number,
            _ => return None,
        }
    }
    let is_bounded = arguments.seeds != u64::MAX || arguments.seconds != u64::MAX;
    (arguments.seed.is_some() || is_bounded).then_some(arguments)
}

fn report(seed: u64, outcome: &Outcome) {
    for violation in &outcome.violations {
        println!("seed {seed}: {violation}");
    }
    println!("replay with: {}", replay_command(seed));
}

fn main() -> ExitCode {
    let Some(Arguments { seed, from, seeds, seconds, is_traced }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Some(seed) = seed {
        let outcome = run(seed, is_traced);
        println!("seed {seed}: {} events, hash {:016x}, {:?}", outcome.events, outcome.hash, outcome.seen);
        if outcome.violations.is_empty() {
            return ExitCode::SUCCESS;
        }
        report(seed, &outcome);
        return ExitCode::FAILURE;
    }
    let (begun, mut seen, mut events, mut runs) = (Instant::now(), Seen::default(), 0, 0);
    for seed in (from..).take(usize::try_from(seeds).unwrap_or(usize::MAX)) {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let outcome = run_caught(seed);
        if !outcome.violations.is_empty() {
            report(seed, &outcome);
            println!("after {} seeds, {:.1} s", seed - from + 1, begun.elapsed().as_secs_f64());
            return ExitCode::FAILURE;
        }
        seen.add(&outcome.seen);
        events += outcome.events;
        runs += 1;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    println!(
        "{runs} seeds, {events} events, {elapsed:.1} s, {:.0} seeds a second",
        f64::from(runs) / elapsed
    );
    println!("{seen:?}");
    ExitCode::SUCCESS
}
