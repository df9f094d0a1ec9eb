//! A carrier that is not there: what becomes of a message follows from a seed, its id and its destination.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::carrier::{Carrier, CarrierId, News, ReplyNews, Report};
use crate::message::{Content, MessageId};
use crate::pdu::receipt::MessageState;
use crate::pdu::{Alphabet, Udh, segment};
use crate::time::Instant;

/// How the simulator behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimulatorSettings {
    /// Another seed, other outcomes and delays; the same seed, the same ones.
    pub seed: u64,
    /// No final state comes earlier after the offer.
    pub delay_min: Duration,
    /// No final state comes later after the offer.
    pub delay_max: Duration,
    /// What becomes of destinations that no rule names: state, error and weight. None = all are delivered.
    pub outcomes: Vec<(MessageState, u16, u32)>,
    /// What becomes of particular destinations; the first rule that fits counts.
    pub rules: Vec<SimulatorRule>,
    /// A text that begins with this word and a blank, in any letter case, comes back as a reply. ASCII letters
    /// and digits; empty = no replies.
    pub reply_keyword: String,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        use MessageState as State;
        let rules = [
            ("9992", Behaviour::State(State::DELIVERED)),
            ("9993", Behaviour::State(State::EXPIRED)),
            ("9994", Behaviour::State(State::DELETED)),
            ("9995", Behaviour::State(State::UNDELIVERABLE)),
            ("9996", Behaviour::AcceptedThen(State::DELIVERED)),
            ("9997", Behaviour::State(State::UNKNOWN)),
            ("9998", Behaviour::State(State::REJECTED)),
            ("9999", Behaviour::NeverAnswers),
        ];
        Self {
            seed: 1,
            delay_min: Duration::from_millis(50),
            delay_max: Duration::from_millis(500),
            outcomes: vec![(State::DELIVERED, 0, 100)],
            rules: rules.map(|(prefix, behaviour)| SimulatorRule::prefix(prefix, behaviour)).into(),
            reply_keyword: "reply".to_owned(),
        }
    }
}

/// What becomes of the destinations that have this prefix and this suffix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimulatorRule {
    /// How they begin; `None` = anyhow.
    pub prefix: Option<String>,
    /// How they end; `None` = anyhow.
    pub suffix: Option<String>,
    /// What happens.
    pub behaviour: Behaviour,
    /// The error of the final state. `None` = the three digits behind the prefix, unless it is DELIVERED.
    pub error: Option<u16>,
}

impl SimulatorRule {
    /// A rule for a prefix, with the error taken from the digits behind it.
    pub fn prefix(prefix: &str, behaviour: Behaviour) -> Self {
        Self { prefix: Some(prefix.to_owned()), suffix: None, behaviour, error: None }
    }

    /// Whether it may fit a destination with this first octet.
    fn may_fit(&self, first: u8) -> bool {
        let prefix = self.prefix.as_ref().and_then(|prefix| prefix.bytes().next());
        prefix.is_none_or(|begin| begin == first)
    }

    fn fits(&self, destination: &[u8]) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| destination.starts_with(prefix.as_bytes()))
            && self.suffix.as_ref().is_none_or(|suffix| destination.ends_with(suffix.as_bytes()))
    }

    /// The error of `state` for a destination that fits.
    fn error(&self, state: MessageState, destination: &[u8]) -> u16 {
        if let Some(error) = self.error {
            return error;
        }
        let prefix = self.prefix.as_ref().filter(|_| state != MessageState::DELIVERED);
        let behind = prefix.and_then(|prefix| destination.get(prefix.len()..prefix.len() + 3));
        let digits = behind.filter(|digits| digits.iter().all(u8::is_ascii_digit));
        digits.map_or(0, |digits| digits.iter().fold(0, |error, digit| error * 10 + u16::from(digit - b'0')))
    }
}

/// What the simulator does with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Takes it, then reports this state.
    State(MessageState),
    /// Takes it, reports ACCEPTED, then this state.
    AcceptedThen(MessageState),
    /// Never takes it: it is busy each time.
    NeverAnswers,
}

/// The simulator. What it has still to say lies in the order in which it is said, and nothing else is kept.
#[derive(Debug)]
pub struct Simulator {
    settings: SimulatorSettings,
    /// The shortest delay, and by how many milliseconds the longest is longer, in numbers that are quick to work with.
    delay_min_millis: u64,
    delay_span_millis: u64,
    /// What is due later, by when.
    later: BTreeMap<Instant, VecDeque<Pending>>,
    /// What was due at a time that has come.
    due: VecDeque<Pending>,
    /// The first octets of destinations for which there may be a rule: most destinations have none.
    firsts: [bool; 256],
    /// A queue that is empty, so that the next need not grow.
    spare: VecDeque<Pending>,
}

/// What is still to be said about a message.
#[derive(Debug)]
struct Pending {
    id: MessageId,
    next: Step,
    behaviour: Behaviour,
    error: u16,
    accepted_at: Instant,
    final_at: Instant,
    reply: Option<(Instant, Box<ReplyNews>)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    Accept,
    Finish,
    Reply,
}

impl Simulator {
    /// A simulator that has been offered nothing.
    pub fn new(settings: SimulatorSettings) -> Self {
        let firsts = std::array::from_fn(|first| settings.rules.iter().any(|rule| rule.may_fit(first as u8)));
        let SimulatorSettings { delay_min, delay_max, .. } = settings;
        Self {
            delay_min_millis: delay_min.as_millis() as u64,
            delay_span_millis: delay_max.saturating_sub(delay_min).as_millis() as u64,
            settings,
            later: BTreeMap::new(),
            due: VecDeque::new(),
            firsts,
            spare: VecDeque::new(),
        }
    }

    /// Messages about which something is still to be said.
    pub fn pending(&self) -> usize {
        self.later.values().map(VecDeque::len).sum::<usize>() + self.due.len()
    }

    /// What is to be said next by `now`.
    fn next(&mut self, now: Instant) -> Option<Pending> {
        if self.due.is_empty()
            && let Some(first) = self.later.first_entry()
            && *first.key() <= now
        {
            self.spare = std::mem::replace(&mut self.due, first.remove());
        }
        self.due.pop_front()
    }

    fn say_later(&mut self, at: Instant, pending: Pending) {
        self.later.entry(at).or_insert_with(|| std::mem::take(&mut self.spare)).push_back(pending);
    }

    /// What happens to a destination, and the error of its final state.
    fn outcome(&self, destination: &[u8], draw: u64) -> (Behaviour, u16) {
        let may_fit = destination.first().is_none_or(|first| self.firsts[usize::from(*first)]);
        let mut rules = self.settings.rules.iter().filter(|_| may_fit);
        if let Some(rule) = rules.find(|rule| rule.fits(destination)) {
            let error = match rule.behaviour {
                Behaviour::State(state) | Behaviour::AcceptedThen(state) => rule.error(state, destination),
                Behaviour::NeverAnswers => 0,
            };
            return (rule.behaviour, error);
        }
        let outcomes = &self.settings.outcomes;
        let total: u64 = outcomes.iter().map(|&(_, _, weight)| u64::from(weight)).sum();
        let mut rest = draw.checked_rem(total).unwrap_or(0);
        for &(state, error, weight) in outcomes {
            match rest.checked_sub(weight.into()) {
                None => return (Behaviour::State(state), error),
                Some(less) => rest = less,
            }
        }
        (Behaviour::State(MessageState::DELIVERED), 0)
    }

    /// In milliseconds.
    const fn delay(&self, draw: u64) -> u64 {
        self.delay_min_millis.saturating_add(draw % self.delay_span_millis.saturating_add(1))
    }
}

impl Carrier for Simulator {
    /// `resumed` makes no difference: nothing is known from before a restart, and everything is told from the start.
    fn offer(&mut self, now: Instant, message: &Content<'_>, _resumed: bool) -> Option<Report> {
        let destination = message.destination.digits;
        let mut draws = Draws::new(self.settings.seed, message.id, destination);
        let (behaviour, error) = self.outcome(destination, draws.next());
        let delay = self.delay(draws.next());
        let now = whole_millis(now);
        let final_at = behind(now, delay);
        let reply_at = behind(final_at, self.delay(draws.next()));
        let reply = reply(message, &self.settings.reply_keyword).map(|reply| (reply_at, Box::new(reply)));
        let accepted_at = behind(now, delay / 2);
        self.say(Pending { id: message.id, next: Step::Take, behaviour, error, accepted_at, final_at, reply })
    }

    fn poll(&mut self, now: Instant) -> Option<Report> {
        let pending = self.next(now)?;
        self.say(pending)
    }

    /// Nothing that was said is kept, so nothing is to be acknowledged.
    fn acknowledge(&mut self, _token: u64) {}

    fn take_back(&mut self, now: Instant, report: Report) {
        let News::Reply(reply) = report.news else { return };
        let at = whole_millis(now) + REPLY_AGAIN;
        let pending = Pending {
            // A reply is about no message.
            id: MessageId::from_u64(0),
            next: Step::Reply,
            behaviour: Behaviour::State(MessageState::DELIVERED),
            error: 0,
            accepted_at: at,
            final_at: at,
            reply: Some((at, Box::new(reply))),
        };
        self.say_later(at, pending);
    }
}

/// After this a reply is said again for which there was no room.
const REPLY_AGAIN: Duration = Duration::from_secs(1);

/// So many milliseconds later.
const fn behind(from: Instant, millis: u64) -> Instant {
    Instant::from_nanos(from.as_nanos().saturating_add(millis.saturating_mul(1_000_000)))
}

/// The last whole millisecond: what is due in one lies together.
const fn whole_millis(now: Instant) -> Instant {
    Instant::from_nanos(now.as_nanos() / 1_000_000 * 1_000_000)
}

impl Simulator {
    /// What is to be said now, and what is left for later.
    fn say(&mut self, mut pending: Pending) -> Option<Report> {
        let id = pending.id;
        let taken = || News::Taken { id, carrier_id: carrier_id(self.settings.seed, id) };
        let (news, next) = match (pending.next, pending.behaviour) {
            (Step::Take, Behaviour::NeverAnswers) => (News::Busy { id, error: 0 }, None),
            (Step::Take, Behaviour::State(_)) => (taken(), Some((Step::Finish, pending.final_at))),
            (Step::Take, Behaviour::AcceptedThen(_)) => (taken(), Some((Step::Accept, pending.accepted_at))),
            (Step::Accept, _) => {
                let news = News::State { id, state: MessageState::ACCEPTED, error: 0 };
                (news, Some((Step::Finish, pending.final_at)))
            }
            (Step::Finish, Behaviour::State(state) | Behaviour::AcceptedThen(state)) => {
                let reply_at = pending.reply.as_ref().map(|&(at, _)| (Step::Reply, at));
                (News::State { id, state, error: pending.error }, reply_at)
            }
            (Step::Finish, Behaviour::NeverAnswers) => {
                unreachable!("a message that is not taken has no final state")
            }
            (Step::Reply, _) => (News::Reply(*pending.reply.take()?.1), None),
        };
        if let Some((next, at)) = next {
            pending.next = next;
            self.say_later(at, pending);
        }
        Some(Report { token: None, news })
    }
}

/// Numbers that look random and follow from the seed, the message and its destination.
struct Draws(u64);

impl Draws {
    fn new(seed: u64, id: MessageId, destination: &[u8]) -> Self {
        let mut octets = [0; 8];
        let mut state = mix(seed ^ id.as_u64());
        for digits in destination.chunks(8) {
            octets[..digits.len()].copy_from_slice(digits);
            octets[digits.len()..].fill(0);
            state = mix(state ^ u64::from_le_bytes(octets));
        }
        Self(state)
    }

    fn next(&mut self) -> u64 {
        self.0 = mix(self.0);
        self.0
    }
}

/// The name that the simulator has for a message. No two have the same one: [`mix`] maps no two numbers to the same.
fn carrier_id(seed: u64, id: MessageId) -> CarrierId {
    let number = mix(seed ^ id.as_u64());
    let digit = |place: usize| b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 0xF];
    CarrierId::from_slice(&std::array::from_fn::<u8, 16, _>(digit))
}

/// One step of splitmix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// What the subscriber writes back, if the message asks for it.
fn reply(message: &Content<'_>, keyword: &str) -> Option<ReplyNews> {
    // ASCII letters, digits and blanks have the same codes in every one-octet alphabet; where octets of
    // the default alphabet pair up, GSM 03.38 is the careful guess.
    let alphabet = message.data_coding.alphabet(Alphabet::Gsm7)?;
    let text =
        if message.esm_class.has_udhi() { Udh::split(message.user_data).ok()?.1 } else { message.user_data };
    let user_data = behind_keyword(alphabet, text, keyword)?;
    Some(ReplyNews {
        source: message.destination.into(),
        destination: message.source.into(),
        data_coding: message.data_coding,
        user_data: segment::first(alphabet, user_data).into(),
    })
}

/// The octets of a text behind the keyword and its blank.
fn behind_keyword<'a>(alphabet: Alphabet, text: &'a [u8], keyword: &str) -> Option<&'a [u8]> {
    if keyword.is_empty() {
        return None;
    }
    let (head, rest) = text.split_at_checked((keyword.len() + 1) * alphabet.unit_octets())?;
    // Nearly every text differs from the keyword in its first character.
    let said = alphabet.characters(head).map(|character| character.to_ascii_lowercase());
    let sought = keyword.chars().map(|character| character.to_ascii_lowercase()).chain([' ']);
    said.eq(sought).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::{Address, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
    use crate::time::Timestamp;

    const NOW: Instant = Instant::from_nanos(1_800_000_000_000);

    fn message(id: u64, destination: &'static str, text: &'static [u8]) -> Content<'static> {
        let address = |digits| Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits };
        Content {
            id: MessageId::from_u64(id),
            batch_offset: 0,
            batch_count: 1,
            accepted_at: Timestamp::from_millis(1_800_000_000_000),
            deliver_at: Timestamp::ZERO,
            expires_at: Timestamp::MAX,
            segments: 1,
            registered_delivery: RegisteredDelivery(1),
            esm_class: EsmClass(0),
            protocol_id: 0,
            priority_flag: 0,
            data_coding: DataCoding::DEFAULT,
            system_id: b"demo",
            service_type: b"",
            source: address(b"12125550100"),
            destination: address(destination.as_bytes()),
            user_data: text,
            tlvs: b"",
        }
    }

    /// When it says something next; what was offered, at once.
    fn next_due(simulator: &Simulator) -> Option<Instant> {
        let later = simulator.later.keys().next().copied();
        if simulator.due.is_empty() { later } else { Some(NOW) }
    }

    /// Everything it has to say, with how many milliseconds after [`NOW`]; nothing must be left.
    fn story(simulator: &mut Simulator, at_once: Option<Report>) -> Vec<(u64, News)> {
        let mut story: Vec<(u64, News)> = at_once.into_iter().map(|report| (0, report.news)).collect();
        while let Some(due) = next_due(simulator) {
            if due > NOW {
                let before = Instant::from_nanos(due.as_nanos() - 1);
                assert_eq!(simulator.poll(before), None, "before it is due");
            }
            let report = simulator.poll(due).expect("it is due");
            story.push((due.saturating_duration_since(NOW).as_millis() as u64, report.news));
        }
        assert_eq!((simulator.pending(), simulator.poll(Instant::MAX)), (0, None));
        story
    }

    fn story_of(settings: SimulatorSettings, message: &Content<'_>) -> Vec<(u64, News)> {
        let mut simulator = Simulator::new(settings);
        let at_once = simulator.offer(NOW, message, false);
        story(&mut simulator, at_once)
    }

    fn states(story: &[(u64, News)]) -> Vec<(MessageState, u16)> {
        let state = |news: &News| match news {
            News::State { state, error, .. } => Some((*state, *error)),
            News::Taken { .. } | News::Busy { .. } | News::Reply(_) => None,
        };
        story.iter().filter_map(|(_, news)| state(news)).collect()
    }

    fn replies(story: &[(u64, News)]) -> Vec<&ReplyNews> {
        let reply = |news: &'_ News| matches!(news, News::Reply(_));
        let replies = story.iter().filter(|(_, news)| reply(news));
        replies.map(|(_, news)| if let News::Reply(reply) = news { reply } else { unreachable!() }).collect()
    }

    #[test]
    fn each_prefix_has_its_outcome() {
        use MessageState as State;
        let table: [(&str, &[(State, u16)]); 12] = [
            ("12125550101", &[(State::DELIVERED, 0)]),
            ("99925550101", &[(State::DELIVERED, 0)]),
            ("99930210101", &[(State::EXPIRED, 21)]),
            ("99940000101", &[(State::DELETED, 0)]),
            ("99950340101", &[(State::UNDELIVERABLE, 34)]),
            ("9995999", &[(State::UNDELIVERABLE, 999)]),
            ("999599", &[(State::UNDELIVERABLE, 0)]),
            ("9995", &[(State::UNDELIVERABLE, 0)]),
            ("99960010101", &[(State::ACCEPTED, 0), (State::DELIVERED, 0)]),
            ("99970010101", &[(State::UNKNOWN, 1)]),
            ("99980110101", &[(State::REJECTED, 11)]),
            ("99990000101", &[]),
        ];
        for (destination, expected) in table {
            let story = story_of(SimulatorSettings::default(), &message(1 << 40, destination, b"Hello"));
            assert_eq!(states(&story), expected, "{destination}");
            let (at, first) = &story[0];
            assert_eq!(*at, 0, "{destination}: taken or refused at once");
            match first {
                News::Busy { error: 0, .. } => assert_eq!((expected.len(), story.len()), (0, 1)),
                News::Taken { carrier_id, .. } => {
                    assert!(carrier_id.iter().all(u8::is_ascii_hexdigit) && !carrier_id.is_empty());
                    let last = story[story.len() - 1].0;
                    assert!((50..=500).contains(&last), "{destination}: {last} ms");
                    assert!(story.is_sorted_by_key(|(at, _)| *at));
                }
                News::Busy { .. } | News::State { .. } | News::Reply(_) => panic!("{destination}: {first:?}"),
            }
        }
    }

    #[test]
    fn the_same_input_gives_the_same_story() {
        let settings = SimulatorSettings {
            outcomes: vec![(MessageState::DELIVERED, 0, 50), (MessageState::UNDELIVERABLE, 7, 50)],
            ..SimulatorSettings::default()
        };
        let mut different = 0;
        for id in 0..100 {
            let message = message((1 << 40) + id, "12125550101", b"reply Hi");
            let story = story_of(settings.clone(), &message);
            assert_eq!(story_of(settings.clone(), &message), story);
            let other = SimulatorSettings { seed: 2, ..settings.clone() };
            different += usize::from(story_of(other, &message) != story);
        }
        assert_eq!(different, 100, "the carrier's ids at least");
    }

    #[test]
    fn outcomes_come_by_their_weights() {
        let settings = SimulatorSettings {
            outcomes: vec![
                (MessageState::DELIVERED, 0, 90),
                (MessageState::EXPIRED, 0, 0),
                (MessageState::UNDELIVERABLE, 7, 10),
            ],
            ..SimulatorSettings::default()
        };
        let mut failed = 0;
        for id in 0..1_000 {
            let message = message((1 << 40) + id, "12125550101", b"Hello");
            match states(&story_of(settings.clone(), &message))[..] {
                [(MessageState::DELIVERED, 0)] => {}
                [(MessageState::UNDELIVERABLE, 7)] => failed += 1,
                ref states => panic!("{states:?}"),
            }
        }
        assert!((70..130).contains(&failed), "{failed}");
        let none = SimulatorSettings { outcomes: Vec::new(), ..settings };
        let story = story_of(none, &message(1 << 40, "12125550101", b""));
        assert_eq!(states(&story), [(MessageState::DELIVERED, 0)]);
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |prefix: Option<&str>, suffix: Option<&str>, state, error| SimulatorRule {
            prefix: prefix.map(str::to_owned),
            suffix: suffix.map(str::to_owned),
            behaviour: Behaviour::State(state),
            error,
        };
        let settings = SimulatorSettings {
            rules: vec![
                rule(Some("44"), Some("00"), MessageState::REJECTED, Some(5)),
                rule(None, Some("00"), MessageState::EXPIRED, None),
                rule(Some("44"), None, MessageState::DELIVERED, Some(9)),
            ],
            ..SimulatorSettings::default()
        };
        for (destination, expected) in [
            ("44123400", (MessageState::REJECTED, 5)),
            ("49123400", (MessageState::EXPIRED, 0)),
            ("44123401", (MessageState::DELIVERED, 9)),
            ("49123401", (MessageState::DELIVERED, 0)),
        ] {
            assert_eq!(
                states(&story_of(settings.clone(), &message(1, destination, b""))),
                [expected],
                "{destination}"
            );
        }
    }

    #[test]
    fn a_rule_may_name_an_end_alone() {
        let rule = |prefix: Option<&str>, suffix: Option<&str>, error| SimulatorRule {
            prefix: prefix.map(str::to_owned),
            suffix: suffix.map(str::to_owned),
            behaviour: Behaviour::State(MessageState::UNDELIVERABLE),
            error: Some(error),
        };
        let rules =
            vec![rule(None, Some("00"), 1), rule(Some("44"), Some("7"), 2), rule(Some("44"), None, 3)];
        let settings = SimulatorSettings { rules, ..SimulatorSettings::default() };
        for (destination, error) in [
            ("12125550100", Some(1)),
            ("447700900100", Some(1)),
            ("447700900107", Some(2)),
            ("447700900108", Some(3)),
            ("12125550107", None),
        ] {
            let expected =
                error.map_or((MessageState::DELIVERED, 0), |error| (MessageState::UNDELIVERABLE, error));
            let story = story_of(settings.clone(), &message(1 << 40, destination, b""));
            assert_eq!(states(&story), [expected], "{destination}");
        }
    }

    #[test]
    fn a_reply_for_which_there_is_no_room_is_said_again_after_a_second() {
        let mut simulator = Simulator::new(SimulatorSettings::default());
        let said = simulator.offer(NOW, &message(1 << 40, "12125550101", b"reply Hi"), false);
        let reports = said.into_iter().chain(std::iter::from_fn(|| simulator.poll(Instant::MAX)));
        let reply = reports.last().expect("a reply");
        assert!(matches!(reply.news, News::Reply(_)));
        for again in [0, 1_000] {
            let now = NOW + Duration::from_millis(again);
            simulator.take_back(now, reply.clone());
            assert_eq!(simulator.poll(now + Duration::from_millis(999)), None, "{again}");
            assert_eq!(simulator.poll(now + Duration::from_millis(1_000)).as_ref(), Some(&reply), "{again}");
        }
        assert_eq!(simulator.pending(), 0);
    }

    #[test]
    fn a_keyword_brings_a_reply_after_the_final_state() {
        let story =
            story_of(SimulatorSettings::default(), &message(1 << 40, "12125550101", b"Reply Yes, please"));
        let [reply] = replies(&story)[..] else { panic!("{story:?}") };
        assert_eq!(*reply.user_data, *b"Yes, please");
        assert_eq!(
            (&*reply.source.digits, &*reply.destination.digits),
            (&b"12125550101"[..], &b"12125550100"[..])
        );
        assert!(matches!(story[..], [(0, News::Taken { .. }), (_, News::State { .. }), (_, News::Reply(_))]));
        assert!(story[2].0 >= story[1].0 + 50);
        for (text, udhi, data_coding, expected) in [
            (&b"REPLY "[..], false, 0, Some(&b""[..])),
            (b"reply", false, 0, None),
            (b"replying to", false, 0, None),
            (b" reply to", false, 0, None),
            (b"reply \xFF", false, 3, Some(b"\xFF")),
            (b"reply a", false, 4, None),
            (b"reply a", false, 5, None),
            (b"\x05\x00\x03\x01\x02\x01reply a", true, 1, Some(b"a")),
            (b"\x05\x00", true, 1, None),
            (b"\x00r\x00e\x00P\x00l\x00y\x00 \x4F\x60", false, 8, Some(b"\x4F\x60")),
            (b"\x00r\x00e\x00P\x00l\x00y\x01 \x4F\x60", false, 8, None),
        ] {
            let message = Content {
                data_coding: DataCoding(data_coding),
                esm_class: EsmClass(if udhi { 0x40 } else { 0 }),
                ..message(1 << 40, "12125550101", text)
            };
            let story = story_of(SimulatorSettings::default(), &message);
            let reply = replies(&story).first().map(|reply| &*reply.user_data);
            assert_eq!(reply, expected, "{text:02X?}");
        }
        let silent = SimulatorSettings { reply_keyword: String::new(), ..SimulatorSettings::default() };
        assert_eq!(replies(&story_of(silent, &message(1, "12125550101", b" a"))).len(), 0);
    }

    #[test]
    fn a_reply_is_one_segment_of_whole_pairs() {
        let table = [
            (Alphabet::Gsm7, b"a".repeat(161), 160),
            (Alphabet::Gsm7, [b"a".repeat(159), b"\x1B\x65".to_vec()].concat(), 159),
            (Alphabet::Gsm7, [b"a".repeat(158), b"\x1B\x65b".to_vec()].concat(), 160),
            (Alphabet::Ascii, b"a".repeat(161), 160),
            (Alphabet::Latin1, b"a".repeat(160), 160),
            (Alphabet::Ucs2, b"\0a".repeat(71), 140),
            (Alphabet::Ucs2, [b"\0a".repeat(69), b"\xD8\x3D\xDE\x00".to_vec()].concat(), 138),
            (Alphabet::Ucs2, [b"\0a".repeat(68), b"\xD8\x3D\xDE\x00\0a".to_vec()].concat(), 140),
        ];
        for (alphabet, text, octets) in table {
            assert_eq!(segment::first(alphabet, &text).len(), octets, "{alphabet:?} {}", text.len());
        }
    }

    #[test]
    fn a_resumed_offer_tells_the_same() {
        let message = message(1 << 40, "99960010101", b"reply Hi");
        let whole = story_of(SimulatorSettings::default(), &message);
        let mut simulator = Simulator::new(SimulatorSettings::default());
        let at_once = simulator.offer(NOW, &message, true);
        assert_eq!(story(&mut simulator, at_once), whole, "after a restart");
    }

    #[test]
    fn messages_do_not_mix() {
        let mut simulator = Simulator::new(SimulatorSettings::default());
        let offer = |id: u64| simulator.offer(NOW, &message((1 << 40) + id, "12125550101", b""), false);
        let mut said: Vec<Report> = (0..50).filter_map(offer).collect();
        said.extend(std::iter::from_fn(|| simulator.poll(Instant::MAX)));
        let mut carrier_ids = Vec::new();
        let reports = said.len();
        for report in said {
            if let News::Taken { carrier_id, .. } = report.news {
                carrier_ids.push(carrier_id);
            }
        }
        assert_eq!((reports, simulator.pending()), (100, 0));
        carrier_ids.sort();
        carrier_ids.dedup();
        assert_eq!(carrier_ids.len(), 50);
    }
}
