//! One octet of a stopped data directory is not what it was: the start refuses and names the place, or
//! everything that was acknowledged is there.

use std::fs;
use std::path::{Path, PathBuf};

use smppd::pdu::CommandId;

use crate::support::esme::Esme;
use crate::support::load::{Ledger, Mix};
use crate::support::rounds::{SETTINGS, load_with, place};
use crate::support::{Dice, Launch, Place, Server, flip, rounds};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
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

/// What became of one flip.
#[derive(Debug)]
enum Outcome {
    /// The start refused, and said this.
    Refused(String),
    /// It started, and everything is there.
    Complete,
    /// It started, and so many are unknown.
    Lost(usize, String),
}

fn outcome(launch: &Launch<'_>, ledger: &Ledger) -> Outcome {
    let Some(server) = launch.starts_or_fails() else {
        return Outcome::Refused(crate::support::complaint(&launch.fails()));
    };
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let unknown = esme.unknown_of(&ledger.ids());
    drop(esme);
    let log = server.log();
    server.kill();
    if unknown.is_empty() { Outcome::Complete } else { Outcome::Lost(unknown.len(), log) }
}

/// A stopped data directory with messages in the journal and at rest, and a copy of it.
fn prepared(name: &str, end: impl FnOnce(Server)) -> (Place, PathBuf, Ledger) {
    let place = place(name);
    let launch = place.server().settings(SETTINGS);
    let mut ledger = Ledger::default();
    // A life before this one, so that something is at rest and there is a snapshot of sled's.
    let ends: [Box<dyn FnOnce(Server)>; 2] =
        [Box::new(|server| assert!(server.stop().success())), Box::new(end)];
    for (round, end) in ends.into_iter().enumerate() {
        let server = launch.start();
        let begin = || Ledger { mix: Mix::Plain, ..Ledger::default() };
        let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER).into();
        let time = std::time::Duration::from_millis(300);
        ledger.absorb(load_with(begin, sessions, Vec::new(), server, round, time, end));
    }
    let whole = place.path("whole");
    copy(&place.data(), &whole);
    (place, whole, ledger)
}

/// Flips octets one at a time, each in a fresh copy.
fn flip_and_look(name: &str, end: impl FnOnce(Server), count: usize, may_lose: impl Fn(&Path) -> bool) {
    let (place, whole, ledger) = prepared(name, end);
    let launch = place.server().settings(SETTINGS);
    let mut dice = Dice::new();
    // Each file as often as each other, at a place that holds something: zeros are no part of anything.
    let parts: Vec<PathBuf> =
        files(&whole).into_iter().filter(|file| file.to_string_lossy().contains("partition-")).collect();
    for number in 0..count {
        let file = &parts[number % parts.len()];
        let octets = fs::read(file).expect("a file");
        let used: Vec<usize> = (0..octets.len()).filter(|&offset| octets[offset] != 0).collect();
        if used.is_empty() {
            continue;
        }
        let offset = used[dice.below(used.len() as u64) as usize];
        copy(&whole, &place.data());
        let name = file.strip_prefix(&whole).expect("below");
        flip(&place.data().join(name), offset);
        let outcome = outcome(&launch, &ledger);
        let shown = name.display();
        match outcome {
            Outcome::Complete => println!("{shown} at {offset}: complete"),
            Outcome::Refused(said) => {
                println!("{shown} at {offset}: refused: {said}");
                let partition = &shown.to_string()[.."partition-000".len()];
                assert!(said.contains(partition), "the place is not named: {said}");
                assert!(!said.contains("panicked"), "{shown} at {offset}: {said}");
            }
            Outcome::Lost(unknown, log) => {
                println!("{shown} at {offset}: {unknown} of {} LOST: {log}", ledger.ids().len());
                assert!(may_lose(name), "LOST: {unknown} after {shown} at {offset}: {log}");
            }
        }
    }
}

#[test]
fn a_flipped_octet_after_an_orderly_stop_is_named_or_harmless() {
    let stop = |server: Server| assert!(server.stop().success());
    flip_and_look("flips", stop, rounds(20), |_| false);
}

#[test]
fn a_flipped_octet_after_a_kill_is_named_or_harmless_but_in_the_last_batch() {
    // A batch that is damaged and the last of its segment cannot be told from one that was being written.
    let is_journal = |file: &Path| file.extension().is_some_and(|extension| extension == "log");
    flip_and_look("flips-killed", Server::kill, rounds(20), is_journal);
}
