//! What becomes of a message between its acceptance and the last word on it: attempts, late reports, receipts, questions.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::time::Duration;

use common::{
    Destinations, Esme, MESSAGE, NEVER_TAKEN, NUMBER, Net, QUERY, QUIET, REPLACE, ReceivedPdu, SUBSCRIBER,
    UNTAKEN, multi, payload, tlv,
};
use smppd::account::AccountSettings;
use smppd::carrier::News;
use smppd::message::{MessageId, State};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, CommandId, CommandStatus, DataCoding, EsmClass, InterfaceVersion, Pdu, QuerySm,
    RegisteredDelivery, ReplaceSm, ShortMessage, Tag,
};
use smppd::time::{Timestamp, smpp};

const OK: CommandStatus = CommandStatus::ESME_ROK;
/// Fails with error 34.
const FAILING: Address<'static> = Address { digits: b"9995034555", ..NUMBER };

const ENROUTE: MessageState = MessageState::ENROUTE;
const UNDELIVERABLE: MessageState = MessageState::UNDELIVERABLE;

fn query(id: &str) -> Pdu<'_> {
    Pdu::QuerySm(QuerySm { message_id: id.as_bytes(), ..QUERY })
}

fn parsed(id: &str) -> MessageId {
    MessageId::parse(id.as_bytes()).expect("an id")
}

fn deliveries(received: Vec<ReceivedPdu>) -> Vec<ReceivedPdu> {
    received.into_iter().filter(|pdu| pdu.command_id == CommandId::DELIVER_SM).collect()
}

#[test]
fn an_attempt_that_a_late_report_has_ended_is_not_handed_over_when_it_is_durable() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    let id = net.with_carrier(0)[0];
    // A report of an attempt before a restart, while the record of this one is on its way to the disk.
    net.news(News::Busy { id, error: 11 });
    net.pass_millis(10);
    assert!(net.with_carrier(0).is_empty(), "the attempt is over");
    // Another begins, after five seconds.
    net.pass_millis(5_100);
    assert_eq!(net.with_carrier(0), [id]);
    assert_eq!(net.witnessed[0].borrow().offers, 0, "neither attempt is durable");
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.witnessed[0].borrow().offers, 1, "the second, and not the first");
    net.pass_millis(2_000);
    assert_eq!(net.received(esme).len(), 2, "the response and one receipt");
}

#[test]
fn an_attempt_that_was_cancelled_before_it_was_durable_is_not_handed_over() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    let id = net.with_carrier(0)[0];
    net.news(News::Busy { id, error: 0 });
    net.pass_millis(10);
    net.cancel(esme, 3, &id.to_string());
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.witnessed[0].borrow().offers, 0);
    let stat = deliveries(net.received(esme)).remove(0).text();
    assert!(stat.contains("stat:DELETED"), "{stat}");
}

#[test]
fn a_message_that_expires_tells_the_last_error_of_its_carrier() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.send(esme, &Pdu::SubmitSm(ShortMessage { validity_period: b"000000000003000R", ..MESSAGE }), 2);
    let id = net.with_carrier(0)[0];
    net.news(News::Busy { id, error: 11 });
    net.pass_millis(10);
    net.hold_disk(false);
    net.turn();
    // The next attempt would come after five seconds.
    net.pass_millis(3_000);
    let received = net.received(esme);
    let receipt = deliveries(received).remove(0);
    assert!(receipt.text().contains(" dlvrd:000 "), "{}", receipt.text());
    assert!(receipt.text().contains(" stat:EXPIRED err:011 "), "{}", receipt.text());
    let code = receipt.read(|pdu| match pdu {
        Pdu::DeliverSm(body) => body.tlvs.get(Tag::NETWORK_ERROR_CODE).map(<[u8]>::to_vec),
        other => panic!("{other:?}"),
    });
    assert_eq!(code, Some(vec![3, 0, 11]));
    let (state, error, _) = net.asked(esme, &query(&id.to_string())).queried();
    assert_eq!((state, error), (MessageState::EXPIRED, 11));
}

#[test]
fn a_message_that_waits_for_its_next_attempt_tells_the_last_error() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    let id = net.with_carrier(0)[0];
    net.news(News::Busy { id, error: 300 });
    net.pass_millis(10);
    net.hold_disk(false);
    net.turn();
    net.received(esme);
    let (state, error, final_date) = net.asked(esme, &query(&id.to_string())).queried();
    assert_eq!((state, error, &*final_date), (ENROUTE, 255, ""), "an octet holds no more than 255");
}

#[test]
fn query_sm_tells_state_error_and_when() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    for is_at_rest in [false, true] {
        for (digits, state, error) in [
            (&b"9992000555"[..], 2, 0),
            (b"9993001555", 3, 1),
            (b"9995034555", 5, 34),
            (b"9995255555", 5, 255),
            (b"9995256555", 5, 255),
            (b"9997999555", 7, 255),
            (b"9998006555", 8, 6),
        ] {
            let destination = Address { digits, ..NUMBER };
            let id = net.accept(esme, ShortMessage { destination, ..QUIET });
            assert_eq!(net.asked(esme, &query(&id)).queried(), (ENROUTE, 0, String::new()));
            let begin = net.wall();
            net.pass_millis(1_000);
            if is_at_rest {
                net.put_to_rest();
            }
            let answer = net.asked(esme, &query(&id));
            let (told_state, told_error, final_date) = answer.queried();
            assert_eq!((told_state.0, told_error), (state, error), "{destination:?} {is_at_rest}");
            let date = |at: Timestamp| String::from_utf8(smpp::absolute(at).to_vec()).expect("ASCII");
            assert!((date(begin)..=date(net.wall())).contains(&final_date), "{final_date}");
            answer.read(|pdu| {
                assert!(matches!(pdu, Pdu::QuerySmResp(body) if body.message_id == id.as_bytes()), "{pdu:?}");
            });
        }
    }
}

#[test]
fn a_state_that_a_version_does_not_know_is_told_in_its_own_words() {
    let mut net = Net::new(1);
    for (version, state) in [
        (InterfaceVersion::V3_3, ENROUTE),
        (InterfaceVersion::V3_4, ENROUTE),
        (InterfaceVersion::V5_0, MessageState::SCHEDULED),
    ] {
        let esme = net.connect(0);
        assert_eq!(net.bind_version(esme, "demo", version), OK);
        let waits = ShortMessage { schedule_delivery_time: b"000001000000000R", ..QUIET };
        let id = net.accept(esme, waits);
        assert_eq!(net.asked(esme, &query(&id)).queried().0, state, "{version}");
        net.disconnect(esme);
    }
}

#[test]
fn the_id_of_a_submit_multi_tells_of_all_its_messages() {
    for is_at_rest in [false, true] {
        for (to, state, error) in [
            ([SUBSCRIBER, FAILING], UNDELIVERABLE, 34),
            ([FAILING, SUBSCRIBER], UNDELIVERABLE, 34),
            ([SUBSCRIBER, SUBSCRIBER], MessageState::DELIVERED, 0),
            ([SUBSCRIBER, NEVER_TAKEN], ENROUTE, 0),
            ([NEVER_TAKEN, SUBSCRIBER], ENROUTE, 0),
        ] {
            let mut net = Net::new(1);
            let esme = net.bound(0, "demo");
            let id = net.asked(esme, &multi(QUIET, &Destinations::of(to))).submit_multi_id();
            net.pass_millis(2_000);
            if is_at_rest {
                net.put_to_rest();
            }
            let (told_state, told_error, final_date) = net.asked(esme, &query(&id)).queried();
            let what = format!("{is_at_rest} {to:?}");
            assert_eq!((told_state, told_error), (state, error), "{what}");
            assert_eq!(final_date.is_empty(), state == ENROUTE, "{what}");
            // Each member can be asked for by itself.
            for (offset, to) in (0..).zip(to) {
                let member = parsed(&id).in_batch(offset).to_string();
                if offset > 0 && to == FAILING {
                    let (state, error, _) = net.asked(esme, &query(&member)).queried();
                    assert_eq!((state, error), (UNDELIVERABLE, 34), "{what} {offset}");
                }
            }
        }
    }
}

#[test]
fn a_submit_multi_waits_for_its_time() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let at = net.wall() + Duration::from_secs(10);
    let schedule = smpp::absolute(at);
    let message = ShortMessage { schedule_delivery_time: &schedule, ..MESSAGE };
    let both = Destinations::of([SUBSCRIBER, NEVER_TAKEN]);
    let id = net.asked(esme, &multi(message, &both)).submit_multi_id();
    for offset in 0..2 {
        let message = net.message(&parsed(&id).in_batch(offset).to_string()).expect("it waits");
        assert_eq!((message.content().deliver_at, message.standing.state), (at, State::Scheduled));
    }
    assert_eq!(net.asked(esme, &query(&id)).queried().0, MessageState::SCHEDULED);
    net.pass_millis(9_900);
    assert_eq!(net.witnessed[0].borrow().offers, 0);
    net.pass_millis(200);
    assert_eq!(net.witnessed[0].borrow().offers, 2);
    net.pass_millis(2_000);
    assert_eq!(deliveries(net.received(esme)).len(), 1, "the receipt of the first");
}

#[test]
fn what_is_submitted_stays_with_the_message_as_it_came() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let tlvs = tlv(Tag::USER_MESSAGE_REFERENCE, &[1, 2]);
    let schedule = smpp::absolute(net.wall() + Duration::from_secs(60));
    let validity = smpp::absolute(net.wall() + Duration::from_secs(90));
    let message = ShortMessage {
        service_type: b"WAP",
        esm_class: EsmClass(0x03 | 0x80),
        protocol_id: 0x41,
        priority_flag: 2,
        schedule_delivery_time: &schedule,
        validity_period: &validity,
        registered_delivery: RegisteredDelivery(0x12),
        data_coding: DataCoding(0x08),
        short_message: b"\0t\0e\0x\0t",
        tlvs: tlvs.as_tlvs(),
        destination: NEVER_TAKEN,
        ..MESSAGE
    };
    let single = net.accept(esme, message);
    let both = Destinations::of([SUBSCRIBER, NEVER_TAKEN]);
    let whole = net.asked(esme, &multi(message, &both)).submit_multi_id();
    let second = parsed(&whole).in_batch(1).to_string();
    // A long text takes the place of the short one, and is no TLV any more.
    let mut long = payload(b"\0t\0e\0x\0t");
    long.put(Tag::USER_MESSAGE_REFERENCE, &[1, 2]).expect("it fits");
    let long = net.accept(esme, ShortMessage { short_message: b"", tlvs: long.as_tlvs(), ..message });
    for (id, offset, count) in [(single, 0, 1), (second, 1, 2), (long, 0, 1)] {
        let content = net.message(&id).expect("it waits").content();
        assert_eq!((content.batch_offset, content.batch_count), (offset, count));
        assert_eq!((content.system_id, content.service_type), (&b"demo"[..], &b"WAP"[..]));
        assert_eq!((content.source, content.destination), (NUMBER, NEVER_TAKEN));
        // Store and forward is what is done anyway.
        assert_eq!((content.esm_class, content.protocol_id), (EsmClass(0x80), 0x41));
        assert_eq!((content.priority_flag, content.registered_delivery), (2, RegisteredDelivery(0x12)));
        assert_eq!((content.data_coding, content.user_data), (DataCoding(0x08), &b"\0t\0e\0x\0t"[..]));
        assert_eq!(content.tlvs, tlvs.as_tlvs().as_octets());
        assert_eq!(content.accepted_at, net.wall());
        assert_eq!(content.deliver_at, net.wall() + Duration::from_secs(60));
        assert_eq!(content.expires_at, net.wall() + Duration::from_secs(90));
    }
}

#[test]
fn a_replacement_is_valid_as_long_as_it_says() {
    // As it was submitted, as it is replaced, and what it is seven seconds later.
    for (was, is, state) in [
        (b"000000001000000R", b"000000000005000R", MessageState::EXPIRED),
        (b"000000000005000R", b"000000001000000R", MessageState::ENROUTE),
    ] {
        let mut net = Net::new(1);
        let esme = net.bound(0, "demo");
        let soon = b"000000000002000R";
        let id =
            net.accept(esme, ShortMessage { schedule_delivery_time: soon, validity_period: was, ..UNTAKEN });
        let replace = ReplaceSm {
            message_id: id.as_bytes(),
            schedule_delivery_time: soon,
            validity_period: is,
            ..REPLACE
        };
        assert_eq!(net.ask(esme, &Pdu::ReplaceSm(replace)), OK);
        net.pass_seconds(7, 1);
        _ = net.received(esme);
        net.query(esme, 10, &id);
        assert_eq!(net.received(esme).remove(0).queried().0, state);
    }
}

#[test]
fn each_version_gets_what_it_understands_of_binds_and_receipts() {
    for (version, has_tlvs) in
        [(InterfaceVersion::V3_3, false), (InterfaceVersion::V3_4, true), (InterfaceVersion::V5_0, true)]
    {
        let mut net = Net::new(1);
        let esme = net.connect(0);
        let response = net.bind_response(esme, "demo", version);
        assert_eq!(response.command_status, OK);
        let told = response.read(|pdu| match pdu {
            Pdu::BindTransceiverResp(body) => {
                assert_eq!(body.system_id, b"smppd");
                body.tlvs.get(Tag::SC_INTERFACE_VERSION).map(<[u8]>::to_vec)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(told, has_tlvs.then(|| vec![0x50]), "{version}");
        let id = net.accept(esme, MESSAGE);
        net.pass_millis(2_000);
        let receipt = deliveries(net.received(esme)).remove(0);
        assert_eq!(receipt.receipt_id(), id);
        receipt.read(|pdu| {
            let Pdu::DeliverSm(body) = pdu else { panic!("{pdu:?}") };
            let receipted = body.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID);
            assert_eq!(receipted, has_tlvs.then_some(id.as_bytes()), "{version}");
            let state = body.tlvs.get(Tag::MESSAGE_STATE);
            assert_eq!(state, has_tlvs.then_some(&[2][..]), "{version}");
        });
    }
}

#[test]
fn a_delivery_gives_its_place_in_the_window_back_whatever_comes_of_it() {
    for outcome in [Some(OK), Some(CommandStatus::ESME_RX_T_APPN), Some(CommandStatus::ESME_RX_P_APPN), None]
    {
        // The home of the account is one of them, and its session on either.
        for core in [0, 1] {
            let mut net = Net::new(2);
            let mut demo = Net::account("demo");
            demo.deliver_window = 1;
            net.reload(vec![demo]);
            net.confirms = false;
            let esme = net.bound(core, "demo");
            let ids = [net.accept(esme, MESSAGE), net.accept(esme, MESSAGE)];
            net.pass_millis(1_000);
            let first = deliveries(net.received(esme));
            assert_eq!(first.len(), 1, "the window is full: {outcome:?}");
            let next = match outcome {
                Some(status) => {
                    net.answer(esme, &first[0], status);
                    net.received(esme)
                }
                None => {
                    // It has ten seconds to answer.
                    net.pass_millis(8_900);
                    assert!(deliveries(net.received(esme)).is_empty(), "the first may still be answered");
                    net.pass_millis(1_200);
                    net.received(esme)
                }
            };
            let next = deliveries(next);
            assert_eq!(next.len(), 1, "{outcome:?}");
            assert_ne!(next[0].receipt_id(), first[0].receipt_id(), "{outcome:?}");
            assert!(ids.contains(&next[0].receipt_id()), "{outcome:?}");
        }
    }
}

#[test]
fn credits_of_what_was_never_durable_are_given_back() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.accept(esme, UNTAKEN);
    net.pass_millis(20);
    net.hold_disk(true);
    let plain = Pdu::SubmitSm(UNTAKEN);
    let outcome = Pdu::SubmitSm(ShortMessage { esm_class: EsmClass::FORWARD, ..QUIET });
    net.send(esme, &plain, 2);
    assert!(net.write_batch(0));
    net.turn();
    assert_eq!(net.received(esme).len(), 1);
    for (number, pdu) in (3..).zip([&plain, &outcome, &plain]) {
        net.send(esme, pdu, number);
    }
    assert_eq!(net.credits_used("demo"), 5);
    net.fail_disk();
    let statuses: Vec<_> = net.received(esme).iter().map(|pdu| pdu.command_status).collect();
    assert_eq!(statuses.len(), 3);
    assert!(!statuses.contains(&OK), "{statuses:?}");
    assert_eq!(net.credits_used("demo"), 2, "as is on record");
    // Whoever asks now is refused, and charged nothing.
    assert_eq!(net.ask(esme, &plain), CommandStatus::ESME_RSYSERR);
    assert_eq!(net.credits_used("demo"), 2);
    net.hold_disk(false);
    net.crash_and_restart();
    assert_eq!(net.credits_used("demo"), 2);
}

/// A message that a carrier has, which is cold after a restart; nothing else of its shard has a carrier.
fn cold_with_its_carrier() -> (Net, String) {
    let mut net = Net::new(1);
    net.portion = 10;
    net.partition_settings.messages_octets_max = 200_000;
    net.partition_settings.checkpoint_segments = 1;
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    let in_two_days = Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"000002000000000R", ..QUIET });
    let fill = |net: &mut Net, count| {
        for _ in 0..count {
            assert_eq!(net.ask(esme, &in_two_days), OK);
            net.tick();
        }
    };
    // A restart takes in the first of what is at rest; the journal must speak of our message no more. No time passes, so
    // its carrier says nothing.
    fill(&mut net, 1_000);
    let id = net.accept(esme, MESSAGE);
    assert_eq!(net.message(&id).expect("it is there").standing.state, State::Forwarded);
    fill(&mut net, 2_000);
    assert!(net.message(&id).is_none(), "nothing grows cold");
    net.crash_and_restart();
    assert!(net.message(&id).is_none(), "it is still cold");
    (net, id)
}

#[test]
fn a_carrier_that_had_a_cold_message_is_offered_it_again_after_a_restart() {
    let (mut net, id) = cold_with_its_carrier();
    let esme = net.bound(0, "demo");
    net.tick();
    assert_eq!(net.witnessed[0].borrow().offers, 1);
    net.pass_millis(1_000);
    assert_eq!(deliveries(net.received(esme)).remove(0).receipt_id(), id);
}

#[test]
fn a_report_that_waits_for_a_cold_message_is_heard_before_its_carrier_is_offered_it_again() {
    let (mut net, id) = cold_with_its_carrier();
    let esme = net.bound(0, "demo");
    net.news(News::State { id: parsed(&id), state: MessageState::DELIVERED, error: 0 });
    net.tick();
    assert_eq!(net.witnessed[0].borrow().offers, 0, "it has been delivered");
    net.pass_millis(100);
    let receipts = deliveries(net.received(esme));
    assert_eq!(receipts.iter().map(ReceivedPdu::receipt_id).collect::<Vec<_>>(), [id]);
    assert_eq!(net.witnessed[0].borrow().acknowledged.len(), 1, "the report");
}

#[test]
fn nothing_is_told_of_a_message_before_its_sender_has_a_name_for_it() {
    let mut net = Net::new(1);
    let esme: Esme = net.bound(0, "demo");
    let asks = RegisteredDelivery(0x11);
    net.send(
        esme,
        &Pdu::SubmitSm(ShortMessage { esm_class: EsmClass::FORWARD, registered_delivery: asks, ..MESSAGE }),
        2,
    );
    let id = net.with_carrier(0)[0];
    net.news(News::State { id, state: MessageState::ACCEPTED, error: 0 });
    net.pass_millis(10);
    assert!(net.received(esme).is_empty(), "its sender waits for the outcome");
    net.pass_millis(2_000);
    let ids: Vec<CommandId> = net.received(esme).iter().map(|pdu| pdu.command_id).collect();
    assert_eq!(ids, [CommandId::SUBMIT_SM_RESP, CommandId::DELIVER_SM]);
}

#[test]
fn the_pauses_between_attempts_grow() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.accept(esme, UNTAKEN);
    let offers = |net: &Net| net.witnessed[0].borrow().offers;
    for (attempt, pause) in (1..).zip([5_000, 10_000, 20_000, 40_000]) {
        assert_eq!(offers(&net), attempt);
        net.pass_millis(pause - 300);
        assert_eq!(offers(&net), attempt, "before {pause} ms");
        net.pass_millis(320);
    }
    assert_eq!(offers(&net), 5);
}

#[test]
fn the_pauses_between_deliveries_grow_and_end_with_what_is_delivered() {
    let mut net = Net::new(1);
    net.confirms = false;
    let esme = net.bound(0, "demo");
    net.accept(esme, MESSAGE);
    net.pass_millis(1_000);
    let mut waiting = deliveries(net.received(esme));
    for pause in [5_000, 10_000, 20_000, 40_000] {
        assert_eq!(waiting.len(), 1, "before {pause} ms");
        net.answer(esme, &waiting[0], CommandStatus::ESME_RX_T_APPN);
        net.pass_millis(pause - 300);
        // Enquire_links are answered, or the session would end.
        assert!(deliveries(net.received(esme)).is_empty(), "{pause} ms are not over");
        net.send(esme, &Pdu::EnquireLink, 9);
        net.pass_millis(320);
        waiting = deliveries(net.received(esme));
    }
    net.answer(esme, &waiting[0], OK);
    net.send(esme, &Pdu::EnquireLink, 9);
    net.pass_millis(10_000);
    assert!(deliveries(net.received(esme)).is_empty());
    assert_eq!(net.deliveries().0, 0);
}

#[test]
fn a_server_that_stops_begins_no_attempt() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.accept(esme, ShortMessage { schedule_delivery_time: b"000000000005000R", ..QUIET });
    net.drain();
    net.pass_millis(20_000);
    assert_eq!(net.witnessed[0].borrow().offers, 0);
    net.crash_and_restart();
    net.pass_millis(100);
    assert_eq!(net.witnessed[0].borrow().offers, 1);
}

#[test]
fn a_message_whose_way_is_gone_waits_until_there_is_one() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.accept(esme, ShortMessage { schedule_delivery_time: b"000000000005000R", ..QUIET });
    net.reroute("44");
    let refused = net.ask(esme, &Pdu::SubmitSm(QUIET));
    assert_eq!(refused, CommandStatus::ESME_RINVDSTADR, "no new one is taken");
    net.pass_millis(30_000);
    assert_eq!(net.witnessed[0].borrow().offers, 0);
    net.reroute("1212");
    net.pass_millis(5_200);
    assert_eq!(net.witnessed[0].borrow().offers, 1);
}

#[test]
fn who_waits_for_an_outcome_and_who_does_not() {
    let at_once = |net: &mut Net, esme, pdu: &Pdu<'_>| {
        let is_it = |pdu: &ReceivedPdu| pdu.sequence_number() == 77;
        net.send(esme, pdu, 77);
        let mut received = net.received(esme);
        let is_answered = received.iter().any(is_it);
        net.pass_millis(2_000);
        received.extend(net.received(esme));
        let answers: Vec<_> = received.into_iter().filter(is_it).collect();
        let expected = (pdu.command_id().response(), OK);
        let told: Vec<_> = answers.iter().map(|pdu| (pdu.command_id, pdu.command_status)).collect();
        assert_eq!(told, [expected], "{pdu:?}");
        is_answered
    };
    let payload = payload(b"data");
    for (version, is_submit_awaited) in [(InterfaceVersion::V3_4, false), (InterfaceVersion::V5_0, true)] {
        let mut net = Net::new(1);
        let esme = net.connect(0);
        assert_eq!(net.bind_version(esme, "demo", version), OK);
        let submit = |esm_class, schedule_delivery_time| {
            Pdu::SubmitSm(ShortMessage { esm_class, schedule_delivery_time, ..QUIET })
        };
        assert!(at_once(&mut net, esme, &submit(EsmClass::DEFAULT, b"")));
        assert!(at_once(&mut net, esme, &submit(EsmClass::STORE_AND_FORWARD, b"")));
        assert_eq!(at_once(&mut net, esme, &submit(EsmClass::FORWARD, b"")), !is_submit_awaited, "{version}");
        // What is sent tomorrow has no outcome today.
        assert!(at_once(&mut net, esme, &submit(EsmClass::FORWARD, b"000001000000000R")), "{version}");
        let data = |esm_class| {
            Pdu::DataSm(smppd::pdu::DataSm {
                service_type: b"",
                source: NUMBER,
                destination: SUBSCRIBER,
                esm_class,
                registered_delivery: RegisteredDelivery(0),
                data_coding: DataCoding(0),
                tlvs: payload.as_tlvs(),
            })
        };
        assert!(at_once(&mut net, esme, &data(EsmClass::DEFAULT)), "{version}");
        assert!(!at_once(&mut net, esme, &data(EsmClass::FORWARD)), "{version}");
    }
}

#[test]
fn a_message_that_was_passed_over_is_undeliverable_to_who_does_not_know_the_word() {
    for (version, told) in
        [(InterfaceVersion::V3_4, UNDELIVERABLE), (InterfaceVersion::V5_0, MessageState::SKIPPED)]
    {
        for is_at_rest in [false, true] {
            let mut net = Net::new(1);
            let esme = net.connect(0);
            assert_eq!(net.bind_version(esme, "demo", version), OK);
            let id = net.accept(esme, QUIET);
            net.news(News::State { id: parsed(&id), state: MessageState::SKIPPED, error: 5 });
            net.tick();
            if is_at_rest {
                net.put_to_rest();
            }
            let (state, error, _) = net.asked(esme, &query(&id)).queried();
            assert_eq!((state, error), (told, 5), "{version} {is_at_rest}");
        }
    }
}

/// A message on the other core, which is found to be replaced, and what has become of it when it is to be.
fn replaced_late(becomes: impl FnOnce(&mut Net)) -> (Net, Esme, String) {
    let mut net = Net::new(2);
    let (mine, other) = (net.bound(0, "demo"), net.bound(1, "demo"));
    let waits = ShortMessage {
        schedule_delivery_time: b"000000000005000R",
        validity_period: b"000000000008000R",
        ..UNTAKEN
    };
    let old = net.accept(other, waits);
    let new = ShortMessage { replace_if_present_flag: 1, short_message: b"new", ..UNTAKEN };
    net.hand_in(mine, &Pdu::SubmitSm(new), 77);
    // The question, and the answer; what follows from that is on its way.
    net.step(0);
    net.step(1);
    becomes(&mut net);
    net.turn();
    (net, mine, old)
}

#[test]
fn what_is_over_when_it_is_to_be_replaced_is_not_and_the_new_one_is_sent_too() {
    let becomes: [fn(&mut Net); 4] = [
        |_| {},
        // Offered to its carrier, and not taken: it waits again, and is found when we look again.
        |net| {
            net.hold_disk(true);
            net.pass_for(1, 5_100);
        },
        // Over, and known to be.
        |net| net.pass_for(1, 8_100),
        // Over, and out of memory.
        |net| {
            net.pass_for(1, 8_100);
            net.put_to_rest_of(1);
            (0..3).for_each(|_| net.step(1));
        },
    ];
    for (number, becomes) in becomes.into_iter().enumerate() {
        let (mut net, esme, old) = replaced_late(becomes);
        net.hold_disk(false);
        net.turn();
        let answers = net.received(esme);
        let answer = answers.iter().find(|pdu| pdu.sequence_number() == 77).expect("an answer");
        assert_eq!(answer.command_status, OK, "{number}");
        let id = answer.message_id();
        assert_eq!(id == old, number <= 1, "{number}");
        let text = net.message(&id).expect("it is there").content().user_data.to_vec();
        assert_eq!(text, b"new", "{number}");
    }
}

#[test]
fn a_replacement_that_the_account_cannot_pay_is_refused_and_changes_nothing() {
    let mut net = Net::new(2);
    let mut demo = Net::account("demo");
    demo.credits = 1;
    net.reload(vec![demo]);
    let (mine, other) = (net.bound(0, "demo"), net.bound(1, "demo"));
    let waits = ShortMessage { schedule_delivery_time: b"000001000000000R", ..QUIET };
    let old = net.accept(other, waits);
    let payload = payload(&[b'x'; 161]);
    let new =
        ShortMessage { replace_if_present_flag: 1, short_message: b"", tlvs: payload.as_tlvs(), ..waits };
    assert_eq!(net.ask(mine, &Pdu::SubmitSm(new)), CommandStatus::ESME_RSUBMITFAIL);
    assert_eq!(
        (net.waiting_text(&old), net.credits_used("demo"), net.unfinished()),
        ("hello".to_owned(), 1, 1)
    );
}

#[test]
fn what_memory_or_journal_cannot_hold_is_refused_and_taken_again_when_it_can() {
    let full = CommandStatus::ESME_RMSGQFUL;
    let waits = Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"000001000000000R", ..QUIET });
    // As many messages as may be, with those that are over and not at rest yet.
    let mut net = Net::new(1);
    net.partition_settings.messages_max = 3;
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    assert_eq!(net.ask(esme, &waits), OK);
    let delivered = net.accept(esme, QUIET);
    net.pass_millis(2_000);
    assert!(net.message(&delivered).is_none(), "it is over");
    assert_eq!(net.ask(esme, &waits), OK);
    assert_eq!(net.ask(esme, &waits), full);
    assert_eq!(net.credits_used("demo"), 3, "what is refused costs nothing");
    net.put_to_rest();
    assert_eq!(net.ask(esme, &waits), OK);
    assert_eq!(net.ask(esme, &waits), full);
    // Octets that wait for the disk.
    let mut net = Net::new(1);
    net.partition_settings.journal_waiting_octets_max = 1_000;
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    (0..40).for_each(|number| net.send(esme, &waits, 100 + number));
    let refused = net.received(esme).iter().filter(|pdu| pdu.command_status == full).count();
    assert!((20..40).contains(&refused), "{refused} of 40");
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.received(esme).len(), 40 - refused);
    assert_eq!(net.ask(esme, &waits), OK);
    // A replacement needs room as well.
    let id = net.accept(esme, ShortMessage { schedule_delivery_time: b"000001000000000R", ..QUIET });
    let replace = Pdu::ReplaceSm(ReplaceSm { message_id: id.as_bytes(), ..REPLACE });
    net.hold_disk(true);
    (0..40).for_each(|number| net.send(esme, &replace, 100 + number));
    net.hold_disk(false);
    net.turn();
    let answers = net.received(esme);
    let refused = answers.iter().filter(|pdu| pdu.command_status == full).count();
    assert!((20..40).contains(&refused) && answers.len() == 40, "{refused} of {}", answers.len());
}

#[test]
fn who_waits_for_the_state_at_rest_is_not_joined_by_others() {
    let waits = Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"000001000000000R", ..QUIET });
    let mut net = Net::new(1);
    net.partition_settings.store_waiting_max = 1;
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    net.accept(esme, QUIET);
    net.pass_millis(2_000);
    net.stop_stores_after(0);
    assert_eq!(net.ask(esme, &waits), OK);
    net.put_to_rest();
    assert_eq!(net.ask(esme, &waits), CommandStatus::ESME_RMSGQFUL, "an order waits");
    net.stop_stores_after(usize::MAX);
    net.turn();
    assert_eq!(net.ask(esme, &waits), OK);
}

#[test]
fn a_receipt_is_given_up_when_its_time_is_over_and_not_with_its_next_try() {
    let mut net = Net::new(1);
    net.partition_settings.parcel_retention = Duration::from_secs(12);
    net.crash_and_restart();
    net.confirms = false;
    let esme = net.bound(0, "demo");
    net.accept(esme, MESSAGE);
    net.pass_millis(1_000);
    // After the second refusal it would be tried in ten seconds, and it has less than seven.
    for pause in [5_100, 5_000] {
        let waiting = deliveries(net.received(esme));
        assert_eq!(waiting.len(), 1);
        net.answer(esme, &waiting[0], CommandStatus::ESME_RX_T_APPN);
        net.pass_millis(pause);
    }
    assert_eq!((net.deliveries().0, net.counters(0).deliver_given_up), (1, 0));
    net.pass_millis(1_900);
    assert_eq!((net.deliveries().0, net.counters(0).deliver_given_up), (0, 1));
    net.pass_millis(10_000);
    assert!(deliveries(net.received(esme)).is_empty());
}

#[test]
fn an_outcome_that_is_not_durable_is_told_as_a_failure() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.send(esme, &Pdu::SubmitSm(ShortMessage { esm_class: EsmClass::FORWARD, ..QUIET }), 2);
    net.hold_disk(true);
    net.pass_millis(2_000);
    assert_eq!(net.unfinished(), 0, "it was delivered, and that is on its way to the disk");
    assert!(net.received(esme).is_empty());
    net.fail_disk();
    let statuses: Vec<_> = net.received(esme).iter().map(|pdu| pdu.command_status).collect();
    assert_eq!(statuses, [CommandStatus::ESME_RDELIVERYFAILURE]);
}

#[test]
fn who_comes_while_the_server_stops_is_sent_away_at_once() {
    let mut net = Net::new(1);
    let bound = net.bound(0, "demo");
    net.drain();
    let late = net.connect(0);
    net.turn();
    assert!(net.is_closed(late), "nobody would ask it to leave any more");
    assert!(net.is_closed(bound) || !net.received(bound).is_empty(), "the others are asked");
    assert!(net.received(late).is_empty());
}

#[test]
fn nothing_comes_behind_the_answer_to_an_unbind_and_what_was_on_its_way_is_not_lost() {
    // The home of the account is one of the two cores: seen from the other, a receipt takes a while.
    for core in [0, 1] {
        let mut net = Net::new(2);
        net.confirms = false;
        let esme = net.bound(core, "demo");
        let id = net.accept(esme, MESSAGE);
        net.pass_for(core, 1_000);
        // It ends, that becomes durable, and the receipt goes to its home, which gives it to the session.
        net.step(core);
        net.step(core);
        net.hand_in(esme, &Pdu::Unbind, 88);
        net.step(1 - core);
        net.turn();
        let received = net.received(esme);
        let last = received.last().expect("an answer");
        assert_eq!((last.command_id, last.sequence_number()), (CommandId::UNBIND_RESP, 88), "{core}");
        assert!(net.is_closed(esme));
        let again = net.bound(core, "demo");
        net.pass_millis(6_000);
        let receipts = deliveries(net.received(again));
        assert_eq!(receipts.iter().map(ReceivedPdu::receipt_id).collect::<Vec<_>>(), [id], "{core}");
    }
}

#[test]
fn sessions_of_an_account_that_left_are_asked_to_go_and_no_others() {
    let mut net = Net::new(2);
    net.confirms = false;
    let leaving = [net.bound(0, "other"), net.bound(1, "other")];
    let staying = [net.bound(0, "demo"), net.bound(1, "demo")];
    net.reload(vec![Net::account("demo"), Net::account("new")]);
    for esme in leaving {
        let asked: Vec<CommandId> = net.received(esme).iter().map(|pdu| pdu.command_id).collect();
        assert_eq!(asked, [CommandId::UNBIND]);
        assert_eq!(net.ask(esme, &Pdu::SubmitSm(QUIET)), CommandStatus::ESME_RINVBNDSTS);
    }
    for esme in staying {
        assert!(net.received(esme).is_empty());
        assert_eq!(net.ask(esme, &Pdu::SubmitSm(QUIET)), OK);
    }
    let again = net.connect(0);
    assert_eq!(net.bind(again, "other"), CommandStatus::ESME_RBINDFAIL);
    assert_eq!(net.bind(again, "new"), OK);
}

#[test]
fn what_a_session_did_not_answer_goes_to_the_next_one_without_a_pause() {
    let mut net = Net::new(2);
    net.confirms = false;
    let gone = net.bound(0, "demo");
    let mut ids: Vec<String> = (0..12).map(|_| net.accept(gone, MESSAGE)).collect();
    net.pass_millis(1_000);
    assert_eq!(deliveries(net.received(gone)).len(), 10, "a window of them");
    net.disconnect(gone);
    net.confirms = true;
    // The session is another one's fault, and no delivery's.
    let next = net.bound(1, "demo");
    let mut told: Vec<String> = deliveries(net.received(next)).iter().map(ReceivedPdu::receipt_id).collect();
    ids.sort();
    told.sort();
    assert_eq!(told, ids);
}

#[test]
fn what_waited_for_a_session_that_unbinds_goes_to_the_next_one() {
    let mut net = Net::new(1);
    net.reload(vec![AccountSettings { deliver_window: 1, ..Net::account("demo") }]);
    net.confirms = false;
    let leaving = net.bound(0, "demo");
    // Its unbind has to wait for an outcome that does not come.
    let outcome = ShortMessage { esm_class: EsmClass::FORWARD, ..UNTAKEN };
    net.send(leaving, &Pdu::SubmitSm(outcome), 50);
    let ids = [0, 1].map(|_| net.accept(leaving, MESSAGE));
    net.pass_millis(1_000);
    let told = deliveries(net.received(leaving));
    assert_eq!(told.len(), 1, "the home has another that waits for room in the window");
    net.send(leaving, &Pdu::Unbind, 51);
    assert!(!net.is_closed(leaving));
    net.confirms = true;
    let next = net.bound(0, "demo");
    let [told, others] = [told, deliveries(net.received(next))]
        .map(|receipts| receipts.iter().map(ReceivedPdu::receipt_id).collect::<Vec<_>>());
    assert_eq!(others.len(), 1);
    let mut all = [told, others].concat();
    all.sort();
    assert_eq!(all, ids);
}

#[test]
fn a_carrier_that_has_taken_a_message_is_not_offered_it_again() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let id = net.accept(esme, QUIET);
    assert_eq!(net.message(&id).map(|message| message.standing.state), Some(State::Forwarded));
    // It was busy with an attempt before that, and says so late.
    net.news(News::Busy { id: parsed(&id), error: 11 });
    net.tick();
    assert_eq!(net.message(&id).map(|message| message.standing.state), Some(State::Forwarded));
    net.pass_seconds(60, 1);
    assert_eq!(net.offers(), 1);
}
