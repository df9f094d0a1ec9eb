//! Files for the tools of HdrHistogram: `.hgrm` for its plotter, `.hlog` for its log processors.

use std::borrow::Borrow;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// Both show milliseconds, and histograms hold microseconds.
const MICROS_PER_MILLI: f64 = 1000.0;

/// Writes a histogram of microseconds as the plotter reads it.
pub(crate) fn write_percentiles(path: &Path, histogram: &Histogram<u64>) -> Result<(), String> {
    fs::write(path, percentiles(histogram))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Writes histograms of microseconds, each with its offset from the start, its length and what it is of.
///
/// Offsets should ascend. A tag has no blank, comma or line end.
pub(crate) fn write_log<'a>(
    path: &Path,
    start: SystemTime,
    intervals: impl Iterator<Item = (Duration, Duration, &'a str, impl Borrow<Histogram<u64>>)>,
) -> Result<(), String> {
    let failed = |error: String| format!("{} cannot be written: {error}", path.display());
    let mut file = BufWriter::new(File::create(path).map_err(|error| failed(error.to_string()))?);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[Logged with smpp-bench, values in microseconds, interval maxima in milliseconds]")
        // Java guesses what timestamps are relative to, unless both are there.
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(MICROS_PER_MILLI)
        .begin_log_with(&mut file, &mut serializer)
        .map_err(|error| failed(error.to_string()))?;
    for (offset, length, name, histogram) in intervals {
        let tag = Tag::new(name).ok_or_else(|| failed(format!("{name:?} is no tag")))?;
        log.write_histogram(histogram.borrow(), offset, length, Some(tag))
            .map_err(|error| failed(error.to_string()))?;
    }
    file.flush().map_err(|error| failed(error.to_string()))
}

/// What Java's `outputPercentileDistribution` prints.
fn percentiles(histogram: &Histogram<u64>) -> String {
    let millis = |micros: f64| micros / MICROS_PER_MILLI;
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for Step { value, percentile, total } in steps(histogram) {
        let fraction = percentile / 100.0;
        let _ = write!(text, "{:12.3} {fraction:.12} {total:10}", millis(value as f64));
        // Of 1 there is no such number: Java prints none, and the plotter passes over lines of three columns.
        if percentile < 100.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - fraction));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        millis(histogram.mean()),
        millis(histogram.stdev()),
        millis(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram),
    );
    text
}

/// A line of the distribution.
struct Step {
    /// In microseconds; so many samples are not above it.
    value: u64,
    percentile: f64,
    total: u64,
}

/// Five lines for each halving of what is left to 100 %, as in Java; of the highest value only one, and one at 100 %.
///
/// hdrhistogram's own steps add up fractions, whose rounding puts some of them beyond the value that Java has there.
/// In percent each is exact.
fn steps(histogram: &Histogram<u64>) -> Vec<Step> {
    const TICKS_PER_HALF_DISTANCE: f64 = 5.0;
    let mut steps = Vec::new();
    let mut total = 0;
    let mut percentile = 0.0;
    for recorded in histogram.iter_recorded() {
        let value = histogram.highest_equivalent(recorded.value_iterated_to());
        total += recorded.count_at_value();
        let reached = 100.0 * total as f64 / histogram.len() as f64;
        let is_last = total == histogram.len();
        while percentile <= reached {
            steps.push(Step { value, percentile, total });
            if is_last {
                steps.push(Step { value, percentile: 100.0, total });
                break;
            }
            let halvings = (100.0 / (100.0 - percentile)).log2().floor() + 1.0;
            percentile += 100.0 / (TICKS_PER_HALF_DISTANCE * halvings.exp2());
        }
    }
    steps
}

/// How many values a bucket tells apart: twice what the significant digits need, as a power of two.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, i64::MAX as u64, 3).unwrap();
        for &value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    /// The columns of each line between the heading and the footer.
    fn columns(text: &str) -> Vec<Vec<f64>> {
        let lines = text.lines().skip(2).take_while(|line| !line.starts_with('#'));
        lines.map(|line| line.split_whitespace().map(|column| column.parse().unwrap()).collect()).collect()
    }

    #[test]
    fn percentiles_are_printed_as_by_other_implementations() {
        // The widths are those of the format strings in AbstractHistogram.java.
        let text = percentiles(&histogram(&[100, 200, 260, 600]));
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

       0.100 0.000000000000          1           1.00
       0.100 0.100000000000          1           1.11
       0.100 0.200000000000          1           1.25
       0.200 0.300000000000          2           1.43
       0.200 0.400000000000          2           1.67
       0.200 0.500000000000          2           2.00
       0.260 0.550000000000          3           2.22
       0.260 0.600000000000          3           2.50
       0.260 0.650000000000          3           2.86
       0.260 0.700000000000          3           3.33
       0.260 0.750000000000          3           4.00
       0.600 0.775000000000          4           4.44
       0.600 1.000000000000          4
#[Mean    =        0.290, StdDeviation   =        0.188]
#[Max     =        0.600, Total count    =            4]
#[Buckets =           53, SubBuckets     =         2048]
";
        assert_eq!(text, expected);
    }

    #[test]
    fn percentiles_rise_and_end_with_all() {
        let values: Vec<u64> = (1..20_000).map(|index| index * index % 77_777).collect();
        let lines = columns(&percentiles(&histogram(&values)));
        for pair in lines.windows(2) {
            assert!(
                pair[0][0] <= pair[1][0] && pair[0][1] < pair[1][1] && pair[0][2] <= pair[1][2],
                "{pair:?}"
            );
        }
        assert!(lines[..lines.len() - 1].iter().all(|line| line.len() == 4));
        assert_eq!(lines.last().unwrap()[1..], [1.0, values.len() as f64]);
    }

    #[test]
    fn percentiles_of_nothing_have_no_line() {
        let text = percentiles(&histogram(&[]));
        assert!(columns(&text).is_empty() && text.contains("Total count    =            0]"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn a_log_is_read_back() {
        let path = std::env::temp_dir().join(format!("smpp-bench-log-{}.hlog", std::process::id()));
        let since_epoch = Duration::from_millis(1_700_000_000_250);
        let start = SystemTime::UNIX_EPOCH + since_epoch;
        let second = Duration::from_secs(1);
        let (first, next) = (histogram(&[100, 1_500]), histogram(&[7]));
        let intervals = [(Duration::ZERO, "submit_sm", &first), (second, "receipt", &next)];
        write_log(
            &path,
            start,
            intervals.into_iter().map(|(at, tag, histogram)| (at, second, tag, histogram)),
        )
        .unwrap();
        let log = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();

        assert!(log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
        assert!(log.contains("\nTag=submit_sm,0.000,1.000,1.500,HISTF"), "{log}");
        let entries: Vec<_> = IntervalLogIterator::new(log.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(entries[..2], [LogEntry::StartTime(since_epoch), LogEntry::BaseTime(since_epoch)]);
        let read: Vec<_> = entries[2..]
            .iter()
            .map(|entry| {
                let LogEntry::Interval(interval) = entry else { panic!("{entry:?}") };
                let octets =
                    base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut octets.as_slice()).unwrap();
                assert_eq!(interval.duration(), second);
                (interval.start_timestamp(), interval.tag().unwrap().as_str(), histogram)
            })
            .collect();
        assert_eq!(read, [(Duration::ZERO, "submit_sm", first.clone()), (second, "receipt", next.clone())]);
    }

    #[test]
    fn a_log_refuses_what_is_no_tag() {
        let path = std::env::temp_dir().join(format!("smpp-bench-tag-{}.hlog", std::process::id()));
        let empty = histogram(&[]);
        let interval = (Duration::ZERO, Duration::from_secs(1), "submit, sm", &empty);
        let refused = write_log(&path, SystemTime::now(), std::iter::once(interval)).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(refused.contains("\"submit, sm\" is no tag"), "{refused}");
    }
}
