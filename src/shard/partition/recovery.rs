//! From what is at rest and what the journal holds to a partition that goes on.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::{FastMap, Partition, PartitionSettings, rest_key};
use crate::account::Accounts;
use crate::journal::{Journal, Position, Record, SegmentNumber};
use crate::message::{Content, IdSource, Message, MessageId, ParcelKey, PartitionNumber};
use crate::shard::partition::ApplyError;
use crate::store::{Checkpoint, RestKey};
use crate::time::timers::Timers;

impl Partition {
    /// An empty partition in recovery: give it what is at rest, then the journal, then
    /// [`finish_recovery`](Self::finish_recovery).
    pub fn recover(
        number: PartitionNumber,
        node: u8,
        settings: PartitionSettings,
        checkpoint: &Checkpoint,
    ) -> Self {
        let mut ids = IdSource::new(node, number);
        checkpoint.floors.iter().for_each(|floor| ids.observe(*floor));
        Self {
            number,
            settings,
            ids,
            journal: Journal::resume(Position(0), settings.batch_octets_max),
            messages: FastMap::default(),
            parcels: FastMap::default(),
            waiting: FastMap::default(),
            finals: FastMap::default(),
            timers: Timers::new(),
            credits_used: checkpoint.credits_used.iter().cloned().collect(),
            blocks: BTreeMap::new(),
            full_blocks: Vec::new(),
            block_members: FastMap::default(),
            next_block: checkpoint.next_block,
            touched_open: VecDeque::new(),
            touched: VecDeque::new(),
            at_rest: HashSet::default(),
            store_ops: VecDeque::new(),
            checkpoint_pending: false,
            replaying: Some(Replaying {
                at_rest_as_of: FastMap::default(),
                credits_as_of: checkpoint.as_of,
                position: Position(0),
            }),
            segments_in_use: 0,
            octets: 0,
            is_disk_low: false,
            failed: false,
        }
    }

    /// Recovery: something unfinished from the state at rest, as [`StoreOp::PutRest`](crate::store::StoreOp::PutRest) kept it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn restore(&mut self, octets: &[u8], accounts: &Accounts) -> Result<(), Unrecoverable> {
        let (as_of, mut record) = octets.split_first_chunk().ok_or(Unrecoverable)?;
        let as_of = Position(u64::from_le_bytes(*as_of));
        let record = Record::take(&mut record).ok().flatten().ok_or(Unrecoverable)?;
        let key = rest_key(&record).ok_or(Unrecoverable)?;
        self.apply(&record, accounts).map_err(|_| Unrecoverable)?;
        self.at_rest.insert(key);
        if let Some(replaying) = &mut self.replaying {
            replaying.at_rest_as_of.insert(key, as_of);
        }
        Ok(())
    }

    /// Recovery: the records of one batch of the journal.
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
        while let Some(record) = Record::take(&mut records).map_err(|_| Unrecoverable)? {
            let key = rest_key(&record);
            let known = self
                .replaying
                .as_ref()
                .zip(key)
                .and_then(|(replaying, key)| replaying.at_rest_as_of.get(&key).copied());
            if let Some(replaying) = &mut self.replaying {
                replaying.position = position;
            }
            // What was put to rest later than this record holds it already.
            if known.is_none_or(|as_of| position > as_of) {
                // A record about something that is gone by now changes nothing.
                match self.apply(&record, accounts) {
                    Ok(_) | Err(ApplyError::Refused(_) | ApplyError::Unknown) => {}
                    Err(ApplyError::Unreadable) => return Err(Unrecoverable),
                }
            } else {
                self.count_skipped(&record)?;
            }
            if let Some(key) = key {
                self.touch_segment(segment, position, key);
            }
        }
        Ok(())
    }

    /// A record that is passed over because its message is at rest still took credits, which the checkpoint
    /// may not have counted: what is at rest can be younger than the checkpoint.
    pub(super) fn count_skipped(&mut self, record: &Record<'_>) -> Result<(), Unrecoverable> {
        let (octets, more) = match *record {
            Record::Accepted { content, .. } => (content, None),
            Record::Replaced { more, content } => (content, Some(more)),
            Record::Attempt { .. }
            | Record::Forwarded { .. }
            | Record::Deferred { .. }
            | Record::Interim { .. }
            | Record::Final { .. }
            | Record::Mo(_)
            | Record::Settled { .. }
            | Record::MessageAtRest { .. }
            | Record::DeliveryAtRest(_) => return Ok(()),
        };
        let content = Content::read(octets).map_err(|_| Unrecoverable)?;
        self.count_credits(content.system_id, more.unwrap_or(content.segments).into());
        Ok(())
    }

    /// Recovery is over; the next batch follows `last`. What has to go on is told by [`resume`](Self::resume).
    pub fn finish_recovery(&mut self, last: Position) {
        self.replaying = None;
        self.journal = Journal::resume(last, self.settings.batch_octets_max);
    }

    /// Every message that a carrier had or may have had, and every parcel: what goes on after a restart.
    pub fn resume(&self) -> (Vec<MessageId>, Vec<ParcelKey>) {
        let with_carrier = |message: &Message| !message.standing.state.is_waiting();
        let mut messages: Vec<MessageId> =
            self.messages.iter().filter(|(_, message)| with_carrier(message)).map(|(id, _)| *id).collect();
        messages.sort_unstable();
        let mut parcels: Vec<ParcelKey> = self.parcels.keys().copied().collect();
        parcels.sort_unstable();
        (messages, parcels)
    }
}

/// What recovery knows while it replays.
#[derive(Debug)]
pub(super) struct Replaying {
    /// Things at rest hold the journal up to these batches.
    pub(super) at_rest_as_of: FastMap<RestKey, Position>,
    pub(super) credits_as_of: Position,
    pub(super) position: Position,
}

/// A record from the state at rest or the journal that this version cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unrecoverable;
