//! The one source of chance: everything in a run follows from its seed.

/// splitmix64: small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let number = self.0;
        let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// From `low` to `high`, both included.
    pub const fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// A place in something that has `count`.
    pub const fn place(&mut self, count: usize) -> usize {
        (self.number() % count as u64) as usize
    }

    /// `true` in `percent` of a hundred cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.number() % 100 < percent
    }

    /// One of several.
    pub const fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }

    /// Mostly short, sometimes long: from `low` on, now and then up to a hundred times `high`.
    pub const fn delay(&mut self, low: u64, high: u64) -> u64 {
        match self.range(0, 99) {
            0 => self.range(high, high * 100),
            1..=9 => self.range(high, high * 8),
            _ => self.range(low, high),
        }
    }

    /// Another source that does not disturb this one.
    pub const fn fork(&mut self) -> Self {
        Self(self.number())
    }
}
