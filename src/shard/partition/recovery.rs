//! From what is at rest and what the journal holds to a partition that goes on.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use foldhash::fast::RandomState;

use super::apply::{ApplyError, Source, subject};
use super::finals::Finals;
use super::memory::{Journaled, Memory, Wheels};
use super::rest::Rest;
use super::waiting::Waiting;
use super::{FastMap, PartitionSettings};
use crate::account::Accounts;
use crate::journal::{JournalStart, Position, Record, SegmentNumber};
use crate::message::{IdSource, Message, MessageTable, Parcel, PartitionNumber, Spares};
use crate::store::{Checkpoint, FinalMessage, RestKey, RestNumber, RestPlace, rest_entries};
use crate::time::Now;

/// A partition in recovery. Show it the whole journal ([`foresee`](Self::foresee)), then give it what is at rest
/// ([`restore`](Self::restore)), block by block, then the journal ([`replay`](Self::replay)), then
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recovery {
    number: PartitionNumber,
    settings: PartitionSettings,
    memory: Memory,
    /// The checkpoint's sum of credits holds the journal up to this batch.
    credits_as_of: Position,
    /// What the journal speaks of.
    foreseen: HashSet<RestKey, RandomState>,
    /// Of that, what is at rest holds the journal up to these batches.
    at_rest_as_of: FastMap<RestKey, Position>,
    to_resume: BTreeSet<RestNumber>,
}

/// A partition, ready to go on.
#[derive(Debug)]
pub struct Recovered {
    pub(super) number: PartitionNumber,
    pub(super) settings: PartitionSettings,
    pub(super) memory: Memory,
    pub(super) journal: JournalStart,
    pub(super) to_resume: BTreeSet<RestNumber>,
}

/// A record from the state at rest or the journal that this version cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unrecoverable;

impl Recovery {
    /// An empty partition, as `checkpoint` left it. Pauses that have begun go on from `now`.
    pub fn new(
        number: PartitionNumber,
        node: u8,
        settings: PartitionSettings,
        checkpoint: &Checkpoint,
        now: Now,
    ) -> Self {
        let mut ids = IdSource::new(node, number);
        checkpoint.floors.iter().for_each(|floor| ids.observe(*floor));
        let memory = Memory {
            ids,
            passed_over: BTreeSet::new(),
            messages: MessageTable::new(),
            parcels: MessageTable::new(),
            pending: FastMap::default(),
            waiting: Waiting::default(),
            finals: Finals::new(checkpoint.next_generation),
            finals_full: false,
            wheels: Wheels::new(),
            due: VecDeque::new(),
            spares: Spares::default(),
            credits_used: checkpoint.credits_used.iter().cloned().collect::<BTreeMap<_, _>>(),
            journaled: Journaled::new(settings.is_durable),
            rest: Rest::new(checkpoint.next_rest),
            parcel_retention: settings.parcel_retention,
            retry_delay_max: settings.retry_delay_max,
            now,
            octets: 0,
        };
        Self {
            number,
            settings,
            memory,
            credits_as_of: checkpoint.as_of,
            foreseen: HashSet::default(),
            at_rest_as_of: FastMap::default(),
            to_resume: BTreeSet::new(),
        }
    }

    /// The records of one batch, before anything is restored: what they speak of must be in memory when they are
    /// replayed, however short that is.
    ///
    /// # Errors
    /// A record cannot be read though its batch was whole: it comes from another version.
    pub fn foresee(&mut self, mut records: &[u8]) -> Result<(), Unrecoverable> {
        while let Some(record) = Record::take(&mut records).map_err(|_| Unrecoverable)? {
            self.foreseen.extend(subject(&record));
        }
        Ok(())
    }

    /// A block of unfinished things, as [`StoreOp::PutRest`](crate::store::StoreOp::PutRest) kept it, and what has gone
    /// of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restore(
        &mut self,
        number: RestNumber,
        octets: &[u8],
        gone: Vec<u16>,
        accounts: &Accounts,
    ) -> Result<(), Unrecoverable> {
        let mut entries = Vec::new();
        for (slot, entry) in (0..).zip(rest_entries(octets)) {
            let (as_of, record) = entry.map_err(|_| Unrecoverable)?;
            entries.push((slot, as_of, subject(&record).ok_or(Unrecoverable)?, record));
        }
        let is_live = |slot: &u16| !gone.contains(slot);
        let is_foreseen = entries.iter().any(|(slot, _, key, _)| is_live(slot) && self.is_foreseen(*key));
        if !is_foreseen && self.memory.octets > self.settings.messages_octets_max / 2 {
            if self.memory.restore_cold(number, octets, gone, accounts)? {
                self.to_resume.insert(number);
            }
            return Ok(());
        }
        for (slot, as_of, key, record) in &entries {
            if !is_live(slot) {
                continue;
            }
            let place = RestPlace { block: number, slot: *slot };
            self.memory.apply(record, &Source::Rest(place), accounts).map_err(|_| Unrecoverable)?;
            if self.is_foreseen(*key) {
                self.at_rest_as_of.insert(*key, *as_of);
            }
        }
        let members = entries.iter().map(|(_, _, key, _)| *key).collect();
        self.memory.rest.restore(number, members, gone);
        Ok(())
    }

    /// Blocks of unfinished things that were restored, and things in them that had not gone: as many as the checkpoint
    /// [says](Checkpoint::at_rest), or something is lost.
    pub fn at_rest(&self) -> (u64, u64) {
        self.memory.rest.at_rest()
    }

    /// Whether the journal speaks of something, or of the message that it is about.
    pub fn is_foreseen(&self, key: RestKey) -> bool {
        self.foreseen.contains(&key)
            || matches!(key, RestKey::Parcel(key) if self.foreseen.contains(&RestKey::Message(key.id)))
    }

    /// The records of one batch of the journal.
    ///
    /// # Errors
    /// A record cannot be read though its batch was whole: it comes from another version.
    pub fn replay(
        &mut self,
        segment: SegmentNumber,
        position: Position,
        mut records: &[u8],
        accounts: &Accounts,
    ) -> Result<(), Unrecoverable> {
        self.memory.journaled.note(segment, position);
        let source = Source::Journal { segment, counts_credits: position > self.credits_as_of };
        while let Some(record) = Record::take(&mut records).map_err(|_| Unrecoverable)? {
            let key = subject(&record).ok_or(Unrecoverable)?;
            // What was put to rest later than this record holds it already.
            if self.at_rest_as_of.get(&key).is_some_and(|as_of| position <= *as_of) {
                continue;
            }
            // A record about something that is gone by now changes nothing.
            match self.memory.apply(&record, &source, accounts) {
                Ok(_) | Err(ApplyError::Refused(_) | ApplyError::Unknown) => {}
                Err(ApplyError::Unreadable) => return Err(Unrecoverable),
            }
        }
        Ok(())
    }

    /// Messages that are not over, and unsettled parcels, so far.
    pub fn unfinished(&self) -> (usize, usize) {
        let (messages, parcels) = self.memory.rest.cold();
        (self.memory.messages.len() + messages, self.memory.parcels.len() + parcels)
    }

    /// The messages in memory that are not over.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.memory.messages.iter().map(|(_, held)| &held.message)
    }

    /// The parcels in memory that are not settled.
    pub fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        self.memory.parcels.iter().map(|(_, held)| &held.parcel)
    }

    /// The messages that ended in what was replayed; some may be at rest as well.
    pub fn finals(&self) -> impl Iterator<Item = FinalMessage<'_>> {
        self.memory.finals.iter()
    }

    /// Credits that accounts have used, as far as the journal was replayed.
    pub fn credits_used(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.memory.credits_used.iter().map(|(system_id, used)| (&**system_id, *used))
    }

    /// Everything was replayed; the journal goes on at `journal`.
    pub fn finish(self, journal: JournalStart) -> Recovered {
        let Self { number, settings, mut memory, to_resume, .. } = self;
        memory.finals.begin_behind(journal.last);
        Recovered { number, settings, memory, journal, to_resume }
    }
}

impl Recovered {
    /// Which partition it is.
    pub const fn number(&self) -> PartitionNumber {
        self.number
    }

    /// Credits that accounts have used here, ever.
    pub fn credits_used(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.memory.credits_used.iter().map(|(system_id, used)| (&**system_id, *used))
    }

    /// The place of the carrier of each message in memory that a carrier has, or may have.
    pub fn carriers(&self) -> impl Iterator<Item = u8> {
        let standing = self.memory.messages.iter().map(|(_, held)| held.message.standing);
        standing.filter(|standing| !standing.state.is_waiting()).map(|standing| standing.carrier)
    }

    /// Whether carriers have, or may have, messages that are at rest alone.
    pub fn has_more_with_carriers(&self) -> bool {
        !self.to_resume.is_empty()
    }
}
