//! One ESME: what it asks for and when, what it makes of the answers. Octets and time come in, octets come out.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};

use smppd::pdu::receipt::{MessageState, ParsedReceipt};
use smppd::pdu::{
    Address, Bind, CommandStatus, Header, InterfaceVersion, Npi, Pdu, ShortMessage, Tag, Tlvs, Ton,
};
use smppd::session::{BindMode, CloseReason, Elapsed, Received, Session, SessionSettings, Side};
use smppd::time::Instant;

use crate::arrivals::Arrivals;
use crate::measure::{Course, Measures, Timed};
use crate::message::{Composer, Kind};
use crate::referee::{Awaited, Entries, Ledger};
use crate::scenario::{Group, Load, Receipts};

/// Ids of its own messages that it remembers, to ask about, to cancel and to replace.
const REMEMBERED: usize = 64;

/// Who an ESME is and how it behaves, on all connections that it makes one after another.
pub(crate) struct Role {
    /// The number of its connection in the run.
    pub(crate) number: u32,
    /// The place of its group.
    pub(crate) group: usize,
    pub(crate) behaviour: Arc<Group>,
    pub(crate) mode: BindMode,
    pub(crate) system_id: String,
    pub(crate) password: String,
    pub(crate) ledger: Arc<Ledger>,
}

/// Somebody who takes part in a run.
pub(crate) struct Seat {
    pub(crate) role: Role,
    pub(crate) work: Work,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    due: u64,
    /// Receipts that were asked for with it.
    receipts: u16,
}

/// A bound session, or one that is about to be. All times are nanoseconds of the run's clock.
pub(crate) struct Esme {
    session: Session<Asked>,
    began: u64,
    /// Answers to deliver_sm that wait for their time.
    answers: VecDeque<(u64, Header)>,
    /// When nothing could last be sent: the window was full, the socket took no more, or nobody was bound yet.
    held_up_at: u64,
    in_flight: usize,
    /// Why it was not bound.
    refusal: Option<CommandStatus>,
}

/// What outlives a connection: the course of the load, and what was submitted.
pub(crate) struct Work {
    composer: Composer,
    /// `None` in a closed loop.
    arrivals: Option<Arrivals>,
    /// Of an open loop: when the next request is due, counted from the begin of the warm-up.
    next_due: Option<u64>,
    remembered: VecDeque<Vec<u8>>,
}

impl Work {
    pub(crate) fn new(composer: Composer, mut arrivals: Option<Arrivals>) -> Self {
        let next_due = arrivals.as_mut().and_then(Arrivals::next);
        Self { composer, arrivals, next_due, remembered: VecDeque::new() }
    }

    /// When something is due that has not been sent.
    fn next_due(&self, course: &Course) -> Option<u64> {
        Some(course.begin + self.next_due?).filter(|due| *due < course.end)
    }

    fn remember(&mut self, id: &[u8]) {
        let mut place = if self.remembered.len() < REMEMBERED {
            Vec::new()
        } else {
            self.remembered.pop_front().unwrap_or_default()
        };
        place.clear();
        place.extend_from_slice(id);
        self.remembered.push_back(place);
    }

    /// Requests that were due and will not be sent any more, since nothing is sent behind the end.
    pub(crate) fn take_unsent(&mut self, course: &Course) -> u64 {
        let mut unsent = 0;
        while let Some(due) = self.next_due(course) {
            unsent += u64::from(due >= course.measure);
            self.next_due = self.arrivals.as_mut().and_then(Arrivals::next);
        }
        unsent
    }
}

impl Esme {
    /// On a connection that was begun at `began` and is made at `now`: asks to be bound.
    ///
    /// # Errors
    /// A name or password that no PDU can hold.
    pub(crate) fn bind(role: &Role, began: u64, now: u64) -> Result<Self, String> {
        Self::bind_as(role, &role.password, began, now)
    }

    /// The same with another password than its own.
    ///
    /// # Errors
    /// A name or password that no PDU can hold.
    pub(crate) fn bind_as(role: &Role, password: &str, began: u64, now: u64) -> Result<Self, String> {
        let settings = SessionSettings {
            window_out_max: role.behaviour.window,
            // How long is too long the scenario says, with its drain.
            response_timeout: std::time::Duration::from_secs(3_600),
            session_init_timeout: std::time::Duration::from_secs(3_600),
            ..SessionSettings::default()
        };
        let mut session = Session::new(Side::Esme, settings, Instant::from_nanos(now));
        let bind = Bind {
            system_id: role.system_id.as_bytes(),
            password: password.as_bytes(),
            system_type: b"",
            interface_version: InterfaceVersion::V5_0,
            address_range: Address { ton: Ton::UNKNOWN, npi: Npi::UNKNOWN, digits: b"" },
            tlvs: Tlvs::EMPTY,
        };
        let bind = match role.mode {
            BindMode::Transceiver => Pdu::BindTransceiver(bind),
            BindMode::Transmitter => Pdu::BindTransmitter(bind),
            BindMode::Receiver => Pdu::BindReceiver(bind),
        };
        session
            .request(Instant::from_nanos(now), &bind, Asked { due: began, receipts: 0 })
            .map_err(|error| error.to_string())?;
        Ok(Self { session, began, answers: VecDeque::new(), held_up_at: now, in_flight: 0, refusal: None })
    }

    pub(crate) const fn is_bound(&self) -> bool {
        self.session.state().is_bound()
    }

    /// Whether the session is over.
    pub(crate) const fn is_over(&self) -> bool {
        self.session.close_reason().is_some()
    }

    /// Why it is.
    pub(crate) fn reason(&self) -> String {
        match (self.refusal, self.session.close_reason()) {
            (Some(status), _) => format!("bind refused: {status}"),
            (None, Some(reason)) => format!("the server ended the session: {reason:?}"),
            (None, None) => "the session goes on".to_owned(),
        }
    }

    /// Octets for the server; whoever sends them takes them out.
    pub(crate) const fn output(&mut self) -> &mut Vec<u8> {
        self.session.output()
    }

    /// Requests without an answer.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether octets would be handled now.
    pub(crate) const fn wants_octets(&self) -> bool {
        !self.session.is_window_full()
    }

    /// Begins to unbind.
    pub(crate) fn unbind(&mut self, now: u64) {
        self.session.unbind(Instant::from_nanos(now));
    }

    /// Takes whole PDUs off `octets`; gives how many octets were used.
    pub(crate) fn handle_octets(
        &mut self,
        now: u64,
        octets: &[u8],
        role: &Role,
        work: &mut Work,
        measures: &mut Measures,
    ) -> usize {
        let mut rest = octets;
        // Opened once for all of the batch.
        let mut entries = None;
        while let Some(received) = self.session.receive(Instant::from_nanos(now), &mut rest) {
            match received {
                Received::Response { request, status, pdu } => {
                    let Some(asked) = request.token else { continue };
                    self.in_flight = self.in_flight.saturating_sub(1);
                    let Some(timed) = Timed::of(request.command_id) else {
                        self.bind_answered(now, status, role, measures);
                        continue;
                    };
                    measures.answered(role.group, timed, asked.due, now, status);
                    if let Some(id) = message_id(&pdu)
                        && status == CommandStatus::ESME_ROK
                    {
                        let awaited = Awaited {
                            due: asked.due,
                            connection: role.number,
                            receipts: asked.receipts,
                            is_conditional: role.behaviour.message.receipts() == Receipts::BySomeOutcomes,
                        };
                        entries.get_or_insert_with(|| role.ledger.entries()).accepted(id, awaited);
                        if role.behaviour.mix.needs_earlier() {
                            work.remember(id);
                        }
                    }
                }
                Received::Request(header, pdu) => {
                    match &pdu {
                        Pdu::DeliverSm(deliver) => {
                            deliver_sm(now, deliver, role, &mut entries, measures);
                        }
                        Pdu::DataSm(_) => measures.delivery(role.group, now),
                        _ => {}
                    }
                    self.answer(now, header, role);
                }
                Received::Refused(header, status) => {
                    self.session.respond_header(header.command_id, status, header.sequence_number);
                }
                Received::Unbind => self.session.let_go(),
                Received::Notice(_) => {}
            }
        }
        // Requests are ignored as well, but only when the session is over.
        let ignored = self.session.take_ignored();
        if ignored > 0 && !self.is_over() {
            entries.get_or_insert_with(|| role.ledger.entries()).unmatched(ignored);
        }
        octets.len() - rest.len()
    }

    fn bind_answered(&mut self, now: u64, status: CommandStatus, role: &Role, measures: &mut Measures) {
        measures.bound(role.group, self.began, now, status);
        if status == CommandStatus::ESME_ROK {
            self.session.bound(role.mode);
            self.held_up_at = now;
        } else {
            self.refusal = Some(status);
            self.session.end(CloseReason::Ours);
        }
    }

    fn answer(&mut self, now: u64, header: Header, role: &Role) {
        let delay = role.behaviour.reading.deliver_delay_ms * 1_000_000;
        if delay == 0 {
            self.session.respond_header(header.command_id, CommandStatus::ESME_ROK, header.sequence_number);
        } else {
            self.answers.push_back((now + delay, header));
        }
    }

    /// Does what the time has come for: sends what is due and what the window has room for, answers, keeps the session alive.
    ///
    /// # Errors
    /// A request that no PDU can hold.
    pub(crate) fn handle_time(
        &mut self,
        now: u64,
        course: Option<&Course>,
        role: &Role,
        work: &mut Work,
        measures: &mut Measures,
    ) -> Result<(), String> {
        while let Some((_, header)) = self.answers.front().copied().filter(|(at, _)| *at <= now) {
            self.answers.pop_front();
            self.session.respond_header(header.command_id, CommandStatus::ESME_ROK, header.sequence_number);
        }
        let instant = Instant::from_nanos(now);
        if self.session.next_timeout().is_some_and(|at| at <= instant) {
            while let Some(elapsed) = self.session.handle_timeout(instant) {
                if matches!(elapsed, Elapsed::Close(_)) {
                    break;
                }
            }
        }
        match course {
            Some(course) if self.is_bound() && role.submits() && now >= course.begin && now < course.end => {
                self.submit(now, course, role, work, measures).map_err(|error| error.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn submit(
        &mut self,
        now: u64,
        course: &Course,
        role: &Role,
        work: &mut Work,
        measures: &mut Measures,
    ) -> Result<(), smppd::pdu::FieldTooLong> {
        let instant = Instant::from_nanos(now);
        let group = &role.behaviour;
        loop {
            let due = match work.arrivals {
                None => now,
                Some(_) => match work.next_due(course) {
                    Some(due) if due <= now => due,
                    Some(_) | None => return Ok(()),
                },
            };
            if self.session.window_room() == 0 {
                self.held_up_at = now;
                return Ok(());
            }
            let kind = work.composer.kind(&group.mix, !work.remembered.is_empty());
            let mut asked = Asked { due, receipts: u16::from(group.message.receipts() != Receipts::None) };
            let earlier = work.remembered.front();
            let session = &mut self.session;
            let timed = match (kind, earlier) {
                (Kind::QuerySm, Some(id)) => {
                    session.request(instant, &Pdu::QuerySm(work.composer.query(id)), asked)?;
                    Timed::QuerySm
                }
                (Kind::CancelSm, Some(id)) => {
                    session.request(instant, &Pdu::CancelSm(work.composer.cancel(id)), asked)?;
                    Timed::CancelSm
                }
                (Kind::ReplaceSm, Some(id)) => {
                    session.request(instant, &Pdu::ReplaceSm(work.composer.replacement(id)), asked)?;
                    Timed::ReplaceSm
                }
                (Kind::SubmitMulti, _) => {
                    let destinations = group.mix.multi_destinations;
                    asked.receipts *= destinations as u16;
                    let submit = work.composer.next_multi(destinations);
                    session.request(instant, &Pdu::SubmitMulti(submit), asked)?;
                    Timed::SubmitMulti
                }
                (Kind::DataSm, _) => {
                    session.request(instant, &Pdu::DataSm(work.composer.next_data_sm()), asked)?;
                    Timed::DataSm
                }
                (Kind::SubmitSm | Kind::QuerySm | Kind::CancelSm | Kind::ReplaceSm, _) => {
                    session.request(instant, &Pdu::SubmitSm(work.composer.next_submit()), asked)?;
                    Timed::SubmitSm
                }
            };
            if matches!(timed, Timed::QuerySm | Timed::CancelSm | Timed::ReplaceSm)
                && let Some(id) = work.remembered.pop_front()
                && timed != Timed::CancelSm
            {
                // Asked again later; what was cancelled is not.
                work.remembered.push_back(id);
            }
            self.in_flight += 1;
            let is_ours = work.arrivals.is_some() && due > self.held_up_at;
            measures.sent(role.group, timed, due, now, is_ours);
            if work.arrivals.is_some() {
                work.next_due = work.arrivals.as_mut().and_then(Arrivals::next);
            }
        }
    }

    /// The socket takes no more: nothing can be sent at `now`.
    pub(crate) const fn hold_up(&mut self, now: u64) {
        self.held_up_at = now;
    }

    /// When [`handle_time`](Self::handle_time) has something to do.
    pub(crate) fn next_time(&self, course: Option<&Course>, role: &Role, work: &Work) -> Option<u64> {
        let due = match course {
            Some(course) if self.is_bound() && role.submits() && self.session.window_room() > 0 => {
                work.next_due(course)
            }
            Some(_) | None => None,
        };
        let answer = self.answers.front().map(|(at, _)| *at);
        let timeout = self.session.next_timeout().map(Instant::as_nanos);
        [due, answer, timeout].into_iter().flatten().min()
    }
}

impl Role {
    /// Whether it ever submits.
    pub(crate) fn submits(&self) -> bool {
        self.mode != BindMode::Receiver && self.behaviour.load != Load::Idle
    }
}

/// The id in a response that has one.
fn message_id<'a>(pdu: &Pdu<'a>) -> Option<&'a [u8]> {
    match pdu {
        Pdu::SubmitSmResp(body) | Pdu::DataSmResp(body) => Some(body.message_id),
        Pdu::SubmitMultiResp(body) => Some(body.message_id),
        _ => None,
    }
}

/// A deliver_sm: a receipt, or a message from a subscriber.
fn deliver_sm<'a>(
    now: u64,
    deliver: &ShortMessage<'_>,
    role: &'a Role,
    entries: &mut Option<MutexGuard<'a, Entries>>,
    measures: &mut Measures,
) {
    if !deliver.esm_class.is_receipt() {
        return measures.delivery(role.group, now);
    }
    let entries = entries.get_or_insert_with(|| role.ledger.entries());
    // Its text may be in either place.
    let payload = deliver.tlvs.get(Tag::MESSAGE_PAYLOAD).filter(|_| deliver.short_message.is_empty());
    let text = ParsedReceipt::parse(payload.unwrap_or(deliver.short_message)).unwrap_or_default();
    let id_of_tlv = deliver.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID);
    let state_of_tlv = deliver.tlvs.u8(Tag::MESSAGE_STATE).map(MessageState);
    if let (Some(text_id), Some(tlv_id)) = (text.message_id, id_of_tlv)
        && text_id != tlv_id
    {
        let (text_id, tlv_id) = (String::from_utf8_lossy(text_id), String::from_utf8_lossy(tlv_id));
        entries.contradiction(&format!("{text_id} in its text, {tlv_id} in receipted_message_id"));
    }
    if let (Some(text_state), Some(tlv_state)) = (text.state, state_of_tlv)
        && text_state != tlv_state
    {
        entries.contradiction(&format!("{text_state} in its text, {tlv_state} in message_state"));
    }
    let Some(id) = id_of_tlv.or(text.message_id) else {
        entries.nameless();
        return measures.receipt(role.group, None, now);
    };
    let is_final = state_of_tlv.or(text.state).is_none_or(MessageState::is_final);
    let due = entries.receipt(id, is_final, role.number);
    measures.receipt(role.group, due, now);
}
