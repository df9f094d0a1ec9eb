//! submit_multi: one short message to many destinations, and which of them failed.

use super::address::Address;
use super::command::{CommandId, CommandStatus};
use super::frame::Unreadable;
use super::short_message::{Destination, ShortMessage};
use super::tlv::Tlvs;
use super::wire::{self, FieldTooLong, Reader, put_c_octets};

/// The body of submit_multi (spec v5.0 §4.2.3): a short message with number_of_dests and the dest_address
/// fields for its destination. v3.4 allows only 0 for replace_if_present_flag.
pub type SubmitMulti<'a> = ShortMessage<'a, DestAddresses<'a>>;

/// One destination of a submit_multi.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DestAddress<'a> {
    /// dest_flag 1: an SME.
    Sme(Address<'a>),
    /// dest_flag 2: a distribution list by name, 20 characters at most.
    DistributionList(&'a [u8]),
}

impl<'a> DestAddress<'a> {
    const SME: u8 = 1;
    const DISTRIBUTION_LIST: u8 = 2;

    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        match reader.u8("dest_flag")? {
            Self::SME => Destination::read(reader).map(Self::Sme),
            Self::DISTRIBUTION_LIST => reader.c_octets(&wire::DL_NAME).map(Self::DistributionList),
            _ => Err(Unreadable::refused(CommandStatus::ESME_RINVDESTFLAG, "dest_flag")),
        }
    }

    /// Appends this destination as it stands on the wire.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        match self {
            Self::Sme(address) => {
                out.push(Self::SME);
                Destination::put(address, out)
            }
            Self::DistributionList(dl_name) => {
                out.push(Self::DISTRIBUTION_LIST);
                put_c_octets(&wire::DL_NAME, dl_name, out)
            }
        }
    }
}

/// The destinations of a submit_multi, 1 to 255, borrowed; checked once, so that walking them cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestAddresses<'a> {
    number_of_dests: u8,
    octets: &'a [u8],
}

impl<'a> DestAddresses<'a> {
    /// Takes `number_of_dests` destinations that were written by [`DestAddress::put`].
    pub fn new(number_of_dests: u8, octets: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(octets);
        let destinations = Self::read_list(number_of_dests, &mut reader)?;
        if !reader.rest().is_empty() {
            return Err(Unreadable::refused(CommandStatus::ESME_RINVNUMDESTS, "number_of_dests"));
        }
        Ok(destinations)
    }

    fn read_list(number_of_dests: u8, reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        if number_of_dests == 0 {
            return Err(Unreadable::refused(CommandStatus::ESME_RINVNUMDESTS, "number_of_dests"));
        }
        let begin = reader.rest();
        for _ in 0..number_of_dests {
            DestAddress::read(reader)?;
        }
        Ok(Self { number_of_dests, octets: &begin[..begin.len() - reader.rest().len()] })
    }

    /// How many there are, 1 to 255.
    pub const fn number_of_dests(self) -> u8 {
        self.number_of_dests
    }

    /// The destinations in wire order.
    pub fn iter(self) -> impl Iterator<Item = DestAddress<'a>> + Clone {
        let mut reader = Reader::new(self.octets);
        std::iter::from_fn(move || DestAddress::read(&mut reader).ok())
    }
}

impl<'a> Destination<'a> for DestAddresses<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let number_of_dests = reader.u8("number_of_dests")?;
        Self::read_list(number_of_dests, reader)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        out.push(self.number_of_dests);
        out.extend_from_slice(self.octets);
        Ok(())
    }
}

/// The body of submit_multi_resp; one message_id stands for the whole batch (spec v5.0 §4.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubmitMultiResp<'a> {
    /// The MC's name for the batch, 64 characters at most.
    pub message_id: &'a [u8],
    /// no_unsuccess and the unsuccess_sme fields.
    pub unsuccess_sme: UnsuccessSmes<'a>,
    /// The optional parameters.
    pub tlvs: Tlvs<'a>,
}

impl<'a> SubmitMultiResp<'a> {
    pub(super) fn read(body: &'a [u8], command_id: CommandId) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(body);
        Ok(Self {
            message_id: reader.c_octets(&wire::MESSAGE_ID)?,
            unsuccess_sme: UnsuccessSmes::read(&mut reader)?,
            tlvs: Tlvs::read(reader.rest(), command_id)?,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        put_c_octets(&wire::MESSAGE_ID, self.message_id, out)?;
        out.push(self.unsuccess_sme.no_unsuccess);
        out.extend_from_slice(self.unsuccess_sme.octets);
        out.extend_from_slice(self.tlvs.as_octets());
        Ok(())
    }
}

/// One destination a submit_multi did not reach, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsuccessSme<'a> {
    /// The destination as it was submitted.
    pub destination: Address<'a>,
    /// What submit_sm_resp would have said for it alone.
    pub error_status_code: CommandStatus,
}

impl<'a> UnsuccessSme<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let destination = Address::read(reader, &wire::DESTINATION_ADDR)?;
        Ok(Self { destination, error_status_code: CommandStatus(reader.u32("error_status_code")?) })
    }

    /// Appends this destination as it stands on the wire.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        self.destination.put(&wire::DESTINATION_ADDR, out)?;
        out.extend_from_slice(&self.error_status_code.0.to_be_bytes());
        Ok(())
    }
}

/// The destinations a submit_multi did not reach, 0 to 255, borrowed; checked once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnsuccessSmes<'a> {
    no_unsuccess: u8,
    octets: &'a [u8],
}

impl<'a> UnsuccessSmes<'a> {
    /// Every destination was reached.
    pub const EMPTY: Self = Self { no_unsuccess: 0, octets: &[] };

    /// Takes `no_unsuccess` destinations that were written by [`UnsuccessSme::put`].
    pub fn new(no_unsuccess: u8, octets: &'a [u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(octets);
        let destinations = Self::read_list(no_unsuccess, &mut reader)?;
        if !reader.rest().is_empty() {
            return Err(Unreadable::refused(CommandStatus::ESME_RINVNUMDESTS, "no_unsuccess"));
        }
        Ok(destinations)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let no_unsuccess = reader.u8("no_unsuccess")?;
        Self::read_list(no_unsuccess, reader)
    }

    fn read_list(no_unsuccess: u8, reader: &mut Reader<'a>) -> Result<Self, Unreadable> {
        let begin = reader.rest();
        for _ in 0..no_unsuccess {
            UnsuccessSme::read(reader)?;
        }
        Ok(Self { no_unsuccess, octets: &begin[..begin.len() - reader.rest().len()] })
    }

    /// How many there are.
    pub const fn no_unsuccess(self) -> u8 {
        self.no_unsuccess
    }

    /// The destinations in wire order.
    pub fn iter(self) -> impl Iterator<Item = UnsuccessSme<'a>> + Clone {
        let mut reader = Reader::new(self.octets);
        std::iter::from_fn(move || UnsuccessSme::read(&mut reader).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submit_multi_to_nobody_is_refused_for_the_number_of_its_destinations() {
        let refused = |outcome: Result<_, Unreadable>| {
            outcome.map(|_: DestAddresses<'_>| ()).map_err(|error| error.status)
        };
        let number = Err(CommandStatus::ESME_RINVNUMDESTS);
        assert_eq!(refused(DestAddresses::new(0, b"")), number);
        assert_eq!(refused(Destination::read(&mut Reader::new(&[0]))), number);
        let mut octets = Vec::new();
        DestAddress::DistributionList(b"friends").put(&mut octets).expect("it fits");
        assert_eq!(refused(DestAddresses::new(1, &octets)), Ok(()));
        let flag = Err(CommandStatus::ESME_RINVDESTFLAG);
        assert_eq!(refused(DestAddresses::new(1, &[3, 0])), flag);
    }
}
