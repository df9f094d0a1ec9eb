//! What a shard wants done, and how it hears that a batch was written.

use crate::account::AccountIndex;
use crate::journal::{BatchBuffer, Position};
use crate::message::{MessageId, PartitionNumber};
use crate::shard::event::Event;
use crate::shard::mesh::{ConnectionId, MeshMessage, ReplyTo};
use crate::store::FinalMessage;

/// A password to be verified off the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyRequest {
    /// Whose bind it is.
    pub connection: ConnectionId,
    /// The name it gave.
    pub system_id: Box<[u8]>,
    /// The password it gave.
    pub password: Box<[u8]>,
    /// What the password must match; `None` when there is no such account.
    pub password_hash: Option<Box<str>>,
}

/// A question to the state at rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// The partition it is for.
    pub partition: PartitionNumber,
    /// Who asks: comes back with the answer.
    pub reply_to: ReplyTo,
    /// As whom.
    pub account: AccountIndex,
    /// The source_addr that must match.
    pub source_addr: Box<[u8]>,
    /// The first id.
    pub id: MessageId,
    /// How many ids in a row.
    pub count: u8,
    /// What memory already knew of them.
    pub known: Vec<FinalMessage<'static>>,
}

/// A batch that is durable.
pub struct Commit {
    /// Its number.
    pub position: Position,
    /// Octets of its records.
    pub payload_octets: usize,
    /// Octets that were written.
    pub octets: usize,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Its buffer, if that can be used again.
    pub spare: Option<Box<dyn BatchBuffer>>,
}

/// What a shard wants done, to be taken after every input.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Connections with octets to send, or to be closed.
    pub dirty: Vec<ConnectionId>,
    /// For each other shard, what to tell it.
    pub mesh: Vec<Vec<MeshMessage>>,
    /// Passwords to verify.
    pub verify: Vec<VerifyRequest>,
    /// Questions to the state at rest.
    pub lookups: Vec<Lookup>,
    /// Lines for the log.
    pub events: Vec<Event>,
}
