//! Load that keeps account of what it sent and heard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use smppd::pdu::{CommandId, CommandStatus, Pdu, ShortMessage, Tlvs};

use super::PATIENCE;
use super::esme::{DELIVERED, Esme, NEVER_TAKEN, Next, Receipt, message};

/// A destination that is not delivered.
const FAILING: &str = "9995034555";
/// The tag of the TLV for long texts, and the size of those that fill a journal.
const MESSAGE_PAYLOAD: u16 = 0x0424;
const HEAVY_OCTETS: usize = 16_000;
/// SMPP's way to say it.
const IN_A_SECOND: &[u8] = b"000000000001000R";
/// Between two helpings of load.
const PACE: Duration = Duration::from_millis(10);

/// What a load sends.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Mix {
    /// Messages that are delivered at once.
    #[default]
    Plain,
    /// Among them some that are scheduled, that fail, and that no carrier takes until they expire.
    Varied,
    /// Long messages that are delivered at once: they fill the journal.
    Heavy,
}

/// What becomes of a message of a [`Mix::Varied`], by the last digit of its text.
const fn kind_of(text: &str) -> Kind {
    match text.as_bytes().last() {
        Some(b'3') => Kind::Scheduled,
        Some(b'5') => Kind::Failing,
        Some(b'7') => Kind::NeverTaken,
        _ => Kind::Delivered,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Delivered,
    Scheduled,
    Failing,
    NeverTaken,
}

impl Kind {
    /// The final state in a receipt.
    const fn end(self) -> &'static str {
        match self {
            Self::Delivered | Self::Scheduled => "DELIVRD",
            Self::Failing => "UNDELIV",
            Self::NeverTaken => "EXPIRED",
        }
    }
}

/// What all sessions of an account sent and heard, over all lives of a server.
#[derive(Default)]
pub struct Ledger {
    /// What [`Self::run`] sends.
    pub mix: Mix,
    /// How many messages were answered so far, by all who load together.
    pub answered: Arc<AtomicUsize>,
    /// What may be said instead of ESME_ROK.
    pub may_be_refused: &'static [CommandStatus],
    /// The texts of messages that were refused.
    pub refused: HashMap<String, CommandStatus>,
    /// The final state in the receipt of each message_id.
    pub ends: HashMap<String, String>,
    /// The text of every message that was sent, answered or not. No two are the same.
    pub sent: HashSet<String>,
    /// Text and message_id of every message that was accepted.
    pub accepted: HashMap<String, String>,
    /// Text and message_id of every receipt, and how often it came.
    pub receipts: HashMap<(String, String), usize>,
}

impl Ledger {
    /// Keeps `window` messages in flight until told to stop or the connection ends; then waits for the rest
    /// of the answers. Texts begin with `name`.
    pub fn run(&mut self, esme: &mut Esme, name: &str, window: usize, stop: &AtomicBool) {
        let mut in_flight: HashMap<u32, String> = HashMap::new();
        let mut octets = Vec::new();
        let (mut is_over, mut is_throttled, mut is_unbound) = (false, false, false);
        loop {
            is_over |= stop.load(Ordering::Relaxed);
            if !is_over && in_flight.len() <= window / 2 {
                // There is to be load, not as much as fits: every message is asked about later.
                thread::sleep(PACE);
                octets.clear();
                while in_flight.len() < window {
                    let mut text = format!("{name}-{}", self.sent.len());
                    if self.mix == Mix::Heavy {
                        // A receipt tells the first twenty characters.
                        text = format!("{text:.<20}");
                    }
                    let number = self.put(esme, &text, &mut octets);
                    self.sent.insert(text.clone());
                    in_flight.insert(number, text);
                }
                // What the server still said before it ended is read all the same.
                is_over |= esme.write(&octets).is_err();
            }
            if is_over && in_flight.is_empty() && !is_throttled {
                return;
            }
            match esme.next_within(PATIENCE) {
                Next::Closed => return,
                Next::Silence => panic!("{} messages are not answered", in_flight.len()),
                Next::Pdu(pdu) if pdu.command_id == CommandId::SUBMIT_SM_RESP => {
                    let text = in_flight.remove(&pdu.sequence_number).expect("an answer to a message, once");
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    // What comes shortly before the server's own unbind is refused, and what comes behind it;
                    // nothing else that is not foreseen.
                    let is_ending = match pdu.status {
                        CommandStatus::ESME_RTHROTTLED => !is_unbound,
                        CommandStatus::ESME_RINVBNDSTS => is_unbound,
                        _ => false,
                    };
                    is_throttled |= is_ending && !is_unbound;
                    if is_ending || self.may_be_refused.contains(&pdu.status) {
                        self.refused.insert(text, pdu.status);
                    } else {
                        assert!(self.accepted.insert(text, pdu.message_id()).is_none());
                    }
                }
                Next::Pdu(pdu) if pdu.command_id == CommandId::UNBIND => {
                    esme.answer(&pdu, CommandStatus::ESME_ROK);
                    (is_over, is_throttled, is_unbound) = (true, false, true);
                }
                Next::Pdu(pdu) => self.receipt(&pdu.receipt().expect("a receipt")),
            }
        }
    }

    fn put(&self, esme: &mut Esme, text: &str, octets: &mut Vec<u8>) -> u32 {
        let payload;
        let message = match (self.mix, kind_of(text)) {
            (Mix::Plain, _) | (Mix::Varied, Kind::Delivered) => message(DELIVERED, text),
            (Mix::Varied, Kind::Scheduled) => {
                ShortMessage { schedule_delivery_time: IN_A_SECOND, ..message(DELIVERED, text) }
            }
            (Mix::Varied, Kind::Failing) => message(FAILING, text),
            (Mix::Varied, Kind::NeverTaken) => {
                ShortMessage { validity_period: IN_A_SECOND, ..message(NEVER_TAKEN, text) }
            }
            (Mix::Heavy, _) => {
                let value = format!("{text:.<HEAVY_OCTETS$}");
                let header = [MESSAGE_PAYLOAD, HEAVY_OCTETS as u16].map(u16::to_be_bytes);
                payload = [header.as_flattened(), value.as_bytes()].concat();
                let tlvs = Tlvs::read(&payload, CommandId::SUBMIT_SM).expect("a TLV");
                ShortMessage { tlvs, ..message(DELIVERED, "") }
            }
        };
        esme.put(&Pdu::SubmitSm(message), octets)
    }

    /// Collects receipts until the connection ends.
    pub fn listen(&mut self, esme: &mut Esme) {
        for pdu in esme.until_closed() {
            if pdu.command_id != CommandId::UNBIND {
                self.receipt(&pdu.receipt().expect("a receipt"));
            }
        }
    }

    fn receipt(&mut self, receipt: &Receipt) {
        *self.receipts.entry((receipt.text.clone(), receipt.id.clone())).or_default() += 1;
        let known = self.ends.insert(receipt.id.clone(), receipt.stat.clone());
        assert!(known.is_none_or(|known| known == receipt.stat), "{} ended twice: {receipt:?}", receipt.id);
    }

    /// Reads receipts until each accepted message has one.
    pub fn collect(&mut self, esme: &mut Esme) {
        let (receipts, missing) = self.read_missing(esme);
        assert!(
            missing.is_empty(),
            "{} receipts are missing, such as {:?}",
            missing.len(),
            &missing[..missing.len().min(5)]
        );
        receipts.iter().for_each(|receipt| self.receipt(receipt));
    }

    /// Reads the receipts that have not come yet; those, and the messages that have none when nothing comes any more.
    pub fn read_missing(&self, esme: &mut Esme) -> (Vec<Receipt>, Vec<String>) {
        let mut missing: HashMap<&str, &str> =
            self.accepted.iter().map(|(text, id)| (id.as_str(), text.as_str())).collect();
        for (_, id) in self.receipts.keys() {
            missing.remove(&**id);
        }
        let mut receipts = Vec::new();
        while !missing.is_empty() {
            let Next::Pdu(pdu) = esme.next_within(PATIENCE) else { break };
            let receipt = pdu.receipt().expect("a receipt");
            missing.remove(&*receipt.id);
            receipts.push(receipt);
        }
        let mut missing: Vec<String> =
            missing.into_iter().map(|(id, text)| format!("{id} {text:?}")).collect();
        missing.sort_unstable();
        (receipts, missing)
    }

    pub fn absorb(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.accepted.extend(other.accepted);
        self.refused.extend(other.refused);
        for (id, end) in other.ends {
            let known = self.ends.insert(id.clone(), end.clone());
            assert!(known.is_none_or(|known| known == end), "{id} ended twice: {end}");
        }
        for (receipt, count) in other.receipts {
            *self.receipts.entry(receipt).or_default() += count;
        }
    }

    pub fn ids(&self) -> Vec<&str> {
        self.accepted.values().map(String::as_str).collect()
    }

    /// What must hold whatever happened: ids are given out once, and receipts are for what was sent. A message
    /// that was sent and not answered may have been accepted all the same.
    pub fn check(&self) {
        let ids: HashSet<&str> = self.accepted.values().map(String::as_str).collect();
        assert_eq!(ids.len(), self.accepted.len(), "a message_id was given out twice");
        let mut id_of: HashMap<&str, &str> = HashMap::new();
        for (text, id) in self.receipts.keys() {
            assert!(self.sent.contains(text), "a receipt for {text:?}, which was never sent");
            assert!(!self.refused.contains_key(text), "a receipt for {text:?}, which was refused");
            match self.accepted.get(text) {
                Some(accepted) => assert_eq!(id, accepted, "the receipt for {text:?} has another id"),
                None => {
                    assert!(!ids.contains(&**id), "the receipt for {text:?} has the id of another message");
                }
            }
            // A load that varies knows how each message has to end.
            let end = self.ends.get(id).map(String::as_str);
            assert!(self.mix != Mix::Varied || end == Some(kind_of(text).end()), "{text:?} ended as {end:?}");
            let known = id_of.insert(text, id);
            assert!(known.is_none_or(|known| known == id), "{text:?} was accepted twice: {known:?} and {id}");
        }
    }
}
