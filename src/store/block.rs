//! Packed blocks of final messages: what query_sm needs after a message has left memory.

use std::ops::RangeInclusive;

use crate::message::MessageId;
use crate::pdu::receipt::MessageState;
use crate::time::Timestamp;

/// What is known of a message that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinalMessage {
    /// Its id.
    pub id: MessageId,
    /// Its place in its submit_multi.
    pub batch_offset: u8,
    /// How many that submit_multi made.
    pub batch_count: u8,
    /// How it ended.
    pub state: MessageState,
    /// The carrier's error; 0 = none.
    pub error: u16,
    /// When it ended.
    pub final_date: Timestamp,
    /// Whose it was.
    pub system_id: Box<[u8]>,
    /// The source_addr that query_sm must name.
    pub source_addr: Box<[u8]>,
}

/// The key of a block: the period its messages were accepted in, then a number that only grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockKey {
    /// See [`MessageId::period`].
    pub period: u64,
    /// Tells the blocks of one period apart.
    pub number: u64,
}

impl BlockKey {
    /// Big-endian, so that keys sort by period.
    pub fn to_octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.period.to_be_bytes());
        octets[8..].copy_from_slice(&self.number.to_be_bytes());
        octets
    }

    /// Reads [`to_octets`](Self::to_octets).
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let (period, number) = octets.split_first_chunk()?;
        Some(Self {
            period: u64::from_be_bytes(*period),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

/// Octets that are not a block of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockError;

/// Version, then the newest final_date.
const HEADER_OCTETS: usize = 9;
const FORMAT: u8 = 1;
/// A block is closed when it has grown to this.
const BLOCK_OCTETS: usize = 16 << 10;

/// A block being filled.
#[derive(Clone, Debug)]
pub struct BlockBuilder {
    octets: Vec<u8>,
    newest: Timestamp,
    messages: Vec<MessageId>,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self { octets: vec![0; HEADER_OCTETS], newest: Timestamp::ZERO, messages: Vec::new() }
    }
}

impl BlockBuilder {
    /// Adds a message; `true` when the block is full.
    pub fn push(&mut self, message: &FinalMessage) -> bool {
        self.newest = self.newest.max(message.final_date);
        self.messages.push(message.id);
        let octets = &mut self.octets;
        octets.extend_from_slice(&message.id.as_u64().to_le_bytes());
        octets.extend_from_slice(&[message.batch_offset, message.batch_count, message.state.0]);
        octets.extend_from_slice(&message.error.to_le_bytes());
        octets.extend_from_slice(&message.final_date.as_millis().to_le_bytes());
        for text in [&message.system_id, &message.source_addr] {
            octets.push(text.len() as u8);
            octets.extend_from_slice(text);
        }
        octets.len() >= BLOCK_OCTETS
    }

    /// The octets of the block and the messages in it.
    pub fn finish(mut self) -> (Vec<u8>, Vec<MessageId>) {
        self.octets[0] = FORMAT;
        self.octets[1..HEADER_OCTETS].copy_from_slice(&self.newest.as_millis().to_le_bytes());
        (self.octets, self.messages)
    }
}

/// A block as read back.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    newest: Timestamp,
    messages: &'a [u8],
}

impl<'a> Block<'a> {
    /// Reads the header; the messages are read when asked for.
    ///
    /// # Errors
    /// Not a block of this version.
    pub fn read(octets: &'a [u8]) -> Result<Self, BlockError> {
        let (header, messages) = octets.split_first_chunk::<HEADER_OCTETS>().ok_or(BlockError)?;
        if header[0] != FORMAT {
            return Err(BlockError);
        }
        let newest = u64::from_le_bytes(std::array::from_fn(|octet| header[1 + octet]));
        Ok(Self { newest: Timestamp::from_millis(newest), messages })
    }

    /// When the last of its messages ended; the whole block is forgotten a retention later.
    pub const fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Its messages, in the order in which they ended.
    pub fn messages(&self) -> impl Iterator<Item = Result<FinalMessage, BlockError>> + 'a {
        self.messages_in(MessageId::from_u64(0)..=MessageId::from_u64(u64::MAX))
    }

    /// Those of its messages that have one of `ids`; the others are stepped over without reading them.
    pub fn messages_in(
        &self,
        ids: RangeInclusive<MessageId>,
    ) -> impl Iterator<Item = Result<FinalMessage, BlockError>> + 'a {
        let mut rest = self.messages;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let message = match split_message(&mut rest) {
                    Ok((id, _)) if !ids.contains(&id) => continue,
                    Ok((_, mut message)) => read_message(&mut message),
                    Err(error) => Err(error),
                };
                if message.is_err() {
                    rest = &[];
                }
                return Some(message);
            }
            None
        })
    }
}

/// Octets of a message before its two texts, and where the first text has its length.
const FIXED_OCTETS: usize = 21;

/// Takes the octets of one message; its id and they.
fn split_message<'a>(rest: &mut &'a [u8]) -> Result<(MessageId, &'a [u8]), BlockError> {
    let octets = *rest;
    let (id, _) = octets.split_first_chunk().ok_or(BlockError)?;
    let system_id = usize::from(*octets.get(FIXED_OCTETS).ok_or(BlockError)?);
    let source_addr = usize::from(*octets.get(FIXED_OCTETS + 1 + system_id).ok_or(BlockError)?);
    let length = FIXED_OCTETS + 2 + system_id + source_addr;
    let (message, tail) = octets.split_at_checked(length).ok_or(BlockError)?;
    *rest = tail;
    Ok((MessageId::from_u64(u64::from_le_bytes(*id)), message))
}

fn read_message(rest: &mut &[u8]) -> Result<FinalMessage, BlockError> {
    fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BlockError> {
        let (head, tail) = rest.split_first_chunk().ok_or(BlockError)?;
        *rest = tail;
        Ok(*head)
    }
    let id = MessageId::from_u64(u64::from_le_bytes(take(rest)?));
    let [batch_offset, batch_count, state] = take(rest)?;
    let error = u16::from_le_bytes(take(rest)?);
    let final_date = Timestamp::from_millis(u64::from_le_bytes(take(rest)?));
    let mut text = || {
        let [length] = take(rest)?;
        let (text, tail) = rest.split_at_checked(length.into()).ok_or(BlockError)?;
        *rest = tail;
        Ok(Box::from(text))
    };
    Ok(FinalMessage {
        id,
        batch_offset,
        batch_count,
        state: MessageState(state),
        error,
        final_date,
        system_id: text()?,
        source_addr: text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_in_order_until_the_block_is_full() {
        let mut builder = BlockBuilder::default();
        let mut pushed = Vec::new();
        for number in 0.. {
            let message = FinalMessage {
                id: MessageId::from_u64(number),
                batch_offset: 0,
                batch_count: 1,
                state: MessageState::DELIVERED,
                error: number as u16,
                final_date: Timestamp::from_millis(1_000 + number % 100),
                system_id: Box::from(*b"demo"),
                source_addr: Box::from(*b"12125550100"),
            };
            let full = builder.push(&message);
            pushed.push(message);
            if full {
                break;
            }
        }
        let (octets, ids) = builder.finish();
        assert!(octets.len() < BLOCK_OCTETS + 600);
        assert_eq!(ids.len(), pushed.len());
        let block = Block::read(&octets).expect("a block");
        assert_eq!(block.newest(), Timestamp::from_millis(1_099));
        let read: Vec<_> = block.messages().map(|message| message.expect("whole")).collect();
        assert_eq!(read, pushed);
        assert!(Block::read(&octets[..octets.len() - 1]).expect("a header").messages().any(|m| m.is_err()));
    }

    #[test]
    fn keys_sort_by_period_and_read_back() {
        let keys = [(1, 9), (2, 0), (256, 3)].map(|(period, number)| BlockKey { period, number });
        assert!(keys.map(BlockKey::to_octets).is_sorted());
        for key in keys {
            assert_eq!(BlockKey::from_octets(&key.to_octets()), Some(key));
        }
    }
}
