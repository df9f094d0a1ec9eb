//! One octet of a stopped data directory is not what it was: the start refuses and names the place, or
//! everything that was acknowledged is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use smppd::pdu::{CommandId, ShortMessage};

use crate::support::esme::{DELIVERED, Esme, message};
use crate::support::load::{Ledger, Mix};
use crate::support::rounds::{SETTINGS, load_with, place};
use crate::support::{Dice, Launch, Place, Server, flip, rounds};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            // A server that was killed leaves its socket.
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::copy(&file, target).expect("a copy");
    }
}

/// A server that writes over its journal as soon as can be.
fn launch(place: &Place) -> Launch<'_> {
    // Belongs to `[journal]`.
    place.server().settings("checkpoint_segments = 1\n").settings(SETTINGS)
}

/// What became of one flip.
#[derive(Debug)]
enum Outcome {
    /// The start refused, and said this.
    Refused(String),
    /// It started, and everything is there: messages, and the receipts that had not come.
    Complete,
    /// It started, and so many messages or receipts are not there.
    Lost(usize, String),
}

fn outcome(launch: &Launch<'_>, ledger: &Ledger) -> Outcome {
    let server = match launch.starts_or_fails() {
        Ok(server) => server,
        Err(said) => {
            // Whoever supervises it starts it again at once; that must not be how the damage is passed over.
            assert!(launch.starts_or_fails().is_err(), "refused once, and then started: {said}");
            return Outcome::Refused(said);
        }
    };
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut lost = esme.unknown_of(&ledger.ids());
    drop(esme);
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let (_, missing) = ledger.read_missing(&mut receiver);
    lost.extend(missing.into_iter().map(|message| format!("the receipt of {message}")));
    drop(receiver);
    let log = server.log();
    server.kill();
    if lost.is_empty() { Outcome::Complete } else { Outcome::Lost(lost.len(), log) }
}

/// A stopped data directory with messages in the journal and at rest, and a copy of it.
fn prepared(name: &str, mix: Mix, end: impl FnOnce(Server)) -> (Place, PathBuf, Ledger) {
    let place = place(name);
    let launch = launch(&place);
    let mut ledger = Ledger::default();
    // A life before this one, so that something is at rest and there is a snapshot of sled's.
    let ends: [Box<dyn FnOnce(Server)>; 2] =
        [Box::new(|server| assert!(server.stop().success())), Box::new(end)];
    for (round, end) in ends.into_iter().enumerate() {
        let server = launch.start();
        let begin = || Ledger { mix, ..Ledger::default() };
        let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER).into();
        let messages = if mix == Mix::Heavy { 4_000 } else { 600 };
        ledger.absorb(load_with(begin, sessions, Vec::new(), server, round, messages, end));
    }
    let whole = place.path("whole");
    copy(&place.data(), &whole);
    (place, whole, ledger)
}

/// Flips octets one at a time, each in a fresh copy.
fn flip_and_look(
    (place, whole, ledger): (Place, PathBuf, Ledger),
    kind: &str,
    count: usize,
    may_lose: impl Fn(&Place, &Path, usize) -> bool,
) {
    let launch = launch(&place);
    let mut dice = Dice::new();
    // Each file as often as each other, at a place that holds something: zeros are no part of anything.
    let holds_something = |file: &PathBuf| fs::read(file).expect("a file").iter().any(|octet| *octet != 0);
    let files = files(&whole).into_iter().filter(|file| file.to_string_lossy().contains(kind));
    let parts: Vec<PathBuf> = files.filter(holds_something).collect();
    let mut lost = Vec::new();
    for number in 0..count {
        let file = &parts[number % parts.len()];
        let octets = fs::read(file).expect("a file");
        let used: Vec<usize> = (0..octets.len()).filter(|&offset| octets[offset] != 0).collect();
        let offset = used[dice.below(used.len() as u64) as usize];
        copy(&whole, &place.data());
        let name = file.strip_prefix(&whole).expect("below");
        flip(&place.data().join(name), offset);
        let shown = name.display();
        println!("{shown} at {offset}:");
        let outcome = outcome(&launch, &ledger);
        match outcome {
            Outcome::Complete => println!("    complete"),
            Outcome::Refused(said) => {
                println!("    refused: {said}");
                // The last word is ours, whatever a library said before.
                let last = said.lines().rfind(|line| line.starts_with("smppd: ")).unwrap_or_default();
                let partition = &shown.to_string()[.."partition-000".len()];
                assert!(
                    last.replace("partition ", "partition-").contains(partition),
                    "the place is not named: {said}"
                );
            }
            Outcome::Lost(unknown, log) => {
                println!("    {unknown} for {} messages LOST: {log}", ledger.ids().len());
                if !may_lose(&place, &whole.join(name), offset) {
                    lost.push(format!("{unknown} after {shown} at {offset}: {log}"));
                }
            }
        }
    }
    assert!(lost.is_empty(), "LOST: {lost:?}");
}

#[test]
fn a_flipped_octet_after_an_orderly_stop_is_named_or_harmless() {
    let stop = |server: Server| assert!(server.stop().success());
    flip_and_look(prepared("flips", Mix::Plain, stop), "partition-", rounds(20), |_, _, _| false);
}

/// Whether an octet of a journal file lies in the last batch of all: one that is damaged cannot be told from one that was
/// being written when the server was killed.
fn is_in_last_batch(file: &Path, offset: usize) -> bool {
    let is_journal = |file: &Path| file.extension().is_some_and(|extension| extension == "log");
    // A batch begins with four octets of its own, and has the number of its segment behind eight others.
    let segment = |octets: &[u8]| {
        octets.get(16..24).map(|number| u64::from_le_bytes(number.try_into().expect("eight")))
    };
    let newest = files(file.parent().expect("a folder")).into_iter().filter(|file| is_journal(file));
    let newest = newest.max_by_key(|file| segment(&fs::read(file).expect("a file")));
    if !is_journal(file) || newest.as_deref() != Some(file) {
        return false;
    }
    let octets = fs::read(file).expect("a file");
    let own = segment(&octets);
    let begins = |at: &usize| octets[*at..].starts_with(&octets[..4]) && segment(&octets[*at..]) == own;
    (0..octets.len()).step_by(4096).rfind(begins).is_some_and(|last| offset >= last)
}

#[test]
fn a_flipped_octet_after_a_kill_is_named_or_harmless_but_in_the_last_batch() {
    let prepared = prepared("flips-killed", Mix::Plain, Server::kill);
    flip_and_look(prepared, "partition-", rounds(20), |_, file, offset| is_in_last_batch(file, offset));
}

/// Whether `smppd store verify` says that blocks are missing.
fn is_found_by_verify(place: &Place) -> bool {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_smppd"));
    let output =
        verify.args(["store", "verify", "--data-dir"]).arg(place.data()).output().expect("smppd runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("    {said}");
    !output.status.success() && said.contains(" found")
}

/// The journal has come round, so that some messages are nowhere but at rest. sled passes over a page that it cannot read
/// without a word: messages that are over may then be lost to query_sm, and a start does not read them.
#[test]
fn a_flipped_octet_of_the_state_at_rest_is_named_or_harmless_or_found_by_verify() {
    let stop = |server: Server| assert!(server.stop().success());
    let prepared = prepared("flips-rest", Mix::Heavy, stop);
    flip_and_look(prepared, "/state/", rounds(20), |place, _, _| is_found_by_verify(place));
}

/// The first octets of sled's file say where its log begins.
#[test]
fn a_database_whose_beginning_is_damaged_is_not_taken_for_an_empty_one() {
    let (place, whole, ledger) = prepared("flips-first", Mix::Plain, Server::kill);
    let launch = launch(&place);
    for offset in [0, 10, 18, 42] {
        copy(&whole, &place.data());
        flip(&place.data().join("partition-001/state/db"), offset);
        match outcome(&launch, &ledger) {
            Outcome::Complete => {}
            Outcome::Refused(said) => assert!(said.contains("partition-001/state: "), "{said}"),
            Outcome::Lost(unknown, log) => panic!("LOST: {unknown} after {offset}: {log}"),
        }
    }
}

#[test]
fn the_last_batch_before_an_orderly_stop_is_not_taken_for_a_torn_one() {
    let place = place("flips-last");
    let launch = place.server().settings(SETTINGS).cores(1);
    let server = launch.start();
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    // The last record there is: nothing happens to it any more.
    let tomorrow = b"000001000000000R";
    let scheduled = ShortMessage { schedule_delivery_time: tomorrow, ..message(DELIVERED, "the last one") };
    let id = esme.submit(&scheduled);
    drop(esme);
    assert!(server.stop().success());
    let file = place.journal(0).remove(0);
    let octets = fs::read(&file).expect("a file");
    let begins = |offset: &usize| octets[*offset..].starts_with(&octets[..4]);
    let last = (0..octets.len()).step_by(4096).rfind(begins).expect("a batch");
    // Behind the header, in the record.
    flip(&file, last + 60);
    let mut ledger = Ledger::default();
    ledger.accepted.insert("the last one".to_owned(), id);
    let outcome = outcome(&launch, &ledger);
    println!("{outcome:?}");
    match outcome {
        Outcome::Complete => {}
        Outcome::Refused(said) => assert!(said.contains("segment-000.log"), "{said}"),
        Outcome::Lost(unknown, log) => panic!("LOST: {unknown}: {log}"),
    }
}
