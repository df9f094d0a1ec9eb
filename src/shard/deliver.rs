//! deliver_sm: from the partition that owns a receipt or reply, by way of the account's home, to a session,
//! and what came of it back the same way.

use crate::account::AccountIndex;
use crate::journal::Record;
use crate::message::{Parcel, ParcelKey};
use crate::pdu::{CommandId, CommandStatus};
use crate::shard::mesh::{Delivery, MeshMessage, SessionAddress, ShardNumber};
use crate::shard::partition::{Earned, Follows};
use crate::shard::{Entry, Event, Sent, Shard};
use crate::time::Now;

/// How this shard stands with the home of one account. What waits to be offered is with the partitions.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    /// With the home.
    in_flight: u32,
    /// How many the home takes at once.
    room: u32,
}

impl Shard {
    /// A parcel is to be delivered; false when it is not here.
    pub(super) fn enqueue(&mut self, key: ParcelKey) -> bool {
        let Some(place) = self.place_of(key.id.partition()) else { return false };
        let Some(account) = self.partitions[place].await_offer(key) else { return false };
        self.to_pump.insert(account);
        true
    }

    /// The same for one that has come back from rest: behind what was earned before, the response of its submission among it.
    pub(super) fn enqueue_behind(&mut self, place: usize, key: ParcelKey) {
        let partition = &mut self.partitions[place];
        let account = partition.parcel(key).map(|held| held.account);
        match account.filter(|_| !partition.has_failed()) {
            Some(account) => partition.earn(Earned::Follows(Follows::Deliver { key, account })),
            None => _ = self.enqueue(key),
        }
    }

    /// Offers what accounts wait for, and gives sessions what their homes have: once for all that a turn has brought.
    pub(super) fn move_parcels(&mut self) {
        while let Some(account) = self.to_pump.pop_first() {
            self.pump(account);
        }
        while let Some(account) = self.to_dispatch.pop_first() {
            self.dispatch(account);
        }
    }

    /// The home takes so many from now on.
    pub(super) fn granted(&mut self, account: AccountIndex, room: u32) {
        self.outboxes.entry(account).or_default().room = room;
        self.to_pump.insert(account);
    }

    /// Offers what the home takes, the oldest first.
    pub(super) fn pump(&mut self, account: AccountIndex) {
        let home = self.home_of(self.accounts.get(account));
        let owner = self.settings.number;
        loop {
            let outbox = self.outboxes.get_mut(&account);
            let Some(outbox) = outbox.filter(|outbox| outbox.in_flight < outbox.room) else { return };
            let waiting = self.partitions.iter().enumerate();
            let waiting = waiting.filter_map(|(place, own)| Some((own.oldest_pending(account)?, place)));
            let Some((key, place)) = waiting.min() else {
                // More may be at rest alone.
                self.partitions.iter_mut().for_each(|partition| partition.fetch_for(account));
                return;
            };
            let Some(parcel) = self.partitions[place].offer(key) else { return };
            self.partitions.iter_mut().for_each(|partition| partition.fetch_beside(account));
            outbox.in_flight += 1;
            self.send(home, MeshMessage::Offer { account, owner, parcel });
        }
    }

    /// At the home: a parcel for one of its accounts.
    pub(super) fn offered(&mut self, account: AccountIndex, owner: ShardNumber, parcel: Parcel) {
        self.homes.entry(account).or_default().offer(owner, parcel);
        self.to_dispatch.insert(account);
    }

    /// At the home: gives what is queued to sessions with room.
    pub(super) fn dispatch(&mut self, account: AccountIndex) {
        let Some(mut home) = self.homes.remove(&account) else { return };
        home.dispatch(account, |shard, message| self.send(shard, message));
        if !home.is_empty() {
            self.homes.insert(account, home);
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
        let entry = self.sessions.get_mut(&session.connection);
        let Some(entry) = entry.filter(|entry| entry.session.state().receives() && !entry.has_closed) else {
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
        if entry.note(self.now, &mut self.outputs.dirty, &mut self.session_timers) {
            self.release(session.connection);
        }
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
        self.to_dispatch.insert(account);
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
                    self.partitions[place].returned(key, Some(now.instant + delay));
                }
            }
            Delivery::Returned => {
                if let Some(place) = self.place_of(key.id.partition()) {
                    self.partitions[place].returned(key, None);
                    self.partitions[place].await_offer(key);
                }
            }
        }
        self.to_pump.insert(account);
    }

    /// Delivers no more.
    pub(super) fn give_up(&mut self, key: ParcelKey, reason: &'static str) {
        if self.record(key.id, &Record::Settled { id: key.id, part: key.part }, None) {
            self.counters.deliver_given_up += 1;
            self.outputs.events.push(Event::GivenUp { key, reason });
        }
    }
}
