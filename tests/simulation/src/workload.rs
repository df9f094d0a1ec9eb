//! What customers do: submissions of every kind, questions, second thoughts.

use smppd::account::AccountSettings;
use smppd::message::MessageId;
use smppd::pdu::{
    Address, CancelSm, DataCoding, DataSm, DestAddress, DestAddresses, EsmClass, InterfaceVersion, Npi, Pdu,
    QuerySm, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, TlvBuf, Tlvs, Ton,
};
use smppd::time::{Now, Timestamp};

use crate::esme::Esme;
use crate::oracle::{Asked, Oracle, Token};
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
    AccountSettings { rate, burst: random.pick(&[0, 1, 10]), credits, ..settings }
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
    let mut text = format!("reply #{token}# ").into_bytes();
    let length = random.pick(&[0, 0, 0, 10, 140, 140, 220]);
    text.resize(text.len() + length, b'x');
    text
}

/// A date, or now and then a distance, between so many seconds ahead.
fn ahead(from: u64, to: u64, wall: Timestamp, random: &mut Random) -> When {
    if random.chance(30) {
        return When::After(random.range(from, to));
    }
    When::ahead(random.range(from * 1_000, to * 1_000), wall)
}

/// One thing that a bound ESME does. `names`: every account's name and numbers.
pub fn act(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    if !esme.can_submit() {
        return "waits";
    }
    match random.range(0, 99) {
        0..=59 => submit(esme, now, settings, random, oracle),
        60..=64 => submit_multi(esme, now, settings, random, oracle),
        65..=69 => data_sm(esme, now, settings, random, oracle),
        70..=79 => query(esme, now, random, oracle),
        80..=87 => cancel(esme, now, random, oracle),
        88..=93 => replace(esme, now, random, oracle),
        94..=95 => query_unknown(esme, now, random, oracle),
        _ => "rests",
    }
}

fn source<'a>(settings: &'a AccountSettings, random: &mut Random) -> &'a [u8] {
    match random.range(0, 19) {
        0 => b"",
        1 if random.chance(30) => b"5550000",
        draw => settings.numbers[draw as usize % 2].as_bytes(),
    }
}

fn submit(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    let (account, Some(link)) = (esme.account, &mut esme.link) else { return "waits" };
    let terms = Terms {
        schedule: if random.chance(15) { ahead(1, 6, now.wall, random) } else { When::Nothing },
        validity: match random.range(0, 19) {
            0..=5 => ahead(1, 12, now.wall, random),
            // Longer than messages are tried.
            6 => ahead(32, 60, now.wall, random),
            _ => When::Nothing,
        },
    };
    let (schedule, validity) = (terms.schedule.field(), terms.validity.field());
    let token = oracle.submitting(account, link.connection, terms, false);
    let text = text(token, random);
    let destination = destination(random);
    let submit = ShortMessage {
        service_type: random.pick(&[&b""[..], b"CMT"]),
        source: address(source(settings, random)),
        destination: address(destination.as_bytes()),
        esm_class: EsmClass(random.pick(&[0, 0, 0, 0, 0, 0, 1, 2, 3])),
        protocol_id: 0,
        priority_flag: random.pick(&[0, 0, 3, 4]) % 4,
        schedule_delivery_time: &schedule,
        validity_period: &validity,
        registered_delivery: registered_delivery(random),
        replace_if_present_flag: u8::from(random.chance(10)),
        data_coding: DataCoding(random.pick(&[0, 0, 1, 3])),
        sm_default_msg_id: 0,
        short_message: &text,
        tlvs: Tlvs::EMPTY,
    };
    link.ask(now, &Pdu::SubmitSm(submit), Asked::Submit(token), oracle);
    "submits"
}

fn submit_multi(
    esme: &mut Esme,
    now: Now,
    settings: &AccountSettings,
    random: &mut Random,
    oracle: &mut Oracle,
) -> &'static str {
    if esme.version == InterfaceVersion::V3_3 {
        return "rests";
    }
    let (account, Some(link)) = (esme.account, &mut esme.link) else { return "waits" };
    let token = oracle.submitting(account, link.connection, Terms::default(), false);
    let text = text(token, random);
    // Now and then so many that they fill most of a batch.
    let count = if random.chance(10) { random.range(15, 40) } else { random.range(1, 4) } as u8;
    let first = random.range(0, 50);
    let mut octets = Vec::new();
    for number in 0..count {
        let digits = format!("4479{:06}", first + u64::from(number));
        // What is short enough can be encoded.
        _ = DestAddress::Sme(address(digits.as_bytes())).put(&mut octets);
    }
    let Ok(destinations) = DestAddresses::new(count, &octets) else { return "rests" };
    let submit = ShortMessage {
        service_type: b"",
        source: address(source(settings, random)),
        destination: destinations,
        esm_class: EsmClass::DEFAULT,
        protocol_id: 0,
        priority_flag: 0,
        schedule_delivery_time: b"",
        validity_period: b"",
        registered_delivery: registered_delivery(random),
        replace_if_present_flag: 0,
        data_coding: DataCoding::DEFAULT,
        sm_default_msg_id: 0,
        short_message: &text,
        tlvs: Tlvs::EMPTY,
    };
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
    let (account, Some(link)) = (esme.account, &mut esme.link) else { return "waits" };
    let token = oracle.submitting(account, link.connection, Terms::default(), false);
    let mut text = text(token, random);
    if random.chance(10) {
        text.resize(1_200, b'y');
    }
    let destination = destination(random);
    let mut tlvs = TlvBuf::default();
    // What is short enough can be encoded.
    _ = tlvs.put(Tag::MESSAGE_PAYLOAD, &text);
    let data = DataSm {
        service_type: b"",
        source: address(source(settings, random)),
        destination: address(destination.as_bytes()),
        esm_class: EsmClass(random.pick(&[0, 0, 2])),
        registered_delivery: registered_delivery(random),
        data_coding: DataCoding::DEFAULT,
        tlvs: tlvs.as_tlvs(),
    };
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
    ask_after(esme, now, id, &source, Asked::Query(id), oracle);
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

fn cancel(esme: &mut Esme, now: Now, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let Some((id, source)) = one_of(esme, random) else { return "rests" };
    let Some(link) = &mut esme.link else { return "waits" };
    let text = id.text();
    let destination = oracle.fact(id).map(|fact| fact.destination.clone()).unwrap_or_default();
    let many = random.chance(15);
    let cancel = CancelSm {
        service_type: b"",
        message_id: if many { b"" } else { text.as_octets() },
        source: address(&source),
        destination: if many { address(&destination) } else { Address::default() },
        tlvs: Tlvs::EMPTY,
    };
    let asked = if many { Asked::CancelMany } else { Asked::Cancel(id) };
    link.ask(now, &Pdu::CancelSm(cancel), asked, oracle);
    "cancels"
}

fn replace(esme: &mut Esme, now: Now, random: &mut Random, oracle: &mut Oracle) -> &'static str {
    let Some((id, source)) = one_of(esme, random) else { return "rests" };
    let (account, Some(link)) = (esme.account, &mut esme.link) else { return "waits" };
    let mut date = |percent, millis| {
        let is_set = random.chance(percent);
        if is_set { When::ahead(random.range(1_000, millis), now.wall) } else { When::Nothing }
    };
    let terms = Terms { schedule: date(20, 4_000), validity: date(20, 12_000) };
    let (schedule, validity) = (terms.schedule.field(), terms.validity.field());
    let token = oracle.submitting(account, link.connection, terms, true);
    oracle.replacing(token, id);
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
    link.ask(now, &Pdu::ReplaceSm(replace), Asked::Replace(token), oracle);
    "replaces"
}
