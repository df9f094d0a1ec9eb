//! What shards say to each other. Owned data only: it crosses threads.

use crate::account::AccountIndex;
use crate::message::{MessageId, OwnedAddress, Parcel, ParcelKey};
use crate::pdu::receipt::MessageState;
use crate::pdu::{CommandId, CommandStatus};
use crate::shard::partition::Age;
use crate::time::Timestamp;

/// A core and what it owns; 0–255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardNumber(pub u8);

/// A connection; never used again for another one, by any shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// A session, wherever it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionAddress {
    /// The shard that has the connection.
    pub shard: ShardNumber,
    /// The connection.
    pub connection: ConnectionId,
}

/// Where an answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// The session that asked.
    pub session: SessionAddress,
    /// What it asked.
    pub command_id: CommandId,
    /// The number of its request.
    pub sequence_number: u32,
    /// The gathering at the asking shard that this answer is a part of; 0 = it is the whole answer.
    pub gathering: u64,
}

/// A message from one shard to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MeshMessage {
    /// A session has moved here, with the right password.
    Arrived {
        /// Whose.
        account: AccountIndex,
        /// Which.
        connection: ConnectionId,
    },
    /// To the home: may this session bind?
    Admit {
        /// As whom.
        account: AccountIndex,
        /// Which session.
        session: SessionAddress,
        /// deliver_sm it takes at once; 0 for a transmitter.
        window: u32,
    },
    /// From the home: it may, or what to tell it.
    Admitted {
        /// Which session.
        session: SessionAddress,
        /// The answer.
        outcome: Result<(), CommandStatus>,
    },
    /// To the home: the session takes deliver_sm from now on.
    Ready {
        /// Whose.
        account: AccountIndex,
        /// Which session.
        session: SessionAddress,
    },
    /// To the home: the session is over.
    Released {
        /// Whose.
        account: AccountIndex,
        /// Which session.
        session: SessionAddress,
        /// Its peer waits for the answer to its unbind until the home has heard of it.
        unbinds: bool,
    },
    /// From the home: the session is counted no more.
    Unbound {
        /// Which session.
        session: SessionAddress,
    },
    /// From the home to every owner: how many parcels of this account it takes at once.
    Grant {
        /// Whose.
        account: AccountIndex,
        /// How many, from this owner.
        room: u32,
    },
    /// From an owner to the home: to be delivered.
    Offer {
        /// To whom.
        account: AccountIndex,
        /// The owner.
        owner: ShardNumber,
        /// What.
        parcel: Parcel,
    },
    /// From the home to the shard of the session it chose.
    Deliver {
        /// To whom.
        account: AccountIndex,
        /// The session.
        session: SessionAddress,
        /// The owner.
        owner: ShardNumber,
        /// What.
        parcel: Parcel,
    },
    /// From the session's shard to the home: what came of it.
    Delivered {
        /// Whose session.
        account: AccountIndex,
        /// Which.
        session: SessionAddress,
        /// Whose parcel.
        owner: ShardNumber,
        /// Which.
        key: ParcelKey,
        /// What came of it.
        outcome: Delivery,
    },
    /// From the home to the owner: what came of it.
    Settle {
        /// Whose.
        account: AccountIndex,
        /// Which.
        key: ParcelKey,
        /// What came of it.
        outcome: Delivery,
    },
    /// To the owner of a message, or to all: do this.
    Ask {
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// Who asks.
        account: AccountIndex,
        /// What.
        operation: Operation,
    },
    /// Back to the session.
    Answer {
        /// Where to.
        reply_to: ReplyTo,
        /// What.
        answer: Answer,
    },
    /// To the owner of a message that was put in the place of another: its sender has the response, so that it may go on.
    Told {
        /// The message.
        id: MessageId,
    },
}

impl MeshMessage {
    /// The account it is about, in the numbers of whoever sent it.
    pub const fn account(&self) -> Option<AccountIndex> {
        match self {
            Self::Arrived { account, .. }
            | Self::Admit { account, .. }
            | Self::Ready { account, .. }
            | Self::Released { account, .. }
            | Self::Grant { account, .. }
            | Self::Offer { account, .. }
            | Self::Deliver { account, .. }
            | Self::Delivered { account, .. }
            | Self::Settle { account, .. }
            | Self::Ask { account, .. } => Some(*account),
            Self::Admitted { .. } | Self::Unbound { .. } | Self::Answer { .. } | Self::Told { .. } => None,
        }
    }
}

/// What came of one delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// deliver_sm_resp with ESME_ROK.
    Confirmed,
    /// deliver_sm_resp with another status.
    Refused(CommandStatus),
    /// No response in time.
    Unanswered,
    /// It was never sent: no session takes it now.
    Returned,
}

/// An operation on messages that are already accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// query_sm.
    Query {
        /// The message.
        id: MessageId,
        /// Must be its source_addr.
        source: OwnedAddress,
    },
    /// cancel_sm of one message.
    Cancel {
        /// The message.
        id: MessageId,
        /// Must be its source_addr.
        source: OwnedAddress,
        /// Must be its destination_addr, unless empty.
        destination: OwnedAddress,
    },
    /// cancel_sm of every message that waits between two addresses.
    CancelMatching(Matching),
    /// replace_sm.
    Replace {
        /// The message.
        id: MessageId,
        /// Must be its source_addr.
        source: OwnedAddress,
        /// What is to change.
        replacement: Replacement,
    },
    /// submit_sm with replace_if_present_flag: find the newest that waits between two addresses.
    FindMatching(Matching),
    /// The same, once it is found: put another message in its place.
    Supersede {
        /// The message.
        id: MessageId,
        /// The record of the other, under the same id.
        content: Box<[u8]>,
    },
}

/// Messages that wait, by what they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matching {
    /// Must be the same, where it matters.
    pub service_type: Option<Box<[u8]>>,
    /// Must be the same.
    pub source: OwnedAddress,
    /// Must be the same.
    pub destination: OwnedAddress,
}

/// What replace_sm puts in the place of the old; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// When to deliver; `None` = as before.
    pub deliver_at: Option<Timestamp>,
    /// Until when to try; `None` = as before.
    pub expires_at: Option<Timestamp>,
    /// Which receipts.
    pub registered_delivery: u8,
    /// The text.
    pub user_data: Box<[u8]>,
    /// Whether it came as message_payload, which may be longer than one segment.
    pub is_payload: bool,
}

/// What an operation came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// submit_sm or data_sm: accepted.
    Submitted(MessageId),
    /// submit_multi: accepted, save for these destinations.
    SubmittedMulti {
        /// The id of the whole.
        id: MessageId,
        /// How many failed.
        no_unsuccess: u8,
        /// unsuccess_sme fields as on the wire.
        unsuccess_sme: Box<[u8]>,
    },
    /// query_sm: found.
    State {
        /// The message.
        id: MessageId,
        /// Its state.
        state: MessageState,
        /// Its error.
        error: u16,
        /// When it ended.
        final_date: Option<Timestamp>,
    },
    /// Done, or why not.
    Status(CommandStatus),
    /// One partition's part of a cancel_sm of many: how many were cancelled.
    Cancelled(u32),
    /// One partition's part of replace_if_present: the newest message that could be replaced.
    Newest(Option<Age>),
}
