//! Sequences that broke a promise once: a clock that is set, short ids that come round, a partition that has failed, peers
//! that close while something is owed to them.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;

use common::{
    ACCEPTED_BIND, BIND, CANCEL, Destinations, Esme, MESSAGE, NUMBER, Net, QUERY, QUIET, REPLACE, SUBSCRIBER,
    multi, payload,
};
use smppd::account::AccountSettings;
use smppd::carrier::News;
use smppd::message::{MessageId, PartitionNumber, State};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, CancelSm, CommandId, CommandStatus, InterfaceVersion, Pdu, QuerySm, ReplaceSm, ShortMessage,
};
use smppd::shard::Shard;
use smppd::store::{BlockError, BlockKey, FinalMessage, cut, find};
use smppd::time::Timestamp;

const HOUR_MILLIS: i64 = 3_600_000;

/// A message that waits for a date ten minutes ahead, without a receipt.
const SCHEDULED: ShortMessage<'static, Address<'static>> =
    ShortMessage { schedule_delivery_time: b"000000001000000R", ..QUIET };

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
    let esme = net.bound(0, "demo");
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
fn what_is_to_be_sent_at_once_is_though_the_clock_is_put_back() {
    let mut net = Net::new(1);
    let (esme, _) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    net.send(esme, &Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"", ..REPLACING }), 2);
    assert_eq!(net.offers(), 0, "it is found with what is due");
    net.set_wall(-HOUR_MILLIS);
    net.pass_millis(1_000);
    assert_eq!(net.offers(), 1);
}

#[test]
fn a_disk_that_had_no_room_once_is_asked_again_though_the_clock_is_put_back() {
    for back in [0, -HOUR_MILLIS] {
        let mut net = Net::new(1);
        let esme = net.bound(0, "demo");
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

// Short ids, and operations on all messages between two addresses.

const VERSIONS: [InterfaceVersion; 3] =
    [InterfaceVersion::V3_3, InterfaceVersion::V3_4, InterfaceVersion::V5_0];
const CANCEL_ALL: Pdu<'static> = Pdu::CancelSm(CancelSm { destination: SUBSCRIBER, ..CANCEL });
const REPLACING: ShortMessage<'static, Address<'static>> =
    ShortMessage { replace_if_present_flag: 1, short_message: b"new", ..SCHEDULED };

fn short_id(sequence: u64) -> MessageId {
    MessageId::from_u64(0x8000_0000 | sequence << 8)
}

#[test]
fn a_cancel_by_addresses_finds_the_messages_of_every_version() {
    for version in VERSIONS {
        for others_before in [false, true] {
            let mut net = Net::new(1);
            if others_before {
                // A long id was given out in this partition, and a short one.
                for version in [InterfaceVersion::V5_0, InterfaceVersion::V3_3] {
                    let other = net.connect(0);
                    assert_eq!(net.bind_version(other, "other", version), ACCEPTED_BIND);
                    net.submit(other, 2, "9992000123");
                }
            }
            let (esme, _) = crowd(&mut net, version, 1_000);
            net.send(esme, &CANCEL_ALL, 2);
            assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK], "{version:?}");
            assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 0, "{version:?}");
        }
    }
}

#[test]
fn what_is_submitted_behind_a_cancel_by_addresses_is_not_cancelled() {
    for version in VERSIONS {
        for same_session in [false, true] {
            let mut net = Net::new(1);
            let (esme, _) = crowd(&mut net, version, 1_000);
            let sender = if same_session { esme } else { net.connect(0) };
            if !same_session {
                assert_eq!(net.bind_version(sender, "demo", version), ACCEPTED_BIND);
            }
            // A turn cancels a portion of the crowd.
            net.hand_in(esme, &CANCEL_ALL, 2);
            assert!(net.waiting(NUMBER, SUBSCRIBER) > 0);
            net.send(sender, &Pdu::SubmitSm(SCHEDULED), 3);
            let mut answers = net.received(esme);
            if !same_session {
                answers.extend(net.received(sender));
            }
            answers.sort_by_key(|pdu| pdu.command_id.0);
            let told: Vec<_> = answers.iter().map(|pdu| (pdu.command_id, pdu.command_status)).collect();
            let ok = CommandStatus::ESME_ROK;
            assert_eq!(
                told,
                [(CommandId::SUBMIT_SM_RESP, ok), (CommandId::CANCEL_SM_RESP, ok)],
                "{version:?}"
            );
            assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1, "{version:?}, {same_session}");
        }
    }
}

#[test]
fn what_comes_in_the_same_octets_behind_a_cancel_by_addresses_is_not_cancelled() {
    for version in VERSIONS {
        let mut net = Net::new(2);
        let (esme, ids) = crowd(&mut net, version, 3);
        let mut octets = Vec::new();
        for (sequence_number, pdu) in [(2, &CANCEL_ALL), (3, &Pdu::SubmitSm(SCHEDULED))] {
            pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("it fits");
        }
        net.send_octets(esme, &octets);
        let answers = net.received(esme);
        assert!(answers.iter().all(|pdu| pdu.command_status == CommandStatus::ESME_ROK), "{version:?}");
        assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1, "{version:?}");
        assert!(ids.iter().all(|id| net.text_if_waiting(id).is_none()), "{version:?}");
    }
}

#[test]
fn the_youngest_of_every_version_is_replaced_and_no_second_message_made() {
    for version in VERSIONS {
        let mut net = Net::new(2);
        // The clock goes back between the two: the younger one stays so.
        let (esme, ids) = crowd(&mut net, version, 1);
        net.set_wall(-50);
        net.send(esme, &Pdu::SubmitSm(SCHEDULED), 2);
        let younger = net.received(esme)[0].message_id();
        net.send(esme, &Pdu::SubmitSm(REPLACING), 3);
        assert_eq!(net.received(esme)[0].message_id(), younger, "{version:?}");
        assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 2, "{version:?}");
        assert_eq!((net.waiting_text(&ids[0]), net.waiting_text(&younger)), ("hello".into(), "new".into()));
    }
    // One of each kind.
    for versions in [[VERSIONS[0], VERSIONS[1]], [VERSIONS[1], VERSIONS[0]]] {
        let mut net = Net::new(1);
        let sent = versions.map(|version| {
            net.pass_millis(100);
            let (esme, ids) = crowd(&mut net, version, 1);
            (esme, ids[0].clone())
        });
        let [_, (esme, younger)] = sent;
        net.send(esme, &Pdu::SubmitSm(REPLACING), 3);
        assert_eq!(net.received(esme)[0].message_id(), younger, "{versions:?}");
    }
}

#[test]
fn two_replacements_that_arrive_together_are_one_behind_the_other() {
    for version in VERSIONS {
        for together in [false, true] {
            let mut net = Net::new(2);
            let esme = net.connect(0);
            assert_eq!(net.bind_version(esme, "demo", version), ACCEPTED_BIND);
            let mut octets = Vec::new();
            for (number, text) in [(2, &b"first"[..]), (3, b"second")] {
                let submit = Pdu::SubmitSm(ShortMessage { short_message: text, ..REPLACING });
                submit.encode(CommandStatus::ESME_ROK, number, &mut octets).expect("it fits");
                if !together {
                    net.send_octets(esme, &std::mem::take(&mut octets));
                }
            }
            net.send_octets(esme, &octets);
            let ids: Vec<String> = net.received(esme).iter().map(|pdu| pdu.message_id()).collect();
            assert_eq!((ids.len(), &ids[0]), (2, &ids[1]), "{version:?}");
            assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 1, "{version:?}");
            assert_eq!(net.waiting_text(&ids[0]), "second", "{version:?}");
        }
    }
}

#[test]
fn what_comes_behind_a_replacement_happens_behind_it() {
    let plain = Pdu::SubmitSm(ShortMessage { short_message: b"plain", ..SCHEDULED });
    let replacing = Pdu::SubmitSm(REPLACING);
    // What is there before, what arrives together, and the texts that wait in the end.
    let pairs: [(bool, [&Pdu<'_>; 2], &[&str]); 4] = [
        (false, [&replacing, &plain], &["new", "plain"]),
        (true, [&replacing, &plain], &["new", "plain"]),
        (true, [&replacing, &CANCEL_ALL], &[]),
        (true, [&CANCEL_ALL, &replacing], &["new"]),
    ];
    for (number, (is_there, pair, expected)) in pairs.into_iter().enumerate() {
        let mut net = Net::new(2);
        let (esme, mut ids) = crowd(&mut net, InterfaceVersion::V5_0, u32::from(is_there));
        let mut octets = Vec::new();
        for (sequence_number, pdu) in (2..).zip(pair) {
            pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("it fits");
        }
        net.send_octets(esme, &octets);
        let answers = net.received(esme);
        assert!(answers.iter().all(|pdu| pdu.command_status == CommandStatus::ESME_ROK), "{number}");
        let submitted = answers.iter().filter(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP);
        ids.extend(submitted.map(|pdu| pdu.message_id()));
        ids.sort();
        ids.dedup();
        assert_eq!(net.waiting(NUMBER, SUBSCRIBER), expected.len(), "{number}");
        let mut texts: Vec<String> = ids.iter().filter_map(|id| net.text_if_waiting(id)).collect();
        texts.sort();
        assert_eq!(texts, expected, "{number}");
    }
    // A cancel by message_id, too: it may be the one that is replaced.
    let mut net = Net::new(2);
    let (esme, ids) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    let cancel = CancelSm { message_id: ids[0].as_bytes(), ..CANCEL };
    let mut octets = Vec::new();
    for (sequence_number, pdu) in [(2, &replacing), (3, &Pdu::CancelSm(cancel))] {
        pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("it fits");
    }
    net.send_octets(esme, &octets);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK; 2]);
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 0);
}

#[test]
fn a_message_that_is_gone_when_it_is_to_be_replaced_leaves_the_turn_to_the_next() {
    let mut net = Net::new(2);
    let (esme, ids) = crowd(&mut net, InterfaceVersion::V5_0, 2);
    let asker = net.bound(1, "demo");
    net.hold_mesh((1, 0), true);
    net.send(asker, &Pdu::SubmitSm(REPLACING), 2);
    // The younger one is found, and cancelled before it is replaced.
    net.release_mesh_once((1, 0));
    net.cancel(esme, 2, &ids[1]);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
    net.hold_mesh((1, 0), false);
    net.turn();
    assert_eq!(net.received(asker).remove(0).message_id(), ids[0]);
    assert_eq!((net.waiting(NUMBER, SUBSCRIBER), net.waiting_text(&ids[0])), (1, "new".into()));
}

#[test]
fn a_session_that_is_not_read_from_because_of_its_order_is_not_silent() {
    let mut net = Net::new(2);
    let (esme, _) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    let ways = [(0, 1), (1, 0)];
    ways.iter().for_each(|way| net.hold_mesh(*way, true));
    // The second waits for the first, which waits for the other core.
    net.send(esme, &Pdu::SubmitSm(REPLACING), 2);
    net.send(esme, &Pdu::SubmitSm(REPLACING), 3);
    net.pass_seconds(600, 1);
    assert!(!net.is_closed(esme), "nobody could have heard it");
    ways.iter().for_each(|way| net.hold_mesh(*way, false));
    net.turn();
    let answers = net.received(esme).into_iter().filter(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP);
    assert_eq!(answers.map(|pdu| pdu.command_status).collect::<Vec<_>>(), [CommandStatus::ESME_ROK; 2]);
}

#[test]
fn a_replacement_of_one_of_many_has_its_own_id_in_response_receipt_and_query() {
    for replaced in [0, 1] {
        let mut net = Net::new(2);
        let esme = net.bound(0, "demo");
        let numbers = [&b"99920005501"[..], b"99920005502"];
        let both = Destinations::of(numbers.map(|digits| Address { digits, ..NUMBER }));
        let first = ShortMessage {
            schedule_delivery_time: SCHEDULED.schedule_delivery_time,
            short_message: b"first",
            ..MESSAGE
        };
        net.send(esme, &multi(first, &both), 2);
        let whole = net.received(esme)[0].submit_multi_id();
        let destination = Address { digits: numbers[replaced], ..NUMBER };
        let second =
            ShortMessage { destination, replace_if_present_flag: 1, short_message: b"second", ..MESSAGE };
        net.send(esme, &Pdu::SubmitSm(second), 3);
        let told = net.received(esme)[0].message_id();
        assert_eq!(told == whole, replaced == 0, "the first stands for the whole");
        net.pass_millis(1_000);
        let receipt = net.received(esme).remove(0);
        assert_eq!(receipt.receipt_id(), told);
        assert!(receipt.text().ends_with("text:second"), "{}", receipt.text());
        net.query(esme, 4, &told);
        let state = net.received(esme).remove(0).queried().0;
        // The other of the two still waits.
        assert_eq!(state == MessageState::DELIVERED, replaced == 1, "{state:?}");
        net.pass_seconds(620, 1);
        for (number, id) in [(5, &told), (6, &whole)] {
            _ = net.received(esme);
            net.query(esme, number, id);
            assert_eq!(net.received(esme).remove(0).queried().0, MessageState::DELIVERED);
        }
    }
}

#[test]
fn a_replacement_goes_on_only_when_its_sender_has_the_response() {
    let mut net = Net::new(3);
    // The message is on one core, its sender on a second, and the home of the account may be the third.
    let (_, ids) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    let asker = net.bound(1, "demo");
    let now = ShortMessage { replace_if_present_flag: 1, ..MESSAGE };
    net.hold_mesh((0, 1), true);
    net.send(asker, &Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"", ..now }), 2);
    net.release_mesh_once((0, 1));
    net.pass_millis(2_000);
    assert!(net.received(asker).is_empty(), "the answer is still under way");
    assert_eq!(net.offers(), 0, "nor is anything else done");
    net.hold_mesh((0, 1), false);
    net.turn();
    assert_eq!(net.received(asker).remove(0).message_id(), ids[0]);
    net.pass_millis(1_000);
    assert_eq!(net.offers(), 1);
}

#[test]
fn a_message_is_not_cancelled_for_all_when_a_partition_cannot_be_asked() {
    for replaces in [false, true] {
        let mut net = Net::new(2);
        let esmes = [0, 1].map(|shard| {
            let esme = net.bound(shard, "demo");
            net.send(esme, &Pdu::SubmitSm(SCHEDULED), 2);
            assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
            esme
        });
        net.fail_disk();
        let (pdu, refusal) = if replaces {
            (Pdu::SubmitSm(REPLACING), CommandStatus::ESME_RSYSERR)
        } else {
            (CANCEL_ALL, CommandStatus::ESME_RCANCELFAIL)
        };
        net.send(esmes[1], &pdu, 3);
        assert_eq!(net.statuses(esmes[1]), [refusal]);
        net.crash_and_restart();
        let waiting = net.unfinished();
        assert!(waiting <= 2, "a refused submission left a trace: {waiting} messages wait");
    }
}

#[test]
fn a_short_id_is_not_used_again_while_a_restart_would_find_it_at_rest() {
    let in_two_days = ShortMessage { schedule_delivery_time: b"000002000000000R", ..SCHEDULED };
    let elsewhere = Address { digits: b"4479", ..NUMBER };
    for reuses in [false, true] {
        let mut net = Net::new(1);
        net.portion = 10;
        net.partition_settings.messages_octets_max = 500_000;
        net.crash_and_restart();
        let fill = |net: &mut Net, octets| {
            let filler = net.bound(0, "other");
            let mut number = 1;
            while net.memory_octets() < octets && number < 1_200 {
                number += 1;
                net.send(filler, &Pdu::SubmitSm(in_two_days), number);
            }
        };
        let old = net.connect(0);
        assert_eq!(net.bind_version(old, "demo", VERSIONS[0]), ACCEPTED_BIND);
        net.send(old, &Pdu::SubmitSm(ShortMessage { destination: elsewhere, ..in_two_days }), 2);
        let id = net.received(old)[0].message_id();
        fill(&mut net, 262_000);
        net.pass_millis(1_000);
        assert!(net.text_if_waiting(&id).is_none(), "it is at rest, and nowhere else");
        if reuses {
            // The numbers come round: the next one is that of the message.
            net.set_last_short_id(short_id(0x007F_FFFF));
        }
        net.crash_and_restart();
        let old = net.connect(0);
        assert_eq!(net.bind_version(old, "demo", VERSIONS[0]), ACCEPTED_BIND);
        net.cancel(old, 3, &id);
        net.pass_millis(20);
        assert_eq!(net.statuses(old), [CommandStatus::ESME_ROK]);
        net.put_to_rest();
        net.send(old, &Pdu::SubmitSm(in_two_days), 4);
        let next = net.received(old)[0].message_id();
        assert_ne!(next, id);
        net.hold_disk(true);
        fill(&mut net, 420_000);
        net.hold_disk(false);
        net.pass_millis(1_000);
        let before = net.unfinished();
        net.crash_and_restart();
        assert_eq!(net.unfinished(), before);
    }
}

#[test]
fn of_two_messages_with_one_short_id_the_later_one_is_told() {
    let ended = |id: MessageId, state, at, who: &'static [u8]| FinalMessage {
        id,
        batch_offset: 0,
        batch_count: 1,
        state,
        error: 0,
        final_date: Timestamp::from_millis(at),
        system_id: Cow::Borrowed(who),
        source_addr: Cow::Borrowed(NUMBER.digits),
    };
    let (mut old, mut young) = (Vec::new(), Vec::new());
    for sequence in 500..600 {
        ended(short_id(sequence), MessageState::DELIVERED, 1_790_000_000_000, b"demo").put(&mut old);
    }
    // Eight million messages later, and its block begins farther away from the ids that both have.
    for sequence in 490..510 {
        ended(short_id(sequence), MessageState::UNDELIVERABLE, 1_790_200_000_000, b"other").put(&mut young);
    }
    let both = [&old[..], &young].concat();
    // A restart may find them in the journal together.
    for generations in [vec![(1, &old), (900, &young)], vec![(1, &both)]] {
        let mut blocks: BTreeMap<[u8; 16], Vec<u8>> = BTreeMap::new();
        for (generation, octets) in generations {
            let cut = cut(generation, octets).expect("whole").into_iter();
            blocks.extend(cut.map(|(key, block)| (key.to_octets(), block)));
        }
        for (sequence, whose) in
            [(490, "other"), (500, "other"), (509, "other"), (510, "demo"), (599, "demo")]
        {
            let ids = short_id(sequence)..=short_id(sequence);
            assert_eq!(ids.start().partition(), PartitionNumber(0));
            let candidates = blocks.range(BlockKey::range(&ids)).rev();
            let found = find(&ids, candidates.map(Ok::<_, BlockError>)).expect("blocks");
            assert_eq!((found.len(), &*found[0].system_id), (1, whose.as_bytes()), "{sequence}");
        }
    }
}

#[test]
fn what_a_carrier_says_of_an_old_message_ends_no_new_one_with_its_short_id() {
    let mut net = Net::new(1);
    let (_, ids) = crowd(&mut net, InterfaceVersion::V3_3, 1);
    let id = MessageId::parse(ids[0].as_bytes()).expect("an id");
    // This one was offered to nobody: another one had its name before.
    net.news(News::State { id, state: MessageState::UNDELIVERABLE, error: 1 });
    net.pass_millis(1_000);
    assert_eq!((net.waiting(NUMBER, SUBSCRIBER), net.offers()), (1, 0));
    net.pass_seconds(620, 1);
    assert_eq!(net.offers(), 1);
}

#[test]
fn what_a_carrier_says_before_it_is_offered_a_message_is_of_an_old_one_with_its_short_id() {
    let says: [fn(MessageId) -> News; 4] = [
        |id| News::Taken { id, carrier_id: Default::default() },
        |id| News::Busy { id, error: 1 },
        |id| News::State { id, state: MessageState::ENROUTE, error: 0 },
        |id| News::State { id, state: MessageState::DELIVERED, error: 0 },
    ];
    for (number, says) in says.into_iter().enumerate() {
        let mut net = Net::new(1);
        let esme = net.connect(0);
        assert_eq!(net.bind_version(esme, "demo", InterfaceVersion::V3_3), ACCEPTED_BIND);
        net.hold_disk(true);
        net.send(esme, &Pdu::SubmitSm(QUIET), 2);
        net.news(says(short_id(0)));
        net.tick();
        let standing = net.message(&short_id(0).to_string()).map(|message| message.standing);
        let standing = standing.expect("it waits for the disk");
        assert_eq!((standing.state, standing.deferrals), (State::Attempting, 0), "{number}");
        net.hold_disk(false);
        net.turn();
        assert_eq!(net.offers(), 1, "{number}");
    }
}

#[test]
fn what_another_carrier_says_is_of_an_old_message_with_the_same_short_id() {
    let mut net = Net::new(1);
    net.carry_once();
    let esme = net.connect(0);
    assert_eq!(net.bind_version(esme, "demo", InterfaceVersion::V3_3), ACCEPTED_BIND);
    net.send(esme, &Pdu::SubmitSm(QUIET), 2);
    let id = net.received(esme)[0].message_id();
    let of_it = || News::State {
        id: MessageId::parse(id.as_bytes()).expect("an id"),
        state: MessageState::UNDELIVERABLE,
        error: 1,
    };
    assert_eq!(net.offers(), 1);
    net.witnessed[1].borrow_mut().news.push_back(of_it());
    net.tick();
    assert!(net.message(&id).is_some(), "the first carrier has it");
    net.news(of_it());
    net.tick();
    assert!(net.message(&id).is_none());
}

#[test]
fn a_message_is_found_by_its_id_though_the_default_number_is_another_by_now() {
    let mut net = Net::new(1);
    let (esme, ids) = crowd(&mut net, InterfaceVersion::V5_0, 2);
    net.submit(esme, 2, "9992000123");
    let over = net.received(esme)[0].message_id();
    net.pass_millis(1_000);
    _ = net.received(esme);
    net.reload_numbers("demo", &["12125550777", "12125550100"]);
    let nobody = Address { digits: b"", ..NUMBER };
    let mut states = Vec::new();
    for (number, id) in (3..).zip([&over, &ids[0]]) {
        let query = QuerySm { message_id: id.as_bytes(), source: nobody, ..QUERY };
        net.send(esme, &Pdu::QuerySm(query), number);
        states.push(net.received(esme).remove(0).queried().0);
    }
    assert_eq!(states, [MessageState::DELIVERED, MessageState::SCHEDULED]);
    net.put_to_rest();
    let query = QuerySm { message_id: over.as_bytes(), source: nobody, ..QUERY };
    net.send(esme, &Pdu::QuerySm(query), 5);
    assert_eq!(net.received(esme).remove(0).queried().0, MessageState::DELIVERED, "at rest");
    let message_id = ids[0].as_bytes();
    let replace = ReplaceSm { message_id, source: nobody, short_message: b"new", ..REPLACE };
    net.send(esme, &Pdu::ReplaceSm(replace), 6);
    assert_eq!(
        (net.statuses(esme), net.waiting_text(&ids[0])),
        (vec![CommandStatus::ESME_ROK], "new".into())
    );
    let message_id = ids[1].as_bytes();
    let cancel = CancelSm { message_id, source: nobody, destination: nobody, ..CANCEL };
    net.send(esme, &Pdu::CancelSm(cancel), 7);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK]);
    // Another number that is named is another number.
    let source = Address { digits: b"12125550777", ..NUMBER };
    let named = QuerySm { message_id: over.as_bytes(), source, ..QUERY };
    net.send(esme, &Pdu::QuerySm(named), 8);
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_RINVMSGID]);
}

#[test]
fn a_submit_multi_whose_first_message_is_over_waits_as_its_others_do() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let both = Destinations::of([SUBSCRIBER, Address { digits: b"9992000124", ..NUMBER }]);
    let whole = net.asked(esme, &multi(SCHEDULED, &both)).submit_multi_id();
    assert_eq!(net.ask(esme, &CANCEL_ALL), CommandStatus::ESME_ROK);
    net.query(esme, 10, &whole);
    assert_eq!(net.received(esme).remove(0).queried().0, MessageState::SCHEDULED);
}

// Receipts.

#[test]
fn the_oldest_receipts_do_not_wait_in_the_cold_while_there_are_younger_ones() {
    let mut net = Net::new(1);
    net.portion = 10;
    net.partition_settings.messages_octets_max = 400_000;
    net.crash_and_restart();
    let sender = net.connect(0);
    assert_eq!(net.bind_as(sender, "demo", CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
    let mut first = None;
    for number in 2..1_000 {
        if net.deliveries().1 >= 2 {
            break;
        }
        net.submit(sender, number, "9992000123");
        let id = net.received(sender).remove(0).message_id();
        first.get_or_insert(id);
        net.pass_millis(20);
    }
    let (count, cold) = net.deliveries();
    assert!(cold >= 2, "{cold} blocks of {count} receipts are cold");
    net.confirms = false;
    let receiver = net.connect(0);
    assert_eq!(net.bind_as(receiver, "demo", CommandId::BIND_RECEIVER), ACCEPTED_BIND);
    // They come one window after the other, and more are made all the time.
    let mut ids = Vec::new();
    for number in 1_000..2_000 {
        for pdu in net.received(receiver) {
            ids.push(pdu.receipt_id());
            net.confirm(receiver, &pdu);
        }
        if ids.contains(first.as_ref().expect("an id")) {
            break;
        }
        net.submit(sender, number, "9992000123");
        net.pass_millis(10);
    }
    assert!(ids.len() < count, "the oldest of {count} came behind {} others", ids.len());
}

#[test]
fn what_may_still_be_confirmed_is_not_given_up() {
    let mut net = Net::new(1);
    net.partition_settings.parcel_retention = std::time::Duration::from_secs(4);
    net.confirms = false;
    net.crash_and_restart();
    let esme = net.bound(0, "demo");
    net.submit(esme, 2, "9992000123");
    net.pass_seconds(1, 1);
    // Its retention ends while it is with the session.
    net.pass_seconds(6, 1);
    assert_eq!((net.unfinished(), net.counters(0).deliver_given_up), (1, 0));
    let sent = net.received(esme).into_iter().find(|pdu| pdu.command_id == CommandId::DELIVER_SM);
    net.confirm(esme, &sent.expect("the receipt"));
    assert_eq!((net.unfinished(), net.counters(0).deliver_given_up), (0, 0));
    assert_eq!(net.counters(0).deliver_confirmed, 1);
    // The next one is not confirmed in time, and then it is given up.
    net.submit(esme, 3, "9992000123");
    net.pass_seconds(14, 1);
    assert_eq!((net.unfinished(), net.counters(0).deliver_given_up), (0, 1));
}

// Places at the account's home.

#[test]
fn who_has_the_answer_to_an_unbind_can_bind_again_on_any_core() {
    let mut waited = 0;
    for shard in 0..3 {
        let mut net = Net::new(3);
        // As many as may be.
        let [esme, _other] = [0, 1].map(|_| net.bound(shard, "demo"));
        let ways = [0, 1, 2].map(|to| (shard, to));
        ways.iter().for_each(|way| net.hold_mesh(*way, true));
        net.send(esme, &Pdu::Unbind, 2);
        let is_answered =
            |net: &mut Net| net.received(esme).iter().any(|pdu| pdu.command_id == CommandId::UNBIND_RESP);
        if !is_answered(&mut net) {
            // The home is another core, and has not heard of it.
            waited += 1;
            ways.iter().for_each(|way| net.hold_mesh(*way, false));
            net.turn();
            assert!(is_answered(&mut net));
        }
        ways.iter().for_each(|way| net.hold_mesh(*way, false));
        net.bound((shard + 1) % 3, "demo");
    }
    assert_eq!(waited, 2, "one of the cores is the home");
}

#[test]
fn octets_behind_a_request_that_had_to_wait_are_asked_for_when_it_goes_on() {
    let mut net = Net::new(1);
    let esme = net.bound(0, "demo");
    let mut octets = Vec::new();
    for (number, pdu) in [(2, Pdu::SubmitSm(REPLACING)), (3, Pdu::SubmitSm(SCHEDULED)), (4, Pdu::EnquireLink)]
    {
        pdu.encode(CommandStatus::ESME_ROK, number, &mut octets).expect("it fits");
    }
    // Nothing of this is answered for a while.
    net.hold_disk(true);
    let connection = net.connection(esme);
    net.input(0, |shard, now| {
        let used = shard.handle_octets(now, connection, &octets);
        assert_eq!(used, octets.len() - 16, "the second waits for the first");
        assert!(shard.wants_octets(connection), "there was nothing to replace");
        assert!(shard.outputs().dirty.contains(&connection), "nobody would look for the rest");
        assert_eq!(shard.handle_octets(now, connection, &octets[used..]), 16);
    });
    net.turn();
    let answers: Vec<CommandId> = net.received(esme).iter().map(|pdu| pdu.command_id).collect();
    assert_eq!(answers, [CommandId::ENQUIRE_LINK_RESP]);
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.statuses(esme), [CommandStatus::ESME_ROK; 2]);
}

#[test]
fn a_message_that_is_replaced_twice_goes_on_when_both_senders_have_the_response() {
    let mut net = Net::new(3);
    let (_, ids) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    net.reload(vec![AccountSettings { bind_limit: 0, ..Net::account("demo") }]);
    let [slow, quick] = [1, 2].map(|shard| net.bound(shard, "demo"));
    net.hold_mesh((0, 1), true);
    net.send(slow, &Pdu::SubmitSm(REPLACING), 2);
    // The message is found, and replaced; that this is so stays under way.
    net.release_mesh_once((0, 1));
    assert_eq!(net.waiting_text(&ids[0]), "new");
    let text = b"newer";
    net.send(quick, &Pdu::SubmitSm(ShortMessage { short_message: text, ..REPLACING }), 2);
    assert_eq!(net.received(quick).remove(0).message_id(), ids[0]);
    assert_eq!(net.waiting_text(&ids[0]), "newer");
    net.pass_seconds(700, 1);
    assert_eq!(net.offers(), 0, "one of its senders has no name for it");
    net.hold_mesh((0, 1), false);
    net.turn();
    let answers = net.received(slow);
    let answer = answers.iter().find(|pdu| pdu.command_id == CommandId::SUBMIT_SM_RESP);
    assert_eq!(answer.map(|pdu| pdu.message_id()).as_ref(), Some(&ids[0]));
    net.pass_millis(100);
    assert_eq!(net.offers(), 1);
}

#[test]
fn a_message_that_is_replaced_again_before_the_response_keeps_to_its_new_date() {
    let mut net = Net::new(3);
    let (_, ids) = crowd(&mut net, InterfaceVersion::V5_0, 1);
    net.reload(vec![AccountSettings { bind_limit: 0, ..Net::account("demo") }]);
    let [slow, quick] = [1, 2].map(|shard| net.bound(shard, "demo"));
    net.hold_mesh((0, 1), true);
    net.send(slow, &Pdu::SubmitSm(ShortMessage { schedule_delivery_time: b"", ..REPLACING }), 2);
    // The message is found, and replaced by one that is due; that this is so stays under way.
    net.release_mesh_once((0, 1));
    net.pass_millis(1_000);
    net.send(quick, &Pdu::SubmitSm(ShortMessage { short_message: b"later", ..REPLACING }), 2);
    assert_eq!(net.waiting_text(&ids[0]), "later");
    net.hold_mesh((0, 1), false);
    net.pass_millis(1_000);
    assert_eq!(net.offers(), 0, "it waits for its date");
    net.pass_seconds(700, 1);
    assert_eq!(net.offers(), 1);
}

/// `demo` has three messages that wait where memory does not hold them, and its cancel_sm waits for the first block of
/// those; `other` has begun to cancel so many that nothing else is cancelled for a long time.
fn cancel_in_the_cold(net: &mut Net) -> (Esme, Esme) {
    const MANY: u32 = 100;
    let settings = &mut net.partition_settings;
    (settings.messages_octets_max, settings.checkpoint_segments) = (400_000, 1);
    net.portion = 1;
    net.crash_and_restart();
    let [demo, other] = ["demo", "other"].map(|system_id| net.bound(0, system_id));
    let tomorrow = ShortMessage { schedule_delivery_time: b"000001000000000R", ..SCHEDULED };
    (0..3).for_each(|number| net.send(demo, &Pdu::SubmitSm(tomorrow), 10 + number));
    let elsewhere = Address { digits: b"12125558888", ..NUMBER };
    for number in 0..800 {
        net.send(demo, &Pdu::SubmitSm(ShortMessage { destination: elsewhere, ..tomorrow }), 100 + number);
        net.pass_millis(10);
    }
    assert!(net.received(demo).iter().all(|pdu| pdu.command_status == CommandStatus::ESME_ROK));
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 0, "they are cold");
    // In one batch, so that none of them goes to rest.
    net.hold_disk(true);
    (0..MANY).for_each(|number| net.send(other, &Pdu::SubmitSm(tomorrow), 10 + number));
    net.hold_disk(false);
    net.turn();
    assert_eq!(net.unfinished(), 803 + MANY as usize);
    net.received(other);
    net.stop_stores_after(0);
    net.send(demo, &CANCEL_ALL, 2);
    assert!(net.received(demo).is_empty(), "it waits for a block");
    net.hand_in(other, &CANCEL_ALL, 2);
    (demo, other)
}

#[test]
fn a_replacement_behind_a_cancel_replaces_nothing_that_is_cancelled() {
    let mut net = Net::new(1);
    let (demo, other) = cancel_in_the_cold(&mut net);
    net.hand_in(demo, &Pdu::SubmitSm(REPLACING), 3);
    net.stop_stores_after(usize::MAX);
    net.turn();
    assert_eq!(net.statuses(other), [CommandStatus::ESME_ROK]);
    let answers = net.received(demo);
    let told: Vec<_> = answers.iter().map(|pdu| (pdu.command_id, pdu.command_status)).collect();
    let ok = CommandStatus::ESME_ROK;
    assert_eq!(told, [(CommandId::CANCEL_SM_RESP, ok), (CommandId::SUBMIT_SM_RESP, ok)]);
    assert_eq!(net.text_if_waiting(&answers[1].message_id()).as_deref(), Some("new"));
    assert_eq!(net.unfinished(), 801);
}

#[test]
fn a_cancel_finds_what_has_grown_cold_again_before_its_turn_came() {
    let mut net = Net::new(1);
    let (demo, other) = cancel_in_the_cold(&mut net);
    net.stop_stores_after(1);
    net.carry_once();
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 3, "the block is back");
    let elsewhere = Address { digits: b"12125557777", ..NUMBER };
    let payload = payload(&[b'x'; 30_000]);
    for number in 1_000..1_006 {
        let (short_message, tlvs) = (&b""[..], payload.as_tlvs());
        let long = ShortMessage { destination: elsewhere, short_message, tlvs, ..SCHEDULED };
        net.hand_in(demo, &Pdu::SubmitSm(long), number);
    }
    // The others have their turns for more than a second.
    for _ in 0..20 {
        net.input(60, Shard::tick);
    }
    assert_eq!(net.waiting(NUMBER, SUBSCRIBER), 0, "and gone again, as memory is short");
    assert!(net.unfinished() > 809, "the others are not done");
    net.stop_stores_after(usize::MAX);
    net.turn();
    assert_eq!(net.statuses(other), [CommandStatus::ESME_ROK]);
    assert_eq!(net.statuses(demo), [CommandStatus::ESME_ROK; 7]);
    assert_eq!(net.unfinished(), 806);
}

#[test]
fn whoever_closed_while_its_password_was_verified_keeps_no_place_at_another_core() {
    let mut net = Net::new(1);
    net.reload(vec![AccountSettings { bind_limit: 1, ..Net::account("demo") }]);
    let gone = net.connect(0);
    net.hand_in(gone, &Pdu::BindTransceiver(BIND), 1);
    let connection = net.connection(gone);
    net.input(0, |shard, now| {
        shard.peer_closed(now, connection);
        assert!(shard.depart(connection).is_none(), "the other core would not know that it has closed");
    });
    net.turn();
    let other = net.connect(0);
    assert_eq!(net.bind(other, "demo"), CommandStatus::ESME_ROK);
}

#[test]
fn what_is_on_its_way_to_a_peer_that_has_closed_goes_to_another() {
    let mut tried = 0;
    for (shards, account) in [(2, "demo"), (2, "other"), (3, "demo"), (3, "other")] {
        let mut net = Net::new(shards);
        let ways = (1..shards).map(|from| (from, 0));
        let sender = net.connect(0);
        assert_eq!(net.bind_as(sender, account, CommandId::BIND_TRANSMITTER), ACCEPTED_BIND);
        let gone = net.bound(0, account);
        ways.clone().for_each(|way| net.hold_mesh(way, true));
        net.submit(sender, 2, "12125559999");
        net.pass_millis(2_000);
        if net.counters(0).deliver_sent > 0 {
            // The home of this account is the same core.
            continue;
        }
        tried += 1;
        let connection = net.connection(gone);
        net.input(0, |shard, now| shard.peer_closed(now, connection));
        ways.for_each(|way| net.hold_mesh(way, false));
        net.turn();
        assert_eq!(net.counters(0).deliver_sent, 0);
        let other = net.bound(1, account);
        net.turn();
        assert_eq!((net.received(other).len(), net.counters(1).deliver_sent), (1, 1));
    }
    assert!(tried > 0);
}

#[test]
fn a_peer_that_closes_while_its_password_is_verified_keeps_no_place() {
    for shard in [0, 1] {
        let mut net = Net::new(2);
        net.reload(vec![AccountSettings { bind_limit: 1, ..Net::account("demo") }]);
        let gone = net.connect(0);
        net.hand_in(gone, &Pdu::BindTransceiver(BIND), 1);
        let connection = net.connection(gone);
        net.input(0, |shard, now| shard.peer_closed(now, connection));
        net.turn();
        // What it was answered may still be on its way.
        assert!(!net.is_closed(gone));
        net.bound(shard, "demo");
    }
}
