//! Everything one core owns: its sessions, its partitions, the accounts it is home to. Octets, time,
//! completions and messages from other shards go in; [`Outputs`] come out.
//!
//! Every input ends in a *turn*: messages to ourselves are dealt with, carriers are heard, and what durable
//! records have earned is paid out. The caller then takes the outputs before the next input.

mod answer;
mod bind;
mod deliver;
mod event;
mod gather;
mod home;
mod mesh;
mod moving;
mod operation;
mod outputs;
mod outward;
mod parked;
mod partition;
mod settings;
mod submission;
mod submit;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use foldhash::fast::RandomState;

pub use event::Event;
pub use home::Home;
pub use mesh::{
    Answer, ConnectionId, Delivery, Matching, MeshMessage, Operation, Replacement, ReplyTo, SessionAddress,
    ShardNumber,
};
pub use moving::MovingSession;
pub use outputs::{Commit, Lookup, Outputs, VerifyRequest};
pub use partition::{
    Abandoned, Age, ApplyError, Due, Earned, Failed, Follows, HeldParcel, Partition, PartitionSettings,
    Recovered, Recovery, Returned, Unrecoverable, subject,
};
pub use settings::{PartitionMap, ShardSettings};
pub use submission::{SubmitError, Validity};

use parked::Parked;

use crate::account::{Account, AccountIndex, Accounts};
use crate::carrier::{Carrier, Report};
use crate::journal::Batch;
use crate::message::{MessageId, ParcelKey, PartitionNumber};
use crate::metrics::Counters;
use crate::pdu::{CommandId, CommandStatus, Header, InterfaceVersion, Pdu};
use crate::route::Routes;
use crate::session::{CloseReason, Received, Session, Side};
use crate::store::{FinalMessage, RestNumber, StoreDone, StoreOp};
use crate::time::timers::{TimerId, Timers};
use crate::time::{Instant, Now};

type FastMap<K, V> = HashMap<K, V, RandomState>;

/// A deliver_sm in flight on a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sent {
    key: ParcelKey,
    owner: ShardNumber,
}

/// A connection of this shard.
#[derive(Debug)]
struct Entry {
    session: Session<Sent>,
    connection: ConnectionId,
    peer: Box<str>,
    account: Option<AccountIndex>,
    binding: Option<bind::Binding>,
    is_dirty: bool,
    /// The timer that is armed, and for when.
    alarm: Option<(Instant, TimerId)>,
    /// Requests of which every partition has a part, and what has to wait for their ends.
    order: gather::Order,
    /// The peer has closed its side: it is sent nothing but answers.
    has_closed: bool,
}

impl Entry {
    /// Whether the next request can be looked at: none waits for what every partition has a part in, and no bind for its
    /// answer: until then the session may still move to another shard.
    const fn is_taking(&self) -> bool {
        self.binding.is_none() && !self.order.has_held()
    }

    /// Notes its output and its timer; whether the session is over, so that its home must not go on choosing it.
    fn note(
        &mut self,
        now: Instant,
        dirty: &mut Vec<ConnectionId>,
        timers: &mut Timers<Instant, ConnectionId>,
    ) -> bool {
        self.session.answered_by(now);
        let is_over = self.session.close_reason().is_some();
        if !self.is_dirty && (is_over || !self.session.output().is_empty()) {
            self.is_dirty = true;
            dirty.push(self.connection);
        }
        // An alarm that is too early finds nothing due and is set anew; one that is too late would be a fault.
        if let Some(next) = self.session.next_timeout()
            && self.alarm.is_none_or(|(alarm, _)| next < alarm)
        {
            if let Some((_, timer)) = self.alarm {
                timers.disarm(timer);
            }
            self.alarm = Some((next, timers.arm(next, self.connection)));
        }
        is_over
    }
}

/// The core of one executor.
pub struct Shard {
    settings: ShardSettings,
    accounts: Rc<Accounts>,
    routes: Routes,
    carriers: Vec<Box<dyn Carrier>>,
    partitions: Vec<Partition>,
    partition_map: PartitionMap,
    sessions: FastMap<ConnectionId, Box<Entry>>,
    session_timers: Timers<Instant, ConnectionId>,
    /// Sessions that their account's home counts. Kept apart from them: a session that is lost to a fault of
    /// ours must not keep its place.
    admitted: FastMap<ConnectionId, AccountIndex>,
    homes: FastMap<AccountIndex, Home>,
    outboxes: FastMap<AccountIndex, deliver::Outbox>,
    /// Accounts that may be offered something, and accounts whose sessions may be given something, before the turn ends.
    to_pump: BTreeSet<AccountIndex>,
    to_dispatch: BTreeSet<AccountIndex>,
    gatherings: FastMap<u64, gather::Gathering>,
    next_gathering: u64,
    /// Senders that wait for the outcome of their message (transaction mode).
    transactions: FastMap<MessageId, ReplyTo>,
    /// What waits for a cold block to come back.
    parked: BTreeMap<(PartitionNumber, RestNumber), Vec<Parked>>,
    /// What carriers have said, each by its place, and nobody has dealt with yet.
    reports: VecDeque<(u8, Report)>,
    /// The partition that is paid out first in a turn; another each time.
    paid_first: usize,
    /// Searches that go on with the next turn.
    searches: VecDeque<gather::Search>,
    /// Messages that were put in the place of others for sessions of other shards, until those say that their senders were
    /// told: how many were, and whether the message was due meanwhile.
    untold: FastMap<MessageId, (u32, bool)>,
    /// The last turn left something over: that is due, or that carriers have to say.
    has_due: bool,
    has_reports: bool,
    local: VecDeque<MeshMessage>,
    /// About accounts that another core has heard of before us: they wait for our own reload.
    early: VecDeque<MeshMessage>,
    is_draining: bool,
    /// The time, as of the turn that is under way.
    now: Instant,
    outputs: Outputs,
    counters: Counters,
}

impl Shard {
    /// A shard over partitions that have recovered; the first takes new messages.
    pub fn new(
        settings: ShardSettings,
        accounts: Rc<Accounts>,
        routes: Routes,
        carriers: Vec<Box<dyn Carrier>>,
        partitions: Vec<Partition>,
        partition_map: PartitionMap,
    ) -> Self {
        assert!(!partitions.is_empty(), "a shard owns at least one partition");
        let outputs =
            Outputs { mesh: (0..settings.shards).map(|_| Vec::new()).collect(), ..Outputs::default() };
        Self {
            settings,
            accounts,
            routes,
            carriers,
            partitions,
            partition_map,
            sessions: FastMap::default(),
            session_timers: Timers::new(),
            admitted: FastMap::default(),
            homes: FastMap::default(),
            outboxes: FastMap::default(),
            to_pump: BTreeSet::new(),
            to_dispatch: BTreeSet::new(),
            gatherings: FastMap::default(),
            next_gathering: 1,
            transactions: FastMap::default(),
            parked: BTreeMap::new(),
            reports: VecDeque::new(),
            paid_first: 0,
            searches: VecDeque::new(),
            untold: FastMap::default(),
            has_due: false,
            has_reports: false,
            local: VecDeque::new(),
            early: VecDeque::new(),
            is_draining: false,
            now: Instant::ZERO,
            outputs,
            counters: Counters::default(),
        }
    }

    /// After recovery: messages that were with a carrier are offered again, parcels wait for their accounts.
    pub fn resume(&mut self, now: Now) {
        // All of what was durable before the first carrier says something: what that leads to is not, yet.
        let (messages, parcels): (Vec<_>, Vec<_>) = self.partitions.iter().map(Partition::resume).unzip();
        parcels.into_iter().flatten().for_each(|key| _ = self.enqueue(key));
        messages.into_iter().flatten().for_each(|id| self.hand_over(now, id, None));
        self.turn(now);
    }

    /// What is to be done; take it after every input.
    pub const fn outputs(&mut self) -> &mut Outputs {
        &mut self.outputs
    }

    /// What was counted so far, gauges as of now.
    pub fn counters(&self) -> Counters {
        let unfinished = self.partitions.iter().map(Partition::unfinished);
        let (messages, parcels) = unfinished.fold((0, 0), |sum, (m, p)| (sum.0 + m, sum.1 + p));
        Counters {
            sessions: self.sessions.len() as u64,
            unfinished: messages as u64,
            parcels: parcels as u64,
            memory_octets: self.partitions.iter().map(|partition| partition.memory_octets() as u64).sum(),
            segments: self.partitions.iter().map(|partition| partition.segments_in_use() as u64).sum(),
            rest_blocks: self.partitions.iter().map(|partition| partition.blocks_at_rest().0 as u64).sum(),
            cold_blocks: self.partitions.iter().map(|partition| partition.blocks_at_rest().1 as u64).sum(),
            failed: self.partitions.iter().filter(|partition| partition.has_failed()).count() as u64,
            ..self.counters
        }
    }

    /// The partitions, for whoever writes their batches.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Sessions that are connected.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// A connection was made, and its TLS handshake is over.
    pub fn connected(&mut self, now: Now, connection: ConnectionId, peer: &str) {
        self.counters.connections += 1;
        let mut entry = Entry {
            session: Session::new(Side::Mc, self.settings.session.clone(), now.instant),
            connection,
            peer: peer.into(),
            account: None,
            binding: None,
            is_dirty: false,
            alarm: None,
            order: gather::Order::default(),
            has_closed: false,
        };
        if self.is_draining {
            // Its handshake began before the stop did; nobody would ask it to leave any more.
            entry.session.unbind(now.instant);
        }
        self.put_back(Box::new(entry));
    }

    /// Takes PDUs off the front of `octets`; how many octets were used. What is left is part of a PDU, or
    /// waits for room in the window, or for the answer to a bind: it comes again, with what was read since.
    pub fn handle_octets(&mut self, now: Now, connection: ConnectionId, octets: &[u8]) -> usize {
        self.now = now.instant;
        let Some(mut entry) = self.sessions.remove(&connection) else { return octets.len() };
        let mut rest = octets;
        // A fault of ours ends this session and no other. It goes back to its place first, with the deliveries it
        // has not confirmed: they are another session's when whoever runs the connection says that it is over.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.take_in(now, &mut entry, &mut rest)));
        self.put_back(entry);
        if let Err(fault) = outcome {
            resume_unwind(fault);
        }
        self.turn(now);
        octets.len() - rest.len()
    }

    fn take_in(&mut self, now: Now, entry: &mut Entry, rest: &mut &[u8]) {
        while entry.is_taking()
            && let Some(received) = entry.session.receive(now.instant, rest)
        {
            match received {
                Received::Request(header, pdu) => self.request(now, entry, &header, &pdu),
                Received::Refused(header, status) => self.refuse(entry, &header, status),
                Received::Response { request, status, .. } => {
                    if let Some(sent) = request.token {
                        self.responded(entry, sent, status);
                    }
                }
                Received::Unbind => self.unbound(entry),
                // Neither reaches a message centre: the operation matrix nacks them.
                Received::Notice(_) => {}
            }
        }
        self.counters.ignored += entry.session.take_ignored();
    }

    /// The peer takes no octets, so nothing is read from it; or it does again.
    pub fn pause(&mut self, now: Now, connection: ConnectionId, is_paused: bool) {
        if let Some(mut entry) = self.sessions.remove(&connection) {
            entry.session.pause(now.instant, is_paused);
            self.put_back(entry);
        }
    }

    /// Whether octets that were left over should be given again: the window has room, no bind waits for its answer, no
    /// request for its turn, and the session lives.
    pub fn wants_octets(&self, connection: ConnectionId) -> bool {
        self.sessions.get(&connection).is_some_and(|entry| {
            let is_busy = entry.session.is_window_full() || !entry.is_taking();
            !is_busy && entry.session.close_reason().is_none()
        })
    }

    /// Whether the peer still waits for an answer of ours.
    pub fn has_unanswered(&self, connection: ConnectionId) -> bool {
        self.sessions.get(&connection).is_some_and(|entry| {
            entry.session.requests_waiting() > 0 && entry.session.close_reason().is_none()
        })
    }

    /// Octets for the peer, moved behind what is in `out`.
    pub fn take_output(&mut self, connection: ConnectionId, out: &mut Vec<u8>) {
        if let Some(entry) = self.sessions.get_mut(&connection) {
            entry.is_dirty = false;
            out.append(entry.session.output());
        }
    }

    /// Whether the session is over: send what is there and close.
    pub fn close_reason(&self, connection: ConnectionId) -> Option<CloseReason> {
        self.sessions.get(&connection).map_or(Some(CloseReason::Ours), |entry| entry.session.close_reason())
    }

    /// The peer has closed its side. It is unbound at its account's home at once, whatever is still owed to it: it is sent
    /// the answers to what it has asked, and nothing else.
    pub fn peer_closed(&mut self, now: Now, connection: ConnectionId) {
        self.release(connection);
        if let Some(mut entry) = self.sessions.remove(&connection) {
            entry.has_closed = true;
            self.return_unanswered(&mut entry);
            self.put_back(entry);
        }
        self.turn(now);
    }

    /// Deliveries that the session will not answer any more are another's.
    fn return_unanswered(&mut self, entry: &mut Entry) {
        while let Some(sent) = entry.session.take_unanswered() {
            self.report_delivery(entry, sent, Delivery::Returned);
        }
    }

    /// The connection is gone; `reason` if the session did not end by itself.
    pub fn disconnected(&mut self, now: Now, connection: ConnectionId, reason: CloseReason) {
        self.release(connection);
        let Some(mut entry) = self.sessions.remove(&connection) else { return self.turn(now) };
        let reason = entry.session.close_reason().unwrap_or(reason);
        entry.session.end(reason);
        self.return_unanswered(&mut entry);
        let system_id =
            entry.account.map(|index| self.accounts.get(index).settings.system_id.as_str().into());
        if let Some((_, timer)) = entry.alarm {
            self.session_timers.disarm(timer);
        }
        self.counters.closed += 1;
        self.outputs.events.push(Event::Closed { system_id, reason, connection, peer: entry.peer });
        self.turn(now);
    }

    /// Messages from another shard.
    pub fn handle_mesh(&mut self, now: Now, messages: impl IntoIterator<Item = MeshMessage>) {
        self.local.extend(messages);
        self.turn(now);
    }

    /// A password was verified, or not.
    pub fn handle_verified(&mut self, now: Now, connection: ConnectionId, is_right: bool) {
        self.verified(connection, is_right);
        self.turn(now);
    }

    /// Nobody has time to verify a password now: the peer may try again, and has not failed.
    pub fn handle_unverified(&mut self, now: Now, connection: ConnectionId) {
        self.unverified(connection);
        self.turn(now);
    }

    /// The state at rest answers.
    pub fn handle_lookup(&mut self, now: Now, lookup: Lookup, found: Vec<FinalMessage<'static>>) {
        self.looked_up(now, lookup, found);
        self.turn(now);
    }

    /// The state at rest could not answer.
    pub fn handle_lookup_failed(&mut self, now: Now, lookup: &Lookup) {
        self.lookup_failed(lookup);
        self.turn(now);
    }

    /// Whether the disk has so little room left that no new message is taken.
    pub fn note_disk(&mut self, is_low: bool) {
        self.partitions.iter_mut().for_each(|partition| partition.note_disk(is_low));
    }

    /// The state at rest has done something. What has come back from it goes on, with whoever waited for it.
    pub fn handle_store(&mut self, now: Now, partition: PartitionNumber, done: StoreDone) {
        let Some(place) = self.place_of(partition) else { return };
        let returned_from = if let StoreDone::GotRest(number, _) = &done { Some(*number) } else { None };
        match self.partitions[place].store_done(done, &self.accounts) {
            Ok(Returned { with_carrier, parcels }) => {
                parcels.into_iter().for_each(|key| self.enqueue_behind(place, key));
                // A report that waited may be the carrier's last word on a message: it comes first.
                if let Some(number) = returned_from {
                    self.unpark(now, partition, number);
                }
                with_carrier.into_iter().for_each(|id| self.hand_over(now, id, None));
                self.turn(now);
            }
            Err(Unrecoverable) => {
                self.store_failed(now, place, "the state at rest failed: a block cannot be read");
            }
        }
    }

    /// The next batch of a partition that somebody waits for, to be written; one at a time.
    pub fn take_batch(&mut self, place: usize) -> Option<Batch> {
        let partition = &mut self.partitions[place];
        if partition.wants_batch() { partition.take_batch() } else { None }
    }

    /// A batch is durable.
    pub fn committed(&mut self, now: Now, place: usize, commit: Commit) {
        let Commit { position, payload_octets, octets, micros, spare } = commit;
        self.counters.commit_octets.add(octets as u64);
        self.counters.commit_micros.add(micros);
        self.partitions[place].commit(position, payload_octets, spare);
        self.turn(now);
    }

    /// A batch could not be made durable: the partition stops, and everybody who waits for it is told.
    pub fn failed(&mut self, now: Now, place: usize, reason: &str) {
        self.stop_partition(now, place, reason, Failed::Journal);
    }

    /// The state at rest failed: the partition stops. What was recorded is still written, and answered then: a refusal
    /// leaves no trace.
    pub fn store_failed(&mut self, now: Now, place: usize, reason: &str) {
        self.stop_partition(now, place, reason, Failed::Store);
    }

    fn stop_partition(&mut self, now: Now, place: usize, reason: &str, failed: Failed) {
        let partition = &mut self.partitions[place];
        let event = Event::PartitionFailed { partition: partition.number, reason: reason.into() };
        self.outputs.events.push(event);
        let number = partition.number;
        let Abandoned { mut waiting, charges } = partition.fail(failed);
        for (account, segments) in charges {
            self.accounts.get(account).return_credits(segments.into());
        }
        // No final state can be recorded any more, so nobody need wait for one. Their messages may be on the disk, or
        // with a carrier: this status does not say that there is none.
        let mut transactions: Vec<MessageId> =
            self.transactions.keys().copied().filter(|id| id.partition() == number).collect();
        transactions.sort_unstable();
        let transactions = transactions.iter().filter_map(|id| self.transactions.remove(id));
        waiting.extend(transactions.map(|reply_to| (reply_to, CommandStatus::ESME_RDELIVERYFAILURE)));
        let parked = self.forget_parked(number).into_iter();
        waiting.extend(parked.map(|reply_to| (reply_to, CommandStatus::ESME_RSYSERR)));
        for (reply_to, status) in waiting {
            self.answer(reply_to, Answer::Status(status));
        }
        self.turn(now);
    }

    /// The next order of a partition for the state at rest.
    pub fn take_store_op(&mut self, place: usize) -> Option<StoreOp> {
        self.partitions[place].take_store_op()
    }

    /// The server stops: whatever is not at rest goes there as far as it can.
    pub fn stop(&mut self) {
        self.partitions.iter_mut().for_each(Partition::stop);
    }

    /// Messages that are over go to rest.
    pub fn flush_finals(&mut self) {
        self.partitions.iter_mut().for_each(Partition::flush_finals);
    }

    /// Other accounts and routes from now on; sessions of accounts that left are unbound.
    pub fn reload(&mut self, now: Now, accounts: Rc<Accounts>, routes: Routes) {
        self.accounts = accounts;
        self.routes = routes;
        // In their order, and before what came since.
        self.early.append(&mut self.local);
        std::mem::swap(&mut self.early, &mut self.local);
        let is_removed = |entry: &Entry| entry.account.is_some_and(|index| self.accounts.get(index).removed);
        let mut removed: Vec<ConnectionId> =
            self.sessions.values().filter(|entry| is_removed(entry)).map(|entry| entry.connection).collect();
        // In an order that does not depend on the table's hasher, so that the same input has the same effects.
        removed.sort_unstable();
        removed.into_iter().for_each(|connection| self.unbind(now, connection));
        self.turn(now);
    }

    /// The server stops: no new binds, unbind to everybody, no new attempts.
    pub fn drain(&mut self, now: Now) {
        self.is_draining = true;
        let mut connections: Vec<ConnectionId> = self.sessions.keys().copied().collect();
        connections.sort_unstable();
        connections.into_iter().for_each(|connection| self.unbind(now, connection));
        self.turn(now);
    }

    fn unbind(&mut self, now: Now, connection: ConnectionId) {
        if let Some(mut entry) = self.sessions.remove(&connection) {
            self.release(connection);
            entry.session.unbind(now.instant);
            self.put_back(entry);
        }
    }

    /// One request that is in its place.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other operations are answered alike")]
    fn request(&mut self, now: Now, entry: &mut Entry, header: &Header, pdu: &Pdu<'_>) {
        if entry.order.must_wait(pdu) {
            entry.order.hold(header, pdu);
            entry.session.hold(now.instant, true);
            return;
        }
        match pdu {
            Pdu::BindReceiver(bind) | Pdu::BindTransmitter(bind) | Pdu::BindTransceiver(bind) => {
                self.bind(entry, header, bind);
            }
            Pdu::SubmitSm(_) | Pdu::DataSm(_) => self.submit(now, entry, header, pdu, true),
            Pdu::SubmitMulti(submit) => self.submit_multi(now, entry, header, submit),
            Pdu::QuerySm(_) | Pdu::CancelSm(_) | Pdu::ReplaceSm(_) => {
                if let Err(error) = self.operate(now, entry, header, pdu) {
                    self.refuse(entry, header, error);
                }
            }
            // Known, but not offered (broadcast_*), or nothing that a peer asks of a message centre.
            _ => entry.session.respond_nack(CommandStatus::ESME_RINVCMDID, header.sequence_number),
        }
    }

    /// Answers a request with a status.
    fn refuse(&mut self, entry: &mut Entry, header: &Header, error: impl Into<CommandStatus>) {
        let status = self.told(entry, header.command_id, error.into());
        entry.session.respond_header(header.command_id, status, header.sequence_number);
    }

    /// What a session is told: the account's own word for it, as it is, or one that its version knows.
    fn told(&self, entry: &Entry, command_id: CommandId, status: CommandStatus) -> CommandStatus {
        let own_word = entry.account.and_then(|index| self.accounts.get(index).own_status(status));
        own_word.unwrap_or_else(|| status.toward(entry.session.version(), command_id))
    }

    /// A session goes back to its place, its output and timer noted.
    fn put_back(&mut self, mut entry: Box<Entry>) {
        let connection = entry.connection;
        if entry.note(self.now, &mut self.outputs.dirty, &mut self.session_timers) {
            self.release(connection);
        }
        self.sessions.insert(connection, entry);
    }

    fn handle_message(&mut self, now: Now, message: MeshMessage) {
        if message.account().is_some_and(|account| self.accounts.try_get(account).is_none()) {
            self.early.push_back(message);
            return;
        }
        match message {
            MeshMessage::Arrived { connection, .. } => self.verified(connection, true),
            MeshMessage::Admit { account, session, window } => self.admit(account, session, window),
            MeshMessage::Admitted { session, outcome } => self.admitted(session, outcome),
            MeshMessage::Ready { account, session } => self.ready(account, session),
            MeshMessage::Released { account, session, unbinds } => {
                self.released(account, session, unbinds);
            }
            MeshMessage::Unbound { session } => self.let_go(session),
            MeshMessage::Grant { account, room } => self.granted(account, room),
            MeshMessage::Offer { account, owner, parcel } => self.offered(account, owner, parcel),
            MeshMessage::Deliver { account, session, owner, parcel } => {
                self.deliver(now, account, session, owner, &parcel);
            }
            MeshMessage::Delivered { account, session, owner, key, outcome } => {
                self.delivered(account, session, owner, key, outcome);
            }
            MeshMessage::Settle { account, key, outcome } => self.settle(now, account, key, outcome),
            MeshMessage::Ask { reply_to, account, operation } => {
                self.perform(now, reply_to, account, operation);
            }
            MeshMessage::Answer { reply_to, answer } => self.handle_answer(now, reply_to, &answer),
            MeshMessage::Told { id } => self.told_of_superseding(id),
        }
    }

    fn send(&mut self, shard: ShardNumber, message: MeshMessage) {
        if shard == self.settings.number {
            self.local.push_back(message);
        } else {
            self.outputs.mesh[usize::from(shard.0)].push(message);
        }
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardNumber> + use<> {
        (0..self.settings.shards).map(ShardNumber)
    }

    /// The shard that keeps an account's sessions together.
    fn home_of(&self, account: &Account) -> ShardNumber {
        let hash = crc32c::crc32c(account.settings.system_id.as_bytes());
        ShardNumber((hash % u32::from(self.settings.shards)) as u8)
    }

    /// Where a partition is among [`partitions`](Self::partitions), if it is here.
    pub fn place_of(&self, partition: PartitionNumber) -> Option<usize> {
        self.partitions.iter().position(|ours| ours.number == partition)
    }

    fn address(&self, connection: ConnectionId) -> SessionAddress {
        SessionAddress { shard: self.settings.number, connection }
    }

    fn reply_to(&self, entry: &Entry, header: &Header) -> ReplyTo {
        ReplyTo {
            session: self.address(entry.connection),
            command_id: header.command_id,
            sequence_number: header.sequence_number,
            gathering: 0,
        }
    }

    /// Whether messages of this session need an id of eight characters.
    fn needs_short_id(version: InterfaceVersion) -> bool {
        !version.has_tlvs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::account::AccountSettings;
    use crate::journal::{BATCH_OCTETS_MAX, Identity, JournalStart, Position, Record, Ring, SegmentNumber};
    use crate::message::{Backoff, IdSource, Reply, reply_for};
    use crate::pdu::{
        Address, Bind, DataCoding, EsmClass, Framing, Npi, QuerySm, RegisteredDelivery, ShortMessage, Tag,
        TlvBuf, Tlvs, Ton, next_frame,
    };
    use crate::route::CarrierIndex;
    use crate::session::SessionSettings;
    use crate::store::Checkpoint;
    use crate::time::Timestamp;

    const NOW: Now = Now { instant: Instant::from_nanos(1), wall: Timestamp::from_millis(1_790_000_000_000) };
    const CONNECTION: ConnectionId = ConnectionId(7);
    const PARTITION: PartitionNumber = PartitionNumber(0);

    fn shard() -> Shard {
        shard_of(vec![partition(PARTITION)])
    }

    fn partition(number: PartitionNumber) -> Partition {
        let recovery = Recovery::new(number, 0, PartitionSettings::default(), &Checkpoint::initial(), NOW);
        let start = JournalStart {
            identity: Identity { partition: number, salt: 1 },
            ring: Ring::resume(1 << 23, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 1),
            last: Position(0),
        };
        Partition::open(recovery.finish(start), Box::new(|octets| Box::new(vec![0; octets])))
    }

    fn accounts() -> Accounts {
        Accounts::default().reload(vec![AccountSettings::new("demo", "x")])
    }

    fn shard_of(partitions: Vec<Partition>) -> Shard {
        let pause = Duration::from_secs(1);
        let settings = ShardSettings {
            number: ShardNumber(0),
            shards: 1,
            system_id: Box::from(*b"smppd"),
            session: SessionSettings::default(),
            validity: Validity { default: pause, longest: pause },
            retry: Backoff { delay_min: pause, delay_max: pause },
            deliver_retry: Backoff { delay_min: pause, delay_max: pause },
            portion: 10,
            is_durable: false,
        };
        let map = PartitionMap::new(partitions.iter().map(|partition| (partition.number, ShardNumber(0))));
        Shard::new(settings, Rc::new(accounts()), Routes::new([]), Vec::new(), partitions, map)
    }

    const BIND: Pdu<'static> = Pdu::BindTransceiver(Bind {
        system_id: b"demo",
        password: b"x",
        system_type: b"",
        interface_version: InterfaceVersion::V5_0,
        address_range: Address { ton: Ton::UNKNOWN, npi: Npi::UNKNOWN, digits: b"" },
        tlvs: Tlvs::EMPTY,
    });

    fn send(shard: &mut Shard, pdu: &Pdu<'_>) {
        let mut octets = Vec::new();
        pdu.encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("it fits");
        shard.handle_octets(NOW, CONNECTION, &octets);
    }

    #[test]
    fn a_fault_of_ours_loses_no_delivery_of_its_session() {
        let mut shard = shard();
        shard.connected(NOW, CONNECTION, "test");
        send(&mut shard, &BIND);
        shard.handle_verified(NOW, CONNECTION, true);
        let sent = Sent { key: ParcelKey { id: MessageId::from_u64(9), part: 1 }, owner: ShardNumber(0) };
        let entry = shard.sessions.get_mut(&CONNECTION).expect("a session");
        entry.session.request_with(NOW.instant, CommandId::DELIVER_SM, sent, |_| {});
        // No account has this place: whatever asks for it panics.
        entry.account = Some(AccountIndex(u32::MAX));
        let query = Pdu::QuerySm(QuerySm {
            message_id: b"123456789012345678",
            source: Address::default(),
            tlvs: Tlvs::EMPTY,
        });
        assert!(catch_unwind(AssertUnwindSafe(|| send(&mut shard, &query))).is_err());
        let entry = shard.sessions.get_mut(&CONNECTION).expect("it is still there");
        assert_eq!(entry.session.take_unanswered(), Some(sent));
    }

    #[test]
    fn a_session_that_is_gone_leaves_no_timer() {
        let mut shard = shard();
        let ends: [fn(&mut Shard); 4] = [
            |shard| {
                // It goes on with another shard.
                let bind = Bind {
                    system_id: b"demo",
                    password: b"x",
                    system_type: b"",
                    interface_version: InterfaceVersion::V5_0,
                    address_range: Address::default(),
                    tlvs: Tlvs::EMPTY,
                };
                send(shard, &Pdu::BindTransceiver(bind));
                assert!(shard.depart(CONNECTION).is_some());
            },
            |shard| shard.disconnected(NOW, CONNECTION, CloseReason::PeerClosed),
            |shard| {
                // It has ended by itself before its connection does.
                shard.handle_octets(NOW, CONNECTION, &[0; 16]);
                shard.disconnected(NOW, CONNECTION, CloseReason::Ours);
            },
            |shard| {
                shard.drain(NOW);
                shard.disconnected(NOW, CONNECTION, CloseReason::Ours);
            },
        ];
        for (number, end) in ends.into_iter().enumerate() {
            shard.connected(NOW, CONNECTION, "test");
            assert_eq!(shard.session_timers.len(), 1, "{number}");
            end(&mut shard);
            assert_eq!((shard.sessions(), shard.session_timers.len()), (0, 0), "{number}");
        }
    }

    #[test]
    fn what_waited_for_a_reload_comes_in_its_order_and_before_what_came_since() {
        let mut shard = shard();
        let accounts = ["demo", "late"].map(|name| AccountSettings::new(name, "x"));
        let next = Rc::new(shard.accounts.reload(accounts.into()));
        let account = next.index_of(b"late").expect("an account");
        let session =
            |connection| SessionAddress { shard: ShardNumber(0), connection: ConnectionId(connection) };
        let admit = |connection| MeshMessage::Admit { account, session: session(connection), window: 1 };
        let released =
            |connection| MeshMessage::Released { account, session: session(connection), unbinds: false };
        // The first session came and went before this shard has heard of the account, the second comes then and goes.
        shard.handle_mesh(NOW, [admit(1), released(1), admit(2)]);
        assert_eq!((shard.early.len(), shard.homes.len()), (3, 0), "nobody knows that account here");
        shard.local.push_back(released(2));
        shard.reload(NOW, next, Routes::new([]));
        let bound = shard.homes.get(&account).map(|home| home.is_empty());
        assert!(bound.is_none_or(|is_empty| is_empty), "a session that is gone keeps its place");
        assert!(shard.early.is_empty());
    }

    #[test]
    fn a_submission_that_may_not_replace_is_counted_as_refused() {
        let mut shard = shard();
        shard.connected(NOW, CONNECTION, "test");
        send(&mut shard, &BIND);
        shard.handle_verified(NOW, CONNECTION, true);
        let demo = AccountSettings { any_source: true, credits: 1, ..AccountSettings::new("demo", "x") };
        let accounts = Rc::new(shard.accounts.reload(vec![demo]));
        shard.reload(NOW, accounts, Routes::new([(String::new(), CarrierIndex(0))]));
        let waits = ShortMessage {
            service_type: b"",
            source: Address { digits: b"12125550100", ..Address::default() },
            destination: Address { digits: b"12125559999", ..Address::default() },
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
        send(&mut shard, &Pdu::SubmitSm(waits));
        assert_eq!((shard.counters().accepted, shard.counters().refused), (1, 0));
        // Two segments in the place of one cost a credit that is not there.
        let mut payload = TlvBuf::default();
        payload.put(Tag::MESSAGE_PAYLOAD, &[b'x'; 161]).expect("it fits");
        let replacing =
            ShortMessage { replace_if_present_flag: 1, short_message: b"", tlvs: payload.as_tlvs(), ..waits };
        send(&mut shard, &Pdu::SubmitSm(replacing));
        assert_eq!((shard.counters().accepted, shard.counters().refused), (1, 1));
    }

    #[test]
    fn the_oldest_delivery_of_all_partitions_is_the_first() {
        let texts = [["2", "3", "6"], ["1", "4", "5"]];
        let partitions = [0, 1].map(|number| {
            let number = PartitionNumber(number);
            let mut partition = partition(number);
            let mut ids = IdSource::new(0, number);
            for text in texts[usize::from(number.0)] {
                let at = NOW.wall + Duration::from_secs(text.parse().expect("a number"));
                let reply = Reply {
                    source: Address::default(),
                    destination: Address::default(),
                    data_coding: DataCoding::DEFAULT,
                    user_data: text.as_bytes(),
                    has_udh: false,
                };
                let parcel = reply_for(ids.next(at, 1), b"demo", &reply, at).expect("it fits");
                partition.record(&Record::Mo(parcel.as_octets()), &accounts(), None).expect("recorded");
            }
            partition
        });
        let mut shard = shard_of(partitions.into());
        shard.resume(NOW);
        shard.connected(NOW, CONNECTION, "test");
        send(&mut shard, &BIND);
        shard.handle_verified(NOW, CONNECTION, true);
        let mut octets = Vec::new();
        shard.take_output(CONNECTION, &mut octets);
        let (mut rest, mut told) = (&octets[..], String::new());
        while let Framing::Frame(frame) = next_frame(rest, usize::MAX) {
            if let Ok(Pdu::DeliverSm(deliver_sm)) = frame.decode() {
                told += str::from_utf8(deliver_sm.short_message).expect("digits");
            }
            rest = &rest[frame.header.command_length as usize..];
        }
        assert_eq!(told, "123456");
    }

    #[test]
    fn a_session_that_was_not_let_in_is_nobodys() {
        for is_let_in in [true, false] {
            let mut shard = shard();
            shard.connected(NOW, CONNECTION, "test");
            send(&mut shard, &BIND);
            shard.handle_verified(NOW, CONNECTION, is_let_in);
            shard.disconnected(NOW, CONNECTION, CloseReason::PeerClosed);
            let closed = shard.outputs().events.iter().filter_map(|event| {
                if let Event::Closed { system_id, .. } = event { Some(system_id.as_deref()) } else { None }
            });
            assert_eq!(closed.collect::<Vec<_>>(), [is_let_in.then_some("demo")]);
        }
    }
}
