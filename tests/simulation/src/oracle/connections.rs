//! Connections at the server's end: every PDU that comes and goes.

use std::collections::BTreeMap;

use smppd::message::{MessageId, PartitionNumber};
use smppd::pdu::{CommandId, CommandStatus, Framing, Header, InterfaceVersion, Pdu, next_frame};
use smppd::session::BindMode;

use super::refusals::unmapped;
use super::{Asked, Connection, HEARSAY, Oracle, Parcel};

/// A connection at the server's end.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) esme_account: usize,
    /// The partition that takes what it submits.
    pub(super) partition: PartitionNumber,
    /// Requests without an answer, and when the server took them in, if it has.
    pub(super) asked: BTreeMap<u32, (Asked, Option<u64>)>,
    pub(super) deliveries: BTreeMap<u32, (u64, Option<Parcel>)>,
    pub(super) is_bound: bool,
    pub(super) is_open: bool,
    /// It takes nothing, so that what is answered has to wait.
    pub(super) is_paused: bool,
    /// Until then the server read nothing from it.
    pub(super) deaf_until: u64,
    /// How it is bound, and how many deliver_sm may be in flight, at least and at most.
    pub(super) mode: BindMode,
    pub(super) version: InterfaceVersion,
    pub(super) window: (usize, usize),
    /// The server knows that nothing more comes.
    pub(super) closed_at: Option<u64>,
    /// It was asked to leave, or leaves.
    pub(super) is_leaving: bool,
    /// It may count toward its account's limit, and does no more since then.
    pub(super) was_counted: bool,
    pub(super) left_at: Option<u64>,
    /// When the password of its bind is verified.
    pub(super) verified_at: u64,
    /// When a bind was last answered ESME_ROK.
    pub(super) bound_at: u64,
    /// How often nothing kept it from getting an answer, and since when.
    pub(super) late: (u32, u64),
}

impl Line {
    /// Whether it may have counted toward its account's limit at some time since then. One whose peer has closed counts
    /// until its bind is answered.
    pub(super) fn may_have_counted(&self, since: u64) -> bool {
        let is_binding =
            self.is_open && self.asked.values().any(|(asked, _)| matches!(asked, Asked::Bind(..)));
        let has_left = self.left_at.is_some_and(|left_at| left_at.max(self.bound_at) < since);
        self.was_counted && (is_binding || !has_left)
    }
}

impl Oracle {
    /// A connection was made.
    pub fn connected(&mut self, connection: Connection, esme_account: usize) {
        let line = Line {
            esme_account,
            partition: PartitionNumber(0),
            asked: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            is_bound: false,
            is_open: true,
            is_paused: false,
            deaf_until: 0,
            mode: BindMode::Transceiver,
            version: InterfaceVersion::V5_0,
            window: (0, 0),
            closed_at: None,
            is_leaving: false,
            was_counted: false,
            left_at: None,
            verified_at: 0,
            bound_at: 0,
            late: (0, self.now),
        };
        self.lines.insert(connection, line);
    }

    /// A core has it, of which this partition takes what is submitted.
    pub fn seated(&mut self, connection: Connection, partition: PartitionNumber) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.partition = partition;
        }
    }

    /// The server knows that it is over.
    pub fn disconnected(&mut self, connection: Connection) {
        self.peer_closed(connection);
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_open = false;
        }
    }

    /// The server knows that nothing more comes from the ESME, though it may still owe it something.
    pub fn peer_closed(&mut self, connection: Connection) {
        let now = self.now;
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_bound = false;
            line.closed_at.get_or_insert(now);
            line.left_at.get_or_insert(now);
        }
    }

    /// The ESME takes nothing now, or does again.
    pub fn paused(&mut self, connection: Connection, is_paused: bool) {
        let now = self.now;
        if let Some(line) = self.lines.get_mut(&connection) {
            // Until now nothing was read from it either.
            (line.is_paused, line.deaf_until) = (is_paused, now);
        }
    }

    /// The password of a bind will be verified then.
    pub fn verifying(&mut self, connection: Connection, verified_at: u64) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.verified_at = verified_at;
        }
    }

    /// The server reads nothing from a connection now.
    pub fn deaf(&mut self, connection: Connection) {
        let now = self.now;
        if let Some(line) = self.lines.get_mut(&connection) {
            line.deaf_until = now;
        }
    }

    /// The session counts no more toward its account's limit.
    pub fn released(&mut self, connection: Connection) {
        let now = self.now;
        if let Some(line) = self.lines.get_mut(&connection) {
            line.is_bound = false;
            line.is_leaving = true;
            line.left_at.get_or_insert(now);
        }
    }

    /// An ESME asks something.
    pub fn asked(&mut self, connection: Connection, sequence_number: u32, asked: Asked) {
        if let Some(line) = self.lines.get_mut(&connection) {
            line.asked.insert(sequence_number, (asked, None));
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
                self.requested(connection, sequence_number);
            }
            if command_id == CommandId::DELIVER_SM_RESP || command_id == CommandId::GENERIC_NACK {
                let is_nack = command_id == CommandId::GENERIC_NACK;
                let status = if is_nack { CommandStatus::ESME_RUNKNOWNERR } else { command_status };
                self.delivered(connection, sequence_number, status);
            }
        }
    }

    fn requested(&mut self, connection: Connection, sequence_number: u32) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&connection) else { return };
        let Some((asked, taken_in)) = line.asked.get_mut(&sequence_number) else { return };
        *taken_in = Some(now);
        let asked = *asked;
        self.order += 1;
        self.heard_in = self.epoch;
        match asked {
            Asked::Submit(token) | Asked::Replace(token) => self.submission_taken_in(token),
            Asked::Cancel(number) => self.cancel_taken_in(number),
            Asked::Query(number) => self.question_taken_in(number),
            Asked::Bind(_, _, is_right) => {
                let Some(line) = self.lines.get_mut(&connection) else { return };
                // A core may still go by the password of before.
                let book = &self.books[line.esme_account];
                line.was_counted |= is_right || book.has_other_password(now.saturating_sub(HEARSAY));
            }
            Asked::QueryForeign => {}
        }
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
        let Header { command_status, sequence_number, command_id, .. } = *header;
        let status = unmapped(command_status);
        if command_id == CommandId::UNBIND {
            return self.released(connection);
        }
        if let Pdu::DeliverSm(deliver) = pdu {
            return self.delivering(connection, sequence_number, deliver);
        }
        let Some(line) = self.lines.get_mut(&connection) else { return };
        if !command_id.is_response()
            || command_id == CommandId::ENQUIRE_LINK_RESP
            || command_id == CommandId::UNBIND_RESP
        {
            return;
        }
        let Some((asked, taken_in)) = line.asked.remove(&sequence_number) else { return };
        let is_ok = status == CommandStatus::ESME_ROK && command_id != CommandId::GENERIC_NACK;
        match asked {
            Asked::Bind(mode, version, is_right) if is_ok => {
                self.require(is_right, || format!("connection {connection} is bound with a wrong password"));
                self.bound(connection, mode, version, taken_in.unwrap_or_default());
            }
            Asked::Bind(_, _, is_right) => {
                line.was_counted = false;
                if let Some(since) = taken_in.filter(|_| is_right) {
                    self.check_bind_refusal(connection, status, since);
                }
            }
            Asked::Submit(token) | Asked::Replace(token) => {
                let id = match pdu {
                    Pdu::SubmitSmResp(body) | Pdu::DataSmResp(body) => MessageId::parse(body.message_id),
                    Pdu::SubmitMultiResp(body) => {
                        if is_ok {
                            self.check_unsuccess(token, body.unsuccess_sme);
                        }
                        MessageId::parse(body.message_id)
                    }
                    _ => None,
                };
                self.answered(token, status, id, matches!(asked, Asked::Replace(_)));
            }
            Asked::Cancel(number) => self.cancel_answered(number, status),
            Asked::Query(number) => self.queried(connection, number, status, pdu),
            Asked::QueryForeign => {
                let is_right = status == CommandStatus::ESME_RINVMSGID || self.is_leaving(connection);
                self.require(is_right && !is_ok || status == CommandStatus::ESME_RQUERYFAIL, || {
                    format!("a question after a message of another account was answered with {status}")
                });
            }
        }
    }

    fn bound(&mut self, connection: Connection, mode: BindMode, version: InterfaceVersion, asked_at: u64) {
        let since = asked_at.saturating_sub(HEARSAY);
        let Some(line) = self.lines.get_mut(&connection) else { return };
        let account = line.esme_account;
        // One whose peer has closed meanwhile is unbound at once.
        (line.is_bound, line.mode, line.version) = (line.closed_at.is_none(), mode, version.negotiate());
        (line.was_counted, line.bound_at) = (true, self.now);
        // Where its core has not heard yet that the account is removed, it is asked to leave when it has.
        let is_removed = self.books[account].may_be_removed(since);
        if line.is_bound {
            // Its account may have been changed before it was bound, which asks nobody to leave.
            (line.is_leaving, line.left_at) = (line.is_leaving && is_removed, None);
        }
        let book = &self.books[account];
        let windows = || {
            let own = |settings: &smppd::account::AccountSettings| match settings.deliver_window {
                0 => self.window_out_max,
                own => own as usize,
            };
            book.in_force(since).flatten().map(own)
        };
        line.window = (windows().min().unwrap_or(0), windows().max().unwrap_or(0));
        self.seen.binds += 1;
        let bound = self.lines.values().filter(|line| line.is_bound && line.esme_account == account).count();
        let may = book.may_bind(since, bound);
        self.require(may, || format!("account {account} has {bound} sessions bound, more than are allowed"));
    }

    /// Whether a line takes what is said on it.
    pub(super) fn listens(&self, connection: Connection) -> bool {
        self.lines.get(&connection).is_some_and(|line| line.is_open && !line.is_paused)
    }
}
