//! Which core a session lives on. The kernel deals connections out blindly: of four big customers three may come to one
//! core. So a session that has given its password takes a seat on the core with the least to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Requests per second, of all cores together, below which there is little to share out but the sessions themselves.
const TRAFFIC_MIN: u64 = 50_000;
/// A core must be ahead by such a part of all sessions, or by half of one, before those that bind move away from it.
const AHEAD: u64 = 16;

/// What each core has to do, for all to see. Asked once a bind: a lock that is held for nanoseconds is cheap enough,
/// and exact when many bind at once.
pub(super) struct Balance {
    loads: Mutex<Vec<Load>>,
    sessions_max: u64,
    /// Connections of all cores.
    connections: AtomicU64,
}

/// A connection, wherever it is; counted until it is dropped.
pub(super) struct Counted(Arc<Balance>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one core has to do.
#[derive(Clone, Copy, Default, Debug)]
struct Load {
    /// Seats taken.
    sessions: u64,
    /// Requests per second, of late.
    traffic: u64,
}

/// A session's place on a core, free again when it is dropped.
pub(super) struct Seat {
    balance: Arc<Balance>,
    core: usize,
}

impl Balance {
    /// For so many cores; a core with `sessions_max` sessions takes no more from others.
    pub(super) fn new(cores: usize, sessions_max: usize) -> Self {
        let loads = Mutex::new(vec![Load::default(); cores]);
        Self { loads, sessions_max: sessions_max as u64, connections: AtomicU64::new(0) }
    }

    /// Connections of all cores, and how many there may be.
    pub(super) fn connections(&self) -> (u64, u64) {
        (self.connections.load(Ordering::Relaxed), self.sessions_max * self.loads().len() as u64)
    }

    /// Whether all cores together have as many connections as they may have: one that moves to another core takes no
    /// descriptor more, but leaves room where it was.
    pub(super) fn is_full(&self) -> bool {
        let (connections, connections_max) = self.connections();
        connections >= connections_max
    }

    /// A connection was accepted.
    pub(super) fn open(self: &Arc<Self>) -> Counted {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(self))
    }

    /// Takes a seat for a session that is on core `here` now.
    pub(super) fn seat(self: &Arc<Self>, here: usize) -> Seat {
        let mut loads = self.loads();
        let core = lighter(&loads, here).filter(|core| loads[*core].sessions < self.sessions_max);
        let core = core.unwrap_or(here);
        loads[core].sessions += 1;
        Seat { balance: Arc::clone(self), core }
    }

    /// A core says how many requests it has seen in the last second; older ones count half as much each time.
    pub(super) fn note_traffic(&self, core: usize, per_second: u64) {
        let load = &mut self.loads()[core];
        load.traffic = load.traffic.midpoint(per_second);
    }

    fn loads(&self) -> MutexGuard<'_, Vec<Load>> {
        // Numbers are as good after a panic as before it.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Which core it is on.
    pub(super) const fn core(&self) -> usize {
        self.core
    }

    /// The session stays on core `here` after all.
    pub(super) fn stay(&mut self, here: usize) {
        let mut loads = self.balance.loads();
        loads[self.core].sessions -= 1;
        loads[here].sessions += 1;
        drop(loads);
        self.core = here;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.balance.loads()[self.core].sessions -= 1;
    }
}

/// The core with the least to do, if core `here` has clearly more. Both shares count alike, that of all sessions and that
/// of all requests: nobody knows what a new session will send.
fn lighter(loads: &[Load], here: usize) -> Option<usize> {
    let sessions: u64 = loads.iter().map(|load| load.sessions).sum();
    let traffic = loads.iter().map(|load| load.traffic).sum::<u64>().max(TRAFFIC_MIN);
    let weight = |core: usize| {
        let Load { sessions: own_sessions, traffic: own_traffic } = loads[core];
        u128::from(own_sessions) * u128::from(traffic) + u128::from(own_traffic) * u128::from(sessions)
    };
    let lightest = (0..loads.len()).min_by_key(|core| weight(*core))?;
    let ahead = u128::from(traffic) * u128::from((sessions * 2 / AHEAD).max(1));
    (2 * weight(here) >= 2 * weight(lightest) + ahead).then_some(lightest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seats for sessions that came in on these cores; how many each core has.
    fn seated(balance: &Arc<Balance>, came_on: impl IntoIterator<Item = usize>) -> (Vec<Seat>, Vec<u64>) {
        let seats: Vec<Seat> = came_on.into_iter().map(|core| balance.seat(core)).collect();
        let counts = balance.loads().iter().map(|load| load.sessions).collect();
        (seats, counts)
    }

    #[test]
    fn few_sessions_are_shared_out_wherever_they_came_in() {
        for came_on in [[0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0]] {
            let balance = Arc::new(Balance::new(2, 1_000));
            assert_eq!(seated(&balance, came_on).1, [2, 2], "{came_on:?}");
        }
    }

    #[test]
    fn many_sessions_stay_where_they_are_while_the_difference_is_small() {
        let balance = Arc::new(Balance::new(2, 10_000));
        let (_seats, counts) = seated(&balance, (0..1_000).map(|number| number % 2));
        assert_eq!(counts, [500, 500]);
        let (_more, counts) = seated(&balance, [0; 40]);
        assert_eq!(counts, [540, 500]);
        let (_many, counts) = seated(&balance, [0; 400]);
        assert!(counts[0] - counts[1] <= 1_440 / AHEAD, "{counts:?}");
    }

    #[test]
    fn a_busy_core_gets_no_more_although_it_has_fewer_sessions() {
        let balance = Arc::new(Balance::new(2, 1_000));
        let (_seats, counts) = seated(&balance, [0, 1, 1]);
        assert_eq!(counts, [1, 2]);
        (0..10).for_each(|_| balance.note_traffic(0, 300_000));
        assert_eq!(balance.seat(0).core(), 1);
        assert_eq!(balance.seat(1).core(), 1);
    }

    #[test]
    fn little_traffic_does_not_outweigh_sessions() {
        let balance = Arc::new(Balance::new(2, 1_000));
        let (_seats, _) = seated(&balance, [0, 1, 1]);
        balance.note_traffic(0, 100);
        assert_eq!(balance.seat(1).core(), 0);
    }

    #[test]
    fn a_seat_is_free_again_when_its_session_is_over_or_stays() {
        let balance = Arc::new(Balance::new(2, 1_000));
        let (mut seats, counts) = seated(&balance, [0, 0]);
        assert_eq!(counts, [1, 1]);
        seats[1].stay(0);
        assert_eq!(balance.seat(0).core(), 1);
        drop(seats);
        assert_eq!(seated(&balance, [1, 1]).1, [1, 1]);
    }

    #[test]
    fn a_full_core_takes_none_from_others() {
        let balance = Arc::new(Balance::new(2, 1));
        assert_eq!(seated(&balance, [0, 0, 0]).1, [2, 1]);
    }
}
