//! One ESME: a connection, a bound session, a window kept full.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant as StdInstant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use smppd::pdu::receipt::ParsedReceipt;
use smppd::pdu::{
    Address, Bind, CommandId, CommandStatus, DataCoding, EsmClass, InterfaceVersion, Npi, Pdu,
    RegisteredDelivery, ShortMessage, Tlvs, Ton,
};
use smppd::session::{BindMode, Received, Session, SessionSettings, Side};
use smppd::time::Instant;

use crate::referee::Referee;

/// What every connection of a run does.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) system_id: String,
    pub(crate) password: String,
    pub(crate) window: usize,
    /// Messages of each connection that are due every millisecond; without it, as many as the window takes.
    pub(crate) rate: Option<f64>,
    pub(crate) receipts: bool,
    pub(crate) destination: String,
    pub(crate) text: Vec<u8>,
    pub(crate) until: StdInstant,
    pub(crate) budget: AtomicU64,
    pub(crate) drain: Duration,
    pub(crate) referee: Referee,
    /// Receipts that are due, over all connections: they go to any session of the account.
    pub(crate) due: AtomicI64,
}

/// What a connection saw.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) receipts: u64,
    pub(crate) submitting: Duration,
    pub(crate) response_micros: Histogram<u64>,
    pub(crate) receipt_micros: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn new() -> Self {
        // Three significant digits, up to an hour.
        let histogram = || {
            Histogram::new_with_max(3_600_000_000, 3)
                .unwrap_or_else(|_| unreachable!("valid bounds and precision"))
        };
        Self {
            accepted: 0,
            refused: 0,
            receipts: 0,
            submitting: Duration::ZERO,
            response_micros: histogram(),
            receipt_micros: histogram(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.receipts += other.receipts;
        self.submitting = self.submitting.max(other.submitting);
        // The histograms grow by themselves.
        _ = self.response_micros.add(&other.response_micros);
        _ = self.receipt_micros.add(&other.receipt_micros);
    }
}

/// The TLS configuration that trusts one certificate.
pub(crate) fn trust(certificate: &Path) -> Result<Arc<ClientConfig>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
    let mut roots = RootCertStore::empty();
    let trusted = CertificateDer::from_pem_file(certificate).map_err(|error| wrong(&error))?;
    roots.add(trusted).map_err(|error| wrong(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A request in flight: when it was sent.
type Sent = StdInstant;

/// One ESME.
pub(crate) struct Esme {
    plan: Arc<Plan>,
    stream: Box<dyn Stream>,
    socket: TcpStream,
    session: Session<Sent>,
    start: StdInstant,
    outcome: Outcome,
    in_flight: usize,
    /// Messages that were due since then, so far.
    was_due: u64,
    due_from: StdInstant,
    own_ids: std::collections::HashMap<Box<[u8]>, StdInstant>,
}

impl Esme {
    /// Connects; the bind is the first thing that [`run`](Self::run) does.
    pub(crate) fn connect(plan: Arc<Plan>) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", plan.address);
        let socket = TcpStream::connect(plan.address).map_err(|error| wrong(&error))?;
        socket.set_nodelay(true).map_err(|error| wrong(&error))?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).map_err(|error| wrong(&error))?;
        let watched = socket.try_clone().map_err(|error| wrong(&error))?;
        let stream: Box<dyn Stream> = match &plan.tls {
            None => Box::new(socket),
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(|error| wrong(&error))?;
                let client =
                    ClientConnection::new(Arc::clone(config), name).map_err(|error| wrong(&error))?;
                Box::new(StreamOwned::new(client, socket))
            }
        };
        let settings = SessionSettings {
            window_in_max: usize::MAX,
            response_timeout: Duration::from_secs(60),
            ..SessionSettings::default()
        };
        let start = StdInstant::now();
        let session = Session::new(Side::Esme, settings, Instant::ZERO);
        let outcome = Outcome::new();
        let own_ids = std::collections::HashMap::new();
        let socket = watched;
        Ok(Self {
            plan,
            stream,
            socket,
            session,
            start,
            outcome,
            in_flight: 0,
            was_due: 0,
            due_from: start,
            own_ids,
        })
    }

    /// Binds, submits, waits for what is due, unbinds.
    pub(crate) fn run(mut self) -> Result<Outcome, String> {
        let bind = Bind {
            system_id: self.plan.system_id.as_bytes(),
            password: self.plan.password.as_bytes(),
            system_type: b"",
            interface_version: InterfaceVersion::V3_4,
            address_range: Address { ton: Ton::UNKNOWN, npi: Npi::UNKNOWN, digits: b"" },
            tlvs: Tlvs::EMPTY,
        };
        let now = self.now();
        self.session
            .request(now, &Pdu::BindTransceiver(bind), self.start)
            .map_err(|error| error.to_string())?;
        let mut buffer = vec![0; 1 << 17];
        let mut filled = 0;
        let mut drain_until = None;
        let begin = StdInstant::now();
        loop {
            self.flush()?;
            let is_over = self.session.state().is_bound() && self.in_flight == 0 && self.is_submitting_over();
            if is_over {
                if drain_until.is_none() {
                    self.outcome.submitting = begin.elapsed();
                }
                let until = *drain_until.get_or_insert_with(|| StdInstant::now() + self.plan.drain);
                if self.plan.due.load(Ordering::Relaxed) <= 0 || StdInstant::now() >= until {
                    self.unbind();
                    return Ok(self.outcome);
                }
            }
            if !self.wait()? {
                self.fill_window()?;
                continue;
            }
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => filled += count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if drain_until.is_none() && begin.elapsed() > Duration::from_secs(3_600) {
                        return Err("nothing came for an hour".to_owned());
                    }
                    continue;
                }
                Err(error) => return Err(error.to_string()),
            }
            let used = self.take_in(&buffer[..filled])?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
            self.fill_window()?;
        }
    }

    fn take_in(&mut self, octets: &[u8]) -> Result<usize, String> {
        let now = self.now();
        let at = StdInstant::now();
        let mut rest = octets;
        while let Some(received) = self.session.receive(now, &mut rest) {
            match received {
                Received::Response { request, status, pdu } => match request.command_id {
                    CommandId::BIND_TRANSCEIVER if status == CommandStatus::ESME_ROK => {
                        self.session.bound(BindMode::Transceiver);
                        self.due_from = StdInstant::now();
                    }
                    CommandId::BIND_TRANSCEIVER => return Err(format!("the bind was refused: {status}")),
                    _ => {
                        self.in_flight -= 1;
                        let Some(sent) = request.token else { continue };
                        if let Pdu::SubmitSmResp(body) = pdu
                            && status == CommandStatus::ESME_ROK
                        {
                            self.outcome.accepted += 1;
                            let micros = at.saturating_duration_since(sent).as_micros() as u64;
                            self.outcome.response_micros.saturating_record(micros);
                            self.plan.referee.response(body.message_id);
                            if self.plan.receipts {
                                self.own_ids.insert(body.message_id.into(), sent);
                                self.plan.due.fetch_add(1, Ordering::Relaxed);
                            }
                        } else {
                            self.outcome.refused += 1;
                        }
                    }
                },
                Received::Request(header, pdu) => {
                    if let Pdu::DeliverSm(deliver) = pdu
                        && let Some(id) =
                            ParsedReceipt::parse(deliver.short_message).and_then(|receipt| receipt.message_id)
                    {
                        self.outcome.receipts += 1;
                        self.plan.due.fetch_sub(1, Ordering::Relaxed);
                        let sent = self.own_ids.remove(id);
                        self.plan.referee.receipt(id, sent.is_some());
                        if let Some(sent) = sent {
                            let micros = at.saturating_duration_since(sent).as_micros() as u64;
                            self.outcome.receipt_micros.saturating_record(micros);
                        }
                    }
                    self.session.respond_header(
                        header.command_id,
                        CommandStatus::ESME_ROK,
                        header.sequence_number,
                    );
                }
                Received::Refused(header, status) => {
                    self.session.respond_header(header.command_id, status, header.sequence_number);
                }
                Received::Notice(_) => {}
                Received::Unbind => return Err("the server unbound".to_owned()),
            }
        }
        Ok(octets.len() - rest.len())
    }

    fn is_submitting_over(&self) -> bool {
        self.plan.budget.load(Ordering::Relaxed) == 0 || StdInstant::now() >= self.plan.until
    }

    fn fill_window(&mut self) -> Result<(), String> {
        if !self.session.state().is_bound() || StdInstant::now() >= self.plan.until {
            return Ok(());
        }
        let now = self.now();
        let plan = Arc::clone(&self.plan);
        while self.in_flight < plan.window {
            let Some(sent) = self.next_due() else { return Ok(()) };
            self.was_due += 1;
            let take = |left: u64| left.checked_sub(1);
            if plan.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return Ok(());
            }
            let submit = ShortMessage {
                service_type: b"",
                source: Address { ton: Ton::UNKNOWN, npi: Npi::UNKNOWN, digits: b"" },
                destination: Address {
                    ton: Ton::INTERNATIONAL,
                    npi: Npi::ISDN,
                    digits: plan.destination.as_bytes(),
                },
                esm_class: EsmClass::DEFAULT,
                protocol_id: 0,
                priority_flag: 0,
                schedule_delivery_time: b"",
                validity_period: b"",
                registered_delivery: RegisteredDelivery(u8::from(plan.receipts)),
                replace_if_present_flag: 0,
                data_coding: DataCoding::DEFAULT,
                sm_default_msg_id: 0,
                short_message: &plan.text,
                tlvs: Tlvs::EMPTY,
            };
            self.session.request(now, &Pdu::SubmitSm(submit), sent).map_err(|error| error.to_string())?;
            self.in_flight += 1;
        }
        Ok(())
    }

    /// When the next message was due; `None` when it is not due yet. What is due late, because the window was full,
    /// counts from when it was due.
    fn next_due(&self) -> Option<StdInstant> {
        let now = StdInstant::now();
        let Some(rate) = self.plan.rate else { return Some(now) };
        let millis = (self.was_due as f64 / rate) as u64;
        Some(self.due_from + Duration::from_millis(millis)).filter(|due| *due <= now)
    }

    /// Waits for octets, or until something is due; whether there are octets.
    fn wait(&self) -> Result<bool, String> {
        if self.plan.rate.is_none() || !self.session.state().is_bound() {
            return Ok(true);
        }
        let elapsed = self.due_from.elapsed();
        let next = Duration::from_millis(elapsed.as_millis() as u64 + 1).saturating_sub(elapsed);
        let mut watched = [PollFd::new(&self.socket, PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: next.as_nanos() as i64 };
        let ready = poll(&mut watched, Some(&timeout)).map_err(|error| error.to_string())?;
        Ok(ready > 0)
    }

    fn flush(&mut self) -> Result<(), String> {
        let output = self.session.output();
        if !output.is_empty() {
            self.stream
                .write_all(output)
                .and_then(|()| self.stream.flush())
                .map_err(|error| error.to_string())?;
            output.clear();
        }
        Ok(())
    }

    fn unbind(&mut self) {
        let now = self.now();
        self.session.unbind(now);
        // The run is over; what the server says to that is not measured.
        _ = self.flush();
        _ = self.stream.read(&mut [0; 4096]);
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.start.elapsed().as_nanos() as u64)
    }
}
