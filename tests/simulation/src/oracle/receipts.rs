//! What receipts say, field by field.

use smppd::account::DefaultAlphabet;
use smppd::message::ParcelKey;
use smppd::pdu::receipt::MessageState;
use smppd::pdu::{ShortMessage, Tag, Tlvs};
use smppd::time::smpp;

use super::{Connection, Fact, Oracle, Parcel};

/// Characters of the message that a receipt repeats.
const EXCERPT: usize = 20;

/// What `stat:` says.
const fn stat(state: MessageState) -> &'static str {
    match state {
        MessageState::ENROUTE => "ENROUTE",
        MessageState::DELIVERED => "DELIVRD",
        MessageState::EXPIRED => "EXPIRED",
        MessageState::DELETED => "DELETED",
        MessageState::UNDELIVERABLE => "UNDELIV",
        MessageState::ACCEPTED => "ACCEPTD",
        MessageState::REJECTED => "REJECTD",
        _ => "UNKNOWN",
    }
}

/// The start of a text, of which one octet is one character. `?` stands for what is not printable ASCII.
fn excerpt(text: &[u8], data_coding: u8, alphabet: DefaultAlphabet) -> Vec<u8> {
    let is_gsm = data_coding == 0 && alphabet == DefaultAlphabet::Gsm;
    let character = |octet: &u8| match *octet {
        // What GSM 03.38 has in other places than ASCII, as far as customers of this world write it.
        b'@' | b'$' | b'_' if is_gsm => b'?',
        0 if is_gsm => b'@',
        octet @ b' '..=b'~' => octet,
        _ => b'?',
    };
    text.iter().take(EXCERPT).map(character).collect()
}

impl Oracle {
    /// The text of a receipt up to the excerpt.
    fn line_of(&self, (life, part): Parcel, fact: &Fact) -> Option<Vec<u8>> {
        let owed = self.owed.get(&(life, part))?;
        let state = owed.state?;
        let error = if part == ParcelKey::FINAL_RECEIPT { fact.end.map_or(0, |end| end.error) } else { 0 };
        let date = |at| String::from_utf8_lossy(&smpp::receipt_date(at)).into_owned();
        let line = format!(
            "id:{} sub:001 dlvrd:{} submit date:{} done date:{} stat:{} err:{:03} text:",
            fact.public_id(life.id),
            if state == MessageState::DELIVERED { "001" } else { "000" },
            date(fact.accepted_at),
            date(owed.at),
            stat(state),
            error.min(999),
        );
        Some(line.into_bytes())
    }

    /// Whether a notification may be this one of its message.
    pub(super) fn is_receipt(&self, (life, part): Parcel, deliver: &ShortMessage<'_>) -> bool {
        let Some(fact) = self.facts.get(&life) else { return false };
        // What was told before its sender changed it tells of the old one.
        let told = self.owed.get(&(life, part)).map(|owed| owed.recorded);
        let Some(line) = self.line_of((life, part), fact) else { return false };
        told.is_some_and(|told| told < fact.changed) || deliver.short_message.starts_with(&line)
    }

    /// Compares a receipt with what the response, the record and the account say.
    pub(super) fn check_receipt(
        &mut self,
        connection: Connection,
        about: Parcel,
        fact: &Fact,
        deliver: &ShortMessage<'_>,
    ) {
        let (life, part) = about;
        let Some(owed) = self.owed.get(&about).cloned() else {
            return self.violate(format!("a receipt of {life:?} that is not on record"));
        };
        let Some(line) = self.line_of(about, fact) else { return };
        let is_of_the_old = owed.recorded < fact.changed;
        let says = String::from_utf8_lossy(deliver.short_message).into_owned();
        self.require(is_of_the_old || deliver.short_message.starts_with(&line), || {
            format!("the receipt of {life:?} says {says}, it should say {}", String::from_utf8_lossy(&line))
        });
        // It is written when its message ends, and again by each process that reads of that end. How long the record of it was
        // on its way to the disk nobody knows: without room for the journal it waits.
        let since = fact.begun;
        let book = &self.books[owed.account];
        let alphabets = [DefaultAlphabet::Ascii, DefaultAlphabet::Gsm, DefaultAlphabet::Latin1];
        let may_be = |alphabet: &DefaultAlphabet| {
            book.may(since, |settings| settings.default_alphabet == *alphabet) || book.may_be_removed(since)
        };
        let is_excerpt = |alphabet| {
            let expected = excerpt(&fact.text, fact.data_coding.0, alphabet);
            deliver.short_message.ends_with(&expected)
                && deliver.short_message.len() == line.len() + expected.len()
        };
        let is_right = alphabets.into_iter().filter(may_be).any(is_excerpt);
        self.require(is_of_the_old || is_right, || {
            format!(
                "the receipt of {life:?} says {says}, the text is {:?}",
                String::from_utf8_lossy(&fact.text)
            )
        });
        let class = match owed.state {
            Some(state) if state.is_final() || state == MessageState::ACCEPTED => 0x04,
            Some(_) | None => 0x20,
        };
        self.require(deliver.esm_class.0 == class, || {
            format!("the receipt of {life:?} is of esm_class {:02x}", deliver.esm_class.0)
        });
        let is_swapped = deliver.source.digits == &*fact.destination
            && deliver.destination.digits == &*fact.source
            && deliver.service_type == &*fact.service_type;
        self.require(is_swapped, || format!("the receipt of {life:?} has other addresses: {deliver:?}"));
        let error = if part == ParcelKey::FINAL_RECEIPT { fact.end.map_or(0, |end| end.error) } else { 0 };
        let has_tlvs = self.lines.get(&connection).is_some_and(|line| line.version.has_tlvs());
        self.check_tlvs(about, fact, error, has_tlvs, deliver.tlvs);
    }

    fn check_tlvs(&mut self, (life, part): Parcel, fact: &Fact, error: u16, has_tlvs: bool, tlvs: Tlvs<'_>) {
        if !has_tlvs {
            let is_empty = tlvs.as_octets().is_empty();
            return self.require(is_empty, || format!("the receipt of {life:?} has TLVs for a v3.3 peer"));
        }
        let state = self.owed.get(&(life, part)).and_then(|owed| owed.state).map(|state| state.0);
        let id = fact.public_id(life.id).to_string();
        let [high, low] = error.to_be_bytes();
        let network = [3, high, low];
        let network = (error != 0).then_some(&network[..]);
        let is_right = tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID) == Some(id.as_bytes())
            && tlvs.u8(Tag::MESSAGE_STATE) == state
            && tlvs.get(Tag::NETWORK_ERROR_CODE) == network
            && tlvs.get(Tag::USER_MESSAGE_REFERENCE) == fact.reference.as_deref();
        self.require(is_right, || format!("the TLVs of the receipt of {life:?} are {tlvs:?}, {fact:?}"));
    }
}
