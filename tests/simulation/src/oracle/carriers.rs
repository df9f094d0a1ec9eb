//! What carriers are offered, and which of their reports they are told to forget.

use smppd::message::{Content, MessageId};
use smppd::pdu::CommandStatus;

use super::{Oracle, Token, token_of};

impl Oracle {
    /// Whether a carrier may be offered this now; why not. `offers`: how often it was before, not counting those that only
    /// resumed an attempt, if it ever was.
    pub fn offered(&mut self, content: &Content<'_>, offers: Option<u32>, resumed: bool) {
        let id = content.id;
        let Some(fact) = self.facts.get(&id) else {
            return self.violate(format!("{id} was offered before it was durable"));
        };
        let (attempts, ended, deliver_at) = (fact.attempts, fact.ended, fact.times.deliver_at);
        // What was due before a restart is due, even if the clock was put back.
        let wall = if resumed || offers.is_some() { self.wall_latest } else { self.wall };
        let offers = offers.unwrap_or(0);
        self.require(wall >= deliver_at, || {
            format!("{id} was offered at {wall}, it was to wait until {deliver_at}")
        });
        let needed = if resumed { 1 } else { offers + 1 };
        self.require(attempts >= needed, || {
            format!("{id} was offered {offers} times before, with {attempts} attempts on record")
        });
        self.require(ended.is_none(), || format!("{id} was offered after it ended {ended:?}"));
        let was_cancelled = self.cancelled.contains(&id);
        self.require(!was_cancelled, || format!("{id} was offered after it was cancelled"));
        if let Some(token) = token_of(content.user_data)
            && let Some(submission) = self.submissions.get(token as usize)
            && let Some(status) = submission.outcome
        {
            let is_doubtful = submission.is_doubtful;
            self.require(status == CommandStatus::ESME_ROK || is_doubtful, || {
                format!("{id} was offered though submission {token} was refused with {status}")
            });
        }
    }

    /// A carrier says that a message has expired.
    pub fn said_expired(&mut self, id: MessageId) {
        self.said_expired.insert(id);
    }

    /// A report need not be said again: is what it said durable?
    pub fn acknowledged_end(&mut self, id: MessageId) {
        let is_over = self.facts.get(&id).is_some_and(|fact| fact.ended.is_some());
        self.require(is_over, || format!("the report of {id}'s end was acknowledged before it was durable"));
    }

    /// A reply need not be said again: is it durable?
    pub fn acknowledged_reply(&mut self, token: Token, destination: &[u8]) {
        let Some(owner) = self.owner_of(destination) else { return };
        let is_stored = self.stored_replies.contains(&token);
        // While an account is removed its numbers are nobody's.
        self.require(is_stored || self.removed.contains(&owner), || {
            format!("reply {token} was acknowledged before it was durable")
        });
        if is_stored {
            self.acknowledged_replies.insert(token);
        }
    }

    pub(super) fn owner_of(&self, number: &[u8]) -> Option<usize> {
        self.bounds.iter().position(|account| account.numbers.iter().any(|own| own.as_bytes() == number))
    }
}
