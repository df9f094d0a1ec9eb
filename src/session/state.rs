//! Where a session stands, which of the three binds brought it there, and why it ends.

use crate::pdu::CommandId;

/// Which end of the session we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Esme,
    /// The message centre.
    Mc,
}

/// §2.2, with the two ways of ending apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Connected, not bound.
    Open,
    /// The MC connected to us (or we to it) and sent outbind.
    Outbound,
    /// Bound as transmitter.
    BoundTx,
    /// Bound as receiver.
    BoundRx,
    /// Bound as transceiver.
    BoundTrx,
    /// unbind was sent or received, and something is still to be answered.
    Unbinding,
    /// Over.
    Closed,
}

impl State {
    /// Whether a bind is in force.
    pub const fn is_bound(self) -> bool {
        match self {
            Self::BoundTx | Self::BoundRx | Self::BoundTrx => true,
            Self::Open | Self::Outbound | Self::Unbinding | Self::Closed => false,
        }
    }

    /// Whether the MC may send deliver_sm here.
    pub const fn receives(self) -> bool {
        match self {
            Self::BoundRx | Self::BoundTrx => true,
            Self::Open | Self::Outbound | Self::BoundTx | Self::Unbinding | Self::Closed => false,
        }
    }
}

/// The three ways to bind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindMode {
    /// Sends only.
    Transmitter,
    /// Receives only.
    Receiver,
    /// Both.
    Transceiver,
}

impl BindMode {
    /// The mode that a bind request asks for.
    pub const fn of(command: CommandId) -> Option<Self> {
        match command {
            CommandId::BIND_TRANSMITTER => Some(Self::Transmitter),
            CommandId::BIND_RECEIVER => Some(Self::Receiver),
            CommandId::BIND_TRANSCEIVER => Some(Self::Transceiver),
            _ => None,
        }
    }

    /// The state of a session bound so.
    pub const fn state(self) -> State {
        match self {
            Self::Transmitter => State::BoundTx,
            Self::Receiver => State::BoundRx,
            Self::Transceiver => State::BoundTrx,
        }
    }
}

/// Why a session ends, for the log and the counters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// unbind, either way round, and all was answered.
    Unbound,
    /// The peer closed the connection.
    PeerClosed,
    /// A command_length that cannot be; the stream cannot be trusted any more.
    FramingLost,
    /// No successful bind in time.
    SessionInitTimeout,
    /// Too many failed binds.
    BindAttempts,
    /// Nothing came from the peer for too long.
    Inactivity,
    /// The peer did not answer enquire_link.
    EnquireLinkUnanswered,
    /// The peer did not answer unbind.
    UnbindUnanswered,
    /// A PDU began and did not end.
    PduTimeout,
    /// We end it: shutdown, or the account was removed.
    Ours,
}
