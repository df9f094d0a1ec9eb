//! Shards joined by memory instead of sockets, threads and disks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use smppd::account::{AccountSettings, Accounts, StatusName};
use smppd::carrier::{Carrier, News, ReplyNews, Report, Simulator, SimulatorSettings};
use smppd::journal::{BatchBuffer, BatchHeader, Identity, JournalStart, Position, Ring, SegmentNumber};
use smppd::message::{Backoff, Content, Message, MessageId, PartitionNumber};
use smppd::metrics::Counters;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{
    Address, Bind, CancelSm, CommandId, CommandStatus, DataCoding, Framing, InterfaceVersion, Pdu, QuerySm,
    ShortMessage, next_frame,
};
use smppd::route::{CarrierIndex, Routes};
use smppd::session::{CloseReason, SessionSettings};
use smppd::shard::{
    Commit, ConnectionId, Matching, MeshMessage, Partition, PartitionMap, PartitionSettings, Recovery, Shard,
    ShardNumber, ShardSettings, Validity,
};
use smppd::store::{BlockError, BlockKey, Checkpoint, RestNumber, StoreDone, StoreOp, cut, find};
use smppd::time::{Instant, Now, Timestamp};

pub use requests::*;

mod requests;

/// Carriers of each shard.
const CARRIERS: usize = 2;
/// Small, so that checkpoints come often.
const SEGMENT_OCTETS: u64 = 160 << 10;
const BATCH_OCTETS: usize = 144 << 10;

pub const ACCEPTED_BIND: CommandStatus = CommandStatus::ESME_ROK;

/// A PDU as an ESME got it.
#[derive(Clone, Debug)]
pub struct ReceivedPdu {
    pub command_id: CommandId,
    pub command_status: CommandStatus,
    octets: Vec<u8>,
}

impl ReceivedPdu {
    fn with<R>(&self, read: impl FnOnce(Pdu<'_>) -> R) -> R {
        let Framing::Frame(frame) = next_frame(&self.octets, usize::MAX) else { panic!("a whole PDU") };
        read(frame.decode().expect("a PDU that can be read"))
    }

    pub fn message_id(&self) -> String {
        self.with(|pdu| {
            let Pdu::SubmitSmResp(body) = pdu else { panic!("not a submit_sm_resp: {pdu:?}") };
            String::from_utf8(body.message_id.to_vec()).expect("digits")
        })
    }

    pub fn submit_multi_id(&self) -> String {
        self.with(|pdu| {
            let Pdu::SubmitMultiResp(body) = pdu else { panic!("not a submit_multi_resp: {pdu:?}") };
            String::from_utf8(body.message_id.to_vec()).expect("digits")
        })
    }

    pub fn text(&self) -> String {
        self.with(|pdu| {
            let Pdu::DeliverSm(body) = pdu else { panic!("not a deliver_sm: {pdu:?}") };
            String::from_utf8(body.short_message.to_vec()).expect("ASCII")
        })
    }

    pub fn has_tlvs(&self) -> bool {
        self.with(|pdu| matches!(pdu, Pdu::DeliverSm(body) if body.tlvs.iter().next().is_some()))
    }

    /// What query_sm_resp tells: state, error_code and final_date.
    pub fn queried(&self) -> (MessageState, u8, String) {
        self.with(|pdu| {
            let Pdu::QuerySmResp(body) = pdu else { panic!("not a query_sm_resp: {pdu:?}") };
            let final_date = String::from_utf8(body.final_date.to_vec()).expect("ASCII");
            (MessageState(body.message_state), body.error_code, final_date)
        })
    }

    pub fn receipt_id(&self) -> String {
        let text = self.text();
        text.strip_prefix("id:").and_then(|rest| rest.split(' ').next()).expect("a receipt").to_owned()
    }
}

/// A carrier, and what passes between it and its shard.
struct Witness {
    carrier: Simulator,
    seen: Rc<RefCell<Witnessed>>,
}

/// What a [`Witness`] has seen.
#[derive(Default)]
pub struct Witnessed {
    /// Messages offered.
    pub offers: usize,
    /// To be said, before what the carrier itself has to say.
    pub news: VecDeque<News>,
    /// Replies for which there was no room, and when each is said again.
    pub taken_back: VecDeque<(Instant, News)>,
    /// Reports made.
    pub said: u64,
    /// Reports acknowledged.
    pub acknowledged: BTreeSet<u64>,
}

impl Carrier for Witness {
    fn offer(&mut self, now: Instant, message: &Content<'_>, resumed: bool) -> Option<Report> {
        let seen = &mut *self.seen.borrow_mut();
        seen.offers += 1;
        let Report { news, .. } = self.carrier.offer(now, message, resumed)?;
        seen.said += 1;
        Some(Report { token: Some(seen.said), news })
    }

    fn poll(&mut self, now: Instant) -> Option<Report> {
        let seen = &mut *self.seen.borrow_mut();
        if seen.taken_back.front().is_some_and(|(again, _)| *again <= now) {
            seen.news.extend(seen.taken_back.pop_front().map(|(_, news)| news));
        }
        let news = seen.news.pop_front().or_else(|| self.carrier.poll(now).map(|report| report.news))?;
        seen.said += 1;
        Some(Report { token: Some(seen.said), news })
    }

    fn acknowledge(&mut self, token: u64) {
        assert!(self.seen.borrow_mut().acknowledged.insert(token), "acknowledged once");
    }

    fn take_back(&mut self, now: Instant, report: Report) {
        let again = now + Duration::from_millis(50);
        self.seen.borrow_mut().taken_back.push_back((again, report.news));
    }
}

/// An ESME's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Esme(usize, ConnectionId);

/// What is durable of one partition.
struct Disk {
    batches: Vec<(SegmentNumber, Position, Vec<u8>)>,
    rest: BTreeMap<RestNumber, (Vec<u8>, Vec<u16>)>,
    finals: BTreeMap<[u8; 16], Vec<u8>>,
    checkpoint: Checkpoint,
}

impl Disk {
    fn new() -> Self {
        let checkpoint = Checkpoint::initial();
        Self { batches: Vec::new(), rest: BTreeMap::new(), finals: BTreeMap::new(), checkpoint }
    }
}

const fn identity(partition: usize) -> Identity {
    Identity { partition: PartitionNumber(partition as u8), salt: 1 }
}

/// Several shards and everything around them.
pub struct Net {
    shards: Vec<Shard>,
    disks: Vec<Disk>,
    inboxes: HashMap<Esme, Vec<ReceivedPdu>>,
    now: Now,
    next_connection: u64,
    is_disk_held: bool,
    held_mesh: BTreeMap<(usize, usize), VecDeque<Vec<MeshMessage>>>,
    has_verifier: bool,
    /// Orders that each state at rest still carries out before a crash.
    store_orders: Vec<usize>,
    closed: Vec<Esme>,
    accounts: Accounts,
    /// From the next start on.
    pub partition_settings: PartitionSettings,
    /// Things of one kind in one turn, from the next start on.
    pub portion: usize,
    /// Blocks that came back from rest.
    pub fetched: usize,
    /// The carrier of all messages, from the next start on.
    pub route: CarrierIndex,
    /// Of each shard's first carrier, then of each shard's second.
    pub witnessed: Vec<Rc<RefCell<Witnessed>>>,
    /// Whether the ESMEs confirm what they get by themselves.
    pub confirms: bool,
    /// What they answer to a deliver_sm then.
    pub deliver_sm_status: CommandStatus,
    /// Whether there is room for another file of a journal, and how many were asked for.
    pub has_file_room: bool,
    pub files_asked_for: usize,
}

/// What the product page says, and a status that v3.4 does not know.
fn own_words() -> BTreeMap<StatusName, StatusName> {
    let word = |ours: CommandStatus, own: u32| (StatusName(ours), StatusName(CommandStatus(own)));
    [word(CommandStatus::ESME_RINVDSTADR, 0x0E), word(CommandStatus::ESME_RINVDCS, 0x104)].into()
}

fn settings(names: &[&str]) -> Vec<AccountSettings> {
    names
        .iter()
        .map(|name| AccountSettings {
            any_source: true,
            bind_limit: 2,
            status_map: if *name == "worded" { own_words() } else { BTreeMap::new() },
            rate: u32::from(*name == "slow"),
            burst: u32::from(*name == "slow"),
            numbers: vec!["12125550100".into()],
            ..AccountSettings::new(name, "secret")
        })
        .collect()
}

/// Those of every start.
const ACCOUNTS: [&str; 4] = ["demo", "other", "slow", "worded"];

impl Net {
    pub fn new(shards: usize) -> Self {
        let now = Now {
            instant: Instant::from_nanos(1_000_000_000),
            wall: Timestamp::from_millis(1_790_000_000_000),
        };
        let disks = (0..shards).map(|_| Disk::new()).collect();
        let mut net = Self {
            shards: Vec::new(),
            disks,
            inboxes: HashMap::new(),
            now,
            next_connection: 1,
            is_disk_held: false,
            held_mesh: BTreeMap::new(),
            has_verifier: true,
            store_orders: vec![usize::MAX; shards],
            closed: Vec::new(),
            accounts: Accounts::default(),
            partition_settings: PartitionSettings::default(),
            portion: 100,
            fetched: 0,
            route: CarrierIndex(0),
            witnessed: Vec::new(),
            confirms: true,
            deliver_sm_status: CommandStatus::ESME_ROK,
            has_file_room: true,
            files_asked_for: 0,
        };
        net.start();
        net
    }

    fn start(&mut self) {
        let count = self.disks.len();
        let accounts = Accounts::default().reload(settings(&ACCOUNTS));
        self.accounts = accounts.clone();
        let map = PartitionMap::new((0..count).map(|n| (PartitionNumber(n as u8), ShardNumber(n as u8))));
        self.witnessed = (0..CARRIERS * count).map(|_| Rc::default()).collect();
        self.shards = (0..count)
            .map(|number| {
                let disk = &mut self.disks[number];
                let checkpoint = &disk.checkpoint;
                disk.rest.retain(|number, _| *number < checkpoint.next_rest);
                let partition = PartitionNumber(number as u8);
                let mut recovery = Recovery::new(partition, 0, self.partition_settings, checkpoint, self.now);
                let batches = disk.batches.iter().filter(|(segment, ..)| *segment >= checkpoint.segment);
                for (_, _, records) in batches.clone() {
                    recovery.foresee(records).expect("readable");
                }
                for (number, (octets, gone)) in &disk.rest {
                    recovery.restore(*number, octets, gone.clone(), &accounts).expect("readable");
                }
                let mut last = Position(checkpoint.first.0 - 1);
                let mut in_use: Vec<(SegmentNumber, u32)> = Vec::new();
                for (segment, position, records) in batches {
                    recovery.replay(*segment, *position, records, &accounts).expect("readable");
                    last = *position;
                    if in_use.last().is_none_or(|(newest, _)| newest < segment) {
                        in_use.push((*segment, in_use.len() as u32));
                    }
                }
                let newest = in_use.last().map_or(checkpoint.segment, |(newest, _)| *newest);
                let files = in_use.len() as u32 + 1;
                let ring = Ring::resume(SEGMENT_OCTETS, BATCH_OCTETS, &in_use, newest, files);
                let start = JournalStart { identity: identity(number), ring, last };
                let buffers = Box::new(|octets| -> Box<dyn BatchBuffer> { Box::new(vec![0; octets]) });
                let partition = Partition::open(recovery.finish(start), buffers);
                for (system_id, used) in partition.credits_used() {
                    self.accounts.find(system_id).expect("an account").restore_credits(used);
                }
                let settings = ShardSettings {
                    number: ShardNumber(number as u8),
                    shards: count as u8,
                    system_id: Box::from(*b"smppd"),
                    session: SessionSettings::default(),
                    validity: Validity {
                        default: Duration::from_secs(72 * 3600),
                        longest: Duration::from_secs(7 * 24 * 3600),
                    },
                    retry: Backoff { delay_min: Duration::from_secs(5), delay_max: Duration::from_secs(300) },
                    deliver_retry: Backoff {
                        delay_min: Duration::from_secs(5),
                        delay_max: Duration::from_secs(900),
                    },
                    portion: self.portion,
                    is_durable: true,
                };
                let carriers = (0..CARRIERS).map(|carrier| -> Box<dyn Carrier> {
                    Box::new(Witness {
                        carrier: Simulator::new(SimulatorSettings::default()),
                        seen: Rc::clone(&self.witnessed[carrier * count + number]),
                    })
                });
                let routes = Routes::new([(String::new(), self.route)]);
                let accounts = Rc::new(accounts.clone());
                Shard::new(settings, accounts, routes, carriers.collect(), vec![partition], map.clone())
            })
            .collect();
        let now = self.now;
        self.shards.iter_mut().for_each(|shard| shard.resume(now));
        self.turn();
    }

    /// The states at rest carry out so many orders more, and then no other until the next crash.
    pub fn stop_stores_after(&mut self, orders: usize) {
        self.store_orders.fill(orders);
    }

    /// Orders that the states at rest were not let carry out.
    pub fn are_stores_stopped(&self) -> bool {
        self.store_orders.contains(&0)
    }

    /// Everything in memory is gone; what the disk has is all there is.
    pub fn crash_and_restart(&mut self) {
        self.inboxes.clear();
        self.store_orders.fill(usize::MAX);
        self.start();
    }

    /// The account `late` is added, of which one shard hears before the next.
    pub fn hear_of_late(&mut self, shards: impl IntoIterator<Item = usize>) {
        let accounts = Rc::new(self.accounts.reload(settings(&["demo", "other", "slow", "worded", "late"])));
        for shard in shards {
            let routes = Routes::new([(String::new(), CarrierIndex(0))]);
            self.shards[shard].reload(self.now, Rc::clone(&accounts), routes);
        }
        self.turn();
    }

    /// The shards stop as a server does.
    pub fn drain(&mut self) {
        let now = self.now;
        self.shards.iter_mut().for_each(|shard| shard.drain(now));
        self.turn();
    }

    /// Batches on the disk of a shard.
    pub fn batches(&self, shard: usize) -> usize {
        self.disks[shard].batches.len()
    }

    pub fn hold_disk(&mut self, is_held: bool) {
        self.is_disk_held = is_held;
    }

    /// Makes the next batch of a shard durable, if there is one.
    pub fn write_batch(&mut self, number: usize) -> bool {
        let Some(batch) = self.shards[number].take_batch(0) else { return false };
        let (header, records) = BatchHeader::read_batch(identity(number), batch.octets()).expect("sealed");
        self.disks[number].batches.push((header.segment, header.position, records.to_vec()));
        let commit = Commit {
            position: batch.position(),
            payload_octets: batch.payload_octets(),
            octets: batch.aligned_octets(),
            micros: 100,
            spare: Some(batch.into_buffer()),
        };
        self.shards[number].committed(self.now, 0, commit);
        true
    }

    /// Of what the held disk of the first shard was to write, so many batches become durable and the next one fails.
    pub fn fail_disk_after(&mut self, batches: usize) {
        for _ in 0..batches {
            assert!(self.write_batch(0), "no batch waits");
        }
        self.fail_disk();
    }

    /// What an account has used of its credits.
    pub fn credits_used(&self, system_id: &str) -> u64 {
        self.accounts.find(system_id.as_bytes()).expect("an account").credits_used()
    }

    pub fn fail_disk(&mut self) {
        let now = self.now;
        _ = self.shards[0].take_batch(0);
        self.shards[0].failed(now, 0, "the test says so");
        self.turn();
    }

    pub fn connect(&mut self, shard: usize) -> Esme {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.shards[shard].connected(self.now, connection, "test");
        Esme(shard, connection)
    }

    pub fn send(&mut self, esme: Esme, pdu: &Pdu<'_>, sequence_number: u32) {
        self.hand_in(esme, pdu, sequence_number);
        self.turn();
    }

    /// Sends octets, and carries nothing about.
    pub fn hand_in_octets(&mut self, esme: Esme, octets: &[u8]) {
        let used = self.shards[esme.0].handle_octets(self.now, esme.1, octets);
        assert_eq!(used, octets.len(), "not taken");
    }

    /// Sends, and carries nothing about.
    pub fn hand_in(&mut self, esme: Esme, pdu: &Pdu<'_>, sequence_number: u32) {
        let mut octets = Vec::new();
        pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("encodable");
        self.hand_in_octets(esme, &octets);
    }

    /// The text of a message that waits for its carrier.
    pub fn waiting_text(&self, message_id: &str) -> String {
        let id = MessageId::parse(message_id.as_bytes()).expect("an id");
        let partitions = self.shards.iter().flat_map(Shard::partitions);
        let message = partitions.filter_map(|partition| partition.message(id)).next().expect("it waits");
        String::from_utf8_lossy(message.content().user_data).into_owned()
    }

    /// Messages that are not over, and receipts and replies, wherever they are.
    pub fn unfinished(&self) -> usize {
        let partitions = self.shards.iter().flat_map(Shard::partitions);
        partitions.map(Partition::unfinished).map(|(messages, deliveries)| messages + deliveries).sum()
    }

    /// Final messages leave memory.
    pub fn put_to_rest(&mut self) {
        self.shards.iter_mut().for_each(Shard::flush_finals);
        self.turn();
    }

    /// Sends octets, whatever they are.
    pub fn send_octets(&mut self, esme: Esme, octets: &[u8]) {
        self.shards[esme.0].handle_octets(self.now, esme.1, octets);
        self.turn();
    }

    /// The next PDU an ESME got.
    pub fn next_received(&mut self, esme: Esme) -> Option<Vec<u8>> {
        let inbox = self.inboxes.get_mut(&esme)?;
        (!inbox.is_empty()).then(|| inbox.remove(0).octets)
    }

    /// Whether the server has closed the connection.
    pub fn is_closed(&self, esme: Esme) -> bool {
        self.closed.contains(&esme)
    }

    pub fn bind(&mut self, esme: Esme, system_id: &str) -> CommandStatus {
        self.bind_as(esme, system_id, CommandId::BIND_TRANSCEIVER)
    }

    pub fn bind_as(&mut self, esme: Esme, system_id: &str, command_id: CommandId) -> CommandStatus {
        self.send_bind(esme, system_id, command_id, InterfaceVersion::V5_0);
        self.bind_status(esme)
    }

    /// Binds as a transceiver of another version.
    pub fn bind_version(&mut self, esme: Esme, system_id: &str, version: InterfaceVersion) -> CommandStatus {
        self.send_bind(esme, system_id, CommandId::BIND_TRANSCEIVER, version);
        self.bind_status(esme)
    }

    fn bind_status(&mut self, esme: Esme) -> CommandStatus {
        // What follows the response at once stays to be looked at.
        self.inboxes.get_mut(&esme).expect("an answer to the bind").remove(0).command_status
    }

    /// As [`bind`](Self::bind) while nobody has time to verify passwords.
    pub fn bind_unverified(&mut self, esme: Esme, system_id: &str) -> CommandStatus {
        self.has_verifier = false;
        let status = self.bind(esme, system_id);
        self.has_verifier = true;
        status
    }

    /// Asks for a bind that may have to wait for its answer.
    pub fn begin_bind(&mut self, esme: Esme, system_id: &str) {
        self.send_bind(esme, system_id, CommandId::BIND_TRANSCEIVER, InterfaceVersion::V5_0);
    }

    fn send_bind(&mut self, esme: Esme, system_id: &str, command_id: CommandId, version: InterfaceVersion) {
        let bind = Bind { system_id: system_id.as_bytes(), interface_version: version, ..BIND };
        let pdu = match command_id {
            CommandId::BIND_TRANSMITTER => Pdu::BindTransmitter(bind),
            CommandId::BIND_RECEIVER => Pdu::BindReceiver(bind),
            _ => Pdu::BindTransceiver(bind),
        };
        self.send(esme, &pdu, 1);
    }

    pub fn submit(&mut self, esme: Esme, sequence_number: u32, destination: &str) {
        let destination = Address { digits: destination.as_bytes(), ..NUMBER };
        self.send(esme, &Pdu::SubmitSm(ShortMessage { destination, ..MESSAGE }), sequence_number);
    }

    pub fn query(&mut self, esme: Esme, sequence_number: u32, message_id: &str) {
        let query = QuerySm { message_id: message_id.as_bytes(), ..QUERY };
        self.send(esme, &Pdu::QuerySm(query), sequence_number);
    }

    pub fn cancel(&mut self, esme: Esme, sequence_number: u32, message_id: &str) {
        let cancel = CancelSm { message_id: message_id.as_bytes(), ..CANCEL };
        self.send(esme, &Pdu::CancelSm(cancel), sequence_number);
    }

    /// The statuses of what an ESME got since the last call.
    pub fn statuses(&mut self, esme: Esme) -> Vec<CommandStatus> {
        self.received(esme).iter().map(|pdu| pdu.command_status).collect()
    }

    /// What an ESME got since the last call; every request in it is answered with success.
    pub fn received(&mut self, esme: Esme) -> Vec<ReceivedPdu> {
        self.inboxes.remove(&esme).unwrap_or_default()
    }

    pub fn pass_millis(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(10) {
            let step = Duration::from_millis(10);
            self.now = Now { instant: self.now.instant + step, wall: self.now.wall + step };
            let now = self.now;
            self.shards.iter_mut().for_each(|shard| shard.tick(now));
            self.turn();
        }
    }

    /// What messages and receipts take in memory of the first shard.
    pub fn memory_octets(&self) -> usize {
        self.shards[0].partitions()[0].memory_octets()
    }

    /// Receipts and replies of the first shard that are not settled, and blocks that are cold.
    pub fn deliveries(&self) -> (usize, usize) {
        let partition = &self.shards[0].partitions()[0];
        (partition.unfinished().1, partition.blocks_at_rest().1)
    }

    /// Gives the first shard one input, this much later, and carries nothing about.
    pub fn input(&mut self, millis_later: u64, input: impl FnOnce(&mut Shard, Now)) {
        let step = Duration::from_millis(millis_later);
        self.now = Now { instant: self.now.instant + step, wall: self.now.wall + step };
        input(&mut self.shards[0], self.now);
    }

    /// The clock on the wall is set, so many milliseconds ahead or back; the monotonic one goes on as it was.
    pub fn set_wall(&mut self, millis: i64) {
        let wall = self.now.wall.as_millis().saturating_add_signed(millis);
        self.now.wall = Timestamp::from_millis(wall);
    }

    /// Time passes in steps of so many seconds.
    pub fn pass_seconds(&mut self, seconds: u64, step: u64) {
        for _ in 0..seconds.div_ceil(step) {
            self.now.instant = self.now.instant + Duration::from_secs(step);
            self.now.wall = self.now.wall + Duration::from_secs(step);
            let now = self.now;
            self.shards.iter_mut().for_each(|shard| shard.tick(now));
            self.turn();
        }
    }

    /// Messages that carriers were offered since the last start.
    pub fn offers(&self) -> usize {
        self.witnessed.iter().map(|seen| seen.borrow().offers).sum()
    }

    /// Carries about what the shards want now; what their turns have left over stays so.
    pub fn carry_once(&mut self) {
        (0..self.shards.len()).for_each(|number| _ = self.carry_out(number));
    }

    /// Other routes: prefixes and the places of their carriers.
    pub fn reload_routes(&mut self, routes: &[(&str, u8)]) {
        let routes = Routes::new(
            routes.iter().map(|(prefix, carrier)| ((*prefix).to_owned(), CarrierIndex(*carrier))),
        );
        for shard in &mut self.shards {
            shard.reload(self.now, Rc::new(self.accounts.clone()), routes.clone());
        }
        self.turn();
    }

    /// The text of a message that waits for its carrier in memory, if it does.
    pub fn text_if_waiting(&self, message_id: &str) -> Option<String> {
        let id = MessageId::parse(message_id.as_bytes()).expect("an id");
        let mut partitions = self.shards.iter().flat_map(Shard::partitions);
        let message = partitions.find_map(|partition| partition.message(id))?;
        let waits = message.standing.state.is_waiting();
        waits.then(|| String::from_utf8_lossy(message.content().user_data).into_owned())
    }

    /// From the next start on the first partition gives out short ids behind this one.
    pub fn set_last_short_id(&mut self, id: MessageId) {
        self.disks[0].checkpoint.floors[1] = id;
    }

    /// An account has other numbers from now on, the default one first.
    pub fn reload_numbers(&mut self, system_id: &str, numbers: &[&str]) {
        let mut settings = settings(&ACCOUNTS);
        let account = settings.iter_mut().find(|account| account.system_id == system_id).expect("an account");
        account.numbers = numbers.iter().map(|number| (*number).to_owned()).collect();
        self.accounts = self.accounts.reload(settings);
        let routes = Routes::new([(String::new(), self.route)]);
        for shard in &mut self.shards {
            shard.reload(self.now, Rc::new(self.accounts.clone()), routes.clone());
        }
        self.turn();
    }

    /// What one shard has to say to another stays under way, or is carried on again.
    pub fn hold_mesh(&mut self, way: (usize, usize), is_held: bool) {
        if is_held {
            self.held_mesh.insert(way, VecDeque::new());
        } else if let Some(held) = self.held_mesh.remove(&way) {
            held.into_iter().for_each(|messages| self.shards[way.1].handle_mesh(self.now, messages));
        }
    }

    /// Of what is held, the first batch arrives.
    pub fn release_mesh_once(&mut self, way: (usize, usize)) {
        let first = self.held_mesh.get_mut(&way).and_then(VecDeque::pop_front);
        self.shards[way.1].handle_mesh(self.now, first.expect("a batch is held"));
        self.turn();
    }

    /// An ESME confirms a deliver_sm.
    pub fn confirm(&mut self, esme: Esme, delivered: &ReceivedPdu) {
        let Framing::Frame(frame) = next_frame(&delivered.octets, usize::MAX) else { panic!("a whole PDU") };
        let mut octets = Vec::new();
        let number = frame.header.sequence_number;
        smppd::pdu::put_header_only(CommandId::DELIVER_SM_RESP, CommandStatus::ESME_ROK, number, &mut octets);
        self.send_octets(esme, &octets);
    }

    /// Messages of `demo` that wait between two addresses in the first shard.
    pub fn waiting(&self, source: Address<'_>, destination: Address<'_>) -> usize {
        let account = self.accounts.index_of(b"demo").expect("an account");
        let matching =
            Matching { service_type: None, source: source.into(), destination: destination.into() };
        let partition = &self.shards[0].partitions()[0];
        partition.waiting(account, &matching, partition.last_ids(), &self.accounts).count()
    }

    /// Carries everything about until nothing moves.
    pub fn turn(&mut self) {
        loop {
            let mut moved = false;
            for number in 0..self.shards.len() {
                moved |= self.carry_out(number);
                if self.shards[number].has_more() {
                    self.shards[number].go_on(self.now);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn carry_out(&mut self, number: usize) -> bool {
        let now = self.now;
        let mut moved = false;
        let outputs = std::mem::take(self.shards[number].outputs());
        self.shards[number].outputs().mesh = (0..self.disks.len()).map(|_| Vec::new()).collect();
        for request in outputs.verify {
            moved = true;
            if !self.has_verifier {
                self.shards[number].handle_unverified(now, request.connection);
                continue;
            }
            let is_right = request.password_hash.as_deref().map(str::as_bytes) == Some(&*request.password);
            self.shards[number].handle_verified(now, request.connection, is_right);
        }
        for (to, messages) in outputs.mesh.into_iter().enumerate() {
            if messages.is_empty() {
                continue;
            }
            if let Some(held) = self.held_mesh.get_mut(&(number, to)) {
                held.push_back(messages);
                continue;
            }
            moved = true;
            self.shards[to].handle_mesh(now, messages);
        }
        for connection in outputs.dirty {
            moved = true;
            let mut octets = Vec::new();
            self.shards[number].take_output(connection, &mut octets);
            if self.shards[number].close_reason(connection).is_some() {
                self.shards[number].disconnected(now, connection, CloseReason::Ours);
                self.closed.push(Esme(number, connection));
            }
            self.take_in(Esme(number, connection), &octets);
        }
        for lookup in outputs.lookups {
            moved = true;
            let last = lookup.id.in_batch(lookup.count - 1);
            let ids = lookup.id..=last;
            let blocks = self.disks[number].finals.range(BlockKey::range(&ids)).rev();
            let found = find(&ids, blocks.map(Ok::<_, BlockError>)).expect("blocks");
            self.shards[number].handle_lookup(now, lookup, found);
        }
        moved |= !self.is_disk_held && self.write_batch(number);
        while self.store_orders[number] > 0
            && let Some(op) = self.shards[number].take_store_op(0)
        {
            moved = true;
            self.store_orders[number] -= 1;
            let disk = &mut self.disks[number];
            let done = match op {
                StoreOp::PutFinals(generation, octets) => {
                    let blocks = cut(generation, &octets).expect("whole").into_iter();
                    disk.finals.extend(blocks.map(|(key, block)| (key.to_octets(), block)));
                    StoreDone::Finals(generation)
                }
                StoreOp::PutRest(number, octets) => {
                    disk.rest.insert(number, (octets, Vec::new()));
                    StoreDone::Rest(number)
                }
                StoreOp::GetRest(number) => {
                    self.fetched += 1;
                    StoreDone::GotRest(number, disk.rest[&number].0.clone().into())
                }
                StoreOp::Checkpoint(checkpoint, changes) => {
                    changes.removed.iter().for_each(|number| _ = disk.rest.remove(number));
                    for (number, gone) in changes.gone {
                        disk.rest.get_mut(&number).expect("it is at rest").1 = gone;
                    }
                    let keep = checkpoint.segment;
                    disk.batches.retain(|(segment, _, _)| *segment >= keep);
                    disk.checkpoint = checkpoint;
                    StoreDone::Checkpoint(keep)
                }
                StoreOp::MakeFile(file) => {
                    self.files_asked_for += 1;
                    if self.has_file_room { StoreDone::File(file) } else { StoreDone::NoRoom(file) }
                }
            };
            self.shards[number].handle_store(now, PartitionNumber(number as u8), done);
        }
        moved
    }

    fn take_in(&mut self, esme: Esme, octets: &[u8]) {
        let mut rest = octets;
        while let Framing::Frame(frame) = next_frame(rest, usize::MAX) {
            let length = frame.header.command_length as usize;
            let header = frame.header;
            self.inboxes.entry(esme).or_default().push(ReceivedPdu {
                command_id: header.command_id,
                command_status: header.command_status,
                octets: rest[..length].to_vec(),
            });
            rest = &rest[length..];
            if self.confirms && !header.command_id.is_response() {
                let mut answer = Vec::new();
                let status = match header.command_id {
                    CommandId::DELIVER_SM => self.deliver_sm_status,
                    _ => CommandStatus::ESME_ROK,
                };
                smppd::pdu::put_header_only(
                    header.command_id.response(),
                    status,
                    header.sequence_number,
                    &mut answer,
                );
                self.shards[esme.0].handle_octets(self.now, esme.1, &answer);
            }
        }
    }
}

impl ReceivedPdu {
    /// What is in it.
    pub fn read<R>(&self, read: impl FnOnce(Pdu<'_>) -> R) -> R {
        self.with(read)
    }

    pub fn sequence_number(&self) -> u32 {
        u32::from_be_bytes(self.octets[12..16].try_into().expect("four octets"))
    }
}

impl Net {
    /// The first account of a test that wants it otherwise.
    pub fn account(system_id: &str) -> AccountSettings {
        settings(&[system_id]).remove(0)
    }

    /// Other accounts from now on, on every shard.
    pub fn reload(&mut self, accounts: Vec<AccountSettings>) {
        self.accounts = self.accounts.reload(accounts);
        let (now, accounts) = (self.now, Rc::new(self.accounts.clone()));
        for shard in &mut self.shards {
            shard.reload(now, Rc::clone(&accounts), Routes::new([(String::new(), self.route)]));
        }
        self.turn();
    }

    /// What a shard has counted.
    pub fn counters(&self, shard: usize) -> Counters {
        self.shards[shard].counters()
    }

    /// Messages of a shard that a carrier has, or may have.
    pub fn with_carrier(&self, shard: usize) -> Vec<MessageId> {
        self.shards[shard].partitions()[0].resume().0
    }

    /// A message that is not over and not cold, wherever it is.
    pub fn message(&self, message_id: &str) -> Option<&Message> {
        let id = MessageId::parse(message_id.as_bytes()).expect("an id");
        self.shards.iter().flat_map(Shard::partitions).find_map(|partition| partition.message(id))
    }

    /// What wall clocks say now.
    pub fn wall(&self) -> Timestamp {
        self.now.wall
    }

    pub fn connection(&self, esme: Esme) -> ConnectionId {
        esme.1
    }

    /// The peer closes its end.
    pub fn disconnect(&mut self, esme: Esme) {
        self.shards[esme.0].disconnected(self.now, esme.1, CloseReason::PeerClosed);
        self.turn();
    }

    /// Answers a request with a status and nothing else.
    pub fn answer(&mut self, esme: Esme, request: &ReceivedPdu, status: CommandStatus) {
        let mut octets = Vec::new();
        smppd::pdu::put_header_only(
            request.command_id.response(),
            status,
            request.sequence_number(),
            &mut octets,
        );
        self.send_octets(esme, &octets);
    }

    /// Sends a request and gives the status of its response; everything else that came is dropped.
    pub fn ask(&mut self, esme: Esme, pdu: &Pdu<'_>) -> CommandStatus {
        self.asked(esme, pdu).command_status
    }

    /// Sends a request and gives its response; everything else that came is dropped.
    pub fn asked(&mut self, esme: Esme, pdu: &Pdu<'_>) -> ReceivedPdu {
        const NUMBER: u32 = 0x00AA_55AA;
        self.send(esme, pdu, NUMBER);
        let received = self.received(esme);
        let response = |pdu: &ReceivedPdu| pdu.command_id.is_response() && pdu.sequence_number() == NUMBER;
        let response = received.into_iter().find(response).expect("a response");
        assert_eq!(response.command_id, pdu.command_id().response(), "another operation's response");
        response
    }

    /// Binds a session of `system_id` on a shard.
    pub fn bound(&mut self, shard: usize, system_id: &str) -> Esme {
        let esme = self.connect(shard);
        assert_eq!(self.bind(esme, system_id), ACCEPTED_BIND);
        esme
    }

    /// Submits a message that must be accepted; its message_id.
    pub fn accept(&mut self, esme: Esme, message: ShortMessage<'_, Address<'_>>) -> String {
        let response = self.asked(esme, &Pdu::SubmitSm(message));
        assert_eq!(response.command_status, CommandStatus::ESME_ROK);
        response.message_id()
    }

    /// Lets a carrier of the first shard say something, at its next turn.
    pub fn news(&mut self, news: News) {
        self.witnessed[0].borrow_mut().news.push_back(news);
    }

    /// Lets a carrier of the first shard bring a subscriber's reply to this number, at its next turn.
    pub fn reply_to(&mut self, number: &'static [u8]) {
        self.news(News::Reply(ReplyNews {
            source: SUBSCRIBER.into(),
            destination: Address { digits: number, ..NUMBER }.into(),
            data_coding: DataCoding::DEFAULT,
            user_data: Box::from(*b"hello back"),
        }));
    }

    /// Binds as a transceiver of this version; the response.
    pub fn bind_response(&mut self, esme: Esme, system_id: &str, version: InterfaceVersion) -> ReceivedPdu {
        self.send_bind(esme, system_id, CommandId::BIND_TRANSCEIVER, version);
        self.inboxes.get_mut(&esme).expect("an answer to the bind").remove(0)
    }

    /// Brings nothing about in time, but lets everything that waits for a tick go on.
    pub fn tick(&mut self) {
        let now = self.now;
        self.shards.iter_mut().for_each(|shard| shard.tick(now));
        self.turn();
    }

    /// Carries about what one shard has to say, once.
    pub fn step(&mut self, shard: usize) {
        self.carry_out(shard);
    }

    /// So much time passes for one shard, and nothing is carried about.
    pub fn pass_for(&mut self, shard: usize, millis: u64) {
        for _ in 0..millis.div_ceil(10) {
            let step = Duration::from_millis(10);
            self.now = Now { instant: self.now.instant + step, wall: self.now.wall + step };
            self.shards[shard].tick(self.now);
        }
    }

    /// There are ways to these destinations alone from now on.
    pub fn reroute(&mut self, prefix: &str) {
        let (now, accounts) = (self.now, Rc::new(self.accounts.clone()));
        for shard in &mut self.shards {
            shard.reload(now, Rc::clone(&accounts), Routes::new([(prefix.to_owned(), self.route)]));
        }
        self.turn();
    }

    /// Final messages of one shard leave memory; nothing is carried about.
    pub fn put_to_rest_of(&mut self, shard: usize) {
        self.shards[shard].flush_finals();
    }
}
