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
