//! Dialogues in `tests/scenarios`, each held twice: with shards in memory, and with the server over TLS.
//!
//! `E>` is what the ESME sends, `M>` what the message centre must send next; `E2>` and `M2>` are a second
//! session. `$name` is whatever stood there first. `M> closed` is the end of the connection.

#[expect(unreachable_pub, dead_code, reason = "a module of helpers, of which others use the rest")]
mod common;
mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use common::Net;
use smppd::pdu::receipt::ParsedReceipt;
use smppd::pdu::{
    Address, Bind, CancelSm, CommandId, CommandStatus, DataCoding, EsmClass, Framing, InterfaceVersion, Pdu,
    QuerySm, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, Tlvs, next_frame, put_header_only,
};
use support::esme::{ANYBODY, Esme, NUMBER, Next, international};
use support::{PATIENCE, Place, Server};

#[test]
fn the_core_holds_every_dialogue() {
    each_scenario(|name, lines| {
        let mut world = Memory { net: Net::new(2), sessions: Vec::new() };
        play(name, lines, &mut world);
    });
}

#[test]
fn the_server_holds_every_dialogue() {
    let place = Place::new("scenarios");
    place.account("add demo --bind-limit 0 --any-source --number 12125550100");
    place.account("add other --bind-limit 0 --any-source");
    let server = place.server().start();
    each_scenario(|name, lines| play(name, lines, &mut Reality { server: &server, sessions: Vec::new() }));
    assert!(server.stop().success());
}

fn each_scenario(mut hold: impl FnMut(&str, &[Line])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("scenarios").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a scenario");
        let lines: Vec<Line> =
            (1..).zip(text.lines()).filter_map(|(number, line)| Line::parse(&name, number, line)).collect();
        hold(&name, &lines);
    }
}

/// One line of a dialogue.
struct Line {
    place: String,
    is_ours: bool,
    session: usize,
    operation: String,
    fields: BTreeMap<String, String>,
}

impl Line {
    fn parse(file: &str, number: usize, line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let place = format!("{file}:{number}: {line}");
        let (who, rest) = line.split_once("> ").unwrap_or_else(|| panic!("{place}: nobody speaks"));
        let (side, session) = who.split_at(1);
        let mut words = words(rest).into_iter();
        let operation = words.next().unwrap_or_else(|| panic!("{place}: nothing is said"));
        let field = |word: String| {
            let (name, value) = word.split_once('=').unwrap_or((&word, ""));
            (name.to_owned(), value.to_owned())
        };
        Some(Self {
            is_ours: side == "E",
            session: session.parse::<usize>().unwrap_or(1) - 1,
            operation,
            fields: words.map(field).collect(),
            place,
        })
    }
}

/// Words divided by blanks, but for those between quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            _ => words.last_mut().expect("a word").push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Where a dialogue is held.
trait World {
    fn send(&mut self, session: usize, octets: &[u8]);
    /// The next PDU, answered already; None = the connection has ended.
    fn next(&mut self, session: usize) -> Option<Vec<u8>>;
}

struct Memory {
    net: Net,
    sessions: Vec<(common::Esme, Vec<common::ReceivedPdu>)>,
}

impl Memory {
    fn session(&mut self, session: usize) -> &mut (common::Esme, Vec<common::ReceivedPdu>) {
        while self.sessions.len() <= session {
            // Each on a core of its own.
            let esme = self.net.connect(self.sessions.len() % 2);
            self.sessions.push((esme, Vec::new()));
        }
        &mut self.sessions[session]
    }
}

impl World for Memory {
    fn send(&mut self, session: usize, octets: &[u8]) {
        let esme = self.session(session).0;
        self.net.send_octets(esme, octets);
    }

    fn next(&mut self, session: usize) -> Option<Vec<u8>> {
        let esme = self.session(session).0;
        for _ in 0..1_000 {
            let received = self.net.received(esme);
            let waiting = &mut self.session(session).1;
            waiting.extend(received);
            if !waiting.is_empty() {
                return Some(waiting.remove(0).octets().to_vec());
            }
            if self.net.is_closed(esme) {
                return None;
            }
            self.net.pass_millis(10);
        }
        panic!("nothing came for ten seconds");
    }
}

struct Reality<'a> {
    server: &'a Server,
    sessions: Vec<Esme>,
}

impl Reality<'_> {
    fn session(&mut self, session: usize) -> &mut Esme {
        while self.sessions.len() <= session {
            self.sessions.push(Esme::connect(self.server));
        }
        &mut self.sessions[session]
    }
}

impl World for Reality<'_> {
    fn send(&mut self, session: usize, octets: &[u8]) {
        self.session(session).write(octets).expect("a connection that takes octets");
    }

    fn next(&mut self, session: usize) -> Option<Vec<u8>> {
        match self.session(session).next_within(PATIENCE) {
            Next::Pdu(pdu) => Some(pdu.octets),
            Next::Closed => None,
            Next::Silence => panic!("nothing came"),
        }
    }
}

fn play(name: &str, lines: &[Line], world: &mut dyn World) {
    let mut known: HashMap<String, String> = HashMap::new();
    for line in lines {
        if line.is_ours {
            world.send(line.session, &request(line, &known));
            continue;
        }
        let came = world.next(line.session);
        match (came, &*line.operation) {
            (None, "closed") => {}
            (None, _) => panic!("{}: but the connection ended", line.place),
            (Some(octets), "closed") => panic!("{}: but this came: {octets:?}", line.place),
            (Some(octets), _) => expect(line, &octets, &mut known),
        }
    }
    assert!(lines.iter().any(|line| !line.is_ours), "{name} expects nothing");
}

/// The octets of what the ESME says.
fn request(line: &Line, known: &HashMap<String, String>) -> Vec<u8> {
    let field = |name: &str, default: &str| -> String {
        let value = line.fields.get(name).map_or(default, String::as_str);
        match value.strip_prefix('$') {
            Some(name) => {
                known.get(name).unwrap_or_else(|| panic!("{}: ${name} is not known", line.place)).clone()
            }
            None => value.to_owned(),
        }
    };
    let number =
        |name: &str, default: u8| line.fields.get(name).map_or(default, |value| parse_number(value) as u8);
    let sequence_number = line.fields.get("seq").map_or(0, |value| parse_number(value));
    let mut octets = Vec::new();
    if line.operation == "octets" {
        let hex: String = line.fields.keys().next().expect("octets").clone();
        return (0..hex.len() / 2)
            .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).expect("hex"))
            .collect();
    }
    if line.operation.starts_with("0x") {
        let command_id = CommandId(parse_number(&line.operation));
        put_header_only(command_id, CommandStatus::ESME_ROK, sequence_number, &mut octets);
        return octets;
    }
    let (system_id, password) = (field("system_id", "demo"), field("password", "secret"));
    let bind = Bind {
        system_id: system_id.as_bytes(),
        password: password.as_bytes(),
        system_type: b"",
        interface_version: InterfaceVersion(number("interface_version", 0x50)),
        address_range: ANYBODY,
        tlvs: Tlvs::EMPTY,
    };
    let (source_addr, destination_addr) = (field("source_addr", NUMBER), field("destination_addr", ""));
    let source = international(&source_addr);
    let destination =
        if destination_addr.is_empty() { Address::default() } else { international(&destination_addr) };
    let (text, message_id) = (field("text", "hello"), field("message_id", ""));
    let schedule_delivery_time = field("schedule_delivery_time", "");
    let validity_period = field("validity_period", "");
    let service_type = field("service_type", "");
    let registered_delivery = RegisteredDelivery(number("registered_delivery", 0));
    let pdu = match &*line.operation {
        "bind_receiver" => Pdu::BindReceiver(bind),
        "bind_transmitter" => Pdu::BindTransmitter(bind),
        "bind_transceiver" => Pdu::BindTransceiver(bind),
        "unbind" => Pdu::Unbind,
        "enquire_link" => Pdu::EnquireLink,
        "submit_sm" => Pdu::SubmitSm(ShortMessage {
            service_type: service_type.as_bytes(),
            source,
            destination,
            esm_class: EsmClass(number("esm_class", 0)),
            protocol_id: number("protocol_id", 0),
            priority_flag: number("priority_flag", 0),
            schedule_delivery_time: schedule_delivery_time.as_bytes(),
            validity_period: validity_period.as_bytes(),
            registered_delivery,
            replace_if_present_flag: number("replace_if_present_flag", 0),
            data_coding: DataCoding(number("data_coding", 0)),
            sm_default_msg_id: number("sm_default_msg_id", 0),
            short_message: text.as_bytes(),
            tlvs: Tlvs::EMPTY,
        }),
        "query_sm" => Pdu::QuerySm(QuerySm { message_id: message_id.as_bytes(), source, tlvs: Tlvs::EMPTY }),
        "cancel_sm" => Pdu::CancelSm(CancelSm {
            service_type: service_type.as_bytes(),
            message_id: message_id.as_bytes(),
            source,
            destination,
            tlvs: Tlvs::EMPTY,
        }),
        "replace_sm" => Pdu::ReplaceSm(ReplaceSm {
            message_id: message_id.as_bytes(),
            source,
            schedule_delivery_time: schedule_delivery_time.as_bytes(),
            validity_period: validity_period.as_bytes(),
            registered_delivery,
            sm_default_msg_id: number("sm_default_msg_id", 0),
            short_message: text.as_bytes(),
            tlvs: Tlvs::EMPTY,
        }),
        other => panic!("{}: {other} is not an operation of ours", line.place),
    };
    pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("fields that fit");
    octets
}

/// Compares what came with what the line says of it.
fn expect(line: &Line, octets: &[u8], known: &mut HashMap<String, String>) {
    let Framing::Frame(frame) = next_frame(octets, usize::MAX) else { panic!("{}: no PDU came", line.place) };
    let header = frame.header;
    let came = frame.decode().unwrap_or_else(|error| panic!("{}: {error:?}", line.place));
    assert_eq!(header.command_id.to_string(), line.operation, "{}: came {came:?}", line.place);
    for (name, expected) in &line.fields {
        let value = match &**name {
            "seq" => header.sequence_number.to_string(),
            "status" => header.command_status.to_string(),
            _ => value_of(&came, name).unwrap_or_else(|| panic!("{}: no {name} in {came:?}", line.place)),
        };
        let expected = match expected.strip_prefix('$') {
            Some(name) => known.entry(name.to_owned()).or_insert_with(|| value.clone()),
            None => expected,
        };
        assert_eq!(&value, expected, "{}: {name} of {came:?}", line.place);
    }
}

fn value_of(came: &Pdu<'_>, name: &str) -> Option<String> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    match (came, name) {
        (Pdu::SubmitSmResp(body), "message_id") => Some(text(body.message_id)),
        (Pdu::QuerySmResp(body), "message_id") => Some(text(body.message_id)),
        (Pdu::QuerySmResp(body), "message_state") => Some(body.message_state.to_string()),
        (
            Pdu::BindTransceiverResp(body) | Pdu::BindTransmitterResp(body) | Pdu::BindReceiverResp(body),
            "sc_interface_version",
        ) => body.tlvs.u8(Tag::SC_INTERFACE_VERSION).map(|version| format!("{version:#x}")),
        (Pdu::DeliverSm(body), "source_addr") => Some(text(body.source.digits)),
        (Pdu::DeliverSm(body), "destination_addr") => Some(text(body.destination.digits)),
        (Pdu::DeliverSm(body), "esm_class") => Some(format!("{:#04x}", body.esm_class.0)),
        (Pdu::DeliverSm(body), _) if body.esm_class.is_receipt() => {
            let receipt = ParsedReceipt::parse(body.short_message)?;
            match name {
                "id" => receipt.message_id,
                "stat" => receipt.stat,
                "err" => receipt.error,
                "text" => receipt.text,
                _ => None,
            }
            .map(text)
        }
        (Pdu::DeliverSm(body), "text") => Some(text(body.short_message)),
        _ => None,
    }
}

fn parse_number(text: &str) -> u32 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|error| panic!("{text}: {error}"))
}
