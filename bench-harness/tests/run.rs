//! The built generator against servers that behave, stall or lie.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const BIND_TRANSCEIVER: u32 = 9;
const SUBMIT_SM: u32 = 4;
const DELIVER_SM: u32 = 5;
const UNBIND: u32 = 6;
const RESP: u32 = 0x8000_0000;

/// A folder of its own, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smpp-bench-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smpp-bench"));
    command.args(arguments);
    command
}

/// Plays a short run against `address`.
fn run(address: SocketAddr, arguments: &[&str]) -> Output {
    let address = address.to_string();
    let always = ["run", "--address", &address, "--warm-up", "0.2", "--drain", "2", "--quiet"];
    bench(&[&always[..], arguments].concat()).output().expect("it runs")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn document(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("a document")).expect("JSON")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The built-in echo, and where it listens.
fn echo() -> (Running, SocketAddr) {
    let mut child =
        bench(&["echo", "--address", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim_start_matches("answering at ").split(',').next().unwrap_or_default();
    (Running(child), address.parse().unwrap_or_else(|_| panic!("{line:?}")))
}

/// A server of the test's own, for one connection after another. `answer` is given each request (command_id, sequence_number,
/// how many submit_sm came before) and gives the octets to send.
fn server(answer: impl Fn(u32, u32, u32) -> Vec<u8> + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.expect("a connection"), answer.clone());
            thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &impl Fn(u32, u32, u32) -> Vec<u8>) {
    let mut submitted = 0;
    let mut header = [0; 16];
    while stream.read_exact(&mut header).is_ok() {
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|octet| header[at + octet]));
        let (length, command_id, sequence_number) = (word(0), word(4), word(12));
        let mut body = vec![0; length as usize - 16];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let octets = answer(command_id, sequence_number, submitted);
        submitted += u32::from(command_id == SUBMIT_SM);
        if stream.write_all(&octets).is_err() || (command_id == UNBIND && !octets.is_empty()) {
            return;
        }
    }
}

fn pdu(command_id: u32, sequence_number: u32, body: &[u8]) -> Vec<u8> {
    let words = [16 + body.len() as u32, command_id, 0, sequence_number];
    words.iter().flat_map(|word| word.to_be_bytes()).chain(body.iter().copied()).collect()
}

/// What a server that behaves answers.
fn honest(command_id: u32, sequence_number: u32, submitted: u32) -> Vec<u8> {
    let id = format!("{submitted}\0");
    match command_id {
        BIND_TRANSCEIVER => pdu(command_id | RESP, sequence_number, b"test\0"),
        SUBMIT_SM => pdu(command_id | RESP, sequence_number, id.as_bytes()),
        response if response & RESP != 0 => Vec::new(),
        _ => pdu(command_id | RESP, sequence_number, b""),
    }
}

/// What the text of a receipt says of a message.
fn receipt_text(id: &str) -> String {
    format!(
        "id:{id} sub:001 dlvrd:001 submit date:2611260000 done date:2611260000 stat:DELIVRD err:000 text:"
    )
}

/// A delivery receipt, with an id in its text and another in its TLV.
fn receipt(sequence_number: u32, in_text: &str, in_tlv: &str) -> Vec<u8> {
    receipt_with(sequence_number, &receipt_text(in_text), 0x001E, format!("{in_tlv}\0").as_bytes())
}

/// A delivery receipt with a short_message and a TLV.
fn receipt_with(sequence_number: u32, short_message: &str, tag: u16, value: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x01\x0112125551234\0\x01\x0112125550100\0\x04\0\0\0\0\0\0\0\0".to_vec();
    body.push(short_message.len() as u8);
    body.extend_from_slice(short_message.as_bytes());
    body.extend_from_slice(&tag.to_be_bytes());
    body.extend_from_slice(&(value.len() as u16).to_be_bytes());
    body.extend_from_slice(value);
    pdu(DELIVER_SM, sequence_number, &body)
}

#[test]
fn a_run_against_the_echo_reports_in_every_form() {
    let place = Place::new("forms");
    let (_echo, address) = echo();
    let (json, page) = (place.file("run.json"), place.file("run.html"));
    let files = ["--json", path(&json), "--html", path(&page), "--histograms", path(&place.0)];
    let output = run(address, &[&["submit", "--seconds", "1"], &files[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = stdout(&output);
    assert!(table.contains("every promise held") && table.contains("submit_sm"), "{table}");
    let document = document(&json);
    assert_eq!(document["schema"], "smpp-bench/1.0");
    assert_eq!(document["faults"], serde_json::json!([]));
    assert_eq!(document["total"]["binds"], 10);
    let accepted = document["total"]["accepted"].as_u64().expect("a count");
    assert!(accepted > 1_000, "{accepted}");
    assert_eq!(document["total"]["statuses"]["ESME_ROK"], accepted);
    assert_eq!(
        document["generator"]["lateness"],
        Value::Null,
        "in a closed loop nothing is due before it is sent"
    );
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(
        page.contains("<svg") && !page.contains("http://") | page.contains("www.w3.org"),
        "self-contained"
    );
    assert!(place.file("submit_sm.hgrm").exists() && place.file("run.hlog").exists());
    let compared = bench(&["compare", path(&json), path(&json)]).output().expect("it runs");
    assert!(compared.status.success() && stdout(&compared).contains("1.00"), "{}", stdout(&compared));
}

#[test]
fn executors_without_a_connection_hold_nobody_up() {
    let (_echo, address) = echo();
    let began = Instant::now();
    let load =
        ["--executors", "3", "--connections", "1", "--warm-up", "0", "--seconds", "0.3", "--drain", "60"];
    let to = address.to_string();
    let output = bench(&[&["run", "--address", &to], &load[..]].concat()).output().expect("it runs");
    assert!(output.status.success() && began.elapsed() < Duration::from_secs(20), "{}", stdout(&output));
}

#[test]
fn a_stall_is_a_stall() {
    let stalled = server(|command_id, sequence_number, submitted| {
        // One connection, 500 a second: in the middle of the run nothing is answered for half a second.
        if command_id == SUBMIT_SM && submitted == 350 {
            thread::sleep(Duration::from_millis(500));
        }
        honest(command_id, sequence_number, submitted)
    });
    let place = Place::new("stall");
    let json = place.file("run.json");
    let load = ["submit", "--connections", "1", "--window", "10", "--rate", "500", "--seconds", "1.5"];
    let output = run(stalled, &[&load[..], &["--json", path(&json)]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let latency = &document(&json)["total"]["latencies"]["submit_sm"];
    // A third of all that was due was due while nothing was answered, though no more than ten were in flight.
    assert!(latency["count"].as_u64() > Some(700), "{latency}");
    assert!(latency["p90"].as_u64() > Some(250_000), "{latency}");
    assert!(latency["p50"].as_u64() < Some(250_000), "{latency}");
}

/// Runs against a server that lies; what the run says is broken.
fn caught(answer: impl Fn(u32, u32, u32) -> Vec<u8> + Send + Clone + 'static) -> String {
    let load =
        ["submit", "--connections", "1", "--window", "5", "--rate", "200", "--seconds", "0.5", "--receipts"];
    let output = run(server(answer), &load);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    stdout(&output)
}

#[test]
fn a_server_that_lies_is_caught() {
    let same_id = caught(|command_id, sequence_number, submitted| match command_id {
        SUBMIT_SM => pdu(SUBMIT_SM | RESP, sequence_number, b"1\0"),
        _ => honest(command_id, sequence_number, submitted),
    });
    assert!(same_id.contains("message_ids were given out again"), "{same_id}");

    let with = |said: fn(u32) -> Vec<u8>| {
        move |command_id, sequence_number, submitted| {
            let mut octets = honest(command_id, sequence_number, submitted);
            if command_id == SUBMIT_SM {
                octets.extend(said(submitted));
            }
            octets
        }
    };
    let none = caught(honest);
    assert!(none.contains("receipts were lost"), "{none}");
    let twice = caught(with(|id| {
        let text = id.to_string();
        [receipt(2 * id + 1, &text, &text), receipt(2 * id + 2, &text, &text)].concat()
    }));
    assert!(twice.contains("receipts came again"), "{twice}");
    let other = caught(with(|id| {
        let text = id.to_string();
        [receipt(2 * id + 1, &text, &text), receipt(2 * id + 2, "x7", "x7")].concat()
    }));
    assert!(other.contains("messages that nobody was told of"), "{other}");
    let again = caught(with(|id| if id == 7 { honest(SUBMIT_SM, 7, 7) } else { Vec::new() }));
    assert!(again.contains("responses came again"), "{again}");
    let contradicting = caught(with(|id| receipt(id + 1, "7x", &id.to_string())));
    assert!(contradicting.contains("text and TLVs differ"), "{contradicting}");
    let nameless = caught(with(|id| receipt_with(id + 1, "it has arrived", 0x0427, &[2])));
    assert!(nameless.contains("receipts name no message"), "{nameless}");
    let early = caught(|command_id, sequence_number, submitted| {
        let answer = honest(command_id, sequence_number, submitted);
        let id = submitted.to_string();
        if command_id == SUBMIT_SM { [receipt(submitted + 1, &id, &id), answer].concat() } else { answer }
    });
    assert!(early.contains("before their responses"), "{early}");
}

#[test]
fn receipts_that_depend_on_the_outcome_may_come() {
    let place = Place::new("conditional");
    let scenario = place.file("scenario.toml");
    let text = "about = \"\"\n[[group]]\nname = \"g\"\nmessage.registered_delivery = 3\nload.open.steps = [{ rate = 200 }]";
    std::fs::write(&scenario, text).expect("a writable folder");
    let by_turns = server(|command_id, sequence_number, submitted| {
        let mut octets = honest(command_id, sequence_number, submitted);
        if command_id == SUBMIT_SM && submitted % 2 == 0 {
            octets.extend(receipt(submitted + 1, &submitted.to_string(), &submitted.to_string()));
        }
        octets
    });
    let json = place.file("run.json");
    let output = run(by_turns, &[path(&scenario), "--seconds", "0.5", "--json", path(&json)]);
    assert!(output.status.success(), "{}", stdout(&output));
    assert!(
        document(&json)["total"]["latencies"]["receipt"]["count"].as_u64() > Some(30),
        "{}",
        stdout(&output)
    );
}

#[test]
fn the_text_of_a_receipt_may_be_a_payload() {
    let address = server(|command_id, sequence_number, submitted| {
        let mut octets = honest(command_id, sequence_number, submitted);
        if command_id == SUBMIT_SM {
            let text = receipt_text(&submitted.to_string());
            octets.extend(receipt_with(submitted + 1, "", 0x0424, text.as_bytes()));
        }
        octets
    });
    let load = ["submit", "--connections", "1", "--rate", "200", "--seconds", "0.5", "--receipts"];
    let output = run(address, &load);
    assert!(output.status.success(), "{}", stdout(&output));
}

#[test]
fn a_search_ends_where_a_promise_is_broken() {
    // Only at the full rate of the closed loop, which comes first.
    let binds = Arc::new(AtomicU32::new(0));
    let address = server(move |command_id, sequence_number, submitted| {
        let bind = if command_id == BIND_TRANSCEIVER { 1 } else { 0 };
        let is_first = binds.fetch_add(bind, Ordering::Relaxed) <= 1;
        honest(command_id, sequence_number, if is_first { 1 } else { submitted })
    });
    let load = ["submit", "--connections", "1", "--window", "5", "--seconds", "0.3"];
    let output = run(address, &[&load[..], &["--until-saturated", "p99<1s"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("message_ids were given out again"), "{}", stdout(&output));
}

#[test]
fn a_server_that_falls_silent_is_caught() {
    let silent = server(|command_id, sequence_number, submitted| match submitted {
        0..50 => honest(command_id, sequence_number, submitted),
        _ => Vec::new(),
    });
    let output = run(silent, &["submit", "--connections", "1", "--window", "5", "--seconds", "0.5"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let said = stdout(&output);
    assert!(said.contains("5 requests were never answered (of the group submit"), "{said}");
    assert!(said.contains("1 unbinds were never answered (of the group submit"), "{said}");
}

#[test]
fn a_server_that_ends_sessions_is_caught() {
    let output = run(
        server(|command_id, sequence_number, submitted| match (command_id, submitted) {
            (SUBMIT_SM, 40) => pdu(UNBIND, 1, b""),
            _ => honest(command_id, sequence_number, submitted),
        }),
        &["submit", "--connections", "1", "--rate", "200", "--seconds", "0.5"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("connections were lost"), "{}", stdout(&output));
}

#[test]
fn a_lost_connection_does_not_make_the_generator_late() {
    let binds = Arc::new(AtomicU32::new(0));
    let address = server(move |command_id, sequence_number, submitted| {
        // The second bind takes its time.
        if command_id == BIND_TRANSCEIVER && binds.fetch_add(1, Ordering::Relaxed) > 0 {
            thread::sleep(Duration::from_millis(600));
        }
        match (command_id, submitted) {
            (SUBMIT_SM, 100) => pdu(UNBIND, 1, b""),
            _ => honest(command_id, sequence_number, submitted + binds.load(Ordering::Relaxed) * 1_000),
        }
    });
    let place = Place::new("late");
    let json = place.file("run.json");
    let load = ["submit", "--connections", "1", "--window", "1000", "--rate", "200", "--seconds", "1.2"];
    let output = run(address, &[&load[..], &["--json", path(&json)]].concat());
    let document = document(&json);
    let late = &document["generator"]["lateness"];
    assert!(
        document["total"]["latencies"]["submit_sm"]["p99"].as_u64() > Some(400_000),
        "{}",
        stdout(&output)
    );
    assert!(late["count"].as_u64() > Some(50) && late["max"].as_u64() < Some(400_000), "{late}");
}

#[test]
fn what_cannot_be_run_says_why() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let refused = run(
        server(|command_id, sequence_number, _| {
            let words = [16_u32, command_id | RESP, 0x0E, sequence_number];
            words.iter().flat_map(|word| word.to_be_bytes()).collect()
        }),
        &["submit"],
    );
    let cases = [
        (run(free, &["submit"]), "refused"),
        (refused, "ESME_RINVPASWD"),
        (run(free, &["no such thing"]), "no such thing"),
        (run(free, &["submit", "--window", "0"]), "window"),
        (run(free, &["many"]), "{}"),
        (run(free, &["submit", "--tls-ca", "/nowhere"]), "/nowhere"),
        (run(free, &["submit", "--until-saturated", "fast"]), "p99<10ms"),
        (run(free, &["submit", "--pin", "1023"]), "CPU 1023"),
        (run(free, &["submit", "--pin", "0,1"]), "2 CPUs for 1 executors"),
        (run(free, &["submit", "--until-saturated", "p99<1s", "--rate", "9"]), "--rate"),
        (bench(&["self-test", "--seconds", "nan"]).output().expect("it runs"), "seconds = NaN"),
    ];
    for (output, word) in cases {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{word}: {said}");
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_server_that_does_not_accept_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    // Its backlog is full when the kernel lets a connection wait.
    let wait = Duration::from_millis(300);
    let backlog: Vec<_> =
        (0..10_000).map_while(|_| TcpStream::connect_timeout(&address, wait).ok()).collect();
    assert!(backlog.len() < 10_000);
    let began = Instant::now();
    let output = run(address, &["submit", "--connections", "1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not connected in 10 s") && began.elapsed() < Duration::from_secs(40), "{said}");
}

#[test]
fn an_interrupted_run_still_reports() {
    let place = Place::new("interrupted");
    let answered = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&answered);
    let address = server(move |command_id, sequence_number, submitted| {
        count.fetch_max(submitted, Ordering::Relaxed);
        honest(command_id, sequence_number, submitted)
    });
    let (json, to) = (place.file("run.json"), address.to_string());
    let load = ["--connections", "1", "--rate", "500", "--seconds", "60", "--warm-up", "0.1"];
    let arguments = [&["run", "--address", &to, "--json", path(&json)], &load[..]].concat();
    let mut running = Running(bench(&arguments).stdout(Stdio::null()).spawn().expect("it runs"));
    let until = Instant::now() + Duration::from_secs(20);
    while answered.load(Ordering::Relaxed) < 300 {
        assert!(Instant::now() < until, "nothing is submitted");
        thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(running.0.id().cast_signed()).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    let until = Instant::now() + Duration::from_secs(20);
    while running.0.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < until, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    let document = document(&json);
    assert_eq!(document["is_cut_short"], true);
    assert!(document["total"]["accepted"].as_u64() > Some(100), "{}", document["total"]);
}

#[test]
fn two_servers_are_compared_round_by_round() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let command = format!("{} echo --address {address}", env!("CARGO_BIN_EXE_smpp-bench"));
    let place = Place::new("pair");
    let json = place.file("pair.json");
    let output = bench(&["run", "submit", "--address", &address, "--seconds", "0.5", "--warm-up", "0.2"])
        .args(["--pair", &command, &command, "--rounds", "2", "--json", path(&json)])
        .output()
        .expect("it runs");
    let said = stdout(&output);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("B/A") && said.lines().count() >= 7, "{said}");
    let document = document(&json);
    assert_eq!(document["schema"], "smpp-bench-pair/1.0");
    assert_eq!((&document["a"], &document["is_cut_short"]), (&command.as_str().into(), &false.into()));
    let rounds = document["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.iter().map(|round| &round["is_a_first"]).collect::<Vec<_>>(), [true, false]);
    let mut ratios = Vec::new();
    for round in rounds {
        let [a, b] = ["a", "b"].map(|side| round[side]["figures"]["accepted_rate"].as_f64().expect("a rate"));
        let ratio = round["ratios"]["accepted_rate"].as_f64().expect("a ratio");
        assert!(a > 0.0 && (ratio - b / a).abs() < 1e-9, "{round}");
        assert!(round["ratios"]["server_cpu_nanos_per_request"].as_f64() > Some(0.0), "{round}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let spread = &document["spread"]["accepted_rate"];
    let ends = ["least", "most"].map(|end| spread[end].as_f64().expect("a ratio"));
    assert_eq!(ends, [ratios[0], ratios[1]]);
}

#[test]
fn a_pair_refuses_what_it_would_not_do() {
    for refused in [["--html", "page"], ["--histograms", "folder"], ["--server-pid", "1"], ["--rounds", "0"]]
    {
        let output = bench(&["run", "--pair", "true", "true"]).args(refused).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{refused:?}: {said}");
        assert!(said.contains(refused[0]), "{refused:?}: {said}");
    }
}

#[test]
fn a_pair_that_is_stopped_keeps_its_whole_rounds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let command = format!("{} echo --address {address}", env!("CARGO_BIN_EXE_smpp-bench"));
    let place = Place::new("pair-stopped");
    let json = place.file("pair.json");
    let mut running = Running(
        bench(&[
            "run",
            "submit",
            "--address",
            &address,
            "--seconds",
            "0.4",
            "--warm-up",
            "0",
            "--rounds",
            "99",
        ])
        .args(["--pair", &command, &command, "--json", path(&json)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs"),
    );
    let mut lines = BufReader::new(running.0.stdout.take().expect("piped")).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.trim_start().starts_with("1 ")));
    assert!(first.is_some(), "a round");
    let pid = Pid::from_raw(running.0.id().cast_signed()).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    lines.for_each(drop);
    assert!(running.0.wait().expect("a child").success());
    let document = document(&json);
    assert_eq!(document["is_cut_short"], true);
    assert!(document["rounds"].as_array().is_some_and(|rounds| !rounds.is_empty() && rounds.len() < 99));
}
