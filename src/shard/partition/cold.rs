//! When memory is short: blocks at rest grow cold, and come back when something in them is wanted.

use std::time::Duration;

use super::apply::Source;
use super::memory::{Alarm, BESIDE_OCTETS, DueAt, Memory, TimerKey};
use super::rest::{Retry, Trace};
use super::{Partition, Returned, Unrecoverable};
use crate::account::{AccountIndex, Accounts};
use crate::journal::Record;
use crate::message::{Content, Message, MessageId, Parcel, ParcelKey};
use crate::shard::mesh::Matching;
use crate::store::{RestKey, RestNumber, RestPlace, rest_entries};
use crate::time::Instant;

/// A block that somebody asked for stays for so long at least: the same may ask for others before it decides.
const FRESH: Duration = Duration::from_millis(500);
/// Blocks looked at in one turn.
const BLOCKS: usize = 16;
/// Blocks that may be on their way back because something in them is due; others wait.
const FETCHING_MAX: usize = 16;

impl Partition {
    /// The block that has to come back before anything can be said about a message.
    pub fn cold_block_of(&self, id: MessageId) -> Option<RestNumber> {
        self.memory.rest.block_of(id)
    }

    /// Whether a block has left memory.
    pub fn is_cold(&self, number: RestNumber) -> bool {
        self.memory.rest.is_cold(number)
    }

    /// The first block behind `after` that has to come back before all is known of messages that wait between these
    /// addresses.
    pub fn cold_block_waiting(
        &self,
        account: AccountIndex,
        matching: &Matching,
        after: Option<RestNumber>,
    ) -> Option<RestNumber> {
        let pair = self.memory.waiting.pair(account, &matching.source.digits, &matching.destination.digits);
        self.memory.rest.block_waiting(pair, after)
    }

    /// Brings back the oldest receipts and replies of an account that are cold, if there are any, as soon as there is room.
    pub fn fetch_for(&mut self, account: AccountIndex) {
        let Some(number) = self.memory.rest.block_for(account) else { return };
        if self.memory.octets < self.settings.messages_octets_max {
            self.fetch(number);
        } else {
            self.hungry.insert(account);
        }
    }

    /// Brings back the oldest of them beside what is in memory: those must not wait until nothing younger is there.
    pub fn fetch_beside(&mut self, account: AccountIndex) {
        // Nearly always there are none at all.
        let has_any = self.memory.rest.cold().1 > 0;
        let block = if has_any { self.memory.rest.block_for(account) } else { None };
        if block.is_some_and(|number| !self.fetching.contains(&number)) {
            self.fetch_for(account);
        }
    }

    /// The accounts that take what is cold, each in turn.
    fn next_hungry(&mut self) -> Option<AccountIndex> {
        let behind = AccountIndex(self.fed.0.wrapping_add(1));
        let next = self.hungry.range(behind..).next().or(self.hungry.first()).copied()?;
        self.hungry.remove(&next);
        self.fed = next;
        Some(next)
    }

    /// Brings a block back, because somebody asks for something in it.
    pub fn fetch(&mut self, number: RestNumber) {
        if self.memory.rest.is_cold(number) {
            self.asked_for.insert(number);
            self.bring_back(number);
        }
    }

    fn bring_back(&mut self, number: RestNumber) {
        if self.memory.rest.is_cold(number) && self.fetching.insert(number) {
            self.fetches.push_back(number);
        }
    }

    /// Brings blocks back in which something is due, as many as memory allows; after a restart those too of which a
    /// carrier had something; then those that accounts wait for.
    fn fetch_due(&mut self) {
        let octets_max = self.settings.messages_octets_max;
        while self.fetching.len() < FETCHING_MAX && self.memory.octets < octets_max {
            match self.due_blocks.pop_front().or_else(|| self.to_resume.first().copied()) {
                Some(number) if self.fetching.contains(&number) => return,
                Some(number) if self.memory.rest.is_cold(number) => self.bring_back(number),
                Some(number) => _ = self.to_resume.remove(&number),
                None => match self.next_hungry() {
                    Some(account) => self.fetch_for(account),
                    None => return,
                },
            }
        }
    }

    /// Time has passed: what waits for memory, or for its turn, goes on, and what was recorded has waited long enough.
    pub fn go_on(&mut self, accounts: &Accounts) {
        self.journal.want();
        self.fetch_due();
        if self.is_short() {
            self.cool_down(accounts);
            let to_rest = self.memory.journaled.keys() * BESIDE_OCTETS;
            if self.is_short() && to_rest > self.settings.messages_octets_max / 8 {
                self.begin_to_rest_all();
            }
        }
        self.free_segments();
        self.go_on_with_checkpoint();
    }

    /// Whether what is at rest should leave memory.
    fn is_short(&self) -> bool {
        self.memory.octets > self.settings.messages_octets_max / 2
    }

    /// Lets blocks grow cold while memory is short.
    pub(super) fn cool_down(&mut self, accounts: &Accounts) {
        for _ in 0..BLOCKS.min(self.memory.rest.to_cool()) {
            if !self.is_short() {
                return;
            }
            let Some((number, members)) = self.memory.rest.next_to_cool() else { return };
            if !self.memory.cool(number, &members, accounts) {
                self.memory.rest.cool_later(number);
            }
        }
    }

    /// A block comes back.
    pub(super) fn warm_up(
        &mut self,
        number: RestNumber,
        octets: &[u8],
        accounts: &Accounts,
    ) -> Result<Returned, Unrecoverable> {
        self.fetching.remove(&number);
        let fresh_for = if self.asked_for.remove(&number) { FRESH } else { Duration::ZERO };
        let was_with_carrier = self.to_resume.remove(&number);
        let mut returned = Returned::default();
        if !self.memory.rest.is_cold(number) {
            return Ok(returned);
        }
        for key in self.memory.warm(number, octets, fresh_for, accounts)? {
            match key {
                RestKey::Parcel(key) => returned.parcels.push(key),
                RestKey::Message(id) => {
                    let had_carrier = |message: &Message| !message.standing.state.is_waiting();
                    if was_with_carrier && self.message(id).is_some_and(had_carrier) {
                        returned.with_carrier.push(id);
                    }
                }
            }
        }
        self.fetch_due();
        Ok(returned)
    }
}

impl Memory {
    /// Whether a block could grow cold: nothing in it has changed, is under way or due.
    fn cool(&mut self, number: RestNumber, members: &[(RestPlace, RestKey)], accounts: &Accounts) -> bool {
        let mut due = DueAt::NEVER;
        let mut traces = Vec::with_capacity(members.len());
        for (place, key) in members {
            // What has gone from here is of no interest.
            if self.kept_mut(*key).is_none_or(|kept| kept.place() != Some(*place)) {
                continue;
            }
            let Some((at, trace)) = self.trace(*key, *place, accounts) else { return false };
            due = due.min(at);
            traces.push((*key, trace));
        }
        if traces.is_empty() {
            return true;
        }
        // It has just come back, because of that or because somebody asked for it.
        if due.has_come(self.now) || self.rest.is_fresh(number, self.now.instant) {
            return false;
        }
        for (key, _) in &traces {
            match key {
                RestKey::Message(id) => _ = self.remove_message(*id, accounts),
                RestKey::Parcel(key) => _ = self.remove_parcel(*key),
            }
        }
        let alarm = self.block_alarm(number, due);
        self.rest.cool(number, alarm, traces.into_iter().map(|(_, trace)| trace));
        true
    }

    /// Rings when the first thing of a cold block is due.
    fn block_alarm(&mut self, number: RestNumber, due: DueAt) -> Alarm {
        let mut alarm = Alarm::default();
        alarm.set(&mut self.wheels, due, TimerKey::Block(number));
        alarm
    }

    /// Whether a parcel that has come back was refused before it left, and is to be tried at another time.
    fn waits_for_its_time(&mut self, key: ParcelKey) -> bool {
        let Some(Retry { attempts, paused_until }) = self.rest.take_retry(key) else { return false };
        let Some(held) = self.parcels.get_mut(key) else { return false };
        held.attempts = attempts;
        let is_paused = (self.now.instant..Instant::MAX).contains(&paused_until);
        if is_paused {
            self.pause_parcel(key, paused_until);
        }
        is_paused
    }

    /// Takes everything of a cold block in; what of that is to go on at once, should it have waited for this.
    fn warm(
        &mut self,
        number: RestNumber,
        octets: &[u8],
        fresh_for: Duration,
        accounts: &Accounts,
    ) -> Result<Vec<RestKey>, Unrecoverable> {
        let (mut members, mut live, mut traces) = (Vec::new(), Vec::new(), Vec::new());
        let ended = self.rest.ended(number).to_vec();
        for (slot, entry) in (0..).zip(rest_entries(octets)) {
            let (_, record) = entry.map_err(|_| Unrecoverable)?;
            let Traced { key, trace, .. } = self.traced(&record, accounts).ok_or(Unrecoverable)?;
            members.push(key);
            if ended.contains(&slot) {
                continue;
            }
            self.apply(&record, &Source::Rest(RestPlace { block: number, slot }), accounts)
                .map_err(|_| Unrecoverable)?;
            traces.push(trace);
            let waits = match key {
                RestKey::Parcel(key) => self.waits_for_its_time(key),
                RestKey::Message(id) => {
                    // By the clock that is never set: the record has a date, which says nothing once that one was.
                    if let Some(paused_until) = self.rest.take_pause(id) {
                        self.pause_message(id, paused_until);
                    }
                    false
                }
            };
            if !waits {
                live.push(key);
            }
        }
        if let Some(alarm) = self.rest.warm(number, self.now.instant + fresh_for, members, traces) {
            alarm.clear(&mut self.wheels);
        }
        Ok(live)
    }

    /// Takes in a block that stays cold after a restart; whether a carrier had something of it.
    pub(super) fn restore_cold(
        &mut self,
        number: RestNumber,
        octets: &[u8],
        gone: Vec<u16>,
        accounts: &Accounts,
    ) -> Result<bool, Unrecoverable> {
        let (mut due, mut had_carrier, mut total) = (DueAt::NEVER, false, 0);
        let mut traces = Vec::new();
        for (slot, entry) in (0..).zip(rest_entries(octets)) {
            total += 1;
            if gone.contains(&slot) {
                continue;
            }
            let (_, record) = entry.map_err(|_| Unrecoverable)?;
            let traced = self.traced(&record, accounts).ok_or(Unrecoverable)?;
            due = due.min(traced.due);
            had_carrier |= traced.had_carrier;
            traces.push(traced.trace);
        }
        self.rest.restore_cold(number, total, gone);
        let alarm = self.block_alarm(number, due);
        self.rest.cool(number, alarm, traces);
        Ok(had_carrier)
    }

    fn traced(&self, record: &Record<'_>, accounts: &Accounts) -> Option<Traced> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is at rest")]
        match *record {
            Record::MessageAtRest { standing, content } => {
                let content = Content::read(content).ok()?;
                let is_waiting = standing.state.is_waiting();
                let pair = if is_waiting { self.waiting.pair_of(&content, accounts) } else { None };
                let paused_until = self.pause_of(&standing);
                Some(Traced {
                    key: RestKey::Message(content.id),
                    trace: Trace::Message { id: content.id, pair, paused_until },
                    due: DueAt::of_message(&standing, paused_until, content.expires_at),
                    had_carrier: !is_waiting,
                })
            }
            Record::DeliveryAtRest(octets) => {
                let parcel = Parcel::read(octets).ok()?;
                let view = parcel.view();
                let account = Some(accounts.index_of(view.system_id)?);
                let trace = Trace::Parcel { key: view.key, account, retry: None };
                let due = DueAt::date(parcel.expires_at(self.parcel_retention));
                Some(Traced { key: RestKey::Parcel(view.key), trace, due, had_carrier: false })
            }
            _ => None,
        }
    }
}

/// Something at rest, and what it is found by while it is cold.
struct Traced {
    key: RestKey,
    trace: Trace,
    due: DueAt,
    had_carrier: bool,
}
