//! What runs on a core: heartbeat, listeners, journals, mailbox.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant as StdInstant};

use crossbeam_channel::Sender;
use glommio::net::TcpListener;
use glommio::timer::sleep;
use glommio::{Task, spawn_local};
use rustls::ServerConfig;

use crate::account::Accounts;
use crate::message::PartitionNumber;
use crate::server::balance::Balance;
use crate::server::clock::Clock;
use crate::server::connection::{self, ConnectionSettings};
use crate::server::core::{Bell, Buffers, Core, Pulse, SharedCore};
use crate::server::descriptors;
use crate::server::disk::{JournalFiles, JournalFolder, Unopened};
use crate::server::mesh::{Inbound, MailSender, Mailbox};
use crate::server::pacemaker::{HEARTBEAT, give_way};
use crate::server::password::Verifier;
use crate::server::state::Order;
use crate::server::tls::Transport;
use crate::shard::{Commit, Shard};
use crate::store::StoreDone;
use crate::time::Instant;

/// Heartbeats between publications of the counters.
const COUNT: u64 = 64;
/// Heartbeats between looks of connections at the time.
const IMPATIENCE: u64 = 32;
/// Heartbeats after which messages that are over go to rest, however few they are: a minute.
const FLUSH: u64 = 15_000;
/// After an accept that failed (no file descriptors): trying again at once would take the whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long sessions may take to unbind when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Things taken from the mailbox in one turn.
const MAIL_PER_TURN: usize = 256;

/// A listener of every core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Listen {
    /// Where.
    pub(super) address: SocketAddr,
    /// Whether TLS is spoken there.
    pub(super) is_tls: bool,
}

/// What an executor is given to begin with.
pub(super) struct Parts {
    /// Makes the shard, here, where its buffers are.
    pub(super) shard: Box<dyn FnOnce() -> Shard>,
    pub(super) clock: Clock,
    pub(super) tls: Arc<std::sync::RwLock<Arc<ServerConfig>>>,
    pub(super) mesh: Vec<MailSender>,
    pub(super) own_mail: MailSender,
    pub(super) mailbox: Mailbox,
    pub(super) states: Vec<Sender<Order>>,
    pub(super) journals: Vec<JournalFolder>,
    pub(super) verifier: Verifier,
    pub(super) pulse: Arc<Pulse>,
    pub(super) listen: Vec<Listen>,
    pub(super) connection: ConnectionSettings,
    pub(super) connections_max: usize,
    pub(super) handshakes_max: usize,
    pub(super) core_number: u8,
    pub(super) balance: Arc<Balance>,
    /// Told once the core listens, or why it does not.
    pub(super) ready: Sender<Result<(), String>>,
}

/// Runs a core to its end.
pub(super) async fn run(parts: Parts) {
    let Parts { mailbox, journals, listen, connection, ready, .. } = parts;
    let count = journals.len();
    let counts: Vec<u32> = journals.iter().map(|journal| journal.files).collect();
    let core: SharedCore = Rc::new(Core {
        shard: RefCell::new((parts.shard)()),
        clock: parts.clock,
        buffers: RefCell::new(Buffers::new()),
        tls: parts.tls,
        journals: journals.into_iter().map(JournalFiles::new).collect(),
        journal_bells: (0..count).map(|_| Bell::default()).collect(),
        more_bell: Bell::default(),
        resting: RefCell::new(Vec::new()),
        resting_bell: Bell::default(),
        mesh: parts.mesh,
        states: parts.states,
        verifier: parts.verifier,
        own_mail: parts.own_mail,
        pulse: parts.pulse,
        is_draining: Cell::new(false),
        connections: RefCell::new(HashMap::default()),
        // Numbers tell cores apart in the log.
        next_connection: Cell::new((u64::from(parts.core_number) << 48) + 1),
        verified: RefCell::new(HashSet::default()),
        number: usize::from(parts.core_number),
        balance: parts.balance,
        traffic: Cell::new((Instant::ZERO, 0)),
        handshakes: Cell::new(0),
        impatient: RefCell::new(HashSet::default()),
        is_writing: (0..count).map(|_| Cell::new(false)).collect(),
    });
    let heartbeat = spawn_local(beat(Rc::clone(&core)));
    let rest = spawn_local(go_on(Rc::clone(&core)));
    let breaks = spawn_local(end_breaks(Rc::clone(&core)));
    for (place, files) in counts.into_iter().enumerate() {
        for file in 0..files {
            let reason = match core.journals[place].open(file).await {
                Ok(()) => continue,
                Err(Unopened::Shortage) => descriptors::LACK.to_owned(),
                Err(Unopened::Failed(error)) => error.to_string(),
            };
            _ = ready.send(Err(format!("a file of the journal cannot be opened: {reason}")));
            return;
        }
    }
    let writers: Vec<Task<()>> =
        (0..count).map(|place| spawn_local(write_journal(Rc::clone(&core), place))).collect();

    let mut listeners = Vec::new();
    for Listen { address, is_tls } in listen {
        match TcpListener::bind(address) {
            Ok(listener) => {
                let limits = (parts.connections_max, parts.handshakes_max);
                listeners.push(spawn_local(accept(Rc::clone(&core), listener, is_tls, connection, limits)));
            }
            Err(error) => {
                _ = ready.send(Err(format!("{address}: {error}")));
                return;
            }
        }
    }
    core.with(None, |shard, now| shard.resume(now));
    _ = ready.send(Ok(()));
    drop(ready);

    read_mail(&core, &mailbox).await;

    // Drained: no new connections, unbind to everybody, then whatever is left on its way to disk.
    for listener in listeners {
        listener.cancel().await;
    }
    let deadline = StdInstant::now() + DRAIN_TIMEOUT;
    core.with(None, |shard, now| shard.drain(now));
    while core.shard.borrow().sessions() > 0 && StdInstant::now() < deadline {
        take_mail(&core, &mailbox);
        sleep(HEARTBEAT).await;
    }
    core.with(None, |shard, _| shard.stop());
    let deadline = StdInstant::now() + DRAIN_TIMEOUT;
    while !core.is_settled() && StdInstant::now() < deadline {
        take_mail(&core, &mailbox);
        sleep(HEARTBEAT).await;
    }
    if !core.is_settled() {
        log::warn!(
            "what is at rest is behind after {DRAIN_TIMEOUT:?}: the next start reads the journal again"
        );
    }
    core.pulse.has_ended.store(true, Ordering::Relaxed);
    heartbeat.cancel().await;
    rest.cancel().await;
    breaks.cancel().await;
    for writer in writers {
        writer.cancel().await;
    }
}

async fn beat(core: SharedCore) {
    let pacemaker = Arc::clone(&core.pulse.pacemaker);
    pacemaker.attach();
    loop {
        let beat = pacemaker.beat().await;
        let is_disk_low = core.pulse.is_disk_low.load(Ordering::Relaxed);
        core.with(None, |shard, now| {
            shard.note_disk(is_disk_low);
            shard.tick(now);
        });
        if beat.is_multiple_of(COUNT) {
            core.publish_counters();
        }
        if beat.is_multiple_of(IMPATIENCE) {
            core.wake_impatient();
        }
        if beat.is_multiple_of(FLUSH) {
            core.with(None, |shard, _| shard.flush_finals());
        }
    }
}

/// Goes on with what turns have left over, when the other tasks had theirs.
async fn go_on(core: SharedCore) {
    loop {
        futures_lite::future::poll_fn(|cx| {
            if core.shard.borrow().has_more() {
                return Poll::Ready(());
            }
            core.more_bell.arm(cx.waker());
            Poll::Pending
        })
        .await;
        core.with(None, Shard::go_on);
        give_way().await;
    }
}

/// Wakes connections that have more to read, when the other tasks had their turn.
async fn end_breaks(core: SharedCore) {
    loop {
        futures_lite::future::poll_fn(|cx| {
            if core.resting.borrow().is_empty() {
                core.resting_bell.arm(cx.waker());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        give_way().await;
        let resting = std::mem::take(&mut *core.resting.borrow_mut());
        resting.into_iter().for_each(Waker::wake);
    }
}

async fn accept(
    core: SharedCore,
    listener: TcpListener,
    is_tls: bool,
    settings: ConnectionSettings,
    (connections_max, handshakes_max): (usize, usize),
) {
    loop {
        // The kernel's queue holds who comes while we have enough to do.
        while core.handshakes.get() >= handshakes_max
            || core.connections.borrow().len() >= connections_max
            || core.balance.is_full()
        {
            sleep(HEARTBEAT).await;
        }
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) if descriptors::is_shortage(error.raw_os_error()) => {
                descriptors::note(true, "a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
            Err(error) => {
                log::warn!("no connection could be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        descriptors::note(false, "a connection");
        let transport = if is_tls {
            let config =
                core.tls.read().map_or_else(|lock| Arc::clone(&lock.into_inner()), |tls| Arc::clone(&tls));
            match Transport::tls(config) {
                Ok(transport) => transport,
                Err(error) => {
                    log::error!("no TLS for a new connection: {error}");
                    continue;
                }
            }
        } else {
            Transport::Plain
        };
        spawn_local(connection::run(Rc::clone(&core), stream, transport, settings, core.balance.open()))
            .detach();
    }
}

/// Writes the batches of one partition, one at a time: the next grows while this one is on its way.
async fn write_journal(core: SharedCore, place: usize) {
    loop {
        let next = futures_lite::future::poll_fn(|cx| {
            let Some(batch) = core.shard.borrow_mut().take_batch(place) else {
                core.journal_bells[place].arm(cx.waker());
                return Poll::Pending;
            };
            core.is_writing[place].set(true);
            Poll::Ready(batch)
        });
        let batch = next.await;
        let (position, payload_octets, octets) =
            (batch.position(), batch.payload_octets(), batch.aligned_octets());
        let start = StdInstant::now();
        let written = core.journals[place].write(batch).await;
        let micros = start.elapsed().as_micros() as u64;
        core.is_writing[place].set(false);
        match written {
            Ok(()) => core.with(None, |shard, now| {
                let commit = Commit { position, payload_octets, octets, micros, spare: None };
                shard.committed(now, place, commit);
            }),
            Err(error) => {
                core.with(None, |shard, now| {
                    shard.failed(now, place, &format!("the journal failed: {error}"));
                });
                return;
            }
        }
    }
}

/// A file was made for the journal of a partition: it is open before the first batch goes there. Without a descriptor for it
/// there is no room: submissions are refused until there is.
async fn open_ahead(core: SharedCore, partition: PartitionNumber, file: u32) {
    let Some(place) = core.shard.borrow().place_of(partition) else { return };
    let opened = core.journals[place].open(file).await;
    core.with(None, |shard, now| match opened {
        Ok(()) => shard.handle_store(now, partition, StoreDone::File(file)),
        Err(Unopened::Shortage) => shard.handle_store(now, partition, StoreDone::NoRoom(file)),
        Err(Unopened::Failed(error)) => {
            shard.store_failed(now, place, &format!("a file of the journal cannot be opened: {error}"));
        }
    });
}

/// Reads the mailbox until it says to stop.
async fn read_mail(core: &SharedCore, mailbox: &Mailbox) {
    futures_lite::future::poll_fn(|cx| {
        if take_mail(core, mailbox) {
            // More may be there: come back after the others.
            cx.waker().wake_by_ref();
        } else {
            mailbox.arm(cx.waker());
            if take_mail(core, mailbox) {
                cx.waker().wake_by_ref();
            }
        }
        if core.is_draining.get() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Takes one turn's worth of mail; whether there was any.
fn take_mail(core: &SharedCore, mailbox: &Mailbox) -> bool {
    let mut count = 0;
    while count < MAIL_PER_TURN {
        let Some(inbound) = mailbox.try_next() else { break };
        count += 1;
        take(core, inbound);
    }
    count > 0
}

fn take(core: &SharedCore, inbound: Inbound) {
    match inbound {
        Inbound::Mesh(messages) => core.with(None, |shard, now| shard.handle_mesh(now, messages)),
        Inbound::Verified(connection, is_right) => core.verified(connection, is_right),
        Inbound::Handover(handover) => {
            spawn_local(connection::go_on(Rc::clone(core), *handover)).detach();
        }
        Inbound::Found(lookup, found) => {
            core.with(None, |shard, now| shard.handle_lookup(now, *lookup, found));
        }
        Inbound::NotFound(lookup) => core.with(None, |shard, now| shard.handle_lookup_failed(now, &lookup)),
        Inbound::Stored(partition, StoreDone::File(file)) => {
            spawn_local(open_ahead(Rc::clone(core), partition, file)).detach();
        }
        Inbound::Stored(partition, done) => {
            core.with(None, |shard, now| shard.handle_store(now, partition, done));
        }
        Inbound::StoreFailed(partition, reason) => core.with(None, |shard, now| {
            if let Some(place) = shard.place_of(partition) {
                shard.store_failed(now, place, &reason);
            }
        }),
        Inbound::Reload(accounts, routes) => {
            core.with(None, |shard, now| shard.reload(now, Rc::new(Accounts::clone(&accounts)), routes));
        }
        Inbound::Drain => core.is_draining.set(true),
    }
}
