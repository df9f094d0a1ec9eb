//! Cell broadcast, new in v5.0: broadcast_sm and cancel_broadcast_sm. A query_broadcast_sm is laid out as a query_sm.

use super::address::Address;
use super::coding::DataCoding;
use super::command::CommandId;
use super::frame::Unreadable;
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets};

/// The body of broadcast_sm (spec v5.0 §4.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BroadcastSm<'a> {
    /// The application the message belongs to, 5 characters at most; empty for the default.
    pub service_type: &'a [u8],
    /// Who sent it.
    pub source: Address<'a>,
    /// Empty, or the broadcast to replace.
    pub message_id: &'a [u8],
    /// 0 to 4.
    pub priority_flag: u8,
    /// When to begin, empty for now; the 16 characters are not checked yet.
    pub schedule_delivery_time: &'a [u8],
    /// Until when to broadcast, empty for the MC's default; the 16 characters are not checked yet.
    pub validity_period: &'a [u8],
    /// 1 to replace the broadcast of that message_id.
    pub replace_if_present_flag: u8,
    /// The alphabet of message_payload.
    pub data_coding: DataCoding,
    /// The canned message to send instead, 0 for none.
    pub sm_default_msg_id: u8,
    /// Area, content type, repetitions and interval are required, but not checked yet.
    pub tlvs: Tlvs<'a>,
}

impl<'a> BroadcastSm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let service_type = reader.c_octets(&wire::SERVICE_TYPE)?;
        let source = Address::read(&mut reader, &wire::SOURCE_ADDR)?;
        let message_id = reader.c_octets(&wire::MESSAGE_ID)?;
        let priority_flag = reader.u8("priority_flag")?;
        let schedule_delivery_time = reader.c_octets(&wire::SCHEDULE_DELIVERY_TIME)?;
        let validity_period = reader.c_octets(&wire::VALIDITY_PERIOD)?;
        let [replace_if_present_flag, data_coding, sm_default_msg_id] = reader.array("sm_default_msg_id")?;
        Ok(Self {
            service_type,
            source,
            message_id,
            priority_flag,
            schedule_delivery_time,
            validity_period,
            replace_if_present_flag,
            data_coding: DataCoding(data_coding),
            sm_default_msg_id,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SERVICE_TYPE, self.service_type, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        out.push(self.priority_flag);
        put_c_octets(&wire::SCHEDULE_DELIVERY_TIME, self.schedule_delivery_time, out)?;
        put_c_octets(&wire::VALIDITY_PERIOD, self.validity_period, out)?;
        out.extend_from_slice(&[self.replace_if_present_flag, self.data_coding.0, self.sm_default_msg_id]);
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of cancel_broadcast_sm (spec v5.0 §4.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CancelBroadcastSm<'a> {
    /// Empty, or the application whose broadcasts are meant.
    pub service_type: &'a [u8],
    /// The broadcast; empty if the TLVs name it.
    pub message_id: &'a [u8],
    /// Who sent it; must be as submitted.
    pub source: Address<'a>,
    /// broadcast_content_type and user_message_reference.
    pub tlvs: Tlvs<'a>,
}

impl<'a> CancelBroadcastSm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            service_type: reader.c_octets(&wire::SERVICE_TYPE)?,
            message_id: reader.c_octets(&wire::MESSAGE_ID)?,
            source: Address::read(&mut reader, &wire::SOURCE_ADDR)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SERVICE_TYPE, self.service_type, out)?;
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        self.source.put(&wire::SOURCE_ADDR, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}
