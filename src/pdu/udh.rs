//! The user data header: what stands before the text when esm_class has UDHI (3GPP TS 23.040 §9.2.3.24).

use std::error::Error;
use std::fmt;

/// Information element: concatenation with an 8-bit reference.
const CONCATENATION_8: u8 = 0x00;
/// Information element: concatenation with a 16-bit reference.
const CONCATENATION_16: u8 = 0x08;

/// The information elements of a user data header, without its length octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udh<'a> {
    elements: &'a [u8],
}

impl<'a> Udh<'a> {
    /// Splits user data into its header and the text behind it.
    pub fn split(user_data: &'a [u8]) -> Result<(Self, &'a [u8]), InvalidUdh> {
        let (&udh_length, rest) = user_data.split_first().ok_or(InvalidUdh)?;
        let (elements, text) = rest.split_at_checked(udh_length.into()).ok_or(InvalidUdh)?;
        Ok((Self { elements }, text))
    }

    /// Each element's identifier and data, in order, up to one that runs past the header.
    pub fn elements(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.elements;
        std::iter::from_fn(move || {
            let (&[identifier, length], data) = rest.split_first_chunk()?;
            let (data, following) = data.split_at_checked(length.into())?;
            rest = following;
            Some((identifier, data))
        })
    }

    /// Which part of a longer message this is, when a valid element says so. Of several the last counts,
    /// as TS 23.040 has it.
    pub fn concatenation(self) -> Option<Concatenation> {
        self.elements().filter_map(Concatenation::from_element).last()
    }
}

/// User data that is empty, or shorter than its header says: ESME_RINVMSGLEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidUdh;

impl fmt::Display for InvalidUdh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the user data header runs past the user data")
    }
}

impl Error for InvalidUdh {}

/// The place of a segment in its message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Concatenation {
    /// Common to all segments of the message.
    pub reference: Reference,
    /// How many segments there are, 1 to 255.
    pub total: u8,
    /// Which one this is, 1 to `total`.
    pub sequence: u8,
}

impl Concatenation {
    /// Appends the whole user data header, its length octet included: 6 or 7 octets.
    pub fn put(self, out: &mut Vec<u8>) {
        let Self { reference, total, sequence } = self;
        match reference {
            Reference::Eight(reference) => {
                out.extend_from_slice(&[5, CONCATENATION_8, 3, reference, total, sequence]);
            }
            Reference::Sixteen(reference) => {
                let [high, low] = reference.to_be_bytes();
                out.extend_from_slice(&[6, CONCATENATION_16, 4, high, low, total, sequence]);
            }
        }
    }

    fn from_element((identifier, data): (u8, &[u8])) -> Option<Self> {
        let (reference, total, sequence) = match (identifier, data) {
            (CONCATENATION_8, &[reference, total, sequence]) => {
                (Reference::Eight(reference), total, sequence)
            }
            (CONCATENATION_16, &[high, low, total, sequence]) => {
                (Reference::Sixteen(u16::from_be_bytes([high, low])), total, sequence)
            }
            _ => return None,
        };
        (1..=total).contains(&sequence).then_some(Self { reference, total, sequence })
    }
}

/// What the segments of one message have in common; 8 and 16 bits never match each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reference {
    /// In a header of 6 octets.
    Eight(u8),
    /// In a header of 7 octets.
    Sixteen(u16),
}

impl Reference {
    /// Octets of the user data header that carries it.
    pub const fn udh_octets(self) -> usize {
        match self {
            Self::Eight(_) => 6,
            Self::Sixteen(_) => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eight(reference: u8, total: u8, sequence: u8) -> Concatenation {
        Concatenation { reference: Reference::Eight(reference), total, sequence }
    }

    fn sixteen(reference: u16, total: u8, sequence: u8) -> Concatenation {
        Concatenation { reference: Reference::Sixteen(reference), total, sequence }
    }

    #[test]
    fn reads_the_place_of_a_segment() {
        for (user_data, text, concatenation) in [
            (&b"\x05\x00\x03\xAB\x02\x01hi"[..], &b"hi"[..], Some(eight(0xAB, 2, 1))),
            (b"\x06\x08\x04\xAB\xCD\xFF\xFFhi", b"hi", Some(sixteen(0xABCD, 255, 255))),
            // beside ports, and after an element nobody knows
            (b"\x0B\x05\x04\x0B\x84\x23\xF0\x00\x03\x07\x02\x02!", b"!", Some(eight(7, 2, 2))),
            (b"\x08\x70\x01\xFF\x00\x03\x07\x02\x02", b"", Some(eight(7, 2, 2))),
            // the last one counts, unless it is not valid
            (b"\x0A\x00\x03\x01\x02\x01\x00\x03\x02\x03\x03", b"", Some(eight(2, 3, 3))),
            (b"\x0A\x00\x03\x01\x02\x01\x00\x03\x02\x03\x04", b"", Some(eight(1, 2, 1))),
            // no segments, no sequence, beyond the total, wrong lengths
            (b"\x05\x00\x03\xAB\x00\x00", b"", None),
            (b"\x05\x00\x03\xAB\x02\x00", b"", None),
            (b"\x05\x00\x03\xAB\x02\x03", b"", None),
            (b"\x04\x00\x02\xAB\x02", b"", None),
            (b"\x06\x00\x04\xAB\xCD\x02\x01", b"", None),
            (b"\x05\x08\x03\xAB\x02\x01", b"", None),
            // an element that runs past the header, though not past the data
            (b"\x04\x00\x03\xAB\x02\x01", b"\x01", None),
            (b"\x01\x00", b"", None),
            (b"\x00hi", b"hi", None),
        ] {
            let (udh, rest) = Udh::split(user_data).expect("a header");
            assert_eq!(rest, text, "{user_data:02X?}");
            assert_eq!(udh.concatenation(), concatenation, "{user_data:02X?}");
        }
    }

    #[test]
    fn rejects_a_header_longer_than_the_data() {
        for user_data in [&b""[..], b"\x01", b"\x05\x00\x03\x01\x02", b"\xFFhi"] {
            assert_eq!(Udh::split(user_data), Err(InvalidUdh), "{user_data:02X?}");
        }
    }

    #[test]
    fn lists_the_elements() {
        let (udh, _) = Udh::split(b"\x09\x05\x04\x0B\x84\x23\xF0\x24\x01\x03").expect("a header");
        let elements: Vec<_> = udh.elements().collect();
        assert_eq!(elements, [(0x05, &b"\x0B\x84\x23\xF0"[..]), (0x24, b"\x03")]);
    }

    #[test]
    fn writes_what_it_reads() {
        for (concatenation, octets) in [
            (eight(0xAB, 3, 2), &b"\x05\x00\x03\xAB\x03\x02"[..]),
            (sixteen(0xABCD, 3, 2), b"\x06\x08\x04\xAB\xCD\x03\x02"),
        ] {
            let mut out = Vec::new();
            concatenation.put(&mut out);
            assert_eq!(out, octets);
            assert_eq!(out.len(), concatenation.reference.udh_octets());
            assert_eq!(Udh::split(&out).map(|(udh, _)| udh.concatenation()), Ok(Some(concatenation)));
        }
    }
}
