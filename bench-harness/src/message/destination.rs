//! Whom messages go to.

use smppd::pdu::{Address, Npi, Ton};

/// A destination_addr, with its random digits.
#[derive(Clone)]
pub(super) struct Destination {
    digits: Box<[u8]>,
    /// Where the random ones are.
    random: Box<[usize]>,
}

impl Destination {
    pub(super) fn new(pattern: &str) -> Self {
        let digits = pattern.as_bytes();
        let random = (0..digits.len()).filter(|&index| digits[index] == b'#').collect();
        Self { digits: digits.into(), random }
    }

    /// Draws other digits.
    pub(super) fn draw(&mut self, random: &mut fastrand::Rng) {
        for &index in &self.random {
            self.digits[index] = random.u8(b'0'..=b'9');
        }
    }

    pub(super) fn address(&self) -> Address<'_> {
        Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits: &self.digits }
    }
}
