//! A server that cannot start says why in one line and leaves everything as it was; one that can, stops well.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use smppd::pdu::{CommandId, CommandStatus, Pdu};

use support::esme::{DELIVERED, Esme, message};
use support::{Place, complaint, ends_by_itself, eventually, is_root, skip};

/// Somebody who is not root.
const NOBODY: u32 = 65_534;

/// The server must not start: exit code 1 and one line that has all the parts.
fn refuses(mut command: Command, parts: &[&str]) {
    command.env("RUST_LOG", "error");
    let output = ends_by_itself(command);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.starts_with("smppd: "), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{part:?}: {complaint}");
    }
    assert!(!complaint.contains("panicked"), "{complaint}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"));
}

#[test]
fn a_start_waits_for_what_an_earlier_process_was_writing() {
    let place = Place::with_demo("late-write");
    assert!(place.server().start().stop().success());
    let journal = place.journal(0);
    // As the kernel keeps it until the last write is over.
    let earlier = fs::File::open(&journal[1]).expect("a file");
    earlier.lock().expect("a lock");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| place.server().start());
        let waits = format!("{}: waiting for the end of what an earlier process", journal[1].display());
        eventually("the start waits", || {
            let logs =
                fs::read_dir(place.path("")).expect("a folder").map(|entry| entry.expect("a file").path());
            let mut logs = logs.filter(|path| path.is_file());
            logs.any(|log| fs::read_to_string(log).is_ok_and(|log| log.contains(&waits))).then_some(())
        });
        assert!(!starting.is_finished(), "it reads what may change");
        drop(earlier);
        assert!(starting.join().expect("a server that is ready").stop().success());
    });
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::with_demo("port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let launch = place.server().argument(&format!("--listen={address}"));
    refuses(launch.command(), &[&address, "in use"]);
}

#[test]
fn the_port_of_another_server_is_not_shared() {
    let (first, second) = (Place::with_demo("first"), Place::with_demo("second"));
    let server = first.server().start();
    let address = server.tls.to_string();
    refuses(second.server().argument(&format!("--listen={address}")).command(), &[&address, "in use"]);
    Esme::bound(&server, "demo");
}

#[test]
fn the_port_of_a_server_that_ended_a_moment_ago_is_free() {
    let place = Place::with_demo("again");
    let mut listen = "--listen=127.0.0.1:0".to_owned();
    for _ in 0..5 {
        let server = place.server().argument(&listen).start();
        let _open = Esme::bound(&server, "demo");
        listen = format!("--listen={}", server.tls);
        server.kill();
    }
}

#[test]
fn a_data_directory_in_use_is_named_with_its_user() {
    let place = Place::with_demo("in-use");
    let server = place.server().start();
    let data = place.data().display().to_string();
    refuses(place.server().command(), &[&data, "in use", &server.pid().to_string()]);
    assert!(server.stop().success());
    assert!(place.server().start().stop().success(), "free once it has ended");
}

#[test]
fn a_data_directory_that_is_a_file_is_named() {
    let place = Place::new("file");
    std::fs::write(place.data(), "not a folder").expect("a file");
    refuses(place.server().command(), &[&place.data().display().to_string(), "no folder"]);
}

#[test]
fn a_data_directory_of_somebody_else_is_named() {
    if !is_root() {
        skip("a data directory of somebody else", "only root can run a server as somebody else");
        return;
    }
    let place = Place::with_demo("not-ours");
    assert!(place.server().start().stop().success());
    let binary = readable_binary(&place);
    let data = place.data().display().to_string();
    let as_nobody = || {
        let launch = place.server();
        let command = launch.command();
        let mut other = Command::new(&binary);
        other.args(command.get_args()).uid(NOBODY).gid(NOBODY);
        other
    };
    refuses(as_nobody(), &[&data, "ermission denied"]);

    // Nor can one be made where only others may write.
    let mut nowhere = Command::new(&binary);
    let missing = place.path("missing").display().to_string();
    nowhere.args(["--data-dir", &missing, "--listen", "127.0.0.1:0"]).uid(NOBODY).gid(NOBODY);
    refuses(nowhere, &[&missing, "ermission denied"]);
    assert!(place.server().start().stop().success(), "whose it is can still use it");
}

/// A copy of the server that everybody may run.
fn readable_binary(place: &Place) -> PathBuf {
    let path = place.path("smppd");
    fs::copy(env!("CARGO_BIN_EXE_smppd"), &path).expect("a copy");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

fn certificate(place: &Place, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let certificate = place.write(&format!("{name}.pem"), &made.cert.pem());
    (certificate, place.write(&format!("{name}.key"), &made.signing_key.serialize_pem()))
}

fn with_certificate(place: &Place, certificate: &Path, key: &Path) -> Command {
    let (certificate, key) = (certificate.display(), key.display());
    place
        .server()
        .argument(&format!("--tls-cert={certificate}"))
        .argument(&format!("--tls-key={key}"))
        .command()
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let place = Place::with_demo("certificate");
    let (one, one_key) = certificate(&place, "one");
    let (two, two_key) = certificate(&place, "two");
    let missing = place.path("missing.pem");
    let not_pem = place.write("not.pem", "hello");
    refuses(with_certificate(&place, &missing, &one_key), &["missing.pem", "No such file"]);
    refuses(with_certificate(&place, &one, &missing), &["missing.pem", "No such file"]);
    refuses(with_certificate(&place, &not_pem, &one_key), &["not.pem"]);
    refuses(with_certificate(&place, &one, &not_pem), &["not.pem"]);
    refuses(with_certificate(&place, &one, &two_key), &["one.pem", "two.key"]);
    refuses(with_certificate(&place, &two, &one_key), &["two.pem", "one.key"]);
    refuses(with_certificate(&place, &place.path(""), &one_key), &[&place.path("").display().to_string()]);
}

#[test]
fn a_bad_setting_is_named_with_its_file_and_exits_with_2() {
    let place = Place::with_demo("setting");
    for (settings, part) in [
        ("[session]\nwindow_inn_max = 1\n", "window_inn_max"),
        ("[session]\nwindow_in_max = 0\n", "session.window_in_max"),
        ("[messages]\nretry_delay_min_seconds = -1\n", "retry_delay_min_seconds"),
        ("[[route]]\nprefix = \"1\"\ncarrier = \"nobody\"\n", "nobody"),
    ] {
        let output = place.server().settings(settings).fails();
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains("smppd.toml") && complaint.contains(part), "{part}: {complaint}");
    }
}

/// A file system of its own, gone with the test.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).expect("a directory");
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_met_at_the_start_and_not_by_a_message() {
    let place = Place::new("full");
    let Some(_mount) = Mount::new(place.data(), "4m") else {
        skip("a full disk at the start", "no small file system can be mounted here");
        return;
    };
    place.account("add demo");
    refuses(place.server().cores(1).command(), &["No space left", "the journal needs 24 MiB"]);
    // Again: what was left of the first try must not be taken for a journal.
    refuses(place.server().cores(1).command(), &["No space left"]);
}

#[test]
fn room_for_every_partition_is_kept_free() {
    let place = Place::new("low");
    // Two partitions with three files of 8 MiB each; room for two more for one of them, but not for both.
    let Some(_mount) = Mount::new(place.data(), "72m") else {
        skip("room for every partition", "no small file system can be mounted here");
        return;
    };
    place.account("add demo --any-source");
    let server = place.server().start();
    eventually("the disk is looked at", || server.log().contains("no message is accepted").then_some(()));
    let mut esme = Esme::bound(&server, "demo");
    let refusal = eventually("a refusal", || {
        let response = esme.ask(&Pdu::SubmitSm(message(DELIVERED, "no room")));
        (response.status != CommandStatus::ESME_ROK).then_some(response.status)
    });
    assert_eq!(refusal, CommandStatus::ESME_RMSGQFUL);
    drop(esme);
    assert!(server.stop().success());
}

#[test]
fn a_kernel_without_io_uring_is_told_apart() {
    // The same answer as the seccomp profiles of containers give, installed by a process that becomes the server.
    const DENY: &str = r"
import ctypes, os, struct, sys
filter = struct.pack('HBBIHBBIHBBIHBBI', 0x20,0,0,0, 0x15,0,1,425, 0x06,0,0,0x00050001, 0x06,0,0,0x7fff0000)
buffer = ctypes.create_string_buffer(filter)
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program)): sys.exit(99)
os.execv(sys.argv[1], sys.argv[1:])
";
    let place = Place::with_demo("denied");
    let launch = place.server();
    let command = launch.command();
    let mut denied = Command::new("python3");
    denied.args(["-c", DENY, env!("CARGO_BIN_EXE_smppd")]).args(command.get_args());
    let probe = Command::new("python3").args(["-c", DENY, "/bin/true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        skip("a kernel without io_uring", "it cannot be denied to a single process here");
        return;
    }
    refuses(denied, &["io_uring is not available", "seccomp"]);
}

#[test]
fn an_idle_server_stops_at_once_and_with_0() {
    let place = Place::with_demo("idle");
    let server = place.server().start();
    let begin = Instant::now();
    assert!(server.stop().success());
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn a_stop_unbinds_everybody_and_refuses_who_comes() {
    let place = Place::with_demo("unbinds");
    let server = place.server().start();
    let mut bound = Esme::bound(&server, "demo");
    let mut unbound = Esme::connect(&server);
    let begin = Instant::now();
    let status = std::thread::scope(|scope| {
        let stop = scope.spawn(|| server.stop());
        let unbind = bound.next();
        assert_eq!(unbind.command_id, CommandId::UNBIND);
        bound.answer(&unbind, CommandStatus::ESME_ROK);
        assert!(bound.until_closed().is_empty());
        // Its handshake ends only now, while the server stops.
        unbound.until_closed();
        stop.join().expect("an end")
    });
    assert!(status.success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_peer_that_does_not_answer_unbind_does_not_keep_the_server() {
    let place = Place::with_demo("silent");
    let server = place.server().settings("[session]\nresponse_timeout_seconds = 1\n").start();
    let mut silent = Esme::bound(&server, "demo");
    let begin = Instant::now();
    assert!(server.stop().success());
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    silent.until_closed();
}

#[test]
fn without_arguments_a_server_makes_what_it_needs() {
    let place = Place::new("newcomer");
    let server = place.server().start();
    eventually("the certificate", || server.certificate.exists().then_some(()));
    let mode = fs::metadata(place.data().join("tls/key.pem")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o077, 0, "the key is nobody else's to read");
    let accounts = fs::read_to_string(place.data().join("accounts.toml")).expect("accounts");
    assert!(accounts.contains("demo") && !accounts.contains("password ="), "{accounts}");
    assert!(server.stop().success());
}

#[test]
fn an_empty_format_file_is_another_version_only_beside_messages() {
    let place = Place::with_demo("format");
    place.write("data/FORMAT", "");
    assert!(place.server().start().stop().success(), "a first start that a power cut ended");
    let format = fs::read_to_string(place.path("data/FORMAT")).expect("a file");
    assert_eq!(format, "smppd data 1\n");
    for other in ["", "smppd data 9\n"] {
        place.write("data/FORMAT", other);
        refuses(place.server().command(), &["FORMAT", "another version"]);
    }
}

#[test]
fn other_carriers_are_not_reloaded_and_nothing_else_with_them() {
    const CARRIER: &str =
        "[carrier.main]\nkind = \"simulator\"\ndelay_min_millis = 1\ndelay_max_millis = 2\n";
    let place = Place::with_demo("carriers");
    let launch = place.server().settings(CARRIER);
    let server = launch.start();
    let mut esme = Esme::bound(&server, "demo");

    // The routes of this file would lead to a carrier that the cores do not have.
    let file = place.path("smppd.toml");
    let before = fs::read_to_string(&file).expect("settings");
    let other = "[carrier.other]\nkind = \"simulator\"\n\
                 [[route]]\nprefix = \"\"\ncarrier = \"other\"\n";
    place.write("smppd.toml", &before.replace(CARRIER, &format!("{CARRIER}{other}")));
    place.account("add late");
    server.signal(Signal::HUP);
    eventually("the refusal", || server.log().contains("nothing was reloaded: the carriers").then_some(()));
    esme.submit(&message(DELIVERED, "still here"));
    assert_eq!(esme.next_receipt().stat, "DELIVRD");
    let mut late = Esme::connect(&server);
    assert_ne!(late.bind("late", CommandId::BIND_TRANSCEIVER), CommandStatus::ESME_ROK, "nothing is nothing");

    place.write("smppd.toml", &before);
    server.signal(Signal::HUP);
    eventually("the reload", || server.log().contains("certificates are reloaded").then_some(()));
    Esme::bound(&server, "late");
    drop((esme, late));
    assert!(server.stop().success());
}

#[test]
fn a_start_with_other_carriers_is_refused_while_the_old_ones_have_messages() {
    let carriers = |names: &[&str]| -> String {
        let carrier = |name: &&str| {
            // It has its messages for an hour.
            format!(
                "[carrier.{name}]\nkind = \"simulator\"\ndelay_min_millis = 3600000\ndelay_max_millis = 3600000\n"
            )
        };
        let carriers: String = names.iter().map(carrier).collect();
        format!("{carriers}[[route]]\nprefix = \"\"\ncarrier = \"{}\"\n", names[0])
    };
    let place = Place::with_demo("other-carriers");
    let start = |names: &[&str]| place.server().settings(&carriers(names));
    // As long as nothing is with them they may change.
    assert!(start(&["old", "older"]).start().stop().success());
    let server = start(&["main", "next"]).start();
    let mut esme = Esme::bound(&server, "demo");
    let id = esme.submit(&message("12125559999", "it takes an hour"));
    server.kill();
    for other in [&["next"][..], &["aaa", "main", "next"], &["zzz"]] {
        refuses(start(other).command(), &["1 message is with", "\"main\"", "put the carriers back"]);
    }
    for same in [&["main", "next", "other"][..], &["main"], &["main", "next"]] {
        let server = start(same).start();
        let mut esme = Esme::bound(&server, "demo");
        assert_eq!(esme.query(&id).status, CommandStatus::ESME_ROK, "{same:?}");
        server.kill();
    }
}
