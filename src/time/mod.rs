//! Points in time as plain integers, without a clock.
//!
//! Whoever calls the core tells it the time: [`Instant`] to measure delays, [`Timestamp`] for what a
//! peer or an operator reads. [`smpp`] is their form on the wire, [`timers`] keeps deadlines.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

pub mod smpp;
pub mod timers;

const MILLIS_PER_SECOND: u64 = 1_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Both clocks, as one turn of a shard sees them.
///
/// What is kept by which: a *date* is kept by the wall clock, since it means the same to whoever named it and after a
/// restart (schedule_delivery_time, validity_period, the retention of receipts, replies and final messages). A *pause* is
/// kept by the monotonic clock, whatever the other one is set to meanwhile (retries of attempts and deliveries, timers of
/// sessions, rates, a disk without room, how long a block stays in memory, what the simulator says next).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For pauses and rates; never goes back.
    pub instant: Instant,
    /// For dates; an operator may set it, either way and while we run.
    pub wall: Timestamp,
}

impl Now {
    /// The start of both clocks.
    pub const ZERO: Self = Self { instant: Instant::ZERO, wall: Timestamp::ZERO };

    /// When a pause ends that was to last until a date. The date may be of another process, whose clock was set
    /// otherwise: no pause is longer than `longest`.
    pub fn pause_until(self, date: Timestamp, longest: Duration) -> Instant {
        self.instant + date.saturating_duration_since(self.wall).min(longest)
    }
}

/// A point on the monotonic clock: nanoseconds since an arbitrary start, 584 years at most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant(u64);

impl Instant {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);
    /// The last instant: it never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this point; zero when `earlier` is the later one.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the last instant.
    fn add(self, delay: Duration) -> Self {
        // Without the 128 bits of `as_nanos`: this is done for every message.
        let nanos = delay.as_secs().saturating_mul(1_000_000_000);
        Self(self.0.saturating_add(nanos.saturating_add(delay.subsec_nanos().into())))
    }
}

/// A point on the wall clock: milliseconds since 1970-01-01T00:00:00Z, up to the end of the year 9999.
///
/// Every value has a civil form, so printing one cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const ZERO: Self = Self(0);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The point `millis` milliseconds after 1970-01-01T00:00:00Z; saturates at [`Self::MAX`].
    pub const fn from_millis(millis: u64) -> Self {
        if millis < Self::MAX.0 { Self(millis) } else { Self::MAX }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this point; zero when `earlier` is the later one.
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The date and time of day in UTC, without the fraction of the second.
    pub fn civil(self) -> Civil {
        let seconds = self.0 / MILLIS_PER_SECOND;
        let (days, second_of_day) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        // Days are counted from 0000-03-01, so that a leap day is the last day of its year and the
        // lengths of the months repeat every five.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Civil {
            year: year as u16,
            month: month as u8,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u8,
            hour: (second_of_day / 3_600) as u8,
            minute: (second_of_day / 60 % 60) as u8,
            second: (second_of_day % 60) as u8,
        }
    }

    /// The point a UTC date and time of day names; `None` when there is no such date or time, or when
    /// it is outside 1970 to 9999. Second 60 does not exist here.
    pub fn from_civil(civil: Civil) -> Option<Self> {
        let Civil { year, month, day, hour, minute, second } = civil;
        if !(1970..=9999).contains(&year)
            || !(1..=days_in_month(year, month)).contains(&day)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let (month, day) = (u64::from(month), u64::from(day));
        let year = u64::from(year) - u64::from(month <= 2);
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
        let seconds =
            days * SECONDS_PER_DAY + u64::from(hour) * 3_600 + u64::from(minute) * 60 + u64::from(second);
        Some(Self(seconds * MILLIS_PER_SECOND))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Counts whole milliseconds; saturates at [`Timestamp::MAX`].
    fn add(self, delay: Duration) -> Self {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A date and time of day in UTC, in the proleptic Gregorian calendar; not checked by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Civil {
    /// Full year, such as 2026.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

/// How many days a month has; 0 for a month that does not exist.
pub(crate) const fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_the_civil_time_of_a_timestamp() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_078_012_800, "2004-02-29T00:00:00Z"),
            (1_769_903_999, "2026-01-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let at = Timestamp::from_millis(seconds * 1_000);
            assert_eq!(at.to_string(), text);
            assert_eq!(Timestamp::from_civil(at.civil()), Some(at), "{text}");
        }
    }

    #[test]
    fn rejects_dates_that_do_not_exist() {
        let valid = Civil { year: 2024, month: 2, day: 29, hour: 23, minute: 59, second: 59 };
        assert!(Timestamp::from_civil(valid).is_some());
        for wrong in [
            Civil { year: 1969, ..valid },
            Civil { year: 2023, ..valid },
            Civil { year: 2100, ..valid },
            Civil { year: 10_000, ..valid },
            Civil { month: 0, ..valid },
            Civil { month: 13, ..valid },
            Civil { day: 0, ..valid },
            Civil { month: 4, day: 31, ..valid },
            Civil { hour: 24, ..valid },
            Civil { minute: 60, ..valid },
            Civil { second: 60, ..valid },
        ] {
            assert_eq!(Timestamp::from_civil(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn follows_the_calendar_day_by_day() {
        // A calendar that counts, for every day of the range there is.
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0.. {
            let at = Timestamp::from_millis(days * SECONDS_PER_DAY * 1_000);
            assert_eq!(at.civil(), Civil { year, month, day, hour: 0, minute: 0, second: 0 });
            assert_eq!(Timestamp::from_civil(at.civil()), Some(at));
            if (year, month, day) == (9999, 12, 31) {
                return;
            }
            day += 1;
            if day > days_in_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn saturates_at_both_ends() {
        let hour = Duration::from_secs(3_600);
        let last = Instant::from_nanos(u64::MAX);
        assert_eq!(last + hour, last);
        assert_eq!(Instant::ZERO + Duration::MAX, last);
        assert_eq!(Instant::ZERO.saturating_duration_since(last), Duration::ZERO);
        assert_eq!((Instant::ZERO + hour).saturating_duration_since(Instant::ZERO), hour);
        assert_eq!(Timestamp::from_millis(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX + hour, Timestamp::MAX);
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.saturating_duration_since(Timestamp::MAX), Duration::ZERO);
        assert_eq!((Timestamp::ZERO + hour).saturating_duration_since(Timestamp::ZERO), hour);
    }

    proptest! {
        #[test]
        fn civil_time_goes_there_and_back(seconds in 0..=Timestamp::MAX.0 / 1_000) {
            let at = Timestamp::from_millis(seconds * 1_000);
            prop_assert_eq!(Timestamp::from_civil(at.civil()), Some(at));
        }
    }
}
