//! Addresses of short message entities: type of number, numbering plan and the digits or characters.

use super::frame::Unreadable;
use super::wire::{Field, FieldTooLong, Reader, put_c_octets};

/// An address as it stands on the wire (spec v5.0 §4.7.1, §4.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address<'a> {
    /// Type of number.
    pub ton: Ton,
    /// Numbering plan indicator.
    pub npi: Npi,
    /// The characters without the NUL; 20 at most, 64 in data_sm and alert_notification, 40 in a bind.
    pub digits: &'a [u8],
}

impl<'a> Address<'a> {
    /// Reads the three fields of an address whose characters are `field`.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'a>, field: &'static Field) -> Result<Self, Unreadable> {
        let [ton, npi] = reader.array(field.name)?;
        Ok(Self { ton: Ton(ton), npi: Npi(npi), digits: reader.c_octets(field)? })
    }

    /// Writes the three fields of an address whose characters are `field`.
    #[inline]
    pub(super) fn put(&self, field: &'static Field, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        out.extend_from_slice(&[self.ton.0, self.npi.0]);
        put_c_octets(field, self.digits, out)
    }
}

/// Type of number; reserved values survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Ton(pub u8);

impl Ton {
    /// Unknown.
    pub const UNKNOWN: Self = Self(0);
    /// International, written without a leading `+`.
    pub const INTERNATIONAL: Self = Self(1);
    /// National.
    pub const NATIONAL: Self = Self(2);
    /// Network specific, such as a short code.
    pub const NETWORK_SPECIFIC: Self = Self(3);
    /// Subscriber number.
    pub const SUBSCRIBER_NUMBER: Self = Self(4);
    /// Alphanumeric, such as a brand name.
    pub const ALPHANUMERIC: Self = Self(5);
    /// Abbreviated.
    pub const ABBREVIATED: Self = Self(6);
}

/// Numbering plan indicator; reserved values survive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Npi(pub u8);

impl Npi {
    /// Unknown.
    pub const UNKNOWN: Self = Self(0);
    /// ISDN (E.163, E.164).
    pub const ISDN: Self = Self(1);
    /// Data (X.121).
    pub const DATA: Self = Self(3);
    /// Telex (F.69).
    pub const TELEX: Self = Self(4);
    /// Land mobile (E.212).
    pub const LAND_MOBILE: Self = Self(6);
    /// National.
    pub const NATIONAL: Self = Self(8);
    /// Private.
    pub const PRIVATE: Self = Self(9);
    /// ERMES.
    pub const ERMES: Self = Self(10);
    /// Internet (IP).
    pub const INTERNET: Self = Self(14);
    /// WAP client id.
    pub const WAP_CLIENT_ID: Self = Self(18);
}
