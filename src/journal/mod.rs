//! The durable log of a partition: records in batches, batches in segments, and how to read them back.
//!
//! Here is only the form and the order of things. Files are opened, written and synced in `server`: batches
//! go out through [`Journal::take_batch`], and what became of them comes back through [`Journal::commit`].

mod batch;
mod record;
mod replay;
mod ring;

use std::collections::VecDeque;

pub use batch::{BATCH_ALIGN, Batch, BatchError, BatchHeader, Identity};
pub use record::{Record, RecordError};
pub use replay::{Replay, ReplayEnd, SegmentFault, find_batch, replay_segment};
pub use ring::{Placement, Ring, SegmentNumber};

/// The number of a batch; every record of a batch shares it. Ascends by one for the life of a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position(pub u64);

impl Position {
    /// The batch behind this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Proof that a record is on disk as `--durability` understands it. Made by [`Journal`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored<T>(T);

impl<T> Stored<T> {
    /// What is stored.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The writing end: records that wait for a commit, and what each commit will have earned.
///
/// `E` is what a record earns its writer once it is durable: an answer, a hand-over, a delivery.
#[derive(Debug)]
pub struct Journal<E> {
    open: Batch,
    full: VecDeque<Batch>,
    position: Position,
    committed: Position,
    waiting_octets: usize,
    batch_octets_max: usize,
    earned: VecDeque<(Position, E)>,
    spare: Vec<Vec<u8>>,
}

/// Buffers kept for the next batches.
const SPARE_MAX: usize = 4;

impl<E> Journal<E> {
    /// A journal whose next batch is the one behind `last`; a batch is closed when it has grown to
    /// `batch_octets_max` octets of records.
    pub fn resume(last: Position, batch_octets_max: usize) -> Self {
        Self {
            open: Batch::new(Vec::new()),
            full: VecDeque::new(),
            position: last.next(),
            committed: last,
            waiting_octets: 0,
            batch_octets_max,
            earned: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Adds a record to the open batch.
    pub fn append(&mut self, record: &Record<'_>) {
        if self.open.payload_octets() >= self.batch_octets_max {
            self.close_open();
        }
        self.waiting_octets += self.open.append(record);
    }

    /// What everything appended so far earns, once it is durable.
    pub fn earn(&mut self, earned: E) {
        self.earned.push_back((self.last(), earned));
    }

    /// The batch of the last record appended: once it is durable, so is everything so far.
    pub fn last(&self) -> Position {
        if self.open.is_empty() { Position(self.position.0 - 1) } else { self.position }
    }

    /// The batch that the next record goes to.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Every batch up to this one is durable.
    pub const fn committed(&self) -> Position {
        self.committed
    }

    /// Octets of records appended and not yet durable.
    pub const fn waiting_octets(&self) -> usize {
        self.waiting_octets
    }

    /// Whether there is a batch to write.
    pub fn has_batch(&self) -> bool {
        !self.full.is_empty() || !self.open.is_empty()
    }

    /// The next batch to write, with its number; one is in flight at a time.
    pub fn take_batch(&mut self) -> Option<(Position, Batch)> {
        if self.full.is_empty() && !self.open.is_empty() {
            self.close_open();
        }
        let batch = self.full.pop_front()?;
        let position = Position(self.position.0 - self.full.len() as u64 - 1);
        Some((position, batch))
    }

    /// The batch is durable: its buffer comes back, and what it earned can be taken.
    pub fn commit(&mut self, position: Position, batch: Batch) {
        assert!(position == self.committed.next(), "batches are committed in order");
        self.committed = position;
        self.waiting_octets -= batch.payload_octets();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(batch.into_buffer());
        }
    }

    /// The next thing a committed record earned, in the order of the records.
    pub fn take_earned(&mut self) -> Option<Stored<E>> {
        let (position, _) = self.earned.front()?;
        if *position > self.committed {
            return None;
        }
        self.earned.pop_front().map(|(_, earned)| Stored(earned))
    }

    /// Closes the open batch, so that everything recorded so far is durable with the batch returned.
    pub fn seal(&mut self) -> Position {
        if !self.open.is_empty() {
            self.close_open();
        }
        Position(self.position.0 - 1)
    }

    /// Gives up on everything not durable yet, but for the batch taken last when it may still be (`in_flight`);
    /// what the rest would have earned goes to `each`.
    pub fn abandon(&mut self, in_flight: bool, mut each: impl FnMut(E)) {
        let taken = Position(self.position.0 - self.full.len() as u64 - 1);
        let last = if in_flight { taken } else { self.committed };
        let (stored, lost): (VecDeque<_>, VecDeque<_>) =
            self.earned.drain(..).partition(|(position, _)| *position <= last);
        self.earned = stored;
        lost.into_iter().for_each(|(_, earned)| each(earned));
    }

    fn close_open(&mut self) {
        let next = Batch::new(self.spare.pop().unwrap_or_default());
        self.full.push_back(std::mem::replace(&mut self.open, next));
        self.position = self.position.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    const BATCH_OCTETS_MAX: usize = 1 << 20;

    fn settled(number: u64) -> Record<'static> {
        Record::Settled { id: MessageId::from_u64(number), part: 0 }
    }

    #[test]
    fn nothing_is_earned_before_its_batch_is_durable() {
        let mut journal = Journal::resume(Position(41), BATCH_OCTETS_MAX);
        journal.append(&settled(1));
        journal.earn('a');
        let (first, batch) = journal.take_batch().expect("a batch");
        journal.append(&settled(2));
        journal.earn('b');
        assert_eq!(first, Position(42));
        assert!(journal.take_earned().is_none());
        journal.commit(first, batch);
        assert_eq!(journal.take_earned().map(Stored::into_inner), Some('a'));
        assert!(journal.take_earned().is_none());
        let (second, batch) = journal.take_batch().expect("a batch");
        assert_eq!(second, Position(43));
        journal.commit(second, batch);
        assert_eq!(journal.take_earned().map(Stored::into_inner), Some('b'));
        assert_eq!((journal.waiting_octets(), journal.has_batch()), (0, false));
    }

    #[test]
    fn what_is_given_up_may_or_may_not_spare_the_batch_in_flight() {
        for (in_flight, given_up) in [(false, &['b', 'c'][..]), (true, &['c'])] {
            let mut journal = Journal::resume(Position(0), BATCH_OCTETS_MAX);
            let mut batches = Vec::new();
            for (number, earned) in (1..).zip(['a', 'b', 'c']) {
                journal.append(&settled(number));
                journal.earn(earned);
                if earned != 'c' {
                    batches.push(journal.take_batch().expect("a batch"));
                }
            }
            let mut batches = batches.into_iter();
            let (position, batch) = batches.next().expect("the first");
            journal.commit(position, batch);
            let mut lost = Vec::new();
            journal.abandon(in_flight, |earned| lost.push(earned));
            assert_eq!(lost, given_up);
            let (position, batch) = batches.next().expect("the second");
            journal.commit(position, batch);
            let paid: Vec<char> =
                std::iter::from_fn(|| journal.take_earned().map(Stored::into_inner)).collect();
            assert_eq!(paid.len() + lost.len(), 3);
        }
    }

    #[test]
    fn a_long_turn_makes_several_batches() {
        let mut journal = Journal::resume(Position(0), BATCH_OCTETS_MAX);
        let content = vec![0; 60_000];
        for number in 0..40 {
            journal.append(&Record::Accepted { attempt: None, content: &content });
            journal.earn(number);
        }
        let mut earned = 0;
        while let Some((position, batch)) = journal.take_batch() {
            assert!(batch.payload_octets() < BATCH_OCTETS_MAX + 70_000);
            journal.commit(position, batch);
            while let Some(stored) = journal.take_earned() {
                assert_eq!(stored.into_inner(), earned);
                earned += 1;
            }
        }
        assert_eq!((earned, journal.committed()), (40, Position(3)));
    }
}
