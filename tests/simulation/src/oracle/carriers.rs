//! What carriers are offered, and which of their reports they are told to forget.

use smppd::account::AccountSettings;
use smppd::message::{Content, MessageId};
use smppd::pdu::CommandStatus;
use smppd::pdu::receipt::MessageState;

use super::records::Standing;
use super::{Oracle, Token, token_of};

/// What a subscriber wrote, as a carrier said it.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) source: Box<[u8]>,
    pub(super) destination: Box<[u8]>,
    pub(super) text: Box<[u8]>,
    /// When the carrier said it.
    at: u64,
}

impl Oracle {
    /// Whether a carrier may be offered this now; why not. `offers`: how often it was before, not counting those that only
    /// resumed an attempt, if it ever was.
    pub fn offered(&mut self, content: &Content<'_>, offers: Option<u32>, resumed: bool) {
        let id = content.id;
        let life = self.life(id);
        let Some(fact) = self.facts.get_mut(&life) else {
            return self.violate(format!("{id} was offered before it was durable"));
        };
        let mut was_offered = false;
        if let Standing::WithCarrier { is_offered } = &mut fact.standing {
            was_offered = std::mem::replace(is_offered, true);
        }
        let fact = fact.clone();
        self.require(!was_offered, || format!("{id} was offered twice for one attempt"));
        if offers.is_none() {
            self.check_order(life);
        }
        let (attempts, ended, deliver_at) = (fact.attempts, fact.ended(), fact.times.deliver_at);
        // What was due is due, even if the clock was put back.
        let first = fact.tokens.first().and_then(|token| self.submissions.get(*token as usize));
        let since = first.and_then(|submission| submission.taken_in).map_or(fact.noted, |(at, _)| at);
        let wall = self.wall.latest_since(since, self.now);
        let offers = offers.unwrap_or(0);
        self.require(wall >= deliver_at, || {
            format!("{id} was offered at {wall}, it was to wait until {deliver_at}")
        });
        let needed = if resumed { 1 } else { offers + 1 };
        self.require(attempts >= needed, || {
            format!("{id} was offered {offers} times before, with {attempts} attempts on record")
        });
        self.require(ended.is_none(), || format!("{id} was offered after it ended {ended:?}"));
        let is_same = *content.user_data == *fact.text
            && *content.source.digits == *fact.source
            && *content.destination.digits == *fact.destination
            && content.registered_delivery == fact.registered_delivery
            && content.data_coding == fact.data_coding;
        self.require(is_same, || format!("{content:?} was offered, on record is {fact:?}"));
        let was_cancelled = self.cancelled.contains(&life);
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

    /// Which message of its name a carrier hears of.
    pub fn life_of(&self, id: MessageId) -> super::Life {
        self.life(id)
    }

    /// A carrier says that a message has come to this state.
    pub fn said(&mut self, id: MessageId, state: MessageState, error: u16) {
        let life = self.life(id);
        self.said.entry(life).or_default().insert((state, error));
        if let Some(fact) = self.facts.get_mut(&life) {
            fact.is_said_over |= state.is_final();
        }
    }

    /// A carrier turns a message down: one that is tried only once is UNDELIVERABLE then.
    pub fn turned_down(&mut self, id: MessageId, error: u16) {
        let life = self.life(id);
        self.said.entry(life).or_default().insert((MessageState::UNDELIVERABLE, error));
    }

    /// A carrier says what a subscriber wrote, from one number to another.
    pub fn reply_said(&mut self, (source, destination): (&[u8], &[u8]), text: &[u8]) {
        let Some(token) = token_of(text) else { return };
        let (source, destination, text, at) = (source.into(), destination.into(), text.into(), self.now);
        self.written.entry(token).or_default().push(Writing { source, destination, text, at });
    }

    /// Whether a reply on record was said as often, to a number of this account.
    pub(super) fn check_reply(&mut self, token: Token, account: &[u8]) {
        let copies = self.replies.get(&token).map_or(0, Vec::len);
        let said = self.written.get(&token).map_or(&[][..], Vec::as_slice);
        let is_theirs = self.account_of(account).is_some_and(|account| {
            said.iter().any(|writing| {
                let owns = |settings: &AccountSettings| {
                    settings.numbers.iter().any(|own| own.as_bytes() == &*writing.destination)
                };
                self.books[account].may(writing.at.saturating_sub(super::HEARSAY), owns)
            })
        });
        let count = said.len();
        self.require(is_theirs && copies <= count, || {
            let account = String::from_utf8_lossy(account);
            format!("reply {token} is on record {copies} times for {account}, it was said {count} times")
        });
    }

    /// A report need not be said again: is what it said durable?
    pub fn acknowledged_end(&mut self, id: MessageId) {
        let is_over = self.fact(id).is_some_and(|fact| fact.end.is_some()) || self.life(id).number > 0;
        self.require(is_over, || format!("the report of {id}'s end was acknowledged before it was durable"));
    }

    /// A reply need not be said again: is it durable?
    pub fn acknowledged_reply(&mut self, token: Token, destination: &[u8], said_at: u64) {
        let is_stored = self.replies.contains_key(&token);
        // A core hears late of who has which number.
        let since = said_at.saturating_sub(super::HEARSAY);
        let is_someones = self.books.iter().any(|book| {
            book.in_force(since).all(|settings| {
                settings
                    .is_some_and(|settings| settings.numbers.iter().any(|own| own.as_bytes() == destination))
            })
        });
        self.require(is_stored || !is_someones, || {
            format!("reply {token} was acknowledged before it was durable")
        });
    }
}
