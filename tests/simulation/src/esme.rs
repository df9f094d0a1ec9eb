//! A customer: the client side of the core's own session, and the moods of whoever wrote it.

use smppd::pdu::{
    Address, Bind, CommandId, CommandStatus, Header, InterfaceVersion, MessageIdResp, Pdu, Tlvs,
};
use smppd::session::{BindMode, Received, Session, SessionSettings, Side, State};
use smppd::time::{Instant, Now};
use std::time::Duration;

use crate::oracle::{Asked, Connection, Oracle};
use crate::random::Random;

/// A customer's program.
#[derive(Debug)]
pub struct Esme {
    /// Its account, by its place among the settings.
    pub account: usize,
    /// Its line and session, while it has one.
    pub link: Option<Link>,
    /// What it understands.
    pub version: InterfaceVersion,
    /// How it binds.
    pub mode: BindMode,
    /// It answers at once, and with ESME_ROK.
    pub is_calm: bool,
    /// It has left for good.
    pub has_left: bool,
    /// Messages it got a message_id for.
    pub accepted: Vec<(smppd::message::MessageId, Box<[u8]>)>,
}

/// An ESME's end of a connection.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// Its session.
    pub session: Session<Asked>,
    /// Octets of a PDU that is not whole.
    unread: Vec<u8>,
    /// Deliveries to be answered, and when.
    answers: Vec<(u64, Header, CommandStatus)>,
    /// It has asked to be bound.
    pub is_binding: bool,
}

impl Esme {
    /// A program for an account.
    pub fn new(account: usize, is_old: bool, random: &mut Random) -> Self {
        let all = [InterfaceVersion::V3_3, InterfaceVersion::V3_4, InterfaceVersion::V5_0];
        let versions = if is_old && random.chance(90) { &all[..1] } else { &all };
        let modes = [BindMode::Transceiver, BindMode::Transceiver, BindMode::Transmitter, BindMode::Receiver];
        Self {
            account,
            link: None,
            version: random.pick(versions),
            mode: random.pick(&modes),
            is_calm: false,
            has_left: false,
            accepted: Vec::new(),
        }
    }

    /// A connection was made.
    pub fn connected(&mut self, now: Now, connection: Connection) {
        let hour = Duration::from_secs(3_600);
        let settings = SessionSettings {
            session_init_timeout: hour,
            inactivity_timeout: hour,
            response_timeout: hour,
            enquire_link_interval: Duration::from_secs(4),
            window_in_max: 10_000,
            window_out_max: 40,
            ..SessionSettings::default()
        };
        let session = Session::new(Side::Esme, settings, now.instant);
        self.link =
            Some(Link { connection, session, unread: Vec::new(), answers: Vec::new(), is_binding: false });
    }

    /// Asks to be bound.
    pub fn bind(&mut self, now: Now, name: &str, (password, is_right): (&str, bool), oracle: &mut Oracle) {
        let Some(link) = &mut self.link else { return };
        link.is_binding = true;
        let bind = Bind {
            system_id: name.as_bytes(),
            password: password.as_bytes(),
            system_type: b"",
            interface_version: self.version,
            address_range: Address::default(),
            tlvs: Tlvs::EMPTY,
        };
        let pdu = match self.mode {
            BindMode::Transmitter => Pdu::BindTransmitter(bind),
            BindMode::Receiver => Pdu::BindReceiver(bind),
            BindMode::Transceiver => Pdu::BindTransceiver(bind),
        };
        link.ask(now, &pdu, Asked::Bind(self.mode, self.version, is_right), oracle);
    }

    /// Whether it is bound.
    pub fn is_bound(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.session.state().is_bound())
    }

    /// Whether it is bound and may submit.
    pub fn can_submit(&self) -> bool {
        self.link.as_ref().is_some_and(|link| {
            matches!(link.session.state(), State::BoundTx | State::BoundTrx) && link.session.window_room() > 0
        })
    }

    /// Octets came.
    pub fn take_in(&mut self, now: Now, nanos: u64, octets: &[u8], random: &mut Random, oracle: &mut Oracle) {
        let (is_calm, mode) = (self.is_calm, self.mode);
        let accepted = &mut self.accepted;
        let Some(link) = &mut self.link else { return };
        link.unread.extend_from_slice(octets);
        let unread = std::mem::take(&mut link.unread);
        let mut rest = unread.as_slice();
        while let Some(received) = link.session.receive(now.instant, &mut rest) {
            match received {
                Received::Request(header, Pdu::DeliverSm(deliver)) => {
                    oracle.arrived(&deliver);
                    let (delay, status) = if is_calm {
                        (0, CommandStatus::ESME_ROK)
                    } else {
                        (random.delay(0, 100) * 1_000_000, deliver_status(random))
                    };
                    link.answers.push((nanos + delay, header, status));
                }
                Received::Request(header, _) => {
                    link.session.respond_nack(CommandStatus::ESME_RINVCMDID, header.sequence_number);
                    oracle.violate(format!("the server asked {}", header.command_id));
                }
                Received::Refused(header, status) => {
                    link.session.respond_header(header.command_id, status, header.sequence_number);
                    if link.session.state().is_bound() {
                        oracle.violate(format!("the server sent {} out of its place", header.command_id));
                    }
                }
                Received::Response { request, status, pdu } => {
                    link.is_binding = false;
                    let is_ok = status == CommandStatus::ESME_ROK;
                    match (request.token, &pdu) {
                        (Some(Asked::Bind(..)), _) if is_ok => link.session.bound(mode),
                        (
                            Some(Asked::Submit(_)),
                            Pdu::SubmitSmResp(MessageIdResp { message_id, .. })
                            | Pdu::DataSmResp(MessageIdResp { message_id, .. }),
                        ) if is_ok => {
                            let id = smppd::message::MessageId::parse(message_id);
                            let fact = id.and_then(|id| Some((id, oracle.fact(id)?.source.clone())));
                            accepted.extend(fact);
                        }
                        (Some(Asked::Submit(_)), Pdu::SubmitMultiResp(body)) if is_ok => {
                            let id = smppd::message::MessageId::parse(body.message_id);
                            let fact = id.and_then(|id| Some((id, oracle.fact(id)?.source.clone())));
                            accepted.extend(fact);
                        }
                        _ => {}
                    }
                }
                Received::Unbind => link.session.let_go(),
                Received::Notice(_) => {}
            }
        }
        link.unread = rest.to_vec();
        let ignored = link.session.take_ignored();
        if ignored > 0 {
            oracle.violate(format!("connection {}: {ignored} answers to nothing", link.connection));
        }
    }

    /// Time passes: what is due is answered.
    pub fn tick(&mut self, now: Now, nanos: u64) {
        let Some(link) = &mut self.link else { return };
        while link.session.handle_timeout(now.instant).is_some() {}
        let (due, later): (Vec<_>, Vec<_>) = link.answers.drain(..).partition(|(at, ..)| *at <= nanos);
        link.answers = later;
        for (_, header, status) in due {
            link.answer(&header, status);
        }
    }

    /// Octets for the server.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.link.as_mut().map(|link| std::mem::take(link.session.output())).unwrap_or_default()
    }
}

impl Link {
    /// Sends a request, and tells the oracle.
    pub fn ask(&mut self, now: Now, pdu: &Pdu<'_>, asked: Asked, oracle: &mut Oracle) {
        let start = self.session.output().len();
        if self.session.request(now.instant, pdu, asked).is_err() {
            oracle.violate("a request that cannot be encoded".to_owned());
            return;
        }
        let number = &self.session.output()[start + 12..start + 16];
        let sequence_number = u32::from_be_bytes(std::array::from_fn(|octet| number[octet]));
        oracle.asked(self.connection, sequence_number, asked);
    }

    /// Requests that wait for their answers.
    pub fn waiting(&self) -> usize {
        self.session.settings().window_out_max - self.session.window_room()
    }

    fn answer(&mut self, header: &Header, status: CommandStatus) {
        let number = header.sequence_number;
        match status {
            // No answer at all: the server's timer runs out.
            SILENCE => {}
            CommandStatus::ESME_RINVCMDID => self.session.respond_nack(status, number),
            CommandStatus::ESME_ROK => {
                let body = MessageIdResp { message_id: b"", tlvs: Tlvs::EMPTY };
                _ = self.session.respond(&Pdu::DeliverSmResp(body), number);
            }
            _ => self.session.respond_header(CommandId::DELIVER_SM, status, number),
        }
    }
}

/// Stands for no answer.
const SILENCE: CommandStatus = CommandStatus(u32::MAX);

fn deliver_status(random: &mut Random) -> CommandStatus {
    match random.range(0, 99) {
        0..=3 => CommandStatus::ESME_RX_T_APPN,
        4..=5 => CommandStatus::ESME_RX_P_APPN,
        6..=7 => CommandStatus::ESME_RMSGQFUL,
        8 => CommandStatus::ESME_RINVCMDID,
        9..=10 => SILENCE,
        _ => CommandStatus::ESME_ROK,
    }
}

/// The session's clock for a number of nanoseconds.
pub const fn instant(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}
