//! From what was counted to the document.

use std::collections::BTreeMap;
use std::fs;

use smppd::pdu::CommandStatus;

use crate::conductor::{Played, Setting};
use crate::measure::{Latencies, Pulse, Tally, Timed};
use crate::report::{
    Figures, Generator, GroupFigures, Latency, Machine, Quantiles, Report, SCHEMA, Second, Server, Target,
};
use crate::scenario::Scenario;

/// The document of a run.
pub(crate) fn report(name: &str, scenario: &Scenario, setting: &Setting, played: &Played) -> Report {
    let seconds = (played.course.end - played.course.measure) as f64 / 1e9;
    let mut all = Tally::default();
    played.tallies.iter().for_each(|tally| all.add(tally));
    let total = figures(&all, seconds);
    let answered = all.answered().max(1) as f64;
    let groups = scenario
        .groups
        .iter()
        .zip(&played.tallies)
        .map(|(group, tally)| GroupFigures { name: group.name.clone(), figures: figures(tally, seconds) })
        .collect();
    Report {
        schema: SCHEMA.to_owned(),
        started_at: jiff::Timestamp::try_from(played.started)
            .map(|at| format!("{at:.3}"))
            .unwrap_or_default(),
        command: without_password(std::env::args()),
        machine: machine(),
        target: Target {
            address: setting.target.address.to_string(),
            tls: played.tls.clone(),
            executors: setting.executors,
        },
        scenario_name: name.to_owned(),
        scenario: scenario.clone(),
        seconds,
        is_cut_short: played.is_cut_short,
        total,
        groups,
        series: series(played),
        server: server(played, answered),
        generator: Generator {
            cpu_seconds: played.own_cpu_seconds,
            cpu_nanos_per_request: played.own_cpu_seconds * 1e9 / answered,
            lateness: all.lateness.histogram().as_deref().map(Latency::of),
        },
        faults: played.faults.clone(),
        echo: None,
        search: Vec::new(),
    }
}

fn figures(tally: &Tally, seconds: f64) -> Figures {
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let mut statuses = by_name(&tally.refused);
    let done = tally.accepted + tally.done;
    if done > 0 {
        statuses.insert(CommandStatus::ESME_ROK.to_string(), done);
    }
    let timed = |timed: &Timed| tally.latencies[*timed as usize].histogram();
    Figures {
        requests: Timed::ALL
            .iter()
            .map(|timed| (timed.name().to_owned(), tally.requests[*timed as usize]))
            .filter(|(_, count)| *count > 0)
            .collect(),
        statuses,
        accepted: tally.accepted,
        accepted_rate: rate(tally.accepted),
        receipts: tally.receipts,
        receipts_rate: rate(tally.receipts),
        deliveries: tally.deliveries,
        binds: tally.binds,
        binds_refused: by_name(&tally.binds_refused),
        connections_lost: tally.connections_lost,
        unanswered: tally.unanswered,
        unsent: tally.unsent,
        latencies: Timed::ALL
            .iter()
            .filter_map(|it| Some((it.name().to_owned(), Latency::of(&*timed(it)?))))
            .collect(),
    }
}

fn by_name(counts: &BTreeMap<CommandStatus, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(status, count)| (status.to_string(), *count)).collect()
}

fn series(played: &Played) -> Vec<Second> {
    let warm_up = (played.course.measure - played.course.begin) / 1_000_000_000;
    played.pulses.iter().map(|pulse| second(pulse, warm_up as i64, played)).collect()
}

fn second(pulse: &Pulse, warm_up: i64, played: &Played) -> Second {
    let (from, to) = (pulse.second as f64, pulse.second as f64 + 1.0);
    // The samples around the second; what was used between them is spread evenly.
    let before = played.samples.iter().rev().find(|sample| sample.at <= from + 0.1);
    let after = played.samples.iter().find(|sample| sample.at >= to - 0.1);
    let cpu = before.zip(after).map(|(before, after)| {
        (after.usage.cpu_seconds - before.usage.cpu_seconds) / (after.at - before.at).max(0.001)
    });
    Second {
        at: pulse.second as i64 - warm_up,
        requests: pulse.requests,
        accepted: pulse.accepted,
        refused: pulse.refused,
        receipts: pulse.receipts,
        bound: pulse.bound,
        submit_sm: quantiles(&pulse.submit_sm),
        receipt: quantiles(&pulse.receipt),
        server_cpu: cpu,
        server_rss_bytes: after.map(|sample| sample.usage.rss_bytes),
    }
}

fn quantiles(latencies: &Latencies) -> Quantiles {
    let Some(histogram) = latencies.histogram() else { return Quantiles::default() };
    Quantiles {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}

fn server(played: &Played, answered: f64) -> Option<Server> {
    let (before, bound) = (played.server_before?, played.server_bound?);
    let warm_up = (played.course.measure - played.course.begin) as f64 / 1e9;
    let end = (played.course.end - played.course.begin) as f64 / 1e9;
    let measured = || played.samples.iter().filter(|sample| sample.at >= warm_up && sample.at <= end + 0.1);
    let (first, last) = (measured().next()?, measured().next_back()?);
    let length = (last.at - first.at).max(0.001);
    // The samples are a little off the measured time.
    let cpu_seconds = (last.usage.cpu_seconds - first.usage.cpu_seconds) * (end - warm_up) / length;
    let growth = bound.rss_bytes.saturating_sub(before.rss_bytes) as f64;
    Some(Server {
        cpu_seconds,
        cpu_nanos_per_request: cpu_seconds * 1e9 / answered,
        rss_bytes_before: before.rss_bytes,
        rss_bytes_max: measured().map(|sample| sample.usage.rss_bytes).max().unwrap_or(0),
        rss_bytes_per_connection: growth / played.connections.max(1) as f64,
    })
}

/// The command line as a document may show it to anybody.
fn without_password(arguments: impl Iterator<Item = String>) -> Vec<String> {
    const FLAG: &str = "--password";
    const HIDDEN: &str = "***";
    let mut is_password = false;
    let mut shown = Vec::new();
    for argument in arguments {
        let has_password = argument.strip_prefix(FLAG).is_some_and(|rest| rest.starts_with('='));
        shown.push(match (std::mem::take(&mut is_password), has_password) {
            (true, _) => HIDDEN.to_owned(),
            (false, true) => format!("{FLAG}={HIDDEN}"),
            (false, false) => {
                is_password = argument == FLAG;
                argument
            }
        });
    }
    shown
}

fn machine() -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        model: model.map(|(_, name)| name.to_owned()).unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: format!("Linux {}", kernel.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_no_password() {
        let shown = |line: &str| without_password(line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(shown("run --password secret --seconds 1"), "run --password *** --seconds 1");
        assert_eq!(shown("run --password=secret --quiet"), "run --password=*** --quiet");
        assert_eq!(shown("run --password --password --pin 1"), "run --password *** --pin 1");
        assert_eq!(shown("run --password"), "run --password");
    }
}
