//! What every partition has a part in: cancel_sm without a message_id, and replace_if_present.

use crate::account::AccountIndex;
use crate::message::{MessageId, PartitionNumber};
use crate::pdu::{Address, CommandStatus, DestAddress, Framing, Header, Pdu, next_frame};
use crate::shard::mesh::{Answer, Matching, MeshMessage, Operation, ReplyTo};
use crate::shard::parked::Parked;
use crate::shard::partition::Age;
use crate::shard::submit::Superseding;
use crate::shard::{Shard, submission};
use crate::store::RestNumber;
use crate::time::Now;

/// An operation that every partition has a part in.
#[derive(Debug)]
pub(super) struct Gathering {
    reply_to: ReplyTo,
    /// Its number in the [`Order`] of its session, which goes on to the gatherings that follow from it.
    order: u64,
    missing: usize,
    cancelled: u32,
    newest: Option<Age>,
    /// Another than ESME_ROK when a partition could not do its part.
    status: CommandStatus,
    then: AfterGathering,
}

/// Requests of one session of which every partition has a part, and the request behind them that has to wait: what a
/// session asks has to look as if one thing was done after the other.
#[derive(Default, Debug)]
pub(super) struct Order {
    /// Those that have not ended.
    under_way: Vec<UnderWay>,
    /// As on the wire. Nothing is taken from the session while it waits.
    held: Option<Box<[u8]>>,
}

/// A request of which every partition has a part.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    destination_addr: Box<[u8]>,
    /// replace_if_present, which changes a message or makes one; else it is a cancel_sm.
    replaces: bool,
}

impl Order {
    pub(super) const fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether a request has to do, or may have to do, with messages that a request under way has to do with. What is
    /// submitted behind a cancel_sm needs not wait, as nothing younger than that is cancelled, unless it would be put in the
    /// place of a message that is about to be.
    #[inline(always)]
    pub(super) fn must_wait(&self, pdu: &Pdu<'_>) -> bool {
        !self.under_way.is_empty() && self.meets(pdu)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else changes messages")]
    fn meets(&self, pdu: &Pdu<'_>) -> bool {
        let meets = |address: Address<'_>, any: bool| {
            let digits = submission::without_plus(address).digits;
            let mut under_way = self.under_way.iter().filter(|under_way| any || under_way.replaces);
            under_way.any(|under_way| *under_way.destination_addr == *digits)
        };
        match pdu {
            Pdu::SubmitSm(submit) => meets(submit.destination, submit.replace_if_present_flag != 0),
            Pdu::DataSm(data) => meets(data.destination, false),
            Pdu::SubmitMulti(multi) => multi.destination.iter().any(|destination| match destination {
                DestAddress::Sme(address) => meets(address, false),
                DestAddress::DistributionList(_) => false,
            }),
            Pdu::CancelSm(cancel) if cancel.message_id.is_empty() => meets(cancel.destination, false),
            // A message_id tells no address.
            Pdu::CancelSm(_) | Pdu::ReplaceSm(_) => self.under_way.iter().any(|under_way| under_way.replaces),
            _ => false,
        }
    }

    /// A request waits for its turn.
    pub(super) fn hold(&mut self, header: &Header, pdu: &Pdu<'_>) {
        self.held = Some(as_on_the_wire(header.sequence_number, pdu));
    }

    /// A request is under way.
    fn begin(&mut self, number: u64, destination_addr: &[u8], replaces: bool) {
        self.under_way.push(UnderWay { number, destination_addr: destination_addr.into(), replaces });
    }

    /// It has ended; the request that waited, perhaps for this.
    fn end(&mut self, number: u64) -> Option<Box<[u8]>> {
        self.under_way.retain(|under_way| under_way.number != number);
        self.held.take()
    }
}

/// A request that outlives the octets it came in, to be read again when its turn comes.
pub(super) fn as_on_the_wire(sequence_number: u32, pdu: &Pdu<'_>) -> Box<[u8]> {
    let mut octets = Vec::new();
    // What was decoded can be encoded.
    _ = pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets);
    octets.into()
}

/// What follows when every partition has answered.
#[derive(Debug)]
pub(super) enum AfterGathering {
    /// cancel_sm: ESME_ROK if anything was cancelled, and every partition could be asked.
    AnswerCancel,
    /// replace_if_present: the newest message that waits is replaced by this submit_sm, as on the wire; when there
    /// is none it is a new message.
    ReplaceOrSubmit(Box<[u8]>),
    /// The same, when that message's owner has answered.
    Superseded(MessageId, Box<[u8]>, AccountIndex, Matching),
}

/// One partition's part: what waits between two addresses, wherever it is. Cold blocks come back one after the other,
/// so that there may be more of it than memory holds.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) reply_to: ReplyTo,
    account: AccountIndex,
    partition: PartitionNumber,
    matching: Matching,
    /// Those behind came after the question.
    up_to: [MessageId; 2],
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
    Newest(Option<Age>),
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
    /// Asks every partition, ours too, of messages to `destination_addr`; `order` is that of the session that asks.
    pub(super) fn gather(
        &mut self,
        order: &mut Order,
        reply_to: ReplyTo,
        account: AccountIndex,
        (operation, destination_addr): (&Operation, &[u8]),
        then: AfterGathering,
    ) {
        let number = self.next_gathering;
        let replaces = matches!(then, AfterGathering::ReplaceOrSubmit(_));
        order.begin(number, destination_addr, replaces);
        self.ask_all((reply_to, number), account, operation, then);
    }

    fn ask_all(
        &mut self,
        (reply_to, order): (ReplyTo, u64),
        account: AccountIndex,
        operation: &Operation,
        then: AfterGathering,
    ) {
        let reply_to = self.begin_gathering(reply_to, order, self.partition_map.partitions(), then);
        for shard in self.all_shards() {
            if shard == self.settings.number {
                // At once: what the session sends behind it, in the same octets even, comes to partitions of ours.
                self.search_for(reply_to, account, operation);
            } else {
                self.send(shard, MeshMessage::Ask { reply_to, account, operation: operation.clone() });
            }
        }
    }

    /// One shard's part of an operation that every partition has a part in.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are about one message")]
    pub(super) fn search_for(&mut self, reply_to: ReplyTo, account: AccountIndex, operation: &Operation) {
        match operation {
            Operation::CancelMatching(matching) => {
                self.search_all(reply_to, account, matching, Sought::ToCancel { cancelled: 0 });
            }
            Operation::FindMatching(matching) => {
                self.search_all(reply_to, account, matching, Sought::Newest(None));
            }
            _ => unreachable!("it is about one message"),
        }
    }

    /// Asks the owner of one message, for a gathering that goes on with its answer.
    fn ask_again(
        &mut self,
        (reply_to, order): (ReplyTo, u64),
        account: AccountIndex,
        id: MessageId,
        operation: Operation,
        then: AfterGathering,
    ) {
        let Some(owner) = self.partition_map.shard_of(id.partition()) else {
            unreachable!("its partition has just told of it");
        };
        let reply_to = self.begin_gathering(reply_to, order, 1, then);
        self.send(owner, MeshMessage::Ask { reply_to, account, operation });
    }

    fn begin_gathering(
        &mut self,
        reply_to: ReplyTo,
        order: u64,
        missing: usize,
        then: AfterGathering,
    ) -> ReplyTo {
        let number = self.next_gathering;
        self.next_gathering += 1;
        let status = CommandStatus::ESME_ROK;
        let gathering = Gathering { reply_to, order, missing, cancelled: 0, newest: None, status, then };
        self.gatherings.insert(number, gathering);
        ReplyTo { gathering: number, ..reply_to }
    }

    /// One partition's part of a gathering.
    pub(super) fn gathered(&mut self, now: Now, part: ReplyTo, answer: &Answer) {
        let Some(gathering) = self.gatherings.get_mut(&part.gathering) else { return };
        match answer {
            Answer::Cancelled(count) => gathering.cancelled += count,
            Answer::Newest(newest) => gathering.newest = Age::younger(gathering.newest, *newest),
            Answer::Status(status) => gathering.status = *status,
            Answer::State { .. } | Answer::Submitted(_) | Answer::SubmittedMulti { .. } => {}
        }
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let Some(gathering) = self.gatherings.remove(&part.gathering) else { return };
        let Gathering { reply_to, order, cancelled, newest, status, then, .. } = gathering;
        match then {
            AfterGathering::AnswerCancel => {
                // A partition that could not be asked may have some that will be sent.
                let is_done = status == CommandStatus::ESME_ROK && cancelled > 0;
                let told = if is_done { CommandStatus::ESME_ROK } else { CommandStatus::ESME_RCANCELFAIL };
                self.write_answer(reply_to, &Answer::Status(told));
            }
            AfterGathering::ReplaceOrSubmit(octets) => match newest {
                // The newest may be with a partition that could not be asked.
                _ if status != CommandStatus::ESME_ROK => self.refuse_replacement(reply_to, status),
                Some(Age { id, .. }) => return self.supersede(now, (reply_to, order), id, octets),
                None => self.submit_after_all(now, reply_to, &octets),
            },
            AfterGathering::Superseded(id, octets, account, matching) => match status {
                CommandStatus::ESME_ROK => {
                    self.write_answer(reply_to, &Answer::Submitted(id));
                    self.tell_of_superseding(id);
                }
                // Since it was found a carrier has taken it, or another session has done something to it. There may be an
                // older one. Each time somebody else has come further, so that this comes to an end.
                CommandStatus::ESME_RREPLACEFAIL | CommandStatus::ESME_RINVMSGID => {
                    let then = AfterGathering::ReplaceOrSubmit(octets);
                    let operation = Operation::FindMatching(matching);
                    return self.ask_all((reply_to, order), account, &operation, then);
                }
                status => self.refuse_replacement(reply_to, status),
            },
        }
        self.end_order(now, reply_to, order);
    }

    /// A request of which every partition had a part has ended: what waited for that in its session goes on.
    fn end_order(&mut self, now: Now, reply_to: ReplyTo, order: u64) {
        let connection = reply_to.session.connection;
        let Some(mut entry) = self.sessions.remove(&connection) else { return };
        let held = entry.order.end(order);
        entry.session.hold(now.instant, false);
        let held = held.filter(|_| entry.session.close_reason().is_none());
        if let Some(octets) = held
            && let Framing::Frame(frame) = next_frame(&octets, octets.len())
            && let Ok(pdu) = frame.decode()
        {
            self.request(now, &mut entry, &frame.header, &pdu);
            if entry.is_taking() && !entry.is_dirty {
                // There may be octets behind it.
                entry.is_dirty = true;
                self.outputs.dirty.push(connection);
            }
        }
        self.put_back(entry);
    }

    /// The newest message that waits is found: another one, whole, is to stand in its place.
    fn supersede(&mut self, now: Now, (reply_to, order): (ReplyTo, u64), id: MessageId, octets: Box<[u8]>) {
        let Some(entry) = self.sessions.get(&reply_to.session.connection) else { return };
        match self.superseding(now, entry, id, &octets) {
            Ok(Superseding { account, content, matching }) => {
                let operation = Operation::Supersede { id, content };
                let then = AfterGathering::Superseded(id, octets, account, matching);
                self.ask_again((reply_to, order), account, id, operation, then);
            }
            Err(error) => {
                self.refuse_replacement(reply_to, error.into());
                self.end_order(now, reply_to, order);
            }
        }
    }

    /// A submit_sm that was to replace a message is refused, as any other may be.
    fn refuse_replacement(&mut self, reply_to: ReplyTo, status: CommandStatus) {
        self.counters.refused += 1;
        self.write_answer(reply_to, &Answer::Status(status));
    }

    /// The sender has the response: the message may go on, if its owner is another shard. Ours has paid the response out
    /// before anything that follows from it.
    fn tell_of_superseding(&mut self, id: MessageId) {
        let owner = self.partition_map.shard_of(id.partition());
        if let Some(owner) = owner.filter(|owner| *owner != self.settings.number) {
            self.send(owner, MeshMessage::Told { id });
        }
    }

    /// At the owner: a message waits until its sender has the response, which goes another way than a receipt does.
    pub(super) fn wait_until_told(&mut self, reply_to: ReplyTo, id: MessageId) {
        if reply_to.session.shard != self.settings.number {
            let (count, _) = self.untold.entry(id).or_default();
            *count += 1;
        }
    }

    /// At the owner: its sender has the response. A message that was due meanwhile is looked at again: it may have been
    /// replaced once more, and wait for another date.
    pub(super) fn told_of_superseding(&mut self, id: MessageId) {
        let Some((count, is_due)) = self.untold.get_mut(&id) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let is_due = *is_due;
        self.untold.remove(&id);
        if let Some(place) = self.place_of(id.partition()).filter(|_| is_due) {
            self.partitions[place].look_again(id);
            self.has_due = true;
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
    fn search_all(&mut self, reply_to: ReplyTo, account: AccountIndex, matching: &Matching, sought: Sought) {
        self.searches.extend(self.partitions.iter().map(|partition| Search {
            reply_to,
            account,
            partition: partition.number,
            matching: matching.clone(),
            up_to: partition.last_ids(),
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
        let partition = &self.partitions[place];
        let found = partition.waiting(account, matching, up_to, &self.accounts);
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
                let ages = found.map(|id| partition.age(id, up_to));
                (Sought::Newest(ages.fold(newest, Age::younger)), true)
            }
        }
    }
}
