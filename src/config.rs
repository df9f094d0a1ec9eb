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
mod tests {
    use super::*;
    use crate::carrier::Behaviour;
    use crate::pdu::receipt::MessageState;

    fn refused(text: &str) -> ConfigError {
        match Config::parse(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => error,
        }
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        assert_eq!(Config::parse(Config::DEFAULT_TEXT), Ok(Config::default()));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn every_key_is_documented() {
        // The reader names the keys it knows when it meets one that it does not.
        let mut known = 0;
        for section in [
            "zzz = 1",
            "[listen]\nzzz = 1",
            "[tls]\nzzz = 1",
            "[accounts]\nzzz = 1",
            "[session]\nzzz = 1",
            "[limits]\nzzz = 1",
            "[messages]\nzzz = 1",
            "[journal]\nzzz = 1",
            "[[route]]\nzzz = 1",
            "[carrier.x]\nzzz = 1",
            "[carrier.x]\nkind = \"simulator\"\noutcomes = [{ zzz = 1 }]",
            "[carrier.x]\nkind = \"simulator\"\n[[carrier.x.rule]]\nzzz = 1",
        ] {
            let reason = refused(section).reason;
            let names = reason.strip_prefix("unknown field `zzz`, expected").expect(&reason);
            for key in names.split('`').skip(1).step_by(2) {
                let text = Config::DEFAULT_TEXT;
                let is_there =
                    [format!("{key} ="), format!("[{key}]"), format!("[{key}."), format!(".{key}]")];
                assert!(is_there.iter().any(|form| text.contains(form)), "{section}: {key}");
                known += 1;
            }
        }
        assert_eq!(known, 68);
    }

    #[test]
    fn reads_what_a_file_names_and_leaves_the_rest() {
        let config = Config::parse(
            r#"
            cores = 3
            data_dir = "/var/lib/smppd"
            durability = "os"
            [listen]
            tls = []
            plain = ["127.0.0.1:0", "[::1]:2775"]
            admin = "127.0.0.1:9776"
            [tls]
            certificate = "a.pem"
            key = "b.pem"
            [session]
            session_init_timeout_seconds = 0.3
            write_timeout_seconds = 2
            [messages]
            parcel_retention_hours = 0.5
            [journal]
            segment_mib = 8
            waiting_mib_max = 2
            "#,
        )
        .expect("sensible");
        let default = Config::default();
        let expected = Config {
            cores: 3,
            data_dir: "/var/lib/smppd".into(),
            durability: Durability::Os,
            listen: Vec::new(),
            listen_plain: ["127.0.0.1:0", "[::1]:2775"].map(|text| text.parse().expect("an address")).into(),
            admin: "127.0.0.1:9776".parse().ok(),
            tls_certificate: Some("a.pem".into()),
            tls_key: Some("b.pem".into()),
            session: SessionSettings {
                session_init_timeout: Duration::from_millis(300),
                ..default.session.clone()
            },
            write_timeout: Duration::from_secs(2),
            partition: PartitionSettings {
                parcel_retention: HOUR / 2,
                journal_waiting_octets_max: 2 << 20,
                ..default.partition
            },
            journal_segment_octets: 8 << 20,
            ..default
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn carriers_keep_the_order_of_the_file() {
        let config = Config::parse(
            r#"
            [[route]]
            prefix = "+44"
            carrier = "alpha"
            [[route]]
            prefix = ""
            carrier = "zulu"
            [carrier.zulu]
            kind = "simulator"
            seed = 7
            rule = []
            [carrier.alpha]
            kind = "simulator"
            outcomes = [{ outcome = "DELIVRD", weight = 95 }, { outcome = "UNDELIV", weight = 5, error = 34 }]
            [[carrier.alpha.rule]]
            suffix = "00"
            outcome = "ACCEPTD-REJECTD"
            error = 8
            "#,
        )
        .expect("sensible");
        let zulu = SimulatorSettings { seed: 7, rules: Vec::new(), ..SimulatorSettings::default() };
        let alpha = SimulatorSettings {
            outcomes: vec![(MessageState::DELIVERED, 0, 95), (MessageState::UNDELIVERABLE, 34, 5)],
            rules: vec![crate::carrier::SimulatorRule {
                prefix: None,
                suffix: Some("00".to_owned()),
                behaviour: Behaviour::AcceptedThen(MessageState::REJECTED),
                error: Some(8),
            }],
            ..SimulatorSettings::default()
        };
        let simulator = |name: &str, settings| (name.to_owned(), CarrierSettings::Simulator(settings));
        assert_eq!(config.carriers, [simulator("zulu", zulu), simulator("alpha", alpha)]);
        assert_eq!(config.routes, [("44".to_owned(), CarrierIndex(1)), (String::new(), CarrierIndex(0))]);
    }

    #[test]
    fn a_single_carrier_takes_everything() {
        let config = Config::parse("[carrier.x]\nkind = \"simulator\"").expect("sensible");
        assert_eq!(config.routes, [(String::new(), CarrierIndex(0))]);
        let config = Config::parse("[[route]]\nprefix = \"1\"\ncarrier = \"simulator\"").expect("sensible");
        assert_eq!(config.routes, [("1".to_owned(), CarrierIndex(0))]);
        assert_eq!(config.carriers, Config::default().carriers);
    }

    #[test]
    fn refuses_what_makes_no_sense_by_key_and_reason() {
        let table = [
            ("cores = ", "cores", "(line 1)"),
            ("\ncorse = 1", "corse", "unknown field `corse`"),
            ("[sesion]", "sesion", "unknown field `sesion`"),
            ("cores = \"all\"", "cores", "invalid type: string"),
            ("cores = -1", "cores", "invalid value: integer `-1`"),
            ("cores = 129", "cores", "129 is not within 0 to 128"),
            ("cores = 1\ncores = 2", "cores", "duplicate key"),
            ("data_dir = \"\"", "data_dir", "must name a directory"),
            ("durability = \"disk\"", "durability", "none of fsync, os, memory"),
            ("log_level = \"loud\"", "log_level", "none of off, error"),
            ("system_id = \"\"", "system_id", "1 to 15"),
            ("system_id = \"a b\"", "system_id", "printable"),
            ("system_id = \"0123456789abcdef\"", "system_id", "1 to 15"),
            ("node = 16", "node", "0 to 15"),
            ("node = 256", "node", "expected u8"),
            ("[listen]\ntls = []", "listen.tls", "no address to listen on"),
            ("[listen]\ntls = [\"2776\"]", "listen.tls", "is no ADDRESS:PORT"),
            ("[listen]\ntls = \"0.0.0.0:2776\"", "listen.tls", "expected a sequence"),
            ("[listen]\nplain = [\"0.0.0.0:2776\"]", "listen.plain", "is there already"),
            ("[listen]\nplain = [\"localhost\"]", "listen.plain", "is no ADDRESS:PORT"),
            ("[listen]\nadmin = \"0.0.0.0:80\"", "listen.admin", "no loopback"),
            ("[listen]\nadmin = \"x\"", "listen.admin", "is no ADDRESS:PORT"),
            ("[tls]\ncertificate = \"a\"", "tls.key", "missing"),
            ("[tls]\nkey = \"a\"", "tls.certificate", "missing"),
            (
                "[session]\nsession_init_timeout_seconds = 0",
                "session.session_init_timeout_seconds",
                "0.01 s to 24 h",
            ),
            (
                "[session]\nresponse_timeout_seconds = -1",
                "session.response_timeout_seconds",
                "no length of time",
            ),
            ("[session]\npdu_timeout_seconds = nan", "session.pdu_timeout_seconds", "no length of time"),
            ("[session]\npdu_timeout_seconds = 1e300", "session.pdu_timeout_seconds", "no length of time"),
            ("[session]\npdu_timeout_seconds = \"1s\"", "session.pdu_timeout_seconds", "expected f64"),
            ("[session]\npdu_octets_max = 16", "session.pdu_octets_max", "1024 to 131072"),
            (
                "[session]\npdu_octets_max = 1024\npdu_octets_max_unbound = 1025",
                "session.pdu_octets_max_unbound",
                "more than",
            ),
            ("[session]\nwindow_in_max = 0", "session.window_in_max", "1 to"),
            ("[session]\nwindow_out_max = 0", "session.window_out_max", "1 to"),
            ("[session]\nbind_attempts_max = 0", "session.bind_attempts_max", "1 to 255"),
            ("[limits]\nconnections_max = 0", "limits.connections_max", "1 to"),
            ("[limits]\noutput_octets_max = 1", "limits.output_octets_max", "4096 to"),
            (
                "[messages]\nvalidity_default_hours = 200",
                "messages.validity_default_hours",
                "200 h is not within 0.01 s to 168 h",
            ),
            (
                "[messages]\nretry_delay_max_seconds = 4",
                "messages.retry_delay_max_seconds",
                "4 s is not within 5 s",
            ),
            (
                "[messages]\nparcel_retention_hours = 1e18",
                "messages.parcel_retention_hours",
                "no length of time",
            ),
            ("[journal]\ncheckpoint_segments = 33", "journal.checkpoint_segments", "1 to 32"),
            ("[journal]\nsegment_mib = 7", "journal.segment_mib", "7 is not within 8"),
            ("[journal]\nsegment_mib = 9223372036854775807", "journal.segment_mib", "too much"),
            ("[[route]]\nprefix = \"1\"", "route", "missing field `carrier`"),
            ("[[route]]\nprefix = \"1\"\ncarrier = \"x\"", "route[0].carrier", "no carrier is called \"x\""),
            ("[[route]]\nprefix = \"abc\"\ncarrier = \"simulator\"", "route[0].prefix", "digits"),
            (
                "[[route]]\nprefix = \"1\"\ncarrier = \"simulator\"\n[[route]]\nprefix = \"+1\"\ncarrier = \"simulator\"",
                "route[1].prefix",
                "has a route already",
            ),
            ("[carrier.a]\nkind = \"simulator\"\n[carrier.b]\nkind = \"simulator\"", "route", "no route"),
            ("[carrier.a]\nkind = \"smpp\"", "carrier.a.kind", "no kind of carrier"),
            ("[carrier.a]\nseed = 1", "carrier.a", "missing field `kind`"),
            (
                "[carrier.a]\nkind = \"simulator\"\ndelay_min_millis = 600",
                "carrier.a.delay_max_millis",
                "not within 0.6 s",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\noutcomes = [{ outcome = \"ENROUTE\", weight = 1 }]",
                "carrier.a.outcomes",
                "no final state",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\noutcomes = [{ outcome = \"DELIVRD\", weight = 0 }]",
                "carrier.a.outcomes",
                "more than 0",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\nreply_keyword = \"a b\"",
                "carrier.a.reply_keyword",
                "letters",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\noutcome = \"NEVER\"",
                "carrier.a.rule",
                "neither",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\nprefix = \"1\"\noutcome = \"ACCEPTD\"",
                "carrier.a.rule.outcome",
                "no final state",
            ),
            (
                "[carrier.a]\nkind = \"simulator\"\n[[carrier.a.rule]]\nprefix = \"1\"\noutcome = \"NEVER\"\nerror = 1000",
                "carrier.a.rule.error",
                "0 to 999",
            ),
        ];
        for (text, key, reason) in table {
            let error = refused(text);
            assert_eq!(error.key, key, "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_admin_port_for_others_has_to_be_allowed() {
        let text = "[listen]\nadmin = \"0.0.0.0:80\"\nadmin_allow_remote = true";
        assert_eq!(Config::parse(text).expect("allowed").admin, Some(SocketAddr::from(([0, 0, 0, 0], 80))));
    }

    #[test]
    fn an_error_says_where_and_why() {
        assert_eq!(refused("\n\nnode = 16").to_string(), "node: 16 is not within 0 to 15");
        let error = refused("[session]\n# a comment = 1\nwindow = 5").to_string();
        assert!(error.starts_with("session.window: unknown field `window`, expected one of"), "{error}");
        assert!(error.ends_with("(line 3)"), "{error}");
    }
}
