//! Threads that watch: one that notices an executor standing still, one that writes the log.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::server::core::Pulse;
use crate::server::pacemaker::{LISTEN_INTERVAL, Listener};

/// Silence of a heart after which it is said to stand still.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the disk is looked at.
const DISK_INTERVAL: Duration = Duration::from_millis(500);
/// Lines that may wait for a slow reader of the log; more are dropped rather than keep a core waiting.
const LINES_MAX: usize = 8_192;

/// Watches the cores, and says so when one stands still and when it goes on; and the disk: with less than
/// `low_water` octets free no message is accepted, while everything else goes on.
pub(super) fn watch(pulses: Vec<Arc<Pulse>>, data_dir: PathBuf, low_water: u64) -> io::Result<()> {
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut was_low = false;
        let mut hearts = vec![Listener::default(); pulses.len()];
        for interval in 0_u32.. {
            thread::sleep(LISTEN_INTERVAL);
            let disk_is_due =
                (LISTEN_INTERVAL * interval).as_millis().is_multiple_of(DISK_INTERVAL.as_millis());
            let is_low = if disk_is_due { free_octets(&data_dir).map(|free| free < low_water) } else { None };
            if let Some(is_low) = is_low.filter(|is_low| *is_low != was_low) {
                was_low = is_low;
                let shown = data_dir.display();
                if is_low {
                    log::error!("{shown}: less than {low_water} octets are free; no message is accepted");
                } else {
                    log::info!("{shown}: there is room again");
                }
                pulses.iter().for_each(|pulse| pulse.is_disk_low.store(is_low, Ordering::Relaxed));
            }
            for (core, (pulse, listener)) in pulses.iter().zip(&mut hearts).enumerate() {
                if pulse.has_ended.load(Ordering::Relaxed) {
                    continue;
                }
                let is_still = pulse.pacemaker.watch(listener) >= PATIENCE;
                let was_still = pulse.is_still.swap(is_still, Ordering::Relaxed);
                match (was_still, is_still) {
                    (false, true) => log::error!("core {core} stands still: no heartbeat for {PATIENCE:?}"),
                    (true, false) => log::warn!("core {core} goes on after standing still"),
                    (true, true) | (false, false) => {}
                }
            }
            if pulses.iter().all(|pulse| pulse.has_ended.load(Ordering::Relaxed)) {
                return;
            }
        }
    })?;
    Ok(())
}

/// Room on the disk; unknown where the system does not say.
fn free_octets(data_dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data_dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Something for the thread that writes the log.
enum Line {
    Text(Vec<u8>),
    /// Says when everything before it is written.
    Flush(Sender<()>),
}

/// Where lines go, once the log is started.
static LINES: OnceLock<Sender<Line>> = OnceLock::new();

/// Writes lines in a thread of its own: stderr may be a pipe that nobody reads.
struct LogWriter(Sender<Line>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A full queue means that nobody reads; a core does not wait for that.
        _ = self.0.try_send(Line::Text(line.to_vec()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the last lines are written, but not for ever.
pub(super) fn flush_log() {
    let (sender, done) = bounded(1);
    if LINES.get().is_some_and(|lines| lines.try_send(Line::Flush(sender)).is_ok()) {
        _ = done.recv_timeout(Duration::from_secs(1));
    }
}

/// Starts logging at `level`, or as RUST_LOG says.
pub(super) fn start_log(level: &str) -> io::Result<()> {
    let (sender, lines) = bounded(LINES_MAX);
    thread::Builder::new().name("log".into()).spawn(move || {
        for line in lines {
            // Nobody can be told that the log cannot be written.
            match line {
                Line::Text(text) => _ = io::stderr().write_all(&text),
                Line::Flush(done) => _ = done.send(()),
            }
        }
    })?;
    LINES.get_or_init(|| sender.clone());
    let filter = format!("{level},sled=warn,glommio=warn,rustls=warn");
    let env = env_logger::Env::default().default_filter_or(filter);
    // A second start in one process (tests) keeps the first.
    _ = env_logger::Builder::from_env(env)
        .target(env_logger::Target::Pipe(Box::new(LogWriter(sender))))
        .format_timestamp_millis()
        .try_init();
    Ok(())
}
