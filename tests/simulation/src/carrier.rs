//! The carriers, which outlive every process: one that is nasty within its rights, and the core's own simulator.
//!
//! Both notice what no carrier must see: a second offer without `resumed`, a message that another one has, an
//! attempt that is not on record, an acknowledgement of what is not durable.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use smppd::carrier::{Carrier, News, ReplyNews, Report, Simulator};
use smppd::message::{Content, MessageId, PartitionNumber};
use smppd::pdu::DataCoding;
use smppd::pdu::receipt::MessageState;
use smppd::time::Instant;

use crate::oracle::{Life, Oracle, Token, token_of};
use crate::random::Random;

const MILLI: u64 = 1_000_000;
/// Replies are numbered from here on, far from the submissions.
const REPLY_FIRST: Token = 1_000_000;

/// What the carriers know of a message.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Offers without `resumed`.
    offers: u32,
    carrier: u8,
    /// The last offer was turned down.
    is_busy: bool,
    is_taken: bool,
}

/// Something to be said, and by whom.
#[derive(Clone, Debug)]
struct Said {
    carrier: u8,
    /// Whose partition hears it; a reply is for anybody.
    partition: Option<PartitionNumber>,
    /// Which message of its name.
    life: Option<Life>,
    /// When it was said last, if it was.
    said_at: u64,
    news: News,
}

/// What all carriers of all processes share.
#[derive(Debug)]
pub struct Land {
    oracle: Rc<RefCell<Oracle>>,
    random: Random,
    /// The time, in nanoseconds.
    pub now: u64,
    /// Everything offered is taken and delivered at once.
    pub is_calm: bool,
    known: BTreeMap<Life, Known>,
    due: BTreeMap<(u64, u64), Said>,
    said: BTreeMap<u64, Said>,
    next: u64,
    replies: Token,
    accounts_numbers: Vec<String>,
    /// What passed since the trace was last told.
    pub passed: Vec<String>,
}

impl Land {
    /// Carriers whose subscribers write to these numbers.
    pub const fn new(oracle: Rc<RefCell<Oracle>>, random: Random, accounts_numbers: Vec<String>) -> Self {
        Self {
            oracle,
            random,
            now: 0,
            is_calm: false,
            known: BTreeMap::new(),
            due: BTreeMap::new(),
            said: BTreeMap::new(),
            next: 1,
            replies: REPLY_FIRST,
            accounts_numbers,
            passed: Vec::new(),
        }
    }

    /// The server has gone and come back: what it has not acknowledged is said again.
    pub fn restarted(&mut self) {
        for (_, said) in std::mem::take(&mut self.said) {
            let delay = self.random.range(0, 500) * MILLI;
            self.say(delay, said);
        }
    }

    fn say(&mut self, delay: u64, said: Said) {
        self.next += 1;
        self.due.insert((self.now + delay, self.next), said);
    }

    fn offered(&mut self, carrier: u8, content: &Content<'_>, resumed: bool) -> Known {
        let life = self.life_of(content.id);
        let before = self.known.get(&life).copied();
        // What was said of an earlier offer is no answer to this one.
        let is_old = |said: &Said| matches!(said.news, News::Busy { id, .. } if id == content.id);
        self.due.retain(|_, said| !is_old(said));
        self.passed.push(format!("carrier {carrier} is offered {}, resumed: {resumed}", content.id));
        let mut oracle = self.oracle.borrow_mut();
        oracle.offered(content, before.map(|known| known.offers), resumed);
        if let Some(known) = before
            && !known.is_busy
        {
            if !resumed {
                oracle.violate(format!("{} was offered twice", content.id));
            }
            if known.carrier != carrier {
                oracle.violate(format!(
                    "{} is with carrier {}, and was offered to {carrier}",
                    content.id, known.carrier
                ));
            }
        }
        let known = Known {
            offers: before.map_or(0, |known| known.offers) + u32::from(!resumed),
            carrier,
            is_busy: false,
            is_taken: before.is_some_and(|known| known.is_taken),
        };
        self.known.insert(life, known);
        known
    }

    /// The server is about to hear this.
    fn says(&mut self, news: &News) {
        match *news {
            News::Busy { id, error } => {
                self.turned_down(id);
                self.oracle.borrow_mut().turned_down(id, error);
            }
            News::State { id, state, error } => self.oracle.borrow_mut().said(id, state, error),
            News::Reply(ref reply) => {
                let from_to = (&*reply.source.digits, &*reply.destination.digits);
                self.oracle.borrow_mut().reply_said(from_to, &reply.user_data);
            }
            News::Taken { .. } => {}
        }
    }

    fn life_of(&self, id: MessageId) -> Life {
        self.oracle.borrow().life_of(id)
    }

    fn turned_down(&mut self, id: MessageId) {
        let life = self.life_of(id);
        if let Some(known) = self.known.get_mut(&life) {
            known.is_busy = true;
        }
    }

    /// Plans what is said about a message.
    fn plan(&mut self, carrier: u8, content: &Content<'_>, known: Known) {
        let id = content.id;
        let life = self.life_of(id);
        let say = |land: &mut Self, delay: u64, news: News| {
            land.say(
                delay * MILLI,
                Said { carrier, partition: Some(id.partition()), life: Some(life), said_at: 0, news },
            );
        };
        let taken = News::Taken { id, carrier_id: format!("c{:x}", id.as_u64()).as_bytes().into() };
        if known.is_taken {
            if self.random.chance(50) {
                say(self, 0, taken);
            }
            return;
        }
        let draw = self.random.range(0, 99);
        if !self.is_calm && draw < 20 {
            let delay = self.random.range(0, 200);
            let error = self.random.range(0, 99) as u16;
            return say(self, delay, News::Busy { id, error });
        }
        if !self.is_calm && draw < 24 {
            // Not a word about it, ever: its validity ends it.
            return;
        }
        let life = self.life_of(id);
        if let Some(known) = self.known.get_mut(&life) {
            known.is_taken = true;
        }
        let final_at = if self.is_calm { self.random.range(0, 300) } else { self.random.delay(1, 1_500) };
        for _ in 0..self.random.pick(&[0, 1, 1, 1, 1, 1, 2]) {
            // It may come after the end.
            let delay = self.random.range(0, final_at + 20);
            say(self, delay, taken.clone());
        }
        for _ in 0..self.random.pick(&[0, 0, 0, 1, 2, 6]) {
            let delay = self.random.range(0, final_at + 20);
            let state = self.random.pick(&[MessageState::ACCEPTED, MessageState::ENROUTE]);
            say(self, delay, News::State { id, state, error: 0 });
        }
        let mut state = self.final_state();
        say(self, final_at, News::State { id, state, error: u16::from(state != MessageState::DELIVERED) });
        while self.random.chance(15) {
            state = self.final_state();
            let delay = self.random.range(final_at, final_at + 1_000);
            say(self, delay, News::State { id, state, error: 7 });
        }
        if self.random.chance(15) {
            self.reply(carrier, content, final_at);
        }
    }

    fn final_state(&mut self) -> MessageState {
        use MessageState as State;
        let others = [State::EXPIRED, State::UNDELIVERABLE, State::REJECTED, State::DELETED, State::UNKNOWN];
        if self.random.chance(70) { State::DELIVERED } else { self.random.pick(&others) }
    }

    fn reply(&mut self, carrier: u8, content: &Content<'_>, after: u64) {
        let token = self.replies;
        self.replies += 1;
        let number = match self.random.range(0, 9) {
            0 => "999".to_owned(),
            _ => self.accounts_numbers[self.random.place(self.accounts_numbers.len())].clone(),
        };
        let source = content.destination.into();
        let destination = smppd::pdu::Address { digits: number.as_bytes(), ..content.destination }.into();
        let user_data = format!("yes #{token}#").into_bytes().into();
        let news =
            News::Reply(ReplyNews { source, destination, data_coding: DataCoding::DEFAULT, user_data });
        let delay = self.random.range(after, after + 1_000);
        self.say(delay * MILLI, Said { carrier, partition: None, life: None, said_at: 0, news });
    }

    /// The server has no room for a reply now: it is said again.
    fn took_back(&mut self, report: &Report) {
        if let Some(said) = report.token.and_then(|token| self.said.remove(&token)) {
            let delay = self.random.range(1, 300) * MILLI;
            self.say(delay, said);
        }
    }

    fn next_due(&mut self, carrier: u8, partitions: &BTreeSet<PartitionNumber>) -> Option<Report> {
        let hears = |said: &Said| {
            said.carrier == carrier
                && said.partition.is_none_or(|partition| partitions.contains(&partition))
                // Of a message whose name another one has by now nobody speaks any more.
                && said.life.is_none_or(|life| life == self.life_of(life.id))
        };
        let (key, _) =
            self.due.iter().take_while(|((at, _), _)| *at <= self.now).find(|(_, said)| hears(said))?;
        let key = *key;
        let mut said = self.due.remove(&key)?;
        said.said_at = self.now;
        self.says(&said.news);
        self.next += 1;
        let token = self.next;
        let news = said.news.clone();
        self.passed.push(format!("carrier {carrier} says {news:?}, token {token}"));
        self.said.insert(token, said);
        Some(Report { token: Some(token), news })
    }

    fn acknowledged(&mut self, token: u64) {
        let mut oracle = self.oracle.borrow_mut();
        let said = self.said.remove(&token);
        let said_at = said.as_ref().map_or(0, |said| said.said_at);
        match said.map(|said| said.news) {
            None => oracle.violate(format!("report {token} was acknowledged twice, or never made")),
            Some(News::State { id, state, .. }) if state.is_final() => oracle.acknowledged_end(id),
            Some(News::Reply(reply)) => {
                if let Some(token) = token_of(&reply.user_data) {
                    oracle.acknowledged_reply(token, &reply.destination.digits, said_at);
                }
            }
            Some(News::State { .. } | News::Taken { .. } | News::Busy { .. }) => {}
        }
    }
}

/// A carrier that does whatever it may at the worst time.
pub struct Nasty {
    land: Rc<RefCell<Land>>,
    index: u8,
    partitions: BTreeSet<PartitionNumber>,
}

impl Nasty {
    /// The end of the carrier `index` that a core has, which owns these partitions.
    pub const fn new(land: Rc<RefCell<Land>>, index: u8, partitions: BTreeSet<PartitionNumber>) -> Self {
        Self { land, index, partitions }
    }
}

impl Carrier for Nasty {
    fn offer(&mut self, _now: Instant, message: &Content<'_>, resumed: bool) -> Option<Report> {
        let mut land = self.land.borrow_mut();
        let known = land.offered(self.index, message, resumed);
        land.plan(self.index, message, known);
        // About this message, or another.
        if land.random.chance(30) { land.next_due(self.index, &self.partitions) } else { None }
    }

    fn poll(&mut self, _now: Instant) -> Option<Report> {
        self.land.borrow_mut().next_due(self.index, &self.partitions)
    }

    fn acknowledge(&mut self, token: u64) {
        self.land.borrow_mut().acknowledged(token);
    }

    fn take_back(&mut self, _now: Instant, report: Report) {
        self.land.borrow_mut().took_back(&report);
    }
}

/// The core's simulator, watched.
pub struct Watched {
    land: Rc<RefCell<Land>>,
    index: u8,
    simulator: Simulator,
}

impl Watched {
    /// The simulator as the carrier `index`.
    pub const fn new(land: Rc<RefCell<Land>>, index: u8, simulator: Simulator) -> Self {
        Self { land, index, simulator }
    }
}

impl Carrier for Watched {
    fn offer(&mut self, now: Instant, message: &Content<'_>, resumed: bool) -> Option<Report> {
        self.land.borrow_mut().offered(self.index, message, resumed);
        let report = self.simulator.offer(now, message, resumed)?;
        self.land.borrow_mut().says(&report.news);
        Some(report)
    }

    fn poll(&mut self, now: Instant) -> Option<Report> {
        let report = self.simulator.poll(now)?;
        self.land.borrow_mut().says(&report.news);
        Some(report)
    }

    fn acknowledge(&mut self, token: u64) {
        self.simulator.acknowledge(token);
    }

    fn take_back(&mut self, now: Instant, report: Report) {
        self.simulator.take_back(now, report);
    }
}
