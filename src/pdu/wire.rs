//! The basic field types: integers, C-Octet Strings and Octet Strings, read in place and appended.

use super::command::CommandStatus;
use super::frame::Unreadable;

/// A C-Octet String field of the specification: how it is called, how long it may be, what refuses it.
#[derive(Debug)]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// Most octets on the wire, the NUL included.
    pub octets_max: usize,
    /// The status for a value that is too long or otherwise wrong.
    pub status: CommandStatus,
}

impl Field {
    const fn new(name: &'static str, octets_max: usize, status: CommandStatus) -> Self {
        Self { name, octets_max, status }
    }
}

/// `system_id`
pub static SYSTEM_ID: Field = Field::new("system_id", 16, CommandStatus::ESME_RINVSYSID);
/// `password`
pub static PASSWORD: Field = Field::new("password", 9, CommandStatus::ESME_RINVPASWD);
/// `system_type`
pub static SYSTEM_TYPE: Field = Field::new("system_type", 13, CommandStatus::ESME_RINVSYSTYP);
/// `address_range`
pub static ADDRESS_RANGE: Field = Field::new("address_range", 41, CommandStatus::ESME_RBINDFAIL);
/// `service_type`
pub static SERVICE_TYPE: Field = Field::new("service_type", 6, CommandStatus::ESME_RINVSERTYP);
/// `source_addr`
pub static SOURCE_ADDR: Field = Field::new("source_addr", 21, CommandStatus::ESME_RINVSRCADR);
/// `source_addr` of data_sm and alert_notification
pub static SOURCE_ADDR_LONG: Field = Field::new("source_addr", 65, CommandStatus::ESME_RINVSRCADR);
/// `destination_addr`
pub static DESTINATION_ADDR: Field = Field::new("destination_addr", 21, CommandStatus::ESME_RINVDSTADR);
/// `destination_addr` of data_sm; also of cancel_sm, where some peers send as much
pub static DESTINATION_ADDR_LONG: Field = Field::new("destination_addr", 65, CommandStatus::ESME_RINVDSTADR);
/// `esme_addr`
pub static ESME_ADDR: Field = Field::new("esme_addr", 65, CommandStatus::ESME_RINVDSTADR);
/// `dl_name`
pub static DL_NAME: Field = Field::new("dl_name", 21, CommandStatus::ESME_RINVDLNAME);
/// `message_id`
pub static MESSAGE_ID: Field = Field::new("message_id", 65, CommandStatus::ESME_RINVMSGID);
/// `schedule_delivery_time`: empty or 16 characters, which whoever interprets it checks
pub static SCHEDULE_DELIVERY_TIME: Field =
    Field::new("schedule_delivery_time", 17, CommandStatus::ESME_RINVSCHED);
/// `validity_period`: empty or 16 characters, which whoever interprets it checks
pub static VALIDITY_PERIOD: Field = Field::new("validity_period", 17, CommandStatus::ESME_RINVEXPIRY);
/// `final_date`: empty, 16 characters, or 12 from some peers
pub static FINAL_DATE: Field = Field::new("final_date", 17, CommandStatus::ESME_RUNKNOWNERR);

/// A value that cannot stand in its field: longer than the specification allows, or with a NUL inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldTooLong {
    /// The specification's name of the field.
    pub field: &'static str,
}

impl std::fmt::Display for FieldTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the value of {} does not fit the field", self.field)
    }
}

impl std::error::Error for FieldTooLong {}

/// What is left to read of a body.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first octet of `body`.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The octets not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads `N` integers of one octet each, or one of several octets; `field` is the last of them.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Unreadable> {
        match self.rest.split_first_chunk() {
            Some((octets, rest)) => {
                self.rest = rest;
                Ok(*octets)
            }
            None => Err(Unreadable::truncated(field)),
        }
    }

    /// Reads an integer of one octet.
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, Unreadable> {
        let [octet] = self.array(field)?;
        Ok(octet)
    }

    /// Reads an integer of four octets, the most significant first.
    #[inline]
    pub fn u32(&mut self, field: &'static str) -> Result<u32, Unreadable> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Reads a C-Octet String and gives its characters without the NUL.
    #[inline]
    pub fn c_octets(&mut self, field: &'static Field) -> Result<&'a [u8], Unreadable> {
        let window = &self.rest[..self.rest.len().min(field.octets_max)];
        match nul_position(window) {
            Some(end) => {
                let value = &self.rest[..end];
                self.rest = &self.rest[end + 1..];
                Ok(value)
            }
            None => Err(self.without_nul(field)),
        }
    }

    /// Reads sm_length and as many octets of short_message.
    #[inline]
    pub fn short_message(&mut self) -> Result<&'a [u8], Unreadable> {
        let sm_length = usize::from(self.u8("sm_length")?);
        match self.rest.split_at_checked(sm_length) {
            Some((short_message, rest)) => {
                self.rest = rest;
                Ok(short_message)
            }
            None => Err(Unreadable::refused(CommandStatus::ESME_RINVMSGLEN, "short_message")),
        }
    }

    /// Too long if a NUL comes later, cut off if none comes at all.
    #[cold]
    fn without_nul(&self, field: &'static Field) -> Unreadable {
        match nul_position(self.rest) {
            Some(_) => Unreadable::refused(field.status, field.name),
            None => Unreadable::truncated(field.name),
        }
    }
}

/// Where the first NUL is, eight octets at a time.
#[inline]
fn nul_position(octets: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    const HIGH_BITS: u64 = ONES << 7;

    let (words, tail) = octets.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A borrow can only mark octets after the first NUL, so the lowest mark is right.
        let marks = word.wrapping_sub(ONES) & !word & HIGH_BITS;
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let read = octets.len() - tail.len();
    tail.iter().position(|&octet| octet == 0).map(|index| read + index)
}

/// Appends a C-Octet String: the characters of `value` and a NUL.
#[inline]
pub fn put_c_octets(field: &'static Field, value: &[u8], out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
    // A NUL inside would end the field early and turn the rest into other fields.
    if value.len() >= field.octets_max || nul_position(value).is_some() {
        return Err(FieldTooLong { field: field.name });
    }
    out.extend_from_slice(value);
    out.push(0);
    Ok(())
}

/// Appends sm_length and short_message, 255 octets at most.
#[inline]
pub fn put_short_message(short_message: &[u8], out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
    let sm_length = u8::try_from(short_message.len()).map_err(|_| FieldTooLong { field: "short_message" })?;
    out.push(sm_length);
    out.extend_from_slice(short_message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nul_is_found_wherever_it_is() {
        for len in 0..40 {
            for first in 0..len {
                let mut octets = vec![0x01; len];
                octets[first] = 0;
                // 0x80 and 0x01 next to a NUL are the ones a borrow could mark.
                octets[first + 1..].fill(0);
                assert_eq!(nul_position(&octets), Some(first));
                octets[..first].fill(0x80);
                assert_eq!(nul_position(&octets), Some(first));
            }
            assert_eq!(nul_position(&vec![0xFF; len]), None);
        }
    }

    #[test]
    fn a_field_is_as_long_as_the_specification_lets_it_be() {
        for (field, characters) in [
            (&SYSTEM_ID, 15),
            (&PASSWORD, 8),
            (&SYSTEM_TYPE, 12),
            (&ADDRESS_RANGE, 40),
            (&SERVICE_TYPE, 5),
            (&SOURCE_ADDR, 20),
            (&SOURCE_ADDR_LONG, 64),
            (&DESTINATION_ADDR, 20),
            (&DESTINATION_ADDR_LONG, 64),
            (&ESME_ADDR, 64),
            (&DL_NAME, 20),
            (&MESSAGE_ID, 64),
            (&SCHEDULE_DELIVERY_TIME, 16),
            (&VALIDITY_PERIOD, 16),
            (&FINAL_DATE, 16),
        ] {
            for length in [0, 1, characters - 1, characters, characters + 1] {
                let value = vec![b'x'; length];
                let mut octets = Vec::new();
                let put = put_c_octets(field, &value, &mut octets);
                assert_eq!(put.is_ok(), length <= characters, "{} {length}", field.name);
                assert_eq!(octets.len(), if put.is_ok() { length + 1 } else { 0 }, "{}", field.name);
                // Whatever somebody else puts there.
                let octets = [&value[..], &[0, 7]].concat();
                let mut reader = Reader::new(&octets);
                match reader.c_octets(field) {
                    Ok(read) => {
                        assert!(length <= characters, "{} {length}", field.name);
                        assert_eq!((read, reader.rest()), (&value[..], &[7][..]), "{}", field.name);
                    }
                    Err(error) => {
                        assert!(length > characters, "{} {length}", field.name);
                        assert_eq!((error.status, error.field), (field.status, field.name));
                    }
                }
            }
            assert!(put_c_octets(field, b"a\0", &mut Vec::new()).is_err(), "{}", field.name);
        }
    }
}
