//! Sequences that broke a promise once: a clock that is set, short ids that come round, a partition that has failed, peers
//! that close while something is owed to them.
#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use common::{ACCEPTED_BIND, Esme, MESSAGE, NUMBER, Net, SUBSCRIBER};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, CommandId, CommandStatus, InterfaceVersion, Pdu, RegisteredDelivery, ShortMessage,
};
use smppd::shard::Shard;

const HOUR_MILLIS: i64 = 3_600_000;

/// A message that waits for a date ten minutes ahead, without a receipt.
const SCHEDULED: ShortMessage<'static, Address<'static>> = ShortMessage {
    schedule_delivery_time: b"000000001000000R",
    registered_delivery: RegisteredDelivery(0),
    ..MESSAGE
};

/// So many messages of `demo` that are due at one time.
fn crowd(net: &mut Net, version: InterfaceVersion, count: u32) -> (Esme, Vec<String>) {
    let esme = net.connect(0);
    assert_eq!(net.bind_version(esme, "demo", version), ACCEPTED_BIND);
    (100..100 + count).for_each(|number| net.send(esme, &Pdu::SubmitSm(SCHEDULED), number));
    let ids = net.received(esme).iter().map(|pdu| pdu.message_id()).collect();
    (esme, ids)
}

// The clock.

#[test]
fn a_crowd_that_is_due_is_sent_though_the_clock_is_put_back() {
    for back in [0, -50, -HOUR_MILLIS] {
        let mut net = Net::new(1);
        let (esme, ids) = crowd(&mut net, InterfaceVersion::V5_0, 1_000);
        // To the very moment, and no further: some have had their turn, the others wait for it.
        net.pass_seconds(599, 1);
        while net.waiting(NUMBER, SUBSCRIBER) == 1_000 {
            net.input(4, Shard::tick);
        }
        assert!(net.waiting(NUMBER, SUBSCRIBER) > 0);
        net.set_wall(back);
        net.input(0, Shard::go_on);
        net.turn();
        // A date is a date: what had no turn before waits for it again, and no longer.
        let until_due = u64::try_from(-back).expect("back") / 1_000;
        net.pass_seconds(until_due + 1, 1);
        assert_eq!((net.waiting(NUMBER, SUBSCRIBER), net.offers()), (0, 1_000), "{back} ms");
        net.pass_seconds(60, 1);
        for (number, id) in (2_000..).zip(ids.iter().step_by(50)) {
            net.query(esme, number, id);
        }
        let answers = net.received(esme).into_iter().filter(|pdu| pdu.command_id == CommandId::QUERY_SM_RESP);
        let states: Vec<_> = answers.map(|pdu| pdu.queried().0).collect();
        assert_eq!(states, [MessageState::DELIVERED; 20], "{back} ms");
    }
}

#[test]
fn receipts_that_are_due_again_are_delivered_though_the_clock_is_put_back() {
    for back in [0, -50, -HOUR_MILLIS] {
        let mut net = Net::new(1);
        net.portion = 10;
        net.crash_and_restart();
        let [receiver, transmitter] = [CommandId::BIND_RECEIVER, CommandId::BIND_TRANSMITTER].map(|bind| {
            let esme = net.connect(0);
            assert_eq!(net.bind_as(esme, "demo", bind), ACCEPTED_BIND);
            esme
        });
        net.deliver_sm_status = CommandStatus::ESME_RX_T_APPN;
        (100..160).for_each(|number| net.submit(transmitter, number, "9992000123"));
        // The carrier's reports become durable together, so that all receipts are refused at one time.
        net.hold_disk(true);
        net.pass_millis(900);
        net.hold_disk(false);
        net.turn();
        assert_eq!(net.received(receiver).len(), 60);
        net.deliver_sm_status = CommandStatus::ESME_ROK;
        // A portion is offered again, and the clock is put back before the next is.
        while net.received(receiver).is_empty() {
            net.input(4, Shard::tick);
            net.carry_once();
        }
        net.set_wall(back);
        net.input(0, Shard::go_on);
        net.pass_seconds(10, 1);
        assert_eq!(net.unfinished(), 0, "{back} ms");
    }
}

#[test]
fn a_pause_between_attempts_is_as_long_as_it_was_though_the_clock_is_put_back() {
    let mut net = Net::new(1);
    let esme = net.connect(0);
    assert_eq!(net.bind(esme, "demo"), ACCEPTED_BIND);
    // Nobody takes it: it is offered again after 5, 10, 20 seconds.
    net.submit(esme, 2, "9999000123");
    assert_eq!(net.offers(), 1);
    net.set_wall(-HOUR_MILLIS);
    net.pass_seconds(6, 1);
    assert_eq!(net.offers(), 2);
    net.set_wall(2 * HOUR_MILLIS);
    net.pass_seconds(7, 1);
    assert_eq!(net.offers(), 2, "nor is it shorter");
    net.pass_seconds(4, 1);
    assert_eq!(net.offers(), 3);
    // Nor does a restart make it longer than any pause may be, which is five minutes.
    net.set_wall(-24 * HOUR_MILLIS);
    net.crash_and_restart();
    assert_eq!(net.offers(), 0);
    net.pass_seconds(301, 1);
    assert_eq!(net.offers(), 1);
}

#[test]
fn a_message_without_a_carrier_keeps_to_its_date_when_the_clock_is_put_back() {
    let mut net = Net::new(1);
    let (_, _) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    net.reload_routes(&[("9", 0)]);
    net.pass_seconds(601, 1);
    assert_eq!(net.offers(), 0, "there is no route");
    net.set_wall(-HOUR_MILLIS);
    net.reload_routes(&[("", 0)]);
    net.pass_seconds(3_590, 10);
    assert_eq!(net.offers(), 0, "its date has not come again");
    net.pass_seconds(20, 1);
    assert_eq!(net.offers(), 1);
}

#[test]
fn a_disk_that_had_no_room_once_is_asked_again_though_the_clock_is_put_back() {
    for back in [0, -HOUR_MILLIS] {
        let mut net = Net::new(1);
        let esme = net.connect(0);
        assert_eq!(net.bind(esme, "demo"), ACCEPTED_BIND);
        net.pass_millis(100);
        net.has_file_room = false;
        net.submit(esme, 2, "9992000123");
        net.has_file_room = true;
        net.set_wall(back);
        net.submit(esme, 3, "9992000123");
        net.pass_seconds(2, 1);
        net.submit(esme, 4, "9992000123");
        let answers =
            net.received(esme).into_iter().filter(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP);
        let statuses: Vec<_> = answers.map(|pdu| pdu.command_status).collect();
        let expected = [CommandStatus::ESME_ROK, CommandStatus::ESME_RMSGQFUL, CommandStatus::ESME_ROK];
        assert_eq!(statuses, expected, "{back} ms");
    }
}
