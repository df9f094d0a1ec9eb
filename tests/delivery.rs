//! Receipts and replies: each once it may come, at least once, to whom it belongs.

mod support;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use smppd::pdu::{CommandId, CommandStatus, EsmClass, Pdu, RegisteredDelivery, ShortMessage};

use support::esme::{DELIVERED, Esme, NUMBER, Next, message};
use support::{PATIENCE, Place};

const SETTINGS: &str = "
[session]
window_out_max = 100
response_timeout_seconds = 0.5
[messages]
deliver_retry_delay_min_seconds = 0.2
deliver_retry_delay_max_seconds = 0.4
[carrier.simulator]
kind = \"simulator\"
delay_min_millis = 0
delay_max_millis = 100
";

fn ten_thousand_messages(cores: usize) {
    const COUNT: usize = 10_000;
    const WINDOW: usize = 500;
    let place = Place::with_demo("ten-thousand");
    // No receipt is sent twice because a busy machine was late with the answer to the first.
    let settings = SETTINGS.replace("response_timeout_seconds = 0.5", "response_timeout_seconds = 60");
    let server = place.server().settings(&settings).cores(cores).start();
    let mut esme = Esme::bound(&server, "demo");
    let (mut sent, mut in_flight) = (0, 0);
    let mut ids = HashSet::new();
    let mut receipts = HashSet::new();
    let mut octets = Vec::new();
    while receipts.len() < COUNT {
        if in_flight <= WINDOW / 2 && sent < COUNT {
            octets.clear();
            while in_flight < WINDOW && sent < COUNT {
                esme.put(&Pdu::SubmitSm(message(DELIVERED, "one of many")), &mut octets);
                (sent, in_flight) = (sent + 1, in_flight + 1);
            }
            esme.write(&octets).expect("a connection that takes octets");
        }
        let pdu = esme.next();
        match pdu.receipt() {
            None => {
                in_flight -= 1;
                assert!(ids.insert(pdu.message_id()), "given out twice: {pdu:?}");
            }
            Some(receipt) => {
                assert!(ids.contains(&receipt.id), "before its response: {receipt:?}");
                assert!(receipts.insert(receipt.id.clone()), "twice: {receipt:?}");
                assert_eq!((&*receipt.stat, &*receipt.error), ("DELIVRD", "000"));
            }
        }
    }
    assert_eq!(ids.len(), COUNT);
    esme.hears_nothing_for(Duration::from_millis(500));
    assert_eq!(esme.ask(&Pdu::Unbind).status, CommandStatus::ESME_ROK);
    assert!(server.stop().success());
}

#[test]
fn ten_thousand_messages_have_ten_thousand_ids_and_receipts_on_one_core() {
    ten_thousand_messages(1);
}

#[test]
fn ten_thousand_messages_have_ten_thousand_ids_and_receipts_on_two_cores() {
    ten_thousand_messages(2);
}

/// Submits so many and waits for the answers.
fn submit_many(esme: &mut Esme, count: usize) -> HashSet<String> {
    let mut octets = Vec::new();
    let numbers: Vec<u32> =
        (0..count).map(|_| esme.put(&Pdu::SubmitSm(message(DELIVERED, "many")), &mut octets)).collect();
    esme.write(&octets).expect("a connection that takes octets");
    numbers.into_iter().map(|number| esme.response(number).message_id()).collect()
}

#[test]
fn receipts_reach_a_receiver_on_either_core() {
    let place = Place::with_demo("either-core");
    let server = place.server().settings(SETTINGS).start();
    let mut transmitters = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    // One receiver after the other: among eight, both cores are there.
    for _ in 0..8 {
        let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
        for transmitter in &mut transmitters {
            let ids = submit_many(transmitter, 100);
            let receipts = receiver.receipts_of(&ids);
            assert_eq!(receipts.len(), ids.len(), "a receipt came twice");
        }
        let unbound = receiver.ask(&Pdu::Unbind);
        assert_eq!(unbound.status, CommandStatus::ESME_ROK);
    }
    for mut transmitter in transmitters {
        transmitter.hears_nothing_for(Duration::ZERO);
    }
}

#[test]
fn several_receivers_share_the_receipts() {
    let place = Place::with_demo("share");
    let server = place.server().settings(SETTINGS).start();
    let mut receivers: Vec<_> =
        (0..4).map(|_| Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER)).collect();
    let mut transmitter = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let ids = submit_many(&mut transmitter, 1_000);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut shares = vec![0; receivers.len()];
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < ids.len() && Instant::now() < deadline {
        for (receiver, share) in receivers.iter_mut().zip(&mut shares) {
            while let Next::Pdu(pdu) = receiver.next_within(Duration::from_millis(1)) {
                let receipt = pdu.receipt().expect("a receipt");
                assert!(ids.contains(&receipt.id));
                *seen.entry(receipt.id).or_default() += 1;
                *share += 1;
            }
        }
    }
    assert_eq!(seen.len(), ids.len());
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn a_receipt_that_was_refused_or_not_answered_comes_again() {
    let place = Place::with_demo("again");
    let server = place.server().settings(SETTINGS).start();
    for first_answer in [Some(CommandStatus::ESME_RX_T_APPN), Some(CommandStatus::ESME_RSYSERR), None] {
        let mut esme = Esme::bound(&server, "demo");
        let id = esme.submit(&message(DELIVERED, "again"));
        esme.answers = first_answer;
        for _ in 0..3 {
            assert_eq!(esme.next_receipt().id, id, "{first_answer:?}");
        }
        esme.answers = Some(CommandStatus::ESME_ROK);
        assert_eq!(esme.next_receipt().id, id, "{first_answer:?}");
        esme.hears_nothing_for(Duration::from_millis(1_500));
    }
}

#[test]
fn a_receipt_that_was_refused_for_good_does_not_come_again() {
    let place = Place::with_demo("for-good");
    let server = place.server().settings(SETTINGS).start();
    let mut esme = Esme::bound(&server, "demo");
    for status in [CommandStatus::ESME_RX_P_APPN, CommandStatus::ESME_RX_R_APPN] {
        esme.answers = Some(status);
        let id = esme.submit(&message(DELIVERED, "for good"));
        assert_eq!(esme.next_receipt().id, id);
        esme.hears_nothing_for(Duration::from_millis(1_000));
    }
}

#[test]
fn a_receipt_in_flight_when_its_session_ends_goes_to_the_next() {
    let place = Place::with_demo("next-session");
    let server = place.server().settings(SETTINGS).start();
    let mut transmitter = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut first = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    first.answers = None;
    let ids = submit_many(&mut transmitter, 50);
    first.receipts_of(&ids);
    drop(first);
    let mut second = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    second.receipts_of(&ids);
}

#[test]
fn receipts_wait_while_nobody_is_bound_and_survive_a_restart() {
    let place = Place::with_demo("wait");
    let launch = place.server().settings(SETTINGS);
    let server = launch.start();
    let [mut one, mut other] = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut ids = submit_many(&mut one, 200);
    ids.extend(submit_many(&mut other, 200));
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    assert_eq!(receiver.receipts_of(&ids).len(), ids.len());
    drop(receiver);
    let later = submit_many(&mut one, 200);
    drop((one, other));
    assert!(server.stop().success());
    let server = launch.start();
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    receiver.receipts_of(&later);
}

#[test]
fn only_the_receipts_asked_for_come() {
    let place = Place::with_demo("asked-for");
    let server = place.server().settings(SETTINGS).start();
    let mut esme = Esme::bound(&server, "demo");
    let failing = "9995034";
    for (destination, registered, expected) in [
        (DELIVERED, 0x00, &[][..]),
        (failing, 0x00, &[]),
        (DELIVERED, 0x01, &["DELIVRD"]),
        (failing, 0x01, &["UNDELIV"]),
        (DELIVERED, 0x02, &[]),
        (failing, 0x02, &["UNDELIV"]),
        (DELIVERED, 0x03, &["DELIVRD"]),
        (failing, 0x03, &[]),
    ] {
        let submitted = ShortMessage {
            registered_delivery: RegisteredDelivery(registered),
            ..message(destination, "asked for")
        };
        let id = esme.submit(&submitted);
        for stat in expected {
            let receipt = esme.next_receipt();
            assert_eq!((receipt.id, &*receipt.stat), (id.clone(), *stat), "{registered:#x} {destination}");
            assert_eq!(receipt.error, if destination == failing { "034" } else { "000" });
        }
        esme.hears_nothing_for(Duration::from_millis(300));
    }
}

#[test]
fn a_reply_comes_to_the_account_that_owns_the_number() {
    let place = Place::with_demo("reply");
    place.account("add other --number 4420 --any-source");
    let server = place.server().settings(SETTINGS).start();
    let mut owner = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    // The reply goes to the owner of the number, whoever used it.
    for system_id in ["demo", "other"] {
        let mut sender = Esme::bound_as(&server, system_id, CommandId::BIND_TRANSMITTER);
        let submitted = ShortMessage {
            registered_delivery: RegisteredDelivery::NONE,
            ..message(DELIVERED, "reply hello back")
        };
        sender.submit(&submitted);
        let reply = owner.next();
        reply.with(|pdu| {
            let Pdu::DeliverSm(body) = pdu else { panic!("not a deliver_sm: {pdu:?}") };
            assert_eq!(body.esm_class, EsmClass::DEFAULT);
            assert_eq!(body.short_message, b"hello back");
            assert_eq!(body.source.digits, DELIVERED.as_bytes());
            assert_eq!(body.destination.digits, NUMBER.as_bytes());
        });
    }
    owner.hears_nothing_for(Duration::from_millis(300));
}
