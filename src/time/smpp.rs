//! Times as SMPP writes them (v3.4 §7.1.1): `YYMMDDhhmmsstnnp`.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::time::{Civil, Timestamp, days_in_month};

/// A schedule_delivery_time or validity_period as the ESME wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmppTime {
    /// A date, already moved to UTC by its quarter hours.
    Absolute(Timestamp),
    /// A distance from the MC's current time.
    Relative(RelativeTime),
}

/// A distance in calendar units, each 0 to 99.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RelativeTime {
    /// Years to add.
    pub years: u8,
    /// Months to add.
    pub months: u8,
    /// Days to add.
    pub days: u8,
    /// Hours to add.
    pub hours: u8,
    /// Minutes to add.
    pub minutes: u8,
    /// Seconds to add.
    pub seconds: u8,
}

/// A time field that is neither empty nor a time: ESME_RINVSCHED or ESME_RINVEXPIRY, as its name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTime;

impl SmppTime {
    /// Reads a field without its NUL; `None` when it is empty. Years are 2000 to 2099.
    pub fn parse(field: &[u8]) -> Result<Option<Self>, InvalidTime> {
        if field.is_empty() {
            return Ok(None);
        }
        let field: &[u8; 16] = field.try_into().map_err(|_| InvalidTime)?;
        let time = match field[15] {
            b'R' => relative(field).map(Self::Relative),
            b'+' | b'-' => from_absolute(field).map(Self::Absolute),
            _ => None,
        };
        time.map(Some).ok_or(InvalidTime)
    }

    /// The point this names when the MC reads it at `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Absolute(at) => at,
            Self::Relative(distance) => distance.after(now),
        }
    }
}

impl RelativeTime {
    /// The point this far after `start`: years and months by the calendar, the rest by the clock.
    pub fn after(self, start: Timestamp) -> Timestamp {
        let civil = start.civil();
        let months = u16::from(civil.month) - 1 + u16::from(self.months);
        let year = civil.year + u16::from(self.years) + months / 12;
        let month = (months % 12 + 1) as u8;
        // A month after 31 January is the last day of February, not some day in March.
        let day = civil.day.min(days_in_month(year, month));
        let Some(moved) = Timestamp::from_civil(Civil { year, month, day, ..civil }) else {
            return Timestamp::MAX;
        };
        let clock = u64::from(self.days) * 86_400
            + u64::from(self.hours) * 3_600
            + u64::from(self.minutes) * 60
            + u64::from(self.seconds);
        moved + Duration::from_millis(start.as_millis() % 1_000) + Duration::from_secs(clock)
    }
}

/// A point as an MC sends it, in UTC and without the NUL: `YYMMDDhhmmsst00+`.
///
/// Two digits say nothing about the century: what is outside 2000 to 2099 becomes the nearest point inside.
pub fn absolute(at: Timestamp) -> [u8; 16] {
    let at = within_century(at);
    let mut field = *b"0000000000000000";
    field[..12].copy_from_slice(&date_digits(at));
    field[12] = b'0' + (at.as_millis() / 100 % 10) as u8;
    field[15] = b'+';
    field
}

/// A point as a receipt prints it, in UTC: `YYMMDDhhmm`. Clamped to 2000 to 2099 like [`absolute`].
pub fn receipt_date(at: Timestamp) -> [u8; 10] {
    let digits = date_digits(within_century(at));
    let mut date = [b'0'; 10];
    date.copy_from_slice(&digits[..10]);
    date
}

/// Reads a time that another MC reports, without its NUL: 16 characters absolute, or `YYMMDDhhmmss`, or
/// `YYMMDDhhmm` as receipts have it; the short ones are taken as UTC.
pub fn parse_reported(field: &[u8]) -> Option<Timestamp> {
    match field.len() {
        16 => from_absolute(field.try_into().ok()?),
        12 => from_date(field),
        10 => {
            let mut date = *b"000000000000";
            date[..10].copy_from_slice(field);
            from_date(&date)
        }
        _ => None,
    }
}

impl fmt::Display for InvalidTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an SMPP time")
    }
}

impl Error for InvalidTime {}

fn relative(field: &[u8; 16]) -> Option<RelativeTime> {
    let number = |at| two_digits(field, at);
    // The specification has tenths and quarter hours ignored, which still leaves them digits.
    if !field[12..15].iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(RelativeTime {
        years: number(0)?,
        months: number(2)?,
        days: number(4)?,
        hours: number(6)?,
        minutes: number(8)?,
        seconds: number(10)?,
    })
}

fn from_absolute(field: &[u8; 16]) -> Option<Timestamp> {
    let local = from_date(&field[..12])?.as_millis();
    if !field[12].is_ascii_digit() {
        return None;
    }
    let tenths = u64::from(field[12] - b'0') * 100;
    let quarter_hours = u64::from(two_digits(field, 13).filter(|&quarters| quarters <= 48)?);
    let offset = quarter_hours * 15 * 60 * 1_000;
    // §7.1.1: `+` means that local time is ahead of UTC.
    match field[15] {
        b'+' => Some(Timestamp::from_millis(local + tenths - offset)),
        b'-' => Some(Timestamp::from_millis(local + tenths + offset)),
        _ => None,
    }
}

/// Reads `YYMMDDhhmmss` as UTC.
fn from_date(date: &[u8]) -> Option<Timestamp> {
    let number = |at| two_digits(date, at);
    Timestamp::from_civil(Civil {
        year: 2000 + u16::from(number(0)?),
        month: number(2)?,
        day: number(4)?,
        hour: number(6)?,
        minute: number(8)?,
        second: number(10)?,
    })
}

/// Writes `YYMMDDhhmmss`.
fn date_digits(at: Timestamp) -> [u8; 12] {
    let Civil { year, month, day, hour, minute, second } = at.civil();
    let mut digits = [b'0'; 12];
    for (pair, number) in
        digits.chunks_exact_mut(2).zip([(year % 100) as u8, month, day, hour, minute, second])
    {
        pair[0] += number / 10;
        pair[1] += number % 10;
    }
    digits
}

fn within_century(at: Timestamp) -> Timestamp {
    /// 2000-01-01T00:00:00Z.
    const FIRST: Timestamp = Timestamp::from_millis(946_684_800_000);
    /// 2099-12-31T23:59:59.999Z.
    const LAST: Timestamp = Timestamp::from_millis(4_102_444_799_999);
    at.clamp(FIRST, LAST)
}

fn two_digits(field: &[u8], at: usize) -> Option<u8> {
    match (field.get(at)?, field.get(at + 1)?) {
        (tens @ b'0'..=b'9', ones @ b'0'..=b'9') => Some((tens - b'0') * 10 + (ones - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let number = |range: std::ops::Range<usize>| text[range].parse::<u16>().expect("a number");
        let civil = Civil {
            year: number(0..4),
            month: number(5..7) as u8,
            day: number(8..10) as u8,
            hour: number(11..13) as u8,
            minute: number(14..16) as u8,
            second: number(17..19) as u8,
        };
        Timestamp::from_civil(civil).expect("a date")
    }

    #[test]
    fn reads_absolute_times() {
        for (field, utc) in [
            ("260131235959000+", "2026-01-31T23:59:59Z"),
            ("260131235959000-", "2026-01-31T23:59:59Z"),
            ("240229120000008-", "2024-02-29T14:00:00Z"),
            ("240229120000008+", "2024-02-29T10:00:00Z"),
            ("000101000000000+", "2000-01-01T00:00:00Z"),
            ("000101000000048+", "1999-12-31T12:00:00Z"),
            ("991231235959000+", "2099-12-31T23:59:59Z"),
            ("991231235959048-", "2100-01-01T11:59:59Z"),
            ("260101000000001+", "2025-12-31T23:45:00Z"),
            ("251231233000003-", "2026-01-01T00:15:00Z"),
            ("240301001500022+", "2024-02-29T18:45:00Z"),
        ] {
            assert_eq!(SmppTime::parse(field.as_bytes()), Ok(Some(SmppTime::Absolute(at(utc)))), "{field}");
        }
        let tenths = at("2026-01-31T23:59:59Z") + Duration::from_millis(700);
        assert_eq!(SmppTime::parse(b"260131235959700+"), Ok(Some(SmppTime::Absolute(tenths))));
    }

    #[test]
    fn an_empty_field_is_no_time() {
        assert_eq!(SmppTime::parse(b""), Ok(None));
    }

    #[test]
    fn rejects_what_is_not_a_time() {
        for field in [
            "260131235959",      // only reported times may be short
            "260131235959000",   // no direction
            "260131235959000+ ", // too long
            "260131235959000r",
            "260131235959000Z",
            "260131235959049+", // above 48 quarter hours
            "2601312359590-1+",
            "26013123595900x+",
            "260131235959x00+",
            "26013123595 000+",
            "+60131235959000+",
            "260132000000000+",
            "260100000000000+",
            "260001000000000+",
            "261301000000000+",
            "260229000000000+", // not a leap year
            "260431000000000+",
            "260131240000000+",
            "260131236000000+",
            "260131235960000+",
            "00000001000000xR",
            "0000000100000x0R",
            "000000010000x00R",
            "0000000100 0000R",
            "                ",
            "\0",
        ] {
            assert_eq!(SmppTime::parse(field.as_bytes()), Err(InvalidTime), "{field}");
        }
        assert_eq!(SmppTime::parse(&[0xFF; 16]), Err(InvalidTime));
    }

    #[test]
    fn adds_relative_times_by_the_calendar() {
        for (now, field, then) in [
            ("2026-01-31T12:00:00Z", "000000000000000R", "2026-01-31T12:00:00Z"),
            ("2026-01-31T12:00:00Z", "000000010000000R", "2026-01-31T13:00:00Z"),
            ("2026-01-31T12:00:00Z", "000000000000999R", "2026-01-31T12:00:00Z"), // tenths and offset: ignored
            ("2026-01-31T12:00:00Z", "000100000000000R", "2026-02-28T12:00:00Z"),
            ("2024-01-31T12:00:00Z", "000100000000000R", "2024-02-29T12:00:00Z"),
            ("2024-02-29T12:00:00Z", "010000000000000R", "2025-02-28T12:00:00Z"),
            ("2024-02-29T12:00:00Z", "040000000000000R", "2028-02-29T12:00:00Z"),
            ("2026-11-30T23:59:59Z", "000300000001000R", "2027-03-01T00:00:00Z"),
            ("2026-12-31T23:59:59Z", "000000000001000R", "2027-01-01T00:00:00Z"),
            ("2026-03-10T00:00:00Z", "001200000000000R", "2027-03-10T00:00:00Z"),
            ("2026-03-10T00:00:00Z", "009900000000000R", "2034-06-10T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "000099000000000R", "2026-04-10T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "000000480000000R", "2026-01-03T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "020610233429000R", "2028-07-11T23:34:29Z"),
            ("2026-01-01T00:00:00Z", "999999999999000R", "2133-07-13T04:40:39Z"),
        ] {
            let time = SmppTime::parse(field.as_bytes()).ok().flatten().expect(field);
            assert_eq!(time.resolve(at(now)).to_string(), then, "{now} {field}");
        }
    }

    #[test]
    fn relative_times_keep_the_fraction_and_end_with_the_calendar() {
        let hour = RelativeTime { hours: 1, ..RelativeTime::default() };
        assert_eq!(hour.after(Timestamp::from_millis(250)), Timestamp::from_millis(3_600_250));
        let years = RelativeTime { years: 1, ..RelativeTime::default() };
        assert_eq!(years.after(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn an_absolute_time_does_not_depend_on_now() {
        let time = SmppTime::Absolute(at("2026-01-31T23:59:59Z"));
        assert_eq!(time.resolve(Timestamp::ZERO), time.resolve(Timestamp::MAX));
    }

    #[test]
    fn writes_what_it_reads() {
        let time = at("2024-02-29T23:59:58Z") + Duration::from_millis(789);
        assert_eq!(&absolute(time), b"240229235958700+");
        assert_eq!(&receipt_date(time), b"2402292359");
        assert_eq!(
            parse_reported(&absolute(time)),
            Some(at("2024-02-29T23:59:58Z") + Duration::from_millis(700))
        );
    }

    #[test]
    fn clamps_what_two_digits_cannot_say() {
        assert_eq!(&absolute(Timestamp::ZERO), b"000101000000000+");
        assert_eq!(&absolute(Timestamp::MAX), b"991231235959900+");
        assert_eq!(&absolute(at("2099-12-31T23:59:59Z")), b"991231235959000+");
        assert_eq!(&receipt_date(at("2100-01-01T00:00:00Z")), b"9912312359");
    }

    #[test]
    fn reads_reported_times_of_every_length() {
        for (field, utc) in [
            ("240229120000008-", "2024-02-29T14:00:00Z"),
            ("240229120005", "2024-02-29T12:00:05Z"),
            ("2402291200", "2024-02-29T12:00:00Z"),
        ] {
            assert_eq!(parse_reported(field.as_bytes()), Some(at(utc)), "{field}");
        }
        for field in
            ["", "0", "24022912000", "230229120000", "2302291200", "000000010000000R", "24022912000x"]
        {
            assert_eq!(parse_reported(field.as_bytes()), None, "{field}");
        }
    }
}
