//! The limits of a scenario: what its types do not say already.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use smppd::pdu::{Alphabet, DataCoding, Reference};

use super::{Bind, Group, Life, Load, Long, Message, Mix, Octets, Reading, Scenario, Step};

/// Seconds that a run or a part of it may last: eleven days and a half.
const SECONDS_MAX: f64 = 1_000_000.0;
/// The shortest step: a course of shorter ones would begin anew all the time.
const STEP_SECONDS_MIN: f64 = 0.001;
/// Requests a second, and in a burst.
const RATE_MAX: f64 = 1e9;
const BURST_MAX: u64 = 1_000_000_000;
const CONNECTIONS_MAX: usize = 1_000_000;
const WINDOW_MAX: usize = 100_000;
const SKEW_MAX: f64 = 10.0;
/// Octets of short_message, whose length is one octet (spec v5.0 §4.7.28).
const SHORT_MESSAGE_MAX: usize = 255;
/// Octets of message_payload, whose length is two.
const PAYLOAD_MAX: usize = 65_535;
/// Segments of a text, whose number is one octet.
const SEGMENTS_MAX: usize = 255;
/// Characters of an address in a submit_sm, without the NUL.
const ADDRESS_MAX: usize = 20;
/// Characters of a sender that is a name: as many as fit GSM 03.40's address field.
const SENDER_NAME_MAX: usize = 11;

impl Scenario {
    /// Checks every limit; the message names group, key, value and what is allowed.
    pub(crate) fn validate(&self) -> Result<(), String> {
        within("warm_up_seconds", self.warm_up_seconds, 0.0..=SECONDS_MAX)?;
        positive("seconds", self.seconds, SECONDS_MAX)?;
        within("drain_seconds", self.drain_seconds, 0.0..=SECONDS_MAX)?;
        if self.groups.is_empty() {
            return Err("there is no [[group]]: at least one has to be there".to_owned());
        }
        let mut names = HashSet::new();
        for group in &self.groups {
            let name = &group.name;
            group.check().map_err(|wrong| format!("group \"{name}\": {wrong}"))?;
            if !names.insert(name) {
                return Err(format!("group \"{name}\": there is another one of this name"));
            }
        }
        Ok(())
    }
}

impl Group {
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("name = \"\": the report needs one".to_owned());
        }
        within("connections", self.connections, 1..=CONNECTIONS_MAX)?;
        if !(1..=self.connections).contains(&self.accounts) {
            let (accounts, connections) = (self.accounts, self.connections);
            return Err(format!(
                "accounts = {accounts}: 1 to as many as connections ({connections}) are allowed"
            ));
        }
        within("first_account", self.first_account, 0..=CONNECTIONS_MAX)?;
        within("skew", self.skew, 0.0..=SKEW_MAX)?;
        within("window", self.window, 1..=WINDOW_MAX)?;
        self.load.check()?;
        self.message.check()?;
        self.mix.check()?;
        self.reading.check()?;
        self.life.check()?;
        self.check_together()
    }

    /// What each key allows by itself, and another does not.
    fn check_together(&self) -> Result<(), String> {
        let is_idle = self.load == Load::Idle;
        if self.bind == Bind::Receiver && !is_idle {
            return Err("bind = \"receiver\": it cannot submit; only load = \"idle\" is allowed".to_owned());
        }
        if self.life.seconds == Some(0.0) && !is_idle {
            return Err(
                "life.seconds = 0: nobody lives to submit; only load = \"idle\" is allowed".to_owned()
            );
        }
        if is_idle && self.mix != Mix::default() {
            return Err("mix: with load = \"idle\" there are no requests, and no mix is allowed".to_owned());
        }
        if self.mix.replace_sm > 0.0 && matches!(self.message.long, Long::Udh | Long::Sar) {
            let share = self.mix.replace_sm;
            return Err(format!(
                "mix.replace_sm = {share}: it replaces whole texts; only long = \"no\" or \"payload\" is allowed"
            ));
        }
        Ok(())
    }
}

impl Load {
    fn check(&self) -> Result<(), String> {
        let Self::Open { steps, .. } = self else { return Ok(()) };
        for (index, step) in steps.iter().enumerate() {
            let place = |wrong| format!("load.open.steps[{index}].{wrong}");
            step.check().map_err(place)?;
            if step.seconds.is_none() && index + 1 < steps.len() {
                return Err(place("seconds is missing: only the last step may do without".to_owned()));
            }
        }
        let has_requests =
            |step: &Step| step.rate > 0.0 || step.to.is_some_and(|to| to > 0.0) || step.burst > 0;
        if !steps.iter().any(has_requests) {
            return Err("load.open.steps: at least one must have a rate or a burst above 0".to_owned());
        }
        Ok(())
    }
}

impl Step {
    fn check(&self) -> Result<(), String> {
        if let Some(seconds) = self.seconds {
            within("seconds", seconds, STEP_SECONDS_MIN..=SECONDS_MAX)?;
        }
        within("rate", self.rate, 0.0..=RATE_MAX)?;
        within("to", self.to.unwrap_or(0.0), 0.0..=RATE_MAX)?;
        within("burst", self.burst, 0..=BURST_MAX)
    }
}

impl Message {
    fn check(&self) -> Result<(), String> {
        // For 0 any of the three does that an account may have: they take the same octets.
        let Some(alphabet) = DataCoding(self.data_coding).alphabet(Alphabet::Gsm7) else {
            let data_coding = self.data_coding;
            return Err(format!(
                "message.data_coding = {data_coding}: 0 to 4, 8 and the GSM groups (16 to 27, 192 to 247, without \
                 their reserved values) are allowed"
            ));
        };
        self.check_octets(alphabet)?;
        let source = &self.source;
        let is_name =
            source.len() <= SENDER_NAME_MAX && source.bytes().all(|octet| (0x20..0x7F).contains(&octet));
        if !source.is_empty() && !is_name && !is_number(source, |octet| octet.is_ascii_digit()) {
            return Err(format!(
                "message.source = \"{source}\": up to {ADDRESS_MAX} digits, a name of up to {SENDER_NAME_MAX} ASCII \
                 characters, or nothing are allowed"
            ));
        }
        let destination = &self.destination;
        if !is_number(destination, |octet| octet.is_ascii_digit() || octet == b'#') {
            return Err(format!(
                "message.destination = \"{destination}\": 1 to {ADDRESS_MAX} digits and # are allowed, and a + before"
            ));
        }
        Ok(())
    }

    fn check_octets(&self, alphabet: Alphabet) -> Result<(), String> {
        let unit_octets = if alphabet == Alphabet::Ucs2 { 2 } else { 1 };
        let segments_octets = |reference| SEGMENTS_MAX * alphabet.segment_units_max(reference) * unit_octets;
        let octets_max = match self.long {
            Long::No => SHORT_MESSAGE_MAX,
            Long::Udh => segments_octets(Reference::Eight(0)),
            Long::Sar => segments_octets(Reference::Sixteen(0)),
            Long::Payload => PAYLOAD_MAX,
        };
        let [least, most] = self.octets.range();
        for octets in [least, most] {
            within("message.octets", octets, 0..=octets_max)
                .map_err(|wrong| format!("{wrong} with this data_coding and long"))?;
            if !octets.is_multiple_of(unit_octets) {
                return Err(format!(
                    "message.octets = {octets}: UCS-2 has two a character; only an even number is allowed"
                ));
            }
        }
        if least > most {
            return Err(format!("message.octets = [{least}, {most}]: the least has to come first"));
        }
        Ok(())
    }
}

impl Octets {
    /// The least and the most.
    pub(crate) fn range(self) -> [usize; 2] {
        match self {
            Self::Fixed(octets) => [octets, octets],
            Self::Between(range) => range,
        }
    }
}

impl Mix {
    fn check(&self) -> Result<(), String> {
        let shares = [
            ("mix.query_sm", self.query_sm),
            ("mix.cancel_sm", self.cancel_sm),
            ("mix.replace_sm", self.replace_sm),
            ("mix.submit_multi", self.submit_multi),
            ("mix.data_sm", self.data_sm),
        ];
        for (key, share) in shares {
            within(key, share, 0.0..=100.0)?;
        }
        let sum: f64 = shares.iter().map(|(_, share)| share).sum();
        if sum > 100.0 {
            return Err(format!("mix: the shares are {sum} of 100 together; up to 100 are allowed"));
        }
        // number_of_dests is one octet.
        let destinations_min = usize::from(self.submit_multi > 0.0);
        within("mix.multi_destinations", self.multi_destinations, destinations_min..=255)
    }
}

impl Reading {
    fn check(&self) -> Result<(), String> {
        if let Some(octets) = self.octets_per_second {
            positive("reading.octets_per_second", octets, RATE_MAX)?;
        }
        within("reading.deliver_delay_ms", self.deliver_delay_ms, 0..=3_600_000)
    }
}

impl Life {
    fn check(&self) -> Result<(), String> {
        within("life.seconds", self.seconds.unwrap_or(0.0), 0.0..=SECONDS_MAX)
    }
}

/// Whether it is 1 to 20 characters of a number, and at most a `+` before them.
fn is_number(address: &str, is_digit: impl Fn(u8) -> bool) -> bool {
    let digits = address.strip_prefix('+').unwrap_or(address);
    !digits.is_empty() && address.len() <= ADDRESS_MAX && digits.bytes().all(is_digit)
}

fn within<T: Copy + PartialOrd + Display>(
    key: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(format!("{key} = {value}: {} to {} are allowed", allowed.start(), allowed.end()))
}

/// Above 0, and not a number that is none.
fn positive(key: &str, value: f64, most: f64) -> Result<(), String> {
    if value > 0.0 && value <= most {
        return Ok(());
    }
    Err(format!("{key} = {value}: more than 0 and up to {most} are allowed"))
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    /// The message that refuses a scenario whose one group has `keys`.
    fn refusal(keys: &str) -> String {
        let text = format!("about = \"\"\n[[group]]\nname = \"g\"\nconnections = 10\n{keys}");
        match Scenario::parse(&text) {
            Ok(_) => "it is allowed".to_owned(),
            Err(message) => message,
        }
    }

    #[test]
    fn refuses_what_no_group_can_do() {
        for (keys, message) in [
            ("accounts = 0", "accounts = 0: 1 to as many as connections (10) are allowed"),
            ("accounts = 11", "accounts = 11: 1 to as many as connections (10) are allowed"),
            ("first_account = 1000001", "first_account = 1000001: 0 to 1000000 are allowed"),
            ("skew = -1", "skew = -1: 0 to 10 are allowed"),
            ("skew = nan", "skew = NaN: 0 to 10 are allowed"),
            ("window = 0", "window = 0: 1 to 100000 are allowed"),
            ("bind = \"receiver\"", "bind = \"receiver\": it cannot submit; only load = \"idle\" is allowed"),
            ("life.seconds = 0", "life.seconds = 0: nobody lives to submit; only load = \"idle\" is allowed"),
            ("life.seconds = -0.5", "life.seconds = -0.5: 0 to 1000000 are allowed"),
            (
                "reading.octets_per_second = 0",
                "reading.octets_per_second = 0: more than 0 and up to 1000000000 are allowed",
            ),
            (
                "reading.deliver_delay_ms = 3600001",
                "reading.deliver_delay_ms = 3600001: 0 to 3600000 are allowed",
            ),
        ] {
            assert_eq!(refusal(keys), format!("group \"g\": {message}"));
        }
    }

    #[test]
    fn refuses_loads_that_are_none() {
        for (steps, message) in [
            ("[]", ": at least one must have a rate or a burst above 0"),
            ("[{ rate = 0 }]", ": at least one must have a rate or a burst above 0"),
            ("[{ rate = 1 }, { rate = 2 }]", "[0].seconds is missing: only the last step may do without"),
            ("[{ rate = 1, seconds = 0 }]", "[0].seconds = 0: 0.001 to 1000000 are allowed"),
            ("[{ rate = -1 }]", "[0].rate = -1: 0 to 1000000000 are allowed"),
            ("[{ rate = 1, to = inf }]", "[0].to = inf: 0 to 1000000000 are allowed"),
            ("[{ burst = 1000000001 }]", "[0].burst = 1000000001: 0 to 1000000000 are allowed"),
        ] {
            let keys = format!("load.open.steps = {steps}");
            assert_eq!(refusal(&keys), format!("group \"g\": load.open.steps{message}"));
        }
        for steps in ["[{ to = 1 }]", "[{ burst = 1 }]", "[{ seconds = 1 }, { rate = 1 }]"] {
            assert_eq!(refusal(&format!("load.open.steps = {steps}")), "it is allowed");
        }
    }

    #[test]
    fn refuses_messages_that_fit_no_pdu() {
        let allowed = |octets: usize| format!("0 to {octets} are allowed with this data_coding and long");
        for (keys, message) in [
            ("octets = 256", format!("octets = 256: {}", allowed(255))),
            ("octets = [1, 256]", format!("octets = 256: {}", allowed(255))),
            ("octets = [2, 1]", "octets = [2, 1]: the least has to come first".to_owned()),
            ("octets = 39016, long = \"udh\"", format!("octets = 39016: {}", allowed(255 * 153))),
            ("octets = 38761, long = \"sar\"", format!("octets = 38761: {}", allowed(255 * 152))),
            ("octets = 34172, long = \"udh\", data_coding = 8", format!("octets = 34172: {}", allowed(255 * 134))),
            ("octets = 33916, long = \"sar\", data_coding = 4", format!("octets = 33916: {}", allowed(255 * 133))),
            ("octets = 65536, long = \"payload\"", format!("octets = 65536: {}", allowed(65_535))),
            (
                "octets = [2, 141], data_coding = 8",
                "octets = 141: UCS-2 has two a character; only an even number is allowed".to_owned(),
            ),
            (
                "data_coding = 5",
                "data_coding = 5: 0 to 4, 8 and the GSM groups (16 to 27, 192 to 247, without their reserved \
                 values) are allowed"
                    .to_owned(),
            ),
            (
                "source = \"twelve chars\"",
                "source = \"twelve chars\": up to 20 digits, a name of up to 11 ASCII characters, or nothing \
                 are allowed"
                    .to_owned(),
            ),
            (
                "destination = \"\"",
                "destination = \"\": 1 to 20 digits and # are allowed, and a + before".to_owned(),
            ),
            (
                "destination = \"123456789012345678901\"",
                "destination = \"123456789012345678901\": 1 to 20 digits and # are allowed, and a + before".to_owned(),
            ),
        ] {
            assert_eq!(refusal(&format!("message = {{ {keys} }}")), format!("group \"g\": message.{message}"));
        }
        for keys in [
            "octets = 39015, long = \"udh\"",
            "octets = 65535, long = \"payload\"",
            "source = \"eleven char\"",
            "source = \"12345678901234567890\"",
            "destination = \"+1212#######\"",
        ] {
            assert_eq!(refusal(&format!("message = {{ {keys} }}")), "it is allowed");
        }
    }

    #[test]
    fn refuses_mixes_that_do_not_add_up() {
        for (keys, message) in [
            ("mix.query_sm = 101", "mix.query_sm = 101: 0 to 100 are allowed"),
            (
                "mix = { cancel_sm = 60, data_sm = 40.5 }",
                "mix: the shares are 100.5 of 100 together; up to 100 are allowed",
            ),
            ("mix.submit_multi = 1", "mix.multi_destinations = 0: 1 to 255 are allowed"),
            ("mix.multi_destinations = 256", "mix.multi_destinations = 256: 0 to 255 are allowed"),
            (
                "load = \"idle\"\nmix.query_sm = 1",
                "mix: with load = \"idle\" there are no requests, and no mix is allowed",
            ),
            (
                "mix.replace_sm = 5\nmessage.long = \"udh\"",
                "mix.replace_sm = 5: it replaces whole texts; only long = \"no\" or \"payload\" is allowed",
            ),
        ] {
            assert_eq!(refusal(keys), format!("group \"g\": {message}"));
        }
    }

    #[test]
    fn refuses_runs_that_never_end_or_begin() {
        let group = "[[group]]\nname = \"g\"\n";
        for (text, message) in [
            (
                "seconds = 0\n[[group]]\nname = \"g\"",
                "seconds = 0: more than 0 and up to 1000000 are allowed",
            ),
            (
                "warm_up_seconds = -1\n[[group]]\nname = \"g\"",
                "warm_up_seconds = -1: 0 to 1000000 are allowed",
            ),
            ("drain_seconds = inf\n[[group]]\nname = \"g\"", "drain_seconds = inf: 0 to 1000000 are allowed"),
            ("group = []", "there is no [[group]]: at least one has to be there"),
            ("[[group]]\nname = \"\"", "group \"\": name = \"\": the report needs one"),
            (
                "[[group]]\nname = \"g\"\nconnections = 0",
                "group \"g\": connections = 0: 1 to 1000000 are allowed",
            ),
            (&format!("{group}{group}"), "group \"g\": there is another one of this name"),
        ] {
            assert_eq!(Scenario::parse(&format!("about = \"\"\n{text}")), Err(message.to_owned()));
        }
    }
}
