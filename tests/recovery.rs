//! What was promised is kept, however the server ended.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use smppd::pdu::{CancelSm, CommandId, CommandStatus, Pdu, ShortMessage, Tlvs};

use support::esme::{DELIVERED, Esme, NUMBER, Next, international, message};
use support::load::Ledger;
use support::rounds::{Rounds, SETTINGS, WINDOW, check_all, load, load_on, place};
use support::{Place, Server, complaint, eventually, flip};

#[test]
fn durability_os_survives_kill_too() {
    let place = place("killed-os");
    let launch = place.server().settings(SETTINGS).argument("--durability=os");
    Rounds::of(3).run(&launch, Server::kill);
}

#[test]
fn a_stop_with_traffic_loses_nothing_and_exits_with_0() {
    let place = place("stopped");
    let launch = place.server().settings(SETTINGS);
    let mut ledger = Ledger::default();
    for round in 0..3 {
        let stop = |server: Server| assert!(server.stop().success());
        ledger.absorb(load(launch.start(), round, 600, stop));
    }
    check_all(&launch, ledger);
}

#[test]
fn everything_is_there_with_another_number_of_cores() {
    let place = place("cores");
    let mut ledger = Ledger::default();
    for (round, cores) in [2, 1, 2].into_iter().enumerate() {
        let launch = place.server().settings(SETTINGS).cores(cores);
        let server = launch.start();
        let mut query = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
        assert_eq!(query.unknown_of(&ledger.ids()), [""; 0], "with {cores} cores");
        ledger.absorb(if cores == 1 {
            load_on(vec![Esme::bound(&server, "demo")], server, round, 400, Server::kill)
        } else {
            load(server, round, 400, Server::kill)
        });
    }
    check_all(&place.server().settings(SETTINGS).cores(1), ledger);
}

/// A killed server's journal that holds at least a few batches in its first file.
fn journal_with_batches(place: &Place) -> Ledger {
    let launch = place.server().settings(SETTINGS).cores(1);
    let server = launch.start();
    let mut esme = Esme::bound(&server, "demo");
    let mut ledger = Ledger::default();
    for round in 0..5 {
        // Waiting for the answers makes batches of their own.
        let stop = AtomicBool::new(false);
        let mut part = Ledger::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(30));
                stop.store(true, Ordering::Relaxed);
            });
            part.run(&mut esme, &format!("j{round}"), WINDOW, &stop);
        });
        ledger.absorb(part);
    }
    server.kill();
    ledger
}

/// Offsets of the batches in a journal file: each begins on a block of its own with the same magic.
fn batches(path: &Path) -> Vec<usize> {
    let octets = fs::read(path).expect("a file");
    let magic = octets[..4].to_vec();
    (0..octets.len()).step_by(4096).filter(|&offset| octets[offset..].starts_with(&magic)).collect()
}

/// Where the first record of a batch begins, behind its header. The shortest record is longer than this adds;
/// what follows the last one only fills the block, and no damage there is any.
const IN_A_RECORD: usize = 52 + 4;

#[test]
fn a_damaged_batch_before_a_whole_one_is_named_and_stops_the_start() {
    let place = place("damaged");
    journal_with_batches(&place);
    let file = place.journal(0).remove(0);
    let batches = batches(&file);
    assert!(batches.len() > 4, "{batches:?}");
    let damaged = batches[batches.len() / 2];
    flip(&file, damaged + IN_A_RECORD);
    let output = place.server().cores(1).fails();
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    for part in [&*name, &format!("offset {damaged}"), "damaged"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
    flip(&file, damaged + IN_A_RECORD);
    assert!(place.server().cores(1).start().stop().success(), "put right, it starts again");
}

#[test]
fn a_torn_last_batch_is_cut_and_the_rest_is_kept() {
    let place = place("torn");
    let ledger = journal_with_batches(&place);
    let file = place.journal(0).remove(0);
    let last = *batches(&file).last().expect("a batch");
    flip(&file, last + IN_A_RECORD);
    let server = place.server().settings(SETTINGS).cores(1).start();
    // The log has a thread of its own: its lines may come after the server is ready.
    let said = "a batch was being written when the server stopped";
    eventually("the torn batch is named", || server.log().contains(said).then_some(()));
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    // What the last batch held is at most one window's worth: the others were answered before.
    let unknown = esme.unknown_of(&ledger.ids());
    assert!(unknown.len() <= WINDOW, "{} of {} are gone", unknown.len(), ledger.ids().len());
    match esme.next_within(Duration::ZERO) {
        Next::Silence => {}
        other => panic!("{other:?}"),
    }
    assert!(server.stop().success());
}

/// Without syncs, a power cut may take the end of the journal, and leave what was put to rest after it. What comes next is
/// numbered behind all that is at rest, or the next start takes it for older.
#[test]
fn what_comes_behind_a_lost_end_of_the_journal_counts() {
    let place = place("lost-end");
    let launch = place.server().settings(SETTINGS).cores(1).argument("--durability=os");
    let tomorrow = b"000001000000000R";
    let scheduled = ShortMessage { schedule_delivery_time: tomorrow, ..message(DELIVERED, "tomorrow") };
    let server = launch.start();
    let canceled = Esme::bound(&server, "demo").submit(&scheduled);
    assert!(server.stop().success());
    // A segment of its own: the stop puts what is in the one before to rest.
    let server = launch.start();
    let mut esme = Esme::bound(&server, "demo");
    for _ in 0..20 {
        esme.submit(&scheduled);
    }
    drop(esme);
    assert!(server.stop().success());
    let newest = place.journal(0).remove(1);
    let batches = batches(&newest);
    assert!(batches.len() > 10, "{batches:?}");
    let mut octets = fs::read(&newest).expect("a file");
    octets[batches[1]..].fill(0);
    fs::write(&newest, octets).expect("written");

    let server = launch.start();
    let said = "what came between is lost";
    eventually("the loss is named", || server.log().contains(said).then_some(()));
    let mut esme = Esme::bound(&server, "demo");
    let cancel = CancelSm {
        service_type: b"",
        message_id: canceled.as_bytes(),
        source: international(NUMBER),
        destination: international(DELIVERED),
        tlvs: Tlvs::EMPTY,
    };
    assert_eq!(esme.ask(&Pdu::CancelSm(cancel)).status, CommandStatus::ESME_ROK);
    server.kill();
    let server = launch.start();
    assert_eq!(Esme::bound(&server, "demo").query(&canceled).message_state(), 4, "DELETED");
}

/// The size of the segment files in these tests.
const SEGMENT_OCTETS: u64 = 8 << 20;

fn set_length(path: &Path, octets: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len(octets).expect("a length");
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").len()
}

#[test]
fn a_journal_file_that_was_not_whole_when_the_server_ended_is_made_again() {
    let place = place("short");
    let ledger = journal_with_batches(&place);
    let files = place.journal(0);
    assert_eq!(files.len(), 3);
    set_length(&files[1], 3 << 20);
    set_length(&files[2], 0);
    // One that holds something is of another setting: it is read, and nothing of it is lost.
    let used = batches(&files[0]).last().expect("a batch") + (1 << 20);
    set_length(&files[0], used as u64);
    let launch = place.server().settings(SETTINGS).cores(1);
    for _ in 0..2 {
        let server = launch.start();
        assert!(files[1..].iter().all(|file| length(file) == SEGMENT_OCTETS), "not whole");
        let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
        assert_eq!(esme.unknown_of(&ledger.ids()), [""; 0]);
        server.kill();
    }
}

#[test]
fn a_short_journal_file_before_one_that_holds_something_stays() {
    let place = place("between");
    let ledger = journal_with_batches(&place);
    let files = place.journal(0);
    fs::rename(&files[1], place.path("free")).expect("renamed");
    fs::rename(&files[0], &files[1]).expect("renamed");
    fs::rename(place.path("free"), &files[0]).expect("renamed");
    set_length(&files[0], 3 << 20);
    let server = place.server().settings(SETTINGS).cores(1).start();
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    assert_eq!(esme.unknown_of(&ledger.ids()), [""; 0]);
    // The files are used in turn, the short one among them, and it grows.
    esme.submit(&message(DELIVERED, "one more"));
    drop(esme);
    assert!(server.stop().success());
}
