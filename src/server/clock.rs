//! The two clocks, read once a turn.

use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, Timestamp};

/// Reads both clocks; all cores count from the same start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: StdInstant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub(super) fn new() -> Self {
        Self { start: StdInstant::now() }
    }

    /// Both clocks. A wall clock before 1970 reads as 1970.
    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The monotonic start is one second in, so that "ZERO" is in the past of everything.
        let nanos = 1_000_000_000 + self.start.elapsed().as_nanos() as u64;
        Now { instant: Instant::from_nanos(nanos), wall: Timestamp::from_millis(wall.as_millis() as u64) }
    }
}
