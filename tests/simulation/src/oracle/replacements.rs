//! replace_if_present_flag: which message it is to supersede, and when it makes a new one.

use smppd::message::MessageId;
use smppd::time::Timestamp;

use super::submissions::fact_is_first;
use super::{Fact, Life, Oracle, Token};

/// A message that a submission with replace_if_present_flag may supersede.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    pub(super) life: Life,
    pub(super) attempts: u32,
}

impl Oracle {
    /// What waits for certain that a submission is to supersede, if it asks for that.
    pub(super) fn candidates(&self, token: Token) -> Vec<Candidate> {
        if let Some(submission) = self.submissions.get(token as usize)
            && let Some(id) = submission.id
            && submission.is_replacement
        {
            // A replace_sm names its message.
            let life = self.life(id);
            let own = self.facts.get(&life).filter(|fact| {
                fact.waits()
                    && *fact.account == *self.books[submission.account].name.as_bytes()
                    && (submission.wish.source.is_empty() || fact.source == submission.wish.source)
            });
            return own.map(|fact| Candidate { life, attempts: fact.attempts }).into_iter().collect();
        }
        let replaces =
            self.submissions.get(token as usize).is_some_and(|asked| asked.wish.replaces_if_present);
        let facts =
            self.facts.iter().filter(|(_, fact)| replaces && fact.waits() && self.matches(token, fact));
        facts.map(|(life, fact)| Candidate { life: *life, attempts: fact.attempts }).collect()
    }

    /// Whether a message is of the account, service_type and addresses that a submission names.
    fn matches(&self, token: Token, fact: &Fact) -> bool {
        let Some(submission) = self.submissions.get(token as usize) else { return false };
        let wish = &submission.wish;
        *fact.account == *self.books[submission.account].name.as_bytes()
            && !wish.source.is_empty()
            && fact.source == wish.source
            && wish.destinations.contains(&fact.destination)
            && fact.service_type == wish.service_type
    }

    /// A submission was accepted as this message.
    pub(super) fn check_replaced(&mut self, token: Token, id: MessageId) {
        let submission = self.submissions[token as usize].clone();
        // What was undecided because this was unanswered.
        let decided = |pair: &&(Token, Token)| pair.1 == token;
        let decided: Vec<Token> = self.undecided.iter().filter(decided).map(|(behind, _)| *behind).collect();
        self.undecided.retain(|(_, before)| *before != token);
        for behind in decided {
            self.require_superseded(behind, token);
        }
        if !submission.wish.replaces_if_present {
            return;
        }
        let Some((since, _)) = submission.taken_in else { return };
        let life = self.life(id);
        let Some(fact) = self.facts.get(&life).cloned() else { return };
        let matches = self.matches(token, &fact) || submission.wish.source.is_empty();
        self.require(matches, || {
            format!("submission {token} has superseded {life:?}, which is another: {fact:?}")
        });
        let is_new = fact_is_first(Some(&fact), token);
        let is_asked = self.failed.values().all(|failed_at| *failed_at >= since);
        self.require(!is_new || is_asked, || {
            format!("submission {token} made {life:?}, and not every partition could be asked what waits")
        });
        let has_failed = self.could_not_ask(None, since);
        for Candidate { life: other, attempts } in submission.candidates {
            if other == life || has_failed || !self.waits_still(other, attempts) {
                continue;
            }
            self.require(!is_new, || {
                format!("submission {token} made {life:?}, and {other:?} waits as before")
            });
            let is_newer = self.is_certainly_newer(other, life);
            self.require(!is_newer, || {
                format!("submission {token} has superseded {life:?}, and {other:?} is newer")
            });
        }
        if is_new && !has_failed {
            self.look_before(token);
        }
    }

    /// What was submitted before on the same session is superseded, too, though it was not durable then.
    fn look_before(&mut self, token: Token) {
        let submission = &self.submissions[token as usize];
        let before: Vec<Token> = (0..)
            .zip(&self.submissions)
            .filter(|(_, other)| {
                other.connection == submission.connection
                    && other.taken_in.is_some()
                    && other.order < submission.order
                    && !other.is_replacement
                    && other.wish.source == submission.wish.source
                    && other.wish.service_type == submission.wish.service_type
                    && other.wish.destinations == submission.wish.destinations
            })
            .map(|(other, _)| other)
            .collect();
        for other in before {
            match self.submissions[other as usize].outcome {
                None => self.undecided.push((token, other)),
                Some(_) => self.require_superseded(token, other),
            }
        }
    }

    /// What was submitted before on the same session waits: then what came behind it must not have made a message.
    fn require_superseded(&mut self, token: Token, before: Token) {
        let (behind, before_it) = (&self.submissions[token as usize], &self.submissions[before as usize]);
        let (Some(id), Some((since, _))) = (before_it.id, before_it.taken_in) else { return };
        let made = behind.id;
        let other = self.life(id);
        // The name may have come round to another message since.
        let is_it = |fact: &Fact| fact.tokens.contains(&before) && fact.attempts == 0;
        let never_tried = self.facts.get(&other).is_some_and(is_it);
        let waits = made != Some(id) && never_tried && self.waits_still(other, 0);
        let has_failed = self.could_not_ask(None, since);
        self.require(!waits || has_failed, || {
            format!("submission {token} made {made:?}, and {other:?} of {before} before it waits as before")
        });
    }

    /// Whether one message was accepted behind another for certain, and nobody changed either since.
    fn is_certainly_newer(&self, one: Life, other: Life) -> bool {
        let of = |life: Life| {
            let fact = self.facts.get(&life)?;
            let untouched = fact.changed == fact.noted && fact.batch_offset == 0;
            let first = self.submissions.get(*fact.tokens.first()? as usize)?;
            let (at, _) = first.taken_in?;
            untouched.then_some((at, fact.accepted_at))
        };
        let (Some((at, accepted_at)), Some((other_at, other_accepted_at))) = (of(one), of(other)) else {
            return false;
        };
        // What a core has superseded meanwhile was not touched either before that.
        let gap = Timestamp::from_millis(other_accepted_at.as_millis() + 3);
        one.id.is_short() == other.id.is_short()
            && (one.id > other.id || one.id.is_short())
            && at > other_at
            && accepted_at > gap
            && !self.wall.was_set_since(other_at)
    }
}
