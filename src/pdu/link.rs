//! What an MC says about a subscriber's reachability: alert_notification.
//!
//! The PDUs that only hold a link open or end it (enquire_link, unbind, generic_nack) have no body.

use super::address::Address;
use super::command::CommandId;
use super::frame::Unreadable;
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader};

/// The body of alert_notification, which has no response (spec v5.0 §4.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlertNotification<'a> {
    /// The subscriber that is reachable again, 64 characters at most.
    pub source: Address<'a>,
    /// esme_addr_ton, esme_addr_npi and esme_addr: whom it was not reachable for, 64 characters at most.
    pub esme: Address<'a>,
    /// ms_availability_status.
    pub tlvs: Tlvs<'a>,
}

impl<'a> AlertNotification<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            source: Address::read(&mut reader, &wire::SOURCE_ADDR_LONG)?,
            esme: Address::read(&mut reader, &wire::ESME_ADDR)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        self.source.put(&wire::SOURCE_ADDR_LONG, out)?;
        self.esme.put(&wire::ESME_ADDR, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}
