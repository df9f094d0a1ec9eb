//! The wall clock is set, while the server stands still and while it runs.
//!
//! Expected: an id is never given out twice, nothing acknowledged is lost, nothing hangs or panics. Validity
//! and schedules are times of the wall clock, as SMPP has it: a clock that is set two days ahead expires what
//! was valid for a day, and one that is set back makes it wait longer; with the default of 72 hours nothing
//! expires in these tests.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use smppd::pdu::{CommandId, Pdu, ShortMessage};
use smppd::time::{Timestamp, smpp};

use crate::support::esme::{DELIVERED, Esme, NEVER_TAKEN, message};
use crate::support::load::{Ledger, Mix};
use crate::support::rounds::{Rounds, SETTINGS, check_all, load_with, place};
use crate::support::{Launch, Place, Server, eventually, rounds, skip};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// A clock for a server: a file says how far it is off.
struct FakeClock {
    library: &'static str,
    file: PathBuf,
}

impl FakeClock {
    fn new(what: &str, place: &Place) -> Option<Self> {
        let library =
            LIBRARIES.into_iter().find(|library| fs::exists(library).is_ok_and(|is_there| is_there));
        if library.is_none() {
            skip(what, "libfaketime is not installed (Debian's package faketime)");
        }
        let clock = Self { library: library?, file: place.path("clock") };
        clock.set("+0");
        Some(clock)
    }

    /// How far it is off, such as "+2d".
    fn set(&self, offset: &str) {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{offset}\n")).expect("a file");
        fs::rename(draft, &self.file).expect("a file");
    }

    fn launch<'a>(&self, place: &'a Place) -> Launch<'a> {
        place
            .server()
            .settings(SETTINGS)
            .environment("LD_PRELOAD", self.library)
            .environment("FAKETIME_TIMESTAMP_FILE", self.file.to_str().expect("a path in UTF-8"))
            .environment("FAKETIME_NO_CACHE", "1")
            // Only the wall clock: timers and timeouts are none of its business.
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("DONT_FAKE_MONOTONIC", "1")
    }
}

/// Whether a message_id, which tells when it was given out, is of a time to come. The clock of the test is nobody's toy.
fn is_ahead(id: &str) -> bool {
    let millis = (id.parse::<u64>().expect("a number") >> 22) + 1_704_067_200_000;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    u128::from(millis) > (now + Duration::from_secs(1_800)).as_millis()
}

/// By how much a nervous clock is off, one after the other.
const STEPS: [&str; 6] = ["-0.05", "+0.02", "-0.2", "+0", "-1.5", "+1"];
const JUMPS: [&str; 5] = ["+1h", "-1h", "+2d", "-2d", "+0"];

#[test]
fn nothing_is_lost_when_the_clock_is_set_between_two_lives() {
    let place = place("clock");
    let Some(clock) = FakeClock::new("jumps of the clock between two lives", &place) else { return };
    let mut jumps = JUMPS.iter().cycle();
    // Ids are compared over all lives at the end.
    Rounds::of(2 * JUMPS.len()).run(&clock.launch(&place), |server: Server| {
        server.kill();
        clock.set(jumps.next().expect("a jump"));
    });
}

#[test]
fn nothing_is_lost_when_the_clock_is_set_under_load() {
    let place = place("clock-load");
    let Some(clock) = FakeClock::new("jumps of the clock under load", &place) else { return };
    let launch = clock.launch(&place);
    let server = launch.start();
    let begin = || Ledger { mix: Mix::Plain, ..Ledger::default() };
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER).into();
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    // Tried for 72 hours, and none of the jumps is as long.
    let waiting = esme.submit(&message(NEVER_TAKEN, "waiting"));
    let mut ledger = load_with(begin, sessions, Vec::new(), server, 0, 400, |server| {
        for jump in JUMPS {
            clock.set(jump);
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(esme.query(&waiting).message_state(), 1, "not ENROUTE after a jump to {jump}");
            if jump == "+1h" {
                let id = esme.submit(&message(DELIVERED, "an hour ahead"));
                assert!(is_ahead(&id), "the clock of the server was not set: {id}");
            }
        }
        let id = esme.submit(&message(DELIVERED, "afterwards"));
        eventually("a delivery after the jumps", || (esme.query(&id).message_state() == 2).then_some(()));
        assert!(!server.log().contains("stands still"), "{}", server.log());
        assert!(server.stop().success());
    });
    assert!(ledger.accepted.len() > 100);
    ledger.sent.extend(["an hour ahead", "afterwards"].map(str::to_owned));
    check_all(&launch, ledger);
}

#[test]
fn a_crowd_that_is_due_is_sent_while_the_clock_steps_to_and_fro() {
    const CROWD: usize = 3_000;
    let place = place("clock-steps");
    let Some(clock) = FakeClock::new("steps of the clock while a crowd is due", &place) else { return };
    let server = clock.launch(&place).start();
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    for _ in 0..rounds(2) {
        // All of them at one time: more than a turn takes, so that some wait while the clock is set.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let date = smpp::absolute(Timestamp::from_millis((now.as_millis() as u64 / 1_000 + 3) * 1_000));
        let scheduled =
            ShortMessage { schedule_delivery_time: date.as_slice(), ..message(DELIVERED, "crowd") };
        let mut octets = Vec::new();
        let numbers: Vec<u32> =
            (0..CROWD).map(|_| esme.put(&Pdu::SubmitSm(scheduled), &mut octets)).collect();
        esme.write(&octets).expect("a connection");
        let ids: HashSet<String> =
            numbers.into_iter().map(|number| esme.response(number).message_id()).collect();
        assert_eq!(ids.len(), CROWD);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for step in STEPS.iter().cycle() {
                    clock.set(step);
                    std::thread::sleep(Duration::from_millis(1));
                    if is_over.load(Ordering::Relaxed) {
                        return clock.set("+0");
                    }
                }
            });
            // Each is sent, and the receipt of each is delivered and confirmed.
            let ends: Vec<String> =
                receiver.receipts_of(&ids).into_iter().map(|receipt| receipt.stat).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(ends.iter().all(|stat| stat == "DELIVRD"), "{ends:?}");
        });
    }
    assert!(server.stop().success());
}
