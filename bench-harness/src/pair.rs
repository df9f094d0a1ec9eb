//! Two servers by turns: on a machine that others use as well, only a ratio of neighbours means something.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::report::Report;
use crate::run::Run;
use crate::server::Source;

/// How long a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `a` and `b` by turns and prints each round; whether every promise held.
///
/// # Errors
/// A server does not start or ends, or what playing says.
pub(crate) fn run(run: &mut Run, a: &str, b: &str, rounds: usize) -> Result<bool, String> {
    println!("A: {a}\nB: {b}\n");
    println!(
        "round        A/s        B/s    B/A    A p50    B p50    A p99    B p99 ms   A ns   B ns of CPU a request"
    );
    let mut ratios = Vec::new();
    let mut holds = true;
    for round in 1..=rounds {
        // Whoever comes first in one round comes last in the next: what warms up warms up for both.
        let order = if round % 2 == 1 { [a, b] } else { [b, a] };
        let mut reports = Vec::new();
        for command in order {
            reports.push(once(run, command)?);
        }
        if round % 2 == 0 {
            reports.reverse();
        }
        for report in &reports {
            for fault in &report.faults {
                eprintln!("BROKEN: {} {}", fault.count, fault.kind);
                holds = false;
            }
        }
        let [first, second] = &reports[..] else { continue };
        let rate = |report: &Report| report.total.accepted_rate;
        ratios.push(rate(second) / rate(first));
        let millis = |report: &Report, pick: fn(&crate::report::Latency) -> u64| {
            report.total.latencies.get("submit_sm").map_or(0.0, |latency| pick(latency) as f64 / 1_000.0)
        };
        let nanos =
            |report: &Report| report.server.as_ref().map_or(0.0, |server| server.cpu_nanos_per_request);
        println!(
            "{round:>5} {:>10.0} {:>10.0} {:>6.3} {:>8.3} {:>8.3} {:>8.3} {:>8.3} {:>9.0} {:>6.0}",
            rate(first),
            rate(second),
            rate(second) / rate(first),
            millis(first, |latency| latency.p50),
            millis(second, |latency| latency.p50),
            millis(first, |latency| latency.p99),
            millis(second, |latency| latency.p99),
            nanos(first),
            nanos(second),
        );
        if run.stops.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
    }
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        println!("\nB/A: {:.3} (median), {least:.3} to {most:.3}", ratios[ratios.len() / 2]);
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
