//! Load that keeps account of what it sent and heard.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use smppd::pdu::{CommandId, CommandStatus, Pdu};

use super::PATIENCE;
use super::esme::{DELIVERED, Esme, Next, message};

/// Between two helpings of load.
const PACE: Duration = Duration::from_millis(10);

/// What all sessions of an account sent and heard, over all lives of a server.
#[derive(Default)]
pub struct Ledger {
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
        let (mut is_over, mut is_unbound) = (false, false);
        loop {
            is_over |= stop.load(Ordering::Relaxed);
            if !is_over && in_flight.len() <= window / 2 {
                // There is to be load, not as much as fits: every message is asked about later.
                thread::sleep(PACE);
                octets.clear();
                while in_flight.len() < window {
                    let text = format!("{name}-{}", self.sent.len());
                    let number = esme.put(&Pdu::SubmitSm(message(DELIVERED, &text)), &mut octets);
                    self.sent.insert(text.clone());
                    in_flight.insert(number, text);
                }
                // What the server still said before it ended is read all the same.
                is_over |= esme.write(&octets).is_err();
            }
            if is_over && in_flight.is_empty() {
                return;
            }
            match esme.next_within(PATIENCE) {
                Next::Closed => return,
                Next::Silence => panic!("{} messages are not answered", in_flight.len()),
                Next::Pdu(pdu) if pdu.command_id == CommandId::SUBMIT_SM_RESP => {
                    let text = in_flight.remove(&pdu.sequence_number).expect("an answer to a message, once");
                    // What came behind the server's own unbind is refused; nothing else is.
                    if !(is_unbound && pdu.status == CommandStatus::ESME_RINVBNDSTS) {
                        assert!(self.accepted.insert(text, pdu.message_id()).is_none());
                    }
                }
                Next::Pdu(pdu) if pdu.command_id == CommandId::UNBIND => {
                    esme.answer(&pdu, CommandStatus::ESME_ROK);
                    (is_over, is_unbound) = (true, true);
                }
                Next::Pdu(pdu) => self.receipt(&pdu.receipt().expect("a receipt")),
            }
        }
    }

    fn receipt(&mut self, receipt: &super::esme::Receipt) {
        *self.receipts.entry((receipt.text.clone(), receipt.id.clone())).or_default() += 1;
    }

    /// Reads receipts until each accepted message has one.
    pub fn collect(&mut self, esme: &mut Esme) {
        let mut missing: HashMap<&str, &str> =
            self.accepted.iter().map(|(text, id)| (id.as_str(), text.as_str())).collect();
        for (_, id) in self.receipts.keys() {
            missing.remove(&**id);
        }
        while !missing.is_empty() {
            let receipt = match esme.next_within(PATIENCE) {
                Next::Pdu(pdu) => pdu.receipt().expect("a receipt"),
                other => {
                    let mut examples: Vec<_> = missing.iter().take(5).collect();
                    examples.sort_unstable();
                    panic!("{} receipts are missing, such as {examples:?}: {other:?}", missing.len());
                }
            };
            missing.remove(&*receipt.id);
            *self.receipts.entry((receipt.text, receipt.id)).or_default() += 1;
        }
    }

    pub fn absorb(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.accepted.extend(other.accepted);
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
            match self.accepted.get(text) {
                Some(accepted) => assert_eq!(id, accepted, "the receipt for {text:?} has another id"),
                None => {
                    assert!(!ids.contains(&**id), "the receipt for {text:?} has the id of another message");
                }
            }
            let known = id_of.insert(text, id);
            assert!(known.is_none_or(|known| known == id), "{text:?} was accepted twice: {known:?} and {id}");
        }
    }
}
