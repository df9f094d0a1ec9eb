//! What a run has seen, to show that it was not empty.

/// How much a run has seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Submissions answered with ESME_ROK.
    pub accepted: u64,
    /// Submissions refused.
    pub refused: u64,
    /// Final receipts sent.
    pub receipts: u64,
    /// Messages that ended.
    pub ended: u64,
    /// Replies delivered.
    pub replies: u64,
    /// Successful binds.
    pub binds: u64,
    /// Sessions that moved to another core.
    pub moves: u64,
    /// Messages cancelled.
    pub cancelled: u64,
    /// Messages replaced.
    pub replaced: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Blocks that came back from the state at rest because something in them was wanted.
    pub fetched: u64,
    /// Processes that ended badly.
    pub crashes: u64,
    /// Processes that ended well.
    pub stops: u64,
    /// Disks that failed.
    pub failures: u64,
    /// Messages that were to wait for a time.
    pub scheduled: u64,
    /// Messages whose validity ran out.
    pub expired: u64,
    /// Requests refused because of a rate.
    pub throttled: u64,
    /// Submissions refused for want of credits.
    pub unpaid: u64,
}

impl Seen {
    /// Both together.
    pub const fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.receipts += other.receipts;
        self.ended += other.ended;
        self.replies += other.replies;
        self.binds += other.binds;
        self.moves += other.moves;
        self.cancelled += other.cancelled;
        self.replaced += other.replaced;
        self.checkpoints += other.checkpoints;
        self.fetched += other.fetched;
        self.crashes += other.crashes;
        self.stops += other.stops;
        self.failures += other.failures;
        self.scheduled += other.scheduled;
        self.expired += other.expired;
        self.throttled += other.throttled;
        self.unpaid += other.unpaid;
    }

    /// Every count with its name.
    pub const fn counts(&self) -> [(&'static str, u64); 18] {
        [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("receipts", self.receipts),
            ("ended", self.ended),
            ("replies", self.replies),
            ("binds", self.binds),
            ("moves", self.moves),
            ("cancelled", self.cancelled),
            ("replaced", self.replaced),
            ("checkpoints", self.checkpoints),
            ("fetched", self.fetched),
            ("crashes", self.crashes),
            ("stops", self.stops),
            ("failures", self.failures),
            ("scheduled", self.scheduled),
            ("expired", self.expired),
            ("throttled", self.throttled),
            ("unpaid", self.unpaid),
        ]
    }
}
