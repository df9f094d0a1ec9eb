//! `smpp-bench run`: from the command line to a report.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::conductor::{self, Played, Setting};
use crate::connection::Target;
use crate::options::{Changes, OutputOptions, RunOptions, ServerOptions};
use crate::progress::Progress;
use crate::report::histogram_files;
use crate::report::{self, Echo, Report};
use crate::saturate::Goal;
use crate::scenario::{Load, Octets, Scenario, Spread, Step};
use crate::server::Source;
use crate::transport::Tls;
use crate::{pair, saturate, self_test};

/// How long the echo is driven.
const ECHO_SECONDS: f64 = 4.0;

/// A scenario, and how to play it.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
    pub(crate) setting: Setting,
    pub(crate) is_quiet: bool,
    /// Set by Ctrl-C.
    pub(crate) stops: Arc<AtomicBool>,
}

/// Does what the command line says; whether every promise held and every goal was met.
///
/// # Errors
/// The run cannot be made, or its report not be written.
pub(crate) fn run(options: &RunOptions) -> Result<bool, String> {
    let (name, mut scenario) = Scenario::load(&options.scenario)?;
    change(&mut scenario, &options.changes)?;
    if options.executors == 0 {
        return Err("--executors must be at least 1".to_owned());
    }
    if options.pin.len() > options.executors {
        return Err(format!("--pin has {} CPUs for {} executors", options.pin.len(), options.executors));
    }
    let stops = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first ends the run with a report, a second one ends it.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&stops))
            .and_then(|_| flag::register(signal, Arc::clone(&stops)))
            .map_err(|error| error.to_string())?;
    }
    let mut run = Run { name, scenario, setting: setting(options)?, is_quiet: options.output.quiet, stops };
    if let Some(commands) = &options.pair {
        let [a, b] = &commands[..] else { return Err("--pair needs two commands".to_owned()) };
        return pair::run(&mut run, (a, b), options.rounds, options.output.json.as_deref());
    }
    let echo = if options.with_echo { Some(echo_rate()?) } else { None };
    let (mut report, played) = match &options.until_saturated {
        None => run.play()?,
        Some(goal) => saturate::search(&mut run, &Goal::parse(goal)?)?,
    };
    report.echo = echo.map(|rate| Echo { rate, ratio: report.total.accepted_rate / rate });
    print!("{}", report::table::table(&report));
    write(&options.output, &report, &played)?;
    Ok(report.faults.is_empty())
}

impl Run {
    /// Plays the scenario as it stands.
    ///
    /// # Errors
    /// What [`conductor::play`] says.
    pub(crate) fn play(&self) -> Result<(Report, Played), String> {
        let progress = Progress::new(&self.scenario, self.is_quiet);
        let played =
            conductor::play(&self.scenario, &self.setting, &self.stops, &mut |news| progress.show(&news));
        progress.end();
        let played = played?;
        Ok((report::report(&self.name, &self.scenario, &self.setting, &played), played))
    }
}

fn echo_rate() -> Result<f64, String> {
    let played = self_test::drive(ECHO_SECONDS)?;
    Ok(played.tallies.iter().map(|tally| tally.accepted).sum::<u64>() as f64 / ECHO_SECONDS)
}

fn setting(options: &RunOptions) -> Result<Setting, String> {
    let ServerOptions { address, tls_ca, tls_insecure, tls_name, system_id, password, server_pid, metrics } =
        &options.server;
    let tls = match (tls_ca, tls_insecure) {
        (None, false) => None,
        (roots, insecure) => Some(Tls::new(roots.as_deref(), *insecure, tls_name)?),
    };
    let port = if tls.is_some() { 2776 } else { 2775 };
    let address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)));
    Ok(Setting {
        target: Target { address, tls },
        system_id: system_id.clone(),
        password: password.clone(),
        executors: options.executors,
        pinned_to: options.pin.clone(),
        server: server_pid.map(Source::Process).or(metrics.map(Source::Metrics)),
        seed: options.seed,
    })
}

/// Changes what flags change, and looks at the whole again.
fn change(scenario: &mut Scenario, changes: &Changes) -> Result<(), String> {
    scenario.seconds = changes.seconds.unwrap_or(scenario.seconds);
    scenario.warm_up_seconds = changes.warm_up.unwrap_or(scenario.warm_up_seconds);
    scenario.drain_seconds = changes.drain.unwrap_or(scenario.drain_seconds);
    if let Some(group) = scenario.groups.first_mut() {
        group.connections = changes.connections.unwrap_or(group.connections);
        group.window = changes.window.unwrap_or(group.window);
        if let Some(octets) = changes.octets {
            group.message.octets = Octets::Fixed(octets);
        }
        if changes.receipts {
            group.message.registered_delivery = 1;
        }
        if let Some(number) = &changes.destination {
            group.message.destination.clone_from(number);
        }
        if let Some(number) = &changes.source {
            group.message.source.clone_from(number);
        }
        if let Some(rate) = changes.rate {
            let spread = if changes.poisson { Spread::Poisson } else { Spread::Constant };
            group.load = steady(rate, spread);
        }
    }
    scenario.validate()
}

/// An open loop of one rate.
pub(crate) fn steady(rate: f64, arrivals: Spread) -> Load {
    Load::Open { arrivals, steps: vec![Step { seconds: None, rate, to: None, burst: 0 }] }
}

fn write(output: &OutputOptions, report: &Report, played: &Played) -> Result<(), String> {
    if let Some(path) = &output.json {
        report.write(path)?;
    }
    if let Some(path) = &output.html {
        let page = report::html::html(report)?;
        std::fs::write(path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(folder) = &output.histograms {
        write_histograms(folder, report, played)?;
    }
    Ok(())
}

/// The whole of each latency as `.hgrm`, and second by second as `.hlog`.
fn write_histograms(folder: &Path, report: &Report, played: &Played) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (name, latency) in &report.total.latencies {
        histogram_files::write_percentiles(&folder.join(format!("{name}.hgrm")), &latency.histogram()?)?;
    }
    let begin = played.started - std::time::Duration::from_nanos(played.course.measure - played.course.begin);
    let second = std::time::Duration::from_secs(1);
    let intervals = played.pulses.iter().flat_map(|pulse| {
        let tagged = [("submit_sm", &pulse.submit_sm), ("receipt", &pulse.receipt)];
        tagged.into_iter().filter_map(move |(tag, latencies)| {
            let at = second * u32::try_from(pulse.second).unwrap_or(u32::MAX);
            Some((at, second, tag, latencies.histogram()?))
        })
    });
    histogram_files::write_log(&folder.join("run.hlog"), begin, intervals)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn the_port_is_the_usual_one_of_what_is_spoken() {
        for (flags, address) in [
            (&[][..], "127.0.0.1:2775"),
            (&["--tls-insecure"], "127.0.0.1:2776"),
            (&["--tls-insecure", "--address", "[::1]:9"], "[::1]:9"),
        ] {
            let line = [&["smpp-bench", "run"], flags].concat();
            let Ok(Options { command: Command::Run(options) }) = Options::try_parse_from(line) else {
                panic!("{flags:?} are no flags")
            };
            let made = setting(&options).expect("nothing is connected");
            assert_eq!(made.target.address.to_string(), address);
        }
    }
}
