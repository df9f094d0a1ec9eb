//! What must hold, whatever happens. The oracle sees every PDU at the server's end of each connection, every
//! record that the disk holds durably, and every offer to a carrier; it never looks into the core.

mod carriers;
mod connections;
mod deliveries;
mod queries;
mod records;
mod seen;
mod submissions;

use std::collections::{BTreeMap, BTreeSet};

use smppd::account::AccountSettings;
use smppd::journal::Position;
use smppd::message::{MessageId, ParcelKey, PartitionNumber};
use smppd::time::Timestamp;

use crate::allowance::Allowance;

pub use records::Fact;
pub use seen::Seen;

use connections::Line;
use deliveries::{Delivered, Sent};
use submissions::Submission;

/// A connection; never used again for another one.
pub type Connection = u64;
/// What a submission or a replacement writes into its text, so that it is known wherever it turns up.
pub type Token = u32;

/// What an ESME has asked on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To be bound.
    Bind,
    /// submit_sm, data_sm, submit_multi.
    Submit(Token),
    /// query_sm of a message that was accepted from this account.
    Query(MessageId),
    /// cancel_sm of one message.
    Cancel(MessageId),
    /// cancel_sm between two addresses.
    CancelMany,
    /// replace_sm.
    Replace(Token),
    /// query_sm of a message that this account cannot know.
    QueryForeign,
}

/// What an account may do, at most, in any of the settings it had.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Its name.
    pub name: String,
    /// Its numbers.
    pub numbers: Vec<String>,
    /// Sessions at once; 0 = any number.
    pub bind_limit: u32,
    /// deliver_sm in flight on a session.
    pub window: usize,
    /// Whether its receipts may tell of acceptance.
    pub accepted_receipts: bool,
}

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
    /// Partitions whose disk has failed in this process.
    pub failed: BTreeSet<PartitionNumber>,
    /// Accounts that were removed at some time.
    pub removed: BTreeSet<usize>,
    bounds: Vec<Bounds>,
    allowances: Vec<Allowance>,
    wall: Timestamp,
    /// The latest time that any process has seen on the wall: the clock may be put back between two.
    wall_latest: Timestamp,
    submissions: Vec<Submission>,
    lines: BTreeMap<Connection, Line>,
    facts: BTreeMap<MessageId, Fact>,
    credits: BTreeMap<Box<[u8]>, u64>,
    settled: BTreeSet<ParcelKey>,
    indexed: BTreeMap<PartitionNumber, Position>,
    answered_ids: BTreeMap<MessageId, Token>,
    cancelled: BTreeSet<MessageId>,
    refused_for_good: BTreeSet<MessageId>,
    /// Messages that a carrier says have expired.
    said_expired: BTreeSet<MessageId>,
    last_sent: BTreeMap<Delivered, Sent>,
    notifications: BTreeMap<MessageId, BTreeSet<Vec<u8>>>,
    arrived: BTreeSet<Delivered>,
    stored_replies: BTreeSet<Token>,
    acknowledged_replies: BTreeSet<Token>,
    /// Receipts handed out before the response to their submission, in this turn.
    early: Vec<(MessageId, Token)>,
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
    /// An oracle that has seen nothing.
    pub fn new(bounds: Vec<Bounds>, response_nanos: u64) -> Self {
        let allowances = bounds.iter().map(|_| Allowance::default()).collect();
        Self {
            violations: Vec::new(),
            epoch: 0,
            now: 0,
            response_nanos,
            failed: BTreeSet::new(),
            removed: BTreeSet::new(),
            bounds,
            allowances,
            wall: Timestamp::ZERO,
            wall_latest: Timestamp::ZERO,
            submissions: Vec::new(),
            lines: BTreeMap::new(),
            facts: BTreeMap::new(),
            credits: BTreeMap::new(),
            settled: BTreeSet::new(),
            indexed: BTreeMap::new(),
            answered_ids: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            refused_for_good: BTreeSet::new(),
            said_expired: BTreeSet::new(),
            last_sent: BTreeMap::new(),
            notifications: BTreeMap::new(),
            arrived: BTreeSet::new(),
            stored_replies: BTreeSet::new(),
            acknowledged_replies: BTreeSet::new(),
            early: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// A promise was not kept.
    pub fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    pub(super) fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    /// The time, by both clocks.
    pub fn reach(&mut self, now: u64, wall: Timestamp) {
        (self.now, self.wall, self.wall_latest) = (now, wall, self.wall_latest.max(wall));
    }

    /// What an account is allowed from now on; all cores have heard of it then.
    pub fn allowed(&mut self, account: usize, settings: &AccountSettings, heard_at: u64) {
        self.allowances[account].set(settings, heard_at);
    }

    /// A process is gone, and all its connections.
    pub fn process_ended(&mut self) {
        self.failed.clear();
        self.lines.values_mut().for_each(|line| {
            line.is_open = false;
            line.is_bound = false;
        });
    }
}
