//! data_coding and the alphabets behind it: what the octets of a short message mean.

use std::error::Error;
use std::fmt;

use crate::pdu::udh::Reference;

/// The data_coding field (v3.4 §5.2.19).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DataCoding(pub u8);

impl DataCoding {
    /// The MC's default alphabet; ours is chosen per account.
    pub const DEFAULT: Self = Self(0x00);
    /// IA5, which is ASCII.
    pub const IA5: Self = Self(0x01);
    /// Octets without meaning to the MC; once meant for TDMA and CDMA.
    pub const BINARY_2: Self = Self(0x02);
    /// ISO-8859-1.
    pub const LATIN_1: Self = Self(0x03);
    /// Octets without meaning to the MC.
    pub const BINARY_4: Self = Self(0x04);
    /// JIS X 0208-1990.
    pub const JIS: Self = Self(0x05);
    /// ISO-8859-5.
    pub const CYRILLIC: Self = Self(0x06);
    /// ISO-8859-8.
    pub const LATIN_HEBREW: Self = Self(0x07);
    /// UCS-2, most significant octet first; practice sends UTF-16BE.
    pub const UCS_2: Self = Self(0x08);
    /// Pictograms.
    pub const PICTOGRAM: Self = Self(0x09);
    /// ISO-2022-JP, music codes.
    pub const ISO_2022_JP: Self = Self(0x0A);
    /// Extended Kanji, JIS X 0212-1990.
    pub const EXTENDED_KANJI: Self = Self(0x0D);
    /// KS C 5601.
    pub const KS_C_5601: Self = Self(0x0E);

    /// The alphabet of the text, `None` when it is reserved or not one of ours: ESME_RINVDCS.
    ///
    /// `default` is what 0x00 means. The GSM groups that name "the default alphabet" mean it too, because
    /// an ESME writes a flash message with the same encoder as any other.
    pub fn alphabet(self, default: Alphabet) -> Option<Alphabet> {
        match self.0 {
            0x00 => Some(default),
            0x01 => Some(Alphabet::Ascii),
            0x02 | 0x04 => Some(Alphabet::Binary),
            0x03 => Some(Alphabet::Latin1),
            0x08 => Some(Alphabet::Ucs2),
            // GSM 03.38 §4, general group: bits 3-2 alphabet, bits 1-0 message class.
            0x10..=0x13 => Some(default),
            0x14..=0x17 => Some(Alphabet::Binary),
            0x18..=0x1B => Some(Alphabet::Ucs2),
            // Message waiting groups: discard, store, store as UCS-2. Bit 2 is reserved.
            0xC0..=0xDF if self.0 & 0x04 == 0 => Some(default),
            0xE0..=0xEF if self.0 & 0x04 == 0 => Some(Alphabet::Ucs2),
            // Message class group. Bit 3 is reserved.
            0xF0..=0xF3 => Some(default),
            0xF4..=0xF7 => Some(Alphabet::Binary),
            _ => None,
        }
    }
}

impl fmt::Debug for DataCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DataCoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X}", self.0)
    }
}

/// How octets on the wire stand for characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alphabet {
    /// GSM 03.38 with its extension table, unpacked: one septet per octet.
    Gsm7,
    /// ASCII, one character per octet.
    Ascii,
    /// ISO-8859-1, one character per octet.
    Latin1,
    /// UTF-16BE, of which UCS-2 is the part without surrogates.
    Ucs2,
    /// Octets that are no text.
    Binary,
}

impl Alphabet {
    /// The text these octets stand for; what stands for nothing becomes U+FFFD.
    pub fn decode(self, octets: &[u8]) -> String {
        self.characters(octets).collect()
    }

    /// The same, one character after the other.
    pub const fn characters(self, octets: &[u8]) -> Characters<'_> {
        Characters { alphabet: self, octets }
    }

    /// Whether each of these octets stands for one printable character of ASCII, and for the one with its own code.
    pub fn is_plain_ascii(self, octets: &[u8]) -> bool {
        let is_printable = |octet: &u8| matches!(octet, b' '..=b'~');
        match self {
            Self::Ascii | Self::Latin1 => octets.iter().all(is_printable),
            Self::Gsm7 => octets
                .iter()
                .all(|octet| is_printable(octet) && GSM7[usize::from(*octet)] == char::from(*octet)),
            Self::Ucs2 | Self::Binary => false,
        }
    }

    /// The octets of a text, unless a character has none in this alphabet.
    pub fn encode(self, text: &str) -> Result<Vec<u8>, Unmappable> {
        let mut octets = Vec::with_capacity(text.len());
        for character in text.chars() {
            if !self.put(character, &mut octets) {
                return Err(Unmappable(character));
            }
        }
        Ok(octets)
    }

    /// The octets of a text, with `?` for each character that has none in this alphabet.
    pub fn encode_lossy(self, text: &str) -> Vec<u8> {
        let mut octets = Vec::with_capacity(text.len());
        for character in text.chars() {
            if !self.put(character, &mut octets) {
                octets.push(b'?');
            }
        }
        octets
    }

    /// How much of a message these octets fill: septets of `Gsm7`, code units of `Ucs2`, octets of the
    /// others. An extension character is two septets and two octets alike.
    pub fn units(self, octets: &[u8]) -> usize {
        octets.len().div_ceil(self.unit_octets())
    }

    /// The most units in a message of one segment.
    ///
    /// A GSM message has 140 octets, hence 160 septets. We sell 160 characters of ASCII and Latin-1 as
    /// well, which supposes that the network recodes them.
    pub fn single_units_max(self) -> usize {
        match self {
            Self::Gsm7 | Self::Ascii | Self::Latin1 => 160,
            Self::Ucs2 => 70,
            Self::Binary => 140,
        }
    }

    /// The most units in each segment of a longer message, beside the header that carries `reference`.
    pub fn segment_units_max(self, reference: Reference) -> usize {
        match (self, reference) {
            (Self::Gsm7 | Self::Ascii | Self::Latin1, Reference::Eight(_)) => 153,
            (Self::Gsm7 | Self::Ascii | Self::Latin1, Reference::Sixteen(_)) => 152,
            (Self::Ucs2, Reference::Eight(_)) => 67,
            (Self::Ucs2, Reference::Sixteen(_)) => 66,
            (Self::Binary, Reference::Eight(_)) => 134,
            (Self::Binary, Reference::Sixteen(_)) => 133,
        }
    }

    /// Octets on the wire for each unit.
    pub(crate) fn unit_octets(self) -> usize {
        match self {
            Self::Gsm7 | Self::Ascii | Self::Latin1 | Self::Binary => 1,
            Self::Ucs2 => 2,
        }
    }

    /// Appends one character; false, and nothing appended, when it has no octets here.
    fn put(self, character: char, octets: &mut Vec<u8>) -> bool {
        match self {
            Self::Gsm7 => return put_gsm7(character, octets),
            Self::Ascii if character.is_ascii() => octets.push(character as u8),
            Self::Latin1 if character <= '\u{FF}' => octets.push(character as u8),
            Self::Ucs2 => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    octets.extend_from_slice(&unit.to_be_bytes());
                }
            }
            Self::Ascii | Self::Latin1 | Self::Binary => return false,
        }
        true
    }
}

/// A character that the alphabet does not have: the first one of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmappable(pub char);

impl fmt::Display for Unmappable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not in the alphabet", self.0)
    }
}

impl Error for Unmappable {}

/// The septet that takes the next one from the extension table.
pub(crate) const GSM7_ESCAPE: u8 = 0x1B;

/// Stands in a text for octets that are no character.
const UNMAPPED: char = char::REPLACEMENT_CHARACTER;

/// GSM 03.38 §6.2.1, by code; the escape is not a character.
const GSM7: [char; 128] = [
    '@', '£', '$', '¥', 'è', 'é', 'ù', 'ì', 'ò', 'Ç', '\n', 'Ø', 'ø', '\r', 'Å', 'å', // 0x00
    'Δ', '_', 'Φ', 'Γ', 'Λ', 'Ω', 'Π', 'Ψ', 'Σ', 'Θ', 'Ξ', UNMAPPED, 'Æ', 'æ', 'ß', 'É', // 0x10
    ' ', '!', '"', '#', '¤', '%', '&', '\'', '(', ')', '*', '+', ',', '-', '.', '/', // 0x20
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':', ';', '<', '=', '>', '?', // 0x30
    '¡', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', // 0x40
    'P', 'Q', 'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', 'Ä', 'Ö', 'Ñ', 'Ü', '§', // 0x50
    '¿', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', // 0x60
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', 'ä', 'ö', 'ñ', 'ü', 'à', // 0x70
];

/// GSM 03.38 §6.2.1.1: what follows an escape.
const GSM7_EXTENSION: [(u8, char); 10] = [
    (0x0A, '\u{0C}'),
    (0x14, '^'),
    (0x28, '{'),
    (0x29, '}'),
    (0x2F, '\\'),
    (0x3C, '['),
    (0x3D, '~'),
    (0x3E, ']'),
    (0x40, '|'),
    (0x65, '€'),
];

/// The characters that octets stand for, from [`Alphabet::characters`].
#[derive(Clone, Debug)]
pub struct Characters<'a> {
    alphabet: Alphabet,
    octets: &'a [u8],
}

impl Iterator for Characters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let octet = self.octet()?;
        Some(match self.alphabet {
            Alphabet::Gsm7 if octet == GSM7_ESCAPE => self.octet().map_or(UNMAPPED, extended_gsm7),
            Alphabet::Gsm7 => basic_gsm7(octet),
            Alphabet::Ascii if octet.is_ascii() => octet.into(),
            Alphabet::Ascii | Alphabet::Binary => UNMAPPED,
            Alphabet::Latin1 => octet.into(),
            Alphabet::Ucs2 => self.utf16(octet),
        })
    }
}

impl Characters<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.octets.split_first()?;
        self.octets = rest;
        Some(octet)
    }

    /// The character whose first code unit begins with `high`.
    fn utf16(&mut self, high: u8) -> char {
        let Some(low) = self.octet() else { return UNMAPPED };
        let unit = u16::from_be_bytes([high, low]);
        let next = self.octets.first_chunk().map(|&next| u16::from_be_bytes(next));
        let character = match char::decode_utf16([unit].into_iter().chain(next)).next() {
            Some(Ok(character)) => character,
            Some(Err(_)) | None => UNMAPPED,
        };
        if character.len_utf16() == 2 {
            self.octets = &self.octets[2..];
        }
        character
    }
}

const fn basic_gsm7(octet: u8) -> char {
    if octet.is_ascii() { GSM7[octet as usize] } else { UNMAPPED }
}

/// What follows an escape. Both are always one character, so that a text can be cut before any pair: an unknown pair
/// shows the basic character, as GSM 03.38 asks.
fn extended_gsm7(code: u8) -> char {
    let extended = GSM7_EXTENSION.iter().find(|&&(extension, _)| extension == code);
    extended.map_or(basic_gsm7(code), |&(_, character)| character)
}

fn put_gsm7(character: char, octets: &mut Vec<u8>) -> bool {
    // Most of ASCII keeps its code, which saves the search.
    if GSM7.get(character as usize) == Some(&character) {
        octets.push(character as u8);
    } else if let Some(&(code, _)) = GSM7_EXTENSION.iter().find(|&&(_, extended)| extended == character) {
        octets.extend_from_slice(&[GSM7_ESCAPE, code]);
    } else if character != UNMAPPED
        && let Some(code) = GSM7.iter().position(|&basic| basic == character)
    {
        octets.push(code as u8);
    } else {
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table of the specification, one line for each high half of the code.
    const BASIC: [&str; 8] = [
        "@ £ $ ¥ è é ù ì ò Ç LF Ø ø CR Å å",
        "Δ _ Φ Γ Λ Ω Π Ψ Σ Θ Ξ ESC Æ æ ß É",
        "SP ! \" # ¤ % & ' ( ) * + , - . /",
        "0 1 2 3 4 5 6 7 8 9 : ; < = > ?",
        "¡ A B C D E F G H I J K L M N O",
        "P Q R S T U V W X Y Z Ä Ö Ñ Ü §",
        "¿ a b c d e f g h i j k l m n o",
        "p q r s t u v w x y z ä ö ñ ü à",
    ];
    const EXTENSION: &str = "0A:FF 14:^ 28:{ 29:} 2F:\\ 3C:[ 3D:~ 3E:] 40:| 65:€";

    fn character(name: &str) -> &str {
        match name {
            "LF" => "\n",
            "CR" => "\r",
            "SP" => " ",
            "FF" => "\u{C}",
            character => character,
        }
    }

    #[test]
    fn plain_ascii_is_what_reads_the_same() {
        for alphabet in [Alphabet::Gsm7, Alphabet::Ascii, Alphabet::Latin1, Alphabet::Ucs2, Alphabet::Binary]
        {
            for octet in 0..=u8::MAX {
                let reads_the_same = matches!(octet, b' '..=b'~')
                    && !matches!(alphabet, Alphabet::Ucs2 | Alphabet::Binary)
                    && alphabet.decode(&[octet]) == char::from(octet).to_string();
                assert_eq!(alphabet.is_plain_ascii(&[octet]), reads_the_same, "{alphabet:?} {octet:02X}");
            }
        }
    }

    #[test]
    fn knows_the_whole_gsm_alphabet() {
        let names = BASIC.iter().flat_map(|line| line.split(' '));
        let mut known = 0;
        for (code, name) in (0_u8..).zip(names).filter(|&(_, name)| name != "ESC") {
            let text = character(name);
            assert_eq!(Alphabet::Gsm7.decode(&[code]), text, "0x{code:02X}");
            assert_eq!(Alphabet::Gsm7.encode(text), Ok(vec![code]), "{text}");
            known += 1;
        }
        assert_eq!(known, 127);
        for entry in EXTENSION.split(' ') {
            let (code, name) = entry.split_once(':').expect("code:character");
            let code = u8::from_str_radix(code, 16).expect("hexadecimal");
            let text = character(name);
            assert_eq!(Alphabet::Gsm7.decode(&[0x1B, code]), text, "0x1B{code:02X}");
            assert_eq!(Alphabet::Gsm7.encode(text), Ok(vec![0x1B, code]), "{text}");
        }
        assert_eq!(EXTENSION.split(' ').count(), 10);
    }

    #[test]
    fn gsm_has_no_other_characters() {
        let known: Vec<&str> = BASIC.iter().flat_map(|line| line.split(' ')).map(character).collect();
        let extended: Vec<&str> = EXTENSION.split(' ').map(|entry| character(&entry[3..])).collect();
        for other in ('\0'..='\u{2FFFF}').filter(|&other| {
            let mut text = [0; 4];
            let text: &str = other.encode_utf8(&mut text);
            !known.contains(&text) && !extended.contains(&text)
        }) {
            assert_eq!(Alphabet::Gsm7.encode(&other.to_string()), Err(Unmappable(other)));
        }
    }

    #[test]
    fn decodes_any_octets() {
        for (alphabet, octets, text) in [
            (Alphabet::Gsm7, &b"a\x80\xFFb"[..], "a\u{FFFD}\u{FFFD}b"),
            (Alphabet::Gsm7, b"\x1B\x41", "A"), // not in the extension: the basic character
            (Alphabet::Gsm7, b"\x1B\x1B\x65", "\u{FFFD}e"), // pairs, also of escapes
            (Alphabet::Gsm7, b"\x1B\x80", "\u{FFFD}"),
            (Alphabet::Gsm7, b"a\x1B", "a\u{FFFD}"),
            (Alphabet::Ascii, b"a@`\x80", "a@`\u{FFFD}"),
            (Alphabet::Latin1, b"\x00\xE9\xFF", "\0éÿ"),
            (Alphabet::Ucs2, b"\x4F\x60\xD8\x3D\xDE\x00", "你😀"),
            (Alphabet::Ucs2, b"\xD8\x3D\x00\x41", "\u{FFFD}A"),
            (Alphabet::Ucs2, b"\x00\x41\xDE\x00", "A\u{FFFD}"),
            (Alphabet::Ucs2, b"\x00\x41\x00", "A\u{FFFD}"),
            (Alphabet::Binary, b"ab", "\u{FFFD}\u{FFFD}"),
            (Alphabet::Binary, b"", ""),
        ] {
            assert_eq!(alphabet.decode(octets), text, "{alphabet:?} {octets:02X?}");
        }
    }

    #[test]
    fn encodes_or_names_the_first_character_that_does_not_fit() {
        for (alphabet, text, octets, lossy) in [
            (Alphabet::Gsm7, "@$_€", Ok(&b"\x00\x02\x11\x1B\x65"[..]), &b"\x00\x02\x11\x1B\x65"[..]),
            (Alphabet::Gsm7, "a`çb", Err(Unmappable('`')), b"a??b"),
            (Alphabet::Gsm7, "\u{1B}", Err(Unmappable('\u{1B}')), b"?"),
            (Alphabet::Gsm7, "\u{FFFD}", Err(Unmappable('\u{FFFD}')), b"?"),
            (Alphabet::Ascii, "a\n~", Ok(b"a\n~"), b"a\n~"),
            (Alphabet::Ascii, "né€", Err(Unmappable('é')), b"n??"),
            (Alphabet::Latin1, "né", Ok(b"n\xE9"), b"n\xE9"),
            (Alphabet::Latin1, "né€", Err(Unmappable('€')), b"n\xE9?"),
            (Alphabet::Ucs2, "A你😀", Ok(b"\0A\x4F\x60\xD8\x3D\xDE\0"), b"\0A\x4F\x60\xD8\x3D\xDE\0"),
            (Alphabet::Binary, "", Ok(b""), b""),
            (Alphabet::Binary, "ab", Err(Unmappable('a')), b"??"),
        ] {
            assert_eq!(alphabet.encode(text), octets.map(<[u8]>::to_vec), "{alphabet:?} {text}");
            assert_eq!(alphabet.encode_lossy(text), lossy, "{alphabet:?} {text}");
        }
    }

    #[test]
    fn maps_every_data_coding() {
        use Alphabet::{Ascii, Binary, Gsm7, Latin1, Ucs2};
        let table = [
            (0x00..=0x00, Some(Gsm7)),
            (0x01..=0x01, Some(Ascii)),
            (0x02..=0x02, Some(Binary)),
            (0x03..=0x03, Some(Latin1)),
            (0x04..=0x04, Some(Binary)),
            (0x05..=0x07, None),
            (0x08..=0x08, Some(Ucs2)),
            (0x09..=0x0F, None),
            (0x10..=0x13, Some(Gsm7)),
            (0x14..=0x17, Some(Binary)),
            (0x18..=0x1B, Some(Ucs2)),
            (0x1C..=0xBF, None),
            (0xC0..=0xC3, Some(Gsm7)),
            (0xC4..=0xC7, None),
            (0xC8..=0xCB, Some(Gsm7)),
            (0xCC..=0xCF, None),
            (0xD0..=0xD3, Some(Gsm7)),
            (0xD4..=0xD7, None),
            (0xD8..=0xDB, Some(Gsm7)),
            (0xDC..=0xDF, None),
            (0xE0..=0xE3, Some(Ucs2)),
            (0xE4..=0xE7, None),
            (0xE8..=0xEB, Some(Ucs2)),
            (0xEC..=0xEF, None),
            (0xF0..=0xF3, Some(Gsm7)),
            (0xF4..=0xF7, Some(Binary)),
            (0xF8..=0xFF, None),
        ];
        let mut next = 0;
        for (values, alphabet) in table {
            for value in values {
                assert_eq!(usize::from(value), next, "the table names every value once");
                assert_eq!(DataCoding(value).alphabet(Gsm7), alphabet, "{}", DataCoding(value));
                next += 1;
            }
        }
        assert_eq!(next, 256);
        assert_eq!(DataCoding::DEFAULT.alphabet(Ascii), Some(Ascii));
        assert_eq!(DataCoding(0xF0).alphabet(Latin1), Some(Latin1));
        assert_eq!(DataCoding::IA5.alphabet(Gsm7), Some(Ascii));
    }

    #[test]
    fn measures_in_units() {
        assert_eq!(Alphabet::Gsm7.units(b"a\x1B\x65"), 3);
        assert_eq!(Alphabet::Latin1.units(b"abc"), 3);
        assert_eq!(Alphabet::Ucs2.units(b"\x00a\xD8\x3D\xDE\x00"), 3);
        assert_eq!(Alphabet::Ucs2.units(b"\x00a\xD8"), 2);
        assert_eq!(Alphabet::Binary.units(b""), 0);
    }

    #[test]
    fn a_segment_and_its_header_fit_140_octets() {
        for reference in [Reference::Eight(0), Reference::Sixteen(0)] {
            let room = 140 - reference.udh_octets();
            assert_eq!(Alphabet::Gsm7.segment_units_max(reference), room * 8 / 7);
            assert_eq!(Alphabet::Ucs2.segment_units_max(reference), room / 2);
            assert_eq!(Alphabet::Binary.segment_units_max(reference), room);
        }
    }

    #[test]
    fn prints_in_hexadecimal() {
        assert_eq!(format!("{} {:?}", DataCoding::UCS_2, DataCoding(0xF5)), "0x08 0xF5");
    }

    proptest! {
        #[test]
        fn text_goes_there_and_back(text: String) {
            prop_assert_eq!(Alphabet::Ucs2.encode(&text).map(|octets| Alphabet::Ucs2.decode(&octets)), Ok(text.clone()));
            for alphabet in [Alphabet::Gsm7, Alphabet::Ascii, Alphabet::Latin1] {
                match alphabet.encode(&text) {
                    Ok(octets) => prop_assert_eq!(alphabet.decode(&octets), text.clone()),
                    Err(Unmappable(character)) => prop_assert!(text.contains(character)),
                }
            }
        }
    }
}
