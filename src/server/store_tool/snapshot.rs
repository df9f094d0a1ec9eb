//! A partition at one moment: what a restart would find, without taking all of it into memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use super::journal::{Found, JournalScan, Walked};
use super::{Failure, Fault, Opened, Partitions};
use crate::account::Accounts;
use crate::journal::{Position, Record};
use crate::message::{MessageId, PartitionNumber};
use crate::server::state::RestEntry;
use crate::shard::{PartitionSettings, Recovery, subject};
use crate::store::{
    Block, BlockKey, Checkpoint, FinalMessage, RestKey, RestPlace, gone_from_octets, rest_entries,
};
use crate::time::Now;

/// How often a store is read anew that a server has changed meanwhile.
const ATTEMPTS: u32 = 10;
/// Before it is.
const PAUSE: Duration = Duration::from_millis(100);

/// What is seen on the way; everything is what it was at one moment.
pub(super) trait Visitor {
    /// A block of unfinished things, with what has gone of it; or what there is instead.
    fn block(&mut self, _octets: usize, _live: usize, _gone: usize) {}

    /// Something unfinished at rest that the journal does not speak of.
    ///
    /// # Errors
    /// Nobody takes the answer.
    fn at_rest(&mut self, place: RestPlace, as_of: Position, record: &Record<'_>) -> Result<(), Failure>;
}

/// What has been found.
pub(super) struct Snapshot {
    pub(super) checkpoint: Checkpoint,
    pub(super) scan: JournalScan,
    pub(super) walked: Walked,
    /// What the journal speaks of.
    pub(super) recovery: Recovery,
    /// What is wrong.
    pub(super) faults: Vec<Fault>,
    /// Blocks that no checkpoint vouches for: the journal still holds all of them.
    pub(super) blocks_unvouched: u64,
}

/// Reads a partition. What a server changes while it is read is read anew, by a new visitor.
///
/// # Errors
/// Something cannot be read at all, or is changed too often.
pub(super) fn take<V: Visitor>(
    opened: &Opened,
    partitions: &dyn Partitions,
    mut visitor: impl FnMut() -> Result<V, Failure>,
) -> Result<(Snapshot, V), Failure> {
    let attempts = if opened.is_live { ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let mut visitor = visitor()?;
        match try_take(opened, partitions, &mut visitor) {
            Ok(ControlFlow::Break(snapshot)) => {
                // While a batch is being written it may look like damage.
                if snapshot.faults.is_empty() || attempt == attempts {
                    return Ok((snapshot, visitor));
                }
            }
            Err(Failure::Store(message)) if attempt == attempts => return Err(message.into()),
            Err(failure @ (Failure::Output(_) | Failure::Trouble(_))) => return Err(failure),
            Ok(ControlFlow::Continue(())) | Err(Failure::Store(_)) => {}
        }
        thread::sleep(PAUSE);
    }
    Err(Failure::Store(format!(
        "partition {} changes faster than it can be read: try again when there is less traffic, or with a copy",
        opened.number
    )))
}

/// A view of a partition; nothing when a server has changed it meanwhile.
fn try_take(
    opened: &Opened,
    partitions: &dyn Partitions,
    visitor: &mut impl Visitor,
) -> Result<ControlFlow<Snapshot>, Failure> {
    let number = opened.number;
    let at_rest = |error: std::io::Error| opened.told(&error);
    let identity = opened.at_rest.identity(number).map_err(at_rest)?;
    let checkpoint = opened.at_rest.checkpoint().map_err(at_rest)?;
    let scan = JournalScan::find(&opened.folder.join("journal"), identity, &checkpoint)?;
    let settings = PartitionSettings {
        // Whatever it is given it keeps.
        messages_octets_max: usize::MAX,
        is_durable: false,
        parcel_retention: partitions.parcel_retention(),
        ..PartitionSettings::default()
    };
    let mut recovery = Recovery::new(number, 0, settings, &checkpoint, Now::ZERO);
    let mut faults = Vec::new();
    let mut names: BTreeSet<Box<[u8]>> =
        checkpoint.credits_used.iter().map(|(system_id, _)| system_id.clone()).collect();
    scan.each_batch(|Found { position, path, offset, mut records, .. }| {
        if recovery.foresee(records).is_err() {
            let what = format!("a record of batch {} cannot be read", position.0);
            faults.push(Fault::of_file(path, Some(offset), what));
        }
        while let Ok(Some(record)) = Record::take(&mut records) {
            if let Some(name) = record.system_id().filter(|name| !names.contains(*name)) {
                names.insert(name.into());
            }
        }
        Ok::<(), Failure>(())
    })?;
    let accounts = Accounts::default().reload(partitions.accounts());
    let accounts = accounts.with_unknown(names.iter().map(|name| &**name));
    let mut blocks_unvouched = 0;
    for entry in opened.at_rest.rest() {
        let (number, octets) = match entry.map_err(at_rest)? {
            RestEntry::Block(number, octets) if number < checkpoint.next_rest => (number, octets),
            RestEntry::Block(..) => {
                blocks_unvouched += 1;
                continue;
            }
            RestEntry::Gone(..) | RestEntry::Unknown(_) => continue,
        };
        let gone = opened.at_rest.gone(number).map_err(at_rest)?;
        let Some(gone) = gone.map_or(Some(Vec::new()), |gone| gone_from_octets(&gone)) else {
            faults.push(Fault::of_state(format!("what has gone of block {} cannot be read", number.0)));
            continue;
        };
        let gone_before: HashSet<u16> = gone.iter().copied().collect();
        let (mut passed, mut live, mut total, mut is_foreseen) = (gone, 0, 0, false);
        let mut is_readable = true;
        for (slot, entry) in (0..).zip(rest_entries(&octets)) {
            let entry = entry.ok().and_then(|(as_of, record)| Some((as_of, subject(&record)?, record)));
            let Some((as_of, key, record)) = entry else {
                let what = format!("block {} cannot be read from slot {slot} on", number.0);
                faults.push(Fault::of_state(what));
                is_readable = false;
                break;
            };
            total += 1;
            if gone_before.contains(&slot) {
                continue;
            }
            live += 1;
            if recovery.is_foreseen(key) {
                is_foreseen = true;
            } else {
                passed.push(slot);
                visitor.at_rest(RestPlace { block: number, slot }, as_of, &record)?;
            }
        }
        visitor.block(octets.len(), live, total - live);
        if is_foreseen && is_readable && recovery.restore(number, &octets, passed, &accounts).is_err() {
            faults.push(Fault::of_state(format!(
                "block {} cannot be taken in: something in it is no record of this version, or there twice",
                number.0
            )));
        }
    }
    let mut unreadable = Vec::new();
    let walked = scan.each_batch(|Found { segment, position, path, offset, records }| {
        if recovery.replay(segment, position, records, &accounts).is_err() {
            let what = format!("batch {} was written by another version", position.0);
            unreadable.push(Fault::of_file(path, Some(offset), what));
        }
        Ok::<(), Failure>(())
    })?;
    if opened.is_live && opened.at_rest.checkpoint().map_err(at_rest)? != checkpoint {
        return Ok(ControlFlow::Continue(()));
    }
    for fault in unreadable.into_iter().chain(walked.faults.iter().cloned()) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    Ok(ControlFlow::Break(Snapshot { checkpoint, scan, walked, recovery, faults, blocks_unvouched }))
}

impl Snapshot {
    /// The messages that the journal says are over.
    pub(super) fn finals(&self) -> BTreeMap<MessageId, FinalMessage<'static>> {
        self.recovery.finals().map(|ended| (ended.id, ended.into_owned())).collect()
    }
}

/// Messages that are over, at rest, each once, roughly by id; then those that only the journal knows.
///
/// # Errors
/// That of `each`, or sled cannot be read. A block that cannot be read is a fault, and told in the result.
pub(super) fn each_final(
    opened: &Opened,
    mut journaled: BTreeMap<MessageId, FinalMessage<'static>>,
    mut each: impl FnMut(Option<BlockKey>, &FinalMessage<'_>) -> Result<(), Failure>,
) -> Result<FinalsSeen, Failure> {
    let mut seen = FinalsSeen::default();
    let mut of_period: HashSet<MessageId> = HashSet::new();
    let mut period = None;
    for entry in opened.at_rest.finals() {
        let (key, octets) = entry.map_err(|error| opened.told(&error))?;
        seen.blocks += 1;
        seen.octets += (key.len() + octets.len()) as u64;
        let key = BlockKey::from_octets(&key);
        let Some((key, block)) = key.and_then(|key| Some((key, Block::read(&octets).ok()?))) else {
            seen.faults.push(Fault::of_state(format!("a block of final messages cannot be read: {key:?}")));
            continue;
        };
        // Whoever has an id twice has it in blocks of one period.
        if period.replace(key.first.period()) != Some(key.first.period()) {
            of_period.clear();
        }
        for message in block.messages() {
            let Ok(message) = message else {
                let what = format!("the block of final messages from {} on cannot be read", key.first);
                seen.faults.push(Fault::of_state(what));
                break;
            };
            journaled.remove(&message.id);
            if of_period.insert(message.id) {
                seen.at_rest += 1;
                each(Some(key), &message)?;
            }
        }
    }
    seen.journal_only = journaled.len() as u64;
    for ended in journaled.values() {
        each(None, ended)?;
    }
    Ok(seen)
}

/// What was seen of the messages that are over.
#[derive(Default)]
pub(super) struct FinalsSeen {
    pub(super) blocks: u64,
    pub(super) octets: u64,
    pub(super) at_rest: u64,
    pub(super) journal_only: u64,
    pub(super) faults: Vec<Fault>,
}

/// Whether something belongs to a partition by its id.
pub(super) fn is_of(number: PartitionNumber, key: RestKey) -> bool {
    match key {
        RestKey::Message(id) => id.partition() == number,
        RestKey::Parcel(key) => key.id.partition() == number,
    }
}
