//! The shells around the core: sockets, files, threads, clocks. Only `main` knows this module.

mod accounts_file;
mod admin;
mod balance;
mod barrier;
mod certificate;
pub mod cli;
mod clock;
mod connection;
mod control;
mod core;
mod descriptors;
mod disk;
mod durable_file;
mod executor;
mod fault;
mod handover;
mod http;
mod mesh;
mod outgoing;
pub mod pacemaker;
mod password;
mod recovery;
mod run;
mod segments;
mod state;
mod store_bench;
mod store_tool;
mod tls;
mod watch;

pub use run::serve;
