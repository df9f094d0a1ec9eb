//! What keeps an executor from sleeping for ever.
//!
//! An executor of glommio 0.9 can park while a task is runnable: a completion that arrives between its look at
//! the ring and its look at the run queue is taken for "nothing to do". A heartbeat, a task that sleeps a few
//! milliseconds over and over, ends most such naps; but the wake-up that gets lost may be the heartbeat's own.
//! So a thread listens to the heart as well, and wakes a task of the executor from outside when it stops.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use glommio::spawn_local;
use glommio::timer::sleep;

/// The pause between two beats; it also drives every timer of a core.
pub const HEARTBEAT: Duration = Duration::from_millis(4);
/// How often [`Pacemaker::watch`] has to be called: a heart that is silent for so long is helped.
pub const LISTEN_INTERVAL: Duration = Duration::from_millis(20);
/// The shortest pause.
const MOMENT: Duration = Duration::from_micros(1);
/// Tasks that can be woken. A wake-up may be lost as well, with its task; the others are left for the next.
const LEADS: usize = 8;

/// Between an executor and the thread that listens to it.
#[derive(Debug, Default)]
pub struct Pacemaker {
    beats: AtomicU64,
    leads: [AtomicWaker; LEADS],
    next: AtomicUsize,
}

/// What a listener remembers of one executor.
#[derive(Clone, Copy, Default, Debug)]
pub struct Listener {
    beats: u64,
    silent: u32,
}

/// Lets others have their turn, the kernel among them. An executor looks at what the kernel has done, at reads and at the
/// journal's writes, only when no task is to be run: a task that merely steps back, again and again, keeps it from that.
pub async fn give_way() {
    sleep(MOMENT).await;
}

impl Pacemaker {
    /// On the executor, once: makes the tasks that can be woken from outside.
    pub fn attach(self: &Arc<Self>) {
        for lead in 0..LEADS {
            let pacemaker = Arc::clone(self);
            spawn_local(poll_fn(move |cx| {
                pacemaker.leads[lead].register(cx.waker());
                Poll::<()>::Pending
            }))
            .detach();
        }
    }

    /// On the executor: one beat, and the pause after it. Gives the number of the beat.
    pub async fn beat(&self) -> u64 {
        sleep(HEARTBEAT).await;
        self.beats.fetch_add(1, Ordering::Relaxed)
    }

    /// Beats so far.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// On the listening thread, every [`LISTEN_INTERVAL`]: helps a heart that has stopped. Gives for how long it
    /// has been silent.
    pub fn watch(&self, listener: &mut Listener) -> Duration {
        let beats = self.beats();
        if beats == listener.beats {
            listener.silent += 1;
            // A task that is awake already is passed over: its wake-up may be the one that was lost.
            let lead =
                (0..LEADS).find_map(|_| self.leads[self.next.fetch_add(1, Ordering::Relaxed) % LEADS].take());
            if let Some(waker) = lead {
                waker.wake();
            }
        } else {
            *listener = Listener { beats, silent: 0 };
        }
        LISTEN_INTERVAL * listener.silent
    }
}
