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
