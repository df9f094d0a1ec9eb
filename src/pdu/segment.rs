//! Cutting a long text into the short messages that carry it.

use std::error::Error;
use std::fmt;

use crate::pdu::coding::{Alphabet, GSM7_ESCAPE};
use crate::pdu::udh::{Concatenation, Reference};

/// The user data of each segment: header and text, or the bare text when it fits one message.
///
/// No cut falls inside an escape pair of `Gsm7` or a surrogate pair of `Ucs2`.
pub fn segments(
    alphabet: Alphabet,
    octets: &[u8],
    reference: Reference,
) -> Result<Vec<Vec<u8>>, TooManySegments> {
    if fits_one(alphabet, octets) {
        return Ok(vec![octets.to_vec()]);
    }
    let texts: Vec<&[u8]> = texts(alphabet, octets, reference).collect();
    let total = u8::try_from(texts.len()).map_err(|_| TooManySegments)?;
    let segments = (1..=total).zip(texts).map(|(sequence, text)| {
        let mut user_data = Vec::with_capacity(reference.udh_octets() + text.len());
        Concatenation { reference, total, sequence }.put(&mut user_data);
        user_data.extend_from_slice(text);
        user_data
    });
    Ok(segments.collect())
}

/// How many segments that makes, without building them; above 255 `segments` refuses.
///
/// Only the width of `reference` matters: the longer header leaves less room.
pub fn count(alphabet: Alphabet, octets: &[u8], reference: Reference) -> usize {
    if fits_one(alphabet, octets) { 1 } else { texts(alphabet, octets, reference).count() }
}

/// A text that needs more than 255 segments: ESME_RINVMSGLEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManySegments;

impl fmt::Display for TooManySegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text needs more than 255 segments")
    }
}

impl Error for TooManySegments {}

fn fits_one(alphabet: Alphabet, octets: &[u8]) -> bool {
    alphabet.units(octets) <= alphabet.single_units_max()
}

/// The text of each segment.
fn texts(alphabet: Alphabet, octets: &[u8], reference: Reference) -> impl Iterator<Item = &[u8]> {
    let octets_max = alphabet.segment_units_max(reference) * alphabet.unit_octets();
    let mut rest = octets;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (text, following) = rest.split_at(cut(alphabet, rest, octets_max));
        rest = following;
        Some(text)
    })
}

/// The last place at `octets_max` or before where `rest` may be cut; `rest` begins with a whole character.
fn cut(alphabet: Alphabet, rest: &[u8], octets_max: usize) -> usize {
    let Some((text, following)) = rest.split_at_checked(octets_max) else {
        return rest.len();
    };
    match alphabet {
        Alphabet::Gsm7 => {
            // An escape may itself be escaped: only an odd run of them opens a pair.
            let escapes = text.iter().rev().take_while(|&&octet| octet == GSM7_ESCAPE).count();
            octets_max - escapes % 2
        }
        Alphabet::Ucs2 => {
            let high = matches!(text, [.., 0xD8..=0xDB, _]);
            let low = matches!(following, [0xDC..=0xDF, _, ..]);
            if high && low { octets_max - 2 } else { octets_max }
        }
        Alphabet::Ascii | Alphabet::Latin1 | Alphabet::Binary => octets_max,
    }
}
