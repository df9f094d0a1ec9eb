//! `smpp-bench`: the load generator of `smppd`.

fn main() {}
