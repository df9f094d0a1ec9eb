//! What customers do: submissions of every kind, questions, second thoughts.

use smppd::account::{AccountSettings, DefaultAlphabet, StatusName};
use smppd::message::MessageId;
use smppd::pdu::{
    Address, CancelSm, CommandStatus, DataCoding, DataSm, DestAddress, DestAddresses, EsmClass,
    InterfaceVersion, Npi, Pdu, QuerySm, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, TlvBuf, Tlvs, Ton,
};
use smppd::time::{Now, Timestamp};

use crate::esme::Esme;
use crate::oracle::{Asked, OWN_WORDS, Oracle, Target, Token, Wish};
use crate::random::Random;
use crate::terms::{Terms, When};

/// The accounts of a run, as their operator first sets them.
pub fn accounts(count: usize, random: &mut Random) -> Vec<AccountSettings> {
    (0..count)
        .map(|number| {
            let name = format!("acct{number}");
            AccountSettings {
                bind_limit: random.pick(&[1, 2, 2, 3, 8, 0]),
                numbers: vec![format!("1212555010{number}"), format!("1212555020{number}")],
                any_source: random.chance(30),
                segment_long: true,
                accepted_receipts: random.chance(30),
                deliver_window: random.pick(&[0, 0, 1, 3]),
                ..volatile(AccountSettings::new(&name, &password(&name)), random)
            }
        })
        .collect()
}

/// What a reload may change.
pub fn volatile(settings: AccountSettings, random: &mut Random) -> AccountSettings {
    let credits = match settings.credits {
        0 => random.pick(&[0, 0, 0, 30, 90]),
        some => some + random.range(0, 90),
    };
    let rate = random.pick(&[0, 0, 0, 0, 5, 50]);
    let mut settings = AccountSettings { rate, burst: random.pick(&[0, 1, 10]), credits, ..settings };
    if random.chance(20) {
        settings.bind_limit = random.pick(&[1, 2, 3, 8, 0]);
    }
    if random.chance(20) {
        settings.deliver_window = random.pick(&[0, 1, 3]);
    }
    if random.chance(10) {
        settings.any_source = !settings.any_source;
    }
    if random.chance(20) {
        let alphabets = [DefaultAlphabet::Ascii, DefaultAlphabet::Gsm, DefaultAlphabet::Latin1];
        settings.default_alphabet = random.pick(&alphabets);
    }
    if random.chance(10) {
        settings.password_hash = format!("{}{}", password(&settings.system_id), random.range(0, 9));
    }
    if random.chance(10) {
        settings.numbers.reverse();
    }
    if random.chance(20) {
        let own =
            |status: CommandStatus| (StatusName(status), StatusName(CommandStatus(status.0 + OWN_WORDS)));
        let all = [
            CommandStatus::ESME_RMSGQFUL,
            CommandStatus::ESME_RTHROTTLED,
            CommandStatus::ESME_RINVSRCADR,
            CommandStatus::ESME_RINVDSTADR,
            CommandStatus::ESME_RCANCELFAIL,
            CommandStatus::ESME_RINVMSGID,
        ];
        settings.status_map = all.into_iter().filter(|_| random.chance(50)).map(own).collect();
    }
    settings
}

/// A number goes from one account to another.
pub fn hand_on(accounts: &mut [AccountSettings], random: &mut Random) {
    let (from, to) = (random.place(accounts.len()), random.place(accounts.len()));
    if from != to && accounts[from].numbers.len() > 1 {
        let number = accounts[from].numbers.pop();
        accounts[to].numbers.extend(number);
    }
}

/// The password of an account; in this world it is its own hash.
pub fn password(name: &str) -> String {
    format!("pw{name}")
}

const fn address(digits: &[u8]) -> Address<'_> {
    Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits }
}

fn registered_delivery(random: &mut Random) -> RegisteredDelivery {
    RegisteredDelivery(random.pick(&[0, 1, 1, 1, 1, 2, 3]) | random.pick(&[0, 0, 0, 0x10]))
}

/// Few numbers, so that messages meet; now and then one that nobody serves.
fn destination(random: &mut Random) -> String {
    match random.range(0, 39) {
        0 => "77".to_owned(),
        1 => "12ab".to_owned(),
        2..=5 => format!("99{}00{:04}", random.range(92, 99), random.range(0, 3)),
        _ => format!("4479{:06}", random.range(0, 60)),
    }
}

fn text(token: Token, random: &mut Random) -> Vec<u8> {
    let head = random.pick(&["", "", "", "@_$ ", "0123456789 "]);
    let mut text = format!("{head}reply #{token}# ").into_bytes();
    let length = random.pick(&[0, 0, 0, 10, 140, 140, 220]);
    text.resize(text.len() + length, b'x');
    text
}

/// A date, or now and then a distance, between so many seconds ahead.
fn ahead(from: u64, to: u64, wall: Timestamp, random: &mut Random) -> When {
    // Two digits of a year do not reach beyond this century.
    if random.chance(30) || wall > CENTURY_END {
        return When::After(random.range(from, to));
    }
    When::ahead(random.range(from * 1_000, to * 1_000), wall)
}

/// A little before the end of 2099.
const CENTURY_END: Timestamp = Timestamp::from_millis(4_102_444_000_000);

/// What the customers of a world are like.
#[derive(Clone, Copy, Default, Debug)]
pub struct Habits {
    /// They know only v3.3.
    pub is_old: bool,
    /// They write to few numbers, at fixed times, and change their minds.
    pub is_fickle: bool,
    /// They want many messages to be delivered at the same moment.
    pub is_punctual: bool,
}

impl Habits {
    /// Those of a world.
    pub const fn draw(random: &mut Random) -> Self {
        Self { is_old: random.chance(15), is_fickle: random.chance(25), is_punctual: random.chance(10) }
    }
}

/// One thing that a bound ESME does; what it was.
pub fn act(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    habits: Habits,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    if !esme.can_submit() {
        return "waits";
    }
    if habits.is_fickle && random.chance(30) {
        return change_its_mind(esme, now, settings, random, oracle);
    }
    if habits.is_old && random.chance(15) {
        let open = oracle.open_message(esme.account, random);
        return cancel(esme, now, open, random, oracle);
    }
    if habits.is_punctual && random.chance(25) {
        let terms = Terms { schedule: ahead(1, 3, now.wall, random), validity: When::Nothing };
        let plan = Plan {
            terms,
            esm_class: 0,
            replaces_if_present: false,
            ..Plan::draw(now, settings, habits, random)
        };
        let count = random.range(3, 12) as u8;
        return submit_multi(esme, now, &plan, count, random, oracle);
    }
    match random.range(0, 99) {
        0..=59 => {
            let plan = Plan::draw(now, settings, habits, random);
            submit(esme, now, &plan, random, oracle)
        }
        60..=64 => {
            // Now and then so many that they fill most of a batch.
            let count = if random.chance(10) { random.range(15, 40) } else { random.range(1, 4) };
            let plan = Plan { replaces_if_present: false, ..Plan::draw(now, settings, habits, random) };
            submit_multi(esme, now, &plan, count as u8, random, oracle)
        }
        65..=69 => data_sm(esme, now, settings, random, oracle),
        70..=79 => query(esme, now, random, oracle),
        80..=87 => {
            let message = one_of(esme, random);
            cancel(esme, now, message, random, oracle)
        }
        88..=93 => replace(esme, now, random, oracle),
        94..=95 => query_unknown(esme, now, random, oracle),
        _ => "rests",
    }
}

fn source<'a>(settings: &'a AccountSettings, random: &mut Random) -> &'a [u8] {
    match random.range(0, 19) {
        0 => b"",
        1 if random.chance(30) => b"5550000",
        draw => settings
            .numbers
            .get(draw as usize % 2)
            .or(settings.numbers.first())
            .map_or(b"", |own| own.as_bytes()),
    }
}

/// What a submit_sm or submit_multi is to be.
#[derive(Clone, Debug)]
struct Plan {
    terms: Terms,
    source: Vec<u8>,
    destination: String,
    service_type: &'static [u8],
    esm_class: u8,
    replaces_if_present: bool,
}

impl Plan {
    fn draw(now: Now, settings: &AccountSettings, habits: Habits, random: &mut Random) -> Self {
        let (patience, longest) = if habits.is_old { (60, 14) } else { (15, 6) };
        let terms = Terms {
            schedule: if random.chance(patience) {
                ahead(1, longest, now.wall, random)
            } else {
                When::Nothing
            },
            validity: match random.range(0, 19) {
                0..=5 => ahead(1, 12, now.wall, random),
                // Longer than messages are tried.
                6 => ahead(32, 60, now.wall, random),
                _ => When::Nothing,
            },
        };
        Self {
            terms,
            source: source(settings, random).to_vec(),
            destination: destination(random),
            service_type: random.pick(&[&b""[..], b"CMT"]),
            esm_class: random.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3]),
            replaces_if_present: random.chance(10),
        }
    }

    /// What a submit_sm or submit_multi that follows this plan asks for.
    fn wish<D>(&self, version: InterfaceVersion, message: &ShortMessage<'_, D>) -> Wish {
        Wish {
            source: self.source.clone().into(),
            destinations: Vec::new(),
            service_type: self.service_type.into(),
            replaces_if_present: self.replaces_if_present,
            is_transaction: self.esm_class & 3 == 2 && version == InterfaceVersion::V5_0,
            registered_delivery: message.registered_delivery,
            data_coding: Some(message.data_coding),
            text: message.short_message.into(),
            reference: message.tlvs.get(Tag::USER_MESSAGE_REFERENCE).map(Into::into),
        }
    }
}

/// Several things between the same two addresses, one right behind the other.
fn change_its_mind(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    let Some(number) = settings.numbers.first() else { return "rests" };
    let first = random.range(0, 1);
    let at_fixed_time = |random: &mut Random, replaces_if_present| Plan {
        terms: Terms { schedule: ahead(2, 9, now.wall, random), validity: When::Nothing },
        source: number.as_bytes().to_vec(),
        destination: format!("4479{first:06}"),
        service_type: b"",
        esm_class: 0,
        replaces_if_present,
    };
    for _ in 0..random.range(1, 4) {
        if !esme.can_submit() {
            return "changes its mind";
        }
        match random.range(0, 9) {
            0..=2 => {
                let plan = at_fixed_time(random, false);
                submit(esme, now, &plan, random, oracle);
            }
            3..=6 => {
                let plan = at_fixed_time(random, true);
                submit(esme, now, &plan, random, oracle);
            }
            7 => {
                let count = random.range(1, 3) as u8;
                let plan = at_fixed_time(random, false);
                submit_multi(esme, now, &plan, count, random, oracle);
            }
            _ => {
                let account = esme.account;
                let Some(link) = &mut esme.link else { return "waits" };
                let destination = format!("4479{first:06}");
                let target = Target::Many {
                    source: number.as_bytes().into(),
                    destination: destination.as_bytes().into(),
                    service_type: Box::default(),
                };
                let cancel = CancelSm {
                    service_type: b"",
                    message_id: b"",
                    source: address(number.as_bytes()),
                    destination: address(destination.as_bytes()),
                    tlvs: Tlvs::EMPTY,
                };
                let asked = Asked::Cancel(oracle.cancelling(account, link.connection, target));
                link.ask(now, &Pdu::CancelSm(cancel), asked, oracle);
            }
        }
    }
    "changes its mind"
}

/// A message that nobody has a reason to refuse; its token, if it could be sent.
pub fn plain(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> Option<Token> {
    let source = settings.numbers.first()?.as_bytes().to_vec();
    let destination = format!("4479{:06}", random.range(0, 60));
    let plan = Plan {
        terms: Terms::default(),
        source,
        destination,
        service_type: b"",
        esm_class: 0,
        replaces_if_present: false,
    };
    if !esme.can_submit() {
        return None;
    }
    submit(esme, now, &plan, random, oracle);
    oracle.newest()
}

fn submit(esme: &mut Esme, now: Now, plan: &Plan, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let (account, version, Some(link)) = (esme.account, esme.version, &mut esme.link) else { return "waits" };
    let (schedule, validity) = (plan.terms.schedule.field(), plan.terms.validity.field());
    let token = oracle.submitting(account, link.connection, plan.terms, Wish::default());
    let text = text(token, random);
    let destination = plan.destination.as_bytes();
    let tlvs = reference(version, random);
    let submit = ShortMessage {
        service_type: plan.service_type,
        source: address(&plan.source),
        destination: address(destination),
        esm_class: EsmClass(plan.esm_class),
        protocol_id: 0,
        priority_flag: random.pick(&[0, 0, 3, 4]) % 4,
        schedule_delivery_time: &schedule,
        validity_period: &validity,
        registered_delivery: registered_delivery(random),
        replace_if_present_flag: u8::from(plan.replaces_if_present),
        data_coding: DataCoding(random.pick(&[0, 0, 1, 3])),
        sm_default_msg_id: 0,
        short_message: &text,
        tlvs: tlvs.as_tlvs(),
    };
    let wish = Wish { destinations: vec![destination.into()], ..plan.wish(version, &submit) };
    oracle.wishing(token, wish);
    link.ask(now, &Pdu::SubmitSm(submit), Asked::Submit(token), oracle);
    "submits"
}

/// More messages than an id has numbers for in a millisecond.
pub fn crowd(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) {
    let Some(number) = settings.numbers.first() else { return };
    for _ in 0..36 {
        let plan = Plan {
            terms: Terms::default(),
            source: number.as_bytes().to_vec(),
            destination: "4479000000".to_owned(),
            service_type: b"",
            esm_class: 0,
            replaces_if_present: false,
        };
        submit_multi(esme, now, &plan, 40, random, oracle);
    }
}

/// Now and then a user_message_reference, for peers that know of TLVs.
fn reference(version: InterfaceVersion, random: &mut Random) -> TlvBuf {
    let mut tlvs = TlvBuf::default();
    if version != InterfaceVersion::V3_3 && random.chance(30) {
        let reference = random.range(0, 65_535) as u16;
        // What is short enough can be encoded.
        _ = tlvs.put(Tag::USER_MESSAGE_REFERENCE, &reference.to_be_bytes());
    }
    tlvs
}

fn submit_multi(
    esme: &mut Esme,
    now: Now,
    plan: &Plan,
    count: u8,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    if esme.version == InterfaceVersion::V3_3 {
        return "rests";
    }
    let (account, version, Some(link)) = (esme.account, esme.version, &mut esme.link) else { return "waits" };
    let (schedule, validity) = (plan.terms.schedule.field(), plan.terms.validity.field());
    let token = oracle.submitting(account, link.connection, plan.terms, Wish::default());
    let text = text(token, random);
    let first: u64 = plan.destination.strip_prefix("4479").and_then(|own| own.parse().ok()).unwrap_or(0);
    let mut octets = Vec::new();
    let mut destinations: Vec<Box<[u8]>> = Vec::new();
    for number in 0..count {
        let digits = format!("4479{:06}", first + u64::from(number));
        // What is short enough can be encoded.
        _ = DestAddress::Sme(address(digits.as_bytes())).put(&mut octets);
        destinations.push(digits.into_bytes().into());
    }
    let mut bad: Vec<Box<[u8]>> = Vec::new();
    for digits in ["77", "12ab"] {
        if random.chance(15) {
            _ = DestAddress::Sme(address(digits.as_bytes())).put(&mut octets);
            bad.push(digits.as_bytes().into());
        }
    }
    let count = count + bad.len() as u8;
    oracle.failing(token, bad);
    let Ok(all) = DestAddresses::new(count, &octets) else { return "rests" };
    let tlvs = reference(version, random);
    let submit = ShortMessage {
        service_type: plan.service_type,
        source: address(&plan.source),
        destination: all,
        esm_class: EsmClass(plan.esm_class),
        protocol_id: 0,
        priority_flag: 0,
        schedule_delivery_time: &schedule,
        validity_period: &validity,
        registered_delivery: registered_delivery(random),
        replace_if_present_flag: 0,
        data_coding: DataCoding::DEFAULT,
        sm_default_msg_id: 0,
        short_message: &text,
        tlvs: tlvs.as_tlvs(),
    };
    let wish = Wish { destinations, is_transaction: false, ..plan.wish(version, &submit) };
    oracle.wishing(token, wish);
    link.ask(now, &Pdu::SubmitMulti(submit), Asked::Submit(token), oracle);
    "submits to many"
}

fn data_sm(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    if esme.version == InterfaceVersion::V3_3 {
        return "rests";
    }
    let (account, version, Some(link)) = (esme.account, esme.version, &mut esme.link) else { return "waits" };
    let seconds = random.range(1, 25);
    let validity = if random.chance(25) { When::After(seconds) } else { When::Nothing };
    let terms = Terms { schedule: When::Nothing, validity };
    let token = oracle.submitting(account, link.connection, terms, Wish::default());
    let mut text = text(token, random);
    if random.chance(10) {
        text.resize(1_200, b'y');
    }
    let destination = destination(random);
    let source = source(settings, random);
    let esm_class = random.pick(&[0, 0, 2]);
    let mut tlvs = reference(version, random);
    if let When::After(seconds) = validity {
        // What is short enough can be encoded.
        _ = tlvs.put(Tag::QOS_TIME_TO_LIVE, &(seconds as u32).to_be_bytes());
    }
    // What is short enough can be encoded.
    _ = tlvs.put(Tag::MESSAGE_PAYLOAD, &text);
    let data = DataSm {
        service_type: b"",
        source: address(source),
        destination: address(destination.as_bytes()),
        esm_class: EsmClass(esm_class),
        registered_delivery: registered_delivery(random),
        data_coding: DataCoding::DEFAULT,
        tlvs: tlvs.as_tlvs(),
    };
    let wish = Wish {
        source: source.into(),
        destinations: vec![destination.as_bytes().into()],
        is_transaction: esm_class == 2,
        registered_delivery: data.registered_delivery,
        data_coding: Some(data.data_coding),
        text: text.as_slice().into(),
        reference: data.tlvs.get(Tag::USER_MESSAGE_REFERENCE).map(Into::into),
        ..Wish::default()
    };
    oracle.wishing(token, wish);
    link.ask(now, &Pdu::DataSm(data), Asked::Submit(token), oracle);
    "sends data"
}

fn one_of(esme: &Esme, random: &mut Random) -> Option<(MessageId, Box<[u8]>)> {
    let count = esme.accepted.len();
    if count == 0 {
        return None;
    }
    // The young ones are the interesting ones.
    let recent = count.min(6);
    let place = if random.chance(80) { count - 1 - random.place(recent) } else { random.place(count) };
    esme.accepted.get(place).cloned()
}

fn query(esme: &mut Esme, now: Now, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let Some((id, source)) = one_of(esme, random) else { return "rests" };
    let asked = Asked::Query(oracle.querying(esme.account, id, &source));
    ask_after(esme, now, id, &source, asked, oracle);
    "asks"
}

/// Asks after one message.
pub fn ask_after(esme: &mut Esme, now: Now, id: MessageId, source: &[u8], asked: Asked, oracle: &mut Oracle) {
    let Some(link) = &mut esme.link else { return };
    let text = id.text();
    let query = QuerySm { message_id: text.as_octets(), source: address(source), tlvs: Tlvs::EMPTY };
    link.ask(now, &Pdu::QuerySm(query), asked, oracle);
}

fn query_unknown(esme: &mut Esme, now: Now, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let id = MessageId::from_u64((1 << 60) + random.range(0, 1 << 40));
    ask_after(esme, now, id, b"12125550100", Asked::QueryForeign, oracle);
    "asks after nothing"
}

fn cancel(
    esme: &mut Esme,
    now: Now,
    message: Option<(MessageId, Box<[u8]>)>,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    let Some((id, source)) = message else { return "rests" };
    let account = esme.account;
    let Some(link) = &mut esme.link else { return "waits" };
    let text = id.text();
    let destination = oracle.fact(id).map(|fact| fact.destination.clone()).unwrap_or_default();
    let many = random.chance(15);
    let target = match many {
        true => Target::Many {
            source: source.clone(),
            destination: destination.clone(),
            service_type: Box::default(),
        },
        false => Target::One { id, source: source.clone() },
    };
    let cancel = CancelSm {
        service_type: b"",
        message_id: if many { b"" } else { text.as_octets() },
        source: address(&source),
        destination: if many { address(&destination) } else { Address::default() },
        tlvs: Tlvs::EMPTY,
    };
    let asked = Asked::Cancel(oracle.cancelling(account, link.connection, target));
    link.ask(now, &Pdu::CancelSm(cancel), asked, oracle);
    "cancels"
}

fn replace(esme: &mut Esme, now: Now, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let Some((id, source)) = one_of(esme, random) else { return "rests" };
    let (account, Some(link)) = (esme.account, &mut esme.link) else { return "waits" };
    let mut date = |percent, millis| {
        let is_set = random.chance(percent) && now.wall < CENTURY_END;
        if is_set { When::ahead(random.range(1_000, millis), now.wall) } else { When::Nothing }
    };
    let terms = Terms { schedule: date(20, 4_000), validity: date(20, 12_000) };
    let (schedule, validity) = (terms.schedule.field(), terms.validity.field());
    let token = oracle.replacing(account, link.connection, terms, (id, &source));
    let new_text = text(token, random);
    let text = id.text();
    let replace = ReplaceSm {
        message_id: text.as_octets(),
        source: address(&source),
        schedule_delivery_time: &schedule,
        validity_period: &validity,
        registered_delivery: registered_delivery(random),
        sm_default_msg_id: 0,
        short_message: &new_text,
        tlvs: Tlvs::EMPTY,
    };
    let wish = Wish {
        source: replace.source.digits.into(),
        registered_delivery: replace.registered_delivery,
        text: new_text.as_slice().into(),
        ..Wish::default()
    };
    oracle.wishing(token, wish);
    link.ask(now, &Pdu::ReplaceSm(replace), Asked::Replace(token), oracle);
    "replaces"
}
