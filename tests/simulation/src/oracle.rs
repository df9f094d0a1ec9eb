//! What must hold, whatever happens. The oracle sees every PDU at the server's end of each connection, every
//! record that the disk holds durably, and every offer to a carrier; it never looks into the core.

use std::collections::{BTreeMap, BTreeSet};

use smppd::account::AccountSettings;
use smppd::journal::{Position, Record};
use smppd::message::{Content, MessageId, Parcel, ParcelKey, PartitionNumber, wants_receipt};
use smppd::pdu::receipt::{MessageState, ParsedReceipt};
use smppd::pdu::{
    CommandId, CommandStatus, Framing, Header, Pdu, RegisteredDelivery, ShortMessage, Tag, next_frame,
};
use smppd::time::Timestamp;

use crate::allowance::Allowance;
use crate::terms::{Terms, Times};

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

/// Something an ESME submitted.
#[derive(Clone, Debug)]
struct Submission {
    account: usize,
    connection: Connection,
    terms: Terms,
    is_replacement: bool,
    /// By replace_if_present.
    may_replace: bool,
    /// When a core took it in, by either clock.
    taken_in: Option<(u64, Timestamp)>,
    /// Messages of its account's rate that it took, at least.
    admitted: u64,
    /// What the server said, when it did.
    outcome: Option<CommandStatus>,
    id: Option<MessageId>,
    /// A refusal that tells how the message ended, or that nobody knows.
    is_doubtful: bool,
}

/// A message, as the records that are durable tell of it.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Whose it is.
    pub account: Box<[u8]>,
    /// The tokens in its texts, the newest last.
    pub tokens: Vec<Token>,
    /// Its place in its submit_multi.
    pub batch_offset: u8,
    /// How many that made.
    pub batch_count: u8,
    /// Its sender.
    pub source: Box<[u8]>,
    /// Its recipient.
    pub destination: Box<[u8]>,
    /// How it ended.
    pub ended: Option<MessageState>,
    registered_delivery: RegisteredDelivery,
    wants_success: bool,
    wants_failure: bool,
    segments: u16,
    attempts: u32,
    times: Times,
}

impl Fact {
    fn read(&mut self, content: &Content<'_>) {
        self.registered_delivery = content.registered_delivery;
        self.wants_success = wants_receipt(content, MessageState::DELIVERED);
        self.wants_failure = wants_receipt(content, MessageState::UNDELIVERABLE);
        self.segments = content.segments;
        self.times = content.into();
        self.tokens.extend(token_of(content.user_data));
    }

    /// Whether its end is told.
    pub const fn wants_receipt(&self) -> bool {
        match self.ended {
            Some(MessageState::DELIVERED) => self.wants_success,
            Some(_) => self.wants_failure,
            None => false,
        }
    }
}

/// What the server sent last about something.
#[derive(Clone, Copy, Debug)]
struct Sent {
    epoch: u32,
    connection: Connection,
    sequence_number: u32,
    at: u64,
    answer: Option<CommandStatus>,
}

/// What a deliver_sm was about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Delivered {
    Receipt(MessageId),
    Notification(MessageId),
    Reply(Token),
}

/// A connection at the server's end.
#[derive(Debug)]
struct Line {
    esme_account: usize,
    asked: BTreeMap<u32, Asked>,
    deliveries: BTreeMap<u32, (u64, Option<Delivered>)>,
    is_bound: bool,
    is_open: bool,
    /// It takes nothing, so that what is answered has to wait.
    is_paused: bool,
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

/// How much a run has seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Submissions answered with ESME_ROK.
    pub accepted: u64,
    /// Submissions refused.
    pub refused: u64,
    /// Final receipts sent.
    pub receipts: u64,
    /// Messages that ended.
    pub ended: u64,
    /// Replies delivered.
    pub replies: u64,
    /// Successful binds.
    pub binds: u64,
    /// Sessions that moved to another core.
    pub moves: u64,
    /// Messages cancelled.
    pub cancelled: u64,
    /// Messages replaced.
    pub replaced: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Blocks that came back from the state at rest because something in them was wanted.
    pub fetched: u64,
    /// Processes that ended badly.
    pub crashes: u64,
    /// Processes that ended well.
    pub stops: u64,
    /// Disks that failed.
    pub failures: u64,
    /// Messages that were to wait for a time.
    pub scheduled: u64,
    /// Messages whose validity ran out.
    pub expired: u64,
    /// Requests refused because of a rate.
    pub throttled: u64,
    /// Submissions refused for want of credits.
    pub unpaid: u64,
}

impl Seen {
    /// Both together.
    pub const fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.receipts += other.receipts;
        self.ended += other.ended;
        self.replies += other.replies;
        self.binds += other.binds;
        self.moves += other.moves;
        self.cancelled += other.cancelled;
        self.replaced += other.replaced;
        self.checkpoints += other.checkpoints;
        self.fetched += other.fetched;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.failures += other.failures;
        self.scheduled += other.scheduled;
        self.expired += other.expired;
        self.throttled += other.throttled;
        self.unpaid += other.unpaid;
    }

    /// Every count with its name.
    pub const fn counts(&self) -> [(&'static str, u64); 18] {
        [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("receipts", self.receipts),
            ("ended", self.ended),
            ("replies", self.replies),
            ("binds", self.binds),
            ("moves", self.moves),
            ("cancelled", self.cancelled),
            ("replaced", self.replaced),
            ("checkpoints", self.checkpoints),
            ("fetched", self.fetched),
            ("crashes", self.crashes),
            ("stops", self.stops),
            ("failures", self.failures),
            ("scheduled", self.scheduled),
            ("expired", self.expired),
            ("throttled", self.throttled),
            ("unpaid", self.unpaid),
        ]
    }
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

    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }

    /// The time, by both clocks.
    pub fn reach(&mut self, now: u64, wall: Timestamp) {
        (self.now, self.wall, self.wall_latest) = (now, wall, self.wall_latest.max(wall));
    }

    // Processes.

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

    /// A batch is durable.
    pub fn stored(&mut self, partition: PartitionNumber, position: Position, records: &[u8]) {
        let last = self.indexed.insert(partition, position).unwrap_or_default();
        self.require(position == last.next(), || format!("batch {position:?} is durable behind {last:?}"));
        let mut records = records;
        loop {
            match Record::take(&mut records) {
                Ok(Some(record)) => self.recorded(partition, &record),
                Ok(None) => return,
                Err(_) => return self.violate(format!("partition {partition}: a record cannot be read")),
            }
        }
    }

    /// A new process has read the journal up to `last`; what it found behind what we know was in flight when the
    /// old one ended.
    pub fn recovered<'a>(
        &mut self,
        partition: PartitionNumber,
        last: Position,
        batches: impl Iterator<Item = (Position, &'a [u8])>,
    ) {
        let known = self.indexed.get(&partition).copied().unwrap_or_default();
        self.require(last >= known, || {
            format!("partition {partition}: batch {known:?} was durable, recovery ends at {last:?}")
        });
        for (position, records) in batches.filter(|(position, _)| *position > known) {
            self.stored(partition, position, records);
        }
    }

    fn recorded(&mut self, partition: PartitionNumber, record: &Record<'_>) {
        match *record {
            Record::Accepted { attempt, content } => {
                let Ok(content) = Content::read(content) else {
                    return self.violate("a content cannot be read".to_owned());
                };
                let mut fact = Fact {
                    account: content.system_id.into(),
                    tokens: Vec::new(),
                    batch_offset: content.batch_offset,
                    batch_count: content.batch_count,
                    source: content.source.digits.into(),
                    destination: content.destination.digits.into(),
                    ended: None,
                    registered_delivery: content.registered_delivery,
                    wants_success: false,
                    wants_failure: false,
                    segments: content.segments,
                    attempts: u32::from(attempt.is_some()),
                    times: (&content).into(),
                };
                fact.read(&content);
                self.seen.scheduled += u64::from(content.is_scheduled());
                self.check_times(&content, None);
                self.pay(&content, content.segments, content.segments);
                let id = content.id;
                self.require(id.partition() == partition, || format!("{id} is in partition {partition}"));
                let is_new = self.facts.insert(id, fact).is_none();
                self.require(is_new, || format!("message_id {id} was given out twice"));
            }
            Record::Replaced { content, .. } => {
                let Ok(content) = Content::read(content) else { return };
                let Some(fact) = self.facts.get_mut(&content.id) else { return };
                let (more, before) = (content.segments.saturating_sub(fact.segments), fact.times);
                fact.read(&content);
                self.check_times(&content, Some(before));
                // How long the new text is does not show when the old one was longer.
                self.pay(&content, more, 1);
                self.seen.replaced += 1;
            }
            Record::Attempt { id, .. } => {
                if let Some(fact) = self.facts.get_mut(&id) {
                    fact.attempts += 1;
                }
            }
            Record::Final { id, state, at, .. } => {
                self.seen.ended += 1;
                let Some(fact) = self.facts.get_mut(&id) else {
                    return self.violate(format!("{id} has ended without being accepted"));
                };
                let expires_at = fact.times.expires_at;
                if let Some(before) = fact.ended.replace(state) {
                    self.violate(format!("{id} ended {before:?}, then {state:?}"));
                }
                let was_cancelled = self.cancelled.contains(&id);
                self.require(!was_cancelled || state == MessageState::DELETED, || {
                    format!("{id} was cancelled and ended {state:?}")
                });
                if state == MessageState::EXPIRED && !self.said_expired.contains(&id) {
                    self.seen.expired += 1;
                    self.require(at >= expires_at, || {
                        format!("{id} expired at {at}, it was valid until {expires_at}")
                    });
                }
            }
            Record::Settled { id, part } => _ = self.settled.insert(ParcelKey { id, part }),
            Record::Mo(octets) => {
                if let Ok(parcel) = Parcel::read(octets) {
                    self.stored_replies.extend(token_of(parcel.view().mandatory));
                }
            }
            Record::Forwarded { .. }
            | Record::Deferred { .. }
            | Record::Interim { .. }
            | Record::MessageAtRest { .. }
            | Record::DeliveryAtRest(_) => {}
        }
    }

    /// Whether the times on record are those that were asked for. `before`: those of the message that was replaced.
    fn check_times(&mut self, content: &Content<'_>, before: Option<Times>) {
        let id = content.id;
        let Some(submission) =
            token_of(content.user_data).and_then(|token| self.submissions.get(token as usize))
        else {
            return self.violate(format!("{id} was submitted by nobody"));
        };
        let Some((_, taken_in)) = submission.taken_in else {
            return self.violate(format!("{id} is on record before it was asked for"));
        };
        let (is, accepted_at, latest) = (Times::from(content), content.accepted_at, self.wall_latest);
        let expected = match before {
            Some(before) if submission.is_replacement => submission.terms.replaced(before, is, latest),
            Some(_) | None => submission.terms.accepted(accepted_at),
        };
        let (terms, is_new) = (submission.terms, !submission.is_replacement);
        self.require(is == expected, || {
            format!("{id}: {terms:?} should be {expected:?}, on record is {is:?}")
        });
        self.require(!is_new || (taken_in..=latest).contains(&accepted_at), || {
            format!("{id} was accepted at {accepted_at}, which is not between {taken_in} and {latest}")
        });
    }

    /// A record takes credits of its account, and took so many messages of its rate, at least.
    fn pay(&mut self, content: &Content<'_>, credits: u16, messages: u16) {
        let used = self.credits.entry(content.system_id.into()).or_default();
        *used += u64::from(credits);
        let used = *used;
        let submission =
            token_of(content.user_data).and_then(|token| self.submissions.get_mut(token as usize));
        let Some(submission) = submission else { return };
        submission.admitted += u64::from(messages);
        let Some((asked_at, _)) = submission.taken_in.filter(|_| credits > 0) else { return };
        if let Some(wrong) = self.allowances[submission.account].check_credits(used, asked_at) {
            self.violate(format!("{}: {wrong}", content.id));
        }
    }

    // Carriers.

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

    fn owner_of(&self, number: &[u8]) -> Option<usize> {
        self.bounds.iter().position(|account| account.numbers.iter().any(|own| own.as_bytes() == number))
    }

    // Connections, at the server's end.

    /// A connection was made.
    pub fn connected(&mut self, connection: Connection, esme_account: usize) {
        let line = Line {
            esme_account,
            asked: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            is_bound: false,
            is_open: true,
            is_paused: false,
        };
        self.lines.insert(connection, line);
    }

    /// The server knows that it is over.
    pub fn disconnected(&mut self, connection: Connection) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_open = false;
            line.is_bound = false;
        }
    }

    /// The ESME takes nothing now, or does again.
    pub fn paused(&mut self, connection: Connection, is_paused: bool) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_paused = is_paused;
        }
    }

    /// The session counts no more toward its account's limit.
    pub fn released(&mut self, connection: Connection) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_bound = false;
        }
    }

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
            may_replace: false,
            taken_in: None,
            admitted: 0,
            outcome: None,
            id: None,
            is_doubtful: false,
        });
        (self.submissions.len() - 1) as Token
    }

    /// An ESME asks something.
    pub fn asked(&mut self, connection: Connection, sequence_number: u32, asked: Asked) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.asked.insert(sequence_number, asked);
        }
    }

    /// Octets that the server has taken in.
    pub fn taken_in(&mut self, connection: Connection, mut octets: &[u8]) {
        while let Framing::Frame(frame) = next_frame(octets, usize::MAX) {
            octets = &octets[frame.header.command_length as usize..];
            let Header { command_id, command_status, sequence_number, .. } = frame.header;
            if command_id == CommandId::UNBIND {
                self.released(connection);
            }
            if !command_id.is_response() {
                let may_replace =
                    matches!(frame.decode(), Ok(Pdu::SubmitSm(pdu)) if pdu.replace_if_present_flag == 1);
                self.requested(connection, sequence_number, may_replace);
            }
            if command_id == CommandId::DELIVER_SM_RESP || command_id == CommandId::GENERIC_NACK {
                let Some(line) = self.lines.get_mut(&connection) else { continue };
                let Some((_, Some(about))) = line.deliveries.remove(&sequence_number) else { continue };
                let refused_for_good = command_id == CommandId::DELIVER_SM_RESP
                    && matches!(
                        command_status,
                        CommandStatus::ESME_RX_P_APPN | CommandStatus::ESME_RX_R_APPN
                    );
                if let Delivered::Receipt(id) = about
                    && refused_for_good
                {
                    self.refused_for_good.insert(id);
                }
                if let Some(sent) = self.last_sent.get_mut(&about)
                    && (sent.connection, sent.sequence_number) == (connection, sequence_number)
                {
                    let is_nack = command_id == CommandId::GENERIC_NACK;
                    sent.answer =
                        Some(if is_nack { CommandStatus::ESME_RUNKNOWNERR } else { command_status });
                }
            }
        }
    }

    fn requested(&mut self, connection: Connection, sequence_number: u32, may_replace: bool) {
        let asked = self.lines.get(&connection).and_then(|line| line.asked.get(&sequence_number));
        if let Some(Asked::Submit(token) | Asked::Replace(token)) = asked.copied()
            && let Some(submission) = self.submissions.get_mut(token as usize)
        {
            submission.taken_in = Some((self.now, self.wall));
            submission.may_replace = may_replace;
            let account = submission.account;
            // Behind a request of which every partition has a part it may wait: nobody knows when it is admitted.
            if !self.is_behind_a_search(connection, sequence_number) {
                self.allowances[account].requested(token, self.now);
            }
        }
    }

    /// Whether a request that may keep those behind it waiting has no answer yet.
    fn is_behind_a_search(&self, connection: Connection, sequence_number: u32) -> bool {
        let Some(line) = self.lines.get(&connection) else { return false };
        line.asked.range(..sequence_number).any(|(_, asked)| match asked {
            Asked::CancelMany => true,
            Asked::Submit(token) => {
                self.submissions.get(*token as usize).is_some_and(|submission| submission.may_replace)
            }
            Asked::Bind | Asked::Query(_) | Asked::Cancel(_) | Asked::Replace(_) | Asked::QueryForeign => {
                false
            }
        })
    }

    /// Octets that the server hands to the network.
    pub fn handed_out(&mut self, connection: Connection, mut octets: &[u8]) {
        while let Framing::Frame(frame) = next_frame(octets, usize::MAX) {
            octets = &octets[frame.header.command_length as usize..];
            match frame.decode() {
                Ok(pdu) => self.sent(connection, &frame.header, &pdu),
                Err(_) => self.violate(format!("connection {connection}: a PDU that cannot be read")),
            }
        }
        self.require(octets.is_empty(), || format!("connection {connection}: half a PDU was handed out"));
    }

    fn sent(&mut self, connection: Connection, header: &Header, pdu: &Pdu<'_>) {
        let Header { command_status: status, sequence_number, command_id, .. } = *header;
        if command_id == CommandId::UNBIND {
            return self.released(connection);
        }
        if let Pdu::DeliverSm(deliver) = pdu {
            return self.delivering(connection, sequence_number, deliver);
        }
        let Some(line) = self.lines.get_mut(&connection) else { return };
        let account = line.esme_account;
        if !command_id.is_response()
            || command_id == CommandId::ENQUIRE_LINK_RESP
            || command_id == CommandId::UNBIND_RESP
        {
            return;
        }
        let Some(asked) = line.asked.remove(&sequence_number) else { return };
        let is_ok = status == CommandStatus::ESME_ROK && command_id != CommandId::GENERIC_NACK;
        match asked {
            Asked::Bind if is_ok => {
                line.is_bound = true;
                self.seen.binds += 1;
                let bound =
                    self.lines.values().filter(|line| line.is_bound && line.esme_account == account).count();
                let limit = self.bounds[account].bind_limit as usize;
                self.require(limit == 0 || bound <= limit, || {
                    format!("account {account} has {bound} sessions bound, {limit} are allowed")
                });
            }
            Asked::Submit(token) | Asked::Replace(token) => {
                let id = match pdu {
                    Pdu::SubmitSmResp(body) | Pdu::DataSmResp(body) => MessageId::parse(body.message_id),
                    Pdu::SubmitMultiResp(body) => MessageId::parse(body.message_id),
                    _ => None,
                };
                self.answered(token, status, id, matches!(asked, Asked::Replace(_)));
            }
            Asked::Cancel(id) if is_ok => {
                self.seen.cancelled += 1;
                let fact = self.facts.get(&id);
                let is_single = fact.is_some_and(|fact| fact.batch_count == 1);
                let ended = fact.and_then(|fact| fact.ended);
                if is_single {
                    self.cancelled.insert(id);
                    self.require(ended == Some(MessageState::DELETED), || {
                        format!("cancel of {id} was answered, and on record it is {ended:?}")
                    });
                }
            }
            Asked::Query(id) => self.queried(id, status, pdu),
            Asked::QueryForeign => {
                self.require(!is_ok, || "a message of another account was told of".to_owned());
            }
            Asked::Bind | Asked::Cancel(_) | Asked::CancelMany => {}
        }
    }

    fn answered(&mut self, token: Token, status: CommandStatus, id: Option<MessageId>, is_replace_sm: bool) {
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

    fn queried(&mut self, id: MessageId, status: CommandStatus, pdu: &Pdu<'_>) {
        match pdu {
            Pdu::QuerySmResp(body) if status == CommandStatus::ESME_ROK => {
                let state = MessageState(body.message_state);
                if state.is_final() {
                    let members = self.members(id);
                    let all_over = members.iter().all(Option::is_some);
                    let agrees = members.contains(&Some(state));
                    self.require(all_over && agrees, || {
                        format!("query of {id} tells {state:?}, on record it is {members:?}")
                    });
                }
            }
            _ => {
                let is_known = status != CommandStatus::ESME_RINVMSGID;
                self.require(is_known, || format!("query of {id} was answered with {status}"));
            }
        }
    }

    fn members(&self, id: MessageId) -> Vec<Option<MessageState>> {
        // The first stands for all of a submit_multi, any other for itself.
        let first = self.facts.get(&id).filter(|fact| fact.batch_offset == 0);
        let count = first.map_or(1, |fact| fact.batch_count);
        (0..count).map(|offset| self.facts.get(&id.in_batch(offset)).and_then(|fact| fact.ended)).collect()
    }

    fn delivering(&mut self, connection: Connection, sequence_number: u32, deliver: &ShortMessage<'_>) {
        let Some(line) = self.lines.get(&connection) else { return };
        let account = line.esme_account;
        self.require(self.lines[&connection].is_open, || format!("{connection} is closed and is sent to"));
        let about = if deliver.esm_class.message_type() == 0 {
            self.delivering_reply(account, deliver)
        } else {
            self.delivering_receipt(account, deliver)
        };
        if let Some(about) = about {
            self.check_repetition(about, connection, sequence_number);
        }
        let (now, since) = (self.now, self.now.saturating_sub(self.response_nanos));
        let Some(line) = self.lines.get_mut(&connection) else { return };
        line.deliveries.insert(sequence_number, (now, about));
        let in_flight = line.deliveries.values().filter(|(at, _)| *at > since).count();
        let window = self.bounds[account].window;
        self.require(in_flight <= window, || format!("{in_flight} deliver_sm in flight, {window} may be"));
    }

    fn delivering_reply(&mut self, account: usize, deliver: &ShortMessage<'_>) -> Option<Delivered> {
        let Some(token) = token_of(deliver.short_message) else {
            self.violate("a reply that nobody wrote".to_owned());
            return None;
        };
        let owner = self.owner_of(deliver.destination.digits);
        self.require(owner == Some(account), || {
            format!("reply {token} for account {owner:?} went to {account}")
        });
        let is_stored = self.stored_replies.contains(&token);
        self.require(is_stored, || format!("reply {token} was sent before it was durable"));
        self.seen.replies += 1;
        Some(Delivered::Reply(token))
    }

    fn delivering_receipt(&mut self, account: usize, deliver: &ShortMessage<'_>) -> Option<Delivered> {
        let parsed = ParsedReceipt::parse(deliver.short_message).unwrap_or_default();
        let public_id = parsed.message_id.and_then(MessageId::parse);
        let found = public_id.and_then(|id| {
            let count = self.facts.get(&id).map_or(1, |fact| fact.batch_count);
            (0..count)
                .map(|offset| id.in_batch(offset))
                .find(|id| self.facts.get(id).is_some_and(|fact| *fact.destination == *deliver.source.digits))
        });
        let (Some(id), Some(state)) = (found, parsed.state) else {
            let text = String::from_utf8_lossy(deliver.short_message).into_owned();
            self.violate(format!("a receipt for no message: {text}"));
            return None;
        };
        let fact = self.facts[&id].clone();
        let name = self.bounds[account].name.clone();
        self.require(*fact.account == *name.as_bytes(), || {
            format!("the receipt of {id}, which is another's, went to {name}")
        });
        let told = deliver.tlvs.u8(Tag::MESSAGE_STATE).map(MessageState);
        let told_id = deliver.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID).and_then(MessageId::parse);
        self.require(told.is_none_or(|told| told == state), || format!("{id}: text {state:?}, TLV {told:?}"));
        self.require(told_id.is_none_or(|told| Some(told) == public_id), || {
            format!("{id}: text {public_id:?}, TLV {told_id:?}")
        });
        self.require_answered(id, &fact);
        if state.is_final() {
            let ended = fact.ended;
            self.require(ended == Some(state), || format!("a receipt tells {id} {state:?}, it is {ended:?}"));
            self.require(fact.wants_receipt(), || format!("nobody asked for the receipt of {id}"));
            self.seen.receipts += 1;
            return Some(Delivered::Receipt(id));
        }
        let accepted = self.bounds[account].accepted_receipts && fact.wants_success;
        self.require(fact.registered_delivery.intermediate() || accepted, || {
            format!("nobody asked for the notification {state:?} of {id}")
        });
        let notifications = self.notifications.entry(id).or_default();
        notifications.insert(deliver.short_message.to_vec());
        let count = notifications.len();
        self.require(count <= usize::from(ParcelKey::NOTIFICATIONS_MAX), || {
            format!("{id} has {count} notifications")
        });
        Some(Delivered::Notification(id))
    }

    /// No receipt before its submit_sm_resp, for whoever still waits for that.
    fn require_answered(&mut self, id: MessageId, fact: &Fact) {
        let Some(token) = fact.tokens.first().copied() else { return };
        let Some(submission) = self.submissions.get(token as usize) else { return };
        if submission.outcome.is_none() && !submission.is_replacement && self.listens(submission.connection) {
            self.early.push((id, token));
        }
    }

    /// Whether a line takes what is said on it.
    fn listens(&self, connection: Connection) -> bool {
        self.lines.get(&connection).is_some_and(|line| line.is_open && !line.is_paused)
    }

    /// Everything that one turn of a core had to say is handed out: what left it together is in order.
    pub fn turn_ended(&mut self) {
        for (id, token) in std::mem::take(&mut self.early) {
            let Submission { outcome, connection, .. } = &self.submissions[token as usize];
            // The line may have been found full only when the response was to be handed out.
            let is_answered = outcome.is_some() || !self.listens(*connection);
            self.require(is_answered, || format!("the receipt of {id} came before the response to {token}"));
        }
    }

    fn check_repetition(&mut self, about: Delivered, connection: Connection, sequence_number: u32) {
        if let Delivered::Notification(_) = about {
            return;
        }
        if let Delivered::Receipt(id) = about {
            let is_settled = self.settled.contains(&ParcelKey { id, part: ParcelKey::FINAL_RECEIPT });
            self.require(!is_settled, || format!("the receipt of {id} was sent again after it was settled"));
        }
        let sent = Sent { epoch: self.epoch, connection, sequence_number, at: self.now, answer: None };
        if let Some(before) = self.last_sent.insert(about, sent)
            && let Delivered::Receipt(_) = about
        {
            let is_open = self.lines.get(&before.connection).is_some_and(|line| line.is_open);
            let is_explained = before.epoch != self.epoch
                || !is_open
                // A failed disk cannot note that it was confirmed.
                || !self.failed.is_empty()
                || before.at + self.response_nanos <= self.now
                || before.answer.is_some_and(|status| status != CommandStatus::ESME_ROK);
            self.require(is_explained, || format!("{about:?} was sent twice: {before:?}"));
        }
    }

    /// An ESME has a deliver_sm in its hands.
    pub fn arrived(&mut self, deliver: &ShortMessage<'_>) {
        if deliver.esm_class.message_type() == 0 {
            self.arrived.extend(token_of(deliver.short_message).map(Delivered::Reply));
            return;
        }
        let Some(parsed) = ParsedReceipt::parse(deliver.short_message) else { return };
        let Some(id) = parsed.message_id.and_then(MessageId::parse) else { return };
        if !parsed.state.is_some_and(MessageState::is_final) {
            return;
        }
        let count = self.facts.get(&id).map_or(1, |fact| fact.batch_count);
        let member = (0..count)
            .map(|offset| id.in_batch(offset))
            .find(|id| self.facts.get(id).is_some_and(|fact| *fact.destination == *deliver.source.digits));
        self.arrived.extend(member.map(Delivered::Receipt));
    }

    // The end.

    /// What is still to come: messages without an end, receipts and replies that have not arrived.
    pub fn missing(&self) -> Option<String> {
        let open = self.facts.iter().find(|(_, fact)| fact.ended.is_none());
        if let Some((id, fact)) = open {
            return Some(format!("{id} {fact:?} has no final state"));
        }
        let unreceipted = self.facts.iter().find(|(id, fact)| {
            fact.wants_receipt()
                && !self.arrived.contains(&Delivered::Receipt(**id))
                && !self.refused_for_good.contains(id)
        });
        if let Some((id, fact)) = unreceipted {
            return Some(format!("the receipt of {id} {fact:?} has not arrived"));
        }
        let reply =
            self.acknowledged_replies.iter().find(|token| !self.arrived.contains(&Delivered::Reply(**token)));
        reply.map(|token| format!("reply {token} has not arrived"))
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

    /// Credits that the durable records have used.
    pub fn credits_used(&self, account: &[u8]) -> u64 {
        self.credits.get(account).copied().unwrap_or(0)
    }

    /// Messages that an account may ask after, as their senders know them.
    pub fn messages_of(&self, account: &[u8]) -> Vec<(MessageId, Box<[u8]>)> {
        let own = self.facts.iter().filter(|(_, fact)| *fact.account == *account && fact.batch_offset == 0);
        own.map(|(id, fact)| (*id, fact.source.clone())).collect()
    }

    /// A message.
    pub fn fact(&self, id: MessageId) -> Option<&Fact> {
        self.facts.get(&id)
    }
}

fn fact_is_first(fact: Option<&Fact>, token: Token) -> bool {
    fact.is_some_and(|fact| fact.tokens.first() == Some(&token))
}
