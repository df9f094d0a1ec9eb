//! Every counter of a shard: what moves it, by how much, and that nothing else is moved with it.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::collections::BTreeMap;

use common::{
    ACCEPTED_BIND, BIND, CANCEL, Destinations, NEVER_TAKEN, NUMBER, Net, QUERY, QUIET, UNTAKEN, multi,
    payload,
};
use smppd::metrics::Counters;
use smppd::pdu::{
    Address, CancelSm, CommandId, CommandStatus, DataCoding, DataSm, EsmClass, Pdu, QuerySm,
    RegisteredDelivery, ShortMessage, Tlvs, put_header_only,
};

const GAUGES: [&str; 8] = [
    "smppd_sessions",
    "smppd_messages_unfinished",
    "smppd_deliveries_pending",
    "smppd_messages_memory_octets",
    "smppd_journal_segments",
    "smppd_rest_blocks",
    "smppd_rest_blocks_cold",
    "smppd_partitions_failed",
];

/// What has moved between two looks, but for gauges.
fn moved(before: &Counters, after: &Counters) -> BTreeMap<&'static str, u64> {
    let both = before.each().zip(after.each());
    both.filter(|((name, _, old), (_, _, new))| old != new && !GAUGES.contains(name))
        .map(|((name, _, old), (_, _, new))| (name, new - old))
        .collect()
}

/// Does something; exactly these counters of the first shard must have moved by that.
fn moves<R>(net: &mut Net, expected: &[(&'static str, u64)], what: impl FnOnce(&mut Net) -> R) -> R {
    let before = net.counters(0);
    let result = what(net);
    assert_eq!(moved(&before, &net.counters(0)), expected.iter().copied().collect());
    result
}

#[test]
fn every_connection_and_every_end_of_one_is_counted() {
    let mut net = Net::new(1);
    let esme = moves(&mut net, &[("smppd_connections_total", 1)], |net| net.connect(0));
    let other = net.connect(0);
    assert_eq!(net.counters(0).sessions, 2);
    moves(&mut net, &[("smppd_session_bound_total", 1)], |net| net.bind(esme, "demo"));
    moves(&mut net, &[("smppd_session_closed_total", 1)], |net| net.disconnect(esme));
    moves(&mut net, &[("smppd_session_closed_total", 1)], |net| net.disconnect(other));
    moves(&mut net, &[], |net| net.disconnect(other));
    assert_eq!(net.counters(0).sessions, 0);
}

#[test]
fn every_refused_bind_is_counted_whatever_the_reason() {
    const REFUSED: &[(&str, u64)] = &[("smppd_session_bind_refused_total", 1)];
    let mut net = Net::new(1);
    let esmes = [net.connect(0), net.connect(0), net.connect(0)];
    // A name that nobody has, and a password that nobody has time to look at.
    assert_eq!(moves(&mut net, REFUSED, |net| net.bind(esmes[0], "nobody")), CommandStatus::ESME_RBINDFAIL);
    let unverified = moves(&mut net, REFUSED, |net| net.bind_unverified(esmes[0], "demo"));
    assert_eq!(unverified, CommandStatus::ESME_RSYSERR);
    // The limit of `demo` is two.
    for esme in &esmes[..2] {
        assert_eq!(net.bind(*esme, "demo"), ACCEPTED_BIND);
    }
    assert_eq!(moves(&mut net, REFUSED, |net| net.bind(esmes[2], "demo")), CommandStatus::ESME_RBINDFAIL);
}

#[test]
fn a_bind_whose_verdict_comes_when_the_server_stops_is_refused() {
    let mut net = Net::new(1);
    let esme = net.connect(0);
    net.hand_in(esme, &Pdu::BindTransceiver(BIND), 1);
    net.input(0, |shard, now| shard.drain(now));
    moves(&mut net, &[("smppd_session_bind_refused_total", 1), ("smppd_session_closed_total", 1)], Net::turn);
    assert!(net.is_closed(esme));
}

#[test]
fn a_session_that_comes_from_another_core_is_counted_there() {
    let mut net = Net::new(1);
    let esme = net.connect(0);
    let connection = net.connection(esme);
    net.hand_in(esme, &Pdu::BindTransceiver(BIND), 1);
    moves(&mut net, &[("smppd_session_moved_total", 1), ("smppd_session_bound_total", 1)], |net| {
        net.input(0, |shard, now| {
            shard.outputs().verify.clear();
            let moving = shard.depart(connection).expect("it waits for its answer");
            shard.arrive(now, moving);
        });
        net.turn();
    });
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
}

#[test]
fn every_submission_is_counted_by_its_messages_or_as_refused() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let accepted = |count| vec![("smppd_message_accepted_total", count)];
    const REFUSED: &[(&str, u64)] = &[("smppd_message_refused_total", 1)];
    let quiet = Pdu::SubmitSm(UNTAKEN);
    assert_eq!(moves(&mut net, &accepted(1), |net| net.ask(esme, &quiet)), CommandStatus::ESME_ROK);

    let text = payload(b"data");
    let data = DataSm {
        service_type: b"",
        source: NUMBER,
        destination: NEVER_TAKEN,
        esm_class: EsmClass::DEFAULT,
        registered_delivery: RegisteredDelivery(0),
        data_coding: DataCoding::DEFAULT,
        tlvs: text.as_tlvs(),
    };
    let status = moves(&mut net, &accepted(1), |net| net.ask(esme, &Pdu::DataSm(data)));
    assert_eq!(status, CommandStatus::ESME_ROK);
    let without = Pdu::DataSm(DataSm { tlvs: Tlvs::EMPTY, ..data });
    let status = moves(&mut net, REFUSED, |net| net.ask(esme, &without));
    assert_eq!(status, CommandStatus::ESME_RMISSINGTLV);

    // Three destinations, of which one is none.
    let to =
        |digits: &[&'static [u8]]| Destinations::of(digits.iter().map(|digits| Address { digits, ..NUMBER }));
    let three = to(&[b"9999000001", b"nobody", b"9999000002"]);
    let status = moves(&mut net, &accepted(2), |net| net.ask(esme, &multi(QUIET, &three)));
    assert_eq!(status, CommandStatus::ESME_ROK);
    let nobody = to(&[b"nobody"]);
    let status = moves(&mut net, REFUSED, |net| net.ask(esme, &multi(QUIET, &nobody)));
    assert_eq!(status, CommandStatus::ESME_RINVDSTADR);

    let wrong = Pdu::SubmitSm(ShortMessage { destination: Address { digits: b"x", ..NUMBER }, ..QUIET });
    assert_eq!(moves(&mut net, REFUSED, |net| net.ask(esme, &wrong)), CommandStatus::ESME_RINVDSTADR);

    // What replaces is no new message, what finds nothing to replace is one.
    let replacing = |digits| {
        let destination = Address { digits, ..NUMBER };
        Pdu::SubmitSm(ShortMessage { replace_if_present_flag: 1, destination, ..QUIET })
    };
    assert_eq!(moves(&mut net, &[], |net| net.ask(esme, &replacing(b"9999000555"))), CommandStatus::ESME_ROK);
    let status = moves(&mut net, &accepted(1), |net| net.ask(esme, &replacing(b"9999000777")));
    assert_eq!(status, CommandStatus::ESME_ROK);
}

#[test]
fn a_throttled_submission_is_counted_as_that_and_as_refused() {
    const THROTTLED: &[(&str, u64)] =
        &[("smppd_message_refused_total", 1), ("smppd_message_throttled_total", 1)];
    let mut net = Net::new(1);
    let esme = net.bound(0, "slow");
    let quiet = Pdu::SubmitSm(UNTAKEN);
    assert_eq!(net.ask(esme, &quiet), CommandStatus::ESME_ROK);
    for _ in 0..2 {
        assert_eq!(moves(&mut net, THROTTLED, |net| net.ask(esme, &quiet)), CommandStatus::ESME_RTHROTTLED);
    }
    let one = Destinations::of([NEVER_TAKEN]);
    let multi = multi(QUIET, &one);
    assert_eq!(moves(&mut net, THROTTLED, |net| net.ask(esme, &multi)), CommandStatus::ESME_RTHROTTLED);
}

#[test]
fn every_end_of_a_message_is_counted_once() {
    let finals = |count| vec![("smppd_message_final_total", count)];
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    // Delivered, in its time.
    let id = net.accept(esme, QUIET);
    moves(&mut net, &finals(1), |net| net.pass_millis(2_000));
    let query = QuerySm { message_id: id.as_bytes(), ..QUERY };
    moves(&mut net, &[], |net| net.ask(esme, &Pdu::QuerySm(query)));
    // Cancelled.
    let waits = ShortMessage { schedule_delivery_time: b"000000010000000R", ..QUIET };
    let id = net.accept(esme, waits);
    let cancel = Pdu::CancelSm(CancelSm { message_id: id.as_bytes(), ..CANCEL });
    moves(&mut net, &finals(1), |net| net.ask(esme, &cancel));
    moves(&mut net, &[], |net| net.ask(esme, &cancel));
    // Expired.
    net.accept(esme, ShortMessage { validity_period: b"000000000002000R", ..UNTAKEN });
    moves(&mut net, &finals(1), |net| net.pass_millis(3_000));
    // A datagram that is not taken at once.
    let datagram = Pdu::SubmitSm(ShortMessage { esm_class: EsmClass::DATAGRAM, ..UNTAKEN });
    let expected = [("smppd_message_accepted_total", 1), ("smppd_message_final_total", 1)];
    moves(&mut net, &expected, |net| net.ask(esme, &datagram));
}

#[test]
fn every_delivery_is_counted_with_what_came_of_it() {
    const SENT: &[(&str, u64)] = &[("smppd_message_final_total", 1), ("smppd_deliver_sm_sent_total", 1)];
    const AGAIN: &[(&str, u64)] = &[("smppd_deliver_sm_sent_total", 1)];
    const FAILED: &[(&str, u64)] = &[("smppd_deliver_sm_failed_total", 1)];
    let mut net = Net::new(1);
    net.confirms = false;
    let esme = net.bound(0, "demo");
    let deliver = |net: &mut Net| {
        net.submit(esme, 2, "12125559999");
        net.received(esme);
        moves(net, SENT, |net| net.pass_millis(2_000));
        net.received(esme).remove(0)
    };
    let receipt = deliver(&mut net);
    moves(&mut net, &[("smppd_deliver_sm_confirmed_total", 1)], |net| {
        net.answer(esme, &receipt, CommandStatus::ESME_ROK);
    });
    // Refused for now: it comes again, and may be refused for good then.
    let receipt = deliver(&mut net);
    moves(&mut net, FAILED, |net| net.answer(esme, &receipt, CommandStatus::ESME_RMSGQFUL));
    moves(&mut net, AGAIN, |net| net.pass_millis(8_000));
    let receipt = net.received(esme).remove(0);
    let given_up = [("smppd_deliver_sm_failed_total", 1), ("smppd_deliver_sm_given_up_total", 1)];
    moves(&mut net, &given_up, |net| net.answer(esme, &receipt, CommandStatus::ESME_RX_P_APPN));
    let receipt = deliver(&mut net);
    moves(&mut net, &given_up, |net| net.answer(esme, &receipt, CommandStatus::ESME_RX_R_APPN));
    // Not answered in time, which is ten seconds.
    deliver(&mut net);
    moves(&mut net, FAILED, |net| net.pass_millis(10_000));
    moves(&mut net, AGAIN, |net| net.pass_millis(6_000));
    net.received(esme);
    // The session goes before it answers: nothing has failed.
    moves(&mut net, &[("smppd_session_closed_total", 1)], |net| net.disconnect(esme));
    // After three days nobody waits any more.
    moves(&mut net, &[("smppd_deliver_sm_given_up_total", 1)], |net| {
        net.input(3 * 24 * 3_600 * 1_000, |shard, now| shard.tick(now));
        // The wheel moves it inwards first.
        net.pass_millis(100);
    });
    assert_eq!(net.counters(0).parcels, 0);
}

#[test]
fn a_reply_for_nobody_is_counted() {
    let mut net = Net::new(1);
    let mut reply = |number, expected| {
        moves(&mut net, expected, |net| {
            net.reply_to(number);
            net.pass_millis(100);
        });
    };
    reply(b"15550000000", &[("smppd_reply_unroutable_total", 1)][..]);
    reply(NUMBER.digits, &[]);
    assert_eq!(net.counters(0).parcels, 1, "the second has an owner");
}

#[test]
fn what_answers_nothing_is_counted_and_nothing_else_comes_of_it() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let mut octets = Vec::new();
    for command_id in [
        CommandId::DELIVER_SM_RESP,
        CommandId::ENQUIRE_LINK_RESP,
        CommandId::GENERIC_NACK,
        CommandId(0x8000_0FFF),
    ] {
        put_header_only(command_id, CommandStatus::ESME_ROK, 77, &mut octets);
    }
    moves(&mut net, &[("smppd_pdu_ignored_total", 4)], |net| net.send_octets(esme, &octets));
    assert!(net.received(esme).is_empty(), "a response is never answered");
}

#[test]
fn gauges_tell_what_there_is() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let before = net.counters(0);
    assert_eq!((before.sessions, before.unfinished, before.parcels, before.failed), (1, 0, 0, 0));
    assert_eq!((before.rest_blocks, before.cold_blocks, before.memory_octets), (0, 0, 0));
    net.accept(esme, UNTAKEN);
    let one = net.counters(0);
    assert_eq!((one.unfinished, one.parcels, one.segments), (1, 0, 1));
    assert_eq!(one.memory_octets, net.memory_octets() as u64);
    assert!(one.memory_octets > 0);
    net.confirms = false;
    net.submit(esme, 2, "12125559999");
    net.pass_millis(2_000);
    assert_eq!((net.counters(0).unfinished, net.counters(0).parcels), (1, 1));
    net.hold_disk(true);
    net.submit(esme, 3, "12125559999");
    net.fail_disk();
    assert_eq!(net.counters(0).failed, 1);
}

#[test]
fn gauges_tell_what_is_at_rest_and_what_of_it_has_left_memory() {
    let mut net = Net::new(1);
    let settings = &mut net.partition_settings;
    (settings.messages_octets_max, settings.checkpoint_segments) = (100_000, 1);
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    let tomorrow = ShortMessage { schedule_delivery_time: b"000001000000000R", ..UNTAKEN };
    for _ in 0..1_000 {
        net.accept(esme, tomorrow);
        net.pass_millis(10);
    }
    let Counters { rest_blocks, cold_blocks, .. } = net.counters(0);
    assert!(cold_blocks > 0 && rest_blocks >= cold_blocks, "{cold_blocks} of {rest_blocks}");
    assert_eq!(cold_blocks, net.deliveries().1 as u64);
}

#[test]
fn every_commit_is_counted_with_its_octets_and_its_time() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let before = net.counters(0);
    let batches = net.batches(0);
    net.accept(esme, UNTAKEN);
    net.pass_millis(100);
    let written = (net.batches(0) - batches) as u64;
    assert!(written > 0);
    let after = net.counters(0);
    let (commits, micros) = after.commit_micros.total();
    let (commits_before, micros_before) = before.commit_micros.total();
    // Each takes a hundred microseconds here.
    assert_eq!((commits - commits_before, micros - micros_before), (written, 100 * written));
    let (commits, octets) = after.commit_octets.total();
    let (commits_before, octets_before) = before.commit_octets.total();
    assert_eq!(commits - commits_before, written);
    assert_eq!(octets - octets_before, 4_096 * written, "a block each");
}

#[test]
fn the_sum_of_two_shards_has_every_counter_of_both() {
    let mut net = Net::new(2);
    let esmes = [net.connect(0), net.connect(1)];
    for esme in esmes {
        assert_eq!(net.bind(esme, "demo"), ACCEPTED_BIND);
        net.submit(esme, 2, "12125559999");
    }
    net.pass_millis(2_000);
    let [one, other] = [net.counters(0), net.counters(1)];
    let sum = one.plus(&other);
    for (((name, _, one), (_, _, other)), (_, _, both)) in one.each().zip(other.each()).zip(sum.each()) {
        assert_eq!(one + other, both, "{name}");
    }
    assert_eq!((sum.accepted, sum.finals, sum.deliver_confirmed, sum.connections), (2, 2, 2, 2));
    let names: Vec<&str> = sum.each().map(|(name, ..)| name).collect();
    assert!(GAUGES.iter().all(|gauge| names.contains(gauge)));
    assert_eq!(names.len(), 23, "a counter that is new wants a test here");
}
