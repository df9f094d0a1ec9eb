//! Two runs side by side: what differs, and whether by more than a second differs from the next.

use std::collections::BTreeSet;

use crate::report::grid::Grid;
use crate::report::units::{self, NONE};
use crate::report::{Figures, Latency, Quantiles, Report, Second};

/// What the columns of spreads are.
const LEGEND: &str = "\
A/B and B/A: the 10th to the 90th percentile of the values of each measured second, divided by the median of the other
run's. Where one of them holds 1.00, the runs differ by no more than their seconds do.
";

/// A table of both, after whatever makes them hard to compare.
pub(crate) fn compare(a: &Report, b: &Report) -> String {
    let mut text = format!("A: {}\nB: {}\n", origin(a), origin(b));
    for warning in warnings(a, b) {
        text += &format!("WARNING: {warning}\n");
    }
    let mut grid = Grid::new(["", "A", "B", "ratio B/A", "spread A/B", "spread B/A"]);
    for row in rows(a, b) {
        grid.push(row.cells(a, b));
    }
    text + "\n" + &grid.text() + "\n" + LEGEND
}

fn origin(report: &Report) -> String {
    format!("{} of {}, {}", report.scenario_name, report.started_at, units::seconds(report.seconds))
}

/// Why a difference may be something else than the server's.
fn warnings(a: &Report, b: &Report) -> Vec<String> {
    let differ = [
        ("scenarios", a.scenario != b.scenario || a.scenario_name != b.scenario_name),
        ("machines", a.machine != b.machine),
        ("targets", a.target != b.target),
    ];
    let mut warnings: Vec<_> =
        differ.iter().filter(|(_, differ)| *differ).map(|(what, _)| format!("the {what} differ")).collect();
    for (name, report) in [("A", a), ("B", b)] {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|fault| format!("{} {}", units::count(fault.count), fault.kind))
            .collect();
        if !faults.is_empty() {
            warnings.push(format!("{name} is BROKEN: {}", faults.join(", ")));
        }
        if report.is_cut_short {
            warnings.push(format!("{name} was ended early"));
        }
    }
    warnings
}

/// A figure that runs are compared by.
struct Row {
    name: String,
    value: Box<OfReport>,
    show: fn(f64) -> String,
    /// The same in a second, when there is such a thing.
    each_second: Option<EachSecond>,
}

/// `None` for runs that have no such figure.
type OfReport = dyn Fn(&Report) -> Option<f64>;

/// `None` for seconds that have nothing to say about it.
type EachSecond = fn(&Second) -> Option<f64>;

impl Row {
    fn new(
        name: &str,
        value: impl Fn(&Report) -> Option<f64> + 'static,
        show: fn(f64) -> String,
        each_second: Option<EachSecond>,
    ) -> Self {
        Self { name: name.to_owned(), value: Box::new(value), show, each_second }
    }

    fn cells(&self, a: &Report, b: &Report) -> Vec<String> {
        let [of_a, of_b] = [a, b].map(|report| (self.value)(report));
        let shown = |value: Option<f64>| value.map_or(NONE.to_owned(), self.show);
        let ratio = of_a.zip(of_b).map_or(NONE.to_owned(), |(of_a, of_b)| units::ratio(of_b, of_a));
        let [by_a, by_b] =
            [a, b].map(|report| self.each_second.map_or(Vec::new(), |value| sorted(report, value)));
        vec![self.name.clone(), shown(of_a), shown(of_b), ratio, spread(&by_a, &by_b), spread(&by_b, &by_a)]
    }
}

fn rows(a: &Report, b: &Report) -> Vec<Row> {
    let mut rows = vec![
        Row::new("accepted/s", |report| Some(report.total.accepted_rate), units::amount, Some(accepted)),
        Row::new("receipts/s", |report| Some(report.total.receipts_rate), units::amount, Some(receipts)),
    ];
    for name in latency_names([&a.total, &b.total]) {
        for (quantile, of, each_second) in quantiles(name) {
            let latency = name.to_owned();
            let value = move |report: &Report| {
                report
                    .total
                    .latencies
                    .get(&latency)
                    .filter(|found| found.count > 0)
                    .map(|found| of(found) as f64)
            };
            rows.push(Row::new(&format!("{name} {quantile} (ms)"), value, milliseconds, each_second));
        }
    }
    if a.server.is_some() || b.server.is_some() {
        let cpu = |report: &Report| report.server.as_ref().map(|server| server.cpu_nanos_per_request);
        let rss = |report: &Report| report.server.as_ref().map(|server| server.rss_bytes_max as f64);
        rows.push(Row::new("server CPU a request (ns)", cpu, units::amount, Some(cpu_nanos_per_request)));
        rows.push(Row::new("server RSS at most (MiB)", rss, mebibytes, Some(rss_bytes)));
    }
    rows
}

fn milliseconds(micros: f64) -> String {
    units::milliseconds(micros as u64)
}

fn mebibytes(bytes: f64) -> String {
    units::amount(bytes / (1024.0 * 1024.0))
}

/// Those that either has, as people read them.
fn latency_names([a, b]: [&Figures; 2]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let both = a.latencies_in_order().into_iter().chain(b.latencies_in_order());
    both.map(|(name, _)| name).filter(|name| seen.insert(*name)).collect()
}

/// A point of a distribution: its name, itself, and that of a second.
type Quantile = (&'static str, fn(&Latency) -> u64, Option<EachSecond>);

fn quantiles(name: &str) -> [Quantile; 6] {
    fn micros(quantiles: Quantiles, value: u64) -> Option<f64> {
        // A second without samples has no latency.
        (quantiles.max > 0).then_some(value as f64)
    }
    let [p50, p99, p999, max]: [Option<EachSecond>; 4] = match name {
        "submit_sm" => [
            Some(|second| micros(second.submit_sm, second.submit_sm.p50)),
            Some(|second| micros(second.submit_sm, second.submit_sm.p99)),
            Some(|second| micros(second.submit_sm, second.submit_sm.p999)),
            Some(|second| micros(second.submit_sm, second.submit_sm.max)),
        ],
        "receipt" => [
            Some(|second| micros(second.receipt, second.receipt.p50)),
            Some(|second| micros(second.receipt, second.receipt.p99)),
            Some(|second| micros(second.receipt, second.receipt.p999)),
            Some(|second| micros(second.receipt, second.receipt.max)),
        ],
        _ => [None; 4],
    };
    [
        ("p50", |latency| latency.p50, p50),
        ("p90", |latency| latency.p90, None),
        ("p99", |latency| latency.p99, p99),
        ("p99.9", |latency| latency.p999, p999),
        ("p99.99", |latency| latency.p9999, None),
        ("max", |latency| latency.max, max),
    ]
}

fn accepted(second: &Second) -> Option<f64> {
    Some(second.accepted as f64)
}

fn receipts(second: &Second) -> Option<f64> {
    Some(second.receipts as f64)
}

/// For each that was sent: of those that were answered a second knows no number.
fn cpu_nanos_per_request(second: &Second) -> Option<f64> {
    let nanos = second.server_cpu? * 1e9;
    (second.requests > 0).then(|| nanos / second.requests as f64)
}

fn rss_bytes(second: &Second) -> Option<f64> {
    second.server_rss_bytes.map(|bytes| bytes as f64)
}

/// What the measured seconds say, in ascending order. A last one that is not whole would be an outlier of our making.
fn sorted(report: &Report, value: EachSecond) -> Vec<f64> {
    let is_measured = |second: &&Second| second.at >= 0 && (second.at as f64) + 0.99 <= report.seconds;
    let mut values: Vec<f64> = report.series.iter().filter(is_measured).filter_map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// From the 10th to the 90th percentile of one, as shares of the other's median.
fn spread(sorted: &[f64], other: &[f64]) -> String {
    let at = |sorted: &[f64], quantile: f64| {
        sorted.get((sorted.len().saturating_sub(1) as f64 * quantile).round() as usize).copied()
    };
    match (at(sorted, 0.1), at(sorted, 0.9), at(other, 0.5)) {
        (Some(low), Some(high), Some(median)) if median > 0.0 => {
            format!("{} to {}", units::ratio(low, median), units::ratio(high, median))
        }
        _ => NONE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// The cells of the row of that name, which ends where two blanks are.
    fn row<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}\n{text}"));
        line[name.len()..].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
    }

    #[test]
    fn a_report_is_like_itself() {
        let report = sample::report();
        let text = compare(&report, &report);
        assert!(!text.contains("WARNING"), "{text}");
        let ratios: Vec<_> =
            rows(&report, &report).iter().map(|row| row.cells(&report, &report)[3].clone()).collect();
        assert_eq!(ratios.len(), 2 + 4 * 6 + 2);
        assert!(ratios.iter().all(|ratio| ratio == "1.00"), "{text}");
    }

    #[test]
    fn divides_b_by_a_and_spreads_by_the_others_median() {
        let a = Report {
            series: (0..10).map(|at| accepting(at, 100 + at as u64)).collect(),
            seconds: 10.0,
            ..sample::empty()
        };
        let mut b = Report { series: (0..10).map(|at| accepting(at, 200)).collect(), ..a.clone() };
        b.total.accepted_rate = 200.0;
        let mut a = a;
        a.total.accepted_rate = 100.0;
        let text = compare(&a, &b);
        // Of A: 101 to 108, median 105 (the upper of the middle two).
        assert_eq!(row(&text, "accepted/s"), ["100", "200", "2.00", "0.51 to 0.54", "1.90 to 1.90"]);
        assert_eq!(row(&text, "receipts/s"), ["0.0", "0.0", NONE, NONE, NONE]);
    }

    #[test]
    fn counts_whole_measured_seconds_only() {
        let series = (-2..6).map(|at| accepting(at, (10 + at) as u64)).collect();
        let report = Report { series, seconds: 3.5, ..sample::empty() };
        assert_eq!(sorted(&report, |second| Some(second.accepted as f64)), [10.0, 11.0, 12.0]);
        let nearly = Report { seconds: 3.999, ..report };
        assert_eq!(sorted(&nearly, |second| Some(second.accepted as f64)), [10.0, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn warns_of_whatever_else_differs() {
        let a = sample::report();
        let mut b = Report { faults: sample::faults(), is_cut_short: true, ..a.clone() };
        b.scenario.seconds = 7.0;
        b.machine.cores = 64;
        b.target.tls = None;
        assert_eq!(
            warnings(&a, &b),
            [
                "the scenarios differ",
                "the machines differ",
                "the targets differ",
                "B is BROKEN: 3 receipts lost, 1 ids given twice",
                "B was ended early",
            ]
        );
    }

    #[test]
    fn has_no_number_where_one_run_has_none() {
        let text = compare(&sample::report(), &sample::empty());
        assert_eq!(row(&text, "query_sm p50 (ms)")[1..], [NONE; 4]);
        assert_eq!(row(&text, "server RSS at most (MiB)"), ["512", NONE, NONE, NONE, NONE]);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(!compare(&sample::empty(), &sample::empty()).contains("server"));
    }

    fn accepting(at: i64, accepted: u64) -> Second {
        Second { at, accepted, ..Second::default() }
    }
}
