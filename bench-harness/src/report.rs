//! What a run has found: the JSON document, and everything that is made from it.

mod build;
pub(crate) mod grid;
pub(crate) mod histogram_files;
pub(crate) mod html;
mod latency;
pub(crate) mod pair;
mod plot;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod table;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub(crate) use build::report;

/// The form of the document. A reader refuses another first number; a second number adds fields only.
pub(crate) const SCHEMA: &str = "smpp-bench/1.0";

/// One run. All times are in microseconds unless a name says otherwise, all rates are per second.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    /// When measuring began, as RFC 3339 says it, in UTC.
    pub(crate) started_at: String,
    /// The command line.
    pub(crate) command: Vec<String>,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What was measured.
    pub(crate) target: Target,
    /// The scenario's name: that of its file, or of a built-in one.
    pub(crate) scenario_name: String,
    /// The scenario as it was played, with everything that flags have changed.
    pub(crate) scenario: crate::scenario::Scenario,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Whether it was ended early (Ctrl-C).
    pub(crate) is_cut_short: bool,
    /// Everybody's figures.
    pub(crate) total: Figures,
    /// Those of each group.
    pub(crate) groups: Vec<GroupFigures>,
    /// Second by second, from the begin of the warm-up to the end of the drain.
    pub(crate) series: Vec<Second>,
    /// The server's process, when it was known.
    pub(crate) server: Option<Server>,
    /// This process.
    pub(crate) generator: Generator,
    /// Promises that were broken; empty is what it should be.
    pub(crate) faults: Vec<Fault>,
    /// The plain echo responder, when it was asked for, driven by the same process right before.
    #[serde(default)]
    pub(crate) echo: Option<Echo>,
    /// What was tried to find the highest rate that meets a goal, when that was asked for; the rest is the last that met it.
    #[serde(default)]
    pub(crate) search: Vec<Probe>,
}

impl Report {
    /// Writes the document.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        write_document(self, path)
    }

    /// Reads a document of this version, or of one that has added fields to it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: String| format!("{} cannot be read: {error}", path.display());
        let document = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&document).map_err(failed)
    }

    fn parse(document: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: String,
        }
        // First the version alone: another one may have another form altogether.
        let versioned: Versioned = serde_json::from_str(document)
            .map_err(|error| format!("it is no document of smpp-bench ({error})"))?;
        if family(&versioned.schema) != family(SCHEMA) {
            return Err(format!("its schema is {:?}, and this program reads {SCHEMA:?}", versioned.schema));
        }
        serde_json::from_str(document).map_err(|error| error.to_string())
    }
}

fn write_document(document: &impl Serialize, path: &Path) -> Result<(), String> {
    let failed = |error: String| format!("{} cannot be written: {error}", path.display());
    let mut text = serde_json::to_string_pretty(document).map_err(|error| failed(error.to_string()))?;
    text.push('\n');
    fs::write(path, text).map_err(|error| failed(error.to_string()))
}

/// What documents that can be read alike have in common: the name and the first number.
fn family(schema: &str) -> &str {
    schema.rsplit_once('.').map_or(schema, |(family, _)| family)
}

/// Where a run was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Machine {
    /// Of the processor.
    pub(crate) model: String,
    /// That the process may run on.
    pub(crate) cores: usize,
    /// Name and version.
    pub(crate) kernel: String,
}

/// Whom a run was made against.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Target {
    /// Address and port.
    pub(crate) address: String,
    /// The TLS version spoken, `None` for plain TCP.
    pub(crate) tls: Option<String>,
    /// Executors of the generator.
    pub(crate) executors: usize,
}

/// What happened in the measured time. Requests and latencies are those that were due in it, whenever they were answered;
/// answers, receipts and the rates are those that came in it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Figures {
    /// Requests that were due, by command ("submit_sm", "query_sm", "bind", …).
    pub(crate) requests: BTreeMap<String, u64>,
    /// Responses by status ("ESME_ROK", "ESME_RTHROTTLED", …), of all requests but binds.
    pub(crate) statuses: BTreeMap<String, u64>,
    /// Messages accepted: submit_sm, data_sm and submit_multi answered ESME_ROK.
    pub(crate) accepted: u64,
    /// The same, a second.
    pub(crate) accepted_rate: f64,
    /// Delivery receipts received (final ones and notifications).
    pub(crate) receipts: u64,
    /// The same, a second.
    pub(crate) receipts_rate: f64,
    /// Other deliver_sm received.
    pub(crate) deliveries: u64,
    /// Binds that succeeded, also in the warm-up.
    pub(crate) binds: u64,
    /// Binds that were refused, by status, also in the warm-up.
    pub(crate) binds_refused: BTreeMap<String, u64>,
    /// Connections that could not be made, or ended when they should not have.
    pub(crate) connections_lost: u64,
    /// Requests that were sent and got no answer, because of that or in the time that was waited.
    pub(crate) unanswered: u64,
    /// Requests of open loops that were due and never sent, because the window was full until the end.
    pub(crate) unsent: u64,
    /// Latencies by what was waited for: "submit_sm" (as "data_sm", "submit_multi", "query_sm", "cancel_sm", "replace_sm") from
    /// when it was due to its response; "receipt" from when the submit_sm was due to its final receipt; "bind" from connect()
    /// to bind_resp.
    pub(crate) latencies: BTreeMap<String, Latency>,
}

/// A distribution of latencies.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) p9999: u64,
    pub(crate) max: u64,
    /// All of it: HdrHistogram's V2 form, deflated, in base64.
    pub(crate) histogram: String,
}

/// The figures of one group.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct GroupFigures {
    /// Its name in the scenario.
    pub(crate) name: String,
    /// What it did and met.
    pub(crate) figures: Figures,
}

/// What was seen in one second.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Second {
    /// Its begin, in seconds since measuring began; negative in the warm-up.
    pub(crate) at: i64,
    /// Requests sent.
    pub(crate) requests: u64,
    /// Messages answered ESME_ROK.
    pub(crate) accepted: u64,
    /// Requests answered with anything else.
    pub(crate) refused: u64,
    /// Receipts received.
    pub(crate) receipts: u64,
    /// Connections that are bound at its end.
    pub(crate) bound: u64,
    /// Latencies of the submit_sm that were answered in it.
    pub(crate) submit_sm: Quantiles,
    /// Latencies of the receipts that came in it.
    pub(crate) receipt: Quantiles,
    /// Of one core, what the server has used; more than 1 on several.
    pub(crate) server_cpu: Option<f64>,
    /// The server's resident memory at its end.
    pub(crate) server_rss_bytes: Option<u64>,
}

/// A few points of a distribution.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// What is known of the server's process.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Server {
    /// CPU time in the measured time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// CPU time for each request that was answered, in nanoseconds.
    pub(crate) cpu_nanos_per_request: f64,
    /// Resident memory before the first connection.
    pub(crate) rss_bytes_before: u64,
    /// The most of it in the measured time.
    pub(crate) rss_bytes_max: u64,
    /// What came on top for each bound connection, when measuring began: only with idle connections it says something.
    pub(crate) rss_bytes_per_connection: f64,
}

/// How well the generator kept up.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Generator {
    /// CPU time in the measured time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// CPU time for each request that was answered, in nanoseconds.
    pub(crate) cpu_nanos_per_request: f64,
    /// How late requests were sent although nothing was in their way: its own share of the latencies. Open loops only.
    pub(crate) lateness: Option<Latency>,
}

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Fault {
    /// In words: "receipts lost".
    pub(crate) kind: String,
    /// How often.
    pub(crate) count: u64,
    /// A few of them.
    pub(crate) examples: Vec<String>,
}

/// A rate that was tried.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Probe {
    /// Requests that were due a second.
    pub(crate) rate: f64,
    /// Messages that were accepted a second.
    pub(crate) accepted_rate: f64,
    /// The latency that the goal is about.
    pub(crate) latency: u64,
    /// Whether the goal was met: in time, and nothing refused or held back.
    pub(crate) is_met: bool,
}

/// The echo responder, 10 connections × window 100, plain, 160 octets.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Echo {
    /// Requests answered.
    pub(crate) rate: f64,
    /// The run's accepted rate as a share of that.
    pub(crate) ratio: f64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn is_read_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("smpp-bench-report-{}.json", std::process::id()));
        let mut report = sample::report();
        // Digits that a quick reader of numbers gets wrong.
        report.total.accepted_rate = 0.1 + 0.2;
        report.seconds = 9.999_999_999_999_998;
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path), Ok(report));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn passes_over_what_a_newer_minor_has_added() {
        let mut document = serde_json::to_value(sample::report()).unwrap();
        document["schema"] = json!("smpp-bench/1.7");
        document["weather"] = json!({ "wind": 3 });
        document["total"]["colour"] = json!("green");
        document["series"][0]["mood"] = json!(null);
        let report = Report::parse(&document.to_string()).unwrap();
        assert_eq!(report.total, sample::report().total);
    }

    #[test]
    fn refuses_another_major_by_its_number() {
        let refused = Report::parse(r#"{ "schema": "smpp-bench/2.0", "runs": [] }"#).unwrap_err();
        assert!(refused.contains("smpp-bench/2.0") && refused.contains(SCHEMA), "{refused}");
        assert!(Report::parse(r#"{ "schema": "smpp-bench/10.0" }"#).unwrap_err().contains("smpp-bench/10.0"));
    }

    #[test]
    fn refuses_what_is_no_report() {
        for document in ["", "[]", "{}", r#"{ "schema": 1 }"#, "null"] {
            assert!(Report::parse(document).unwrap_err().contains("no document of smpp-bench"), "{document}");
        }
        let mut document: Value = serde_json::to_value(sample::report()).unwrap();
        document["total"].take();
        assert!(Report::parse(&document.to_string()).is_err());
        let missing = Report::read(Path::new("/nonexistent/run.json")).unwrap_err();
        assert!(missing.starts_with("/nonexistent/run.json cannot be read: "), "{missing}");
    }
}
