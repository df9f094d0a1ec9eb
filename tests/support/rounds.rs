//! A server that ends under load, again and again, and what must be there afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use smppd::pdu::CommandId;

use super::esme::Esme;
use super::load::{Ledger, Mix};
use super::{Launch, PATIENCE, Place, Server};

/// Receipts that are not confirmed come again soon; so do messages that no carrier takes.
pub const SETTINGS: &str = "
[session]
window_out_max = 100
[messages]
retry_delay_min_seconds = 0.2
retry_delay_max_seconds = 1
deliver_retry_delay_min_seconds = 0.2
deliver_retry_delay_max_seconds = 1
[carrier.simulator]
kind = \"simulator\"
delay_min_millis = 1
delay_max_millis = 200
";
/// Messages of each session that wait for their answer.
pub const WINDOW: usize = 50;

/// A place with the accounts `demo`, which sends, and `other`, to which nothing belongs.
pub fn place(name: &str) -> Place {
    let place = Place::with_demo(name);
    place.account("add other --bind-limit 0 --any-source");
    place
}

/// Two sessions submit until so many messages are answered; then something happens to the server. What they sent and heard.
pub fn load(server: Server, round: usize, messages: usize, then: impl FnOnce(Server)) -> Ledger {
    let sessions = Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSCEIVER);
    load_on(sessions.into(), server, round, messages, then)
}

/// The same on these sessions.
pub fn load_on(
    sessions: Vec<Esme>,
    server: Server,
    round: usize,
    messages: usize,
    then: impl FnOnce(Server),
) -> Ledger {
    load_with(Ledger::default, sessions, Vec::new(), server, round, messages, then)
}

/// Each session begins with a ledger that says how it submits; receivers only listen. `then` comes when so many messages
/// are answered, however long that takes, or when all sessions have ended.
pub fn load_with(
    begin: impl Fn() -> Ledger,
    sessions: Vec<Esme>,
    receivers: Vec<Esme>,
    server: Server,
    round: usize,
    messages: usize,
    then: impl FnOnce(Server),
) -> Ledger {
    let mut bystander = Esme::bound_as(&server, "other", CommandId::BIND_RECEIVER);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut loads = Vec::new();
    for (number, mut esme) in (0..).zip(sessions) {
        let mut ledger = Ledger { answered: Arc::clone(&answered), ..begin() };
        loads.push(thread::spawn(move || {
            ledger.run(&mut esme, &format!("{round}-{number}"), WINDOW, &AtomicBool::new(false));
            ledger
        }));
    }
    for mut esme in receivers {
        loads.push(thread::spawn(move || {
            let mut ledger = Ledger::default();
            ledger.listen(&mut esme);
            ledger
        }));
    }
    let bystander = thread::spawn(move || gets_nothing(&mut bystander));
    let deadline = Instant::now() + PATIENCE;
    while answered.load(Ordering::Relaxed) < messages && loads.iter().any(|load| !load.is_finished()) {
        assert!(Instant::now() < deadline, "{answered:?} of {messages} messages were answered");
        thread::sleep(Duration::from_millis(1));
    }
    then(server);
    let mut ledger = begin();
    for load in loads {
        ledger.absorb(load.join().expect("a load that ran"));
    }
    bystander.join().expect("a bystander");
    ledger
}

/// Waits for the end of a session to which nothing belongs.
pub fn gets_nothing(bystander: &mut Esme) {
    for pdu in bystander.until_closed() {
        assert_eq!(pdu.command_id, CommandId::UNBIND, "another account got {pdu:?}");
    }
}

/// Every accepted message is known on every core, in the state that its receipt told, and has its receipt.
pub fn check_all(launch: &Launch<'_>, mut ledger: Ledger) {
    let server = launch.start();
    let mut bystander = Esme::bound_as(&server, "other", CommandId::BIND_RECEIVER);
    // A receiver first: sessions that submit must not be given receipts.
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    ledger.collect(&mut receiver);
    ledger.check();
    all_have_ended(&server, &ledger);
    drop(receiver);
    let bystander = thread::spawn(move || gets_nothing(&mut bystander));
    assert!(server.stop().success());
    bystander.join().expect("a bystander");
}

/// Asks for every message, on several connections.
fn all_have_ended(server: &Server, ledger: &Ledger) {
    let states = HashMap::from([("DELIVRD", 2), ("EXPIRED", 3), ("UNDELIV", 5)]);
    let ids = ledger.ids();
    let mut sessions = [(); 6].map(|()| Esme::bound_as(server, "demo", CommandId::BIND_TRANSMITTER));
    for (esme, ids) in sessions.iter_mut().zip(ids.chunks(ids.len().div_ceil(6).max(1))) {
        for (answer, id) in esme.query_all(ids).into_iter().zip(ids) {
            let end = &*ledger.ends[*id];
            assert_eq!(answer.message_state(), states[end], "{id} has ended as {end}");
        }
    }
}

/// Rounds of load, each ended by something terrible.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    pub count: usize,
    pub mix: Mix,
    /// After how many answers the end comes at least; there may be as many more.
    pub messages: usize,
    /// Whether the sessions that submit get the receipts as well.
    pub is_transceiver: bool,
    /// What may be said instead of ESME_ROK while the end comes near.
    pub may_be_refused: &'static [smppd::pdu::CommandStatus],
}

impl Rounds {
    pub const fn of(count: usize) -> Self {
        Self { count, mix: Mix::Plain, messages: 300, is_transceiver: true, may_be_refused: &[] }
    }

    /// Each round begins with a look at what the one before left, and ends as `end` ends the server.
    pub fn run(self, launch: &Launch<'_>, mut end: impl FnMut(Server)) {
        let begin = || Ledger { mix: self.mix, may_be_refused: self.may_be_refused, ..Ledger::default() };
        let mut total = begin();
        let mut last = begin();
        let mode =
            if self.is_transceiver { CommandId::BIND_TRANSCEIVER } else { CommandId::BIND_TRANSMITTER };
        for round in 0..self.count {
            let server = launch.start();
            let [mut one, mut other] =
                Esme::bound_on_both_cores(&server, "demo", CommandId::BIND_TRANSMITTER);
            // The ids are in no order: each core is asked about messages of its own and of the other.
            let ids = last.ids();
            let (half, rest) = ids.split_at(ids.len() / 2);
            let unknown = [one.unknown_of(half), other.unknown_of(rest)].concat();
            assert!(
                unknown.is_empty(),
                "LOST: {} of {} messages after round {round}, such as {:?}",
                unknown.len(),
                ids.len(),
                unknown.iter().take(3).collect::<Vec<_>>()
            );
            drop((one, other));
            let messages = self.messages + self.messages * (37 * round % 150) / 150;
            total.absorb(std::mem::replace(&mut last, begin()));
            let sessions = Esme::bound_on_both_cores(&server, "demo", mode).into();
            let receivers = match mode {
                CommandId::BIND_TRANSMITTER => {
                    vec![Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER)]
                }
                _ => Vec::new(),
            };
            last = load_with(begin, sessions, receivers, server, round, messages, &mut end);
            // Refused because a write failed: nobody knows what became of the write.
            last.refused.retain(|_, status| !self.may_be_refused.contains(status));
            assert!(!last.accepted.is_empty(), "nothing was accepted in round {round}");
        }
        total.absorb(last);
        println!("{} rounds, {} messages were accepted", self.count, total.accepted.len());
        check_all(launch, total);
    }
}
