//! The disk stands still. When the process is killed while the disk has a write of it, whoever comes next must wait for that,
//! whether a thread of the process is still with the write or the kernel alone. While it lives, nobody waits who need not.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use rustix::process::Signal;
use smppd::pdu::{CommandId, CommandStatus, Pdu};

use crate::support::disk::Disk;
use crate::support::esme::{Esme, message};
use crate::support::{Place, eventually};

/// Whether the file is free for the next process, which takes the same lock before it reads.
fn is_free(path: &Path) -> bool {
    match File::open(path).expect("a file").try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => panic!("{}: {error}", path.display()),
    }
}

#[test]
fn a_write_keeps_its_file_from_the_next_process_though_its_own_was_killed() {
    let place = Place::new("late");
    let Some(disk) = Disk::new("a write that outlives its process", &place, 400) else { return };
    place.account("add demo --bind-limit 0 --any-source --number 12125550100");
    let server = place.server().cores(1).start();
    let mut esme = Esme::bound(&server, "demo");
    let known = esme.submit(&message("447900000001", "answered"));
    let journal = place.journal(0);

    let standstill = disk.stand_still();
    esme.send(&Pdu::SubmitSm(message("447900000002", "on its way")));
    eventually("a write is on its way", || (disk.writes_under_way() > 0).then_some(()));
    let pid = server.pid().as_raw_nonzero();
    server.signal(Signal::KILL);
    eventually("the process ends", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("\nState:\tZ")).then_some(())
    });
    assert!(!journal.iter().all(|file| is_free(file)), "the next process would not wait");
    drop(standstill);
    server.kill();
    eventually("the write ends", || journal.iter().all(|file| is_free(file)).then_some(()));

    let server = place.server().cores(1).start();
    let unknown = Esme::bound(&server, "demo").unknown_of(&[&known]);
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn who_closes_while_the_disk_stands_still_leaves_no_connection_behind() {
    let place = Place::new("standstill");
    let Some(disk) = Disk::new("peers that close while the disk stands still", &place, 400) else { return };
    place.account("add demo --bind-limit 0 --any-source --number 12125550100");
    let settings = "[session]\nwindow_in_max = 2\nwrite_timeout_seconds = 1\n";
    let server = place.server().cores(1).settings(settings).argument("--admin=127.0.0.1:0").start();
    let mut other = Esme::bound(&server, "demo");
    let mut esme = Esme::connect_plain(&server);
    assert_eq!(esme.bind("demo", CommandId::BIND_TRANSMITTER), CommandStatus::ESME_ROK);
    let known = esme.submit(&message("447900000001", "answered"));

    let standstill = disk.stand_still();
    // As many as its window holds, and more, which stay unread; none is answered.
    for _ in 0..6 {
        esme.send(&Pdu::SubmitSm(message("447900000002", "on its way")));
    }
    eventually("a write is on its way", || (disk.writes_under_way() > 0).then_some(()));
    esme.half_close();
    assert!(esme.until_closed().is_empty());
    eventually("it is gone", || (server.metric("smppd_connections_open") == 1).then_some(()));
    assert_eq!(other.ask(&Pdu::EnquireLink).status, CommandStatus::ESME_ROK, "others are served");
    drop(standstill);
    assert_eq!(other.unknown_of(&[&known]), [""; 0]);
    drop((esme, other));
    assert!(server.stop().success());
}
