//! What a run shows while it goes on, on a terminal; nothing elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::conductor::News;
use crate::scenario::Scenario;

/// A line that is written over and over.
pub(crate) struct Progress {
    bar: ProgressBar,
    seconds: u64,
}

impl Progress {
    /// For a run of `scenario`.
    pub(crate) fn new(scenario: &Scenario, is_quiet: bool) -> Self {
        let seconds = scenario.loaded().as_secs();
        let bar = if is_quiet || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr())
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        Self { bar, seconds }
    }

    pub(crate) fn show(&self, news: &News<'_>) {
        let message = match news {
            News::Gathering(bound, all) => format!("{bound} of {all} connections bound"),
            News::Second(pulse, is_measured) => {
                self.bar.set_position((pulse.second + 1).min(self.seconds));
                let p99 = pulse
                    .submit_sm
                    .histogram()
                    .map_or(0.0, |histogram| histogram.value_at_quantile(0.99) as f64 / 1_000.0);
                format!(
                    "{}{} accepted/s, {} refused/s, {} receipts/s, p99 {p99:.3} ms, {} bound",
                    if *is_measured { "" } else { "warming up: " },
                    pulse.accepted,
                    pulse.refused,
                    pulse.receipts,
                    pulse.bound,
                )
            }
            News::Draining(waiting) => format!("waiting for {waiting} answers and receipts"),
        };
        self.bar.set_message(message);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
