//! A world: cores and what surrounds them, an event queue, and one run through it from a seed.

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
use crate::oracle::{Asked, Bounds, Connection, Oracle, Seen};
use crate::random::Random;
use crate::terms;
use crate::trace::Trace;
use crate::workload;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// Octets on their way to an ESME above which the server reads no more from it.
const LINE_OCTETS_MAX: usize = 600;
/// How long the server waits for an ESME that takes nothing, or for answers after it closed.
const WRITE_TIMEOUT: u64 = 3 * SECOND;
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_500);
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
}

/// A core that runs.
struct Core {
    shard: Shard,
    /// It will be asked to go on with what turns have left over.
    goes_on: bool,
    partitions: Vec<PartitionNumber>,
}

/// Everything there is.
struct World {
    random: Random,
    trace: Trace,
    nanos: u64,
    wall_offset: u64,
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
    disk_settings: DiskSettings,
    session_settings: SessionSettings,
    /// Things of one kind that a core deals with in one turn.
    portion: usize,
    troubles: u64,
    is_calm: bool,
    /// The server stops: nobody listens.
    is_stopping: bool,
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
        let esmes = random.range(2, 10) as usize;
        let settings = workload::accounts(random.range(1, 4).min(esmes as u64) as usize, &mut random);
        let session_settings = SessionSettings {
            session_init_timeout: Duration::from_secs(4),
            enquire_link_interval: Duration::from_secs(3),
            inactivity_timeout: Duration::from_secs(9),
            response_timeout: RESPONSE_TIMEOUT,
            pdu_timeout: Duration::from_secs(2),
            window_in_max: random.pick(&[2, 4, 50]),
            window_out_max: random.range(1, 8) as usize,
            ..SessionSettings::default()
        };
        let bounds = settings
            .iter()
            .map(|account| Bounds {
                name: account.system_id.clone(),
                numbers: account.numbers.clone(),
                bind_limit: account.bind_limit,
                window: match account.deliver_window {
                    0 => session_settings.window_out_max,
                    own => own as usize,
                },
                accepted_receipts: account.accepted_receipts,
            })
            .collect();
        let oracle = Oracle::new(bounds, RESPONSE_TIMEOUT.as_nanos() as u64);
        let oracle = Rc::new(RefCell::new(oracle));
        let numbers = settings.iter().flat_map(|account| account.numbers.clone()).collect();
        let land = Land::new(Rc::clone(&oracle), random.fork(), numbers);
        let has_failures = random.chance(30);
        let batch_octets_max = 4096 * random.range(2, 4) as usize;
        let disk_settings = DiskSettings {
            segment_octets: batch_octets_max + 4096 * random.range(1, 6) as usize,
            batch_octets_max,
            orders_max: random.pick(&[1, 4, 64]),
            failing_writes: if has_failures { random.range(0, 30) } else { 0 },
            failing_orders: if has_failures { random.range(0, 60) } else { 0 },
            no_room: random.pick(&[0, 0, 0, 60]),
            write_micros: random.pick(&[200, 1_000, 20_000]),
            order_micros: random.pick(&[200, 5_000, 60_000]),
        };
        let partition_settings = disk::partition_settings(&mut random);
        let portion = random.pick(&[1, 3, 40, 1_000]);
        let esmes = (0..esmes).map(|number| Esme::new(number % settings.len(), &mut random)).collect();
        let mesh_micros = random.pick(&[100, 400, 20_000]);
        let partitions = random.range(1, 6) as u8;
        let disks = (0..partitions)
            .map(PartitionNumber)
            .map(|number| (number, PartitionDisk::new(number, disk_settings, &mut random)))
            .collect();
        Self {
            random,
            trace: Trace::new(is_printed),
            nanos: SECOND,
            wall_offset: 1_790_000_000_000,
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
            network: Network::default(),
            moving: BTreeMap::new(),
            esmes,
            land: Rc::new(RefCell::new(land)),
            oracle,
            settings,
            accounts: Accounts::default(),
            routes: Routes::default(),
            partition_settings,
            disk_settings,
            session_settings,
            portion,
            troubles: 0,
            is_calm: false,
            is_stopping: false,
        }
    }

    /// Trouble for a while, then peace until everything has come to its end.
    fn live(&mut self) {
        self.troubles = self.random.range(0, 5);
        self.start();
        for esme in 0..self.esmes.len() {
            let delay = self.random.range(0, 500) * MILLI;
            self.at(delay, Event::EsmeActs(esme));
        }
        let horizon = self.nanos + self.random.range(3, 14) * SECOND;
        let delay = self.random.range(500, 5_000) * MILLI;
        self.at(delay, Event::Trouble);
        while self.nanos < horizon && self.step() {}
        if self.has_failed() {
            return;
        }
        self.calm_down();
        self.wait_for("binds", PATIENCE, Self::unbound);
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
            Event::EsmeActs(_) | Event::Trouble | Event::ToEsme(_) | Event::ServerSeesClose(_)
        );
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
        }
    }

    fn tick(&mut self, core: usize) {
        let now = self.now();
        self.cores[core].shard.tick(now);
        self.carry_out(core);
        let delay = if self.is_calm { 100 } else { self.random.range(4, 100) };
        self.at(delay * MILLI, Event::Tick(core));
    }
}
