//! What is counted and timed while a run goes on: a [`Tally`] for each group, and a [`Pulse`] for each second.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use smppd::pdu::{CommandId, CommandStatus};

/// The longest latency that is told apart, in microseconds; longer ones count as this.
const MICROS_MAX: u64 = 600_000_000;
/// Decimal digits that two latencies must share to be taken for the same.
const DIGITS: u8 = 3;

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timed {
    SubmitSm,
    DataSm,
    SubmitMulti,
    QuerySm,
    CancelSm,
    ReplaceSm,
    Bind,
    Receipt,
}

impl Timed {
    pub(crate) const ALL: [Self; 8] = [
        Self::SubmitSm,
        Self::DataSm,
        Self::SubmitMulti,
        Self::QuerySm,
        Self::CancelSm,
        Self::ReplaceSm,
        Self::Bind,
        Self::Receipt,
    ];

    /// As reports call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SubmitSm => "submit_sm",
            Self::DataSm => "data_sm",
            Self::SubmitMulti => "submit_multi",
            Self::QuerySm => "query_sm",
            Self::CancelSm => "cancel_sm",
            Self::ReplaceSm => "replace_sm",
            Self::Bind => "bind",
            Self::Receipt => "receipt",
        }
    }

    /// The operation that a response is timed as; `None` for those that are not.
    pub(crate) fn of(command_id: CommandId) -> Option<Self> {
        match command_id {
            CommandId::SUBMIT_SM => Some(Self::SubmitSm),
            CommandId::DATA_SM => Some(Self::DataSm),
            CommandId::SUBMIT_MULTI => Some(Self::SubmitMulti),
            CommandId::QUERY_SM => Some(Self::QuerySm),
            CommandId::CANCEL_SM => Some(Self::CancelSm),
            CommandId::REPLACE_SM => Some(Self::ReplaceSm),
            _ => None,
        }
    }

    /// Whether ESME_ROK means that a message was accepted.
    pub(crate) const fn is_submission(self) -> bool {
        matches!(self, Self::SubmitSm | Self::DataSm | Self::SubmitMulti)
    }
}

/// Latencies in microseconds; takes memory once it has one.
#[derive(Clone, Default, Debug)]
pub(crate) enum Latencies {
    #[default]
    None,
    /// Quick to record into, and large.
    Open(Histogram<u64>),
    /// HdrHistogram's V2 form: some kilobytes.
    Packed(Box<[u8]>),
}

impl Latencies {
    pub(crate) fn record(&mut self, nanos: u64) {
        // No latency is nothing: what is 0 was not measured.
        self.open().saturating_record((nanos / 1_000).max(1));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if let Some(theirs) = other.histogram() {
            // All have the same bounds.
            self.open().add(&*theirs).unwrap_or_default();
        }
    }

    /// All of them, if there is any.
    pub(crate) fn histogram(&self) -> Option<Cow<'_, Histogram<u64>>> {
        match self {
            Self::None => None,
            Self::Open(histogram) => Some(Cow::Borrowed(histogram)),
            Self::Packed(octets) => Deserializer::new().deserialize(&mut &octets[..]).ok().map(Cow::Owned),
        }
    }

    /// Gives back the memory that only recording needs.
    pub(crate) fn pack(&mut self) {
        if let Self::Open(histogram) = self {
            let mut octets = Vec::new();
            // It fails for a count above 2^63 only, which no second lives to see.
            if V2Serializer::new().serialize(histogram, &mut octets).is_ok() {
                *self = Self::Packed(octets.into());
            }
        }
    }

    fn open(&mut self) -> &mut Histogram<u64> {
        if !matches!(self, Self::Open(_)) {
            // Bounds and digits that it does take.
            let fresh =
                || Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).unwrap_or_else(|_| unreachable!());
            *self = Self::Open(self.histogram().map_or_else(fresh, Cow::into_owned));
        }
        match self {
            Self::Open(histogram) => histogram,
            Self::None | Self::Packed(_) => unreachable!("it has just been opened"),
        }
    }
}

/// What happened to a group in the measured time. Latencies are those of requests that were due in it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tally {
    /// By [`Timed`]: how many were due.
    pub(crate) requests: [u64; Timed::ALL.len()],
    /// By [`Timed`].
    pub(crate) latencies: [Latencies; Timed::ALL.len()],
    /// Messages answered ESME_ROK.
    pub(crate) accepted: u64,
    /// Other requests answered ESME_ROK.
    pub(crate) done: u64,
    /// Requests answered with another status.
    pub(crate) refused: BTreeMap<CommandStatus, u64>,
    pub(crate) receipts: u64,
    pub(crate) deliveries: u64,
    /// These also outside of the measured time.
    pub(crate) binds: u64,
    pub(crate) binds_refused: BTreeMap<CommandStatus, u64>,
    pub(crate) connections_lost: u64,
    /// Sent and never answered, whoever's fault it was.
    pub(crate) unanswered: u64,
    /// Those of them that the server owed an answer: we have waited for them, and then unbound.
    pub(crate) owed: u64,
    /// Sessions whose unbind was not answered.
    pub(crate) unbinds_unanswered: u64,
    /// Due and never sent, because the window was full until the end.
    pub(crate) unsent: u64,
    /// How late what was due was sent, although nothing was in its way.
    pub(crate) lateness: Latencies,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.requests.iter_mut().zip(other.requests) {
            *mine += theirs;
        }
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(theirs);
        }
        self.accepted += other.accepted;
        self.done += other.done;
        for (mine, theirs) in
            [(&mut self.refused, &other.refused), (&mut self.binds_refused, &other.binds_refused)]
        {
            for (status, count) in theirs {
                *mine.entry(*status).or_default() += count;
            }
        }
        self.receipts += other.receipts;
        self.deliveries += other.deliveries;
        self.binds += other.binds;
        self.connections_lost += other.connections_lost;
        self.unanswered += other.unanswered;
        self.owed += other.owed;
        self.unbinds_unanswered += other.unbinds_unanswered;
        self.unsent += other.unsent;
        self.lateness.add(&other.lateness);
    }

    /// Requests that were answered, binds aside.
    pub(crate) fn answered(&self) -> u64 {
        self.accepted + self.done + self.refused.values().sum::<u64>()
    }
}

/// What happened in one second, whoever it happened to.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pulse {
    /// Which second, counted from the begin of the warm-up.
    pub(crate) second: u64,
    pub(crate) requests: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) receipts: u64,
    /// Sessions that were bound at its end.
    pub(crate) bound: u64,
    pub(crate) submit_sm: Latencies,
    pub(crate) receipt: Latencies,
}

impl Pulse {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.receipts += other.receipts;
        self.bound += other.bound;
        self.submit_sm.add(&other.submit_sm);
        self.receipt.add(&other.receipt);
    }

    /// Gives back the memory that only counting needs: a run may have a million seconds.
    pub(crate) fn pack(&mut self) {
        self.submit_sm.pack();
        self.receipt.pack();
    }
}

/// Points in a run, in nanoseconds since its clock began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    /// The begin of the warm-up.
    pub(crate) begin: u64,
    /// The begin of the measured time.
    pub(crate) measure: u64,
    /// Its end: from here on nothing is due.
    pub(crate) end: u64,
}

impl Course {
    /// The same, ended at `now` if that is earlier; but not before it began.
    pub(crate) fn cut(self, now: u64) -> Self {
        let end = self.end.min(now.max(self.begin));
        Self { measure: self.measure.min(end), end, ..self }
    }
}

/// What one executor has counted.
#[derive(Clone, Debug)]
pub(crate) struct Measures {
    course: Option<Course>,
    /// By group.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) pulse: Pulse,
}

impl Measures {
    /// For so many groups.
    pub(crate) fn new(groups: usize) -> Self {
        Self { course: None, tallies: vec![Tally::default(); groups], pulse: Pulse::default() }
    }

    /// The load begins, or ends earlier than it should have.
    pub(crate) const fn set_course(&mut self, course: Course) {
        self.course = Some(course);
    }

    const fn is_measured(&self, at: u64) -> bool {
        match self.course {
            Some(course) => at >= course.measure && at < course.end,
            None => false,
        }
    }

    /// A request that was due at `due` is sent at `now`; `is_ours` when nothing but ourselves kept it waiting.
    pub(crate) fn sent(&mut self, group: usize, timed: Timed, due: u64, now: u64, is_ours: bool) {
        self.pulse.requests += 1;
        if self.is_measured(due) {
            let tally = &mut self.tallies[group];
            tally.requests[timed as usize] += 1;
            if is_ours {
                tally.lateness.record(now.saturating_sub(due));
            }
        }
    }

    /// A request that was due at `due` is answered at `now`.
    pub(crate) fn answered(&mut self, group: usize, timed: Timed, due: u64, now: u64, status: CommandStatus) {
        let is_ok = status == CommandStatus::ESME_ROK;
        let is_accepted = is_ok && timed.is_submission();
        self.pulse.accepted += u64::from(is_accepted);
        self.pulse.refused += u64::from(!is_ok);
        if timed == Timed::SubmitSm && is_ok {
            self.pulse.submit_sm.record(now - due);
        }
        let (is_due_measured, is_measured) = (self.is_measured(due), self.is_measured(now));
        let tally = &mut self.tallies[group];
        if is_due_measured && is_ok {
            tally.latencies[timed as usize].record(now - due);
        }
        if is_measured {
            if is_accepted {
                tally.accepted += 1;
            } else if is_ok {
                tally.done += 1;
            } else {
                *tally.refused.entry(status).or_default() += 1;
            }
        }
    }

    /// A receipt came at `now`; `due` is when its message was due, if it is the message's end.
    pub(crate) fn receipt(&mut self, group: usize, due: Option<u64>, now: u64) {
        self.pulse.receipts += 1;
        let is_measured = self.is_measured(now);
        self.tallies[group].receipts += u64::from(is_measured);
        if let Some(due) = due {
            self.pulse.receipt.record(now - due);
            if self.is_measured(due) {
                self.tallies[group].latencies[Timed::Receipt as usize].record(now - due);
            }
        }
    }

    /// Another deliver_sm came at `now`.
    pub(crate) fn delivery(&mut self, group: usize, now: u64) {
        let is_measured = self.is_measured(now);
        self.tallies[group].deliveries += u64::from(is_measured);
    }

    /// A bind that began with a connection at `began` was answered at `now`.
    pub(crate) fn bound(&mut self, group: usize, began: u64, now: u64, status: CommandStatus) {
        let is_measured = self.is_measured(began) || self.course.is_none();
        let tally = &mut self.tallies[group];
        if status == CommandStatus::ESME_ROK {
            tally.binds += 1;
            tally.requests[Timed::Bind as usize] += u64::from(is_measured);
            if is_measured {
                tally.latencies[Timed::Bind as usize].record(now - began);
            }
        } else {
            *tally.binds_refused.entry(status).or_default() += 1;
        }
    }

    /// The second is over: gives what happened in it, and begins the next.
    pub(crate) fn take_pulse(&mut self, bound: u64) -> Pulse {
        let next = Pulse { second: self.pulse.second + 1, ..Pulse::default() };
        Pulse { bound, ..std::mem::replace(&mut self.pulse, next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_small_and_the_same() {
        let mut latencies = Latencies::default();
        latencies.pack();
        assert!(latencies.histogram().is_none());
        // A second of 100,000 requests from 0.1 to 10 ms.
        (0..100_000).for_each(|number| latencies.record(100_000 + number * 99));
        let before = latencies.histogram().map(Cow::into_owned);
        latencies.pack();
        assert_eq!(latencies.histogram().map(Cow::into_owned), before);
        let Latencies::Packed(octets) = &latencies else { panic!("it is not packed") };
        assert!(octets.len() < 16 << 10, "{} octets", octets.len());
        latencies.record(1_000_000);
        let mut twice = latencies.clone();
        twice.pack();
        twice.add(&latencies);
        assert_eq!(twice.histogram().map(|all| all.len()), Some(200_002));
    }

    #[test]
    fn a_course_is_cut_wherever_it_is() {
        let course = Course { begin: 10, measure: 20, end: 30 };
        let cut = |now| {
            let Course { begin, measure, end } = course.cut(now);
            (begin, measure, end)
        };
        // Before it began, in the warm-up, in the measured time, and behind it.
        assert_eq!([5, 15, 25, 35].map(cut), [(10, 10, 10), (10, 15, 15), (10, 20, 25), (10, 20, 30)]);
    }

    const COURSE: Course = Course { begin: 1_000_000, measure: 2_000_000, end: 3_000_000 };
    const OK: CommandStatus = CommandStatus::ESME_ROK;

    fn measures() -> Measures {
        let mut measures = Measures::new(2);
        measures.set_course(COURSE);
        measures
    }

    /// How many latencies there are.
    fn count(latencies: &Latencies) -> u64 {
        latencies.histogram().map_or(0, |histogram| histogram.len())
    }

    /// Times, and whether they are measured: in the warm-up, at both ends of the measured time, and behind it.
    const TIMES: [(u64, bool); 6] = [
        (1_000_000, false),
        (1_999_999, false),
        (2_000_000, true),
        (2_999_999, true),
        (3_000_000, false),
        (9_000_000, false),
    ];

    #[test]
    fn what_is_due_in_the_warm_up_is_in_no_request_and_in_no_latency() {
        for timed in Timed::ALL {
            for (due, is_measured) in TIMES {
                // It is answered in the measured time, or behind it.
                let now = due.max(2_500_000);
                let mut measures = measures();
                measures.sent(1, timed, due, now, true);
                measures.answered(1, timed, due, now, OK);
                let [other, tally] = &measures.tallies[..] else { panic!("two groups") };
                let (mine, what) = (u64::from(is_measured), format!("{} due at {due}", timed.name()));
                assert_eq!(tally.requests[timed as usize], mine, "{what}");
                assert_eq!(count(&tally.latencies[timed as usize]), mine, "{what}");
                assert_eq!(count(&tally.lateness), mine, "{what}");
                let all = tally.requests.iter().sum::<u64>();
                assert_eq!((all, tally.latencies.iter().map(count).sum()), (mine, mine), "{what}");
                assert_eq!((other.requests.iter().sum::<u64>(), other.answered()), (0, 0), "{what}");
                // Whatever it was: it was sent, and somebody who looks at the second sees it.
                assert_eq!(measures.pulse.requests, 1, "{what}");
            }
        }
    }

    #[test]
    fn what_is_answered_in_the_measured_time_is_counted_by_its_status() {
        for (now, is_measured) in TIMES {
            let refused = CommandStatus::ESME_RTHROTTLED;
            let mine = u64::from(is_measured);
            for (timed, status, accepted, done) in [
                (Timed::SubmitSm, OK, mine, 0),
                (Timed::DataSm, OK, mine, 0),
                (Timed::SubmitMulti, OK, mine, 0),
                (Timed::QuerySm, OK, 0, mine),
                (Timed::SubmitSm, refused, 0, 0),
                (Timed::QuerySm, refused, 0, 0),
            ] {
                let mut measures = measures();
                measures.answered(0, timed, 1_000_000, now, status);
                let tally = &measures.tallies[0];
                let what = format!("{} {status} at {now}", timed.name());
                assert_eq!((tally.accepted, tally.done), (accepted, done), "{what}");
                let refusals = tally.refused.get(&refused).copied().unwrap_or(0);
                assert_eq!(refusals, if status == refused { mine } else { 0 }, "{what}");
                assert_eq!(tally.answered(), mine, "{what}");
                assert_eq!(
                    tally.latencies.iter().map(count).sum::<u64>(),
                    0,
                    "it was due in the warm-up: {what}"
                );
            }
        }
    }

    #[test]
    fn a_refusal_has_no_latency_and_a_latency_is_from_when_it_was_due() {
        let mut measures = measures();
        measures.answered(0, Timed::SubmitSm, 2_000_000, 2_700_000, CommandStatus::ESME_RTHROTTLED);
        assert_eq!(count(&measures.tallies[0].latencies[Timed::SubmitSm as usize]), 0);
        measures.sent(0, Timed::SubmitSm, 2_000_000, 2_300_000, true);
        measures.sent(0, Timed::SubmitSm, 2_000_000, 2_600_000, false);
        measures.answered(0, Timed::SubmitSm, 2_000_000, 2_700_000, OK);
        let tally = &measures.tallies[0];
        let only = |latencies: &Latencies| {
            let histogram = latencies.histogram().expect("one");
            (histogram.len(), histogram.max())
        };
        assert_eq!(only(&tally.latencies[Timed::SubmitSm as usize]), (1, 700));
        assert_eq!(only(&tally.lateness), (1, 300), "the second was kept waiting by the server");
    }

    #[test]
    fn receipts_and_binds_are_measured_as_requests_are() {
        for (at, is_measured) in TIMES {
            let mine = u64::from(is_measured);
            let mut measures = measures();
            let later = at.max(2_500_000);
            measures.receipt(0, Some(at), later);
            measures.receipt(0, None, at);
            measures.delivery(0, at);
            measures.bound(0, at, later, OK);
            measures.bound(0, at, later, CommandStatus::ESME_RBINDFAIL);
            let tally = &measures.tallies[0];
            assert_eq!(count(&tally.latencies[Timed::Receipt as usize]), mine, "due at {at}");
            assert_eq!(tally.receipts, mine + u64::from(later < COURSE.end), "at {at} and {later}");
            assert_eq!(tally.deliveries, mine, "at {at}");
            assert_eq!(count(&tally.latencies[Timed::Bind as usize]), mine, "begun at {at}");
            assert_eq!(tally.requests[Timed::Bind as usize], mine, "begun at {at}");
            // How many are bound, and how many were refused, is told of the warm-up as well.
            assert_eq!((tally.binds, tally.binds_refused.values().sum::<u64>()), (1, 1));
        }
        // Binds come first, before there is a course.
        let mut measures = Measures::new(1);
        measures.bound(0, 5_000, 9_000, OK);
        measures.sent(0, Timed::SubmitSm, 5_000, 9_000, true);
        assert_eq!(measures.tallies[0].requests[Timed::Bind as usize], 1);
        assert_eq!(measures.tallies[0].requests[Timed::SubmitSm as usize], 0);
    }
}
