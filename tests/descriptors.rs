//! A limit of open files that is low: strangers may not take what the journal needs.

mod support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use smppd::pdu::{CommandId, CommandStatus, Pdu, RegisteredDelivery, ShortMessage, Tag, TlvBuf};

use support::esme::{DELIVERED, Esme, message};
use support::{Place, Server, eventually};

const OK: CommandStatus = CommandStatus::ESME_ROK;
/// Connections that strangers make, more than the limit of open files.
const STRANGERS: usize = 400;
const OPEN_FILES: u32 = 300;

/// Submits so many messages of 38 KB each, of which some 220 fill a segment of the journal; what they are told.
fn submit_long(esme: &mut Esme, count: usize) -> Vec<CommandStatus> {
    let payload = [b'x'; 38_000];
    let mut tlvs = TlvBuf::default();
    tlvs.put(Tag::MESSAGE_PAYLOAD, &payload).expect("it fits");
    let submit = ShortMessage {
        registered_delivery: RegisteredDelivery::NONE,
        short_message: b"",
        tlvs: tlvs.as_tlvs(),
        ..message(DELIVERED, "")
    };
    (0..count).map(|_| esme.ask(&Pdu::SubmitSm(submit)).status).collect()
}

/// As many connections as can be had.
fn strangers(address: SocketAddr) -> Vec<TcpStream> {
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    (0..STRANGERS).map_while(connect).collect()
}

fn assert_taken_or_full(statuses: &[CommandStatus]) {
    let others = statuses.iter().find(|status| ![OK, CommandStatus::ESME_RMSGQFUL].contains(status));
    assert_eq!(others, None, "no descriptor is no disk error");
}

/// Everything is as it was before the strangers came.
fn assert_well(server: &Server, esme: &mut Esme) {
    eventually("messages are taken again", || (submit_long(esme, 1) == [OK]).then_some(()));
    eventually("there is room for others", || {
        let mut other = Esme::connect(server);
        (other.bind("demo", CommandId::BIND_TRANSCEIVER) == OK).then_some(())
    });
    assert!(!server.log().contains("has stopped") && !server.log().contains("stopped accepting"));
}

#[test]
fn strangers_without_a_password_do_not_stop_a_partition() {
    for is_tls in [true, false] {
        let place = Place::with_demo("strangers");
        let server = place.server().cores(1).open_files(OPEN_FILES).argument("--admin=127.0.0.1:0").start();
        let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
        let strangers = strangers(if is_tls { server.tls } else { server.plain });
        assert!(strangers.len() > 50, "{} strangers", strangers.len());
        // Four segments: each has a file, and is open, before it is needed.
        assert_eq!(submit_long(&mut esme, 900), vec![OK; 900]);
        drop(strangers);
        assert_well(&server, &mut esme);
        assert!(server.http("/health").contains("200"), "{}", server.http("/health"));
        assert_eq!(server.metric("smppd_connections_max"), 92);
        assert!(server.log().contains("each core takes 92 connections"));
    }
}

#[test]
fn a_server_that_finds_no_descriptor_goes_on_when_there_is_one() {
    let place = Place::with_demo("shortage");
    let server = place.server().cores(1).argument("--admin=127.0.0.1:0").start();
    let mut esme = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    assert_eq!(submit_long(&mut esme, 1), [OK]);
    server.limit_descriptors(server.next_descriptor());
    // More than wait for a descriptor that they were promised before.
    let asked: Vec<_> = (0..30).map(|_| server.ask_http("/health")).collect();
    eventually("a message finds no room", || {
        let statuses = submit_long(&mut esme, 50);
        assert_taken_or_full(&statuses);
        statuses.contains(&CommandStatus::ESME_RMSGQFUL).then_some(())
    });
    assert!(server.log().contains("no file descriptor is left"));
    server.limit_descriptors(10_000);
    assert!(asked.into_iter().all(|answer| answer().starts_with("HTTP/1.1 ")));
    assert_well(&server, &mut esme);
    assert!(server.log().contains("there are file descriptors again"));
    assert!(server.http("/health").contains("200"));
}

#[test]
fn a_limit_that_is_too_low_for_any_connection_is_told_at_the_start() {
    let place = Place::with_demo("too-few");
    let output = place.server().cores(2).open_files(310).fails();
    let complaint = support::complaint(&output);
    assert!(complaint.contains("310") && complaint.contains("ulimit -n"), "{complaint}");
    assert_eq!(output.status.code(), Some(1));
}
