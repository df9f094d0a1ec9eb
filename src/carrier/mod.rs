//! The other side: whoever takes our messages to the subscribers, behind one interface.

mod simulator;

pub use simulator::{Behaviour, Simulator, SimulatorRule, SimulatorSettings};

use smallvec::SmallVec;

use crate::message::{Content, MessageId};
use crate::pdu::DataCoding;
use crate::pdu::receipt::MessageState;
use crate::time::Instant;

/// Takes messages and reports what became of them. Its time is the monotonic clock's: what it waits for is a pause, which
/// no clock that is set makes longer.
pub trait Carrier {
    /// Offers a message. Gives what there is to say at once, of this message or of another; everything else comes by
    /// [`poll`](Carrier::poll). `resumed` when this offer, or one before it, may have been taken already: the process was
    /// restarted in between. Only then, or when it was busy, is a carrier offered a message that it was offered before: it
    /// need not look for it among those that it has.
    fn offer(&mut self, now: Instant, message: &Content<'_>, resumed: bool) -> Option<Report>;

    /// The next thing there is to say by `now`.
    fn poll(&mut self, now: Instant) -> Option<Report>;

    /// What a report led to is durable: the carrier need not say it again.
    fn acknowledge(&mut self, token: u64);

    /// There is no room for the reply in a report: it is the carrier's again, which says it another time. Whoever has no
    /// room for replies keeps none, so that no number of them fills his memory.
    fn take_back(&mut self, now: Instant, report: Report);
}

/// A carrier's own name for a message. Most are short: one for each message is not worth an allocation.
pub type CarrierId = SmallVec<[u8; 24]>;

/// What a carrier says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Names this report in [`Carrier::acknowledge`]; `None` when it is forgotten by whoever says it, and nothing need be
    /// acknowledged.
    pub token: Option<u64>,
    /// What it says.
    pub news: News,
}

/// The news in a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum News {
    /// It took the message.
    Taken {
        /// Our id.
        id: MessageId,
        /// Its own id, octets as it gave them.
        carrier_id: CarrierId,
    },
    /// It does not take the message now; it may later.
    Busy {
        /// Our id.
        id: MessageId,
        /// Its reason.
        error: u16,
    },
    /// Where the message is now.
    State {
        /// Our id.
        id: MessageId,
        /// What it says; final or not.
        state: MessageState,
        /// Its error; 0 = none.
        error: u16,
    },
    /// A subscriber wrote to one of our accounts' numbers.
    Reply(ReplyNews),
}

/// A message from a subscriber.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyNews {
    /// The subscriber's number.
    pub source: crate::message::OwnedAddress,
    /// The number written to.
    pub destination: crate::message::OwnedAddress,
    /// The alphabet of `user_data`.
    pub data_coding: DataCoding,
    /// The text: one segment, at most 140 octets of it on air.
    pub user_data: Box<[u8]>,
}
