//! Made-up reports for tests.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::*;
use crate::scenario::{Bind, Group, Life, Load, Message, Mix, Reading, Scenario};

/// A minute of three groups after a warm-up, with a second without answers and a stall.
pub(crate) fn report() -> Report {
    let submit_sm = Latency::of(&spread(20_000, 350.0, 0.6));
    let total = Figures {
        requests: counts(&[("submit_sm", 5_400_000), ("query_sm", 60_000), ("bind", 120)]),
        statuses: counts(&[("ESME_ROK", 5_398_170), ("ESME_RMSGQFUL", 30), ("ESME_RTHROTTLED", 1_800)]),
        accepted: 5_398_170,
        accepted_rate: 89_969.5,
        receipts: 5_398_000,
        receipts_rate: 89_966.7,
        binds: 120,
        latencies: BTreeMap::from([
            ("submit_sm".to_owned(), submit_sm.clone()),
            ("receipt".to_owned(), Latency::of(&spread(18_000, 60_000.0, 0.3))),
            ("query_sm".to_owned(), Latency::of(&spread(6_000, 200.0, 0.6))),
            ("bind".to_owned(), Latency::of(&spread(120, 9_000.0, 0.4))),
        ]),
        ..Figures::default()
    };
    let group = |name: &str, share: f64| GroupFigures {
        name: name.to_owned(),
        figures: Figures { accepted_rate: total.accepted_rate * share, ..total.clone() },
    };
    Report {
        target: Target {
            address: "127.0.0.1:2776".to_owned(),
            tls: Some("TLSv1.3".to_owned()),
            executors: 2,
        },
        seconds: 60.0,
        groups: vec![
            group("steady", 0.8),
            group("bursts & <storms>", 0.2),
            GroupFigures { name: "idle".to_owned(), figures: Figures::default() },
        ],
        series: (-5..65).map(second).collect(),
        server: Some(Server {
            cpu_seconds: 51.3,
            cpu_nanos_per_request: 9_403.2,
            rss_bytes_before: 48 << 20,
            rss_bytes_max: 512 << 20,
            rss_bytes_per_connection: 5_120.0,
        }),
        generator: Generator { cpu_seconds: 30.0, cpu_nanos_per_request: 5_500.0, lateness: Some(submit_sm) },
        echo: Some(Echo { rate: 130_000.0, ratio: 0.69 }),
        total,
        ..empty()
    }
}

/// A run that has seen nothing at all.
pub(crate) fn empty() -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        started_at: "2026-01-31T12:00:00Z".to_owned(),
        command: ["smpp-bench", "run", "bursts.toml"].map(str::to_owned).to_vec(),
        machine: Machine { model: "A processor".to_owned(), cores: 2, kernel: "Linux 6.8".to_owned() },
        target: Target { address: "127.0.0.1:2775".to_owned(), tls: None, executors: 1 },
        scenario_name: "bursts".to_owned(),
        scenario: scenario(),
        seconds: 0.0,
        is_cut_short: false,
        total: Figures::default(),
        groups: Vec::new(),
        series: Vec::new(),
        server: None,
        generator: Generator { cpu_seconds: 0.0, cpu_nanos_per_request: 0.0, lateness: None },
        faults: Vec::new(),
        echo: None,
        search: Vec::new(),
    }
}

/// Two kinds of them.
pub(crate) fn faults() -> Vec<Fault> {
    vec![
        Fault {
            kind: "receipts lost".to_owned(),
            count: 3,
            examples: ["383f01", "383f02"].map(str::to_owned).to_vec(),
        },
        Fault { kind: "ids given twice".to_owned(), count: 1, examples: vec!["77".to_owned()] },
    ]
}

/// One second of load around a middle value, as a made-up server would answer it.
fn second(at: i64) -> Second {
    let is_drain = at >= 60;
    // Waves that look alive and are the same each time.
    let wave = (at as f64 * 0.7).sin() + (at as f64 * 0.23).cos();
    let is_stall = at == 20;
    let accepted = match at {
        _ if is_drain || is_stall => 0,
        _ => (90_000.0 + 4_000.0 * wave) as u64,
    };
    let quantiles = |middle: f64| match (accepted, at) {
        (0, _) => Quantiles::default(),
        (_, 21) => Quantiles { p50: 400_000, p99: 990_000, p999: 1_000_000, max: 1_001_000 },
        _ => Quantiles {
            p50: (middle * (1.0 + 0.1 * wave)) as u64,
            p99: (middle * (8.0 + wave)) as u64,
            p999: (middle * (20.0 + 4.0 * wave)) as u64,
            max: (middle * (40.0 + 15.0 * wave)) as u64,
        },
    };
    Second {
        at,
        requests: accepted,
        accepted,
        refused: if (30..36).contains(&at) { 9_000 } else { 0 },
        receipts: if is_drain { 5_000 * (65 - at) as u64 } else { accepted * 98 / 100 },
        bound: 120,
        submit_sm: quantiles(350.0),
        receipt: quantiles(60_000.0),
        server_cpu: Some(if is_drain { 0.1 } else { 0.85 + 0.05 * wave }),
        server_rss_bytes: Some(((48.0 + (at + 5) as f64 * 6.6) as u64) << 20),
    }
}

/// Latencies as they usually lie: most around the median, a long tail.
fn spread(count: u32, median: f64, width: f64) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
    for index in 0..count {
        let quantile = (f64::from(index) + 0.5) / f64::from(count);
        // The logistic distribution's quantiles: near enough to the normal one's.
        let logit = (quantile / (1.0 - quantile)).ln() / 1.8;
        histogram.record((median * (logit * width).exp()) as u64 + 1).unwrap();
    }
    histogram
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect()
}

fn scenario() -> Scenario {
    Scenario {
        about: "Bursts over a steady load.".to_owned(),
        warm_up_seconds: 5.0,
        seconds: 60.0,
        drain_seconds: 30.0,
        groups: vec![Group {
            name: "steady".to_owned(),
            connections: 120,
            accounts: 1,
            first_account: 0,
            skew: 0.0,
            bind: Bind::Transceiver,
            window: 100,
            load: Load::Closed,
            message: Message::default(),
            mix: Mix::default(),
            reading: Reading::default(),
            life: Life::default(),
            misbehaviour: None,
        }],
    }
}
