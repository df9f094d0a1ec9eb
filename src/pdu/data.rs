//! data_sm: a message in its TLVs, with few mandatory fields.

use super::address::Address;
use super::coding::DataCoding;
use super::command::CommandId;
use super::frame::Unreadable;
use super::short_message::{EsmClass, RegisteredDelivery};
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets};

/// The body of data_sm (spec v5.0 §4.2.2). The text is in message_payload, which may still be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataSm<'a> {
    /// The application the message belongs to, 5 characters at most; empty for the default.
    pub service_type: &'a [u8],
    /// Who sent it, 64 characters at most.
    pub source: Address<'a>,
    /// Who shall get it, 64 characters at most.
    pub destination: Address<'a>,
    /// Mode, type and GSM features.
    pub esm_class: EsmClass,
    /// Which receipts the sender wants.
    pub registered_delivery: RegisteredDelivery,
    /// The alphabet of message_payload.
    pub data_coding: DataCoding,
    /// The optional parameters.
    pub tlvs: Tlvs<'a>,
}

impl<'a> DataSm<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        let service_type = reader.c_octets(&wire::SERVICE_TYPE)?;
        let source = Address::read(&mut reader, &wire::SOURCE_ADDR_LONG)?;
        let destination = Address::read(&mut reader, &wire::DESTINATION_ADDR_LONG)?;
        let [esm_class, registered_delivery, data_coding] = reader.array("data_coding")?;
        Ok(Self {
            service_type,
            source,
            destination,
            esm_class: EsmClass(esm_class),
            registered_delivery: RegisteredDelivery(registered_delivery),
            data_coding: DataCoding(data_coding),
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SERVICE_TYPE, self.service_type, out)?;
        self.source.put(&wire::SOURCE_ADDR_LONG, out)?;
        self.destination.put(&wire::DESTINATION_ADDR_LONG, out)?;
        out.extend_from_slice(&[self.esm_class.0, self.registered_delivery.0, self.data_coding.0]);
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}
