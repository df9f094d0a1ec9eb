//! Texts that are sent in segments.

use std::ops::Range;

use smppd::pdu::{Address, Alphabet, Concatenation, EsmClass, Reference, Tag};

use super::destination::Destination;
use super::{put, unit_octets};

/// The text that is being sent in segments.
pub(super) struct LongText {
    alphabet: Alphabet,
    /// The same for all its segments.
    destination: Destination,
    /// The place of what is not sent yet.
    left: Range<usize>,
    reference: Reference,
    /// How many segments it has.
    total: u8,
    /// The number of the last that was sent.
    sequence: u8,
}

impl LongText {
    /// None yet: the first one has the reference behind this.
    pub(super) const fn new(alphabet: Alphabet, destination: Destination, reference: Reference) -> Self {
        Self { alphabet, destination, left: 0..0, reference, total: 0, sequence: 0 }
    }

    /// Whether all its segments were sent.
    pub(super) const fn is_over(&self) -> bool {
        self.sequence == self.total
    }

    /// Begins with another one, which lies at `place`. What fits one message is no segment.
    pub(super) fn begin(&mut self, place: Range<usize>, random: &mut fastrand::Rng) {
        let octets = place.len();
        let fits_one = octets <= self.alphabet.single_units_max() * unit_octets(self.alphabet);
        let total = if fits_one { 1 } else { octets.div_ceil(self.segment_octets_max()) };
        self.left = place;
        self.total =
            u8::try_from(total).unwrap_or_else(|_| unreachable!("the scenario was checked: {octets}"));
        self.sequence = 0;
        self.reference = match self.reference {
            Reference::Eight(number) => Reference::Eight(number.wrapping_add(1)),
            Reference::Sixteen(number) => Reference::Sixteen(number.wrapping_add(1)),
        };
        self.destination.draw(random);
    }

    /// The place of the next segment's text. A text that is alone may be longer than a segment, as it has no header.
    pub(super) fn next(&mut self) -> Range<usize> {
        self.sequence += 1;
        let Range { start, end } = self.left;
        let cut = if self.is_over() { end } else { start + self.segment_octets_max() };
        self.left.start = cut;
        start..cut
    }

    /// Puts what says which segment that was: a header in front of its text, or TLVs.
    pub(super) fn put_header(&self, user_data: &mut Vec<u8>, tlvs: &mut Vec<u8>) -> EsmClass {
        let Self { reference, total, sequence, .. } = *self;
        match reference {
            _ if total == 1 => EsmClass::DEFAULT,
            Reference::Eight(_) => {
                Concatenation { reference, total, sequence }.put(user_data);
                EsmClass::UDHI
            }
            Reference::Sixteen(number) => {
                put(Tag::SAR_MSG_REF_NUM, &number.to_be_bytes(), tlvs);
                put(Tag::SAR_TOTAL_SEGMENTS, &[total], tlvs);
                put(Tag::SAR_SEGMENT_SEQNUM, &[sequence], tlvs);
                EsmClass::DEFAULT
            }
        }
    }

    pub(super) fn destination(&self) -> Address<'_> {
        self.destination.address()
    }

    /// Octets of text in each segment but the last. With sar_ TLVs it is the MC that puts a header on air, with a
    /// reference of the same 16 bits, so the room for it is left as well.
    fn segment_octets_max(&self) -> usize {
        self.alphabet.segment_units_max(self.reference) * unit_octets(self.alphabet)
    }
}
