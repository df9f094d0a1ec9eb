//! The life of one message: its events in order, and what of it is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use super::journal::{Found, JournalScan};
use super::things::{Fields, date, ended, message, parcel, parcel_kind, put_content, shown, with_deliver_sm};
use super::{Failure, Opened, Output, Partitions, table};
use crate::account::Accounts;
use crate::journal::{Position, Record, SegmentNumber};
use crate::message::{Content, MessageId, Parcel, ParcelKey, PartitionNumber};
use crate::server::state::RestEntry;
use crate::shard::{PartitionSettings, Recovery, subject};
use crate::store::{Block, BlockKey, FinalMessage, RestKey, RestPlace, gone_from_octets, rest_entries};
use crate::time::{Now, Timestamp};

/// A submit_multi has so many messages at most.
const BATCH_MAX: u8 = 254;

/// Something that happened to the message.
struct Happened {
    position: Position,
    segment: SegmentNumber,
    file: String,
    offset: usize,
    /// Its place in the batch.
    number: usize,
    id: MessageId,
    at: Option<Timestamp>,
    what: String,
    /// Replay does not need it any more.
    is_old: bool,
    /// The record itself.
    octets: Vec<u8>,
}

/// Something of the message at rest.
struct AtRest {
    place: RestPlace,
    as_of: Position,
    is_gone: bool,
    octets: Vec<u8>,
}

/// Tells it.
pub(super) fn dump(
    text: &str,
    numbers: &[PartitionNumber],
    partitions: &mut dyn Partitions,
    json: bool,
    output: &mut Output<'_>,
) -> Result<bool, Failure> {
    let id = MessageId::parse(text.to_uppercase().as_bytes())
        .ok_or_else(|| format!("{text:?} is no message_id: 15 to 19 digits, or 8 hexadecimal digits"))?;
    let number = id.partition();
    if !numbers.contains(&number) {
        return Err(Failure::Store(format!("message {id} belongs to partition {number}, which is not here")));
    }
    let opened = partitions.open(number)?;
    let life = opened.read(|| Life::find(id, &opened, partitions))?;
    if life.is_empty() {
        return Err(Failure::Store(format!("nothing is known of message {id} in partition {number}")));
    }
    if json {
        serde_json::to_writer_pretty(&mut *output.out, &life.fields()).map_err(std::io::Error::from)?;
        output.out.write_all(b"\n")?;
    } else {
        output.out.write_all(life.text().as_bytes())?;
    }
    Ok(true)
}

/// All that is known of a message, or of the messages of a submit_multi.
struct Life {
    id: MessageId,
    events: Vec<Happened>,
    at_rest: Vec<AtRest>,
    finals: Vec<(BlockKey, FinalMessage<'static>)>,
    /// What a restart would find.
    recovery: Recovery,
    parcel_retention: std::time::Duration,
}

impl Life {
    fn find(id: MessageId, opened: &Opened, partitions: &dyn Partitions) -> Result<Self, Failure> {
        let at_rest_error = |error: std::io::Error| opened.told(&error);
        let identity = opened.at_rest.identity(opened.number).map_err(at_rest_error)?;
        // While a server runs, things move from the journal to rest and not back.
        let checkpoint = opened.at_rest.checkpoint().map_err(at_rest_error)?;
        let scan = JournalScan::find(&opened.folder.join("journal"), identity, &checkpoint)?;
        let mut ids = BTreeSet::from([id]);
        let last = if id.is_short() { id } else { id.in_batch(BATCH_MAX) };
        let mut finals = Vec::new();
        for range in [id..=id, id..=last] {
            finals_of(id, &range, opened, &mut finals)?;
        }
        ids.extend(finals.iter().map(|(_, ended)| ended.id));
        let mut each = |_: &Found<'_>, record: &Record<'_>, _: usize| {
            if let Some(content) = content_of(record)
                && content.public_id() == id
            {
                ids.insert(content.id);
            }
        };
        scan.each_batch_anywhere(|found| each_record(found, &mut each))?;
        let (mut at_rest, accounts) = (Vec::new(), partitions.accounts());
        for entry in opened.at_rest.rest() {
            let RestEntry::Block(number, octets) = entry.map_err(at_rest_error)? else { continue };
            if number >= checkpoint.next_rest {
                continue;
            }
            let gone = opened.at_rest.gone(number).map_err(at_rest_error)?;
            let gone = gone.and_then(|gone| gone_from_octets(&gone)).unwrap_or_default();
            for (slot, entry) in (0..).zip(rest_entries(&octets)) {
                let Ok((as_of, record)) = entry else { break };
                if let Some(content) = content_of(&record).filter(|content| content.public_id() == id) {
                    ids.insert(content.id);
                }
                if !subject(&record).is_some_and(|key| ids.contains(&id_of(key))) {
                    continue;
                }
                let mut octets = Vec::new();
                record.put(&mut octets);
                let place = RestPlace { block: number, slot };
                at_rest.push(AtRest { place, as_of, is_gone: gone.contains(&slot), octets });
            }
        }
        let events = events(&scan, &ids)?;
        let settings = PartitionSettings {
            messages_octets_max: usize::MAX,
            is_durable: false,
            parcel_retention: partitions.parcel_retention(),
            ..PartitionSettings::default()
        };
        let mut recovery = Recovery::new(opened.number, 0, settings, &checkpoint, Now::ZERO);
        let records =
            events.iter().map(|event| &*event.octets).chain(at_rest.iter().map(|kept| &*kept.octets));
        let names: BTreeSet<Box<[u8]>> = records
            .filter_map(|mut octets| Record::take(&mut octets).ok().flatten())
            .filter_map(|record| record.system_id().map(Box::from))
            .collect();
        let accounts = Accounts::default().reload(accounts).with_unknown(names.iter().map(|name| &**name));
        let needed = || events.iter().filter(|event| !event.is_old);
        for event in needed() {
            _ = recovery.foresee(&event.octets);
        }
        for kept in at_rest.iter().filter(|kept| !kept.is_gone) {
            // A block that has nothing else in it.
            let block = [&[1][..], &kept.as_of.0.to_le_bytes(), &kept.octets].concat();
            _ = recovery.restore(kept.place.block, &block, Vec::new(), &accounts);
        }
        for event in needed() {
            _ = recovery.replay(event.segment, event.position, &event.octets, &accounts);
        }
        let parcel_retention = partitions.parcel_retention();
        Ok(Self { id, events, at_rest, finals, recovery, parcel_retention })
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.at_rest.is_empty() && self.finals.is_empty()
    }

    /// What was submitted, in its newest form that can still be read.
    fn contents(&self) -> BTreeMap<MessageId, Box<[u8]>> {
        let at_rest = self.at_rest.iter().map(|kept| &kept.octets);
        let mut contents = BTreeMap::new();
        for octets in at_rest.chain(self.events.iter().map(|event| &event.octets)) {
            let Ok(Some(record)) = Record::take(&mut &octets[..]) else { continue };
            if let (Some(content), Some(octets)) = (content_of(&record), content_octets(&record)) {
                contents.insert(content.id, octets.into());
            }
        }
        contents
    }

    /// Where each of the messages stands, in words.
    fn verdicts(&self) -> Vec<(MessageId, String)> {
        let mut ids: BTreeSet<MessageId> = self.events.iter().map(|event| event.id).collect();
        ids.extend(self.finals.iter().map(|(_, ended)| ended.id));
        for kept in &self.at_rest {
            let record = Record::take(&mut &kept.octets[..]).ok().flatten();
            ids.extend(record.and_then(|record| subject(&record)).map(id_of));
        }
        let verdict = |id: MessageId| {
            if let Some(held) = self.recovery.messages().find(|held| held.content().id == id) {
                let standing = held.standing;
                let due = match standing.deadline {
                    Timestamp::ZERO => "due at once".to_owned(),
                    deadline if deadline <= held.expires_at() => format!("due {}", date(deadline)),
                    _ => format!("valid until {}", date(held.expires_at())),
                };
                return format!("{}, {due}", super::things::state_name(standing.state));
            }
            let journaled = self.recovery.finals().find(|ended| ended.id == id);
            let ended = journaled.or_else(|| {
                self.finals.iter().find(|(_, ended)| ended.id == id).map(|(_, ended)| ended.clone())
            });
            let mut text = match ended {
                Some(ended) => {
                    let error =
                        if ended.error == 0 { String::new() } else { format!(", error {}", ended.error) };
                    format!("over: {}{error}, {}", ended.state, date(ended.final_date))
                }
                None if self.pending(id).is_empty() => "nothing is left of it but old records".to_owned(),
                None => String::new(),
            };
            for key in self.pending(id) {
                let separator = if text.is_empty() { "" } else { "; " };
                // Writing to a string cannot fail.
                _ = write!(text, "{separator}its {} waits to be confirmed", parcel_kind(key));
            }
            let last = |is: &dyn Fn(&Record<'_>) -> bool| {
                self.events.iter().rfind(|event| {
                    event.id == id
                        && matches!(Record::take(&mut &event.octets[..]), Ok(Some(record)) if is(&record))
                })
            };
            if last(&|record| matches!(record, Record::Settled { part: ParcelKey::FINAL_RECEIPT, .. }))
                .is_some()
            {
                text.push_str("; its receipt is confirmed");
            }
            text
        };
        ids.into_iter().map(|id| (id, verdict(id))).collect()
    }

    /// What of a message waits to be confirmed.
    fn pending(&self, id: MessageId) -> Vec<ParcelKey> {
        let keys = self.recovery.parcels().map(|parcel| parcel.view().key);
        let mut keys: Vec<ParcelKey> = keys.filter(|key| key.id == id).collect();
        keys.sort_unstable();
        keys
    }

    fn text(&self) -> String {
        let verdicts = self.verdicts();
        let mut text = String::new();
        for (id, verdict) in &verdicts {
            _ = writeln!(text, "message {id}: {verdict}");
        }
        text.push_str("\nevents\n");
        let is_batch = verdicts.len() > 1;
        let mut header = ["BATCH", "SEGMENT", "FILE", "OFFSET", "TIME", "EVENT"].map(str::to_owned).to_vec();
        if is_batch {
            header.insert(5, "MESSAGE".to_owned());
        }
        let mut rows = vec![header];
        for event in &self.events {
            let mark = if event.is_old { "*" } else { "" };
            let mut row = vec![
                format!("{}{mark}", event.position.0),
                event.segment.0.to_string(),
                event.file.clone(),
                event.offset.to_string(),
                event.at.map_or_else(|| "-".to_owned(), date),
                event.what.clone(),
            ];
            if is_batch {
                row.insert(5, event.id.to_string());
            }
            rows.push(row);
        }
        if rows.len() == 1 {
            text.push_str("  none: the journal was used again since\n");
        } else {
            text.push_str(&table(2, &[3], &rows));
        }
        if self.events.iter().any(|event| event.is_old) {
            text.push_str("  * of an old segment, which is not needed any more and will be used again\n");
        }
        text.push_str("\nat rest\n");
        let mut rows = Vec::new();
        for kept in &self.at_rest {
            let Ok(Some(record)) = Record::take(&mut &kept.octets[..]) else { continue };
            let gone = if kept.is_gone { ", gone since" } else { "" };
            rows.push(vec![
                describe(&record).0,
                format!("block {}, slot {}", kept.place.block.0, kept.place.slot),
                format!("as of batch {}{gone}", kept.as_of.0),
            ]);
        }
        for (key, ended) in &self.finals {
            let error = if ended.error == 0 { String::new() } else { format!(", error {}", ended.error) };
            rows.push(vec![
                format!("end of {}: {}{error}", ended.id, ended.state),
                format!("block {}, generation {}", key.first, key.generation),
                date(ended.final_date),
            ]);
        }
        text.push_str(&if rows.is_empty() { "  nothing\n".to_owned() } else { table(2, &[], &rows) });
        for octets in self.contents().values() {
            let Ok(content) = Content::read(octets) else { continue };
            _ = writeln!(text, "\ncontent of {}", content.id);
            text.push_str(&table(2, &[], &content_rows(&content)));
        }
        let mut parcels: Vec<&Parcel> = self.recovery.parcels().collect();
        parcels.sort_unstable_by_key(|parcel| parcel.view().key);
        for parcel in parcels {
            let view = parcel.view();
            _ = writeln!(
                text,
                "\n{} to {}, not confirmed, since {}",
                parcel_kind(view.key),
                shown(view.system_id),
                date(view.created_at)
            );
            let line = with_deliver_sm(&view, |body| body.map(|body| shown(body.short_message)));
            _ = writeln!(text, "  {}", line.unwrap_or_else(|| shown(view.mandatory)));
        }
        text
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.put("message_id", self.id.to_string()).put("partition", self.id.partition().0);
        let verdicts = self.verdicts().into_iter();
        let verdicts =
            verdicts.map(|(id, verdict)| serde_json::json!({ "id": id.to_string(), "now": verdict }));
        fields.put("messages", verdicts.collect::<Vec<Value>>());
        let value = |fields: &Fields| serde_json::to_value(fields).unwrap_or_default();
        let events = self.events.iter().map(|event| {
            let mut fields = Fields::default();
            fields
                .put("id", event.id.to_string())
                .put("batch", event.position.0)
                .put("segment", event.segment.0)
                .put("file", event.file.clone())
                .put("offset", event.offset)
                .time("at", event.at.unwrap_or(Timestamp::ZERO))
                .put("event", event.what.clone())
                .put("is_old", event.is_old);
            value(&fields)
        });
        fields.put("events", events.collect::<Vec<Value>>());
        let at_rest = self.at_rest.iter().filter_map(|kept| {
            let record = Record::take(&mut &kept.octets[..]).ok()??;
            let mut fields = Fields::default();
            fields
                .put("what", describe(&record).0)
                .put("block", kept.place.block.0)
                .put("slot", kept.place.slot)
                .put("as_of", kept.as_of.0)
                .put("is_gone", kept.is_gone);
            Some(value(&fields))
        });
        fields.put("at_rest", at_rest.collect::<Vec<Value>>());
        let finals = self.finals.iter().map(|(key, message)| value(&ended(message, Some(*key))));
        fields.put("finals", finals.collect::<Vec<Value>>());
        let unfinished =
            self.recovery.messages().map(|held| value(&message(&held.content(), &held.standing, None)));
        fields.put("unfinished", unfinished.collect::<Vec<Value>>());
        let parcels = self
            .recovery
            .parcels()
            .map(|held| value(&parcel(&held.view(), held.expires_at(self.parcel_retention), None)));
        fields.put("parcels", parcels.collect::<Vec<Value>>());
        let contents = self.contents();
        let contents = contents.values().filter_map(|octets| {
            let content = Content::read(octets).ok()?;
            let mut fields = Fields::default();
            fields.put("id", content.id.to_string()).text("system_id", content.system_id);
            put_content(&mut fields, &content);
            Some(value(&fields))
        });
        fields.put("contents", contents.collect::<Vec<Value>>());
        fields
    }
}

fn content_rows(content: &Content<'_>) -> Vec<Vec<String>> {
    let address = |address: &crate::pdu::Address<'_>| {
        format!("{} (TON {}, NPI {})", shown(address.digits), address.ton.0, address.npi.0)
    };
    let mut rows = vec![
        ("account", shown(content.system_id)),
        ("from", address(&content.source)),
        ("to", address(&content.destination)),
        ("accepted", date(content.accepted_at)),
        ("valid until", date(content.expires_at)),
        ("segments", content.segments.to_string()),
        ("registered_delivery", format!("0x{:02X}", content.registered_delivery.0)),
        ("esm_class", format!("0x{:02X}", content.esm_class.0)),
        ("data_coding", format!("0x{:02X}", content.data_coding.0)),
        ("user data", shown(content.user_data)),
    ];
    if content.is_scheduled() {
        rows.insert(4, ("scheduled for", date(content.deliver_at)));
    }
    if content.batch_count > 1 {
        let place = format!("{} of {}", content.batch_offset + 1, content.batch_count);
        rows.insert(1, ("in submit_multi", format!("{} ({place})", content.public_id())));
    }
    if !content.tlvs.is_empty() {
        rows.push(("TLVs", format!("0x{}", super::things::hex(content.tlvs))));
    }
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

const fn id_of(key: RestKey) -> MessageId {
    match key {
        RestKey::Message(id) => id,
        RestKey::Parcel(key) => key.id,
    }
}

fn content_octets<'a>(record: &Record<'a>) -> Option<&'a [u8]> {
    match *record {
        Record::Accepted { content, .. }
        | Record::Replaced { content, .. }
        | Record::MessageAtRest { content, .. } => Some(content),
        Record::Attempt { .. }
        | Record::Forwarded { .. }
        | Record::Deferred { .. }
        | Record::Interim { .. }
        | Record::Final { .. }
        | Record::Mo(_)
        | Record::Settled { .. }
        | Record::DeliveryAtRest(_) => None,
    }
}

fn content_of<'a>(record: &Record<'a>) -> Option<Content<'a>> {
    content_octets(record).and_then(|octets| Content::read(octets).ok())
}

/// The records of a batch that can be read, with their places in it.
fn each_record(
    found: Found<'_>,
    each: &mut dyn FnMut(&Found<'_>, &Record<'_>, usize),
) -> Result<(), Failure> {
    let mut records = found.records;
    let mut number = 0;
    while let Ok(Some(record)) = Record::take(&mut records) {
        each(&found, &record, number);
        number += 1;
    }
    Ok(())
}

/// What happened to these messages, in order, as far as any file remembers.
fn events(scan: &JournalScan, ids: &BTreeSet<MessageId>) -> Result<Vec<Happened>, Failure> {
    let mut needed: BTreeSet<(SegmentNumber, Position)> = BTreeSet::new();
    let mut events: BTreeMap<(Position, SegmentNumber, usize), Happened> = BTreeMap::new();
    let mut add = |found: &Found<'_>, record: &Record<'_>, number: usize, is_old: bool| {
        let Some(id) = subject(record).map(id_of).filter(|id| ids.contains(id)) else { return };
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (what, at) = describe(record);
        let mut octets = Vec::new();
        record.put(&mut octets);
        let Found { segment, position, path, offset, .. } = *found;
        let event =
            Happened { position, segment, file: name(path), offset, number, id, at, what, is_old, octets };
        events.entry((position, segment, number)).or_insert(event);
    };
    scan.each_batch(|found| {
        needed.insert((found.segment, found.position));
        each_record(found, &mut |found, record, number| add(found, record, number, false))
    })?;
    // A batch of a segment that is needed, but that recovery cut off, was never answered for.
    let segments: BTreeSet<SegmentNumber> = scan.needed.iter().map(|(segment, _)| *segment).collect();
    scan.each_batch_anywhere(|found| {
        if segments.contains(&found.segment) {
            return Ok(());
        }
        each_record(found, &mut |found, record, number| add(found, record, number, true))
    })?;
    let mut events: Vec<Happened> = events.into_values().collect();
    events.sort_by_key(|event| (event.position, event.number));
    Ok(events)
}

/// What a record says, and when that was.
fn describe(record: &Record<'_>) -> (String, Option<Timestamp>) {
    match *record {
        Record::Accepted { attempt, content } => {
            let content = Content::read(content).ok();
            let attempt = attempt.map_or_else(
                || "accepted".to_owned(),
                |carrier| format!("accepted; goes to carrier {carrier} at once"),
            );
            (attempt, content.map(|content| content.accepted_at))
        }
        Record::Attempt { carrier, .. } => (format!("attempt with carrier {carrier}"), None),
        Record::Forwarded { carrier_id, .. } => {
            (format!("taken by its carrier as {:?}", shown(carrier_id)), None)
        }
        Record::Deferred { until, error, .. } => {
            (format!("put off until {}, error {error}", date(until)), None)
        }
        Record::Interim { state, at, .. } => (format!("the carrier says {state}"), Some(at)),
        Record::Final { state, error, at, .. } => {
            let error = if error == 0 { String::new() } else { format!(", error {error}") };
            (format!("over: {state}{error}"), Some(at))
        }
        Record::Replaced { .. } => ("replaced".to_owned(), None),
        Record::Mo(octets) => {
            let at = Parcel::read(octets).ok().map(|parcel| parcel.view().created_at);
            ("reply accepted".to_owned(), at)
        }
        Record::Settled { id, part } => {
            (format!("{} confirmed or given up", parcel_kind(ParcelKey { id, part })), None)
        }
        Record::MessageAtRest { standing, content } => {
            let id = Content::id_of(content).map_or_else(String::new, |id| format!("message {id}: "));
            (format!("{id}{}", super::things::state_name(standing.state)), None)
        }
        Record::DeliveryAtRest(octets) => {
            let kind = Parcel::key_of(octets).map_or("parcel", parcel_kind);
            (kind.to_owned(), None)
        }
    }
}

/// The ends at rest of the messages with these ids that belong to `id`.
fn finals_of(
    id: MessageId,
    range: &RangeInclusive<MessageId>,
    opened: &Opened,
    finals: &mut Vec<(BlockKey, FinalMessage<'static>)>,
) -> Result<(), Failure> {
    for entry in opened.at_rest.blocks_of(range) {
        let (key, octets) = entry.map_err(|error| opened.told(&error))?;
        let (Some(key), Ok(block)) = (BlockKey::from_octets(&key), Block::read(&octets)) else { continue };
        for message in block.messages_in(range.clone()).map_while(Result::ok) {
            let belongs = message.id == id || message.id.of_batch(message.batch_offset) == id;
            if belongs && finals.iter().all(|(known, ended)| (*known, ended.id) != (key, message.id)) {
                finals.push((key, message.into_owned()));
            }
        }
    }
    Ok(())
}
