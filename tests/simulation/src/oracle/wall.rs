//! What the clock on the wall has shown: it may be set at any time, forward and back.

use smppd::time::Timestamp;

const MILLI: u64 = 1_000_000;

/// Every setting of the clock, in order.
#[derive(Debug, Default)]
pub(super) struct Wall {
    /// From when on, by the clock that never goes back, it was how many milliseconds ahead of that one.
    settings: Vec<(u64, u64)>,
    /// What it shows.
    pub(super) now: Timestamp,
    /// The latest that it ever showed.
    pub(super) latest: Timestamp,
}

impl Wall {
    /// It shows this.
    pub(super) fn reach(&mut self, now: u64, wall: Timestamp) {
        let ahead = wall.as_millis() - now / MILLI;
        if self.settings.last().is_none_or(|(_, before)| *before != ahead) {
            self.settings.push((now, ahead));
        }
        (self.now, self.latest) = (wall, self.latest.max(wall));
    }

    /// The settings that held at some time since then, the last first, each with the time that it ended.
    fn since(&self, from: u64, now: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let settings = (0..self.settings.len()).rev().map(move |place| {
            let (begin, ahead) = self.settings[place];
            (begin, self.settings.get(place + 1).map_or(now, |(end, _)| *end), ahead)
        });
        settings.take_while(move |(_, end, _)| *end >= from)
    }

    /// Whether it has shown this at some time since `from`.
    pub(super) fn has_shown(&self, at: Timestamp, from: u64, now: u64) -> bool {
        let at = at.as_millis();
        self.since(from, now)
            .any(|(begin, end, ahead)| (begin.max(from) / MILLI + ahead..=end / MILLI + ahead).contains(&at))
    }

    /// The latest that it has shown since `from`.
    pub(super) fn latest_since(&self, from: u64, now: u64) -> Timestamp {
        let latest = self.since(from, now).map(|(_, end, ahead)| end / MILLI + ahead).max();
        latest.map_or(self.now, Timestamp::from_millis)
    }

    /// The earliest that it has shown since `from`.
    pub(super) fn earliest_since(&self, from: u64, now: u64) -> Timestamp {
        let earliest = self.since(from, now).map(|(begin, _, ahead)| begin.max(from) / MILLI + ahead).min();
        earliest.map_or(self.now, Timestamp::from_millis)
    }

    /// Whether it was set, other than by the passing of time, since `from`.
    pub(super) fn was_set_since(&self, from: u64) -> bool {
        self.settings.len() > 1 && self.settings.last().is_some_and(|(begin, _)| *begin >= from)
    }
}
