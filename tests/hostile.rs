//! What peers, crashes and disks could do to a shard, each found once and never again.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use common::{
    ACCEPTED_BIND, CANCEL, Destinations, Esme, MESSAGE, NEVER_TAKEN, NUMBER, Net, REPLACE, SUBSCRIBER, multi,
    payload,
};
use smppd::carrier::News;
use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, CancelSm, CommandId, CommandStatus, DataCoding, EsmClass, InterfaceVersion, Pdu,
    RegisteredDelivery, ReplaceSm, ShortMessage, Tlvs,
};
use smppd::route::CarrierIndex;

fn header(command_length: u32, command_id: CommandId, sequence_number: u32) -> Vec<u8> {
    [command_length, command_id.0, 0, sequence_number].iter().flat_map(|field| field.to_be_bytes()).collect()
}

fn deliver_sm_resp(sequence_number: u32) -> Vec<u8> {
    [header(17, CommandId::DELIVER_SM_RESP, sequence_number), vec![0]].concat()
}

fn submit_sm<'a>(esm_class: EsmClass, replace_if_present_flag: u8, tlvs: Tlvs<'a>) -> Pdu<'a> {
    Pdu::SubmitSm(ShortMessage { esm_class, replace_if_present_flag, tlvs, ..MESSAGE })
}

fn to_nobody(text: &[u8]) -> ShortMessage<'_, Address<'_>> {
    ShortMessage { destination: NEVER_TAKEN, short_message: text, ..MESSAGE }
}

/// A session with a full window of unconfirmed receipts and more behind it.
fn loaded(net: &mut Net) -> Esme {
    net.confirms = false;
    let esme = net.bound(0, "demo");
    for number in 0..40 {
        net.submit(esme, 100 + number, "12125559999");
    }
    net.pass_millis(1_000);
    let deliveries = net.received(esme).iter().filter(|pdu| pdu.command_id == CommandId::DELIVER_SM).count();
    assert_eq!(deliveries, 10);
    esme
}

/// How many receipts a new session gets within two minutes.
fn receipts_after_another_bind(net: &mut Net) -> usize {
    net.confirms = true;
    let again = net.bound(0, "demo");
    (0..120)
        .map(|_| {
            net.pass_millis(1_000);
            net.received(again).iter().filter(|pdu| pdu.command_id == CommandId::DELIVER_SM).count()
        })
        .sum()
}

#[test]
fn lost_framing_behind_a_confirmation_ends_the_session_and_nothing_else() {
    let mut net = Net::new(1);
    let esme = loaded(&mut net);
    net.send_octets(esme, &[deliver_sm_resp(1), header(4, CommandId::SUBMIT_SM, 9)].concat());
    assert!(net.is_closed(esme));
    assert_eq!(receipts_after_another_bind(&mut net), 39);
}

#[test]
fn an_unbind_behind_a_confirmation_is_answered_and_loses_no_receipt() {
    let mut net = Net::new(1);
    let esme = loaded(&mut net);
    net.send_octets(esme, &[deliver_sm_resp(1), header(16, CommandId::UNBIND, 9)].concat());
    let answers: Vec<CommandId> = net.received(esme).iter().map(|pdu| pdu.command_id).collect();
    assert_eq!(answers, [CommandId::UNBIND_RESP]);
    assert_eq!(receipts_after_another_bind(&mut net), 39);
}

#[test]
fn more_tlvs_than_a_record_holds_are_refused() {
    let mut octets = Vec::new();
    for _ in 0..2 {
        octets.extend([0x15, 0x01]);
        octets.extend(35_000_u16.to_be_bytes());
        octets.resize(octets.len() + 35_000, 7);
    }
    let tlvs = Tlvs::read(&octets, CommandId::SUBMIT_SM).expect("well-formed");
    for replace_if_present_flag in [0, 1] {
        let mut net = Net::new(1);
        let esme = net.bound(0, "demo");
        net.send(esme, &submit_sm(EsmClass::DEFAULT, replace_if_present_flag, tlvs), 2);
        assert_eq!(net.received(esme)[0].command_status, CommandStatus::ESME_RINVMSGLEN);
    }
}

#[test]
fn a_failed_disk_ends_the_wait_for_an_outcome() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.send(esme, &submit_sm(EsmClass::FORWARD, 0, Tlvs::EMPTY), 2);
    assert!(net.received(esme).is_empty(), "the outcome is not known yet");
    net.fail_disk();
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RDELIVERYFAILURE]);
}

/// A submit_sm that replaces what waits.
fn replacing(text: &'static [u8]) -> Pdu<'static> {
    Pdu::SubmitSm(ShortMessage { replace_if_present_flag: 1, ..to_nobody(text) })
}

#[test]
fn the_newest_message_is_replaced_and_no_other() {
    let mut net = Net::new(2);
    let sessions = [net.connect(0), net.connect(1)];
    let mut ids = Vec::new();
    for esme in sessions {
        assert_eq!(net.bind(esme, "demo"), ACCEPTED_BIND);
        net.send(esme, &Pdu::SubmitSm(to_nobody(b"old")), 2);
        ids.extend(net.received(esme).iter().map(|pdu| pdu.message_id()));
        net.pass_millis(100);
    }
    net.send(sessions[0], &replacing(b"new"), 3);
    let answers = net.received(sessions[0]);
    assert_eq!(answers[0].message_id(), ids[1], "the younger one, on the other core");
    let texts: Vec<_> = ids.iter().map(|id| net.waiting_text(id)).collect();
    assert_eq!(texts, ["old", "new"]);
    // With nothing left to replace it is a message of its own.
    for id in &ids {
        net.cancel(sessions[0], 4, id);
    }
    assert_eq!(net.statuses(sessions[0])[..2], [CommandStatus::ESME_ROK; 2]);
    net.send(sessions[0], &replacing(b"newer"), 5);
    net.received(sessions[1]);
    let answers = net.received(sessions[0]);
    let own = answers.iter().find(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP).expect("an answer");
    assert!(!ids.contains(&own.message_id()));
}

#[test]
fn replacing_counts_against_the_rate() {
    let mut net = Net::new(2);
    let esme = net.bound(0, "slow");
    net.send(esme, &replacing(b"one"), 2);
    let id = net.received(esme)[0].message_id();
    net.send(esme, &replacing(b"two"), 3);
    let replace = ReplaceSm { message_id: id.as_bytes(), short_message: b"three", ..REPLACE };
    net.send(esme, &Pdu::ReplaceSm(replace), 4);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RTHROTTLED; 2]);
    assert_eq!(net.waiting_text(&id), "one");
    net.pass_millis(1_000);
    net.send(esme, &Pdu::ReplaceSm(replace), 5);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
    assert_eq!(net.waiting_text(&id), "three");
    net.pass_millis(1_000);
    net.send(esme, &Pdu::ReplaceSm(ReplaceSm { short_message: &[b'x'; 200], ..replace }), 6);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RINVMSGLEN], "as in a submit_sm");
}

#[test]
fn what_waits_of_a_submit_multi_is_cancelled_when_its_first_message_is_over() {
    for is_at_rest in [false, true] {
        let mut net = Net::new(1);
        let esme = net.bound(0, "demo");
        net.send(esme, &multi(MESSAGE, &Destinations::of([SUBSCRIBER, NEVER_TAKEN])), 2);
        let id = net.received(esme)[0].submit_multi_id();
        net.pass_millis(2_000);
        if is_at_rest {
            net.put_to_rest();
        }
        assert_eq!(net.received(esme).len(), 1, "the receipt of the first");
        net.cancel(esme, 3, &id);
        net.cancel(esme, 4, &id);
        let answers: Vec<_> = net
            .received(esme)
            .iter()
            .filter(|pdu| pdu.command_id == CommandId::CANCEL_SM_RESP)
            .map(|pdu| pdu.command_status)
            .collect();
        assert_eq!(answers, [CommandStatus::ESME_ROK, CommandStatus::ESME_RCANCELFAIL], "{is_at_rest}");
    }
}

#[test]
fn cancel_without_an_id_finds_what_waits_where_memory_does_not_hold_it() {
    const MESSAGES: u32 = 1_000;
    let mut net = Net::new(1);
    let settings = &mut net.partition_settings;
    (settings.messages_octets_max, settings.checkpoint_segments) = (100_000, 1);
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    for number in 0..MESSAGES {
        net.send(
            esme,
            &Pdu::SubmitSm(ShortMessage {
                service_type: if number % 50 == 0 { b"CMT" } else { b"" },
                schedule_delivery_time: b"000001000000000R",
                registered_delivery: RegisteredDelivery(0),
                ..to_nobody(b"tomorrow")
            }),
            number + 2,
        );
        assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
        net.pass_millis(10);
    }
    let cancel = |service_type| Pdu::CancelSm(CancelSm { service_type, destination: NEVER_TAKEN, ..CANCEL });
    let mut number = MESSAGES + 2;
    let mut ask = |net: &mut Net, pdu: &Pdu<'_>| {
        number += 1;
        net.send(esme, pdu, number);
        net.statuses(esme)
    };
    net.fetched = 0;
    // The others between these addresses stay, and their blocks with them.
    assert_eq!(ask(&mut net, &cancel(b"CMT")), [CommandStatus::ESME_ROK]);
    assert!(net.fetched > 10, "most of it was cold: {}", net.fetched);
    assert_eq!(ask(&mut net, &cancel(b"CMT")), [CommandStatus::ESME_RCANCELFAIL]);
    assert_eq!(net.unfinished(), MESSAGES as usize * 49 / 50);
    assert_eq!(ask(&mut net, &cancel(b"")), [CommandStatus::ESME_ROK]);
    assert_eq!(net.unfinished(), 0);
}

#[test]
fn a_peer_waits_for_an_answer_until_it_has_it() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let connection = net.connection(esme);
    let waits = |net: &mut Net| {
        let mut waits = false;
        net.input(0, |shard, _| waits = shard.has_unanswered(connection));
        waits
    };
    assert!(!waits(&mut net));
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    assert!(waits(&mut net));
    net.hold_disk(false);
    net.turn();
    assert!(!waits(&mut net));
}

#[test]
fn a_stop_answers_what_is_on_its_way_to_the_disk() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    net.drain();
    net.pass_millis(1_500);
    let unbind = net.received(esme);
    assert_eq!(unbind.len(), 1, "it does not wait for ever: {unbind:?}");
    assert!(!net.is_closed(esme), "an answer is still owed");
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
    assert!(net.is_closed(esme));
}

#[test]
fn outcomes_that_take_long_leave_half_the_window_to_the_others() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let outcome = ShortMessage { esm_class: EsmClass::FORWARD, ..to_nobody(b"hello") };
    for number in 0..600 {
        net.send(esme, &Pdu::SubmitSm(outcome), 10 + number);
    }
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RTHROTTLED; 100]);
    net.submit(esme, 2, "9999000555");
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
}

#[test]
fn an_account_is_told_what_its_operator_wants_whoever_finds_the_fault() {
    let mut net = Net::new(1);
    let to = |digits: &'static [u8]| ShortMessage { destination: Address { digits, ..NUMBER }, ..MESSAGE };
    let wrong = [
        Pdu::SubmitSm(to(b"abc")),
        Pdu::SubmitSm(to(b"12345678901234567890")),
        Pdu::SubmitSm(ShortMessage { data_coding: DataCoding(5), ..to(b"12125559999") }),
    ];
    // The last one's destination is longer than its field, which the session finds by itself.
    let mut too_long = Vec::new();
    wrong[1].encode(CommandStatus::ESME_ROK, 5, &mut too_long).expect("it fits");
    let end = too_long.windows(20).position(|octets| octets == b"12345678901234567890").expect("there") + 20;
    too_long.insert(end, b'1');
    let length = too_long.len() as u32;
    too_long[..4].copy_from_slice(&length.to_be_bytes());
    for (system_id, address, coding) in [("worded", 0x0E, 0x104), ("demo", 0x0B, 0x45)] {
        let esme = net.connect(0);
        assert_eq!(net.bind_version(esme, system_id, InterfaceVersion::V3_4), ACCEPTED_BIND);
        for (number, pdu) in (2..).zip(&wrong) {
            net.send(esme, pdu, number);
        }
        net.send_octets(esme, &too_long);
        let told: Vec<u32> = net.statuses(esme).iter().map(|status| status.0).collect();
        assert_eq!(told, [address, address, coding, address], "{system_id}");
    }
}

#[test]
fn a_session_of_the_oldest_version_gets_what_it_understands() {
    let mut net = Net::new(2);
    let (old, other) = (net.connect(1), net.connect(0));
    assert_eq!(net.bind_version(old, "demo", InterfaceVersion::V3_3), ACCEPTED_BIND);
    assert_eq!(net.bind_version(other, "other", InterfaceVersion::V3_3), ACCEPTED_BIND);
    let mut ids = Vec::new();
    for number in 0..20 {
        net.submit(old, 10 + number, if number < 10 { "12125559999" } else { "9999000555" });
        ids.push(net.received(old)[0].message_id());
    }
    assert!(ids.iter().all(|id| id.len() == 8), "{ids:?}");
    net.crash_and_restart();
    let old = net.connect(0);
    assert_eq!(net.bind_version(old, "demo", InterfaceVersion::V3_3), ACCEPTED_BIND);
    net.submit(old, 2, "9999000555");
    net.pass_millis(2_000);
    let (answers, receipts): (Vec<_>, Vec<_>) =
        net.received(old).into_iter().partition(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP);
    assert!(!ids.contains(&answers[0].message_id()), "no id comes again after a restart");
    assert!(receipts.iter().all(|receipt| !receipt.has_tlvs()));
    let mut told: Vec<String> = receipts.iter().map(|receipt| receipt.receipt_id()).collect();
    told.sort();
    let mut expected = ids[..10].to_vec();
    expected.sort();
    assert_eq!(told, expected);
    for id in &ids {
        net.query(old, 3, id);
    }
    assert_eq!(net.statuses(old), [CommandStatus::ESME_ROK; 20]);
    let other = net.connect(1);
    assert_eq!(net.bind_version(other, "other", InterfaceVersion::V3_3), ACCEPTED_BIND);
    net.query(other, 3, &ids[0]);
    assert_eq!(net.statuses(other), [CommandStatus::ESME_RINVMSGID]);
}

#[test]
fn a_message_goes_on_with_the_carrier_that_may_have_it() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.submit(esme, 2, "12125559999");
    net.pass_millis(50);
    net.route = CarrierIndex(1);
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    net.pass_millis(2_000);
    assert_eq!(net.received(esme).len(), 1, "the receipt");
    assert_eq!(net.witnessed[1].borrow().offers, 0, "the other one would have sent it again");
    net.submit(esme, 2, "12125559999");
    assert_eq!(net.witnessed[1].borrow().offers, 1, "a new one goes the new way");
}

#[test]
fn a_bind_that_nobody_could_verify_has_not_failed() {
    let mut net = Net::new(1);
    let esme = net.connect(0);
    for _ in 0..5 {
        assert_eq!(net.bind_unverified(esme, "demo"), CommandStatus::ESME_RSYSERR);
    }
    assert_eq!(net.bind(esme, "demo"), ACCEPTED_BIND, "more than three failed binds would have closed it");
}

#[test]
fn every_report_is_acknowledged_once_whether_it_applies_or_not() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.submit(esme, 2, "12125559999");
    net.pass_millis(2_000);
    let id = MessageId::parse(net.received(esme)[0].message_id().as_bytes()).expect("an id");
    let elsewhere = MessageId::from_u64(id.as_u64() | (0xFF << 10));
    net.witnessed[0].borrow_mut().news.extend([
        News::State { id, state: MessageState::EXPIRED, error: 1 },
        News::State { id, state: MessageState::ACCEPTED, error: 0 },
        News::Taken { id, carrier_id: (*b"again")[..].into() },
        News::Busy { id, error: 1 },
        News::State { id: elsewhere, state: MessageState::DELIVERED, error: 0 },
    ]);
    net.reply_to(b"15550000000");
    net.pass_millis(2_000);
    assert!(net.received(esme).is_empty(), "there is one final state, and the reply is nobody's");
    let witnessed = net.witnessed[0].borrow();
    assert!(witnessed.said >= 8);
    assert_eq!(witnessed.acknowledged.len() as u64, witnessed.said);
}

#[test]
fn a_reply_waits_with_its_carrier_while_there_is_no_room_for_it() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.input(0, |shard, _| shard.note_disk(true));
    net.reply_to(NUMBER.digits);
    net.pass_millis(100);
    assert!(net.received(esme).is_empty() && net.witnessed[0].borrow().acknowledged.is_empty());
    assert_eq!(net.witnessed[0].borrow().taken_back.len(), 1, "its carrier has it, and nobody else");
    net.input(0, |shard, _| shard.note_disk(false));
    net.pass_millis(100);
    assert_eq!(net.received(esme).len(), 1, "the reply");
    assert_eq!(net.witnessed[0].borrow().acknowledged.len(), 1);
}

#[test]
fn a_submit_multi_that_is_refused_leaves_no_trace() {
    const COUNT: u8 = 250;
    let destinations = Destinations::beginning_with("12125550", COUNT);
    let message = ShortMessage { short_message: &[b'x'; 150], ..MESSAGE };
    // Two and a little fill a batch.
    for durable in 0..3 {
        let mut net = Net::new(1);
        let esme = net.bound(0, "demo");
        net.hold_disk(true);
        for sequence_number in 2..8 {
            net.send(esme, &multi(message, &destinations), sequence_number);
        }
        net.fail_disk_after(durable);
        let statuses = net.statuses(esme);
        let accepted = statuses.iter().filter(|status| **status == CommandStatus::ESME_ROK).count();
        assert_eq!((statuses.len(), accepted), (6, 2 * durable), "two to a batch");
        let messages = accepted * usize::from(COUNT);
        assert_eq!(net.witnessed[0].borrow().offers, messages, "{durable} batches");
        assert_eq!(net.credits_used("demo"), messages as u64, "{durable} batches");
        net.hold_disk(false);
        net.crash_and_restart();
        assert_eq!(net.credits_used("demo"), messages as u64, "{durable} batches");
    }
}

#[test]
fn a_replacement_that_is_refused_costs_nothing() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.send(esme, &Pdu::SubmitSm(to_nobody(b"hello")), 2);
    let id = net.received(esme)[0].message_id();
    net.pass_millis(100);
    let long = payload(&[b'x'; 300]);
    net.hold_disk(true);
    let (short_message, tlvs) = (&b""[..], long.as_tlvs());
    let replace = ReplaceSm { message_id: id.as_bytes(), short_message, tlvs, ..REPLACE };
    net.send(esme, &Pdu::ReplaceSm(replace), 3);
    assert_eq!(net.credits_used("demo"), 2, "a segment more");
    net.fail_disk();
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RSYSERR]);
    assert_eq!(net.credits_used("demo"), 1);
}

#[test]
fn a_submit_multi_that_no_batch_holds_is_refused() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let long = payload(&[b'x'; 1_000]);
    let message = ShortMessage { short_message: b"", tlvs: long.as_tlvs(), ..MESSAGE };
    net.send(esme, &multi(message, &Destinations::beginning_with("12125550", 255)), 2);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RINVNUMDESTS]);
    assert_eq!((net.unfinished(), net.credits_used("demo")), (0, 0));
}
