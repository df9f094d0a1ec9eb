//! What waits for a message that is cold: it comes back, and then everything goes on as if it had never left.

use crate::account::AccountIndex;
use crate::carrier::Report;
use crate::message::{MessageId, PartitionNumber};
use crate::pdu::CommandStatus;
use crate::shard::gather::Search;
use crate::shard::mesh::{Answer, Operation, ReplyTo};
use crate::shard::{Lookup, Shard};
use crate::store::{FinalMessage, RestNumber};
use crate::time::Now;

/// Something that waits.
#[derive(Debug)]
pub(super) enum Parked {
    /// An operation on the message.
    Operation(ReplyTo, AccountIndex, Operation),
    /// A carrier's report about it.
    Report(u8, Report),
    /// An operation on a submit_multi whose first message is over, with what is known of that.
    Lookup(Lookup, Vec<FinalMessage<'static>>),
    /// A search through messages of which more are cold.
    Search(Search),
}

impl Shard {
    /// The block that has to come back before `count` messages from `id` on can be dealt with.
    pub(super) fn cold_block_of(&self, id: MessageId, count: u8) -> Option<(PartitionNumber, RestNumber)> {
        let place = self.place_of(id.partition())?;
        let partition = &self.partitions[place];
        let number = (0..count.max(1)).find_map(|offset| partition.cold_block_of(id.in_batch(offset)))?;
        Some((partition.number, number))
    }

    /// The block that an operation has to wait for.
    pub(super) fn cold_block_for(&self, operation: &Operation) -> Option<(PartitionNumber, RestNumber)> {
        match operation {
            Operation::Query { id, .. }
            | Operation::Cancel { id, .. }
            | Operation::Replace { id, .. }
            | Operation::Supersede { id, .. } => {
                let place = self.place_of(id.partition())?;
                let partition = &self.partitions[place];
                let first = partition.message(*id).map(|message| message.content());
                let (offset, count) = first
                    .map(|content| (content.batch_offset, content.batch_count))
                    .or_else(|| {
                        partition.final_message(*id).map(|ended| (ended.batch_offset, ended.batch_count))
                    })
                    .unwrap_or((0, 1));
                // The id of a submit_multi stands for all its messages.
                self.cold_block_of(*id, if offset == 0 { count } else { 1 })
            }
            // They wait for one block after the other.
            Operation::CancelMatching(_) | Operation::FindMatching(_) => None,
        }
    }

    /// Something waits for a block.
    pub(super) fn park(&mut self, (partition, number): (PartitionNumber, RestNumber), parked: Parked) {
        let Some(place) = self.place_of(partition) else { return };
        self.partitions[place].fetch(number);
        self.parked.entry((partition, number)).or_default().push(parked);
        if self.partitions[place].has_failed() {
            let status = Answer::Status(CommandStatus::ESME_RSYSERR);
            self.forget_parked(partition)
                .into_iter()
                .for_each(|reply_to| self.answer(reply_to, status.clone()));
        }
    }

    /// The block is back.
    pub(super) fn unpark(&mut self, now: Now, partition: PartitionNumber, number: RestNumber) {
        for parked in self.parked.remove(&(partition, number)).unwrap_or_default() {
            match parked {
                Parked::Operation(reply_to, account, operation) => {
                    self.perform(now, reply_to, account, operation);
                }
                Parked::Report(carrier, report) => self.reported(now, carrier, report),
                Parked::Lookup(lookup, found) => self.looked_up(now, lookup, found),
                Parked::Search(search) => self.searches.push_back(search),
            }
        }
    }

    /// Nothing comes back from a partition that has stopped: who waits for an answer.
    pub(super) fn forget_parked(&mut self, partition: PartitionNumber) -> Vec<ReplyTo> {
        let blocks = (partition, RestNumber(0))..=(partition, RestNumber(u32::MAX));
        let numbers: Vec<_> = self.parked.range(blocks).map(|(key, _)| *key).collect();
        let parked = numbers.into_iter().flat_map(|key| self.parked.remove(&key).unwrap_or_default());
        let waiting = parked.filter_map(|parked| match parked {
            Parked::Operation(reply_to, ..)
            | Parked::Lookup(Lookup { reply_to, .. }, _)
            | Parked::Search(Search { reply_to, .. }) => Some(reply_to),
            // It is not acknowledged: the carrier says it again after the restart.
            Parked::Report(..) => None,
        });
        waiting.collect()
    }
}
