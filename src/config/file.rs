//! The settings file: TOML to values. A key that is not there leaves the default in its place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::account::without_plus;
use crate::carrier::{Behaviour, SimulatorRule, SimulatorSettings};
use crate::config::{CarrierSettings, Config, ConfigError, DEFAULT_CARRIER, HOUR, MIB};
use crate::pdu::receipt::MessageState;
use crate::route::CarrierIndex;

/// Reads the text; the values are not checked yet.
pub(super) fn parse(text: &str) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError::from_toml(text, &error))?;
    let mut config = Config::default();
    file.put(&mut config)?;
    Ok(config)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cores: Option<usize>,
    data_dir: Option<PathBuf>,
    durability: Option<String>,
    log_level: Option<String>,
    system_id: Option<String>,
    node: Option<u8>,
    #[serde(default)]
    listen: Listen,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    accounts: AccountsSection,
    #[serde(default)]
    session: SessionSection,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    messages: Messages,
    #[serde(default)]
    journal: JournalSection,
    #[serde(default)]
    route: Vec<Route>,
    #[serde(default)]
    carrier: BTreeMap<String, Spanned<CarrierSection>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    tls: Option<Vec<String>>,
    plain: Option<Vec<String>>,
    admin: Option<String>,
    admin_allow_remote: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsSection {
    file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionSection {
    session_init_timeout_seconds: Option<f64>,
    tls_handshake_timeout_seconds: Option<f64>,
    enquire_link_interval_seconds: Option<f64>,
    enquire_link_unanswered_max: Option<u8>,
    inactivity_timeout_seconds: Option<f64>,
    response_timeout_seconds: Option<f64>,
    pdu_timeout_seconds: Option<f64>,
    write_timeout_seconds: Option<f64>,
    pdu_octets_max: Option<usize>,
    pdu_octets_max_unbound: Option<usize>,
    window_in_max: Option<usize>,
    window_out_max: Option<usize>,
    bind_attempts_max: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    connections_max: Option<usize>,
    handshakes_max: Option<usize>,
    output_octets_max: Option<usize>,
    messages_max: Option<usize>,
    messages_mib_max: Option<u64>,
    store_waiting_max: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Messages {
    validity_default_hours: Option<f64>,
    validity_longest_hours: Option<f64>,
    retry_delay_min_seconds: Option<f64>,
    retry_delay_max_seconds: Option<f64>,
    deliver_retry_delay_min_seconds: Option<f64>,
    deliver_retry_delay_max_seconds: Option<f64>,
    parcel_retention_hours: Option<f64>,
    final_retention_hours: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalSection {
    segment_mib: Option<u64>,
    checkpoint_segments: Option<usize>,
    waiting_mib_max: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    prefix: String,
    carrier: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CarrierSection {
    kind: String,
    seed: Option<u64>,
    delay_min_millis: Option<u64>,
    delay_max_millis: Option<u64>,
    outcomes: Option<Vec<Outcome>>,
    reply_keyword: Option<String>,
    rule: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    outcome: String,
    weight: u32,
    #[serde(default)]
    error: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    prefix: Option<String>,
    suffix: Option<String>,
    outcome: String,
    error: Option<u16>,
}

impl File {
    fn put(self, config: &mut Config) -> Result<(), ConfigError> {
        set(&mut config.cores, self.cores);
        set(&mut config.data_dir, self.data_dir);
        if let Some(durability) = self.durability {
            config.durability =
                durability.parse().map_err(|reason| ConfigError::new("durability", reason))?;
        }
        set(&mut config.log_level, self.log_level);
        set(&mut config.system_id, self.system_id);
        set(&mut config.node, self.node);
        self.listen.put(config)?;
        set_path(&mut config.tls_certificate, self.tls.certificate);
        set_path(&mut config.tls_key, self.tls.key);
        set_path(&mut config.accounts_file, self.accounts.file);
        self.session.put(config)?;
        set(&mut config.connections_max, self.limits.connections_max);
        set(&mut config.handshakes_max, self.limits.handshakes_max);
        set(&mut config.output_octets_max, self.limits.output_octets_max);
        set(&mut config.partition.messages_max, self.limits.messages_max);
        if let Some(mib) = self.limits.messages_mib_max {
            config.partition.messages_octets_max = octets("limits.messages_mib_max", mib)? as usize;
        }
        set(&mut config.partition.store_waiting_max, self.limits.store_waiting_max);
        self.messages.put(config)?;
        self.journal.put(config)?;
        put_carriers(self.carrier, config)?;
        put_routes(self.route, config)
    }
}

impl Listen {
    fn put(self, config: &mut Config) -> Result<(), ConfigError> {
        let list = |key: &str, addresses: Vec<String>| -> Result<Vec<SocketAddr>, ConfigError> {
            addresses.iter().map(|text| address(key, text)).collect()
        };
        if let Some(addresses) = self.tls {
            config.listen = list("listen.tls", addresses)?;
        }
        if let Some(addresses) = self.plain {
            config.listen_plain = list("listen.plain", addresses)?;
        }
        if let Some(text) = self.admin.filter(|text| !text.is_empty()) {
            config.admin = Some(address("listen.admin", &text)?);
        }
        set(&mut config.admin_allow_remote, self.admin_allow_remote);
        Ok(())
    }
}

impl SessionSection {
    fn put(self, config: &mut Config) -> Result<(), ConfigError> {
        let session = &mut config.session;
        for (key, target, seconds) in [
            ("session_init_timeout", &mut session.session_init_timeout, self.session_init_timeout_seconds),
            ("tls_handshake_timeout", &mut config.tls_handshake_timeout, self.tls_handshake_timeout_seconds),
            ("enquire_link_interval", &mut session.enquire_link_interval, self.enquire_link_interval_seconds),
            ("inactivity_timeout", &mut session.inactivity_timeout, self.inactivity_timeout_seconds),
            ("response_timeout", &mut session.response_timeout, self.response_timeout_seconds),
            ("pdu_timeout", &mut session.pdu_timeout, self.pdu_timeout_seconds),
            ("write_timeout", &mut config.write_timeout, self.write_timeout_seconds),
        ] {
            set_duration(target, seconds, Duration::from_secs(1), || format!("session.{key}_seconds"))?;
        }
        set(&mut session.enquire_link_unanswered_max, self.enquire_link_unanswered_max);
        set(&mut session.pdu_octets_max, self.pdu_octets_max);
        set(&mut session.pdu_octets_max_unbound, self.pdu_octets_max_unbound);
        set(&mut session.window_in_max, self.window_in_max);
        set(&mut session.window_out_max, self.window_out_max);
        set(&mut session.bind_attempts_max, self.bind_attempts_max);
        Ok(())
    }
}

impl Messages {
    fn put(self, config: &mut Config) -> Result<(), ConfigError> {
        let Config { validity, retry, deliver_retry, partition, final_retention, .. } = config;
        for (key, target, seconds) in [
            ("retry_delay_min", &mut retry.delay_min, self.retry_delay_min_seconds),
            ("retry_delay_max", &mut retry.delay_max, self.retry_delay_max_seconds),
            ("deliver_retry_delay_min", &mut deliver_retry.delay_min, self.deliver_retry_delay_min_seconds),
            ("deliver_retry_delay_max", &mut deliver_retry.delay_max, self.deliver_retry_delay_max_seconds),
        ] {
            set_duration(target, seconds, Duration::from_secs(1), || format!("messages.{key}_seconds"))?;
        }
        for (key, target, hours) in [
            ("validity_default", &mut validity.default, self.validity_default_hours),
            ("validity_longest", &mut validity.longest, self.validity_longest_hours),
            ("parcel_retention", &mut partition.parcel_retention, self.parcel_retention_hours),
            ("final_retention", final_retention, self.final_retention_hours),
        ] {
            set_duration(target, hours, HOUR, || format!("messages.{key}_hours"))?;
        }
        Ok(())
    }
}

impl JournalSection {
    fn put(self, config: &mut Config) -> Result<(), ConfigError> {
        if let Some(mib) = self.segment_mib {
            config.journal_segment_octets = octets("journal.segment_mib", mib)?;
        }
        if let Some(mib) = self.waiting_mib_max {
            config.partition.journal_waiting_octets_max = octets("journal.waiting_mib_max", mib)? as usize;
        }
        set(&mut config.partition.checkpoint_segments, self.checkpoint_segments);
        Ok(())
    }
}

/// Carriers take their places in the order of the file, so that one added at its end moves no other.
fn put_carriers(
    sections: BTreeMap<String, Spanned<CarrierSection>>,
    config: &mut Config,
) -> Result<(), ConfigError> {
    if sections.is_empty() {
        return Ok(());
    }
    let mut sections: Vec<_> = sections.into_iter().collect();
    sections.sort_by_key(|(_, section)| section.span().start);
    let settings = |(name, section): (String, Spanned<CarrierSection>)| {
        let settings = section.into_inner().settings(&format!("carrier.{name}"))?;
        Ok((name, settings))
    };
    config.carriers = sections.into_iter().map(settings).collect::<Result<_, ConfigError>>()?;
    Ok(())
}

impl CarrierSection {
    fn settings(self, key: &str) -> Result<CarrierSettings, ConfigError> {
        if self.kind != "simulator" {
            let reason = format!("\"{}\" is no kind of carrier; there is \"simulator\"", self.kind);
            return Err(ConfigError::new(format!("{key}.kind"), reason));
        }
        let mut settings = SimulatorSettings::default();
        set(&mut settings.seed, self.seed);
        set(&mut settings.delay_min, self.delay_min_millis.map(Duration::from_millis));
        set(&mut settings.delay_max, self.delay_max_millis.map(Duration::from_millis));
        set(&mut settings.reply_keyword, self.reply_keyword);
        if let Some(outcomes) = self.outcomes {
            let outcome = |outcome: Outcome| {
                let state = final_state(&format!("{key}.outcomes"), &outcome.outcome)?;
                Ok((state, outcome.error, outcome.weight))
            };
            settings.outcomes = outcomes.into_iter().map(outcome).collect::<Result<_, ConfigError>>()?;
        }
        if let Some(rules) = self.rule {
            let rule = |rule: Rule| {
                Ok(SimulatorRule {
                    behaviour: behaviour(&format!("{key}.rule.outcome"), &rule.outcome)?,
                    prefix: rule.prefix.filter(|prefix| !prefix.is_empty()),
                    suffix: rule.suffix.filter(|suffix| !suffix.is_empty()),
                    error: rule.error,
                })
            };
            settings.rules = rules.into_iter().map(rule).collect::<Result<_, ConfigError>>()?;
        }
        Ok(CarrierSettings::Simulator(settings))
    }
}

fn behaviour(key: &str, outcome: &str) -> Result<Behaviour, ConfigError> {
    match outcome.strip_prefix("ACCEPTD-") {
        _ if outcome == "NEVER" => Ok(Behaviour::NeverAnswers),
        Some(state) => final_state(key, state).map(Behaviour::AcceptedThen),
        None => final_state(key, outcome).map(Behaviour::State),
    }
}

fn final_state(key: &str, text: &str) -> Result<MessageState, ConfigError> {
    let state = MessageState::from_receipt_text(text.as_bytes()).filter(|state| state.is_final());
    state.ok_or_else(|| ConfigError::new(key, format!("\"{text}\" is no final state, such as \"DELIVRD\"")))
}

fn put_routes(routes: Vec<Route>, config: &mut Config) -> Result<(), ConfigError> {
    let place = |carrier: &str| config.carriers.iter().position(|(name, _)| name == carrier);
    let index = |place: usize| CarrierIndex(u8::try_from(place).unwrap_or(u8::MAX));
    if routes.is_empty() {
        let only = (config.carriers.len() == 1).then_some(0);
        let carrier = place(DEFAULT_CARRIER).or(only);
        let carrier =
            carrier.ok_or_else(|| ConfigError::new("route", "no route says which carrier takes what"))?;
        config.routes = vec![(String::new(), index(carrier))];
        return Ok(());
    }
    let route = |(number, Route { prefix, carrier }): (usize, Route)| {
        let missing = || {
            ConfigError::new(
                format!("route[{number}].carrier"),
                format!("no carrier is called \"{carrier}\""),
            )
        };
        let carrier = place(&carrier).ok_or_else(missing)?;
        // Destinations are compared without their `+`.
        Ok((without_plus(&prefix).to_owned(), index(carrier)))
    };
    config.routes = routes.into_iter().enumerate().map(route).collect::<Result<_, ConfigError>>()?;
    Ok(())
}

fn octets(key: &str, mib: u64) -> Result<u64, ConfigError> {
    mib.checked_mul(MIB).ok_or_else(|| ConfigError::new(key, format!("{mib} MiB is too much")))
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn set_path(target: &mut Option<PathBuf>, value: Option<PathBuf>) {
    set(target, value.map(|path| Some(path).filter(|path| !path.as_os_str().is_empty())));
}

fn set_duration(
    target: &mut Duration,
    count: Option<f64>,
    unit: Duration,
    key: impl Fn() -> String,
) -> Result<(), ConfigError> {
    let Some(count) = count else { return Ok(()) };
    let duration = Duration::try_from_secs_f64(count * unit.as_secs_f64());
    *target = duration.map_err(|_| ConfigError::new(key(), format!("{count} is no length of time")))?;
    Ok(())
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError::new(key, format!("\"{text}\" is no ADDRESS:PORT, such as \"0.0.0.0:2776\""))
    })
}
