//! Submissions and replacements: what was asked for, what was answered, what is on record at the end.

use std::collections::BTreeMap;

use smppd::message::MessageId;
use smppd::pdu::CommandStatus;
use smppd::time::Timestamp;

use super::{Connection, Fact, Oracle, Token};
use crate::terms::Terms;

/// Something an ESME submitted.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) account: usize,
    pub(super) connection: Connection,
    pub(super) terms: Terms,
    pub(super) is_replacement: bool,
    /// When a core took it in, by either clock.
    pub(super) taken_in: Option<(u64, Timestamp)>,
    /// Messages of its account's rate that it took, at least.
    pub(super) admitted: u64,
    /// What the server said, when it did.
    pub(super) outcome: Option<CommandStatus>,
    pub(super) id: Option<MessageId>,
    /// A refusal that tells how the message ended, or that nobody knows.
    pub(super) is_doubtful: bool,
}

impl Oracle {
    /// A new submission; its token.
    pub fn submitting(
        &mut self,
        account: usize,
        connection: Connection,
        terms: Terms,
        is_replacement: bool,
    ) -> Token {
        self.submissions.push(Submission {
            account,
            connection,
            terms,
            is_replacement,
            taken_in: None,
            admitted: 0,
            outcome: None,
            id: None,
            is_doubtful: false,
        });
        (self.submissions.len() - 1) as Token
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
            return;
        }
        self.seen.accepted += 1;
        let id = if is_replace_sm { before } else { id };
        let Some(id) = id else {
            return self.violate(format!("submission {token} was accepted without a message_id"));
        };
        submission.id = Some(id);
        let fact = self.facts.get(&id);
        let (account, of_fact) = (submission.account, fact.map(|fact| fact.account.clone()));
        let is_stored = fact.is_some_and(|fact| fact.tokens.contains(&token));
        self.require(is_stored, || {
            format!("submission {token} was answered with {id} before it was durable")
        });
        let name = self.bounds[account].name.clone();
        self.require(of_fact.is_none_or(|of| *of == *name.as_bytes()), || {
            format!("{id} of {name} belongs to another")
        });
        if !is_replace_sm && fact_is_first(self.facts.get(&id), token) {
            let earlier = self.answered_ids.insert(id, token);
            self.require(earlier.is_none(), || format!("{id} was given to {earlier:?} and to {token}"));
        }
    }

    /// Which message a replacement is for.
    pub fn replacing(&mut self, token: Token, id: MessageId) {
        if let Some(submission) = self.submissions.get_mut(token as usize) {
            submission.id = Some(id);
        }
    }

    /// At the end of a run: nobody was faster than he may be.
    pub fn check_rates(&mut self) {
        let admitted = |token: Token| self.submissions.get(token as usize).map_or(0, |asked| asked.admitted);
        let accounts = self.allowances.iter().zip(&self.bounds);
        let mut wrong: Vec<String> = accounts
            .filter_map(|(allowance, account)| {
                let wrong = allowance.check_rate(admitted)?;
                Some(format!("{}: {wrong}", account.name))
            })
            .collect();
        self.violations.append(&mut wrong);
    }

    /// At the end of a run: refusals left no trace, acceptances one message each.
    pub fn check_submissions(&mut self) {
        let mut traces: BTreeMap<Token, Vec<MessageId>> = BTreeMap::new();
        for (id, fact) in &self.facts {
            fact.tokens.iter().for_each(|token| traces.entry(*token).or_default().push(*id));
        }
        let mut wrong = Vec::new();
        for (token, submission) in (0..).zip(&self.submissions) {
            let found = traces.get(&token).map_or(&[][..], Vec::as_slice);
            // replace_if_present may put it in the place of one message of a submit_multi.
            let first = found.first().and_then(|id| self.facts.get(id));
            let is_first = fact_is_first(first, token);
            let whole = first.map_or(1, |fact| if is_first { fact.batch_count } else { 1 });
            let is_whole = found.len() == usize::from(whole);
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

fn fact_is_first(fact: Option<&Fact>, token: Token) -> bool {
    fact.is_some_and(|fact| fact.tokens.first() == Some(&token))
}
