//! The built server, started and stopped by a test; [`esme`] has the other end of its connections.
#![allow(dead_code, unreachable_pub, reason = "each test file uses the part it needs")]
#![allow(clippy::wildcard_enum_match_arm, reason = "whatever else came is a failure of the test")]

pub mod disk;
pub mod esme;
pub mod load;
pub mod rounds;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// The password of every account that a test makes.
pub const PASSWORD: &str = "secret";
/// What is bound to happen happens within this, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of a test's own, removed with it.
pub struct Place(PathBuf);

impl Place {
    /// An empty directory.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("smppd-{name}-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// A directory with the account `demo`, which may send from any number and owns one.
    pub fn with_demo(name: &str) -> Self {
        let place = Self::new(name);
        place.account("add demo --bind-limit 0 --any-source --number 12125550100");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// `smppd account LINE`, which must succeed; an account that is added gets [`PASSWORD`].
    pub fn account(&self, line: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
        command.arg("account").args(line.split_whitespace()).arg("--data-dir").arg(self.data());
        if line.starts_with("add") {
            command.args(["--password", PASSWORD]);
        }
        let output = command.output().expect("smppd runs");
        assert!(output.status.success(), "account {line}: {output:?}");
    }

    /// A server about to be started on this place's data.
    pub fn server(&self) -> Launch<'_> {
        let (settings, arguments, environment) = (String::new(), Vec::new(), Vec::new());
        Launch { place: self, cores: 2, settings, arguments, environment, open_files: None }
    }

    /// The journal files of a partition, by name.
    pub fn journal(&self, partition: u8) -> Vec<PathBuf> {
        let folder = self.data().join(format!("partition-{partition:03}/journal"));
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder).expect("a journal").map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a server is to be started.
pub struct Launch<'a> {
    place: &'a Place,
    cores: usize,
    settings: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<u32>,
}

impl Launch<'_> {
    pub fn cores(mut self, cores: usize) -> Self {
        self.cores = cores;
        self
    }

    /// Tables of the settings file, beside `[journal]`, which is small already.
    pub fn settings(mut self, text: &str) -> Self {
        self.settings += text;
        self
    }

    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How many files and sockets it may have open.
    pub fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// What is to go wrong on purpose: `src/server/fault.rs` has the words.
    pub fn faults(self, words: &str) -> Self {
        self.environment("SMPPD_FAULTS", words)
    }

    /// The command line, with addresses that nobody else has.
    pub fn command(&self) -> Command {
        let settings =
            self.place.write("smppd.toml", &format!("[journal]\nsegment_mib = 8\n{}", self.settings));
        let mut command = match self.open_files {
            None => Command::new(env!("CARGO_BIN_EXE_smppd")),
            Some(limit) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={limit}:{limit}")).arg(env!("CARGO_BIN_EXE_smppd"));
                command
            }
        };
        command.arg("--config").arg(settings).arg("--data-dir").arg(self.place.data());
        command.args(["--cores", &self.cores.to_string()]);
        if !self.arguments.iter().any(|argument| argument.starts_with("--listen=")) {
            command.args(["--listen", "127.0.0.1:0", "--listen-plain", "127.0.0.1:0"]);
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Server {
        Server::start(self.command(), self.place)
    }

    /// Starts it; what it has said when it ends instead of being ready. It must do either, and soon.
    pub fn starts_or_fails(&self) -> Result<Server, String> {
        Server::try_start(self.command(), self.place)
    }

    /// Starts it; it must end by itself, and soon. What it says.
    pub fn fails(&self) -> Output {
        ends_by_itself(self.command())
    }
}

/// Runs a command that must end by itself within [`PATIENCE`].
pub fn ends_by_itself(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("smppd runs");
    let pid = pid(&child);
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match output.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("an end"),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            panic!("smppd did not end by itself");
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a process")
}

/// A running server. It does not outlive the test.
pub struct Server {
    child: Child,
    /// Where it speaks TLS.
    pub tls: SocketAddr,
    /// Where it does not.
    pub plain: SocketAddr,
    /// Where metrics are, if that was asked for.
    pub admin: Option<SocketAddr>,
    pub certificate: PathBuf,
    log: PathBuf,
}

impl Server {
    fn start(command: Command, place: &Place) -> Self {
        Self::try_start(command, place).unwrap_or_else(|log| panic!("the server did not start: {log}"))
    }

    /// A server that is ready, or the log of one that is not.
    fn try_start(mut command: Command, place: &Place) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = place.path(&format!("log-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        command.stdout(Stdio::piped()).stderr(File::create(&log).expect("a file"));
        let mut child = command.spawn().expect("smppd runs");
        let stdout = child.stdout.take().expect("a pipe");
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let certificate = place.data().join("tls/cert.pem");
        // From here on the child is ended whatever happens.
        let mut server = Self { child, tls: unknown, plain: unknown, admin: None, certificate, log };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => {
                    eventually("the server ends", || server.child.try_wait().expect("a child"));
                    return Err(server.log());
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the server is neither ready nor has it ended: {}", server.log())
                }
            };
            let address = |text: &str| text.split(' ').next().and_then(|address| address.parse().ok());
            if let Some(rest) = line.strip_prefix("listening on ") {
                let place = if rest.ends_with("(TLS)") { &mut server.tls } else { &mut server.plain };
                *place = address(rest).expect("an address");
            } else if let Some(rest) = line.strip_prefix("metrics and health on http://") {
                server.admin = address(rest);
            } else if line.starts_with("ready:") {
                return Ok(server);
            }
        }
    }

    pub fn pid(&self) -> Pid {
        pid(&self.child)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the admin port says, head and body.
    pub fn http(&self, path: &str) -> String {
        self.ask_http(path)()
    }

    /// Asks the admin port; what it says is waited for later.
    pub fn ask_http(&self, path: &str) -> impl FnOnce() -> String + use<> {
        let mut http = TcpStream::connect(self.admin.expect("an admin port")).expect("a connection");
        http.set_read_timeout(Some(PATIENCE)).expect("a socket");
        http.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).expect("asked");
        move || {
            let mut text = String::new();
            http.read_to_string(&mut text).expect("an answer");
            text
        }
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.http("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).expect("a metric")
    }

    /// The lowest number that none of its files and sockets has: the next one gets it.
    pub fn next_descriptor(&self) -> u64 {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a process");
        let numbers: HashSet<u64> =
            folder.filter_map(|entry| entry.expect("an entry").file_name().to_str()?.parse().ok()).collect();
        (0..).find(|number| !numbers.contains(number)).expect("a number")
    }

    /// From now on it may have files and sockets with numbers below this.
    pub fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit { current: Some(limit), maximum: Some(20_000) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a limit");
    }

    /// Ends it as a power cut would, but for what the operating system holds.
    pub fn kill(mut self) {
        self.child.kill().expect("a signal");
        self.child.wait().expect("an end");
    }

    /// Asks it to stop and waits for that.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("a signal");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = eventually("the server ends", || self.child.try_wait().expect("a child"));
        assert!(!self.log().contains("panicked"), "{}", self.log());
        ended
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    /// Resident memory, in octets.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// CPU time used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks = |place: usize| fields[place].parse::<u64>().expect("a number");
        // utime and stime, in hundredths of a second everywhere that Linux runs today.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What libfaketime leaves behind in a process that was killed.
        for name in ["faketime_shm", "sem.faketime_sem"] {
            let _ = fs::remove_file(format!("/dev/shm/{name}_{}", self.child.id()));
        }
        if thread::panicking() {
            eprintln!("--- log of the server ---\n{}---", tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].iter().flat_map(|line| [line, "\n"]).collect()
}

/// Looks until there is something, for [`PATIENCE`] at most.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Text of what a command wrote to stderr.
pub fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the test may do what only root may.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Changes one octet of a file.
pub fn flip(path: &Path, offset: usize) {
    let mut octets = fs::read(path).expect("a file");
    octets[offset] ^= 0x40;
    fs::write(path, octets).expect("a file");
}

/// Says that a test, or a part of it, is not run. A test that passes shows nothing it has printed; this is seen.
pub fn skip(what: &str, why: &str) {
    _ = writeln!(io::stderr(), "NOT TESTED: {what}: {why}");
}

/// How often a test that goes round in circles does so: `scripts/torture` says more.
pub fn rounds(usually: usize) -> usize {
    let said = std::env::var("SMPPD_ROUNDS").ok();
    let rounds = said.map_or(usually, |text| text.parse().expect("a number of rounds"));
    assert!(rounds > 0, "SMPPD_ROUNDS=0 would test nothing");
    rounds
}

/// Numbers that look random, the same for the same seed.
pub struct Dice(u64);

impl Dice {
    /// A seed of its own for each run, unless `SMPPD_SEED` names one; it is printed with a test that fails.
    pub fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let named = std::env::var("SMPPD_SEED").ok();
        let seed = named.map_or(now.as_nanos() as u64, |text| text.parse().expect("a seed"));
        println!("SMPPD_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}
