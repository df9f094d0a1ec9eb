//! Threads that watch: one that notices an executor standing still, one that writes the log.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::server::core::Pulse;

/// How often pulses are felt.
const INTERVAL: Duration = Duration::from_millis(500);
/// Intervals without a tick before an executor is said to stand still.
const PATIENCE: u32 = 2;
/// Lines that may wait for a slow reader of the log; more are dropped rather than keep a core waiting.
const LINES_MAX: usize = 8_192;

/// Watches the cores; says so when one stands still, and when it goes on.
pub(super) fn watch(pulses: Vec<Arc<Pulse>>) -> io::Result<()> {
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut seen: Vec<(u64, u32)> = vec![(0, 0); pulses.len()];
        loop {
            thread::sleep(INTERVAL);
            for (core, (pulse, (ticks, still))) in pulses.iter().zip(&mut seen).enumerate() {
                let now = pulse.ticks.load(Ordering::Relaxed);
                if pulse.has_ended.load(Ordering::Relaxed) {
                    continue;
                }
                if now != *ticks {
                    if *still >= PATIENCE {
                        log::warn!("core {core} goes on after standing still");
                    }
                    (*ticks, *still) = (now, 0);
                    continue;
                }
                *still += 1;
                if *still == PATIENCE {
                    log::error!("core {core} stands still: no heartbeat for {} ms", INTERVAL.as_millis() * u128::from(PATIENCE));
                }
            }
            if pulses.iter().all(|pulse| pulse.has_ended.load(Ordering::Relaxed)) {
                return;
            }
        }
    })?;
    Ok(())
}

/// Writes lines in a thread of its own: stderr may be a pipe that nobody reads.
struct LogWriter(Sender<Vec<u8>>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A full queue means that nobody reads; a core does not wait for that.
        _ = self.0.try_send(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging at `level`, or as RUST_LOG says.
pub(super) fn start_log(level: &str) -> io::Result<()> {
    let (sender, lines) = bounded::<Vec<u8>>(LINES_MAX);
    thread::Builder::new().name("log".into()).spawn(move || {
        for line in lines {
            _ = io::stderr().write_all(&line);
        }
    })?;
    let filter = format!("{level},sled=warn,glommio=warn,rustls=warn");
    let env = env_logger::Env::default().default_filter_or(filter);
    // A second start in one process (tests) keeps the first.
    _ = env_logger::Builder::from_env(env)
        .target(env_logger::Target::Pipe(Box::new(LogWriter(sender))))
        .format_timestamp_millis()
        .try_init();
    Ok(())
}
