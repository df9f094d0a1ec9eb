//! The known faults of the executor, contained: each of these tests is about one of them.

mod support;

use std::cell::Cell;
use std::future::poll_fn;
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use crossbeam_channel::{Receiver, Sender, unbounded};
use futures_lite::FutureExt;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use smppd::pdu::{CommandId, Pdu};
use smppd::server::pacemaker::{LISTEN_INTERVAL, Listener, Pacemaker, give_way};

use support::esme::{Esme, Next};
use support::{Place, eventually};

/// The mailbox of a core in small: a channel, a flag that says whether a wake-up is wanted, and the waker.
#[derive(Default)]
struct Bell {
    is_armed: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Clone)]
struct Post {
    channel: Sender<u64>,
    bell: Arc<Bell>,
}

impl Post {
    fn send(&self, value: u64) {
        if self.channel.send(value).is_ok() && self.bell.is_armed.swap(false, Ordering::AcqRel) {
            self.bell.waker.wake();
        }
    }
}

fn post() -> (Post, Receiver<u64>) {
    let (channel, receiver) = unbounded();
    (Post { channel, bell: Arc::default() }, receiver)
}

async fn receive(receiver: &Receiver<u64>, bell: &Bell) -> u64 {
    poll_fn(|cx| {
        if let Ok(value) = receiver.try_recv() {
            return Poll::Ready(value);
        }
        bell.waker.register(cx.waker());
        bell.is_armed.store(true, Ordering::Release);
        receiver.try_recv().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Runs on an executor of its own with little memory.
fn on_executor<F: Future<Output = T> + 'static, T: Send + 'static>(
    preempt: Duration,
    run: impl FnOnce() -> F + Send + 'static,
) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .preempt_timer(preempt)
            .make()
            .expect("an executor");
        executor.run(async move { run().await })
    })
}

#[test]
fn with_a_pacemaker_an_executor_that_is_woken_from_outside_never_stays_asleep() {
    // The conditions under which an executor without one hangs within seconds: a preempt timer of 1 ms whose
    // completion lands between the look at the ring and the look at the run queue.
    const TIME: Duration = Duration::from_secs(30);
    let (to_executor, inbox) = post();
    let (to_thread, answers) = unbounded();
    let bell = Arc::clone(&to_executor.bell);
    let pacemaker = Arc::new(Pacemaker::default());
    let heart = Arc::clone(&pacemaker);
    let executor = on_executor(Duration::from_millis(1), move || async move {
        heart.attach();
        let heartbeat = spawn_local(async move {
            loop {
                heart.beat().await;
            }
        });
        loop {
            let value = receive(&inbox, &bell).await;
            if value == u64::MAX {
                break;
            }
            _ = to_thread.send(value);
        }
        heartbeat.cancel().await;
    });
    let has_ended = Arc::new(AtomicBool::new(false));
    let listener = thread::spawn({
        let (pacemaker, has_ended) = (Arc::clone(&pacemaker), Arc::clone(&has_ended));
        move || {
            let mut listener = Listener::default();
            while !has_ended.load(Ordering::Relaxed) {
                thread::sleep(LISTEN_INTERVAL);
                pacemaker.watch(&mut listener);
            }
        }
    });
    let deadline = Instant::now() + TIME;
    let mut rounds = 0;
    let mut slowest = Duration::ZERO;
    while Instant::now() < deadline {
        let sent = Instant::now();
        to_executor.send(rounds);
        let answer = answers.recv_timeout(Duration::from_secs(5));
        assert_eq!(answer, Ok(rounds), "the executor sleeps");
        slowest = slowest.max(sent.elapsed());
        rounds += 1;
    }
    to_executor.send(u64::MAX);
    executor.join().expect("an executor that ends");
    has_ended.store(true, Ordering::Relaxed);
    listener.join().expect("a listener that ends");
    println!("{rounds} round trips, the slowest {slowest:?}, {} beats", pacemaker.beats());
    assert!(rounds > 10_000, "only {rounds} round trips: nothing was tried");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[test]
fn a_panic_in_one_task_leaves_the_others_alive() {
    let executor = on_executor(Duration::from_millis(20), || async {
        let count = Rc::new(Cell::new(0));
        let others: Vec<_> = (0..3)
            .map(|_| {
                let count = Rc::clone(&count);
                spawn_local(async move {
                    for _ in 0..10 {
                        sleep(Duration::from_millis(2)).await;
                        count.set(count.get() + 1);
                    }
                })
            })
            .collect();
        let fault = async {
            sleep(Duration::from_millis(5)).await;
            panic!("this panic is a part of the test");
        };
        let caught = spawn_local(AssertUnwindSafe(fault).catch_unwind()).await;
        assert!(caught.is_err());
        for other in others {
            other.await;
        }
        count.get()
    });
    assert_eq!(executor.join().expect("an executor that ends"), 30);
}

#[test]
fn a_hundred_thousand_wake_ups_of_a_busy_executor_do_no_harm() {
    const COUNT: u64 = 100_000;
    let (to_executor, inbox) = post();
    let bell = Arc::clone(&to_executor.bell);
    let is_waiting = Arc::new(AtomicBool::new(false));
    let (waiting, wakes) = (Arc::clone(&is_waiting), Arc::new(AtomicU64::new(0)));
    let received = Arc::clone(&wakes);
    let executor = on_executor(Duration::from_millis(20), move || async move {
        let reader = spawn_local(async move {
            for _ in 0..COUNT {
                receive(&inbox, &bell).await;
                received.fetch_add(1, Ordering::Relaxed);
            }
        });
        // The reader waits by now; while this blocks the executor, everything comes at once. (No code of a
        // server may block: that is what makes this the worst case.)
        waiting.store(true, Ordering::Release);
        let deadline = Instant::now() + Duration::from_millis(300);
        while Instant::now() < deadline {
            std::hint::spin_loop();
        }
        reader.await;
    });
    eventually("the reader waits", || is_waiting.load(Ordering::Acquire).then_some(()));
    (0..COUNT).for_each(|value| to_executor.send(value));
    executor.join().expect("an executor that ends");
    assert_eq!(wakes.load(Ordering::Relaxed), COUNT);
}

#[test]
fn a_task_that_gives_way_keeps_nobody_from_the_kernel() {
    const TURNS: u64 = 300;
    let executor = on_executor(Duration::from_millis(20), || async {
        let turns = Rc::new(Cell::new(0));
        let heart = spawn_local({
            let turns = Rc::clone(&turns);
            async move {
                let mut beats = 0;
                while turns.get() < TURNS {
                    sleep(Duration::from_millis(4)).await;
                    beats += 1;
                }
                beats
            }
        });
        while turns.get() < TURNS {
            let until = Instant::now() + Duration::from_millis(1);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            turns.set(turns.get() + 1);
            give_way().await;
        }
        heart.await
    });
    let beats: u64 = executor.join().expect("an executor that ends");
    // One in five turns, less now and then when the machine is busy. With a task that yields it is one in twenty and fewer.
    assert!(beats >= TURNS / 10, "{beats} beats of four milliseconds in {TURNS} turns of one");
}

#[test]
fn a_server_without_descriptors_waits_instead_of_spinning() {
    let place = Place::with_demo("descriptors");
    let server = place.server().start();
    let mut before = Esme::bound(&server, "demo");
    // A few more than are open, which is where the kernel's answer becomes EMFILE.
    server.limit_descriptors(server.next_descriptor() + 10);
    let connections: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(server.plain).expect("a place in the queue")).collect();
    eventually("an accept fails", || server.log().contains("no file descriptor is left").then_some(()));
    let (begin, cpu) = (Instant::now(), server.cpu_time());
    thread::sleep(Duration::from_secs(2));
    let share = (server.cpu_time() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(share < 0.5, "{share} of a core for connections that cannot be accepted");
    let complaints = server.log().matches("no file descriptor is left").count();
    assert!(complaints < 1_000, "{complaints} lines");
    assert_eq!(before.ask(&Pdu::EnquireLink).command_id, CommandId::ENQUIRE_LINK_RESP);
    drop(connections);
    server.limit_descriptors(10_000);
    let mut after = Esme::bound(&server, "demo");
    match after.next_within(Duration::ZERO) {
        Next::Silence => {}
        other => panic!("{other:?}"),
    }
    assert!(server.stop().success());
}

#[test]
fn every_core_beats() {
    let place = Place::with_demo("beats");
    let server = place.server().argument("--admin=127.0.0.1:0").start();
    let beats = || -> Vec<u64> {
        let text = server.http("/metrics");
        text.lines()
            .filter(|line| line.starts_with("smppd_core_heartbeats_total{"))
            .map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
            .collect()
    };
    let (first, begin) = (beats(), Instant::now());
    assert_eq!(first.len(), 2);
    thread::sleep(Duration::from_secs(1));
    let (second, seconds) = (beats(), begin.elapsed().as_secs_f64());
    for (first, second) in first.iter().zip(&second) {
        let rate = (second - first) as f64 / seconds;
        assert!((50.0..1_000.0).contains(&rate), "{rate} heartbeats a second");
    }
}
