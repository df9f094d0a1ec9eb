//! What must hold, whatever happens. The oracle sees every PDU at the server's end of each connection, every
//! record that the disk holds durably, and every offer to a carrier; it never looks into the core.

mod accounts;
mod cancels;
mod carriers;
mod connections;
mod deliveries;
mod lateness;
mod order;
mod owed;
mod queries;
mod receipts;
mod records;
mod refusals;
mod replacements;
mod seen;
mod submissions;
mod wall;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use smppd::account::AccountSettings;
use smppd::journal::Position;
use smppd::message::{MessageId, PartitionNumber};
use smppd::pdu::InterfaceVersion;
use smppd::pdu::receipt::MessageState;
use smppd::session::BindMode;
use smppd::time::Timestamp;

pub use cancels::Target;
pub use lateness::Idle;
pub use records::Fact;
pub use refusals::{Load, OWN_WORDS};
pub use seen::Seen;
pub use submissions::Wish;

use accounts::Book;
use cancels::Cancel;
use carriers::Writing;
use connections::Line;
use deliveries::Sent;
use owed::Owed;
use queries::Question;
use submissions::Submission;
use wall::Wall;

/// A connection; never used again for another one.
pub type Connection = u64;
/// What a submission or a replacement writes into its text, so that it is known wherever it turns up.
pub type Token = u32;
/// How long a core may go by what it heard before, in nanoseconds.
const HEARSAY: u64 = 100_000_000;

/// What an ESME has asked on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To be bound; whether with the right password.
    Bind(BindMode, InterfaceVersion, bool),
    /// submit_sm, data_sm, submit_multi.
    Submit(Token),
    /// query_sm: a question of [`Oracle::querying`].
    Query(u32),
    /// cancel_sm: one of [`Oracle::cancelling`].
    Cancel(u32),
    /// replace_sm.
    Replace(Token),
    /// query_sm of a message that this account cannot know.
    QueryForeign,
}

/// A message of one name: short ids come again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// The name.
    pub id: MessageId,
    /// How many messages had it before.
    pub number: u32,
}

impl Life {
    /// The first message of a name.
    pub const fn first(id: MessageId) -> Self {
        Self { id, number: 0 }
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{}", self.id),
            number => write!(f, "{} (used {number} times before)", self.id),
        }
    }
}

/// A receipt, notification or reply: the message that it is about, and which one of that.
type Parcel = (Life, u8);

/// Everything that was promised, and whether it was kept.
#[derive(Debug)]
pub struct Oracle {
    /// What was not kept.
    pub violations: Vec<String>,
    /// Which process, counted from 1.
    pub epoch: u32,
    /// The time, in nanoseconds.
    pub now: u64,
    /// How long the server waits for a deliver_sm_resp.
    pub response_nanos: u64,
    /// The longest pause before another try.
    pub retry_nanos: u64,
    /// How long receipts and replies are kept, in milliseconds.
    pub retention: u64,
    /// deliver_sm in flight on a session, where its account says nothing else.
    pub window_out_max: usize,
    /// Requests that a peer may have waiting.
    pub window_in_max: usize,
    /// Partitions whose disk has failed in this process, and when.
    failed: BTreeMap<PartitionNumber, u64>,
    /// When the state at rest last could not be asked.
    lookup_failed_at: u64,
    /// When this process began.
    begun_at: u64,
    /// Destinations that begin so have a carrier, and since when every core knows of it.
    routes: Vec<(String, u64)>,
    books: Vec<Book>,
    wall: Wall,
    submissions: Vec<Submission>,
    cancels: Vec<Cancel>,
    questions: Vec<Question>,
    loads: refusals::Loads,
    /// When messages of each partition ended.
    ends: BTreeMap<PartitionNumber, Vec<u64>>,
    /// How many have not.
    open: BTreeMap<PartitionNumber, usize>,
    /// How long it may take until all cores have heard of a session's end, in nanoseconds.
    pub mesh_nanos: u64,
    /// Until when a core stands still, or did.
    frozen_until: u64,
    /// Counts what the server took in.
    order: u64,
    /// Which process took in the last of it.
    heard_in: u32,
    lines: BTreeMap<Connection, Line>,
    facts: BTreeMap<Life, Fact>,
    /// Names that were used again, and how often.
    lives: BTreeMap<MessageId, u32>,
    owed: BTreeMap<Parcel, Owed>,
    /// What subscribers wrote.
    written: BTreeMap<Token, Vec<Writing>>,
    /// The copies of each reply.
    replies: BTreeMap<Token, Vec<Life>>,
    /// What was given up before it was durable that it was made.
    given_up_early: BTreeMap<Parcel, u32>,
    credits: BTreeMap<Box<[u8]>, u64>,
    indexed: BTreeMap<PartitionNumber, Position>,
    cancelled: BTreeSet<Life>,
    /// What carriers have said of each message that may be its end: states with their errors.
    said: BTreeMap<Life, BTreeSet<(MessageState, u16)>>,
    last_sent: BTreeMap<Parcel, Sent>,
    offered: order::Offered,
    accepted: BTreeMap<Connection, u64>,
    /// Receipts handed out before the response to their submission, in this turn.
    early: Vec<(MessageId, Token)>,
    /// Replacements that found nothing to replace while something submitted before them was unanswered.
    undecided: Vec<(Token, Token)>,
    /// Things seen, to show that a run was not empty.
    pub seen: Seen,
}

/// The token in a text.
pub fn token_of(text: &[u8]) -> Option<Token> {
    let start = text.iter().position(|octet| *octet == b'#')? + 1;
    let digits = text[start..].iter().take_while(|octet| octet.is_ascii_digit()).count();
    str::from_utf8(&text[start..start + digits]).ok()?.parse().ok()
}

impl Oracle {
    /// An oracle that has seen nothing, for accounts of these names.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        Self {
            violations: Vec::new(),
            epoch: 0,
            now: 0,
            response_nanos: 0,
            retry_nanos: 0,
            retention: 0,
            window_out_max: 0,
            window_in_max: 0,
            failed: BTreeMap::new(),
            lookup_failed_at: 0,
            begun_at: 0,
            routes: Vec::new(),
            books: names.map(Book::new).collect(),
            wall: Wall::default(),
            submissions: Vec::new(),
            cancels: Vec::new(),
            questions: Vec::new(),
            loads: refusals::Loads::new(),
            ends: BTreeMap::new(),
            open: BTreeMap::new(),
            mesh_nanos: 0,
            frozen_until: 0,
            order: 0,
            heard_in: 0,
            lines: BTreeMap::new(),
            facts: BTreeMap::new(),
            lives: BTreeMap::new(),
            owed: BTreeMap::new(),
            written: BTreeMap::new(),
            replies: BTreeMap::new(),
            given_up_early: BTreeMap::new(),
            credits: BTreeMap::new(),
            indexed: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            said: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            offered: order::Offered::new(),
            accepted: BTreeMap::new(),
            early: Vec::new(),
            undecided: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// A promise was not kept.
    pub fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what());
        }
    }

    /// The time, by both clocks.
    pub fn reach(&mut self, now: u64, wall: Timestamp) {
        self.now = now;
        self.wall.reach(now, wall);
    }

    /// The latest time that was ever on the wall.
    pub const fn latest(&self) -> Timestamp {
        self.wall.latest
    }

    // Processes.

    /// When the process began.
    pub const fn begun_at(&self) -> u64 {
        self.begun_at
    }

    /// A process begins.
    pub fn process_began(&mut self, epoch: u32) {
        (self.epoch, self.begun_at) = (epoch, self.now);
        for fact in self.facts.values_mut() {
            if let records::Standing::WithCarrier { is_offered } = &mut fact.standing {
                *is_offered = false;
            }
            (fact.late.0, fact.is_said_over) = (0, false);
            // The record says when a pause ends by the wall clock, which may be another one by now: a start waits for the
            // longest pause, at most.
            if let records::Standing::Waits { pause_until, .. } = &mut fact.standing
                && *pause_until > 0
            {
                *pause_until = self.now + self.retry_nanos;
            }
        }
        for owed in self.owed.values_mut() {
            owed.late.0 = 0;
        }
    }

    /// What an account is set to from now on, `None` when it is removed; all cores have heard of it then.
    pub fn allowed(&mut self, account: usize, settings: Option<&AccountSettings>, heard_at: u64) {
        if settings.is_some() && self.books[account].is_removed() {
            // A core that had not heard that it was gone will not hear of it any more, and asks nobody to leave.
            let lines = self.lines.values_mut().filter(|line| line.esme_account == account);
            lines.for_each(|line| line.left_at = line.closed_at);
        }
        self.books[account].set(settings.cloned(), heard_at);
    }

    /// Destinations with one of these prefixes have a carrier; all cores have heard of it then.
    pub fn routed(&mut self, prefixes: Vec<String>, heard_at: u64) {
        let before = std::mem::take(&mut self.routes);
        let since = |prefix: &str| before.iter().find(|(known, _)| known == prefix).map(|(_, since)| *since);
        self.routes = prefixes
            .into_iter()
            .map(|prefix| {
                let since = since(&prefix).unwrap_or(heard_at);
                (prefix, since)
            })
            .collect();
    }

    /// A partition's disk has failed.
    pub fn disk_failed(&mut self, partition: PartitionNumber) {
        self.failed.entry(partition).or_insert(self.now);
    }

    /// Whether somebody could not be asked since then: the partition of a message, or any.
    fn could_not_ask(&self, id: Option<MessageId>, since: u64) -> bool {
        let has_failed = match id {
            Some(id) => self.failed.contains_key(&id.partition()),
            None => !self.failed.is_empty(),
        };
        has_failed || self.lookup_failed_at >= since
    }

    /// A core says that a partition has stopped: its disk must have failed.
    pub fn stopped(&mut self, partition: PartitionNumber) {
        self.seen.failures += 1;
        let has_failed = self.failed.contains_key(&partition);
        self.require(has_failed, || {
            format!("partition {partition} has stopped, and its disk has not failed")
        });
    }

    /// A core does nothing until then.
    pub fn stands_still(&mut self, until: u64) {
        self.frozen_until = self.frozen_until.max(until);
        self.seen.freezes += 1;
    }

    /// Whether any disk has failed in this process.
    pub fn has_failed_disk(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The state at rest could not be asked.
    pub const fn lookup_failed(&mut self) {
        self.lookup_failed_at = self.now;
    }

    /// A process is gone, and all its connections.
    pub fn process_ended(&mut self) {
        self.failed.clear();
        self.lines.values_mut().for_each(|line| {
            line.is_open = false;
            line.is_bound = false;
            line.was_counted = false;
        });
        self.loads.clear();
    }

    fn account_of(&self, name: &[u8]) -> Option<usize> {
        self.books.iter().position(|book| book.name.as_bytes() == name)
    }
}
