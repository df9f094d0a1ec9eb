//! Metrics and health over HTTP, from a thread of its own that no core waits for.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::time::{ClockId, clock_gettime};

use crate::metrics::{Counters, Histogram};
use crate::server::balance::Balance;
use crate::server::core::Pulse;
use crate::server::descriptors;
use crate::server::http::{self, Answer};

/// Serves `/metrics` and `/health`; the address it got.
///
/// # Errors
/// The address cannot be listened on.
pub(super) fn start(
    address: SocketAddr,
    pulses: Vec<Arc<Pulse>>,
    balance: Arc<Balance>,
) -> io::Result<SocketAddr> {
    http::start(address, move |path| match path {
        "/metrics" => Answer { status: "200 OK", text: metrics(&pulses, balance.connections()) },
        "/health" => health(&pulses),
        _ => Answer { status: "404 Not Found", text: "try /metrics or /health\n".to_owned() },
    })
}

fn totals(pulses: &[Arc<Pulse>]) -> Counters {
    let counters = pulses.iter().map(|pulse| match pulse.counters.lock() {
        Ok(counters) => *counters,
        Err(poisoned) => *poisoned.into_inner(),
    });
    counters.fold(Counters::default(), |sum, core| sum.plus(&core))
}

fn metrics(pulses: &[Arc<Pulse>], (connections, connections_max): (u64, u64)) -> String {
    let mut text = String::new();
    let totals = totals(pulses);
    for (name, help, value) in totals.each() {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        // Writing to a String does not fail.
        _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}\n", help.trim());
    }
    let help = "How long batches took to become durable, in seconds.";
    histogram(&mut text, "smppd_journal_commit_seconds", help, &totals.commit_micros, 1e-6);
    let help = "How long batches were, in octets.";
    histogram(&mut text, "smppd_journal_commit_octets", help, &totals.commit_octets, 1.0);
    for (name, help, value) in [
        ("smppd_connections_open", "Connections, bound or not.", connections),
        (
            "smppd_connections_max",
            "Connections that are taken, as limits and open files allow.",
            connections_max,
        ),
    ] {
        _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    process(&mut text);
    for (core, pulse) in pulses.iter().enumerate() {
        _ = writeln!(text, "smppd_core_heartbeats_total{{core=\"{core}\"}} {}", pulse.pacemaker.beats());
    }
    text
}

/// What the process uses, by the names that every exporter has for it.
fn process(text: &mut String) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 * 1e-9;
    let name = "process_cpu_seconds_total";
    _ = write!(text, "# HELP {name} CPU time used, in seconds.\n# TYPE {name} counter\n{name} {seconds}\n");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    // Without /proc there is nothing to say.
    if let Some(kibibytes) = kibibytes {
        let (name, octets) = ("process_resident_memory_bytes", kibibytes << 10);
        _ = write!(text, "# HELP {name} Resident memory, in octets.\n# TYPE {name} gauge\n{name} {octets}\n");
    }
}

/// A histogram, whose values are counted in `unit`.
fn histogram(text: &mut String, name: &str, help: &str, values: &Histogram, unit: f64) {
    let (count, sum) = values.total();
    _ = write!(text, "# HELP {name} {help}\n# TYPE {name} histogram\n");
    for (bound, up_to) in values.up_to() {
        _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {up_to}", bound as f64 * unit);
    }
    _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
    _ = write!(text, "{name}_sum {}\n{name}_count {count}\n", sum as f64 * unit);
}

/// 200 while every core runs and every partition accepts; 503 with what does not.
fn health(pulses: &[Arc<Pulse>]) -> Answer {
    match complaints(pulses) {
        complaints if complaints.is_empty() => Answer { status: "200 OK", text: "ok\n".to_owned() },
        text => Answer { status: "503 Service Unavailable", text },
    }
}

/// A line for each thing that is wrong.
fn complaints(pulses: &[Arc<Pulse>]) -> String {
    let mut lines = String::new();
    // Writing to a String does not fail.
    if descriptors::are_short() {
        _ = writeln!(lines, "{}", descriptors::LACK);
    }
    for (core, pulse) in pulses.iter().enumerate() {
        if pulse.has_ended.load(Ordering::Relaxed) {
            _ = writeln!(lines, "core {core} has ended");
        } else if pulse.is_still.load(Ordering::Relaxed) {
            _ = writeln!(lines, "core {core} stands still");
        }
    }
    for pulse in pulses {
        let failed =
            pulse.failed.lock().map_or_else(|lock| lock.into_inner().clone(), |failed| failed.clone());
        for partition in failed {
            _ = writeln!(lines, "partition {partition} has stopped after a disk error");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PartitionNumber;

    #[test]
    fn batches_are_counted_by_size_and_time() {
        let pulse: Arc<Pulse> = Arc::default();
        for micros in [100, 300, 300, 40_000_000] {
            pulse.counters.lock().expect("a lock").commit_micros.add(micros);
        }
        let text = metrics(&[pulse], (3, 7));
        for line in [
            "# TYPE smppd_journal_commit_seconds histogram",
            "smppd_journal_commit_seconds_bucket{le=\"0.000064\"} 0",
            "smppd_journal_commit_seconds_bucket{le=\"0.000128\"} 1",
            "smppd_journal_commit_seconds_bucket{le=\"0.000512\"} 3",
            "smppd_journal_commit_seconds_bucket{le=\"+Inf\"} 4",
            "smppd_journal_commit_seconds_count 4",
            "smppd_journal_commit_octets_sum 0",
            "smppd_connections_open 3",
            "smppd_connections_max 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn what_the_process_uses_is_told() {
        let text = metrics(&[], (3, 7));
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes "] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name} in {text}");
        }
    }

    #[test]
    fn what_does_not_run_is_named() {
        let pulses: Vec<Arc<Pulse>> = (0..3).map(|_| Arc::default()).collect();
        assert_eq!(complaints(&pulses), "");
        assert_eq!(health(&pulses).status, "200 OK");
        pulses[1].is_still.store(true, Ordering::Relaxed);
        assert_eq!(complaints(&pulses), "core 1 stands still\n");
        pulses[2].has_ended.store(true, Ordering::Relaxed);
        *pulses[0].failed.lock().expect("a lock") = vec![PartitionNumber(0), PartitionNumber(3)];
        assert_eq!(
            complaints(&pulses),
            "core 1 stands still\ncore 2 has ended\n\
             partition 000 has stopped after a disk error\npartition 003 has stopped after a disk error\n"
        );
        assert_eq!(health(&pulses).status, "503 Service Unavailable");
    }
}
