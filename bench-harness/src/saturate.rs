//! Finds the highest rate that meets a latency goal.

use std::time::Duration;

use crate::conductor::Played;
use crate::report::{Probe, Report};
use crate::run::{Run, steady};
use crate::scenario::{Load, Spread};

/// The rate is known when what met the goal and what missed it are as close as this.
const CLOSE: f64 = 0.03;
/// Tries, at most.
const TRIES_MAX: usize = 12;
/// Of what is due, so much must have been answered ESME_ROK in time: the rest is the edge of the measured time.
const SHARE: f64 = 0.99;

const STOPPED: &str = "stopped before the rate was known";

/// A latency that is not to be exceeded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Goal {
    /// Of so many of a hundred submit_sm.
    percent: f64,
    below: Duration,
}

impl Goal {
    /// Reads `p99<10ms`, `p99.9<1s`, `p50<300us`.
    ///
    /// # Errors
    /// It is none of that form.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is no goal; one is p99<10ms, another p99.9<500us");
        let (percent, limit) = text.trim_start_matches('p').split_once('<').ok_or_else(form)?;
        let digits = limit.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let scale = match &limit[digits.len()..] {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            _ => return Err(form()),
        };
        let percent: f64 = percent.trim().parse().map_err(|_| form())?;
        let number: f64 = digits.trim().parse().map_err(|_| form())?;
        if !(percent > 0.0 && percent < 100.0 && number > 0.0 && number < 1e9) {
            return Err(form());
        }
        Ok(Self { percent, below: Duration::from_secs_f64(number * scale) })
    }

    /// The latency that it is about, in microseconds.
    fn latency(&self, report: &Report) -> Result<u64, String> {
        let Some(latency) = report.total.latencies.get("submit_sm") else { return Ok(u64::MAX) };
        Ok(latency.histogram()?.value_at_percentile(self.percent))
    }
}

/// Offers rate after rate to the server: first what the closed loop reaches, then between what met the goal and what did not.
///
/// # Errors
/// What playing says, a broken promise, or that even the slowest rate misses the goal.
pub(crate) fn search(run: &mut Run, goal: &Goal) -> Result<(Report, Played), String> {
    let group = set_load(run, Load::Closed)?;
    let (peak, played) = run.play()?;
    if !peak.faults.is_empty() {
        return Ok((peak, played));
    }
    if peak.is_cut_short {
        return Err(STOPPED.to_owned());
    }
    let mut missed = granted_rate(&peak, group) * 1.1;
    let mut met = 0.0;
    let mut best = None;
    let mut probes = Vec::new();
    let mut rate = missed * 0.75;
    while probes.len() < TRIES_MAX && missed - met > CLOSE * missed {
        set_load(run, steady(rate, Spread::Poisson))?;
        let (report, played) = run.play()?;
        if report.is_cut_short {
            return Err(STOPPED.to_owned());
        }
        if !report.faults.is_empty() {
            return Ok((Report { search: probes, ..report }, played));
        }
        let latency = goal.latency(&report)?;
        let is_met =
            u128::from(latency) < goal.below.as_micros() && granted_rate(&report, group) >= SHARE * rate;
        probes.push(Probe { rate, accepted_rate: report.total.accepted_rate, latency, is_met });
        if is_met {
            met = rate;
            best = Some((report, played));
        } else {
            missed = rate;
        }
        rate = f64::midpoint(met, missed);
    }
    let (report, played) =
        best.ok_or_else(|| format!("no rate from {missed:.0} a second upwards meets the goal"))?;
    Ok((Report { search: probes, ..report }, played))
}

/// Changes the load of the first group that has one; gives its place.
fn set_load(run: &mut Run, load: Load) -> Result<usize, String> {
    let groups = &mut run.scenario.groups;
    let place = groups
        .iter()
        .position(|group| group.load != Load::Idle && group.misbehaviour.is_none())
        .ok_or("a scenario in which nothing is submitted has no highest rate")?;
    groups[place].load = load;
    Ok(place)
}

/// What a group was granted of all that it asked for, a second.
fn granted_rate(report: &Report, group: usize) -> f64 {
    let granted = report.groups.get(group).and_then(|group| group.figures.statuses.get("ESME_ROK"));
    granted.map_or(0.0, |granted| *granted as f64 / report.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_rate_is_met_by_whatever_its_group_was_granted() {
        let mut report = sample::report();
        // Half of its requests are query_sm, and another group submits as well.
        report.groups[1].figures.statuses =
            [("ESME_ROK".to_owned(), 6_000), ("ESME_RTHROTTLED".to_owned(), 9)].into();
        report.groups[1].figures.accepted_rate = 50.0;
        assert!((granted_rate(&report, 1) - 100.0).abs() < 1e-9);
        report.groups[1].figures.statuses.clear();
        assert!(granted_rate(&report, 1) <= 0.0);
    }

    #[test]
    fn goals_are_read() {
        let goal = |percent, below| Ok(Goal { percent, below });
        assert_eq!(Goal::parse("p99<10ms"), goal(99.0, Duration::from_millis(10)));
        assert_eq!(Goal::parse("p99.9<500us"), goal(99.9, Duration::from_micros(500)));
        assert_eq!(Goal::parse("p50<1.5s"), goal(50.0, Duration::from_millis(1_500)));
        for wrong in ["", "p99", "p99<10", "p99<ms", "p100<1s", "p0<1s", "p99<0ms", "p99<-1s", "fast"] {
            assert!(Goal::parse(wrong).is_err(), "{wrong}");
        }
    }
}
