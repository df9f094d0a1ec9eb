//! The whole life of many messages in the core, without the world around it: what `perf/instructions` counts.
//!
//!     cargo run --release --no-default-features --example full_cycle -- receipts|no-receipts|two-cores [SEED]
//!
//! Ten ESMEs keep a window of a hundred submit_sm full and confirm their receipts at once. The disk is memory, and the
//! clock goes on with the messages, so that some 20,000 are with the carrier at any time. What the core does for it, it
//! does in [`work`], as the server has it done; the ESMEs and the disk are outside. The first messages fill the tables,
//! then what is done in [`counted`] is counted.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use smppd::account::{AccountSettings, Accounts};
use smppd::carrier::{Simulator, SimulatorSettings};
use smppd::config::Config;
use smppd::journal::{
    BATCH_OCTETS_MAX, Batch, Buffers, Identity, JournalStart, Position, Ring, SegmentNumber,
};
use smppd::message::PartitionNumber;
use smppd::pdu::{
    Address, Bind, CommandId, CommandStatus, DataCoding, EsmClass, Framing, InterfaceVersion, Npi, Pdu,
    RegisteredDelivery, ShortMessage, Tlvs, Ton, next_frame, put_header_only,
};
use smppd::route::Routes;
use smppd::shard::{
    Commit, ConnectionId, MeshMessage, Partition, PartitionMap, PartitionSettings, Recovery, Shard,
    ShardNumber, ShardSettings,
};
use smppd::store::{Checkpoint, StoreDone, StoreOp};
use smppd::time::{Instant, Now, Timestamp};

const SESSIONS: usize = 10;
const WINDOW: usize = 100;
const WARM_UP: usize = 60_000;
/// One checkpoint falls into them, as one comes after so many.
const MEASURED: usize = 45_000;
/// The server's heartbeat, and how many messages come between two. Each stays with the carrier for 275 ms on average.
const BEAT: Duration = Duration::from_millis(4);
const MESSAGES_A_BEAT: usize = 300;
/// Segments as small as the settings allow: then a checkpoint has its share of a run as short as this.
const SEGMENT_OCTETS: u64 = 8 << 20;
const CHECKPOINT_SEGMENTS: usize = 3;
/// As `server::run` has it.
const PORTION: usize = 1_024;
const SYSTEM_ID: &str = "load";
const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const TEXT: [u8; 160] = [b'x'; 160];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let (cores, has_receipts) = match &*mode {
        "receipts" => (1, true),
        "no-receipts" => (1, false),
        "two-cores" => (2, true),
        _ => panic!("receipts, no-receipts or two-cores?"),
    };
    let seed = arguments.next().map_or(1, |text| text.parse().expect("a number"));
    let mut world = World::new(cores, has_receipts, seed);
    world.run(WARM_UP);
    let (submitted, confirmed, mails) = (world.submitted, world.confirmed, world.mails);
    let checkpoints = world.checkpoints;
    world.is_counted = true;
    world.run(MEASURED);
    let messages = world.submitted - submitted;
    let receipts = world.confirmed - confirmed;
    println!("messages {messages}\nreceipts {receipts}\ncheckpoints {}", world.checkpoints - checkpoints);
    println!("in_memory {}", world.cores[0].shard.counters().unfinished);
    assert!(receipts.abs_diff(usize::from(has_receipts) * messages) < messages / 50, "as many end as come");
    assert_eq!(world.mails - mails > messages / 10, cores == 2, "two cores have to do with each message");
}

/// Something for a core.
enum Input<'a> {
    Connected(ConnectionId),
    Verified(ConnectionId),
    Octets(ConnectionId, &'a [u8]),
    Mail(Vec<MeshMessage>),
    Written(Commit),
    Stored(StoreDone),
    Beat,
    GoOn,
}

/// A shard, and what it wants done.
struct Core {
    shard: Shard,
    /// For each connection, octets for its ESME.
    sent: Vec<Vec<u8>>,
    /// For each core, what it is told.
    mail: Vec<Vec<Vec<MeshMessage>>>,
    writing: Option<Batch>,
    orders: Vec<StoreOp>,
    binds: Vec<ConnectionId>,
    disk: Disk,
}

/// Takes a batch at once, and has its buffer ready for another.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<Vec<Vec<u8>>>>);

impl Disk {
    fn buffers(&self) -> Buffers {
        let Self(spare) = self.clone();
        Box::new(move |octets| Box::new(spare.borrow_mut().pop().unwrap_or_else(|| vec![0; octets])))
    }

    fn write(&self, batch: Batch) -> Commit {
        let (position, payload_octets, octets) =
            (batch.position(), batch.payload_octets(), batch.aligned_octets());
        let buffer: Box<dyn Any> = batch.into_buffer();
        self.0.borrow_mut().extend(buffer.downcast().map(|buffer| *buffer));
        Commit { position, payload_octets, octets, micros: 100, spare: None }
    }
}

/// Where valgrind counts.
#[inline(never)]
fn counted(core: &mut Core, now: Now, input: Input<'_>) {
    work(core, now, input);
    // No tail call, which would leave this function before the work begins.
    std::hint::black_box(());
}

/// Gives a core an input and takes what comes of it, as `server::core`, `server::connection` and `server::executor` do.
#[inline(never)]
fn work(core: &mut Core, now: Now, input: Input<'_>) {
    let shard = &mut core.shard;
    match input {
        Input::Connected(connection) => shard.connected(now, connection, "127.0.0.1:50000"),
        Input::Verified(connection) => shard.handle_verified(now, connection, true),
        Input::Octets(connection, octets) => {
            let used = shard.handle_octets(now, connection, octets);
            assert_eq!(used, octets.len(), "whole PDUs, and no window is full");
        }
        Input::Mail(messages) => shard.handle_mesh(now, messages),
        Input::Written(commit) => shard.committed(now, 0, commit),
        Input::Stored(done) => shard.handle_store(now, shard.partitions()[0].number, done),
        Input::Beat => {
            shard.note_disk(false);
            shard.tick(now);
        }
        Input::GoOn => shard.go_on(now),
    }
    let outputs = shard.outputs();
    outputs.events.clear();
    core.binds.extend(outputs.verify.drain(..).map(|request| request.connection));
    for (mail, messages) in core.mail.iter_mut().zip(&mut outputs.mesh) {
        if !messages.is_empty() {
            mail.push(std::mem::take(messages));
        }
    }
    while let Some(connection) = shard.outputs().dirty.pop() {
        shard.take_output(connection, &mut core.sent[connection.0 as usize]);
        assert!(shard.close_reason(connection).is_none(), "no session ends");
    }
    core.orders.extend(std::iter::from_fn(|| shard.take_store_op(0)));
    if core.writing.is_none() {
        core.writing = shard.take_batch(0);
    }
}

impl Core {
    fn new(number: u8, cores: u8, accounts: &Accounts, config: &Config) -> Self {
        let partition = PartitionNumber(number);
        let settings = PartitionSettings { checkpoint_segments: CHECKPOINT_SEGMENTS, ..config.partition };
        let recovery = Recovery::new(partition, config.node, settings, &Checkpoint::initial(), Now::ZERO);
        let start = JournalStart {
            identity: Identity { partition, salt: 1 },
            ring: Ring::resume(SEGMENT_OCTETS, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 2),
            last: Position(0),
        };
        let disk = Disk::default();
        let partition = Partition::open(recovery.finish(start), disk.buffers());
        let settings = ShardSettings {
            number: ShardNumber(number),
            shards: cores,
            system_id: config.system_id.as_bytes().into(),
            session: config.session.clone(),
            validity: config.validity,
            retry: config.retry,
            deliver_retry: config.deliver_retry,
            portion: PORTION,
            is_durable: true,
        };
        let carrier = Box::new(Simulator::new(SimulatorSettings::default()));
        let routes = Routes::new(config.routes.iter().cloned());
        let map = PartitionMap::new((0..cores).map(|number| (PartitionNumber(number), ShardNumber(number))));
        let accounts = Rc::new(accounts.clone());
        Self {
            shard: Shard::new(settings, accounts, routes, vec![carrier], vec![partition], map),
            sent: vec![Vec::new(); SESSIONS],
            mail: vec![Vec::new(); cores.into()],
            writing: None,
            orders: Vec::new(),
            binds: Vec::new(),
            disk,
        }
    }
}

/// An ESME, and what its core has not read yet.
#[derive(Clone, Default)]
struct Esme {
    octets: Vec<u8>,
    /// How many submit_sm are among them.
    submits: usize,
    sequence_number: u32,
}

/// Cores, the ESMEs of an account on the first of them, and the time.
struct World {
    cores: Vec<Core>,
    esmes: Vec<Esme>,
    registered_delivery: RegisteredDelivery,
    random: u64,
    now: Now,
    /// submit_sm that the core has read, and how many it will have when the heart beats next.
    submitted: usize,
    beat_at: usize,
    is_counted: bool,
    /// Receipts that were confirmed.
    confirmed: usize,
    /// What cores had to say to one another, and checkpoints.
    mails: usize,
    checkpoints: usize,
}

impl World {
    /// All ESMEs have connected, and ask to be bound.
    fn new(cores: u8, has_receipts: bool, seed: u64) -> Self {
        let account = AccountSettings {
            bind_limit: 0,
            numbers: vec!["12125550100".to_owned()],
            ..AccountSettings::new(SYSTEM_ID, "")
        };
        let accounts = Accounts::default().reload(vec![account]);
        let config = Config::default();
        let mut world = Self {
            cores: (0..cores).map(|number| Core::new(number, cores, &accounts, &config)).collect(),
            esmes: vec![Esme::default(); SESSIONS],
            registered_delivery: RegisteredDelivery(has_receipts.into()),
            random: seed,
            now: Now {
                instant: Instant::from_nanos(1_000_000_000),
                wall: Timestamp::from_millis(1_790_000_000_000),
            },
            submitted: 0,
            beat_at: MESSAGES_A_BEAT,
            is_counted: false,
            confirmed: 0,
            mails: 0,
            checkpoints: 0,
        };
        for number in 0..SESSIONS {
            world.give(0, Input::Connected(ConnectionId(number as u64)));
            world.esmes[number].bind();
        }
        world
    }

    /// Goes on until the core has read so many submit_sm more.
    fn run(&mut self, messages: usize) {
        let end = self.submitted + messages;
        while self.submitted < end {
            self.turn();
        }
    }

    /// Everything that goes on while the disk writes a batch, and the batch.
    fn turn(&mut self) {
        while self.carry_about() {}
        for number in 0..self.cores.len() {
            if let Some(batch) = self.cores[number].writing.take() {
                let commit = self.cores[number].disk.write(batch);
                self.give(number, Input::Written(commit));
            }
        }
    }

    /// Reads from each ESME that has said something, and brings what cores want brought; whether there was anything.
    fn carry_about(&mut self) -> bool {
        let mut is_quiet = true;
        for number in 0..SESSIONS {
            let esme = &mut self.esmes[number];
            let octets = std::mem::take(&mut esme.octets);
            self.submitted += std::mem::take(&mut esme.submits);
            if !octets.is_empty() {
                is_quiet = false;
                self.give(0, Input::Octets(ConnectionId(number as u64), &octets));
            }
            while self.submitted >= self.beat_at {
                self.beat();
            }
        }
        for number in 0..self.cores.len() {
            for from in 0..self.cores.len() {
                for messages in std::mem::take(&mut self.cores[from].mail[number]) {
                    is_quiet = false;
                    self.mails += 1;
                    self.give(number, Input::Mail(messages));
                }
            }
            for connection in std::mem::take(&mut self.cores[number].binds) {
                is_quiet = false;
                self.give(number, Input::Verified(connection));
            }
            for order in std::mem::take(&mut self.cores[number].orders) {
                is_quiet = false;
                self.checkpoints += usize::from(matches!(order, StoreOp::Checkpoint(..)));
                self.give(number, Input::Stored(carried_out(order)));
            }
        }
        !is_quiet
    }

    fn beat(&mut self) {
        self.beat_at += MESSAGES_A_BEAT;
        self.now = Now { instant: self.now.instant + BEAT, wall: self.now.wall + BEAT };
        for number in 0..self.cores.len() {
            self.give(number, Input::Beat);
        }
    }

    fn give(&mut self, number: usize, input: Input<'_>) {
        let input_of = if self.is_counted { counted } else { work };
        input_of(&mut self.cores[number], self.now, input);
        while self.cores[number].shard.has_more() {
            input_of(&mut self.cores[number], self.now, Input::GoOn);
        }
        for place in 0..SESSIONS {
            let mut sent = std::mem::take(&mut self.cores[number].sent[place]);
            self.take_in(place, &sent);
            sent.clear();
            self.cores[number].sent[place] = sent;
        }
    }

    /// An ESME reads, confirms what it is sent, and submits a message for each that was answered.
    fn take_in(&mut self, number: usize, mut octets: &[u8]) {
        while let Framing::Frame(frame) = next_frame(octets, usize::MAX) {
            let header = frame.header;
            octets = &octets[header.command_length as usize..];
            assert_eq!(header.command_status, CommandStatus::ESME_ROK, "{:?}", header.command_id);
            match header.command_id {
                CommandId::DELIVER_SM => {
                    self.confirmed += 1;
                    self.esmes[number].confirm(header.sequence_number);
                }
                CommandId::SUBMIT_SM_RESP => self.submit(number),
                CommandId::BIND_TRANSCEIVER_RESP => (0..WINDOW).for_each(|_| self.submit(number)),
                other => panic!("{other:?} from a core that has no reason for it"),
            }
        }
    }

    fn submit(&mut self, number: usize) {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let digits = format!("4477{:07}", (self.random >> 33) % 10_000_000);
        self.esmes[number].submit(digits.as_bytes(), self.registered_delivery);
    }
}

impl Esme {
    fn send(&mut self, pdu: &Pdu<'_>) {
        self.sequence_number += 1;
        pdu.encode(CommandStatus::ESME_ROK, self.sequence_number, &mut self.octets).expect("encodable");
    }

    fn bind(&mut self) {
        self.send(&Pdu::BindTransceiver(Bind {
            system_id: SYSTEM_ID.as_bytes(),
            password: b"",
            system_type: b"",
            interface_version: InterfaceVersion::V5_0,
            address_range: Address::default(),
            tlvs: Tlvs::EMPTY,
        }));
    }

    fn submit(&mut self, digits: &[u8], registered_delivery: RegisteredDelivery) {
        self.submits += 1;
        self.send(&Pdu::SubmitSm(ShortMessage {
            service_type: b"",
            source: NUMBER,
            destination: Address { digits, ..NUMBER },
            esm_class: EsmClass::DEFAULT,
            protocol_id: 0,
            priority_flag: 0,
            schedule_delivery_time: b"",
            validity_period: b"",
            registered_delivery,
            replace_if_present_flag: 0,
            data_coding: DataCoding::DEFAULT,
            sm_default_msg_id: 0,
            short_message: &TEXT,
            tlvs: Tlvs::EMPTY,
        }));
    }

    fn confirm(&mut self, sequence_number: u32) {
        let octets = &mut self.octets;
        put_header_only(CommandId::DELIVER_SM_RESP, CommandStatus::ESME_ROK, sequence_number, octets);
    }
}

/// What the thread of the state at rest says when it has done its work.
fn carried_out(order: StoreOp) -> StoreDone {
    match order {
        StoreOp::PutFinals(generation, _) => StoreDone::Finals(generation),
        StoreOp::PutRest(number, _) => StoreDone::Rest(number),
        StoreOp::GetRest(_) => panic!("memory is not short"),
        StoreOp::Checkpoint(checkpoint, _) => StoreDone::Checkpoint(checkpoint.segment),
        StoreOp::MakeFile(file) => StoreDone::File(file),
    }
}
