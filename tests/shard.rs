//! The core of one or several shards, in memory: a clock that the test turns, a disk that obeys.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use common::{ACCEPTED_BIND, CANCEL, Esme, NUMBER, Net, QUIET, SUBSCRIBER};
use smppd::account::AccountSettings;
use smppd::carrier::News;
use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{Address, CancelSm, CommandId, CommandStatus, Pdu, RegisteredDelivery, ShortMessage};
use smppd::shard::Shard;

#[test]
fn a_message_is_answered_when_durable_and_its_receipt_follows() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "9992000123");
    assert!(net.received(esme).is_empty(), "answered before the record was durable");
    net.hold_disk(false);
    net.turn();
    let response = net.received(esme).remove(0);
    assert_eq!(
        (response.command_id, response.command_status),
        (CommandId::SUBMIT_SM_RESP, CommandStatus::ESME_ROK)
    );
    let id = response.message_id();
    net.pass_millis(2_000);
    let receipts = net.received(esme);
    assert_eq!(receipts.len(), 1, "{receipts:?}");
    assert!(receipts[0].text().contains(&format!("id:{id} ")), "{}", receipts[0].text());
    assert!(receipts[0].text().contains("stat:DELIVRD err:000"), "{}", receipts[0].text());
}

#[test]
fn what_a_carrier_answers_keeps_no_submission_waiting_for_the_disk() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let before = net.batches(0);
    net.submit(esme, 2, "9992000123");
    assert_eq!(net.received(esme).len(), 1, "the response");
    assert_eq!(net.batches(0) - before, 1, "that the carrier has taken it is recorded, and waits");
    net.submit(esme, 3, "9992000123");
    assert_eq!(net.batches(0) - before, 2, "for the next submission");
    net.pass_millis(10);
    assert_eq!(net.batches(0) - before, 3, "or for the next tick");
}

const WAITS: ShortMessage<'static, Address<'static>> =
    ShortMessage { schedule_delivery_time: b"000000000010000R", ..QUIET };
const IN_TEN_SECONDS: Pdu<'static> = Pdu::SubmitSm(WAITS);
/// Everything that waits there.
const CANCEL_ALL: Pdu<'static> = Pdu::CancelSm(CancelSm { destination: SUBSCRIBER, ..CANCEL });

/// A thousand messages that wait ten seconds, and who sent them.
fn crowd() -> (Net, Esme) {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    for sequence_number in 0..1_000 {
        net.send(esme, &IN_TEN_SECONDS, 100 + sequence_number);
    }
    assert_eq!(net.received(esme).len(), 1_000);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1_000);
    (net, esme)
}

#[test]
fn a_crowd_that_is_due_at_once_goes_in_portions() {
    let (mut net, _) = crowd();
    net.input(15_000, Shard::tick);
    // The wheel moves them inwards first, in portions of its own.
    for _ in 0..5 {
        if net.waiting(NUMBER, SUBSCRIBER) == 1_000 {
            net.input(4, Shard::tick);
        }
    }
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 900, "a turn takes a portion");
    net.input(0, Shard::go_on);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 800);
    net.turn();
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 0, "no tick is needed for the others");
    assert_eq!(net.witnessed[0].borrow().offers, 1_000);
}

#[test]
fn a_crowd_is_cancelled_in_portions_and_nothing_that_came_later() {
    let (mut net, esme) = crowd();
    net.hand_in(esme, &CANCEL_ALL, 2);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 900, "a turn takes a portion");
    net.send(esme, &IN_TEN_SECONDS, 3);
    let answers: Vec<_> = net.received(esme).iter().map(|pdu| (pdu.command_id, pdu.command_status)).collect();
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|(_, status)| *status == CommandStatus::ESME_ROK), "{answers:?}");
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1, "the one that came after the question");
}

#[test]
fn cancels_behind_one_another_share_the_portion_of_a_turn() {
    let (mut net, esme) = crowd();
    let mut octets = Vec::new();
    for sequence_number in 2..40 {
        CANCEL_ALL.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("encodable");
    }
    net.hand_in_octets(esme, &octets);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 900, "a turn takes a portion");
    net.turn();
    let answers: Vec<_> = net.received(esme).iter().map(|pdu| pdu.command_status).collect();
    assert_eq!(answers.len(), 38, "each is answered");
    assert_eq!(answers.iter().filter(|status| **status == CommandStatus::ESME_ROK).count(), 1);
}

#[test]
fn what_carriers_say_is_heard_in_portions() {
    let mut net = Net::new(1);
    let id = MessageId::from_u64(1 << 40);
    let news = News::State { id, state: MessageState::ACCEPTED, error: 0 };
    net.witnessed[0].borrow_mut().news.extend(std::iter::repeat_n(news, 300));
    let said = |net: &Net| net.witnessed[0].borrow().said;
    net.input(4, Shard::tick);
    assert_eq!(said(&net), 100, "a turn takes a portion");
    net.input(0, Shard::go_on);
    assert_eq!(said(&net), 200);
    net.turn();
    assert_eq!(said(&net), 300, "no tick is needed for the others");
}

#[test]
fn what_a_batch_has_earned_is_paid_out_in_portions() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    for sequence_number in 0..80 {
        net.submit(esme, 100 + sequence_number, "9992000123");
    }
    assert!(net.write_batch(0));
    let offers = net.witnessed[0].borrow().offers;
    assert!((1..80).contains(&offers), "{offers} of 80 with an answer each");
    net.turn();
    assert_eq!(net.witnessed[0].borrow().offers, 80, "no tick is needed for the others");
    assert_eq!(net.received(esme).len(), 80);
}

#[test]
fn a_cancel_that_is_not_durable_is_not_confirmed() {
    let (mut net, esme) = crowd();
    net.hold_disk(true);
    net.hand_in(esme, &CANCEL_ALL, 2);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 900);
    net.fail_disk();
    let answers: Vec<_> = net.received(esme).iter().map(|pdu| pdu.command_status).collect();
    net.hold_disk(false);
    net.crash_and_restart();
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1_000);
    assert_eq!(answers, [CommandStatus::ESME_RCANCELFAIL]);
}

#[test]
fn a_receipt_that_grew_cold_before_it_was_paid_out_is_delivered() {
    let in_two_days = Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"000002000000000R", ..WAITS });
    let mut net = Net::new(1);
    net.portion = 10;
    net.partition_settings.messages_octets_max = 500_000;
    net.crash_and_restart();
    let other = net.bound(0, "other");
    let sessions = [net.connect(0), net.connect(0)];
    sessions.iter().for_each(|esme| assert_eq!(net.bind(*esme, "demo"), ACCEPTED_BIND));
    net.submit(other, 2, "9992000123");
    assert_eq!(net.received(other).len(), 1);
    net.hold_disk(true);
    let mut sequence_number = 100;
    let mut fill = |net: &mut Net, esme, octets| {
        while net.memory_octets() < octets {
            sequence_number += 1;
            net.send(esme, &in_two_days, sequence_number);
        }
    };
    fill(&mut net, sessions[0], 245_000);
    // The carrier's last word makes a receipt; then memory is short, and everything goes to rest.
    net.pass_millis(2_000);
    assert_eq!(net.deliveries(), (1, 0));
    fill(&mut net, sessions[0], 262_000);
    net.pass_millis(100);
    fill(&mut net, sessions[1], 497_000);
    assert!(net.received(other).is_empty());
    net.hold_disk(false);
    net.pass_millis(1_000);
    assert!(net.deliveries().1 > 0, "something is cold");
    assert_eq!(net.received(other).len(), 1, "the receipt");
}

#[test]
fn what_happened_on_the_way_is_told_before_the_end() {
    let mut net = Net::new(1);
    let esme = net.connect(0);
    assert_eq!(net.bind_as(esme, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    let submit =
        ShortMessage { schedule_delivery_time: b"", registered_delivery: RegisteredDelivery(0x11), ..WAITS };
    net.send(esme, &Pdu::SubmitSm(submit), 2);
    let id = MessageId::parse(net.received(esme)[0].message_id().as_bytes()).expect("an id");
    net.pass_millis(20);
    for state in [MessageState::ACCEPTED, MessageState::DELIVERED] {
        net.witnessed[0].borrow_mut().news.push_back(News::State { id, state, error: 0 });
        net.pass_millis(20);
    }
    for restarts in [false, true] {
        if restarts {
            net.confirms = true;
            net.crash_and_restart();
        } else {
            net.confirms = false;
        }
        let receiver = net.connect(0);
        net.begin_bind(receiver, "demo");
        net.turn();
        let received = net.received(receiver);
        let texts: Vec<String> = received.iter().skip(1).map(|pdu| pdu.text()).collect();
        let [on_the_way, end] = texts.as_slice() else { panic!("{texts:?}") };
        assert!(on_the_way.contains("stat:ENROUTE") && end.contains("stat:DELIVRD"), "{texts:?}");
    }
}

#[test]
fn receipts_cross_cores_to_whoever_receives() {
    let mut net = Net::new(4);
    let transmitter = net.connect(1);
    let receiver = net.connect(3);
    assert_eq!(net.bind_as(transmitter, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    assert_eq!(net.bind_as(receiver, "demo", CommandId::BIND_RECEIVER), ACCEPTED_BIND);
    let count = 300;
    for sequence_number in 0..count {
        net.submit(transmitter, 10 + sequence_number, "12125559999");
    }
    net.turn();
    let ids: Vec<String> = net.received(transmitter).iter().map(|pdu| pdu.message_id()).collect();
    assert_eq!(ids.len(), count as usize);
    let mut seen = Vec::new();
    for _ in 0..400 {
        net.pass_millis(10);
        seen.extend(net.received(receiver).iter().map(|pdu| pdu.receipt_id()));
    }
    assert!(net.received(transmitter).is_empty(), "a transmitter was sent something");
    seen.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn who_binds_gets_at_once_what_the_others_have_no_room_for() {
    let mut net = Net::new(1);
    net.reload(vec![AccountSettings { deliver_window: 1, bind_limit: 0, ..Net::account("demo") }]);
    net.confirms = false;
    let [transmitter, full] = [0, 0].map(|shard| net.connect(shard));
    assert_eq!(net.bind_as(transmitter, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    assert_eq!(net.bind_as(full, "demo", CommandId::BIND_RECEIVER), ACCEPTED_BIND);
    [2, 3].into_iter().for_each(|number| net.submit(transmitter, number, "12125559999"));
    net.pass_millis(1_000);
    assert_eq!(net.received(full).len(), 1, "its window is full");
    let fresh = net.connect(0);
    net.begin_bind(fresh, "demo");
    net.turn();
    let received: Vec<CommandId> = net.received(fresh).iter().map(|pdu| pdu.command_id).collect();
    assert_eq!(received, [CommandId::BIND_TRANSCEIVER_RESP, CommandId::DELIVER_SM]);
}

#[test]
fn a_shard_that_hears_of_an_account_last_loses_nothing_of_it() {
    for last in 0..4 {
        let mut net = Net::new(4);
        let (first, others) = ((last + 1) % 4, (0..4).filter(|shard| *shard != last));
        net.hear_of_late(others);
        let (early, esme) = (net.connect(last), net.connect(first));
        assert_eq!(net.bind(early, "late"), CommandStatus::ESME_RBINDFAIL, "nobody knows that account there");
        net.begin_bind(esme, "late");
        net.hear_of_late([last]);
        let answers: Vec<_> = net.received(esme).iter().map(|pdu| pdu.command_status).collect();
        assert_eq!(answers, [ACCEPTED_BIND], "home or not, {last} was last");
        let submitter = net.connect(last);
        assert_eq!(net.bind_as(submitter, "late", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
        net.submit(submitter, 2, "12125559999");
        net.pass_millis(2_000);
        assert_eq!(net.received(esme).len(), 1, "the receipt");
    }
}

/// Eighty messages and two crashes, the first when `crash_after` ms have passed and the states at rest have carried
/// out `orders`. Whether all orders were.
fn survives(crash_after: u64, orders: usize) -> bool {
    let mut net = Net::new(2);
    net.stop_stores_after(orders);
    let transmitter = net.connect(0);
    assert_eq!(net.bind_as(transmitter, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    let mut ids = Vec::new();
    for sequence_number in 0..80 {
        net.submit(transmitter, 10 + sequence_number, "12125559999");
        if sequence_number % 10 == 9 {
            net.pass_millis(20);
        }
        ids.extend(net.received(transmitter).iter().map(|pdu| pdu.message_id()));
    }
    net.pass_millis(crash_after);
    let stores_stopped = net.are_stores_stopped();
    net.crash_and_restart();
    net.pass_millis(crash_after / 2);
    net.crash_and_restart();
    let receiver = net.connect(1);
    assert_eq!(net.bind_as(receiver, "demo", CommandId::BIND_RECEIVER), ACCEPTED_BIND);
    let mut seen = Vec::new();
    for _ in 0..100 {
        net.pass_millis(10);
        seen.extend(net.received(receiver).iter().map(|pdu| pdu.receipt_id()));
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids, "crash after {crash_after} ms and {orders} orders");
    let asker = net.connect(1);
    assert_eq!(net.bind_as(asker, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    for id in &ids {
        net.query(asker, 3, id);
    }
    net.turn();
    let answers = net.received(asker);
    assert_eq!(answers.len(), ids.len());
    assert!(
        answers.iter().all(|answer| answer.command_status == CommandStatus::ESME_ROK),
        "crash after {crash_after} ms and {orders} orders"
    );
    !stores_stopped
}

#[test]
fn what_nobody_confirmed_is_there_after_a_restart() {
    // Crashes at every stage of the messages' lives, with checkpoints in between.
    for crash_after in (0..620).step_by(20) {
        assert!(survives(crash_after, usize::MAX));
    }
}

#[test]
fn a_crash_between_any_two_orders_of_a_checkpoint_loses_nothing() {
    for crash_after in [40, 300] {
        let stages = (0..).take_while(|orders| !survives(crash_after, *orders)).count();
        assert!(stages > 20, "{stages} orders are no whole checkpoint");
    }
}

#[test]
fn cancel_works_until_the_carrier_has_it() {
    let mut net = Net::new(2);
    let esme = net.bound(0, "demo");
    net.submit(esme, 2, "9999000555");
    net.turn();
    let id = net.received(esme).remove(0).message_id();
    net.pass_millis(100);
    net.cancel(esme, 3, &id);
    net.turn();
    let received = net.received(esme);
    assert_eq!(received[0].command_status, CommandStatus::ESME_ROK, "{received:?}");
    net.pass_millis(100);
    let text = received.get(1).cloned().or_else(|| net.received(esme).pop()).expect("a receipt").text();
    assert!(text.contains("stat:DELETED"), "{text}");
    net.cancel(esme, 4, &id);
    net.turn();
    assert_eq!(net.received(esme)[0].command_status, CommandStatus::ESME_RCANCELFAIL);

    net.submit(esme, 5, "12125559999");
    net.turn();
    let id = net.received(esme).remove(0).message_id();
    net.cancel(esme, 6, &id);
    net.turn();
    assert_eq!(net.received(esme)[0].command_status, CommandStatus::ESME_RCANCELFAIL);
}

#[test]
fn a_message_that_left_memory_is_too_late_to_cancel_but_not_unknown() {
    let mut net = Net::new(2);
    let (mine, theirs) = (net.connect(0), net.connect(1));
    assert_eq!(net.bind(mine, "demo"), ACCEPTED_BIND);
    assert_eq!(net.bind(theirs, "other"), ACCEPTED_BIND);
    net.submit(mine, 2, "12125559999");
    net.turn();
    let id = net.received(mine).remove(0).message_id();
    net.pass_millis(1_000);
    net.put_to_rest();
    assert_eq!(net.received(mine).len(), 1, "the receipt");
    net.cancel(mine, 3, &id);
    net.query(mine, 4, &id);
    net.cancel(theirs, 3, &id);
    net.turn();
    let statuses = |received: Vec<common::ReceivedPdu>| -> Vec<CommandStatus> {
        received.iter().map(|pdu| pdu.command_status).collect()
    };
    assert_eq!(statuses(net.received(mine)), [CommandStatus::ESME_RCANCELFAIL, CommandStatus::ESME_ROK]);
    assert_eq!(statuses(net.received(theirs)), [CommandStatus::ESME_RINVMSGID]);
}

#[test]
fn another_accounts_message_does_not_exist() {
    let mut net = Net::new(2);
    let (mine, theirs) = (net.connect(0), net.connect(1));
    assert_eq!(net.bind(mine, "demo"), ACCEPTED_BIND);
    assert_eq!(net.bind(theirs, "other"), ACCEPTED_BIND);
    net.submit(mine, 2, "9999000555");
    net.turn();
    let id = net.received(mine).remove(0).message_id();
    net.query(theirs, 3, &id);
    net.cancel(theirs, 4, &id);
    net.turn();
    let statuses: Vec<_> = net.received(theirs).iter().map(|pdu| pdu.command_status).collect();
    assert_eq!(statuses, [CommandStatus::ESME_RINVMSGID; 2]);
    net.query(mine, 5, &id);
    net.turn();
    assert_eq!(net.received(mine)[0].command_status, CommandStatus::ESME_ROK);
}

#[test]
fn a_failed_disk_answers_with_an_error_and_never_with_success() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    net.hold_disk(true);
    net.submit(esme, 2, "12125559999");
    net.fail_disk();
    let received = net.received(esme);
    assert_eq!(received[0].command_status, CommandStatus::ESME_RSYSERR, "{received:?}");
    net.submit(esme, 3, "12125559999");
    net.turn();
    assert_eq!(net.received(esme)[0].command_status, CommandStatus::ESME_RSYSERR);
}
