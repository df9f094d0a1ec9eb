//! Texts for messages: readable ones, and octets for those that are no text.

use std::ops::Range;

use smppd::pdu::Alphabet;

/// In the alphabets of one octet, all of which have the same octets for it.
const WORDS: &str =
    "your parcel has left the depot this morning and will be at your door between ten and noon ";
/// In UCS-2. All of it is within the basic plane, so it may be cut anywhere between two octets.
const UCS_2_WORDS: &str = "ваша посылка утром покинула склад и будет у вас между десятью часами и полуднем ";
/// Places that binary texts begin at.
const BINARY_BEGINS: usize = 64;

/// What texts are cut from, so that none has to be written: the words over and over, each text from the next word on.
pub(super) struct Book {
    octets: Box<[u8]>,
    /// Where texts begin.
    begins: Box<[usize]>,
    /// Index of the next begin.
    next: usize,
}

impl Book {
    /// A book for texts of up to `octets_max`.
    pub(super) fn new(alphabet: Alphabet, octets_max: usize, random: &mut fastrand::Rng) -> Self {
        let words = match alphabet {
            Alphabet::Gsm7 | Alphabet::Ascii | Alphabet::Latin1 => WORDS,
            Alphabet::Ucs2 => UCS_2_WORDS,
            Alphabet::Binary => {
                let mut octets = vec![0; BINARY_BEGINS + octets_max];
                random.fill(&mut octets);
                return Self { octets: octets.into(), begins: (0..BINARY_BEGINS).collect(), next: 0 };
            }
        };
        let mut round = Vec::new();
        let mut begins = Vec::new();
        for word in words.split_inclusive(' ') {
            begins.push(round.len());
            round.extend(alphabet.encode_lossy(word));
        }
        let octets = round.iter().copied().cycle().take(round.len() + octets_max).collect();
        let next = random.usize(..begins.len());
        Self { octets, begins: begins.into(), next }
    }

    /// The place of the next text.
    pub(super) fn next(&mut self, octets: usize) -> Range<usize> {
        let begin = self.begins[self.next];
        self.next = (self.next + 1) % self.begins.len();
        begin..begin + octets
    }

    /// The text at a place.
    pub(super) fn text(&self, place: Range<usize>) -> &[u8] {
        &self.octets[place]
    }
}
