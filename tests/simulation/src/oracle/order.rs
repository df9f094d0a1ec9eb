//! Order: what one session sends is accepted in its order, and of two messages to one destination the first goes first.

use std::collections::BTreeMap;

use super::{Connection, Life, Oracle, Token};

/// What was offered last of all that one session sent to one destination: the place of its request.
pub(super) type Offered = BTreeMap<(Connection, Box<[u8]>), u64>;

impl Oracle {
    /// A carrier is offered a message for the first time.
    pub(super) fn check_order(&mut self, life: Life) {
        let Some(fact) = self.facts.get(&life) else { return };
        // One that was replaced, or has a time of its own, has left its place.
        let &[token] = fact.tokens.as_slice() else { return };
        if fact.times.deliver_at > fact.accepted_at {
            return;
        }
        // One whose validity the clock has ended may have been over in a process that did not come to write it.
        if self.wall.latest_since(fact.begun, self.now) >= fact.times.expires_at {
            return;
        }
        let Some(submission) = self.submissions.get(token as usize) else { return };
        let (order, destination) = (submission.order, fact.destination.clone());
        let newest = self.offered.entry((submission.connection, destination)).or_default();
        let is_in_order = *newest <= order;
        *newest = (*newest).max(order);
        self.require(is_in_order, || {
            format!("{life:?} was offered behind another that was submitted later to the same destination")
        });
    }

    /// A submission was accepted.
    pub(super) fn check_order_of_answers(&mut self, token: Token) {
        let Some(submission) = self.submissions.get(token as usize) else { return };
        let wish = &submission.wish;
        if submission.is_replacement || wish.replaces_if_present || wish.is_transaction {
            return;
        }
        let (connection, order) = (submission.connection, submission.order);
        let newest = self.accepted.entry(connection).or_default();
        let is_in_order = *newest <= order;
        *newest = (*newest).max(order);
        self.require(is_in_order, || {
            format!("submission {token} was accepted behind another that was submitted later")
        });
    }
}
