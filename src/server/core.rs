//! One core: its shard, and the hands that carry out what the shard wants.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Waker;

use crossbeam_channel::{Sender, TrySendError};
use foldhash::fast::RandomState;
use rustls::ServerConfig;

use crate::message::PartitionNumber;
use crate::metrics::Counters;
use crate::server::balance::Balance;
use crate::server::clock::Clock;
use crate::server::disk::JournalFiles;
use crate::server::mesh::{Inbound, MailSender};
use crate::server::pacemaker::Pacemaker;
use crate::server::password::{Verifier, VerifyRequest};
use crate::server::state::{ORDERS_MAX, Order};
use crate::shard::{ConnectionId, Lookup, Shard};
use crate::time::{Instant, Now};

/// What a core shares with the threads that watch it.
#[derive(Default)]
pub(super) struct Pulse {
    /// The executor's heart; one that stands still is an executor that does.
    pub(super) pacemaker: Arc<Pacemaker>,
    /// Whether the core has ended as it should.
    pub(super) has_ended: AtomicBool,
    /// Whether the watchdog has heard no heartbeat for long.
    pub(super) is_still: AtomicBool,
    /// Whether the disk has little room left.
    pub(super) is_disk_low: AtomicBool,
    /// The counters as of the last heartbeat but few.
    pub(super) counters: std::sync::Mutex<Counters>,
    /// The partitions that have stopped, as of the same time.
    pub(super) failed: std::sync::Mutex<Vec<PartitionNumber>>,
}

/// How large reads are, and how far plaintext may grow in one turn.
const READ_OCTETS: usize = 128 << 10;

/// A core's buffers, used by one connection at a time.
#[derive(Default)]
pub(super) struct Buffers {
    /// What was read, behind what was left of the last read.
    pub(super) raw: Vec<u8>,
    /// What that says.
    pub(super) plain: Vec<u8>,
    /// What is to be encrypted.
    pub(super) output: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { raw: vec![0; READ_OCTETS], plain: Vec::with_capacity(READ_OCTETS), output: Vec::new() }
    }
}

/// What wakes a task of the core.
#[derive(Default)]
pub(super) struct Bell {
    waker: Cell<Option<Waker>>,
}

impl Bell {
    /// Wakes this task when it rings.
    pub(super) fn arm(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }

    pub(super) fn ring(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What the shard asked for and no thread needs to be asked.
#[derive(Default)]
struct Answers {
    /// Passwords that nobody has time to verify.
    unverified: Vec<ConnectionId>,
    /// Questions that the state at rest takes no more.
    unanswerable: Vec<Lookup>,
}

/// One core. Everything on its executor shares it.
pub(super) struct Core {
    pub(super) shard: RefCell<Shard>,
    pub(super) clock: Clock,
    pub(super) buffers: RefCell<Buffers>,
    pub(super) tls: Arc<std::sync::RwLock<Arc<ServerConfig>>>,
    /// The files of each journal.
    pub(super) journals: Vec<JournalFiles>,
    /// For each journal: there is a batch to write.
    pub(super) journal_bells: Vec<Bell>,
    /// Turns have left something over.
    pub(super) more_bell: Bell,
    /// Connections that may have more to read, and what wakes the task that lets them go on.
    pub(super) resting: RefCell<Vec<Waker>>,
    pub(super) resting_bell: Bell,
    /// To each core, this one included, and to the threads of its partitions.
    pub(super) mesh: Vec<MailSender>,
    pub(super) states: Vec<Sender<Order>>,
    pub(super) verifier: Verifier,
    /// Our own mailbox, for the verifier's answers.
    pub(super) own_mail: MailSender,
    pub(super) pulse: Arc<Pulse>,
    pub(super) is_draining: Cell<bool>,
    pub(super) connections: RefCell<HashMap<ConnectionId, Waker, RandomState>>,
    pub(super) next_connection: Cell<u64>,
    /// Connections whose password is right: their tasks find them a core.
    pub(super) verified: RefCell<HashSet<ConnectionId, RandomState>>,
    /// Which core this is, and what the others have to do.
    pub(super) number: usize,
    pub(super) balance: Arc<Balance>,
    /// When requests were last counted, and how many there were.
    pub(super) traffic: Cell<(Instant, u64)>,
    pub(super) handshakes: Cell<usize>,
    /// Connections that wait for something that may never come: the heartbeat lets them look at the time.
    pub(super) impatient: RefCell<HashSet<ConnectionId, RandomState>>,
    /// For each journal: whether a batch is being written.
    pub(super) is_writing: Vec<Cell<bool>>,
}

impl Core {
    /// Gives the shard an input and carries out what it wants. `current` is the connection whose task this
    /// is: it looks after its own output.
    pub(super) fn with<R>(
        &self,
        current: Option<ConnectionId>,
        input: impl FnOnce(&mut Shard, Now) -> R,
    ) -> R {
        let now = self.clock.now();
        let result = input(&mut self.shard.borrow_mut(), now);
        self.carry_out(now, current);
        result
    }

    fn carry_out(&self, now: Now, current: Option<ConnectionId>) {
        loop {
            let Answers { unverified, unanswerable } = self.carry_out_once(current);
            if unverified.is_empty() && unanswerable.is_empty() {
                return;
            }
            let mut shard = self.shard.borrow_mut();
            for connection in unverified {
                shard.handle_unverified(now, connection);
            }
            for lookup in unanswerable {
                shard.handle_lookup_failed(now, &lookup);
            }
        }
    }

    fn carry_out_once(&self, current: Option<ConnectionId>) -> Answers {
        let mut shard = self.shard.borrow_mut();
        let mut to_wake = Vec::new();
        let outputs = shard.outputs();
        for connection in outputs.dirty.drain(..) {
            if Some(connection) != current {
                to_wake.extend(self.connections.borrow().get(&connection).cloned());
            }
        }
        for (place, messages) in outputs.mesh.iter_mut().enumerate() {
            if !messages.is_empty() {
                self.mesh[place].send(Inbound::Mesh(std::mem::take(messages)));
            }
        }
        for event in outputs.events.drain(..) {
            if event.is_alarming() {
                log::error!("{event}");
            } else {
                log::info!("{event}");
            }
        }
        let mut answers = Answers::default();
        for request in outputs.verify.drain(..) {
            let connection = request.connection;
            // Whoever reconnects does not wait behind those who never bound.
            if self.verifier.knows(request.password_hash.as_deref(), &request.system_id, &request.password) {
                self.verified.borrow_mut().insert(connection);
                if Some(connection) != current {
                    to_wake.extend(self.connections.borrow().get(&connection).cloned());
                }
                continue;
            }
            let mail = self.own_mail.clone();
            let queued = self.verifier.try_send(VerifyRequest {
                hash: request.password_hash,
                system_id: request.system_id,
                password: request.password,
                reply: Box::new(move |is_right| mail.send(Inbound::Verified(connection, is_right))),
            });
            if queued.is_err() {
                answers.unverified.push(connection);
            }
        }
        let lookups = std::mem::take(&mut outputs.lookups);
        for lookup in lookups {
            let Some(place) = shard.place_of(lookup.partition) else {
                unreachable!("a shard asks for its own partitions")
            };
            match self.states[place].try_send(Order::Lookup(Box::new(lookup))) {
                Ok(()) => {}
                Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                    // Without the state at rest nothing is known; the sender asks again.
                    if let Order::Lookup(lookup) = order {
                        answers.unanswerable.push(*lookup);
                    }
                }
            }
        }
        for (place, state) in self.states.iter().enumerate() {
            while state.len() < ORDERS_MAX {
                let Some(op) = shard.take_store_op(place) else { break };
                if state.try_send(Order::Op(op)).is_err() {
                    break;
                }
            }
            if shard.partitions()[place].wants_batch() {
                self.journal_bells[place].ring();
            }
        }
        if shard.has_more() {
            self.more_bell.ring();
        }
        drop(shard);
        // A woken task may be polled at once: nothing is borrowed any more.
        to_wake.into_iter().for_each(Waker::wake);
        answers
    }

    /// Wakes this task again when the others had their turn, the kernel among them: a task that wakes itself keeps it from
    /// that, and a peer that sends without end would keep everybody else waiting.
    pub(super) fn come_back(&self, waker: &Waker) {
        self.resting.borrow_mut().push(waker.clone());
        self.resting_bell.ring();
    }

    /// Whether the connection's password was found to be right since the last look.
    pub(super) fn take_verified(&self, connection: ConnectionId) -> bool {
        let mut verified = self.verified.borrow_mut();
        !verified.is_empty() && verified.remove(&connection)
    }

    /// A password was found to be right, or not.
    pub(super) fn verified(&self, connection: ConnectionId, is_right: bool) {
        if !is_right {
            return self.with(None, |shard, now| shard.handle_verified(now, connection, false));
        }
        // One that is gone by now is not remembered.
        let waker = self.connections.borrow().get(&connection).cloned();
        if let Some(waker) = waker {
            self.verified.borrow_mut().insert(connection);
            waker.wake();
        }
    }

    /// Lets connections that wait look at the time.
    pub(super) fn wake_impatient(&self) {
        let wakers: Vec<Waker> = {
            let connections = self.connections.borrow();
            self.impatient.borrow().iter().filter_map(|id| connections.get(id).cloned()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether every record is durable and every order for the state at rest is on its way.
    pub(super) fn is_settled(&self) -> bool {
        let shard = self.shard.borrow();
        let is_settled = shard.partitions().iter().zip(&self.is_writing).all(|(partition, is_writing)| {
            let is_written = !is_writing.get() && !partition.has_batch();
            is_written && (partition.has_failed() || !partition.has_store_ops())
        });
        is_settled && !shard.has_more()
    }

    /// A number for the next connection.
    pub(super) fn next_connection(&self) -> ConnectionId {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        ConnectionId(number)
    }

    /// Tells the other cores how much there is to do here.
    fn note_traffic(&self, counters: &Counters) {
        let requests = counters.accepted + counters.refused + counters.deliver_sent;
        let now = self.clock.now().instant;
        let (since, before) = self.traffic.replace((now, requests));
        let nanos = now.as_nanos().saturating_sub(since.as_nanos()).max(1);
        let per_second = u128::from(requests - before) * 1_000_000_000 / u128::from(nanos);
        self.balance.note_traffic(self.number, per_second as u64);
    }

    /// Tells the watchers and the other cores what was counted.
    pub(super) fn publish_counters(&self) {
        let now = self.shard.borrow().counters();
        self.note_traffic(&now);
        if let Ok(mut counters) = self.pulse.counters.try_lock() {
            *counters = now;
            // One that has stopped stays so.
            if counters.failed > 0
                && let Ok(mut failed) = self.pulse.failed.lock()
            {
                let shard = self.shard.borrow();
                let stopped = shard.partitions().iter().filter(|partition| partition.has_failed());
                *failed = stopped.map(|partition| partition.number).collect();
            }
        }
    }
}

/// Everything on an executor shares its core.
pub(super) type SharedCore = Rc<Core>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::crypto::ring;
    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;
    use crate::account::{AccountSettings, Accounts};
    use crate::carrier::{Carrier, Simulator, SimulatorSettings};
    use crate::journal::{BATCH_OCTETS_MAX, Identity, JournalStart, Position, Ring, SegmentNumber};
    use crate::message::Backoff;
    use crate::pdu::{
        Address, Bind, CommandStatus, DataCoding, EsmClass, InterfaceVersion, Npi, Pdu, RegisteredDelivery,
        ShortMessage, Tlvs, Ton,
    };
    use crate::route::{CarrierIndex, Routes};
    use crate::server::mesh::mailbox;
    use crate::session::SessionSettings;
    use crate::shard::{
        Commit, Partition, PartitionMap, PartitionSettings, Recovery, ShardNumber, ShardSettings, Validity,
    };
    use crate::store::Checkpoint;

    const CONNECTION: ConnectionId = ConnectionId(7);
    const PARTITION: PartitionNumber = PartitionNumber(0);

    fn shard() -> Shard {
        let pause = Duration::from_secs(3_600);
        let settings = ShardSettings {
            number: ShardNumber(0),
            shards: 1,
            system_id: Box::from(*b"smppd"),
            session: SessionSettings::default(),
            validity: Validity { default: 24 * pause, longest: 24 * pause },
            retry: Backoff { delay_min: pause, delay_max: pause },
            deliver_retry: Backoff { delay_min: pause, delay_max: pause },
            portion: 10,
            is_durable: true,
        };
        let demo = AccountSettings { any_source: true, ..AccountSettings::new("demo", "x") };
        let accounts = Accounts::default().reload(vec![demo]);
        let recovery = Recovery::new(
            PARTITION,
            0,
            PartitionSettings::default(),
            &Checkpoint::initial(),
            crate::time::Now::ZERO,
        );
        let start = JournalStart {
            identity: Identity { partition: PARTITION, salt: 1 },
            ring: Ring::resume(1 << 23, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 3),
            last: Position(0),
        };
        let partition = Partition::open(recovery.finish(start), Box::new(|octets| Box::new(vec![0; octets])));
        let carriers: Vec<Box<dyn Carrier>> = vec![Box::new(Simulator::new(SimulatorSettings::default()))];
        let routes = Routes::new([(String::new(), CarrierIndex(0))]);
        let map = PartitionMap::new([(PARTITION, ShardNumber(0))]);
        Shard::new(settings, Rc::new(accounts), routes, carriers, vec![partition], map)
    }

    fn core() -> Core {
        let (mut senders, _) = mailbox(1, 1);
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        Core {
            shard: RefCell::new(shard()),
            clock: Clock::new(),
            buffers: RefCell::new(Buffers::default()),
            tls: Arc::new(std::sync::RwLock::new(Arc::new(tls))),
            journals: Vec::new(),
            journal_bells: vec![Bell::default()],
            more_bell: Bell::default(),
            resting: RefCell::default(),
            resting_bell: Bell::default(),
            mesh: Vec::new(),
            states: Vec::new(),
            verifier: Verifier::start(1, 1).expect("a verifier"),
            own_mail: senders.remove(0),
            pulse: Arc::default(),
            is_draining: Cell::new(false),
            connections: RefCell::default(),
            next_connection: Cell::new(1),
            verified: RefCell::default(),
            number: 0,
            balance: Arc::new(Balance::new(1, 10)),
            traffic: Cell::new((Instant::ZERO, 0)),
            handshakes: Cell::new(0),
            impatient: RefCell::default(),
            is_writing: vec![Cell::new(false)],
        }
    }

    /// A session submits a message that waits for an hour.
    fn submit(shard: &mut Shard, now: Now) {
        let nobody = Address { ton: Ton(0), npi: Npi(0), digits: b"" };
        let bind = Bind {
            system_id: b"demo",
            password: b"x",
            system_type: b"",
            interface_version: InterfaceVersion::V5_0,
            address_range: nobody,
            tlvs: Tlvs::EMPTY,
        };
        let submit = ShortMessage {
            service_type: b"",
            source: Address { digits: b"12125550100", ..nobody },
            destination: Address { digits: b"12125559999", ..nobody },
            esm_class: EsmClass::DEFAULT,
            protocol_id: 0,
            priority_flag: 0,
            schedule_delivery_time: b"000000010000000R",
            validity_period: b"",
            registered_delivery: RegisteredDelivery::NONE,
            replace_if_present_flag: 0,
            data_coding: DataCoding::DEFAULT,
            sm_default_msg_id: 0,
            short_message: b"hello",
            tlvs: Tlvs::EMPTY,
        };
        let mut send = |pdu: &Pdu<'_>, number| {
            let mut octets = Vec::new();
            pdu.encode(CommandStatus::ESME_ROK, number, &mut octets).expect("it fits");
            shard.handle_octets(now, CONNECTION, &octets);
            if number == 1 {
                shard.handle_verified(now, CONNECTION, true);
            }
        };
        send(&Pdu::BindTransceiver(bind), 1);
        send(&Pdu::SubmitSm(submit), 2);
    }

    #[test]
    fn a_core_is_settled_when_nothing_is_on_its_way_to_the_disk() {
        let core = core();
        let now = core.clock.now();
        assert!(core.is_settled());
        core.shard.borrow_mut().connected(now, CONNECTION, "test");
        submit(&mut core.shard.borrow_mut(), now);
        assert!(!core.is_settled(), "a batch waits");
        let batch = core.shard.borrow_mut().take_batch(0).expect("a batch");
        core.is_writing[0].set(true);
        assert!(!core.shard.borrow().partitions()[0].has_batch());
        assert!(!core.is_settled(), "a batch is being written: whoever waits for it is not answered yet");
        core.is_writing[0].set(false);
        let commit = Commit {
            position: batch.position(),
            payload_octets: batch.payload_octets(),
            octets: batch.aligned_octets(),
            micros: 1,
            spare: None,
        };
        core.shard.borrow_mut().committed(now, 0, commit);
        assert!(core.is_settled());
        // It stops: a last checkpoint is on its way to rest.
        core.shard.borrow_mut().stop();
        assert!(!core.is_settled());
        core.shard.borrow_mut().store_failed(now, 0, "the test says so");
        assert!(core.is_settled(), "nothing more goes there");
        // Even then what was recorded before is written, and answered.
        core.is_writing[0].set(true);
        assert!(!core.is_settled());
    }
}
