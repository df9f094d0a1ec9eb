//! The wall clock is set, while the server stands still and while it runs.
//!
//! Expected: an id is never given out twice, nothing acknowledged is lost, nothing hangs or panics. Validity
//! and schedules are times of the wall clock, as SMPP has it: a clock that is set two days ahead expires what
//! was valid for a day, and one that is set back makes it wait longer; with the default of 72 hours nothing
//! expires in these tests.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use smppd::pdu::CommandId;

use crate::support::esme::{DELIVERED, Esme, NEVER_TAKEN, message};
use crate::support::load::{Ledger, Mix};
use crate::support::rounds::{Rounds, SETTINGS, check_all, load_with, place};
use crate::support::{Launch, Place, Server, eventually, skip};

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
    let mut ledger =
        load_with(begin, sessions, Vec::new(), server, 0, Duration::from_millis(200), |server| {
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
