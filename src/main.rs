//! The `smppd` program.

fn main() {}
