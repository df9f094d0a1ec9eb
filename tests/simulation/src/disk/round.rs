//! Short ids go round: what eight million messages between two processes leave behind.

use smppd::journal::Record;
use smppd::message::{Content, MessageId};

use super::{Found, PartitionDisk};
use crate::random::Random;

/// Short ids: the lowest, and how their sequence goes round.
const SHORT_FIRST: u64 = 1 << 31;
const ROUND_MASK: u64 = 0x007F_FFFF;

impl PartitionDisk {
    /// As if millions of messages had been sent from one process to the next: the next short ids are some of `near` again.
    /// What the journal holds is young, so it lies less than half a round behind them.
    pub fn go_round(&mut self, found: &Found, near: &[MessageId], random: &mut Random) {
        let (mut young, mut ended) = (Vec::new(), Vec::new());
        for (_, _, records) in &found.batches {
            let mut records = records.as_slice();
            while let Ok(Some(record)) = Record::take(&mut records) {
                if let Record::Accepted { content, .. } = record {
                    young.extend(Content::id_of(content).filter(|id| id.is_short()).map(place_in_round));
                } else if let Record::Final { id, .. } = record
                    && id.is_short()
                {
                    ended.push(place_in_round(id));
                }
            }
        }
        // What has ended a moment ago and is still at rest as a message that has not.
        ended.retain(|place| !young.contains(place));
        let begin = if !ended.is_empty() && random.chance(50) {
            ended[random.place(ended.len())]
        } else if near.is_empty() {
            0
        } else {
            place_in_round(near[random.place(near.len().div_ceil(2))])
        };
        let is_behind = |floor: u64| {
            young
                .iter()
                .all(|place| place.wrapping_sub(floor) & ROUND_MASK > ROUND_MASK / 2 || *place == floor)
        };
        let before = begin.wrapping_sub(random.pick(&[1, 2, 3, 10, 20])) & ROUND_MASK;
        let floor = match young.iter().max() {
            Some(youngest) if !is_behind(before) => (youngest + ROUND_MASK / 2 - 10) & ROUND_MASK,
            Some(_) | None => before,
        };
        if is_behind(floor) {
            let number = SHORT_FIRST | floor << 8 | u64::from(self.identity.partition.0);
            self.checkpoint.floors[1] = MessageId::from_u64(number);
        }
    }
}

/// Where a short id lies in the round.
const fn place_in_round(id: MessageId) -> u64 {
    (id.as_u64() >> 8) & ROUND_MASK
}
