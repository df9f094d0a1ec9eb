//! Numbers as people read them.

/// What stands for a number that there is none of.
pub(crate) const NONE: &str = "-";

/// 1234567 as "1,234,567".
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number that may be large: whole from 100, with one decimal below.
pub(crate) fn amount(number: f64) -> String {
    match number {
        _ if !number.is_finite() => NONE.to_owned(),
        // Casting saturates, and nothing here is negative.
        _ if number >= 99.95 => count(number.round() as u64),
        _ => format!("{number:.1}"),
    }
}

/// Microseconds as milliseconds.
pub(crate) fn milliseconds(micros: u64) -> String {
    format!("{}.{:03}", count(micros / 1000), micros % 1000)
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", amount(bytes as f64 / (1024.0 * 1024.0)))
}

/// Seconds, whole ones without a decimal.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds.fract() == 0.0 { format!("{seconds} s") } else { format!("{seconds:.1} s") }
}

/// `part / whole` as a number with two decimals.
pub(crate) fn ratio(part: f64, whole: f64) -> String {
    let ratio = part / whole;
    if ratio.is_finite() { format!("{ratio:.2}") } else { NONE.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_grouped_rounded_and_never_nan() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(count), ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 3.25, 99.94, 99.96, 1234.5].map(amount), ["0.0", "3.2", "99.9", "100", "1,235"]);
        assert_eq!([f64::NAN, f64::INFINITY].map(amount), [NONE, NONE]);
        assert_eq!([0, 7, 1_500, 1_234_567].map(milliseconds), ["0.000", "0.007", "1.500", "1,234.567"]);
        assert_eq!(mebibytes(1024 * 1024 * 1500), "1,500 MiB");
        assert_eq!([10.0, 5.37].map(seconds), ["10 s", "5.4 s"]);
        assert_eq!([ratio(1.0, 3.0), ratio(0.0, 0.0), ratio(1.0, 0.0)], ["0.33", NONE, NONE]);
    }
}
