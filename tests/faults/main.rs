//! Real faults: the process killed, the power cut, the disk broken or full, octets flipped, the clock set.
//!
//! `scripts/torture` runs all of it for longer.

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod errors;
mod flips;
mod full;
mod kills;
mod late;
mod power;
