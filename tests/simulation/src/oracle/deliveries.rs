//! Receipts, notifications and replies on the wire: to whom, when, how often.

use smppd::message::{MessageId, ParcelKey};
use smppd::pdu::receipt::{MessageState, ParsedReceipt};
use smppd::pdu::{CommandStatus, ShortMessage};
use smppd::session::BindMode;

use super::connections::Line;
use super::submissions::Submission;
use super::{Connection, Fact, Life, Oracle, Parcel, token_of};

/// What the server sent last about something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) epoch: u32,
    pub(super) connection: Connection,
    pub(super) sequence_number: u32,
    pub(super) at: u64,
    pub(super) answer: Option<CommandStatus>,
}

impl Oracle {
    pub(super) fn delivering(
        &mut self,
        connection: Connection,
        sequence_number: u32,
        deliver: &ShortMessage<'_>,
    ) {
        let Some(line) = self.lines.get(&connection) else { return };
        let (account, is_open, receives) =
            (line.esme_account, line.is_open, line.mode != BindMode::Transmitter);
        self.require(is_open, || format!("{connection} is closed and is sent to"));
        self.require(receives, || format!("{connection} is a transmitter and is sent to"));
        let about = if deliver.esm_class.message_type() == 0 {
            self.delivering_reply(account, deliver)
        } else {
            self.delivering_receipt(connection, account, deliver)
        };
        if let Some(about) = about {
            self.check_repetition(about, connection, sequence_number);
        }
        self.books[account].served_at = self.now;
        let (now, since) = (self.now, self.now.saturating_sub(self.response_nanos));
        let Some(line) = self.lines.get_mut(&connection) else { return };
        line.deliveries.insert(sequence_number, (now, about));
        let in_flight = line.deliveries.values().filter(|(at, _)| *at > since).count();
        let (_, window) = line.window;
        self.require(in_flight <= window, || format!("{in_flight} deliver_sm in flight, {window} may be"));
    }

    fn delivering_reply(&mut self, account: usize, deliver: &ShortMessage<'_>) -> Option<Parcel> {
        let Some(token) = token_of(deliver.short_message) else {
            self.violate("a reply that nobody wrote".to_owned());
            return None;
        };
        let is_written = self.written.get(&token).into_iter().flatten().any(|writing| {
            *writing.text == *deliver.short_message
                && *writing.source == *deliver.source.digits
                && *writing.destination == *deliver.destination.digits
        });
        self.require(is_written, || format!("nobody wrote this: {deliver:?}"));
        // It may have come twice, and its number have gone to another account in between.
        let is_own = |name: &Parcel| self.owed.get(name).is_some_and(|owed| owed.account == account);
        let copies = self.replies.get(&token).into_iter().flatten().map(|life| (*life, ParcelKey::REPLY));
        let copies: Vec<Parcel> = copies.filter(is_own).collect();
        let Some(name) = self.next_of(&copies) else {
            self.violate(format!(
                "reply {token} went to account {account}: it is another's, not durable, or settled"
            ));
            return None;
        };
        self.seen.replies += 1;
        Some(name)
    }

    fn delivering_receipt(
        &mut self,
        connection: Connection,
        account: usize,
        deliver: &ShortMessage<'_>,
    ) -> Option<Parcel> {
        let Some((life, state)) = self.subject_of(deliver) else {
            let text = String::from_utf8_lossy(deliver.short_message).into_owned();
            self.violate(format!("a receipt for no message: {text}"));
            return None;
        };
        let fact = self.facts[&life].clone();
        let name = self.books[account].name.clone();
        self.require(*fact.account == *name.as_bytes(), || {
            format!("the receipt of {life:?}, which is another's, went to {name}")
        });
        self.require_answered(life.id, &fact, state);
        if state.is_final() {
            let ended = fact.ended();
            self.require(ended == Some(state), || {
                format!("a receipt tells {life:?} {state:?}, it is {ended:?}")
            });
            self.require(fact.wants_receipt(), || format!("nobody asked for the receipt of {life:?}"));
            self.seen.receipts += 1;
        } else {
            self.seen.notifications += 1;
        }
        let about = self.parcel_of(life, state, deliver)?;
        self.check_receipt(connection, about, &fact, deliver);
        Some(about)
    }

    /// Which message a receipt is about, and what it tells of it.
    fn subject_of(&self, deliver: &ShortMessage<'_>) -> Option<(Life, MessageState)> {
        let parsed = ParsedReceipt::parse(deliver.short_message)?;
        let public_id = parsed.message_id.and_then(MessageId::parse)?;
        let state = parsed.state?;
        let count = self.fact(public_id).map_or(1, |fact| fact.batch_count);
        let members = (0..count).map(|offset| public_id.in_batch(offset));
        let id = members
            .into_iter()
            .find(|id| self.fact(*id).is_some_and(|fact| *fact.destination == *deliver.source.digits))?;
        Some((self.life(id), state))
    }

    /// Which of the parcels of a message this is. Two notifications may look alike: then the first that is not settled.
    fn parcel_of(&mut self, life: Life, state: MessageState, deliver: &ShortMessage<'_>) -> Option<Parcel> {
        if state.is_final() {
            return Some((life, ParcelKey::FINAL_RECEIPT));
        }
        let parts = ParcelKey::NOTIFICATION_FIRST..ParcelKey::FINAL_RECEIPT;
        let alike: Vec<Parcel> =
            parts.map(|part| (life, part)).filter(|name| self.is_receipt(*name, deliver)).collect();
        let found = self.next_of(&alike);
        self.require(found.is_some(), || {
            let text = String::from_utf8_lossy(deliver.short_message).into_owned();
            format!("no notification of {life:?} says this, or it was settled: {text}")
        });
        found
    }

    /// Which of several that look alike is sent: one that is not settled, rather one that is not under way.
    fn next_of(&self, alike: &[Parcel]) -> Option<Parcel> {
        let is_open =
            |name: &&Parcel| self.owed.get(name).is_some_and(|owed| !owed.is_settled || owed.is_given_up);
        let is_fresh = |name: &&Parcel| {
            let is_sent = self.last_sent.get(name).is_some_and(|sent| sent.epoch == self.epoch);
            is_open(name) && !is_sent
        };
        alike.iter().find(is_fresh).or_else(|| alike.iter().find(is_open)).copied()
    }

    /// No receipt before its submit_sm_resp, for whoever still waits for that.
    fn require_answered(&mut self, id: MessageId, fact: &Fact, state: MessageState) {
        let first = fact.tokens.first();
        // Who supersedes a message is told first, too, unless it was taken back before that.
        let last = fact.tokens.last().filter(|_| state != MessageState::DELETED);
        for token in first.into_iter().chain(last).copied() {
            let Some(submission) = self.submissions.get(token as usize) else { return };
            let is_waiting = submission.outcome.is_none() && !submission.is_replacement;
            if is_waiting && self.listens(submission.connection) {
                self.early.push((id, token));
            }
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

    fn check_repetition(&mut self, about: Parcel, connection: Connection, sequence_number: u32) {
        // It was written before its peer closed, and only now there was room for it: since then it went elsewhere.
        let closed_at = self.lines.get(&connection).and_then(|line| line.closed_at);
        let went_elsewhere = |before: &Sent| {
            let is_here = before.epoch == self.epoch && before.connection != connection;
            is_here && closed_at.is_some_and(|closed_at| before.at >= closed_at)
        };
        if self.last_sent.get(&about).is_some_and(went_elsewhere) {
            return;
        }
        let is_settled = self.owed.get(&about).is_some_and(|owed| owed.is_settled);
        // One that its retention ended may have been on its way.
        let was_given_up = self.owed.get(&about).is_some_and(|owed| owed.is_given_up);
        self.require(!is_settled || was_given_up, || {
            format!("parcel {} of {:?} was sent again after it was settled", about.1, about.0)
        });
        let sent = Sent { epoch: self.epoch, connection, sequence_number, at: self.now, answer: None };
        if let Some(owed) = self.owed.get_mut(&about) {
            owed.late.0 = 0;
        }
        let is_one = self.alike(about).len() == 1;
        if let Some(before) = self.last_sent.insert(about, sent)
            && is_one
        {
            let line = self.lines.get(&before.connection);
            let is_open = line.is_some_and(|line| line.is_open && line.closed_at.is_none());
            let is_explained = before.epoch != self.epoch
                || !is_open
                // A failed disk cannot note that it was confirmed.
                || self.failed.contains_key(&about.0.id.partition())
                || before.at + self.response_nanos <= self.now
                || before.answer.is_some_and(|status| status != CommandStatus::ESME_ROK);
            let has_failed = self.failed.contains_key(&about.0.id.partition());
            let is_done = self
                .owed
                .get(&about)
                .is_some_and(|owed| owed.is_done && owed.done_in == self.epoch && !has_failed);
            self.require(is_explained && !is_done, || format!("{about:?} was sent twice: {before:?}"));
        }
    }

    /// The server has read the answer to a deliver_sm.
    pub(super) fn delivered(&mut self, connection: Connection, sequence_number: u32, status: CommandStatus) {
        let Some(line) = self.lines.get_mut(&connection) else { return };
        let Some((at, Some(about))) = line.deliveries.remove(&sequence_number) else { return };
        let is_in_time = at + self.response_nanos > self.now;
        let is_done = matches!(
            status,
            CommandStatus::ESME_ROK | CommandStatus::ESME_RX_P_APPN | CommandStatus::ESME_RX_R_APPN
        );
        if is_done {
            self.note_done(about, if is_in_time { self.epoch } else { 0 });
        }
        if let Some(sent) = self.last_sent.get_mut(&about)
            && (sent.connection, sent.sequence_number) == (connection, sequence_number)
        {
            sent.answer = Some(status);
        }
    }

    fn note_done(&mut self, about: Parcel, done_in: u32) {
        let alike = self.alike(about);
        let is_open = |name: &&Parcel| self.owed.get(name).is_some_and(|owed| !owed.is_done);
        let open = alike.iter().find(is_open).copied();
        if let Some(owed) = open.and_then(|name| self.owed.get_mut(&name)) {
            (owed.is_done, owed.done_in, owed.late.0) = (true, done_in, 0);
        }
    }

    /// Whether the server must be waiting for what becomes of a deliver_sm: its time is not over, even if that was
    /// never given back.
    pub(super) fn is_in_flight(&self, sent: &Sent) -> bool {
        self.waits_on(sent).is_some_and(|_| sent.at + self.response_nanos > self.now)
    }

    /// Whether it may wait for that, or have done so until so long ago.
    pub(super) fn may_be_in_flight(&self, sent: &Sent, nanos: u64) -> bool {
        self.waits_on(sent)
            .is_some_and(|line| sent.at.max(line.deaf_until) + self.response_nanos + nanos > self.now)
    }

    /// The line on which the answer to a deliver_sm may still come.
    fn waits_on(&self, sent: &Sent) -> Option<&Line> {
        let is_awaited = sent.answer.is_none() && sent.epoch == self.epoch;
        let line = self.lines.get(&sent.connection).filter(|_| is_awaited);
        line.filter(|line| line.is_open && line.closed_at.is_none())
    }

    /// An ESME has a deliver_sm in its hands.
    pub fn arrived(&mut self, deliver: &ShortMessage<'_>) {
        let about: Vec<Parcel> = if deliver.esm_class.message_type() == 0 {
            let copies = token_of(deliver.short_message).and_then(|token| self.replies.get(&token));
            copies.into_iter().flatten().map(|life| (*life, ParcelKey::REPLY)).collect()
        } else {
            let Some((life, state)) = self.subject_of(deliver) else { return };
            // It may have been on its way until its name was used again.
            let lives = (0..=life.number).map(|number| Life { number, ..life });
            lives
                .map(|life| (life, ParcelKey::FINAL_RECEIPT))
                .filter(|name| self.owed.get(name).is_some_and(|owed| owed.state == Some(state)))
                .collect()
        };
        for name in about {
            if let Some(owed) = self.owed.get_mut(&name) {
                owed.has_arrived = true;
            }
        }
    }

    /// What is still to come: messages without an end, receipts and replies that have not arrived.
    pub fn missing(&self) -> Option<String> {
        let open = self.facts.iter().find(|(_, fact)| fact.end.is_none());
        if let Some((life, fact)) = open {
            return Some(format!("{life:?} {fact:?} has no final state"));
        }
        let missing = self.owed.iter().find(|((_, part), owed)| {
            let is_notification = *part != ParcelKey::REPLY && *part != ParcelKey::FINAL_RECEIPT;
            let has_come = owed.has_arrived || is_notification && owed.is_settled;
            !(has_come || owed.is_given_up || owed.is_done && owed.is_settled)
        });
        missing.map(|((life, part), owed)| {
            let what = match *part {
                ParcelKey::REPLY => "reply",
                ParcelKey::FINAL_RECEIPT => "receipt",
                _ => "notification",
            };
            format!("the {what} of {life:?}, {owed:?}, has not arrived")
        })
    }
}
