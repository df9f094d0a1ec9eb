//! Conducts a run: sets the stage, waits until everybody is bound, lets the load begin and end, and counts it all together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use glommio::{LocalExecutorBuilder, Placement};
use smppd::session::BindMode;

use crate::arrivals::Arrivals;
use crate::connection::Target;
use crate::esme::{Role, Seat, Work};
use crate::executor::{self, Lifeline, Parts, Stage};
use crate::measure::{Course, Measures, Pulse, Tally};
use crate::message::Composer;
use crate::referee::{Ledger, verdict};
use crate::report::Fault;
use crate::scenario::{Bind, Load, Reading, Scenario};
use crate::server::{self, Source, Usage};

/// How often the conductor looks up.
const BEAT: Duration = Duration::from_millis(20);
/// From the last bind to the begin of the load: everybody hears of it before.
const UPBEAT: u64 = 50_000_000;
/// How long everybody may take to be bound.
const GATHERING_MAX: u64 = 120_000_000_000;
/// How long everybody may take to unbind; connections have less.
const LEAVING_MAX: u64 = 15_000_000_000;
/// A busy executor looks at sockets and timers at least this often; glommio loses wake-ups when it is much shorter.
pub(crate) const PREEMPT: Duration = Duration::from_millis(10);
/// Memory that an executor registers with the kernel for files, which are none here; glommio wants some.
pub(crate) const IO_MEMORY: usize = 64 << 10;

/// How a run is made.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) target: Target,
    /// `{}` in them stands for the number of the account.
    pub(crate) system_id: String,
    pub(crate) password: String,
    /// Threads that play connections.
    pub(crate) executors: usize,
    /// The CPUs that they are bound to, one each; none: wherever the kernel likes.
    pub(crate) pinned_to: Vec<usize>,
    /// The server's process.
    pub(crate) server: Option<Source>,
    /// Everything random.
    pub(crate) seed: u64,
}

/// What the server used at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Seconds since the begin of the warm-up.
    pub(crate) at: f64,
    pub(crate) usage: Usage,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) started: SystemTime,
    pub(crate) course: Course,
    pub(crate) is_cut_short: bool,
    /// By group.
    pub(crate) tallies: Vec<Tally>,
    /// By second, from the begin of the warm-up.
    pub(crate) pulses: Vec<Pulse>,
    /// The server before anybody connected.
    pub(crate) server_before: Option<Usage>,
    /// The server when everybody was bound.
    pub(crate) server_bound: Option<Usage>,
    /// One a second, and one at the begin and the end of the measured time.
    pub(crate) samples: Vec<Sample>,
    /// What the generator used in the measured time.
    pub(crate) own_cpu_seconds: f64,
    /// Connections that were bound when the load began.
    pub(crate) connections: usize,
    /// The TLS version spoken.
    pub(crate) tls: Option<String>,
    pub(crate) faults: Vec<Fault>,
}

/// What a run tells while it goes on.
pub(crate) enum News<'a> {
    /// So many of so many connections are bound.
    Gathering(usize, usize),
    /// A second is over: what happened in it, and whether the measured time has begun.
    Second(&'a Pulse, bool),
    /// Answers and receipts are waited for.
    Draining(usize),
}

/// Plays a scenario. `stops` ends it early, with what was measured until then.
///
/// # Errors
/// The server cannot be reached, refuses to bind somebody, or an executor cannot be had.
pub(crate) fn play(
    scenario: &Scenario,
    setting: &Setting,
    stops: &AtomicBool,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Played, String> {
    let mut ledgers = Ledgers::default();
    let seats = seats(scenario, setting, &mut ledgers)?;
    let witnesses = seats.iter().filter(|seat| seat.role.behaviour.misbehaviour.is_none()).count();
    let server = setting.server;
    let server_before = server.map(Source::usage).transpose()?;
    let mut fleet = Fleet::launch(scenario, setting, seats)?;
    let outcome = conduct(scenario, &mut fleet, &ledgers, (witnesses, server, server_before), stops, tell);
    fleet.stage.leaves.store(true, Ordering::Relaxed);
    let measures = fleet.join();
    let mut played = outcome?;
    let measures = measures?;
    played.tallies = vec![Tally::default(); scenario.groups.len()];
    for measured in &measures {
        for (tally, other) in played.tallies.iter_mut().zip(&measured.tallies) {
            tally.add(other);
        }
    }
    played.faults = verdict(ledgers.0.values().map(|ledger| &**ledger));
    for (group, tally) in scenario.groups.iter().zip(&played.tallies) {
        // Whoever reads slowly or comes and goes may be left behind.
        let must_stay = group.reading.octets_per_second.is_none() && group.life.seconds.is_none();
        let lost = if must_stay { tally.connections_lost } else { 0 };
        // Before whoever is slow the answer may wait in a socket.
        let is_prompt = group.reading == Reading::default();
        let left_alone = if is_prompt { tally.unbinds_unanswered } else { 0 };
        let owed = if is_prompt || tally.unbinds_unanswered == 0 { tally.owed } else { 0 };
        let kinds = [
            (owed, "requests were never answered"),
            (left_alone, "unbinds were never answered"),
            (lost, "connections were lost"),
        ];
        for (count, kind) in kinds.into_iter().filter(|(count, _)| *count > 0) {
            let examples = vec![format!("of the group {}", group.name)];
            played.faults.push(Fault { kind: kind.to_owned(), count, examples });
        }
    }
    Ok(played)
}

fn conduct(
    scenario: &Scenario,
    fleet: &mut Fleet,
    ledgers: &Ledgers,
    (witnesses, server, server_before): (usize, Option<Source>, Option<Usage>),
    stops: &AtomicBool,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Played, String> {
    let stage = Arc::clone(&fleet.stage);
    loop {
        let bound = stage.bound.load(Ordering::Relaxed);
        tell(News::Gathering(bound, witnesses));
        if let Some(failure) = stage.failure() {
            return Err(failure);
        }
        if bound >= witnesses {
            break;
        }
        if stage.now() > GATHERING_MAX {
            return Err(format!("only {bound} of {witnesses} connections were bound in two minutes"));
        }
        if stops.load(Ordering::Relaxed) {
            return Err("stopped before the load began".to_owned());
        }
        fleet.listen(BEAT);
    }
    let server_bound = server.map(Source::usage).transpose()?;
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let (now, wall) = (stage.now(), SystemTime::now());
    let begin = now + UPBEAT;
    let measure = begin + nanos(scenario.warm_up_seconds);
    let mut course = Course { begin, measure, end: measure + nanos(scenario.seconds) };
    stage.set_course(course);
    let started = wall + Duration::from_nanos(measure - now);

    let mut is_cut_short = false;
    let mut samples = Vec::new();
    let mut next_sample = begin;
    let (mut own_before, mut own_after) = (None, None);
    let mut told = 0;
    let drain_end = |course: &Course| course.end + nanos(scenario.drain_seconds);
    loop {
        fleet.listen(BEAT);
        let now = stage.now();
        if stops.load(Ordering::Relaxed) && now < course.end {
            is_cut_short = true;
            course = course.cut(now);
            stage.set_course(course);
        }
        let mut sample = || {
            // A server that is gone says nothing more; that it is gone the connections find.
            if let Some(usage) = server.and_then(|source| source.usage().ok()) {
                samples.push(Sample { at: (now - begin.min(now)) as f64 / 1e9, usage });
            }
        };
        if now >= course.measure && own_before.is_none() {
            own_before = Some(server::own_usage());
            sample();
        } else if now >= course.end && own_after.is_none() {
            own_after = Some(server::own_usage());
            sample();
        } else if now >= next_sample {
            next_sample += 1_000_000_000;
            sample();
        }
        while let Some(pulse) = fleet.complete(told) {
            tell(News::Second(pulse, now >= course.measure));
            fleet.pulses[told].pack();
            told += 1;
        }
        if now >= course.end {
            let in_flight = fleet.in_flight_since(course.end);
            let waiting = in_flight.unwrap_or(0) + ledgers.awaited();
            tell(News::Draining(waiting));
            let is_settled = in_flight.is_some() && waiting == 0 && own_after.is_some();
            let is_over = is_settled || now >= drain_end(&course);
            if is_over || (is_cut_short && now >= course.end + 2_000_000_000) {
                break;
            }
        }
    }
    let own = own_after.unwrap_or_default().cpu_seconds - own_before.unwrap_or_default().cpu_seconds;
    fleet.listen(BEAT);
    Ok(Played {
        started,
        course,
        is_cut_short,
        tallies: Vec::new(),
        pulses: std::mem::take(&mut fleet.pulses),
        server_before,
        server_bound,
        samples,
        own_cpu_seconds: own,
        connections: witnesses,
        tls: stage.tls.get().cloned(),
        faults: Vec::new(),
    })
}

/// The ledgers by account.
#[derive(Default)]
struct Ledgers(BTreeMap<usize, Arc<Ledger>>);

impl Ledgers {
    fn of(&mut self, account: usize) -> Arc<Ledger> {
        Arc::clone(self.0.entry(account).or_default())
    }

    /// Receipts that must still come.
    fn awaited(&self) -> usize {
        self.0.values().map(|ledger| ledger.entries().awaited()).sum()
    }
}

/// The executors of a run.
struct Fleet {
    stage: Arc<Stage>,
    lifelines: Vec<(Arc<Lifeline>, u64)>,
    threads: Vec<thread::JoinHandle<Result<Measures, String>>>,
    receiver: Receiver<Pulse>,
    pulses: Vec<Pulse>,
    /// By second: how many executors have told of it.
    heard: Vec<usize>,
}

impl Fleet {
    fn launch(scenario: &Scenario, setting: &Setting, seats: Vec<Seat>) -> Result<Self, String> {
        let stage = Arc::new(Stage::new());
        let (sender, receiver) = unbounded();
        // One without a seat would have nothing to do, and never tell of a second.
        let executors = setting.executors.min(seats.len());
        let mut of_executor: Vec<Vec<Seat>> = (0..executors).map(|_| Vec::new()).collect();
        for (place, seat) in seats.into_iter().enumerate() {
            of_executor[place % executors].push(seat);
        }
        let mut fleet = Self {
            stage,
            lifelines: Vec::new(),
            threads: Vec::new(),
            receiver,
            pulses: Vec::new(),
            heard: Vec::new(),
        };
        for (number, seats) in of_executor.into_iter().enumerate() {
            let lifeline = Arc::new(Lifeline::default());
            let parts = Parts {
                stage: Arc::clone(&fleet.stage),
                lifeline: Arc::clone(&lifeline),
                target: setting.target.clone(),
                seats,
                groups: scenario.groups.len(),
                pulses: sender.clone(),
            };
            fleet.lifelines.push((lifeline, 0));
            let pinned = setting.pinned_to.get(number).copied();
            let stage = Arc::clone(&fleet.stage);
            let thread = thread::Builder::new()
                .name(format!("{}{number}", server::EXECUTOR_NAME))
                .spawn(move || {
                    LocalExecutorBuilder::new(pinned.map_or(Placement::Unbound, Placement::Fixed))
                        .io_memory(IO_MEMORY)
                        .preempt_timer(PREEMPT)
                        .make()
                        .map(|executor| executor.run(executor::play(parts)))
                        .map_err(|error| {
                            let on = pinned.map_or(String::new(), |cpu| format!(" on CPU {cpu}"));
                            let failure = format!("no executor{on}: {error}");
                            // Nobody waits for its connections to be bound.
                            stage.fail(failure.clone());
                            failure
                        })
                })
                .map_err(|error| format!("no thread: {error}"))?;
            fleet.threads.push(thread);
        }
        Ok(fleet)
    }

    /// Takes what the executors tell, for so long, and keeps them awake.
    fn listen(&mut self, time: Duration) {
        let until = std::time::Instant::now() + time;
        loop {
            match self.receiver.recv_deadline(until) {
                Ok(pulse) => {
                    let second = pulse.second as usize;
                    if self.pulses.len() <= second {
                        let known = self.pulses.len() as u64;
                        let fresh = (known..=pulse.second).map(|second| Pulse { second, ..Pulse::default() });
                        self.pulses.extend(fresh);
                        self.heard.resize(second + 1, 0);
                    }
                    self.pulses[second].add(&pulse);
                    self.heard[second] += 1;
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(time);
                    break;
                }
            }
        }
        for (lifeline, ticks) in &mut self.lifelines {
            let current = lifeline.ticks.load(Ordering::Relaxed);
            if current == *ticks {
                lifeline.pull();
            }
            *ticks = current;
        }
    }

    /// What happened in a second, once all have told of it.
    fn complete(&self, second: usize) -> Option<&Pulse> {
        let heard = *self.heard.get(second)?;
        self.pulses.get(second).filter(|_| heard == self.threads.len())
    }

    /// Requests without an answer; `None` until every executor has counted them at `time` or later.
    fn in_flight_since(&self, time: u64) -> Option<usize> {
        self.lifelines.iter().map(|(lifeline, _)| lifeline.in_flight_since(time)).sum()
    }

    /// Waits until everybody has left.
    fn join(mut self) -> Result<Vec<Measures>, String> {
        let patience = self.stage.now() + LEAVING_MAX;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if self.stage.now() > patience {
                return Err("an executor does not end".to_owned());
            }
            self.listen(BEAT);
        }
        let join = |thread: thread::JoinHandle<_>| {
            thread.join().unwrap_or_else(|_| Err("an executor panicked".to_owned()))
        };
        self.threads.drain(..).map(join).collect()
    }
}

/// Everybody who takes part.
fn seats(scenario: &Scenario, setting: &Setting, ledgers: &mut Ledgers) -> Result<Vec<Seat>, String> {
    let accounts =
        scenario.groups.iter().map(|group| group.first_account + group.accounts).max().unwrap_or(1);
    if accounts > 1 && !setting.system_id.contains("{}") {
        return Err(format!(
            "this scenario plays {accounts} accounts: put {{}} into --system-id, which stands for 0 to {}",
            accounts - 1
        ));
    }
    let named = |pattern: &str, account: usize| pattern.replace("{}", &account.to_string());
    let mut seats = Vec::new();
    for (place, group) in scenario.groups.iter().enumerate() {
        let behaviour = Arc::new(group.clone());
        let modes: &[BindMode] = match group.bind {
            Bind::Transceiver => &[BindMode::Transceiver],
            Bind::Transmitter => &[BindMode::Transmitter],
            Bind::Receiver => &[BindMode::Receiver],
            Bind::Pair => &[BindMode::Transmitter, BindMode::Receiver],
        };
        let mut connection = 0;
        for (account, connections) in group.connections_of_accounts().into_iter().enumerate() {
            let account = group.first_account + account;
            for _ in 0..connections {
                let phase = connection as f64 / group.connections as f64;
                for mode in modes {
                    let number = seats.len() as u32;
                    let seed =
                        setting.seed.wrapping_add(u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                    let arrivals = match &group.load {
                        Load::Open { arrivals, steps } if *mode != BindMode::Receiver => Some(Arrivals::new(
                            steps,
                            *arrivals,
                            1.0 / group.connections as f64,
                            phase,
                            Duration::from_secs_f64(scenario.warm_up_seconds),
                            Duration::from_secs_f64(scenario.seconds),
                            seed,
                        )),
                        Load::Open { .. } | Load::Closed | Load::Idle => None,
                    };
                    let role = Role {
                        number,
                        group: place,
                        behaviour: Arc::clone(&behaviour),
                        mode: *mode,
                        system_id: named(&setting.system_id, account),
                        password: named(&setting.password, account),
                        ledger: ledgers.of(account),
                    };
                    seats.push(Seat { role, work: Work::new(Composer::new(group, seed), arrivals) });
                }
                connection += 1;
            }
        }
    }
    Ok(seats)
}
