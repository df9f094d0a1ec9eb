//! What a run plays: populations of ESMEs, how they load the server, and for how long.

mod check;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The scenarios that come with the program: name and TOML.
pub(crate) const BUILT_IN: &[(&str, &str)] = &[
    ("submit", include_str!("../scenarios/submit.toml")),
    ("receipts", include_str!("../scenarios/receipts.toml")),
    ("single", include_str!("../scenarios/single.toml")),
    ("many", include_str!("../scenarios/many.toml")),
    ("open", include_str!("../scenarios/open.toml")),
    ("long-messages", include_str!("../scenarios/long-messages.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("skewed", include_str!("../scenarios/skewed.toml")),
    ("day", include_str!("../scenarios/day.toml")),
    ("slow-readers", include_str!("../scenarios/slow-readers.toml")),
    ("reconnect-storm", include_str!("../scenarios/reconnect-storm.toml")),
    ("idle", include_str!("../scenarios/idle.toml")),
    ("binds", include_str!("../scenarios/binds.toml")),
    ("hostile", include_str!("../scenarios/hostile.toml")),
];

/// A scenario as its TOML file says it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What it shows, in a sentence.
    pub(crate) about: String,
    /// Load before anything is measured.
    #[serde(default = "two")]
    pub(crate) warm_up_seconds: f64,
    /// The measured time.
    #[serde(default = "ten")]
    pub(crate) seconds: f64,
    /// How long answers and receipts are waited for after that.
    #[serde(default = "thirty")]
    pub(crate) drain_seconds: f64,
    /// The populations.
    #[serde(rename = "group")]
    pub(crate) groups: Vec<Group>,
}

/// ESMEs that behave alike.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// How the report calls it.
    pub(crate) name: String,
    /// Connections of all its accounts together; a pair counts as one.
    #[serde(default = "one")]
    pub(crate) connections: usize,
    /// Accounts that the connections are spread over.
    #[serde(default = "one")]
    pub(crate) accounts: usize,
    /// Number of the first of them; groups may share accounts.
    #[serde(default)]
    pub(crate) first_account: usize,
    /// How unequal the accounts are: the k-th has 1/k^skew as many connections as the first (0 equal, 1 Zipf).
    #[serde(default)]
    pub(crate) skew: f64,
    /// What they bind as.
    #[serde(default)]
    pub(crate) bind: Bind,
    /// Requests that a connection has in flight at most.
    #[serde(default = "ten_requests")]
    pub(crate) window: usize,
    /// When requests are due.
    #[serde(default)]
    pub(crate) load: Load,
    /// What they submit.
    #[serde(default)]
    pub(crate) message: Message,
    /// What else they ask for.
    #[serde(default)]
    pub(crate) mix: Mix,
    /// How they read.
    #[serde(default)]
    pub(crate) reading: Reading,
    /// How long a connection lives.
    #[serde(default)]
    pub(crate) life: Life,
    /// What they do that no ESME should; such a connection is no witness: what becomes of it breaks no promise.
    #[serde(default)]
    pub(crate) misbehaviour: Option<Misbehaviour>,
}

/// What the connections of a group bind as.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bind {
    /// Both ways on one connection.
    #[default]
    Transceiver,
    /// Submits, and never gets a receipt.
    Transmitter,
    /// Only gets.
    Receiver,
    /// A transmitter and a receiver of the same account on a connection each.
    Pair,
}

/// When requests are due.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Load {
    /// The window is kept full: the next request is due when the last is answered.
    #[default]
    Closed,
    /// Requests are due at times of their own, whatever the server does. `rate` is that of the whole group.
    Open {
        /// How the times are spread.
        #[serde(default)]
        arrivals: Spread,
        /// The course of the rate. It begins anew when it is over; the warm-up is before it, at its first rate.
        steps: Vec<Step>,
    },
    /// Nothing is submitted.
    Idle,
}

/// How due times lie on the course of the rate.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spread {
    /// As even as can be.
    #[default]
    Constant,
    /// Independent of one another.
    Poisson,
}

/// A stretch of the course of the rate.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// How long it lasts; by default the whole measured time, which only the last step can.
    #[serde(default)]
    pub(crate) seconds: Option<f64>,
    /// Requests a second at its begin.
    #[serde(default)]
    pub(crate) rate: f64,
    /// Requests a second at its end, for a ramp.
    #[serde(default)]
    pub(crate) to: Option<f64>,
    /// Requests that are due all at once at its begin: a burst.
    #[serde(default)]
    pub(crate) burst: u64,
}

/// What is submitted.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Message {
    /// Octets of text: one number, or the least and the most.
    pub(crate) octets: Octets,
    /// data_coding.
    pub(crate) data_coding: u8,
    /// registered_delivery.
    pub(crate) registered_delivery: u8,
    /// source_addr; empty for the account's own.
    pub(crate) source: String,
    /// destination_addr; each `#` stands for a random digit.
    pub(crate) destination: String,
    /// How a text longer than a segment is sent; the octets are those of the whole. Only a submit_sm is cut: the text
    /// of a data_sm, and of a submit_multi or replace_sm unless this is `no`, is a message_payload.
    pub(crate) long: Long,
}

/// Which receipts a registered_delivery asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Receipts {
    None,
    Always,
    /// On success or on failure only.
    BySomeOutcomes,
}

/// How many octets a text has.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(untagged, expecting = "octets: a number, or the least and the most as in [1, 160]")]
pub(crate) enum Octets {
    /// Always as many.
    Fixed(usize),
    /// Any number from the first to the second, both included.
    Between([usize; 2]),
}

/// How a long text is sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Long {
    /// It is not: it has to fit short_message.
    #[default]
    No,
    /// A submit_sm for each segment, with a user data header of 8-bit reference.
    Udh,
    /// A submit_sm for each segment, with sar_ TLVs.
    Sar,
    /// One submit_sm with message_payload.
    Payload,
}

/// How many of 100 requests are something else than submit_sm. query_sm, cancel_sm and replace_sm are about a message
/// that the connection has submitted before; while there is none, submit_sm takes their place.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mix {
    pub(crate) query_sm: f64,
    pub(crate) cancel_sm: f64,
    pub(crate) replace_sm: f64,
    pub(crate) submit_multi: f64,
    pub(crate) data_sm: f64,
    /// Destinations of a submit_multi.
    pub(crate) multi_destinations: usize,
}

/// How a connection reads.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Reading {
    /// Octets a second at most, for slow readers.
    pub(crate) octets_per_second: Option<f64>,
    /// How long a deliver_sm is thought about before it is answered.
    pub(crate) deliver_delay_ms: u64,
}

/// How long a connection lives.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Life {
    /// After so long all connections of the group are made anew, all at once: a storm. 0: each as soon as it is bound,
    /// so that binds themselves are measured.
    pub(crate) seconds: Option<f64>,
    /// Whether they end without unbind, as by a network that is gone.
    pub(crate) abrupt: bool,
}

/// What no ESME should do.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Misbehaviour {
    /// Octets that are no PDU, on a fresh connection each time.
    Garbage,
    /// Half a PDU, and then nothing.
    HalfPdu,
    /// A submit_sm with one octet changed, at random.
    Mutated,
    /// Binds with a wrong password, again and again.
    WrongPassword,
    /// Submits and never reads.
    NeverReads,
    /// Connects and says nothing.
    Silent,
}

impl Scenario {
    /// A built-in scenario, or that of a file; and its name, which is the file's without `.toml`.
    pub(crate) fn load(name_or_path: &str) -> Result<(String, Self), String> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text).map(|scenario| ((*name).to_owned(), scenario));
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "no scenario and no file is called \"{name_or_path}\"; scenarios: {}",
                names.join(", ")
            ));
        }
        let text = fs::read_to_string(path).map_err(|error| format!("{name_or_path}: {error}"))?;
        let scenario = Self::parse(&text).map_err(|error| format!("{name_or_path}: {error}"))?;
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Ok((name.to_string_lossy().into_owned(), scenario))
    }

    /// Reads a scenario and checks every limit. What is wrong is told with line and key, or with group and key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// The whole time that requests are due in.
    pub(crate) fn loaded(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds + self.seconds)
    }
}

impl Group {
    /// How many of its connections each of its accounts has, under its skew: at least one, and all of them together.
    pub(crate) fn connections_of_accounts(&self) -> Vec<usize> {
        let weights: Vec<f64> = (1..=self.accounts).map(|k| (k as f64).powf(-self.skew)).collect();
        let mut left = self.connections;
        let mut weight_left: f64 = weights.iter().sum();
        // Accounts whose share is less than one connection get one; as weights fall, they are the last ones. What is
        // left is shared among the others.
        let mut sharing = self.accounts;
        while sharing > 1 && (left as f64) * weights[sharing - 1] < weight_left {
            sharing -= 1;
            left -= 1;
            weight_left -= weights[sharing];
        }
        let shares: Vec<f64> =
            weights[..sharing].iter().map(|weight| left as f64 * weight / weight_left).collect();
        let mut connections = vec![1; self.accounts];
        for (connections, share) in connections.iter_mut().zip(&shares) {
            *connections = (share.floor() as usize).max(1);
        }
        // The largest remainders get what rounding down has left over.
        let mut by_remainder: Vec<usize> = (0..sharing).collect();
        by_remainder.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
        let given: usize = connections[..sharing].iter().sum();
        for &account in by_remainder.iter().take(left.saturating_sub(given)) {
            connections[account] += 1;
        }
        connections
    }
}

impl Mix {
    /// Whether it asks about messages that were submitted before.
    pub(crate) fn needs_earlier(&self) -> bool {
        self.query_sm + self.cancel_sm + self.replace_sm > 0.0
    }
}

impl Message {
    /// Which final receipts it asks for (spec v5.0 §4.7.21: the lowest two bits).
    pub(crate) const fn receipts(&self) -> Receipts {
        match self.registered_delivery & 3 {
            0 => Receipts::None,
            1 => Receipts::Always,
            _ => Receipts::BySomeOutcomes,
        }
    }
}

impl Default for Message {
    fn default() -> Self {
        Self {
            octets: Octets::Fixed(160),
            data_coding: 0,
            registered_delivery: 0,
            source: String::new(),
            destination: "12125551234".to_owned(),
            long: Long::No,
        }
    }
}

const fn one() -> usize {
    1
}

const fn ten_requests() -> usize {
    10
}

const fn two() -> f64 {
    2.0
}

const fn ten() -> f64 {
    10.0
}

const fn thirty() -> f64 {
    30.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDE: &str = include_str!("../SCENARIOS.md");

    #[test]
    fn every_built_in_scenario_is_valid_and_in_the_guide() {
        for (name, text) in BUILT_IN {
            let (loaded, scenario) = Scenario::load(name).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            assert_eq!(loaded, *name);
            assert!(
                text.starts_with("# ") && text.contains("# Accounts: "),
                "{name} says what it shows and needs"
            );
            assert!(!scenario.about.is_empty(), "{name}");
            assert!(
                GUIDE.contains(&format!("| `{name}` | {} |", scenario.about)),
                "{name} is not in the guide"
            );
        }
    }

    #[test]
    fn every_example_of_the_guide_is_valid() {
        let examples: Vec<_> =
            GUIDE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!examples.is_empty());
        for example in examples {
            assert!(Scenario::parse(example).is_ok(), "{:?}\n{example}", Scenario::parse(example));
        }
    }

    #[test]
    fn a_file_is_called_by_its_stem_and_named_in_its_faults() {
        let path = std::env::temp_dir().join(format!("smpp-bench-{}.v2.toml", std::process::id()));
        let name_or_path = path.to_str().expect("a path of ASCII");
        fs::write(&path, "about = \"\"\n[[group]]\nname = \"g\"\n").expect("a writable directory");
        let loaded = Scenario::load(name_or_path).map(|(name, _)| name);
        fs::write(&path, "about = \"\"\nseconds = 0\n[[group]]\nname = \"g\"\n")
            .expect("a writable directory");
        let refused = Scenario::load(name_or_path).map(|(name, _)| name);
        fs::remove_file(&path).expect("it is there");
        assert_eq!(loaded, Ok(format!("smpp-bench-{}.v2", std::process::id())));
        let wrong = "seconds = 0: more than 0 and up to 1000000 are allowed";
        assert_eq!(refused, Err(format!("{name_or_path}: {wrong}")));
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let message = Scenario::load("sumbit").expect_err("a slip of the pen");
        assert!(
            message
                .starts_with("no scenario and no file is called \"sumbit\"; scenarios: submit, receipts, ")
        );
    }

    #[test]
    fn a_slip_in_a_file_is_told_with_its_line_and_key() {
        let head = "about = \"\"\n[[group]]\nname = \"g\"\n";
        for (keys, told) in [
            ("windw = 1", "unknown field `windw`"),
            ("window = \"1\"", "expected usize"),
            ("message.octets = \"1\"", "octets: a number, or the least and the most as in [1, 160]"),
            ("load = \"opened\"", "unknown variant `opened`, expected one of `closed`, `open`, `idle`"),
            ("load.open.steps = [{ rates = 1 }]", "unknown field `rates`"),
        ] {
            let message = Scenario::parse(&format!("{head}{keys}")).expect_err(keys);
            assert!(
                message.contains("line 4") && message.contains(keys) && message.contains(told),
                "{message}"
            );
        }
    }

    #[test]
    fn a_short_file_means_what_the_types_say() {
        let scenario =
            Scenario::parse("about = \"\"\n[[group]]\nname = \"g\"\nload = \"idle\"").expect("it is valid");
        assert_eq!(scenario.loaded(), Duration::from_secs(12));
        let group = &scenario.groups[0];
        assert_eq!((group.connections, group.accounts, group.window, &group.load), (1, 1, 10, &Load::Idle));
        assert_eq!(group.message, Message::default());
    }

    #[test]
    fn a_scenario_survives_the_report() {
        for (name, _) in BUILT_IN {
            let (_, scenario) = Scenario::load(name).expect("it is valid");
            let json = serde_json::to_string(&scenario).expect("it has only texts and finite numbers");
            assert_eq!(serde_json::from_str::<Scenario>(&json).expect("our own"), scenario, "{name}");
        }
    }

    fn connections(connections: usize, accounts: usize, skew: f64) -> Vec<usize> {
        let text = format!(
            "about = \"\"\n[[group]]\nname = \"g\"\nconnections = {connections}\naccounts = {accounts}\nskew = {skew}"
        );
        Scenario::parse(&text).expect("it is valid").groups[0].connections_of_accounts()
    }

    #[test]
    fn skew_shares_connections_out_by_weight() {
        assert_eq!(connections(7, 1, 1.0), [7]);
        assert_eq!(connections(10, 4, 0.0), [3, 3, 2, 2]);
        // 1 : 1/2 : 1/3 : 1/4 of 25 are 12, 6, 4 and 3.
        assert_eq!(connections(25, 4, 1.0), [12, 6, 4, 3]);
        // The last two would have less than one.
        assert_eq!(connections(6, 4, 2.0), [3, 1, 1, 1]);
        assert_eq!(connections(5, 5, 3.0), [1; 5]);
    }

    #[test]
    fn every_account_has_a_connection_and_none_is_left_over() {
        for count in [1, 2, 3, 7, 10, 99, 1_000, 4_321] {
            for accounts in [1, 2, 3, 7, 10, 99, 1_000].into_iter().filter(|accounts| *accounts <= count) {
                for skew in [0.0, 0.3, 1.0, 2.0, 10.0] {
                    let connections = connections(count, accounts, skew);
                    let what = format!("{count} of {accounts}, skew {skew}");
                    assert_eq!(connections.len(), accounts, "{what}");
                    assert_eq!(connections.iter().sum::<usize>(), count, "{what}");
                    assert!(connections.iter().all(|connections| *connections >= 1), "{what}");
                    assert!(connections.is_sorted_by(|a, b| a >= b), "{what}: {connections:?}");
                }
            }
        }
    }
}
