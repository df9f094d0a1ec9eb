//! What a submission must be: section 17's field values, then the account's policy.

use std::borrow::Cow;
use std::time::Duration;

use crate::account::Account;
use crate::message::Content;
use crate::pdu::{
    Address, Alphabet, CommandStatus, DataCoding, DataSm, EsmClass, MessagingMode, Npi, Reference,
    ShortMessage, Tag, Tlvs, Ton, Udh, put_tlv, segment,
};
use crate::shard::mesh::Replacement;
use crate::time::Timestamp;
use crate::time::smpp::SmppTime;

/// How long messages are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// When validity_period is empty.
    pub default: Duration,
    /// Longer ones are cut to this.
    pub longest: Duration,
}

/// Why a submission is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubmitError {
    /// A field that the specification forbids, or that we do not serve.
    Field(CommandStatus),
    /// Over the account's rate.
    Throttled,
    /// No credits left; the account has its own answer.
    NoCredit(CommandStatus),
    /// A limit of ours: memory, journal, disk.
    Full,
    /// The partition has stopped after a disk error.
    Failed,
    /// No carrier for the destination.
    NoRoute,
}

impl From<SubmitError> for CommandStatus {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Field(status) | SubmitError::NoCredit(status) => status,
            SubmitError::Throttled => Self::ESME_RTHROTTLED,
            SubmitError::Full => Self::ESME_RMSGQFUL,
            SubmitError::Failed => Self::ESME_RSYSERR,
            SubmitError::NoRoute => Self::ESME_RINVDSTADR,
        }
    }
}

/// A data_sm as the submit_sm that says the same (§4.2.2 has fewer fields).
///
/// # Errors
/// ESME_RMISSINGTLV: its message_payload is not there.
pub(super) fn from_data_sm<'a>(data: &DataSm<'a>) -> Result<ShortMessage<'a>, SubmitError> {
    require(data.tlvs.get(Tag::MESSAGE_PAYLOAD).is_some(), CommandStatus::ESME_RMISSINGTLV)?;
    Ok(ShortMessage {
        service_type: data.service_type,
        source: data.source,
        destination: data.destination,
        esm_class: data.esm_class,
        protocol_id: 0,
        priority_flag: 0,
        schedule_delivery_time: b"",
        validity_period: b"",
        registered_delivery: data.registered_delivery,
        replace_if_present_flag: 0,
        data_coding: data.data_coding,
        sm_default_msg_id: 0,
        short_message: b"",
        tlvs: data.tlvs,
    })
}

/// A submission that passed every check of its fields, but has no destination yet.
#[derive(Clone, Debug)]
pub(super) struct Checked<'a> {
    /// The source, with the account's default put in and without a `+`.
    pub source: Address<'a>,
    /// When to deliver; [`Timestamp::ZERO`] = at once.
    pub deliver_at: Timestamp,
    /// Until when to try.
    pub expires_at: Timestamp,
    /// Segments it will be on air.
    pub segments: u16,
    /// short_message or message_payload.
    pub user_data: &'a [u8],
    /// The TLVs that stay with the message.
    pub tlvs: Cow<'a, [u8]>,
}

/// Checks everything that does not depend on the destination. Nothing is changed by a check.
///
/// # Errors
/// The first thing that is wrong, in the order of the submitted.
pub(super) fn check<'a, D>(
    submitted: &ShortMessage<'a, D>,
    account: &'a Account,
    validity: Validity,
    now: Timestamp,
) -> Result<Checked<'a>, SubmitError> {
    use CommandStatus as Status;
    const SERVICE_TYPES: [&[u8]; 9] = [b"", b"CMT", b"CPT", b"VMN", b"VMA", b"WAP", b"USSD", b"CBS", b"GUTS"];

    require(SERVICE_TYPES.contains(&submitted.service_type), Status::ESME_RINVSERTYP)?;
    let source = source(submitted.source, account)?;
    require(is_submittable(submitted.esm_class), Status::ESME_RINVESMCLASS)?;
    require(submitted.priority_flag <= 3, Status::ESME_RINVPRTFLG)?;
    let deliver_at = parse_time(submitted.schedule_delivery_time, now, Status::ESME_RINVSCHED)?;
    let deliver_at = deliver_at.filter(|at| *at > now);
    let expires_at = expires_at(submitted, deliver_at.unwrap_or(now), validity, now)?;
    match submitted.replace_if_present_flag {
        0 => {}
        1 => require(account.settings.replace_if_present, Status::ESME_RINVSUBREP)?,
        _ => return Err(SubmitError::Field(Status::ESME_RINVREPFLAG)),
    }
    let alphabet = alphabet(submitted.data_coding, account)?;
    require(submitted.sm_default_msg_id == 0, Status::ESME_RINVDFTMSGID)?;

    let payload = submitted.tlvs.get(Tag::MESSAGE_PAYLOAD);
    let user_data = payload.unwrap_or(submitted.short_message);
    let segments = segments(submitted.esm_class, alphabet, user_data, payload.is_some(), account)?;
    let tlvs = kept_tlvs(submitted.tlvs, payload.is_some());
    // A record has two octets for each length; a PDU may be longer than both together.
    require(user_data.len() <= 65_535 && tlvs.len() <= 65_535, Status::ESME_RINVMSGLEN)?;
    Ok(Checked {
        source,
        deliver_at: deliver_at.unwrap_or(Timestamp::ZERO),
        expires_at,
        segments,
        user_data,
        tlvs,
    })
}

/// Checks a destination: E.164 with or without `+`, fifteen digits at most.
///
/// # Errors
/// ESME_RINVDSTTON, ESME_RINVDSTNPI, ESME_RINVDSTADR.
pub(super) fn destination(address: Address<'_>) -> Result<Address<'_>, SubmitError> {
    require(is_known_ton(address.ton), CommandStatus::ESME_RINVDSTTON)?;
    require(is_known_npi(address.npi), CommandStatus::ESME_RINVDSTNPI)?;
    let address = without_plus(address);
    let is_number = (1..=15).contains(&address.digits.len()) && address.digits.iter().all(u8::is_ascii_digit);
    require(is_number, CommandStatus::ESME_RINVDSTADR)?;
    Ok(address)
}

/// Checks the text of a replace_sm against the alphabet of the message; how many segments it makes.
///
/// # Errors
/// ESME_RINVMSGLEN.
pub(super) fn replacement_segments(
    old: &Content<'_>,
    replacement: &Replacement,
    account: &Account,
) -> Result<u16, SubmitError> {
    let alphabet = alphabet(old.data_coding, account)?;
    segments(old.esm_class, alphabet, &replacement.user_data, replacement.is_payload, account)
}

/// Reads a time field; `None` when it is empty.
///
/// # Errors
/// `status`, when it is no time.
pub(super) fn parse_time(
    field: &[u8],
    now: Timestamp,
    status: CommandStatus,
) -> Result<Option<Timestamp>, SubmitError> {
    let time = SmppTime::parse(field).map_err(|_| SubmitError::Field(status))?;
    Ok(time.map(|time| time.resolve(now)))
}

/// An address without the `+` that TON 1 already says.
pub(super) fn without_plus(address: Address<'_>) -> Address<'_> {
    match address.digits.strip_prefix(b"+") {
        Some(digits) => Address { ton: Ton::INTERNATIONAL, digits, ..address },
        None => address,
    }
}

fn require(holds: bool, status: CommandStatus) -> Result<(), SubmitError> {
    if holds { Ok(()) } else { Err(SubmitError::Field(status)) }
}

fn is_known_ton(ton: Ton) -> bool {
    ton.0 <= Ton::ABBREVIATED.0
}

fn is_known_npi(npi: Npi) -> bool {
    matches!(npi.0, 0 | 1 | 3 | 4 | 6 | 8 | 9 | 10 | 14 | 18)
}

/// Normal messages and the acknowledgements an ESME may send.
fn is_submittable(esm_class: EsmClass) -> bool {
    let kinds = [EsmClass::DEFAULT, EsmClass::DELIVERY_ACK, EsmClass::USER_ACK];
    kinds.iter().any(|kind| kind.0 == esm_class.message_type())
}

fn source<'a>(address: Address<'a>, account: &'a Account) -> Result<Address<'a>, SubmitError> {
    if address.digits.is_empty() {
        let number = account.default_number().ok_or(SubmitError::Field(CommandStatus::ESME_RINVSRCADR))?;
        let is_name = !number.bytes().all(|octet| octet.is_ascii_digit());
        let (ton, npi) =
            if is_name { (Ton::ALPHANUMERIC, Npi::UNKNOWN) } else { (Ton::INTERNATIONAL, Npi::ISDN) };
        return Ok(Address { ton, npi, digits: number.as_bytes() });
    }
    require(is_known_ton(address.ton), CommandStatus::ESME_RINVSRCTON)?;
    require(is_known_npi(address.npi), CommandStatus::ESME_RINVSRCNPI)?;
    let address = without_plus(address);
    let allowed = account.settings.any_source || account.owns_number(address.digits);
    require(allowed && address.digits.len() <= 20, CommandStatus::ESME_RINVSRCADR)?;
    Ok(address)
}

fn expires_at<D>(
    submitted: &ShortMessage<'_, D>,
    deliver_at: Timestamp,
    validity: Validity,
    now: Timestamp,
) -> Result<Timestamp, SubmitError> {
    // qos_time_to_live wins over validity_period.
    let asked = match submitted.tlvs.u32(Tag::QOS_TIME_TO_LIVE) {
        Some(seconds) => Some(now + Duration::from_secs(seconds.into())),
        None => parse_time(submitted.validity_period, now, CommandStatus::ESME_RINVEXPIRY)?,
    };
    match asked {
        Some(at) if at <= deliver_at => Err(SubmitError::Field(CommandStatus::ESME_RINVEXPIRY)),
        Some(at) => Ok(at.min(deliver_at + validity.longest)),
        None => Ok(deliver_at + validity.default),
    }
}

fn alphabet(data_coding: DataCoding, account: &Account) -> Result<Alphabet, SubmitError> {
    let refused = SubmitError::Field(CommandStatus::ESME_RINVDCS);
    let alphabet = data_coding.alphabet(account.settings.default_alphabet.into()).ok_or(refused)?;
    if alphabet == Alphabet::Binary && !account.settings.binary { Err(refused) } else { Ok(alphabet) }
}

/// How many segments the user data is on air, checked against what one submission may hold.
fn segments(
    esm_class: EsmClass,
    alphabet: Alphabet,
    user_data: &[u8],
    is_payload: bool,
    account: &Account,
) -> Result<u16, SubmitError> {
    let too_long = SubmitError::Field(CommandStatus::ESME_RINVMSGLEN);
    let odd = |octets: &[u8]| alphabet == Alphabet::Ucs2 && !octets.len().is_multiple_of(2);
    if esm_class.has_udhi() {
        let (_, text) = Udh::split(user_data).map_err(|_| too_long)?;
        // With its header a segment fills the 140 octets of one message on air; 7-bit text is not packed yet.
        let octets_max = alphabet.single_units_max() * alphabet.unit_octets();
        require(user_data.len() <= octets_max && !odd(text), CommandStatus::ESME_RINVMSGLEN)?;
        return Ok(1);
    }
    require(!odd(user_data), CommandStatus::ESME_RINVMSGLEN)?;
    let count = segment::count(alphabet, user_data, Reference::Sixteen(0));
    if count > 1 && !is_payload && !account.settings.segment_long || count > 255 {
        return Err(too_long);
    }
    Ok(count.max(1) as u16)
}

/// The TLVs without message_payload, which has become the user data.
fn kept_tlvs(tlvs: Tlvs<'_>, has_payload: bool) -> Cow<'_, [u8]> {
    if !has_payload {
        return Cow::Borrowed(tlvs.as_octets());
    }
    let mut kept = Vec::new();
    for tlv in tlvs.iter().filter(|tlv| tlv.tag != Tag::MESSAGE_PAYLOAD) {
        // A value that was decoded has a length that fits.
        if put_tlv(tlv.tag, tlv.value, &mut kept).is_err() {
            unreachable!("the TLV came from a PDU");
        }
    }
    Cow::Owned(kept)
}

/// Whether the sender waits for the outcome rather than for acceptance.
pub(super) fn is_transaction(esm_class: EsmClass) -> bool {
    esm_class.mode() == MessagingMode::Forward
}
