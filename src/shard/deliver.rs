//! deliver_sm: from the partition that owns a receipt or reply, by way of the account's home, to a session,
//! and what came of it back the same way.

use std::collections::VecDeque;

use crate::account::AccountIndex;
use crate::journal::Record;
use crate::message::{Parcel, ParcelKey};
use crate::pdu::{CommandId, CommandStatus};
use crate::shard::mesh::{Delivery, MeshMessage, SessionAddress, ShardNumber};
use crate::shard::{Entry, Event, Sent, Shard};
use crate::time::Now;

/// An outbox with fewer parcels is not tidied.
const TIDY_MIN: usize = 4_096;

/// What this shard's partitions have for one account.
#[derive(Debug)]
pub(super) struct Outbox {
    /// To be offered to the home, oldest first.
    pending: VecDeque<ParcelKey>,
    /// With so many, those that have left memory are taken out.
    tidy_at: usize,
    /// With the home.
    in_flight: u32,
    /// How many the home takes at once.
    room: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { pending: VecDeque::new(), tidy_at: TIDY_MIN, in_flight: 0, room: 0 }
    }
}

impl Shard {
    /// A parcel is to be delivered.
    pub(super) fn enqueue(&mut self, key: ParcelKey) {
        let Some(place) = self.place_of(key.id.partition()) else { return };
        let Some(held) = self.partitions[place].parcel(key) else { return };
        let account = held.account;
        if self.partitions[place].note_pending(key, true) {
            let outbox = self.outboxes.entry(account).or_default();
            outbox.pending.push_back(key);
            // What grew cold while it waited is still named here, and comes again when it is back.
            if outbox.pending.len() >= outbox.tidy_at {
                let partitions = &self.partitions;
                outbox
                    .pending
                    .retain(|key| partitions.iter().any(|partition| partition.parcel(*key).is_some()));
                outbox.tidy_at = (2 * outbox.pending.len()).max(TIDY_MIN);
            }
        }
        self.pump(account);
    }

    /// The home takes so many from now on.
    pub(super) fn granted(&mut self, account: AccountIndex, room: u32) {
        self.outboxes.entry(account).or_default().room = room;
        self.pump(account);
    }

    /// Offers what the home takes.
    fn pump(&mut self, account: AccountIndex) {
        let home = self.home_of(self.accounts.get(account));
        let owner = self.settings.number;
        loop {
            let Some(outbox) = self.outboxes.get_mut(&account) else { return };
            if outbox.in_flight >= outbox.room {
                return;
            }
            let Some(key) = outbox.pending.pop_front() else {
                // More may be at rest alone.
                self.partitions.iter_mut().for_each(|partition| partition.fetch_for(account));
                return;
            };
            let Some(place) = self.place_of(key.id.partition()) else { continue };
            // It may have been given up while it waited, or have grown cold, or come back to be named twice.
            if !self.partitions[place].note_pending(key, false) {
                continue;
            }
            let Some(held) = self.partitions[place].parcel(key) else { continue };
            let parcel = held.parcel.clone();
            self.partitions[place].note_delivery(key, true, None);
            if let Some(outbox) = self.outboxes.get_mut(&account) {
                outbox.in_flight += 1;
            }
            self.send(home, MeshMessage::Offer { account, owner, parcel });
        }
    }

    /// At the home: a parcel for one of its accounts.
    pub(super) fn offered(&mut self, account: AccountIndex, owner: ShardNumber, parcel: Parcel) {
        self.homes.entry(account).or_default().offer(owner, parcel);
        self.dispatch(account);
    }

    /// At the home: gives what is queued to sessions with room.
    pub(super) fn dispatch(&mut self, account: AccountIndex) {
        let Some(home) = self.homes.get_mut(&account) else { return };
        let mut messages = Vec::new();
        home.dispatch(account, |shard, message| messages.push((shard, message)));
        if home.is_empty() {
            self.homes.remove(&account);
        }
        for (shard, message) in messages {
            self.send(shard, message);
        }
    }

    /// At the session: sends the deliver_sm, if it still can.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        account: AccountIndex,
        session: SessionAddress,
        owner: ShardNumber,
        parcel: &Parcel,
    ) {
        let view = parcel.view();
        let key = view.key;
        let receives = |entry: &Entry| entry.session.state().receives();
        let is_there = self.sessions.get(&session.connection).is_some_and(|entry| receives(entry));
        let entry = if is_there { self.sessions.remove(&session.connection) } else { None };
        let Some(mut entry) = entry else {
            let outcome = Delivery::Returned;
            let home = self.home_of(self.accounts.get(account));
            self.send(home, MeshMessage::Delivered { account, session, owner, key, outcome });
            return;
        };
        // Below v3.4 no TLV may be sent; the receipt says the same in its text.
        let tlvs = if entry.session.version().has_tlvs() { view.tlvs } else { &[] };
        entry.session.request_with(now.instant, CommandId::DELIVER_SM, Sent { key, owner }, |out| {
            out.extend_from_slice(view.mandatory);
            out.extend_from_slice(tlvs);
        });
        self.counters.deliver_sent += 1;
        self.put_back(entry);
    }

    /// At the session: deliver_sm_resp.
    pub(super) fn responded(&mut self, entry: &Entry, sent: Sent, status: CommandStatus) {
        let outcome = match status {
            CommandStatus::ESME_ROK => Delivery::Confirmed,
            refused => Delivery::Refused(refused),
        };
        self.report_delivery(entry, sent, outcome);
    }

    /// At the session: tells the home what came of a delivery.
    pub(super) fn report_delivery(&mut self, entry: &Entry, sent: Sent, outcome: Delivery) {
        let Some(account) = entry.account else { return };
        let Sent { key, owner } = sent;
        match outcome {
            Delivery::Confirmed => self.counters.deliver_confirmed += 1,
            Delivery::Refused(_) | Delivery::Unanswered => self.counters.deliver_failed += 1,
            Delivery::Returned => {}
        }
        let session = self.address(entry.connection);
        let home = self.home_of(self.accounts.get(account));
        self.send(home, MeshMessage::Delivered { account, session, owner, key, outcome });
    }

    /// At the home: a session has room again; the owner is told.
    pub(super) fn delivered(
        &mut self,
        account: AccountIndex,
        session: SessionAddress,
        owner: ShardNumber,
        key: ParcelKey,
        outcome: Delivery,
    ) {
        if let Some(home) = self.homes.get_mut(&account) {
            home.delivered(session);
        }
        self.send(owner, MeshMessage::Settle { account, key, outcome });
        self.dispatch(account);
    }

    /// At the owner: what came of it. Anything but ESME_ROK, and the two statuses that ask for no other
    /// try, leads to another try.
    pub(super) fn settle(&mut self, now: Now, account: AccountIndex, key: ParcelKey, outcome: Delivery) {
        if let Some(outbox) = self.outboxes.get_mut(&account) {
            outbox.in_flight = outbox.in_flight.saturating_sub(1);
        }
        match outcome {
            Delivery::Confirmed => {
                self.record(key.id, &Record::Settled { id: key.id, part: key.part }, None);
            }
            Delivery::Refused(CommandStatus::ESME_RX_P_APPN | CommandStatus::ESME_RX_R_APPN) => {
                self.give_up(key, "the ESME refused it for good");
            }
            Delivery::Refused(_) | Delivery::Unanswered => {
                if let Some(place) = self.place_of(key.id.partition())
                    && let Some(held) = self.partitions[place].parcel(key)
                {
                    let delay = self.settings.deliver_retry.delay(held.attempts.saturating_add(1));
                    self.partitions[place].note_delivery(key, false, Some(now.wall + delay));
                }
            }
            Delivery::Returned => {
                if let Some(place) = self.place_of(key.id.partition()) {
                    self.partitions[place].note_delivery(key, false, None);
                    if self.partitions[place].note_pending(key, true) {
                        self.outboxes.entry(account).or_default().pending.push_front(key);
                    }
                }
            }
        }
        self.pump(account);
    }

    /// Delivers no more.
    pub(super) fn give_up(&mut self, key: ParcelKey, reason: &'static str) {
        if self.record(key.id, &Record::Settled { id: key.id, part: key.part }, None) {
            self.counters.deliver_given_up += 1;
            self.outputs.events.push(Event::GivenUp { key, reason });
        }
    }
}
