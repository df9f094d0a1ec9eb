//! query_sm, cancel_sm, replace_sm: asked on any core, decided by the partition that owns the message.

use std::rc::Rc;

use crate::account::{Account, AccountIndex};
use crate::journal::Record;
use crate::message::{Content, MessageId};
use crate::pdu::receipt::MessageState;
use crate::pdu::{
    CancelSm, CommandId, CommandStatus, Header, Pdu, QuerySm, RegisteredDelivery, ReplaceSm, Tag,
};
use crate::shard::answer::too_late;
use crate::shard::gather::AfterGathering;
use crate::shard::mesh::{Answer, Matching, MeshMessage, Operation, Replacement, ReplyTo};
use crate::shard::parked::Parked;
use crate::shard::partition::Earned;
use crate::shard::submission::{self, SubmitError};
use crate::shard::{Entry, Lookup, Shard};
use crate::store::FinalMessage;
use crate::time::{Now, Timestamp};

impl Shard {
    /// One of the three, from a session of ours: to the owner it goes.
    pub(super) fn operate(
        &mut self,
        now: Now,
        entry: &mut Entry,
        header: &Header,
        pdu: &Pdu<'_>,
    ) -> Result<(), SubmitError> {
        let account = entry.account.ok_or(SubmitError::Field(CommandStatus::ESME_RINVBNDSTS))?;
        let reply_to = self.reply_to(entry, header);
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these three are asked so")]
        let (id, operation) = match pdu {
            Pdu::QuerySm(query) => query_operation(query)?,
            Pdu::CancelSm(cancel) if cancel.message_id.is_empty() => {
                let operation = self.cancel_matching_operation(account, cancel)?;
                let destination_addr = submission::without_plus(cancel.destination).digits;
                let what = (&operation, destination_addr);
                self.gather(&mut entry.order, reply_to, account, what, AfterGathering::AnswerCancel);
                return Ok(());
            }
            Pdu::CancelSm(cancel) => cancel_operation(cancel)?,
            Pdu::ReplaceSm(replace) => self.replace_operation(now, account, replace)?,
            _ => return Err(SubmitError::Field(CommandStatus::ESME_RINVCMDID)),
        };
        let owner = self.partition_map.shard_of(id.partition());
        let owner = owner.ok_or(SubmitError::Field(CommandStatus::ESME_RINVMSGID))?;
        self.send(owner, MeshMessage::Ask { reply_to, account, operation });
        Ok(())
    }

    fn cancel_matching_operation(
        &self,
        account: AccountIndex,
        pdu: &CancelSm<'_>,
    ) -> Result<Operation, SubmitError> {
        if pdu.destination.digits.is_empty() {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVMSGID));
        }
        Ok(Operation::CancelMatching(Matching {
            service_type: (!pdu.service_type.is_empty()).then(|| pdu.service_type.into()),
            source: self.source(account, pdu.source),
            destination: submission::without_plus(pdu.destination).into(),
        }))
    }

    fn replace_operation(
        &self,
        now: Now,
        account: AccountIndex,
        pdu: &ReplaceSm<'_>,
    ) -> Result<(MessageId, Operation), SubmitError> {
        let id = parse_id(pdu.message_id)?;
        let sched = CommandStatus::ESME_RINVSCHED;
        let deliver_at = submission::parse_time(pdu.schedule_delivery_time, now.wall, sched)?;
        let expires_at =
            submission::parse_time(pdu.validity_period, now.wall, CommandStatus::ESME_RINVEXPIRY)?;
        if pdu.sm_default_msg_id != 0 {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVDFTMSGID));
        }
        let payload = pdu.tlvs.get(Tag::MESSAGE_PAYLOAD);
        let user_data = payload.unwrap_or(pdu.short_message).into();
        let registered_delivery = pdu.registered_delivery.0;
        let is_payload = payload.is_some();
        if !self.accounts.get(account).limits.throttle.admit(now.instant, 1) {
            return Err(SubmitError::Throttled);
        }
        let replacement = Replacement { deliver_at, expires_at, registered_delivery, user_data, is_payload };
        Ok((id, Operation::Replace { id, source: submission::without_plus(pdu.source).into(), replacement }))
    }

    /// The source of messages that are named by their addresses; the account's default number when there is none, as in a
    /// submit_sm.
    fn source(&self, account: AccountIndex, source: crate::pdu::Address<'_>) -> crate::message::OwnedAddress {
        let account = self.accounts.get(account);
        match account.default_number() {
            Some(number) if source.digits.is_empty() => {
                crate::pdu::Address { digits: number.as_bytes(), ..source }.into()
            }
            Some(_) | None => submission::without_plus(source).into(),
        }
    }

    /// At the owner: does it, and answers once that is durable.
    pub(super) fn perform(
        &mut self,
        now: Now,
        reply_to: ReplyTo,
        account: AccountIndex,
        operation: Operation,
    ) {
        if let Some(block) = self.cold_block_for(&operation) {
            self.park(block, Parked::Operation(reply_to, account, operation));
            return;
        }
        match operation {
            Operation::Query { id, source } => self.query(reply_to, account, id, &source.digits),
            Operation::Cancel { id, source, .. } | Operation::Replace { id, source, .. }
                if !self.remembers(id) =>
            {
                self.look_up(reply_to, account, id, 1, &source.digits, Vec::new());
            }
            Operation::Cancel { id, source, destination } => {
                let answer = self.cancel(now, account, id, &source.digits, &destination.digits);
                self.answer_when_durable(id, reply_to, Answer::Status(status_of(answer)));
            }
            Operation::CancelMatching(_) | Operation::FindMatching(_) => {
                self.search_for(reply_to, account, &operation);
            }
            Operation::Replace { id, source, replacement } => {
                let answer = self.replace(now, account, id, &source.digits, &replacement);
                self.answer_when_durable(id, reply_to, Answer::Status(status_of(answer)));
            }
            Operation::Supersede { id, content } => {
                let answer = self.supersede_with(account, id, &content);
                if answer.is_ok() {
                    self.wait_until_told(reply_to, id);
                }
                self.answer_when_durable(id, reply_to, Answer::Status(status_of(answer)));
            }
        }
    }

    fn query(&mut self, reply_to: ReplyTo, account: AccountIndex, id: MessageId, source_addr: &[u8]) {
        let Some(place) = self.place_of(id.partition()) else { return };
        let partition = &self.partitions[place];
        let owner = self.accounts.get(account);
        if let Some(message) = partition.message(id) {
            let content = message.content();
            let answer = if is_theirs(&content, owner, source_addr) {
                let state = message.standing.state.message_state();
                Answer::State { id, state, error: message.standing.error, final_date: None }
            } else {
                Answer::Status(CommandStatus::ESME_RINVMSGID)
            };
            // The rest of a submit_multi may go on while its first message is over, not the other way round:
            // the answer for the whole is that of a message that is not.
            self.answer_when_durable(id, reply_to, answer);
            return;
        }
        let known = partition.final_message(id).map(FinalMessage::into_owned);
        match known {
            Some(known) if known.batch_count <= 1 || known.batch_offset > 0 => {
                let answer = final_answer(owner, source_addr, id, &[known]);
                self.answer_when_durable(id, reply_to, answer);
            }
            Some(known) => self.query_batch(reply_to, account, id, source_addr, known),
            None => self.look_up(reply_to, account, id, 1, source_addr, Vec::new()),
        }
    }

    /// Whether memory knows the message; else the state at rest has to be asked.
    fn remembers(&self, id: MessageId) -> bool {
        self.place_of(id.partition()).is_some_and(|place| {
            let partition = &self.partitions[place];
            partition.message(id).is_some() || partition.final_message(id).is_some()
        })
    }

    /// Asks the state at rest for `count` messages from `id` on, of which some may be `known`.
    fn look_up(
        &mut self,
        reply_to: ReplyTo,
        account: AccountIndex,
        id: MessageId,
        count: u8,
        source_addr: &[u8],
        known: Vec<FinalMessage<'static>>,
    ) {
        let (partition, source_addr) = (id.partition(), source_addr.into());
        self.outputs.lookups.push(Lookup { partition, reply_to, account, source_addr, id, count, known });
    }

    /// The whole of a submit_multi, whose first message is over.
    fn query_batch(
        &mut self,
        reply_to: ReplyTo,
        account: AccountIndex,
        id: MessageId,
        source_addr: &[u8],
        first: FinalMessage<'static>,
    ) {
        let Some(place) = self.place_of(id.partition()) else { return };
        let partition = &self.partitions[place];
        let owner = self.accounts.get(account);
        let count = first.batch_count;
        let mut known = vec![first];
        for offset in 1..count {
            let member = id.in_batch(offset);
            if let Some(message) = partition.message(member) {
                let answer = if is_theirs(&message.content(), owner, source_addr) {
                    let state = message.standing.state.message_state();
                    Answer::State { id, state, error: message.standing.error, final_date: None }
                } else {
                    Answer::Status(CommandStatus::ESME_RINVMSGID)
                };
                self.answer_when_durable(id, reply_to, answer);
                return;
            }
            known.extend(partition.final_message(member).map(FinalMessage::into_owned));
        }
        if known.len() == usize::from(count) {
            let answer = final_answer(owner, source_addr, id, &known);
            self.answer_when_durable(id, reply_to, answer);
            return;
        }
        self.look_up(reply_to, account, id, count, source_addr, known);
    }

    /// The state at rest has answered. What is there is over: it can be asked after, not changed.
    pub(super) fn looked_up(&mut self, now: Now, lookup: Lookup, found: Vec<FinalMessage<'static>>) {
        // The first of a submit_multi may be over while others are cold.
        let whole = found.iter().chain(&lookup.known).find(|message| message.id == lookup.id);
        let count = whole.filter(|first| first.batch_offset == 0).map_or(1, |first| first.batch_count);
        if let Some(block) = self.cold_block_of(lookup.id, count) {
            self.park(block, Parked::Lookup(lookup, found));
            return;
        }
        let Lookup { reply_to, account, source_addr, id, count, mut known, .. } = lookup;
        let is_all_at_rest = known.is_empty();
        for message in found {
            if known.iter().all(|known| known.id != message.id) {
                known.push(message);
            }
        }
        known.sort_by_key(|message| message.id);
        if let Some(too_late) = too_late(reply_to.command_id) {
            let owner = self.accounts.get(account);
            let first = known.iter().find(|message| is_over_for(message, owner, &source_addr));
            let status = match first.map(|first| (first.batch_offset, first.batch_count)) {
                None => CommandStatus::ESME_RINVMSGID,
                // Others of a submit_multi may still wait.
                Some((0, count))
                    if reply_to.command_id == CommandId::CANCEL_SM
                        && self.cancel_batch(now, account, &source_addr, id, count) =>
                {
                    CommandStatus::ESME_ROK
                }
                Some(_) => too_late,
            };
            self.answer_when_durable(id, reply_to, Answer::Status(status));
            return;
        }
        if count == 1
            && let [first] = known.as_slice()
            && first.batch_count > 1
            && first.batch_offset == 0
        {
            let first = first.clone();
            self.query_batch(reply_to, account, id, &source_addr, first);
            return;
        }
        let answer = final_answer(self.accounts.get(account), &source_addr, id, &known);
        if is_all_at_rest {
            self.answer(reply_to, answer);
        } else {
            // What memory knew of the batch may have come to its end a moment ago.
            self.answer_when_durable(id, reply_to, answer);
        }
    }

    fn cancel(
        &mut self,
        now: Now,
        account: AccountIndex,
        id: MessageId,
        source_addr: &[u8],
        destination_addr: &[u8],
    ) -> Result<(), CommandStatus> {
        const UNKNOWN: CommandStatus = CommandStatus::ESME_RINVMSGID;
        let place = self.place_of(id.partition()).ok_or(UNKNOWN)?;
        let (partition, owner) = (&self.partitions[place], self.accounts.get(account));
        let (is_theirs, batch_offset, batch_count) = if let Some(message) = partition.message(id) {
            let content = message.content();
            let there = destination_addr.is_empty() || content.destination.digits == destination_addr;
            (is_theirs(&content, owner, source_addr) && there, content.batch_offset, content.batch_count)
        } else {
            let known = partition.final_message(id).ok_or(UNKNOWN)?;
            (is_over_for(&known, owner, source_addr), known.batch_offset, known.batch_count)
        };
        if !is_theirs {
            return Err(UNKNOWN);
        }
        // The id of a submit_multi stands for all its messages, whatever has become of the first.
        let count = if batch_offset == 0 { batch_count } else { 1 };
        if self.cancel_batch(now, account, source_addr, id, count) {
            Ok(())
        } else {
            Err(CommandStatus::ESME_RCANCELFAIL)
        }
    }

    /// Cancels as many of `count` messages as no carrier has; whether there was one. Each must be theirs: while one was
    /// looked for at rest its short id may have gone to another's.
    fn cancel_batch(
        &mut self,
        now: Now,
        account: AccountIndex,
        source_addr: &[u8],
        id: MessageId,
        count: u8,
    ) -> bool {
        let members = (0..count).map(|offset| id.in_batch(offset));
        members
            .filter(|member| {
                let owner = self.accounts.get(account);
                let message =
                    self.place_of(member.partition()).and_then(|p| self.partitions[p].message(*member));
                message.is_some_and(|message| is_theirs(&message.content(), owner, source_addr))
                    && self.cancel_waiting(now, *member)
            })
            .count()
            > 0
    }

    /// Cancels one message, if no carrier has it.
    pub(super) fn cancel_waiting(&mut self, now: Now, id: MessageId) -> bool {
        let message = self.place_of(id.partition()).and_then(|place| self.partitions[place].message(id));
        let waits = message.is_some_and(|message| message.standing.state.is_waiting());
        waits && self.finish(now, id, MessageState::DELETED, 0)
    }

    fn replace(
        &mut self,
        now: Now,
        account: AccountIndex,
        id: MessageId,
        source_addr: &[u8],
        replacement: &Replacement,
    ) -> Result<(), CommandStatus> {
        let accounts = Rc::clone(&self.accounts);
        let owner = accounts.get(account);
        let old = self.replaceable(owner, id, source_addr)?;
        let segments = submission::replacement_segments(&old, replacement, owner)?;
        let deliver_at = replacement.deliver_at.unwrap_or(old.deliver_at);
        let begin = deliver_at.max(now.wall);
        let expires_at = match replacement.expires_at {
            Some(at) => at.min(begin + self.settings.validity.longest),
            None => old.expires_at,
        };
        if expires_at <= begin {
            return Err(CommandStatus::ESME_RINVEXPIRY);
        }
        let content = Content {
            deliver_at: if deliver_at > now.wall { deliver_at } else { Timestamp::ZERO },
            expires_at,
            segments,
            registered_delivery: RegisteredDelivery(replacement.registered_delivery),
            user_data: &replacement.user_data,
            ..old
        };
        let mut octets = Vec::new();
        content.put(&mut octets);
        self.put_in_place(account, id, &octets)
    }

    /// A message as it stands, for whoever may replace it; whether a carrier has it is the life cycle's to say.
    fn replaceable(
        &self,
        owner: &Account,
        id: MessageId,
        source_addr: &[u8],
    ) -> Result<Content<'_>, CommandStatus> {
        let place = self.place_of(id.partition()).ok_or(CommandStatus::ESME_RINVMSGID)?;
        let partition = &self.partitions[place];
        let Some(message) = partition.message(id) else {
            let known =
                partition.final_message(id).is_some_and(|known| is_over_for(&known, owner, source_addr));
            return Err(if known { CommandStatus::ESME_RREPLACEFAIL } else { CommandStatus::ESME_RINVMSGID });
        };
        let content = message.content();
        if is_theirs(&content, owner, source_addr) { Ok(content) } else { Err(CommandStatus::ESME_RINVMSGID) }
    }

    /// Puts a submit_sm in the place of the message that was found for it. Its response tells the message's own id, and so
    /// will its receipt: it is none of a submit_multi any more, unless it is the first, whose id stands for the others too.
    fn supersede_with(
        &mut self,
        account: AccountIndex,
        id: MessageId,
        content: &[u8],
    ) -> Result<(), CommandStatus> {
        let content = Content::read(content).map_err(|_| CommandStatus::ESME_RSYSERR)?;
        let old = self.replaceable(self.accounts.get(account), id, content.source.digits)?;
        let batch_count = if old.batch_offset == 0 { old.batch_count } else { 1 };
        let mut octets = Vec::new();
        Content { batch_offset: 0, batch_count, ..content }.put(&mut octets);
        self.put_in_place(account, id, &octets)
    }

    /// Puts new content in the place of the old, if the life cycle lets it. A longer text costs what it is longer
    /// by; a shorter one gives nothing back.
    fn put_in_place(
        &mut self,
        account: AccountIndex,
        id: MessageId,
        content: &[u8],
    ) -> Result<(), CommandStatus> {
        let accounts = Rc::clone(&self.accounts);
        let owner = accounts.get(account);
        let content = Content::read(content).map_err(|_| CommandStatus::ESME_RSYSERR)?;
        let old = self.replaceable(owner, id, content.source.digits)?;
        let more = content.segments.saturating_sub(old.segments);
        let content = Content { segments: content.segments.max(old.segments), ..content };
        let mut octets = Vec::new();
        content.put(&mut octets);
        let place = self.place_of(id.partition()).ok_or(CommandStatus::ESME_RINVMSGID)?;
        if !self.partitions[place].has_room() {
            return Err(CommandStatus::ESME_RMSGQFUL);
        }
        owner.take_credits(more.into()).map_err(|_| owner.settings.no_credit_status.0)?;
        let record = Record::Replaced { more, content: &octets };
        let charge = (more > 0).then_some(Earned::Charge { account, segments: more.into() });
        self.partitions[place].record(&record, &accounts, charge).map_err(|_| {
            owner.return_credits(more.into());
            CommandStatus::ESME_RREPLACEFAIL
        })
    }

    /// Answers once everything recorded in the message's partition is durable.
    fn answer_when_durable(&mut self, id: MessageId, reply_to: ReplyTo, answer: Answer) {
        match self.place_of(id.partition()) {
            Some(place) => self.answer_from(place, reply_to, answer),
            None => self.answer(reply_to, answer),
        }
    }

    pub(super) fn answer_from(&mut self, place: usize, reply_to: ReplyTo, answer: Answer) {
        // A failed partition records nothing more, so nothing has to be waited for. But an end that memory knows may
        // not be durable: after the next start the message may come to another.
        if self.partitions[place].has_failed() {
            let tells_an_end = matches!(answer, Answer::State { state, .. } if state.is_final());
            let in_doubt = Answer::Status(CommandStatus::ESME_RQUERYFAIL);
            self.answer(reply_to, if tells_an_end { in_doubt } else { answer });
        } else {
            self.partitions[place].earn(Earned::Answer(Box::new((reply_to, answer))));
        }
    }
}

fn query_operation(pdu: &QuerySm<'_>) -> Result<(MessageId, Operation), SubmitError> {
    let id = parse_id(pdu.message_id)?;
    Ok((id, Operation::Query { id, source: submission::without_plus(pdu.source).into() }))
}

fn cancel_operation(pdu: &CancelSm<'_>) -> Result<(MessageId, Operation), SubmitError> {
    let id = parse_id(pdu.message_id)?;
    let destination = submission::without_plus(pdu.destination).into();
    Ok((id, Operation::Cancel { id, source: submission::without_plus(pdu.source).into(), destination }))
}

fn parse_id(message_id: &[u8]) -> Result<MessageId, SubmitError> {
    MessageId::parse(message_id).ok_or(SubmitError::Field(CommandStatus::ESME_RINVMSGID))
}

fn status_of(outcome: Result<(), CommandStatus>) -> CommandStatus {
    match outcome {
        Ok(()) => CommandStatus::ESME_ROK,
        Err(status) => status,
    }
}

/// Another account's message does not exist, nor does one from another number than the one that is named. Where none is
/// named the message_id is enough: the account's default number may be another than it was.
fn is_theirs(content: &Content<'_>, account: &Account, source_addr: &[u8]) -> bool {
    let is_from_there = source_addr.is_empty() || content.source.digits == source_addr;
    content.system_id == account.settings.system_id.as_bytes() && is_from_there
}

/// The same of a message that is over.
fn is_over_for(message: &FinalMessage<'_>, account: &Account, source_addr: &[u8]) -> bool {
    let is_from_there = source_addr.is_empty() || *message.source_addr == *source_addr;
    *message.system_id == *account.settings.system_id.as_bytes() && is_from_there
}

/// What query_sm is told of messages that are over: for a whole submit_multi, DELIVERED if all were.
fn final_answer(account: &Account, source_addr: &[u8], id: MessageId, known: &[FinalMessage<'_>]) -> Answer {
    let theirs = |message: &FinalMessage<'_>| is_over_for(message, account, source_addr);
    let worst = known.iter().find(|message| message.state != MessageState::DELIVERED).or(known.first());
    match worst {
        Some(worst) if known.iter().all(theirs) => Answer::State {
            id,
            state: worst.state,
            error: worst.error,
            final_date: known.iter().map(|message| message.final_date).max(),
        },
        Some(_) | None => Answer::Status(CommandStatus::ESME_RINVMSGID),
    }
}
