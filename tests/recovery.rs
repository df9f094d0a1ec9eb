//! What was promised is kept, however the server ended.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use smppd::pdu::CommandId;

use support::esme::{DELIVERED, Esme, Next, message};
use support::load::Ledger;
use support::{Launch, Place, Server, complaint, eventually, flip};

const SETTINGS: &str = "
[session]
window_out_max = 100
[messages]
deliver_retry_delay_min_seconds = 0.2
deliver_retry_delay_max_seconds = 1
[carrier.simulator]
kind = \"simulator\"
delay_min_millis = 1
delay_max_millis = 200
";
const WINDOW: usize = 50;

fn place(name: &str) -> Place {
    let place = Place::with_demo(name);
    place.account("add other --bind-limit 0 --any-source");
    place
}

/// Two sessions submit for a while; then something happens to the server. What they sent and heard.
fn load(server: Server, round: usize, time: Duration, then: impl FnOnce(Server)) -> Ledger {
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER);
    load_on(sessions.into(), server, round, time, then)
}

fn load_on(
    sessions: Vec<Esme>,
    server: Server,
    round: usize,
    time: Duration,
    then: impl FnOnce(Server),
) -> Ledger {
    let mut bystander = Esme::bound_as(&server, "other", CommandId::BIND_RECEIVER);
    let loads: Vec<_> = (0..)
        .zip(sessions)
        .map(|(number, mut esme)| {
            thread::spawn(move || {
                let mut ledger = Ledger::default();
                ledger.run(&mut esme, &format!("{round}-{number}"), WINDOW, &AtomicBool::new(false));
                ledger
            })
        })
        .collect();
    let bystander = thread::spawn(move || gets_nothing(&mut bystander));
    thread::sleep(time);
    then(server);
    let mut ledger = Ledger::default();
    for load in loads {
        ledger.absorb(load.join().expect("a load that ran"));
    }
    bystander.join().expect("a bystander");
    ledger
}

/// Waits for the end of a session to which nothing belongs.
fn gets_nothing(bystander: &mut Esme) {
    for pdu in bystander.until_closed() {
        assert_eq!(pdu.command_id, CommandId::UNBIND, "another account got {pdu:?}");
    }
}

/// Every accepted message is known on every core, and has its receipt.
fn check_all(launch: &Launch<'_>, mut ledger: Ledger) {
    ledger.check();
    let server = launch.start();
    let mut bystander = Esme::bound_as(&server, "other", CommandId::BIND_RECEIVER);
    // A receiver first: sessions that submit must not be given receipts.
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    ledger.collect(&mut receiver);
    ledger.check();
    all_are_known(&server, &ledger.ids());
    drop(receiver);
    let bystander = thread::spawn(move || gets_nothing(&mut bystander));
    assert!(server.stop().success());
    bystander.join().expect("a bystander");
}

/// Asks for every message, on several connections.
fn all_are_known(server: &Server, ids: &[&str]) {
    let mut sessions = [(); 6].map(|()| Esme::bound_as(server, "demo", CommandId::BIND_TRANSMITTER));
    for (esme, ids) in sessions.iter_mut().zip(ids.chunks(ids.len().div_ceil(6).max(1))) {
        assert_eq!(esme.unknown_of(ids), [""; 0]);
    }
}

/// Rounds of load, each ended by kill -9 and followed by a look at what the round before left.
fn kill_again_and_again(place: &Place, launch: &Launch<'_>, rounds: usize) {
    let mut total = Ledger::default();
    let mut last = Ledger::default();
    for round in 0..rounds {
        let server = launch.start();
        let [mut one, mut other] = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
        // The ids are in no order: each core is asked about messages of its own and of the other.
        let ids = last.ids();
        let (half, rest) = ids.split_at(ids.len() / 2);
        assert_eq!(one.unknown_of(half), [""; 0], "after round {round}");
        assert_eq!(other.unknown_of(rest), [""; 0], "after round {round}");
        drop((one, other));
        let time = Duration::from_millis(150 + 37 * round as u64 % 150);
        total.absorb(std::mem::take(&mut last));
        last = load(server, round, time, Server::kill);
        assert!(!last.accepted.is_empty(), "nothing was accepted in round {round}");
    }
    total.absorb(last);
    assert!(fs::exists(place.data()).expect("a directory"));
    check_all(launch, total);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let place = place("killed");
    kill_again_and_again(&place, &place.server().settings(SETTINGS), 20);
}

#[test]
fn durability_os_survives_kill_too() {
    let place = place("killed-os");
    let launch = place.server().settings(SETTINGS).argument("--durability=os");
    kill_again_and_again(&place, &launch, 3);
}

#[test]
fn a_stop_with_traffic_loses_nothing_and_exits_with_0() {
    let place = place("stopped");
    let launch = place.server().settings(SETTINGS);
    let mut ledger = Ledger::default();
    for round in 0..3 {
        let stop = |server: Server| assert!(server.stop().success());
        ledger.absorb(load(launch.start(), round, Duration::from_millis(300), stop));
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
        let time = Duration::from_millis(200);
        ledger.absorb(if cores == 1 {
            load_on(vec![Esme::bound(&server, "demo")], server, round, time, Server::kill)
        } else {
            load(server, round, time, Server::kill)
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
