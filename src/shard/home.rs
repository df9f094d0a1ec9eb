//! The home of accounts: which of their sessions are bound, and which gets the next deliver_sm.

use std::collections::VecDeque;

use crate::account::AccountIndex;
use crate::message::Parcel;
use crate::shard::mesh::{Delivery, MeshMessage, SessionAddress, ShardNumber};

/// What the home knows of one account.
#[derive(Debug, Default)]
pub struct Home {
    sessions: Vec<HomeSession>,
    /// Offered and not yet given to a session; bounded by what was granted.
    queue: VecDeque<(ShardNumber, Parcel)>,
}

#[derive(Debug)]
struct HomeSession {
    address: SessionAddress,
    window: u32,
    in_flight: u32,
    ready: bool,
}

impl Home {
    /// Whether nothing is left to remember.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.queue.is_empty()
    }

    /// Counts a session; `limit` 0 = any number. `false` when there are as many as may be.
    pub fn admit(&mut self, address: SessionAddress, window: u32, limit: u32) -> bool {
        if limit != 0 && self.sessions.len() >= limit as usize {
            return false;
        }
        self.sessions.push(HomeSession { address, window, in_flight: 0, ready: false });
        true
    }

    /// The session's bind was answered: it may be sent to. `true` when that changes what can be granted.
    pub fn ready(&mut self, address: SessionAddress) -> bool {
        match self.sessions.iter_mut().find(|session| session.address == address) {
            Some(session) => {
                session.ready = true;
                session.window > 0
            }
            None => false,
        }
    }

    /// Forgets a session. `true` when that changes what can be granted.
    pub fn release(&mut self, address: SessionAddress) -> bool {
        let Some(place) = self.sessions.iter().position(|session| session.address == address) else {
            return false;
        };
        let session = self.sessions.swap_remove(place);
        session.ready && session.window > 0
    }

    /// How many parcels each of `owners` shards may have here at once: enough to fill every window while
    /// the next ones are on their way; none when nobody receives.
    pub fn room(&self, owners: usize) -> u32 {
        let window: u64 = self.receivers().map(|session| u64::from(session.window)).sum();
        u32::try_from((2 * window).div_ceil(owners.max(1) as u64)).unwrap_or(u32::MAX)
    }

    /// Takes a parcel in.
    pub fn offer(&mut self, owner: ShardNumber, parcel: Parcel) {
        self.queue.push_back((owner, parcel));
    }

    /// A session answered, or did not.
    pub fn delivered(&mut self, address: SessionAddress) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.address == address) {
            session.in_flight = session.in_flight.saturating_sub(1);
        }
    }

    /// Gives the queue to the sessions with room, the least busy first; when nobody receives, gives it back.
    pub fn dispatch(&mut self, account: AccountIndex, mut send: impl FnMut(ShardNumber, MeshMessage)) {
        if self.receivers().next().is_none() {
            for (owner, parcel) in self.queue.drain(..) {
                let key = parcel.view().key;
                send(owner, MeshMessage::Settle { account, key, outcome: Delivery::Returned });
            }
            return;
        }
        while !self.queue.is_empty() {
            let with_room = self
                .sessions
                .iter_mut()
                .filter(|session| session.ready && session.in_flight < session.window)
                .min_by_key(|session| session.in_flight);
            let Some(session) = with_room else { return };
            let Some((owner, parcel)) = self.queue.pop_front() else { return };
            session.in_flight += 1;
            let message = MeshMessage::Deliver { account, session: session.address, owner, parcel };
            send(session.address.shard, message);
        }
    }

    fn receivers(&self) -> impl Iterator<Item = &HomeSession> {
        self.sessions.iter().filter(|session| session.ready && session.window > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, Reply, reply_for};
    use crate::pdu::{Address, DataCoding};
    use crate::shard::mesh::ConnectionId;
    use crate::time::Timestamp;

    const ACCOUNT: AccountIndex = AccountIndex(0);

    fn session(shard: u8, connection: u64) -> SessionAddress {
        SessionAddress { shard: ShardNumber(shard), connection: ConnectionId(connection) }
    }

    fn parcel(number: u64) -> Parcel {
        let reply = Reply {
            source: Address::default(),
            destination: Address::default(),
            data_coding: DataCoding::DEFAULT,
            user_data: b"",
            has_udh: false,
        };
        reply_for(MessageId::from_u64(number), b"demo", &reply, Timestamp::ZERO).expect("it fits")
    }

    fn dispatched(home: &mut Home) -> Vec<(ShardNumber, MeshMessage)> {
        let mut sent = Vec::new();
        home.dispatch(ACCOUNT, |shard, message| sent.push((shard, message)));
        sent
    }

    #[test]
    fn the_bind_limit_counts_every_core_and_frees_on_release() {
        let mut home = Home::default();
        assert!(home.admit(session(0, 1), 10, 2));
        assert!(home.admit(session(1, 1), 0, 2));
        assert!(!home.admit(session(0, 2), 10, 2));
        home.release(session(1, 1));
        assert!(home.admit(session(0, 2), 10, 2));
        assert!(home.admit(session(3, 9), 10, 0));
    }

    #[test]
    fn nothing_is_given_to_transmitters_or_beyond_a_window() {
        let mut home = Home::default();
        home.admit(session(0, 1), 0, 0);
        home.admit(session(1, 2), 2, 0);
        home.ready(session(0, 1));
        home.ready(session(1, 2));
        (0..5).for_each(|number| home.offer(ShardNumber(0), parcel(number)));
        let sent = dispatched(&mut home);
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|(shard, _)| *shard == ShardNumber(1)));
        home.delivered(session(1, 2));
        assert_eq!(dispatched(&mut home).len(), 1);
    }

    #[test]
    fn the_least_busy_session_comes_first() {
        let mut home = Home::default();
        for (shard, connection) in [(0, 1), (1, 2)] {
            home.admit(session(shard, connection), 10, 0);
            home.ready(session(shard, connection));
        }
        (0..10).for_each(|number| home.offer(ShardNumber(0), parcel(number)));
        let to_first = dispatched(&mut home).iter().filter(|(shard, _)| *shard == ShardNumber(0)).count();
        assert_eq!(to_first, 5);
    }

    #[test]
    fn without_receivers_everything_goes_back_to_its_owner() {
        let mut home = Home::default();
        home.admit(session(0, 1), 1, 0);
        home.ready(session(0, 1));
        (0..3).for_each(|number| home.offer(ShardNumber(2), parcel(number)));
        assert_eq!(dispatched(&mut home).len(), 1);
        assert!(home.release(session(0, 1)));
        assert_eq!(home.room(4), 0);
        let back = dispatched(&mut home);
        assert_eq!(back.len(), 2);
        assert!(back.iter().all(|(shard, message)| {
            *shard == ShardNumber(2)
                && matches!(message, MeshMessage::Settle { outcome: Delivery::Returned, .. })
        }));
    }

    #[test]
    fn the_owners_may_have_twice_what_all_windows_hold_and_nothing_for_transmitters() {
        let mut home = Home::default();
        assert_eq!((home.room(1), home.room(4)), (0, 0));
        home.admit(session(0, 1), 10, 0);
        assert_eq!(home.room(1), 0, "its bind is not answered");
        assert!(home.ready(session(0, 1)));
        assert_eq!([1, 2, 3, 4, 20].map(|owners| home.room(owners)), [20, 10, 7, 5, 1]);
        home.admit(session(1, 2), 0, 0);
        assert!(!home.ready(session(1, 2)), "a transmitter changes nothing");
        assert_eq!(home.room(1), 20);
        home.admit(session(2, 3), 5, 0);
        assert!(home.ready(session(2, 3)));
        assert_eq!(home.room(1), 30);
        assert!(!home.release(session(1, 2)) && home.release(session(0, 1)));
        assert_eq!((home.room(1), home.room(0)), (10, 10));
        assert!(!home.release(session(0, 1)) && !home.ready(session(0, 1)), "it is gone");
        assert!(home.release(session(2, 3)) && home.is_empty());
    }
}
