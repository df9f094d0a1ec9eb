//! One executor of the fleet: the connections it plays, and the clock that wakes them.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant as StdInstant};

use crossbeam_channel::Sender;
use futures_lite::FutureExt;
use glommio::spawn_local;
use glommio::timer::sleep;

use crate::connection::{self, Buffers, Target};
use crate::esme::Seat;
use crate::measure::{Course, Measures, Pulse};

/// The longest that an executor sleeps: what the run's conductor decides is seen after that.
const TICK: Duration = Duration::from_millis(2);
/// What is due within such a time of one another is sent in one go: a wake-up costs microseconds.
const GRAIN: Duration = Duration::from_micros(20);
/// Tasks that can be woken from outside.
const LEADS: usize = 8;

/// What the conductor and the executors share.
pub(crate) struct Stage {
    clock: StdInstant,
    course: Mutex<Option<Course>>,
    /// Counts changes of the course.
    scene: AtomicU64,
    /// Connections that were bound for the first time.
    pub(crate) bound: AtomicUsize,
    /// Whether everybody shall unbind.
    pub(crate) leaves: AtomicBool,
    /// The first thing that makes the run impossible.
    failure: Mutex<Option<String>>,
    /// The TLS version that is spoken.
    pub(crate) tls: OnceLock<String>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self {
            clock: StdInstant::now(),
            course: Mutex::default(),
            scene: AtomicU64::new(0),
            bound: AtomicUsize::new(0),
            leaves: AtomicBool::new(false),
            failure: Mutex::default(),
            tls: OnceLock::new(),
        }
    }

    /// Nanoseconds since the stage was set.
    pub(crate) fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    pub(crate) fn course(&self) -> Option<Course> {
        *self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The load begins, or ends earlier.
    pub(crate) fn set_course(&self, course: Course) {
        *self.course.lock().unwrap_or_else(PoisonError::into_inner) = Some(course);
        self.scene.fetch_add(1, Ordering::Release);
    }

    /// Something went wrong that makes what follows pointless.
    pub(crate) fn fail(&self, message: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What keeps an executor from sleeping for ever: one of glommio 0.9 can park while a task is to be run, its own timer's task
/// among them. The conductor wakes it from outside when it is silent.
#[derive(Default)]
pub(crate) struct Lifeline {
    /// Counts ticks.
    pub(crate) ticks: AtomicU64,
    leads: Mutex<Vec<Waker>>,
    /// Requests of this executor without an answer, and when they were counted.
    in_flight: AtomicUsize,
    counted_at: AtomicU64,
}

impl Lifeline {
    /// From outside: wakes the executor.
    pub(crate) fn pull(&self) {
        let lead = self.leads.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(waker) = lead {
            waker.wake();
        }
    }

    fn count(&self, in_flight: usize, now: u64) {
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.counted_at.store(now, Ordering::Release);
    }

    /// Requests of this executor without an answer, if they were counted at `time` or later.
    pub(crate) fn in_flight_since(&self, time: u64) -> Option<usize> {
        (self.counted_at.load(Ordering::Acquire) >= time).then(|| self.in_flight.load(Ordering::Relaxed))
    }
}

/// What an executor begins with.
pub(crate) struct Parts {
    pub(crate) stage: Arc<Stage>,
    pub(crate) lifeline: Arc<Lifeline>,
    pub(crate) target: Target,
    pub(crate) seats: Vec<Seat>,
    /// Groups of the scenario.
    pub(crate) groups: usize,
    pub(crate) pulses: Sender<Pulse>,
}

/// What the connections of an executor share.
pub(crate) struct Core {
    pub(crate) stage: Arc<Stage>,
    pub(crate) target: Target,
    pub(crate) buffers: RefCell<Buffers>,
    pub(crate) measures: RefCell<Measures>,
    pub(crate) course: Cell<Option<Course>>,
    pub(crate) leaves: Cell<bool>,
    pub(crate) in_flight: Cell<usize>,
    pub(crate) bound: Cell<usize>,
    /// Connections that are being made in the beginning.
    pub(crate) gathering: Cell<usize>,
    playing: Cell<usize>,
    wakers: RefCell<Vec<Option<Waker>>>,
    alarms: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    /// By seat: the alarm that is set.
    alarm_of: RefCell<Vec<u64>>,
    /// When the clock's task wakes by itself, whether it is to wake earlier, and how.
    rings_at: Cell<u64>,
    hurries: Cell<bool>,
    clock_waker: RefCell<Option<Waker>>,
}

impl Core {
    pub(crate) fn now(&self) -> u64 {
        self.stage.now()
    }

    /// The task of a seat: to be woken by alarms, and when the scene changes.
    pub(crate) fn attend(&self, seat: usize, waker: &Waker) {
        let mut wakers = self.wakers.borrow_mut();
        match &mut wakers[seat] {
            Some(known) if known.will_wake(waker) => {}
            place => *place = Some(waker.clone()),
        }
    }

    /// Wakes the seat's task at `at`. It has one alarm: a later one takes effect when it is set anew.
    pub(crate) fn alarm(&self, seat: usize, at: u64) {
        let mut alarm_of = self.alarm_of.borrow_mut();
        if at < alarm_of[seat] {
            alarm_of[seat] = at;
            self.alarms.borrow_mut().push(Reverse((at, seat)));
            if at < self.rings_at.get() {
                self.hurries.set(true);
                if let Some(waker) = self.clock_waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
    }

    fn wake_all(&self) {
        for waker in self.wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Wakes whose time has come; gives when the next alarm rings.
    fn ring(&self, now: u64) -> Option<u64> {
        let mut alarms = self.alarms.borrow_mut();
        let mut alarm_of = self.alarm_of.borrow_mut();
        let wakers = self.wakers.borrow();
        while let Some(&Reverse((at, seat))) = alarms.peek() {
            if at > now {
                return Some(at);
            }
            alarms.pop();
            if alarm_of[seat] == at {
                alarm_of[seat] = u64::MAX;
                if let Some(waker) = &wakers[seat] {
                    waker.wake_by_ref();
                }
            }
        }
        None
    }
}

/// Plays the seats to their end; gives what was counted.
pub(crate) async fn play(parts: Parts) -> Measures {
    let seats = parts.seats.len();
    let core = Rc::new(Core {
        stage: parts.stage,
        target: parts.target,
        buffers: RefCell::default(),
        measures: RefCell::new(Measures::new(parts.groups)),
        course: Cell::new(None),
        leaves: Cell::new(false),
        in_flight: Cell::new(0),
        bound: Cell::new(0),
        gathering: Cell::new(0),
        playing: Cell::new(seats),
        wakers: RefCell::new(vec![None; seats]),
        alarms: RefCell::default(),
        alarm_of: RefCell::new(vec![u64::MAX; seats]),
        rings_at: Cell::new(0),
        hurries: Cell::new(false),
        clock_waker: RefCell::default(),
    });
    for _ in 0..LEADS {
        let lifeline = Arc::clone(&parts.lifeline);
        spawn_local(poll_fn(move |cx| {
            lifeline.leads.lock().unwrap_or_else(PoisonError::into_inner).push(cx.waker().clone());
            Poll::<()>::Pending
        }))
        .detach();
    }
    for (place, seat) in parts.seats.into_iter().enumerate() {
        let core = Rc::clone(&core);
        spawn_local(async move {
            connection::play(&core, place, seat).await;
            // Whoever waits for the last to leave looks at the next tick.
            core.playing.set(core.playing.get() - 1);
        })
        .detach();
    }
    keep_time(&core, &parts.lifeline, &parts.pulses).await;
    core.measures.replace(Measures::new(0))
}

/// The clock of an executor, until the last seat is empty.
async fn keep_time(core: &Core, lifeline: &Lifeline, pulses: &Sender<Pulse>) {
    let mut scene = 0;
    while core.playing.get() > 0 {
        lifeline.ticks.fetch_add(1, Ordering::Relaxed);
        lifeline.count(core.in_flight.get(), core.now());
        let current = core.stage.scene.load(Ordering::Acquire);
        let leaves = core.stage.leaves.load(Ordering::Relaxed);
        if current != scene || leaves != core.leaves.get() {
            scene = current;
            core.leaves.set(leaves);
            if let Some(course) = core.stage.course() {
                core.course.set(Some(course));
                core.measures.borrow_mut().set_course(course);
            }
            core.wake_all();
        }
        let now = core.now();
        if let Some(course) = core.course.get() {
            let mut measures = core.measures.borrow_mut();
            while now >= course.begin + (measures.pulse.second + 1) * 1_000_000_000 {
                // Nobody listens any more: nothing is lost but a line.
                _ = pulses.send(measures.take_pulse(core.bound.get() as u64));
            }
        }
        let next = core.ring(now).unwrap_or(u64::MAX).min(now + TICK.as_nanos() as u64);
        core.rings_at.set(next);
        let pause = Duration::from_nanos(next.saturating_sub(core.now())).max(GRAIN);
        let is_hurried = poll_fn(|cx| {
            if core.hurries.take() {
                return Poll::Ready(());
            }
            core.clock_waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        });
        sleep(pause).or(is_hurried).await;
    }
    // Nothing is sent any more.
    lifeline.count(0, u64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_says_nothing() {
        let lifeline = Lifeline::default();
        lifeline.count(0, 999);
        assert_eq!(lifeline.in_flight_since(1_000), None, "a request may have been sent behind the count");
        lifeline.count(3, 1_000);
        assert_eq!(lifeline.in_flight_since(1_000), Some(3));
    }
}
