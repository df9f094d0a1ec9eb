//! What every partition has a part in: cancel_sm without a message_id, and replace_if_present.

use crate::account::AccountIndex;
use crate::message::{MessageId, PartitionNumber};
use crate::pdu::{CommandStatus, Framing, next_frame};
use crate::shard::Shard;
use crate::shard::mesh::{Answer, Matching, MeshMessage, Operation, ReplyTo};
use crate::shard::parked::Parked;
use crate::store::RestNumber;
use crate::time::Now;

/// An operation that every partition has a part in.
#[derive(Debug)]
pub(super) struct Gathering {
    reply_to: ReplyTo,
    missing: usize,
    cancelled: u32,
    newest: Option<MessageId>,
    status: CommandStatus,
    then: AfterGathering,
}

/// What follows when every partition has answered.
#[derive(Debug)]
pub(super) enum AfterGathering {
    /// cancel_sm: ESME_ROK if anything was cancelled.
    AnswerCancel,
    /// replace_if_present: the newest message that waits is replaced by this submit_sm, as on the wire; when there
    /// is none it is a new message.
    ReplaceOrSubmit(Box<[u8]>),
    /// The same, when that message's owner has answered.
    Superseded(MessageId, Box<[u8]>),
}

/// One partition's part: what waits between two addresses, wherever it is. Cold blocks come back one after the other,
/// so that there may be more of it than memory holds.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) reply_to: ReplyTo,
    account: AccountIndex,
    partition: PartitionNumber,
    matching: Matching,
    /// Younger ones came after the question.
    up_to: MessageId,
    sought: Sought,
    /// The cold block that was waited for last; those before it were looked through.
    block: Option<RestNumber>,
}

/// What a search is for, and what it has come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sought {
    /// All of it is cancelled.
    ToCancel { cancelled: u32 },
    /// The newest message.
    Newest(Option<MessageId>),
}

impl From<Sought> for Answer {
    fn from(sought: Sought) -> Self {
        match sought {
            Sought::ToCancel { cancelled } => Self::Cancelled(cancelled),
            Sought::Newest(newest) => Self::Newest(newest),
        }
    }
}

impl Shard {
    /// Asks every partition, ours too.
    pub(super) fn gather(
        &mut self,
        reply_to: ReplyTo,
        account: AccountIndex,
        operation: &Operation,
        then: AfterGathering,
    ) {
        let reply_to = self.begin_gathering(reply_to, self.partition_map.partitions(), then);
        for shard in self.all_shards() {
            self.send(shard, MeshMessage::Ask { reply_to, account, operation: operation.clone() });
        }
    }

    /// Asks the owner of one message, for a gathering that goes on with its answer.
    pub(super) fn ask_again(
        &mut self,
        reply_to: ReplyTo,
        account: AccountIndex,
        id: MessageId,
        operation: Operation,
        then: AfterGathering,
    ) {
        let Some(owner) = self.partition_map.shard_of(id.partition()) else {
            unreachable!("its partition has just told of it");
        };
        let reply_to = self.begin_gathering(reply_to, 1, then);
        self.send(owner, MeshMessage::Ask { reply_to, account, operation });
    }

    fn begin_gathering(&mut self, reply_to: ReplyTo, missing: usize, then: AfterGathering) -> ReplyTo {
        let number = self.next_gathering;
        self.next_gathering += 1;
        let status = CommandStatus::ESME_ROK;
        self.gatherings
            .insert(number, Gathering { reply_to, missing, cancelled: 0, newest: None, status, then });
        ReplyTo { gathering: number, ..reply_to }
    }

    /// One partition's part of a gathering.
    pub(super) fn gathered(&mut self, now: Now, part: ReplyTo, answer: &Answer) {
        let Some(gathering) = self.gatherings.get_mut(&part.gathering) else { return };
        match answer {
            Answer::Cancelled(count) => gathering.cancelled += count,
            Answer::Newest(id) => gathering.newest = gathering.newest.max(*id),
            Answer::Status(status) => gathering.status = *status,
            Answer::State { .. } | Answer::Submitted(_) | Answer::SubmittedMulti { .. } => {}
        }
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let Some(gathering) = self.gatherings.remove(&part.gathering) else { return };
        let reply_to = gathering.reply_to;
        match gathering.then {
            AfterGathering::AnswerCancel => {
                let status = match gathering.cancelled {
                    0 => CommandStatus::ESME_RCANCELFAIL,
                    _ => CommandStatus::ESME_ROK,
                };
                self.write_answer(reply_to, &Answer::Status(status));
            }
            AfterGathering::ReplaceOrSubmit(octets) => match gathering.newest {
                Some(id) => self.supersede(now, reply_to, id, octets),
                None => self.submit_after_all(now, reply_to, &octets),
            },
            AfterGathering::Superseded(id, octets) => match gathering.status {
                CommandStatus::ESME_ROK => self.write_answer(reply_to, &Answer::Submitted(id)),
                // A carrier has taken it since it was found.
                CommandStatus::ESME_RREPLACEFAIL | CommandStatus::ESME_RINVMSGID => {
                    self.submit_after_all(now, reply_to, &octets);
                }
                status => self.write_answer(reply_to, &Answer::Status(status)),
            },
        }
    }

    /// replace_if_present found nothing to replace: the submit_sm is a new message.
    fn submit_after_all(&mut self, now: Now, reply_to: ReplyTo, octets: &[u8]) {
        let Some(mut entry) = self.sessions.remove(&reply_to.session.connection) else { return };
        if let Framing::Frame(frame) = next_frame(octets, octets.len())
            && let Ok(pdu) = frame.decode()
        {
            self.submit(now, &mut entry, &frame.header, &pdu, false);
        }
        self.put_back(entry);
    }

    /// Searches each partition of ours, in this turn or the next ones.
    pub(super) fn search_all(
        &mut self,
        reply_to: ReplyTo,
        account: AccountIndex,
        matching: &Matching,
        sought: Sought,
    ) {
        self.searches.extend(self.partitions.iter().map(|partition| Search {
            reply_to,
            account,
            partition: partition.number,
            matching: matching.clone(),
            up_to: partition.last_id(),
            sought,
            block: None,
        }));
    }

    /// Goes on with searches, as long as no more than `to_cancel` is cancelled.
    pub(super) fn search(&mut self, now: Now, to_cancel: &mut usize) {
        while *to_cancel > 0
            && let Some(search) = self.searches.pop_front()
        {
            self.go_on_with(now, search, to_cancel);
        }
    }

    /// Looks through what is in memory of a partition, then waits for the next block, or answers.
    fn go_on_with(&mut self, now: Now, mut search: Search, to_cancel: &mut usize) {
        let Some(place) = self.place_of(search.partition) else { return };
        if self.partitions[place].has_failed() {
            // What it has cancelled so far may not be durable.
            return self.answer(search.reply_to, Answer::Status(CommandStatus::ESME_RSYSERR));
        }
        let is_all;
        (search.sought, is_all) = self.look_through(now, place, &search, to_cancel);
        if !is_all {
            return self.searches.push_front(search);
        }
        let partition = &self.partitions[place];
        // The block that was waited for may have grown cold again.
        let cold_again = search.block.filter(|number| partition.is_cold(*number));
        let next = cold_again
            .or_else(|| partition.cold_block_waiting(search.account, &search.matching, search.block));
        match next {
            Some(number) => {
                search.block = Some(number);
                self.park((search.partition, number), Parked::Search(search));
            }
            None => self.answer_from(place, search.reply_to, search.sought.into()),
        }
    }

    /// Looks through what is in memory of a partition: what that has come to, and whether it was all of it.
    fn look_through(
        &mut self,
        now: Now,
        place: usize,
        search: &Search,
        to_cancel: &mut usize,
    ) -> (Sought, bool) {
        let Search { account, ref matching, up_to, sought, .. } = *search;
        let mut found = self.partitions[place].waiting(account, matching, up_to, &self.accounts);
        match sought {
            Sought::ToCancel { cancelled } => {
                let found: Vec<MessageId> = found.take(*to_cancel).collect();
                let done = found.into_iter().filter(|id| self.cancel_waiting(now, *id)).count();
                // To find nothing is work, too.
                *to_cancel -= done.max(1);
                let is_all = done == 0 || *to_cancel > 0;
                (Sought::ToCancel { cancelled: cancelled + done as u32 }, is_all)
            }
            Sought::Newest(newest) => {
                *to_cancel -= 1;
                // All are of one service_type, so the last is the newest.
                (Sought::Newest(found.next_back().max(newest)), true)
            }
        }
    }
}
