//! The report for people, on standard output.

use std::collections::BTreeMap;

use super::grid::Grid;
use super::units::{self, NONE};
use super::{Fault, Figures, Latency, Report};

/// A name and what there is to say about it.
pub(super) type Line = (&'static str, String);

/// Everything that one screen should say.
pub(crate) fn table(report: &Report) -> String {
    let mut parts = vec![format!("{}\n{}", heading(report), aligned(&outcome(report)))];
    for grid in [latencies(&report.total), groups(report), search(report)] {
        if !grid.is_empty() {
            parts.push(grid.text());
        }
    }
    parts.push(aligned(&resources(report)));
    parts.push(verdict(&report.faults).map(|line| line + "\n").collect());
    parts.join("\n")
}

/// What was played against whom, in one line.
pub(super) fn heading(report: &Report) -> String {
    let target = &report.target;
    format!(
        "{}: {}, {}, {} executor{}, {} measured{}",
        report.scenario_name,
        target.address,
        target.tls.as_deref().unwrap_or("plain TCP"),
        target.executors,
        if target.executors == 1 { "" } else { "s" },
        units::seconds(report.seconds),
        if report.is_cut_short { ", ended early" } else { "" },
    )
}

/// What became of the load. Lines beyond the first two are about what should not be, or need not.
pub(super) fn outcome(report: &Report) -> Vec<Line> {
    let total = &report.total;
    let rated = |rate: f64, count: u64| format!("{}/s ({})", units::amount(rate), units::count(count));
    // They waited longest, and end without a latency: the percentiles are too good by them.
    let unmeasured = |count: u64| format!("{}, which no latency counts", units::count(count));
    let mut lines = vec![
        ("accepted", rated(total.accepted_rate, total.accepted)),
        ("receipts", rated(total.receipts_rate, total.receipts)),
    ];
    let some = [
        ("deliveries", units::count(total.deliveries), total.deliveries > 0),
        ("refused", statuses(&refusals(total)), refused(total) > 0),
        ("binds refused", statuses(&total.binds_refused), !total.binds_refused.is_empty()),
        ("connections lost", units::count(total.connections_lost), total.connections_lost > 0),
        ("unanswered", unmeasured(total.unanswered), total.unanswered > 0),
        ("unsent", unmeasured(total.unsent), total.unsent > 0),
    ];
    lines.extend(
        some.into_iter()
            .filter(|(_, _, is_worth_a_line)| *is_worth_a_line)
            .map(|(name, what, _)| (name, what)),
    );
    lines
}

/// A row for each latency that has a count, in milliseconds.
pub(super) fn latencies(figures: &Figures) -> Grid {
    let mut grid = Grid::new(["latency (ms)", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    for (name, latency) in figures.latencies_in_order() {
        let Latency { count, p50, p90, p99, p999, p9999, max, .. } = *latency;
        let mut row = vec![name.to_owned(), units::count(count)];
        row.extend([p50, p90, p99, p999, p9999, max].map(units::milliseconds));
        grid.push(row);
    }
    grid
}

/// A row for each group, when there is more than one.
pub(super) fn groups(report: &Report) -> Grid {
    let mut grid = Grid::new([
        "group",
        "accepted/s",
        "receipts/s",
        "refused",
        "submit_sm p50",
        "p99",
        "p99.9",
        "max (ms)",
    ]);
    if report.groups.len() < 2 {
        return grid;
    }
    for group in &report.groups {
        let figures = &group.figures;
        let mut row = vec![
            group.name.clone(),
            units::amount(figures.accepted_rate),
            units::amount(figures.receipts_rate),
            units::count(refused(figures)),
        ];
        match figures.latencies.get("submit_sm").filter(|latency| latency.count > 0) {
            Some(latency) => {
                row.extend([latency.p50, latency.p99, latency.p999, latency.max].map(units::milliseconds));
            }
            None => row.extend([NONE; 4].map(str::to_owned)),
        }
        grid.push(row);
    }
    grid
}

/// A row for each rate that was tried, when the highest was looked for.
pub(super) fn search(report: &Report) -> Grid {
    let mut grid = Grid::new(["rate tried", "accepted/s", "latency (ms)", ""]);
    for probe in &report.search {
        let verdict = if probe.is_met { "met" } else { "missed" };
        let latency = units::milliseconds(probe.latency);
        grid.push(vec![
            units::amount(probe.rate),
            units::amount(probe.accepted_rate),
            latency,
            verdict.to_owned(),
        ]);
    }
    grid
}

/// What it cost: the server's process, this one, and the echo to compare with.
pub(super) fn resources(report: &Report) -> Vec<Line> {
    let cpu = |seconds: f64, nanos: f64| {
        format!("{} of a core, {} ns a request", units::ratio(seconds, report.seconds), units::amount(nanos))
    };
    let mut lines = Vec::new();
    if let Some(server) = &report.server {
        lines.push(("server", cpu(server.cpu_seconds, server.cpu_nanos_per_request)));
        lines.push((
            "server memory",
            format!(
                "{} at most, {} before the first connection, {} bytes for each connection",
                units::mebibytes(server.rss_bytes_max),
                units::mebibytes(server.rss_bytes_before),
                units::amount(server.rss_bytes_per_connection),
            ),
        ));
    }
    lines.push(("generator", cpu(report.generator.cpu_seconds, report.generator.cpu_nanos_per_request)));
    if let Some(late) = report.generator.lateness.as_ref().filter(|late| late.count > 0) {
        let [p50, p99, p999, max] = [late.p50, late.p99, late.p999, late.max].map(units::milliseconds);
        lines.push(("sent late", format!("p50 {p50}, p99 {p99}, p99.9 {p999}, max {max} ms")));
    }
    if let Some(echo) = &report.echo {
        lines.push((
            "echo",
            format!("{}/s; the accepted rate is {:.2} of it", units::amount(echo.rate), echo.ratio),
        ));
    }
    lines
}

/// A line for each promise that was broken, or one that says that none was.
pub(super) fn verdict(faults: &[Fault]) -> impl Iterator<Item = String> {
    let kept = faults.is_empty().then(|| "every promise held".to_owned());
    faults.iter().map(broken).chain(kept)
}

fn broken(fault: &Fault) -> String {
    let mut line = format!("BROKEN: {} {}", units::count(fault.count), fault.kind);
    if !fault.examples.is_empty() {
        let are_all = fault.examples.len() as u64 >= fault.count;
        line += &format!(" ({}{})", fault.examples.join(", "), if are_all { "" } else { ", …" });
    }
    line
}

/// Responses other than ESME_ROK.
fn refused(figures: &Figures) -> u64 {
    refusals(figures).values().sum()
}

fn refusals(figures: &Figures) -> BTreeMap<String, u64> {
    let mut statuses = figures.statuses.clone();
    statuses.remove("ESME_ROK");
    statuses
}

/// The sum, and after it each status, the most frequent first.
fn statuses(counts: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|&(_, &count)| std::cmp::Reverse(count));
    let each: Vec<_> =
        sorted.iter().map(|(name, count)| format!("{name} {}", units::count(**count))).collect();
    format!("{} ({})", units::count(counts.values().sum()), each.join(", "))
}

fn aligned(lines: &[Line]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().map(|(name, what)| format!("{name:<width$}  {what}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn says_what_a_reader_looks_for() {
        let table = table(&sample::report());
        for line in [
            "bursts: 127.0.0.1:2776, TLSv1.3, 2 executors, 60 s measured\n",
            "refused   1,830 (ESME_RTHROTTLED 1,800, ESME_RMSGQFUL 30)\n",
            "server memory  512 MiB at most, 48.0 MiB before the first connection, 5,120 bytes for each connection\n",
            "echo           130,000/s; the accepted rate is 0.69 of it\n",
        ] {
            assert!(table.contains(line), "{line}{table}");
        }
        assert!(table.ends_with("\nevery promise held\n"), "{table}");
    }

    #[test]
    fn says_what_the_latencies_leave_out() {
        let mut report = sample::report();
        (report.total.unanswered, report.total.unsent) = (7, 1_200);
        let table = table(&report);
        for line in
            ["unanswered  7, which no latency counts\n", "unsent      1,200, which no latency counts\n"]
        {
            assert!(table.contains(line), "{line}{table}");
        }
    }

    #[test]
    fn puts_faults_last() {
        let mut report = sample::report();
        report.faults = sample::faults();
        let table = table(&report);
        assert!(
            table.ends_with("BROKEN: 3 receipts lost (383f01, 383f02, …)\nBROKEN: 1 ids given twice (77)\n"),
            "{table}"
        );
    }

    #[test]
    fn aligns_its_columns() {
        let report = sample::report();
        let text = latencies(&report.total).text();
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.len() > 3 && widths.iter().all(|width| *width == widths[0]), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn leaves_out_what_there_is_nothing_of() {
        let table = table(&sample::empty());
        for word in ["latency", "group", "server", "echo", "refused", "late", "NaN", "inf"] {
            assert!(!table.contains(word), "{word}: {table}");
        }
        assert!(table.contains("accepted  0.0/s (0)\n"), "{table}");
    }
}
