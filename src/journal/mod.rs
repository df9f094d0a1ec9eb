//! The durable log of a partition: records in batches, batches in segments, and how to read them back.
//!
//! Here is only the form and the order of things. Files are opened, written and synced in `server`: batches
//! go out through [`Journal::take_batch`], and what became of them comes back through [`Journal::commit`].

mod batch;
mod record;
mod replay;
mod ring;

use std::collections::VecDeque;
use std::fmt;

pub use batch::{BATCH_ALIGN, BATCH_OCTETS_MAX, Batch, BatchBuffer, BatchError, BatchHeader, Identity};
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

/// Makes a buffer for a batch: so many octets long.
pub type Buffers = Box<dyn FnMut(usize) -> Box<dyn BatchBuffer>>;

/// The writing end: records that wait for a commit, and what each commit will have earned.
///
/// `E` is what a record earns its writer once it is durable: an answer, a hand-over, a delivery.
pub struct Journal<E> {
    identity: Identity,
    ring: Ring,
    /// The batch that records go to; made with its first record.
    open: Option<Batch>,
    full: VecDeque<Batch>,
    /// The number of the open batch, or of the next one.
    position: Position,
    committed: Position,
    /// The last batch that was given out to be written, and the last that somebody waits for.
    taken: Position,
    wanted: Position,
    waiting_octets: usize,
    earned: VecDeque<(Position, E)>,
    buffers: Buffers,
    spare: Vec<Box<dyn BatchBuffer>>,
}

/// Where a journal goes on.
#[derive(Debug)]
pub struct JournalStart {
    /// What its batches carry.
    pub identity: Identity,
    /// Its segments and files.
    pub ring: Ring,
    /// Its last batch.
    pub last: Position,
}

/// Buffers kept for the next batches.
const SPARE_MAX: usize = 4;

impl<E> Journal<E> {
    /// A journal that goes on at `start`.
    pub fn resume(start: JournalStart, buffers: Buffers) -> Self {
        let JournalStart { identity, ring, last } = start;
        Self {
            identity,
            ring,
            open: None,
            full: VecDeque::new(),
            position: last.next(),
            committed: last,
            taken: last,
            wanted: last,
            waiting_octets: 0,
            earned: VecDeque::new(),
            buffers,
            spare: Vec::new(),
        }
    }

    /// Adds a record to the open batch.
    pub fn append(&mut self, record: &Record<'_>) {
        let octets = record.octets();
        if self.open.as_ref().is_some_and(|open| !open.fits(octets)) {
            self.close_open();
            self.want();
        }
        if self.open.is_none() {
            self.open = Some(self.begin());
        }
        if let Some(open) = &mut self.open {
            open.append(record, octets);
        }
        self.waiting_octets += octets;
    }

    /// Has the next records, so many octets, share a batch; false when that is more than a batch holds.
    pub fn keep_together(&mut self, octets: usize) -> bool {
        if self.open.as_ref().is_some_and(|open| !open.fits(octets)) {
            self.close_open();
            self.want();
        }
        octets <= Batch::payload_octets_max(self.ring.batch_octets_max())
    }

    /// What everything appended so far earns, once it is durable.
    pub fn earn(&mut self, earned: E) {
        self.earned.push_back((self.last(), earned));
    }

    /// The batch of the last record appended: once it is durable, so is everything so far.
    pub fn last(&self) -> Position {
        if self.open.is_some() { self.position } else { Position(self.position.0 - 1) }
    }

    /// The segment and the batch that a record goes to if it is the next.
    pub fn place_for(&self, record: &Record<'_>) -> (SegmentNumber, Position) {
        match &self.open {
            Some(open) if open.fits(record.octets()) => (open.placement().segment, self.position),
            Some(open) => (self.ring.segment_behind(open.aligned_octets()), self.position.next()),
            None => (self.ring.segment_behind(0), self.position),
        }
    }

    /// The segment that the last record went to.
    pub fn segment(&self) -> SegmentNumber {
        self.ring.current()
    }

    /// Every batch up to this one is durable.
    pub const fn committed(&self) -> Position {
        self.committed
    }

    /// Octets of records appended and not yet durable.
    pub const fn waiting_octets(&self) -> usize {
        self.waiting_octets
    }

    /// Whether there are records that nobody writes yet.
    pub fn has_batch(&self) -> bool {
        !self.full.is_empty() || self.open.is_some()
    }

    /// Somebody waits for what was recorded so far. What nobody waits for shares its batch with what comes later, as a
    /// batch that holds it alone would keep others waiting.
    pub fn want(&mut self) {
        self.wanted = self.last();
    }

    /// Whether there is a batch that somebody waits for, and nobody writes yet.
    pub fn is_wanted(&self) -> bool {
        self.wanted > self.taken && self.has_batch()
    }

    /// The next batch to write, sealed; one is in flight at a time. `None` as well while its segment has no file.
    pub fn take_batch(&mut self) -> Option<Batch> {
        if self.full.is_empty() {
            self.close_open();
        }
        let segment = self.full.front()?.placement().segment;
        let file = self.ring.file_of(segment)?;
        let mut batch = self.full.pop_front()?;
        batch.placement_mut().file = file;
        batch.seal(self.identity);
        self.taken = batch.position();
        Some(batch)
    }

    /// The batch at this position is durable: what it earned can be taken. Its buffer, if it can be used again.
    pub fn commit(&mut self, position: Position, payload_octets: usize, spare: Option<Box<dyn BatchBuffer>>) {
        assert!(position == self.committed.next(), "batches are committed in order");
        self.committed = position;
        self.waiting_octets -= payload_octets;
        self.spare.extend(spare.filter(|_| self.spare.len() < SPARE_MAX));
    }

    /// Without a disk, whatever was appended is as durable as it will ever be.
    pub fn commit_unwritten(&mut self) {
        let batches = self.full.drain(..).chain(self.open.take());
        self.spare.extend(batches.map(Batch::into_buffer));
        self.spare.truncate(SPARE_MAX);
        self.position = self.position.next();
        self.committed = Position(self.position.0 - 1);
        self.taken = self.committed;
        self.waiting_octets = 0;
        self.ring.release_below(self.ring.current());
    }

    /// The next thing a committed record earned, in the order of the records.
    pub fn take_earned(&mut self) -> Option<Stored<E>> {
        let (position, _) = self.earned.front()?;
        if *position > self.committed {
            return None;
        }
        self.earned.pop_front().map(|(_, earned)| Stored(earned))
    }

    /// Whether a committed record earned something that was not taken yet.
    pub fn has_earned(&self) -> bool {
        self.earned.front().is_some_and(|(position, _)| *position <= self.committed)
    }

    /// Closes the open batch, so that everything recorded so far is durable with the batch returned.
    pub fn seal(&mut self) -> Position {
        self.close_open();
        Position(self.position.0 - 1)
    }

    /// A write has failed: gives up on everything not durable yet; what it would have earned goes to `each`.
    pub fn abandon(&mut self, each: impl FnMut(E)) {
        self.abandon_behind(self.committed, each);
    }

    /// No more files are made: gives up on what has none; what it would have earned goes to `each`.
    pub fn abandon_without_file(&mut self, each: impl FnMut(E)) {
        let ring = &mut self.ring;
        let without = |batch: &&Batch| ring.file_of(batch.placement().segment).is_none();
        if let Some(first) = self.full.iter().chain(&self.open).find(without).map(Batch::position) {
            self.abandon_behind(Position(first.0 - 1), each);
        }
    }

    fn abandon_behind(&mut self, last: Position, mut each: impl FnMut(E)) {
        self.full.retain(|batch| batch.position() <= last);
        self.open = self.open.take().filter(|batch| batch.position() <= last);
        let kept = self.earned.partition_point(|(position, _)| *position <= last);
        self.earned.split_off(kept).into_iter().for_each(|(_, earned)| each(earned));
    }

    /// The file to be made next, if one is wanted.
    pub fn file_wanted(&mut self) -> Option<u32> {
        self.ring.file_wanted()
    }

    /// A file that was wanted is there.
    pub fn add_file(&mut self, file: u32) {
        self.ring.add_file(file);
    }

    /// A file that was wanted cannot be made now: it is wanted again.
    pub fn miss_file(&mut self, file: u32) {
        self.ring.miss_file(file);
    }

    /// Nothing below this segment is needed any more.
    pub fn release_below(&mut self, keep: SegmentNumber) {
        self.ring.release_below(keep);
    }

    /// Segments that hold something needed.
    pub fn segments_in_use(&self) -> usize {
        self.ring.segments_in_use()
    }

    fn begin(&mut self) -> Batch {
        let (segment, offset) = self.ring.begin();
        let buffer = self.spare.pop().unwrap_or_else(|| (self.buffers)(self.ring.batch_octets_max()));
        // Its file is known when it is written.
        Batch::new(Placement { segment, file: u32::MAX, offset }, self.position, buffer)
    }

    fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.ring.end(open.aligned_octets());
            self.full.push_back(open);
            self.position = self.position.next();
        }
    }
}

impl<E> fmt::Debug for Journal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, committed, waiting_octets, .. } = self;
        write!(f, "Journal(at {position:?}, {committed:?} committed, {waiting_octets} octets wait)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, PartitionNumber};

    fn settled(number: u64) -> Record<'static> {
        Record::Settled { id: MessageId::from_u64(number), part: 0 }
    }

    fn journal<E>(last: u64, batch_octets_max: usize) -> Journal<E> {
        let start = JournalStart {
            identity: Identity { partition: PartitionNumber(0), salt: 1 },
            ring: Ring::resume(8 << 20, batch_octets_max, &[], SegmentNumber(0), 3),
            last: Position(last),
        };
        Journal::resume(start, Box::new(|octets| Box::new(vec![0xFF; octets])))
    }

    fn commit<E>(journal: &mut Journal<E>, batch: Batch) {
        journal.commit(batch.position(), batch.payload_octets(), Some(batch.into_buffer()));
    }

    #[test]
    fn nothing_is_earned_before_its_batch_is_durable() {
        let mut journal = journal(41, BATCH_OCTETS_MAX);
        journal.append(&settled(1));
        journal.earn('a');
        let first = journal.take_batch().expect("a batch");
        journal.append(&settled(2));
        journal.earn('b');
        assert_eq!(first.position(), Position(42));
        assert!(journal.take_earned().is_none());
        commit(&mut journal, first);
        assert_eq!(journal.take_earned().map(Stored::into_inner), Some('a'));
        assert!(journal.take_earned().is_none());
        let second = journal.take_batch().expect("a batch");
        assert_eq!(second.position(), Position(43));
        commit(&mut journal, second);
        assert_eq!(journal.take_earned().map(Stored::into_inner), Some('b'));
        assert_eq!((journal.waiting_octets(), journal.has_batch()), (0, false));
    }

    #[test]
    fn what_nobody_waits_for_is_written_with_what_somebody_does() {
        let mut journal = journal::<()>(0, BATCH_OCTETS_MAX);
        journal.append(&settled(1));
        assert_eq!((journal.has_batch(), journal.is_wanted()), (true, false));
        journal.append(&settled(2));
        journal.want();
        assert!(journal.is_wanted());
        let batch = journal.take_batch().expect("a batch");
        assert_eq!(batch.payload_octets(), 2 * settled(1).octets());
        journal.append(&settled(3));
        assert!(!journal.is_wanted(), "what is wanted is on its way");
        commit(&mut journal, batch);
        assert_eq!((journal.has_batch(), journal.is_wanted()), (true, false));
        let content = vec![0; BATCH_OCTETS_MAX / 2];
        for _ in 0..2 {
            journal.append(&Record::Accepted { attempt: None, content: &content });
        }
        assert!(journal.is_wanted(), "a full batch waits for nobody");
    }

    #[test]
    fn what_a_failed_write_leaves_is_given_up_and_nothing_before() {
        let mut journal = journal(0, BATCH_OCTETS_MAX);
        journal.append(&settled(1));
        journal.earn('a');
        let first = journal.take_batch().expect("a batch");
        commit(&mut journal, first);
        for (number, earned) in (2..).zip(['b', 'c']) {
            journal.append(&settled(number));
            journal.earn(earned);
            if earned == 'b' {
                journal.take_batch().expect("a batch");
            }
        }
        let mut lost = Vec::new();
        journal.abandon(|earned| lost.push(earned));
        assert_eq!(lost, ['b', 'c']);
        assert_eq!(journal.take_earned().map(Stored::into_inner), Some('a'));
        assert!(journal.take_earned().is_none() && !journal.has_batch());
    }

    #[test]
    fn what_has_no_file_is_given_up_when_none_is_made_any_more() {
        let mut journal = journal(0, BATCH_OCTETS_MAX);
        let content = vec![0; 1_000_000];
        // Three files of eight batches, and more than they hold.
        for number in 0..30 {
            journal.append(&Record::Accepted { attempt: None, content: &content });
            journal.earn(number);
        }
        let mut lost = Vec::new();
        journal.abandon_without_file(|earned| lost.push(earned));
        let mut paid = Vec::new();
        while let Some(batch) = journal.take_batch() {
            commit(&mut journal, batch);
            paid.extend(std::iter::from_fn(|| journal.take_earned().map(Stored::into_inner)));
        }
        assert!(!journal.has_batch() && !lost.is_empty() && paid.len() > 20, "{lost:?}");
        assert_eq!([paid, lost].concat(), (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_together_shares_a_batch() {
        let mut journal = journal(0, BATCH_OCTETS_MAX);
        let content = vec![0; BATCH_OCTETS_MAX / 4];
        let record = Record::Accepted { attempt: None, content: &content };
        journal.append(&record);
        journal.append(&record);
        let before = journal.last();
        assert!(journal.keep_together(3 * record.octets()) && journal.is_wanted());
        for number in 0..3 {
            journal.append(&record);
            journal.earn(number);
            assert_eq!(journal.last(), before.next());
        }
        let most = BATCH_OCTETS_MAX - Batch::payload_octets_max(BATCH_OCTETS_MAX);
        assert!(journal.keep_together(BATCH_OCTETS_MAX - most));
        assert!(!journal.keep_together(BATCH_OCTETS_MAX - most + 1));
    }

    #[test]
    fn a_long_turn_makes_several_batches_one_behind_the_other() {
        let mut journal = journal(0, BATCH_OCTETS_MAX);
        let content = vec![0; 60_000];
        for number in 0..40 {
            journal.append(&Record::Accepted { attempt: None, content: &content });
            journal.earn(number);
        }
        let (mut earned, mut offset) = (0, 0);
        while let Some(batch) = journal.take_batch() {
            assert_eq!((batch.placement().segment, batch.placement().offset), (SegmentNumber(1), offset));
            assert_eq!(batch.octets().len(), batch.aligned_octets());
            offset += batch.aligned_octets() as u64;
            commit(&mut journal, batch);
            while let Some(stored) = journal.take_earned() {
                assert_eq!(stored.into_inner(), earned);
                earned += 1;
            }
        }
        assert_eq!((earned, journal.committed()), (40, Position(3)));
    }

    #[test]
    fn without_a_disk_few_buffers_are_kept_however_many_there_were() {
        let mut journal = journal::<()>(0, BATCH_OCTETS_MAX);
        let content = vec![0; 600_000];
        for _ in 0..3 {
            for _ in 0..4 * SPARE_MAX {
                journal.append(&Record::Accepted { attempt: None, content: &content });
            }
            journal.commit_unwritten();
            assert_eq!((journal.spare.len(), journal.waiting_octets()), (SPARE_MAX, 0));
        }
    }

    #[test]
    fn a_batch_waits_until_its_segment_has_a_file() {
        let mut journal = journal::<()>(0, BATCH_OCTETS_MAX);
        let content = vec![0; 1_000_000];
        for _ in 0..29 {
            journal.append(&Record::Accepted { attempt: None, content: &content });
        }
        assert_eq!(journal.file_wanted(), Some(3));
        let mut written = 0;
        while let Some(batch) = journal.take_batch() {
            written += 1;
            commit(&mut journal, batch);
        }
        assert!(written < 29 && journal.has_batch(), "{written}");
        journal.add_file(3);
        assert_eq!(journal.take_batch().map(|batch| batch.placement().file), Some(3));
    }

    #[test]
    fn the_segment_asked_for_is_that_of_the_next_record() {
        for batch_octets_max in [110_000, 250_000, BATCH_OCTETS_MAX] {
            let mut journal = journal::<()>(0, batch_octets_max);
            let content = vec![0; 100_000];
            for _ in 0..200 {
                let record = Record::Accepted { attempt: None, content: &content };
                let (segment, _) = journal.place_for(&record);
                journal.append(&record);
                assert_eq!(journal.segment(), segment);
                let placed = journal.open.as_ref().map(|open| open.placement().segment);
                assert_eq!(placed, Some(segment));
            }
        }
    }
}
