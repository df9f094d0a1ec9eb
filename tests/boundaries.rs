//! Every limit of a submission: what is one below it, at it and one above it.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::time::Duration;

use common::{Destinations, Esme, MESSAGE, NEVER_TAKEN, NUMBER, Net, REPLACE, UNTAKEN, multi, payload, tlv};
use smppd::account::{AccountSettings, DefaultAlphabet, StatusName};
use smppd::carrier::News;
use smppd::message::{MessageId, State};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, CommandId, CommandStatus, DataCoding, EsmClass, Npi, Pdu, RegisteredDelivery, ReplaceSm,
    ShortMessage, Tag, TlvBuf, Tlvs, Ton,
};
use smppd::time::{Timestamp, smpp};

const OK: CommandStatus = CommandStatus::ESME_ROK;
const TOO_LONG: CommandStatus = CommandStatus::ESME_RINVMSGLEN;
const TOO_LATE: CommandStatus = CommandStatus::ESME_RINVEXPIRY;
const DEFAULT: DataCoding = DataCoding(0x00);
const LATIN1: DataCoding = DataCoding(0x03);
const BINARY: DataCoding = DataCoding(0x04);
const UCS2: DataCoding = DataCoding(0x08);
/// Of a user data header that says nothing: its length, and an element that nobody knows.
const UDH: [u8; 6] = [5, 0x70, 3, 1, 1, 1];

fn account(change: impl FnOnce(&mut AccountSettings)) -> AccountSettings {
    let mut settings = Net::account("demo");
    change(&mut settings);
    settings
}

/// One shard, and a session of an account that is set like this.
fn net(change: impl FnOnce(&mut AccountSettings)) -> (Net, Esme) {
    let mut net = Net::new(1);
    net.reload(vec![account(change)]);
    let esme = net.bound(0, "demo");
    (net, esme)
}

fn submit(net: &mut Net, esme: Esme, message: ShortMessage<'_, Address<'_>>) -> CommandStatus {
    net.ask(esme, &Pdu::SubmitSm(message))
}

/// A time as it stands in a field.
fn field(at: Timestamp) -> [u8; 16] {
    smpp::absolute(at)
}

const TENTH: Duration = Duration::from_millis(100);

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - by.as_millis() as u64)
}

#[test]
fn a_short_message_is_as_long_as_its_alphabet_lets_it_be() {
    for (alphabet, data_coding, most) in [
        (DefaultAlphabet::Ascii, DEFAULT, 160),
        (DefaultAlphabet::Gsm, DEFAULT, 160),
        (DefaultAlphabet::Latin1, DEFAULT, 160),
        (DefaultAlphabet::Ascii, LATIN1, 160),
        (DefaultAlphabet::Ascii, UCS2, 140),
        (DefaultAlphabet::Ascii, BINARY, 140),
    ] {
        let (mut net, esme) = net(|account| (account.default_alphabet, account.binary) = (alphabet, true));
        let step = if data_coding == UCS2 { 2 } else { 1 };
        let mut ask = |esm_class, octets: &[u8]| {
            let message = ShortMessage { esm_class, data_coding, short_message: octets, ..UNTAKEN };
            submit(&mut net, esme, message)
        };
        for (octets, status) in [(0, OK), (most - step, OK), (most, OK), (most + step, TOO_LONG)] {
            let text = vec![b'x'; octets];
            assert_eq!(ask(EsmClass::DEFAULT, &text), status, "{data_coding} {octets}");
        }
        // A header takes its octets from the text.
        for (octets, status) in [(6, OK), (most - step, OK), (most, OK), (most + step, TOO_LONG)] {
            let text = [UDH.to_vec(), vec![b'x'; octets - UDH.len()]].concat();
            assert_eq!(ask(EsmClass::UDHI, &text), status, "{data_coding} {octets} with a header");
        }
        let whole_text = [UDH.to_vec(), vec![b'x'; most]].concat();
        assert_eq!(ask(EsmClass::UDHI, &whole_text), TOO_LONG, "{data_coding}");
        // A header that is longer than all there is, or not there.
        assert_eq!(ask(EsmClass::UDHI, &UDH[..5]), TOO_LONG, "{data_coding}");
        assert_eq!(ask(EsmClass::UDHI, b""), TOO_LONG, "{data_coding}");
        if data_coding == UCS2 {
            assert_eq!(ask(EsmClass::DEFAULT, &[0; 139]), TOO_LONG, "half a character");
            let odd = [UDH.to_vec(), vec![0; 3]].concat();
            assert_eq!(ask(EsmClass::UDHI, &odd), TOO_LONG, "half a character behind a header");
        }
    }
}

#[test]
fn a_long_text_is_as_many_segments_as_it_takes_and_255_at_most() {
    for (data_coding, single, each) in [(DEFAULT, 160, 152), (UCS2, 140, 132), (BINARY, 140, 133)] {
        let step = if data_coding == UCS2 { 2 } else { 1 };
        let (mut net, esme) = net(|account| account.binary = true);
        for (octets, segments) in [
            (0, 1),
            (single, 1),
            (single + step, 2),
            (2 * each, 2),
            (2 * each + step, 3),
            (254 * each, 254),
            (254 * each + step, 255),
            (255 * each, 255),
        ] {
            let text = payload(&vec![b'x'; octets]);
            let used = net.credits_used("demo");
            let message = ShortMessage { data_coding, short_message: b"", tlvs: text.as_tlvs(), ..UNTAKEN };
            let id = net.accept(esme, message);
            let what = format!("{data_coding} {octets}");
            assert_eq!(net.message(&id).expect("it waits").content().segments, segments, "{what}");
            assert_eq!(net.credits_used("demo") - used, u64::from(segments), "{what}");
        }
        let text = payload(&vec![b'x'; 255 * each + step]);
        let message = ShortMessage { data_coding, short_message: b"", tlvs: text.as_tlvs(), ..UNTAKEN };
        let used = net.credits_used("demo");
        assert_eq!(submit(&mut net, esme, message), TOO_LONG, "{data_coding}");
        assert_eq!(net.credits_used("demo"), used, "{data_coding}");
    }
}

#[test]
fn a_short_message_of_254_octets_is_two_segments_where_the_account_lets_it_be() {
    let text = [b'x'; 254];
    let (mut one, esme) = net(|account| account.segment_long = true);
    for (octets, segments) in [(160, 1), (161, 2), (254, 2)] {
        let id = one.accept(esme, ShortMessage { short_message: &text[..octets], ..UNTAKEN });
        assert_eq!(one.message(&id).expect("it waits").content().segments, segments, "{octets}");
    }
    let (mut other, esme) = net(|_| {});
    let message = ShortMessage { short_message: &text, ..UNTAKEN };
    assert_eq!(submit(&mut other, esme, message), TOO_LONG);
}

#[test]
fn a_replacement_is_as_long_as_a_message() {
    let (mut net, esme) = net(|_| {});
    let id = net.accept(esme, ShortMessage { schedule_delivery_time: b"000001000000000R", ..UNTAKEN });
    let text = [b'x'; 161];
    let replace = |text, tlvs| {
        Pdu::ReplaceSm(ReplaceSm { message_id: id.as_bytes(), short_message: text, tlvs, ..REPLACE })
    };
    assert_eq!(net.ask(esme, &replace(&text[..160], Tlvs::EMPTY)), OK);
    assert_eq!(net.ask(esme, &replace(&text, Tlvs::EMPTY)), TOO_LONG);
    assert_eq!(net.credits_used("demo"), 1);
    let longest = payload(&[b'x'; 255 * 152]);
    assert_eq!(net.ask(esme, &replace(b"", longest.as_tlvs())), OK);
    assert_eq!(net.credits_used("demo"), 255);
    let too_long = payload(&[b'x'; 255 * 152 + 1]);
    assert_eq!(net.ask(esme, &replace(b"", too_long.as_tlvs())), TOO_LONG);
    // A shorter one gives nothing back, and one as long as the longest costs nothing more.
    assert_eq!(net.ask(esme, &replace(b"short", Tlvs::EMPTY)), OK);
    assert_eq!(net.ask(esme, &replace(b"", longest.as_tlvs())), OK);
    assert_eq!(net.credits_used("demo"), 255);
}

#[test]
fn a_validity_must_end_behind_now_and_behind_the_delivery() {
    let (mut net, esme) = net(|_| {});
    let now = net.wall();
    let at = now + Duration::from_secs(3_600);
    for (schedule, begin) in [(field(at).to_vec(), at), (Vec::new(), now)] {
        for (until, status) in [(earlier(begin, TENTH), TOO_LATE), (begin, TOO_LATE), (begin + TENTH, OK)] {
            let (schedule, validity) = (&schedule[..], field(until));
            let message =
                ShortMessage { schedule_delivery_time: schedule, validity_period: &validity, ..UNTAKEN };
            assert_eq!(submit(&mut net, esme, message), status, "{begin:?} {until:?}");
        }
    }
    // In seconds from now; it counts and not the validity_period.
    for (seconds, status) in [(0_u32, TOO_LATE), (3_600, TOO_LATE), (3_601, OK)] {
        let time_to_live = tlv(Tag::QOS_TIME_TO_LIVE, &seconds.to_be_bytes());
        let (schedule, validity) = (field(at), field(at + TENTH));
        let message = ShortMessage {
            schedule_delivery_time: &schedule,
            validity_period: &validity,
            tlvs: time_to_live.as_tlvs(),
            ..UNTAKEN
        };
        assert_eq!(submit(&mut net, esme, message), status, "{seconds}");
    }
}

#[test]
fn a_validity_is_what_was_asked_for_and_a_week_at_most() {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
    let (mut net, esme) = net(|_| {});
    let now = net.wall();
    let at = now + Duration::from_secs(3_600);
    for (schedule, begin) in [(field(at).to_vec(), at), (Vec::new(), now)] {
        let longest = begin + WEEK;
        for (asked, granted) in [
            (Some(begin + TENTH), begin + TENTH),
            (Some(earlier(longest, TENTH)), earlier(longest, TENTH)),
            (Some(longest), longest),
            (Some(longest + TENTH), longest),
            (None, begin + Duration::from_secs(72 * 3_600)),
        ] {
            let validity = asked.map(field);
            let message = ShortMessage {
                schedule_delivery_time: &schedule,
                validity_period: validity.as_ref().map_or(&[], |field| &field[..]),
                ..UNTAKEN
            };
            let id = net.accept(esme, message);
            let content = net.message(&id).expect("it waits").content();
            assert_eq!(content.expires_at, granted, "{begin:?} {asked:?}");
            assert_eq!(content.accepted_at, now);
        }
    }
}

#[test]
fn a_schedule_that_is_not_ahead_is_no_schedule() {
    let (mut net, esme) = net(|_| {});
    let now = net.wall();
    for (at, is_scheduled) in [(earlier(now, TENTH), false), (now, false), (now + TENTH, true)] {
        let schedule = field(at);
        let id = net.accept(esme, ShortMessage { schedule_delivery_time: &schedule, ..UNTAKEN });
        let message = net.message(&id).expect("it waits");
        assert_eq!(message.standing.state == State::Scheduled, is_scheduled, "{at:?}");
        assert_eq!(message.content().deliver_at, if is_scheduled { at } else { Timestamp::ZERO }, "{at:?}");
    }
    for wrong in [&b"tomorrow"[..], b"000000000000000X", b"260000000000000+"] {
        let message = ShortMessage { schedule_delivery_time: wrong, ..UNTAKEN };
        assert_eq!(submit(&mut net, esme, message), CommandStatus::ESME_RINVSCHED);
        let message = ShortMessage { validity_period: wrong, ..UNTAKEN };
        assert_eq!(submit(&mut net, esme, message), TOO_LATE);
    }
}

/// Asks for other times.
fn replace<'a>(id: &'a str, schedule_delivery_time: &'a [u8], validity_period: &'a [u8]) -> Pdu<'a> {
    let message_id = id.as_bytes();
    Pdu::ReplaceSm(ReplaceSm { message_id, schedule_delivery_time, validity_period, ..REPLACE })
}

#[test]
fn a_replacement_has_the_times_of_a_message() {
    let (mut net, esme) = net(|_| {});
    let at = net.wall() + Duration::from_secs(3_600);
    let schedule = field(at);
    let id = net.accept(esme, ShortMessage { schedule_delivery_time: &schedule, ..UNTAKEN });
    assert_eq!(net.ask(esme, &replace(&id, b"tomorrow", b"")), CommandStatus::ESME_RINVSCHED);
    assert_eq!(net.ask(esme, &replace(&id, b"", b"tomorrow")), TOO_LATE);
    assert_eq!(net.ask(esme, &replace(&id, b"tomorrow", b"tomorrow")), CommandStatus::ESME_RINVSCHED);
    for (until, status) in [(earlier(at, TENTH), TOO_LATE), (at, TOO_LATE), (at + TENTH, OK)] {
        assert_eq!(net.ask(esme, &replace(&id, b"", &field(until))), status, "{until:?}");
    }
    let expires_at = |net: &Net| net.message(&id).expect("it waits").content().expires_at;
    assert_eq!(expires_at(&net), at + TENTH);
    // A schedule that is put off to the end of its validity, or behind it.
    assert_eq!(net.ask(esme, &replace(&id, &field(at + TENTH), b"")), TOO_LATE);
    let later = at + Duration::from_secs(3_600);
    let week = later + Duration::from_secs(7 * 24 * 3_600);
    for (asked, granted) in [(week, week), (week + TENTH, week)] {
        assert_eq!(net.ask(esme, &replace(&id, &field(later), &field(asked))), OK);
        assert_eq!(expires_at(&net), granted);
    }
    let message = net.message(&id).expect("it waits");
    assert_eq!((message.content().deliver_at, message.standing.state), (later, State::Scheduled));
    assert_eq!(net.waiting_text(&id), "another");
    // Not ahead: at once.
    let now = net.wall();
    assert_eq!(net.ask(esme, &replace(&id, &field(now), b"")), OK);
    let message = net.message(&id).expect("it waits");
    assert_eq!((message.content().deliver_at, message.standing.state), (Timestamp::ZERO, State::Queued));
}

#[test]
fn a_number_has_one_to_fifteen_digits_and_a_sender_twenty() {
    let (mut net, esme) = net(|_| {});
    let digits = b"123456789012345678901";
    for (count, status) in [(0, CommandStatus::ESME_RINVDSTADR), (1, OK), (15, OK)] {
        let destination = Address { digits: &digits[..count], ..NUMBER };
        assert_eq!(submit(&mut net, esme, ShortMessage { destination, ..UNTAKEN }), status, "{count} digits");
    }
    for count in [1, 20] {
        let source = Address { digits: &digits[..count], ..NUMBER };
        assert_eq!(submit(&mut net, esme, ShortMessage { source, ..UNTAKEN }), OK, "{count} digits");
    }
    for digits in [&b"+1"[..], b"+123456789012345"] {
        let destination = Address { digits, ..NUMBER };
        assert_eq!(submit(&mut net, esme, ShortMessage { destination, ..UNTAKEN }), OK, "{digits:?}");
    }
    for digits in [&b"+"[..], b"12125x", b"1212 5"] {
        let destination = Address { digits, ..NUMBER };
        let status = submit(&mut net, esme, ShortMessage { destination, ..UNTAKEN });
        assert_eq!(status, CommandStatus::ESME_RINVDSTADR, "{digits:?}");
    }
}

#[test]
fn fields_have_the_values_that_the_specification_gives_them() {
    let (mut net, esme) = net(|_| {});
    for priority_flag in 0..=3 {
        assert_eq!(submit(&mut net, esme, ShortMessage { priority_flag, ..UNTAKEN }), OK);
    }
    for ton in 0..=6 {
        let (source, destination) =
            (Address { ton: Ton(ton), ..NUMBER }, Address { ton: Ton(ton), ..NEVER_TAKEN });
        assert_eq!(submit(&mut net, esme, ShortMessage { source, destination, ..UNTAKEN }), OK, "TON {ton}");
    }
    for npi in [0, 1, 3, 4, 6, 8, 9, 10, 14, 18] {
        let (source, destination) =
            (Address { npi: Npi(npi), ..NUMBER }, Address { npi: Npi(npi), ..NEVER_TAKEN });
        assert_eq!(submit(&mut net, esme, ShortMessage { source, destination, ..UNTAKEN }), OK, "NPI {npi}");
    }
    for service_type in [&b""[..], b"CMT", b"CPT", b"VMN", b"VMA", b"WAP", b"USSD", b"CBS", b"GUTS"] {
        assert_eq!(submit(&mut net, esme, ShortMessage { service_type, ..UNTAKEN }), OK);
    }
    for (replace_if_present_flag, status) in [(0, OK), (1, OK), (2, CommandStatus::ESME_RINVREPFLAG)] {
        assert_eq!(submit(&mut net, esme, ShortMessage { replace_if_present_flag, ..UNTAKEN }), status);
    }
    for (sm_default_msg_id, status) in
        [(0, OK), (1, CommandStatus::ESME_RINVDFTMSGID), (255, CommandStatus::ESME_RINVDFTMSGID)]
    {
        assert_eq!(submit(&mut net, esme, ShortMessage { sm_default_msg_id, ..UNTAKEN }), status);
    }
    for message_type in 0..16 {
        let status = match message_type << 2 {
            // A message, and the two kinds of acknowledgement that an ESME may send.
            0x00 | 0x08 | 0x10 => OK,
            _ => CommandStatus::ESME_RINVESMCLASS,
        };
        let esm_class = EsmClass(message_type << 2);
        assert_eq!(
            submit(&mut net, esme, ShortMessage { esm_class, ..UNTAKEN }),
            status,
            "{message_type:#b}"
        );
    }
}

/// What a peer says that the specification has no meaning for.
#[test]
fn what_the_specification_has_no_meaning_for_is_refused() {
    use CommandStatus as Status;
    let (mut net, esme) = net(|_| {});
    let digits = b"1234567890123456";
    for (message, status) in [
        (ShortMessage { priority_flag: 4, ..UNTAKEN }, Status::ESME_RINVPRTFLG),
        (ShortMessage { priority_flag: 255, ..UNTAKEN }, Status::ESME_RINVPRTFLG),
        (ShortMessage { service_type: b"XYZ", ..UNTAKEN }, Status::ESME_RINVSERTYP),
        (ShortMessage { source: Address { ton: Ton(7), ..NUMBER }, ..UNTAKEN }, Status::ESME_RINVSRCTON),
        (ShortMessage { source: Address { npi: Npi(2), ..NUMBER }, ..UNTAKEN }, Status::ESME_RINVSRCNPI),
        (ShortMessage { destination: Address { ton: Ton(7), ..NUMBER }, ..UNTAKEN }, Status::ESME_RINVDSTTON),
        (ShortMessage { destination: Address { npi: Npi(2), ..NUMBER }, ..UNTAKEN }, Status::ESME_RINVDSTNPI),
        (ShortMessage { destination: Address { digits, ..NUMBER }, ..UNTAKEN }, Status::ESME_RINVDSTADR),
    ] {
        assert_eq!(submit(&mut net, esme, message), status, "{message:?}");
    }
}

#[test]
fn an_account_sends_from_its_own_numbers_and_no_binary_unless_it_may() {
    let (mut net, esme) = net(|account| account.any_source = false);
    let from = |digits: &'static [u8]| ShortMessage { source: Address { digits, ..NUMBER }, ..UNTAKEN };
    for own in [&b"12125550100"[..], b"+12125550100", b""] {
        assert_eq!(submit(&mut net, esme, from(own)), OK);
    }
    for foreign in [&b"12125550101"[..], b"1212555010", b"121255501000"] {
        assert_eq!(submit(&mut net, esme, from(foreign)), CommandStatus::ESME_RINVSRCADR);
    }
    for (data_coding, status) in [
        (DataCoding(0x02), CommandStatus::ESME_RINVDCS),
        (BINARY, CommandStatus::ESME_RINVDCS),
        (DataCoding(0xF4), CommandStatus::ESME_RINVDCS),
        (DataCoding(0x05), CommandStatus::ESME_RINVDCS),
        (UCS2, OK),
    ] {
        let message = ShortMessage { data_coding, short_message: b"ab", ..UNTAKEN };
        assert_eq!(submit(&mut net, esme, message), status, "{data_coding}");
    }
}

#[test]
fn credits_can_be_used_up_to_the_last_one() {
    let no_credit = CommandStatus::ESME_RSUBMITFAIL;
    let (mut net, esme) = net(|account| account.credits = 5);
    let (two, three) = (payload(&[b'x'; 161]), payload(&[b'x'; 305]));
    let [two, three] = [&two, &three].map(TlvBuf::as_tlvs);
    let long = |tlvs| ShortMessage { short_message: b"", tlvs, ..UNTAKEN };
    assert_eq!(submit(&mut net, esme, long(three)), OK);
    assert_eq!(submit(&mut net, esme, long(three)), no_credit);
    assert_eq!(net.credits_used("demo"), 3, "what is refused costs nothing");
    assert_eq!(submit(&mut net, esme, UNTAKEN), OK);
    assert_eq!(submit(&mut net, esme, long(two)), no_credit);
    let id = net.accept(esme, UNTAKEN);
    assert_eq!(net.credits_used("demo"), 5);
    assert_eq!(submit(&mut net, esme, UNTAKEN), no_credit);
    // What is longer than it was costs what it is longer by.
    let replace =
        |tlvs| Pdu::ReplaceSm(ReplaceSm { message_id: id.as_bytes(), short_message: b"", tlvs, ..REPLACE });
    net.pass_millis(100);
    assert_eq!(net.ask(esme, &replace(two)), no_credit);
    net.reload(vec![account(|account| account.credits = 6)]);
    assert_eq!(net.ask(esme, &replace(three)), no_credit);
    assert_eq!(net.credits_used("demo"), 5);
    assert_eq!(net.ask(esme, &replace(two)), OK);
    assert_eq!(net.credits_used("demo"), 6);
    let own = StatusName(CommandStatus(0x1234));
    net.reload(vec![account(|account| (account.credits, account.no_credit_status) = (6, own))]);
    assert_eq!(submit(&mut net, esme, UNTAKEN), own.0);
    net.reload(vec![account(|account| account.credits = 0)]);
    assert_eq!(submit(&mut net, esme, UNTAKEN), OK, "none are counted");
}

/// So many numbers at which no carrier takes anything.
fn destinations(count: u8) -> Destinations {
    Destinations::beginning_with("9999000", count)
}

#[test]
fn a_submit_multi_has_up_to_255_destinations_and_costs_as_many() {
    let (mut net, esme) = net(|account| account.credits = 256 + 2);
    for (count, status, used) in
        [(1, OK, 1), (254, OK, 255), (4, CommandStatus::ESME_RSUBMITFAIL, 255), (3, OK, 258)]
    {
        assert_eq!(net.ask(esme, &multi(UNTAKEN, &destinations(count))), status, "{count}");
        assert_eq!(net.credits_used("demo"), used, "{count}");
    }
    net.reload(vec![account(|account| account.credits = 258 + 5)]);
    // Each of three is two segments, and the whole is accepted or nothing of it.
    let (three, long) = (destinations(3), payload(&[b'x'; 161]));
    let message = multi(ShortMessage { short_message: b"", tlvs: long.as_tlvs(), ..UNTAKEN }, &three);
    assert_eq!(net.ask(esme, &message), CommandStatus::ESME_RSUBMITFAIL);
    net.reload(vec![account(|account| account.credits = 258 + 6)]);
    assert_eq!(net.ask(esme, &message), OK);
    assert_eq!(net.credits_used("demo"), 258 + 6);
    net.reload(vec![account(|_| {})]);
    let id = net.asked(esme, &multi(UNTAKEN, &destinations(255))).submit_multi_id();
    let last = MessageId::parse(id.as_bytes()).expect("an id").in_batch(254);
    let content = net.message(&last.to_string()).expect("the last one").content();
    assert_eq!((content.batch_offset, content.batch_count), (254, 255));
    assert_eq!(content.destination.digits, b"9999000254");
    assert_eq!(net.credits_used("demo"), 258 + 6 + 255);
}

#[test]
fn a_burst_can_be_used_up_to_the_last_message() {
    let throttled = CommandStatus::ESME_RTHROTTLED;
    let (mut net, esme) = net(|account| (account.rate, account.burst) = (1, 5));
    let three = destinations(3);
    let three = multi(UNTAKEN, &three);
    let two = payload(&[b'x'; 161]);
    let two = Pdu::SubmitSm(ShortMessage { short_message: b"", tlvs: two.as_tlvs(), ..UNTAKEN });
    assert_eq!(net.ask(esme, &three), OK);
    assert_eq!(net.ask(esme, &three), throttled);
    assert_eq!(net.ask(esme, &two), OK, "a refusal takes nothing");
    assert_eq!(submit(&mut net, esme, UNTAKEN), throttled);
    assert_eq!(net.credits_used("demo"), 5);
    net.pass_millis(990);
    assert_eq!(submit(&mut net, esme, UNTAKEN), throttled);
    net.pass_millis(10);
    assert_eq!(submit(&mut net, esme, UNTAKEN), OK);
    assert_eq!(submit(&mut net, esme, UNTAKEN), throttled);
    net.pass_millis(60_000);
    let accepted = (0..10).filter(|_| submit(&mut net, esme, UNTAKEN) == OK).count();
    assert_eq!(accepted, 5, "no more than the burst is saved up");
}

#[test]
fn as_many_sessions_bind_as_may() {
    let own = StatusName(CommandStatus(0x0D0D));
    for limit in [1, 3] {
        let mut net = Net::new(2);
        net.reload(vec![account(|account| (account.bind_limit, account.bind_limit_status) = (limit, own))]);
        let sessions: Vec<Esme> = (0..limit as usize).map(|number| net.bound(number % 2, "demo")).collect();
        for core in [0, 1] {
            let one_more = net.connect(core);
            assert_eq!(net.bind_as(one_more, "demo", CommandId::BIND_TRANSMITTER), own.0, "{limit}");
        }
        net.disconnect(sessions[0]);
        let again = net.bound(1, "demo");
        let one_more = net.connect(0);
        assert_eq!(net.bind(one_more, "demo"), own.0);
        assert_eq!(net.ask(again, &Pdu::Unbind), OK);
        net.bound(0, "demo");
    }
    let mut net = Net::new(1);
    net.reload(vec![account(|account| account.bind_limit = 0)]);
    (0..20).for_each(|_| _ = net.bound(0, "demo"));
}

#[test]
fn as_many_deliveries_wait_for_their_answer_as_may() {
    // The server's own setting is ten.
    for (shards, window, most) in [(1, 1, 1), (1, 3, 3), (1, 0, 10), (2, 1, 1), (2, 3, 3), (2, 0, 10)] {
        let mut net = Net::new(shards);
        net.reload(vec![account(|account| account.deliver_window = window)]);
        net.confirms = false;
        let esme = net.bound(0, "demo");
        for number in 0..15 {
            net.submit(esme, 100 + number, "12125559999");
        }
        net.pass_millis(1_000);
        let received = net.received(esme);
        let mut waiting: Vec<_> =
            received.into_iter().filter(|pdu| pdu.command_id == CommandId::DELIVER_SM).collect();
        assert_eq!(waiting.len(), most, "{window}");
        // Each answer makes room for one, whatever it says.
        for status in [OK, CommandStatus::ESME_RX_P_APPN, CommandStatus::ESME_RMSGQFUL] {
            net.answer(esme, &waiting.remove(0), status);
            let more = net.received(esme);
            assert_eq!(more.len(), 1, "{window} {status}");
            waiting.extend(more);
        }
    }
}

#[test]
fn three_notifications_are_told_and_no_fourth() {
    let (mut net, esme) = net(|_| {});
    let asks = RegisteredDelivery(0x11);
    let id = net.accept(esme, ShortMessage { registered_delivery: asks, ..MESSAGE });
    let parsed = MessageId::parse(id.as_bytes()).expect("an id");
    let mut told = Vec::new();
    for _ in 0..5 {
        net.news(News::State { id: parsed, state: MessageState::ACCEPTED, error: 0 });
        net.input(0, |shard, now| shard.tick(now));
        net.turn();
        told.push(net.received(esme).len());
    }
    assert_eq!(told, [1, 1, 1, 0, 0]);
    net.pass_millis(2_000);
    let receipt = net.received(esme).remove(0).text();
    assert!(receipt.contains("stat:DELIVRD"), "{receipt}");
}
