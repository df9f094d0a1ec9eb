//! When something that failed is tried again.

use std::time::Duration;

/// Growing pauses between tries: the first, then twice as long each time, up to the longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The pause after the first failure.
    pub delay_min: Duration,
    /// No pause is longer.
    pub delay_max: Duration,
}

impl Backoff {
    /// The pause after the `failures`-th failure in a row, counted from 1.
    pub fn delay(self, failures: u16) -> Duration {
        let doublings = u32::from(failures.saturating_sub(1)).min(31);
        self.delay_min.saturating_mul(1 << doublings).min(self.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff { delay_min: Duration::from_secs(5), delay_max: Duration::from_secs(60) };
        let delays: Vec<u64> =
            [1, 2, 3, 4, 5, 6, u16::MAX].map(|failures| backoff.delay(failures).as_secs()).into();
        assert_eq!(delays, [5, 10, 20, 40, 60, 60, 60]);
    }
}
