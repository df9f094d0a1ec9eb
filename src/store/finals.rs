//! Messages that are over, in packed blocks: what query_sm needs after a message has left memory.
//!
//! They leave memory a *generation* at a time: those that ended since the last one left. A generation is sorted by id and
//! cut into blocks, so that an id is in at most one block of each generation. No block spans more than one
//! [period](MessageId::period): whoever looks for an id reads the blocks that begin at or before it, the nearest first,
//! and no further back than its period begins.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use bytes::BufMut;

use crate::message::MessageId;
use crate::pdu::receipt::MessageState;
use crate::time::Timestamp;

/// What is known of a message that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinalMessage<'a> {
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
    pub system_id: Cow<'a, [u8]>,
    /// The source_addr that query_sm must name.
    pub source_addr: Cow<'a, [u8]>,
}

impl<'a> FinalMessage<'a> {
    /// Appends it to a generation.
    pub fn put(&self, octets: &mut Vec<u8>) {
        octets.put_u64_le(self.id.as_u64());
        octets.put_slice(&[self.batch_offset, self.batch_count, self.state.0]);
        octets.put_u16_le(self.error);
        octets.put_u64_le(self.final_date.as_millis());
        for text in [&self.system_id, &self.source_addr] {
            octets.put_u8(text.len() as u8);
            octets.put_slice(text);
        }
    }

    /// Reads the message that `octets` begin with.
    ///
    /// # Errors
    /// There is none.
    pub fn read(octets: &'a [u8]) -> Result<Self, BlockError> {
        let mut rest = octets;
        let (id, mut message) = split_message(&mut rest)?;
        let rest = &mut message;
        let _id: [u8; 8] = take(rest)?;
        let [batch_offset, batch_count, state] = take(rest)?;
        let error = u16::from_le_bytes(take(rest)?);
        let final_date = Timestamp::from_millis(u64::from_le_bytes(take(rest)?));
        let mut text = || {
            let [length] = take(rest)?;
            let (text, tail) = rest.split_at_checked(length.into()).ok_or(BlockError)?;
            *rest = tail;
            Ok(Cow::Borrowed(text))
        };
        let (system_id, source_addr) = (text()?, text()?);
        let state = MessageState(state);
        Ok(Self { id, batch_offset, batch_count, state, error, final_date, system_id, source_addr })
    }

    /// The same, of its own.
    pub fn into_owned(self) -> FinalMessage<'static> {
        FinalMessage {
            system_id: Cow::Owned(self.system_id.into_owned()),
            source_addr: Cow::Owned(self.source_addr.into_owned()),
            ..self
        }
    }
}

/// The key of a block: the lowest id in it, then its generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockKey {
    /// The lowest id in the block.
    pub first: MessageId,
    /// Tells blocks apart that begin with the same id: a record that was replayed made another.
    pub generation: u64,
}

impl BlockKey {
    /// Big-endian, so that keys sort by id.
    pub fn to_octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.first.as_u64().to_be_bytes());
        octets[8..].copy_from_slice(&self.generation.to_be_bytes());
        octets
    }

    /// Reads [`to_octets`](Self::to_octets).
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let (first, generation) = octets.split_first_chunk()?;
        Some(Self {
            first: MessageId::from_u64(u64::from_be_bytes(*first)),
            generation: u64::from_be_bytes(generation.try_into().ok()?),
        })
    }

    /// The keys of all blocks that may hold one of `ids`, which are of one period.
    pub fn range(ids: &RangeInclusive<MessageId>) -> RangeInclusive<[u8; 16]> {
        let begin = Self { first: ids.start().period_begin(), generation: 0 };
        begin.to_octets()..=Self { first: *ids.end(), generation: u64::MAX }.to_octets()
    }
}

/// Octets that are not a block of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockError;

/// Version, then the newest final_date.
const HEADER_OCTETS: usize = 9;
const FORMAT: u8 = 2;
/// A block is closed when it has grown to this.
const BLOCK_OCTETS: usize = 32 << 10;

/// Sorts a generation (messages behind one another) and cuts it into blocks. Of two messages with one short id it keeps the
/// one that ended later.
///
/// # Errors
/// It is not made of whole messages.
pub fn cut(generation: u64, octets: &[u8]) -> Result<Vec<(BlockKey, Vec<u8>)>, BlockError> {
    let mut messages = Vec::with_capacity(octets.len() / 48);
    let mut rest = octets;
    while !rest.is_empty() {
        messages.push(split_message(&mut rest)?);
    }
    messages.reverse();
    messages.sort_by_key(|(id, _)| *id);
    messages.dedup_by_key(|(id, _)| *id);
    let mut blocks: Vec<(BlockKey, Vec<u8>)> = Vec::new();
    let mut newest = Timestamp::ZERO;
    for (id, message) in messages {
        let follows = |(key, block): &&mut (BlockKey, Vec<u8>)| {
            key.first.period() == id.period() && block.len() < BLOCK_OCTETS
        };
        let final_date = FinalMessage::read(message)?.final_date;
        let block = match blocks.last_mut().filter(follows) {
            Some((_, block)) => block,
            None => {
                newest = Timestamp::ZERO;
                let key = BlockKey { first: id, generation };
                blocks.push((key, [&[FORMAT][..], &[0; HEADER_OCTETS - 1]].concat()));
                let Some((_, block)) = blocks.last_mut() else { unreachable!("one was pushed") };
                block
            }
        };
        newest = newest.max(final_date);
        block[1..HEADER_OCTETS].copy_from_slice(&newest.as_millis().to_le_bytes());
        block.extend_from_slice(message);
    }
    Ok(blocks)
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

    /// Its messages, by id.
    pub fn messages(&self) -> impl Iterator<Item = Result<FinalMessage<'a>, BlockError>> + 'a {
        self.messages_in(MessageId::from_u64(0)..=MessageId::from_u64(u64::MAX))
    }

    /// Those of its messages that have one of `ids`; the others are stepped over without reading them.
    pub fn messages_in(
        &self,
        ids: RangeInclusive<MessageId>,
    ) -> impl Iterator<Item = Result<FinalMessage<'a>, BlockError>> + 'a {
        let mut rest = self.messages;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let message = match split_message(&mut rest) {
                    Ok((id, _)) if !ids.contains(&id) => continue,
                    Ok((_, message)) => FinalMessage::read(message),
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

/// Looks for messages in blocks, which come with their keys as [`BlockKey::range`] has them, from its end. Stops when all
/// are found, but for short ids: two messages may have had the same one, and the one that ended later is told of.
///
/// # Errors
/// That of the blocks, or a block cannot be read.
pub fn find<K: AsRef<[u8]>, B: AsRef<[u8]>, E: From<BlockError>>(
    ids: &RangeInclusive<MessageId>,
    blocks: impl IntoIterator<Item = Result<(K, B), E>>,
) -> Result<Vec<FinalMessage<'static>>, E> {
    let wanted = ids.end().as_u64() - ids.start().as_u64() + 1;
    let is_unique = !ids.start().is_short();
    // Each with the generation that tells it.
    let mut found: Vec<(u64, FinalMessage<'static>)> = Vec::new();
    for block in blocks {
        let (key, octets) = block?;
        let BlockKey { generation, .. } = BlockKey::from_octets(key.as_ref()).ok_or(BlockError)?;
        for message in Block::read(octets.as_ref())?.messages_in(ids.clone()) {
            let message = message?;
            match found.iter_mut().find(|(_, known)| known.id == message.id) {
                None => found.push((generation, message.into_owned())),
                Some(known) if known.0 < generation => *known = (generation, message.into_owned()),
                // A record that was replayed may have said the same twice.
                Some(_) => {}
            }
        }
        if is_unique && found.len() as u64 == wanted {
            break;
        }
    }
    Ok(found.into_iter().map(|(_, message)| message).collect())
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

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BlockError> {
    let (head, tail) = rest.split_first_chunk().ok_or(BlockError)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::message::{IdSource, PartitionNumber};

    fn message(id: MessageId, final_date: u64) -> FinalMessage<'static> {
        FinalMessage {
            id,
            batch_offset: 0,
            batch_count: 1,
            state: MessageState::DELIVERED,
            error: 7,
            final_date: Timestamp::from_millis(final_date),
            system_id: Cow::Borrowed(b"demo"),
            source_addr: Cow::Borrowed(b"12125550100"),
        }
    }

    /// Messages of twenty seconds, which ended in another order, in two generations.
    fn two_generations() -> (Vec<FinalMessage<'static>>, BTreeMap<[u8; 16], Vec<u8>>) {
        let start = 1_790_000_000_000;
        let mut ids = IdSource::new(0, PartitionNumber(3));
        let mut messages: Vec<_> = (0..10_000)
            .map(|number| {
                message(ids.next(Timestamp::from_millis(start + number * 2), 1), start + number % 777)
            })
            .collect();
        messages.push(message(ids.next_short(), start));
        let mut generations = [Vec::new(), Vec::new()];
        for (place, message) in messages.iter().enumerate().rev() {
            message.put(&mut generations[usize::from(place % 3 == 0)]);
        }
        let mut blocks = BTreeMap::new();
        for (number, octets) in (0..).zip(&generations) {
            blocks.extend(
                cut(number, octets).expect("whole").into_iter().map(|(key, block)| (key.to_octets(), block)),
            );
        }
        (messages, blocks)
    }

    #[test]
    fn every_message_is_found_in_few_blocks_and_no_other_is() {
        let (messages, blocks) = two_generations();
        assert!(blocks.len() < 40, "{}", blocks.len());
        for message in &messages {
            let ids = message.id..=message.id;
            let mut read = 0;
            let candidates = blocks.range(BlockKey::range(&ids)).rev().inspect(|_| read += 1);
            let found = find(&ids, candidates.map(Ok::<_, BlockError>));
            assert_eq!(found, Ok(vec![message.clone()]));
            assert!(read <= 3, "{read} blocks were read");
        }
        let unknown = messages[5_000].id.in_batch(1);
        let candidates = blocks.range(BlockKey::range(&(unknown..=unknown))).rev();
        let mut read = 0;
        let candidates = candidates.map(Ok::<_, BlockError>).inspect(|_| read += 1);
        assert_eq!(find(&(unknown..=unknown), candidates), Ok(Vec::new()));
        assert!(read <= 8, "only blocks of its period: {read}");
    }

    #[test]
    fn a_block_knows_when_its_last_message_ended_and_its_cuts_are_noticed() {
        let (messages, blocks) = two_generations();
        let mut count = 0;
        for (key, octets) in &blocks {
            let block = Block::read(octets).expect("a block");
            assert!(octets.len() < BLOCK_OCTETS + 600);
            let read: Vec<_> = block.messages().map(|message| message.expect("whole")).collect();
            assert!(read.is_sorted_by_key(|message| message.id));
            assert_eq!(
                BlockKey::from_octets(key).map(|key| key.first),
                read.first().map(|message| message.id)
            );
            assert_eq!(read.iter().map(|message| message.final_date).max(), Some(block.newest()));
            assert!(
                Block::read(&octets[..octets.len() - 1]).expect("a header").messages().any(|m| m.is_err())
            );
            count += read.len();
        }
        assert_eq!(count, messages.len());
        assert_eq!(cut(0, b"no message"), Err(BlockError));
    }
}
