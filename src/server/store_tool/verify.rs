//! Whether a store is whole: every checksum, every block, and the journal on top of what is at rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::journal::{Found, Holds};
use super::snapshot::{Snapshot, Visitor, is_of, take};
use super::{Failure, Fault, Opened, Output, Partitions, count, grouped};
use crate::journal::{Position, Record};
use crate::message::{Content, MessageId, Parcel, PartitionNumber};
use crate::server::recovery::missing_at_rest;
use crate::server::state::RestEntry;
use crate::shard::subject;
use crate::store::{
    Block, BlockKey, Checkpoint, RestKey, RestNumber, RestPlace, gone_from_octets, rest_entries,
};
use crate::time::Timestamp;

/// Faults that are told of one partition; there may be one for each message.
const FAULTS_MAX: usize = 100;
/// How often whoever waits is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// What has been looked at, and what is wrong.
#[derive(Serialize)]
struct Verdict {
    partition: u8,
    is_well: bool,
    segments: u64,
    batches: u64,
    journal_octets: u64,
    blocks: u64,
    things: u64,
    final_blocks: u64,
    final_messages: u64,
    faults: Vec<Fault>,
    faults_not_shown: u64,
    /// What is odd, and harmless.
    notes: Vec<Fault>,
}

/// Looks for faults; whether there are none.
pub(super) fn verify(
    numbers: &[PartitionNumber],
    partitions: &mut dyn Partitions,
    json: bool,
    output: &mut Output<'_>,
) -> Result<bool, Failure> {
    let mut verdicts = Vec::new();
    for number in numbers {
        let mut progress = Progress { number: *number, told: Instant::now(), tell: &mut *output.tell };
        let looked = partitions.open(*number).and_then(|opened| {
            progress.tell(|| "reading the journal".to_owned());
            opened.read(|| verify_one(&opened, partitions, &mut progress))
        });
        let verdict = match looked {
            Ok(verdict) => verdict,
            Err(Failure::Store(what)) => Verdict::unreadable(*number, what),
            Err(error) => return Err(error),
        };
        if !json {
            output.out.write_all(verdict.text().as_bytes())?;
            output.out.flush()?;
        }
        verdicts.push(verdict);
    }
    let unwell = verdicts.iter().filter(|verdict| !verdict.is_well).count();
    if json {
        let value = serde_json::json!({ "is_well": unwell == 0, "partitions": verdicts });
        serde_json::to_writer_pretty(&mut *output.out, &value).map_err(std::io::Error::from)?;
        output.out.write_all(b"\n")?;
    } else if numbers.len() > 1 {
        let text = match unwell {
            0 => format!("all {} partitions are well\n", numbers.len()),
            unwell => format!("{unwell} of {} partitions have faults\n", numbers.len()),
        };
        output.out.write_all(text.as_bytes())?;
    }
    Ok(unwell == 0)
}

/// Says how far it is, now and then.
struct Progress<'a> {
    number: PartitionNumber,
    told: Instant,
    tell: &'a mut dyn FnMut(&str),
}

impl Progress<'_> {
    fn tell(&mut self, how_far: impl FnOnce() -> String) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            (self.tell)(&format!("partition {}: {}", self.number, how_far()));
        }
    }
}

/// Notes what is unfinished.
struct Checker {
    /// Messages at rest that are not over.
    messages: Vec<MessageId>,
}

impl Visitor for Checker {
    fn at_rest(&mut self, _: RestPlace, _: Position, record: &Record<'_>) -> Result<(), Failure> {
        if let Some(RestKey::Message(id)) = subject(record) {
            self.messages.push(id);
        }
        Ok(())
    }
}

fn verify_one(
    opened: &Opened,
    partitions: &dyn Partitions,
    progress: &mut Progress<'_>,
) -> Result<Verdict, Failure> {
    let number = opened.number;
    let checker = || Ok(Checker { messages: Vec::new() });
    let (snapshot, Checker { mut messages }) = take(opened, partitions, checker)?;
    let mut faults = snapshot.faults.clone();
    let mut notes = Vec::new();
    check_files(&snapshot, number, &mut faults, &mut notes)?;
    let is_journal_whole = faults.iter().all(Fault::is_of_state);
    progress.tell(|| "reading what is at rest".to_owned());
    let (blocks, things) = check_rest(opened, &snapshot, &mut faults, &mut notes)?;
    messages.extend(snapshot.recovery.messages().map(|message| message.content().id));
    messages.sort_unstable();
    if !is_journal_whole {
        // Each message that a missing record would have ended looks like a fault of its own.
        messages.clear();
        let what = "not compared with the journal, which is not whole".to_owned();
        notes.push(Fault::of_state(what));
    }
    if let Some(twice) = messages.windows(2).find(|pair| pair[0] == pair[1]) {
        faults.push(Fault::of_state(format!("message {} is there twice", twice[0])));
    }
    for message in snapshot.recovery.messages().filter(|message| message.standing.state.is_final()) {
        faults.push(Fault::of_state(format!("message {} is over and not over", message.content().id)));
    }
    let (final_blocks, final_messages) = check_finals(opened, &snapshot, &messages, progress, &mut faults)?;
    faults.dedup();
    let faults_not_shown = faults.len().saturating_sub(FAULTS_MAX) as u64;
    faults.truncate(FAULTS_MAX);
    Ok(Verdict {
        partition: number.0,
        is_well: faults.is_empty(),
        segments: snapshot.walked.segments.len() as u64,
        batches: snapshot.walked.batches,
        journal_octets: snapshot.walked.octets,
        blocks,
        things,
        final_blocks,
        final_messages,
        faults,
        faults_not_shown,
        notes,
    })
}

/// The journal: what its records say by themselves.
fn check_files(
    snapshot: &Snapshot,
    number: PartitionNumber,
    faults: &mut Vec<Fault>,
    notes: &mut Vec<Fault>,
) -> Result<(), Failure> {
    let Snapshot { checkpoint, scan, walked, .. } = snapshot;
    for file in &scan.files {
        if let Holds::Foreign(format) = file.holds {
            let what = format!("written by another version (format {format})");
            faults.push(Fault::of_file(&file.path, Some(0), what));
        }
    }
    for pair in scan.needed.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
        let what = format!("holds segment {}, as does another file", pair[1].0.0);
        faults.push(Fault::of_file(&pair[1].1, Some(0), what));
    }
    if let Some(first) = walked.segments.first()
        && first.segment == checkpoint.segment
        && checkpoint.as_of > Position(0)
        && first.batches.is_some_and(|(position, _)| position != checkpoint.first)
    {
        let what = format!("does not begin with batch {}, as the checkpoint says", checkpoint.first.0);
        faults.push(Fault::of_file(&first.path, Some(0), what));
    }
    if let Some((path, offset)) = &walked.torn {
        let what = "a batch was being written when the server stopped; it was not answered".to_owned();
        notes.push(Fault::of_file(path, Some(*offset), what));
    }
    scan.each_batch(|Found { position, path, offset, mut records, .. }| {
        let mut wrong = |what: String| {
            faults.push(Fault::of_file(path, Some(offset), format!("batch {}: {what}", position.0)));
        };
        loop {
            let record = match Record::take(&mut records) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => {
                    wrong("a record cannot be read".to_owned());
                    break;
                }
            };
            if let Err(what) = check_record(&record, number) {
                wrong(what);
            }
        }
        Ok::<(), Failure>(())
    })?;
    Ok(())
}

/// What a record says by itself.
fn check_record(record: &Record<'_>, number: PartitionNumber) -> Result<RestKey, String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others have no content")]
    let is_readable = match *record {
        Record::Accepted { content, .. }
        | Record::Replaced { content, .. }
        | Record::MessageAtRest { content, .. } => Content::read(content).is_ok(),
        Record::Mo(octets) | Record::DeliveryAtRest(octets) => Parcel::read(octets).is_ok(),
        _ => true,
    };
    let key = subject(record).filter(|_| is_readable).ok_or("a record cannot be read")?;
    if is_of(number, key) { Ok(key) } else { Err(format!("{key:?} belongs to another partition")) }
}

/// The blocks of unfinished things.
fn check_rest(
    opened: &Opened,
    snapshot: &Snapshot,
    faults: &mut Vec<Fault>,
    notes: &mut Vec<Fault>,
) -> Result<(u64, u64), Failure> {
    // A server changes them meanwhile; what was seen of them together with the journal was well.
    let checkpoint = &snapshot.checkpoint;
    let floors = checkpoint.floors;
    let mut totals: BTreeMap<RestNumber, u16> = BTreeMap::new();
    let mut live: HashMap<RestKey, RestPlace> = HashMap::new();
    let mut things = 0;
    let mut unvouched = 0_u64;
    for entry in opened.at_rest.rest() {
        let mut wrong = |what: String| faults.push(Fault::of_state(what));
        match entry.map_err(|error| opened.told(&error))? {
            RestEntry::Unknown(key) => wrong(format!("a key is unknown: {:?}", &*key)),
            RestEntry::Block(number, _) if number >= checkpoint.next_rest => unvouched += 1,
            RestEntry::Block(number, octets) => {
                let gone = opened.at_rest.gone(number).map_err(|error| opened.told(&error))?;
                let gone = gone.and_then(|gone| gone_from_octets(&gone)).unwrap_or_default();
                let gone: HashSet<u16> = gone.into_iter().collect();
                let mut total = 0;
                for (slot, entry) in (0..).zip(rest_entries(&octets)) {
                    // What cannot be read was told before.
                    let Ok((as_of, record)) = entry else { break };
                    total = slot + 1;
                    let place = format!("block {}, slot {slot}", number.0);
                    let key = match check_record(&record, opened.number) {
                        Ok(key) => key,
                        Err(what) => {
                            wrong(format!("{place}: {what}"));
                            continue;
                        }
                    };
                    if !matches!(record, Record::MessageAtRest { .. } | Record::DeliveryAtRest(_)) {
                        wrong(format!("{place}: a record that is not for the state at rest"));
                    }
                    if as_of > checkpoint.as_of {
                        let (as_of, checkpointed) = (as_of.0, checkpoint.as_of.0);
                        wrong(format!(
                            "{place}: as of batch {as_of}, behind the checkpoint's {checkpointed}"
                        ));
                    }
                    let id = match key {
                        RestKey::Message(id) => id,
                        RestKey::Parcel(key) => key.id,
                    };
                    if !id.is_short() && id > floors[0] {
                        wrong(format!("{place}: id {id} is above the highest given out, {}", floors[0]));
                    }
                    if gone.contains(&slot) {
                        continue;
                    }
                    things += 1;
                    let here = RestPlace { block: number, slot };
                    if let Some(other) = live.insert(key, here)
                        && !opened.is_live
                    {
                        wrong(format!(
                            "{place}: {key:?} is in block {}, slot {} as well",
                            other.block.0, other.slot
                        ));
                    }
                }
                totals.insert(number, total);
            }
            RestEntry::Gone(number, octets) => {
                let Some(gone) = gone_from_octets(&octets) else { continue };
                match totals.get(&number) {
                    None if opened.is_live => {}
                    None => wrong(format!(
                        "what has gone of block {} is listed, but there is no such block",
                        number.0
                    )),
                    Some(total) => {
                        let mut slots = HashSet::new();
                        for slot in gone {
                            if slot >= *total {
                                wrong(format!(
                                    "slot {slot} has gone of block {}, which has {total}",
                                    number.0
                                ));
                            } else if !slots.insert(slot) {
                                wrong(format!("slot {slot} has gone twice of block {}", number.0));
                            }
                        }
                    }
                }
            }
        }
    }
    if !opened.is_live
        && let Some(missing) = missing_at_rest((totals.len() as u64, things), checkpoint)
    {
        faults.push(Fault::of_state(missing));
    }
    if unvouched > 0 && !opened.is_live {
        let what = format!(
            "{} of a checkpoint that was never made; the journal holds what is in them",
            count(unvouched, "block")
        );
        notes.push(Fault::of_state(what));
    }
    Ok((totals.len() as u64, things))
}

/// The blocks of messages that are over, and whether one of them is among those that are not.
fn check_finals(
    opened: &Opened,
    snapshot: &Snapshot,
    unfinished: &[MessageId],
    progress: &mut Progress<'_>,
    faults: &mut Vec<Fault>,
) -> Result<(u64, u64), Failure> {
    let (mut blocks, mut messages) = (0, 0);
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    let checkpoint = &snapshot.checkpoint;
    for entry in opened.at_rest.finals() {
        let (key, octets) = entry.map_err(|error| opened.told(&error))?;
        blocks += 1;
        progress.tell(|| format!("{} final messages in {blocks} blocks so far", grouped(messages)));
        let mut wrong = |what: String| faults.push(Fault::of_state(what));
        let Some(key) = BlockKey::from_octets(&key) else {
            wrong(format!("a key of final messages is unknown: {:?}", &*key));
            continue;
        };
        let named = format!("block of final messages {}, generation {}", key.first, key.generation);
        let Ok(block) = Block::read(&octets) else {
            wrong(format!("{named}: cannot be read"));
            continue;
        };
        // What a checkpoint does not vouch for yet may be younger than what was seen of the journal.
        let is_vouched = key.generation < checkpoint.next_generation;
        if is_vouched {
            *found.entry(key.generation).or_default() += 1;
        }
        let (mut last, mut newest) = (None, Timestamp::ZERO);
        for message in block.messages() {
            let Ok(message) = message else {
                wrong(format!("{named}: cannot be read behind {last:?}"));
                break;
            };
            messages += 1;
            let id = message.id;
            if last.is_none() && id != key.first {
                wrong(format!("{named}: begins with {id}"));
            }
            if last.is_some_and(|last| last > id) {
                wrong(format!("{named}: {id} is out of order"));
            }
            if id.period() != key.first.period() {
                wrong(format!("{named}: {id} is of another period"));
            }
            if id.partition() != opened.number {
                wrong(format!("{named}: {id} belongs to another partition"));
            }
            if !message.state.is_final() {
                wrong(format!("{named}: {id} is {}, which is no end", message.state));
            }
            if is_vouched && !id.is_short() && id > checkpoint.floors[0] {
                wrong(format!("{named}: {id} is above the highest given out, {}", checkpoint.floors[0]));
            }
            // Short ids come round again.
            if is_vouched && !id.is_short() && unfinished.binary_search(&id).is_ok() {
                wrong(format!("{named}: {id} is over, and not over elsewhere"));
            }
            (last, newest) = (Some(id), newest.max(message.final_date));
        }
        if newest != block.newest() {
            wrong(format!("{named}: its newest message ended {newest}, and not {}", block.newest()));
        }
    }
    check_counts(opened, checkpoint, found, faults)?;
    Ok((blocks, messages))
}

/// Whether the blocks of each generation are all there. A server removes old ones meanwhile, and says so before it does:
/// the counts are read last.
fn check_counts(
    opened: &Opened,
    checkpoint: &Checkpoint,
    mut found: BTreeMap<u64, u32>,
    faults: &mut Vec<Fault>,
) -> Result<(), Failure> {
    let count_of_blocks = |blocks: u32| count(blocks.into(), "block");
    let mut wrong = |generation, what: String| {
        faults.push(Fault::of_state(format!("final messages, generation {generation}: {what}")));
    };
    let mut counted = 0;
    for entry in opened.at_rest.counts() {
        let (generation, total) = entry.map_err(|error| opened.told(&error))?;
        counted += u64::from(total.unwrap_or_default());
        if generation >= checkpoint.next_generation {
            continue;
        }
        let present = found.remove(&generation).unwrap_or_default();
        match total {
            // More are left when the server was killed while it put them there, and did it again.
            Some(total) if present >= total => {}
            Some(total) => {
                wrong(generation, format!("{present} of {} found", count_of_blocks(total)));
            }
            None => wrong(generation, "its count of blocks cannot be read".to_owned()),
        }
    }
    for (generation, present) in found {
        if !opened.is_live {
            wrong(generation, format!("{} and no count of them", count_of_blocks(present)));
        }
    }
    // A generation may have gone with its count.
    let vouched = opened.at_rest.final_blocks().map_err(|error| opened.told(&error))?.unwrap_or_default();
    if !opened.is_live && counted < vouched {
        let vouched = count(vouched, "block");
        let what = format!("final messages: {counted} of {vouched} are counted, the others are lost");
        faults.push(Fault::of_state(what));
    }
    Ok(())
}

impl Verdict {
    /// Of a partition that cannot be looked into.
    fn unreadable(number: PartitionNumber, what: String) -> Self {
        Self {
            partition: number.0,
            is_well: false,
            segments: 0,
            batches: 0,
            journal_octets: 0,
            blocks: 0,
            things: 0,
            final_blocks: 0,
            final_messages: 0,
            faults: vec![Fault::of_state(what)],
            faults_not_shown: 0,
            notes: Vec::new(),
        }
    }

    fn text(&self) -> String {
        let number = PartitionNumber(self.partition);
        let looked_at = format!(
            "{} in {}, {} in {} at rest, {} in {}",
            count(self.batches, "batch").replace("batchs", "batches"),
            count(self.segments, "segment"),
            count(self.things, "unfinished thing"),
            count(self.blocks, "block"),
            count(self.final_messages, "final message"),
            count(self.final_blocks, "block"),
        );
        let faults = self.faults.len() as u64 + self.faults_not_shown;
        let mut text = match faults {
            0 => format!("partition {number}: ok ({looked_at})\n"),
            faults => format!("partition {number}: {} ({looked_at})\n", count(faults, "fault")),
        };
        for fault in &self.faults {
            text.push_str(&format!("  {fault}\n"));
        }
        if self.faults_not_shown > 0 {
            text.push_str(&format!("  and {} more\n", grouped(self.faults_not_shown)));
        }
        for note in &self.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
        text
    }
}
