//! One SMPP session, of either side: states, windows, timers. Octets and time go in, PDUs and octets come out.

mod matrix;
mod settings;
mod state;
mod window;

use std::time::Duration;

pub use matrix::{Verdict, verdict};
pub use settings::SessionSettings;
pub use state::{BindMode, CloseReason, Side, State};
pub use window::{InFlight, Window};

use crate::pdu::{
    Answer, CommandId, CommandStatus, FieldTooLong, Framing, Header, InterfaceVersion, Pdu, next_frame,
    put_header_only,
};
use crate::time::Instant;

/// How long our unbind waits for the answers we owe. A commit takes milliseconds; the outcome of a message
/// (transaction mode) may take days.
const UNBIND_PATIENCE: Duration = Duration::from_secs(1);

/// Something the session's owner has to know or answer.
#[derive(Debug)]
pub enum Received<'a, T> {
    /// A request that is in its place. The owner answers it, once, with [`Session::respond`] or
    /// [`Session::respond_header`].
    Request(Header, Pdu<'a>),
    /// A request that is out of its place, or whose fields cannot be read: the owner answers it with
    /// [`Session::respond_header`] and this status, or with what the account is told in its stead.
    Refused(Header, CommandStatus),
    /// A request without a response: outbind, alert_notification.
    Notice(Pdu<'a>),
    /// The peer's answer to [`Session::request`]. With a status other than ESME_ROK the body means nothing.
    Response {
        /// What was asked.
        request: InFlight<T>,
        /// Its outcome.
        status: CommandStatus,
        /// The response.
        pdu: Pdu<'a>,
    },
    /// The peer unbinds. The session answers by itself, when all else is answered and the owner has
    /// [let it go](Session::let_go).
    Unbind,
}

/// What passing time has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elapsed<T> {
    /// A request of ours was not answered in time.
    Unanswered(T),
    /// The session is over.
    Close(CloseReason),
}

/// One session. `T` names, for its owner, what a request is about.
#[derive(Debug)]
pub struct Session<T> {
    side: Side,
    state: State,
    version: InterfaceVersion,
    settings: SessionSettings,
    window: Window<T>,
    /// Requests of the peer that wait for our answer.
    requests_waiting: usize,
    opened_at: Instant,
    last_received: Instant,
    /// When the PDU that is not whole yet began to arrive.
    partial_since: Option<Instant>,
    enquire_link_at: Instant,
    enquire_link_unanswered: u8,
    /// The peer's unbind, when it has to wait for other answers.
    unbind_to_answer: Option<u32>,
    /// Our own unbind waits for the answers we owe, until then at the latest.
    unbind_by: Option<Instant>,
    /// The peer has answered our unbind.
    is_unbind_answered: bool,
    /// The owner reads nothing, because the peer takes nothing.
    is_paused: bool,
    /// The owner reads nothing, because a request waits for its turn.
    is_held: bool,
    /// Since when we have not read: what the peer said since then is not known.
    deaf_since: Option<Instant>,
    failed_binds: u8,
    close: Option<CloseReason>,
    output: Vec<u8>,
    ignored: u64,
}

impl<T: Copy> Session<T> {
    /// A session on a connection that has just been made.
    pub fn new(side: Side, settings: SessionSettings, now: Instant) -> Self {
        Self {
            side,
            state: State::Open,
            version: InterfaceVersion::V5_0,
            enquire_link_at: now + settings.enquire_link_interval,
            settings,
            window: Window::new(),
            requests_waiting: 0,
            opened_at: now,
            last_received: now,
            partial_since: None,
            enquire_link_unanswered: 0,
            unbind_to_answer: None,
            unbind_by: None,
            is_unbind_answered: false,
            is_paused: false,
            is_held: false,
            deaf_since: None,
            failed_binds: 0,
            close: None,
            output: Vec::new(),
            ignored: 0,
        }
    }

    /// Where the session stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// What the peer understands; v5.0 until a bind says otherwise.
    pub const fn version(&self) -> InterfaceVersion {
        self.version
    }

    /// Why the session is over, once it is. The output may still hold octets to send before closing.
    pub const fn close_reason(&self) -> Option<CloseReason> {
        self.close
    }

    /// Octets for the peer; whoever sends them takes them out.
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether the peer has as many requests waiting as it may: read no more until some are answered.
    pub const fn is_window_full(&self) -> bool {
        self.requests_waiting >= self.settings.window_in_max
    }

    /// Requests of the peer that wait for our answer.
    pub const fn requests_waiting(&self) -> usize {
        self.requests_waiting
    }

    /// Whether an answer that may take days (transaction mode) can be owed too: those take half of the peer's
    /// requests at most, so that the others never wait for them. With a window of one there is never room.
    pub const fn has_room_for_outcome(&self) -> bool {
        2 * self.requests_waiting <= self.settings.window_in_max
    }

    /// Requests of ours that may still be sent.
    pub const fn window_room(&self) -> usize {
        self.settings.window_out_max.saturating_sub(self.window.tokens())
    }

    /// The limits and timers in force.
    pub const fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// The owner stops reading (the peer takes no octets) or goes on. Silence that we cause ourselves is not
    /// held against the peer: while nothing is read no timer runs.
    pub fn pause(&mut self, now: Instant, is_paused: bool) {
        self.is_paused = is_paused;
        self.note_deafness(now);
    }

    /// The same while a request of the peer waits for another one.
    pub fn hold(&mut self, now: Instant, is_held: bool) {
        self.is_held = is_held;
        self.note_deafness(now);
    }

    /// Responses that answered nothing and other PDUs that were passed over, since the last call.
    pub const fn take_ignored(&mut self) -> u64 {
        std::mem::replace(&mut self.ignored, 0)
    }

    /// Takes PDUs off the front of `octets` until one concerns the owner. `None` when what is left is not a
    /// whole PDU, when the window is full, or when the session is over.
    ///
    /// Order of checks: length, known id, state, body (section 17 of our protocol reference).
    pub fn receive<'a>(&mut self, now: Instant, octets: &mut &'a [u8]) -> Option<Received<'a, T>> {
        self.note_deafness(now);
        let received = self.receive_next(now, octets);
        self.note_deafness(now);
        received
    }

    fn receive_next<'a>(&mut self, now: Instant, octets: &mut &'a [u8]) -> Option<Received<'a, T>> {
        while self.close.is_none() && !self.is_window_full() {
            let pdu_octets_max = if self.state.is_bound() || self.state == State::Unbinding {
                self.settings.pdu_octets_max
            } else {
                self.settings.pdu_octets_max_unbound
            };
            let frame = match next_frame(octets, pdu_octets_max) {
                Framing::Frame(frame) => frame,
                Framing::Incomplete => {
                    self.note_partial(now, octets);
                    return None;
                }
                Framing::Broken { sequence_number } => {
                    *octets = &[];
                    self.nack(CommandStatus::ESME_RINVCMDLEN, sequence_number);
                    self.end(CloseReason::FramingLost);
                    return None;
                }
            };
            *octets = &octets[frame.header.command_length as usize..];
            self.partial_since = None;
            self.last_received = now;
            self.enquire_link_at = now + self.settings.enquire_link_interval;
            self.enquire_link_unanswered = 0;

            let header = frame.header;
            if header.command_id.is_response() {
                let Some(request) = self.matching(&header) else {
                    self.ignored += 1;
                    continue;
                };
                if let Some(received) = self.response(request, &header, frame.decode().ok()) {
                    return Some(received);
                }
                continue;
            }
            match verdict(self.side, self.state, header.command_id) {
                Verdict::Allowed => {}
                Verdict::Refused(status) => {
                    // A peer that has not been told yet did nothing wrong: it shall try again elsewhere, or later.
                    let is_untold = self.unbind_by.is_some();
                    let status = if is_untold { CommandStatus::ESME_RTHROTTLED } else { status };
                    self.requests_waiting += 1;
                    return Some(Received::Refused(header, status));
                }
                Verdict::Nacked(status) => {
                    self.nack(status, header.sequence_number);
                    continue;
                }
                Verdict::Ignored => {
                    self.ignored += 1;
                    continue;
                }
            }
            match frame.decode() {
                Ok(Pdu::EnquireLink) => {
                    put_header_only(
                        CommandId::ENQUIRE_LINK_RESP,
                        CommandStatus::ESME_ROK,
                        header.sequence_number,
                        &mut self.output,
                    );
                }
                Ok(Pdu::Unbind) => {
                    if self.peer_unbinds(header.sequence_number) {
                        return Some(Received::Unbind);
                    }
                }
                Ok(pdu @ (Pdu::Outbind(_) | Pdu::AlertNotification(_))) => {
                    if matches!(pdu, Pdu::Outbind(_)) {
                        self.state = State::Outbound;
                    }
                    return Some(Received::Notice(pdu));
                }
                Ok(pdu) => {
                    self.requests_waiting += 1;
                    return Some(Received::Request(header, pdu));
                }
                Err(unreadable) => match unreadable.answer {
                    Answer::GenericNack => self.nack(unreadable.status, header.sequence_number),
                    Answer::OwnResponse => {
                        self.requests_waiting += 1;
                        return Some(Received::Refused(header, unreadable.status));
                    }
                },
            }
        }
        None
    }

    /// Answers a request with a body.
    ///
    /// # Errors
    /// A field is too long for the wire; nothing was written and the request still waits.
    pub fn respond(&mut self, response: &Pdu<'_>, sequence_number: u32) -> Result<(), FieldTooLong> {
        if self.close.is_none() {
            response.encode(CommandStatus::ESME_ROK, sequence_number, &mut self.output)?;
        }
        self.answered();
        Ok(())
    }

    /// Answers a request with a status alone: what an error always is, and some successes.
    pub fn respond_header(&mut self, request: CommandId, status: CommandStatus, sequence_number: u32) {
        if self.close.is_none() {
            put_header_only(request.response(), status, sequence_number, &mut self.output);
        }
        self.answered();
    }

    /// Refuses a request that no response exists for, or that we do not offer.
    pub fn respond_nack(&mut self, status: CommandStatus, sequence_number: u32) {
        if self.close.is_none() {
            self.nack(status, sequence_number);
        }
        self.answered();
    }

    /// Answers a bind with success: from here on the session is bound.
    ///
    /// # Errors
    /// `mc_system_id` is too long for the wire.
    pub fn accept_bind(
        &mut self,
        mode: BindMode,
        asked: InterfaceVersion,
        response: &Pdu<'_>,
        sequence_number: u32,
    ) -> Result<(), FieldTooLong> {
        self.version = asked.negotiate();
        self.respond(response, sequence_number)?;
        if self.close.is_none() {
            self.state = mode.state();
        }
        Ok(())
    }

    /// Answers a bind with a refusal; the last one allowed closes the session.
    pub fn refuse_bind(&mut self, request: CommandId, status: CommandStatus, sequence_number: u32) {
        self.respond_header(request, status, sequence_number);
        self.failed_binds += 1;
        if self.failed_binds >= self.settings.bind_attempts_max {
            self.end(CloseReason::BindAttempts);
        }
    }

    /// As an ESME: the state after a bind_resp with ESME_ROK.
    pub fn bound(&mut self, mode: BindMode) {
        self.state = mode.state();
    }

    /// Sends a request; `put` appends the body behind the header.
    pub fn request_with(
        &mut self,
        now: Instant,
        command_id: CommandId,
        token: T,
        put: impl FnOnce(&mut Vec<u8>),
    ) {
        let sequence_number = self.open(now, command_id, Some(token));
        let start = self.output.len();
        put_header_only(command_id, CommandStatus::ESME_ROK, sequence_number, &mut self.output);
        put(&mut self.output);
        let length = (self.output.len() - start) as u32;
        self.output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends a request.
    ///
    /// # Errors
    /// A field is too long for the wire; nothing was sent.
    pub fn request(&mut self, now: Instant, pdu: &Pdu<'_>, token: T) -> Result<(), FieldTooLong> {
        let start = self.output.len();
        pdu.encode(CommandStatus::ESME_ROK, 0, &mut self.output)?;
        let sequence_number = self.open(now, pdu.command_id(), Some(token));
        self.output[start + 12..start + 16].copy_from_slice(&sequence_number.to_be_bytes());
        Ok(())
    }

    /// Unbinds from our side: the peer's answers are still taken, its requests are not. Many peers close as
    /// soon as they have answered, so unbind goes out behind the answers we owe, if they do not take long. Until then
    /// requests are refused with ESME_RTHROTTLED, from then on with ESME_RINVBNDSTS.
    pub fn unbind(&mut self, now: Instant) {
        match self.state {
            State::BoundTx | State::BoundRx | State::BoundTrx => {
                self.state = State::Unbinding;
                self.unbind_by = Some(self.deaf_since.unwrap_or(now) + UNBIND_PATIENCE);
                self.settle_unbind();
            }
            State::Open | State::Outbound => self.end(CloseReason::Ours),
            State::Unbinding | State::Closed => {}
        }
    }

    /// Nobody counts the session as bound any more: the peer's unbind may be answered. Once for each
    /// [`Received::Unbind`].
    pub fn let_go(&mut self) {
        self.answered();
    }

    /// Ends the session; what is in the output is still to be sent.
    pub fn end(&mut self, reason: CloseReason) {
        self.close.get_or_insert(reason);
        self.state = State::Closed;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.close.is_some() || self.is_deaf() {
            return None;
        }
        let inactive_at = self.last_received + self.settings.inactivity_timeout;
        let of_state = match self.state {
            State::Open | State::Outbound => self.opened_at + self.settings.session_init_timeout,
            State::BoundTx | State::BoundRx | State::BoundTrx => inactive_at.min(self.enquire_link_at),
            State::Unbinding => inactive_at,
            State::Closed => return None,
        };
        let partial = self.partial_since.map(|since| since + self.settings.pdu_timeout);
        let others = [partial, self.unbind_by, self.window.next_deadline()];
        Some(others.into_iter().flatten().fold(of_state, Instant::min))
    }

    /// What time has brought by `now`; call until `None`.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Elapsed<T>> {
        self.note_deafness(now);
        if self.close.is_some() || self.is_deaf() {
            return None;
        }
        if self.unbind_by.is_some_and(|by| now >= by) {
            self.send_unbind();
        }
        while let Some(request) = self.window.expire(now) {
            match (request.token, request.command_id) {
                (Some(token), _) => return Some(Elapsed::Unanswered(token)),
                (None, CommandId::UNBIND) => return Some(self.ended(CloseReason::UnbindUnanswered)),
                // Any PDU since then proves life, §2.7; the count was cleared when it came.
                (None, _) => {
                    let limit = self.settings.enquire_link_unanswered_max;
                    if limit != 0 && self.enquire_link_unanswered >= limit {
                        return Some(self.ended(CloseReason::EnquireLinkUnanswered));
                    }
                }
            }
        }
        if self.partial_since.is_some_and(|since| now >= since + self.settings.pdu_timeout) {
            return Some(self.ended(CloseReason::PduTimeout));
        }
        match self.state {
            State::Open | State::Outbound => {
                if now >= self.opened_at + self.settings.session_init_timeout {
                    return Some(self.ended(CloseReason::SessionInitTimeout));
                }
            }
            State::BoundTx | State::BoundRx | State::BoundTrx => {
                if now >= self.last_received + self.settings.inactivity_timeout {
                    return Some(self.ended(CloseReason::Inactivity));
                }
                if now >= self.enquire_link_at {
                    self.enquire_link_at = now + self.settings.enquire_link_interval;
                    self.enquire_link_unanswered = self.enquire_link_unanswered.saturating_add(1);
                    let sequence_number = self.open(now, CommandId::ENQUIRE_LINK, None);
                    put_header_only(
                        CommandId::ENQUIRE_LINK,
                        CommandStatus::ESME_ROK,
                        sequence_number,
                        &mut self.output,
                    );
                }
            }
            // An answer that the peer's unbind waits for may be a long time coming (transaction mode).
            State::Unbinding => {
                if now >= self.last_received + self.settings.inactivity_timeout {
                    return Some(self.ended(CloseReason::Inactivity));
                }
            }
            State::Closed => {}
        }
        None
    }

    /// Requests of ours that will not be answered any more, once the session is over.
    pub fn take_unanswered(&mut self) -> Option<T> {
        while let Some(request) = self.window.take_oldest() {
            if request.token.is_some() {
                return request.token;
            }
        }
        None
    }

    fn note_partial(&mut self, now: Instant, octets: &[u8]) {
        if octets.is_empty() {
            self.partial_since = None;
        } else {
            self.partial_since.get_or_insert(now);
        }
    }

    fn open(&mut self, now: Instant, command_id: CommandId, token: Option<T>) -> u32 {
        // The pause will be added when we listen again.
        let begin = self.deaf_since.unwrap_or(now);
        self.window.open(InFlight { command_id, token, deadline: begin + self.settings.response_timeout })
    }

    /// The request that a response answers. One of another kind answers nothing; generic_nack answers any.
    fn matching(&mut self, header: &Header) -> Option<InFlight<T>> {
        let is_nack = header.command_id == CommandId::GENERIC_NACK;
        let asked = self.window.peek(header.sequence_number)?.command_id;
        if is_nack || asked.response() == header.command_id {
            self.window.close(header.sequence_number)
        } else {
            None
        }
    }

    fn response<'a>(
        &mut self,
        request: InFlight<T>,
        header: &Header,
        decoded: Option<Pdu<'a>>,
    ) -> Option<Received<'a, T>> {
        match request.command_id {
            CommandId::ENQUIRE_LINK => None,
            CommandId::UNBIND => {
                self.is_unbind_answered = true;
                self.settle_unbind();
                None
            }
            _ => {
                // A nack says failure even when it says ESME_ROK.
                let status = match header.command_status {
                    CommandStatus::ESME_ROK if header.command_id == CommandId::GENERIC_NACK => {
                        CommandStatus::ESME_RUNKNOWNERR
                    }
                    status => status,
                };
                // Section 17 row 18: a bad body does not change what the status says.
                let pdu = decoded.unwrap_or(Pdu::StatusOnly { command_id: header.command_id });
                Some(Received::Response { request, status, pdu })
            }
        }
    }

    /// Whether the session was bound until now.
    fn peer_unbinds(&mut self, sequence_number: u32) -> bool {
        let was_bound = self.state.is_bound();
        if !was_bound && self.state != State::Unbinding {
            self.put_unbind_resp(CommandStatus::ESME_RINVBNDSTS, sequence_number);
            self.end(CloseReason::Unbound);
            return false;
        }
        self.state = State::Unbinding;
        self.unbind_by = None;
        // The owner's part is one more thing to wait for.
        self.requests_waiting += usize::from(was_bound);
        if let Some(earlier) = self.unbind_to_answer.replace(sequence_number) {
            self.put_unbind_resp(CommandStatus::ESME_ROK, earlier);
        }
        self.settle_unbind();
        was_bound
    }

    fn answered(&mut self) {
        self.requests_waiting -= 1;
        self.settle_unbind();
    }

    /// When no answer is owed any more, the unbind that waited for that goes on, whoever's it is.
    fn settle_unbind(&mut self) {
        if self.state != State::Unbinding || self.requests_waiting > 0 {
            return;
        }
        if let Some(sequence_number) = self.unbind_to_answer.take() {
            self.put_unbind_resp(CommandStatus::ESME_ROK, sequence_number);
            self.end(CloseReason::Unbound);
        } else if self.is_unbind_answered {
            self.end(CloseReason::Unbound);
        } else {
            self.send_unbind();
        }
    }

    fn send_unbind(&mut self) {
        let Some(by) = self.unbind_by.take() else { return };
        let sequence_number = self.open(by, CommandId::UNBIND, None);
        put_header_only(CommandId::UNBIND, CommandStatus::ESME_ROK, sequence_number, &mut self.output);
    }

    fn put_unbind_resp(&mut self, status: CommandStatus, sequence_number: u32) {
        put_header_only(CommandId::UNBIND_RESP, status, sequence_number, &mut self.output);
    }

    /// Whether octets of the peer may wait unread.
    const fn is_deaf(&self) -> bool {
        self.is_paused || self.is_held || self.is_window_full()
    }

    /// An answer may have made room in a full window: from `now` on we listen again.
    pub fn answered_by(&mut self, now: Instant) {
        if self.deaf_since.is_some() {
            self.note_deafness(now);
        }
    }

    /// Notes when we stop listening; when we listen again, all that waits for the peer has as much time left
    /// as it had then.
    fn note_deafness(&mut self, now: Instant) {
        if self.is_deaf() {
            self.deaf_since.get_or_insert(now);
        } else if let Some(since) = self.deaf_since.take() {
            let pause = now.saturating_duration_since(since);
            self.opened_at = self.opened_at + pause;
            self.last_received = self.last_received + pause;
            self.enquire_link_at = self.enquire_link_at + pause;
            self.partial_since = self.partial_since.map(|since| since + pause);
            self.unbind_by = self.unbind_by.map(|by| by + pause);
            self.window.postpone(pause);
        }
    }

    fn nack(&mut self, status: CommandStatus, sequence_number: u32) {
        put_header_only(CommandId::GENERIC_NACK, status, sequence_number, &mut self.output);
    }

    fn ended(&mut self, reason: CloseReason) -> Elapsed<T> {
        // A peer that is merely silent learns why: unbind goes out before the connection closes.
        if reason == CloseReason::Inactivity && self.state.is_bound() {
            put_header_only(
                CommandId::UNBIND,
                CommandStatus::ESME_ROK,
                self.window.open(InFlight {
                    command_id: CommandId::UNBIND,
                    token: None,
                    deadline: self.last_received,
                }),
                &mut self.output,
            );
        }
        self.end(reason);
        Elapsed::Close(reason)
    }
}
