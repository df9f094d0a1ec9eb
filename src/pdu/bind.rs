//! Binding a session: bind_transmitter, bind_receiver, bind_transceiver, their responses, and outbind.

use super::address::Address;
use super::command::{CommandId, InterfaceVersion};
use super::frame::Unreadable;
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets};

/// The body of the three bind requests (spec v5.0 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind<'a> {
    /// Who wants to bind, 15 characters at most.
    pub system_id: &'a [u8],
    /// The secret, 8 characters at most.
    pub password: &'a [u8],
    /// What kind of system the ESME is, 12 characters at most.
    pub system_type: &'a [u8],
    /// The version the ESME speaks.
    pub interface_version: InterfaceVersion,
    /// addr_ton, addr_npi and address_range: what the ESME serves, 40 characters at most.
    pub address_range: Address<'a>,
    /// None are defined.
    pub tlvs: Tlvs<'a>,
}

impl<'a> Bind<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            system_id: reader.c_octets(&wire::SYSTEM_ID)?,
            password: reader.c_octets(&wire::PASSWORD)?,
            system_type: reader.c_octets(&wire::SYSTEM_TYPE)?,
            interface_version: InterfaceVersion(reader.u8("interface_version")?),
            address_range: Address::read(&mut reader, &wire::ADDRESS_RANGE)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SYSTEM_ID, self.system_id, out)?;
        put_c_octets(&wire::PASSWORD, self.password, out)?;
        put_c_octets(&wire::SYSTEM_TYPE, self.system_type, out)?;
        out.push(self.interface_version.0);
        self.address_range.put(&wire::ADDRESS_RANGE, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of the three successful bind responses (spec v5.0 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BindResp<'a> {
    /// The MC's own name, 15 characters at most.
    pub system_id: &'a [u8],
    /// sc_interface_version, to peers of v3.4 and newer.
    pub tlvs: Tlvs<'a>,
}

impl<'a> BindResp<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            system_id: reader.c_octets(&wire::SYSTEM_ID)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SYSTEM_ID, self.system_id, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// The body of outbind, with which an MC asks an ESME to bind; it has no response (spec v5.0 §4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outbind<'a> {
    /// The MC's own name, 15 characters at most.
    pub system_id: &'a [u8],
    /// The secret, 8 characters at most.
    pub password: &'a [u8],
    /// None are defined.
    pub tlvs: Tlvs<'a>,
}

impl<'a> Outbind<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            system_id: reader.c_octets(&wire::SYSTEM_ID)?,
            password: reader.c_octets(&wire::PASSWORD)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::SYSTEM_ID, self.system_id, out)?;
        put_c_octets(&wire::PASSWORD, self.password, out)?;
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}
