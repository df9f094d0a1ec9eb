//! What the server's process uses, as the kernel or the server's own metrics say it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may take to give its metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the threads of executors are called, before their number.
pub(crate) const EXECUTOR_NAME: &str = "esmes-";

/// Where the figures come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The kernel, for a process of this machine.
    Process(u32),
    /// A metrics port that knows process_cpu_seconds_total and process_resident_memory_bytes.
    Metrics(SocketAddr),
}

/// What a process has used and uses.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
}

impl Source {
    /// # Errors
    /// The process or the port is gone, or says nothing of use.
    pub(crate) fn usage(self) -> Result<Usage, String> {
        match self {
            Self::Process(pid) => of_process(pid).map_err(|error| format!("process {pid}: {error}")),
            Self::Metrics(address) => {
                of_metrics(address).map_err(|error| format!("http://{address}/metrics: {error}"))
            }
        }
    }
}

/// The generator itself: its executors, whatever else this process does.
pub(crate) fn own_usage() -> Usage {
    of_threads(std::process::id(), |name| name.starts_with(EXECUTOR_NAME)).unwrap_or_default()
}

fn of_process(pid: u32) -> Result<Usage, String> {
    of_threads(pid, |_| true)
}

/// Every thread's nanoseconds on a core, which the kernel keeps exactly; the process's own count goes by its ticks.
fn of_threads(pid: u32, counts: impl Fn(&str) -> bool) -> Result<Usage, String> {
    let read = |path: String| fs::read_to_string(path).map_err(|error| error.to_string());
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| error.to_string())? {
        let Ok(task) = task else { continue };
        // A thread that has ended meanwhile has neither.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        if !counts(&name) {
            continue;
        }
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    let statm = read(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| format!("statm says {statm:?}"))?;
    Ok(Usage { cpu_seconds: nanos as f64 / 1e9, rss_bytes: pages * rustix::param::page_size() as u64 })
}

fn of_metrics(address: SocketAddr) -> Result<Usage, String> {
    let text = get(address).map_err(|error| error.to_string())?;
    let value = |name: &str| {
        text.lines()
            .filter_map(|line| line.strip_prefix(name))
            .find_map(|rest| rest.trim().parse::<f64>().ok())
            .ok_or_else(|| format!("no {name}"))
    };
    Ok(Usage {
        cpu_seconds: value("process_cpu_seconds_total ")?,
        rss_bytes: value("process_resident_memory_bytes ")? as u64,
    })
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_what_we_use() {
        let before = of_process(std::process::id()).expect("we run");
        assert!(before.rss_bytes > 100_000, "{before:?}");
        let mut sum = 0_u64;
        while of_process(std::process::id()).expect("we run").cpu_seconds < before.cpu_seconds + 0.02 {
            sum = (0..100_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(Source::Process(u32::MAX).usage().is_err());
    }
}
