//! When a message is to be delivered and until when it is tried: what its sender asked for, and what has to be on
//! record.

use std::ops::RangeInclusive;
use std::time::Duration;

use smppd::message::Content;
use smppd::shard::Validity;
use smppd::time::{Timestamp, smpp};

/// How long messages are tried in this world.
pub const VALIDITY: Validity =
    Validity { default: Duration::from_secs(20), longest: Duration::from_secs(30) };

/// A time as a sender names it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum When {
    /// The field is empty.
    #[default]
    Nothing,
    /// A date, to a tenth of a second.
    At(Timestamp),
    /// So many seconds, less than a hundred, after whenever the server reads it.
    After(u64),
}

impl When {
    /// A date so many milliseconds ahead of `wall`.
    pub fn ahead(millis: u64, wall: Timestamp) -> Self {
        Self::At(Timestamp::from_millis((wall.as_millis() + millis) / 100 * 100))
    }

    /// The field.
    pub fn field(self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::At(at) => smpp::absolute(at).to_vec(),
            Self::After(seconds) => format!("0000000000{seconds:02}000R").into_bytes(),
        }
    }

    fn from(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Nothing => None,
            Self::At(at) => Some(at),
            Self::After(seconds) => Some(now + Duration::from_secs(seconds)),
        }
    }
}

/// What a sender asked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Terms {
    /// schedule_delivery_time.
    pub schedule: When,
    /// validity_period.
    pub validity: When,
}

/// What is on record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// No carrier is offered the message before.
    pub deliver_at: Timestamp,
    /// It does not expire before.
    pub expires_at: Timestamp,
}

impl From<&Content<'_>> for Times {
    fn from(content: &Content<'_>) -> Self {
        Self { deliver_at: content.deliver_at, expires_at: content.expires_at }
    }
}

impl Terms {
    /// What they come to in a message that was accepted then.
    pub fn accepted(&self, accepted_at: Timestamp) -> Times {
        let deliver_at = self.schedule.from(accepted_at).filter(|at| *at > accepted_at);
        let begin = deliver_at.unwrap_or(accepted_at);
        let expires_at = match self.validity.from(accepted_at) {
            Some(at) => at.min(begin + VALIDITY.longest),
            None => begin + VALIDITY.default,
        };
        Times { deliver_at: deliver_at.unwrap_or(Timestamp::ZERO), expires_at }
    }

    /// What a replace_sm with dates comes to, at some time that `wall` has shown. A delivery time that may have passed by
    /// then may be left out of the record, and a validity that ends too far ahead of it is shorter on record.
    pub fn replaced(&self, before: Times, is: Times, wall: RangeInclusive<Timestamp>) -> Times {
        let (earliest, latest) = wall.into_inner();
        let deliver_at = self.schedule.from(latest).unwrap_or(before.deliver_at);
        let has_passed = deliver_at <= latest && is.deliver_at == Timestamp::ZERO;
        let expires_at = self.validity.from(latest).map_or(before.expires_at, |at| {
            let longest = |begun_at: Timestamp| at.min(deliver_at.max(begun_at) + VALIDITY.longest);
            is.expires_at.clamp(longest(earliest), longest(latest))
        });
        Times { deliver_at: if has_passed { Timestamp::ZERO } else { deliver_at }, expires_at }
    }
}
