//! Two servers by turns: on a machine that others use as well, only a ratio of neighbours means something.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::report::Report;
use crate::report::pair::{self, PairReport};
use crate::run::Run;
use crate::server::Source;

/// How long a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `a` and `b` by turns, prints each round and writes a document of all of them; whether every promise held.
///
/// # Errors
/// A server does not start or ends, what playing says, or the document cannot be written.
pub(crate) fn run(
    run: &mut Run,
    (a, b): (&str, &str),
    rounds: usize,
    json: Option<&Path>,
) -> Result<bool, String> {
    if rounds == 0 {
        return Err("--rounds must be at least 1".to_owned());
    }
    println!("A: {a}\nB: {b}\n\n{}", pair::HEADING);
    let mut whole = Vec::new();
    let mut holds = true;
    for round in 1..=rounds {
        // Whoever comes first in one round comes last in the next: what warms up warms up for both.
        let is_a_first = round % 2 == 1;
        let mut once = |name, command| -> Result<Option<Report>, String> {
            let report = match once(run, command) {
                // Half a round says nothing: there are no neighbours in it.
                outcome if run.stops.load(Ordering::Relaxed) => {
                    outcome.ok().filter(|report| !report.is_cut_short)
                }
                outcome => Some(outcome?),
            };
            if let Some(report) = &report {
                eprint!("{}", pair::broken(round, name, report));
                holds &= report.faults.is_empty();
            }
            Ok(report)
        };
        let both = if is_a_first {
            once("A", a)?.zip(once("B", b)?)
        } else {
            once("B", b)?.zip(once("A", a)?).map(|(b, a)| (a, b))
        };
        let Some((of_a, of_b)) = both else { break };
        println!("{}", pair::line(round, &of_a, &of_b));
        whole.push((is_a_first, [of_a, of_b]));
    }
    let report = PairReport::new((a, b), &whole, whole.len() < rounds)
        .ok_or("stopped before the first round was over")?;
    print!("\n{}", report.table());
    if let Some(path) = json {
        report.write(path)?;
    }
    Ok(holds)
}

/// Starts a server, plays the scenario, and stops it.
fn once(run: &mut Run, command: &str) -> Result<Report, String> {
    let mut server = Server::start(command)?;
    server.wait_until_it_listens(run)?;
    run.setting.server = Some(Source::Process(server.child.id()));
    let (report, _) = run.play()?;
    server.stop()?;
    Ok(report)
}

/// A server of our own, with everything that it starts.
struct Server {
    child: Child,
    command: String,
}

impl Server {
    fn start(command: &str) -> Result<Self, String> {
        let child = Command::new("sh")
            // The shell gives its place to the command, so that the process we watch is the server.
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{command}: {error}"))?;
        Ok(Self { child, command: command.to_owned() })
    }

    fn wait_until_it_listens(&mut self, run: &Run) -> Result<(), String> {
        let address = run.setting.target.address;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("{}: ended with {status} before it listened", self.command));
            }
            if TcpStream::connect_timeout(&address, PAUSE).is_ok() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{}: does not listen at {address} after 30 s", self.command));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks it to end, and waits until it has.
    fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if Instant::now() > until {
                return Err(format!("{}: does not end on SIGTERM", self.command));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            _ = self.child.wait();
        }
    }
}
