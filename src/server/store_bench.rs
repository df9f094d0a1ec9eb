//! `smppd store bench`: what the store does on this machine and disk, without a network in front of it.
//!
//! One partition on one executor, driven as a shard drives it: messages are accepted with their first attempt, and what
//! each durable record earns leads to the next: forwarded, final, and the receipt settled. So a message is four events,
//! and counts as done when the last of them is durable.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement, spawn_local};

use crate::account::{AccountSettings, Accounts};
use crate::config::Config;
use crate::journal::Record;
use crate::message::{Content, MessageId, PartitionNumber};
use crate::pdu::receipt::MessageState;
use crate::pdu::{Address, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
use crate::server::clock::Clock;
use crate::server::core::Bell;
use crate::server::disk::{self, JournalFiles};
use crate::server::mesh::{Inbound, mailbox};
use crate::server::recovery::{self, Found, Opened};
use crate::server::run::{IO_MEMORY, PREEMPT};
use crate::server::state::{self, Order};
use crate::shard::{Earned, Follows, Partition};
use crate::time::Timestamp;

const SYSTEM_ID: &str = "bench";
/// Messages left in one turn.
const TURN: u64 = 4_096;
/// The heartbeat of a core.
const BEAT: Duration = Duration::from_millis(4);
const FORWARDED: &[u8] = b"0123456789ABCDEF";

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// For so long.
    pub(super) seconds: u64,
    /// Or until so many messages are done.
    pub(super) count: Option<u64>,
    /// Messages that are under way at one time.
    pub(super) in_flight: u64,
    /// Octets of the record of a message.
    pub(super) octets: usize,
    /// Messages that are left unfinished at the end.
    pub(super) leave: u64,
}

/// A partition, and what goes on beside it.
struct Bench {
    partition: RefCell<Partition>,
    accounts: Accounts,
    clock: Clock,
    /// There is a batch to write; one was written.
    bell: Bell,
    committed: Bell,
    failure: RefCell<Option<String>>,
    accepted: Cell<u64>,
    done: Cell<u64>,
    commits: Cell<u64>,
    octets: Cell<u64>,
}

/// Runs the plan in `config.data_dir`, telling each second how it goes.
///
/// # Errors
/// The directory cannot be used, or the disk failed.
pub(super) fn run(config: &Config, plan: &Plan) -> Result<(), String> {
    fs::create_dir_all(&config.data_dir)
        .map_err(|error| format!("{}: {error}", config.data_dir.display()))?;
    recovery::has_format(&config.data_dir)?;
    let accounts = Accounts::default().reload(vec![AccountSettings::new(SYSTEM_ID, "")]);
    let clock = Clock::new();
    let opened = Found::open(config, PartitionNumber(0), clock.now())?.recover(config, &accounts)?;
    let Opened { partition, journal, state } = opened;
    let (senders, mailbox) = mailbox(0, 1);
    let started = state::start(PartitionNumber(0), state, senders[0].clone(), clock, config.final_retention);
    let (orders, thread) = started.map_err(|error| format!("no thread for the state at rest: {error}"))?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|error| format!("no executor: {error}"))?;
    let folder = config.data_dir.join("partition-000");
    let outcome = executor.run(async {
        let bench = Rc::new(Bench {
            partition: RefCell::new(Partition::open(partition, disk::buffers())),
            accounts,
            clock,
            bell: Bell::default(),
            committed: Bell::default(),
            failure: RefCell::new(None),
            accepted: Cell::new(0),
            done: Cell::new(0),
            commits: Cell::new(0),
            octets: Cell::new(0),
        });
        let writer = spawn_local(write(Rc::clone(&bench), JournalFiles::new(journal)));
        let outcome = bench.drive(plan, &orders, &mailbox, &folder).await;
        writer.cancel().await;
        outcome
    });
    _ = orders.send(Order::Stop);
    _ = thread.join();
    outcome
}

async fn write(bench: Rc<Bench>, files: JournalFiles) {
    loop {
        let batch = futures_lite::future::poll_fn(|cx| {
            let Some(batch) = bench.partition.borrow_mut().take_batch() else {
                bench.bell.arm(cx.waker());
                return Poll::Pending;
            };
            Poll::Ready(batch)
        });
        let batch = batch.await;
        let (position, payload, octets) = (batch.position(), batch.payload_octets(), batch.aligned_octets());
        if let Err(error) = files.write(batch).await {
            *bench.failure.borrow_mut() = Some(format!("the journal failed: {error}"));
            return;
        }
        bench.commits.set(bench.commits.get() + 1);
        bench.octets.set(bench.octets.get() + octets as u64);
        bench.partition.borrow_mut().commit(position, payload, None);
        bench.committed.ring();
    }
}

impl Bench {
    async fn drive(
        &self,
        plan: &Plan,
        orders: &crossbeam_channel::Sender<Order>,
        mailbox: &crate::server::mesh::Mailbox,
        folder: &Path,
    ) -> Result<(), String> {
        println!("second  messages/s  commits/s  KiB/commit  memory MiB  disk MiB  segments  orders waiting");
        let text = vec![b'x'; plan.octets];
        let start = Instant::now();
        let (mut told, mut told_at, mut beat) = ((0, 0, 0), start, start);
        loop {
            let wanted = plan.count.unwrap_or(u64::MAX);
            let is_over = match plan.count {
                Some(count) => self.done.get() >= count,
                None => start.elapsed() >= Duration::from_secs(plan.seconds),
            };
            if !is_over {
                self.accept(plan, wanted, &text);
            }
            self.pay();
            self.look_after_rest(orders, mailbox)?;
            if beat.elapsed() >= BEAT {
                beat = Instant::now();
                let now = self.clock.now();
                let mut partition = self.partition.borrow_mut();
                while partition.pop_due(now).is_some() {}
                partition.go_on(&self.accounts);
            }
            if let Some(failure) = self.failure.borrow_mut().take() {
                return Err(failure);
            }
            if self.partition.borrow().has_batch() {
                self.bell.ring();
            }
            if told_at.elapsed() >= Duration::from_secs(1) {
                told = self.tell(start, told, told_at, folder, orders.len());
                told_at = Instant::now();
            }
            if is_over && self.done.get() == self.accepted.get() {
                break;
            }
            self.wait().await;
        }
        let (seconds, done) = (start.elapsed().as_secs_f64(), self.done.get());
        println!(
            "{done} messages in {seconds:.1} s: {:.0} messages/s durable, {:.0} octets of journal each, {} commits",
            done as f64 / seconds,
            self.octets.get() as f64 / done.max(1) as f64,
            self.commits.get()
        );
        self.leave(plan, &text, orders, mailbox).await
    }

    /// Until a batch was written, or for a heartbeat.
    async fn wait(&self) {
        let mut is_armed = false;
        let committed = futures_lite::future::poll_fn(|cx| {
            if is_armed {
                return Poll::Ready(());
            }
            is_armed = true;
            self.committed.arm(cx.waker());
            Poll::Pending
        });
        futures_lite::future::or(committed, async {
            glommio::timer::sleep(BEAT).await;
        })
        .await;
    }

    /// Accepts new messages until enough are under way.
    fn accept(&self, plan: &Plan, wanted: u64, text: &[u8]) {
        let mut partition = self.partition.borrow_mut();
        let now = self.clock.now().wall;
        loop {
            let under_way = self.accepted.get() - self.done.get();
            if under_way >= plan.in_flight || self.accepted.get() >= wanted || !partition.has_room() {
                return;
            }
            let id = partition.next_id(now, 1);
            let content = content(id, now, Timestamp::ZERO, text, plan.octets);
            _ = partition.accept(Some(0), &content, &self.accounts, None);
            self.accepted.set(self.accepted.get() + 1);
        }
    }

    /// What is durable leads to the next event.
    fn pay(&self) {
        let mut partition = self.partition.borrow_mut();
        let now = self.clock.now().wall;
        while let Some(earned) = partition.take_earned() {
            match earned.into_inner() {
                Earned::Follows(Follows::HandOver { id, .. }) => {
                    _ = partition.record(
                        &Record::Forwarded { id, carrier_id: FORWARDED },
                        &self.accounts,
                        None,
                    );
                    let ended = Record::Final { id, state: MessageState::DELIVERED, error: 0, at: now };
                    _ = partition.record(&ended, &self.accounts, None);
                }
                Earned::Follows(Follows::Deliver { key, .. }) => {
                    let settled = Record::Settled { id: key.id, part: key.part };
                    let done = Earned::Acknowledge { carrier: 0, token: 0 };
                    _ = partition.record(&settled, &self.accounts, Some(done));
                }
                Earned::Acknowledge { .. } => self.done.set(self.done.get() + 1),
                Earned::Submitted { .. }
                | Earned::Answer(..)
                | Earned::Outcome(..)
                | Earned::Charge { .. } => {}
            }
        }
    }

    fn look_after_rest(
        &self,
        orders: &crossbeam_channel::Sender<Order>,
        mailbox: &crate::server::mesh::Mailbox,
    ) -> Result<(), String> {
        let mut partition = self.partition.borrow_mut();
        while let Some(inbound) = mailbox.try_next() {
            match inbound {
                Inbound::Stored(_, done) => {
                    let returned = partition.store_done(done, &self.accounts);
                    _ = returned.map_err(|_| "a block at rest cannot be read".to_owned())?;
                }
                Inbound::StoreFailed(_, reason) => return Err(reason),
                Inbound::Mesh(_)
                | Inbound::Verified(..)
                | Inbound::Handover(_)
                | Inbound::Found(..)
                | Inbound::NotFound(_)
                | Inbound::Reload(..)
                | Inbound::Drain => {}
            }
        }
        partition.catch_up();
        while orders.len() < state::ORDERS_MAX {
            let Some(op) = partition.take_store_op() else { break };
            if orders.send(Order::Op(op)).is_err() {
                return Err("the thread of the state at rest has ended".to_owned());
            }
        }
        Ok(())
    }

    fn tell(
        &self,
        start: Instant,
        (done, commits, octets): (u64, u64, u64),
        told_at: Instant,
        folder: &Path,
        orders: usize,
    ) -> (u64, u64, u64) {
        let seconds = told_at.elapsed().as_secs_f64();
        let now = (self.done.get(), self.commits.get(), self.octets.get());
        println!(
            "{:>6}  {:>10.0}  {:>9.0}  {:>10.1}  {:>10}  {:>8}  {:>8}  {:>14}",
            start.elapsed().as_secs(),
            (now.0 - done) as f64 / seconds,
            (now.1 - commits) as f64 / seconds,
            (now.2 - octets) as f64 / 1024.0 / (now.1 - commits).max(1) as f64,
            resident_mib(),
            disk_mib(folder),
            self.partition.borrow().segments_in_use(),
            orders
        );
        now
    }

    /// Leaves messages unfinished, of every kind there is: scheduled, with a carrier, and receipts nobody takes.
    async fn leave(
        &self,
        plan: &Plan,
        text: &[u8],
        orders: &crossbeam_channel::Sender<Order>,
        mailbox: &crate::server::mesh::Mailbox,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let mut left = 0;
        while left < plan.leave
            || self.partition.borrow().has_batch()
            || self.partition.borrow().has_store_ops()
        {
            let now = self.clock.now().wall;
            for _ in 0..TURN.min(plan.leave - left) {
                let mut partition = self.partition.borrow_mut();
                if !partition.has_room() {
                    break;
                }
                let id = partition.next_id(now, 1);
                let kind = left % 4;
                let deliver_at = if kind == 0 { now + Duration::from_secs(86_400) } else { Timestamp::ZERO };
                let attempt = (kind != 0).then_some(0);
                let content = content(id, now, deliver_at, text, plan.octets);
                _ = partition.accept(attempt, &content, &self.accounts, None);
                if kind > 1 {
                    _ = partition.record(
                        &Record::Forwarded { id, carrier_id: FORWARDED },
                        &self.accounts,
                        None,
                    );
                }
                if kind > 2 {
                    let ended = Record::Final { id, state: MessageState::DELIVERED, error: 0, at: now };
                    _ = partition.record(&ended, &self.accounts, None);
                }
                left += 1;
            }
            while self.partition.borrow_mut().take_earned().is_some() {}
            self.partition.borrow_mut().go_on(&self.accounts);
            self.look_after_rest(orders, mailbox)?;
            self.bell.ring();
            if let Some(failure) = self.failure.borrow_mut().take() {
                return Err(failure);
            }
            self.wait().await;
        }
        if plan.leave > 0 {
            let (messages, deliveries) = self.partition.borrow().unfinished();
            println!(
                "left {messages} messages and {deliveries} deliveries in {:.1} s",
                begun.elapsed().as_secs_f64()
            );
        }
        Ok(())
    }
}

/// A message whose record is so many octets long.
fn content(id: MessageId, now: Timestamp, deliver_at: Timestamp, text: &[u8], octets: usize) -> Content<'_> {
    let number = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
    let of = |user_data| Content {
        id,
        batch_offset: 0,
        batch_count: 1,
        accepted_at: now,
        deliver_at,
        expires_at: now + Duration::from_secs(2 * 86_400),
        segments: 1,
        registered_delivery: RegisteredDelivery(1),
        esm_class: EsmClass::DEFAULT,
        protocol_id: 0,
        priority_flag: 0,
        data_coding: DataCoding::DEFAULT,
        system_id: SYSTEM_ID.as_bytes(),
        service_type: b"",
        source: number,
        destination: number,
        user_data,
        tlvs: b"",
    };
    let bare = Record::Accepted { attempt: None, content: &of(b"").to_octets() }.octets();
    of(&text[..octets.saturating_sub(bare).min(text.len())])
}

fn resident_mib() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) / 256
}

/// What a folder takes on the disk.
fn disk_mib(folder: &Path) -> u64 {
    fn octets(folder: &PathBuf) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.fold(0, |sum, entry| {
            let size = match entry.metadata() {
                Ok(found) if found.is_dir() => octets(&entry.path()),
                Ok(found) => std::os::unix::fs::MetadataExt::blocks(&found) * 512,
                Err(_) => 0,
            };
            sum + size
        })
    }
    octets(&folder.to_path_buf()) >> 20
}
