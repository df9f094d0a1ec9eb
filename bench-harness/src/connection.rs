//! The connections of one seat, one after another: connect, bind, play, unbind.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future::poll_fn;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use glommio::net::TcpStream;
use glommio::timer::sleep;

use crate::esme::{Esme, Seat};
use crate::executor::Core;
use crate::misbehaviour;
use crate::transport::{Tls, Transport};

/// Read at once, by all connections of a core into the same buffer.
const READ_OCTETS: usize = 256 << 10;
/// Reads and writes in one turn of a connection; then the others have theirs.
const TURNS: usize = 4;
/// Connections that an executor makes at the same time in the beginning: the server's backlog is finite.
const GATHERING_MAX: usize = 64;
/// How long a server may take to accept a connection, for a handshake and a bind in the beginning, and for the end of a
/// session.
const PATIENCE: u64 = 10_000_000_000;
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// Whom to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// `None` for plain TCP.
    pub(crate) tls: Option<Tls>,
}

/// Buffers that the connections of a core share.
pub(crate) struct Buffers {
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { raw: vec![0; READ_OCTETS], plain: Vec::with_capacity(READ_OCTETS) }
    }
}

/// Why a session ended.
enum Ending {
    /// As it should, by unbind.
    Unbound,
    /// By us without a word, as the scenario wants it.
    BrokenOff,
    /// By us, for the server has not answered our unbind, or has closed instead.
    UnbindUnanswered,
    /// As it should not.
    Lost(String),
}

/// Plays a seat until everybody leaves.
pub(crate) async fn play(core: &Core, place: usize, mut seat: Seat) {
    if let Some(misbehaviour) = seat.role.behaviour.misbehaviour {
        seat.role.ledger.entries().void();
        return misbehaviour::play(core, place, &seat, misbehaviour).await;
    }
    let mut is_first = true;
    while !core.leaves.get() {
        let ending = session(core, place, &mut seat, is_first).await;
        let group = seat.role.group;
        match ending {
            Ending::Unbound | Ending::BrokenOff => {}
            Ending::UnbindUnanswered => core.measures.borrow_mut().tallies[group].unbinds_unanswered += 1,
            Ending::Lost(reason) => {
                if core.course.get().is_none() {
                    return core.stage.fail(reason);
                }
                core.measures.borrow_mut().tallies[group].connections_lost += 1;
                sleep(PAUSE).await;
            }
        }
        is_first = false;
        if seat.role.behaviour.life.seconds.is_none()
            && core.course.get().is_some_and(|it| core.now() >= it.end)
        {
            break;
        }
    }
    if let Some(course) = core.course.get() {
        core.measures.borrow_mut().tallies[seat.role.group].unsent += seat.work.take_unsent(&course);
    }
}

/// One session, from connect to close.
async fn session(core: &Core, place: usize, seat: &mut Seat, is_first: bool) -> Ending {
    while is_first && core.gathering.get() >= GATHERING_MAX {
        sleep(Duration::from_millis(2)).await;
    }
    core.gathering.set(core.gathering.get() + usize::from(is_first));
    let began = core.now();
    let connected = connect(&core.target).await;
    let mut connection = match connected {
        Ok((stream, transport)) => Connection::new(stream, transport, began, place),
        Err(error) => {
            core.gathering.set(core.gathering.get() - usize::from(is_first));
            return Ending::Lost(format!("{}: {error}", core.target.address));
        }
    };
    connection.is_gathering = is_first;
    let ending = poll_fn(|cx| connection.poll(core, seat, cx)).await;
    connection.counted(core, 0, false);
    if connection.is_gathering {
        core.gathering.set(core.gathering.get() - 1);
    }
    if let Some(esme) = &connection.esme {
        let unanswered = esme.in_flight() as u64;
        if unanswered > 0 || !matches!(ending, Ending::Unbound) {
            seat.role.ledger.entries().cut_off(unanswered);
        }
        let tally = &mut core.measures.borrow_mut().tallies[seat.role.group];
        tally.unanswered += unanswered;
        // Without an unbind of ours they may have been on their way.
        let is_unbound = matches!(ending, Ending::Unbound | Ending::UnbindUnanswered);
        tally.owed += if is_unbound { unanswered } else { 0 };
    }
    ending
}

/// Connects to the target.
pub(crate) async fn connect(target: &Target) -> io::Result<(TcpStream, Transport)> {
    let connecting = async { TcpStream::connect(target.address).await.map_err(io::Error::from) };
    // The kernel would try for two minutes.
    let giving_up = async {
        sleep(Duration::from_nanos(PATIENCE)).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "not connected in 10 s"))
    };
    let stream = connecting.or(giving_up).await?;
    stream.set_nodelay(true).map_err(io::Error::from)?;
    let transport = match &target.tls {
        None => Transport::Plain,
        Some(tls) => tls.connect().map_err(io::Error::other)?,
    };
    Ok((stream, transport))
}

/// What is between a socket and an ESME.
struct Connection {
    stream: TcpStream,
    transport: Transport,
    place: usize,
    began: u64,
    /// `None` until the handshake is over.
    esme: Option<Esme>,
    is_gathering: bool,
    /// Part of a PDU.
    carried: Vec<u8>,
    /// To be sent.
    pending: Vec<u8>,
    sent: usize,
    /// What the core counts of it.
    in_flight: usize,
    is_bound: bool,
    /// Nothing is read before: a slow reader.
    reads_at: u64,
    /// When a session that lives for a while is to end.
    ends_at: Option<u64>,
    leaves_since: Option<u64>,
}

impl Connection {
    fn new(stream: TcpStream, transport: Transport, began: u64, place: usize) -> Self {
        Self {
            stream,
            transport,
            place,
            began,
            esme: None,
            is_gathering: false,
            carried: Vec::new(),
            pending: Vec::new(),
            sent: 0,
            in_flight: 0,
            is_bound: false,
            reads_at: 0,
            ends_at: None,
            leaves_since: None,
        }
    }

    fn poll(&mut self, core: &Core, seat: &mut Seat, cx: &mut Context<'_>) -> Poll<Ending> {
        core.attend(self.place, cx.waker());
        let outcome = match self.turn(core, seat, cx) {
            Ok(outcome) => outcome,
            Err(_) if self.leaves_since.is_some() => Poll::Ready(Ending::UnbindUnanswered),
            Err(error) => Poll::Ready(Ending::Lost(error.to_string())),
        };
        if let Some(esme) = &self.esme {
            let (in_flight, is_bound) = (esme.in_flight(), esme.is_bound());
            if is_bound && self.is_gathering {
                self.is_gathering = false;
                core.gathering.set(core.gathering.get() - 1);
                core.stage.bound.fetch_add(1, Ordering::Relaxed);
            }
            self.counted(core, in_flight, is_bound);
        }
        outcome
    }

    /// What the core counts of this connection.
    fn counted(&mut self, core: &Core, in_flight: usize, is_bound: bool) {
        core.in_flight.set(core.in_flight.get() + in_flight - self.in_flight);
        core.bound.set(core.bound.get() + usize::from(is_bound) - usize::from(self.is_bound));
        (self.in_flight, self.is_bound) = (in_flight, is_bound);
    }

    fn turn(&mut self, core: &Core, seat: &mut Seat, cx: &mut Context<'_>) -> io::Result<Poll<Ending>> {
        for _ in 0..TURNS {
            let now = core.now();
            let course = core.course.get();
            if self.esme.is_none() && !self.transport.is_handshaking() {
                if let Some(version) = self.transport.version() {
                    core.stage.tls.get_or_init(|| version);
                }
                let esme = Esme::bind(&seat.role, self.began, now).map_err(io::Error::other)?;
                self.esme = Some(esme);
            }
            if let Some(esme) = &mut self.esme {
                // What waits for the socket is enough: more is sent when that has gone.
                if self.pending.is_empty() {
                    let mut measures = core.measures.borrow_mut();
                    esme.handle_time(now, course.as_ref(), &seat.role, &mut seat.work, &mut measures)
                        .map_err(io::Error::other)?;
                } else {
                    esme.hold_up(now);
                }
                if let Some(ending) = self.leave(core, seat, now) {
                    return Ok(Poll::Ready(ending));
                }
            }
            let is_sent = self.send(cx)?;
            if let Some(esme) = self.esme.as_ref().filter(|esme| esme.is_over()) {
                return Ok(match self.leaves_since {
                    _ if !is_sent => Poll::Pending,
                    Some(_) => Poll::Ready(Ending::Unbound),
                    None => Poll::Ready(Ending::Lost(esme.reason())),
                });
            }
            if !self.is_gathering_in_time(now) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no bind_resp in 10 s"));
            }
            let is_read = self.read(core, seat, cx, now)?;
            if is_read.is_pending() {
                self.set_alarm(core, seat);
                return Ok(Poll::Pending);
            }
        }
        // More may be there: come back after the others.
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    const fn is_gathering_in_time(&self, now: u64) -> bool {
        !self.is_gathering || now < self.began + PATIENCE
    }

    /// Begins to unbind when the time for that has come; how it ends when the connection is to be dropped now.
    fn leave(&mut self, core: &Core, seat: &Seat, now: u64) -> Option<Ending> {
        let esme = self.esme.as_mut()?;
        let life = seat.role.behaviour.life;
        if let Some(seconds) = life.seconds
            && self.ends_at.is_none()
            && esme.is_bound()
        {
            self.ends_at = storm(core, seconds, now);
        }
        let is_past = self.ends_at.is_some_and(|at| now >= at);
        if is_past && life.abrupt {
            return Some(Ending::BrokenOff);
        }
        if (is_past || core.leaves.get()) && self.leaves_since.is_none() && esme.is_bound() {
            self.leaves_since = Some(now);
            esme.unbind(now);
        }
        match self.leaves_since {
            // A server that does not answer unbind is left all the same.
            Some(since) => (now >= since + PATIENCE).then_some(Ending::UnbindUnanswered),
            None => core.leaves.get().then_some(Ending::BrokenOff),
        }
    }

    fn set_alarm(&self, core: &Core, seat: &Seat) {
        let course = core.course.get();
        let next =
            self.esme.as_ref().and_then(|esme| esme.next_time(course.as_ref(), &seat.role, &seat.work));
        let reads = (self.reads_at > 0).then_some(self.reads_at);
        let leaves = self.leaves_since.map(|since| since + PATIENCE);
        let gathers = self.is_gathering.then_some(self.began + PATIENCE);
        let begins = course.map(|course| course.begin).filter(|begin| *begin > core.now());
        // While octets wait for the socket nothing else is sent; the socket wakes us.
        let next = next.filter(|_| self.pending.is_empty());
        let ends = self.ends_at.filter(|_| self.leaves_since.is_none());
        let times = [next, reads, leaves, gathers, begins, ends];
        if let Some(at) = times.into_iter().flatten().min() {
            core.alarm(self.place, at);
        }
    }

    /// Sends what there is; `false` when the socket takes no more now.
    fn send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let plain = self.esme.as_mut().map(Esme::output);
        match plain {
            Some(output) if !output.is_empty() => {
                self.transport.send(output, &mut self.pending)?;
                output.clear();
            }
            // The handshake has octets of its own.
            _ => self.transport.send(&[], &mut self.pending)?,
        }
        while self.sent < self.pending.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.pending[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        self.pending.clear();
        self.sent = 0;
        Ok(true)
    }

    fn read(&mut self, core: &Core, seat: &mut Seat, cx: &mut Context<'_>, now: u64) -> io::Result<Poll<()>> {
        if now < self.reads_at || self.esme.as_ref().is_some_and(|esme| !esme.wants_octets()) {
            return Ok(Poll::Pending);
        }
        let mut buffers = core.buffers.borrow_mut();
        let Buffers { raw, plain } = &mut *buffers;
        let pace = seat.role.behaviour.reading.octets_per_second.filter(|_| self.is_bound);
        // A tenth of a second's worth at once.
        let room = pace.map_or(raw.len(), |pace| ((pace / 10.0) as usize).clamp(1, raw.len()));
        let count = match Pin::new(&mut self.stream).poll_read(cx, &mut raw[..room]) {
            Poll::Ready(Ok(0)) => return Err(io::Error::other("the server closed the connection")),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(Poll::Pending),
        };
        if let Some(pace) = pace {
            self.reads_at = now + (count as f64 / pace * 1e9) as u64;
        }
        plain.clear();
        plain.append(&mut self.carried);
        self.transport.receive(&raw[..count], plain)?;
        if let Some(esme) = &mut self.esme {
            let mut measures = core.measures.borrow_mut();
            let now = core.now();
            let used = esme.handle_octets(now, plain, &seat.role, &mut seat.work, &mut measures);
            self.carried.extend_from_slice(&plain[used..]);
        } else {
            self.carried.extend_from_slice(plain);
        }
        Ok(Poll::Ready(()))
    }
}

/// When a session that begins `now` ends, if it lives for so many seconds: all of a group end at the same moments.
fn storm(core: &Core, seconds: f64, now: u64) -> Option<u64> {
    let course = core.course.get()?;
    let length = (seconds * 1e9) as u64;
    if length == 0 {
        return Some(now.max(course.begin));
    }
    Some(course.begin + (now.saturating_sub(course.begin) / length + 1) * length)
}
