//! What is in a store, in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::journal::Holds;
use super::snapshot::{Snapshot, Visitor, each_final, take};
use super::things::{date, shown};
use super::{Failure, Fault, Opened, Output, Partitions, count, grouped, size, table};
use crate::journal::{Position, Record};
use crate::message::{Content, Parcel, ParcelKey, PartitionNumber, State};
use crate::store::RestPlace;
use crate::time::Timestamp;

/// What is kept is compared with what it takes on the disk from here on: sled's files have a size of their own.
const TELLING_OCTETS: u64 = 1 << 20;

/// A partition in numbers.
#[derive(Serialize)]
struct Inspection {
    partition: u8,
    is_live: bool,
    journal: JournalFacts,
    state: StateFacts,
    checkpoint: CheckpointFacts,
    last_batch: u64,
    rest: RestFacts,
    #[serde(flatten)]
    sums: Sums,
    finals_at_rest: u64,
    finals_in_journal: u64,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct JournalFacts {
    octets: u64,
    files: u64,
    segments: Vec<SegmentFacts>,
    free_files: Vec<String>,
    has_torn_batch: bool,
}

#[derive(Serialize)]
struct SegmentFacts {
    segment: u64,
    file: String,
    first_batch: Option<u64>,
    last_batch: Option<u64>,
    used_octets: u64,
}

#[derive(Serialize)]
struct StateFacts {
    octets: u64,
    live_octets: u64,
    space_amplification: Option<f64>,
}

#[derive(Serialize)]
struct CheckpointFacts {
    segment: u64,
    first: u64,
    as_of: u64,
    next_rest: u32,
    next_generation: u64,
}

/// What is at rest of unfinished things.
#[derive(Clone, Default, Serialize)]
struct RestFacts {
    blocks: u64,
    octets: u64,
    live: u64,
    gone: u64,
    blocks_unvouched: u64,
}

/// What can be added up over partitions.
#[derive(Clone, Default, Serialize)]
struct Sums {
    unfinished: BTreeMap<&'static str, u64>,
    pending: BTreeMap<String, Pending>,
    finals: BTreeMap<String, Ended>,
    credits_used: BTreeMap<String, u64>,
}

/// Receipts and replies of an account that wait to be confirmed.
#[derive(Clone, Default, Serialize)]
struct Pending {
    receipts: u64,
    notifications: u64,
    replies: u64,
}

/// Messages that ended in one way.
#[derive(Clone, Serialize)]
struct Ended {
    messages: u64,
    oldest: String,
    newest: String,
}

const STATES: [&str; 4] = ["scheduled", "queued", "attempting", "forwarded"];

/// Says what there is; whether all of it could be read.
pub(super) fn inspect(
    numbers: &[PartitionNumber],
    partitions: &mut dyn Partitions,
    json: bool,
    output: &mut Output<'_>,
) -> Result<bool, Failure> {
    let mut is_well = true;
    let mut total = Sums::new();
    let mut inspections = Vec::new();
    for number in numbers {
        let opened = partitions.open(*number)?;
        let inspection = opened.read(|| inspect_one(&opened, partitions))?;
        is_well &= inspection.faults.is_empty();
        total.add(&inspection.sums);
        if json {
            inspections.push(inspection);
        } else {
            output.out.write_all(inspection.text(&opened.folder).as_bytes())?;
            output.out.flush()?;
        }
    }
    if json {
        let value = serde_json::json!({ "partitions": inspections, "total": total });
        serde_json::to_writer_pretty(&mut *output.out, &value).map_err(std::io::Error::from)?;
        output.out.write_all(b"\n")?;
    } else if numbers.len() > 1 {
        let mut text = format!("all {} partitions\n\n", numbers.len());
        total.put_text(&mut text);
        output.out.write_all(text.as_bytes())?;
    }
    Ok(is_well)
}

/// Counts what passes by.
struct Counter {
    rest: RestFacts,
    sums: Sums,
}

impl Visitor for Counter {
    fn block(&mut self, octets: usize, live: usize, gone: usize) {
        self.rest.blocks += 1;
        self.rest.octets += octets as u64;
        self.rest.live += live as u64;
        self.rest.gone += gone as u64;
    }

    fn at_rest(&mut self, _: RestPlace, _: Position, record: &Record<'_>) -> Result<(), Failure> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is at rest")]
        match *record {
            Record::MessageAtRest { standing, content } if Content::read(content).is_ok() => {
                self.sums.message(standing.state);
            }
            Record::DeliveryAtRest(octets) => {
                if let Ok(parcel) = Parcel::read(octets) {
                    self.sums.parcel(&parcel);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn inspect_one(opened: &Opened, partitions: &dyn Partitions) -> Result<Inspection, Failure> {
    let counter = || Ok(Counter { rest: RestFacts::default(), sums: Sums::new() });
    let (snapshot, Counter { mut rest, mut sums }) = take(opened, partitions, counter)?;
    rest.blocks_unvouched = snapshot.blocks_unvouched;
    snapshot.recovery.messages().for_each(|message| sums.message(message.standing.state));
    snapshot.recovery.parcels().for_each(|parcel| sums.parcel(parcel));
    for (system_id, used) in snapshot.recovery.credits_used().filter(|(_, used)| *used > 0) {
        sums.credits_used.insert(shown(system_id), used);
    }
    let mut ended: BTreeMap<String, (u64, Timestamp, Timestamp)> = BTreeMap::new();
    let seen = each_final(opened, snapshot.finals(), |_, message| {
        let at = message.final_date;
        let of_state = ended.entry(message.state.to_string()).or_insert((0, at, at));
        *of_state = (of_state.0 + 1, of_state.1.min(at), of_state.2.max(at));
        Ok(())
    })?;
    for (state, (messages, oldest, newest)) in ended {
        sums.finals.insert(state, Ended { messages, oldest: date(oldest), newest: date(newest) });
    }
    let octets = octets_of(opened.at_rest.folder());
    let live_octets = opened.at_rest.octets().map_err(|error| opened.told(&error))?;
    let Snapshot { checkpoint, walked, mut faults, scan, .. } = snapshot;
    faults.extend(seen.faults);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Inspection {
        partition: opened.number.0,
        is_live: opened.is_live,
        journal: JournalFacts {
            octets: scan.files.iter().map(|file| file.octets).sum(),
            files: scan.files.len() as u64,
            segments: walked
                .segments
                .iter()
                .map(|segment| SegmentFacts {
                    segment: segment.segment.0,
                    file: name(&segment.path),
                    first_batch: segment.batches.map(|(first, _)| first.0),
                    last_batch: segment.batches.map(|(_, last)| last.0),
                    used_octets: segment.used_octets,
                })
                .collect(),
            free_files: scan
                .files
                .iter()
                .filter(|file| matches!(file.holds, Holds::Old(_) | Holds::Nothing))
                .map(|file| name(&file.path))
                .collect(),
            has_torn_batch: walked.torn.is_some(),
        },
        state: StateFacts {
            octets,
            live_octets,
            space_amplification: (live_octets > 0)
                .then(|| (octets as f64 / live_octets as f64 * 10.0).round() / 10.0),
        },
        checkpoint: CheckpointFacts {
            segment: checkpoint.segment.0,
            first: checkpoint.first.0,
            as_of: checkpoint.as_of.0,
            next_rest: checkpoint.next_rest.0,
            next_generation: checkpoint.next_generation,
        },
        last_batch: walked.last.0,
        rest,
        sums,
        finals_at_rest: seen.at_rest,
        finals_in_journal: seen.journal_only,
        faults,
    })
}

/// What a folder takes on the disk.
fn octets_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => octets_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

impl Sums {
    fn new() -> Self {
        Self { unfinished: STATES.map(|state| (state, 0)).into(), ..Self::default() }
    }

    /// Messages that are not over.
    fn unfinished(&self) -> u64 {
        self.unfinished.values().sum()
    }

    fn message(&mut self, state: State) {
        let place = match state {
            State::Scheduled => 0,
            State::Queued => 1,
            State::Attempting => 2,
            State::Forwarded => 3,
            State::Final(_) => return,
        };
        *self.unfinished.entry(STATES[place]).or_default() += 1;
    }

    fn parcel(&mut self, parcel: &Parcel) {
        let view = parcel.view();
        let pending = self.pending.entry(shown(view.system_id)).or_default();
        match view.key.part {
            ParcelKey::REPLY => pending.replies += 1,
            ParcelKey::FINAL_RECEIPT => pending.receipts += 1,
            _ => pending.notifications += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        for (state, messages) in &other.unfinished {
            *self.unfinished.entry(state).or_default() += messages;
        }
        for (system_id, more) in &other.pending {
            let pending = self.pending.entry(system_id.clone()).or_default();
            pending.receipts += more.receipts;
            pending.notifications += more.notifications;
            pending.replies += more.replies;
        }
        for (state, more) in &other.finals {
            match self.finals.get_mut(state) {
                None => _ = self.finals.insert(state.clone(), more.clone()),
                Some(ended) => {
                    ended.messages += more.messages;
                    ended.oldest = ended.oldest.clone().min(more.oldest.clone());
                    ended.newest = ended.newest.clone().max(more.newest.clone());
                }
            }
        }
        for (system_id, used) in &other.credits_used {
            *self.credits_used.entry(system_id.clone()).or_default() += used;
        }
    }

    fn put_text(&self, text: &mut String) {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        if self.unfinished() > 0 {
            let mut rows = vec![row(&["UNFINISHED", "MESSAGES"])];
            rows.extend(STATES.map(|state| row(&[state, &grouped(self.unfinished[state])])));
            text.push_str(&table(2, &[1], &rows));
            text.push('\n');
        }
        let mut rows = vec![row(&["FINAL", "MESSAGES", "OLDEST", "NEWEST"])];
        rows.extend(self.finals.iter().map(|(state, Ended { messages, oldest, newest })| {
            row(&[state, &grouped(*messages), oldest, newest])
        }));
        if rows.len() > 1 {
            text.push_str(&table(2, &[1], &rows));
            text.push('\n');
        }
        let mut rows =
            vec![row(&["TO BE CONFIRMED", "RECEIPTS", "NOTIFICATIONS", "REPLIES", "CREDITS USED"])];
        let mut accounts: Vec<&String> = self.pending.keys().chain(self.credits_used.keys()).collect();
        accounts.sort();
        accounts.dedup();
        for account in accounts {
            let pending = self.pending.get(account).cloned().unwrap_or_default();
            let credits = self.credits_used.get(account).copied().unwrap_or_default();
            rows.push(row(&[
                account,
                &grouped(pending.receipts),
                &grouped(pending.notifications),
                &grouped(pending.replies),
                &grouped(credits),
            ]));
        }
        if rows.len() > 1 {
            text.push_str(&table(2, &[1, 2, 3, 4], &rows));
            text.push('\n');
        }
    }
}

impl Inspection {
    fn text(&self, folder: &Path) -> String {
        let Self { journal, state, checkpoint, rest, .. } = self;
        let number = PartitionNumber(self.partition);
        let live = if self.is_live { ", in use" } else { "" };
        let mut text = format!("partition {number} ({}{live})\n\n", folder.display());
        let amplification = state.space_amplification.filter(|_| state.live_octets >= TELLING_OCTETS);
        let amplification = amplification.map_or(String::new(), |factor| {
            format!(" ({factor:.1} times the {} in it)", size(state.live_octets))
        });
        let in_use = format!(
            "{} of {} in use, {} free",
            count(journal.segments.len() as u64, "file"),
            grouped(journal.files),
            journal.free_files.len()
        );
        let of_rest = match rest {
            RestFacts { blocks: 0, .. } => "none".to_owned(),
            RestFacts { blocks, octets, live, gone, .. } => format!(
                "{}, {}: {} in them, {} gone",
                count(*blocks, "block"),
                size(*octets),
                count(*live, "thing"),
                grouped(*gone)
            ),
        };
        let checkpointed = match checkpoint.as_of {
            0 => "none yet: the journal holds everything".to_owned(),
            as_of => format!(
                "as of batch {}; replay begins with batch {} in segment {}",
                grouped(as_of),
                grouped(checkpoint.first),
                grouped(checkpoint.segment)
            ),
        };
        let finals = match (self.finals_at_rest, self.finals_in_journal) {
            (0, 0) => "none".to_owned(),
            (at_rest, in_journal) => format!(
                "{}: {} at rest, {} only in the journal yet",
                grouped(at_rest + in_journal),
                grouped(at_rest),
                grouped(in_journal)
            ),
        };
        let unfinished = match self.sums.unfinished() {
            0 => "none".to_owned(),
            messages => grouped(messages),
        };
        let rows: Vec<Vec<String>> = [
            ("journal", format!("{} in {in_use}", size(journal.octets))),
            ("state at rest", format!("{}{amplification}", size(state.octets))),
            ("checkpoint", checkpointed),
            ("last batch", grouped(self.last_batch)),
            ("blocks of unfinished", of_rest),
            ("unfinished messages", unfinished),
            ("final messages", finals),
        ]
        .map(|(name, value)| vec![name.to_owned(), value])
        .into();
        text.push_str(&table(2, &[], &rows));
        text.push('\n');
        let mut rows = vec![["SEGMENT", "FILE", "BATCHES", "USED"].map(str::to_owned).to_vec()];
        rows.extend(journal.segments.iter().map(|segment| {
            let batches = match (segment.first_batch, segment.last_batch) {
                (Some(first), Some(last)) => format!("{} to {}", grouped(first), grouped(last)),
                _ => "none".to_owned(),
            };
            vec![grouped(segment.segment), segment.file.clone(), batches, size(segment.used_octets)]
        }));
        if rows.len() > 1 {
            text.push_str(&table(2, &[0, 3], &rows));
            text.push('\n');
        }
        self.sums.put_text(&mut text);
        for fault in &self.faults {
            // Writing to a string cannot fail.
            _ = writeln!(text, "  FAULT  {fault}");
        }
        if !self.faults.is_empty() {
            text.push('\n');
        }
        text
    }
}
