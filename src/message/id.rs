//! The name of a message: a number that also tells which partition owns it.

use std::fmt;

use crate::time::Timestamp;

/// The part of a data directory that owns a message for life; 0–255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionNumber(pub u8);

impl fmt::Display for PartitionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}

/// 2024-01-01T00:00:00Z, where the 41 bits of time begin; they last until 2093.
const EPOCH_MILLIS: u64 = 1_704_067_200_000;
const SEQUENCE_BITS: u32 = 10;
const PARTITION_BITS: u32 = 8;
const NODE_BITS: u32 = 4;
const TIME_SHIFT: u32 = SEQUENCE_BITS + PARTITION_BITS + NODE_BITS;
const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;
/// Short ids live in the upper half of the 32-bit numbers, so that their text has always eight digits.
const SHORT_FIRST: u64 = 1 << 31;
const SHORT_LAST: u64 = u32::MAX as u64;
const SHORT_SEQUENCE_MAX: u64 = 0x007F_FFFF;
/// Ids of the first day would be as small as short ones, or have too few digits.
const MILLIS_MIN: u64 = 86_400_000;
/// A clock beyond this (2083) is not believed. The ten years behind it are for ids that run ahead of a clock that was far
/// ahead for a moment: no id may ever need a 42nd bit of time.
const MILLIS_MAX: u64 = (1 << 41) - 1 - 10 * 365 * 86_400_000;

/// A message_id: 63 bits of time (milliseconds), node, partition and sequence, written in decimal.
///
/// A peer below v3.4 takes at most eight characters. Messages of such a session get a *short* id (23 bits
/// of sequence and the partition), written as eight hexadecimal digits. The two never look alike: a decimal
/// id has at least fifteen digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// The id with this number, as read from a record.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number, as written to a record.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Reads an id exactly as [`text`](Self::text) writes it; anything else names no message.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let number = match text.len() {
            8 if text.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'A'..=b'F')) => {
                u64::from_str_radix(text, 16).ok().filter(|number| *number >= SHORT_FIRST)?
            }
            15..=19 if text.bytes().all(|octet| octet.is_ascii_digit()) && !text.starts_with('0') => {
                text.parse().ok()?
            }
            _ => return None,
        };
        (number <= i64::MAX as u64).then_some(Self(number))
    }

    /// The text in every PDU, receipt and log line.
    pub fn text(self) -> MessageIdText {
        let mut octets = [0; 20];
        if self.is_short() {
            let digit = |place: u32| b"0123456789ABCDEF"[(self.0 >> (28 - 4 * place)) as usize & 0xF];
            for place in 0..8 {
                octets[place as usize] = digit(place);
            }
            return MessageIdText { octets, length: 8 };
        }
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.0).as_bytes();
        octets[..digits.len()].copy_from_slice(digits);
        MessageIdText { octets, length: digits.len() as u8 }
    }

    /// Whether this id fits a peer below v3.4.
    pub const fn is_short(self) -> bool {
        self.0 <= SHORT_LAST
    }

    /// The partition that owns the message.
    pub const fn partition(self) -> PartitionNumber {
        PartitionNumber(if self.is_short() { self.0 as u8 } else { (self.0 >> SEQUENCE_BITS) as u8 })
    }

    /// The id `offset` places further on in the same submit_multi.
    pub const fn in_batch(self, offset: u8) -> Self {
        Self(self.0 + offset as u64)
    }

    /// The id of the whole submit_multi, given this message's place in it.
    pub const fn of_batch(self, offset: u8) -> Self {
        Self(self.0 - offset as u64)
    }

    /// How many short ids of its partition are given out behind this one until `other` is, in one round.
    pub const fn short_ids_until(self, other: Self) -> u64 {
        (other.0 >> PARTITION_BITS).wrapping_sub(self.0 >> PARTITION_BITS) & SHORT_SEQUENCE_MAX
    }

    /// The four-second period in which the message was accepted (for short ids: the thousand it belongs to);
    /// what the state at rest is ordered by.
    pub const fn period(self) -> u64 {
        // Short ids know no time: a thousand of them make a period, numbered far below those of today.
        if self.is_short() {
            (self.0 - SHORT_FIRST) >> (PARTITION_BITS + 10)
        } else {
            self.0 >> (TIME_SHIFT + 12)
        }
    }

    /// The lowest id that this id's period can have.
    pub const fn period_begin(self) -> Self {
        if self.is_short() {
            Self((self.period() << (PARTITION_BITS + 10)) + SHORT_FIRST)
        } else {
            Self(self.period() << (TIME_SHIFT + 12))
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(self.text().as_octets()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An id as text, without an allocation.
#[derive(Clone, Copy)]
pub struct MessageIdText {
    octets: [u8; 20],
    length: u8,
}

impl MessageIdText {
    /// The digits, without a NUL.
    pub fn as_octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }
}

/// Gives out the ids of one partition: ascending, never the same twice, whatever the clock does.
#[derive(Debug)]
pub struct IdSource {
    partition: PartitionNumber,
    node: u8,
    last: u64,
    last_short: u64,
}

impl IdSource {
    /// Starts behind every id that [`observe`](Self::observe) will be shown; `node` is 0–15.
    pub const fn new(node: u8, partition: PartitionNumber) -> Self {
        Self { partition, node: node & 0x0F, last: 0, last_short: SHORT_FIRST - 1 }
    }

    /// Never gives out `id` or an older one again. Short ids go round: the older of two is the one that has the
    /// other within half a round in front of it.
    pub fn observe(&mut self, id: MessageId) {
        if id.is_short() {
            let ahead = (id.0 >> PARTITION_BITS).wrapping_sub(self.last_short >> PARTITION_BITS);
            let is_younger = (1..=SHORT_SEQUENCE_MAX / 2).contains(&(ahead & SHORT_SEQUENCE_MAX));
            if id.0 >= SHORT_FIRST && (is_younger || self.last_short < SHORT_FIRST) {
                self.last_short = id.0;
            }
        } else {
            self.last = self.last.max(id.0);
        }
    }

    /// The highest ids given out so far, long and short: what a checkpoint remembers.
    pub const fn floors(&self) -> [MessageId; 2] {
        [MessageId(self.last), MessageId(self.last_short)]
    }

    /// Whether an id of this source was given out behind `floors`, which [`floors`](Self::floors) gave then. Of short ids
    /// the last round counts: in between no more than eight million may have been given out.
    pub fn is_behind(&self, id: MessageId, floors: [MessageId; 2]) -> bool {
        let [long, short] = floors;
        if !id.is_short() {
            return id > long;
        }
        (1..=short.short_ids_until(MessageId(self.last_short))).contains(&short.short_ids_until(id))
    }

    /// The first of `count` consecutive ids. When more than 1,024 are wanted in one millisecond the ids
    /// run ahead of the clock; when the clock goes back, or is beyond what can be believed, they count on from the last
    /// one. Without a last one, such a clock and one that was never set give ids of the first day.
    pub fn next(&mut self, now: Timestamp, count: u8) -> MessageId {
        let count = u64::from(count.max(1));
        let millis = now.as_millis().saturating_sub(EPOCH_MILLIS);
        let millis = if millis > MILLIS_MAX { MILLIS_MIN } else { millis.max(MILLIS_MIN) };
        let prefix = |millis: u64| {
            (millis << TIME_SHIFT)
                | (u64::from(self.node) << (SEQUENCE_BITS + PARTITION_BITS))
                | (u64::from(self.partition.0) << SEQUENCE_BITS)
        };
        let mut first = prefix(millis);
        if first <= self.last {
            first = self.last + 1;
            let sequence = first & SEQUENCE_MAX;
            // A carry out of the sequence would change the partition; the next millisecond begins instead.
            if sequence == 0 || sequence + count > SEQUENCE_MAX + 1 {
                first = prefix((self.last >> TIME_SHIFT) + 1);
            }
        }
        self.last = first + count - 1;
        MessageId(first)
    }

    /// The next short id; after 8,388,608 of them the oldest come again.
    pub fn next_short(&mut self) -> MessageId {
        let sequence = ((self.last_short >> PARTITION_BITS) + 1) & SHORT_SEQUENCE_MAX;
        self.last_short = SHORT_FIRST | (sequence << PARTITION_BITS) | u64::from(self.partition.0);
        MessageId(self.last_short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(EPOCH_MILLIS + 90_000_000_000);

    #[test]
    fn ids_ascend_and_keep_their_partition() {
        let mut source = IdSource::new(0, PartitionNumber(7));
        let mut last = source.next(NOW, 1);
        for step in 0..5_000_u64 {
            // A clock that stands still, goes back and goes on.
            let wall = Timestamp::from_millis(NOW.as_millis() + step % 3);
            let id = source.next(wall, (step % 255) as u8);
            assert!(id > last, "{id} after {last}");
            assert_eq!(id.partition(), PartitionNumber(7));
            last = id.in_batch((step % 255).max(1) as u8 - 1);
            assert_eq!(last.partition(), PartitionNumber(7));
        }
    }

    #[test]
    fn an_older_id_that_is_seen_later_brings_no_younger_one_again() {
        let id_of = |millis| IdSource::new(0, PartitionNumber(7)).next(Timestamp::from_millis(millis), 1);
        let (young, old) = (id_of(NOW.as_millis() + 3_600_000), id_of(NOW.as_millis()));
        let mut source = IdSource::new(0, PartitionNumber(7));
        source.observe(young);
        source.observe(old);
        assert!(source.next(NOW, 1) > young);
    }

    #[test]
    fn text_is_decimal_and_reads_back() {
        let id = IdSource::new(15, PartitionNumber(255)).next(NOW, 1);
        let text = id.to_string();
        assert!(text.len() <= 19 && text.bytes().all(|octet| octet.is_ascii_digit()), "{text}");
        assert_eq!(MessageId::parse(text.as_bytes()), Some(id));
    }

    #[test]
    fn short_ids_have_eight_characters_and_read_back() {
        let mut source = IdSource::new(0, PartitionNumber(3));
        let first = source.next_short();
        assert_eq!(first.to_string(), "80000003");
        assert_eq!(first.partition(), PartitionNumber(3));
        assert_eq!(MessageId::parse(b"80000003"), Some(first));
        let mut source = IdSource::new(0, PartitionNumber(3));
        source.observe(MessageId(SHORT_LAST));
        assert_eq!(source.next_short(), first, "after the last comes the first");
    }

    #[test]
    fn a_clock_that_is_far_off_makes_ids_like_all_others() {
        let wanted = PartitionNumber(7);
        for millis in
            [0, EPOCH_MILLIS, EPOCH_MILLIS + 1_500, EPOCH_MILLIS + (1 << 41), Timestamp::MAX.as_millis()]
        {
            let mut source = IdSource::new(3, wanted);
            let id = source.next(Timestamp::from_millis(millis), 1);
            assert_eq!(MessageId::parse(id.text().as_octets()), Some(id), "{millis}");
            assert_eq!((id.partition(), id.is_short()), (wanted, false), "{millis}");
            assert!(id.period() > 0 && source.next(Timestamp::from_millis(millis), 1) > id);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_for_a_moment_takes_no_ids_from_those_that_follow() {
        let last_believed = EPOCH_MILLIS + MILLIS_MAX;
        for far in
            [last_believed, last_believed + 1, EPOCH_MILLIS + (1 << 41) - 1, Timestamp::MAX.as_millis()]
        {
            let mut source = IdSource::new(15, PartitionNumber(255));
            let mut last = source.next(NOW, 1);
            let far = Timestamp::from_millis(far);
            for (place, wall) in [NOW, far, far].into_iter().chain([NOW; 5_000]).enumerate() {
                let id = source.next(wall, 200);
                assert!(id > last, "{place}: {id} behind {last}");
                last = id.in_batch(199);
                assert_eq!(MessageId::parse(last.text().as_octets()), Some(last), "{place}");
                assert_eq!(last.partition(), PartitionNumber(255));
            }
        }
    }

    #[test]
    fn what_was_given_out_since_is_told_from_what_was_before() {
        let short =
            |sequence: u64| MessageId(SHORT_FIRST | (sequence & SHORT_SEQUENCE_MAX) << PARTITION_BITS | 3);
        for first in [0, 7, SHORT_SEQUENCE_MAX - 2, SHORT_SEQUENCE_MAX] {
            let mut source = IdSource::new(0, PartitionNumber(3));
            source.observe(short(first));
            let older = source.next(NOW, 1);
            let floors = source.floors();
            assert!(!source.is_behind(short(first), floors) && !source.is_behind(older, floors));
            // Half a round ago, and just one step ahead of the others: old all the same.
            let waits_long = short(first + SHORT_SEQUENCE_MAX / 2 + 2);
            let next: Vec<MessageId> = (0..4).map(|_| source.next_short()).collect();
            assert!(next.iter().all(|id| source.is_behind(*id, floors)), "{first}");
            assert!(!source.is_behind(short(first), floors) && !source.is_behind(waits_long, floors));
            let younger = source.next(NOW, 1);
            assert!(!source.is_behind(older, floors) && source.is_behind(younger, floors));
            let until: Vec<u64> = next.iter().map(|id| id.short_ids_until(next[3])).collect();
            assert_eq!(until, [3, 2, 1, 0]);
        }
        let mut source = IdSource::new(0, PartitionNumber(3));
        let floors = source.floors();
        let (long, short) = (source.next(NOW, 1), source.next_short());
        assert!(source.is_behind(long, floors) && source.is_behind(short, floors), "the first of all");
    }

    #[test]
    fn short_ids_go_on_behind_the_youngest_wherever_the_round_stands() {
        let id = |sequence: u64| MessageId(SHORT_FIRST | (sequence << PARTITION_BITS) | 3);
        for (seen, next) in [
            (&[5, 6, 7][..], 8),
            (&[7, 5, 6], 8),
            (&[SHORT_SEQUENCE_MAX - 1, SHORT_SEQUENCE_MAX, 0, 1], 2),
            (&[0, 1, SHORT_SEQUENCE_MAX], 2),
            (&[SHORT_SEQUENCE_MAX], 0),
        ] {
            let mut source = IdSource::new(0, PartitionNumber(3));
            seen.iter().for_each(|&sequence| source.observe(id(sequence)));
            assert_eq!(source.next_short(), id(next), "{seen:?}");
        }
    }

    #[test]
    fn other_texts_name_no_message() {
        let texts: [&[u8]; 8] = [
            b"",
            b"0",
            b"nosuchid",
            b"0123456789",
            b"00000001",
            b"8000000a",
            b"99999999999999999999",
            b"1 2",
        ];
        for text in texts {
            assert_eq!(MessageId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ids_seen_before_a_restart_do_not_come_again() {
        let mut before = IdSource::new(0, PartitionNumber(0));
        let seen = before.next(Timestamp::from_millis(NOW.as_millis() + 60_000), 1);
        let mut after = IdSource::new(0, PartitionNumber(0));
        after.observe(seen);
        assert!(after.next(NOW, 1) > seen);
    }

    #[test]
    fn a_millisecond_has_as_many_ids_as_its_sequence_and_none_is_of_another_partition() {
        for count in [1, 2, 3, 255] {
            let mut source = IdSource::new(3, PartitionNumber(254));
            let mut last = None;
            let mut of_first = 0;
            for _ in 0..5_000 {
                let first = source.next(NOW, count);
                for offset in 0..count {
                    let id = first.in_batch(offset);
                    assert_eq!(
                        (id.partition(), id.0 >> TIME_SHIFT),
                        (PartitionNumber(254), first.0 >> TIME_SHIFT)
                    );
                    assert!(last < Some(id), "{count}");
                    last = Some(id);
                    of_first += u64::from(id.0 >> TIME_SHIFT == 90_000_000_000);
                }
            }
            // As many as fit in whole.
            assert_eq!(of_first, (SEQUENCE_MAX + 1) / u64::from(count) * u64::from(count), "{count}");
        }
    }
}
