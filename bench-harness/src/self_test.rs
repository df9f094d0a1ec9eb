//! What the generator can do: one executor of it against the echo, each on a CPU of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::bounded;
use glommio::{LocalExecutorBuilder, Placement};

use crate::conductor::{self, Played, Setting};
use crate::connection::Target;
use crate::echo;
use crate::scenario::Scenario;

/// An echo on a thread of its own, until it is dropped.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    stops: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    /// Listens on `address`.
    ///
    /// # Errors
    /// It cannot be had, or no executor.
    pub(crate) fn start(address: SocketAddr, pin: Option<usize>) -> Result<Self, String> {
        let (ready, listens) = bounded(1);
        let stops = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stops);
        let thread = thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || {
                let executor = LocalExecutorBuilder::new(pin.map_or(Placement::Unbound, Placement::Fixed))
                    .io_memory(conductor::IO_MEMORY)
                    .preempt_timer(conductor::PREEMPT)
                    .make();
                match executor {
                    Ok(executor) => executor.run(echo::serve(address, seen, ready)),
                    Err(error) => _ = ready.send(Err(format!("no executor: {error}"))),
                }
            })
            .map_err(|error| format!("no thread: {error}"))?;
        let address = listens.recv().map_err(|_| "the echo did not start".to_owned())??;
        Ok(Self { address, stops, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says nothing that matters any more.
            _ = thread.join();
        }
    }
}

/// Drives an echo with the scenario `submit` for so many seconds, each on a CPU of its own if there are two.
///
/// # Errors
/// What [`conductor::play`] and [`Echo::start`] say.
pub(crate) fn drive(seconds: f64) -> Result<Played, String> {
    let (_, mut scenario) = Scenario::load("submit")?;
    scenario.seconds = seconds;
    scenario.warm_up_seconds = 1.0;
    scenario.validate()?;
    let pins = pins();
    let echo = Echo::start(SocketAddr::from(([127, 0, 0, 1], 0)), pins.map(|(_, echo)| echo))?;
    let setting = Setting {
        target: Target { address: echo.address, tls: None },
        system_id: "echo".to_owned(),
        password: String::new(),
        executors: 1,
        pinned_to: pins.map(|(own, _)| own).into_iter().collect(),
        server: None,
        seed: 1,
    };
    conductor::play(&scenario, &setting, &AtomicBool::new(false), &mut |_| {})
}

/// Measures, prints, and says whether `at_least` PDUs a second were reached.
///
/// # Errors
/// What [`drive`] says.
pub(crate) fn run(seconds: f64, at_least: u64) -> Result<bool, String> {
    let played = drive(seconds)?;
    let requests: u64 = played.tallies.iter().map(|tally| tally.answered()).sum();
    let pdus = 2 * requests;
    let rate = pdus as f64 / seconds;
    println!(
        "{requests} submit_sm answered in {seconds} s: {rate:.0} PDUs a second by one executor, {:.0} ns of it each",
        played.own_cpu_seconds * 1e9 / pdus.max(1) as f64
    );
    if pins().is_none() {
        println!("there is only one CPU: the echo took its share of it");
    }
    Ok(rate >= at_least as f64 && played.faults.is_empty())
}

/// The CPU of the generator and that of the echo.
fn pins() -> Option<(usize, usize)> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let echo = cpus.next()?;
    Some((cpus.next()?, echo))
}
