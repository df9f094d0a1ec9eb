//! A world: cores and what surrounds them, an event queue, and one run through it from a seed.

mod clock;
mod core;
mod ending;
mod lines;
mod process;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use smppd::account::{AccountSettings, Accounts};
use smppd::carrier::{Carrier, Simulator, SimulatorSettings};
use smppd::message::{Backoff, PartitionNumber};
use smppd::route::{CarrierIndex, Routes};
use smppd::session::{BindMode, CloseReason, SessionSettings};
use smppd::shard::{
    ConnectionId, Event as ShardEvent, MeshMessage, MovingSession, Partition, PartitionMap,
    PartitionSettings, Shard, ShardNumber, ShardSettings,
};
use smppd::time::{Now, Timestamp};

use crate::carrier::{Land, Nasty, Watched};
use crate::disk::{self, DiskSettings, PartitionDisk};
use crate::esme::{Esme, instant};
use crate::network::Network;
use crate::oracle::{Asked, Connection, Idle, Load, Oracle, Seen};
use crate::random::Random;
use crate::terms;
use crate::trace::Trace;
use crate::workload::{self, Habits};

use clock::Clock;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// Octets on their way to an ESME above which the server reads no more from it.
const LINE_OCTETS_MAX: usize = 600;
/// How long the server waits for an ESME that takes nothing, or for answers after it closed.
const WRITE_TIMEOUT: u64 = 3 * SECOND;
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pauses between attempts and between deliveries.
pub const RETRY: Backoff =
    Backoff { delay_min: Duration::from_millis(200), delay_max: Duration::from_millis(2_000) };
/// How long a core may take to hear of a reload.
const RELOAD_MILLIS_MAX: u64 = 30;
/// After so much virtual time without faults everything must have come to its end.
const PATIENCE: u64 = 300 * SECOND;
/// No run has more events; one that does goes round in circles.
const EVENTS_MAX: u64 = 400_000;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was not as promised.
    pub violations: Vec<String>,
    /// The hash of everything that happened.
    pub hash: u64,
    /// How many things happened.
    pub events: u64,
    /// What was seen.
    pub seen: Seen,
}

/// What happens at a point in time.
#[derive(Clone, Copy, Debug)]
enum Event {
    Tick(usize),
    GoOn(usize),
    Flush(usize),
    Mesh(usize, usize),
    Verified(usize, Connection, Option<bool>),
    Moved(Connection),
    WriterWakes(PartitionNumber),
    Written(PartitionNumber),
    OrderDone(PartitionNumber),
    Reload(usize),
    Accepted(Connection),
    ToServer(Connection),
    ToEsme(Connection),
    ServerSeesClose(Connection),
    EsmeActs(usize),
    Trouble,
    ClockSet,
    DiskSpace,
}

/// A core that runs.
struct Core {
    shard: Shard,
    /// It will be asked to go on with what turns have left over.
    goes_on: bool,
    /// It stands still until then.
    frozen_until: u64,
    partitions: Vec<PartitionNumber>,
}

/// Everything there is.
struct World {
    random: Random,
    trace: Trace,
    nanos: u64,
    wall_offset: u64,
    clock: Clock,
    /// It was set for a moment.
    clock_returns_to: Option<u64>,
    queue: BTreeMap<(u64, u64), (u32, Event)>,
    queued: u64,
    epoch: u32,
    cores: Vec<Core>,
    disks: BTreeMap<PartitionNumber, PartitionDisk>,
    partition_core: BTreeMap<PartitionNumber, (usize, usize)>,
    mesh: BTreeMap<(usize, usize), VecDeque<Vec<MeshMessage>>>,
    mesh_busy_until: BTreeMap<(usize, usize), u64>,
    /// Microseconds that a batch between cores takes, about.
    mesh_micros: u64,
    /// How many turns are being carried out within one another.
    depth: usize,
    /// When there was last no room for a file.
    no_room_at: BTreeMap<PartitionNumber, u64>,
    network: Network,
    /// Sessions on their way from one core to another.
    moving: BTreeMap<Connection, MovingSession>,
    esmes: Vec<Esme>,
    land: Rc<RefCell<Land>>,
    oracle: Rc<RefCell<Oracle>>,
    settings: Vec<AccountSettings>,
    accounts: Accounts,
    routes: Routes,
    partition_settings: PartitionSettings,
    /// Those of the process that runs.
    limits: PartitionSettings,
    disk_settings: DiskSettings,
    session_settings: SessionSettings,
    /// Things of one kind that a core deals with in one turn.
    portion: usize,
    habits: Habits,
    /// Very many messages are submitted at once, as soon as somebody can.
    crowd_comes: bool,
    crowd_came: bool,
    troubles: u64,
    is_calm: bool,
    /// The server stops: nobody listens.
    is_stopping: bool,
    /// The disk has little room left, and no file can be made.
    is_disk_low: bool,
    has_no_files: bool,
}

/// Runs the world of a seed to its end.
pub fn run(seed: u64, is_printed: bool) -> Outcome {
    let mut world = World::new(seed, is_printed);
    world.live();
    let mut oracle = world.oracle.borrow_mut();
    let violations = std::mem::take(&mut oracle.violations);
    Outcome { violations, hash: world.trace.hash(), events: world.trace.events(), seen: oracle.seen }
}

impl World {
    fn new(seed: u64, is_printed: bool) -> Self {
        let mut random = Random::new(seed);
        let clock = Clock::draw(&mut random);
        let habits = if clock == Clock::Wild { Habits::default() } else { Habits::draw(&mut random) };
        let is_punctual = habits.is_punctual || clock == Clock::Nervous && random.chance(70);
        let habits = Habits { is_punctual, ..habits };
        let esmes = random.range(if habits.is_old { 5 } else { 2 }, 10) as usize;
        let mut settings = workload::accounts(random.range(1, 4).min(esmes as u64) as usize, &mut random);
        if habits.is_old || clock == Clock::Wild {
            settings
                .iter_mut()
                .for_each(|account| (account.credits, account.rate, account.bind_limit) = (0, 0, 0));
        }
        let session_settings = SessionSettings {
            session_init_timeout: Duration::from_secs(4),
            enquire_link_interval: Duration::from_secs(3),
            inactivity_timeout: Duration::from_secs(9),
            response_timeout: RESPONSE_TIMEOUT,
            pdu_timeout: Duration::from_secs(2),
            window_in_max: random.pick(&[1, 2, 4, 4, 50, 50]),
            window_out_max: random.range(1, 8) as usize,
            ..SessionSettings::default()
        };
        let mut oracle = Oracle::new(settings.iter().map(|account| account.system_id.clone()));
        oracle.response_nanos = RESPONSE_TIMEOUT.as_nanos() as u64;
        oracle.retry_nanos = RETRY.delay_max.as_nanos() as u64;
        oracle.window_out_max = session_settings.window_out_max;
        oracle.window_in_max = session_settings.window_in_max;
        let oracle = Rc::new(RefCell::new(oracle));
        let numbers = settings.iter().flat_map(|account| account.numbers.clone()).collect();
        let land = Land::new(Rc::clone(&oracle), random.fork(), numbers);
        let has_failures = random.chance(30);
        // What is in the journal is too young for its names to come again.
        let is_short = habits.is_old && random.chance(40);
        let batches = match clock {
            Clock::Wild => 4..=4,
            Clock::Steady | Clock::Nervous => 2..=if is_short { 2 } else { 4 },
        };
        let batch_octets_max = 4096 * random.range(*batches.start(), *batches.end()) as usize;
        // Or much happens in one of its segments.
        let is_roomy = habits.is_old && !is_short && random.chance(80);
        let batches = match (is_short, is_roomy) {
            (true, _) => 1..=1,
            (_, true) => 60..=120,
            (_, false) => 1..=6,
        };
        let disk_settings = DiskSettings {
            segment_octets: batch_octets_max + 4096 * random.range(*batches.start(), *batches.end()) as usize,
            batch_octets_max,
            orders_max: random.pick(&[1, 4, 64]),
            failing_lookups: random.pick(&[0, 0, 0, 300]),
            failing_writes: if has_failures { random.range(0, 30) } else { 0 },
            failing_orders: if has_failures { random.range(0, 60) } else { 0 },
            no_room: random.pick(&[0, 0, 0, 60]),
            write_micros: random.pick(&[200, 1_000, 20_000]),
            order_micros: random.pick(&[200, 5_000, 60_000]),
        };
        let mut partition_settings = disk::partition_settings(&mut random);
        if is_roomy || habits.is_old && random.chance(60) {
            partition_settings.messages_octets_max = random.pick(&[14_000, 20_000, 30_000]);
            partition_settings.messages_max = 1_000;
        }
        if clock == Clock::Wild {
            partition_settings = PartitionSettings {
                messages_max: 10_000,
                segments_max: 64,
                journal_waiting_octets_max: 1 << 20,
                messages_octets_max: 1 << 30,
                ..partition_settings
            };
        }
        if is_short {
            partition_settings.checkpoint_segments = 1;
        }
        if random.chance(10) {
            partition_settings.parcel_retention = Duration::from_millis(random.range(1_000, 3_000));
        }
        oracle.borrow_mut().retention = partition_settings.parcel_retention.as_millis() as u64;
        let portions = if clock == Clock::Steady { [1, 3, 40, 1_000] } else { [1, 1, 3, 40] };
        let portion = random.pick(&portions);
        let esmes =
            (0..esmes).map(|number| Esme::new(number % settings.len(), habits.is_old, &mut random)).collect();
        let mesh_micros = random.pick(&[100, 400, 20_000]);
        oracle.borrow_mut().mesh_nanos = 2 * 100 * mesh_micros * MICRO;
        let partitions = random.range(1, if habits.is_old { 2 } else { 6 }) as u8;
        let disks = (0..partitions)
            .map(PartitionNumber)
            .map(|number| (number, PartitionDisk::new(number, disk_settings, &mut random)))
            .collect();
        Self {
            random,
            trace: Trace::new(is_printed),
            nanos: SECOND,
            wall_offset: clock::BEGIN_MILLIS,
            clock,
            clock_returns_to: None,
            queue: BTreeMap::new(),
            queued: 0,
            epoch: 0,
            cores: Vec::new(),
            disks,
            partition_core: BTreeMap::new(),
            mesh: BTreeMap::new(),
            mesh_busy_until: BTreeMap::new(),
            mesh_micros,
            depth: 0,
            no_room_at: BTreeMap::new(),
            network: Network::default(),
            moving: BTreeMap::new(),
            esmes,
            land: Rc::new(RefCell::new(land)),
            oracle,
            settings,
            accounts: Accounts::default(),
            routes: Routes::default(),
            partition_settings,
            limits: partition_settings,
            disk_settings,
            session_settings,
            portion,
            habits,
            crowd_comes: false,
            crowd_came: false,
            troubles: 0,
            is_calm: false,
            is_stopping: false,
            is_disk_low: false,
            has_no_files: false,
        }
    }

    /// Trouble for a while, then peace until everything has come to its end.
    fn live(&mut self) {
        self.troubles = if self.habits.is_old { self.random.range(3, 9) } else { self.random.range(0, 5) };
        self.start();
        for esme in 0..self.esmes.len() {
            let delay = self.random.range(0, 500) * MILLI;
            self.at(delay, Event::EsmeActs(esme));
        }
        let horizon = self.nanos + self.random.range(3, 14) * SECOND;
        let delay = self.random.range(500, 5_000) * MILLI;
        self.at(delay, Event::Trouble);
        self.step_clock();
        if self.random.chance(20) {
            self.disk_space();
        }
        while self.nanos < horizon && self.step() {}
        if self.has_failed() {
            return;
        }
        self.calm_down();
        self.wait_for("binds", PATIENCE, Self::unbound);
        self.wait_for("quiet", PATIENCE, Self::unfinished);
        self.wait_for("binds", PATIENCE, Self::unbound);
        self.serve_all();
        self.wait_for("quiet", PATIENCE, Self::unfinished);
        self.wait_for("binds", PATIENCE, Self::unbound);
        self.ask_after_all();
        self.wait_for("answers", 60 * SECOND, Self::unanswered);
        if self.has_failed() {
            return;
        }
        self.oracle.borrow_mut().check_submissions();
        self.oracle.borrow_mut().check_rates();
        self.check_credits();
        if self.has_failed() {
            return;
        }
        self.leave();
        self.bind_all();
        if self.has_failed() {
            return;
        }
        self.stop();
        self.start();
        self.check_credits();
        let left: usize = self.partitions().map(|partition| partition.unfinished().0).sum();
        self.require(left == 0, || format!("{left} messages came back after the last stop"));
    }

    // Time.

    fn now(&self) -> Now {
        let wall = Timestamp::from_millis(self.wall_offset + self.nanos / MILLI);
        Now { instant: instant(self.nanos), wall }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.nanos + delay, self.queued), (self.epoch, event));
    }

    /// Time goes on to a point. It never goes back: what was due while the machine was off comes late.
    fn reach(&mut self, nanos: u64) {
        self.nanos = self.nanos.max(nanos);
        self.land.borrow_mut().now = self.nanos;
        let wall = self.now().wall;
        self.oracle.borrow_mut().reach(self.nanos, wall);
    }

    fn has_failed(&self) -> bool {
        !self.oracle.borrow().violations.is_empty()
    }

    fn require(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.oracle.borrow_mut().violate(what());
        }
    }

    /// The next event; `false` when something was not as promised.
    fn step(&mut self) -> bool {
        let Some(((due, _), (epoch, event))) = self.queue.pop_first() else { return false };
        self.reach(due);
        let at = self.nanos;
        let is_outside = matches!(
            event,
            Event::EsmeActs(_)
                | Event::Trouble
                | Event::ClockSet
                | Event::DiskSpace
                | Event::ToEsme(_)
                | Event::ServerSeesClose(_)
        );
        if let Some(until) = self.frozen_until(event).filter(|_| epoch == self.epoch) {
            self.queued += 1;
            self.queue.insert((until, self.queued), (epoch, event));
            return true;
        }
        if epoch == self.epoch || is_outside {
            self.trace.note(at, format_args!("{event:?}"));
            self.happen(event);
            for passed in std::mem::take(&mut self.land.borrow_mut().passed) {
                self.trace.note(self.nanos, format_args!("{passed}"));
            }
        }
        if self.trace.events() > EVENTS_MAX {
            self.oracle.borrow_mut().violate("the run does not come to its end".to_owned());
        }
        if let Some(violation) = self.oracle.borrow().violations.first() {
            self.trace.note(at, format_args!("VIOLATION: {violation}"));
            return false;
        }
        true
    }

    /// Until when the core stands still that an event is for.
    fn frozen_until(&mut self, event: Event) -> Option<u64> {
        let core = match event {
            Event::Tick(core) | Event::GoOn(core) | Event::Flush(core) | Event::Mesh(_, core) => core,
            Event::Verified(core, ..) => core,
            Event::WriterWakes(partition) | Event::Written(partition) | Event::OrderDone(partition) => {
                self.partition_core.get(&partition)?.0
            }
            Event::ToServer(connection)
            | Event::ServerSeesClose(connection)
            | Event::Accepted(connection) => self.network.get_mut(connection)?.core,
            // What a reload changes each core knows in time.
            Event::Reload(_) | Event::Moved(_) => return None,
            Event::ToEsme(_) | Event::EsmeActs(_) => return None,
            Event::Trouble | Event::ClockSet | Event::DiskSpace => return None,
        };
        self.cores.get(core).map(|core| core.frozen_until).filter(|until| *until > self.nanos)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(core) => self.tick(core),
            Event::GoOn(core) => {
                let now = self.now();
                self.cores[core].goes_on = false;
                self.cores[core].shard.go_on(now);
                self.carry_out(core);
            }
            Event::Flush(core) => {
                self.cores[core].shard.flush_finals();
                self.carry_out(core);
                let delay = self.random.range(200, 3_000) * MILLI;
                self.at(delay, Event::Flush(core));
            }
            Event::Mesh(from, to) => {
                let batch = self.mesh.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                let now = self.now();
                self.cores[to].shard.handle_mesh(now, batch.unwrap_or_default());
                self.carry_out(to);
            }
            Event::Verified(core, connection, is_right) => self.verified(core, connection, is_right),
            Event::Moved(connection) => self.moved(connection),
            Event::WriterWakes(partition) => self.begin_write(partition),
            Event::Written(partition) => self.finish_write(partition),
            Event::OrderDone(partition) => self.finish_order(partition),
            Event::Reload(core) => {
                let (now, accounts, routes) = (self.now(), self.accounts.clone(), self.routes.clone());
                self.cores[core].shard.reload(now, Rc::new(accounts), routes);
                self.carry_out(core);
            }
            Event::Accepted(connection) => self.accepted(connection),
            Event::ToServer(connection) => self.carry_to_server(connection),
            Event::ToEsme(connection) => self.carry_to_esme(connection),
            Event::ServerSeesClose(connection) => self.server_sees_close(connection),
            Event::EsmeActs(esme) => self.esme_acts(esme),
            Event::Trouble => self.trouble(),
            Event::ClockSet => self.step_clock(),
            Event::DiskSpace => self.disk_space(),
        }
    }

    fn tick(&mut self, core: usize) {
        self.note_idle(core);
        if self.has_failed() {
            return;
        }
        let now = self.now();
        self.cores[core].shard.tick(now);
        self.carry_out(core);
        if !self.is_calm && self.random.range(0, 999) == 0 {
            // The machine is busy with something else.
            let until = self.nanos + self.random.range(200, 3_000) * MILLI;
            self.cores[core].frozen_until = until;
            self.oracle.borrow_mut().stands_still(until);
            self.trace.note(self.nanos, format_args!("core {core} stands still"));
        }
        let delay = if self.is_calm { 100 } else { self.random.range(4, 100) };
        self.at(delay * MILLI, Event::Tick(core));
    }
}
