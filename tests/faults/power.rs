//! The power goes, again and again, on one disk.
//!
//! What is modelled is a disk that loses its volatile cache, with the page cache of the system, at one instant
//! under load: only what was flushed before that is sure to be there, of the rest a random half. `Disk` says
//! how. What is not modelled: a disk that lies about flushes, sectors torn in themselves, memory that rots.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};

use smppd::pdu::CommandStatus;

use crate::support::disk::Disk;
use crate::support::load::Mix;
use crate::support::rounds::{Rounds, SETTINGS};
use crate::support::{Dice, Place, Server, rounds, skip};

const DISK_MIB: u64 = 400;
/// Belongs to `[journal]`: files are made free, and written over, as soon as can be.
const FREQUENT_CHECKPOINTS: &str = "checkpoint_segments = 1\n";
/// Rounds in which each partition's journal comes round.
const HEAVY: Rounds = Rounds { mix: Mix::Heavy, messages: 1_500, ..Rounds::of(8) };

fn place_with_disk(what: &str) -> Option<(Place, Disk)> {
    let place = Place::new("power");
    let disk = Disk::new(what, &place, DISK_MIB)?;
    place.account("add demo --bind-limit 0 --any-source --number 12125550100");
    place.account("add other --bind-limit 0 --any-source");
    Some((place, disk))
}

/// Rounds of load, each ended by a power cut.
fn cut_again_and_again(disk: &mut Disk, place: &Place, faults: &str, rounds: Rounds) {
    let mut dice = Dice::new();
    let launch = place.server().settings(FREQUENT_CHECKPOINTS).settings(SETTINGS).faults(faults);
    // A server that notices that its disk is gone before it is gone itself refuses; what it was writing then
    // may have reached the disk all the same.
    let rounds = Rounds { may_be_refused: &[CommandStatus::ESME_RSYSERR], ..rounds };
    rounds.run(&launch, |server: Server| {
        disk.cut(&mut dice);
        server.kill();
        disk.restore();
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let Some((place, mut disk)) = place_with_disk("power cuts") else { return };
    let rounds = Rounds { mix: Mix::Varied, is_transceiver: false, ..Rounds::of(rounds(6)) };
    cut_again_and_again(&mut disk, &place, "", rounds);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes_amid_checkpoints() {
    let Some((place, mut disk)) = place_with_disk("power cuts amid checkpoints") else { return };
    cut_again_and_again(&mut disk, &place, "", Rounds { count: rounds(HEAVY.count), ..HEAVY });
}

/// The loss that a server without this syncing must show, in a few rounds: or else the test above shows nothing.
fn must_lose(what: &str, faults: &str, rounds: Rounds) {
    if !cfg!(debug_assertions) {
        skip(what, "a release build has no faults on purpose");
        return;
    }
    let Some((place, mut disk)) = place_with_disk(what) else { return };
    let outcome = catch_unwind(AssertUnwindSafe(|| cut_again_and_again(&mut disk, &place, faults, rounds)));
    let loss = outcome.expect_err("nothing was lost though nothing was synced");
    let loss = loss.downcast_ref::<String>().expect("words");
    println!("{faults}: {loss}");
    let is_loss =
        ["LOST", "receipts are missing", "damaged", "cannot be read", "was durable", "is empty, or its"];
    assert!(is_loss.iter().any(|part| loss.contains(part)), "another fault: {loss}");
}

/// Seen: after the first cut the start refuses ("the first batch cannot be read, but batch 16 behind it can"), or
/// messages are unknown; it depends on which half of the cache survived.
#[test]
fn a_journal_that_is_not_synced_is_caught() {
    must_lose("power cuts without syncing the journal", "journal-unsynced", Rounds::of(5));
}

/// Seen: after the second cut half of all messages are unknown (1375 of 2750), or the start refuses because batches
/// of the journal that were written over are missing: the checkpoint that freed them is gone.
#[test]
fn a_state_that_is_not_synced_is_caught() {
    must_lose("power cuts without syncing the state at rest", "state-unsynced", HEAVY);
}

#[test]
fn the_disk_keeps_what_was_synced_and_not_all_of_the_rest() {
    const BLOCK: usize = 4096;
    let place = Place::new("disk");
    let Some(mut disk) = Disk::new("the model of a disk", &place, 64) else { return };
    let path = |name: &str| place.data().join(name);
    let mut dice = Dice::new();
    let block = vec![b'x'; BLOCK];
    // Written before, so that only octets change and nothing about the file.
    let files: Vec<_> = (0..32).map(|number| path(&format!("{number}"))).collect();
    for file in &files {
        fs::write(file, [0; BLOCK]).expect("written");
        File::open(file).expect("a file").sync_all().expect("synced");
    }
    let (synced, unsynced) = files.split_at(16);
    for file in synced {
        let file = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(file).expect("a file");
        file.write_all_at(&block, 0).expect("written");
    }
    for file in unsynced {
        OpenOptions::new().write(true).open(file).expect("a file").write_all(&block).expect("written");
    }
    disk.cut(&mut dice);
    assert!(File::create(path("late")).and_then(|file| file.sync_all()).is_err(), "the disk is gone");
    disk.restore();
    let kept = |files: &[std::path::PathBuf]| {
        files.iter().filter(|file| fs::read(file).expect("a file") == block).count()
    };
    assert_eq!((kept(synced), kept(unsynced)), (16, 0));
}

/// sled writes over what it has written elsewhere as well, once that is stable.
#[test]
fn what_sled_calls_stable_stays_when_the_power_goes() {
    let Some((place, mut disk)) = place_with_disk("a power cut behind what sled calls stable") else {
        return;
    };
    let mut dice = Dice::new();
    let folder = place.data().join("sled");
    // Large pages go to files of their own, which sled never syncs; in such segments these are small.
    let config = sled::Config::new().path(&folder).segment_size(8 << 20).flush_every_ms(None);
    let open = || config.open().expect("a database");
    let key = |number: u32| number.to_be_bytes();
    let value = |number: u32| vec![number as u8; 64 << 10];
    let db = open();
    db.insert(key(0), value(0)).expect("put");
    db.flush().expect("flushed");
    // The name of a file that is there, and that it is one, is nothing that sled would take for stable.
    for name in ["sled/db", "sled/conf", "sled", "."] {
        File::open(place.data().join(name)).and_then(|file| file.sync_all()).expect("synced");
    }
    for number in 1..64 {
        db.insert(key(number), value(number)).expect("put");
    }
    db.flush().expect("flushed");
    disk.cut(&mut dice);
    let end = catch_unwind(AssertUnwindSafe(|| drop(db)));
    assert!(end.is_err(), "sled syncs its file at the end, and the disk is gone");
    disk.restore();
    let db = open();
    let kept = |number: &u32| db.get(key(*number)).expect("read").is_some_and(|kept| kept == value(*number));
    assert_eq!((0..64).filter(kept).count(), 64);
}

#[test]
fn an_account_that_was_added_stays_when_the_power_goes() {
    let Some((place, mut disk)) = place_with_disk("a power cut behind an account that was added") else {
        return;
    };
    let mut dice = Dice::new();
    for round in 0..3 {
        let name = format!("added-{round}");
        place.account(&format!("add {name} --bind-limit 0 --any-source"));
        disk.cut(&mut dice);
        disk.restore();
        let accounts = fs::read_to_string(place.data().join("accounts.toml")).expect("accounts");
        assert!(accounts.contains(&name), "it was said to be added: {accounts}");
    }
}
