//! One connection, one future: read, decrypt, hand to the shard, encrypt, send. When its session is about to bind it may
//! be another core's future that goes on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use glommio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::server::balance::{Counted, Seat};
use crate::server::core::{Buffers, Core, SharedCore};
use crate::server::handover::{self, Handover};
use crate::server::mesh::Inbound;
use crate::server::outgoing::{KEPT_OCTETS, Outgoing};
use crate::server::tls::Transport;
use crate::session::CloseReason;
use crate::shard::{ConnectionId, MovingSession};
use crate::time::Instant;

/// Reads in one turn of a connection; then the others have theirs.
const READS_PER_TURN: usize = 4;
/// When nothing was read from a peer for so long, because its window is full or it takes nothing, we look whether it has
/// closed its side.
const UNREAD_PATIENCE: Duration = Duration::from_millis(100);

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionSettings {
    /// From accept to the end of the TLS handshake.
    pub(super) handshake_timeout: Duration,
    /// A peer that takes no octets for so long is dropped.
    pub(super) write_timeout: Duration,
    /// Octets waiting for the peer above which we stop reading.
    pub(super) output_octets_max: usize,
}

/// A connection and what is between the socket and the session.
struct Connection {
    stream: TcpStream,
    transport: Transport,
    id: ConnectionId,
    peer: SocketAddr,
    settings: ConnectionSettings,
    /// Whether the shard knows it: from the end of the handshake on.
    is_open: bool,
    /// Part of a TLS record.
    raw: Vec<u8>,
    /// Part of a PDU, or PDUs that wait for room in the window.
    plain: Vec<u8>,
    outgoing: Outgoing,
    /// Whether the session knows that nothing is read.
    is_paused: bool,
    accepted_at: Instant,
    /// Since when nothing is read, though the peer may have sent something.
    unread_since: Option<Instant>,
    /// The peer has closed its side; the shard knows it then, too. What the peer had sent before may still be unread.
    has_hung_up: bool,
    /// Everything that the peer has sent is read.
    peer_has_closed: bool,
    closed_since: Option<Instant>,
    /// Nothing is taken from the session any more.
    is_closing: bool,
    /// Everything is sent; until then the peer may close first.
    linger_until: Option<Instant>,
    /// Where the session lives, from its password on.
    seat: Option<Seat>,
    /// Counts among the connections of all cores; with the handover it goes to the other core.
    counted: Option<Counted>,
}

/// How a connection ends on this core.
enum End {
    Closed(CloseReason),
    /// Another core goes on with it.
    HandedOver(Box<Handover>),
}

/// How long the peer may take to read our last words: a socket closed with unread octets loses them.
const LINGER: Duration = Duration::from_secs(5);

/// Runs a connection to its end. A panic ends this connection alone.
pub(super) async fn run(
    core: SharedCore,
    stream: TcpStream,
    transport: Transport,
    settings: ConnectionSettings,
    counted: Counted,
) {
    let id = core.next_connection();
    let Ok(peer) = stream.peer_addr() else { return };
    _ = stream.set_nodelay(true);
    let accepted_at = core.clock.now().instant;
    let mut connection = Connection::new(stream, transport, id, peer, settings, accepted_at);
    connection.counted = Some(counted);
    if connection.transport.is_handshaking() {
        core.handshakes.set(core.handshakes.get() + 1);
    }
    serve(core, connection).await;
}

/// Goes on with a connection that another core has let go.
pub(super) async fn go_on(core: SharedCore, handover: Handover) {
    let Handover { socket, transport, session, id, peer, settings, accepted_at, raw, plain, seat, counted } =
        handover;
    let stream = handover::stream(socket);
    let mut connection = Connection::new(stream, transport, id, peer, settings, accepted_at);
    (connection.is_open, connection.counted) = (true, counted);
    (connection.raw, connection.plain, connection.seat) = (raw, plain, Some(seat));
    core.with(Some(id), |shard, now| shard.arrive(now, session));
    serve(core, connection).await;
}

async fn serve(core: SharedCore, mut connection: Connection) {
    let (id, peer) = (connection.id, connection.peer);
    let outcome =
        AssertUnwindSafe(futures_lite::future::poll_fn(|cx| connection.poll(&core, cx))).catch_unwind().await;
    if !connection.is_open && matches!(connection.transport, Transport::Tls(_)) {
        core.handshakes.set(core.handshakes.get() - 1);
    }
    core.connections.borrow_mut().remove(&id);
    core.impatient.borrow_mut().remove(&id);
    core.verified.borrow_mut().remove(&id);
    let reason = match outcome {
        Ok(End::Closed(reason)) => reason,
        Ok(End::HandedOver(handover)) => {
            let target = handover.seat.core();
            log::debug!("connection {} from {peer} goes on at core {target}", id.0);
            core.mesh[target].send(Inbound::Handover(handover));
            return;
        }
        Err(_) => {
            log::error!("connection {} from {peer} met a fault of ours and was closed", id.0);
            CloseReason::Ours
        }
    };
    core.with(Some(id), |shard, now| shard.disconnected(now, id, reason));
}

impl Connection {
    fn new(
        stream: TcpStream,
        transport: Transport,
        id: ConnectionId,
        peer: SocketAddr,
        settings: ConnectionSettings,
        accepted_at: Instant,
    ) -> Self {
        Self {
            stream,
            transport,
            id,
            peer,
            settings,
            is_open: false,
            raw: Vec::new(),
            plain: Vec::new(),
            outgoing: Outgoing::default(),
            is_paused: false,
            accepted_at,
            unread_since: None,
            has_hung_up: false,
            peer_has_closed: false,
            closed_since: None,
            is_closing: false,
            linger_until: None,
            seat: None,
            counted: None,
        }
    }

    fn poll(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<End> {
        core.connections.borrow_mut().insert(self.id, cx.waker().clone());
        let outcome = loop {
            let outcome = self.turn(core, cx);
            if outcome.is_ready() || !core.take_verified(self.id) {
                break outcome.map(End::Closed);
            }
            if let Some(handover) = self.take_seat(core) {
                break Poll::Ready(End::HandedOver(handover));
            }
        };
        let is_impatient = !self.is_open
            || self.unread_since.is_some()
            || self.outgoing.is_blocked()
            || self.closed_since.is_some()
            || self.linger_until.is_some();
        let mut impatient = core.impatient.borrow_mut();
        if outcome.is_pending() && is_impatient {
            impatient.insert(self.id);
        } else if !impatient.is_empty() {
            impatient.remove(&self.id);
        }
        outcome
    }

    fn turn(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if matches!(self.transport, Transport::Plain) {
            self.open(core);
        }
        for _ in 0..READS_PER_TURN {
            let now = core.clock.now().instant;
            if !self.is_open && now >= self.accepted_at + self.settings.handshake_timeout {
                return Poll::Ready(CloseReason::SessionInitTimeout);
            }
            self.give_plain(core);
            match self.send(core, cx, now) {
                Ok(true) => self.pause(core, false),
                Ok(false) => {
                    self.pause(core, true);
                    return self.look_for_its_end(core, now);
                }
                Err(_) => return Poll::Ready(CloseReason::PeerClosed),
            }
            if self.is_closing {
                return self.linger(core, cx, now);
            }
            if self.peer_has_closed {
                self.hang_up(core);
                // What the peer has asked before it closed its side is still answered, but not for ever: in
                // transaction mode an answer may take as long as its message is valid.
                let since = *self.closed_since.get_or_insert(now);
                let is_patient = now < since + self.settings.write_timeout;
                return if is_patient && self.has_unanswered(core) {
                    Poll::Pending
                } else {
                    Poll::Ready(CloseReason::PeerClosed)
                };
            }
            // Octets that wait for room in the window are as good as unread ones.
            if self.is_open && !core.shard.borrow().wants_octets(self.id) {
                return self.look_for_its_end(core, now);
            }
            self.unread_since = None;
            match self.read(core, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::PeerClosed),
                Poll::Pending => return Poll::Pending,
            }
        }
        // More may be there: come back after the others.
        core.come_back(cx.waker());
        Poll::Pending
    }

    /// The password is right: the session binds on the core with the least to do. What that core needs if it is another.
    fn take_seat(&mut self, core: &Core) -> Option<Box<Handover>> {
        let mut seat = self.seat.take().unwrap_or_else(|| core.balance.seat(core.number));
        if seat.core() != core.number {
            if let Some((socket, session)) = self.let_go(core) {
                return Some(Box::new(Handover {
                    socket,
                    transport: std::mem::replace(&mut self.transport, Transport::Plain),
                    session,
                    id: self.id,
                    peer: self.peer,
                    settings: self.settings,
                    accepted_at: self.accepted_at,
                    raw: std::mem::take(&mut self.raw),
                    plain: std::mem::take(&mut self.plain),
                    seat,
                    counted: self.counted.take(),
                }));
            }
            seat.stay(core.number);
        }
        self.seat = Some(seat);
        core.with(Some(self.id), |shard, now| shard.handle_verified(now, self.id, true));
        None
    }

    /// The socket and the session, for another core; `None` when they are better left where they are.
    fn let_go(&self, core: &Core) -> Option<(OwnedFd, MovingSession)> {
        if core.is_draining.get() || self.is_closing || self.peer_has_closed || self.outgoing.len() > 0 {
            return None;
        }
        // Without a descriptor to spare it stays.
        let socket = handover::socket(&self.stream).ok()?;
        Some((socket, core.shard.borrow_mut().depart(self.id)?))
    }

    /// Nothing is read from the peer now, and so its end is not read either: the kernel is asked for it. One that has closed
    /// and is not read from for long, because its requests wait for a disk that stands still, has given them up: it comes
    /// again, and again, and what it has left behind would take all the connections there may be.
    fn look_for_its_end(&mut self, core: &Core, now: Instant) -> Poll<CloseReason> {
        let since = *self.unread_since.get_or_insert(now);
        if !self.has_hung_up && now >= since + UNREAD_PATIENCE && has_closed(socket_of(&self.stream)) {
            self.hang_up(core);
        }
        if self.has_hung_up && now >= since + self.settings.write_timeout {
            return Poll::Ready(CloseReason::PeerClosed);
        }
        Poll::Pending
    }

    /// The peer has closed its side: its account may bind another session at once.
    fn hang_up(&mut self, core: &Core) {
        if self.is_open && !self.has_hung_up {
            self.has_hung_up = true;
            core.with(Some(self.id), |shard, now| shard.peer_closed(now, self.id));
        }
    }

    /// The last octets are sent: close our side, and let the peer close its own.
    fn linger(&mut self, core: &Core, cx: &mut Context<'_>, now: Instant) -> Poll<CloseReason> {
        let until = match self.linger_until {
            Some(until) => until,
            None => {
                // The session is over now; its place at the account must not wait for the peer.
                core.with(Some(self.id), |shard, now| shard.disconnected(now, self.id, CloseReason::Ours));
                if !matches!(Pin::new(&mut self.stream).poll_close(cx), Poll::Ready(Ok(())) | Poll::Pending) {
                    return Poll::Ready(CloseReason::Ours);
                }
                *self.linger_until.insert(now + LINGER)
            }
        };
        if now >= until || self.peer_has_closed {
            return Poll::Ready(CloseReason::Ours);
        }
        let mut buffers = core.buffers.borrow_mut();
        for _ in 0..READS_PER_TURN {
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffers.raw) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(CloseReason::Ours),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        // A peer that goes on sending shares the core with the others, and its time runs out.
        core.come_back(cx.waker());
        Poll::Pending
    }

    /// The handshake is over: the session begins.
    fn open(&mut self, core: &Core) {
        if self.is_open {
            return;
        }
        self.is_open = true;
        if matches!(self.transport, Transport::Tls(_)) {
            core.handshakes.set(core.handshakes.get() - 1);
        }
        let peer = self.peer.to_string();
        core.with(Some(self.id), |shard, now| shard.connected(now, self.id, &peer));
    }

    /// A peer that takes no octets is not read from either; its session need not wonder why.
    fn pause(&mut self, core: &Core, is_paused: bool) {
        if self.is_open && self.is_paused != is_paused {
            self.is_paused = is_paused;
            core.with(Some(self.id), |shard, now| shard.pause(now, self.id, is_paused));
        }
    }

    fn has_unanswered(&self, core: &Core) -> bool {
        self.is_open && core.shard.borrow().has_unanswered(self.id)
    }

    fn read(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffers = core.buffers.borrow_mut();
        let Buffers { raw, plain, .. } = &mut *buffers;
        let carried = self.raw.len();
        raw[..carried].copy_from_slice(&self.raw);
        let count = match Pin::new(&mut self.stream).poll_read(cx, &mut raw[carried..]) {
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        if count == 0 {
            self.peer_has_closed = true;
            return Poll::Ready(Ok(()));
        }
        let incoming = &mut raw[..carried + count];
        // What the session has not used yet comes first.
        plain.clear();
        plain.append(&mut self.plain);
        let progress = match self.transport.receive(incoming, plain, self.outgoing.octets_mut()) {
            Ok(progress) => progress,
            Err(error) => {
                log::debug!("connection {} from {}: {error}", self.id.0, self.peer);
                self.is_closing = true;
                return Poll::Ready(Ok(()));
            }
        };
        self.peer_has_closed |= progress.is_closed;
        keep(&mut self.raw, &incoming[progress.used..]);
        let mut plain_octets = std::mem::take(plain);
        drop(buffers);
        if !self.transport.is_handshaking() {
            self.open(core);
            let used =
                core.with(Some(self.id), |shard, now| shard.handle_octets(now, self.id, &plain_octets));
            keep(&mut self.plain, &plain_octets[used..]);
        }
        plain_octets.clear();
        core.buffers.borrow_mut().plain = plain_octets;
        Poll::Ready(Ok(()))
    }

    /// Gives the session what waited for room in its window.
    fn give_plain(&mut self, core: &Core) {
        if self.is_open && !self.plain.is_empty() && core.shard.borrow().wants_octets(self.id) {
            let plain = std::mem::take(&mut self.plain);
            let used = core.with(Some(self.id), |shard, now| shard.handle_octets(now, self.id, &plain));
            keep(&mut self.plain, &plain[used..]);
            if used > 0 {
                self.unread_since = None;
            }
        }
    }

    /// Sends what there is. `false`: the socket takes no more now, or nothing more will ever be sent.
    fn send(&mut self, core: &Core, cx: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        loop {
            self.encrypt(core)?;
            if self.outgoing.len() == 0 {
                return Ok(true);
            }
            let write = |octets: &[u8]| Pin::new(&mut self.stream).poll_write(cx, octets);
            if !self.outgoing.send(now, self.settings.write_timeout, write)? {
                return Ok(false);
            }
        }
    }

    /// Takes the session's output, unless enough of it waits already.
    fn encrypt(&mut self, core: &Core) -> io::Result<()> {
        if !self.is_open || self.is_closing || self.outgoing.len() > self.settings.output_octets_max {
            return Ok(());
        }
        let mut buffers = core.buffers.borrow_mut();
        let output = &mut buffers.output;
        output.clear();
        let reason = {
            let mut shard = core.shard.borrow_mut();
            shard.take_output(self.id, output);
            shard.close_reason(self.id)
        };
        if !output.is_empty() {
            self.transport.send(output, self.outgoing.octets_mut()).map_err(io::Error::other)?;
        }
        if reason.is_some() {
            self.transport.close(self.outgoing.octets_mut());
            self.is_closing = true;
        }
        Ok(())
    }
}

/// The socket of a stream.
#[allow(unsafe_code, reason = "glommio's stream lends its descriptor only as a number")]
fn socket_of(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the socket is open as long as the stream is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Whether the peer has closed its side, whatever it has sent before and we have not read.
fn has_closed(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_told = poll(&mut polled, Some(&at_once)).is_ok_and(|count| count > 0);
    is_told && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

/// Keeps a rest for the next read; nothing is kept for nothing.
fn keep(kept: &mut Vec<u8>, rest: &[u8]) {
    kept.clear();
    if rest.is_empty() && kept.capacity() > KEPT_OCTETS {
        *kept = Vec::new();
    }
    kept.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_end_of_a_peer_is_seen_behind_what_nobody_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (ours, _) = listener.accept().expect("a connection");
        peer.write_all(&[7; 1_000]).expect("room");
        assert!(!has_closed(ours.as_fd()));
        peer.shutdown(Shutdown::Write).expect("a connection");
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !has_closed(ours.as_fd()) {
            assert!(std::time::Instant::now() < until, "it is never seen");
            std::thread::yield_now();
        }
    }
}
