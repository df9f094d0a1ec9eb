//! `smppd store`: what it says of a data directory is what customers did, and nothing is changed by asking.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use smppd::message::MessageId;
use smppd::pdu::{CommandId, CommandStatus, DataCoding, ShortMessage};

use support::esme::{DELIVERED, Esme, NEVER_TAKEN, message};
use support::load::Ledger;
use support::{Place, Server, complaint, eventually, flip};

const SETTINGS: &str = "
[session]
window_out_max = 100
[carrier.simulator]
kind = \"simulator\"
delay_min_millis = 0
delay_max_millis = 20
";

fn store_in(data: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
    command.arg("store").args(line.split_whitespace()).arg("--data-dir").arg(data);
    command.output().expect("smppd runs")
}

fn store(place: &Place, line: &str) -> Output {
    store_in(&place.data(), line)
}

/// What a command that must succeed prints.
fn ok(place: &Place, line: &str) -> String {
    let output = store(place, line);
    let complaint = complaint(&output);
    // On a machine that is busy it may tell how far it is.
    let is_progress = |line: &str| line.starts_with("partition ") && line.contains(": reading ");
    let complaints: Vec<&str> = complaint.lines().filter(|line| !is_progress(line)).collect();
    let printed = out(&output);
    assert_eq!((output.status.code(), complaints), (Some(0), Vec::new()), "{line}: {printed}");
    printed
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn json(place: &Place, line: &str) -> Value {
    serde_json::from_str(&ok(place, line)).expect("JSON")
}

/// Every line of an export.
fn export(place: &Place, what: &str) -> Vec<Value> {
    let text = ok(place, &format!("export --what {what}"));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts<'a>(lines: &'a [Value], kind: &str, name: &str) -> Vec<&'a str> {
    let lines = lines.iter().filter(|line| line["kind"] == kind);
    lines.map(|line| line[name].as_str().expect("a text")).collect()
}

/// Every file below a folder with its octets.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&path)),
            Ok(metadata) if metadata.is_file() => {
                _ = found.insert(path.clone(), fs::read(&path).expect("a file"));
            }
            Ok(_) | Err(_) => _ = found.insert(path, Vec::new()),
        }
    }
    found
}

/// What a customer did, and has not heard of.
struct Done {
    confirmed: Vec<String>,
    unconfirmed: Vec<String>,
    waiting: Vec<String>,
    failed: Vec<String>,
}

impl Done {
    fn on(server: &Server) -> Self {
        let mut esme = Esme::bound(server, "demo");
        let submit = |esme: &mut Esme, to: &str, count: usize| -> Vec<String> {
            (0..count).map(|number| esme.submit(&message(to, &format!("number {number}")))).collect()
        };
        let confirmed = submit(&mut esme, DELIVERED, 40);
        esme.receipts_of(&confirmed.iter().cloned().collect());
        let failed = submit(&mut esme, "9995034", 5);
        esme.receipts_of(&failed.iter().cloned().collect());
        esme.ask(&smppd::pdu::Pdu::Unbind);
        let mut esme = Esme::bound_as(server, "demo", CommandId::BIND_TRANSMITTER);
        let unconfirmed = submit(&mut esme, DELIVERED, 30);
        let waiting = submit(&mut esme, NEVER_TAKEN, 7);
        eventually("all are over", || {
            unconfirmed.iter().all(|id| esme.query(id).message_state() == 2).then_some(())
        });
        Self { confirmed, unconfirmed, waiting, failed }
    }

    fn check(&self, place: &Place) {
        let all = json(place, "inspect --json");
        let total = &all["total"];
        let unfinished = total["unfinished"].as_object().expect("an object");
        let unfinished: u64 = unfinished.values().map(|count| count.as_u64().expect("a number")).sum();
        assert_eq!(unfinished, self.waiting.len() as u64, "{total}");
        let delivered = self.confirmed.len() + self.unconfirmed.len();
        assert_eq!(total["finals"]["DELIVERED"]["messages"], delivered, "{total}");
        assert_eq!(total["finals"]["UNDELIVERABLE"]["messages"], self.failed.len(), "{total}");
        assert_eq!(total["pending"]["demo"]["receipts"], self.unconfirmed.len(), "{total}");
        let credits = delivered + self.failed.len() + self.waiting.len();
        assert_eq!(total["credits_used"]["demo"], credits, "{total}");

        let lines = export(place, "all");
        let sorted = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let of = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&texts(&lines, "message", "message_id")), of(&self.waiting));
        assert_eq!(sorted(&texts(&lines, "receipt", "id")), of(&self.unconfirmed));
        let finals = texts(&lines, "final", "message_id");
        assert_eq!(finals.len(), delivered + self.failed.len(), "each once");
        let mut over = of(&self.confirmed);
        over.extend(of(&self.unconfirmed));
        over.extend(of(&self.failed));
        assert_eq!(sorted(&finals), over);
        assert_eq!(export(place, "unfinished").len(), self.waiting.len());
        assert_eq!(export(place, "receipts").len(), self.unconfirmed.len());
        assert_eq!(export(place, "final").len(), finals.len());

        let verdict = json(place, "verify --json");
        assert_eq!(verdict["is_well"], true, "{verdict}");

        let life = ok(place, &format!("dump {}", self.confirmed[0]));
        for part in [
            "accepted",
            "taken by its carrier",
            "over: DELIVERED",
            "receipt confirmed",
            "segment-0",
            "number 0",
        ] {
            assert!(life.contains(part), "{part}: {life}");
        }
        assert!(life.contains("its receipt is confirmed"), "{life}");
        let life = ok(place, &format!("dump {}", self.unconfirmed[3]));
        for part in ["over: DELIVERED", "its receipt waits to be confirmed", "stat:DELIVRD", "number 3"] {
            assert!(life.contains(part), "{part}: {life}");
        }
        let life = json(place, &format!("dump --json {}", self.waiting[0]));
        assert!(life["messages"][0]["now"].as_str().expect("a text").contains("due"), "{life}");
        assert_eq!(life["contents"][0]["destination_addr"], NEVER_TAKEN);
    }
}

#[test]
fn a_stopped_store_says_what_customers_did_and_stays_as_it_is() {
    let place = Place::with_demo("store-stopped");
    let server = place.server().settings(SETTINGS).start();
    let done = Done::on(&server);
    assert!(place.data().join("control.sock").exists());
    assert!(server.stop().success());
    assert!(!place.data().join("control.sock").exists(), "removed with its server");
    let before = files(&place.data());
    done.check(&place);
    assert!(files(&place.data()) == before, "something was changed");
    let text = ok(&place, "inspect");
    for part in
        ["partition 000", "partition 001", "journal", "DELIVERED", "UNFINISHED", "demo", "all 2 partitions"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(" times the "), "sled's files have a size of their own: {text}");
    assert!(!ok(&place, "inspect --partition 1").contains("partition 000"));
    assert!(place.server().settings(SETTINGS).start().stop().success(), "it starts again");
}

#[test]
fn a_backup_that_cannot_be_written_can_be_read() {
    let place = Place::with_demo("store-backup");
    let server = place.server().settings(SETTINGS).start();
    let done = Done::on(&server);
    assert!(server.stop().success());
    let paths = || files(&place.data()).into_keys();
    fs::remove_file(place.data().join("LOCK")).expect("removed");
    let set = |mode: u32| {
        paths().for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set"));
    };
    set(0o444);
    fs::set_permissions(place.data(), fs::Permissions::from_mode(0o555)).expect("set");
    done.check(&place);
    fs::set_permissions(place.data(), fs::Permissions::from_mode(0o755)).expect("set");
    assert!(!place.data().join("LOCK").exists());
}

#[test]
fn a_killed_store_and_a_live_one_say_the_same() {
    let place = Place::with_demo("store-killed");
    let server = place.server().settings(SETTINGS).start();
    let done = Done::on(&server);
    let mode = fs::metadata(place.data().join("control.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    done.check(&place);
    server.kill();
    let before = files(&place.data());
    done.check(&place);
    assert!(files(&place.data()) == before, "something was changed");
    let server = place.server().settings(SETTINGS).start();
    done.check(&place);
    assert!(server.stop().success());
    done.check(&place);
}

/// Stops a load when it goes, however that comes about.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_store_under_load_is_well_and_agrees_with_the_ledger() {
    let place = Place::with_demo("store-live");
    let server = place.server().settings(SETTINGS).start();
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER);
    let stop = AtomicBool::new(false);
    let mut ledger = Ledger::default();
    thread::scope(|scope| {
        let stops = Stops(&stop);
        let loads: Vec<_> = (0..)
            .zip(sessions)
            .map(|(number, mut esme)| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut ledger = Ledger::default();
                    ledger.run(&mut esme, &format!("l{number}"), 50, stop);
                    ledger
                })
            })
            .collect();
        // A client that says nothing, one that takes nothing, and one that talks nonsense are in nobody's way.
        let socket = place.data().join("control.sock");
        let mut nonsense = UnixStream::connect(&socket).expect("a connection");
        std::io::Write::write_all(&mut nonsense, b"GET / HTTP/1.1\r\n\r\n").expect("taken");
        for _ in 0..5 {
            let verdict = json(&place, "verify --json");
            assert_eq!(verdict["is_well"], true, "{verdict}");
            export(&place, "all");
            json(&place, "inspect --json");
        }
        drop(stops);
        loads.into_iter().for_each(|load| ledger.absorb(load.join().expect("a load that ran")));
    });
    let lines = eventually("every message is over", || {
        let lines = export(&place, "final");
        let known: BTreeSet<&str> = texts(&lines, "final", "message_id").into_iter().collect();
        ledger.ids().iter().all(|id| known.contains(id)).then_some(lines)
    });
    // Whoever says nothing does not keep a server from stopping.
    let _silent = UnixStream::connect(place.data().join("control.sock")).expect("a connection");
    assert!(server.stop().success());
    assert_eq!(export(&place, "final").len(), lines.len());
}

/// Offsets of the batches in a journal file.
fn batches(path: &Path) -> Vec<usize> {
    let octets = fs::read(path).expect("a file");
    (0..octets.len()).step_by(4096).filter(|&offset| octets[offset..].starts_with(b"SMPJ")).collect()
}

#[test]
fn damage_is_named_with_its_file_and_offset() {
    let place = Place::with_demo("store-damaged");
    let server = place.server().settings(SETTINGS).cores(1).start();
    let done = Done::on(&server);
    server.kill();
    let file = place.journal(0).remove(0);
    let batches = batches(&file);
    let damaged = [batches[0], batches[batches.len() / 2], batches[batches.len() - 2]];
    damaged.iter().for_each(|offset| flip(&file, offset + 56));
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    for offset in damaged {
        let named = format!("{}, offset {offset}: batch", file.display());
        assert!(out(&output).contains(&named), "{named}: {}", out(&output));
    }
    assert!(out(&output).contains("3 faults"), "{}", out(&output));
    assert!(out(&output).contains("not compared with the journal"), "{}", out(&output));
    let output = store(&place, "export");
    assert_eq!(output.status.code(), Some(1), "what can be read comes, but it is not all");
    assert!(output.stdout.len() > 1000 && complaint(&output).contains(&format!("offset {}", damaged[1])));
    damaged.iter().for_each(|offset| flip(&file, offset + 56));
    done.check(&place);
    // The last batch may have been under way.
    let last = batches[batches.len() - 1];
    flip(&file, last + 56);
    let text = ok(&place, "verify");
    assert!(text.contains(&format!("offset {last}: a batch was being written")), "{text}");
}

#[test]
fn damage_of_the_state_at_rest_is_told() {
    let place = Place::with_demo("store-rest");
    let server = place.server().settings(SETTINGS).cores(1).start();
    Done::on(&server);
    assert!(server.stop().success());
    flip(&place.data().join("partition-000/state/db"), 0);
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1));
    let said = out(&output);
    for part in ["partition 000: 1 fault", "the database is empty, or its beginning is damaged; restore"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// What is wrong with a database, where, and what to do about it.
#[test]
fn a_damaged_database_is_told_as_a_start_does() {
    let place = Place::with_demo("store-database");
    let server = place.server().settings(SETTINGS).cores(1).start();
    let done = Done::on(&server);
    assert!(server.stop().success());
    let conf = place.data().join("partition-000/state/conf");
    let before = fs::read(&conf).expect("a file");
    for offset in (0..before.len() - 4).step_by(9) {
        flip(&conf, offset);
        let start = place.server().cores(1).starts_or_fails().err().expect("a refusal");
        let refusal = start.lines().find_map(|line| line.strip_prefix("smppd: ")).expect("a reason");
        for part in
            ["partition-000/state: damaged: the database cannot be opened: sled", "; restore the partition's"]
        {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        let output = store(&place, "verify");
        assert_eq!(output.status.code(), Some(1));
        assert!(out(&output).contains(refusal), "{refusal}: {}", out(&output));
        for line in ["inspect", "export", &format!("dump {}", done.confirmed[0])] {
            let output = store(&place, line);
            assert_eq!(output.status.code(), Some(1), "{line}");
            assert!(
                complaint(&output).contains(&format!("smppd: {refusal}\n")),
                "{line}: {}",
                complaint(&output)
            );
        }
        fs::write(&conf, &before).expect("a file");
    }
    assert!(place.server().cores(1).start().stop().success());
}

/// The state at rest of a server that has stopped.
fn state(place: &Place) -> sled::Db {
    let state = sled::Config::new().path(place.data().join("partition-000/state")).segment_size(8 << 20);
    state.open().expect("a database")
}

/// Leaves a block of unfinished messages.
fn leave_at_rest(place: &Place) {
    // Each life has a segment of its own; what the first left in it goes to rest when the second ends.
    let server = place.server().settings(SETTINGS).cores(1).start();
    Done::on(&server);
    assert!(server.stop().success());
    let server = place.server().settings(SETTINGS).cores(1).start();
    Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER).submit(&message(NEVER_TAKEN, "later"));
    assert!(server.stop().success());
}

/// As when sled finds a page damaged and passes over it.
#[test]
fn a_block_of_final_messages_that_is_missing_is_told() {
    let place = Place::with_demo("store-missing");
    let server = place.server().settings(SETTINGS).cores(1).start();
    Done::on(&server);
    assert!(server.stop().success());
    assert!(ok(&place, "verify").contains("partition 000: ok"));
    let state = state(&place);
    let blocks = state.open_tree("final").expect("a tree");
    // There are two when the messages are of two periods.
    let count = blocks.len();
    assert!(blocks.pop_max().expect("read").is_some(), "a block was there");
    drop((blocks, state));
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let part = format!("{} of {count} block", count - 1);
    assert!(out(&output).contains(&part), "{part}: {}", out(&output));

    // And the counts of them, which were not far away.
    let state = self::state(&place);
    let meta = state.open_tree("meta").expect("a tree");
    let counts: Vec<_> = meta.scan_prefix("blocks of generation ").keys().collect();
    assert!(!counts.is_empty());
    counts.into_iter().for_each(|key| _ = meta.remove(key.expect("a key")).expect("removed"));
    state.open_tree("final").expect("a tree").clear().expect("cleared");
    drop((meta, state));
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let part = format!("final messages: 0 of {count} block");
    assert!(out(&output).contains(&part), "{part}: {}", out(&output));
}

/// What verify calls well a server starts with.
#[test]
fn a_block_of_unfinished_messages_that_is_missing_is_told() {
    let place = Place::with_demo("store-unfinished");
    leave_at_rest(&place);
    assert!(ok(&place, "verify").contains("partition 000: ok"));
    let state = state(&place);
    let removed = state.open_tree("rest").expect("a tree").pop_min().expect("read");
    assert!(removed.is_some_and(|(key, _)| key[0] == 0), "a block was there");
    drop(state);
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(out(&output).contains("0 of 1 blocks with 0 of"), "{}", out(&output));
    let said = place.server().cores(1).starts_or_fails().err().expect("a refusal");
    assert!(said.contains("0 of 1 blocks with 0 of"), "{said}");
}

/// The journal is whole: what it says is compared with what can be read at rest.
#[test]
fn a_block_that_cannot_be_read_is_told_and_all_else_compared() {
    let place = Place::with_demo("store-garbled");
    leave_at_rest(&place);
    let state = state(&place);
    let rest = state.open_tree("rest").expect("a tree");
    let (key, _) = rest.first().expect("read").expect("a block");
    rest.insert(key, b"no block").expect("put");
    drop((rest, state));
    let output = store(&place, "verify");
    assert_eq!(output.status.code(), Some(1));
    let said = out(&output);
    assert!(said.contains("block 0 cannot be read from slot 0 on"), "{said}");
    assert!(!said.contains("not compared with the journal"), "{said}");
}

#[test]
fn another_form_of_the_data_directory_is_told_as_a_start_does() {
    let place = Place::with_demo("store-form");
    let server = place.server().cores(1).start();
    assert!(server.stop().success());
    let file = place.data().join("FORMAT");
    let before = fs::read(&file).expect("a file");
    let lines = ["inspect", "verify", "export", "dump 123456789012345678", "bench --seconds 1"];
    for damage in
        [|file: &Path| fs::write(file, "smppd data 9\n").expect("a file"), |file: &Path| flip(file, 2)]
    {
        fs::write(&file, &before).expect("a file");
        damage(&file);
        let start = place.server().cores(1).starts_or_fails().err().expect("a refusal");
        let refusal = start.lines().find_map(|line| line.strip_prefix("smppd: ")).expect("a reason");
        assert!(refusal.contains("FORMAT: written by another version"), "{refusal}");
        for line in lines {
            let output = store(&place, line);
            assert_eq!(output.status.code(), Some(1), "{line}: {}", out(&output));
            assert_eq!(complaint(&output), format!("smppd: {refusal}\n"), "{line}");
        }
    }
}

#[test]
fn no_room_for_a_copy_is_no_fault_of_the_store() {
    let place = Place::with_demo("store-no-copy");
    let server = place.server().cores(1).start();
    assert!(server.stop().success());
    for line in ["verify", "inspect", "export"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
        command.args(["store", line, "--data-dir"]).arg(place.data()).env("TMPDIR", place.path("nowhere"));
        let output = command.output().expect("smppd runs");
        assert_eq!((output.status.code(), out(&output)), (Some(3), String::new()), "{line}");
        assert!(complaint(&output).starts_with("smppd: "), "{line}: {}", complaint(&output));
        assert!(complaint(&output).contains("nowhere"), "{line}: {}", complaint(&output));
    }
}

#[test]
fn a_state_that_is_missing_is_no_want_of_room() {
    let place = Place::with_demo("store-no-state");
    let server = place.server().cores(1).start();
    assert!(server.stop().success());
    let state = place.data().join("partition-000/state");
    fs::rename(&state, place.path("moved")).expect("moved");
    let output = store(&place, "verify");
    assert_eq!((output.status.code(), complaint(&output)), (Some(1), String::new()));
    let said = out(&output);
    assert!(said.contains("1 fault") && said.contains(&format!("{}: No such", state.display())), "{said}");
    assert_eq!(store(&place, "inspect").status.code(), Some(1));
}

/// The live answer to an export goes through a file in TMPDIR of the server.
#[test]
fn a_server_that_has_no_room_for_an_answer_gives_none() {
    let place = Place::with_demo("store-no-spool");
    fs::create_dir(place.path("tmp")).expect("a folder");
    let temporary = place.path("tmp").display().to_string();
    let server = place.server().cores(1).environment("TMPDIR", &temporary).start();
    fs::remove_dir_all(place.path("tmp")).expect("removed");
    let output = store(&place, "export");
    assert_eq!((output.status.code(), out(&output)), (Some(3), String::new()));
    assert!(complaint(&output).starts_with("smppd: ") && complaint(&output).contains("smppd-export-"));
    assert!(server.stop().success());
}

#[test]
fn messages_of_every_kind_are_exported() {
    let place = Place::with_demo("store-kinds");
    let server = place.server().settings(SETTINGS).cores(1).start();
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let ucs2 =
        ShortMessage { data_coding: DataCoding(8), short_message: &[0x20, 0xAC], ..message(NEVER_TAKEN, "") };
    let hex = esme.submit(&ucs2);
    let reply = message(DELIVERED, "reply hello back");
    esme.submit(&reply);
    eventually("the reply is there", || {
        export(&place, "receipts").iter().any(|line| line["kind"] == "reply").then_some(())
    });
    let mut old = Esme::connect(&server);
    let version = smppd::pdu::InterfaceVersion::V3_3;
    let bound = old.bind_with("demo", support::PASSWORD, CommandId::BIND_TRANSMITTER, version);
    assert_eq!(bound.status, CommandStatus::ESME_ROK);
    let short = old.submit(&message(NEVER_TAKEN, "short id"));
    assert_eq!(short.len(), 8);
    assert!(server.stop().success());
    let lines = export(&place, "all");
    let by_id: HashMap<&str, &Value> =
        lines.iter().filter_map(|line| Some((line["message_id"].as_str()?, line))).collect();
    assert_eq!(by_id[&*hex]["user_data_hex"], "20AC");
    assert_eq!(by_id[&*short]["user_data"], "short id");
    assert!(texts(&lines, "reply", "short_message").contains(&"hello back"));
    for id in [short.clone(), short.to_lowercase()] {
        assert!(ok(&place, &format!("dump {id}")).contains("short id"));
    }
    // Of the millisecond before the first message: those that follow may be of the same one.
    let first = MessageId::parse(hex.as_bytes()).expect("an id").as_u64();
    let unknown = MessageId::from_u64(first - (1 << 22));
    let output = store(&place, &format!("dump {unknown}"));
    assert_eq!(output.status.code(), Some(1));
    let said = format!("smppd: nothing is known of message {unknown} in partition 000\n");
    assert_eq!(complaint(&output), said);
    let server = place.server().settings(SETTINGS).cores(1).start();
    assert_eq!(complaint(&store(&place, &format!("dump {unknown}"))), said, "of a server that runs");
    assert!(server.stop().success());
}

#[test]
fn what_cannot_be_asked_is_said_clearly() {
    let place = Place::new("store-none");
    fs::create_dir(place.data()).expect("a folder");
    for (data, line, part) in [
        (place.path("missing"), "inspect", "No such file"),
        (place.data(), "inspect", "no server has kept anything here yet"),
        (place.data(), "dump 12", "no server has kept"),
    ] {
        let output = store_in(&data, line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(complaint(&output).contains(part), "{line}: {}", complaint(&output));
        assert!(complaint(&output).starts_with("smppd: "), "{line}");
    }
    assert_eq!(fs::read_dir(place.data()).expect("a folder").count(), 0, "nothing was made");
    let server = place.server().cores(1).start();
    for (line, part) in [
        ("dump 12", "is no message_id"),
        ("dump 380000000000000000", "smppd: "),
        ("inspect --partition 7", "there is no partition 007"),
    ] {
        let output = store(&place, line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(complaint(&output).contains(part), "{line}: {}", complaint(&output));
    }
    assert!(server.stop().success());
}

/// It has the lock before it has recovered, and answers only then.
#[test]
fn a_server_that_is_still_starting_is_not_called_broken() {
    let place = Place::new("store-starting");
    let server = place.server().cores(1).start();
    assert!(server.stop().success());
    let lock = fs::File::open(place.data().join("LOCK")).expect("a file");
    lock.try_lock().expect("nobody else has it");
    let output = store(&place, "inspect");
    assert_eq!(output.status.code(), Some(1));
    for part in ["smppd: ", "a server uses this directory, but cannot be asked; it may still be starting"] {
        assert!(complaint(&output).contains(part), "{part}: {}", complaint(&output));
    }
}

#[test]
fn a_data_directory_with_a_long_path_can_be_asked() {
    let place = Place::with_demo("store-long");
    let deep = place.path(&"long-name/".repeat(30));
    fs::create_dir_all(&deep).expect("folders");
    fs::rename(place.data(), deep.join("data")).expect("moved");
    let data = deep.join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
    command.args(["--cores", "1", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut server = command.spawn().expect("smppd runs");
    let asked = eventually("it answers", || {
        let output = store_in(&data, "inspect");
        output.status.success().then_some(output)
    });
    server.kill().expect("a signal");
    server.wait().expect("an end");
    assert!(out(&asked).contains("in use"), "{}", out(&asked));
}

#[test]
fn help_names_every_command_and_flag() {
    for (line, parts) in [
        ("--help", &["inspect", "verify", "export", "dump"][..]),
        ("inspect --help", &["--json", "--partition", "--data-dir", "--config", "Examples:"]),
        ("verify --help", &["--json", "--partition", "Examples:", "Exits with 0", "with 3 when"]),
        ("export --help", &["--what", "unfinished, receipts, final, all", "_hex", "message_id", "Examples:"]),
        ("dump --help", &["MESSAGE_ID", "--json", "Examples:"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
        let output = command.arg("store").args(line.split_whitespace()).output().expect("smppd runs");
        assert!(output.status.success());
        parts.iter().for_each(|part| assert!(out(&output).contains(part), "{part}: {}", out(&output)));
    }
}
