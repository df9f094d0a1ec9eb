//! Modes and times of a message, and what its sender may still do to it.

mod support;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use smppd::message::MessageId;
use smppd::pdu::{
    Address, CancelSm, CommandId, CommandStatus, DestAddress, DestAddresses, EsmClass, Pdu,
    RegisteredDelivery, ReplaceSm, ShortMessage, Tlvs,
};

use support::esme::{ANYBODY, DELIVERED, Esme, NEVER_TAKEN, NUMBER, international, message, message_to};
use support::{Place, Server, eventually};

const OK: CommandStatus = CommandStatus::ESME_ROK;
/// Relative times of SMPP: years to seconds, tenths, then R.
const IN_TWO_SECONDS: &[u8] = b"000000000002000R";
const IN_AN_HOUR: &[u8] = b"000000010000000R";

const SCHEDULED: u8 = 0;
const ENROUTE: u8 = 1;
const DELIVERED_STATE: u8 = 2;
const DELETED: u8 = 4;
const UNDELIVERABLE: u8 = 5;

fn server(place: &Place) -> Server {
    place
        .server()
        .settings("[messages]\nretry_delay_min_seconds = 0.2\nretry_delay_max_seconds = 0.5\n")
        .start()
}

fn cancel<'a>(id: &'a str, destination: Address<'a>) -> Pdu<'a> {
    Pdu::CancelSm(CancelSm {
        service_type: b"",
        message_id: id.as_bytes(),
        source: international(NUMBER),
        destination,
        tlvs: Tlvs::EMPTY,
    })
}

fn replace<'a>(id: &'a str, text: &'a str) -> Pdu<'a> {
    Pdu::ReplaceSm(ReplaceSm {
        message_id: id.as_bytes(),
        source: international(NUMBER),
        schedule_delivery_time: b"",
        validity_period: b"",
        registered_delivery: RegisteredDelivery::RECEIPT,
        sm_default_msg_id: 0,
        short_message: text.as_bytes(),
        tlvs: Tlvs::EMPTY,
    })
}

#[test]
fn in_transaction_mode_the_response_waits_for_the_outcome() {
    let place = Place::with_demo("transaction");
    let server = server(&place);
    let mut esme = Esme::bound(&server, "demo");
    let forward = |destination| ShortMessage {
        esm_class: EsmClass::FORWARD,
        registered_delivery: RegisteredDelivery::NONE,
        ..message(destination, "transaction")
    };
    let id = esme.submit(&forward(DELIVERED));
    assert_eq!(esme.query(&id).message_state(), DELIVERED_STATE, "the outcome was there with the response");
    let failed = esme.ask(&Pdu::SubmitSm(forward("9995034")));
    assert_eq!(failed.status, CommandStatus::ESME_RDELIVERYFAILURE);
    esme.hears_nothing_for(Duration::from_millis(700));
}

#[test]
fn a_datagram_is_tried_once_and_has_no_receipt() {
    let place = Place::with_demo("datagram");
    let server = server(&place);
    let mut esme = Esme::bound(&server, "demo");
    for (destination, state) in [(DELIVERED, DELIVERED_STATE), (NEVER_TAKEN, UNDELIVERABLE)] {
        let id = esme.submit(&ShortMessage { esm_class: EsmClass::DATAGRAM, ..message(destination, "once") });
        eventually("the datagram is over", || (esme.query(&id).message_state() == state).then_some(()));
    }
    esme.hears_nothing_for(Duration::from_millis(700));
}

#[test]
fn a_scheduled_message_waits_for_its_time_and_survives_a_kill() {
    let place = Place::with_demo("scheduled");
    let running = server(&place);
    let mut esme = Esme::bound(&running, "demo");
    let scheduled =
        ShortMessage { schedule_delivery_time: IN_TWO_SECONDS, ..message(DELIVERED, "scheduled") };
    let begin = Instant::now();
    let id = esme.submit(&scheduled);
    assert_eq!(esme.query(&id).message_state(), SCHEDULED);
    running.kill();
    let running = server(&place);
    let mut esme = Esme::bound(&running, "demo");
    let receipt = esme.next_receipt();
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "{:?}", begin.elapsed());
    assert_eq!((receipt.id, &*receipt.stat), (id, "DELIVRD"));
}

#[test]
fn a_message_that_no_carrier_takes_expires() {
    let place = Place::with_demo("expires");
    let server = server(&place);
    let mut esme = Esme::bound(&server, "demo");
    let begin = Instant::now();
    let id =
        esme.submit(&ShortMessage { validity_period: IN_TWO_SECONDS, ..message(NEVER_TAKEN, "expires") });
    assert_eq!(esme.query(&id).message_state(), ENROUTE);
    let receipt = esme.next_receipt();
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "{:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!((receipt.id, &*receipt.stat), (id, "EXPIRED"));
}

#[test]
fn a_message_is_cancelled_from_either_core_until_its_carrier_has_it() {
    let place = Place::with_demo("cancel");
    let server = server(&place);
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    for (owner, asking) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let id = sessions[owner].submit(&message(NEVER_TAKEN, "cancel"));
        // While it is being offered it cannot be cancelled; soon it waits to be offered again.
        eventually("it can be cancelled", || {
            (sessions[asking].ask(&cancel(&id, ANYBODY)).status == OK).then_some(())
        });
        let receipt = receiver.next_receipt();
        assert_eq!((&*receipt.id, &*receipt.stat), (&*id, "DELETED"));
        assert_eq!(sessions[asking].query(&id).message_state(), DELETED);
        assert_eq!(sessions[asking].ask(&cancel(&id, ANYBODY)).status, CommandStatus::ESME_RCANCELFAIL);

        let id = sessions[owner].submit(&message(DELIVERED, "too late"));
        assert_eq!(receiver.next_receipt().id, id);
        assert_eq!(sessions[asking].ask(&cancel(&id, ANYBODY)).status, CommandStatus::ESME_RCANCELFAIL);
    }
    assert_eq!(sessions[0].ask(&cancel("1", ANYBODY)).status, CommandStatus::ESME_RINVMSGID);
}

#[test]
fn cancel_without_an_id_takes_all_for_a_destination_on_every_core() {
    let place = Place::with_demo("cancel-all");
    let server = server(&place);
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut ids = HashSet::new();
    for esme in &mut sessions {
        for _ in 0..5 {
            let waiting = ShortMessage { schedule_delivery_time: IN_AN_HOUR, ..message("15550001", "all") };
            ids.insert(esme.submit(&waiting));
        }
    }
    let other = ShortMessage { schedule_delivery_time: IN_AN_HOUR, ..message("15550002", "not this") };
    let other = sessions[0].submit(&other);
    let all = cancel("", international("15550001"));
    assert_eq!(sessions[0].ask(&all).status, OK);
    let receipts = receiver.receipts_of(&ids);
    assert!(receipts.iter().all(|receipt| receipt.stat == "DELETED"));
    assert_eq!(sessions[0].query(&other).message_state(), SCHEDULED);
    assert_eq!(sessions[1].ask(&all).status, CommandStatus::ESME_RCANCELFAIL, "none is left");
}

#[test]
fn a_scheduled_message_can_be_replaced() {
    let place = Place::with_demo("replace");
    let server = server(&place);
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    for asking in [0, 1] {
        let scheduled = ShortMessage { schedule_delivery_time: IN_TWO_SECONDS, ..message(DELIVERED, "old") };
        let id = sessions[0].submit(&scheduled);
        assert_eq!(sessions[asking].ask(&replace(&id, "new text")).status, OK);
        let receipt = receiver.next_receipt();
        assert_eq!((&*receipt.id, &*receipt.stat, &*receipt.text), (&*id, "DELIVRD", "new text"));
        let late = sessions[asking].ask(&replace(&id, "too late")).status;
        assert_eq!(late, CommandStatus::ESME_RREPLACEFAIL);
    }
    assert_eq!(sessions[0].ask(&replace("1", "nothing")).status, CommandStatus::ESME_RINVMSGID);
}

#[test]
fn replace_if_present_replaces_what_waits_on_any_core_or_submits() {
    let place = Place::with_demo("present");
    let server = server(&place);
    let mut sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    let waiting = |text| ShortMessage {
        schedule_delivery_time: IN_TWO_SECONDS,
        replace_if_present_flag: 1,
        ..message("15550003", text)
    };
    let first = sessions[0].submit(&waiting("first"));
    let second = sessions[1].submit(&waiting("second"));
    assert_eq!(second, first, "the same message");
    let other =
        sessions[1].submit(&ShortMessage { destination: international("15550004"), ..waiting("other") });
    assert_ne!(other, first);
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let receipts = receiver.receipts_of(&HashSet::from([first.clone(), other]));
    let replaced = receipts.iter().find(|receipt| receipt.id == first).expect("a receipt");
    assert_eq!(replaced.text, "second");
    receiver.hears_nothing_for(Duration::from_millis(700));
}

#[test]
fn submit_multi_has_one_id_and_a_receipt_for_each_destination() {
    let place = Place::with_demo("multi");
    let server = server(&place);
    let mut esme = Esme::bound(&server, "demo");
    let mut octets = Vec::new();
    for digits in ["15550001", "15550002", "not-a-number", "9995034", "15550003"] {
        DestAddress::Sme(international(digits)).put(&mut octets).expect("an address");
    }
    let destinations = DestAddresses::new(5, &octets).expect("destinations");
    let multi = message_to(destinations, "to many");
    let response = esme.ask(&Pdu::SubmitMulti(multi));
    let id = response.message_id();
    response.with(|pdu| {
        let Pdu::SubmitMultiResp(body) = pdu else { panic!("not a submit_multi_resp: {pdu:?}") };
        let unreached: Vec<_> = body
            .unsuccess_sme
            .iter()
            .map(|sme| (sme.destination.digits.to_vec(), sme.error_status_code))
            .collect();
        assert_eq!(unreached, [(b"not-a-number".to_vec(), CommandStatus::ESME_RINVDSTADR)]);
    });
    let mut stats: HashMap<String, usize> = HashMap::new();
    let batch = MessageId::parse(id.as_bytes()).expect("an id").as_u64();
    for _ in 0..4 {
        let receipt = esme.next_receipt();
        let member = MessageId::parse(receipt.id.as_bytes()).expect("an id").as_u64();
        assert!((batch..batch + 4).contains(&member), "{receipt:?} is not of {id}");
        *stats.entry(receipt.stat).or_default() += 1;
    }
    assert_eq!(stats, HashMap::from([("DELIVRD".to_owned(), 3), ("UNDELIV".to_owned(), 1)]));
    esme.hears_nothing_for(Duration::from_millis(700));
    assert_eq!(esme.query(&id).status, OK);
}

#[test]
fn every_outcome_of_the_carrier_is_reported() {
    let place = Place::with_demo("outcomes");
    let server = server(&place);
    let mut esme = Esme::bound(&server, "demo");
    for (destination, stat, error, state) in [
        ("9992000555", "DELIVRD", "000", 2),
        ("9993001555", "EXPIRED", "001", 3),
        ("9994002555", "DELETED", "002", 4),
        ("9995034555", "UNDELIV", "034", 5),
        ("9997005555", "UNKNOWN", "005", 7),
        ("9998006555", "REJECTD", "006", 8),
    ] {
        let id = esme.submit(&message(destination, "outcomes"));
        let receipt = esme.next_receipt();
        assert_eq!((&*receipt.id, &*receipt.stat, &*receipt.error), (&*id, stat, error), "{destination}");
        assert_eq!(esme.query(&id).message_state(), state, "{destination}");
    }
}
