//! A small blocking ESME that keeps nothing back: every octet and every PDU can be looked at.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use smppd::message::MessageId;
use smppd::pdu::receipt::ParsedReceipt;
use smppd::pdu::{
    Address, Bind, CommandId, CommandStatus, DataCoding, EsmClass, Framing, InterfaceVersion, Npi, Pdu,
    QuerySm, RegisteredDelivery, ShortMessage, Tlvs, Ton, next_frame, put_header_only,
};

use super::{PASSWORD, PATIENCE, Server};

pub const NUMBER: &str = "12125550100";
/// A destination that is delivered.
pub const DELIVERED: &str = "12125559999";
/// A destination that its carrier never takes.
pub const NEVER_TAKEN: &str = "9999000555";

pub const ANYBODY: Address<'static> = Address { ton: Ton(0), npi: Npi(0), digits: b"" };

pub fn international(digits: &str) -> Address<'_> {
    Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits: digits.as_bytes() }
}

/// A message that asks for a receipt.
pub fn message<'a>(destination: &'a str, text: &'a str) -> ShortMessage<'a> {
    message_to(international(destination), text)
}

/// The same to whatever may stand for a destination.
pub fn message_to<D>(destination: D, text: &str) -> ShortMessage<'_, D> {
    ShortMessage {
        service_type: b"",
        source: international(NUMBER),
        destination,
        esm_class: EsmClass::DEFAULT,
        protocol_id: 0,
        priority_flag: 0,
        schedule_delivery_time: b"",
        validity_period: b"",
        registered_delivery: RegisteredDelivery::RECEIPT,
        replace_if_present_flag: 0,
        data_coding: DataCoding::DEFAULT,
        sm_default_msg_id: 0,
        short_message: text.as_bytes(),
        tlvs: Tlvs::EMPTY,
    }
}

/// A PDU as it came.
#[derive(Clone)]
pub struct Received {
    pub command_id: CommandId,
    pub status: CommandStatus,
    pub sequence_number: u32,
    pub octets: Vec<u8>,
}

/// The parts of a receipt that tests look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    pub id: String,
    pub stat: String,
    pub error: String,
    pub text: String,
}

impl Received {
    pub fn with<R>(&self, read: impl FnOnce(Pdu<'_>) -> R) -> R {
        let Framing::Frame(frame) = next_frame(&self.octets, usize::MAX) else { panic!("a whole PDU") };
        read(frame.decode().expect("a PDU that can be read"))
    }

    /// The message_id of a response that must be a success.
    pub fn message_id(&self) -> String {
        assert_eq!(self.status, CommandStatus::ESME_ROK, "{self:?}");
        self.with(|pdu| match pdu {
            Pdu::SubmitSmResp(body) | Pdu::DataSmResp(body) => text(body.message_id),
            Pdu::SubmitMultiResp(body) => text(body.message_id),
            other => panic!("not the response to a submission: {other:?}"),
        })
    }

    /// What a deliver_sm says, when it is a receipt.
    pub fn receipt(&self) -> Option<Receipt> {
        self.with(|pdu| {
            let Pdu::DeliverSm(body) = pdu else { return None };
            if !body.esm_class.is_receipt() {
                return None;
            }
            let parsed = ParsedReceipt::parse(body.short_message)?;
            let field = |field: Option<&[u8]>| text(field.unwrap_or_default());
            Some(Receipt {
                id: field(parsed.message_id),
                stat: field(parsed.stat),
                error: field(parsed.error),
                text: field(parsed.text),
            })
        })
    }

    /// The message_state of a query_sm_resp.
    pub fn message_state(&self) -> u8 {
        assert_eq!(self.status, CommandStatus::ESME_ROK, "{self:?}");
        self.with(|pdu| match pdu {
            Pdu::QuerySmResp(body) => body.message_state,
            other => panic!("not a query_sm_resp: {other:?}"),
        })
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command_id, status, sequence_number, octets } = self;
        write!(f, "{command_id} {status} {sequence_number} {:?}", text(&octets[16..]))
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// What came next.
#[derive(Debug)]
pub enum Next {
    Pdu(Received),
    /// Nothing, for as long as we were ready to wait.
    Silence,
    /// The end of the stream, with close_notify on TLS or without.
    Closed,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// One connection.
pub struct Esme {
    pub socket: TcpStream,
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    begin: usize,
    waiting: VecDeque<Received>,
    next_sequence_number: u32,
    /// What every deliver_sm is answered with once it is looked at; None = nothing.
    pub answers: Option<CommandStatus>,
    /// Whether enquire_link is answered, unseen.
    pub answers_enquire_link: bool,
}

impl Esme {
    /// A connection over TLS, not bound.
    pub fn connect(server: &Server) -> Self {
        Self::connect_through(server, |socket| socket)
    }

    /// The same, with something between TLS and the socket.
    pub fn connect_through<S: Read + Write + Send + 'static>(
        server: &Server,
        between: impl FnOnce(TcpStream) -> S,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&server.certificate).expect("a certificate");
        roots.add(certificate).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let socket = TcpStream::connect(server.tls).expect("a connection");
        let stream = StreamOwned::new(client, between(socket.try_clone().expect("a socket")));
        Self::over(socket, Box::new(stream))
    }

    /// A connection without TLS, not bound.
    pub fn connect_plain(server: &Server) -> Self {
        let socket = TcpStream::connect(server.plain).expect("a connection");
        let stream = socket.try_clone().expect("a socket");
        Self::over(socket, Box::new(stream))
    }

    fn over(socket: TcpStream, stream: Box<dyn Stream>) -> Self {
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self {
            socket,
            stream,
            buffer: Vec::new(),
            begin: 0,
            waiting: VecDeque::new(),
            next_sequence_number: 1,
            answers: Some(CommandStatus::ESME_ROK),
            answers_enquire_link: true,
        }
    }

    /// Connected over TLS and bound as a transceiver.
    pub fn bound(server: &Server, system_id: &str) -> Self {
        Self::bound_as(server, system_id, CommandId::BIND_TRANSCEIVER)
    }

    /// Connected over TLS and bound.
    pub fn bound_as(server: &Server, system_id: &str, mode: CommandId) -> Self {
        let mut esme = Self::connect(server);
        assert_eq!(esme.bind(system_id, mode), CommandStatus::ESME_ROK);
        esme
    }

    /// Sessions of both cores of a server, one each. `mode` must be able to submit.
    pub fn bound_on_both_cores(server: &Server, system_id: &str, mode: CommandId) -> [Self; 2] {
        let mut found = [None, None];
        for _ in 0..40 {
            let mut esme = Self::bound_as(server, system_id, mode);
            let core = esme.core() % 2;
            found[core].get_or_insert(esme);
            if let [Some(_), Some(_)] = found {
                return found.map(|esme| esme.expect("both are there"));
            }
        }
        panic!("forty connections, all on one core");
    }

    pub fn bind(&mut self, system_id: &str, mode: CommandId) -> CommandStatus {
        self.bind_with(system_id, PASSWORD, mode, InterfaceVersion::V5_0).status
    }

    pub fn bind_with(
        &mut self,
        system_id: &str,
        password: &str,
        mode: CommandId,
        interface_version: InterfaceVersion,
    ) -> Received {
        let bind = Bind {
            system_id: system_id.as_bytes(),
            password: password.as_bytes(),
            system_type: b"",
            interface_version,
            address_range: ANYBODY,
            tlvs: Tlvs::EMPTY,
        };
        let pdu = match mode {
            CommandId::BIND_TRANSMITTER => Pdu::BindTransmitter(bind),
            CommandId::BIND_RECEIVER => Pdu::BindReceiver(bind),
            _ => Pdu::BindTransceiver(bind),
        };
        self.ask(&pdu)
    }

    /// Which partition, and so which core, takes the messages of this session. Costs one message.
    pub fn core(&mut self) -> usize {
        let probe =
            ShortMessage { registered_delivery: RegisteredDelivery::NONE, ..message(DELIVERED, "probe") };
        let id = self.submit(&probe);
        MessageId::parse(id.as_bytes()).expect("an id").partition().0.into()
    }

    /// Sends a request; its sequence_number.
    pub fn send(&mut self, pdu: &Pdu<'_>) -> u32 {
        let mut octets = Vec::new();
        let sequence_number = self.put(pdu, &mut octets);
        self.write(&octets).expect("a connection that takes octets");
        sequence_number
    }

    /// Puts a request behind others; its sequence_number.
    pub fn put(&mut self, pdu: &Pdu<'_>, out: &mut Vec<u8>) -> u32 {
        let sequence_number = self.next_sequence_number;
        self.next_sequence_number += 1;
        pdu.encode(CommandStatus::ESME_ROK, sequence_number, out).expect("encodable");
        sequence_number
    }

    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).and_then(|()| self.stream.flush())
    }

    pub fn answer(&mut self, request: &Received, status: CommandStatus) {
        let mut octets = Vec::new();
        put_header_only(request.command_id.response(), status, request.sequence_number, &mut octets);
        // The peer may be gone; what it still sent is looked at all the same.
        _ = self.write(&octets);
    }

    /// Sends a request and waits for its response; what comes between is looked at later.
    pub fn ask(&mut self, pdu: &Pdu<'_>) -> Received {
        let sequence_number = self.send(pdu);
        self.response(sequence_number)
    }

    /// Waits for a response; what comes before it is looked at later.
    pub fn response(&mut self, sequence_number: u32) -> Received {
        let deadline = Instant::now() + PATIENCE;
        let is_it = |pdu: &Received| pdu.command_id.is_response() && pdu.sequence_number == sequence_number;
        if let Some(place) = self.waiting.iter().position(is_it) {
            return self.waiting.remove(place).expect("it is there");
        }
        let mut others = VecDeque::new();
        loop {
            match self.read_pdu(deadline.saturating_duration_since(Instant::now())) {
                Next::Pdu(pdu) if is_it(&pdu) => {
                    self.waiting.append(&mut others);
                    return pdu;
                }
                Next::Pdu(pdu) => others.push_back(pdu),
                other => panic!("no response to {sequence_number}: {other:?}"),
            }
        }
    }

    /// Submits a message that must be accepted; its message_id.
    pub fn submit(&mut self, message: &ShortMessage<'_>) -> String {
        self.ask(&Pdu::SubmitSm(*message)).message_id()
    }

    pub fn query(&mut self, id: &str) -> Received {
        self.ask(&query(id))
    }

    /// Asks for every message, many at a time; those that are not known.
    pub fn unknown_of(&mut self, ids: &[&str]) -> Vec<String> {
        let answers = self.query_all(ids).into_iter().zip(ids);
        let unknown = answers.filter(|(answer, _)| answer.status != CommandStatus::ESME_ROK);
        unknown.map(|(answer, id)| format!("{id}: {}", answer.status)).collect()
    }

    /// Asks for every message, many at a time; the answers in the same order.
    pub fn query_all(&mut self, ids: &[&str]) -> Vec<Received> {
        let mut answers = Vec::new();
        for chunk in ids.chunks(200) {
            let mut octets = Vec::new();
            let numbers: Vec<u32> = chunk.iter().map(|id| self.put(&query(id), &mut octets)).collect();
            self.write(&octets).expect("a connection that takes octets");
            answers.extend(numbers.into_iter().map(|number| self.response(number)));
        }
        answers
    }

    /// The next PDU, or that there is none.
    pub fn next_within(&mut self, patience: Duration) -> Next {
        let next = self.waiting.pop_front().map_or_else(|| self.read_pdu(patience), Next::Pdu);
        // Answered when the test has it, not before: a receipt nobody looked at is not confirmed.
        if let (Next::Pdu(pdu), Some(status)) = (&next, self.answers)
            && pdu.command_id == CommandId::DELIVER_SM
        {
            self.answer(pdu, status);
        }
        next
    }

    /// The next PDU, which must come.
    pub fn next(&mut self) -> Received {
        match self.next_within(PATIENCE) {
            Next::Pdu(pdu) => pdu,
            other => panic!("no PDU: {other:?}"),
        }
    }

    /// The next receipt, which must come; everything before it is dropped.
    pub fn next_receipt(&mut self) -> Receipt {
        loop {
            if let Some(receipt) = self.next().receipt() {
                return receipt;
            }
        }
    }

    /// Waits for the end of the stream, agreeing to unbind; what came before it.
    pub fn until_closed(&mut self) -> Vec<Received> {
        let mut before = Vec::new();
        loop {
            match self.next_within(PATIENCE) {
                Next::Pdu(pdu) => {
                    if pdu.command_id == CommandId::UNBIND {
                        self.answer(&pdu, CommandStatus::ESME_ROK);
                    }
                    before.push(pdu);
                }
                Next::Closed => return before,
                Next::Silence => panic!("not closed; came: {before:?}"),
            }
        }
    }

    /// Nothing may come for a while, but what was answered already.
    pub fn hears_nothing_for(&mut self, time: Duration) {
        match self.next_within(time) {
            Next::Silence => {}
            other => panic!("something came: {other:?}"),
        }
    }

    /// Collects receipts until each of `ids` has come; how often each came. No other may come.
    pub fn receipts_of(&mut self, ids: &HashSet<String>) -> Vec<Receipt> {
        let mut missing = ids.clone();
        let mut receipts = Vec::new();
        while !missing.is_empty() {
            let receipt = match self.next_within(PATIENCE) {
                Next::Pdu(pdu) => pdu.receipt(),
                other => panic!("{} receipts are missing: {other:?}", missing.len()),
            };
            let Some(receipt) = receipt else { continue };
            assert!(ids.contains(&receipt.id), "a receipt for what we did not send: {receipt:?}");
            missing.remove(&receipt.id);
            receipts.push(receipt);
        }
        receipts
    }

    /// Says that nothing more is sent; what the server still has to say can be read.
    pub fn half_close(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("a connection");
    }

    fn read_pdu(&mut self, patience: Duration) -> Next {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(pdu) = self.take_pdu() {
                if pdu.command_id == CommandId::ENQUIRE_LINK && self.answers_enquire_link {
                    self.answer(&pdu, CommandStatus::ESME_ROK);
                    continue;
                }
                return Next::Pdu(pdu);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Silence;
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a socket");
            self.buffer.drain(..std::mem::take(&mut self.begin));
            let filled = self.buffer.len();
            self.buffer.resize(filled + (64 << 10), 0);
            let count = match self.stream.read(&mut self.buffer[filled..]) {
                Ok(0) => Err(ErrorKind::UnexpectedEof),
                Ok(count) => Ok(count),
                Err(error) => Err(error.kind()),
            };
            self.buffer.truncate(filled + count.unwrap_or(0));
            match count {
                Ok(_) | Err(ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => return Next::Closed,
            }
        }
    }

    fn take_pdu(&mut self) -> Option<Received> {
        let octets = &self.buffer[self.begin..];
        match next_frame(octets, usize::MAX) {
            Framing::Frame(frame) => {
                let length = frame.header.command_length as usize;
                self.begin += length;
                Some(Received {
                    command_id: frame.header.command_id,
                    status: frame.header.command_status,
                    sequence_number: frame.header.sequence_number,
                    octets: octets[..length].to_vec(),
                })
            }
            Framing::Incomplete => None,
            Framing::Broken { .. } => panic!("the server sends no PDUs: {octets:?}"),
        }
    }
}

pub fn query(id: &str) -> Pdu<'_> {
    Pdu::QuerySm(QuerySm { message_id: id.as_bytes(), source: international(NUMBER), tlvs: Tlvs::EMPTY })
}
