//! Connections at the server's end: every PDU that comes and goes.

use std::collections::BTreeMap;

use smppd::message::MessageId;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{CommandId, CommandStatus, Framing, Header, Pdu, next_frame};

use super::deliveries::Delivered;
use super::{Asked, Connection, Oracle};

/// A connection at the server's end.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) esme_account: usize,
    pub(super) asked: BTreeMap<u32, Asked>,
    pub(super) deliveries: BTreeMap<u32, (u64, Option<Delivered>)>,
    pub(super) is_bound: bool,
    pub(super) is_open: bool,
    /// It takes nothing, so that what is answered has to wait.
    pub(super) is_paused: bool,
}

impl Oracle {
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
                self.requested(connection, sequence_number);
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

    pub(super) fn requested(&mut self, connection: Connection, sequence_number: u32) {
        let asked = self.lines.get(&connection).and_then(|line| line.asked.get(&sequence_number));
        if let Some(Asked::Submit(token) | Asked::Replace(token)) = asked.copied()
            && let Some(submission) = self.submissions.get_mut(token as usize)
        {
            submission.taken_in = Some((self.now, self.wall));
            self.allowances[submission.account].requested(token, self.now);
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

    pub(super) fn sent(&mut self, connection: Connection, header: &Header, pdu: &Pdu<'_>) {
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

    /// Whether a line takes what is said on it.
    pub(super) fn listens(&self, connection: Connection) -> bool {
        self.lines.get(&connection).is_some_and(|line| line.is_open && !line.is_paused)
    }
}
