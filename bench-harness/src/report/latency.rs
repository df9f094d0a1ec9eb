//! Distributions of latencies, as a document carries them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::{Figures, Latency};

/// The order people read them in; whatever else there is comes after these, and binds come last.
const ORDER: [&str; 7] =
    ["submit_sm", "receipt", "query_sm", "cancel_sm", "replace_sm", "submit_multi", "data_sm"];

impl Latency {
    /// Of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            p9999: histogram.value_at_quantile(0.9999),
            max: histogram.max(),
            histogram: encoded(histogram),
        }
    }

    /// All of it, in microseconds.
    pub(crate) fn histogram(&self) -> Result<Histogram<u64>, String> {
        let octets =
            BASE64.decode(&self.histogram).map_err(|error| format!("a histogram is no base64: {error}"))?;
        Deserializer::new()
            .deserialize(&mut octets.as_slice())
            .map_err(|error| format!("a histogram cannot be read: {error}"))
    }
}

fn encoded(histogram: &Histogram<u64>) -> String {
    let mut octets = Vec::new();
    // It fails for a count above 2^63 only, which no run lives to see.
    match V2DeflateSerializer::new().serialize(histogram, &mut octets) {
        Ok(_) => BASE64.encode(octets),
        Err(_) => String::new(),
    }
}

impl Figures {
    /// The latencies that have a count, in the order people read them in.
    pub(crate) fn latencies_in_order(&self) -> Vec<(&str, &Latency)> {
        let place = |name: &str| match name {
            "bind" => usize::MAX,
            _ => ORDER.iter().position(|&known| known == name).unwrap_or(ORDER.len()),
        };
        let mut latencies: Vec<_> = self
            .latencies
            .iter()
            .filter(|(_, latency)| latency.count > 0)
            .map(|(name, latency)| (name.as_str(), latency))
            .collect();
        latencies.sort_by_key(|(name, _)| place(name));
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for &value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn carries_all_of_a_histogram() {
        let histogram = histogram(&[1, 2, 3, 500, 500, 70_000, 3_599_999_999]);
        let latency = Latency::of(&histogram);
        assert_eq!((latency.count, latency.p50), (7, 500));
        assert_eq!(latency.max, histogram.max());
        assert_eq!(latency.histogram(), Ok(histogram));
    }

    #[test]
    fn is_zero_without_samples() {
        let latency = Latency::of(&histogram(&[]));
        assert_eq!((latency.count, latency.p9999, latency.max), (0, 0, 0));
        assert!(latency.mean.is_finite());
        assert!(latency.histogram().unwrap().is_empty());
    }

    #[test]
    fn begins_as_every_compressed_histogram_does() {
        assert!(Latency::of(&histogram(&[1])).histogram.starts_with("HISTF"), "other readers look for that");
    }

    #[test]
    fn refuses_a_histogram_that_is_none() {
        for histogram in ["", "?", "AAAA", "HISTFAAA"] {
            let latency = Latency { histogram: histogram.to_owned(), ..Latency::default() };
            assert!(latency.histogram().is_err(), "{histogram:?}");
        }
    }

    #[test]
    fn are_in_the_order_people_read_them_in() {
        let some = Latency { count: 1, ..Latency::default() };
        let figures = Figures {
            latencies: ["bind", "cancel_sm", "ping", "query_sm", "receipt", "submit_sm"]
                .map(|name| (name.to_owned(), some.clone()))
                .into_iter()
                .chain([("data_sm".to_owned(), Latency::default())])
                .collect(),
            ..Figures::default()
        };
        let names: Vec<_> = figures.latencies_in_order().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["submit_sm", "receipt", "query_sm", "cancel_sm", "ping", "bind"]);
    }

    #[test]
    fn each_quantile_is_its_own() {
        let all: Vec<u64> = (1..=10_000).collect();
        let latency = Latency::of(&histogram(&all));
        let Latency { p50, p90, p99, p999, p9999, max, .. } = latency;
        assert_eq!(latency.count, 10_000);
        assert!((latency.mean - 5_000.5).abs() < 5.0, "{}", latency.mean);
        // Three digits are told apart: what is up to eight larger may be taken for the same here.
        for (name, quantile, exact) in [
            ("p50", p50, 5_000),
            ("p90", p90, 9_000),
            ("p99", p99, 9_900),
            ("p99.9", p999, 9_990),
            ("p99.99", p9999, 9_999),
            ("max", max, 10_000),
        ] {
            assert!((exact..exact + 8).contains(&quantile), "{name} = {quantile}");
        }
        assert!(p50 < p90 && p90 < p99 && p99 < p999 && p999 < p9999 && p9999 < max);
    }
}
