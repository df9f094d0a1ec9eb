//! What two servers by turns have shown: a JSON document, and a table.

use std::path::Path;

use serde::Serialize;

use super::grid::Grid;
use super::units::{self, NONE};
use super::{Fault, Figures, Generator, Machine, Report, Server, Target, write_document};
use crate::scenario::Scenario;

/// The form of the document, as [`SCHEMA`](super::SCHEMA) is that of a run's.
const SCHEMA: &str = "smpp-bench-pair/1.0";

/// Two servers by turns. Units are those of a run's document.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct PairReport {
    schema: String,
    /// When measuring began in the first run.
    started_at: String,
    /// The command line.
    command: Vec<String>,
    machine: Machine,
    /// That of the last run; TLS may be another one in each.
    target: Target,
    scenario_name: String,
    scenario: Scenario,
    /// The commands that start the servers.
    a: String,
    b: String,
    /// Whether there should have been more rounds.
    is_cut_short: bool,
    rounds: Vec<Round>,
    /// B over A, over all rounds.
    spread: Spread,
}

/// A run of each, one right after the other.
#[derive(Clone, PartialEq, Serialize, Debug)]
struct Round {
    /// Whether A came first.
    is_a_first: bool,
    a: Side,
    b: Side,
    /// B over A.
    ratios: Ratios<f64>,
}

/// What one of the two has shown in a round.
#[derive(Clone, PartialEq, Serialize, Debug)]
struct Side {
    started_at: String,
    /// How long was measured.
    seconds: f64,
    figures: Figures,
    server: Option<Server>,
    generator: Generator,
    faults: Vec<Fault>,
}

/// What the two are compared by; `None` where there is nothing to divide.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
struct Ratios<T> {
    accepted_rate: Option<T>,
    submit_sm_p50: Option<T>,
    submit_sm_p99: Option<T>,
    server_cpu_nanos_per_request: Option<T>,
}

type Spread = Ratios<Range>;

/// How the ratios of rounds lie.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
struct Range {
    median: f64,
    least: f64,
    most: f64,
}

impl PairReport {
    /// Of whole rounds: whether A came first, and the reports of A and B. `None` without any.
    pub(crate) fn new(
        (a, b): (&str, &str),
        rounds: &[(bool, [Report; 2])],
        is_cut_short: bool,
    ) -> Option<Self> {
        let (is_a_first, first) = rounds.first()?;
        let (_, [_, last]) = rounds.last()?;
        let rounds: Vec<Round> = rounds.iter().map(Round::new).collect();
        Some(Self {
            schema: SCHEMA.to_owned(),
            started_at: first[usize::from(!is_a_first)].started_at.clone(),
            command: last.command.clone(),
            machine: last.machine.clone(),
            target: last.target.clone(),
            scenario_name: last.scenario_name.clone(),
            scenario: last.scenario.clone(),
            a: a.to_owned(),
            b: b.to_owned(),
            is_cut_short,
            spread: spread(&rounds),
            rounds,
        })
    }

    /// Writes the document.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        write_document(self, path)
    }

    /// The ratios of all rounds, for people.
    pub(crate) fn table(&self) -> String {
        let mut grid = Grid::new(["B/A", "median", "least", "most"]);
        for (name, range) in self.spread.named() {
            if let Some(Range { median, least, most }) = range {
                let cells = [median, least, most].map(|ratio| format!("{ratio:.3}"));
                grid.push([&[name.to_owned()], &cells[..]].concat());
            }
        }
        grid.text()
    }
}

impl Round {
    fn new((is_a_first, [a, b]): &(bool, [Report; 2])) -> Self {
        let ratios = Ratios::of(b).zip(Ratios::of(a), |b, a| Some(b / a).filter(|ratio| ratio.is_finite()));
        Self { is_a_first: *is_a_first, a: Side::new(a), b: Side::new(b), ratios }
    }
}

impl Side {
    fn new(report: &Report) -> Self {
        Self {
            started_at: report.started_at.clone(),
            seconds: report.seconds,
            figures: report.total.clone(),
            server: report.server.clone(),
            generator: report.generator.clone(),
            faults: report.faults.clone(),
        }
    }
}

impl Ratios<f64> {
    /// The figures themselves.
    fn of(report: &Report) -> Self {
        let latency = report.total.latencies.get("submit_sm").filter(|latency| latency.count > 0);
        Self {
            accepted_rate: Some(report.total.accepted_rate),
            submit_sm_p50: latency.map(|latency| latency.p50 as f64),
            submit_sm_p99: latency.map(|latency| latency.p99 as f64),
            server_cpu_nanos_per_request: report.server.as_ref().map(|server| server.cpu_nanos_per_request),
        }
    }

    fn zip(self, other: Self, join: impl Fn(f64, f64) -> Option<f64>) -> Self {
        let both = |mine: Option<f64>, theirs: Option<f64>| join(mine?, theirs?);
        Self {
            accepted_rate: both(self.accepted_rate, other.accepted_rate),
            submit_sm_p50: both(self.submit_sm_p50, other.submit_sm_p50),
            submit_sm_p99: both(self.submit_sm_p99, other.submit_sm_p99),
            server_cpu_nanos_per_request: both(
                self.server_cpu_nanos_per_request,
                other.server_cpu_nanos_per_request,
            ),
        }
    }
}

impl<T: Copy> Ratios<T> {
    /// As people call them.
    const fn named(&self) -> [(&'static str, Option<T>); 4] {
        [
            ("accepted/s", self.accepted_rate),
            ("submit_sm p50", self.submit_sm_p50),
            ("submit_sm p99", self.submit_sm_p99),
            ("server CPU a request", self.server_cpu_nanos_per_request),
        ]
    }
}

fn spread(rounds: &[Round]) -> Spread {
    let over = |pick: fn(&Ratios<f64>) -> Option<f64>| {
        Range::of(rounds.iter().filter_map(|round| pick(&round.ratios)).collect())
    };
    Ratios {
        accepted_rate: over(|ratios| ratios.accepted_rate),
        submit_sm_p50: over(|ratios| ratios.submit_sm_p50),
        submit_sm_p99: over(|ratios| ratios.submit_sm_p99),
        server_cpu_nanos_per_request: over(|ratios| ratios.server_cpu_nanos_per_request),
    }
}

impl Range {
    fn of(mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (*ratios.first()?, *ratios.last()?);
        // Of an even number, between the middle two.
        let median = f64::midpoint(ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        Some(Self { median, least, most })
    }
}

/// What stands above the lines of rounds.
pub(crate) const HEADING: &str = "round        A/s        B/s    B/A    A p50    B p50    A p99    B p99 ms   A ns   B ns of CPU a request";

/// The line of a round.
pub(crate) fn line(round: usize, a: &Report, b: &Report) -> String {
    let [of_a, of_b] = [a, b].map(Ratios::of);
    let number = |value: Option<f64>, unit: f64, digits: usize| {
        value.map_or(NONE.to_owned(), |value| format!("{:.digits$}", value / unit))
    };
    let ratio = of_b.zip(of_a, |b, a| Some(b / a).filter(|ratio| ratio.is_finite())).accepted_rate;
    format!(
        "{round:>5} {:>10} {:>10} {:>6} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6}",
        number(of_a.accepted_rate, 1.0, 0),
        number(of_b.accepted_rate, 1.0, 0),
        number(ratio, 1.0, 3),
        number(of_a.submit_sm_p50, 1e3, 3),
        number(of_b.submit_sm_p50, 1e3, 3),
        number(of_a.submit_sm_p99, 1e3, 3),
        number(of_b.submit_sm_p99, 1e3, 3),
        number(of_a.server_cpu_nanos_per_request, 1.0, 0),
        number(of_b.server_cpu_nanos_per_request, 1.0, 0),
    )
}

/// What was broken, in a line each.
pub(crate) fn broken(round: usize, name: &str, report: &Report) -> String {
    let line = |fault: &Fault| {
        format!("BROKEN by {name} in round {round}: {} {}\n", units::count(fault.count), fault.kind)
    };
    report.faults.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn accepting(rate: f64) -> Report {
        let mut report = sample::report();
        report.total.accepted_rate = rate;
        report
    }

    #[test]
    fn ratios_are_of_rounds_and_have_a_spread() {
        let rounds = [(true, 100.0, 110.0), (false, 100.0, 90.0), (true, 200.0, 210.0), (false, 50.0, 50.0)]
            .map(|(is_a_first, a, b)| (is_a_first, [accepting(a), accepting(b)]));
        let pair = PairReport::new(("x", "y"), &rounds, false).expect("there are rounds");
        let ratios: Vec<_> = pair.rounds.iter().filter_map(|round| round.ratios.accepted_rate).collect();
        assert_eq!(ratios, [1.1, 0.9, 1.05, 1.0]);
        assert_eq!(pair.spread.accepted_rate, Some(Range { median: 1.025, least: 0.9, most: 1.1 }));
        assert_eq!(pair.spread.submit_sm_p99, Some(Range { median: 1.0, least: 1.0, most: 1.0 }));
        assert!(pair.table().contains("accepted/s             1.025  0.900  1.100\n"), "{}", pair.table());
    }

    #[test]
    fn what_cannot_be_divided_has_no_ratio() {
        assert_eq!(PairReport::new(("x", "y"), &[], true), None);
        let rounds = [(true, [sample::empty(), accepting(7.0)])];
        let pair = PairReport::new(("x", "y"), &rounds, false).expect("there is a round");
        let nothing = Ratios {
            accepted_rate: None,
            submit_sm_p50: None,
            submit_sm_p99: None,
            server_cpu_nanos_per_request: None,
        };
        assert_eq!(pair.spread, nothing);
        let line = line(1, &rounds[0].1[0], &rounds[0].1[1]);
        assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
    }
}
