//! Submissions and replacements: what was asked for, what was answered, what is on record at the end.

use std::collections::BTreeMap;

use smppd::message::{MessageId, PartitionNumber};
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{CommandStatus, DataCoding, RegisteredDelivery, UnsuccessSmes};
use smppd::time::Timestamp;

use super::Asked;
use super::refusals::unmapped;
use super::replacements::Candidate;
use super::{Connection, Fact, Life, Oracle, Token};
use crate::terms::{Terms, When};

/// What a submission asks for, as far as it decides what becomes of it.
#[derive(Clone, Default, Debug)]
pub struct Wish {
    /// source_addr; empty for the account's default number.
    pub source: Box<[u8]>,
    /// Where to.
    pub destinations: Vec<Box<[u8]>>,
    /// service_type.
    pub service_type: Box<[u8]>,
    /// replace_if_present_flag is 1.
    pub replaces_if_present: bool,
    /// Its sender waits for the outcome.
    pub is_transaction: bool,
    /// What its sender wants to hear of it.
    pub registered_delivery: RegisteredDelivery,
    /// How its text is written; a replace_sm does not say it.
    pub data_coding: Option<DataCoding>,
    /// Its text.
    pub text: Box<[u8]>,
    /// user_message_reference.
    pub reference: Option<Box<[u8]>>,
}

/// Something an ESME submitted.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) account: usize,
    pub(super) connection: Connection,
    /// Where it goes.
    pub(super) partition: PartitionNumber,
    pub(super) terms: Terms,
    pub(super) wish: Wish,
    /// It is a replace_sm.
    pub(super) is_replacement: bool,
    /// When a core took it in, by either clock.
    pub(super) taken_in: Option<(u64, Timestamp)>,
    /// Its place among all that was taken in.
    pub(super) order: u64,
    /// Messages of its account's rate that it took, at least.
    pub(super) admitted: u64,
    /// What the server said, when it did.
    pub(super) outcome: Option<CommandStatus>,
    pub(super) id: Option<MessageId>,
    /// A refusal that tells how the message ended, or that nobody knows.
    pub(super) is_doubtful: bool,
    /// Destinations of a submit_multi that must fail, in their order.
    pub(super) failing: Vec<Box<[u8]>>,
    /// What waited for certain when a replacement was taken in.
    pub(super) candidates: Vec<Candidate>,
}

impl Oracle {
    /// A new submission; its token.
    pub fn submitting(&mut self, account: usize, connection: Connection, terms: Terms, wish: Wish) -> Token {
        self.submissions.push(Submission {
            account,
            connection,
            partition: PartitionNumber(0),
            terms,
            wish,
            is_replacement: false,
            taken_in: None,
            order: 0,
            admitted: 0,
            outcome: None,
            id: None,
            is_doubtful: false,
            failing: Vec::new(),
            candidates: Vec::new(),
        });
        (self.submissions.len() - 1) as Token
    }

    /// A new replace_sm for a message; its token.
    pub fn replacing(
        &mut self,
        account: usize,
        connection: Connection,
        terms: Terms,
        (id, source): (MessageId, &[u8]),
    ) -> Token {
        let wish = Wish { source: source.into(), ..Wish::default() };
        let token = self.submitting(account, connection, terms, wish);
        if let Some(submission) = self.submissions.get_mut(token as usize) {
            (submission.is_replacement, submission.id) = (true, Some(id));
        }
        token
    }

    /// The token of the last submission.
    pub fn newest(&self) -> Option<Token> {
        self.submissions.len().checked_sub(1).map(|last| last as Token)
    }

    /// What the server said to a submission, if it did.
    pub fn outcome(&self, token: Token) -> Option<CommandStatus> {
        self.submissions.get(token as usize)?.outcome
    }

    /// What a submission asks for is known only now that it is written.
    pub fn wishing(&mut self, token: Token, wish: Wish) {
        if let Some(submission) = self.submissions.get_mut(token as usize) {
            submission.wish = wish;
        }
    }

    /// Destinations of a submit_multi that no message is made for.
    pub fn failing(&mut self, token: Token, failing: Vec<Box<[u8]>>) {
        if let Some(submission) = self.submissions.get_mut(token as usize) {
            submission.failing = failing;
        }
    }

    /// Whether unsuccess_sme names what must have failed, and nothing else.
    pub(super) fn check_unsuccess(&mut self, token: Token, told: UnsuccessSmes<'_>) {
        let Some(submission) = self.submissions.get(token as usize) else { return };
        let told: Vec<(Box<[u8]>, CommandStatus)> = told
            .iter()
            .map(|failed| (failed.destination.digits.into(), unmapped(failed.error_status_code)))
            .collect();
        let status = CommandStatus::ESME_RINVDSTADR;
        let right: Vec<_> = submission.failing.iter().map(|digits| (digits.clone(), status)).collect();
        self.require(told == right, || {
            format!("of submission {token} {told:?} failed, it should be {right:?}")
        });
    }

    pub(super) fn submission_taken_in(&mut self, token: Token) {
        let (now, wall, order) = (self.now, self.wall.now, self.order);
        let candidates = self.candidates(token);
        let Some(submission) = self.submissions.get_mut(token as usize) else { return };
        (submission.taken_in, submission.order) = (Some((now, wall)), order);
        if let Some(line) = self.lines.get(&submission.connection) {
            submission.partition = line.partition;
        }
        // A replace_sm goes where its message is.
        if let Some(id) = submission.id {
            submission.partition = id.partition();
        }
        submission.candidates = candidates;
        // Behind a request of which every partition has a part it may wait: nobody knows when it is admitted.
        let (account, connection) = (submission.account, submission.connection);
        let is_behind = self.has_search_under_way(connection, token);
        let allowance = &mut self.books[account].allowance;
        match is_behind {
            false => allowance.requested(token, now),
            true => allowance.requested_some_time(token, now),
        }
    }

    /// Whether a request that may keep others of its session waiting has no answer yet.
    fn has_search_under_way(&self, connection: Connection, but: Token) -> bool {
        let Some(line) = self.lines.get(&connection) else { return false };
        let replaces = |token: &Token| {
            *token != but
                && self.submissions.get(*token as usize).is_some_and(|other| other.wish.replaces_if_present)
        };
        line.asked.values().filter(|(_, taken_in)| taken_in.is_some()).any(|(asked, _)| match asked {
            Asked::Submit(token) => replaces(token),
            Asked::Cancel(_) => true,
            Asked::Bind(..) | Asked::Query(_) | Asked::Replace(_) | Asked::QueryForeign => false,
        })
    }

    pub(super) fn answered(
        &mut self,
        token: Token,
        status: CommandStatus,
        id: Option<MessageId>,
        is_replace_sm: bool,
    ) {
        let Some(submission) = self.submissions.get_mut(token as usize) else { return };
        submission.outcome = Some(status);
        submission.is_doubtful = status == CommandStatus::ESME_RDELIVERYFAILURE;
        let before = submission.id;
        if status != CommandStatus::ESME_ROK {
            self.seen.refused += 1;
            self.seen.throttled += u64::from(status == CommandStatus::ESME_RTHROTTLED);
            self.seen.unpaid += u64::from(status == CommandStatus::ESME_RSUBMITFAIL);
            self.check_outcome(token);
            return self.check_refusal(token, status);
        }
        self.seen.accepted += 1;
        let id = if is_replace_sm { before } else { id };
        let Some(id) = id else {
            return self.violate(format!("submission {token} was accepted without a message_id"));
        };
        submission.id = Some(id);
        let fact = self.fact(id);
        let is_stored = fact.is_some_and(|fact| fact.tokens.contains(&token));
        let of_fact = fact.map(|fact| fact.account.clone());
        let account = self.submissions[token as usize].account;
        // A name may have come again before its old message's answer could be handed out.
        let is_stored = is_stored || self.is_on_record(id, token);
        self.require(is_stored, || {
            format!("submission {token} was answered with {id} before it was durable")
        });
        let name = self.books[account].name.clone();
        self.require(of_fact.is_none_or(|of| *of == *name.as_bytes()), || {
            format!("{id} of {name} belongs to another")
        });
        self.check_order_of_answers(token);
        self.check_outcome(token);
        if !is_replace_sm {
            self.check_replaced(token, id);
        }
    }

    /// Who waits for the outcome is told that: ESME_ROK that it is delivered, ESME_RDELIVERYFAILURE that it is not.
    fn check_outcome(&mut self, token: Token) {
        let Some(submission) = self.submissions.get(token as usize) else { return };
        if !submission.wish.is_transaction || submission.terms.schedule != When::Nothing {
            return;
        }
        let made = self.facts.values().find(|fact| fact_is_first(Some(fact), token));
        let ended = made.map(Fact::ended);
        let has_failed = self.failed.contains_key(&submission.partition);
        let is_right = match submission.outcome {
            Some(CommandStatus::ESME_ROK) => ended.is_none() || ended == Some(Some(MessageState::DELIVERED)),
            Some(CommandStatus::ESME_RDELIVERYFAILURE) => {
                has_failed || ended.flatten().is_some_and(|state| state != MessageState::DELIVERED)
            }
            _ => true,
        };
        let outcome = submission.outcome;
        self.require(is_right, || {
            format!("who waits for submission {token} was told {outcome:?}: {ended:?}")
        });
    }

    fn is_on_record(&self, id: MessageId, token: Token) -> bool {
        let lives = (0..=self.life(id).number).map(|number| Life { id, number });
        lives.into_iter().any(|life| self.facts.get(&life).is_some_and(|fact| fact.tokens.contains(&token)))
    }

    /// At the end of a run: nobody was faster than he may be.
    pub fn check_rates(&mut self) {
        let admitted = |token: Token| self.submissions.get(token as usize).map_or(0, |asked| asked.admitted);
        let mut wrong: Vec<String> = self
            .books
            .iter()
            .filter_map(|book| {
                let wrong = book.allowance.check_rate(admitted)?;
                Some(format!("{}: {wrong}", book.name))
            })
            .collect();
        self.violations.append(&mut wrong);
    }

    /// At the end of a run: refusals left no trace, acceptances one message each.
    pub fn check_submissions(&mut self) {
        let mut traces: BTreeMap<Token, Vec<Life>> = BTreeMap::new();
        for (life, fact) in &self.facts {
            fact.tokens.iter().for_each(|token| traces.entry(*token).or_default().push(*life));
        }
        let mut wrong = Vec::new();
        for (token, submission) in (0..).zip(&self.submissions) {
            let found = traces.get(&token).map_or(&[][..], Vec::as_slice);
            // replace_if_present may put it in the place of one message of a submit_multi.
            let first = found.first().and_then(|life| self.facts.get(life));
            let is_first = fact_is_first(first, token);
            let whole = if is_first { submission.wish.destinations.len() } else { 1 };
            let is_whole = found.len() == whole;
            match submission.outcome {
                Some(CommandStatus::ESME_ROK) if !is_whole => {
                    wrong.push(format!("submission {token} was accepted and made {found:?}"));
                }
                Some(CommandStatus::ESME_ROK) => {}
                Some(status) if !submission.is_doubtful && !found.is_empty() => {
                    wrong.push(format!("submission {token} was refused with {status} and made {found:?}"));
                }
                Some(_) | None if !found.is_empty() && !is_whole => {
                    wrong.push(format!("of submission {token} only a part is on record: {found:?}"));
                }
                Some(_) | None => {}
            }
        }
        self.violations.append(&mut wrong);
    }
}

pub(super) fn fact_is_first(fact: Option<&Fact>, token: Token) -> bool {
    fact.is_some_and(|fact| fact.tokens.first() == Some(&token))
}
