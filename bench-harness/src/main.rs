//! `smpp-bench`: the load generator of `smppd`, and its referee.
//!
//! Closed loop: every connection keeps its window full. Each response must bring an id of its own, and each
//! receipt that was asked for must come once, after its response. A run that breaks a promise exits with 1.

mod esme;
mod referee;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;

use crate::esme::{Esme, Outcome, Plan};

/// Plays ESMEs against an SMPP server and reports rates and latencies.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Options {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:2776")]
    address: SocketAddr,
    /// Trust this certificate and speak TLS; without it, plain TCP.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name in the bind.
    #[arg(long, default_value = "demo")]
    system_id: String,
    /// Password in the bind.
    #[arg(long)]
    password: String,
    /// Connections, each bound as a transceiver.
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// submit_sm in flight on each connection.
    #[arg(long, default_value_t = 100)]
    window: usize,
    /// Messages a second, over all connections, due at regular times: an open loop, whose latencies count from when a
    /// message was due. Without it every window is kept full.
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// How long to submit.
    #[arg(long, default_value_t = 10, conflicts_with = "count")]
    seconds: u64,
    /// Submit so many messages in all, however long it takes.
    #[arg(long)]
    count: Option<u64>,
    /// Ask for a receipt with each message, and wait for all of them.
    #[arg(long)]
    receipts: bool,
    /// Destination of every message.
    #[arg(long, default_value = "12125551234")]
    destination: String,
    /// Octets of text in each message.
    #[arg(long, default_value_t = 160)]
    octets: usize,
    /// How long to wait for receipts after the last response.
    #[arg(long, default_value_t = 30)]
    drain_seconds: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            faults.iter().for_each(|fault| eprintln!("BROKEN: {fault}"));
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("smpp-bench: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<Vec<String>, String> {
    let tls = options.tls_ca.as_deref().map(esme::trust).transpose()?;
    let plan = Arc::new(Plan {
        address: options.address,
        tls,
        system_id: options.system_id.clone(),
        password: options.password.clone(),
        window: options.window,
        rate: options.rate.map(|rate| rate as f64 / 1_000.0 / options.connections as f64),
        receipts: options.receipts,
        destination: options.destination.clone(),
        text: vec![b'x'; options.octets],
        until: Instant::now()
            + Duration::from_secs(if options.count.is_some() { 3_600 } else { options.seconds }),
        budget: AtomicU64::new(options.count.unwrap_or(u64::MAX)),
        drain: Duration::from_secs(options.drain_seconds),
        referee: referee::Referee::default(),
        due: AtomicI64::new(0),
    });
    let start = Instant::now();
    let threads: Vec<_> = (0..options.connections)
        .map(|_| {
            let plan = Arc::clone(&plan);
            thread::spawn(move || Esme::connect(plan).and_then(Esme::run))
        })
        .collect();
    let mut total = Outcome::new();
    let mut faults = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(Ok(outcome)) => total.add(&outcome),
            Ok(Err(message)) => faults.push(message),
            Err(_) => faults.push("a connection's thread panicked".to_owned()),
        }
    }
    report(options, &total, start.elapsed());
    faults.extend(plan.referee.verdict(options.receipts));
    Ok(faults)
}

fn report(options: &Options, total: &Outcome, elapsed: Duration) {
    let submitting = total.submitting.as_secs_f64().max(1e-9);
    println!(
        "{} connections x window {}, {}, {} octets{}",
        options.connections,
        options.window,
        if options.tls_ca.is_some() { "TLS" } else { "plain" },
        options.octets,
        if options.receipts { ", with receipts" } else { "" }
    );
    println!("accepted   {:>10}  {:>10.0}/s", total.accepted, total.accepted as f64 / submitting);
    if options.receipts {
        println!(
            "receipts   {:>10}  {:>10.0}/s",
            total.receipts,
            total.receipts as f64 / elapsed.as_secs_f64()
        );
    }
    if total.refused > 0 {
        println!("refused    {:>10}", total.refused);
    }
    line("submit_sm -> resp   ", &total.response_micros);
    if options.receipts {
        line("submit_sm -> receipt", &total.receipt_micros);
    }
}

fn line(name: &str, micros: &Histogram<u64>) {
    let at = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1_000.0;
    println!(
        "{name}  p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        micros.max() as f64 / 1_000.0
    );
}
