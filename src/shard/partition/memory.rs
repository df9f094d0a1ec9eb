//! What a partition has in memory, and which of it the journal still has to remember.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::finals::Finals;
use super::rest::{Rest, Retry, Trace};
use super::waiting::Waiting;
use super::{FastMap, HeldParcel};
use crate::account::{AccountIndex, Accounts};
use crate::journal::{Position, SegmentNumber};
use crate::message::{
    IdSource, Message, MessageId, MessageTable, Neighbourhood, ParcelKey, Spares, Standing, State,
};
use crate::store::{RestKey, RestNumber, RestPlace};
use crate::time::timers::{Tick, TimerId, Timers};
use crate::time::{Instant, Now, Timestamp};

/// What a message or parcel takes in memory beside its octets: its fields, its places in the tables, its timer.
pub(super) const BESIDE_OCTETS: usize = 320;

/// The tables of a partition. [`apply`](Self::apply) changes them, and nothing else does but for where things are kept.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) ids: IdSource,
    /// Short ids that were in use when their number came again: what has them is a round older than it seems.
    pub(super) passed_over: BTreeSet<MessageId>,
    pub(super) messages: MessageTable<MessageId, HeldMessage, Alarm>,
    pub(super) parcels: MessageTable<ParcelKey, HeldParcel, Alarm>,
    /// Those of them that wait to be offered to their account's home.
    pub(super) pending: FastMap<AccountIndex, BTreeSet<ParcelKey>>,
    pub(super) waiting: Waiting,
    /// Of messages that are over.
    pub(super) spares: Spares,
    pub(super) finals: Finals,
    /// A generation of final messages is full.
    pub(super) finals_full: bool,
    pub(super) wheels: Wheels,
    /// What was due when its alarm rang, and nobody has dealt with yet.
    pub(super) due: VecDeque<RestKey>,
    pub(super) credits_used: BTreeMap<Box<[u8]>, u64>,
    pub(super) journaled: Journaled,
    pub(super) rest: Rest,
    pub(super) parcel_retention: Duration,
    /// No pause before another attempt is longer.
    pub(super) retry_delay_max: Duration,
    /// The time, as far as it was told.
    pub(super) now: Now,
    /// What messages and parcels take, roughly.
    pub(super) octets: usize,
}

/// A message that is not over, and how it is kept.
#[derive(Debug)]
pub(super) struct HeldMessage {
    pub(super) message: Message,
    pub(super) kept: Kept,
    /// When the pause before its next attempt ends; [`Instant::MAX`] when it waits for no such thing.
    pub(super) paused_until: Instant,
}

impl HeldMessage {
    /// When it is to be looked at: for its next attempt, or when its validity ends.
    pub(super) fn due_at(&self) -> DueAt {
        DueAt::of_message(&self.message.standing, self.paused_until, self.message.expires_at())
    }
}

impl HeldParcel {
    /// When it is to be looked at: to be offered again, or given up.
    pub(super) const fn due_at(&self) -> DueAt {
        DueAt { date: self.expires_at, pause: self.paused_until }
    }
}

/// When something is to be looked at: at a date, or when a pause ends if that comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DueAt {
    /// By the wall clock.
    pub(super) date: Timestamp,
    /// By the monotonic clock; [`Instant::MAX`] when there is no pause.
    pub(super) pause: Instant,
}

impl DueAt {
    pub(super) const NEVER: Self = Self { date: Timestamp::MAX, pause: Instant::MAX };

    pub(super) const fn date(date: Timestamp) -> Self {
        Self { date, pause: Instant::MAX }
    }

    /// When a message is to be looked at: for its next attempt, or when its validity ends.
    pub(super) fn of_message(standing: &Standing, paused_until: Instant, expires_at: Timestamp) -> Self {
        if paused_until < Instant::MAX {
            Self { date: expires_at, pause: paused_until }
        } else {
            Self::date(standing.deadline.min(expires_at))
        }
    }

    /// Whether it is time.
    pub(super) fn has_come(self, now: Now) -> bool {
        self.date <= now.wall || self.pause <= now.instant
    }

    /// The first date and the first end of a pause of both.
    pub(super) fn min(self, other: Self) -> Self {
        Self { date: self.date.min(other.date), pause: self.pause.min(other.pause) }
    }
}

/// Where something would be found after a restart, in two words: there is one for each of millions of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    since: u64,
    place: u64,
}

impl Kept {
    const NONE: u64 = u64::MAX;

    /// In the journal alone, from this segment on.
    pub(super) const fn in_journal(since: SegmentNumber) -> Self {
        Self { since: since.0, place: Self::NONE }
    }

    /// At rest, as it is.
    pub(super) const fn at_rest(place: RestPlace) -> Self {
        Self { since: Self::NONE, place: (place.block.0 as u64) << 16 | place.slot as u64 }
    }

    /// The oldest segment of the journal that must be replayed to find it as it is; `None` when it is at rest so.
    pub(super) fn since(self) -> Option<SegmentNumber> {
        (self.since != Self::NONE).then_some(SegmentNumber(self.since))
    }

    /// Where it is at rest, perhaps in an older form.
    pub(super) fn place(self) -> Option<RestPlace> {
        let place = RestPlace { block: RestNumber((self.place >> 16) as u32), slot: self.place as u16 };
        (self.place != Self::NONE).then_some(place)
    }

    /// It changes: from this segment on it is found in the journal alone.
    const fn change(&mut self, since: SegmentNumber) {
        self.since = since.0;
    }
}

/// What a timer of a partition is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimerKey {
    Messages(Neighbourhood),
    Parcels(Neighbourhood),
    Block(RestNumber),
}

/// The timers of a partition: dates by the wall clock, pauses by the monotonic one.
#[derive(Debug)]
pub(super) struct Wheels {
    dates: Timers<Timestamp, TimerKey>,
    pauses: Timers<Instant, TimerKey>,
}

impl Wheels {
    pub(super) fn new() -> Self {
        Self { dates: Timers::new(), pauses: Timers::new() }
    }
}

/// The timers of a neighbourhood, or of a cold block: they ring no later than the first thing in it is due. Things come and
/// go by the hundred thousand before they are due, and so cost their timers nothing.
#[derive(Default, Debug)]
pub(super) struct Alarm {
    date: Option<(Timestamp, TimerId)>,
    pause: Option<(Instant, TimerId)>,
}

impl Alarm {
    /// Something is due at `at`.
    pub(super) fn set(&mut self, wheels: &mut Wheels, at: DueAt, key: TimerKey) {
        set_earlier(&mut self.date, &mut wheels.dates, at.date, key);
        if at.pause < Instant::MAX {
            set_earlier(&mut self.pause, &mut wheels.pauses, at.pause, key);
        }
    }

    /// One of the two has rung.
    const fn rang(&mut self, clock: Clock) {
        match clock {
            Clock::Wall => self.date = None,
            Clock::Monotonic => self.pause = None,
        }
    }

    /// Nothing is left that could be due.
    pub(super) fn clear(self, wheels: &mut Wheels) {
        self.date.into_iter().for_each(|(_, timer)| _ = wheels.dates.disarm(timer));
        self.pause.into_iter().for_each(|(_, timer)| _ = wheels.pauses.disarm(timer));
    }
}

/// Which clock has rung.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Clock {
    Wall,
    Monotonic,
}

/// Arms a timer, unless an earlier one is armed.
#[inline(always)]
fn set_earlier<T: Tick>(
    armed: &mut Option<(T, TimerId)>,
    timers: &mut Timers<T, TimerKey>,
    at: T,
    key: TimerKey,
) {
    if let Some((earlier, timer)) = *armed {
        if earlier <= at {
            return;
        }
        timers.disarm(timer);
    }
    *armed = Some((at, timers.arm(at, key)));
}

/// For each segment of the journal, what cannot do without it.
#[derive(Debug)]
pub(super) struct Journaled {
    segments: VecDeque<Segment>,
    /// Nothing outlives the process: there is nothing to remember.
    is_durable: bool,
}

/// What a checkpoint must look after before a segment may be forgotten.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: SegmentNumber,
    /// The first batch in it.
    pub(super) first: Position,
    /// Things whose [`Kept::since`] it was when they came here; they may have ended or moved on.
    pub(super) keys: Vec<RestKey>,
    /// Places at rest of what has ended: as long as this segment is replayed, replay must find it there.
    pub(super) gone: Vec<RestPlace>,
}

impl Journaled {
    pub(super) const fn new(is_durable: bool) -> Self {
        Self { segments: VecDeque::new(), is_durable }
    }

    /// A record goes to this batch of this segment.
    pub(super) fn note(&mut self, number: SegmentNumber, first: Position) {
        if self.is_durable && self.segments.back().is_none_or(|segment| segment.number < number) {
            self.segments.push_back(Segment { number, first, keys: Vec::new(), gone: Vec::new() });
        }
    }

    /// Something needs this segment from now on.
    pub(super) fn add(&mut self, number: SegmentNumber, key: RestKey) {
        if let Some(segment) = self.of(number) {
            segment.keys.push(key);
        }
    }

    /// Something that is at rest has ended; its end is no older than this segment.
    fn add_gone(&mut self, number: SegmentNumber, place: RestPlace) {
        if let Some(segment) = self.of(number) {
            segment.gone.push(place);
        }
    }

    fn of(&mut self, number: SegmentNumber) -> Option<&mut Segment> {
        // Nearly always the last.
        self.segments.iter_mut().rfind(|segment| segment.number <= number)
    }

    /// The oldest segment that a checkpoint may keep, from `keep_from` on, with its first batch.
    pub(super) fn kept_from(&self, keep_from: SegmentNumber) -> Option<(SegmentNumber, Position)> {
        let kept = self.segments.iter().find(|segment| segment.number >= keep_from);
        kept.map(|segment| (segment.number, segment.first))
    }

    /// The next thing that needs a segment below this one, with the number of that segment.
    pub(super) fn pop_key(&mut self, below: SegmentNumber) -> Option<(SegmentNumber, RestKey)> {
        let old = self.segments.iter_mut().take_while(|segment| segment.number < below);
        old.into_iter().find_map(|segment| Some((segment.number, segment.keys.pop()?)))
    }

    /// Whether something was noted for a segment below this one.
    pub(super) fn has_keys(&self, below: SegmentNumber) -> bool {
        let mut old = self.segments.iter().take_while(|segment| segment.number < below);
        old.any(|segment| !segment.keys.is_empty())
    }

    /// Takes everything that was noted for a segment, whose need of it somebody else looks after.
    pub(super) fn take_keys(&mut self, number: SegmentNumber) -> Vec<RestKey> {
        let segment = self.segments.iter_mut().find(|segment| segment.number == number);
        segment.map(|segment| std::mem::take(&mut segment.keys)).unwrap_or_default()
    }

    /// The next place at rest that no segment from this one on needs.
    pub(super) fn pop_gone(&mut self, below: SegmentNumber) -> Option<RestPlace> {
        let mut old = self.segments.iter_mut().take_while(|segment| segment.number < below);
        old.find_map(|segment| segment.gone.pop())
    }

    /// Forgets the segments below `keep_from`, of which nothing is left.
    pub(super) fn release(&mut self, keep_from: SegmentNumber) {
        while self.segments.front().is_some_and(|segment| segment.number < keep_from) {
            self.segments.pop_front();
        }
    }

    /// How many things need a segment, or did when they were noted.
    pub(super) fn keys(&self) -> usize {
        self.segments.iter().map(|segment| segment.keys.len()).sum()
    }
}

impl Memory {
    /// Something changed by a record of this segment. It needs the segment for a restart, unless it needs an older one
    /// anyway.
    pub(super) fn mark(journaled: &mut Journaled, kept: &mut Kept, at: SegmentNumber, key: RestKey) {
        if kept.since().is_none() {
            kept.change(at);
            journaled.add(at, key);
        }
    }

    /// Something has ended by a record of this segment. Where it is at rest it must stay until no segment is replayed
    /// that knew it.
    pub(super) fn mark_gone(&mut self, key: RestKey, kept: Kept, at: SegmentNumber) {
        if let Some(place) = kept.place() {
            self.journaled.add_gone(kept.since().unwrap_or(at), place);
            self.rest.end(place, key);
        }
    }

    /// Takes a message in: its timer, its place among those that wait.
    // Inlined, as is all that makes a message, so that its parts go from registers to where they stay: see `Partition::record`.
    #[inline(always)]
    pub(super) fn add_message(
        &mut self,
        id: MessageId,
        message: Message,
        kept: Kept,
        paused_until: Instant,
        accounts: &Accounts,
    ) -> &HeldMessage {
        let (held, alarm) = self.messages.insert(id, HeldMessage { message, kept, paused_until });
        alarm.set(&mut self.wheels, held.due_at(), TimerKey::Messages(Neighbourhood::of(id)));
        let place = self.waiting.place_of(&held.message, accounts);
        self.waiting.note(None, place);
        self.octets += BESIDE_OCTETS + held.message.content_octets().len();
        held
    }

    /// Takes a message out.
    pub(super) fn remove_message(&mut self, id: MessageId, accounts: &Accounts) -> Option<HeldMessage> {
        let (held, alarm) = self.messages.remove(id)?;
        self.octets -= BESIDE_OCTETS + held.message.content_octets().len();
        alarm.into_iter().for_each(|alarm| alarm.clear(&mut self.wheels));
        let place = self.waiting.place_of(&held.message, accounts);
        self.waiting.note(place, None);
        Some(held)
    }

    /// Takes a parcel in.
    pub(super) fn add_parcel(&mut self, key: ParcelKey, held: HeldParcel) {
        self.octets += BESIDE_OCTETS + held.parcel.as_octets().len();
        let at = held.due_at();
        let (_, alarm) = self.parcels.insert(key, held);
        alarm.set(&mut self.wheels, at, TimerKey::Parcels(Neighbourhood::of(key.id)));
    }

    /// A message waits for the end of a pause before it goes on.
    pub(super) fn pause_message(&mut self, id: MessageId, until: Instant) {
        if let Some((held, alarm)) = self.messages.get_with_note(id) {
            held.paused_until = until;
            alarm.set(&mut self.wheels, held.due_at(), TimerKey::Messages(Neighbourhood::of(id)));
        }
    }

    /// A parcel waits for the end of a pause before it is offered again; for none when that is [`Instant::MAX`].
    pub(super) fn pause_parcel(&mut self, key: ParcelKey, until: Instant) {
        if let Some((held, alarm)) = self.parcels.get_with_note(key) {
            held.paused_until = until;
            alarm.set(&mut self.wheels, held.due_at(), TimerKey::Parcels(Neighbourhood::of(key.id)));
        }
    }

    /// Something left its timer, and is not due after all: the clock was put back before its turn came. Its timer is set
    /// again, or nothing would ever come back to it.
    pub(super) fn set_alarm_again(&mut self, key: RestKey) {
        match key {
            RestKey::Message(id) => {
                if let Some((held, alarm)) = self.messages.get_with_note(id) {
                    alarm.set(&mut self.wheels, held.due_at(), TimerKey::Messages(Neighbourhood::of(id)));
                }
            }
            RestKey::Parcel(key) => {
                if let Some((held, alarm)) = self.parcels.get_with_note(key) {
                    alarm.set(&mut self.wheels, held.due_at(), TimerKey::Parcels(Neighbourhood::of(key.id)));
                }
            }
        }
    }

    /// The next thing that is due: a block has its own way.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<DueThing> {
        loop {
            if let Some(key) = self.due.pop_front() {
                return Some(DueThing::Of(key));
            }
            let dated = self.wheels.dates.pop_due(now.wall).map(|(_, key)| (key, Clock::Wall));
            let paused = || self.wheels.pauses.pop_due(now.instant).map(|(_, key)| (key, Clock::Monotonic));
            let (key, clock) = dated.or_else(paused)?;
            match key {
                TimerKey::Block(number) => return Some(DueThing::Block(number)),
                TimerKey::Messages(neighbourhood) => {
                    let Some((things, alarm)) = self.messages.neighbourhood(neighbourhood) else { continue };
                    let things = things.map(|(id, held)| (held.due_at(), RestKey::Message(id)));
                    let next = sort_out(things, now, &mut self.due);
                    alarm.rang(clock);
                    next.into_iter().for_each(|at| alarm.set(&mut self.wheels, at, key));
                }
                TimerKey::Parcels(neighbourhood) => {
                    let Some((things, alarm)) = self.parcels.neighbourhood(neighbourhood) else { continue };
                    let things = things.map(|(key, held)| (held.due_at(), RestKey::Parcel(key)));
                    let next = sort_out(things, now, &mut self.due);
                    alarm.rang(clock);
                    next.into_iter().for_each(|at| alarm.set(&mut self.wheels, at, key));
                }
            }
        }
    }

    /// Takes a parcel out.
    pub(super) fn remove_parcel(&mut self, key: ParcelKey) -> Option<HeldParcel> {
        let (held, alarm) = self.parcels.remove(key)?;
        self.octets -= BESIDE_OCTETS + held.parcel.as_octets().len();
        alarm.into_iter().for_each(|alarm| alarm.clear(&mut self.wheels));
        // What is with its home does not wait to be offered.
        if !held.in_flight
            && let Some(pending) = self.pending.get_mut(&held.account)
        {
            pending.remove(&key);
        }
        Some(held)
    }

    /// How something is kept, if it has not ended.
    pub(super) fn kept_mut(&mut self, key: RestKey) -> Option<&mut Kept> {
        match key {
            RestKey::Message(id) => self.messages.get_mut(id).map(|held| &mut held.kept),
            RestKey::Parcel(key) => self.parcels.get_mut(key).map(|held| &mut held.kept),
        }
    }

    /// When something would be due and what it would be found by, if it may leave memory: it is at rest in this place, as
    /// it is, and nothing waits for it.
    pub(super) fn trace(
        &self,
        key: RestKey,
        place: RestPlace,
        accounts: &Accounts,
    ) -> Option<(DueAt, Trace)> {
        let at_rest = Kept::at_rest(place);
        match key {
            RestKey::Message(id) => {
                let held = self.messages.get(id).filter(|held| held.kept == at_rest)?;
                let state = held.message.standing.state;
                let pair = || self.waiting.pair_of(&held.message.content(), accounts);
                let pair = if state.is_waiting() { pair() } else { None };
                let trace = Trace::Message { id, pair, paused_until: held.paused_until };
                (state != State::Attempting).then(|| (held.due_at(), trace))
            }
            RestKey::Parcel(key) => {
                let held = self.parcels.get(key).filter(|held| held.kept == at_rest && !held.in_flight)?;
                let HeldParcel { attempts, paused_until, .. } = *held;
                let is_pending =
                    self.pending.get(&held.account).is_some_and(|pending| pending.contains(&key));
                // One that was refused waits for its time, and not for its account to take the next. Once that has come it
                // waits for its account again, though perhaps it is not among those that do yet.
                let is_paused = paused_until < Instant::MAX;
                let account = (!is_paused || is_pending).then_some(held.account);
                let retry = (attempts > 0).then_some(Retry { attempts, paused_until });
                Some((held.due_at(), Trace::Parcel { key, account, retry }))
            }
        }
    }
}

/// Something whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DueThing {
    /// A message or a parcel; it may have changed since its alarm rang.
    Of(RestKey),
    /// A cold block in which something is due.
    Block(RestNumber),
}

/// Puts what is due by `now` behind `due`; when the first of the others is.
fn sort_out(
    things: impl Iterator<Item = (DueAt, RestKey)>,
    now: Now,
    due: &mut VecDeque<RestKey>,
) -> Option<DueAt> {
    let mut next = None;
    for (at, key) in things {
        if at.has_come(now) {
            due.push_back(key);
        } else {
            next = Some(next.map_or(at, |next: DueAt| next.min(at)));
        }
    }
    next
}
