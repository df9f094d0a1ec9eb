//! `smppd`: an SMPP v5.0 message centre.
//!
//! Everything here except [`server`](https://docs.rs) is the core: plain data and functions without
//! sockets, files, threads, clocks or async. It is told what happened and answers with what to do.

pub mod pdu;
pub mod throttle;
pub mod time;
