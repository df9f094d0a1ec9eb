//! What must hold whatever the load: ids are unique, and every receipt that was asked for comes once, to the account of its
//! message, after its response, and says the same in text and TLVs.
//!
//! Each account has a [`Ledger`], which its connections share: one of them submits, another may get the receipt.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use crate::report::Fault;

/// Cases that a fault is shown with.
const EXAMPLES: usize = 3;
/// Receipts of an account that are kept until their message is known. Those that overtake responses are never as many.
const STRAYS_MAX: usize = 1_000_000;

/// A message_id, as much of it as is needed to tell one from another. What it is like is the server's affair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct IdHash(u64);

impl IdHash {
    fn of(id: &[u8]) -> Self {
        Self(FixedState::default().hash_one(id))
    }
}

/// What is expected of a message that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Awaited {
    /// When it was due.
    pub(crate) due: u64,
    /// The connection that submitted it.
    pub(crate) connection: u32,
    /// Final receipts that were asked for.
    pub(crate) receipts: u16,
    /// Whether they come for some outcomes only, which a client does not know.
    pub(crate) is_conditional: bool,
}

/// A receipt whose message is not known (yet).
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stray {
    id: Box<str>,
    connection: u32,
}

/// What one account was promised, and got.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    inner: Mutex<Entries>,
}

/// The entries of a ledger.
#[derive(Debug)]
pub(crate) struct Entries {
    /// Messages that wait for receipts.
    open: HashMap<IdHash, Awaited, FixedState>,
    /// Messages whose receipts may come.
    conditional: HashMap<IdHash, Awaited, FixedState>,
    /// Every id that was given out, in order.
    ids: Vec<IdHash>,
    strays: HashMap<IdHash, Vec<Stray>, FixedState>,
    /// How many of them there may still be.
    strays_room: usize,
    faults: Faults,
    /// Responses that may have been lost with a connection: so many messages may have ids that are not here.
    lost_answers: u64,
    /// Whether a connection ended without a farewell: a receipt that was not confirmed may come once more.
    was_cut_off: bool,
    /// A client of this account breaks the rules: the ledger proves nothing.
    is_void: bool,
}

/// What was broken, by kind.
#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn note(&mut self, kind: &str, example: &str) {
        self.note_many(kind, 1, example);
    }

    fn note_many(&mut self, kind: &str, count: u64, example: &str) {
        let place = match self.0.iter().position(|fault| fault.kind == kind) {
            Some(place) => place,
            None => {
                self.0.push(Fault { kind: kind.to_owned(), count: 0, examples: Vec::new() });
                self.0.len() - 1
            }
        };
        let fault = &mut self.0[place];
        fault.count += count;
        if fault.examples.len() < EXAMPLES && !example.is_empty() {
            fault.examples.push(example.to_owned());
        }
    }
}

impl Ledger {
    /// Opens it for a few entries; held no longer than one batch takes.
    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            open: HashMap::default(),
            conditional: HashMap::default(),
            ids: Vec::new(),
            strays: HashMap::default(),
            strays_room: STRAYS_MAX,
            faults: Faults::default(),
            lost_answers: 0,
            was_cut_off: false,
            is_void: false,
        }
    }
}

impl Entries {
    /// A message was accepted as `id`.
    pub(crate) fn accepted(&mut self, id: &[u8], mut awaited: Awaited) {
        let hash = IdHash::of(id);
        self.ids.push(hash);
        if !self.strays.is_empty()
            && let Some(strays) = self.strays.get_mut(&hash)
        {
            // What comes behind those that were asked for stays a stray.
            for stray in strays.drain(..strays.len().min(usize::from(awaited.receipts))) {
                // On another connection it may have overtaken the response in the network, which proves nothing.
                if stray.connection == awaited.connection {
                    self.faults.note("receipts came before their responses", &stray.id);
                }
                awaited.receipts -= 1;
                self.strays_room += 1;
            }
            if strays.is_empty() {
                self.strays.remove(&hash);
            }
        }
        let open = if awaited.is_conditional { &mut self.conditional } else { &mut self.open };
        if awaited.receipts > 0 && open.insert(hash, awaited).is_some() {
            self.faults.note("message_ids were given out again", &text(id));
        }
    }

    /// A receipt about `id` came on `connection`: when its message was due, if this is the end of one that is waited for.
    /// `is_final` as opposed to a notification on the way.
    pub(crate) fn receipt(&mut self, id: &[u8], is_final: bool, connection: u32) -> Option<u64> {
        let hash = IdHash::of(id);
        let open = if self.conditional.contains_key(&hash) { &mut self.conditional } else { &mut self.open };
        match open.get_mut(&hash) {
            Some(awaited) if is_final => {
                let due = awaited.due;
                awaited.receipts -= 1;
                if awaited.receipts == 0 {
                    open.remove(&hash);
                }
                Some(due)
            }
            Some(_) => None,
            None => {
                if is_final && self.strays_room > 0 {
                    self.strays_room -= 1;
                    self.strays.entry(hash).or_default().push(Stray { id: text(id).into(), connection });
                } else if is_final {
                    self.faults.note("receipts were too many to find their messages", &text(id));
                }
                None
            }
        }
    }

    /// So many responses came that answer no request, or one that was answered before.
    pub(crate) fn unmatched(&mut self, responses: u64) {
        self.faults.note_many("responses came again, or to no request", responses, "");
    }

    /// A receipt contradicts itself.
    pub(crate) fn contradiction(&mut self, what: &str) {
        self.faults.note("receipts whose text and TLVs differ", what);
    }

    /// A receipt does not say which message it is about.
    pub(crate) fn nameless(&mut self) {
        self.faults.note("receipts name no message", "");
    }

    /// A connection ended, and took so many responses with it that were still to come.
    pub(crate) const fn cut_off(&mut self, lost_answers: u64) {
        self.was_cut_off = true;
        self.lost_answers += lost_answers;
    }

    /// From here on it proves nothing.
    pub(crate) const fn void(&mut self) {
        self.is_void = true;
    }

    /// Receipts that must still come.
    pub(crate) fn awaited(&self) -> usize {
        if self.is_void { 0 } else { self.open.len() }
    }
}

/// What the ledgers of a run show, all together; they are used up.
pub(crate) fn verdict<'a>(ledgers: impl Iterator<Item = &'a Ledger>) -> Vec<Fault> {
    let mut entries: Vec<Entries> = ledgers
        .map(|ledger| std::mem::take(&mut *ledger.entries()))
        .filter(|entries| !entries.is_void)
        .collect();
    let mut faults = Faults::default();
    for entries in &mut entries {
        entries.ids.sort_unstable();
    }
    let mut ids: Vec<IdHash> = entries.iter().flat_map(|entries| entries.ids.iter().copied()).collect();
    ids.sort_unstable();
    let again = ids.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
    if again > 0 {
        faults.note_many("message_ids were given out again", again, "");
    }
    for mine in &mut entries {
        for fault in std::mem::take(&mut mine.faults.0) {
            // Counted above, where ids of several accounts are seen.
            if fault.kind.starts_with("message_ids") {
                fault.examples.iter().for_each(|id| faults.note_many(&fault.kind, 0, id));
                continue;
            }
            let example = fault.examples.join(", ");
            faults.note_many(&fault.kind, fault.count, &example);
        }
        if !mine.open.is_empty() {
            faults.note_many("receipts were lost", mine.open.len() as u64, "");
        }
        for (hash, strays) in &mine.strays {
            let is_own = mine.ids.binary_search(hash).is_ok();
            let is_known = is_own || ids.binary_search(hash).is_ok();
            let kind = match (is_own, is_known) {
                // At least once is what a server owes a client that did not confirm.
                (true, _) if mine.was_cut_off => continue,
                (true, _) => "receipts came again, or unasked",
                (false, true) => "receipts went to another account",
                // The response may have been lost with a connection.
                (false, false) if mine.lost_answers > 0 => {
                    mine.lost_answers -= 1;
                    continue;
                }
                (false, false) => "receipts are about messages that nobody was told of",
            };
            strays.iter().for_each(|stray| faults.note(kind, &stray.id));
        }
    }
    faults.0
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Awaited = Awaited { due: 7, connection: 0, receipts: 1, is_conditional: false };

    fn kinds(ledgers: &[Ledger]) -> Vec<(String, u64)> {
        verdict(ledgers.iter()).into_iter().map(|fault| (fault.kind, fault.count)).collect()
    }

    #[test]
    fn what_holds_is_no_fault() {
        let ledger = Ledger::default();
        ledger.entries().accepted(b"1", ASKED);
        ledger.entries().accepted(b"2", Awaited { receipts: 0, ..ASKED });
        ledger.entries().accepted(b"3", Awaited { receipts: 2, ..ASKED });
        assert_eq!(ledger.entries().receipt(b"1", false, 0), None, "a notification ends nothing");
        assert_eq!(ledger.entries().receipt(b"1", true, 1), Some(7));
        assert_eq!(ledger.entries().receipt(b"3", true, 1), Some(7));
        assert_eq!(ledger.entries().awaited(), 1);
        assert_eq!(ledger.entries().receipt(b"3", true, 1), Some(7));
        assert_eq!(ledger.entries().awaited(), 0);
        assert_eq!(kinds(&[ledger]), []);
    }

    #[test]
    fn each_broken_promise_is_named() {
        let one = |act: &dyn Fn(&mut Entries, &mut Entries)| {
            let ledgers = [Ledger::default(), Ledger::default()];
            act(&mut ledgers[0].entries(), &mut ledgers[1].entries());
            kinds(&ledgers)
        };
        let single = |kind: &str| vec![(kind.to_owned(), 1)];
        assert_eq!(one(&|mine, _| mine.accepted(b"1", ASKED)), single("receipts were lost"));
        let again = single("message_ids were given out again");
        let unasked = Awaited { receipts: 0, ..ASKED };
        assert_eq!(
            one(&|mine, _| (0..2).for_each(|_| mine.accepted(b"1", unasked))),
            again,
            "in one account"
        );
        assert_eq!(
            one(&|mine, other| [mine, other].into_iter().for_each(|it| it.accepted(b"1", unasked))),
            again,
            "in two"
        );
        let twice = |mine: &mut Entries, _: &mut Entries| {
            mine.accepted(b"1", ASKED);
            (0..2).for_each(|_| _ = mine.receipt(b"1", true, 0));
        };
        assert_eq!(one(&twice), single("receipts came again, or unasked"));
        let twice_at_first = |mine: &mut Entries, _: &mut Entries| {
            // On another connection than the response.
            (0..2).for_each(|_| _ = mine.receipt(b"1", true, 1));
            mine.accepted(b"1", ASKED);
        };
        assert_eq!(one(&twice_at_first), single("receipts came again, or unasked"));
        let unasked_at_first = |mine: &mut Entries, _: &mut Entries| {
            mine.receipt(b"1", true, 1);
            mine.accepted(b"1", unasked);
        };
        assert_eq!(one(&unasked_at_first), single("receipts came again, or unasked"));
        assert_eq!(one(&|mine, _| mine.unmatched(1)), single("responses came again, or to no request"));
        let misrouted = |mine: &mut Entries, other: &mut Entries| {
            mine.accepted(b"1", unasked);
            other.receipt(b"1", true, 0);
        };
        assert_eq!(one(&misrouted), single("receipts went to another account"));
        assert_eq!(
            one(&|mine, _| _ = mine.receipt(b"1", true, 0)),
            single("receipts are about messages that nobody was told of")
        );
        let early = |mine: &mut Entries, _: &mut Entries| {
            mine.receipt(b"1", true, 0);
            mine.accepted(b"1", ASKED);
        };
        assert_eq!(one(&early), single("receipts came before their responses"));
        assert_eq!(
            one(&|mine, _| mine.contradiction("1: DELIVRD, 5")),
            single("receipts whose text and TLVs differ")
        );
    }

    #[test]
    fn a_receipt_that_depends_on_the_outcome_may_come_once() {
        let conditional = Awaited { is_conditional: true, ..ASKED };
        let ledger = Ledger::default();
        ledger.entries().accepted(b"1", conditional);
        ledger.entries().accepted(b"2", conditional);
        assert_eq!(ledger.entries().awaited(), 0);
        assert_eq!(ledger.entries().receipt(b"1", true, 0), Some(7));
        assert_eq!(ledger.entries().receipt(b"1", true, 0), None);
        assert_eq!(kinds(&[ledger]), [("receipts came again, or unasked".to_owned(), 1)]);
    }

    #[test]
    fn what_a_client_cannot_know_is_no_fault() {
        let ledger = Ledger::default();
        let mut entries = ledger.entries();
        // On another connection a receipt may be seen first.
        entries.receipt(b"1", true, 1);
        entries.accepted(b"1", ASKED);
        // With a connection answers are lost, and what was not confirmed comes again.
        entries.cut_off(1);
        entries.receipt(b"2", true, 0);
        entries.accepted(b"3", ASKED);
        (0..2).for_each(|_| _ = entries.receipt(b"3", true, 0));
        drop(entries);
        assert_eq!(kinds(&[ledger]), []);
    }

    #[test]
    fn lost_responses_excuse_as_many_unknown_ids() {
        let ledgers = [Ledger::default(), Ledger::default()];
        ledgers[0].entries().cut_off(2);
        for id in [b"1", b"2", b"2", b"3"] {
            ledgers[0].entries().receipt(id, true, 0);
        }
        let told_of_none = |count| ("receipts are about messages that nobody was told of".to_owned(), count);
        let found = kinds(&ledgers);
        assert!(found == [told_of_none(1)] || found == [told_of_none(2)], "one of the three ids: {found:?}");
        // What another account has lost excuses nothing.
        ledgers[0].entries().cut_off(2);
        ledgers[1].entries().receipt(b"1", true, 0);
        assert_eq!(kinds(&ledgers), [told_of_none(1)]);
    }

    #[test]
    fn strays_have_a_limit() {
        let ledger = Ledger::default();
        ledger.entries().strays_room = 2;
        for id in [b"1", b"2", b"3"] {
            ledger.entries().receipt(id, true, 1);
        }
        // Whoever finds its message makes room.
        ledger.entries().accepted(b"1", ASKED);
        ledger.entries().receipt(b"4", true, 1);
        assert_eq!(
            kinds(&[ledger]),
            [
                ("receipts were too many to find their messages".to_owned(), 1),
                ("receipts are about messages that nobody was told of".to_owned(), 2),
            ]
        );
    }

    #[test]
    fn a_client_that_breaks_the_rules_is_no_witness() {
        let ledger = Ledger::default();
        ledger.entries().accepted(b"1", ASKED);
        ledger.entries().void();
        assert_eq!(ledger.entries().awaited(), 0);
        assert_eq!(kinds(&[ledger]), []);
    }
}
