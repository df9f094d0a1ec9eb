//! One session at a time: timers, limits, slow and silent peers, and the end.

mod support;

use std::time::{Duration, Instant};

use smppd::pdu::{
    Bind, CommandId, CommandStatus, EsmClass, InterfaceVersion, Pdu, RegisteredDelivery, ShortMessage, Tag,
    Tlvs,
};

use support::esme::{ANYBODY, DELIVERED, Esme, NEVER_TAKEN, Next, Received, message};
use support::{PASSWORD, PATIENCE, Place, Server, eventually};

const OK: CommandStatus = CommandStatus::ESME_ROK;

/// A message without a receipt.
fn quiet(text: &str) -> ShortMessage<'_> {
    ShortMessage { registered_delivery: RegisteredDelivery::NONE, ..message(DELIVERED, text) }
}

fn server(place: &Place, session: &str) -> Server {
    place.server().settings(&format!("[session]\n{session}")).start()
}

/// What begins a wait of the server, and ends with it, takes so many seconds at least: a busy machine may be late, but
/// nobody early.
fn takes<R>(least: f64, what: impl FnOnce() -> R) -> R {
    let begin = Instant::now();
    let result = what();
    let seconds = begin.elapsed().as_secs_f64();
    // A heartbeat is a few milliseconds.
    assert!(seconds > least - 0.05, "{seconds} s are less than {least}");
    result
}

#[test]
fn who_does_not_bind_in_time_is_closed() {
    let place = Place::with_demo("init");
    let server = server(&place, "session_init_timeout_seconds = 1\ntls_handshake_timeout_seconds = 1\n");
    assert!(takes(1.0, || Esme::connect_plain(&server).until_closed()).is_empty());
    // A TCP connection to the TLS port that says nothing at all.
    takes(1.0, || closes(&mut std::net::TcpStream::connect(server.tls).expect("a connection")));
    // Enquire_link is no bind, and who is bound is not closed.
    let mut bound = Esme::bound(&server, "demo");
    bound.hears_nothing_for(Duration::from_secs(2));
    assert_eq!(bound.ask(&Pdu::EnquireLink).status, OK);
}

#[test]
fn a_silent_peer_is_asked_and_one_that_does_not_answer_is_closed() {
    let place = Place::with_demo("enquire");
    // Whoever answers has four seconds for it, should the machine be busy.
    let timers = "enquire_link_interval_seconds = 2\nenquire_link_unanswered_max = 2\n\
                  response_timeout_seconds = 1.9\n";
    let server = server(&place, timers);
    let mut esme = Esme::connect(&server);
    esme.answers_enquire_link = false;
    let mut enquire = takes(2.0, || {
        assert_eq!(esme.bind("demo", CommandId::BIND_TRANSCEIVER), OK);
        esme.next()
    });
    for _ in 0..3 {
        assert_eq!(enquire.command_id, CommandId::ENQUIRE_LINK);
        enquire = takes(2.0, || {
            esme.answer(&enquire, OK);
            esme.next()
        });
    }
    // From here on it is not answered.
    let asked = takes(4.0, || {
        esme.answer(&enquire, OK);
        esme.until_closed()
    });
    assert!(asked.iter().all(|pdu| pdu.command_id == CommandId::ENQUIRE_LINK));
    assert_eq!(asked.len(), 2, "{asked:?}");
    eventually("the reason is logged", || {
        server.log().contains("reason=EnquireLinkUnanswered").then_some(())
    });
}

#[test]
fn an_inactive_session_is_closed() {
    let place = Place::with_demo("inactive");
    let server = server(
        &place,
        "inactivity_timeout_seconds = 3\nenquire_link_interval_seconds = 60\nenquire_link_unanswered_max = 0\n",
    );
    let mut esme = Esme::bound(&server, "demo");
    // Whoever asks has two seconds more, should the machine be busy.
    for _ in 0..4 {
        esme.hears_nothing_for(Duration::from_secs(1));
        assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK, "any PDU keeps it open");
    }
    takes(3.0, || {
        assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK);
        esme.until_closed()
    });
    eventually("the reason is logged", || server.log().contains("reason=Inactivity").then_some(()));
}

#[test]
fn a_pdu_that_does_not_become_whole_ends_the_session() {
    let place = Place::with_demo("partial");
    let server = server(&place, "pdu_timeout_seconds = 1\n");
    let mut esme = Esme::bound(&server, "demo");
    takes(1.0, || {
        esme.write(&[0, 0, 0, 16, 0, 0, 0]).expect("a connection");
        esme.until_closed()
    });
    let mut esme = Esme::bound(&server, "demo");
    assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK);
}

#[test]
fn octets_may_come_one_by_one() {
    let place = Place::with_demo("bytes");
    let server = server(&place, "");
    for is_tls in [false, true] {
        let mut esme = if is_tls { Esme::connect(&server) } else { Esme::connect_plain(&server) };
        assert_eq!(esme.bind("demo", CommandId::BIND_TRANSCEIVER), OK);
        let mut octets = Vec::new();
        let first = esme.put(&Pdu::SubmitSm(quiet("slowly")), &mut octets);
        let second = esme.put(&Pdu::EnquireLink, &mut octets);
        for octet in octets {
            esme.write(&[octet]).expect("a connection");
        }
        esme.response(first).message_id();
        assert_eq!(esme.response(second).status, OK);
    }
}

#[test]
fn a_closed_half_still_gets_its_answers() {
    let place = Place::with_demo("half");
    let server = server(&place, "");
    let mut esme = Esme::connect_plain(&server);
    assert_eq!(esme.bind("demo", CommandId::BIND_TRANSMITTER), OK);
    let mut octets = Vec::new();
    for _ in 0..100 {
        esme.put(&Pdu::SubmitSm(quiet("half")), &mut octets);
    }
    esme.write(&octets).expect("a connection");
    esme.half_close();
    let answers = esme.until_closed();
    assert_eq!(answers.len(), 100);
    answers.iter().for_each(|answer| drop(answer.message_id()));
}

#[test]
fn unbind_behind_submissions_comes_after_their_answers() {
    let place = Place::with_demo("unbind");
    let server = server(&place, "");
    for is_tls in [true, false] {
        let mut esme = if is_tls { Esme::connect(&server) } else { Esme::connect_plain(&server) };
        assert_eq!(esme.bind("demo", CommandId::BIND_TRANSMITTER), OK);
        let mut octets = Vec::new();
        let numbers: Vec<u32> =
            (0..100).map(|_| esme.put(&Pdu::SubmitSm(quiet("unbind")), &mut octets)).collect();
        let unbind = esme.put(&Pdu::Unbind, &mut octets);
        esme.write(&octets).expect("a connection");
        let answers = esme.until_closed();
        assert_eq!(answers.len(), 101);
        let last = answers.last().expect("an answer");
        assert_eq!((last.command_id, last.sequence_number), (CommandId::UNBIND_RESP, unbind));
        let mut answered: Vec<u32> = answers[..100].iter().map(|answer| answer.sequence_number).collect();
        answered.sort_unstable();
        assert_eq!(answered, numbers);
        answers[..100].iter().for_each(|answer| drop(answer.message_id()));
    }
}

#[test]
fn a_reader_that_does_not_read_is_no_longer_read_from() {
    let place = Place::with_demo("slow");
    // One core: whoever stands in the way of others would be seen.
    let settings = "[session]\nwrite_timeout_seconds = 3\n[limits]\noutput_octets_max = 65536\n";
    let server = place.server().cores(1).settings(settings).start();
    let mut other = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut slow = Esme::connect_plain(&server);
    assert_eq!(slow.bind("demo", CommandId::BIND_TRANSMITTER), OK);
    let before = server.memory();
    let mut octets = Vec::new();
    for _ in 0..20_000 {
        slow.put(&Pdu::EnquireLink, &mut octets);
    }
    // It answers into a socket that nobody empties, until it stops reading and our own writes stop.
    slow.socket.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let written = (0..400).take_while(|_| slow.write(&octets).is_ok()).count();
    assert!(written < 400, "128 MB of requests were taken from a peer that reads nothing");
    for _ in 0..20 {
        other.submit(&quiet("beside"));
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more for a peer that does not read", grown >> 20);
    // In the end it is dropped, and that is said.
    eventually("the slow peer is dropped", || {
        assert!(!other.submit(&quiet("beside")).is_empty());
        server.log().contains("closed system_id=demo").then_some(())
    });
}

#[test]
fn a_receiver_that_does_not_read_keeps_no_other_from_its_receipts() {
    let place = Place::with_demo("deaf");
    place.account("add other --any-source --number 4420");
    let server = place.server().cores(1).start();
    let _deaf = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    let mut submits = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    for _ in 0..100 {
        submits.submit(&message(DELIVERED, "for the deaf"));
    }
    let mut other = Esme::bound(&server, "other");
    let id = other.submit(&message(DELIVERED, "for the other"));
    assert_eq!(other.next_receipt().id, id);
}

#[test]
fn a_connection_that_breaks_gives_its_place_back() {
    let place = Place::with_demo("breaks");
    place.account("add one --bind-limit 1 --any-source");
    let server = server(&place, "");
    for _ in 0..10 {
        let mut esme = eventually("there is room again", || {
            let mut esme = Esme::connect(&server);
            (esme.bind("one", CommandId::BIND_TRANSCEIVER) == OK).then_some(esme)
        });
        esme.submit(&message(DELIVERED, "breaks"));
        // No unbind, no close_notify.
    }
}

#[test]
fn each_version_gets_what_it_understands() {
    let place = Place::with_demo("versions");
    let server = server(&place, "");
    let tlv = |pdu: &Received, tag: Tag| {
        pdu.with(|pdu| match pdu {
            Pdu::BindTransceiverResp(body) => body.tlvs.get(tag).map(<[u8]>::to_vec),
            Pdu::DeliverSm(body) => body.tlvs.get(tag).map(<[u8]>::to_vec),
            other => panic!("not looked for: {other:?}"),
        })
    };
    for (version, has_tlvs) in
        [(InterfaceVersion::V3_3, false), (InterfaceVersion::V3_4, true), (InterfaceVersion::V5_0, true)]
    {
        let mut esme = Esme::connect(&server);
        let bound = esme.bind_with("demo", PASSWORD, CommandId::BIND_TRANSCEIVER, version);
        assert_eq!(bound.status, OK);
        assert_eq!(tlv(&bound, Tag::SC_INTERFACE_VERSION), has_tlvs.then(|| vec![0x50]), "{version}");
        let id = esme.submit(&message(DELIVERED, "versions"));
        assert!(id.len() <= if has_tlvs { 19 } else { 8 }, "{version}: {id}");
        let deliver = esme.next();
        assert_eq!(deliver.receipt().expect("a receipt").id, id);
        let receipted = tlv(&deliver, Tag::RECEIPTED_MESSAGE_ID);
        assert_eq!(receipted.is_some(), has_tlvs, "{version}");
        assert_eq!(tlv(&deliver, Tag::MESSAGE_STATE), has_tlvs.then(|| vec![2]), "{version}");
        assert_eq!(esme.query(&id).message_state(), 2, "{version}");
        assert_eq!(esme.ask(&Pdu::Unbind).status, OK);
    }
}

#[test]
fn a_wrong_password_is_not_told_from_a_wrong_name_and_closes_after_three() {
    let place = Place::with_demo("password");
    let server = server(&place, "");
    let refused = |esme: &mut Esme, system_id: &str, password: &str| {
        esme.bind_with(system_id, password, CommandId::BIND_TRANSCEIVER, InterfaceVersion::V3_4).status
    };
    let mut esme = Esme::connect(&server);
    for (system_id, password) in [("demo", "wrong"), ("nobody", PASSWORD), ("demo", "")] {
        assert_eq!(refused(&mut esme, system_id, password), CommandStatus::ESME_RBINDFAIL);
    }
    assert!(esme.until_closed().is_empty());
    // Two mistakes are forgiven.
    let mut esme = Esme::connect(&server);
    assert_eq!(refused(&mut esme, "demo", "wrong"), CommandStatus::ESME_RBINDFAIL);
    assert_eq!(refused(&mut esme, "demo", "wrong"), CommandStatus::ESME_RBINDFAIL);
    assert_eq!(esme.bind("demo", CommandId::BIND_TRANSCEIVER), OK);
    assert_eq!(esme.bind("demo", CommandId::BIND_TRANSCEIVER), CommandStatus::ESME_RALYBND);
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let place = Place::with_demo("garbage");
    let server = server(&place, "");
    let mut bystander = Esme::bound(&server, "demo");
    let garbage: Vec<u8> =
        (0..5_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for round in 0..20 {
        let mut esme = if round % 2 == 0 { Esme::connect(&server) } else { Esme::connect_plain(&server) };
        if round % 4 > 1 {
            assert_eq!(esme.bind("demo", CommandId::BIND_TRANSMITTER), OK);
        }
        // The server may have enough before all is written.
        _ = esme.write(&garbage[round * 10..]);
        match esme.next_within(Duration::from_secs(10)) {
            Next::Pdu(_) => drop(esme.until_closed()),
            Next::Closed => {}
            Next::Silence => panic!("neither answered nor closed"),
        }
        assert_eq!(bystander.ask(&Pdu::EnquireLink).status, OK);
    }
    assert!(!server.log().contains("fault of ours"), "{}", server.log());
}

/// Whether a customer who comes behind many strangers is served before most of the last of them.
fn is_served_before_strangers(server: &Server) -> bool {
    const STRANGERS: usize = 150;
    let mut customer = Esme::connect_plain(server);
    let mut strangers: Vec<Esme> = (0..STRANGERS).map(|_| Esme::connect_plain(server)).collect();
    // Whoever has an answer is accepted and read from.
    for esme in strangers.iter_mut().chain([&mut customer]) {
        assert_eq!(esme.ask(&Pdu::EnquireLink).command_id, CommandId::ENQUIRE_LINK_RESP);
    }
    let bind = Pdu::BindTransceiver(Bind {
        system_id: b"nobody",
        password: b"guess",
        system_type: b"",
        interface_version: InterfaceVersion::V5_0,
        address_range: ANYBODY,
        tlvs: Tlvs::EMPTY,
    });
    for stranger in &mut strangers {
        stranger.send(&bind);
    }
    assert_eq!(customer.ask(&Pdu::EnquireLink).command_id, CommandId::ENQUIRE_LINK_RESP);
    // The strangers are in the queue now, and each costs milliseconds.
    assert_eq!(customer.bind("demo", CommandId::BIND_TRANSCEIVER), OK);
    let (mut answered, mut waiting) = (0, Vec::new());
    for stranger in strangers.iter_mut().rev().take(10) {
        match stranger.next_within(Duration::from_millis(1)) {
            Next::Silence => waiting.push(stranger),
            Next::Pdu(_) | Next::Closed => answered += 1,
        }
    }
    if let Some(stranger) = waiting.first_mut() {
        assert_ne!(stranger.next().status, OK);
    }
    waiting.len() > answered
}

#[test]
fn a_customer_who_was_bound_before_does_not_wait_behind_strangers() {
    let place = Place::with_demo("strangers");
    let patient = "[session]\nsession_init_timeout_seconds = 600\n";
    let server = place.server().cores(1).settings(patient).start();
    drop(Esme::bound(&server, "demo"));
    // On a busy machine we may look too late, but not each time.
    let begin = Instant::now();
    while !is_served_before_strangers(&server) {
        assert!(begin.elapsed() < PATIENCE, "strangers are served first");
    }
}

/// An executor looks at what the kernel has for it, its timers too, only when no task is to be run, or after 20 ms: a task
/// that always has more to do would make everybody else wait for that. It is counted against the time that the server has
/// had a processor for, so that it says the same on a busy machine.
#[test]
fn who_sends_without_end_does_not_keep_others_waiting() {
    let place = Place::with_demo("endless");
    let server = place.server().cores(1).argument("--admin=127.0.0.1:0").start();
    let mut endless = Esme::connect_plain(&server);
    assert_eq!(endless.bind("demo", CommandId::BIND_TRANSCEIVER), OK);
    // Long PDUs that nobody knows: a turn's worth of them is read in no time, whatever the machine.
    let mut octets = vec![0; 64 << 10];
    octets[..8].copy_from_slice([0x10000_u32, 0x0F00].map(u32::to_be_bytes).as_flattened());
    let (mut reader, mut writer) =
        (endless.socket.try_clone().expect("a socket"), endless.socket.try_clone().expect("a socket"));
    let beats = || {
        let metrics = server.http("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("smppd_core_heartbeats_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("heartbeats")
    };
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        scope.spawn(move || while std::io::Write::write_all(&mut writer, &octets).is_ok() {});
        let mut other = Esme::bound(&server, "demo");
        let (beats_before, cpu_before) = (beats(), server.cpu_time());
        // Three seconds of a processor, however long they take.
        eventually("it works", || {
            assert_eq!(other.ask(&Pdu::EnquireLink).status, OK);
            (server.cpu_time() - cpu_before > Duration::from_secs(3)).then_some(())
        });
        let used = (server.cpu_time() - cpu_before).as_secs_f64();
        let a_second = (beats() - beats_before) / used;
        endless.socket.shutdown(std::net::Shutdown::Both).expect("a connection");
        // One that looks every 20 ms beats fifty times, one that gives way up to 250 times.
        assert!(a_second > 120.0, "{a_second} heartbeats in a second of a processor");
    });
}

/// Reads until the server closes.
fn closes(socket: &mut std::net::TcpStream) {
    use std::io::Read;
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut octets = [0; 1_024];
    loop {
        match socket.read(&mut octets) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

#[test]
fn a_handshake_that_fails_gives_its_place_back_however_it_fails() {
    const MOST: usize = 2;
    let place = Place::with_demo("handshakes");
    let settings =
        format!("[session]\ntls_handshake_timeout_seconds = 1\n[limits]\nhandshakes_max = {MOST}\n");
    let server = place.server().cores(1).settings(&settings).start();
    let connect = || std::net::TcpStream::connect(server.tls).expect("a connection");
    // Each more often than there are places.
    for round in 0..=MOST {
        // Octets that are no handshake, so that the server closes.
        let mut garbage = connect();
        std::io::Write::write_all(&mut garbage, b"GET / HTTP/1.1\r\n\r\n").expect("a connection");
        closes(&mut garbage);
        // The begin of one, and the end of the connection.
        let mut cut = connect();
        std::io::Write::write_all(&mut cut, &[22, 3, 1, 0, 200, 1]).expect("a connection");
        cut.shutdown(std::net::Shutdown::Write).expect("a connection");
        closes(&mut cut);
        // Nothing at all, until its time is over.
        closes(&mut connect());
        let mut esme = Esme::bound(&server, "demo");
        assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK, "round {round}");
    }
    // One that has succeeded takes no place either.
    let sessions: Vec<Esme> = (0..=MOST).map(|_| Esme::bound(&server, "demo")).collect();
    assert_eq!(sessions.len(), MOST + 1);
}

#[test]
fn who_is_one_handshake_too_many_waits_until_another_is_over() {
    let place = Place::with_demo("one-too-many");
    let settings = "[session]\ntls_handshake_timeout_seconds = 600\n[limits]\nhandshakes_max = 1\n";
    let server = place.server().cores(1).settings(settings).start();
    let silent = std::net::TcpStream::connect(server.tls).expect("a connection");
    let (sender, bound) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(move || sender.send(Esme::bound(server, "demo")));
        assert!(bound.recv_timeout(Duration::from_millis(300)).is_err(), "it does not wait");
        drop(silent);
        bound.recv_timeout(Duration::from_secs(60)).expect("its turn comes");
    });
}

#[test]
fn a_closed_half_does_not_wait_for_an_outcome_for_ever() {
    let place = Place::with_demo("half-outcome");
    let server = server(&place, "write_timeout_seconds = 1\n");
    let mut esme = Esme::connect_plain(&server);
    assert_eq!(esme.bind("demo", CommandId::BIND_TRANSMITTER), OK);
    // Its outcome takes days.
    esme.send(&Pdu::SubmitSm(ShortMessage { esm_class: EsmClass::FORWARD, ..message(NEVER_TAKEN, "half") }));
    esme.half_close();
    assert!(esme.until_closed().is_empty());
}

#[test]
fn a_peer_that_closes_gives_its_place_back_whatever_is_owed_to_it() {
    // In transaction mode the answer is the outcome, and this carrier never has one.
    let never = ShortMessage { esm_class: EsmClass(2), ..message("9999000555", "outcome") };
    for window in [2, 1_000] {
        let place = Place::with_demo("owed");
        place.account("add two --bind-limit 2 --any-source");
        // Who waits for the answers of a peer that has closed waits for hours.
        let session = format!("window_in_max = {window}\nwrite_timeout_seconds = 3600\n");
        let server = server(&place, &session);
        for _ in 0..2 {
            for is_tls in [true, false] {
                let mut esme = eventually("there is room", || {
                    let mut esme = if is_tls { Esme::connect(&server) } else { Esme::connect_plain(&server) };
                    (esme.bind("two", CommandId::BIND_TRANSCEIVER) == OK).then_some(esme)
                });
                esme.send(&Pdu::SubmitSm(never));
                // It is taken, and it is not answered before this.
                assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK);
                esme.half_close();
            }
        }
    }
}

#[test]
fn transaction_mode_is_refused_with_a_window_of_one() {
    let place = Place::with_demo("window-one");
    let server = server(&place, "window_in_max = 1\n");
    let mut esme = Esme::bound(&server, "demo");
    let never = ShortMessage { esm_class: EsmClass(2), ..message("9999000555", "outcome") };
    assert_eq!(esme.ask(&Pdu::SubmitSm(never)).status, CommandStatus::ESME_RINVESMCLASS);
    assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK);
}
