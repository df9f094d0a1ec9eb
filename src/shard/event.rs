//! What an operator sees: one value, one line, one counter.

use std::fmt;

use crate::message::{ParcelKey, PartitionNumber};
use crate::pdu::{CommandStatus, InterfaceVersion};
use crate::session::{BindMode, CloseReason};
use crate::shard::mesh::ConnectionId;

/// Something worth a line in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A session was bound.
    Bound {
        /// As whom.
        system_id: Box<str>,
        /// How.
        mode: BindMode,
        /// With which version.
        version: InterfaceVersion,
        /// From where.
        peer: Box<str>,
    },
    /// A bind was refused.
    BindRefused {
        /// The name it gave.
        system_id: Box<str>,
        /// What it was told.
        status: CommandStatus,
        /// Why, which it was not told.
        reason: &'static str,
        /// From where.
        peer: Box<str>,
    },
    /// A session ended.
    Closed {
        /// Whose it was, if it was bound.
        system_id: Option<Box<str>>,
        /// Why.
        reason: CloseReason,
        /// The connection.
        connection: ConnectionId,
        /// From where.
        peer: Box<str>,
    },
    /// A receipt or reply was given up.
    GivenUp {
        /// Which.
        key: ParcelKey,
        /// Why.
        reason: &'static str,
    },
    /// A reply to a number that no account owns was dropped.
    ReplyUnroutable {
        /// The number.
        destination_addr: Box<str>,
    },
    /// A partition stopped.
    PartitionFailed {
        /// Which.
        partition: PartitionNumber,
        /// Why.
        reason: Box<str>,
    },
}

impl Event {
    /// Whether it needs an operator.
    pub const fn is_alarming(&self) -> bool {
        match self {
            Self::PartitionFailed { .. } => true,
            Self::Bound { .. }
            | Self::BindRefused { .. }
            | Self::Closed { .. }
            | Self::GivenUp { .. }
            | Self::ReplyUnroutable { .. } => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound { system_id, mode, version, peer } => {
                write!(
                    f,
                    "bound system_id={system_id} mode={mode:?} interface_version={:#04x} peer={peer}",
                    version.0
                )
            }
            Self::BindRefused { system_id, status, reason, peer } => {
                write!(
                    f,
                    "bind refused system_id={system_id:?} status={status} reason=\"{reason}\" peer={peer}"
                )
            }
            Self::Closed { system_id, reason, connection, peer } => {
                let system_id = system_id.as_deref().unwrap_or("-");
                write!(
                    f,
                    "closed system_id={system_id} reason={reason:?} connection={} peer={peer}",
                    connection.0
                )
            }
            Self::GivenUp { key, reason } => {
                let kind = if key.part == ParcelKey::REPLY { "reply" } else { "receipt" };
                write!(f, "{kind} given up message_id={} reason=\"{reason}\"", key.id)
            }
            Self::ReplyUnroutable { destination_addr } => {
                write!(f, "reply dropped: no account owns destination_addr={destination_addr}")
            }
            Self::PartitionFailed { partition, reason } => {
                write!(f, "partition {partition} stopped accepting: {reason}")
            }
        }
    }
}
