//! What was submitted, in the form in which it is journaled, kept in memory and stored.

use bytes::BufMut;

use crate::message::MessageId;
use crate::pdu::{Address, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
use crate::time::Timestamp;

/// The fields of an accepted message, borrowed from the octets that hold them.
///
/// The form is fixed-width fields first, then the octet strings with their lengths:
/// integers little-endian, a length octet before each short string, two before user data and TLVs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content<'a> {
    /// Its own id.
    pub id: MessageId,
    /// Its place in a submit_multi; the id that its sender knows is `id - offset`.
    pub batch_offset: u8,
    /// How many messages the submit_multi made; 1 for a submit_sm.
    pub batch_count: u8,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it is to be delivered; [`Timestamp::ZERO`] = at once.
    pub deliver_at: Timestamp,
    /// When its validity ends.
    pub expires_at: Timestamp,
    /// Credits it took: one a segment.
    pub segments: u16,
    /// Which receipts its sender asked for.
    pub registered_delivery: RegisteredDelivery,
    /// As submitted, without the bits that say how it was sent to us.
    pub esm_class: EsmClass,
    /// TP-PID, passed through.
    pub protocol_id: u8,
    /// 0–3.
    pub priority_flag: u8,
    /// The alphabet of `user_data`.
    pub data_coding: DataCoding,
    /// The account that submitted it.
    pub system_id: &'a [u8],
    /// As submitted.
    pub service_type: &'a [u8],
    /// The sender, after the account's default was put in.
    pub source: Address<'a>,
    /// The recipient, without a leading `+`.
    pub destination: Address<'a>,
    /// short_message or message_payload, at most 65,535 octets.
    pub user_data: &'a [u8],
    /// The other TLVs as they came, at most 65,535 octets.
    pub tlvs: &'a [u8],
}

/// Octets that are not the record of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContentError;

/// An address that outlives the PDU it came in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OwnedAddress {
    /// Type of number.
    pub ton: Ton,
    /// Numbering plan.
    pub npi: Npi,
    /// The digits or letters.
    pub digits: Box<[u8]>,
}

impl OwnedAddress {
    /// The borrowed form.
    pub fn as_address(&self) -> Address<'_> {
        Address { ton: self.ton, npi: self.npi, digits: &self.digits }
    }
}

impl From<Address<'_>> for OwnedAddress {
    fn from(address: Address<'_>) -> Self {
        Self { ton: address.ton, npi: address.npi, digits: address.digits.into() }
    }
}

impl<'a> Content<'a> {
    /// The id in a record, without reading the rest of it.
    pub fn id_of(octets: &[u8]) -> Option<MessageId> {
        octets.first_chunk().map(|id| MessageId::from_u64(u64::from_le_bytes(*id)))
    }

    /// Whether it waits for a schedule_delivery_time.
    pub fn is_scheduled(&self) -> bool {
        self.deliver_at > self.accepted_at
    }

    /// When a carrier is to be offered it first; [`Timestamp::ZERO`]: at once, however the clock is set meanwhile.
    pub fn due_at(&self) -> Timestamp {
        if self.is_scheduled() { self.deliver_at } else { Timestamp::ZERO }
    }

    /// The id its sender was answered with.
    pub fn public_id(&self) -> MessageId {
        self.id.of_batch(self.batch_offset)
    }

    /// The last id of its submit_multi.
    pub fn last_id(&self) -> MessageId {
        self.public_id().in_batch(self.batch_count.saturating_sub(1))
    }

    /// The octets to keep: exactly as many as it takes.
    pub fn to_octets(&self) -> Box<[u8]> {
        let mut octets = Vec::with_capacity(self.octets());
        self.put(&mut octets);
        octets.into_boxed_slice()
    }

    /// How many octets [`put`](Self::put) appends.
    pub const fn octets(&self) -> usize {
        let texts = self.system_id.len()
            + self.service_type.len()
            + self.source.digits.len()
            + self.destination.digits.len();
        FIXED_OCTETS + texts + self.user_data.len() + self.tlvs.len()
    }

    /// Appends the fields to `out`. Strings longer than their field cannot come from a decoded PDU.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut fixed = [0; FIXED_OCTETS];
        let mut rest = &mut fixed[..];
        rest.put_u64_le(self.id.as_u64());
        rest.put_slice(&[self.batch_offset, self.batch_count]);
        for at in [self.accepted_at, self.deliver_at, self.expires_at] {
            rest.put_u64_le(at.as_millis());
        }
        rest.put_u16_le(self.segments);
        rest.put_slice(&[
            self.registered_delivery.0,
            self.esm_class.0,
            self.protocol_id,
            self.priority_flag,
            self.data_coding.0,
            self.source.ton.0,
            self.source.npi.0,
            self.destination.ton.0,
            self.destination.npi.0,
        ]);
        // What is asked for at a message's end lies at its begin, lengths included: the rest need not be fetched for it.
        let texts = [self.system_id, self.service_type, self.source.digits, self.destination.digits];
        for text in texts {
            assert!(text.len() <= 255, "a C-Octet String of a decoded PDU is short");
            rest.put_u8(text.len() as u8);
        }
        for octets in [self.user_data, self.tlvs] {
            assert!(octets.len() <= 65_535, "the octets of a decoded PDU fit two octets of length");
            rest.put_u16_le(octets.len() as u16);
        }
        out.extend_from_slice(&fixed);
        for octets in texts.into_iter().chain([self.user_data, self.tlvs]) {
            out.extend_from_slice(octets);
        }
    }

    /// Reads what [`put`](Self::put) wrote; `octets` must hold nothing else.
    ///
    /// # Errors
    /// The octets end too early or too late.
    pub fn read(octets: &'a [u8]) -> Result<Self, ContentError> {
        let mut rest = octets;
        let fixed: [u8; FIXED_OCTETS] = take(&mut rest)?;
        let fixed = &mut &fixed[..];
        let id = MessageId::from_u64(u64::from_le_bytes(take(fixed)?));
        let [batch_offset, batch_count] = take(fixed)?;
        let mut at = || Ok(Timestamp::from_millis(u64::from_le_bytes(take(fixed)?)));
        let (accepted_at, deliver_at, expires_at) = (at()?, at()?, at()?);
        let segments = u16::from_le_bytes(take(fixed)?);
        let [receipts, esm_class, protocol_id, priority_flag, data_coding, s_ton, s_npi, d_ton, d_npi] =
            take(fixed)?;
        let texts: [u8; 4] = take(fixed)?;
        let [user_data, tlvs] = [take(fixed)?, take(fixed)?].map(u16::from_le_bytes);
        let mut part = |length: usize| split(&mut rest, length);
        let [system_id, service_type, source, destination] = texts.map(usize::from);
        let (system_id, service_type) = (part(system_id)?, part(service_type)?);
        let (source, destination) = (part(source)?, part(destination)?);
        let (user_data, tlvs) = (part(user_data.into())?, part(tlvs.into())?);
        if !rest.is_empty() {
            return Err(ContentError);
        }
        Ok(Self {
            id,
            batch_offset,
            batch_count,
            accepted_at,
            deliver_at,
            expires_at,
            segments,
            registered_delivery: RegisteredDelivery(receipts),
            esm_class: EsmClass(esm_class),
            protocol_id,
            priority_flag,
            data_coding: DataCoding(data_coding),
            system_id,
            service_type,
            source: Address { ton: Ton(s_ton), npi: Npi(s_npi), digits: source },
            destination: Address { ton: Ton(d_ton), npi: Npi(d_npi), digits: destination },
            user_data,
            tlvs,
        })
    }
}

/// What the fixed fields and the lengths of the others take.
const FIXED_OCTETS: usize = 8 + 2 + 3 * 8 + 2 + 9 + 4 + 2 * 2;

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ContentError> {
    let (head, tail) = rest.split_first_chunk().ok_or(ContentError)?;
    *rest = tail;
    Ok(*head)
}

fn split<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ContentError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(ContentError)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_survives_and_no_other_length_is_read() {
        let content = Content {
            id: MessageId::from_u64(0x0123_4567_89AB_CDEF),
            batch_offset: 3,
            batch_count: 9,
            accepted_at: Timestamp::from_millis(1),
            deliver_at: Timestamp::from_millis(2),
            expires_at: Timestamp::from_millis(3),
            segments: 260,
            registered_delivery: RegisteredDelivery(0x11),
            esm_class: EsmClass(0x40),
            protocol_id: 5,
            priority_flag: 2,
            data_coding: DataCoding(8),
            system_id: b"demo",
            service_type: b"CMT",
            source: Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" },
            destination: Address { ton: Ton(2), npi: Npi(8), digits: b"12125551234" },
            user_data: &[7; 300],
            tlvs: &[1, 2, 3, 4],
        };
        let mut octets = Vec::new();
        content.put(&mut octets);
        assert_eq!(Content::read(&octets), Ok(content));
        assert_eq!(content.octets(), octets.len());
        for length in 0..octets.len() {
            assert_eq!(Content::read(&octets[..length]), Err(ContentError), "{length}");
        }
        octets.push(0);
        assert_eq!(Content::read(&octets), Err(ContentError));
    }
}
