//! What accounts are owed: receipts, notifications and replies that are on record and not settled.

use smppd::message::{MessageId, ParcelKey};
use smppd::pdu::receipt::MessageState;
use smppd::time::Timestamp;

use super::{Life, Oracle, Parcel, Token};

/// A parcel, as the records tell of it.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    /// The account that it is for, by its place.
    pub(super) account: usize,
    /// What it tells; `None` for a reply.
    pub(super) state: Option<MessageState>,
    /// When its message came to that state, or when the reply came.
    pub(super) at: Timestamp,
    /// What a reply says.
    pub(super) token: Option<Token>,
    /// When that was durable.
    pub(super) recorded: u64,
    pub(super) is_settled: bool,
    /// An ESME has said ESME_ROK to it, or that it wants it no more, and the server has read that.
    pub(super) is_done: bool,
    /// In which process the server must have noted that; 0 when it came too late to count for certain.
    pub(super) done_in: u32,
    /// An ESME has it in its hands.
    pub(super) has_arrived: bool,
    /// Its retention is over.
    pub(super) is_given_up: bool,
    /// How often nothing kept it from being sent, and since when.
    pub(super) late: (u32, u64),
}

impl Oracle {
    /// A parcel is on record.
    pub(super) fn owe(
        &mut self,
        (life, part): (Life, u8),
        account: &[u8],
        state: Option<MessageState>,
        at: Timestamp,
        token: Option<Token>,
    ) {
        let Some(account) = self.account_of(account) else {
            return self.violate(format!("{life:?}/{part} is for nobody"));
        };
        let owed = Owed {
            account,
            state,
            at,
            token,
            recorded: self.now,
            is_settled: false,
            is_done: false,
            done_in: 0,
            has_arrived: false,
            is_given_up: self.was_given_up_early((life, part)),
            late: (0, self.now),
        };
        if let Some(token) = token {
            self.replies.entry(token).or_default().push(life);
        }
        self.owed.insert((life, part), owed);
    }

    /// Whether the server gave a parcel up before it was on record: this process, or one whose records are read now.
    fn was_given_up_early(&mut self, name: Parcel) -> bool {
        let is_being_read = self.now == self.begun_at;
        let given_up_in = self.given_up_early.remove(&name);
        given_up_in.is_some_and(|epoch| epoch == self.epoch || is_being_read)
    }

    /// A parcel needs no more deliveries: because it was delivered, refused for good, or kept for as long as it is kept.
    pub(super) fn settled(&mut self, id: MessageId, part: u8) {
        let key = (self.life_of_parcel(id, part), part);
        let Some(owed) = self.owed.get_mut(&key) else {
            return self.violate(format!("parcel {part} of {id} is settled, and was never made"));
        };
        let was_settled = std::mem::replace(&mut owed.is_settled, true);
        let owed = owed.clone();
        self.require(!was_settled, || format!("parcel {part} of {id} is settled twice"));
        // Of several that look alike nobody knows which one was confirmed.
        let alike = self.alike(key);
        let count = |holds: fn(&Owed) -> bool| {
            alike.iter().filter(|name| self.owed.get(name).is_some_and(holds)).count()
        };
        let done = count(|owed| owed.is_done) + count(|owed| owed.is_given_up);
        let settled = count(|owed| owed.is_settled);
        self.require(settled <= done, || {
            format!("parcel {part} of {id} is settled though it was not delivered: {owed:?}")
        });
    }

    /// All that a deliver_sm with this text may be: notifications of one message may look alike, and a carrier that was
    /// not told that its reply is durable says it again.
    pub(super) fn alike(&self, (life, part): Parcel) -> Vec<Parcel> {
        match part {
            ParcelKey::FINAL_RECEIPT => vec![(life, part)],
            ParcelKey::REPLY => {
                let token = self.owed.get(&(life, part)).and_then(|owed| owed.token);
                let copies = token.and_then(|token| self.replies.get(&token));
                copies.into_iter().flatten().map(|life| (*life, part)).collect()
            }
            _ => {
                let state = self.owed.get(&(life, part)).and_then(|owed| owed.state);
                (ParcelKey::NOTIFICATION_FIRST..ParcelKey::FINAL_RECEIPT)
                    .map(|part| (life, part))
                    .filter(|name| self.owed.get(name).is_some_and(|owed| owed.state == state))
                    .collect()
            }
        }
    }

    /// The server gives a receipt or reply up.
    pub fn gave_up(&mut self, key: ParcelKey, reason: &str) {
        if reason != "retention is over" {
            return;
        }
        let name = (self.life_of_parcel(key.id, key.part), key.part);
        // What it is about may not be durable yet.
        let Some(owed) = self.owed.get_mut(&name) else {
            self.given_up_early.insert(name, self.epoch);
            return;
        };
        owed.is_given_up = true;
        self.seen.given_up += 1;
        let (since, is_done) = (owed.at, owed.is_done && owed.done_in == self.epoch);
        let until = Timestamp::from_millis(since.as_millis() + self.retention);
        let wall = self.wall.now;
        self.require(wall >= until, || format!("{key:?} was given up at {wall}, it is kept until {until}"));
        let is_in_flight = self.last_sent.get(&name).is_some_and(|sent| self.is_in_flight(sent));
        // Of several that look alike nobody knows which one is under way.
        let is_alone = self.alike(name).len() == 1;
        self.require(!is_alone || !is_done && !is_in_flight, || {
            format!("{key:?} was given up while it was in flight")
        });
    }

    fn life_of_parcel(&self, id: MessageId, part: u8) -> Life {
        if part == ParcelKey::REPLY { Life::first(id) } else { self.life(id) }
    }

    /// Whether all that is about a message is settled.
    pub(super) fn is_all_settled(&self, life: Life) -> bool {
        let about = self.owed.range((life, ParcelKey::NOTIFICATION_FIRST)..=(life, ParcelKey::FINAL_RECEIPT));
        about.into_iter().all(|(_, owed)| owed.is_settled)
    }
}
