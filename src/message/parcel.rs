//! What goes to an account: a receipt or a reply, as the deliver_sm it will be.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{Content, ContentError, MessageId};
use crate::pdu::receipt::{self, MessageState, Receipt};
use crate::pdu::{
    Address, Alphabet, CommandId, DataCoding, EsmClass, FieldTooLong, MessagingMode, Npi, ReceiptRequest,
    RegisteredDelivery, ShortMessage, Tag, TlvBuf, Tlvs, Ton, Udh,
};
use crate::time::Timestamp;

/// The name of a parcel: the message it is about, and which parcel of that message. They are delivered in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ParcelKey {
    /// The message that a receipt is about; a reply has an id of its own.
    pub id: MessageId,
    /// [`FINAL_RECEIPT`](Self::FINAL_RECEIPT), [`REPLY`](Self::REPLY), or an intermediate notification.
    pub part: u8,
}

impl ParcelKey {
    /// A reply from a subscriber.
    pub const REPLY: u8 = 0;
    /// The first intermediate notification; the others count on from here.
    pub const NOTIFICATION_FIRST: u8 = 1;
    /// Intermediate notifications that one message can have; later ones are not sent.
    pub const NOTIFICATIONS_MAX: u8 = 3;
    /// The receipt for the final state.
    pub const FINAL_RECEIPT: u8 = Self::NOTIFICATION_FIRST + Self::NOTIFICATIONS_MAX;

    /// Every parcel that can be about a message.
    pub fn about(id: MessageId) -> impl Iterator<Item = Self> {
        (Self::NOTIFICATION_FIRST..=Self::FINAL_RECEIPT).map(move |part| Self { id, part })
    }
}

/// A deliver_sm on its way to an account, in the form of its record; cheap to share between cores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel {
    octets: Arc<[u8]>,
}

/// The parts of a parcel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParcelView<'a> {
    /// Its name.
    pub key: ParcelKey,
    /// When it came to be.
    pub created_at: Timestamp,
    /// The account it is for.
    pub system_id: &'a [u8],
    /// The mandatory fields of the deliver_sm, as on the wire.
    pub mandatory: &'a [u8],
    /// Its TLVs, as on the wire; left out for a peer below v3.4.
    pub tlvs: &'a [u8],
}

const FIXED_OCTETS: usize = 8 + 1 + 8 + 1;
/// What the mandatory fields of a deliver_sm take beside their texts, when its times are empty.
const MANDATORY_OCTETS: usize = 1 + 2 * 3 + 3 + 2 + 5;

impl Parcel {
    /// Makes the record of a parcel.
    ///
    /// # Errors
    /// A field is too long for the wire.
    pub fn new(
        key: ParcelKey,
        created_at: Timestamp,
        system_id: &[u8],
        deliver_sm: &ShortMessage<'_>,
    ) -> Result<Self, FieldTooLong> {
        let ShortMessage { source, destination, service_type, short_message, tlvs, .. } = deliver_sm;
        let texts = source.digits.len() + destination.digits.len() + service_type.len() + short_message.len();
        let capacity = FIXED_OCTETS + system_id.len() + 2 + MANDATORY_OCTETS + texts + tlvs.as_octets().len();
        let mut octets = Vec::with_capacity(capacity);
        octets.extend_from_slice(&key.id.as_u64().to_le_bytes());
        octets.push(key.part);
        octets.extend_from_slice(&created_at.as_millis().to_le_bytes());
        assert!(system_id.len() <= 255, "a system_id is short");
        octets.push(system_id.len() as u8);
        octets.extend_from_slice(system_id);
        let length_at = octets.len();
        octets.extend_from_slice(&[0; 2]);
        ShortMessage { tlvs: Tlvs::EMPTY, ..*deliver_sm }.put(&mut octets)?;
        let length = octets.len() - length_at - 2;
        assert!(length <= 65_535, "a deliver_sm is short");
        octets[length_at..length_at + 2].copy_from_slice(&(length as u16).to_le_bytes());
        octets.extend_from_slice(tlvs.as_octets());
        Ok(Self { octets: octets.into() })
    }

    /// Takes the octets of a record.
    ///
    /// # Errors
    /// They are not a parcel.
    pub fn read(octets: &[u8]) -> Result<Self, ContentError> {
        split(octets)?;
        Ok(Self { octets: octets.into() })
    }

    /// The name in a record, without reading the rest of it.
    pub fn key_of(octets: &[u8]) -> Option<ParcelKey> {
        let (id, rest) = octets.split_first_chunk()?;
        Some(ParcelKey { id: MessageId::from_u64(u64::from_le_bytes(*id)), part: *rest.first()? })
    }

    /// The account in a record.
    pub fn system_id_of(octets: &[u8]) -> Option<&[u8]> {
        split(octets).ok().map(|view| view.system_id)
    }

    /// The octets for a record.
    pub fn as_octets(&self) -> &[u8] {
        &self.octets
    }

    /// The parts.
    pub fn view(&self) -> ParcelView<'_> {
        split(&self.octets).unwrap_or_else(|_| unreachable!("checked when the parcel was made"))
    }

    /// When it is given up.
    pub fn expires_at(&self, retention: Duration) -> Timestamp {
        self.view().created_at + retention
    }
}

fn split(octets: &[u8]) -> Result<ParcelView<'_>, ContentError> {
    let (fixed, rest) = octets.split_first_chunk::<FIXED_OCTETS>().ok_or(ContentError)?;
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|octet| fixed[at + octet]));
    let (system_id, rest) = rest.split_at_checked(fixed[17].into()).ok_or(ContentError)?;
    let (length, rest) = rest.split_first_chunk().ok_or(ContentError)?;
    let (mandatory, tlvs) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or(ContentError)?;
    Ok(ParcelView {
        key: ParcelKey { id: MessageId::from_u64(u64_at(0)), part: fixed[8] },
        created_at: Timestamp::from_millis(u64_at(9)),
        system_id,
        mandatory,
        tlvs,
    })
}

/// Whether the sender asked to be told about this final state.
pub fn wants_receipt(content: &Content<'_>, state: MessageState) -> bool {
    // Datagram mode never has receipts.
    if content.esm_class.mode() == MessagingMode::Datagram {
        return false;
    }
    match content.registered_delivery.receipt() {
        ReceiptRequest::None => false,
        ReceiptRequest::Always => true,
        ReceiptRequest::OnFailure => state != MessageState::DELIVERED,
        ReceiptRequest::OnSuccess => state == MessageState::DELIVERED,
    }
}

/// What the sender is told when a carrier says `state` short of the end, after so many `notifications`: ENROUTE if it asked
/// for them, ACCEPTED if its account has receipts of that (§4.7.21).
pub fn notification_of(
    content: &Content<'_>,
    state: MessageState,
    notifications: u8,
    has_accepted_receipts: bool,
) -> Option<MessageState> {
    let is_accepted = state == MessageState::ACCEPTED
        && has_accepted_receipts
        && wants_receipt(content, MessageState::DELIVERED);
    let told = if is_accepted { MessageState::ACCEPTED } else { MessageState::ENROUTE };
    let wanted = content.registered_delivery.intermediate() || is_accepted;
    (wanted && notifications < ParcelKey::NOTIFICATIONS_MAX).then_some(told)
}

/// The receipt, or intermediate notification, that says `state` about a message.
///
/// # Errors
/// An address is too long for the wire, which that of an accepted message is not.
pub fn receipt_for(
    content: &Content<'_>,
    part: u8,
    state: MessageState,
    error: u16,
    at: Timestamp,
    default_alphabet: Alphabet,
) -> Result<Parcel, FieldTooLong> {
    let id = content.public_id().text();
    let body = match Udh::split(content.user_data) {
        Ok((_, text)) if content.esm_class.has_udhi() => text,
        Ok(_) | Err(_) => content.user_data,
    };
    let alphabet = content.data_coding.alphabet(default_alphabet).unwrap_or(Alphabet::Binary);
    let body = if alphabet == Alphabet::Binary { b"" } else { body };
    let mut text = [0; receipt::EXCERPT_MAX];
    let head = &body[..body.len().min(receipt::EXCERPT_MAX)];
    let text = if alphabet.is_plain_ascii(head) {
        head
    } else {
        receipt::excerpt(alphabet.characters(body), &mut text)
    };
    let mut line = Vec::with_capacity(160);
    Receipt {
        message_id: id.as_octets(),
        submitted: 1,
        delivered: u16::from(state == MessageState::DELIVERED),
        submit_date: content.accepted_at,
        done_date: at,
        state,
        error,
        text,
    }
    .put(&mut line);

    let mut tlvs = TlvBuf::with_capacity(64);
    tlvs.put_c_octets(Tag::RECEIPTED_MESSAGE_ID, id.as_octets())?;
    tlvs.put(Tag::MESSAGE_STATE, &[state.0])?;
    if error != 0 {
        let [high, low] = error.to_be_bytes();
        tlvs.put(Tag::NETWORK_ERROR_CODE, &[NETWORK_GSM, high, low])?;
    }
    let submitted = Tlvs::read(content.tlvs, CommandId::SUBMIT_SM).unwrap_or(Tlvs::EMPTY);
    if let Some(reference) = submitted.get(Tag::USER_MESSAGE_REFERENCE) {
        tlvs.put(Tag::USER_MESSAGE_REFERENCE, reference)?;
    }

    let esm_class = if part == ParcelKey::FINAL_RECEIPT || state == MessageState::ACCEPTED {
        EsmClass::RECEIPT
    } else {
        EsmClass::INTERMEDIATE_NOTIFICATION
    };
    let deliver_sm = ShortMessage {
        service_type: content.service_type,
        source: content.destination,
        destination: content.source,
        esm_class,
        short_message: &line,
        tlvs: tlvs.as_tlvs(),
        ..BLANK
    };
    Parcel::new(ParcelKey { id: content.id, part }, at, content.system_id, &deliver_sm)
}

/// The network type of network_error_code: GSM.
const NETWORK_GSM: u8 = 3;

/// A reply from a subscriber, for the account that owns the number it was sent to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// The subscriber.
    pub source: Address<'a>,
    /// The account's number.
    pub destination: Address<'a>,
    /// The alphabet of `user_data`.
    pub data_coding: DataCoding,
    /// At most 254 octets, the most that every version takes in one deliver_sm.
    pub user_data: &'a [u8],
    /// Whether `user_data` begins with a user data header.
    pub has_udh: bool,
}

/// The deliver_sm that brings a reply.
///
/// # Errors
/// An address or the text is too long for the wire: the carrier sent what no deliver_sm can hold.
pub fn reply_for(
    id: MessageId,
    system_id: &[u8],
    reply: &Reply<'_>,
    at: Timestamp,
) -> Result<Parcel, FieldTooLong> {
    let deliver_sm = ShortMessage {
        source: reply.source,
        destination: reply.destination,
        esm_class: if reply.has_udh { EsmClass::UDHI } else { EsmClass::DEFAULT },
        data_coding: reply.data_coding,
        short_message: reply.user_data,
        ..BLANK
    };
    Parcel::new(ParcelKey { id, part: ParcelKey::REPLY }, at, system_id, &deliver_sm)
}

const NOBODY: Address<'static> = Address { ton: Ton::UNKNOWN, npi: Npi::UNKNOWN, digits: b"" };

/// A deliver_sm that says nothing yet.
const BLANK: ShortMessage<'static> = ShortMessage {
    service_type: b"",
    source: NOBODY,
    destination: NOBODY,
    esm_class: EsmClass::DEFAULT,
    protocol_id: 0,
    priority_flag: 0,
    schedule_delivery_time: b"",
    validity_period: b"",
    registered_delivery: RegisteredDelivery::NONE,
    replace_if_present_flag: 0,
    data_coding: DataCoding::DEFAULT,
    sm_default_msg_id: 0,
    short_message: b"",
    tlvs: Tlvs::EMPTY,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::{Framing, Pdu, next_frame};

    /// 14:13 on 21 September 2026, and 15:18 on the day after.
    const ACCEPTED_AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);
    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000 + 90_300_000);
    const ID: MessageId = MessageId::from_u64(123_456_789_012_345_678);
    const FROM: Address<'static> =
        Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits: b"12125550100" };
    const TO: Address<'static> = Address { ton: Ton(2), npi: Npi(8), digits: b"447700900123" };
    /// What the carrier's number for itself says in network_error_code.
    const GSM: u8 = 3;

    const CONTENT: Content<'static> = Content {
        id: ID,
        batch_offset: 0,
        batch_count: 1,
        accepted_at: ACCEPTED_AT,
        deliver_at: Timestamp::ZERO,
        expires_at: AT,
        segments: 1,
        registered_delivery: RegisteredDelivery(1),
        esm_class: EsmClass::DEFAULT,
        protocol_id: 7,
        priority_flag: 3,
        data_coding: DataCoding::DEFAULT,
        system_id: b"demo",
        service_type: b"CMT",
        source: FROM,
        destination: TO,
        user_data: b"Hello, this is the text of a message",
        tlvs: b"",
    };

    /// Looks at the deliver_sm that says `state` about a message.
    fn told(
        content: &Content<'_>,
        part: u8,
        (state, error): (MessageState, u16),
        look: impl FnOnce(&ShortMessage<'_>),
    ) {
        let parcel = receipt_for(content, part, state, error, AT, Alphabet::Ascii).expect("it fits");
        let view = parcel.view();
        assert_eq!(view.key, ParcelKey { id: content.id, part });
        assert_eq!((view.created_at, view.system_id), (AT, content.system_id));
        let length = (16 + view.mandatory.len() + view.tlvs.len()) as u32;
        let header = [length, CommandId::DELIVER_SM.0, 0, 1].map(u32::to_be_bytes);
        let octets = [header.as_flattened(), view.mandatory, view.tlvs].concat();
        let Framing::Frame(frame) = next_frame(&octets, octets.len()) else { panic!("a frame") };
        let Ok(Pdu::DeliverSm(deliver_sm)) = frame.decode() else { panic!("a deliver_sm") };
        look(&deliver_sm);
    }

    fn final_line(state: MessageState, error: u16) -> String {
        let mut line = String::new();
        told(&CONTENT, ParcelKey::FINAL_RECEIPT, (state, error), |deliver_sm| {
            line = String::from_utf8(deliver_sm.short_message.to_vec()).expect("ASCII");
        });
        line
    }

    #[test]
    fn a_receipt_says_what_became_of_a_message_in_every_field_of_its_line() {
        use MessageState as State;
        for (state, delivered, stat, error, err) in [
            (State::DELIVERED, "001", "DELIVRD", 0, "000"),
            (State::EXPIRED, "000", "EXPIRED", 11, "011"),
            (State::DELETED, "000", "DELETED", 0, "000"),
            (State::UNDELIVERABLE, "000", "UNDELIV", 34, "034"),
            (State::UNKNOWN, "000", "UNKNOWN", 999, "999"),
            (State::REJECTED, "000", "REJECTD", 1_000, "999"),
            (State::SKIPPED, "000", "SKIPPED", 65_535, "999"),
        ] {
            let expected = format!(
                "id:123456789012345678 sub:001 dlvrd:{delivered} submit date:2609211413 done date:2609221518 \
                 stat:{stat} err:{err} text:Hello, this is the t"
            );
            assert_eq!(final_line(state, error), expected, "{state}");
        }
    }

    #[test]
    fn a_receipt_says_the_same_in_its_tlvs() {
        use MessageState as State;
        for (state, error, code) in [
            (State::DELIVERED, 0, None),
            (State::UNDELIVERABLE, 34, Some([GSM, 0, 34])),
            (State::EXPIRED, 0x0102, Some([GSM, 1, 2])),
            (State::REJECTED, 65_534, Some([GSM, 0xFF, 0xFE])),
        ] {
            told(&CONTENT, ParcelKey::FINAL_RECEIPT, (state, error), |deliver_sm| {
                let tlvs = deliver_sm.tlvs;
                assert_eq!(tlvs.get(Tag::RECEIPTED_MESSAGE_ID), Some(&b"123456789012345678\0"[..]));
                assert_eq!(tlvs.get(Tag::MESSAGE_STATE), Some(&[state.0][..]));
                assert_eq!(tlvs.get(Tag::NETWORK_ERROR_CODE), code.as_ref().map(|code| &code[..]));
                assert_eq!(tlvs.get(Tag::USER_MESSAGE_REFERENCE), None);
            });
        }
    }

    #[test]
    fn what_a_sender_called_its_message_comes_back_and_no_other_of_its_tlvs() {
        let mut tlvs = TlvBuf::default();
        tlvs.put(Tag::SOURCE_PORT, &[0, 80]).expect("it fits");
        tlvs.put(Tag::USER_MESSAGE_REFERENCE, &[0xAB, 0xCD]).expect("it fits");
        let content = Content { tlvs: tlvs.as_tlvs().as_octets(), ..CONTENT };
        for (part, state) in [
            (ParcelKey::FINAL_RECEIPT, MessageState::DELIVERED),
            (ParcelKey::FINAL_RECEIPT, MessageState::EXPIRED),
            (ParcelKey::NOTIFICATION_FIRST, MessageState::ENROUTE),
        ] {
            told(&content, part, (state, 0), |deliver_sm| {
                assert_eq!(deliver_sm.tlvs.get(Tag::USER_MESSAGE_REFERENCE), Some(&[0xAB, 0xCD][..]));
                assert_eq!(deliver_sm.tlvs.iter().count(), 3, "and what a receipt has");
            });
        }
    }

    #[test]
    fn a_receipt_goes_back_the_way_its_message_came_and_is_marked_as_one() {
        use MessageState as State;
        let is_receipt = EsmClass::RECEIPT;
        for (part, state, esm_class) in [
            (ParcelKey::FINAL_RECEIPT, State::DELIVERED, is_receipt),
            (ParcelKey::FINAL_RECEIPT, State::EXPIRED, is_receipt),
            (ParcelKey::NOTIFICATION_FIRST, State::ENROUTE, EsmClass::INTERMEDIATE_NOTIFICATION),
            (ParcelKey::NOTIFICATION_FIRST + 2, State::ENROUTE, EsmClass::INTERMEDIATE_NOTIFICATION),
            (ParcelKey::NOTIFICATION_FIRST, State::ACCEPTED, is_receipt),
        ] {
            told(&CONTENT, part, (state, 0), |deliver_sm| {
                assert_eq!((deliver_sm.source, deliver_sm.destination), (TO, FROM));
                assert_eq!((deliver_sm.esm_class, deliver_sm.service_type), (esm_class, &b"CMT"[..]));
                assert_eq!(deliver_sm.data_coding, DataCoding::DEFAULT);
                assert_eq!(deliver_sm.registered_delivery, RegisteredDelivery::NONE);
                assert_eq!((deliver_sm.protocol_id, deliver_sm.priority_flag), (0, 0));
                assert_eq!(
                    (deliver_sm.schedule_delivery_time, deliver_sm.validity_period),
                    (&[][..], &[][..])
                );
            });
        }
    }

    #[test]
    fn a_receipt_of_a_submit_multi_has_the_name_that_its_sender_knows() {
        let content = Content { id: ID.in_batch(2), batch_offset: 2, batch_count: 3, ..CONTENT };
        let name = content.public_id().to_string();
        told(&content, ParcelKey::FINAL_RECEIPT, (MessageState::DELIVERED, 0), |deliver_sm| {
            let line = String::from_utf8_lossy(deliver_sm.short_message).into_owned();
            assert!(line.starts_with(&format!("id:{name} ")), "{line}");
            let receipted = deliver_sm.tlvs.c_octets(Tag::RECEIPTED_MESSAGE_ID);
            assert_eq!(receipted, Some(name.as_bytes()));
        });
    }

    #[test]
    fn the_text_of_a_receipt_is_the_begin_of_the_message_in_ascii() {
        let text = |esm_class, data_coding, user_data, alphabet| {
            let content = Content { esm_class, data_coding, user_data, ..CONTENT };
            let (part, state) = (ParcelKey::FINAL_RECEIPT, MessageState::DELIVERED);
            let parcel = receipt_for(&content, part, state, 0, AT, alphabet).expect("it fits");
            let octets = String::from_utf8_lossy(parcel.view().mandatory).into_owned();
            octets.split("text:").nth(1).expect("a text").to_owned()
        };
        let (plain, udhi) = (EsmClass::DEFAULT, EsmClass::UDHI);
        let ascii = Alphabet::Ascii;
        for (octets, expected) in [
            (&b""[..], ""),
            (b"nineteen characters", "nineteen characters"),
            (b"twenty characters ..", "twenty characters .."),
            (b"twenty-one characters", "twenty-one character"),
            (b"a\nline", "a?line"),
        ] {
            assert_eq!(text(plain, DataCoding(0), octets, ascii), expected);
        }
        // No header is a part of the text, and what is no text is not told.
        assert_eq!(text(udhi, DataCoding(0), b"\x05\x00\x03\x01\x02\x01part", ascii), "part");
        assert_eq!(text(plain, DataCoding(4), b"octets", ascii), "");
        assert_eq!(text(plain, DataCoding(8), b"\0u\0c\0s\x20\xAC", ascii), "ucs?");
        assert_eq!(text(plain, DataCoding(0), b"\x00 at", Alphabet::Gsm7), "@ at");
        assert_eq!(text(plain, DataCoding(3), b"caf\xE9", ascii), "caf?");
    }

    #[test]
    fn a_receipt_comes_for_the_ends_that_were_asked_for() {
        use MessageState as State;
        let ends = [
            State::DELIVERED,
            State::EXPIRED,
            State::DELETED,
            State::UNDELIVERABLE,
            State::UNKNOWN,
            State::REJECTED,
            State::SKIPPED,
        ];
        for (registered, on_success, on_failure) in [
            (0x00, false, false),
            (0x01, true, true),
            (0x02, false, true),
            (0x03, true, false),
            (0x10, false, false),
        ] {
            let content = Content { registered_delivery: RegisteredDelivery(registered), ..CONTENT };
            for state in ends {
                let expected = if state == State::DELIVERED { on_success } else { on_failure };
                assert_eq!(wants_receipt(&content, state), expected, "{registered:#x} {state}");
                let datagram = Content { esm_class: EsmClass::DATAGRAM, ..content };
                assert!(!wants_receipt(&datagram, state), "{registered:#x} {state}");
            }
        }
    }

    #[test]
    fn what_is_told_on_the_way_is_what_was_asked_for() {
        use MessageState as State;
        let (enroute, accepted) = (Some(State::ENROUTE), Some(State::ACCEPTED));
        for (registered, has_accepted_receipts, of_enroute, of_accepted) in [
            (0x00, false, None, None),
            (0x00, true, None, None),
            (0x01, false, None, None),
            (0x01, true, None, accepted),
            // For failures alone: to be accepted is none.
            (0x02, true, None, None),
            (0x03, true, None, accepted),
            (0x10, false, enroute, enroute),
            (0x10, true, enroute, enroute),
            (0x11, false, enroute, enroute),
            (0x11, true, enroute, accepted),
        ] {
            let content = Content { registered_delivery: RegisteredDelivery(registered), ..CONTENT };
            let told = |state, count| notification_of(&content, state, count, has_accepted_receipts);
            let what = format!("{registered:#x} {has_accepted_receipts}");
            assert_eq!(
                (told(State::ENROUTE, 0), told(State::ACCEPTED, 0)),
                (of_enroute, of_accepted),
                "{what}"
            );
            let last = ParcelKey::NOTIFICATIONS_MAX - 1;
            assert_eq!((told(State::ENROUTE, last), told(State::ACCEPTED, last)), (of_enroute, of_accepted));
            assert_eq!((told(State::ENROUTE, last + 1), told(State::ACCEPTED, last + 1)), (None, None));
        }
    }

    #[test]
    fn a_parcel_is_kept_as_long_as_it_is_kept() {
        let parcel =
            receipt_for(&CONTENT, ParcelKey::FINAL_RECEIPT, MessageState::DELIVERED, 0, AT, Alphabet::Ascii);
        let parcel = parcel.expect("it fits");
        let hour = Duration::from_secs(3_600);
        assert_eq!(parcel.expires_at(hour), AT + hour, "from when it came to be");
        let read = Parcel::read(parcel.as_octets()).expect("a parcel");
        assert_eq!(read, parcel);
        assert_eq!(Parcel::key_of(parcel.as_octets()), Some(parcel.view().key));
        assert_eq!(Parcel::system_id_of(parcel.as_octets()), Some(&b"demo"[..]));
        for octets in [0, 8, FIXED_OCTETS - 1, FIXED_OCTETS, FIXED_OCTETS + 4] {
            assert!(Parcel::read(&parcel.as_octets()[..octets]).is_err(), "{octets} octets");
        }
    }
}
