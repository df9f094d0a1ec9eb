//! Sessions that move to another core when they bind: where they end up, and that nothing is lost on the way.

mod support;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use smppd::pdu::{Bind, CommandId, CommandStatus, InterfaceVersion, Pdu, Tlvs};

use support::esme::{ANYBODY, DELIVERED, Esme, message};
use support::{PASSWORD, Place, Server, eventually};

const MOVED: &str = "smppd_session_moved_total";
/// Connections after which some must have come to the wrong core first: the kernel picks one by chance.
const CONNECTIONS_MAX: usize = 60;

fn bind(system_id: &str) -> Pdu<'_> {
    Pdu::BindTransceiver(Bind {
        system_id: system_id.as_bytes(),
        password: PASSWORD.as_bytes(),
        system_type: b"",
        interface_version: InterfaceVersion::V5_0,
        address_range: ANYBODY,
        tlvs: Tlvs::EMPTY,
    })
}

fn started(place: &Place) -> Server {
    let quick = "[carrier.simulator]\nkind = \"simulator\"\ndelay_min_millis = 1\ndelay_max_millis = 5\n";
    place.server().argument("--admin=127.0.0.1:0").settings(quick).start()
}

/// Lets everything through to the socket, or keeps it for the test to send.
struct Gate {
    socket: TcpStream,
    kept: Kept,
}

/// What a closed gate has kept; `None` while it is open.
type Kept = Arc<Mutex<Option<Vec<u8>>>>;

impl Read for Gate {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.socket.read(octets)
    }
}

impl Write for Gate {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match &mut *self.kept.lock().expect("no panic") {
            Some(kept) => kept.write(octets),
            None => self.socket.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[test]
fn four_connections_are_shared_out_to_two_cores() {
    let place = Place::with_demo("four");
    let server = started(&place);
    for round in 0..8 {
        let connect =
            |number| if number % 2 == 0 { Esme::connect(&server) } else { Esme::connect_plain(&server) };
        let mut esmes: Vec<Esme> = (0..4).map(connect).collect();
        // All at once: none has an answer before the last has asked.
        let asked: Vec<u32> = esmes.iter_mut().map(|esme| esme.send(&bind("demo"))).collect();
        for (esme, sequence_number) in esmes.iter_mut().zip(asked) {
            assert_eq!(esme.response(sequence_number).status, CommandStatus::ESME_ROK);
        }
        let mut cores: Vec<usize> = esmes.iter_mut().map(Esme::core).collect();
        cores.sort_unstable();
        assert_eq!(cores, [0, 0, 1, 1], "round {round}");
        for esme in &mut esmes {
            assert_eq!(esme.ask(&Pdu::Unbind).status, CommandStatus::ESME_ROK);
            assert!(esme.until_closed().iter().all(|pdu| pdu.receipt().is_some()));
        }
        drop(esmes);
        // Their seats are free when the server has seen that they have gone.
        eventually("nobody is there", || (server.metric("smppd_connections_open") == 0).then_some(()));
    }
    // The kernel does not deal out thirty-two connections evenly.
    eventually("a session has moved", || (server.metric(MOVED) > 0).then_some(()));
    assert!(server.stop().success());
}

/// Sends `requests` behind the bind without waiting for its answer, in one piece that ends within a PDU, or within a TLS
/// record; the end comes when the bind is answered.
fn bind_and_go_on(server: &Server, is_tls: bool, requests: impl FnOnce(&mut Esme, &mut Vec<u8>)) -> Esme {
    const END: usize = 300;
    let kept = Kept::default();
    let mut esme = if is_tls {
        Esme::connect_through(server, |socket| Gate { socket, kept: Arc::clone(&kept) })
    } else {
        Esme::connect_plain(server)
    };
    // The handshake.
    esme.write(&[]).expect("a connection");
    let mut octets = Vec::new();
    let sequence_number = esme.put(&bind("demo"), &mut octets);
    let bind_octets = octets.len();
    requests(&mut esme, &mut octets);
    if is_tls {
        *kept.lock().expect("no panic") = Some(Vec::new());
        // The bind is in a record of its own.
        let (first, rest) = octets.split_at(bind_octets);
        esme.write(first).expect("kept");
        esme.write(rest).expect("kept");
        octets = kept.lock().expect("no panic").take().unwrap_or_default();
    }
    let (begin, end) = octets.split_at(octets.len() - END);
    esme.socket.write_all(begin).expect("a connection that takes octets");
    assert_eq!(esme.response(sequence_number).status, CommandStatus::ESME_ROK);
    esme.socket.write_all(end).expect("a connection that takes octets");
    esme
}

#[test]
fn what_was_sent_behind_the_bind_is_answered_in_order_wherever_the_session_goes() {
    const MESSAGES: u32 = 100;
    let place = Place::with_demo("behind");
    place.account("add other --bind-limit 0");
    let server = started(&place);
    // Whoever comes to the core of this one is sent to the other core.
    let other = Esme::bound(&server, "other");
    for connection in 0.. {
        assert!(connection < CONNECTIONS_MAX, "hardly any session has moved");
        let mut sent = Vec::new();
        let is_tls = connection % 3 != 0;
        let mut esme = bind_and_go_on(&server, is_tls, |esme, octets| {
            let submit = Pdu::SubmitSm(message(DELIVERED, "behind the bind"));
            sent.extend((0..MESSAGES).map(|_| esme.put(&submit, octets)));
        });
        let (mut answered, mut ids, mut receipts) = (Vec::new(), HashSet::new(), HashSet::new());
        while answered.len() < sent.len() || receipts.len() < sent.len() {
            let pdu = esme.next();
            if pdu.command_id == CommandId::SUBMIT_SM_RESP {
                answered.push(pdu.sequence_number);
                assert!(ids.insert(pdu.message_id()), "an id given twice");
            } else if let Some(receipt) = pdu.receipt() {
                assert!(ids.contains(&receipt.id), "a receipt before its response: {receipt:?}");
                receipts.insert(receipt.id);
            }
        }
        assert_eq!(answered, sent);
        assert_eq!(esme.ask(&Pdu::Unbind).status, CommandStatus::ESME_ROK);
        esme.until_closed();
        if connection >= 8 && server.metric(MOVED) >= 4 {
            break;
        }
    }
    drop(other);
    assert!(server.stop().success());
}
