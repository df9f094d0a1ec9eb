//! submit_sm, deliver_sm and submit_multi, which share one layout, and the flags that go with a short message.

use super::address::Address;
use super::coding::DataCoding;
use super::command::CommandId;
use super::frame::Unreadable;
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets, put_short_message};

/// The body of submit_sm (spec v5.0 §4.2.1) and deliver_sm (§4.3.1); that of submit_multi (§4.2.3) has many
/// destinations in the place of one, and is the same in all else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShortMessage<'a, D = Address<'a>> {
    /// The application the message belongs to, 5 characters at most; empty for the default.
    pub service_type: &'a [u8],
    /// Who sent it; empty in a submit_sm for the account's default.
    pub source: Address<'a>,
    /// Who shall get it.
    pub destination: D,
    /// Mode, type and GSM features.
    pub esm_class: EsmClass,
    /// GSM 03.40 TP-PID.
    pub protocol_id: u8,
    /// 0 the lowest, 3 the highest.
    pub priority_flag: u8,
    /// When to deliver, empty for now; the 16 characters are not checked yet.
    pub schedule_delivery_time: &'a [u8],
    /// Until when to try, empty for the MC's default; the 16 characters are not checked yet.
    pub validity_period: &'a [u8],
    /// Which receipts the sender wants.
    pub registered_delivery: RegisteredDelivery,
    /// 1 to replace a pending message between the same two addresses.
    pub replace_if_present_flag: u8,
    /// The alphabet of short_message.
    pub data_coding: DataCoding,
    /// The canned message to send instead, 0 for none.
    pub sm_default_msg_id: u8,
    /// The text or data, 255 octets at most; empty if message_payload is used.
    pub short_message: &'a [u8],
    /// The optional parameters.
    pub tlvs: Tlvs<'a>,
}

/// What a short message may have for a destination.
pub trait Destination<'a>: Sized {
    /// Takes it off a body.
    ///
    /// # Errors
    /// It ends too early or breaks a limit of its fields.
    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable>;

    /// Appends it as it stands on the wire.
    ///
    /// # Errors
    /// A value does not fit its field.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong>;
}

impl<'a> Destination<'a> for Address<'a> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        Address::read(reader, &wire::DESTINATION_ADDR)
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        Address::put(self, &wire::DESTINATION_ADDR, out)
    }
}

impl<'a, D: Destination<'a>> ShortMessage<'a, D> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let service_type = reader.c_octets(&wire::SERVICE_TYPE)?;
        let source = Address::read(&mut reader, &wire::SOURCE_ADDR)?;
        let destination = D::read(&mut reader)?;
        let [esm_class, protocol_id, priority_flag] = reader.array("priority_flag")?;
        let schedule_delivery_time = reader.c_octets(&wire::SCHEDULE_DELIVERY_TIME)?;
        let validity_period = reader.c_octets(&wire::VALIDITY_PERIOD)?;
        let [registered_delivery, replace_if_present_flag, data_coding, sm_default_msg_id] =
            reader.array("sm_default_msg_id")?;
        let short_message = reader.short_message()?;
        Ok(Self {
            service_type,
            source,
            destination,
            esm_class: EsmClass(esm_class),
            protocol_id,
            priority_flag,
            schedule_delivery_time,
            validity_period,
            registered_delivery: RegisteredDelivery(registered_delivery),
            replace_if_present_flag,
            data_coding: DataCoding(data_coding),
            sm_default_msg_id,
            short_message,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    /// Appends the body as it stands on the wire; on failure `out` may hold part of it.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SERVICE_TYPE, self.service_type, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        self.destination.put(out)?;
        out.extend_from_slice(&[self.esm_class.0, self.protocol_id, self.priority_flag]);
        put_c_octets(&wire::SCHEDULE_DELIVERY_TIME, self.schedule_delivery_time, out)?;
        put_c_octets(&wire::VALIDITY_PERIOD, self.validity_period, out)?;
        out.extend_from_slice(&[
            self.registered_delivery.0,
            self.replace_if_present_flag,
            self.data_coding.0,
            self.sm_default_msg_id,
        ]);
        put_short_message(self.short_message, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of a response that gives a message_id: to submit_sm, deliver_sm, data_sm, broadcast_sm
/// and query_broadcast_sm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageIdResp<'a> {
    /// The MC's name for the message, 64 characters at most, 8 for v3.3; empty in deliver_sm_resp.
    pub message_id: &'a [u8],
    /// The optional parameters.
    pub tlvs: Tlvs<'a>,
}

impl<'a> MessageIdResp<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            message_id: reader.c_octets(&wire::MESSAGE_ID)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// Messaging mode, message type and GSM features of a message (spec v5.0 §4.7.12).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EsmClass(pub u8);

impl EsmClass {
    /// Default mode, normal message, no GSM features.
    pub const DEFAULT: Self = Self(0x00);
    /// Mode: one attempt, no receipt.
    pub const DATAGRAM: Self = Self(0x01);
    /// Mode: the response waits for the outcome.
    pub const FORWARD: Self = Self(0x02);
    /// Mode: store and forward, explicitly.
    pub const STORE_AND_FORWARD: Self = Self(0x03);
    /// Type: an MC delivery receipt.
    pub const RECEIPT: Self = Self(0x04);
    /// Type: an SME delivery acknowledgement.
    pub const DELIVERY_ACK: Self = Self(0x08);
    /// Type: an SME manual or user acknowledgement.
    pub const USER_ACK: Self = Self(0x10);
    /// Type: a conversation abort.
    pub const CONVERSATION_ABORT: Self = Self(0x18);
    /// Type: an intermediate delivery notification.
    pub const INTERMEDIATE_NOTIFICATION: Self = Self(0x20);
    /// GSM: the message begins with a user data header.
    pub const UDHI: Self = Self(0x40);
    /// GSM: reply path.
    pub const REPLY_PATH: Self = Self(0x80);

    /// Bits 1 and 0: what the submitter expects of the MC.
    pub const fn mode(self) -> MessagingMode {
        match self.0 & 0x03 {
            0x01 => MessagingMode::Datagram,
            0x02 => MessagingMode::Forward,
            0x03 => MessagingMode::StoreAndForward,
            _ => MessagingMode::Default,
        }
    }

    /// Bits 5 to 2 in their place, to compare with the type constants: 0x00 is a normal message.
    pub const fn message_type(self) -> u8 {
        self.0 & 0x3C
    }

    /// Whether this is an MC delivery receipt.
    pub const fn is_receipt(self) -> bool {
        self.message_type() == Self::RECEIPT.0
    }

    /// Whether the message begins with a user data header.
    pub const fn has_udhi(self) -> bool {
        self.0 & Self::UDHI.0 != 0
    }
}

/// What a submitter expects of the MC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessagingMode {
    /// The MC's default: store and forward.
    Default,
    /// One attempt, no receipt.
    Datagram,
    /// Transaction: the response waits for the outcome.
    Forward,
    /// Store and forward, explicitly.
    StoreAndForward,
}

/// Which receipts a sender wants; bits 7 to 5 are reserved and ignored (spec v5.0 §4.7.21).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RegisteredDelivery(pub u8);

impl RegisteredDelivery {
    /// No receipts.
    pub const NONE: Self = Self(0x00);
    /// An MC receipt whatever the outcome.
    pub const RECEIPT: Self = Self(0x01);
    /// An MC receipt on failure.
    pub const RECEIPT_ON_FAILURE: Self = Self(0x02);
    /// An MC receipt on success.
    pub const RECEIPT_ON_SUCCESS: Self = Self(0x03);
    /// An SME delivery acknowledgement.
    pub const DELIVERY_ACK: Self = Self(0x04);
    /// An SME manual or user acknowledgement.
    pub const USER_ACK: Self = Self(0x08);
    /// Intermediate notifications.
    pub const INTERMEDIATE: Self = Self(0x10);

    /// Bits 1 and 0: when the MC reports the outcome.
    pub const fn receipt(self) -> ReceiptRequest {
        match self.0 & 0x03 {
            0x01 => ReceiptRequest::Always,
            0x02 => ReceiptRequest::OnFailure,
            0x03 => ReceiptRequest::OnSuccess,
            _ => ReceiptRequest::None,
        }
    }

    /// Whether intermediate notifications are wanted.
    pub const fn intermediate(self) -> bool {
        self.0 & Self::INTERMEDIATE.0 != 0
    }
}

/// When the MC reports the outcome of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReceiptRequest {
    /// Never.
    None,
    /// On success and on failure.
    Always,
    /// On failure, expiry and cancelling included.
    OnFailure,
    /// On success; reserved in v3.4, understood from everyone.
    OnSuccess,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_types_do_not_share_bits_with_each_other() {
        for (esm_class, receipt, udhi, mode) in [
            (0x00, false, false, MessagingMode::Default),
            (0x04, true, false, MessagingMode::Default),
            (0x44, true, true, MessagingMode::Default),
            (0x43, false, true, MessagingMode::StoreAndForward),
            (0x24, false, false, MessagingMode::Default),
            (0x22, false, false, MessagingMode::Forward),
            (0x01, false, false, MessagingMode::Datagram),
        ] {
            let esm_class = EsmClass(esm_class);
            assert_eq!(
                (esm_class.is_receipt(), esm_class.has_udhi(), esm_class.mode()),
                (receipt, udhi, mode),
                "{esm_class:?}"
            );
        }
    }

    #[test]
    fn registered_delivery_ignores_reserved_bits() {
        assert_eq!(RegisteredDelivery(0xE3).receipt(), ReceiptRequest::OnSuccess);
        assert_eq!(RegisteredDelivery(0x1C).receipt(), ReceiptRequest::None);
        assert!(RegisteredDelivery(0x11).intermediate() && !RegisteredDelivery(0xEF).intermediate());
    }
}
