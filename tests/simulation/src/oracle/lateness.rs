//! Lateness: when nothing is being done anywhere, nothing may be due.
//!
//! The world asks before each tick of a core that has nothing to do: no batch is being written, no order is under way,
//! nothing is left over from a turn. What is due then is seen a few times, and must be gone.

use std::collections::BTreeSet;

use smppd::message::PartitionNumber;
use smppd::session::BindMode;
use smppd::time::Timestamp;

use super::connections::Line;
use super::owed::Owed;
use super::records::Standing;
use super::submissions::fact_is_first;
use super::{Asked, Fact, Life, Oracle, Parcel, Token};

/// So often may something be seen to be due.
const SEEN_MAX: u32 = 6;
/// And for so long at least, in nanoseconds.
const LATE_NANOS: u64 = 600_000_000;
/// A clock that goes back by less than a second is waited for.
const PATIENCE_MILLIS: u64 = 1_100;

/// What is kept as long as it is kept is given up so long after that at the latest, in nanoseconds: it may have left memory, and
/// comes back only when there is room.
const GIVEN_UP_NANOS: u64 = 10_000_000_000;

/// What has nothing to do.
#[derive(Clone, Debug)]
pub struct Idle {
    /// Partitions of a core, which has nothing to do either.
    pub partitions: Vec<PartitionNumber>,
    /// All other cores have nothing to do, and nothing is on its way between them.
    pub is_all: bool,
}

/// Why something must happen to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    EndWasSaid,
    ValidityIsOver,
    AttemptIsOnRecord,
    TimeHasCome,
    PauseIsOver,
}

impl Oracle {
    /// A core has nothing to do, and time goes on.
    pub fn idle(&mut self, idle: &Idle) {
        let now = self.now;
        if self.frozen_until + LATE_NANOS > now {
            return;
        }
        let mut late = Vec::new();
        let due: Vec<(Life, Option<Due>)> = self
            .facts
            .iter()
            .filter(|(life, fact)| fact.end.is_none() && idle.partitions.contains(&life.id.partition()))
            .map(|(life, fact)| (*life, self.due(fact)))
            .collect();
        for (life, due) in due {
            let Some(fact) = self.facts.get_mut(&life) else { continue };
            if std::mem::replace(&mut fact.due, due) != due {
                fact.late.0 = 0;
            }
            if note(&mut fact.late, due.is_some(), now) {
                let since = fact.late.1;
                late.push(format!("{life:?} waits since {since} though {due:?}: {fact:?}"));
            }
        }
        if idle.is_all {
            let is_here = |life: Life| idle.partitions.contains(&life.id.partition());
            // A core has a few parcels of an account under way at once, or only one.
            let busy: BTreeSet<usize> = self
                .last_sent
                .iter()
                .filter(|((life, _), sent)| is_here(*life) && self.may_be_in_flight(sent, LATE_NANOS))
                .filter_map(|(name, _)| self.owed.get(name).map(|owed| owed.account))
                .collect();
            let due: Vec<(Parcel, bool)> = self
                .owed
                .iter()
                .filter(|((life, _), owed)| !owed.is_settled && is_here(*life))
                .map(|(name, owed)| {
                    (*name, !busy.contains(&owed.account) && self.is_deliverable(*name, owed))
                })
                .collect();
            for (name, is_due) in due {
                let Some(owed) = self.owed.get_mut(&name) else { continue };
                if note(&mut owed.late, is_due, now) {
                    let sent = self.last_sent.get(&name).filter(|sent| sent.epoch == self.epoch);
                    late.push(format!("{name:?} could be delivered and is not, last {sent:?}: {owed:?}"));
                }
            }
        }
        if idle.is_all {
            late.extend(self.unanswered());
        }
        late.into_iter().for_each(|late| self.violate(late));
    }

    /// Requests that could have been answered long ago.
    fn unanswered(&mut self) -> Vec<String> {
        let Self { lines, submissions, facts, now, .. } = self;
        let is_going_on = |token: Token| {
            let made = facts.values().find(|fact| fact_is_first(Some(fact), token));
            made.and_then(|fact| fact.end).is_none_or(|end| end.noted + LATE_NANOS > *now)
        };
        let waits_for_something = |line: &Line, asked: &Asked| match asked {
            Asked::Bind(..) => line.verified_at + LATE_NANOS > *now,
            // For the outcome of a transaction.
            Asked::Submit(token) => {
                let submission = submissions.get(*token as usize);
                submission.is_none_or(|submission| submission.wish.is_transaction && is_going_on(*token))
            }
            Asked::Query(_) | Asked::Cancel(_) | Asked::Replace(_) | Asked::QueryForeign => false,
        };
        let mut late = Vec::new();
        for (connection, line) in lines {
            let is_taking = line.is_open && !line.is_paused && line.closed_at.is_none();
            let due = line.asked.iter().find(|(_, (asked, taken_in))| {
                taken_in.is_some_and(|at| at + LATE_NANOS < *now) && !waits_for_something(line, asked)
            });
            if note(&mut line.late, is_taking && due.is_some(), *now) {
                late.push(format!("connection {connection} waits for its answer to {due:?}"));
            }
        }
        late
    }

    /// What must happen to a message now, if anything must.
    fn due(&self, fact: &Fact) -> Option<Due> {
        let reached = |at: Timestamp| self.wall.now.as_millis() >= at.as_millis() + PATIENCE_MILLIS;
        if fact.is_said_over {
            return Some(Due::EndWasSaid);
        }
        // What superseded it may have to cross the cores once more, so that its sender hears of it first.
        let is_told = fact.changed == fact.noted || self.now >= fact.changed + self.mesh_nanos;
        if reached(fact.times.expires_at) {
            return is_told.then_some(Due::ValidityIsOver);
        }
        match fact.standing {
            Standing::WithCarrier { is_offered } => (!is_offered).then_some(Due::AttemptIsOnRecord),
            Standing::Waits { pause_until, date } => {
                let known = self.now.saturating_sub(2 * LATE_NANOS);
                let may_begin = reached(fact.times.deliver_at) && self.has_route(&fact.destination, known);
                let due = if reached(date) { Due::TimeHasCome } else { Due::PauseIsOver };
                (may_begin && is_told && self.now >= pause_until).then_some(due)
            }
        }
    }

    /// Whether a destination had a carrier then, for all cores.
    pub(super) fn has_route(&self, destination: &[u8], then: u64) -> bool {
        let is_theirs = |prefix: &str| destination.starts_with(prefix.as_bytes());
        self.routes.iter().any(|(prefix, since)| is_theirs(prefix) && *since <= then)
    }

    /// Whether a parcel must be on its way to an ESME now, or noted as delivered.
    fn is_deliverable(&self, (life, part): Parcel, owed: &Owed) -> bool {
        // Of several that look alike nobody knows which one was sent.
        if self.alike((life, part)).len() > 1 {
            return false;
        }
        if owed.is_done && owed.done_in == self.epoch {
            return true;
        }
        if let Some(sent) = self.last_sent.get(&(life, part))
            && sent.epoch == self.epoch
        {
            let deaf_until = self.lines.get(&sent.connection).map_or(0, |line| line.deaf_until);
            // A core that stood still gives up its wait for the answer when it goes on.
            let given_up_at = (sent.at.max(deaf_until) + self.response_nanos).max(self.frozen_until);
            if given_up_at + self.retry_nanos > self.now {
                return false;
            }
        }
        if self.books[owed.account].served_at + LATE_NANOS > self.now {
            return false;
        }
        // It may have been given to one of these, or have come back from one just now, and make its pause.
        let is_lost = |line: &Line| {
            let may_have_it = line.is_paused || line.closed_at.is_some() || line.is_leaving;
            let came_back = line.closed_at.is_some_and(|at| at + self.retry_nanos > self.now);
            line.is_open && may_have_it || came_back
        };
        let of_account = || self.lines.values().filter(|line| line.esme_account == owed.account);
        if of_account().any(is_lost) {
            return false;
        }
        // When its retention is over it is given up, whether anybody is there or not.
        let kept_until = owed.at.as_millis() + self.retention;
        let since = self.now.saturating_sub(GIVEN_UP_NANOS);
        let is_over = self.wall.earliest_since(since, self.now).as_millis() >= kept_until;
        is_over
            || of_account().any(|line| {
                let in_flight = line
                    .deliveries
                    .values()
                    .filter(|(at, _)| at.max(&line.deaf_until) + self.response_nanos + LATE_NANOS > self.now);
                let (window, _) = line.window;
                line.is_open
                    && line.is_bound
                    && line.closed_at.is_none()
                    && line.mode != BindMode::Transmitter
                    && in_flight.count() < window
            })
    }
}

/// Notes whether something is due; whether it has been for too long.
fn note(late: &mut (u32, u64), is_due: bool, now: u64) -> bool {
    if !is_due {
        *late = (0, now);
        return false;
    }
    if late.0 == 0 {
        late.1 = now;
    }
    late.0 += 1;
    late.0 > SEEN_MAX && now > late.1 + LATE_NANOS
}
