//! The life of a short message: its id, its content, its states, and when it is tried again.

mod content;
mod id;
mod lifecycle;
mod parcel;
mod retry;
mod spares;
mod table;

pub use content::{Content, ContentError, OwnedAddress};
pub use id::{IdSource, MessageId, MessageIdText, PartitionNumber};
pub use lifecycle::{Effect, Event, Refused, State, next};
pub use parcel::{
    Parcel, ParcelKey, ParcelView, Reply, notification_of, receipt_for, reply_for, wants_receipt,
};
pub use retry::Backoff;
pub use spares::Spares;
pub use table::{AboutMessage, MessageTable, Neighbourhood};

use crate::time::Timestamp;

/// A message that is not over, as its partition keeps it in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// What was submitted, in the form of its record.
    content: Vec<u8>,
    /// Of the content, where it is asked for at every step.
    expires_at: Timestamp,
    /// Where it stands.
    pub standing: Standing,
}

/// The part of a message that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its state; never final.
    pub state: State,
    /// The carrier of the attempt that is open, or was the last, by its place in the configuration.
    pub carrier: u8,
    /// Attempts refused in a row; what the pause before the next one grows by.
    pub deferrals: u16,
    /// The last error a carrier named; 0 = none.
    pub error: u16,
    /// The next time something is due: schedule or retry.
    pub deadline: Timestamp,
    /// How many intermediate notifications it has had.
    pub notifications: u8,
}

impl Standing {
    /// Where a message stands that was just accepted: scheduled when it says so, else queued.
    pub fn accepted(content: &Content<'_>) -> Self {
        let state = if content.is_scheduled() { State::Scheduled } else { State::Queued };
        let deadline = content.due_at();
        Self { state, carrier: 0, deferrals: 0, error: 0, deadline, notifications: 0 }
    }

    /// An attempt begins: from here on its carrier says what comes next.
    pub(crate) const fn begin_attempt(&mut self, carrier: u8) {
        self.carrier = carrier;
        self.deadline = Timestamp::MAX;
    }
}

impl Message {
    /// A message that stands there; `content` is a [`Content`] that was read, and `expires_at` of it.
    pub const fn new(content: Vec<u8>, expires_at: Timestamp, standing: Standing) -> Self {
        Self { content, expires_at, standing }
    }

    /// When its validity ends.
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The submitted fields.
    pub fn content(&self) -> Content<'_> {
        Content::read(&self.content).unwrap_or_else(|_| unreachable!("checked when the message was made"))
    }

    /// The submitted fields in the form of their record.
    pub fn content_octets(&self) -> &[u8] {
        &self.content
    }

    /// The same, when the message is over and nobody needs them any more.
    pub fn into_content_octets(self) -> Vec<u8> {
        self.content
    }

    /// Puts other content in the place of the old (replace_sm); it is due anew. `content` is the record that
    /// `view` was read from.
    pub fn replace_content(&mut self, view: &Content<'_>, content: Vec<u8>) {
        self.content = content;
        self.expires_at = view.expires_at;
        self.standing.deadline = view.due_at();
    }
}
