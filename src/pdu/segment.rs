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

/// As much of a text as one message holds without a header.
pub fn first(alphabet: Alphabet, octets: &[u8]) -> &[u8] {
    &octets[..cut(alphabet, octets, alphabet.single_units_max() * alphabet.unit_octets())]
}

/// The last place at `octets_max` or before where `rest` may be cut; `rest` begins with a whole character.
fn cut(alphabet: Alphabet, rest: &[u8], octets_max: usize) -> usize {
    if rest.len() <= octets_max {
        return rest.len();
    }
    let text = &rest[..octets_max];
    match alphabet {
        Alphabet::Gsm7 => {
            // An escape may itself be escaped: only an odd run of them opens a pair.
            let escapes = text.iter().rev().take_while(|&&octet| octet == GSM7_ESCAPE).count();
            octets_max - escapes % 2
        }
        // A high surrogate opens a pair.
        Alphabet::Ucs2 if matches!(text, [.., 0xD8..=0xDB, _]) => octets_max - 2,
        Alphabet::Ucs2 | Alphabet::Ascii | Alphabet::Latin1 | Alphabet::Binary => octets_max,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pdu::udh::Udh;

    const ALPHABETS: [Alphabet; 5] =
        [Alphabet::Gsm7, Alphabet::Ascii, Alphabet::Latin1, Alphabet::Ucs2, Alphabet::Binary];
    const EIGHT: Reference = Reference::Eight(0xAB);
    const SIXTEEN: Reference = Reference::Sixteen(0xABCD);

    /// The texts of the segments, after a check of the headers.
    fn texts_of(segments: &[Vec<u8>], reference: Reference) -> Vec<&[u8]> {
        if let [only] = segments {
            return vec![only];
        }
        let total = segments.len() as u8;
        (1..)
            .zip(segments)
            .map(|(sequence, segment)| {
                let (udh, text) = Udh::split(segment).expect("a header");
                assert_eq!(udh.concatenation(), Some(Concatenation { reference, total, sequence }));
                text
            })
            .collect()
    }

    #[test]
    fn no_pair_of_surrogates_is_cut_in_two() {
        // The first and the last character of the first and of the last high surrogate, and some between.
        for character in ['\u{10000}', '\u{103FF}', '\u{1F600}', '\u{100000}', '\u{10FC00}', '\u{10FFFF}'] {
            for before in 60..72 {
                let text = format!("{}{}", "x".repeat(before), character.to_string().repeat(80));
                let octets = Alphabet::Ucs2.encode(&text).expect("it can be said");
                let segments = segments(Alphabet::Ucs2, &octets, EIGHT).expect("few");
                let texts: String =
                    texts_of(&segments, EIGHT).into_iter().map(|text| Alphabet::Ucs2.decode(text)).collect();
                assert!(texts == text, "U+{:X} behind {before}", u32::from(character));
            }
        }
    }

    #[test]
    fn counts_at_every_edge() {
        use Alphabet::{Ascii, Binary, Gsm7, Latin1, Ucs2};
        for (alphabet, reference, octets, segments) in [
            (Gsm7, EIGHT, 0, 1),
            (Gsm7, EIGHT, 160, 1),
            (Gsm7, EIGHT, 161, 2),
            (Gsm7, EIGHT, 306, 2),
            (Gsm7, EIGHT, 307, 3),
            (Gsm7, SIXTEEN, 304, 2),
            (Gsm7, SIXTEEN, 305, 3),
            (Ascii, EIGHT, 306, 2),
            (Latin1, EIGHT, 160, 1),
            (Latin1, SIXTEEN, 305, 3),
            (Ucs2, EIGHT, 140, 1),
            (Ucs2, EIGHT, 142, 2),
            (Ucs2, EIGHT, 268, 2),
            (Ucs2, EIGHT, 270, 3),
            (Ucs2, SIXTEEN, 264, 2),
            (Ucs2, SIXTEEN, 266, 3),
            (Binary, EIGHT, 140, 1),
            (Binary, EIGHT, 268, 2),
            (Binary, EIGHT, 269, 3),
            (Binary, SIXTEEN, 267, 3),
            (Gsm7, EIGHT, 153 * 255, 255),
            (Ucs2, SIXTEEN, 66 * 2 * 255, 255),
        ] {
            let text = vec![b'a'; octets];
            assert_eq!(count(alphabet, &text, reference), segments, "{alphabet:?} {reference:?} {octets}");
            let built = super::segments(alphabet, &text, reference).map(|built| built.len());
            assert_eq!(built, Ok(segments), "{alphabet:?} {reference:?} {octets}");
        }
    }

    #[test]
    fn refuses_a_256th_segment() {
        let text = vec![b'a'; 153 * 255 + 1];
        assert_eq!(segments(Alphabet::Gsm7, &text, EIGHT), Err(TooManySegments));
        assert_eq!(count(Alphabet::Gsm7, &text, EIGHT), 256);
    }

    #[test]
    fn keeps_pairs_together() {
        let cases = [
            // the 153rd septet would be the escape of a euro sign
            (Alphabet::Gsm7, ["a".repeat(152), "€".into(), "b".repeat(20)].concat(), [152, 22]),
            (Alphabet::Gsm7, ["a".repeat(151), "€".into(), "b".repeat(20)].concat(), [153, 20]),
            // the 67th code unit would be half an emoji
            (Alphabet::Ucs2, ["a".repeat(66), "😀".into(), "b".repeat(20)].concat(), [66, 22]),
            (Alphabet::Ucs2, ["a".repeat(65), "😀".into(), "b".repeat(20)].concat(), [67, 20]),
        ];
        for (alphabet, text, units) in cases {
            let octets = alphabet.encode(&text).expect("in the alphabet");
            let built = segments(alphabet, &octets, EIGHT).expect("few segments");
            let texts = texts_of(&built, EIGHT);
            assert_eq!(texts.iter().map(|text| alphabet.units(text)).collect::<Vec<_>>(), units, "{text}");
        }
    }

    /// Octets with many pairs and halves of pairs, whole texts and rubbish alike.
    fn hostile_octets() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => any::<u8>().prop_map(|octet| vec![octet]),
            4 => Just(vec![GSM7_ESCAPE]),
            2 => Just(vec![GSM7_ESCAPE, 0x65]),
            4 => Just(vec![0xD8, 0x3D, 0xDE, 0x00]),
            1 => Just(vec![0xD8, 0x3D]),
            1 => Just(vec![0xDE, 0x00]),
            2 => Just(vec![0x00, 0x61]),
        ];
        prop::collection::vec(piece, 0..700).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn segments_carry_the_text_whole(
            octets in hostile_octets(),
            alphabet in prop::sample::select(&ALPHABETS[..]),
            reference in prop::sample::select(&[EIGHT, SIXTEEN][..]),
        ) {
            let built = segments(alphabet, &octets, reference).expect("below 255 segments");
            let texts = texts_of(&built, reference);
            prop_assert_eq!(built.len(), count(alphabet, &octets, reference));
            prop_assert_eq!(texts.concat(), &octets[..]);
            // Reading each segment alone gives the whole text only if no pair was cut.
            let decoded: String = texts.iter().map(|text| alphabet.decode(text)).collect();
            prop_assert_eq!(decoded, alphabet.decode(&octets));
            let units_max = match texts.len() {
                1 => alphabet.single_units_max(),
                _ => alphabet.segment_units_max(reference),
            };
            for text in &texts {
                prop_assert!(alphabet.units(text) <= units_max);
            }
            // Nothing is wasted: a segment that is not the last lacks one unit at most.
            for text in texts.iter().rev().skip(1) {
                prop_assert!(alphabet.units(text) + 1 >= units_max);
            }
        }
    }
}
