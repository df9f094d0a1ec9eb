//! Receipts, notifications and replies: to whom, when, how often.

use smppd::message::{MessageId, ParcelKey};
use smppd::pdu::receipt::{MessageState, ParsedReceipt};
use smppd::pdu::{CommandStatus, ShortMessage, Tag};

use super::submissions::Submission;
use super::{Connection, Fact, Oracle, Token, token_of};

/// What the server sent last about something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) epoch: u32,
    pub(super) connection: Connection,
    pub(super) sequence_number: u32,
    pub(super) at: u64,
    pub(super) answer: Option<CommandStatus>,
}

/// What a deliver_sm was about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Delivered {
    Receipt(MessageId),
    Notification(MessageId),
    Reply(Token),
}

impl Oracle {
    pub(super) fn delivering(
        &mut self,
        connection: Connection,
        sequence_number: u32,
        deliver: &ShortMessage<'_>,
    ) {
        let Some(line) = self.lines.get(&connection) else { return };
        let account = line.esme_account;
        self.require(self.lines[&connection].is_open, || format!("{connection} is closed and is sent to"));
        let about = if deliver.esm_class.message_type() == 0 {
            self.delivering_reply(account, deliver)
        } else {
            self.delivering_receipt(account, deliver)
        };
        if let Some(about) = about {
            self.check_repetition(about, connection, sequence_number);
        }
        let (now, since) = (self.now, self.now.saturating_sub(self.response_nanos));
        let Some(line) = self.lines.get_mut(&connection) else { return };
        line.deliveries.insert(sequence_number, (now, about));
        let in_flight = line.deliveries.values().filter(|(at, _)| *at > since).count();
        let window = self.bounds[account].window;
        self.require(in_flight <= window, || format!("{in_flight} deliver_sm in flight, {window} may be"));
    }

    pub(super) fn delivering_reply(
        &mut self,
        account: usize,
        deliver: &ShortMessage<'_>,
    ) -> Option<Delivered> {
        let Some(token) = token_of(deliver.short_message) else {
            self.violate("a reply that nobody wrote".to_owned());
            return None;
        };
        let owner = self.owner_of(deliver.destination.digits);
        self.require(owner == Some(account), || {
            format!("reply {token} for account {owner:?} went to {account}")
        });
        let is_stored = self.stored_replies.contains(&token);
        self.require(is_stored, || format!("reply {token} was sent before it was durable"));
        self.seen.replies += 1;
        Some(Delivered::Reply(token))
    }

    pub(super) fn delivering_receipt(
        &mut self,
        account: usize,
        deliver: &ShortMessage<'_>,
    ) -> Option<Delivered> {
        let parsed = ParsedReceipt::parse(deliver.short_message).unwrap_or_default();
        let public_id = parsed.message_id.and_then(MessageId::parse);
        let found = public_id.and_then(|id| {
            let count = self.facts.get(&id).map_or(1, |fact| fact.batch_count);
            (0..count)
                .map(|offset| id.in_batch(offset))
                .find(|id| self.facts.get(id).is_some_and(|fact| *fact.destination == *deliver.source.digits))
        });
        let (Some(id), Some(state)) = (found, parsed.state) else {
            let text = String::from_utf8_lossy(deliver.short_message).into_owned();
            self.violate(format!("a receipt for no message: {text}"));
            return None;
        };
        let fact = self.facts[&id].clone();
        let name = self.bounds[account].name.clone();
        self.require(*fact.account == *name.as_bytes(), || {
            format!("the receipt of {id}, which is another's, went to {name}")
        });
        let told = deliver.tlvs.u8(Tag::MESSAGE_STATE).map(MessageState);
        let told_id = deliver.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID).and_then(MessageId::parse);
        self.require(told.is_none_or(|told| told == state), || format!("{id}: text {state:?}, TLV {told:?}"));
        self.require(told_id.is_none_or(|told| Some(told) == public_id), || {
            format!("{id}: text {public_id:?}, TLV {told_id:?}")
        });
        self.require_answered(id, &fact);
        if state.is_final() {
            let ended = fact.ended;
            self.require(ended == Some(state), || format!("a receipt tells {id} {state:?}, it is {ended:?}"));
            self.require(fact.wants_receipt(), || format!("nobody asked for the receipt of {id}"));
            self.seen.receipts += 1;
            return Some(Delivered::Receipt(id));
        }
        let accepted = self.bounds[account].accepted_receipts && fact.wants_success;
        self.require(fact.registered_delivery.intermediate() || accepted, || {
            format!("nobody asked for the notification {state:?} of {id}")
        });
        let notifications = self.notifications.entry(id).or_default();
        notifications.insert(deliver.short_message.to_vec());
        let count = notifications.len();
        self.require(count <= usize::from(ParcelKey::NOTIFICATIONS_MAX), || {
            format!("{id} has {count} notifications")
        });
        Some(Delivered::Notification(id))
    }

    /// No receipt before its submit_sm_resp, for whoever still waits for that.
    pub(super) fn require_answered(&mut self, id: MessageId, fact: &Fact) {
        let Some(token) = fact.tokens.first().copied() else { return };
        let Some(submission) = self.submissions.get(token as usize) else { return };
        if submission.outcome.is_none() && !submission.is_replacement && self.listens(submission.connection) {
            self.early.push((id, token));
        }
    }

    /// Everything that one turn of a core had to say is handed out: what left it together is in order.
    pub fn turn_ended(&mut self) {
        for (id, token) in std::mem::take(&mut self.early) {
            let Submission { outcome, connection, .. } = &self.submissions[token as usize];
            // The line may have been found full only when the response was to be handed out.
            let is_answered = outcome.is_some() || !self.listens(*connection);
            self.require(is_answered, || format!("the receipt of {id} came before the response to {token}"));
        }
    }

    pub(super) fn check_repetition(
        &mut self,
        about: Delivered,
        connection: Connection,
        sequence_number: u32,
    ) {
        if let Delivered::Notification(_) = about {
            return;
        }
        if let Delivered::Receipt(id) = about {
            let is_settled = self.settled.contains(&ParcelKey { id, part: ParcelKey::FINAL_RECEIPT });
            self.require(!is_settled, || format!("the receipt of {id} was sent again after it was settled"));
        }
        let sent = Sent { epoch: self.epoch, connection, sequence_number, at: self.now, answer: None };
        if let Some(before) = self.last_sent.insert(about, sent)
            && let Delivered::Receipt(_) = about
        {
            let is_open = self.lines.get(&before.connection).is_some_and(|line| line.is_open);
            let is_explained = before.epoch != self.epoch
                || !is_open
                // A failed disk cannot note that it was confirmed.
                || !self.failed.is_empty()
                || before.at + self.response_nanos <= self.now
                || before.answer.is_some_and(|status| status != CommandStatus::ESME_ROK);
            self.require(is_explained, || format!("{about:?} was sent twice: {before:?}"));
        }
    }

    /// An ESME has a deliver_sm in its hands.
    pub fn arrived(&mut self, deliver: &ShortMessage<'_>) {
        if deliver.esm_class.message_type() == 0 {
            self.arrived.extend(token_of(deliver.short_message).map(Delivered::Reply));
            return;
        }
        let Some(parsed) = ParsedReceipt::parse(deliver.short_message) else { return };
        let Some(id) = parsed.message_id.and_then(MessageId::parse) else { return };
        if !parsed.state.is_some_and(MessageState::is_final) {
            return;
        }
        let count = self.facts.get(&id).map_or(1, |fact| fact.batch_count);
        let member = (0..count)
            .map(|offset| id.in_batch(offset))
            .find(|id| self.facts.get(id).is_some_and(|fact| *fact.destination == *deliver.source.digits));
        self.arrived.extend(member.map(Delivered::Receipt));
    }

    /// What is still to come: messages without an end, receipts and replies that have not arrived.
    pub fn missing(&self) -> Option<String> {
        let open = self.facts.iter().find(|(_, fact)| fact.ended.is_none());
        if let Some((id, fact)) = open {
            return Some(format!("{id} {fact:?} has no final state"));
        }
        let unreceipted = self.facts.iter().find(|(id, fact)| {
            fact.wants_receipt()
                && !self.arrived.contains(&Delivered::Receipt(**id))
                && !self.refused_for_good.contains(id)
        });
        if let Some((id, fact)) = unreceipted {
            return Some(format!("the receipt of {id} {fact:?} has not arrived"));
        }
        let reply =
            self.acknowledged_replies.iter().find(|token| !self.arrived.contains(&Delivered::Reply(**token)));
        reply.map(|token| format!("reply {token} has not arrived"))
    }
}
