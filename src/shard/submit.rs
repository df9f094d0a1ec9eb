//! submit_sm, data_sm, submit_multi: from the PDU to the record that earns its response.

use std::rc::Rc;

use crate::account::{Account, AccountIndex};
use crate::message::{Content, MessageId};
use crate::pdu::{
    Address, CommandId, CommandStatus, DestAddress, EsmClass, Framing, Header, MessagingMode, Pdu,
    ShortMessage, SubmitMulti, UnsuccessSme, next_frame,
};
use crate::route::CarrierIndex;
use crate::shard::gather::{AfterGathering, as_on_the_wire};
use crate::shard::mesh::{Answer, Matching, Operation, ReplyTo};
use crate::shard::partition::Earned;
use crate::shard::submission::{self, Checked, SubmitError};
use crate::shard::{Entry, Shard};
use crate::time::Now;

/// A destination that a submission may go to.
#[derive(Clone, Copy)]
struct Destination<'a> {
    address: Address<'a>,
    carrier: CarrierIndex,
}

impl Shard {
    /// submit_sm or data_sm. `may_replace`: whether replace_if_present_flag is still to be looked after.
    pub(super) fn submit(
        &mut self,
        now: Now,
        entry: &mut Entry,
        header: &Header,
        pdu: &Pdu<'_>,
        may_replace: bool,
    ) {
        let reply_to = self.reply_to(entry, header);
        if let Err(error) = self.try_submit(now, entry, reply_to, pdu, may_replace) {
            self.count_refusal(error);
            self.refuse(entry, header, error);
        }
    }

    fn try_submit(
        &mut self,
        now: Now,
        entry: &mut Entry,
        reply_to: ReplyTo,
        pdu: &Pdu<'_>,
        may_replace: bool,
    ) -> Result<(), SubmitError> {
        let from_data_sm;
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these two are submitted so")]
        let submitted = match pdu {
            Pdu::SubmitSm(submit) => submit,
            Pdu::DataSm(data) => {
                from_data_sm = submission::from_data_sm(data)?;
                &from_data_sm
            }
            _ => return Err(SubmitError::Field(CommandStatus::ESME_RINVCMDID)),
        };
        let accounts = Rc::clone(&self.accounts);
        let index = entry.account.ok_or(SubmitError::Field(CommandStatus::ESME_RINVBNDSTS))?;
        let account = accounts.get(index);
        let checked = submission::check(submitted, account, self.settings.validity, now.wall)?;
        let destination = self.destination(submitted.destination)?;
        if submitted.replace_if_present_flag == 1 && may_replace {
            // Once for the submission, whatever becomes of it.
            throttle(now, account, checked.segments.into())?;
            self.find_to_replace(entry, (reply_to, index), submitted, &checked, destination.address, pdu);
            return Ok(());
        }
        let is_transaction = submission::is_transaction(submitted.esm_class)
            && (entry.session.version().has_v5() || reply_to.command_id == CommandId::DATA_SM)
            && checked.deliver_at <= now.wall;
        if is_transaction && !entry.session.has_room_for_outcome() {
            // With a window of one the outcome would keep everything else waiting, an unbind too.
            let is_never = entry.session.settings().window_in_max < 2;
            let never = SubmitError::Field(CommandStatus::ESME_RINVESMCLASS);
            return Err(if is_never { never } else { SubmitError::Throttled });
        }
        self.take_room(account, checked.segments.into())?;
        let ids = self.take_ids(now, entry, 1);
        let (id, _) =
            ids.ok_or(SubmitError::Full).inspect_err(|_| account.return_credits(checked.segments.into()))?;
        if submitted.replace_if_present_flag == 0 {
            throttle(now, account, checked.segments.into())
                .inspect_err(|_| account.return_credits(checked.segments.into()))?;
        }

        let earned = if is_transaction {
            self.transactions.insert(id, reply_to);
            Earned::Charge { account: index, segments: checked.segments.into() }
        } else {
            Earned::Submitted { reply_to, id, account: index, segments: checked.segments }
        };
        let content = content_of(now, account, submitted, &checked, destination.address, id, (0, 1));
        self.accept(&content, destination.carrier, Some(earned));
        Ok(())
    }

    /// submit_multi: one message for each destination, one answer for all.
    pub(super) fn submit_multi(
        &mut self,
        now: Now,
        entry: &mut Entry,
        header: &Header,
        pdu: &SubmitMulti<'_>,
    ) {
        let reply_to = self.reply_to(entry, header);
        if let Err(error) = self.try_submit_multi(now, entry, reply_to, pdu) {
            self.count_refusal(error);
            self.refuse(entry, header, error);
        }
    }

    fn try_submit_multi(
        &mut self,
        now: Now,
        entry: &Entry,
        reply_to: ReplyTo,
        pdu: &SubmitMulti<'_>,
    ) -> Result<(), SubmitError> {
        let accounts = Rc::clone(&self.accounts);
        let index = entry.account.ok_or(SubmitError::Field(CommandStatus::ESME_RINVBNDSTS))?;
        let account = accounts.get(index);
        // A batch replaces nothing (§4.2.3 leaves it to the MC).
        if pdu.replace_if_present_flag == 1 {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVSUBREP));
        }
        let checked = submission::check(pdu, account, self.settings.validity, now.wall)?;
        let mut destinations = Vec::with_capacity(pdu.destination.number_of_dests().into());
        let mut unsuccess_sme = Vec::new();
        let mut no_unsuccess = 0_u8;
        for dest_address in pdu.destination.iter() {
            let address = match dest_address {
                DestAddress::Sme(address) => address,
                DestAddress::DistributionList(_) => {
                    return Err(SubmitError::Field(CommandStatus::ESME_RINVDLNAME));
                }
            };
            match self.destination(address) {
                Ok(destination) => destinations.push(destination),
                Err(error) => {
                    no_unsuccess += 1;
                    let status = self.told(entry, reply_to.command_id, error.into());
                    let failed = UnsuccessSme { destination: address, error_status_code: status };
                    // An address that was decoded can be encoded.
                    _ = failed.put(&mut unsuccess_sme);
                }
            }
        }
        let count = u8::try_from(destinations.len()).unwrap_or(u8::MAX);
        if count == 0 {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVDSTADR));
        }
        let content = |address, id, place| content_of(now, account, pdu, &checked, address, id, place);
        // One answer stands for all of them, so one batch has to.
        let lengths =
            destinations.iter().map(|to| content(to.address, MessageId::from_u64(0), (0, 1)).octets());
        if !self.partitions[0].keep_together(lengths) {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVNUMDESTS));
        }
        let segments = u32::from(checked.segments) * u32::from(count);
        self.take_room(account, segments)?;
        let ids = self.take_ids(now, entry, count);
        let (id, more_ids) =
            ids.ok_or(SubmitError::Full).inspect_err(|_| account.return_credits(segments.into()))?;
        throttle(now, account, segments).inspect_err(|_| account.return_credits(segments.into()))?;

        for (offset, Destination { address, carrier }) in (0..count).zip(destinations) {
            // Short ids do not follow one another: a v3.3 peer has no submit_multi by that name anyway.
            let (own, place) = match (id.is_short(), offset) {
                (false, _) => (id.in_batch(offset), (offset, count)),
                (true, 0) => (id, (0, 1)),
                (true, _) => (more_ids[usize::from(offset) - 1], (0, 1)),
            };
            self.accept(&content(address, own, place), carrier, None);
        }
        let unsuccess_sme = unsuccess_sme.into();
        self.partitions[0].earn(Earned::Charge { account: index, segments });
        let answer = Answer::SubmittedMulti { id, no_unsuccess, unsuccess_sme };
        self.partitions[0].earn(Earned::Answer(Box::new((reply_to, answer))));
        Ok(())
    }

    /// The id of a new message, with those of the others of a submit_multi where they do not follow it; `None` when there
    /// are none.
    fn take_ids(&mut self, now: Now, entry: &Entry, count: u8) -> Option<(MessageId, Vec<MessageId>)> {
        let partition = &mut self.partitions[0];
        if Self::needs_short_id(entry.session.version()) {
            let first = partition.next_short_id()?;
            let others: Option<Vec<MessageId>> = (1..count).map(|_| partition.next_short_id()).collect();
            return Some((first, others?));
        }
        Some((partition.next_id(now.wall, count), Vec::new()))
    }

    /// Room in the partition and credits of the account.
    fn take_room(&self, account: &Account, segments: u32) -> Result<(), SubmitError> {
        let partition = &self.partitions[0];
        if partition.has_failed() {
            return Err(SubmitError::Failed);
        }
        if !partition.has_room() {
            return Err(SubmitError::Full);
        }
        let no_credit = |_| SubmitError::NoCredit(account.settings.no_credit_status.0);
        account.take_credits(segments.into()).map_err(no_credit)
    }

    /// Puts a message on record, and its first attempt with it unless it waits for a time.
    fn accept(&mut self, content: &Content<'_>, carrier: CarrierIndex, earned: Option<Earned>) {
        let attempt = (!content.is_scheduled()).then_some(carrier.0);
        let accepted = self.partitions[0].accept(attempt, content, &self.accounts, earned);
        assert!(accepted.is_ok(), "a fresh id was never used and the partition takes records");
        self.counters.accepted += 1;
    }

    fn destination<'a>(&self, address: Address<'a>) -> Result<Destination<'a>, SubmitError> {
        let address = submission::destination(address)?;
        let carrier = self.routes.find(address.digits).ok_or(SubmitError::NoRoute)?;
        Ok(Destination { address, carrier })
    }

    /// replace_if_present_flag: every partition is asked for the newest message that waits, before it is decided
    /// whether one is replaced or a new one is made.
    fn find_to_replace(
        &mut self,
        entry: &mut Entry,
        (reply_to, account): (ReplyTo, AccountIndex),
        submitted: &ShortMessage<'_>,
        checked: &Checked<'_>,
        destination: Address<'_>,
        pdu: &Pdu<'_>,
    ) {
        let operation = Operation::FindMatching(matching_of(submitted, checked, destination));
        let then = AfterGathering::ReplaceOrSubmit(as_on_the_wire(reply_to.sequence_number, pdu));
        self.gather(&mut entry.order, reply_to, account, (&operation, destination.digits), then);
    }

    pub(super) fn superseding(
        &self,
        now: Now,
        entry: &Entry,
        id: MessageId,
        octets: &[u8],
    ) -> Result<Superseding, SubmitError> {
        let Framing::Frame(frame) = next_frame(octets, octets.len()) else {
            unreachable!("it was encoded by us");
        };
        let Ok(Pdu::SubmitSm(submitted)) = frame.decode() else {
            return Err(SubmitError::Field(CommandStatus::ESME_RINVSUBREP));
        };
        let index = entry.account.ok_or(SubmitError::Field(CommandStatus::ESME_RINVBNDSTS))?;
        let account = self.accounts.get(index);
        let checked = submission::check(&submitted, account, self.settings.validity, now.wall)?;
        let destination = submission::destination(submitted.destination)?;
        let mut content = Vec::new();
        content_of(now, account, &submitted, &checked, destination, id, (0, 1)).put(&mut content);
        let matching = matching_of(&submitted, &checked, destination);
        Ok(Superseding { account: index, content: content.into(), matching })
    }

    fn count_refusal(&mut self, error: SubmitError) {
        self.counters.refused += 1;
        self.counters.throttled += u64::from(error == SubmitError::Throttled);
    }
}

/// A submit_sm that is to stand in the place of a message.
pub(super) struct Superseding {
    pub(super) account: AccountIndex,
    /// Its record, under the id of the message.
    pub(super) content: Box<[u8]>,
    /// What the message was found by.
    pub(super) matching: Matching,
}

/// What messages have to be for a submit_sm to replace one of them.
fn matching_of(submitted: &ShortMessage<'_>, checked: &Checked<'_>, destination: Address<'_>) -> Matching {
    Matching {
        service_type: Some(submitted.service_type.into()),
        source: checked.source.into(),
        destination: destination.into(),
    }
}

/// Takes the segments off the account's rate.
fn throttle(now: Now, account: &Account, segments: u32) -> Result<(), SubmitError> {
    let admitted = account.limits.throttle.admit(now.instant, segments);
    if admitted { Ok(()) } else { Err(SubmitError::Throttled) }
}

/// The message that a submission makes.
fn content_of<'a, D>(
    now: Now,
    account: &'a Account,
    submitted: &ShortMessage<'a, D>,
    checked: &'a Checked<'a>,
    destination: Address<'a>,
    id: MessageId,
    (batch_offset, batch_count): (u8, u8),
) -> Content<'a> {
    Content {
        id,
        batch_offset,
        batch_count,
        accepted_at: now.wall,
        deliver_at: checked.deliver_at,
        expires_at: checked.expires_at,
        segments: checked.segments,
        registered_delivery: submitted.registered_delivery,
        esm_class: kept_esm_class(submitted.esm_class),
        protocol_id: submitted.protocol_id,
        priority_flag: submitted.priority_flag,
        data_coding: submitted.data_coding,
        system_id: account.settings.system_id.as_bytes(),
        service_type: submitted.service_type,
        source: checked.source,
        destination,
        user_data: checked.user_data,
        tlvs: &checked.tlvs,
    }
}

/// What of esm_class stays with the message: its type and features, and whether it is a datagram.
fn kept_esm_class(esm_class: EsmClass) -> EsmClass {
    match esm_class.mode() {
        MessagingMode::Datagram => esm_class,
        MessagingMode::Default | MessagingMode::Forward | MessagingMode::StoreAndForward => {
            EsmClass(esm_class.0 & !0x03)
        }
    }
}
