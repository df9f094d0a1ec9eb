//! Asking after, cancelling and replacing a submitted message: query_sm, cancel_sm, replace_sm.

use super::address::Address;
use super::command::CommandId;
use super::frame::Unreadable;
use super::short_message::RegisteredDelivery;
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets, put_short_message};

/// The body of query_sm (spec v5.0 §4.5.2) and query_broadcast_sm (§4.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuerySm<'a> {
    /// The message, as the response to it named it; for a broadcast, empty if user_message_reference names it.
    pub message_id: &'a [u8],
    /// Who sent it; must be as submitted.
    pub source: Address<'a>,
    /// For a message none are defined; for a broadcast, user_message_reference.
    pub tlvs: Tlvs<'a>,
}

impl<'a> QuerySm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            message_id: reader.c_octets(&wire::MESSAGE_ID)?,
            source: Address::read(&mut reader, &wire::SOURCE_ADDR)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of query_sm_resp (spec v5.0 §4.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuerySmResp<'a> {
    /// The message asked after.
    pub message_id: &'a [u8],
    /// When it reached its final state, empty while it has not; 16 characters, from some peers 12.
    pub final_date: &'a [u8],
    /// The state as a number.
    pub message_state: u8,
    /// The network's error, or 0.
    pub error_code: u8,
    /// The optional parameters.
    pub tlvs: Tlvs<'a>,
}

impl<'a> QuerySmResp<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let message_id = reader.c_octets(&wire::MESSAGE_ID)?;
        let final_date = reader.c_octets(&wire::FINAL_DATE)?;
        let [message_state, error_code] = reader.array("error_code")?;
        let tlvs = Tlvs::read(reader.rest(), command_id)?;
        Ok(Self { message_id, final_date, message_state, error_code, tlvs })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        put_c_octets(&wire::FINAL_DATE, self.final_date, out)?;
        out.extend_from_slice(&[self.message_state, self.error_code]);
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of cancel_sm (spec v5.0 §4.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelSm<'a> {
    /// Empty, or the application whose messages are meant.
    pub service_type: &'a [u8],
    /// The message; empty for all pending ones between the two addresses.
    pub message_id: &'a [u8],
    /// Who sent it; must be as submitted.
    pub source: Address<'a>,
    /// Who would get it, up to 64 characters; may be empty if message_id is not.
    pub destination: Address<'a>,
    /// None are defined.
    pub tlvs: Tlvs<'a>,
}

impl<'a> CancelSm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            service_type: reader.c_octets(&wire::SERVICE_TYPE)?,
            message_id: reader.c_octets(&wire::MESSAGE_ID)?,
            source: Address::read(&mut reader, &wire::SOURCE_ADDR)?,
            destination: Address::read(&mut reader, &wire::DESTINATION_ADDR_LONG)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SERVICE_TYPE, self.service_type, out)?;
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        self.destination.put(&wire::DESTINATION_ADDR_LONG, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of replace_sm; data_coding and esm_class stay as submitted (spec v5.0 §4.5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplaceSm<'a> {
    /// The message, as submit_sm_resp named it.
    pub message_id: &'a [u8],
    /// Who sent it; must be as submitted.
    pub source: Address<'a>,
    /// When to deliver, empty to keep the old time; the 16 characters are not checked yet.
    pub schedule_delivery_time: &'a [u8],
    /// Until when to try, empty to keep the old time; the 16 characters are not checked yet.
    pub validity_period: &'a [u8],
    /// Which receipts the sender wants.
    pub registered_delivery: RegisteredDelivery,
    /// The canned message to send instead, 0 for none.
    pub sm_default_msg_id: u8,
    /// The new text, 255 octets at most; empty if message_payload is used.
    pub short_message: &'a [u8],
    /// message_payload in v5.0.
    pub tlvs: Tlvs<'a>,
}

impl<'a> ReplaceSm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let message_id = reader.c_octets(&wire::MESSAGE_ID)?;
        let source = Address::read(&mut reader, &wire::SOURCE_ADDR)?;
        let schedule_delivery_time = reader.c_octets(&wire::SCHEDULE_DELIVERY_TIME)?;
        let validity_period = reader.c_octets(&wire::VALIDITY_PERIOD)?;
        let [registered_delivery, sm_default_msg_id] = reader.array("sm_default_msg_id")?;
        let short_message = reader.short_message()?;
        Ok(Self {
            message_id,
            source,
            schedule_delivery_time,
            validity_period,
            registered_delivery: RegisteredDelivery(registered_delivery),
            sm_default_msg_id,
            short_message,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        put_c_octets(&wire::SCHEDULE_DELIVERY_TIME, self.schedule_delivery_time, out)?;
        put_c_octets(&wire::VALIDITY_PERIOD, self.validity_period, out)?;
        out.extend_from_slice(&[self.registered_delivery.0, self.sm_default_msg_id]);
        put_short_message(self.short_message, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}
