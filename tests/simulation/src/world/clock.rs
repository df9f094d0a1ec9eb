//! The clock on the wall, which is set while processes run, and what has nothing to do when time passes.

use super::*;

/// The right time at the beginning, in milliseconds.
pub(super) const BEGIN_MILLIS: u64 = 1_790_000_000_000;
/// 2100-01-01, beyond the last year of an id.
const FAR_MILLIS: u64 = 4_102_444_800_000;
const HOUR_MILLIS: u64 = 3_600_000;
/// How long peace may last before what waits for a wrong date is helped along.
const HELP_AFTER: u64 = 60 * SECOND;

/// How the clock behaves in a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clock {
    /// It is never set while a process runs.
    Steady,
    /// It is set often, a little, now and then by an hour.
    Nervous,
    /// And for a while it stands beyond the last year.
    Wild,
}

impl Clock {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.range(0, 99) {
            0..=71 => Self::Steady,
            72..=97 => Self::Nervous,
            _ => Self::Wild,
        }
    }
}

impl World {
    /// The clock is set, or was set too far and is put right.
    pub(super) fn step_clock(&mut self) {
        if self.is_calm || self.clock == Clock::Steady {
            return;
        }
        if let Some(wall_offset) = self.clock_returns_to.take() {
            let delay = self.random.delay(5, 300) * MILLI;
            self.at(delay, Event::ClockSet);
            return self.set_clock(wall_offset);
        }
        // Now and then it is put right at once: what has come due is not, after all.
        let is_short = self.random.chance(40);
        let delay = if is_short { self.random.range(1, 30) } else { self.random.delay(5, 300) };
        self.at(delay * MILLI, Event::ClockSet);
        self.clock_returns_to = is_short.then_some(self.wall_offset);
        let is_far = self.wall_offset > FAR_MILLIS / 2;
        let draw = self.random.range(0, 99);
        let by = match draw {
            0..=84 => self.random.range(1, 200),
            85..=92 => self.random.range(1_000, 5_000),
            93..=97 if self.clock == Clock::Nervous => self.random.range(1_000, 5_000),
            98 if self.clock == Clock::Nervous => HOUR_MILLIS,
            _ if self.clock == Clock::Wild && !is_far => {
                self.clock_returns_to = None;
                self.crowd_comes = !std::mem::replace(&mut self.crowd_came, true);
                let ahead = FAR_MILLIS - BEGIN_MILLIS;
                return self.set_clock(self.wall_offset + ahead);
            }
            _ => 1,
        };
        if is_far && self.random.chance(15) {
            self.clock_returns_to = None;
            return self.set_clock(BEGIN_MILLIS);
        }
        let is_back = !is_short && self.random.chance(55);
        self.set_clock(if is_back { self.wall_offset - by } else { self.wall_offset + by });
    }

    pub(super) fn set_clock(&mut self, wall_offset: u64) {
        if wall_offset == self.wall_offset {
            return;
        }
        self.wall_offset = wall_offset;
        self.oracle.borrow_mut().seen.clock_steps += 1;
        let wall = self.now().wall;
        self.trace.note(self.nanos, format_args!("the clock is set to {wall}"));
        self.reach(self.nanos);
    }

    /// What was accepted while the clock was wrong waits for a date that is far ahead: in the end it comes.
    pub(super) fn help_along(&mut self, calm_since: u64) {
        let (wall, latest) = (self.now().wall, self.oracle.borrow().latest());
        if self.nanos > calm_since + HELP_AFTER && latest > wall {
            let ahead = latest.as_millis() - wall.as_millis();
            self.set_clock(self.wall_offset + ahead + 1_000);
        }
    }

    /// Tells the oracle when a core has nothing to do.
    pub(super) fn note_idle(&mut self, core: usize) {
        let mut oracle = self.oracle.borrow_mut();
        for connection in self.network.connections() {
            let Some(line) = self.network.get_mut(connection) else { continue };
            let is_served = line.server_open && line.is_accepted && !line.is_moving;
            if is_served && !self.cores[line.core].shard.wants_octets(ConnectionId(connection)) {
                oracle.deaf(connection);
            }
        }
        if self.is_stopping || !self.is_idle(core) {
            return;
        }
        let is_mesh_idle = self.mesh.values().all(VecDeque::is_empty) && self.moving.is_empty();
        let is_all = is_mesh_idle && (0..self.cores.len()).all(|core| self.is_idle(core));
        let shard = &self.cores[core].shard;
        let partitions =
            shard.partitions().iter().filter(|partition| !partition.has_failed()).map(|own| own.number);
        let idle = Idle { partitions: partitions.collect(), is_all };
        oracle.idle(&idle);
    }

    /// Whether a core and its disks have done all that there was to do.
    fn is_idle(&self, core: usize) -> bool {
        let Core { shard, goes_on, frozen_until, .. } = &self.cores[core];
        let has_done = |partition: &Partition| {
            let disk = &self.disks[&partition.number];
            let is_full = partition.memory_octets() >= self.limits.messages_octets_max;
            !is_full && !disk.is_writing() && !disk.has_orders() && !partition.wants_batch()
        };
        !goes_on
            && *frozen_until <= self.nanos
            && !shard.has_more()
            && shard.partitions().iter().all(has_done)
    }
}
