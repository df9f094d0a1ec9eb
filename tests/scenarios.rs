//! Scripts of what an ESME says and a message centre answers, run in memory and against the built server.
//!
//! `E>` is sent, `M>` must come next; `E2>` and `M2>` are a second connection. `name=value` sets or checks a field,
//! `name~part` checks that a field contains something, `$name` keeps a value or gives it back, `%20` is a blank,
//! `;` puts several PDUs into one write. `M> closed` is the end of the connection, `wait N` lets N milliseconds pass.

#[allow(dead_code, unreachable_pub, reason = "helpers of several test binaries")]
mod common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use common::{Esme, Net};
use smppd::pdu::{
    Address, Bind, CancelSm, CommandId, CommandStatus, DataCoding, EsmClass, Framing, InterfaceVersion,
    MessageIdResp, Npi, Pdu, QuerySm, RegisteredDelivery, ShortMessage, Tag, Tlvs, Ton, next_frame,
};

/// Something scripts can be played to.
trait Peer {
    /// Sends octets on a connection, making it if need be.
    fn send(&mut self, connection: &str, octets: &[u8]);
    /// The next PDU; `None` when the connection is closed. Panics when nothing comes in good time.
    fn receive(&mut self, connection: &str) -> Option<Vec<u8>>;
    /// Lets time pass.
    fn wait(&mut self, millis: u64);
}

/// The fields of one PDU of a script.
type Fields = Vec<(String, char, String)>;

fn parse(words: &str) -> (String, Fields) {
    let mut words = words.split_whitespace();
    let name = words.next().expect("the name of a PDU").to_owned();
    let fields = words.map(|word| {
        let at = word.find(['=', '~']).unwrap_or_else(|| panic!("{word} is no field"));
        let operator = word[at..].chars().next().expect("found");
        (word[..at].to_owned(), operator, word[at + 1..].replace("%20", " "))
    });
    (name, fields.collect())
}

struct Script<'a> {
    name: String,
    peer: &'a mut dyn Peer,
    kept: HashMap<String, String>,
}

impl Script<'_> {
    fn play(&mut self, text: &str) {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(millis) = line.strip_prefix("wait ") {
                self.peer.wait(millis.parse().expect("milliseconds"));
                continue;
            }
            let (who, what) = line.split_once('>').unwrap_or_else(|| panic!("{}:{number}: no >", self.name));
            let connection = &who[1..];
            match &who[..1] {
                "E" => {
                    let pdus: Vec<Vec<u8>> = what.split(';').map(|words| self.encode(words)).collect();
                    self.peer.send(connection, &pdus.concat());
                }
                _ => {
                    let came = self.peer.receive(connection);
                    if let Err(fault) = self.check(what.trim(), came.as_deref()) {
                        panic!("{}, line {}: {line}\n  {fault}", self.name, number + 1);
                    }
                }
            }
        }
    }

    fn value(&self, value: &str) -> String {
        match value.strip_prefix('$') {
            Some(name) => {
                self.kept.get(name).unwrap_or_else(|| panic!("{}: ${name} is not known", self.name)).clone()
            }
            None => value.to_owned(),
        }
    }

    fn encode(&self, words: &str) -> Vec<u8> {
        let (name, fields) = parse(words);
        let fields: HashMap<String, String> =
            fields.into_iter().map(|(name, _, value)| (name, self.value(&value))).collect();
        let text = |name: &str| fields.get(name).map_or("", String::as_str).as_bytes();
        let number = |name: &str| fields.get(name).map_or(0, |value| value.parse().expect("a number"));
        let address = |name: &str| Address {
            ton: Ton(if text(name).is_empty() { 0 } else { 1 }),
            npi: Npi(if text(name).is_empty() { 0 } else { 1 }),
            digits: text(name),
        };
        let bind = Bind {
            system_id: text("system_id"),
            password: text("password"),
            system_type: b"",
            interface_version: InterfaceVersion::V5_0,
            address_range: address(""),
            tlvs: Tlvs::EMPTY,
        };
        let pdu = match &*name {
            "bind_transceiver" => Pdu::BindTransceiver(bind),
            "bind_transmitter" => Pdu::BindTransmitter(bind),
            "bind_receiver" => Pdu::BindReceiver(bind),
            "enquire_link" => Pdu::EnquireLink,
            "unbind" => Pdu::Unbind,
            "deliver_sm_resp" => Pdu::DeliverSmResp(MessageIdResp { message_id: b"", tlvs: Tlvs::EMPTY }),
            "query_sm" => Pdu::QuerySm(QuerySm {
                message_id: text("message_id"),
                source: address("source_addr"),
                tlvs: Tlvs::EMPTY,
            }),
            "cancel_sm" => Pdu::CancelSm(CancelSm {
                service_type: b"",
                message_id: text("message_id"),
                source: address("source_addr"),
                destination: address("destination_addr"),
                tlvs: Tlvs::EMPTY,
            }),
            "submit_sm" => Pdu::SubmitSm(ShortMessage {
                service_type: b"",
                source: address("source_addr"),
                destination: address("destination_addr"),
                esm_class: EsmClass(number("esm_class") as u8),
                protocol_id: 0,
                priority_flag: number("priority_flag") as u8,
                schedule_delivery_time: text("schedule_delivery_time"),
                validity_period: text("validity_period"),
                registered_delivery: RegisteredDelivery(number("registered_delivery") as u8),
                replace_if_present_flag: number("replace_if_present_flag") as u8,
                data_coding: DataCoding(number("data_coding") as u8),
                sm_default_msg_id: 0,
                short_message: text("short_message"),
                tlvs: Tlvs::EMPTY,
            }),
            _ => panic!("{}: {name} cannot be sent", self.name),
        };
        let mut octets = Vec::new();
        pdu.encode(CommandStatus::ESME_ROK, number("seq"), &mut octets).expect("fields that fit");
        octets
    }

    fn check(&mut self, expected: &str, came: Option<&[u8]>) -> Result<(), String> {
        let Some(octets) = came else {
            return if expected == "closed" { Ok(()) } else { Err("the connection was closed".to_owned()) };
        };
        let Framing::Frame(frame) = next_frame(octets, usize::MAX) else {
            return Err("half a PDU".to_owned());
        };
        let pdu = frame.decode().map_err(|error| format!("unreadable: {error:?}"))?;
        if expected == "closed" {
            return Err(format!("the connection is open: {pdu:?}"));
        }
        let (name, fields) = parse(expected);
        let actual = frame.header.command_id.name().unwrap_or("unknown");
        if actual != name {
            return Err(format!("{actual} came: {pdu:?}"));
        }
        for (field, operator, value) in fields {
            let actual = field_of(&frame.header, &pdu, &field);
            match value.strip_prefix('$') {
                Some(name) if !self.kept.contains_key(name) => {
                    self.kept.insert(name.to_owned(), actual);
                    continue;
                }
                Some(_) | None => {}
            }
            // `id:$id` gives back a value in the middle of a text.
            let wanted = match value.split_once('$') {
                Some((before, name)) => format!("{before}{}", self.value(&format!("${name}"))),
                None => value.clone(),
            };
            let holds = if operator == '~' { actual.contains(&wanted) } else { actual == wanted };
            if !holds {
                return Err(format!("{field} is {actual}, not {wanted}: {pdu:?}"));
            }
        }
        Ok(())
    }
}

fn field_of(header: &smppd::pdu::Header, pdu: &Pdu<'_>, field: &str) -> String {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    match (field, pdu) {
        ("seq", _) => header.sequence_number.to_string(),
        ("status", _) => header.command_status.to_string(),
        ("message_id", Pdu::SubmitSmResp(body)) => text(body.message_id),
        ("message_id", Pdu::QuerySmResp(body)) => text(body.message_id),
        ("message_state", Pdu::QuerySmResp(body)) => body.message_state.to_string(),
        ("esm_class", Pdu::DeliverSm(body)) => body.esm_class.0.to_string(),
        ("source_addr", Pdu::DeliverSm(body)) => text(body.source.digits),
        ("destination_addr", Pdu::DeliverSm(body)) => text(body.destination.digits),
        ("short_message", Pdu::DeliverSm(body)) => text(body.short_message),
        ("message_state", Pdu::DeliverSm(body)) => {
            body.tlvs.u8(Tag::MESSAGE_STATE).map_or_else(String::new, |state| state.to_string())
        }
        ("receipted_message_id", Pdu::DeliverSm(body)) => {
            body.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID).map_or_else(String::new, text)
        }
        _ => panic!("{field} of {pdu:?} cannot be checked"),
    }
}

fn play_all(mut peer: impl FnMut() -> Box<dyn Peer>) {
    let folder = PathBuf::from("tests/scenarios");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("scenarios").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 12, "only {} scenarios", paths.len());
    for path in paths {
        let mut peer = peer();
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).expect("readable");
        Script { name, peer: &mut *peer, kept: HashMap::new() }.play(&text);
    }
}

/// Two shards in memory; connections alternate between them.
struct Memory {
    net: Net,
    connections: HashMap<String, Esme>,
}

impl Peer for Memory {
    fn send(&mut self, connection: &str, octets: &[u8]) {
        let next = self.connections.len() % 2;
        let net = &mut self.net;
        let esme = *self.connections.entry(connection.to_owned()).or_insert_with(|| net.connect(next));
        self.net.send_octets(esme, octets);
    }

    fn receive(&mut self, connection: &str) -> Option<Vec<u8>> {
        let esme = *self.connections.get(connection).expect("a connection");
        for _ in 0..1_000 {
            if let Some(octets) = self.net.next_received(esme) {
                return Some(octets);
            }
            if self.net.is_closed(esme) {
                return None;
            }
            self.net.pass_millis(10);
        }
        panic!("nothing came within ten seconds of virtual time");
    }

    fn wait(&mut self, millis: u64) {
        self.net.pass_millis(millis);
    }
}

#[test]
fn scenarios_hold_in_memory() {
    play_all(|| {
        let mut net = Net::new(2);
        net.confirms = false;
        Box::new(Memory { net, connections: HashMap::new() })
    });
}

#[cfg(feature = "server")]
mod server {
    use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;

    /// The built server on two cores, killed when the test ends.
    struct Server {
        child: Child,
        folder: PathBuf,
        address: SocketAddr,
    }

    impl Server {
        fn start() -> Self {
            let folder = std::env::temp_dir().join(format!("smppd-scenarios-{}", std::process::id()));
            let binary = env!("CARGO_BIN_EXE_smppd");
            let accounts = [("demo", "12125550100", "4"), ("other", "12125550199", "2")];
            for (name, number, limit) in accounts {
                let status = Command::new(binary)
                    .args(["account", "add", name, "--password", "secret", "--number", number])
                    .args(["--bind-limit", limit, "--any-source", "--data-dir"])
                    .arg(&folder)
                    .stdout(Stdio::null())
                    .status();
                assert!(status.expect("started").success());
            }
            let mut child = Command::new(binary)
                .args([
                    "--cores",
                    "2",
                    "--listen",
                    "127.0.0.1:0",
                    "--listen-plain",
                    "127.0.0.1:0",
                    "--data-dir",
                ])
                .arg(&folder)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("started");
            let mut address = None;
            let output = BufReader::new(child.stdout.take().expect("piped"));
            for line in output.lines() {
                let line = line.expect("text");
                if let Some(rest) = line.strip_prefix("listening on ")
                    && let Some(plain) = rest.strip_suffix(" (plain TCP)")
                {
                    address = plain.parse().ok();
                }
                if line.starts_with("ready") {
                    break;
                }
            }
            Self { child, folder, address: address.expect("a plain listener") }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            _ = self.child.kill();
            _ = self.child.wait();
            _ = fs::remove_dir_all(&self.folder);
        }
    }

    struct Network {
        address: SocketAddr,
        connections: HashMap<String, (TcpStream, Vec<u8>)>,
    }

    impl Peer for Network {
        fn send(&mut self, connection: &str, octets: &[u8]) {
            let address = self.address;
            let (stream, _) = self.connections.entry(connection.to_owned()).or_insert_with(|| {
                let stream = TcpStream::connect(address).expect("connected");
                stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
                (stream, Vec::new())
            });
            stream.write_all(octets).expect("sent");
        }

        fn receive(&mut self, connection: &str) -> Option<Vec<u8>> {
            let (stream, carried) = self.connections.get_mut(connection).expect("a connection");
            loop {
                if let Framing::Frame(frame) = next_frame(carried, usize::MAX) {
                    let length = frame.header.command_length as usize;
                    return Some(carried.drain(..length).collect());
                }
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer) {
                    Ok(0) => return None,
                    Ok(count) => carried.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                    Err(error) => panic!("nothing came within a minute: {error}"),
                }
            }
        }

        fn wait(&mut self, millis: u64) {
            std::thread::sleep(Duration::from_millis(millis));
        }
    }

    #[test]
    fn scenarios_hold_against_the_server() {
        let server = Server::start();
        let address = server.address;
        play_all(|| Box::new(Network { address, connections: HashMap::new() }));
    }
}

#[test]
fn a_script_that_expects_something_else_fails() {
    let mut net = Net::new(1);
    net.confirms = false;
    let mut peer = Memory { net, connections: HashMap::new() };
    let mut script = Script { name: "inline".to_owned(), peer: &mut peer, kept: HashMap::new() };
    let text = "E> enquire_link seq=3\nM> enquire_link_resp seq=4";
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script.play(text)));
    assert!(played.is_err());
    assert!(CommandId::ENQUIRE_LINK.name().is_some());
}
