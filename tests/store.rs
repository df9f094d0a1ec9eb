//! A partition of the store beside a disk in memory: checkpoints, restarts, and what happens when memory is short.

use std::collections::BTreeMap;
use std::time::Duration;

use smppd::account::{AccountIndex, AccountSettings, Accounts};
use smppd::journal::{
    BatchBuffer, BatchHeader, Identity, JournalStart, Position, Record, Ring, SegmentNumber,
};
use smppd::message::{Content, MessageId, ParcelKey, PartitionNumber, Reply, State, reply_for};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{Address, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
use smppd::shard::{Due, Earned, Follows, Matching, Partition, PartitionSettings, Recovery};
use smppd::store::{Checkpoint, RestNumber, StoreDone, StoreOp, rest_entries};
use smppd::time::{Instant, Now, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const IDENTITY: Identity = Identity { partition: PartitionNumber(0), salt: 1 };
/// Five batches of one block each.
const SEGMENT_OCTETS: u64 = 36 << 10;
const BATCH_OCTETS: usize = 20 << 10;

fn later(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

/// Both clocks when the one on the wall says this, as long as nobody sets it.
fn clocks(wall: Timestamp) -> Now {
    let instant = Instant::ZERO + Duration::from_secs(1) + wall.saturating_duration_since(NOW);
    Now { instant, wall }
}

/// A partition and everything of it that outlives a crash.
struct Store {
    partition: Partition,
    accounts: Accounts,
    settings: PartitionSettings,
    batches: Vec<(SegmentNumber, Position, Vec<u8>)>,
    rest: BTreeMap<RestNumber, (Vec<u8>, Vec<u16>)>,
    checkpoint: Checkpoint,
    /// Blocks of unfinished things that were put to rest, and blocks that came back.
    put: usize,
    got: usize,
    /// Generations of final messages that were put to rest.
    generations: Vec<u64>,
    /// There is no room for files.
    is_full: bool,
    /// What came back: messages that a carrier had, and parcels.
    returned: (Vec<MessageId>, Vec<ParcelKey>),
}

impl Store {
    fn new(settings: PartitionSettings) -> Self {
        let accounts = ["demo", "other"].map(|name| AccountSettings::new(name, "x"));
        let accounts = Accounts::default().reload(accounts.into());
        let checkpoint = Checkpoint::initial();
        let partition = recover(settings, &[], &BTreeMap::new(), &checkpoint, &accounts);
        Self {
            partition,
            accounts,
            settings,
            batches: Vec::new(),
            rest: BTreeMap::new(),
            checkpoint,
            put: 0,
            got: 0,
            generations: Vec::new(),
            is_full: false,
            returned: (Vec::new(), Vec::new()),
        }
    }

    fn account(&self) -> AccountIndex {
        self.accounts.index_of(b"demo").expect("an account")
    }

    /// Accepts a message of five segments.
    fn accept(&mut self) -> MessageId {
        let id = self.partition.next_id(NOW, 1);
        self.accept_as(id, Timestamp::ZERO, "12125550100");
        id
    }

    /// Accepts a message that waits for a time.
    fn accept_for(&mut self, deliver_at: Timestamp, destination: &str) -> MessageId {
        let id = self.partition.next_id(NOW, 1);
        self.accept_as(id, deliver_at, destination);
        id
    }

    fn accept_as(&mut self, id: MessageId, deliver_at: Timestamp, destination: &str) {
        let content = Content {
            id,
            batch_offset: 0,
            batch_count: 1,
            accepted_at: NOW,
            deliver_at,
            expires_at: later(86_400),
            segments: 5,
            registered_delivery: RegisteredDelivery(1),
            esm_class: EsmClass::DEFAULT,
            protocol_id: 0,
            priority_flag: 0,
            data_coding: DataCoding::DEFAULT,
            system_id: b"demo",
            service_type: b"",
            source: NUMBER,
            destination: Address { digits: destination.as_bytes(), ..NUMBER },
            user_data: b"x",
            tlvs: b"",
        };
        self.partition.accept(None, &content, &self.accounts, None).expect("accepted");
    }

    fn record(&mut self, record: &Record<'_>) {
        self.partition.record(record, &self.accounts, None).expect("applies");
    }

    fn finish(&mut self, id: MessageId) {
        self.record(&Record::Final { id, state: MessageState::EXPIRED, error: 0, at: NOW });
    }

    fn settle(&mut self, id: MessageId) {
        self.record(&Record::Settled { id, part: ParcelKey::FINAL_RECEIPT });
    }

    /// Everything recorded becomes durable, a batch for each call.
    fn write(&mut self) {
        while let Some(batch) = self.partition.take_batch() {
            let (header, records) = BatchHeader::read_batch(IDENTITY, batch.octets()).expect("sealed");
            self.batches.push((header.segment, header.position, records.to_vec()));
            let (position, octets) = (batch.position(), batch.payload_octets());
            self.partition.commit(position, octets, Some(batch.into_buffer()));
            while self.partition.take_earned().is_some() {}
        }
    }

    /// Accepts messages, each of which ends at once with its receipt confirmed.
    fn accept_and_end(&mut self, count: usize) {
        for _ in 0..count {
            let id = self.accept();
            self.finish(id);
            self.settle(id);
            self.write();
        }
    }

    /// Carries out one order for the state at rest.
    fn carry_out(&mut self) -> bool {
        let Some(op) = self.partition.take_store_op() else { return false };
        let done = match op {
            StoreOp::PutFinals(generation, _) => {
                self.generations.push(generation);
                StoreDone::Finals(generation)
            }
            StoreOp::PutRest(number, octets) => {
                self.put += 1;
                self.rest.insert(number, (octets, Vec::new()));
                StoreDone::Rest(number)
            }
            StoreOp::GetRest(number) => {
                self.got += 1;
                StoreDone::GotRest(number, self.rest[&number].0.clone().into())
            }
            StoreOp::Checkpoint(checkpoint, changes) => {
                changes.removed.iter().for_each(|number| _ = self.rest.remove(number).expect("it was there"));
                for (number, gone) in changes.gone {
                    self.rest.get_mut(&number).expect("it is there").1 = gone;
                }
                self.batches.retain(|(segment, ..)| *segment >= checkpoint.segment);
                self.checkpoint = checkpoint;
                StoreDone::Checkpoint(self.checkpoint.segment)
            }
            StoreOp::MakeFile(file) if self.is_full => StoreDone::NoRoom(file),
            StoreOp::MakeFile(file) => StoreDone::File(file),
        };
        let returned = self.partition.store_done(done, &self.accounts).expect("readable");
        // They are offered to their home at once.
        for key in &returned.parcels {
            assert!(self.partition.await_offer(*key).is_some() && self.partition.offer(*key).is_some());
        }
        self.returned.0.extend(returned.with_carrier);
        self.returned.1.extend(returned.parcels);
        true
    }

    /// Segments that a restart would replay.
    fn segments(&self) -> usize {
        let mut segments: Vec<SegmentNumber> = self.batches.iter().map(|(segment, ..)| *segment).collect();
        segments.dedup();
        segments.len()
    }

    /// Goes on until there is nothing to do.
    fn work(&mut self) {
        loop {
            self.write();
            self.partition.go_on(&self.accounts);
            self.write();
            if !self.carry_out() && !self.partition.has_store_ops() {
                return;
            }
        }
    }

    /// A checkpoint that frees all segments but the newest.
    fn checkpoint(&mut self) {
        self.partition.stop();
        self.work();
    }

    /// What is in memory is gone.
    fn crash(&mut self) {
        self.rest.retain(|number, _| *number < self.checkpoint.next_rest);
        self.partition = recover(self.settings, &self.batches, &self.rest, &self.checkpoint, &self.accounts);
    }

    /// Delivers what becomes due in the nine tenths of a second from `now` on.
    fn deliver_due(&mut self, now: Timestamp) -> Vec<MessageId> {
        let mut delivered = Vec::new();
        for beat in 0..225 {
            let now = now + Duration::from_millis(4 * beat);
            while let Some(due) = self.partition.pop_due(clocks(now)) {
                let Due::Attempt(id) = due else { panic!("{due:?}") };
                self.record(&Record::Attempt { id, carrier: 0 });
                self.finish(id);
                self.settle(id);
                delivered.push(id);
            }
            self.work();
        }
        delivered
    }
}

fn recover(
    settings: PartitionSettings,
    batches: &[(SegmentNumber, Position, Vec<u8>)],
    rest: &BTreeMap<RestNumber, (Vec<u8>, Vec<u16>)>,
    checkpoint: &Checkpoint,
    accounts: &Accounts,
) -> Partition {
    let mut recovery = Recovery::new(PartitionNumber(0), 0, settings, checkpoint, clocks(NOW));
    for (_, _, records) in batches {
        recovery.foresee(records).expect("readable");
    }
    for (number, (octets, gone)) in rest {
        recovery.restore(*number, octets, gone.clone(), accounts).expect("readable");
    }
    assert_eq!(recovery.at_rest(), checkpoint.at_rest);
    let mut in_use: Vec<(SegmentNumber, u32)> = Vec::new();
    let mut last = Position(checkpoint.first.0 - 1);
    for (segment, position, records) in batches {
        recovery.replay(*segment, *position, records, accounts).expect("readable");
        last = *position;
        if in_use.last().is_none_or(|(newest, _)| newest < segment) {
            in_use.push((*segment, in_use.len() as u32));
        }
    }
    let newest = in_use.last().map_or(SegmentNumber(checkpoint.segment.0 - 1), |(newest, _)| *newest);
    // As the server does: what is needed is in use, and a fresh segment comes behind it.
    let ring = Ring::resume(SEGMENT_OCTETS, BATCH_OCTETS, &in_use, newest, 20);
    let buffers = Box::new(|octets| -> Box<dyn BatchBuffer> { Box::new(vec![0; octets]) });
    Partition::open(recovery.finish(JournalStart { identity: IDENTITY, ring, last }), buffers)
}

/// So little memory that a few blocks fill it.
fn short_of_memory() -> PartitionSettings {
    PartitionSettings { messages_octets_max: 300_000, checkpoint_segments: 2, ..PartitionSettings::default() }
}

#[test]
fn a_short_id_does_not_come_again_while_a_receipt_about_it_waits() {
    let mut store = Store::new(PartitionSettings::default());
    let first = store.partition.next_short_id().expect("an id");
    store.accept_as(first, Timestamp::ZERO, "1");
    store.finish(first);
    store.partition.flush_finals();
    store.work();
    assert!(store.partition.final_message(first).is_none(), "only its receipt is left in memory");
    // Eight million messages later the numbers come round.
    for sequence in [0x002A_0000_u64, 0x0054_0000, 0x007F_FFFF] {
        store.accept_as(MessageId::from_u64(first.as_u64() + (sequence << 8)), Timestamp::ZERO, "1");
    }
    let next = store.partition.next_short_id().expect("an id");
    assert_eq!(next.as_u64(), first.as_u64() + (1 << 8));
}

#[test]
fn short_ids_that_are_in_use_are_not_passed_over_for_ever() {
    let mut store = Store::new(PartitionSettings::default());
    let first = store.partition.next_short_id().expect("an id");
    let id = |sequence: u64| MessageId::from_u64(first.as_u64() + (sequence << 8));
    for sequence in 0..3_000 {
        store.accept_as(id(sequence), Timestamp::ZERO, "1");
    }
    // The numbers come round.
    for sequence in [0x002A_0000, 0x0054_0000, 0x007F_FFFF] {
        store.accept_as(id(sequence), Timestamp::ZERO, "1");
    }
    let tries: Vec<_> = (0..3).map(|_| store.partition.next_short_id()).collect();
    assert_eq!(tries, [None, None, Some(id(3_000))], "a submission is refused, and the core goes on");
}

#[test]
fn a_crash_inside_a_checkpoint_forgets_no_credits() {
    for orders in 0..20 {
        let mut store = Store::new(PartitionSettings::default());
        for _ in 0..12 {
            store.accept();
            store.write();
        }
        store.partition.stop();
        for _ in 0..orders {
            store.partition.go_on(&store.accounts);
            store.write();
            store.carry_out();
        }
        store.crash();
        let mut recovery =
            Recovery::new(PartitionNumber(0), 0, store.settings, &store.checkpoint, clocks(NOW));
        for (segment, position, records) in &store.batches {
            recovery.replay(*segment, *position, records, &store.accounts).expect("readable");
        }
        let ring = Ring::resume(SEGMENT_OCTETS, BATCH_OCTETS, &[], SegmentNumber(1), 1);
        let recovered = recovery.finish(JournalStart { identity: IDENTITY, ring, last: Position(99) });
        let used: Vec<u64> = recovered.credits_used().map(|(_, used)| used).collect();
        assert_eq!(used, [60], "after {orders} orders");
        assert_eq!(store.partition.unfinished(), (12, 0), "after {orders} orders");
    }
}

#[test]
fn receipts_that_nobody_takes_count_against_the_memory_limit() {
    let mut store = Store::new(PartitionSettings { messages_max: 2, ..PartitionSettings::default() });
    let id = store.accept();
    assert!(store.partition.has_room());
    store.finish(id);
    assert_eq!(store.partition.unfinished(), (0, 1));
    assert!(!store.partition.has_room());
}

#[test]
fn large_messages_count_by_their_size() {
    let mut store =
        Store::new(PartitionSettings { messages_octets_max: 700, ..PartitionSettings::default() });
    let ids = [store.accept(), store.accept()];
    assert!(!store.partition.has_room(), "{} octets", store.partition.memory_octets());
    for id in ids {
        store.finish(id);
        store.settle(id);
    }
    store.partition.flush_finals();
    store.work();
    assert!(store.partition.has_room(), "what is over takes nothing");
}

#[test]
fn a_full_journal_takes_messages_again_when_segments_are_freed() {
    let settings =
        PartitionSettings { segments_max: 4, checkpoint_segments: 2, ..PartitionSettings::default() };
    let mut store = Store::new(settings);
    let mut count = 0;
    while store.partition.has_room() {
        count += 1;
        store.accept();
        store.write();
        assert!(count < 1_000);
    }
    assert_eq!(store.partition.segments_in_use(), 4);
    // The state at rest was far behind. Nothing more is written: the checkpoint alone must do it.
    store.work();
    assert!(store.partition.has_room());
}

/// A store whose journal is full three times over, while the state at rest is far behind: what was accepted goes its way, and all
/// that is recorded of it takes room as well.
fn full_store(settings: PartitionSettings) -> Store {
    let mut store = Store::new(PartitionSettings { segments_max: 4, checkpoint_segments: 2, ..settings });
    let mut ids = Vec::new();
    while store.partition.has_room() {
        ids.push(store.accept());
        store.write();
        assert!(ids.len() < 1_000);
    }
    for id in ids.iter().cycle().take(10_000) {
        store.record(&Record::Attempt { id: *id, carrier: 0 });
        store.record(&Record::Deferred { id: *id, until: later(5_000), error: 0 });
        store.write();
        if store.partition.segments_in_use() == 12 {
            break;
        }
    }
    assert_eq!(store.partition.segments_in_use(), 12);
    store
}

#[test]
fn a_journal_that_is_still_full_behind_a_checkpoint_is_freed_by_the_next() {
    let mut store = full_store(PartitionSettings::default());
    store.work();
    assert!(store.partition.has_room(), "{} segments are in use", store.partition.segments_in_use());
}

#[test]
fn a_checkpoint_that_a_full_journal_waits_for_waits_for_no_tick() {
    let mut store = full_store(PartitionSettings { checkpoint_visits: 1, ..PartitionSettings::default() });
    let mut ticks = 0;
    while !store.partition.has_room() {
        store.partition.go_on(&store.accounts);
        ticks += 1;
        while store.partition.has_more() || store.partition.has_batch() || store.carry_out() {
            store.partition.catch_up();
            store.write();
        }
    }
    // With a step at each tick there are twenty.
    assert!(ticks <= 4, "{ticks}");
}

#[test]
fn what_a_carrier_had_is_offered_again_in_its_order_though_short_ids_came_round() {
    let mut store = Store::new(PartitionSettings::default());
    // The last but two of eight million.
    store.checkpoint.floors[1] = MessageId::from_u64(0x8000_0000 | 0x007F_FFFD << 8);
    store.crash();
    let ids: Vec<MessageId> =
        (0..4).map(|_| store.partition.next_short_id().expect("there are more")).collect();
    assert!(ids[0] > ids[3], "{ids:?}");
    for id in &ids {
        store.accept_as(*id, Timestamp::ZERO, "12125550100");
        store.record(&Record::Attempt { id: *id, carrier: 0 });
    }
    store.write();
    store.crash();
    assert_eq!(store.partition.resume().0, ids);
}

#[test]
fn a_checkpoint_keeps_everything_once() {
    let mut store = Store::new(PartitionSettings::default());
    let id = store.accept();
    for record in [
        Record::Attempt { id, carrier: 0 },
        Record::Forwarded { id, carrier_id: b"1" },
        Record::Interim { id, state: MessageState::ACCEPTED, at: NOW, told: None },
    ] {
        store.record(&record);
        store.write();
    }
    while store.partition.segments_in_use() < 2 {
        store.accept();
        store.write();
    }
    store.checkpoint();
    assert_eq!((store.put, store.rest.len()), (1, 1));
    store.crash();
    assert_eq!(store.partition.message(id).map(|message| message.standing.state), Some(State::Forwarded));
    store.checkpoint();
    store.checkpoint();
    assert_eq!(store.put, 1, "what is at rest as it is stays there");
}

#[test]
fn a_disk_with_little_room_takes_no_message() {
    let mut store = Store::new(PartitionSettings::default());
    assert!(store.partition.has_room());
    store.partition.note_disk(true);
    assert!(!store.partition.has_room());
}

#[test]
fn a_journal_that_finds_no_room_takes_messages_again_when_there_is_some() {
    let mut store = Store::new(PartitionSettings { checkpoint_segments: 30, ..PartitionSettings::default() });
    store.is_full = true;
    assert_eq!(store.partition.pop_due(clocks(later(0))), None);
    let mut count = 0;
    while store.partition.has_room() {
        store.accept_for(later(5_000), "1");
        store.write();
        store.carry_out();
        count += 1;
        assert!(count < 1_000);
    }
    assert!(!store.carry_out(), "it is not asked for at once");
    store.is_full = false;
    assert_eq!(store.partition.pop_due(clocks(later(2))), None);
    assert!(store.partition.has_room() && store.carry_out());
    store.accept_for(later(5_000), "1");
    store.work();
    assert_eq!(store.partition.unfinished(), (count + 1, 0));
    assert!(!store.partition.has_batch(), "everything was written");
}

#[test]
fn what_has_ended_is_taken_from_rest_with_the_segment_that_says_so() {
    let mut store = Store::new(PartitionSettings::default());
    let ids: Vec<MessageId> = (0..40).map(|_| store.accept()).collect();
    store.write();
    for _ in 0..6 {
        store.accept();
        store.write();
    }
    store.checkpoint();
    assert_eq!(store.rest.len(), 1);
    let messages = store.partition.unfinished().0;
    for (done, id) in (1..).zip(&ids) {
        store.finish(*id);
        store.settle(*id);
        store.write();
        // Whenever the crash comes, the end of the message finds the message, or neither is there.
        store.crash();
        assert_eq!(store.partition.unfinished(), (messages - done, 0), "{done}");
        if done % 7 == 0 {
            store.checkpoint();
            store.crash();
            assert_eq!(store.partition.unfinished(), (messages - done, 0), "{done}");
        }
    }
    for _ in 0..12 {
        store.accept();
        store.write();
    }
    store.checkpoint();
    let mut live = 0;
    for (octets, gone) in store.rest.values() {
        let total = rest_entries(octets).count();
        assert!(2 * gone.len() <= total, "a block with little in it is packed again: {gone:?} of {total}");
        live += total - gone.len();
    }
    assert!(live <= store.partition.unfinished().0, "{live} things are at rest");
}

#[test]
fn a_receipt_outlives_the_record_that_made_it_whatever_its_message_does() {
    // A message changes, its receipt waits, and any of the two may be at rest before the other.
    for crash_after in 0..24 {
        let mut store =
            Store::new(PartitionSettings { checkpoint_segments: 1, ..PartitionSettings::default() });
        let id = store.accept();
        let mut step = 0;
        let mut go_on = |store: &mut Store| {
            step += 1;
            store.write();
            for _ in 0..3 {
                store.accept();
                store.write();
            }
            store.work();
            if step == crash_after {
                store.crash();
            }
        };
        go_on(&mut store);
        store.record(&Record::Attempt { id, carrier: 0 });
        go_on(&mut store);
        store.record(&Record::Forwarded { id, carrier_id: b"1" });
        go_on(&mut store);
        store.finish(id);
        let key = ParcelKey { id, part: ParcelKey::FINAL_RECEIPT };
        for _ in 0..20 {
            go_on(&mut store);
            assert!(store.partition.parcel(key).is_some(), "crash after {crash_after}, {step} steps");
        }
        store.settle(id);
        go_on(&mut store);
        store.crash();
        assert!(store.partition.parcel(key).is_none());
    }
}

#[test]
fn a_restart_tells_what_was_told_however_the_account_is_set_by_then() {
    for told in [None, Some(MessageState::ACCEPTED)] {
        let mut store = Store::new(PartitionSettings::default());
        let id = store.accept();
        store.record(&Record::Attempt { id, carrier: 0 });
        store.record(&Record::Interim { id, state: MessageState::ACCEPTED, at: NOW, told });
        store.finish(id);
        store.settle(id);
        store.write();
        let unfinished = (0, usize::from(told.is_some()));
        assert_eq!(store.partition.unfinished(), unfinished);
        let settings =
            AccountSettings { accepted_receipts: told.is_none(), ..AccountSettings::new("demo", "x") };
        store.accounts = Accounts::default().reload(vec![settings]);
        store.crash();
        assert_eq!(store.partition.unfinished(), unfinished, "{told:?}");
    }
}

#[test]
fn a_receipt_is_at_rest_once_however_often_its_record_is_replayed() {
    let settings = PartitionSettings { messages_octets_max: 40_000, ..PartitionSettings::default() };
    let mut store = Store::new(settings);
    let ids: Vec<MessageId> = (0..70).map(|_| store.accept()).collect();
    ids.iter().for_each(|id| store.finish(*id));
    for round in 1..4 {
        // Memory is short, so everything goes to rest, though the segment that makes it again stays.
        store.work();
        assert_eq!(store.checkpoint.at_rest.1, 70, "round {round}");
        assert_eq!(store.segments(), 1, "round {round}");
        store.crash();
    }
    ids.iter().for_each(|id| store.settle(*id));
    while store.segments() < 3 {
        store.accept();
        store.write();
    }
    store.checkpoint();
    let messages = store.partition.unfinished().0;
    store.crash();
    assert_eq!(store.partition.unfinished(), (messages, 0), "what was settled does not come back");
}

#[test]
fn memory_stays_within_its_limit_and_everything_is_due_in_its_time() {
    let mut store = Store::new(short_of_memory());
    let count = 8_000;
    for number in 0..count {
        store.accept_for(later(1_000 + number % 100), "12125550199");
        if number % 16 == 0 {
            store.work();
            assert!(store.partition.has_room(), "{number}: {} octets", store.partition.memory_octets());
        }
    }
    store.work();
    assert!(store.partition.memory_octets() < 200_000, "{}", store.partition.memory_octets());
    assert_eq!(store.partition.unfinished(), (count as usize, 0));
    let (blocks, cold) = store.partition.blocks_at_rest();
    assert!(cold > 5 && cold <= blocks, "{cold} of {blocks}");
    for crash in [false, true] {
        if crash {
            store.crash();
            store.work();
            assert!(store.partition.memory_octets() < 300_000, "{}", store.partition.memory_octets());
        }
        assert_eq!(store.deliver_due(later(998)), []);
    }
    let mut delivered = Vec::new();
    for second in 1_000..1_100 {
        delivered.append(&mut store.deliver_due(later(second)));
        assert_eq!(delivered.len() as u64, (second - 999) * count / 100, "{second}");
        if second % 30 == 0 {
            store.crash();
        }
    }
    delivered.sort_unstable();
    delivered.dedup();
    assert_eq!(delivered.len() as u64, count);
    assert_eq!(store.partition.unfinished(), (0, 0));
    store.accept_and_end(12);
    store.checkpoint();
    assert_eq!(store.partition.blocks_at_rest(), (0, 0), "nothing is left at rest");
}

#[test]
fn a_cold_message_is_found_by_its_id_and_by_its_addresses() {
    let mut store = Store::new(short_of_memory());
    let wanted = store.accept_for(later(5_000), "447700900123");
    let other = store.accept_for(later(6_000), "447700900124");
    for _ in 0..2_000 {
        store.accept_for(later(90), "12125550199");
        store.work();
    }
    let account = store.account();
    assert!(store.partition.message(wanted).is_none(), "it is cold");
    let block = store.partition.cold_block_of(wanted).expect("its block is known");
    let to = |digits: &[u8]| Matching {
        service_type: None,
        source: NUMBER.into(),
        destination: Address { digits, ..NUMBER }.into(),
    };
    let (there, elsewhere) = (to(b"447700900123"), to(b"447700900199"));
    let all = store.partition.last_ids();
    assert_eq!(store.partition.cold_block_waiting(account, &there, None), Some(block));
    assert_eq!(store.partition.cold_block_waiting(account, &elsewhere, None), None);
    assert_eq!(store.partition.waiting(account, &there, all, &store.accounts).count(), 0);
    store.partition.fetch(block);
    store.partition.fetch(block);
    assert!(store.carry_out() && store.got == 1, "it is fetched once");
    assert_eq!(store.partition.cold_block_of(wanted), None);
    assert_eq!(store.partition.waiting(account, &there, all, &store.accounts).collect::<Vec<_>>(), [wanted]);
    let another_type = Matching { service_type: Some(Box::from(*b"WAP")), ..there };
    assert_eq!(store.partition.waiting(account, &another_type, all, &store.accounts).count(), 0);
    store.finish(wanted);
    store.settle(wanted);
    store.work();
    store.crash();
    store.work();
    assert!(store.partition.message(wanted).is_none() && store.partition.cold_block_of(wanted).is_none());
    assert!(store.partition.message(other).is_some() || store.partition.cold_block_of(other).is_some());
}

#[test]
fn cold_receipts_come_back_for_their_account_and_messages_for_their_carrier() {
    let mut store = Store::new(short_of_memory());
    let mut forwarded = Vec::new();
    let mut receipts = Vec::new();
    for number in 0..2_000 {
        let id = store.accept();
        store.record(&Record::Attempt { id, carrier: 0 });
        store.record(&Record::Forwarded { id, carrier_id: b"1" });
        if number % 2 == 0 {
            store.finish(id);
            receipts.push(ParcelKey { id, part: ParcelKey::FINAL_RECEIPT });
        } else {
            forwarded.push(id);
        }
        store.work();
    }
    assert_eq!(store.partition.unfinished(), (1_000, 1_000));
    assert!(store.partition.blocks_at_rest().1 > 4);
    let account = store.account();
    let mut seen: Vec<ParcelKey> = Vec::new();
    for _ in 0..1_000 {
        store.partition.fetch_for(account);
        store.work();
        for key in std::mem::take(&mut store.returned.1) {
            store.settle(key.id);
            seen.push(key);
        }
    }
    seen.extend(receipts.iter().filter(|key| store.partition.parcel(**key).is_some()));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, receipts);
    assert!(store.returned.0.is_empty(), "their carrier knows them");
    // After a restart the carrier is offered them again, the cold ones as memory allows.
    store.crash();
    let (mut offered, _) = store.partition.resume();
    assert!(offered.len() < forwarded.len());
    for _ in 0..1_000 {
        store.work();
    }
    offered.append(&mut store.returned.0);
    offered.sort_unstable();
    assert_eq!(offered, forwarded);
}

#[test]
fn cold_receipts_that_found_no_room_come_back_when_there_is_some() {
    let mut store = Store::new(short_of_memory());
    let receipts: Vec<MessageId> = (0..700).map(|_| store.accept()).collect();
    receipts.iter().for_each(|id| store.finish(*id));
    (0..100).for_each(|_| store.work());
    assert!(store.partition.blocks_at_rest().1 > 0, "nothing is cold");
    // What is with a carrier cannot grow cold.
    let mut busy = Vec::new();
    while store.partition.memory_octets() < 300_000 {
        let id = store.accept();
        store.record(&Record::Attempt { id, carrier: 0 });
        busy.push(id);
        store.work();
    }
    store.partition.fetch_for(store.account());
    store.work();
    assert_eq!(store.got, 0, "there is no room");
    for id in busy {
        store.finish(id);
        store.settle(id);
    }
    store.partition.flush_finals();
    store.work();
    assert_eq!(store.got, 1, "nobody has to ask again");
}

#[test]
fn receipts_that_are_refused_do_not_fill_the_memory() {
    let mut store = Store::new(short_of_memory());
    let account = store.account();
    let receipts: Vec<MessageId> = (0..700).map(|_| store.accept()).collect();
    for id in &receipts {
        store.finish(*id);
        let key = ParcelKey { id: *id, part: ParcelKey::FINAL_RECEIPT };
        assert!(store.partition.await_offer(key).is_some() && store.partition.offer(key).is_some());
        store.partition.returned(key, Some(clocks(later(60)).instant));
    }
    (0..100).for_each(|_| store.work());
    assert!(store.partition.memory_octets() < 200_000, "{}", store.partition.memory_octets());
    store.partition.fetch_for(account);
    store.work();
    assert_eq!((store.got, store.returned.1.len()), (0, 0), "they wait for their time");
    while store.partition.pop_due(clocks(later(61))).is_some() {}
    (0..100).for_each(|_| store.work());
    assert!(store.got > 0 && !store.returned.1.is_empty(), "it has come");
}

#[test]
fn a_receipt_that_is_with_its_home_is_not_offered_again() {
    let mut store = Store::new(PartitionSettings::default());
    let account = store.account();
    let id = store.accept();
    store.finish(id);
    let key = ParcelKey { id, part: ParcelKey::FINAL_RECEIPT };
    assert!(store.partition.offer(key).is_none(), "it does not wait");
    assert_eq!(store.partition.await_offer(key), Some(account));
    assert_eq!(store.partition.oldest_pending(account), Some(key));
    assert!(store.partition.offer(key).is_some());
    // What it earned may be paid out behind what brought it back from rest.
    assert_eq!(store.partition.await_offer(key), Some(account));
    assert_eq!(store.partition.oldest_pending(account), None);
    store.partition.returned(key, None);
    assert_eq!(store.partition.await_offer(key), Some(account));
    assert_eq!(store.partition.oldest_pending(account), Some(key));
    store.settle(id);
    assert_eq!(store.partition.oldest_pending(account), None);
}

#[test]
fn a_refused_receipt_keeps_its_growing_pause_while_it_is_cold() {
    let mut store = Store::new(short_of_memory());
    let receipts: Vec<MessageId> = (0..700).map(|_| store.accept()).collect();
    let mut alarms = BTreeMap::new();
    for (number, id) in (0..).zip(&receipts) {
        store.finish(*id);
        let key = ParcelKey { id: *id, part: ParcelKey::FINAL_RECEIPT };
        // One of each block in a minute, the others in an hour, after five refusals.
        let at = later(if number % 50 == 0 { 60 } else { 3_600 });
        alarms.insert(key, at);
        for _ in 0..5 {
            assert!(store.partition.await_offer(key).is_some() && store.partition.offer(key).is_some());
            store.partition.returned(key, Some(clocks(at).instant));
        }
    }
    (0..100).for_each(|_| store.work());
    assert!(store.partition.blocks_at_rest().1 > 0, "nothing is cold");
    let mut due: Vec<ParcelKey> = Vec::new();
    for seconds in [61, 62, 3_601, 3_602, 3_603] {
        while let Some(ring) = store.partition.pop_due(clocks(later(seconds))) {
            let Due::Deliver(key) = ring else { panic!("{ring:?}") };
            assert!(store.partition.await_offer(key).is_some() && store.partition.offer(key).is_some());
            due.push(key);
        }
        (0..100).for_each(|_| store.work());
        due.append(&mut store.returned.1);
        assert!(due.iter().all(|key| alarms[key] <= later(seconds)), "too early");
        for key in &due {
            assert_eq!(store.partition.parcel(*key).map(|held| held.attempts), Some(5), "{key:?}");
        }
        if seconds == 61 {
            assert_eq!(due.len(), 14, "one of each fifty");
        }
        for key in due.drain(..) {
            store.settle(key.id);
            alarms.remove(&key);
        }
    }
    assert!(alarms.is_empty(), "{} never came", alarms.len());
}

#[test]
fn a_refused_receipt_that_grows_cold_when_its_pause_is_over_comes_back_for_its_account() {
    let mut store = Store::new(short_of_memory());
    let id = store.accept();
    store.finish(id);
    store.write();
    let key = ParcelKey { id, part: ParcelKey::FINAL_RECEIPT };
    assert!(store.partition.await_offer(key).is_some() && store.partition.offer(key).is_some());
    store.partition.returned(key, Some(clocks(later(5)).instant));
    assert_eq!(store.partition.pop_due(clocks(later(5))), Some(Due::Deliver(key)));
    // Its turn to be offered has not come.
    for _ in 0..2_000 {
        store.accept_for(later(50_000), "12125550199");
        store.work();
    }
    assert!(store.partition.parcel(key).is_none(), "it is cold");
    store.partition.fetch_for(store.account());
    store.work();
    assert_eq!(store.returned.1, [key]);
}

#[test]
fn a_message_that_was_put_off_keeps_its_pause_while_it_is_cold_though_the_clock_goes_back() {
    let mut store = Store::new(short_of_memory());
    let id = store.accept();
    store.record(&Record::Attempt { id, carrier: 0 });
    store.record(&Record::Deferred { id, error: 0, until: later(10) });
    for _ in 0..2_000 {
        store.accept_for(later(50_000), "12125550199");
        store.work();
    }
    let wall = Timestamp::from_millis(NOW.as_millis() - 3_600_000);
    let hour_back = |seconds| Now { instant: clocks(later(seconds)).instant, wall };
    // Somebody asks after it, again and again.
    for seconds in [3, 6, 9] {
        assert_eq!(store.partition.pop_due(hour_back(seconds)), None);
        if let Some(block) = store.partition.cold_block_of(id) {
            store.partition.fetch(block);
        }
        store.work();
        assert!(store.partition.message(id).is_some(), "{seconds}: it is back");
    }
    while store.partition.message(id).is_none() {
        assert_eq!(store.partition.pop_due(hour_back(10)), None, "its block comes back first");
        store.work();
    }
    assert_eq!(store.partition.pop_due(hour_back(10)), Some(Due::Attempt(id)));
}

#[test]
fn a_message_whose_number_was_passed_over_is_not_behind_a_search_that_began_before() {
    let mut store = Store::new(PartitionSettings::default());
    let [before, old] = [0, 1].map(|_| store.partition.next_short_id().expect("one is free"));
    store.accept_as(old, later(5_000), "12125550199");
    store.accept_and_end(12);
    // It is at rest, and no record of the journal names it.
    store.checkpoint();
    // The numbers have come round since.
    store.checkpoint.floors[1] = before;
    store.crash();
    let matching = Matching {
        service_type: None,
        source: NUMBER.into(),
        destination: Address { digits: b"12125550199", ..NUMBER }.into(),
    };
    let (account, up_to) = (store.account(), store.partition.last_ids());
    assert_ne!(store.partition.next_short_id(), Some(old), "it is in use");
    let found = store.partition.waiting(account, &matching, up_to, &store.accounts);
    assert_eq!(found.collect::<Vec<_>>(), [old]);
}

#[test]
fn what_goes_to_rest_after_a_crash_is_the_younger_one_of_its_name() {
    let mut store = Store::new(PartitionSettings::default());
    for crashes in [false, false, true, false, true] {
        if crashes {
            store.crash();
        }
        let id = store.accept();
        store.finish(id);
        store.partition.flush_finals();
        store.write();
        while store.carry_out() {}
    }
    assert_eq!(store.generations.len(), 5);
    assert!(store.generations.is_sorted_by(|old, young| old < young), "{:?}", store.generations);
}

#[test]
fn what_was_earned_before_a_stop_is_paid_out_once() {
    let mut store = Store::new(PartitionSettings::default());
    let id = store.accept();
    store.partition.earn(Earned::Follows(Follows::HandOver { id, deferrals: 0 }));
    assert!(store.partition.take_earned().is_none());
    let batch = store.partition.take_batch().expect("a batch");
    store.partition.commit(batch.position(), batch.payload_octets(), None);
    let earned = store.partition.take_earned().map(smppd::journal::Stored::into_inner);
    assert_eq!(earned, Some(Earned::Follows(Follows::HandOver { id, deferrals: 0 })));
    assert!(store.partition.take_earned().is_none());
}

#[test]
fn a_notification_outlives_its_record_when_its_message_is_packed_anew() {
    for crash_first in [false, true] {
        let mut store = Store::new(PartitionSettings::default());
        let id = store.accept();
        store.record(&Record::Attempt { id, carrier: 0 });
        store.record(&Record::Forwarded { id, carrier_id: b"1" });
        let others: Vec<MessageId> = (0..40).map(|_| store.accept()).collect();
        store.write();
        for _ in 0..6 {
            store.accept();
            store.write();
        }
        store.checkpoint();
        assert_eq!(store.rest.len(), 1);
        let block = *store.rest.keys().next().expect("a block");
        // Little is left of the block, and in the segment that stays its message is told of.
        for other in others {
            store.finish(other);
            store.settle(other);
        }
        let (state, told) = (MessageState::ACCEPTED, Some(MessageState::ENROUTE));
        store.record(&Record::Interim { id, state, at: NOW, told });
        store.write();
        let key = ParcelKey { id, part: ParcelKey::NOTIFICATION_FIRST };
        assert!(store.partition.parcel(key).is_some());
        if crash_first {
            store.crash();
            assert!(store.partition.parcel(key).is_some());
        }
        store.checkpoint();
        let packed = store
            .rest
            .iter()
            .any(|(number, (octets, gone))| *number > block && rest_entries(octets).count() > gone.len());
        assert!(packed, "the block was not packed anew");
        assert!(store.segments() > 0, "the segment is still replayed");
        for restart in 1..4 {
            store.crash();
            assert!(store.partition.parcel(key).is_some(), "restart {restart}, {crash_first}");
            let message = store.partition.message(id).expect("it goes on");
            assert_eq!(message.standing.notifications, 1, "restart {restart}, {crash_first}");
        }
    }
}

#[test]
fn what_is_due_is_due_at_its_time_and_no_millisecond_before() {
    // What is far away moves inwards first.
    let due = |store: &mut Store, at: Timestamp| (0..20).find_map(|_| store.partition.pop_due(clocks(at)));
    let before = |at: Timestamp| Timestamp::from_millis(at.as_millis() - 1);
    let mut store = Store::new(PartitionSettings::default());
    let (id, scheduled) = (store.accept(), store.accept_for(later(60), "1"));
    assert_eq!(due(&mut store, NOW), Some(Due::Attempt(id)));
    store.record(&Record::Attempt { id, carrier: 0 });
    assert_eq!(due(&mut store, before(later(60))), None);
    assert_eq!(due(&mut store, later(60)), Some(Due::Attempt(scheduled)));
    store.finish(scheduled);
    store.settle(scheduled);
    assert_eq!(due(&mut store, before(later(86_400))), None);
    assert_eq!(due(&mut store, later(86_400)), Some(Due::Expired(id)));
    // It has ended when it was said to, and its receipt is kept for three days from then on.
    store.finish(id);
    let key = ParcelKey { id, part: ParcelKey::FINAL_RECEIPT };
    let mut other = Store::new(PartitionSettings::default());
    let ended = other.accept();
    other.finish(ended);
    let over = NOW + other.settings.parcel_retention;
    assert_eq!(due(&mut other, before(over)), None);
    let own = ParcelKey { id: ended, part: ParcelKey::FINAL_RECEIPT };
    assert_eq!(due(&mut other, over), Some(Due::GiveUp(own)));
    assert!(store.partition.parcel(key).is_some());
}

#[test]
fn a_reply_finds_its_account_at_rest_though_that_has_left_and_sent_nothing() {
    let mut store = Store::new(PartitionSettings::default());
    let reply = Reply {
        source: Address { digits: b"447700900123", ..NUMBER },
        destination: NUMBER,
        data_coding: DataCoding::DEFAULT,
        user_data: b"yes",
        has_udh: false,
    };
    let id = store.partition.next_id(NOW, 1);
    let parcel = reply_for(id, b"other", &reply, NOW).expect("it fits");
    store.record(&Record::Mo(parcel.as_octets()));
    for _ in 0..12 {
        store.accept();
        store.write();
    }
    store.checkpoint();
    // Those that the next start knows: no account is left in its file, and the journal speaks of this one no more.
    let named = store.checkpoint.credits_used.iter().map(|(system_id, _)| &**system_id);
    store.accounts = Accounts::default().with_unknown(named);
    store.crash();
    assert_eq!(store.partition.unfinished(), (12, 1));
}

#[test]
fn without_a_journal_no_submission_waits_for_one() {
    let settings = PartitionSettings {
        journal_waiting_octets_max: 10,
        is_durable: false,
        ..PartitionSettings::default()
    };
    let mut store = Store::new(settings);
    for number in 0..100 {
        assert!(store.partition.has_room(), "{number}");
        store.accept();
        assert!(!store.partition.has_room(), "{number}");
        store.partition.commit_unwritten();
    }
}
