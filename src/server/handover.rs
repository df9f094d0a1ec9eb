//! A connection between two cores: what one lets go and the other goes on with.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::net::TcpStream;

use crate::server::balance::{Counted, Seat};
use crate::server::connection::ConnectionSettings;
use crate::server::tls::Transport;
use crate::shard::{ConnectionId, MovingSession};
use crate::time::Instant;

/// A connection on its way. Everything that was sent to the peer has left; what the peer has sent is in the socket, in
/// `raw` and in `plain`, in that order from the last to the first.
pub(super) struct Handover {
    pub(super) socket: OwnedFd,
    pub(super) transport: Transport,
    pub(super) session: MovingSession,
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    pub(super) settings: ConnectionSettings,
    pub(super) accepted_at: Instant,
    /// Part of a TLS record.
    pub(super) raw: Vec<u8>,
    /// PDUs behind the bind, or part of one.
    pub(super) plain: Vec<u8>,
    pub(super) seat: Seat,
    pub(super) counted: Option<Counted>,
}

/// The socket of a stream, for another executor. The stream reads only when it is asked to: nothing is on its way between
/// the socket and us.
///
/// # Errors
/// No descriptor is left.
#[allow(unsafe_code, reason = "glommio's stream lends its descriptor only as a number")]
pub(super) fn socket(stream: &TcpStream) -> io::Result<OwnedFd> {
    // SAFETY: the socket is open as long as the stream is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned()
}

/// A stream of this executor on a socket that came from another.
#[allow(unsafe_code, reason = "glommio's stream takes a descriptor only as a number")]
pub(super) fn stream(socket: OwnedFd) -> TcpStream {
    // SAFETY: the descriptor is ours, and a TCP socket's.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}
