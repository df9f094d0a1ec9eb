//! Settings: what an operator may choose, its defaults, and what is sensible.
//!
//! [`Config::parse`] reads the text of a file; the flags of the command line then change the value, and
//! [`Config::check`] says whether the whole still makes sense.

mod file;

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::account::check_system_id;
use crate::carrier::SimulatorSettings;
use crate::message::Backoff;
use crate::route::CarrierIndex;
use crate::session::SessionSettings;
use crate::shard::{PartitionSettings, Validity};

/// Everything an operator chooses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// CPU cores to use; 0 = all.
    pub cores: usize,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// When a message counts as stored.
    pub durability: Durability,
    /// `off` to `trace`.
    pub log_level: String,
    /// The name in bind responses.
    pub system_id: String,
    /// Which machine this is, 0–15.
    pub node: u8,
    /// Addresses for SMPP over TLS.
    pub listen: Vec<SocketAddr>,
    /// Addresses for SMPP without encryption.
    pub listen_plain: Vec<SocketAddr>,
    /// Address of the HTTP port for metrics and health.
    pub admin: Option<SocketAddr>,
    /// Whether `admin` may be an address that other machines reach.
    pub admin_allow_remote: bool,
    /// The certificate chain, PEM.
    pub tls_certificate: Option<PathBuf>,
    /// The key of the certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// The accounts, if not in `data_dir`.
    pub accounts_file: Option<PathBuf>,
    /// Limits and timers of sessions.
    pub session: SessionSettings,
    /// Connections at one time, per core.
    pub connections_max: usize,
    /// TLS handshakes at one time, per core.
    pub handshakes_max: usize,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// A peer that takes nothing of what we send for so long is dropped.
    pub write_timeout: Duration,
    /// Octets that may wait to be sent on one session; above it we stop reading.
    pub output_octets_max: usize,
    /// How long messages are tried.
    pub validity: Validity,
    /// Pauses before a message that its carrier did not take is offered again.
    pub retry: Backoff,
    /// Pauses before a receipt or reply that was not confirmed is sent again.
    pub deliver_retry: Backoff,
    /// How long messages that are over stay known.
    pub final_retention: Duration,
    /// What each partition obeys.
    pub partition: PartitionSettings,
    /// The size of a journal file: whole MiB.
    pub journal_segment_octets: u64,
    /// Destination prefixes and their carriers.
    pub routes: Vec<(String, CarrierIndex)>,
    /// The carriers and their names, each in the place that its [`CarrierIndex`] says.
    pub carriers: Vec<(String, CarrierSettings)>,
}

/// When a record counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// It would survive a power cut.
    Fsync,
    /// The operating system has it.
    Os,
    /// At once.
    Memory,
}

/// A carrier, by its kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CarrierSettings {
    /// One that is not there.
    Simulator(SimulatorSettings),
}

/// The name of the carrier that exists when no other is configured.
const DEFAULT_CARRIER: &str = "simulator";
const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3_600);

impl Config {
    /// The default settings as a file that says what each of them means.
    pub const DEFAULT_TEXT: &str = include_str!("config.default.toml");

    /// Reads the text of a settings file; what it does not name has its default.
    ///
    /// # Errors
    /// The first thing that cannot be read, is not known, or makes no sense.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config = file::parse(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks the values, each by itself and with the others.
    ///
    /// # Errors
    /// The first one that makes no sense, by its key in the file.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_numbers()?;
        self.check_durations()?;
        self.check_addresses()?;
        self.check_text()?;
        self.check_routes()?;
        for (name, CarrierSettings::Simulator(settings)) in &self.carriers {
            check_simulator(&format!("carrier.{name}"), settings)?;
        }
        Ok(())
    }

    #[rustfmt::skip]
    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Self { session, partition, .. } = self;
        let count = |value: usize| value as u64;
        let segment_mib = self.journal_segment_octets / MIB;
        // A checkpoint must be over before the journal is full.
        let checkpoint_segments_max = count(partition.segments_max / 2);
        for (key, value, least, most) in [
            ("cores",                              count(self.cores),                  0, 128),
            ("node",                               self.node.into(),                   0, 15),
            ("session.pdu_octets_max",             count(session.pdu_octets_max),      1_024, 131_072),
            ("session.pdu_octets_max_unbound",     count(session.pdu_octets_max_unbound), 64, 131_072),
            ("session.window_in_max",              count(session.window_in_max),       1, 1_000_000),
            ("session.window_out_max",             count(session.window_out_max),      1, 1_000_000),
            ("session.bind_attempts_max",          session.bind_attempts_max.into(),   1, 255),
            ("limits.connections_max",             count(self.connections_max),        1, 1_000_000),
            ("limits.handshakes_max",              count(self.handshakes_max),         1, 1_000_000),
            ("limits.output_octets_max",           count(self.output_octets_max),      4_096, 1 << 30),
            ("limits.messages_max",                count(partition.messages_max),      1, u64::MAX),
            ("limits.messages_mib_max",            count(partition.messages_octets_max) / MIB, 1, u64::MAX / MIB),
            ("limits.store_waiting_max",           count(partition.store_waiting_max), 1, u64::MAX),
            ("journal.segment_mib",                segment_mib,                        8, 65_536),
            ("journal.checkpoint_segments",        count(partition.checkpoint_segments), 1, checkpoint_segments_max),
            ("journal.waiting_mib_max",            count(partition.journal_waiting_octets_max) / MIB, 1, 65_536),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::new(key, format!("{value} is not within {least} to {most}")));
            }
        }
        require(self.journal_segment_octets.is_multiple_of(MIB), "journal.segment_mib", "must be whole MiB")?;
        require(
            session.pdu_octets_max_unbound <= session.pdu_octets_max,
            "session.pdu_octets_max_unbound",
            "must not be more than pdu_octets_max",
        )
    }

    #[rustfmt::skip]
    fn check_durations(&self) -> Result<(), ConfigError> {
        let Self { session, validity, retry, deliver_retry, .. } = self;
        let moment = Duration::from_millis(10);
        let day = 24 * HOUR;
        for (key, value, least, most) in [
            ("session.session_init_timeout_seconds",    session.session_init_timeout,    moment, day),
            ("session.tls_handshake_timeout_seconds",   self.tls_handshake_timeout,      moment, day),
            ("session.enquire_link_interval_seconds",   session.enquire_link_interval,   moment, day),
            ("session.inactivity_timeout_seconds",      session.inactivity_timeout,      moment, 365 * day),
            ("session.response_timeout_seconds",        session.response_timeout,        moment, day),
            ("session.pdu_timeout_seconds",             session.pdu_timeout,             moment, day),
            ("session.write_timeout_seconds",           self.write_timeout,              moment, day),
            ("messages.validity_longest_hours",         validity.longest,                moment, 365 * day),
            ("messages.validity_default_hours",         validity.default,                moment, validity.longest),
            ("messages.retry_delay_min_seconds",        retry.delay_min,                 moment, day),
            ("messages.retry_delay_max_seconds",        retry.delay_max,                 retry.delay_min, 365 * day),
            ("messages.deliver_retry_delay_min_seconds", deliver_retry.delay_min,        moment, day),
            ("messages.deliver_retry_delay_max_seconds", deliver_retry.delay_max,        deliver_retry.delay_min, 365 * day),
            ("messages.parcel_retention_hours",         self.partition.parcel_retention, moment, 365 * day),
            ("messages.final_retention_hours",          self.final_retention,            moment, 365 * day),
        ] {
            if !(least..=most).contains(&value) {
                let reason = format!("{} is not within {} to {}", Span(value), Span(least), Span(most));
                return Err(ConfigError::new(key, reason));
            }
        }
        Ok(())
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let is_silent = self.listen.is_empty() && self.listen_plain.is_empty();
        require(!is_silent, "listen.tls", "no address to listen on, neither here nor in listen.plain")?;
        let keyed =
            |key, addresses: &[SocketAddr]| addresses.iter().map(move |address| (key, *address)).collect();
        let lists: [Vec<(&str, SocketAddr)>; 3] = [
            keyed("listen.tls", &self.listen),
            keyed("listen.plain", &self.listen_plain),
            keyed("listen.admin", self.admin.as_slice()),
        ];
        let addresses = lists.concat();
        for (place, (key, address)) in addresses.iter().enumerate() {
            // Port 0 = any that is free.
            let is_taken =
                address.port() != 0 && addresses[..place].iter().any(|(_, other)| other == address);
            require(!is_taken, key, &format!("{address} is there already"))?;
        }
        if let Some(admin) = self.admin {
            let reason = format!("{admin} is no loopback address; admin_allow_remote = true allows it");
            require(admin.ip().is_loopback() || self.admin_allow_remote, "listen.admin", &reason)?;
        }
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => Err(ConfigError::new("tls.key", "is missing beside tls.certificate")),
            (None, Some(_)) => Err(ConfigError::new("tls.certificate", "is missing beside tls.key")),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    fn check_text(&self) -> Result<(), ConfigError> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        require(!self.data_dir.as_os_str().is_empty(), "data_dir", "must name a directory")?;
        let reason = format!("\"{}\" is none of {}", self.log_level, LEVELS.join(", "));
        require(LEVELS.contains(&&*self.log_level), "log_level", &reason)?;
        check_system_id(&self.system_id).map_err(|reason| ConfigError::new("system_id", reason))
    }

    fn check_routes(&self) -> Result<(), ConfigError> {
        require(self.carriers.len() <= 256, "carrier", "there can be 256 of them")?;
        for (place, (prefix, CarrierIndex(carrier))) in self.routes.iter().enumerate() {
            let key = format!("route[{place}].prefix");
            let is_digits = prefix.len() <= 20 && prefix.bytes().all(|octet| octet.is_ascii_digit());
            require(is_digits, &key, &format!("\"{prefix}\" is not at most 20 digits"))?;
            let is_taken = self.routes[..place].iter().any(|(other, _)| other == prefix);
            require(!is_taken, &key, &format!("\"{prefix}\" has a route already"))?;
            let exists = usize::from(*carrier) < self.carriers.len();
            require(exists, &format!("route[{place}].carrier"), "there is no such carrier")?;
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cores: 0,
            data_dir: PathBuf::from("smppd-data"),
            durability: Durability::Fsync,
            log_level: "info".to_owned(),
            system_id: "smppd".to_owned(),
            node: 0,
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 2776))],
            listen_plain: Vec::new(),
            admin: None,
            admin_allow_remote: false,
            tls_certificate: None,
            tls_key: None,
            accounts_file: None,
            session: SessionSettings::default(),
            connections_max: 10_000,
            handshakes_max: 32,
            tls_handshake_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            output_octets_max: 256 << 10,
            validity: Validity { default: 72 * HOUR, longest: 7 * 24 * HOUR },
            retry: Backoff { delay_min: Duration::from_secs(5), delay_max: Duration::from_secs(5 * 60) },
            deliver_retry: Backoff {
                delay_min: Duration::from_secs(5),
                delay_max: Duration::from_secs(15 * 60),
            },
            final_retention: 72 * HOUR,
            partition: PartitionSettings::default(),
            journal_segment_octets: 64 * MIB,
            routes: vec![(String::new(), CarrierIndex(0))],
            carriers: vec![(
                DEFAULT_CARRIER.to_owned(),
                CarrierSettings::Simulator(SimulatorSettings::default()),
            )],
        }
    }
}

fn check_simulator(key: &str, settings: &SimulatorSettings) -> Result<(), ConfigError> {
    let SimulatorSettings { seed: _, delay_min, delay_max, outcomes, rules, reply_keyword } = settings;
    let reason = format!("{} is not within {} to {}", Span(*delay_max), Span(*delay_min), Span(24 * HOUR));
    require((*delay_min..=24 * HOUR).contains(delay_max), &format!("{key}.delay_max_millis"), &reason)?;
    let has_weight = outcomes.is_empty() || outcomes.iter().any(|&(_, _, weight)| weight > 0);
    require(has_weight, &format!("{key}.outcomes"), "one weight at least must be more than 0")?;
    let errors = outcomes.iter().map(|&(_, error, _)| ("outcomes", error));
    let errors = errors.chain(rules.iter().map(|rule| ("rule", rule.error.unwrap_or(0))));
    for (list, error) in errors {
        require(error <= 999, &format!("{key}.{list}.error"), &format!("{error} is not within 0 to 999"))?;
    }
    for rule in rules {
        let names = rule.prefix.is_some() || rule.suffix.is_some();
        require(names, &format!("{key}.rule"), "has neither prefix nor suffix")?;
        for (end, digits) in [("prefix", &rule.prefix), ("suffix", &rule.suffix)] {
            let is_digits = digits.iter().all(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()));
            require(is_digits, &format!("{key}.rule.{end}"), "is not digits only")?;
        }
    }
    let is_word = reply_keyword.bytes().all(|octet| octet.is_ascii_alphanumeric());
    require(is_word, &format!("{key}.reply_keyword"), "is not letters and digits of ASCII only")
}

fn require(holds: bool, key: &str, reason: &str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(key, reason)) }
}

/// A duration as a reader of settings likes it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if self.0.subsec_nanos() == 0 && seconds.is_multiple_of(3_600) && seconds > 0 {
            write!(f, "{} h", seconds / 3_600)
        } else {
            write!(f, "{} s", self.0.as_secs_f64())
        }
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            "memory" => Ok(Self::Memory),
            _ => Err(format!("\"{text}\" is none of fsync, os, memory")),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
            Self::Memory => "memory",
        })
    }
}

/// A setting that cannot be used. The name of the file is for the caller to add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The path to it: `session.window_in_max`; empty when the text is no TOML at all.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl ConfigError {
    /// What is wrong with the setting at `key`.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }

    /// What the TOML reader found wrong in `text`; the key is the last header before the place, and the key
    /// on its line.
    pub fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        let Some(span) = error.span() else { return Self::new("", message) };
        let before = text.get(..span.start).unwrap_or(text);
        let line_number = before.matches('\n').count();
        let (mut table, mut key) = ("", "");
        for line in text.lines().take(line_number + 1).map(str::trim) {
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                (table, key) = (header.trim_start_matches('['), "");
            } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with(['#', '{'])) {
                key = name.trim();
            }
        }
        let path = [table, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        Self::new(path, format!("{message} (line {})", line_number + 1))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

impl Error for ConfigError {}

#[cfg(test)]
mod tests;
