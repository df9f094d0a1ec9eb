//! Mailboxes: how threads and cores reach a core. Senders push batches; a core that sleeps is woken at most
//! once for all that came before it woke.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::account::Accounts;
use crate::message::PartitionNumber;
use crate::route::Routes;
use crate::server::handover::Handover;
use crate::shard::{ConnectionId, Lookup, MeshMessage};
use crate::store::{FinalMessage, StoreDone};

/// Something for a core.
pub(super) enum Inbound {
    /// From another core: a turn's worth.
    Mesh(Vec<MeshMessage>),
    /// A password was verified.
    Verified(ConnectionId, bool),
    /// A connection comes from another core.
    Handover(Box<Handover>),
    /// The state at rest answers.
    Found(Box<Lookup>, Vec<FinalMessage<'static>>),
    /// The state at rest cannot answer.
    NotFound(Box<Lookup>),
    /// The state at rest has done something.
    Stored(PartitionNumber, StoreDone),
    /// The state at rest cannot go on.
    StoreFailed(PartitionNumber, String),
    /// Other accounts and routes.
    Reload(Arc<Accounts>, Routes),
    /// Stop: unbind everybody, write what is left, end.
    Drain,
}

/// Wakes one core. A sleeping core's waker is used once: forty thousand wakers of one task overflow the
/// executor's count of them.
#[derive(Default)]
struct Doorbell {
    is_armed: AtomicBool,
    waker: AtomicWaker,
}

/// The sending end of a mailbox; each sender has a channel of its own.
#[derive(Clone)]
pub(super) struct MailSender {
    channel: Sender<Inbound>,
    bell: Arc<Doorbell>,
}

impl MailSender {
    /// Puts something in the mailbox and rings, unless the core is awake or was rung already. Bounded by
    /// what is granted to each sender, not by the channel.
    pub(super) fn send(&self, inbound: Inbound) {
        // A core that has ended needs nothing any more.
        if self.channel.send(inbound).is_ok() && self.bell.is_armed.swap(false, Ordering::AcqRel) {
            self.bell.waker.wake();
        }
    }
}

/// The receiving end: one core's.
pub(super) struct Mailbox {
    cores: Vec<Receiver<Inbound>>,
    /// Whose turn it is among the cores.
    next_core: Cell<usize>,
    threads: Vec<Receiver<Inbound>>,
    bell: Arc<Doorbell>,
}

/// A mailbox and the ways to reach it: for so many cores, then for so many kinds of threads.
pub(super) fn mailbox(cores: usize, threads: usize) -> (Vec<MailSender>, Mailbox) {
    let bell = Arc::new(Doorbell::default());
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..cores + threads)
        .map(|_| {
            let (channel, receiver) = unbounded();
            (MailSender { channel, bell: Arc::clone(&bell) }, receiver)
        })
        .unzip();
    let threads = receivers.split_off(cores);
    (senders, Mailbox { cores: receivers, next_core: Cell::new(0), threads, bell })
}

impl Mailbox {
    /// The next thing, if any. The threads' channels come first, the last one before the others: what a core
    /// says may rest on accounts that the main thread has just sent. The cores take turns.
    pub(super) fn try_next(&self) -> Option<Inbound> {
        let from_thread = self.threads.iter().rev().find_map(|channel| channel.try_recv().ok());
        from_thread.or_else(|| {
            let next = self.next_core.get();
            let (before, from_next) = self.cores.split_at(next);
            let (place, inbound) = (next..)
                .zip(from_next)
                .chain(before.iter().enumerate())
                .find_map(|(place, channel)| Some((place, channel.try_recv().ok()?)))?;
            self.next_core.set((place + 1) % self.cores.len());
            Some(inbound)
        })
    }

    /// Asks to be woken. Look once more afterwards: what came before this is not announced.
    pub(super) fn arm(&self, waker: &Waker) {
        self.bell.waker.register(waker);
        self.bell.is_armed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_sleeping_core_is_woken_once_for_many_messages() {
        let (senders, mailbox) = mailbox(1, 1);
        let count = Arc::new(Count::default());
        mailbox.arm(&Waker::from(Arc::clone(&count)));
        for _ in 0..100_000 {
            senders[0].send(Inbound::Drain);
            senders[1].send(Inbound::Drain);
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let mut received = 0;
        while mailbox.try_next().is_some() {
            received += 1;
        }
        assert_eq!(received, 200_000);
    }

    #[test]
    fn a_message_before_the_bell_is_armed_is_found_by_the_second_look() {
        let (senders, mailbox) = mailbox(0, 1);
        senders[0].send(Inbound::Drain);
        let count = Arc::new(Count::default());
        mailbox.arm(&Waker::from(Arc::clone(&count)));
        assert!(mailbox.try_next().is_some());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn threads_come_first_and_cores_take_turns() {
        let (senders, mailbox) = mailbox(3, 2);
        let send = |sender: usize| {
            senders[sender].send(Inbound::Verified(ConnectionId(sender as u64), true));
        };
        [0, 0, 0, 2, 2, 3, 4, 4].into_iter().for_each(send);
        let next = || {
            let Inbound::Verified(ConnectionId(number), _) = mailbox.try_next()? else { panic!("not sent") };
            Some(number)
        };
        assert_eq!([(); 6].map(|()| next()), [4, 4, 3, 0, 2, 0].map(Some));
        [1, 4].into_iter().for_each(send);
        assert_eq!([(); 5].map(|()| next()), [Some(4), Some(1), Some(2), Some(0), None]);
    }
}
