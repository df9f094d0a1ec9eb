//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Plays the customers of an SMPP server, measures what they see, and says when a promise was broken.
///
/// Exit codes: 0 every promise held, 1 one was broken or a goal missed, 2 the run could not be made.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Play a scenario against a server, and report.
    Run(Box<RunOptions>),
    /// Compare the documents of two runs.
    Compare {
        /// What `run --json` has written: the run to compare with.
        a: PathBuf,
        /// The other run.
        b: PathBuf,
    },
    /// Make the report page of a document.
    Html {
        /// What `run --json` has written.
        document: PathBuf,
        /// The page.
        page: PathBuf,
    },
    /// List the scenarios that are built in, or print one.
    Scenarios {
        /// Which one to print.
        name: Option<String>,
    },
    /// Answer like a message centre, and do nothing else.
    Echo {
        /// Where to listen; plain TCP.
        #[arg(long, default_value = "127.0.0.1:2775")]
        address: SocketAddr,
        /// Stay on this CPU.
        #[arg(long, value_name = "CPU")]
        pin: Option<usize>,
    },
    /// Measure the generator itself, against an echo on another CPU.
    SelfTest {
        /// How long to measure.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// PDUs a second (requests and responses) that one executor must reach, else the exit code is 1.
        #[arg(long, value_name = "N", default_value_t = 0)]
        at_least: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// What to play: a name that `smpp-bench scenarios` lists, or a file.
    #[arg(default_value = "submit")]
    pub(crate) scenario: String,

    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) changes: Changes,
    #[command(flatten)]
    pub(crate) output: OutputOptions,

    /// Threads that play connections.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) executors: usize,
    /// CPUs that they stay on, one each: `--pin 1,3`. By default the kernel decides, within what `taskset` allows.
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    pub(crate) pin: Vec<usize>,
    /// Seed of all that is random: with the same one, texts, numbers and due times are the same.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Drive the built-in echo first, and give the rate as a share of that.
    #[arg(long)]
    pub(crate) with_echo: bool,
    /// Find the highest rate whose latency stays below this: `p99<10ms`, `p99.9<50ms`. Each try lasts as long as the scenario;
    /// a rate that is refused or held back in part does not count.
    #[arg(long, value_name = "GOAL", conflicts_with = "pair")]
    pub(crate) until_saturated: Option<String>,
    /// Run two servers by turns, started with these commands and stopped with SIGTERM, and report the ratio round by round.
    /// Both listen at --address. With --json, the document is one of all rounds.
    #[arg(
        long,
        num_args = 2,
        value_names = ["COMMAND_A", "COMMAND_B"],
        conflicts_with_all = ["with_echo", "server_pid", "metrics", "html", "histograms"],
    )]
    pub(crate) pair: Option<Vec<String>>,
    /// Rounds of --pair: how often each of the two is run.
    #[arg(long, default_value_t = 3, value_name = "N", requires = "pair")]
    pub(crate) rounds: usize,
}

/// Whom to measure.
#[derive(Debug, Args)]
#[command(next_help_heading = "The server")]
pub(crate) struct ServerOptions {
    /// Where it listens, an address and a port [default: 127.0.0.1:2775, and with TLS 127.0.0.1:2776].
    #[arg(long)]
    pub(crate) address: Option<SocketAddr>,
    /// Speak TLS, and trust the certificates in this PEM file. Without it and without --tls-insecure: plain TCP.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Speak TLS, and trust any certificate.
    #[arg(long, conflicts_with = "tls_ca")]
    pub(crate) tls_insecure: bool,
    /// The name that the server's certificate has to be for.
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub(crate) tls_name: String,
    /// system_id to bind with. `{}` stands for the number of the account, from 0.
    #[arg(long, default_value = "demo")]
    pub(crate) system_id: String,
    /// Password to bind with. `{}` as in --system-id.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) password: String,
    /// The server's process on this machine: report what it uses of CPU and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// The same, of a server that has a metrics port (GET /metrics in the form of Prometheus, with process_cpu_seconds_total
    /// and process_resident_memory_bytes).
    #[arg(long, value_name = "ADDRESS", conflicts_with = "server_pid")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// What to change in the scenario.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changes to the scenario (where a group is concerned: to its first)")]
pub(crate) struct Changes {
    /// How long to measure.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// How long there is load before that.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) warm_up: Option<f64>,
    /// How long answers and receipts are waited for after it, at most.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain: Option<f64>,
    /// Connections, of all accounts of the group together.
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// Requests that each connection has in flight, at most.
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<usize>,
    /// An open loop: requests a second of the group, due at times of their own.
    #[arg(long, value_name = "N", conflicts_with = "until_saturated")]
    pub(crate) rate: Option<f64>,
    /// With --rate: independent of one another, not evenly spread.
    #[arg(long, requires = "rate")]
    pub(crate) poisson: bool,
    /// Octets of text.
    #[arg(long, value_name = "N")]
    pub(crate) octets: Option<usize>,
    /// Ask for a receipt with each message.
    #[arg(long)]
    pub(crate) receipts: bool,
    /// destination_addr; each `#` stands for a random digit.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) destination: Option<String>,
    /// source_addr; without it the server takes the account's own number.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) source: Option<String>,
}

/// Where the findings go, besides the table on stdout.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct OutputOptions {
    /// Write the document here.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots here.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write HdrHistogram's files (.hgrm, .hlog) into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) histograms: Option<PathBuf>,
    /// No progress, even on a terminal.
    #[arg(long)]
    pub(crate) quiet: bool,
}
