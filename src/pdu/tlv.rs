//! Optional parameters: tag, length and value, in any order behind the mandatory fields (spec v5.0 §4.8).

use std::fmt;

use super::command::{CommandId, CommandStatus};
use super::frame::Unreadable;
use super::wire::FieldTooLong;

/// The TLVs of one PDU, borrowed; checked once, so that walking them cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// No TLVs.
    pub const EMPTY: Self = Tlvs(&[]);

    /// Takes the octets behind the mandatory fields of a `command_id`.
    ///
    /// Refuses a value that runs past the end, and a wrong length of a TLV defined for this PDU.
    /// Unknown tags, and known ones that have no meaning here, pass unread.
    #[inline]
    pub fn read(octets: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        if !octets.is_empty() {
            check(octets, command_id)?;
        }
        Ok(Self(octets))
    }

    /// The TLVs in wire order.
    pub fn iter(self) -> Iter<'a> {
        Iter { rest: self.0 }
    }

    /// The value of the first TLV with this tag; repeats of a single TLV are ignored.
    pub fn get(self, tag: Tag) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.tag == tag).map(|tlv| tlv.value)
    }

    /// The value of a TLV of one octet.
    pub fn u8(self, tag: Tag) -> Option<u8> {
        self.get(tag)?.try_into().ok().map(u8::from_be_bytes)
    }

    /// The value of a TLV of two octets.
    pub fn u16(self, tag: Tag) -> Option<u16> {
        self.get(tag)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The value of a TLV of four octets.
    pub fn u32(self, tag: Tag) -> Option<u32> {
        self.get(tag)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// The characters of a TLV that holds a C-Octet String, whether the peer sent the NUL or not.
    pub fn c_octets(self, tag: Tag) -> Option<&'a [u8]> {
        self.get(tag).map(|value| value.strip_suffix(&[0]).unwrap_or(value))
    }

    /// The octets as they stand on the wire.
    pub const fn as_octets(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for Tlvs<'a> {
    type Item = Tlv<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// One optional parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tlv<'a> {
    /// What it is.
    pub tag: Tag,
    /// Its value, 65,535 octets at most.
    pub value: &'a [u8],
}

/// Walks [`Tlvs`] in wire order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = Tlv<'a>;

    #[inline]
    fn next(&mut self) -> Option<Tlv<'a>> {
        let (tlv, rest) = split_first(self.rest)?;
        self.rest = rest;
        Some(tlv)
    }
}

/// The first TLV and what follows it, unless it is cut off.
#[inline]
fn split_first(octets: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let ([t0, t1, l0, l1], rest) = octets.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
    Some((Tlv { tag: Tag(u16::from_be_bytes([*t0, *t1])), value }, rest))
}

fn check(octets: &[u8], command_id: CommandId) -> Result<(), Unreadable> {
    let pdu = PduSet::of(command_id);
    let mut rest = octets;
    while !rest.is_empty() {
        let Some((tlv, behind)) = split_first(rest) else {
            return Err(Unreadable::refused(CommandStatus::ESME_RINVTLVSTREAM, "tlvs"));
        };
        if let Some((length, pdus, name)) = tlv.tag.definition()
            && pdus.0 & pdu.0 != 0
            && !length.allows(tlv.value.len())
        {
            return Err(Unreadable::refused(CommandStatus::ESME_RINVTLVLEN, name));
        }
        rest = behind;
    }
    Ok(())
}

/// Appends one TLV. Fails if the value has more than 65,535 octets.
pub fn put_tlv(tag: Tag, value: &[u8], out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
    put_head(tag, value.len(), out)?;
    out.extend_from_slice(value);
    Ok(())
}

fn put_head(tag: Tag, length: usize, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
    let length = u16::try_from(length).map_err(|_| FieldTooLong { field: tag.name().unwrap_or("tlv") })?;
    out.extend_from_slice(&tag.0.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    Ok(())
}

/// TLVs being put together for a PDU we send.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlvBuf(Vec<u8>);

impl TlvBuf {
    /// Room for TLVs of so many octets; there may be more.
    pub fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    /// Appends one TLV. Fails if the value has more than 65,535 octets.
    pub fn put(&mut self, tag: Tag, value: &[u8]) -> Result<(), FieldTooLong> {
        put_tlv(tag, value, &mut self.0)
    }

    /// Appends one TLV whose value ends with a NUL that is not in `value`. Fails if it has more than 65,535 octets.
    pub fn put_c_octets(&mut self, tag: Tag, value: &[u8]) -> Result<(), FieldTooLong> {
        put_head(tag, value.len() + 1, &mut self.0)?;
        self.0.extend_from_slice(value);
        self.0.push(0);
        Ok(())
    }

    /// The TLVs so far.
    pub fn as_tlvs(&self) -> Tlvs<'_> {
        Tlvs(&self.0)
    }
}

/// The lengths a TLV value may have, in octets. Where sources disagree, all that peers send.
#[derive(Clone, Copy, Debug)]
enum Length {
    Is(usize),
    Within(usize, usize),
    OneOf(usize, usize),
}

impl Length {
    const fn allows(self, octets: usize) -> bool {
        match self {
            Self::Is(length) => octets == length,
            Self::Within(min, max) => min <= octets && octets <= max,
            Self::OneOf(one, other) => octets == one || octets == other,
        }
    }
}

/// The PDUs a TLV is defined for, in v3.4 or v5.0, one bit each.
#[derive(Clone, Copy, Debug)]
struct PduSet(u16);

// The letters stand in the table of tags below, as in the specification's matrix of TLVs and PDUs.
/// submit_sm
const S: u16 = 1;
/// submit_multi
const M: u16 = 1 << 1;
/// data_sm
const D: u16 = 1 << 2;
/// deliver_sm
const V: u16 = 1 << 3;
/// replace_sm
const R: u16 = 1 << 4;
/// broadcast_sm
const B: u16 = 1 << 5;
/// query_broadcast_sm
const Q: u16 = 1 << 6;
/// cancel_broadcast_sm
const C: u16 = 1 << 7;
/// alert_notification
const A: u16 = 1 << 8;
/// submit_sm_resp and submit_multi_resp
const SR: u16 = 1 << 9;
/// data_sm_resp
const DR: u16 = 1 << 10;
/// deliver_sm_resp
const VR: u16 = 1 << 11;
/// broadcast_sm_resp
const BR: u16 = 1 << 12;
/// query_broadcast_sm_resp
const QR: u16 = 1 << 13;
/// The responses to a bind
const L: u16 = 1 << 14;
/// Any other response
const X: u16 = 1 << 15;
/// Every response
const ANY_RESP: u16 = SR | DR | VR | BR | QR | L | X;

impl PduSet {
    const fn of(command_id: CommandId) -> Self {
        Self(match command_id {
            CommandId::SUBMIT_SM => S,
            CommandId::SUBMIT_MULTI => M,
            CommandId::DATA_SM => D,
            CommandId::DELIVER_SM => V,
            CommandId::REPLACE_SM => R,
            CommandId::BROADCAST_SM => B,
            CommandId::QUERY_BROADCAST_SM => Q,
            CommandId::CANCEL_BROADCAST_SM => C,
            CommandId::ALERT_NOTIFICATION => A,
            CommandId::SUBMIT_SM_RESP | CommandId::SUBMIT_MULTI_RESP => SR,
            CommandId::DATA_SM_RESP => DR,
            CommandId::DELIVER_SM_RESP => VR,
            CommandId::BROADCAST_SM_RESP => BR,
            CommandId::QUERY_BROADCAST_SM_RESP => QR,
            CommandId::BIND_TRANSMITTER_RESP
            | CommandId::BIND_RECEIVER_RESP
            | CommandId::BIND_TRANSCEIVER_RESP => L,
            other if other.is_response() => X,
            _ => 0,
        })
    }
}

/// Declares the TLVs once: constant, tag, name, lengths, PDUs.
macro_rules! tags {
    ($($constant:ident = $value:literal, $name:literal, $length:expr, $pdus:expr;)+) => {
        impl Tag {
            $(#[doc = concat!("`", $name, "`")] pub const $constant: Self = Self($value);)+

            /// The specification's name, such as `message_payload`, of a known TLV.
            pub const fn name(self) -> Option<&'static str> {
                match self.definition() {
                    Some((_, _, name)) => Some(name),
                    None => None,
                }
            }

            const fn definition(self) -> Option<(Length, PduSet, &'static str)> {
                match self {
                    $(Self::$constant => Some(($length, PduSet($pdus), $name)),)+
                    Self(_) => None,
                }
            }
        }
    };
}

use Length::{Is, OneOf, Within};

/// Which TLV this is; any value survives, 0x1400 to 0x3FFF being the vendors'.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u16);

tags! {
    DEST_ADDR_SUBUNIT = 0x0005, "dest_addr_subunit", Is(1), S | M | D | V | B;
    DEST_NETWORK_TYPE = 0x0006, "dest_network_type", Is(1), S | M | D;
    DEST_BEARER_TYPE = 0x0007, "dest_bearer_type", Is(1), S | M | D;
    DEST_TELEMATICS_ID = 0x0008, "dest_telematics_id", Is(2), S | M | D;
    SOURCE_ADDR_SUBUNIT = 0x000D, "source_addr_subunit", Is(1), S | M | D | V | B;
    SOURCE_NETWORK_TYPE = 0x000E, "source_network_type", Is(1), S | M | D;
    SOURCE_BEARER_TYPE = 0x000F, "source_bearer_type", Is(1), S | M | D;
    SOURCE_TELEMATICS_ID = 0x0010, "source_telematics_id", Within(1, 2), S | M | D;
    QOS_TIME_TO_LIVE = 0x0017, "qos_time_to_live", Is(4), S | M | D;
    PAYLOAD_TYPE = 0x0019, "payload_type", Is(1), S | M | D | V | B;
    ADDITIONAL_STATUS_INFO_TEXT = 0x001D, "additional_status_info_text", Within(1, 256), SR | DR | VR;
    RECEIPTED_MESSAGE_ID = 0x001E, "receipted_message_id", Within(1, 65), V | D;
    MS_MSG_WAIT_FACILITIES = 0x0030, "ms_msg_wait_facilities", Is(1), S | M | D;
    PRIVACY_INDICATOR = 0x0201, "privacy_indicator", Is(1), S | M | D | V | B;
    SOURCE_SUBADDRESS = 0x0202, "source_subaddress", Within(2, 23), S | M | D | V | B;
    DEST_SUBADDRESS = 0x0203, "dest_subaddress", Within(2, 23), S | M | D | V | B;
    USER_MESSAGE_REFERENCE = 0x0204, "user_message_reference", Is(2), S | M | D | V | B | Q | QR | C;
    USER_RESPONSE_CODE = 0x0205, "user_response_code", Is(1), S | M | D | V;
    SOURCE_PORT = 0x020A, "source_port", Is(2), S | M | D | V | B;
    DEST_PORT = 0x020B, "dest_port", Is(2), S | M | D | V | B;
    SAR_MSG_REF_NUM = 0x020C, "sar_msg_ref_num", Is(2), S | M | D | V;
    LANGUAGE_INDICATOR = 0x020D, "language_indicator", Is(1), S | M | D | V | B;
    SAR_TOTAL_SEGMENTS = 0x020E, "sar_total_segments", Is(1), S | M | D | V;
    SAR_SEGMENT_SEQNUM = 0x020F, "sar_segment_seqnum", Is(1), S | M | D | V;
    SC_INTERFACE_VERSION = 0x0210, "sc_interface_version", Is(1), L;
    CALLBACK_NUM_PRES_IND = 0x0302, "callback_num_pres_ind", Is(1), S | M | D | V | B;
    CALLBACK_NUM_ATAG = 0x0303, "callback_num_atag", Within(1, 65), S | M | D | V | B;
    NUMBER_OF_MESSAGES = 0x0304, "number_of_messages", Is(1), S | M | D;
    CALLBACK_NUM = 0x0381, "callback_num", Within(4, 19), S | M | D | V | B;
    DPF_RESULT = 0x0420, "dpf_result", Is(1), SR | DR | V | D;
    SET_DPF = 0x0421, "set_dpf", Is(1), S | M | D;
    MS_AVAILABILITY_STATUS = 0x0422, "ms_availability_status", Is(1), A;
    NETWORK_ERROR_CODE = 0x0423, "network_error_code", Is(3), V | D | SR | DR | VR;
    MESSAGE_PAYLOAD = 0x0424, "message_payload", Within(0, 65_535), S | M | D | V | R | B;
    DELIVERY_FAILURE_REASON = 0x0425, "delivery_failure_reason", Is(1), SR | DR | VR;
    MORE_MESSAGES_TO_SEND = 0x0426, "more_messages_to_send", Is(1), S | M | D;
    MESSAGE_STATE = 0x0427, "message_state", Is(1), V | D | QR;
    CONGESTION_STATE = 0x0428, "congestion_state", Is(1), ANY_RESP;
    USSD_SERVICE_OP = 0x0501, "ussd_service_op", Is(1), S | M | D | V;
    BROADCAST_CHANNEL_INDICATOR = 0x0600, "broadcast_channel_indicator", Is(1), B;
    BROADCAST_CONTENT_TYPE = 0x0601, "broadcast_content_type", Is(3), B | C;
    BROADCAST_CONTENT_TYPE_INFO = 0x0602, "broadcast_content_type_info", Within(1, 255), B;
    BROADCAST_MESSAGE_CLASS = 0x0603, "broadcast_message_class", Is(1), B;
    BROADCAST_REP_NUM = 0x0604, "broadcast_rep_num", Is(2), B;
    BROADCAST_FREQUENCY_INTERVAL = 0x0605, "broadcast_frequency_interval", Is(3), B;
    BROADCAST_AREA_IDENTIFIER = 0x0606, "broadcast_area_identifier", Within(1, 101), B | BR | QR;
    BROADCAST_ERROR_STATUS = 0x0607, "broadcast_error_status", Is(4), BR;
    BROADCAST_AREA_SUCCESS = 0x0608, "broadcast_area_success", Is(1), QR;
    BROADCAST_END_TIME = 0x0609, "broadcast_end_time", OneOf(16, 17), QR;
    BROADCAST_SERVICE_GROUP = 0x060A, "broadcast_service_group", Within(1, 255), B;
    BILLING_IDENTIFICATION = 0x060B, "billing_identification", Within(1, 1024), S | M | D;
    SOURCE_NETWORK_ID = 0x060D, "source_network_id", Within(6, 66), S | M | D | V;
    DEST_NETWORK_ID = 0x060E, "dest_network_id", Within(6, 66), S | M | D | V;
    SOURCE_NODE_ID = 0x060F, "source_node_id", Is(6), S | M | D | V;
    DEST_NODE_ID = 0x0610, "dest_node_id", Is(6), S | M | D | V;
    DEST_ADDR_NP_RESOLUTION = 0x0611, "dest_addr_np_resolution", Is(1), S | M | D | V;
    DEST_ADDR_NP_INFORMATION = 0x0612, "dest_addr_np_information", Is(10), S | M | D | V;
    DEST_ADDR_NP_COUNTRY = 0x0613, "dest_addr_np_country", Within(1, 5), S | M | D | V;
    DISPLAY_TIME = 0x1201, "display_time", Is(1), S | M | D | B;
    SMS_SIGNAL = 0x1203, "sms_signal", Is(2), S | M | D | B;
    MS_VALIDITY = 0x1204, "ms_validity", OneOf(1, 4), S | M | D | B;
    ALERT_ON_MESSAGE_DELIVERY = 0x130C, "alert_on_message_delivery", OneOf(0, 1), S | M | D | B;
    ITS_REPLY_TYPE = 0x1380, "its_reply_type", Is(1), S | M | D | V;
    ITS_SESSION_INFO = 0x1383, "its_session_info", Is(2), S | M | D | V;
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(octets: &[u8], command_id: CommandId) -> CommandStatus {
        Tlvs::read(octets, command_id)
            .map_or_else(|unreadable| unreadable.status, |_| CommandStatus::ESME_ROK)
    }

    #[test]
    fn the_first_of_a_repeated_tlv_wins() {
        let mut tlvs = TlvBuf::default();
        for reference in [1_u16, 2, 3] {
            tlvs.put(Tag::USER_MESSAGE_REFERENCE, &reference.to_be_bytes()).expect("it is short");
        }
        assert_eq!(tlvs.as_tlvs().u16(Tag::USER_MESSAGE_REFERENCE), Some(1));
        assert_eq!(tlvs.as_tlvs().iter().count(), 3);
        assert_eq!(tlvs.as_tlvs().get(Tag::SOURCE_PORT), None);
    }

    #[test]
    fn a_c_octet_string_reads_with_and_without_its_nul() {
        for value in [&b"abc"[..], b"abc\0"] {
            let mut tlvs = TlvBuf::default();
            tlvs.put(Tag::RECEIPTED_MESSAGE_ID, value).expect("it is short");
            assert_eq!(tlvs.as_tlvs().c_octets(Tag::RECEIPTED_MESSAGE_ID), Some(&b"abc"[..]));
        }
    }

    #[test]
    fn lengths_are_checked_where_the_tlv_has_a_meaning() {
        let message_state = [0x04, 0x27, 0, 2, 0, 2];
        assert_eq!(status(&message_state, CommandId::SUBMIT_SM), CommandStatus::ESME_ROK);
        assert_eq!(status(&message_state, CommandId::DELIVER_SM), CommandStatus::ESME_RINVTLVLEN);
        assert_eq!(status(&[0x3F, 0xFF, 0, 0], CommandId::SUBMIT_SM), CommandStatus::ESME_ROK);
        for cut in [&[0x04][..], &[0x04, 0x24], &[0x04, 0x24, 0], &[0x04, 0x24, 0, 1]] {
            assert_eq!(status(cut, CommandId::SUBMIT_SM), CommandStatus::ESME_RINVTLVSTREAM);
        }
    }

    #[test]
    fn a_value_beyond_the_length_field_is_not_written() {
        let mut out = vec![1];
        let written = put_tlv(Tag::MESSAGE_PAYLOAD, &vec![0; 65_536], &mut out);
        assert_eq!(written, Err(FieldTooLong { field: "message_payload" }));
        assert_eq!(out, [1]);
    }

    #[test]
    fn pdus_that_have_tlvs_of_their_own_are_told_apart() {
        let groups: [&[CommandId]; 16] = [
            &[CommandId::SUBMIT_SM],
            &[CommandId::SUBMIT_MULTI],
            &[CommandId::DATA_SM],
            &[CommandId::DELIVER_SM],
            &[CommandId::REPLACE_SM],
            &[CommandId::BROADCAST_SM],
            &[CommandId::QUERY_BROADCAST_SM],
            &[CommandId::CANCEL_BROADCAST_SM],
            &[CommandId::ALERT_NOTIFICATION],
            &[CommandId::SUBMIT_SM_RESP, CommandId::SUBMIT_MULTI_RESP],
            &[CommandId::DATA_SM_RESP],
            &[CommandId::DELIVER_SM_RESP],
            &[CommandId::BROADCAST_SM_RESP],
            &[CommandId::QUERY_BROADCAST_SM_RESP],
            &[
                CommandId::BIND_TRANSMITTER_RESP,
                CommandId::BIND_RECEIVER_RESP,
                CommandId::BIND_TRANSCEIVER_RESP,
            ],
            &[CommandId::QUERY_SM_RESP, CommandId::UNBIND_RESP],
        ];
        for (number, group) in groups.iter().enumerate() {
            for command_id in *group {
                assert_eq!(PduSet::of(*command_id).0, 1 << number, "{command_id:?}");
            }
        }
        assert_eq!(PduSet::of(CommandId::ENQUIRE_LINK).0, 0);
    }
}
