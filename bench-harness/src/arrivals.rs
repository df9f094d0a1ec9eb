//! When the requests of an open load are due.

use std::time::Duration;

use crate::scenario::{Spread, Step};

/// The due times of one connection, ascending, in nanoseconds since the warm-up began.
///
/// Requests are counted by the integral of the rate over time: with an even spread one is due each time the integral
/// has grown by one, with a Poisson spread by an exponential variate of mean one. So the counts are exact whatever the
/// course.
pub(crate) struct Arrivals {
    /// The warm-up, and then the course.
    pieces: Box<[Piece]>,
    /// Index of the piece that we are in.
    at: usize,
    /// When that piece began.
    begin_ns: u64,
    /// When the measured time is over.
    end_ns: u64,
    /// Where in this piece's integral the next request is due; it may be beyond the piece's end.
    target: f64,
    /// Requests of this piece's burst that are not out yet.
    burst_left: u64,
    bursts: Bursts,
    spread: Spread,
    random: fastrand::Rng,
}

impl Arrivals {
    /// Those of a connection that has `share` of a group's rate and of its bursts.
    ///
    /// `phase`, from 0 up to 1, is where the connection stands among the others: the first of ten equal ones has 0, the
    /// second 0.1. It keeps even spreads from falling on the same times, and gives every request of a burst to one of
    /// them.
    pub(crate) fn new(
        steps: &[Step],
        spread: Spread,
        share: f64,
        phase: f64,
        warm_up: Duration,
        measured: Duration,
        seed: u64,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let first_rate = steps.first().map_or(0.0, |step| step.rate);
        let warm_up_piece = Piece::new(warm_up, share * first_rate, share * first_rate, 0);
        let course = steps.iter().map(|step| {
            let lasts = step.seconds.map_or(measured, Duration::from_secs_f64);
            Piece::new(lasts, share * step.rate, share * step.to.unwrap_or(step.rate), step.burst)
        });
        Self {
            pieces: std::iter::once(warm_up_piece).chain(course).collect(),
            at: 0,
            begin_ns: 0,
            end_ns: if steps.is_empty() { 0 } else { nanos(warm_up + measured) },
            target: match spread {
                Spread::Constant => phase,
                Spread::Poisson => exponential(&mut random),
            },
            burst_left: 0,
            bursts: Bursts { share, phase, of_group: 0 },
            spread,
            random,
        }
    }

    /// Goes on to the next piece of the course, and begins the course anew behind its last.
    fn enter_next_piece(&mut self) {
        let left = &self.pieces[self.at];
        self.target -= left.requests;
        self.begin_ns = self.begin_ns.saturating_add(left.lasts_ns);
        // The warm-up does not come again.
        self.at = if self.at + 1 < self.pieces.len() { self.at + 1 } else { 1 };
        self.burst_left = self.bursts.of_connection(self.pieces[self.at].burst);
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.begin_ns < self.end_ns {
            if self.burst_left > 0 {
                self.burst_left -= 1;
                return Some(self.begin_ns);
            }
            let piece = &self.pieces[self.at];
            if self.target < piece.requests {
                let due_ns = self.begin_ns + piece.nanos_until(self.target);
                self.target += match self.spread {
                    Spread::Constant => 1.0,
                    Spread::Poisson => exponential(&mut self.random),
                };
                // If this one is behind the end, so are all that follow.
                return (due_ns < self.end_ns).then_some(due_ns);
            }
            self.enter_next_piece();
        }
        None
    }
}

/// A stretch of time whose rate rises or falls evenly.
struct Piece {
    lasts_ns: u64,
    /// Requests a second of this connection, at the begin.
    rate: f64,
    /// By how much that grows in a second.
    slope: f64,
    /// The integral of the rate over the piece.
    requests: f64,
    /// Requests of the whole group that are due at the begin.
    burst: u64,
}

impl Piece {
    fn new(lasts: Duration, rate: f64, rate_at_end: f64, burst: u64) -> Self {
        let seconds = lasts.as_secs_f64();
        let slope = if seconds > 0.0 { (rate_at_end - rate) / seconds } else { 0.0 };
        Self { lasts_ns: nanos(lasts), rate, slope, requests: (rate + rate_at_end) / 2.0 * seconds, burst }
    }

    /// How long after the begin the integral reaches `target`, which is less than `requests`.
    fn nanos_until(&self, target: f64) -> u64 {
        // The root of slope/2 × t² + rate × t = target, in the form that also holds without a slope.
        let discriminant = (self.rate * self.rate + 2.0 * self.slope * target).max(0.0);
        let divisor = self.rate + discriminant.sqrt();
        let seconds = if divisor > 0.0 { 2.0 * target / divisor } else { 0.0 };
        // To the nearest, so that what is due on the second is not due before it.
        ((seconds * 1e9 + 0.5) as u64).min(self.lasts_ns)
    }
}

/// Shares bursts out, each request of the group to exactly one connection.
struct Bursts {
    share: f64,
    phase: f64,
    /// Requests of all bursts so far, of the whole group.
    of_group: u64,
}

impl Bursts {
    /// How many of the next burst's requests are this connection's.
    fn of_connection(&mut self, burst: u64) -> u64 {
        let before = self.until(self.of_group);
        self.of_group += burst;
        self.until(self.of_group) - before
    }

    /// How many of the group's first `of_group` requests are this connection's: as often as phase, phase + 1, … lies
    /// below its share of them.
    fn until(&self, of_group: u64) -> u64 {
        // Shares and phases are often not exact (0.1). Where the difference should be whole it must not be rounded up.
        const ROUNDING: f64 = 1e-6;
        (of_group as f64 * self.share - self.phase - ROUNDING).ceil().max(0.0) as u64
    }
}

/// A random step of the integral: exponentially distributed, 1 in the mean.
fn exponential(random: &mut fastrand::Rng) -> f64 {
    // f64() may be 0, but never 1.
    -(1.0 - random.f64()).ln()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn step(seconds: f64, rate: f64) -> Step {
        Step { seconds: Some(seconds), rate, to: None, burst: 0 }
    }

    /// The due times of each of `connections` equal connections.
    fn group(steps: &[Step], spread: Spread, connections: u64, warm_up: u64, measured: u64) -> Vec<Vec<u64>> {
        let (warm_up, measured) = (Duration::from_secs(warm_up), Duration::from_secs(measured));
        let share = 1.0 / connections as f64;
        (0..connections)
            .map(|k| Arrivals::new(steps, spread, share, k as f64 * share, warm_up, measured, k).collect())
            .collect()
    }

    fn merged(group: &[Vec<u64>]) -> Vec<u64> {
        let mut all = group.concat();
        all.sort_unstable();
        all
    }

    #[test]
    fn an_even_spread_has_as_many_as_the_integral_says() {
        let steps = [
            step(1.0, 1_000.0),
            Step { to: Some(3_000.0), ..step(2.0, 1_000.0) },
            step(1.5, 0.0),
            Step { to: Some(0.0), ..step(0.5, 700.0) },
        ];
        // The warm-up at the first rate, and two courses of 1,000 + 4,000 + 0 + 175.
        let expected = 2_000.0 + 2.0 * 5_175.0;
        for connections in [1, 2, 3, 7, 10, 64] {
            let group = group(&steps, Spread::Constant, connections, 2, 10);
            for times in &group {
                let share = expected / connections as f64;
                assert!((times.len() as f64 - share).abs() <= 1.0, "{} of {share}", times.len());
                assert!(times.is_sorted() && times.iter().all(|time| *time < 12 * SECOND));
            }
            assert!((merged(&group).len() as f64 - expected).abs() <= 1.0, "{connections} connections");
        }
    }

    #[test]
    fn connections_of_an_even_spread_interleave() {
        let all = merged(&group(&[step(10.0, 1_000.0)], Spread::Constant, 7, 0, 10));
        assert_eq!(all.len(), 10_000);
        for (index, time) in all.iter().enumerate() {
            // Every millisecond, but for what rounding takes.
            assert!(time.abs_diff(index as u64 * 1_000_000) <= 1_000, "{index}: {time}");
        }
    }

    #[test]
    fn a_ramp_has_a_quarter_of_its_requests_in_its_first_half() {
        let up = Step { to: Some(1_000.0), ..step(10.0, 0.0) };
        let down = Step { to: Some(0.0), ..step(10.0, 1_000.0) };
        for (ramp, first_half) in [(up, 1_250), (down, 3_750)] {
            let all = merged(&group(&[ramp], Spread::Constant, 4, 0, 10));
            assert_eq!(all.len(), 5_000);
            let counted = all.iter().filter(|time| **time < 5 * SECOND).count();
            assert!(counted.abs_diff(first_half) <= 1, "{counted}");
        }
    }

    #[test]
    fn every_request_of_a_burst_is_somebodys() {
        for spread in [Spread::Constant, Spread::Poisson] {
            for burst in [1, 3, 13, 999, 100_000] {
                for connections in [1, 2, 3, 7, 10, 64, 1_000] {
                    let bursts = [Step { burst, ..step(1.0, 0.0) }];
                    let all = merged(&group(&bursts, spread, connections, 1, 3));
                    let at = |second: u64| all.iter().filter(|time| **time == second * SECOND).count() as u64;
                    let what = format!("{burst} over {connections}");
                    // None in the warm-up, and none when the last second is over.
                    assert_eq!([at(0), at(1), at(2), at(3), at(4)], [0, burst, burst, burst, 0], "{what}");
                    assert_eq!(all.len() as u64, 3 * burst, "{what}");
                }
            }
        }
    }

    #[test]
    fn small_bursts_go_round() {
        let group = group(&[Step { burst: 1, ..step(1.0, 0.0) }], Spread::Constant, 4, 0, 8);
        assert!(group.iter().all(|times| times.len() == 2), "{group:?}");
    }

    #[test]
    fn a_burst_comes_first_in_its_step() {
        let steps = [Step { burst: 2, ..step(1.0, 2.0) }];
        let times = merged(&group(&steps, Spread::Constant, 1, 1, 2));
        let halves: Vec<u64> = times.iter().map(|time| time / (SECOND / 2)).collect();
        assert_eq!(halves, [0, 1, 2, 2, 2, 3, 4, 4, 4, 5]);
    }

    #[test]
    fn poisson_counts_have_their_mean_and_its_variance() {
        let rate = 2_000.0;
        let group = group(&[step(10.0, rate)], Spread::Poisson, 10, 0, 50);
        assert!(group.iter().all(|times| times.is_sorted()));
        let all = merged(&group);
        let expected = rate * 50.0;
        assert!((all.len() as f64 - expected).abs() < 4.0 * expected.sqrt(), "{}", all.len());
        let mut counts = vec![0.0; 5_000];
        for time in all {
            counts[(time / (SECOND / 100)) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance =
            counts.iter().map(|count: &f64| (count - mean).powi(2)).sum::<f64>() / (counts.len() - 1) as f64;
        // The index of dispersion of n counts has a standard error of √(2/n): 0.02.
        assert!((variance / mean - 1.0).abs() < 0.08, "{}", variance / mean);
    }

    #[test]
    fn poisson_counts_follow_a_ramp() {
        let ramp = [Step { to: Some(10_000.0), ..step(10.0, 0.0) }];
        let all = merged(&group(&ramp, Spread::Poisson, 3, 0, 10));
        let first_half = all.iter().filter(|time| **time < 5 * SECOND).count() as f64;
        assert!((first_half - 12_500.0).abs() < 4.0 * 12_500_f64.sqrt(), "{first_half}");
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        let times = |seed| -> Vec<u64> {
            let (warm_up, measured) = (Duration::ZERO, Duration::from_secs(1));
            Arrivals::new(&[step(1.0, 100.0)], Spread::Poisson, 1.0, 0.0, warm_up, measured, seed).collect()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn nothing_is_due_where_there_is_no_rate() {
        assert_eq!(merged(&group(&[], Spread::Constant, 1, 1, 1)).len(), 0);
        let idle_first = [step(2.0, 0.0), step(1.0, 5.0)];
        let times = merged(&group(&idle_first, Spread::Constant, 1, 3, 3));
        assert_eq!(times.first(), Some(&(5 * SECOND)));
        assert_eq!(times.len(), 5);
    }

    #[test]
    fn a_step_without_an_end_lasts_as_long_as_is_measured() {
        let endless = [step(1.0, 10.0), Step { seconds: None, ..step(0.0, 100.0) }];
        assert_eq!(merged(&group(&endless, Spread::Constant, 1, 0, 5)).len(), 10 + 400);
    }
}
