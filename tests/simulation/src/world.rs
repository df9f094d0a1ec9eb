//! A world: cores and what surrounds them, an event queue, and one run through it from a seed.

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
    ConnectionId, Event as ShardEvent, MeshMessage, Partition, PartitionMap, PartitionSettings, Shard,
    ShardNumber, ShardSettings, Validity,
};
use smppd::time::{Now, Timestamp};

use crate::carrier::{Land, Nasty, Watched};
use crate::disk::{self, DiskSettings, PartitionDisk};
use crate::esme::{Esme, instant};
use crate::network::Network;
use crate::oracle::{Asked, Bounds, Connection, Oracle, Seen};
use crate::random::Random;
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
    Flush(usize),
    Mesh(usize, usize),
    Verified(usize, Connection, Option<bool>),
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
    esmes: Vec<Esme>,
    land: Rc<RefCell<Land>>,
    oracle: Rc<RefCell<Oracle>>,
    settings: Vec<AccountSettings>,
    accounts: Accounts,
    routes: Routes,
    partition_settings: PartitionSettings,
    disk_settings: DiskSettings,
    session_settings: SessionSettings,
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
        let disk_settings = DiskSettings {
            segment_octets: 4096 * random.range(2, 8) as usize,
            orders_max: random.pick(&[1, 4, 64]),
            failing_writes: if has_failures { random.range(0, 30) } else { 0 },
            failing_orders: if has_failures { random.range(0, 60) } else { 0 },
            write_micros: random.pick(&[200, 1_000, 20_000]),
            order_micros: random.pick(&[200, 5_000, 60_000]),
        };
        let partition_settings = disk::partition_settings(disk_settings.segment_octets, &mut random);
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
            esmes,
            land: Rc::new(RefCell::new(land)),
            oracle,
            settings,
            accounts: Accounts::default(),
            routes: Routes::default(),
            partition_settings,
            disk_settings,
            session_settings,
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
        self.check_credits();
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
        let Some(((at, _), (epoch, event))) = self.queue.pop_first() else { return false };
        self.nanos = at;
        self.land.borrow_mut().now = at;
        self.oracle.borrow_mut().now = at;
        let is_outside = matches!(
            event,
            Event::EsmeActs(_) | Event::Trouble | Event::ToEsme(_) | Event::ServerSeesClose(_)
        );
        if epoch == self.epoch || is_outside {
            self.trace.note(at, format_args!("{event:?}"));
            self.happen(event);
            for passed in std::mem::take(&mut self.land.borrow_mut().passed) {
                self.trace.note(at, format_args!("{passed}"));
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
            Event::Flush(core) => {
                self.cores[core].shard.flush_blocks();
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
            Event::Verified(core, connection, is_right) => {
                let (now, id) = (self.now(), ConnectionId(connection));
                let shard = &mut self.cores[core].shard;
                match is_right {
                    Some(is_right) => shard.handle_verified(now, id, is_right),
                    None => shard.handle_unverified(now, id),
                }
                self.carry_out(core);
            }
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

    // Processes.

    /// A process begins, on what the disks hold.
    fn start(&mut self) {
        self.epoch += 1;
        let cores = self.random.range(1, 4) as usize;
        for number in (0..cores as u8).map(PartitionNumber) {
            if !self.disks.contains_key(&number) {
                let disk = PartitionDisk::new(number, self.disk_settings, &mut self.random);
                self.disks.insert(number, disk);
            }
        }
        self.trace.note(
            self.nanos,
            format_args!("start {} on {cores} cores, {} partitions", self.epoch, self.disks.len()),
        );
        self.oracle.borrow_mut().epoch = self.epoch;
        self.land.borrow_mut().restarted();
        let Some(partitions) = self.recover() else { return };
        self.routes = self.draw_routes();
        let map = PartitionMap::new(
            partitions.iter().map(|p| (p.number, ShardNumber((usize::from(p.number.0) % cores) as u8))),
        );
        let mut of_core: Vec<Vec<Partition>> = (0..cores).map(|_| Vec::new()).collect();
        self.partition_core.clear();
        for partition in partitions {
            let core = usize::from(partition.number.0) % cores;
            self.partition_core.insert(partition.number, (core, of_core[core].len()));
            of_core[core].push(partition);
        }
        self.cores = Vec::new();
        for (number, partitions) in of_core.into_iter().enumerate() {
            let numbers: Vec<PartitionNumber> = partitions.iter().map(|partition| partition.number).collect();
            let shard = Shard::new(
                self.shard_settings(number, cores),
                Rc::new(self.accounts.clone()),
                self.routes.clone(),
                self.carriers(&numbers),
                partitions,
                map.clone(),
            );
            self.cores.push(Core { shard, partitions: numbers });
        }
        let now = self.now();
        for core in 0..cores {
            self.cores[core].shard.resume(now);
            self.carry_out(core);
            self.at(0, Event::Tick(core));
            self.at(SECOND, Event::Flush(core));
        }
    }

    fn recover(&mut self) -> Option<Vec<Partition>> {
        let mut found = Vec::new();
        let mut names: BTreeSet<Box<[u8]>> = BTreeSet::new();
        for (number, disk) in &mut self.disks {
            match disk.open(&mut self.random) {
                Ok(read) => {
                    let last = read.batches.last().map(|(_, position, _)| *position);
                    let batches =
                        read.batches.iter().map(|(_, position, records)| (*position, records.as_slice()));
                    let last = last.unwrap_or_else(|| disk.before_first());
                    self.oracle.borrow_mut().recovered(*number, last, batches);
                    names.extend(disk.system_ids(&read));
                    found.push(read);
                }
                Err(reason) => {
                    self.oracle.borrow_mut().violate(reason);
                    return None;
                }
            }
        }
        self.accounts =
            Accounts::default().reload(self.settings.clone()).with_unknown(names.iter().map(|name| &**name));
        let mut partitions = Vec::new();
        for (disk, found) in self.disks.values_mut().zip(&found) {
            match disk.recover(self.partition_settings, found, &self.accounts) {
                Ok(partition) => partitions.push(partition),
                Err(reason) => {
                    self.oracle.borrow_mut().violate(reason);
                    return None;
                }
            }
        }
        for partition in &partitions {
            for (system_id, used) in partition.credits_used() {
                if let Some(index) = self.accounts.index_of(system_id) {
                    self.accounts.get(index).restore_credits(used);
                }
            }
        }
        Some(partitions)
    }

    fn shard_settings(&self, number: usize, shards: usize) -> ShardSettings {
        let millis = Duration::from_millis;
        ShardSettings {
            number: ShardNumber(number as u8),
            shards: shards as u8,
            system_id: Box::from(*b"smppd"),
            session: self.session_settings.clone(),
            validity: Validity { default: millis(20_000), longest: millis(30_000) },
            retry: Backoff { delay_min: millis(200), delay_max: millis(2_000) },
            deliver_retry: Backoff { delay_min: millis(200), delay_max: millis(2_000) },
            is_durable: true,
        }
    }

    fn carriers(&mut self, partitions: &[PartitionNumber]) -> Vec<Box<dyn Carrier>> {
        let simulator = Simulator::new(SimulatorSettings { seed: 5, ..SimulatorSettings::default() });
        let nasty =
            |index| Box::new(Nasty::new(Rc::clone(&self.land), index, partitions.iter().copied().collect()));
        vec![nasty(0), Box::new(Watched::new(Rc::clone(&self.land), 1, simulator)), nasty(2)]
    }

    fn draw_routes(&mut self) -> Routes {
        let mut pick = || CarrierIndex(self.random.pick(&[0, 0, 0, 2]));
        let routes = [("44", pick()), ("447900000", pick()), ("12", pick()), ("99", CarrierIndex(1))];
        Routes::new(routes.map(|(prefix, carrier)| (prefix.to_owned(), carrier)))
    }

    /// Everything in memory is gone.
    fn crash(&mut self) {
        self.trace.note(self.nanos, format_args!("crash"));
        self.oracle.borrow_mut().seen.crashes += 1;
        for disk in self.disks.values_mut() {
            disk.crash(&mut self.random);
        }
        self.process_ended();
    }

    fn process_ended(&mut self) {
        self.is_stopping = false;
        self.cores.clear();
        self.mesh.clear();
        self.mesh_busy_until.clear();
        self.epoch += 1;
        self.oracle.borrow_mut().process_ended();
        for connection in self.network.connections() {
            let keeps = self.random.chance(50);
            let Some(line) = self.network.get_mut(connection) else { continue };
            line.server_open = false;
            if !keeps {
                line.to_esme.clear();
            }
            self.look_after_esme(connection, MILLI);
        }
    }

    /// The process ends as it should: no new binds, unbind to everybody, everything to the disk.
    fn stop(&mut self) {
        self.trace.note(self.nanos, format_args!("stop"));
        self.oracle.borrow_mut().seen.stops += 1;
        self.is_stopping = true;
        for core in 0..self.cores.len() {
            let now = self.now();
            self.cores[core].shard.drain(now);
            self.carry_out(core);
        }
        let deadline = self.nanos + 10 * SECOND;
        while self.nanos < deadline && self.cores.iter().any(|core| core.shard.sessions() > 0) && self.step()
        {
        }
        for core in 0..self.cores.len() {
            for (place, number) in self.cores[core].partitions.clone().into_iter().enumerate() {
                let newest = self.disks.get(&number).map(PartitionDisk::newest).unwrap_or_default();
                self.cores[core].shard.flush_blocks();
                self.cores[core].shard.checkpoint(place, newest);
            }
            self.carry_out(core);
        }
        let deadline = self.nanos + 10 * SECOND;
        while self.nanos < deadline && !self.is_settled() && self.step() {}
        if self.is_settled() {
            self.disks.values_mut().for_each(PartitionDisk::stop);
        } else {
            self.disks.values_mut().for_each(|disk| disk.crash(&mut self.random));
        }
        self.process_ended();
    }

    fn is_settled(&self) -> bool {
        self.cores.iter().all(|core| {
            core.shard.partitions().iter().all(|partition| {
                let disk = &self.disks[&partition.number];
                partition.has_failed()
                    || !disk.is_writing()
                        && !partition.has_batch()
                        && !partition.has_store_ops()
                        && !disk.has_orders()
            })
        })
    }

    fn trouble(&mut self) {
        if self.is_calm {
            return;
        }
        let delay = self.random.range(200, 4_000) * MILLI;
        self.at(delay, Event::Trouble);
        if self.is_stopping {
            return;
        }
        let draw = self.random.range(0, 9);
        if draw < 5 {
            return self.reload();
        }
        if self.troubles == 0 {
            return;
        }
        self.troubles -= 1;
        if draw == 5 {
            self.stop();
        } else {
            self.crash();
        }
        if self.has_failed() {
            return;
        }
        // The machine was off for a while, and its clock may have been set.
        self.nanos += self.random.delay(1, 500) * MILLI;
        self.land.borrow_mut().now = self.nanos;
        let shift = self.random.range(0, 4_000);
        match self.random.range(0, 5) {
            0 => self.wall_offset += shift,
            1 => self.wall_offset -= shift,
            _ => {}
        }
        self.start();
    }

    /// Other accounts and routes, of which each core hears in its own time.
    fn reload(&mut self) {
        let removed = if self.is_calm { usize::MAX } else { self.random.place(self.settings.len() * 5) };
        let random = &mut self.random;
        self.settings =
            self.settings.iter().map(|account| workload::volatile(account.clone(), random)).collect();
        let present = self.settings.iter().enumerate().filter(|(number, _)| *number != removed);
        self.accounts = self.accounts.reload(present.map(|(_, account)| account.clone()).collect());
        self.routes = self.draw_routes();
        if removed < self.settings.len() {
            self.oracle.borrow_mut().removed.insert(removed);
            // Its sessions are asked to leave: they count no more.
            for connection in self.network.connections() {
                let Some(line) = self.network.get_mut(connection) else { continue };
                if self.esmes.get(line.esme).is_some_and(|esme| esme.account == removed) {
                    self.oracle.borrow_mut().released(connection);
                }
            }
        }
        for core in 0..self.cores.len() {
            let delay = self.random.range(0, 30) * MILLI;
            self.at(delay, Event::Reload(core));
        }
    }

    // What a core wants.

    /// Carries out what a shard wants, as the server does after every input.
    fn carry_out(&mut self, core: usize) {
        self.depth += 1;
        self.carry_out_turn(core);
        self.depth -= 1;
        if self.depth == 0 {
            self.oracle.borrow_mut().turn_ended();
        }
    }

    fn carry_out_turn(&mut self, core: usize) {
        loop {
            let outputs = self.cores[core].shard.outputs();
            let dirty = std::mem::take(&mut outputs.dirty);
            let verify = std::mem::take(&mut outputs.verify);
            let lookups = std::mem::take(&mut outputs.lookups);
            let events = std::mem::take(&mut outputs.events);
            let mesh: Vec<Vec<MeshMessage>> = outputs.mesh.iter_mut().map(std::mem::take).collect();
            if dirty.is_empty() && verify.is_empty() && lookups.is_empty() && mesh.iter().all(Vec::is_empty) {
                break;
            }
            for (to, batch) in mesh.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
                self.tell_core(core, to, batch);
            }
            for request in verify {
                let password = std::str::from_utf8(&request.password).ok();
                let is_right = request.password_hash.as_deref() == password && password.is_some();
                let outcome = if self.random.chance(2) { None } else { Some(is_right) };
                let delay = self.random.delay(1, 20) * MILLI;
                self.at(delay, Event::Verified(core, request.connection.0, outcome));
            }
            for lookup in lookups {
                let Some(disk) = self.disks.get_mut(&lookup.partition) else { continue };
                if let Err(lookup) = disk.ask(lookup) {
                    let now = self.now();
                    self.cores[core].shard.handle_lookup_failed(now, &lookup);
                }
            }
            for event in events {
                if let ShardEvent::PartitionFailed { partition, .. } = &event {
                    let mut oracle = self.oracle.borrow_mut();
                    oracle.failed.insert(*partition);
                    oracle.seen.failures += 1;
                }
                self.trace.note(self.nanos, format_args!("core {core}: {event}"));
            }
            for connection in dirty {
                self.serve(connection.0);
            }
        }
        self.look_after_disks(core);
    }

    fn tell_core(&mut self, from: usize, to: usize, batch: Vec<MeshMessage>) {
        // In order between two cores, in any order otherwise.
        let delay = self.random.delay(5, self.mesh_micros) * MICRO;
        let busy_until = self.mesh_busy_until.entry((from, to)).or_default();
        let at = (self.nanos + delay).max(*busy_until);
        *busy_until = at;
        self.mesh.entry((from, to)).or_default().push_back(batch);
        self.at(at - self.nanos, Event::Mesh(from, to));
    }

    fn look_after_disks(&mut self, core: usize) {
        for place in 0..self.cores[core].partitions.len() {
            let number = self.cores[core].partitions[place];
            let Some(disk) = self.disks.get_mut(&number) else { continue };
            let shard = &mut self.cores[core].shard;
            disk.take_orders(shard, place);
            let begun = disk.begin_order(&mut self.random);
            let wakes = !disk.is_writing() && (disk.has_released() || shard.partitions()[place].has_batch());
            if let Some(begun) = begun {
                self.at(begun.micros * MICRO, Event::OrderDone(number));
            }
            if wakes {
                let delay = self.random.range(0, 100) * MICRO;
                self.at(delay, Event::WriterWakes(number));
            }
        }
    }

    fn begin_write(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        if let Some(begun) = disk.begin_write(&mut self.cores[core].shard, place, &mut self.random) {
            self.at(begun.micros * MICRO, Event::Written(number));
        }
    }

    fn finish_write(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        let Some((done, records)) = disk.finish_write(&mut self.random) else { return };
        if let disk::Done::Written(commit) = &done {
            self.oracle.borrow_mut().stored(number, commit.position, &records);
        }
        self.told_of_disk(core, place, number, done);
    }

    fn finish_order(&mut self, number: PartitionNumber) {
        let Some((core, place)) = self.partition_core.get(&number).copied() else { return };
        let Some(disk) = self.disks.get_mut(&number) else { return };
        match disk.finish_order(&mut self.random) {
            Some(done) => self.told_of_disk(core, place, number, done),
            None => self.carry_out(core),
        }
    }

    fn told_of_disk(&mut self, core: usize, place: usize, number: PartitionNumber, done: disk::Done) {
        if done.is_checkpoint() {
            self.oracle.borrow_mut().seen.checkpoints += 1;
        }
        let now = self.now();
        if done.is_failure() {
            self.oracle.borrow_mut().failed.insert(number);
        }
        done.tell(&mut self.cores[core].shard, now, number, place);
        self.carry_out(core);
    }

    // The server's end of the lines.

    fn accepted(&mut self, connection: Connection) {
        let now = self.now();
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.esme_open {
            line.server_open = false;
            return self.network.forget_closed(connection);
        }
        line.is_accepted = true;
        let (core, esme) = (line.core, line.esme);
        let account = self.esmes[esme].account;
        self.oracle.borrow_mut().connected(connection, account);
        self.cores[core].shard.connected(now, ConnectionId(connection), "simulated");
        self.carry_out(core);
        self.look_after_server(connection, 0);
    }

    /// Octets will arrive at the server.
    fn look_after_server(&mut self, connection: Connection, delay: u64) {
        let Some(line) = self.network.get_mut(connection) else { return };
        if line.is_server_due || !line.server_open || !line.is_accepted {
            return;
        }
        line.is_server_due = true;
        self.at(delay, Event::ToServer(connection));
    }

    fn carry_to_server(&mut self, connection: Connection) {
        let Some(line) = self.network.get_mut(connection) else { return };
        line.is_server_due = false;
        if !line.server_open {
            return;
        }
        let core = line.core;
        if line.paused_since.is_some() || !self.cores[core].shard.wants_octets(ConnectionId(connection)) {
            // Nothing is read. Whoever takes nothing for too long is cut off.
            let is_stuck = line.paused_since.is_some_and(|since| self.nanos >= since + WRITE_TIMEOUT);
            if is_stuck {
                return self.cut_off(connection, CloseReason::PeerClosed);
            }
            self.serve(connection);
            return self.look_after_server(connection, 20 * MILLI);
        }
        let count = match line.to_server.len() {
            0 => 0,
            some if self.random.chance(20) => self.random.place(some) + 1,
            some => some,
        };
        let Some(line) = self.network.get_mut(connection) else { return };
        let arrived: Vec<u8> = line.to_server.drain(..count).collect();
        line.unread.extend(arrived);
        self.give(connection);
        let more = self.network.get_mut(connection).is_some_and(|line| {
            line.server_open && (!line.to_server.is_empty() || line.paused_since.is_some())
        });
        let is_full = !self.cores[core].shard.wants_octets(ConnectionId(connection));
        let has_unread = self.network.get_mut(connection).is_some_and(|line| !line.unread.is_empty());
        if more || is_full && has_unread {
            let delay = self.random.range(10, 3_000) * MICRO;
            self.look_after_server(connection, delay);
        }
    }

    /// Gives the session what it has not used yet.
    fn give(&mut self, connection: Connection) {
        let (now, id) = (self.now(), ConnectionId(connection));
        let Some(line) = self.network.get_mut(connection) else { return };
        let core = line.core;
        if line.unread.is_empty() || !self.cores[core].shard.wants_octets(id) {
            return;
        }
        let used = self.cores[core].shard.handle_octets(now, id, &line.unread);
        let taken: Vec<u8> = line.unread.drain(..used).collect();
        self.trace.pdus(self.nanos, connection, "E>", &taken);
        self.oracle.borrow_mut().taken_in(connection, &taken);
        self.carry_out(core);
    }

    /// Takes what the session has to say, unless the line is full, and closes it when that was all.
    fn serve(&mut self, connection: Connection) {
        let (now, id) = (self.now(), ConnectionId(connection));
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open || !line.is_accepted {
            return;
        }
        let core = line.core;
        if self.cores[core].shard.close_reason(id).is_some() {
            // Over, whether or not the ESME takes the last words.
            self.oracle.borrow_mut().released(connection);
        }
        let is_full = line.to_esme.len() > LINE_OCTETS_MAX;
        if is_full != line.paused_since.is_some() {
            line.paused_since = is_full.then_some(self.nanos);
            self.trace.note(self.nanos, format_args!("{connection} paused {is_full}"));
            self.oracle.borrow_mut().paused(connection, is_full);
            self.cores[core].shard.pause(now, id, is_full);
            if is_full {
                self.look_after_server(connection, 20 * MILLI);
            }
        }
        if is_full {
            return;
        }
        let mut octets = Vec::new();
        self.cores[core].shard.take_output(id, &mut octets);
        self.trace.pdus(self.nanos, connection, "M>", &octets);
        self.oracle.borrow_mut().handed_out(connection, &octets);
        let reason = self.cores[core].shard.close_reason(id);
        let Some(line) = self.network.get_mut(connection) else { return };
        let has_news = !octets.is_empty() || reason.is_some();
        line.to_esme.extend(octets);
        if let Some(reason) = reason {
            line.server_open = false;
            self.oracle.borrow_mut().disconnected(connection);
            self.cores[core].shard.disconnected(now, id, reason);
            self.carry_out(core);
        } else if !line.unread.is_empty() && self.cores[core].shard.wants_octets(id) {
            let delay = self.random.range(1, 50) * MICRO;
            self.look_after_server(connection, delay);
        }
        if has_news {
            let delay = self.random.delay(20, 2_000) * MICRO;
            self.look_after_esme(connection, delay);
        }
    }

    fn cut_off(&mut self, connection: Connection, reason: CloseReason) {
        let now = self.now();
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open {
            return;
        }
        line.server_open = false;
        let core = line.core;
        self.oracle.borrow_mut().disconnected(connection);
        self.cores[core].shard.disconnected(now, ConnectionId(connection), reason);
        self.carry_out(core);
        self.look_after_esme(connection, MILLI);
        self.network.forget_closed(connection);
    }

    fn server_sees_close(&mut self, connection: Connection) {
        let nanos = self.nanos;
        let Some(line) = self.network.get_mut(connection) else { return };
        if !line.server_open || !line.is_accepted {
            line.server_open = false;
            return self.network.forget_closed(connection);
        }
        let core = line.core;
        let since = *line.closed_since.get_or_insert(nanos);
        let waits = nanos < since + WRITE_TIMEOUT
            && (!line.to_server.is_empty()
                || !line.unread.is_empty() && self.cores[core].shard.wants_octets(ConnectionId(connection))
                || self.cores[core].shard.has_unanswered(ConnectionId(connection)));
        if waits {
            return self.at(50 * MILLI, Event::ServerSeesClose(connection));
        }
        self.cut_off(connection, CloseReason::PeerClosed);
    }

    // The ESMEs' end.

    fn look_after_esme(&mut self, connection: Connection, delay: u64) {
        let Some(line) = self.network.get_mut(connection) else { return };
        if line.is_esme_due || !line.esme_open {
            return;
        }
        line.is_esme_due = true;
        self.at(delay, Event::ToEsme(connection));
    }

    fn carry_to_esme(&mut self, connection: Connection) {
        let (now, nanos) = (self.now(), self.nanos);
        let Some(line) = self.network.get_mut(connection) else { return };
        line.is_esme_due = false;
        if !line.esme_open {
            return;
        }
        if line.slow_until > nanos && line.server_open {
            let delay = line.slow_until - nanos;
            return self.look_after_esme(connection, delay);
        }
        let esme = line.esme;
        let count = match line.to_esme.len() {
            0 => 0,
            some if self.random.chance(20) => self.random.place(some) + 1,
            some => some,
        };
        let octets: Vec<u8> = line.to_esme.drain(..count).collect();
        let (has_more, server_open) = (!line.to_esme.is_empty(), line.server_open);
        if !octets.is_empty() {
            let mut oracle = self.oracle.borrow_mut();
            self.esmes[esme].take_in(now, nanos, &octets, &mut self.random, &mut oracle);
        }
        if has_more {
            let delay = self.random.range(10, 3_000) * MICRO;
            self.look_after_esme(connection, delay);
        } else if !server_open {
            return self.hang_up(esme, connection, true);
        }
        if server_open {
            self.serve(connection);
        }
        self.esmes[esme].tick(now, nanos);
        self.send(esme);
    }

    /// Puts what an ESME has to say on its line.
    fn send(&mut self, esme: usize) {
        let octets = self.esmes[esme].take_output();
        let Some(link) = &self.esmes[esme].link else { return };
        let (connection, is_over) = (link.connection, link.session.close_reason().is_some());
        let Some(line) = self.network.get_mut(connection) else { return };
        if !octets.is_empty() {
            line.to_server.extend(octets);
            let delay = self.random.delay(20, 2_000) * MICRO;
            self.look_after_server(connection, delay);
        }
        if is_over {
            self.hang_up(esme, connection, false);
        }
    }

    /// The ESME closes its end; a reset loses what is under way.
    fn hang_up(&mut self, esme: usize, connection: Connection, is_reset: bool) {
        if self.esmes[esme].link.as_ref().is_some_and(|link| link.connection == connection) {
            self.esmes[esme].link = None;
        }
        let kept = self.random.number();
        let Some(line) = self.network.get_mut(connection) else { return };
        line.esme_open = false;
        line.to_esme.clear();
        if is_reset {
            let length = line.to_server.len();
            line.to_server.truncate((kept % (length as u64 + 1)) as usize);
            line.closed_since = Some(0);
        }
        if line.server_open {
            let delay = self.random.delay(1, 50) * MILLI;
            self.at(delay, Event::ServerSeesClose(connection));
        }
        self.network.forget_closed(connection);
    }

    fn esme_acts(&mut self, esme: usize) {
        let (now, nanos) = (self.now(), self.nanos);
        if self.esmes[esme].has_left {
            return;
        }
        let delay = if self.is_calm { self.random.range(20, 100) } else { self.random.delay(4, 120) };
        self.at(delay * MILLI, Event::EsmeActs(esme));
        let Some(link) = &self.esmes[esme].link else {
            if !self.cores.is_empty()
                && !self.is_stopping
                && self.random.chance(if self.is_calm { 100 } else { 30 })
            {
                self.connect(esme);
            }
            return;
        };
        let connection = link.connection;
        let has_asked = link.is_binding;
        if has_asked && !self.is_calm && self.random.chance(8) {
            // It has no patience with whoever looks at its password.
            return self.hang_up(esme, connection, true);
        }
        if !self.esmes[esme].is_bound() {
            let is_open = link.session.state() == smppd::session::State::Open;
            if is_open && !has_asked {
                self.bind(esme);
            }
        } else if !self.is_calm {
            self.misbehave(esme, connection);
        }
        self.esmes[esme].tick(now, nanos);
        self.send(esme);
    }

    fn connect(&mut self, esme: usize) {
        let core = self.random.place(self.cores.len());
        let connection = self.network.connect(core, esme);
        let now = self.now();
        self.esmes[esme].connected(now, connection);
        let delay = self.random.delay(20, 2_000) * MICRO;
        self.at(delay, Event::Accepted(connection));
    }

    fn bind(&mut self, esme: usize) {
        let now = self.now();
        let name = self.settings[self.esmes[esme].account].system_id.clone();
        let is_wrong = !self.is_calm && self.random.chance(5);
        let password = if is_wrong { "guess".to_owned() } else { workload::password(&name) };
        self.esmes[esme].bind(now, &name, &password, &mut self.oracle.borrow_mut());
    }

    fn misbehave(&mut self, esme: usize, connection: Connection) {
        let (now, nanos) = (self.now(), self.nanos);
        match self.random.range(0, 999) {
            0..=9 => return self.hang_up(esme, connection, true),
            10..=14 => return self.hang_up(esme, connection, false),
            15..=22 => {
                if let Some(link) = &mut self.esmes[esme].link {
                    link.session.unbind(now.instant);
                }
                return;
            }
            23..=27 => {
                // Reads nothing for a while.
                let until = nanos + self.random.range(100, 5_000) * MILLI;
                if let Some(line) = self.network.get_mut(connection) {
                    line.slow_until = until;
                }
            }
            28..=31 => {
                // Half a PDU, and then the line goes.
                if let Some(line) = self.network.get_mut(connection) {
                    line.to_server.extend([0, 0, 0, 40, 0, 0]);
                }
                self.look_after_server(connection, 0);
                return self.hang_up(esme, connection, false);
            }
            _ => {}
        }
        let settings = self.settings[self.esmes[esme].account].clone();
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 4]) {
            let mut oracle = self.oracle.borrow_mut();
            let what = workload::act(&mut self.esmes[esme], now, &settings, &mut self.random, &mut oracle);
            self.trace.note(nanos, format_args!("esme {esme} {what}"));
        }
    }

    // The end.

    /// No more faults; everybody is on his best behaviour.
    fn calm_down(&mut self) {
        // A process that goes on keeps whatever it has leaked.
        let goes_on = self.oracle.borrow().failed.is_empty() && self.random.chance(40);
        if goes_on {
            for esme in 0..self.esmes.len() {
                let connection = self.esmes[esme].link.as_ref().map(|link| link.connection);
                connection.into_iter().for_each(|connection| self.hang_up(esme, connection, true));
            }
        } else if self.random.chance(50) {
            self.crash();
        } else {
            self.stop();
        }
        if self.has_failed() {
            return;
        }
        self.is_calm = true;
        self.land.borrow_mut().is_calm = true;
        self.trace.note(self.nanos, format_args!("calm"));
        let disk_settings = DiskSettings {
            failing_writes: 0,
            failing_orders: 0,
            write_micros: 200,
            order_micros: 200,
            orders_max: 64,
            ..self.disk_settings
        };
        self.disk_settings = disk_settings;
        self.disks.values_mut().for_each(|disk| disk.behave(disk_settings));
        self.partition_settings.messages_max = 10_000;
        for account in &mut self.settings {
            account.rate = 0;
            account.credits = 0;
        }
        for esme in &mut self.esmes {
            esme.is_calm = true;
            esme.mode = BindMode::Transceiver;
        }
        if !goes_on {
            self.start();
        }
        self.reload();
    }

    fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.cores.iter().flat_map(|core| core.shard.partitions())
    }

    /// Lets time pass until nothing is missing.
    fn wait_for(&mut self, what: &str, patience: u64, missing: fn(&Self) -> Option<String>) {
        let deadline = self.nanos + patience;
        while !self.has_failed() {
            let Some(reason) = missing(self) else { return };
            if self.nanos >= deadline {
                return self.oracle.borrow_mut().violate(format!("no {what}: {reason}"));
            }
            let next = self.nanos + SECOND / 2;
            while self.nanos < next && self.step() {}
        }
    }

    fn unfinished(&self) -> Option<String> {
        if let Some(missing) = self.oracle.borrow().missing() {
            return Some(missing);
        }
        if let Some(waiting) = self.unanswered() {
            return Some(waiting);
        }
        let (messages, parcels) =
            self.partitions().map(Partition::unfinished).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        (messages + parcels > 0).then(|| format!("{messages} messages and {parcels} parcels are unfinished"))
    }

    fn unbound(&self) -> Option<String> {
        let is_bound =
            |account: &usize| self.esmes.iter().any(|esme| esme.account == *account && esme.is_bound());
        let unbound = (0..self.settings.len()).find(|account| !is_bound(account));
        unbound.map(|account| format!("nobody of account {account} can bind"))
    }

    fn unanswered(&self) -> Option<String> {
        self.esmes.iter().enumerate().find_map(|(number, esme)| {
            let link = esme.link.as_ref().filter(|_| esme.is_bound())?;
            (link.waiting() > 0)
                .then(|| format!("{} requests of ESME {number} are unanswered", link.waiting()))
        })
    }

    /// Everybody asks after every message of his, and after one of another's.
    fn ask_after_all(&mut self) {
        let now = self.now();
        for account in 0..self.settings.len() {
            let name = self.settings[account].system_id.clone();
            let messages = self.oracle.borrow().messages_of(name.as_bytes());
            let asks = |esme: &Esme| esme.account == account && esme.is_bound();
            let Some(esme) = self.esmes.iter().position(asks) else {
                self.require(false, || format!("nobody of {name} can bind"));
                return;
            };
            let foreign = (account + 1) % self.settings.len();
            let foreign_name = self.settings[foreign].system_id.clone();
            let others = self.oracle.borrow().messages_of(foreign_name.as_bytes());
            let others = others.into_iter().take(if foreign == account { 0 } else { 1 });
            let questions = messages.into_iter().map(|(id, source)| (id, source, Asked::Query(id)));
            let others = others.map(|(id, source)| (id, source, Asked::QueryForeign));
            for (id, source, asked) in questions.chain(others) {
                let mut oracle = self.oracle.borrow_mut();
                workload::ask_after(&mut self.esmes[esme], now, id, &source, asked, &mut oracle);
            }
            self.send(esme);
        }
    }

    fn check_credits(&self) {
        let mut oracle = self.oracle.borrow_mut();
        for account in self.accounts.iter() {
            let name = account.settings.system_id.as_bytes();
            let of_partitions: u64 = self
                .partitions()
                .flat_map(Partition::credits_used)
                .filter(|(system_id, _)| *system_id == name)
                .map(|(_, used)| used)
                .sum();
            let (expected, used) = (oracle.credits_used(name), account.credits_used());
            if used != expected || of_partitions != expected {
                oracle.violate(format!(
                    "{}: {expected} credits on record, {used} counted, {of_partitions} in the partitions",
                    account.settings.system_id
                ));
            }
        }
    }

    /// Everybody leaves, one way or the other.
    fn leave(&mut self) {
        let now = self.now();
        for esme in 0..self.esmes.len() {
            self.esmes[esme].has_left = true;
            let Some(link) = &mut self.esmes[esme].link else { continue };
            let connection = link.connection;
            if self.random.chance(50) {
                link.session.unbind(now.instant);
                self.send(esme);
            } else {
                self.hang_up(esme, connection, true);
            }
        }
        self.pass(12 * SECOND);
        let sessions: usize = self.cores.iter().map(|core| core.shard.sessions()).sum();
        self.require(sessions == 0, || format!("{sessions} sessions are left though everybody has gone"));
    }

    fn pass(&mut self, nanos: u64) {
        let until = self.nanos + nanos;
        while self.nanos < until && self.step() {}
    }

    /// As many binds as are allowed work again, on whatever core.
    fn bind_all(&mut self) {
        for account in 0..self.settings.len() {
            let limit = self.settings[account].bind_limit as usize;
            let first = self.esmes.len();
            for _ in 0..limit {
                let mut esme = Esme::new(account, &mut self.random);
                (esme.is_calm, esme.mode) = (true, BindMode::Transceiver);
                self.esmes.push(esme);
                let esme = self.esmes.len() - 1;
                self.at(0, Event::EsmeActs(esme));
            }
            let all_bound = move |world: &Self| {
                let bound = world.esmes[first..].iter().filter(|esme| esme.is_bound()).count();
                (bound < limit).then(|| format!("{bound} of {limit} binds of account {account} work"))
            };
            let deadline = self.nanos + 20 * SECOND;
            while !self.has_failed() {
                let Some(reason) = all_bound(self) else { break };
                if self.nanos >= deadline {
                    self.require(false, || reason);
                }
                self.pass(SECOND / 4);
            }
            for esme in &mut self.esmes[first..] {
                esme.has_left = true;
            }
        }
    }
}
