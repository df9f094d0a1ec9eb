//! Whose a message is: to everybody else, and from every other number, it does not exist. Whatever is asked, on whatever
//! core, and wherever the message is by then.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::borrow::Cow;

use common::{
    CANCEL, Destinations, Esme, NEVER_TAKEN, NOBODY, NUMBER, Net, QUERY, QUIET, REPLACE, UNTAKEN, multi,
};
use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{Address, CancelSm, CommandStatus, Pdu, QuerySm, ReplaceSm, ShortMessage, Ton};
use smppd::shard::Lookup;
use smppd::store::FinalMessage;

const OK: CommandStatus = CommandStatus::ESME_ROK;
const UNKNOWN: CommandStatus = CommandStatus::ESME_RINVMSGID;
/// A number that `demo` may send from, and that is not its own.
const ANOTHER_NUMBER: Address<'static> = Address { digits: b"12125550177", ..NUMBER };
const ELSEWHERE: Address<'static> = Address { digits: b"9999000556", ..NUMBER };
/// Waits for a day.
const WAITS: ShortMessage<'static, Address<'static>> =
    ShortMessage { schedule_delivery_time: b"000001000000000R", ..UNTAKEN };

fn query<'a>(id: &'a str, source: Address<'a>) -> Pdu<'a> {
    Pdu::QuerySm(QuerySm { message_id: id.as_bytes(), source, ..QUERY })
}

fn cancel<'a>(id: &'a str, source: Address<'a>, destination: Address<'a>) -> Pdu<'a> {
    Pdu::CancelSm(CancelSm { message_id: id.as_bytes(), source, destination, ..CANCEL })
}

fn replace<'a>(id: &'a str, source: Address<'a>, text: &'a [u8]) -> Pdu<'a> {
    Pdu::ReplaceSm(ReplaceSm { message_id: id.as_bytes(), source, short_message: text, ..REPLACE })
}

/// Where a message may be while somebody asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Scheduled,
    WithCarrier,
    Final,
    AtRest,
}

const STAGES: [Stage; 4] = [Stage::Scheduled, Stage::WithCarrier, Stage::Final, Stage::AtRest];

/// A message of `demo` on the first of two cores, at this stage; its id, and a session of `demo` there.
fn message_at(net: &mut Net, stage: Stage) -> (String, Esme) {
    let esme = net.bound(0, "demo");
    let id = match stage {
        Stage::Scheduled => net.accept(esme, WAITS),
        Stage::WithCarrier | Stage::Final | Stage::AtRest => net.accept(esme, QUIET),
    };
    if matches!(stage, Stage::Final | Stage::AtRest) {
        net.pass_millis(2_000);
        assert!(net.message(&id).is_none(), "it is over");
    }
    if stage == Stage::AtRest {
        net.put_to_rest();
    }
    (id, esme)
}

#[test]
fn nobody_else_can_ask_for_a_message_nor_change_it() {
    for stage in STAGES {
        let mut net = Net::new(2);
        let (id, mine) = message_at(&mut net, stage);
        for core in [0, 1] {
            let theirs = net.bound(core, "other");
            // They name the right number, or another one, or none: `other` has the same default number here.
            for source in [NUMBER, ANOTHER_NUMBER, NOBODY] {
                for pdu in [
                    query(&id, source),
                    cancel(&id, source, NOBODY),
                    cancel(&id, source, NEVER_TAKEN),
                    replace(&id, source, b"theirs"),
                ] {
                    assert_eq!(net.ask(theirs, &pdu), UNKNOWN, "{stage:?} {core} {pdu:?}");
                }
            }
            net.disconnect(theirs);
        }
        assert_eq!(net.ask(mine, &query(&id, NUMBER)), OK, "{stage:?}");
        if stage == Stage::Scheduled {
            assert_eq!(net.waiting_text(&id), "hello");
            assert_eq!(net.ask(mine, &cancel(&id, NUMBER, NOBODY)), OK, "nobody else has cancelled it");
        }
    }
}

#[test]
fn a_message_from_one_number_is_unknown_to_another_of_the_same_account() {
    for stage in STAGES {
        let mut net = Net::new(2);
        let (id, mine) = message_at(&mut net, stage);
        for pdu in [
            query(&id, ANOTHER_NUMBER),
            cancel(&id, ANOTHER_NUMBER, NOBODY),
            replace(&id, ANOTHER_NUMBER, b"changed"),
        ] {
            assert_eq!(net.ask(mine, &pdu), UNKNOWN, "{stage:?} {pdu:?}");
        }
        // And none stands for the number it was sent from.
        assert_eq!(net.ask(mine, &query(&id, NOBODY)), OK, "{stage:?}");
        let (cancelled, replaced) = match stage {
            Stage::Scheduled => (OK, OK),
            _ => (CommandStatus::ESME_RCANCELFAIL, CommandStatus::ESME_RREPLACEFAIL),
        };
        assert_eq!(net.ask(mine, &replace(&id, NOBODY, b"changed")), replaced, "{stage:?}");
        assert_eq!(net.ask(mine, &cancel(&id, NOBODY, NOBODY)), cancelled, "{stage:?}");
    }
}

#[test]
fn a_number_with_a_plus_is_the_same_number() {
    let mut net = Net::new(1);
    let (id, mine) = message_at(&mut net, Stage::Scheduled);
    let plus = Address { digits: b"+12125550100", ..NUMBER };
    let there = Address { digits: b"+9999000555", ..NUMBER };
    for pdu in [query(&id, plus), replace(&id, plus, b"changed"), cancel(&id, plus, there)] {
        assert_eq!(net.ask(mine, &pdu), OK, "{pdu:?}");
    }
}

#[test]
fn a_cancel_that_names_another_destination_takes_nothing() {
    let mut net = Net::new(1);
    let (id, mine) = message_at(&mut net, Stage::Scheduled);
    assert_eq!(net.ask(mine, &cancel(&id, NUMBER, ELSEWHERE)), UNKNOWN);
    assert!(net.message(&id).is_some());
    assert_eq!(net.ask(mine, &cancel(&id, NUMBER, NEVER_TAKEN)), OK);
    assert!(net.message(&id).is_none());
}

#[test]
fn cancel_by_addresses_takes_what_is_ones_own_from_this_number_to_that_one() {
    let mut net = Net::new(2);
    let (mine, theirs) = (net.bound(0, "demo"), net.bound(1, "other"));
    let id = net.accept(mine, WAITS);
    let their_id = net.accept(theirs, WAITS);
    let from_another = net.accept(mine, ShortMessage { source: ANOTHER_NUMBER, ..WAITS });
    let to_another = net.accept(mine, ShortMessage { destination: ELSEWHERE, ..WAITS });
    let of_another_type = net.accept(mine, ShortMessage { service_type: b"CMT", ..WAITS });
    let is_there = |net: &Net, id: &str| net.message(id).is_some();
    let all = |service_type| Pdu::CancelSm(CancelSm { service_type, destination: NEVER_TAKEN, ..CANCEL });
    assert_eq!(net.ask(mine, &all(b"WAP")), CommandStatus::ESME_RCANCELFAIL);
    assert!(is_there(&net, &id));
    assert_eq!(net.ask(theirs, &all(b"")), OK);
    assert!(!is_there(&net, &their_id));
    for id in [&id, &from_another, &to_another, &of_another_type] {
        assert!(is_there(&net, id), "another account has cancelled it");
    }
    assert_eq!(net.ask(theirs, &all(b"")), CommandStatus::ESME_RCANCELFAIL, "none of theirs is left");
    assert_eq!(net.ask(mine, &all(b"CMT")), OK);
    assert!(!is_there(&net, &of_another_type) && is_there(&net, &id));
    // No source is the account's default number.
    assert_eq!(net.ask(mine, &cancel("", NOBODY, NEVER_TAKEN)), OK);
    assert!(!is_there(&net, &id));
    assert!(is_there(&net, &from_another) && is_there(&net, &to_another));
    assert_eq!(net.ask(mine, &cancel("", NUMBER, NEVER_TAKEN)), CommandStatus::ESME_RCANCELFAIL);
    assert_eq!(net.ask(mine, &cancel("", NUMBER, NOBODY)), UNKNOWN, "neither an id nor a destination");
}

#[test]
fn a_number_that_is_left_out_is_the_default_one_though_the_account_has_more() {
    let mut net = Net::new(1);
    let mut demo = Net::account("demo");
    demo.numbers = vec!["+12125550100".into(), "12125550177".into()];
    net.reload(vec![demo]);
    let mine = net.bound(0, "demo");
    let id = net.accept(mine, ShortMessage { source: NOBODY, ..WAITS });
    let message = net.message(&id).expect("it waits").content();
    assert_eq!((message.source.digits, message.source.ton), (&b"12125550100"[..], Ton(1)));
    for pdu in [query(&id, NOBODY), replace(&id, NOBODY, b"changed"), cancel(&id, NOBODY, NOBODY)] {
        assert_eq!(net.ask(mine, &pdu), OK, "{pdu:?}");
    }
}

#[test]
fn replace_if_present_replaces_the_newest_of_ones_own_and_of_the_same_kind() {
    let mut net = Net::new(2);
    let (mine, theirs) = (net.bound(0, "demo"), net.bound(0, "other"));
    // Each on the core of the others: only who sent it tells them apart.
    let older = net.accept(mine, WAITS);
    let younger = net.accept(mine, WAITS);
    let of_another_type = net.accept(mine, ShortMessage { service_type: b"CMT", ..WAITS });
    let from_another = net.accept(mine, ShortMessage { source: ANOTHER_NUMBER, ..WAITS });
    let to_another = net.accept(mine, ShortMessage { destination: ELSEWHERE, ..WAITS });
    let theirs_id = net.accept(theirs, WAITS);
    let id =
        net.accept(mine, ShortMessage { replace_if_present_flag: 1, short_message: b"replaced", ..WAITS });
    assert_eq!(id, younger);
    assert_eq!(net.waiting_text(&younger), "replaced");
    for id in [&older, &of_another_type, &from_another, &to_another, &theirs_id] {
        assert_eq!(net.waiting_text(id), "hello", "{id}");
    }
    // Another account finds only its own, and then none.
    let replacing = ShortMessage { replace_if_present_flag: 1, short_message: b"theirs", ..WAITS };
    assert_eq!(net.accept(theirs, replacing), theirs_id);
    assert_eq!(net.ask(theirs, &cancel(&theirs_id, NUMBER, NOBODY)), OK);
    let new = net.accept(theirs, replacing);
    assert!(![&older, &younger, &theirs_id].contains(&&new));
    assert_eq!(net.waiting_text(&younger), "replaced");
}

#[test]
fn the_members_of_a_submit_multi_are_their_senders_alone() {
    // How many of them are over.
    for over in [0, 1, 3] {
        for is_at_rest in [false, true] {
            let mut net = Net::new(2);
            let mine = net.bound(0, "demo");
            let theirs = [net.bound(0, "other"), net.bound(1, "other")];
            let to = match over {
                1 => [&b"12125559997"[..], b"9999000001", b"9999000002"],
                _ => [&b"12125559997"[..], b"12125559998", b"12125559999"],
            };
            let to = Destinations::of(to.map(|digits| Address { digits, ..NUMBER }));
            let id = net.asked(mine, &multi(if over > 0 { QUIET } else { WAITS }, &to)).submit_multi_id();
            net.pass_millis(2_000);
            if is_at_rest {
                net.put_to_rest();
            }
            let whole = MessageId::parse(id.as_bytes()).expect("an id");
            let members = (0..3).map(|offset| whole.in_batch(offset).to_string());
            for id in members {
                for theirs in theirs {
                    for pdu in
                        [query(&id, NUMBER), cancel(&id, NUMBER, NOBODY), replace(&id, NUMBER, b"theirs")]
                    {
                        assert_eq!(net.ask(theirs, &pdu), UNKNOWN, "{over} {is_at_rest} {pdu:?}");
                    }
                }
                assert_eq!(net.ask(mine, &query(&id, NUMBER)), OK, "{over} {is_at_rest} {id}");
                assert_eq!(net.ask(mine, &query(&id, ANOTHER_NUMBER)), UNKNOWN);
            }
            if over < 3 {
                assert_eq!(net.ask(mine, &cancel(&id, NUMBER, NOBODY)), OK);
                assert_eq!(net.unfinished(), 0, "the id of the whole stands for all");
            }
        }
    }
}

#[test]
fn a_short_id_that_has_gone_to_another_while_it_was_looked_for_takes_nothing_of_theirs() {
    let mut net = Net::new(1);
    let demo = net.bound(0, "demo");
    let other = net.bound(0, "other");
    let waits = net.accept(other, ShortMessage { source: NOBODY, ..WAITS });
    let id = MessageId::parse(waits.as_bytes()).expect("an id");
    let old = FinalMessage {
        id,
        batch_offset: 0,
        batch_count: 1,
        state: MessageState::DELIVERED,
        error: 0,
        final_date: net.wall(),
        system_id: Cow::Borrowed(b"demo"),
        source_addr: Cow::Borrowed(NUMBER.digits),
    };
    let gone = id.in_batch(9).to_string();
    net.hand_in(demo, &cancel(&gone, NUMBER, NOBODY), 9);
    net.input(0, |shard, now| {
        let lookup = shard.outputs().lookups.pop().expect("nothing in memory has this name");
        shard.handle_lookup(now, Lookup { id, ..lookup }, vec![old]);
    });
    net.turn();
    assert_eq!(net.statuses(demo), [CommandStatus::ESME_RCANCELFAIL], "it was sent long ago");
    assert!(net.text_if_waiting(&waits).is_some());
}

#[test]
fn what_has_grown_cold_is_still_only_its_senders() {
    let mut net = Net::new(1);
    net.portion = 10;
    net.partition_settings.messages_octets_max = 100_000;
    net.partition_settings.checkpoint_segments = 1;
    net.crash_and_restart();
    let (mine, theirs) = (net.bound(0, "demo"), net.bound(0, "other"));
    let id = net.accept(mine, WAITS);
    while net.message(&id).is_some() {
        net.accept(mine, ShortMessage { destination: ELSEWHERE, ..WAITS });
        net.pass_millis(10);
        assert!(net.unfinished() < 10_000, "nothing grows cold");
    }
    for pdu in [query(&id, NUMBER), cancel(&id, NUMBER, NOBODY), replace(&id, NUMBER, b"theirs")] {
        assert_eq!(net.ask(theirs, &pdu), UNKNOWN, "{pdu:?}");
    }
    let by_addresses = cancel("", NUMBER, NEVER_TAKEN);
    assert_eq!(net.ask(theirs, &by_addresses), CommandStatus::ESME_RCANCELFAIL);
    let replacing = ShortMessage { replace_if_present_flag: 1, ..WAITS };
    assert_ne!(net.accept(theirs, replacing), id);
    assert_eq!(net.ask(mine, &replace(&id, NUMBER, b"mine")), OK);
    assert_eq!(net.waiting_text(&id), "mine");
    assert_eq!(net.ask(mine, &by_addresses), OK);
    assert_eq!(net.ask(mine, &query(&id, NUMBER)), OK);
}
