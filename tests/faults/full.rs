//! The disk is full: submissions are refused before anything fails, everything else goes on.

use std::time::Duration;

use smppd::pdu::{CancelSm, CommandId, CommandStatus, Pdu, Tlvs};

use crate::support::disk::SmallDisk;
use crate::support::esme::{ANYBODY, DELIVERED, Esme, NEVER_TAKEN, NUMBER, international, message};
use crate::support::load::Ledger;
use crate::support::rounds::{SETTINGS, check_all, load_with};
use crate::support::{Place, complaint, eventually, skip};

/// Two partitions of three journal files of 8 MiB each, sled, and the low-water mark of 32 MiB.
const DISK_MIB: u64 = 160;

fn place_with_disk(what: &str) -> Option<(Place, SmallDisk)> {
    let place = Place::new("full");
    let disk = SmallDisk::new(what, &place, DISK_MIB)?;
    // The journal is written past the page cache; a tmpfs of an older kernel cannot do that.
    let probe = rustix::fs::open(
        place.data().join("probe"),
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::DIRECT,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    if let Err(error) = probe {
        skip(what, &format!("no O_DIRECT on tmpfs: {error}"));
        return None;
    }
    place.account("add demo --bind-limit 0 --any-source --number 12125550100");
    place.account("add other --bind-limit 0 --any-source");
    Some((place, disk))
}

/// What a message to a destination is answered with.
fn status(esme: &mut Esme, text: &str) -> CommandStatus {
    esme.ask(&Pdu::SubmitSm(message(DELIVERED, text))).status
}

#[test]
fn a_disk_that_fills_under_load_refuses_submissions_and_nothing_else() {
    let Some((place, disk)) = place_with_disk("a full disk") else { return };
    let launch = place.server().settings(SETTINGS);
    let server = launch.start();
    let begin = || Ledger { may_be_refused: &[CommandStatus::ESME_RMSGQFUL], ..Ledger::default() };
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER).into();
    let receivers = vec![Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER)];
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let waiting = esme.submit(&message(NEVER_TAKEN, "waiting"));
    let ledger = load_with(begin, sessions, receivers, server, 0, 600, |server| {
        disk.fill(4);
        let full = CommandStatus::ESME_RMSGQFUL;
        eventually("refusals", || (status(&mut esme, "probe") == full).then_some(()));
        eventually("a word", || server.log().contains("no message is accepted").then_some(()));
        // What is not a submission goes on.
        assert_eq!(esme.query(&waiting).message_state(), 1, "ENROUTE");
        let cancel = CancelSm {
            service_type: b"",
            message_id: waiting.as_bytes(),
            source: international(NUMBER),
            destination: ANYBODY,
            tlvs: Tlvs::EMPTY,
        };
        assert_eq!(esme.ask(&Pdu::CancelSm(cancel)).status, CommandStatus::ESME_ROK);
        // For longer than blocks wait to be put to rest.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(status(&mut esme, "probe"), full);
        assert!(!server.log().contains("stopped accepting"), "a partition has failed: {}", server.log());
        disk.free();
        let rok = CommandStatus::ESME_ROK;
        eventually("success again", || (status(&mut esme, "probe") == rok).then_some(()));
        assert!(server.stop().success());
    });
    assert!(!ledger.accepted.is_empty() && !ledger.refused.is_empty());
    let mut ledger = ledger;
    // Our own probes and the message that was cancelled.
    ledger.sent.extend(["probe".to_owned(), "waiting".to_owned()]);
    let receipts = std::mem::take(&mut ledger.receipts);
    ledger.receipts =
        receipts.into_iter().filter(|((text, _), _)| text != "probe" && text != "waiting").collect();
    check_all(&launch, ledger);
}

#[test]
fn a_start_on_a_full_disk_says_what_is_missing_and_succeeds_when_there_is_room() {
    let Some((place, disk)) = place_with_disk("a start on a full disk") else { return };
    let launch = place.server().settings(SETTINGS);
    // Nothing there yet, and no room for it.
    disk.fill(20);
    let output = launch.fails();
    assert_eq!(output.status.code(), Some(1));
    let said = complaint(&output);
    assert!(said.contains("No space left on device") && said.contains("24 MiB of free space"), "{said}");
    disk.free();
    let server = launch.start();
    let mut esme = Esme::bound(&server, "demo");
    let id = esme.submit(&message(DELIVERED, "there is room"));
    drop(esme);
    server.kill();
    // Everything there, and no room for more: what is there is served, and nothing is taken.
    disk.fill(0);
    let server = launch.start();
    eventually("a word", || server.log().contains("no message is accepted").then_some(()));
    let mut esme = Esme::bound(&server, "demo");
    assert_eq!(status(&mut esme, "no room"), CommandStatus::ESME_RMSGQFUL);
    assert_eq!(esme.unknown_of(&[&id]), [""; 0]);
    disk.free();
    eventually("room", || (status(&mut esme, "probe") == CommandStatus::ESME_ROK).then_some(()));
    drop(esme);
    assert!(server.stop().success());
}
