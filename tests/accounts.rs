//! What an account may do holds over all cores, and changes while the server runs.

mod support;

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use smppd::pdu::{CommandId, CommandStatus, Pdu, RegisteredDelivery, ShortMessage};

use support::esme::{DELIVERED, Esme, NUMBER, international, message};
use support::{Place, Server, eventually};

const OK: CommandStatus = CommandStatus::ESME_ROK;

fn quiet(text: &str) -> ShortMessage<'_> {
    ShortMessage { registered_delivery: RegisteredDelivery::NONE, ..message(DELIVERED, text) }
}

/// Submits so many at once; how often each status came.
fn submit_many(esme: &mut Esme, count: usize) -> HashMap<CommandStatus, usize> {
    let mut octets = Vec::new();
    let numbers: Vec<u32> =
        (0..count).map(|_| esme.put(&Pdu::SubmitSm(quiet("many")), &mut octets)).collect();
    esme.write(&octets).expect("a connection");
    let mut statuses = HashMap::new();
    for number in numbers {
        *statuses.entry(esme.response(number).status).or_default() += 1;
    }
    statuses
}

#[test]
fn exactly_as_many_bind_as_may() {
    let place = Place::with_demo("limit");
    place.account("add three --bind-limit 3");
    let server = place.server().start();
    for round in 0..3 {
        let sessions: Vec<(Esme, CommandStatus)> = thread::scope(|scope| {
            let binds: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        let mut esme = Esme::connect(&server);
                        let status = esme.bind("three", CommandId::BIND_TRANSCEIVER);
                        (esme, status)
                    })
                })
                .collect();
            binds.into_iter().map(|bind| bind.join().expect("an answer")).collect()
        });
        let bound = sessions.iter().filter(|(_, status)| *status == OK).count();
        assert_eq!(bound, 3, "round {round}");
        let refused = CommandStatus::ESME_RBINDFAIL;
        assert!(sessions.iter().all(|(_, status)| [OK, refused].contains(status)));
        let (mut bound, others): (Vec<_>, Vec<_>) = sessions
            .into_iter()
            .map(|(esme, status)| (esme, status == OK))
            .partition(|(_, is_bound)| *is_bound);
        // Who was refused holds no place, and who unbinds gives it back at once.
        drop(others);
        for _ in 0..3 {
            let (mut leaving, _) = bound.remove(0);
            assert_eq!(leaving.ask(&Pdu::Unbind).status, OK);
            bound.push((Esme::bound(&server, "three"), true));
        }
        let mut fourth = Esme::connect(&server);
        assert_eq!(fourth.bind("three", CommandId::BIND_TRANSCEIVER), refused);
        for (mut esme, _) in bound {
            assert_eq!(esme.ask(&Pdu::Unbind).status, OK);
        }
    }
}

#[test]
fn a_rate_holds_over_both_cores() {
    const RATE: usize = 200;
    const BURST: usize = 100;
    let place = Place::with_demo("rate");
    place.account(&format!("add limited --bind-limit 0 --any-source --rate {RATE} --burst {BURST}"));
    let server = place.server().start();
    let sessions = Esme::bound_on_both_cores(&server, "limited", CommandId::BIND_TRANSMITTER);
    // The messages that found the cores may have used some of the burst: wait until it is whole again.
    thread::sleep(Duration::from_millis(700));
    let begin = Instant::now();
    let mut accepted = 0;
    thread::scope(|scope| {
        let loads: Vec<_> = sessions
            .into_iter()
            .map(|mut esme| {
                scope.spawn(move || {
                    let mut accepted = 0;
                    for _ in 0..20 {
                        let statuses = submit_many(&mut esme, 50);
                        let throttled = CommandStatus::ESME_RTHROTTLED;
                        assert!(
                            statuses.keys().all(|status| [OK, throttled].contains(status)),
                            "{statuses:?}"
                        );
                        accepted += statuses.get(&OK).copied().unwrap_or(0);
                        thread::sleep(Duration::from_millis(100));
                    }
                    accepted
                })
            })
            .collect();
        accepted = loads.into_iter().map(|load| load.join().expect("a load")).sum();
    });
    let most = BURST as f64 + RATE as f64 * begin.elapsed().as_secs_f64() + 1.0;
    assert!(accepted as f64 <= most, "{accepted} accepted, {most} allowed");
    // Twenty helpings, two seconds: the demand was there all the time.
    assert!(accepted >= BURST + RATE * 17 / 10, "only {accepted} accepted");
}

#[test]
fn credits_are_counted_once_and_survive() {
    let place = Place::with_demo("credits");
    place.account("add paid --bind-limit 0 --any-source --credits 500");
    let launch = place.server();
    let server = launch.start();
    let spend = |server: &Server, count: usize| -> usize {
        let mut statuses = HashMap::new();
        thread::scope(|scope| {
            let loads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        submit_many(
                            &mut Esme::bound_as(server, "paid", CommandId::BIND_TRANSMITTER),
                            count / 4,
                        )
                    })
                })
                .collect();
            for load in loads {
                for (status, count) in load.join().expect("a load") {
                    *statuses.entry(status).or_insert(0) += count;
                }
            }
        });
        let accepted = statuses.remove(&OK).unwrap_or(0);
        let refused = statuses.remove(&CommandStatus::ESME_RSUBMITFAIL).unwrap_or(0);
        assert_eq!(accepted + refused, count, "{statuses:?}");
        accepted
    };
    assert_eq!(spend(&server, 200), 200);
    server.kill();
    let server = launch.start();
    assert_eq!(spend(&server, 200), 200);
    assert!(server.stop().success());
    let server = launch.start();
    assert_eq!(spend(&server, 200), 100, "what is left of 500");
    assert_eq!(spend(&server, 40), 0);
    server.kill();
    let server = launch.cores(1).start();
    assert_eq!(spend(&server, 40), 0);
    place.account("set paid --credits 600");
    eventually("more credits are known", || {
        server.log().contains("accounts, routes and certificates are reloaded").then_some(())
    });
    // The change reaches the cores a moment after it is logged.
    let mut accepted = 0;
    eventually("every new credit is spent", || {
        accepted += spend(&server, 40);
        (accepted >= 100).then_some(())
    });
    assert_eq!(accepted, 100);
}

#[test]
fn a_message_of_several_segments_costs_as_many_credits() {
    let place = Place::with_demo("segments");
    place.account("add paid --any-source --credits 10 --segment-long");
    let server = place.server().start();
    let mut esme = Esme::bound_as(&server, "paid", CommandId::BIND_TRANSMITTER);
    let long = "x".repeat(200);
    for _ in 0..5 {
        esme.submit(&quiet(&long));
    }
    assert_eq!(esme.ask(&Pdu::SubmitSm(quiet("one more"))).status, CommandStatus::ESME_RSUBMITFAIL);
}

#[test]
fn refused_messages_leave_no_trace() {
    let place = Place::with_demo("refused");
    place.account("add own --number 4420 --credits 1");
    let server = place.server().start();
    let mut esme = Esme::bound(&server, "own");
    let asks = |source: &'static str, destination: &'static str| ShortMessage {
        source: international(source),
        ..message(destination, "refused")
    };
    for (source, destination, status) in [
        (NUMBER, DELIVERED, CommandStatus::ESME_RINVSRCADR),
        ("4420", "not-a-number", CommandStatus::ESME_RINVDSTADR),
        ("4420", "", CommandStatus::ESME_RINVDSTADR),
    ] {
        assert_eq!(
            esme.ask(&Pdu::SubmitSm(asks(source, destination))).status,
            status,
            "{source} {destination}"
        );
    }
    // Nothing was charged.
    let id = esme.submit(&asks("4420", DELIVERED));
    assert_eq!(esme.next_receipt().id, id);
    esme.hears_nothing_for(Duration::from_millis(700));
}

#[test]
fn accounts_come_and_go_while_the_server_runs() {
    let place = Place::with_demo("reload");
    place.account("add leaving --bind-limit 0 --any-source");
    let server = place.server().start();
    let mut staying = Esme::bound(&server, "demo");
    let mut leaving = Esme::bound(&server, "leaving");
    // `smppd account` tells the running server.
    place.account("add coming --bind-limit 0 --any-source");
    let mut coming = eventually("the new account may bind", || {
        let mut esme = Esme::connect(&server);
        (esme.bind("coming", CommandId::BIND_TRANSCEIVER) == OK).then_some(esme)
    });
    let id = coming.submit(&message(DELIVERED, "new"));
    assert_eq!(coming.next_receipt().id, id);

    place.account("remove leaving");
    let unbind = leaving.next();
    assert_eq!(unbind.command_id, CommandId::UNBIND);
    leaving.answer(&unbind, OK);
    leaving.until_closed();
    let mut again = Esme::connect(&server);
    assert_eq!(again.bind("leaving", CommandId::BIND_TRANSCEIVER), CommandStatus::ESME_RBINDFAIL);
    for esme in [&mut staying, &mut coming] {
        assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK);
        esme.submit(&quiet("still here"));
    }
    // A file that makes no sense changes nothing.
    let accounts = place.data().join("accounts.toml");
    let good = std::fs::read_to_string(&accounts).expect("accounts");
    std::fs::write(&accounts, "[[account]]\nsystem_id = 7\n").expect("a file");
    server.signal(Signal::HUP);
    eventually("the mistake is logged", || server.log().contains("nothing was reloaded").then_some(()));
    assert_eq!(staying.ask(&Pdu::EnquireLink).status, OK);
    Esme::bound(&server, "coming");
    std::fs::write(&accounts, good).expect("a file");
}

#[test]
fn another_certificate_is_shown_to_new_connections_only() {
    let place = Place::with_demo("renewed");
    let mut server = place.server().start();
    let mut before = Esme::bound(&server, "demo");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = place.data().join("tls");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    server.certificate = place.write("new.pem", &made.cert.pem());
    server.signal(Signal::HUP);
    eventually("the reload is logged", || server.log().contains("certificates are reloaded").then_some(()));
    // The client trusts the new certificate alone.
    let mut after = Esme::bound(&server, "demo");
    for esme in [&mut before, &mut after] {
        esme.submit(&quiet("either side"));
    }
}

#[test]
fn another_account_sees_nothing() {
    let place = Place::with_demo("others");
    place.account("add other --bind-limit 0 --any-source");
    let server = place.server().start();
    let mut mine = Esme::bound_as(&server, "demo", CommandId::BIND_TRANSMITTER);
    let mut theirs = Esme::bound(&server, "other");
    let id = mine.submit(&message(DELIVERED, "mine"));
    assert_eq!(theirs.query(&id).status, CommandStatus::ESME_RINVMSGID);
    theirs.hears_nothing_for(Duration::from_millis(1_000));
    let mut receiver = Esme::bound_as(&server, "demo", CommandId::BIND_RECEIVER);
    assert_eq!(receiver.next_receipt().id, id);
    assert_eq!(mine.query(&id).message_state(), 2);
}

/// Asks for a reload and waits until the server has said what came of it.
fn reload(server: &Server, outcome: &str) {
    let count = |text: &str| text.lines().filter(|line| line.contains(outcome)).count();
    let before = count(&server.log());
    server.signal(Signal::HUP);
    eventually(outcome, || (count(&server.log()) > before).then_some(()));
}

const RELOADED: &str = "accounts, routes and certificates are reloaded";
const REFUSED: &str = "nothing was reloaded";

/// Adds an account to the file, and tells no server of it.
fn add_in_silence(place: &Place, name: &str) {
    let accounts = place.data().join("accounts.toml");
    let text = std::fs::read_to_string(&accounts).expect("accounts");
    let (before, rest) = text.split_once("[[account]]").expect("an account");
    let first = rest.split("[[account]]").next().expect("an account");
    let another = first.replace("\"demo\"", &format!("\"{name}\"")).replace("12125550100", "4420");
    std::fs::write(&accounts, format!("{before}[[account]]{rest}\n[[account]]{another}")).expect("a file");
}

fn may_bind(server: &Server, name: &str) -> bool {
    Esme::connect(server).bind(name, CommandId::BIND_TRANSCEIVER) == OK
}

/// A new key and certificate in the place of those there are. Clients trust what they trusted before, and nothing else.
fn renew_certificate(place: &Place, server: &mut Server) {
    let folder = place.data().join("tls");
    let old = place.write("old.pem", &std::fs::read_to_string(folder.join("cert.pem")).expect("a file"));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a file");
    server.certificate = old;
}

#[test]
fn a_broken_accounts_file_keeps_the_certificate_from_being_changed_too() {
    let place = Place::with_demo("broken-accounts");
    let mut server = place.server().start();
    renew_certificate(&place, &mut server);
    let accounts = place.data().join("accounts.toml");
    let good = std::fs::read_to_string(&accounts).expect("accounts");
    for broken in
        ["[[account]]\nsystem_id = 7\n", "nonsense", "[[account]]\nsystem_id = \"demo\"\nrate = -1\n"]
    {
        std::fs::write(&accounts, broken).expect("a file");
        reload(&server, REFUSED);
        assert!(may_bind(&server, "demo"), "with the certificate and the password of before");
    }
    std::fs::write(&accounts, good).expect("a file");
    reload(&server, RELOADED);
    server.certificate = place.data().join("tls/cert.pem");
    assert!(may_bind(&server, "demo"), "with the new one");
}

#[test]
fn a_broken_certificate_keeps_the_accounts_from_being_changed_too() {
    let place = Place::with_demo("broken-certificate");
    let mut server = place.server().start();
    let folder = place.data().join("tls");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let good = [&certificate, &key].map(|path| std::fs::read_to_string(path).expect("a file"));
    server.certificate = place.write("old.pem", &good[0]);
    add_in_silence(&place, "coming");
    let another = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    // No certificate, none in it, and one of another key.
    for broken in [None, Some(String::new()), Some("nonsense".to_owned()), Some(another.cert.pem())] {
        match &broken {
            Some(text) => std::fs::write(&certificate, text).expect("a file"),
            None => std::fs::remove_file(&certificate).expect("a file"),
        }
        reload(&server, REFUSED);
        // What was sent to the cores all the same would be there by now.
        thread::sleep(Duration::from_millis(100));
        assert!(!may_bind(&server, "coming"), "{broken:?}");
        assert!(may_bind(&server, "demo"), "{broken:?}");
    }
    std::fs::write(&certificate, &good[0]).expect("a file");
    std::fs::write(&key, "nonsense").expect("a file");
    reload(&server, REFUSED);
    assert!(may_bind(&server, "demo") && !may_bind(&server, "coming"), "a broken key");
    std::fs::write(&key, &good[1]).expect("a file");
    reload(&server, RELOADED);
    eventually("the new account may bind", || may_bind(&server, "coming").then_some(()));
}

/// Two carriers: one delivers, the other does not.
const CARRIERS: &str = "
[carrier.good]
kind = \"simulator\"
delay_min_millis = 0
delay_max_millis = 1
rule = []
[carrier.bad]
kind = \"simulator\"
delay_min_millis = 0
delay_max_millis = 1
outcomes = [{ outcome = \"UNDELIV\", weight = 1, error = 7 }]
rule = []
";

fn route(prefix: &str, carrier: &str) -> String {
    format!("[[route]]\nprefix = \"{prefix}\"\ncarrier = \"{carrier}\"\n")
}

#[test]
fn routes_are_changed_while_the_server_runs_and_carriers_are_not() {
    let place = Place::with_demo("routes");
    let settings = |text: &str| {
        place.write("smppd.toml", &format!("[journal]\nsegment_mib = 8\n{text}"));
    };
    let first = format!("{CARRIERS}{}", route("", "good"));
    let server = place.server().settings(&first).start();
    let mut esme = Esme::bound(&server, "demo");
    let mut outcome = || {
        esme.submit(&message(DELIVERED, "by which way"));
        esme.next_receipt().stat
    };
    assert_eq!(outcome(), "DELIVRD");
    settings(&format!("{CARRIERS}{}{}", route("", "good"), route("1212", "bad")));
    reload(&server, RELOADED);
    eventually("the other way", || (outcome() == "UNDELIV").then_some(()));

    // Whatever is wrong, nothing changes: neither the routes nor the accounts.
    add_in_silence(&place, "coming");
    let other_carrier = first.replace("error = 7", "error = 8");
    let another_carrier = format!("{first}[carrier.third]\nkind = \"simulator\"\n");
    let no_carrier = format!("{CARRIERS}{}", route("", "nobody"));
    for wrong in [&*other_carrier, &*another_carrier, &*no_carrier, "nonsense", "[sesion]\n"] {
        settings(wrong);
        reload(&server, REFUSED);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(outcome(), "UNDELIV", "{wrong}");
        assert!(!may_bind(&server, "coming"), "{wrong}");
    }
    let log = server.log();
    assert_eq!(log.matches("the carriers are not those of the start").count(), 2, "{log}");

    // A way that is not there any more.
    settings(&format!("{CARRIERS}{}", route("44", "good")));
    reload(&server, RELOADED);
    eventually("the new account may bind", || may_bind(&server, "coming").then_some(()));
    let refused = CommandStatus::ESME_RINVDSTADR;
    eventually("no way", || (esme.ask(&Pdu::SubmitSm(quiet("no way"))).status == refused).then_some(()));
    let id = esme.submit(&message("447700900123", "another way"));
    assert_eq!(esme.next_receipt().id, id);
}

#[test]
fn what_an_account_may_is_changed_while_its_sessions_are_bound() {
    let place = Place::with_demo("changed");
    place.account("add one --bind-limit 1 --any-source");
    let server = place.server().start();
    let mut esme = Esme::bound(&server, "one");
    assert!(!may_bind(&server, "one"));
    place.account("set one --bind-limit 2");
    eventually("one more may bind", || may_bind(&server, "one").then_some(()));
    place.account("set one --password other");
    let with = |password| {
        let mut esme = Esme::connect(&server);
        let version = smppd::pdu::InterfaceVersion::V5_0;
        esme.bind_with("one", password, CommandId::BIND_TRANSCEIVER, version).status == OK
    };
    eventually("the new password is known", || with("other").then_some(()));
    assert!(!with(support::PASSWORD), "the old one is not forgotten");
    assert_eq!(esme.ask(&Pdu::EnquireLink).status, OK, "whoever is bound stays so");
}
