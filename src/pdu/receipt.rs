//! Delivery receipts as text (v3.4 appendix B), and the message_state they report.

use std::fmt;
use std::io::Write;

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
        STATES.iter().any(|row| row.state == self && row.is_final)
    }

    /// What `stat:` says; UNKNOWN for a reserved state.
    pub fn receipt_text(self) -> &'static str {
        STATES.iter().find(|row| row.state == self).map_or("UNKNOWN", |row| row.stat)
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
        match STATES.iter().find(|row| row.state == *self) {
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

#[rustfmt::skip]
const STATES: [StateRow; 10] = [
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
            // Writing to a vector cannot fail.
            let _ = write!(out, "{:03}", number.min(NUMBER_MAX));
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
pub fn excerpt(text: &str) -> Vec<u8> {
    let printable = |character: char| if matches!(character, ' '..='~') { character as u8 } else { b'?' };
    text.chars().take(EXCERPT_MAX).map(printable).collect()
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
