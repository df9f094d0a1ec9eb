//! Delivery receipts as text (v3.4 appendix B), and the message_state they report.

use std::fmt;

use crate::time::{Timestamp, smpp};

/// The state of a message as query_sm_resp, the message_state TLV and receipts name it (v3.4 §5.2.28).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageState(pub u8);

impl MessageState {
    /// Waits for its schedule_delivery_time. v5.0 only: peers before it are told ENROUTE.
    pub const SCHEDULED: Self = Self(0);
    /// On its way.
    pub const ENROUTE: Self = Self(1);
    /// Reached its destination.
    pub const DELIVERED: Self = Self(2);
    /// Its validity period ran out.
    pub const EXPIRED: Self = Self(3);
    /// Cancelled.
    pub const DELETED: Self = Self(4);
    /// Cannot reach its destination.
    pub const UNDELIVERABLE: Self = Self(5);
    /// In a carrier's hands.
    pub const ACCEPTED: Self = Self(6);
    /// Nobody knows.
    pub const UNKNOWN: Self = Self(7);
    /// Refused on the way.
    pub const REJECTED: Self = Self(8);
    /// Passed over on purpose. v5.0 only.
    pub const SKIPPED: Self = Self(9);

    /// Whether nothing more happens to the message.
    ///
    /// The specifications count ACCEPTED as final; in practice a carrier says it and means "not yet". UNKNOWN
    /// is a carrier's last word. A reserved state is not final: we would lose a message to a number.
    pub fn is_final(self) -> bool {
        self.row().is_some_and(|row| row.is_final)
    }

    /// What `stat:` says; UNKNOWN for a reserved state.
    pub fn receipt_text(self) -> &'static str {
        self.row().map_or("UNKNOWN", |row| row.stat)
    }

    fn row(self) -> Option<&'static StateRow> {
        STATES.get(usize::from(self.0))
    }

    /// Reads a `stat:`, in any case, abbreviated or in full.
    pub fn from_receipt_text(stat: &[u8]) -> Option<Self> {
        let is = |text: &str| text.as_bytes().eq_ignore_ascii_case(stat);
        STATES.iter().find(|row| is(row.stat) || is(row.name)).map(|row| row.state)
    }
}

impl fmt::Debug for MessageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MessageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}

struct StateRow {
    state: MessageState,
    name: &'static str,
    stat: &'static str,
    is_final: bool,
}

/// By their numbers.
#[rustfmt::skip]
static STATES: [StateRow; 10] = [
    StateRow { state: MessageState::SCHEDULED,     name: "SCHEDULED",     stat: "SCHEDULED", is_final: false },
    StateRow { state: MessageState::ENROUTE,       name: "ENROUTE",       stat: "ENROUTE",   is_final: false },
    StateRow { state: MessageState::DELIVERED,     name: "DELIVERED",     stat: "DELIVRD",   is_final: true },
    StateRow { state: MessageState::EXPIRED,       name: "EXPIRED",       stat: "EXPIRED",   is_final: true },
    StateRow { state: MessageState::DELETED,       name: "DELETED",       stat: "DELETED",   is_final: true },
    StateRow { state: MessageState::UNDELIVERABLE, name: "UNDELIVERABLE", stat: "UNDELIV",   is_final: true },
    StateRow { state: MessageState::ACCEPTED,      name: "ACCEPTED",      stat: "ACCEPTD",   is_final: false },
    StateRow { state: MessageState::UNKNOWN,       name: "UNKNOWN",       stat: "UNKNOWN",   is_final: true },
    StateRow { state: MessageState::REJECTED,      name: "REJECTED",      stat: "REJECTD",   is_final: true },
    StateRow { state: MessageState::SKIPPED,       name: "SKIPPED",       stat: "SKIPPED",   is_final: true },
];

/// What a receipt of ours says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt<'a> {
    /// Exactly as submit_sm_resp gave it.
    pub message_id: &'a [u8],
    /// Messages submitted, written as 999 at most.
    pub submitted: u16,
    /// Messages delivered, written as 999 at most.
    pub delivered: u16,
    /// When the message was accepted, written to the minute in UTC.
    pub submit_date: Timestamp,
    /// When it reached its state, written to the minute in UTC.
    pub done_date: Timestamp,
    /// What became of it.
    pub state: MessageState,
    /// The network's or our reason, 0 for none, written as 999 at most.
    pub error: u16,
    /// The start of the message, from [`excerpt`]; written up to [`EXCERPT_MAX`] octets.
    pub text: &'a [u8],
}

/// Characters of the message that a receipt repeats.
pub const EXCERPT_MAX: usize = 20;

/// Field widths allow three digits.
const NUMBER_MAX: u16 = 999;

impl Receipt<'_> {
    /// Appends the text, one line without an end, single spaces.
    pub fn put(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, number: u16| {
            let number = number.min(NUMBER_MAX);
            let digit = |unit| b'0' + (number / unit % 10) as u8;
            out.extend_from_slice(&[100, 10, 1].map(digit));
        };
        out.extend_from_slice(b"id:");
        out.extend_from_slice(self.message_id);
        out.extend_from_slice(b" sub:");
        number(out, self.submitted);
        out.extend_from_slice(b" dlvrd:");
        number(out, self.delivered);
        out.extend_from_slice(b" submit date:");
        out.extend_from_slice(&smpp::receipt_date(self.submit_date));
        out.extend_from_slice(b" done date:");
        out.extend_from_slice(&smpp::receipt_date(self.done_date));
        out.extend_from_slice(b" stat:");
        out.extend_from_slice(self.state.receipt_text().as_bytes());
        out.extend_from_slice(b" err:");
        number(out, self.error);
        out.extend_from_slice(b" text:");
        out.extend_from_slice(&self.text[..self.text.len().min(EXCERPT_MAX)]);
    }
}

/// The start of a message as a receipt repeats it: printable ASCII, `?` for anything else.
pub fn excerpt(text: impl Iterator<Item = char>, room: &mut [u8; EXCERPT_MAX]) -> &[u8] {
    let mut length = 0;
    for (octet, character) in room.iter_mut().zip(text) {
        *octet = if matches!(character, ' '..='~') { character as u8 } else { b'?' };
        length += 1;
    }
    &room[..length]
}

/// What anybody's receipt says, as far as it can be understood.
///
/// Keys may come in any order and case, with more spaces than needed, and be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ParsedReceipt<'a> {
    /// The message_id as the other MC gave it; some write it in hex here and in decimal there.
    pub message_id: Option<&'a [u8]>,
    /// Messages submitted.
    pub submitted: Option<u16>,
    /// Messages delivered.
    pub delivered: Option<u16>,
    /// When it was submitted, taken as UTC though few say so.
    pub submit_date: Option<Timestamp>,
    /// When it reached its state, taken as UTC though few say so.
    pub done_date: Option<Timestamp>,
    /// `stat`, when it is one we know.
    pub state: Option<MessageState>,
    /// `stat` as written.
    pub stat: Option<&'a [u8]>,
    /// `err` as written: often three digits, sometimes not a number.
    pub error: Option<&'a [u8]>,
    /// The start of the message; empty when the key is there without a text.
    pub text: Option<&'a [u8]>,
}

impl<'a> ParsedReceipt<'a> {
    /// Reads a receipt's text; `None` when it has neither id nor stat. The first of repeated keys counts.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut receipt = Self::default();
        let mut found = [false; Key::COUNT];
        let mut next = find_key(text, 0, &found);
        while let Some((_, key, value_start)) = next {
            found[key as usize] = true;
            // The text is whatever its author wrote, keys included. Once we know the message and its state,
            // nothing behind `text:` may tell us more.
            let is_rest = key == Key::Text && found[Key::Id as usize] && found[Key::Stat as usize];
            next = if is_rest { None } else { find_key(text, value_start, &found) };
            let value_end = next.map_or(text.len(), |(key_start, ..)| key_start);
            receipt.set(key, &text[value_start..value_end]);
        }
        (receipt.message_id.is_some() || receipt.stat.is_some()).then_some(receipt)
    }

    fn set(&mut self, key: Key, value: &'a [u8]) {
        let word = value.split(|&octet| is_separator(octet)).find(|word| !word.is_empty());
        match key {
            Key::Id => self.message_id = word,
            Key::Submitted => self.submitted = word.and_then(number),
            Key::Delivered => self.delivered = word.and_then(number),
            Key::SubmitDate => self.submit_date = word.and_then(smpp::parse_reported),
            Key::DoneDate => self.done_date = word.and_then(smpp::parse_reported),
            Key::Stat => {
                self.stat = word;
                self.state = word.and_then(MessageState::from_receipt_text);
            }
            Key::Error => self.error = word,
            Key::Text => self.text = Some(value.trim_ascii()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Submitted,
    Delivered,
    SubmitDate,
    DoneDate,
    Stat,
    Error,
    Text,
}

impl Key {
    const COUNT: usize = 8;

    /// Each key as the words it is written with.
    const ALL: [(Self, &'static [&'static [u8]]); Self::COUNT] = [
        (Self::Id, &[b"id"]),
        (Self::Submitted, &[b"sub"]),
        (Self::Delivered, &[b"dlvrd"]),
        (Self::SubmitDate, &[b"submit", b"date"]),
        (Self::DoneDate, &[b"done", b"date"]),
        (Self::Stat, &[b"stat"]),
        (Self::Error, &[b"err"]),
        (Self::Text, &[b"text"]),
    ];
}

/// The next key at `from` or behind that is not yet found: where it starts, and where its value does.
fn find_key(text: &[u8], from: usize, found: &[bool; Key::COUNT]) -> Option<(usize, Key, usize)> {
    (from..text.len()).filter(|&start| start == 0 || is_separator(text[start - 1])).find_map(|start| {
        let (key, rest) = key_at(&text[start..])?;
        (!found[key as usize]).then_some((start, key, text.len() - rest.len()))
    })
}

/// The key that `text` begins with, and what follows its colon.
fn key_at(text: &[u8]) -> Option<(Key, &[u8])> {
    Key::ALL.iter().find_map(|&(key, words)| {
        let mut rest = text;
        for word in words {
            let (start, following) = rest.split_at_checked(word.len())?;
            if !start.eq_ignore_ascii_case(word) {
                return None;
            }
            rest = following.trim_ascii_start();
        }
        Some((key, rest.strip_prefix(b":")?))
    })
}

/// What stands between a value and the next key.
fn is_separator(octet: u8) -> bool {
    octet.is_ascii_whitespace() || matches!(octet, b',' | b';' | 0)
}

fn number(digits: &[u8]) -> Option<u16> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Civil;

    fn at(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Timestamp {
        Timestamp::from_civil(Civil { year, month, day, hour, minute, second }).expect("a date")
    }

    fn receipt() -> Receipt<'static> {
        Receipt {
            message_id: b"1234567890123456789",
            submitted: 1,
            delivered: 1,
            submit_date: at(2026, 1, 31, 23, 58, 59),
            done_date: at(2026, 2, 1, 0, 3, 7),
            state: MessageState::DELIVERED,
            error: 0,
            text: b"Hello, world",
        }
    }

    fn put(receipt: &Receipt<'_>) -> String {
        let mut out = Vec::new();
        receipt.put(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn states_are_found_by_their_numbers() {
        for row in &STATES {
            assert_eq!(row.state.row().map(|found| found.name), Some(row.name));
        }
        assert!(!MessageState(10).is_final() && MessageState(255).receipt_text() == "UNKNOWN");
    }

    #[test]
    fn writes_the_canonical_line() {
        assert_eq!(
            put(&receipt()),
            "id:1234567890123456789 sub:001 dlvrd:001 submit date:2601312358 done date:2602010003 \
             stat:DELIVRD err:000 text:Hello, world"
        );
        let failed =
            Receipt { delivered: 0, state: MessageState::UNDELIVERABLE, error: 34, text: b"", ..receipt() };
        assert_eq!(
            put(&failed),
            "id:1234567890123456789 sub:001 dlvrd:000 submit date:2601312358 done date:2602010003 \
             stat:UNDELIV err:034 text:"
        );
    }

    #[test]
    fn keeps_the_widths() {
        let wide = Receipt { submitted: 1_000, error: u16::MAX, text: b"123456789012345678901", ..receipt() };
        assert_eq!(
            put(&wide),
            "id:1234567890123456789 sub:999 dlvrd:001 submit date:2601312358 done date:2602010003 \
             stat:DELIVRD err:999 text:12345678901234567890"
        );
    }

    #[test]
    fn repeats_printable_ascii_only() {
        for (text, start) in [
            ("", ""),
            ("Hello", "Hello"),
            ("naïve\r\n~€", "na?ve??~?"),
            ("12345678901234567890x", "12345678901234567890"),
            ("ééééééééééééééééééééx", "????????????????????"),
            ("\u{7F}\0", "??"),
        ] {
            assert_eq!(excerpt(text.chars(), &mut [0; EXCERPT_MAX]), start.as_bytes(), "{text}");
        }
    }

    #[test]
    fn reads_its_own_line() {
        let line = put(&receipt());
        let read = ParsedReceipt {
            message_id: Some(b"1234567890123456789"),
            submitted: Some(1),
            delivered: Some(1),
            submit_date: Some(at(2026, 1, 31, 23, 58, 0)),
            done_date: Some(at(2026, 2, 1, 0, 3, 0)),
            state: Some(MessageState::DELIVERED),
            stat: Some(b"DELIVRD"),
            error: Some(b"000"),
            text: Some(b"Hello, world"),
        };
        assert_eq!(ParsedReceipt::parse(line.as_bytes()), Some(read));
    }

    #[test]
    fn reads_what_others_write() {
        let nothing = ParsedReceipt::default();
        for (line, read) in [
            (
                "id:c449ab9744f47b6af1879e49e75e4f40 sub:001 dlvrd:0 submit date:0610191018 done date:061019101858 \
                 stat:ACCEPTD err:0 Text:This is an Acti",
                ParsedReceipt {
                    message_id: Some(b"c449ab9744f47b6af1879e49e75e4f40"),
                    submitted: Some(1),
                    delivered: Some(0),
                    submit_date: Some(at(2006, 10, 19, 10, 18, 0)),
                    done_date: Some(at(2006, 10, 19, 10, 18, 58)),
                    state: Some(MessageState::ACCEPTED),
                    stat: Some(b"ACCEPTD"),
                    error: Some(b"0"),
                    text: Some(b"This is an Acti"),
                },
            ),
            (
                "id:7 stat:UNDELIV err:0032",
                ParsedReceipt {
                    message_id: Some(b"7"),
                    state: Some(MessageState::UNDELIVERABLE),
                    stat: Some(b"UNDELIV"),
                    error: Some(b"0032"),
                    ..nothing
                },
            ),
            (
                "  ID: 7   Stat:expired  SUBMIT   DATE: 2401010000 Err:EC-1  TEXT: ",
                ParsedReceipt {
                    message_id: Some(b"7"),
                    state: Some(MessageState::EXPIRED),
                    stat: Some(b"expired"),
                    submit_date: Some(at(2024, 1, 1, 0, 0, 0)),
                    error: Some(b"EC-1"),
                    text: Some(b""),
                    ..nothing
                },
            ),
            (
                "stat:Delivered,done date:2402291200;id:0x7F\0",
                ParsedReceipt {
                    message_id: Some(b"0x7F"),
                    state: Some(MessageState::DELIVERED),
                    stat: Some(b"Delivered"),
                    done_date: Some(at(2024, 2, 29, 12, 0, 0)),
                    ..nothing
                },
            ),
            // unknown keys and values that do not read
            (
                "id:7 msgid:8 sub:many dlvrd: submit date:2302291200 done date:soon stat:FAILED err: text:x",
                ParsedReceipt { message_id: Some(b"7"), stat: Some(b"FAILED"), text: Some(b"x"), ..nothing },
            ),
            // the text in front
            (
                "text:bye now id:7 stat:REJECTD",
                ParsedReceipt {
                    message_id: Some(b"7"),
                    state: Some(MessageState::REJECTED),
                    stat: Some(b"REJECTD"),
                    text: Some(b"bye now"),
                    ..nothing
                },
            ),
            // a text that plays receipt
            (
                "id:7 stat:DELIVRD text:id:8 stat:REJECTD err:666",
                ParsedReceipt {
                    message_id: Some(b"7"),
                    state: Some(MessageState::DELIVERED),
                    stat: Some(b"DELIVRD"),
                    text: Some(b"id:8 stat:REJECTD err:666"),
                    ..nothing
                },
            ),
            ("id:7 id:8", ParsedReceipt { message_id: Some(b"7"), ..nothing }),
            ("id:sub:1", ParsedReceipt { message_id: Some(b"sub:1"), ..nothing }),
        ] {
            assert_eq!(ParsedReceipt::parse(line.as_bytes()), Some(read), "{line}");
        }
    }

    #[test]
    fn other_texts_are_no_receipts() {
        for text in ["", "Hello", "id", "id:", "stat: err:1", "sub:001 text:x", "my-id:7", "idea: 7"] {
            assert_eq!(ParsedReceipt::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn knows_every_state() {
        for (value, name, stat, is_final) in [
            (0, "SCHEDULED", "SCHEDULED", false),
            (1, "ENROUTE", "ENROUTE", false),
            (2, "DELIVERED", "DELIVRD", true),
            (3, "EXPIRED", "EXPIRED", true),
            (4, "DELETED", "DELETED", true),
            (5, "UNDELIVERABLE", "UNDELIV", true),
            (6, "ACCEPTED", "ACCEPTD", false),
            (7, "UNKNOWN", "UNKNOWN", true),
            (8, "REJECTED", "REJECTD", true),
            (9, "SKIPPED", "SKIPPED", true),
        ] {
            let state = MessageState(value);
            assert_eq!(state.to_string(), name);
            assert_eq!(state.receipt_text(), stat);
            assert_eq!(state.is_final(), is_final, "{name}");
            for text in [stat.to_owned(), stat.to_lowercase(), name.to_owned()] {
                assert_eq!(MessageState::from_receipt_text(text.as_bytes()), Some(state), "{text}");
            }
        }
        assert_eq!(format!("{:?}", MessageState(10)), "0x0A");
        assert_eq!(MessageState(10).receipt_text(), "UNKNOWN");
        assert!(!MessageState(10).is_final());
        assert_eq!(MessageState::from_receipt_text(b""), None);
    }

    proptest! {
        #[test]
        fn reads_any_octets(octets: Vec<u8>, line in "((id|stat|text|done date|err) ?: ?[a-z0-9]{0,3} ?){0,9}") {
            let _ = ParsedReceipt::parse(&octets);
            let found = ParsedReceipt::parse(line.as_bytes());
            prop_assert!(found.is_none_or(|read| read.message_id.is_some() || read.stat.is_some()));
        }
    }
}
