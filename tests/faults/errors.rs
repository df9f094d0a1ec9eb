//! The disk fails: one write, one order, one sync. No ESME_ROK may stand on it.

use std::time::Duration;

use smppd::message::MessageId;
use smppd::pdu::{CommandId, CommandStatus, Pdu, ShortMessage};

use crate::support::esme::{DELIVERED, Esme, Next, message};
use crate::support::load::Ledger;
use crate::support::rounds::{SETTINGS, check_all, place};
use crate::support::{Launch, PATIENCE, Place, Server, eventually, skip};

const ADMIN: &str = "--admin=127.0.0.1:0";
/// The partition that is struck.
const STRUCK: u8 = 1;
/// Sessions, so that each core has some of them.
const SESSIONS: usize = 16;

/// Submits one message and writes down what was said; the partition that took it, if one did.
fn submit(ledger: &mut Ledger, esme: &mut Esme, text: String) -> Option<u8> {
    let response = esme.ask(&Pdu::SubmitSm(message(DELIVERED, &text)));
    ledger.sent.insert(text.clone());
    if response.status == CommandStatus::ESME_ROK {
        let id = response.message_id();
        let partition = MessageId::parse(id.as_bytes()).expect("an id").partition().0;
        ledger.accepted.insert(text, id);
        return Some(partition);
    }
    assert_eq!(response.status, CommandStatus::ESME_RSYSERR);
    ledger.refused.insert(text, response.status);
    None
}

/// Messages whose receipts nobody has fetched yet, in a server that was stopped as it should be.
fn before(place: &Place) -> Ledger {
    let server = place.server().settings(SETTINGS).start();
    let mut ledger = Ledger::default();
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
    for (number, mut esme) in sessions.into_iter().enumerate() {
        for count in 0..10 {
            submit(&mut ledger, &mut esme, format!("before-{number}-{count}"));
        }
    }
    assert!(server.stop().success());
    ledger
}

/// What an operator sees of a partition that stopped, and of no other.
fn is_said(server: &Server, reason: &str) {
    eventually("the metric", || (server.metric("smppd_partitions_failed") == 1).then_some(()));
    let health = server.http("/health");
    assert!(health.starts_with("HTTP/1.0 503") || health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(health.contains(&format!("partition {STRUCK:03}")), "{health}");
    let line = eventually("the log line", || {
        let line = format!("partition {STRUCK:03} stopped accepting: ");
        server.log().lines().find(|text| text.contains(&line)).map(str::to_owned)
    });
    assert!(line.contains(" ERROR ") && line.contains(reason), "{line}");
}

/// Submits on all cores until the struck partition has stopped, then makes sure that it alone did.
fn until_it_stops(server: &Server, ledger: &mut Ledger, reason: &str) {
    let mut receiver = Esme::bound_as(server, "demo", CommandId::BIND_RECEIVER);
    let mut sessions: Vec<Esme> =
        (0..SESSIONS).map(|_| Esme::bound_as(server, "demo", CommandId::BIND_TRANSMITTER)).collect();
    let mut count = 0;
    let mut submit_all = |ledger: &mut Ledger| {
        let mut taken = Vec::new();
        for esme in &mut sessions {
            count += 1;
            taken.push(submit(ledger, esme, format!("message-{count}")));
        }
        taken
    };
    eventually("the struck partition stops", || submit_all(ledger).contains(&None).then_some(()));
    is_said(server, reason);
    let taken = submit_all(ledger);
    assert!(taken.contains(&None) && taken.contains(&Some(0)), "{taken:?}");
    assert!(!taken.contains(&Some(STRUCK)), "a stopped partition accepts: {taken:?}");
    // What is in the other partition goes on to its end; receipts of the struck one may come, as always.
    let mut missing: Vec<String> = ledger
        .accepted
        .values()
        .filter(|id| MessageId::parse(id.as_bytes()).expect("an id").partition().0 != STRUCK)
        .cloned()
        .collect();
    while !missing.is_empty() {
        let receipt = receiver.next_receipt();
        missing.retain(|id| *id != receipt.id);
        *ledger.receipts.entry((receipt.text, receipt.id.clone())).or_default() += 1;
        ledger.ends.insert(receipt.id, receipt.stat);
    }
    ledger.check();
}

/// Started again without a fault, everything acknowledged goes on, and nothing refused is there.
fn heals(place: &Place, ledger: Ledger) {
    let launch = place.server().settings(SETTINGS);
    let server = launch.start();
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut everything = Ledger::default();
    everything.absorb(ledger);
    everything.collect(&mut receiver);
    // Receipts come in no order, so a trace of what was refused may come last.
    while let Next::Pdu(pdu) = receiver.next_within(Duration::from_millis(300)) {
        let receipt = pdu.receipt().expect("a receipt");
        *everything.receipts.entry((receipt.text, receipt.id)).or_default() += 1;
    }
    everything.check();
    drop(receiver);
    assert!(server.stop().success());
    check_all(&launch, everything);
}

fn faulty<'a>(place: &'a Place, fault: &str) -> Launch<'a> {
    let faults = format!("{fault},partition={STRUCK}");
    place.server().settings(SETTINGS).argument(ADMIN).faults(&faults)
}

fn has_faults(what: &str) -> bool {
    if !cfg!(debug_assertions) {
        skip(what, "a release build has no faults on purpose");
    }
    cfg!(debug_assertions)
}

#[test]
fn a_failed_write_of_the_journal_refuses_and_stops_one_partition() {
    if !has_faults("failed writes of the journal") {
        return;
    }
    for number in 1..=6 {
        for (manner, reason) in [("", "Input/output error"), (":short", "octets were written")] {
            let place = place("journal-write");
            let mut ledger = before(&place);
            let server = faulty(&place, &format!("journal-write={number}{manner}")).start();
            // Half a batch may hold all its records: it is wiped out before anybody is refused.
            until_it_stops(&server, &mut ledger, reason);
            // A server that is told to stop does; one that is killed loses nothing either.
            if number % 2 == 0 {
                server.kill();
            } else {
                _ = server.stop();
            }
            heals(&place, ledger);
        }
    }
}

#[test]
fn a_failed_order_to_the_state_stops_one_partition() {
    if !has_faults("failed orders to the state at rest") {
        return;
    }
    for fault in ["state-op=1", "state-op=2", "state-op=1:panic"] {
        let place = place("state-op");
        let mut ledger = before(&place);
        let server = faulty(&place, fault).start();
        until_it_stops(&server, &mut ledger, "the state at rest failed");
        server.kill();
        heals(&place, ledger);
    }
}

#[test]
fn a_failed_sync_of_the_state_while_stopping_loses_nothing() {
    if !has_faults("failed syncs of the state at rest") {
        return;
    }
    // The first is the start's.
    for number in 2..=4 {
        let place = place("state-sync");
        let mut ledger = before(&place);
        let mut server = faulty(&place, &format!("state-sync={number}")).start();
        // Something to put to rest: two syncs belong to that, one to the end.
        for mut esme in Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER) {
            let text = format!("stopping-{}", ledger.sent.len());
            submit(&mut ledger, &mut esme, text);
        }
        server.signal(rustix::process::Signal::TERM);
        assert_eq!(server.wait().code(), Some(1), "sync {number}");
        let log = server.log();
        assert!(log.contains("partition 001") && log.contains("Input/output error"), "sync {number}: {log}");
        assert!(log.contains("nothing is lost"), "sync {number}: {log}");
        heals(&place, ledger);
    }
}

#[test]
fn a_database_that_cannot_be_synced_stops_the_start() {
    if !has_faults("a failed first sync") {
        return;
    }
    // As it was found, and when it has just been made.
    for number in 1..=2 {
        let place = place("state-first");
        let output = faulty(&place, &format!("state-sync={number}")).fails();
        assert_eq!(output.status.code(), Some(1), "sync {number}");
        let complaint = crate::support::complaint(&output);
        assert!(complaint.contains("partition-001/state: Input/output error"), "{complaint}");
        assert!(place.server().start().stop().success());
    }
}

#[test]
fn a_journal_that_cannot_be_synced_stops_the_start() {
    if !has_faults("a failed sync of the journal") {
        return;
    }
    let place = place("journal-sync");
    let ledger = before(&place);
    for number in 1..=2 {
        let output = faulty(&place, &format!("journal-sync={number}")).fails();
        assert_eq!(output.status.code(), Some(1), "sync {number}");
        let complaint = crate::support::complaint(&output);
        let file = format!("partition-001/journal/segment-00{}.log: Input/output error", number - 1);
        assert!(complaint.contains(&file), "{complaint}");
    }
    heals(&place, ledger);
}

#[test]
fn a_batch_that_is_written_and_reported_as_failed_leaves_no_trace() {
    if !has_faults("writes that fail late") {
        return;
    }
    let place = place("journal-late");
    let mut ledger = before(&place);
    let server = faulty(&place, "journal-write=3:late").start();
    until_it_stops(&server, &mut ledger, "Input/output error");
    server.kill();
    heals(&place, ledger);
}

#[test]
fn a_sync_that_fails_under_load_stops_one_partition() {
    if !has_faults("failed syncs under load") {
        return;
    }
    use crate::support::load::Mix;
    use crate::support::rounds::load_with;
    let place = place("state-sync-load");
    let begin =
        || Ledger { mix: Mix::Heavy, may_be_refused: &[CommandStatus::ESME_RSYSERR], ..Ledger::default() };
    let faults = format!("state-sync=3,partition={STRUCK}");
    // Belongs to `[journal]`.
    let launch = place.server().settings("checkpoint_segments = 1\n").settings(SETTINGS);
    let server = launch.argument(ADMIN).faults(&faults).start();
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER);
    let ledger = load_with(begin, sessions.into(), Vec::new(), server, 0, 0, |server| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while server.metric("smppd_partitions_failed") == 0 {
            assert!(std::time::Instant::now() < deadline, "no checkpoint came to its sync");
            std::thread::sleep(Duration::from_millis(20));
        }
        is_said(&server, "the state at rest failed");
        // The other one goes on.
        std::thread::sleep(Duration::from_millis(300));
        server.kill();
    });
    assert!(!ledger.refused.is_empty(), "nothing was refused");
    heals(&place, ledger);
}

/// A message that waits for an hour: nothing about it is recorded but that it was accepted.
fn waiting(text: &str) -> Pdu<'_> {
    let in_an_hour = b"000000010000000R";
    Pdu::SubmitSm(ShortMessage { schedule_delivery_time: in_an_hour, ..message(DELIVERED, text) })
}

#[test]
fn a_batch_of_which_its_sender_was_told_that_it_failed_is_wiped_out() {
    if !has_faults("refused messages on the disk") {
        return;
    }
    for (manner, most) in [(":late", 6), (":short", 2), ("", 2)] {
        for number in 1..=most {
            let place = place("journal-wiped");
            let launch = place.server().settings(SETTINGS).cores(1);
            let faults = format!("journal-write={number}{manner}");
            let server = place.server().settings(SETTINGS).cores(1).faults(&faults).start();
            let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
            // A batch for each: one that is answered, or not, before the next is sent.
            let texts: Vec<String> = (1..=number).map(|count| format!("message-{count}")).collect();
            let answers: Vec<_> = texts.iter().map(|text| esme.ask(&waiting(text))).collect();
            let (refused, accepted) = answers.split_last().expect("an answer");
            assert_eq!(refused.status, CommandStatus::ESME_RSYSERR, "{faults}");
            let ids: Vec<String> = accepted.iter().map(|answer| answer.message_id()).collect();
            server.kill();
            let server = launch.start();
            let found = format!("partition 000: {} messages and 0 deliveries go on", ids.len());
            assert!(server.log().contains(&found), "{faults}: {}", server.log());
            let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            assert_eq!(esme.unknown_of(&ids), [""; 0], "{faults}");
            // The journal goes on where the wiped batch was.
            esme.ask(&waiting("afterwards")).message_id();
            server.kill();
            let server = launch.start();
            let found = format!("partition 000: {} messages and 0 deliveries go on", ids.len() + 1);
            assert!(server.log().contains(&found), "{faults}: {}", server.log());
        }
    }
}

#[test]
fn a_folder_that_cannot_be_synced_stops_the_first_start() {
    if !has_faults("a failed sync of a folder") {
        return;
    }
    // In the folder of the partition its journal, and in each start again; in that of the state what sled makes; in that of the
    // journal three files.
    let in_partition = format!("partition-{STRUCK:03}");
    let in_state = format!("partition-{STRUCK:03}/state");
    let in_journal = format!("partition-{STRUCK:03}/journal");
    let folders = [&in_partition, &in_state, &in_partition, &in_journal, &in_journal, &in_journal];
    for (number, folder) in (1..).zip(folders) {
        let place = place("folder-sync");
        let output = faulty(&place, &format!("folder-sync={number}")).fails();
        assert_eq!(output.status.code(), Some(1), "sync {number}");
        let complaint = crate::support::complaint(&output);
        let line = complaint.lines().find(|line| line.contains("Input/output error")).expect("a complaint");
        assert!(line.contains(folder.as_str()), "sync {number}: {line}");
        assert!(place.server().start().stop().success(), "sync {number}");
    }
}
