//! Events of a partition in the form in which they are journaled, replayed and kept at rest.

use bytes::BufMut;

use crate::message::{Content, MessageId, Parcel, Standing, State};
use crate::pdu::receipt::MessageState;
use crate::time::Timestamp;

/// One thing that happened in a partition. Applying the records of a journal in order gives the partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// A message was accepted.
    Accepted {
        /// The carrier that its first attempt began with at once; `None` when it waits for its time.
        attempt: Option<u8>,
        /// Its [`Content`](crate::message::Content).
        content: &'a [u8],
    },
    /// An attempt to hand a message to a carrier began.
    Attempt {
        /// The message.
        id: MessageId,
        /// Which carrier, by its place in the configuration.
        carrier: u8,
    },
    /// The carrier took the message under a name of its own.
    Forwarded {
        /// The message.
        id: MessageId,
        /// The carrier's message_id, octets as it sent them.
        carrier_id: &'a [u8],
    },
    /// The carrier did not take the message; it is offered again later.
    Deferred {
        /// The message.
        id: MessageId,
        /// When.
        until: Timestamp,
        /// The carrier's reason; 0 = none.
        error: u16,
    },
    /// The carrier said where the message is, short of its end.
    Interim {
        /// The message.
        id: MessageId,
        /// What it said.
        state: MessageState,
        /// When.
        at: Timestamp,
        /// What the sender is told of it, if anything: how the account was set then.
        told: Option<MessageState>,
    },
    /// The message came to its end.
    Final {
        /// The message.
        id: MessageId,
        /// Which one.
        state: MessageState,
        /// The carrier's error; 0 = none.
        error: u16,
        /// When.
        at: Timestamp,
    },
    /// The sender changed the message.
    Replaced {
        /// Credits it took: segments that the message has more than before.
        more: u16,
        /// Its new [`Content`](crate::message::Content).
        content: &'a [u8],
    },
    /// A reply from a subscriber was accepted; the octets are a [`Parcel`](crate::message::Parcel).
    Mo(&'a [u8]),
    /// A receipt or reply needs no more deliveries.
    Settled {
        /// The message it is about, or its own id for a reply.
        id: MessageId,
        /// Which one of that message.
        part: u8,
    },
    /// A message that is not over, whole, with where it stands: what a checkpoint keeps of it.
    MessageAtRest {
        /// Where it stands.
        standing: Standing,
        /// Its content.
        content: &'a [u8],
    },
    /// A receipt or reply that is not settled, whole: what a checkpoint keeps of it.
    DeliveryAtRest(&'a [u8]),
}

/// Octets that are not a record of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordError;

const ACCEPTED: u8 = 1;
const ATTEMPT: u8 = 2;
const FORWARDED: u8 = 3;
const DEFERRED: u8 = 4;
const INTERIM: u8 = 5;
const FINAL: u8 = 6;
const REPLACED: u8 = 7;
const MO: u8 = 8;
const SETTLED: u8 = 9;
const MESSAGE_AT_REST: u8 = 10;
const DELIVERY_AT_REST: u8 = 11;

/// Octets before the body of each record: its length (with these) and its kind.
const PREFIX_OCTETS: usize = 5;
/// What a [`Standing`] takes.
const STANDING_OCTETS: usize = 15;

impl<'a> Record<'a> {
    /// What the record takes: length (4), kind (1), body.
    pub fn octets(&self) -> usize {
        PREFIX_OCTETS
            + match *self {
                Self::Accepted { content, .. } => return Self::accepted_octets(content.len()),
                Self::Replaced { content, .. } => 2 + content.len(),
                Self::Attempt { .. } | Self::Settled { .. } => 9,
                Self::Forwarded { carrier_id, .. } => 8 + carrier_id.len(),
                Self::Deferred { .. } => 18,
                Self::Interim { .. } => 18,
                Self::Final { .. } => 19,
                Self::Mo(octets) | Self::DeliveryAtRest(octets) => octets.len(),
                Self::MessageAtRest { content, .. } => STANDING_OCTETS + content.len(),
            }
    }

    /// Octets of the [`Accepted`](Self::Accepted) of a content of so many.
    pub const fn accepted_octets(content: usize) -> usize {
        PREFIX_OCTETS + 2 + content
    }

    /// Appends the record: length (4, little-endian, all of it), kind (1), body.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u32_le(self.octets() as u32);
        match *self {
            Self::Accepted { attempt, content } => {
                out.put_slice(&[ACCEPTED, u8::from(attempt.is_some()), attempt.unwrap_or(0)]);
                out.put_slice(content);
            }
            Self::Attempt { id, carrier } => {
                out.put_u8(ATTEMPT);
                out.put_u64_le(id.as_u64());
                out.put_u8(carrier);
            }
            Self::Forwarded { id, carrier_id } => {
                out.put_u8(FORWARDED);
                out.put_u64_le(id.as_u64());
                out.put_slice(carrier_id);
            }
            Self::Deferred { id, until, error } => {
                out.put_u8(DEFERRED);
                out.put_u64_le(id.as_u64());
                out.put_u64_le(until.as_millis());
                out.put_u16_le(error);
            }
            Self::Interim { id, state, at, told } => {
                out.put_u8(INTERIM);
                out.put_u64_le(id.as_u64());
                out.put_u8(state.0);
                out.put_u64_le(at.as_millis());
                // SCHEDULED, 0, is nothing to tell.
                out.put_u8(told.map_or(0, |told| told.0));
            }
            Self::Final { id, state, error, at } => {
                out.put_u8(FINAL);
                out.put_u64_le(id.as_u64());
                out.put_u8(state.0);
                out.put_u16_le(error);
                out.put_u64_le(at.as_millis());
            }
            Self::Replaced { more, content } => {
                out.put_u8(REPLACED);
                out.put_u16_le(more);
                out.put_slice(content);
            }
            Self::Mo(parcel) => {
                out.put_u8(MO);
                out.put_slice(parcel);
            }
            Self::Settled { id, part } => {
                out.put_u8(SETTLED);
                out.put_u64_le(id.as_u64());
                out.put_u8(part);
            }
            Self::MessageAtRest { standing, content } => {
                out.put_u8(MESSAGE_AT_REST);
                standing.put(out);
                out.put_slice(content);
            }
            Self::DeliveryAtRest(parcel) => {
                out.put_u8(DELIVERY_AT_REST);
                out.put_slice(parcel);
            }
        }
    }

    /// The account that the message, receipt or reply is of, where the record says it.
    pub fn system_id(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Accepted { content, .. } | Self::MessageAtRest { content, .. } => {
                Content::read(content).ok().map(|content| content.system_id)
            }
            Self::Mo(octets) | Self::DeliveryAtRest(octets) => Parcel::system_id_of(octets),
            Self::Attempt { .. }
            | Self::Forwarded { .. }
            | Self::Deferred { .. }
            | Self::Interim { .. }
            | Self::Final { .. }
            | Self::Replaced { .. }
            | Self::Settled { .. } => None,
        }
    }

    /// Takes the first record off `octets`; `None` when there are none left.
    ///
    /// # Errors
    /// The octets are not a whole record of a known kind.
    pub fn take(octets: &mut &'a [u8]) -> Result<Option<Self>, RecordError> {
        if octets.is_empty() {
            return Ok(None);
        }
        let length = octets.first_chunk().map(|prefix| u32::from_le_bytes(*prefix) as usize);
        let length =
            length.filter(|length| (PREFIX_OCTETS..=octets.len()).contains(length)).ok_or(RecordError)?;
        let (record, rest) = octets.split_at(length);
        *octets = rest;
        Self::read(record[4], &record[PREFIX_OCTETS..]).map(Some)
    }

    fn read(kind: u8, mut body: &'a [u8]) -> Result<Self, RecordError> {
        let rest = &mut body;
        let record = match kind {
            ACCEPTED => {
                let [is_attempt, carrier] = take(rest)?;
                let attempt = match is_attempt {
                    0 => None,
                    1 => Some(carrier),
                    _ => return Err(RecordError),
                };
                return Ok(Self::Accepted { attempt, content: rest });
            }
            REPLACED => {
                let more = u16::from_le_bytes(take(rest)?);
                return Ok(Self::Replaced { more, content: rest });
            }
            MO => return Ok(Self::Mo(rest)),
            DELIVERY_AT_REST => return Ok(Self::DeliveryAtRest(rest)),
            FORWARDED => return Ok(Self::Forwarded { id: read_id(rest)?, carrier_id: rest }),
            MESSAGE_AT_REST => {
                return Ok(Self::MessageAtRest { standing: Standing::read(rest)?, content: rest });
            }
            ATTEMPT => Self::Attempt { id: read_id(rest)?, carrier: read_u8(rest)? },
            DEFERRED => {
                Self::Deferred { id: read_id(rest)?, until: read_time(rest)?, error: read_u16(rest)? }
            }
            INTERIM => Self::Interim {
                id: read_id(rest)?,
                state: MessageState(read_u8(rest)?),
                at: read_time(rest)?,
                told: Some(MessageState(read_u8(rest)?)).filter(|told| *told != MessageState::SCHEDULED),
            },
            FINAL => Self::Final {
                id: read_id(rest)?,
                state: MessageState(read_u8(rest)?),
                error: read_u16(rest)?,
                at: read_time(rest)?,
            },
            SETTLED => Self::Settled { id: read_id(rest)?, part: read_u8(rest)? },
            _ => return Err(RecordError),
        };
        if rest.is_empty() { Ok(record) } else { Err(RecordError) }
    }
}

impl Standing {
    fn put(&self, out: &mut impl BufMut) {
        out.put_u8(match self.state {
            State::Scheduled => 0,
            State::Queued => 1,
            State::Attempting => 2,
            State::Forwarded => 3,
            State::Final(_) => unreachable!("a message that is over is not kept whole"),
        });
        out.put_u8(self.carrier);
        out.put_u16_le(self.deferrals);
        out.put_u16_le(self.error);
        out.put_u64_le(self.deadline.as_millis());
        out.put_u8(self.notifications);
    }

    fn read(rest: &mut &[u8]) -> Result<Self, RecordError> {
        Ok(Self {
            state: match read_u8(rest)? {
                0 => State::Scheduled,
                1 => State::Queued,
                2 => State::Attempting,
                3 => State::Forwarded,
                _ => return Err(RecordError),
            },
            carrier: read_u8(rest)?,
            deferrals: read_u16(rest)?,
            error: read_u16(rest)?,
            deadline: read_time(rest)?,
            notifications: read_u8(rest)?,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk().ok_or(RecordError)?;
    *rest = tail;
    Ok(*head)
}

fn read_u8(rest: &mut &[u8]) -> Result<u8, RecordError> {
    take(rest).map(u8::from_le_bytes)
}

fn read_u16(rest: &mut &[u8]) -> Result<u16, RecordError> {
    take(rest).map(u16::from_le_bytes)
}

fn read_id(rest: &mut &[u8]) -> Result<MessageId, RecordError> {
    take(rest).map(|octets| MessageId::from_u64(u64::from_le_bytes(octets)))
}

fn read_time(rest: &mut &[u8]) -> Result<Timestamp, RecordError> {
    take(rest).map(|octets| Timestamp::from_millis(u64::from_le_bytes(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_and_no_cut_does() {
        let id = MessageId::from_u64(77);
        let at = Timestamp::from_millis(123_456);
        let state = MessageState::DELIVERED;
        let standing = Standing {
            state: State::Forwarded,
            carrier: 2,
            deferrals: 1,
            error: 300,
            deadline: at,
            notifications: 4,
        };
        let records = [
            Record::Accepted { attempt: None, content: b"content" },
            Record::Accepted { attempt: Some(255), content: b"content" },
            Record::Attempt { id, carrier: 1 },
            Record::Forwarded { id, carrier_id: b"0A1B" },
            Record::Deferred { id, until: at, error: 8 },
            Record::Interim { id, state, at, told: None },
            Record::Interim { id, state, at, told: Some(state) },
            Record::Final { id, state, error: 1, at },
            Record::Replaced { more: 2, content: b"content" },
            Record::Mo(b"parcel"),
            Record::Settled { id, part: 1 },
            Record::MessageAtRest { standing, content: b"content" },
            Record::DeliveryAtRest(b"parcel"),
        ];
        let mut octets = Vec::new();
        for record in &records {
            let before = octets.len();
            record.put(&mut octets);
            assert_eq!(octets.len() - before, record.octets(), "{record:?}");
        }
        let mut rest = &octets[..];
        for record in &records {
            assert_eq!(Record::take(&mut rest), Ok(Some(*record)));
        }
        assert_eq!(Record::take(&mut rest), Ok(None));
        let whole = {
            let mut octets = Vec::new();
            Record::Final { id, state, error: 1, at }.put(&mut octets);
            octets
        };
        for length in 1..whole.len() {
            assert_eq!(Record::take(&mut &whole[..length]), Err(RecordError), "{length}");
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert_eq!(Record::take(&mut &[5, 0, 0, 0, 99][..]), Err(RecordError));
    }
}
