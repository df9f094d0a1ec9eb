//! `smppd`: an SMPP v5.0 message centre.
//!
//! Everything here except `server` is the core: plain data and functions without sockets, files, threads,
//! clocks or async. It is told what happened and answers with what to do.

// A new state visits every decision (in tests, whatever is not expected is a failure all the same).
#![warn(clippy::wildcard_enum_match_arm)]

pub mod account;
pub mod carrier;
pub mod config;
pub mod journal;
pub mod message;
pub mod metrics;
pub mod pdu;
pub mod route;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod shard;
pub mod store;
pub mod throttle;
pub mod time;
