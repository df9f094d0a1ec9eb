//! Framing: where a PDU begins and ends in the stream, and its sixteen octets of header.

use super::Pdu;
use super::command::{CommandId, CommandStatus};

/// Size of the header, and so of the smallest PDU, in octets (spec v5.0 §3.2).
pub const HEADER_OCTETS: usize = 16;

/// The four integers every PDU begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Size of the whole PDU in octets, this field included.
    pub command_length: u32,
    /// The operation.
    pub command_id: CommandId,
    /// The result in a response; whatever the peer put there in a request.
    pub command_status: CommandStatus,
    /// Ties a response to its request. Any value is taken, 0 and those above 0x7FFFFFFF included.
    pub sequence_number: u32,
}

/// One PDU: its header, and its body still undecoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The header; `command_length` octets of the stream are this frame.
    pub header: Header,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What the next octets of a stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing<'a> {
    /// A whole PDU.
    Frame(Frame<'a>),
    /// The beginning of a PDU.
    Incomplete,
    /// A command_length below 16 or above the limit: nothing behind it can be trusted.
    Broken {
        /// What generic_nack answers with; 0 if the header cannot be trusted or is not there.
        sequence_number: u32,
    },
}

/// Finds the PDU that `octets` begins with, which may take `pdu_octets_max` octets.
pub fn next_frame(octets: &[u8], pdu_octets_max: usize) -> Framing<'_> {
    let Some((length, _)) = octets.split_first_chunk() else { return Framing::Incomplete };
    let command_length = u32::from_be_bytes(*length) as usize;
    if command_length < HEADER_OCTETS {
        return Framing::Broken { sequence_number: 0 };
    }
    let Some((header, rest)) = octets.split_first_chunk() else {
        return if command_length > pdu_octets_max {
            Framing::Broken { sequence_number: 0 }
        } else {
            Framing::Incomplete
        };
    };
    let header = Header::read(header);
    if command_length > pdu_octets_max {
        return Framing::Broken { sequence_number: header.sequence_number };
    }
    match rest.get(..command_length - HEADER_OCTETS) {
        Some(body) => Framing::Frame(Frame { header, body }),
        None => Framing::Incomplete,
    }
}

impl Header {
    fn read(octets: &[u8; HEADER_OCTETS]) -> Self {
        let [l0, l1, l2, l3, i0, i1, i2, i3, s0, s1, s2, s3, n0, n1, n2, n3] = *octets;
        Self {
            command_length: u32::from_be_bytes([l0, l1, l2, l3]),
            command_id: CommandId(u32::from_be_bytes([i0, i1, i2, i3])),
            command_status: CommandStatus(u32::from_be_bytes([s0, s1, s2, s3])),
            sequence_number: u32::from_be_bytes([n0, n1, n2, n3]),
        }
    }
}

impl<'a> Frame<'a> {
    /// Decodes the body in place. A response always decodes: nobody may answer it, so what cannot
    /// be read of it is left to its status ([`Pdu::StatusOnly`]).
    pub fn decode(&self) -> Result<Pdu<'a>, Unreadable> {
        if self.header.command_id.is_response() {
            Ok(Pdu::read_response(&self.header, self.body))
        } else {
            Pdu::read_request(self.header.command_id, self.body).map_err(|unreadable| {
                if self.header.command_id.has_response() {
                    unreadable
                } else {
                    Unreadable { answer: Answer::GenericNack, ..unreadable }
                }
            })
        }
    }
}

/// A request that cannot be decoded but can be answered; the session lives on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// What to answer.
    pub status: CommandStatus,
    /// With which PDU to answer.
    pub answer: Answer,
    /// Where decoding stopped: the specification's name of the field or TLV.
    pub field: &'static str,
}

/// The PDU that tells a peer about its error, header only and with its sequence_number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// generic_nack: the request was not understood as that request.
    GenericNack,
    /// The response of the request's own operation.
    OwnResponse,
}

impl Unreadable {
    /// The body ends inside `field`.
    #[cold]
    pub(super) fn truncated(field: &'static str) -> Self {
        Self { status: CommandStatus::ESME_RINVCMDLEN, answer: Answer::GenericNack, field }
    }

    /// The operation is none of the specification's.
    #[cold]
    pub(super) fn unknown_command() -> Self {
        Self { status: CommandStatus::ESME_RINVCMDID, answer: Answer::GenericNack, field: "command_id" }
    }

    /// `field` holds what `status` says.
    #[cold]
    pub(super) fn refused(status: CommandStatus, field: &'static str) -> Self {
        Self { status, answer: Answer::OwnResponse, field }
    }
}

/// Appends a PDU without a body, which is how every error response goes out.
pub fn put_header_only(
    command_id: CommandId,
    status: CommandStatus,
    sequence_number: u32,
    out: &mut Vec<u8>,
) {
    let mut header = [0; HEADER_OCTETS];
    header[..4].copy_from_slice(&(HEADER_OCTETS as u32).to_be_bytes());
    header[4..8].copy_from_slice(&command_id.0.to_be_bytes());
    header[8..12].copy_from_slice(&status.0.to_be_bytes());
    header[12..].copy_from_slice(&sequence_number.to_be_bytes());
    out.extend_from_slice(&header);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENQUIRE_LINK: [u8; 16] = [0, 0, 0, 16, 0, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, 7];

    #[test]
    fn a_frame_ends_at_command_length() {
        let mut stream = ENQUIRE_LINK.to_vec();
        stream.extend_from_slice(&[0xFF; 20]);
        let Framing::Frame(frame) = next_frame(&stream, 16) else { panic!("a whole PDU is there") };
        assert_eq!(frame.header.command_id, CommandId::ENQUIRE_LINK);
        assert_eq!(frame.header.sequence_number, 7);
        assert!(frame.body.is_empty());
        for end in 0..16 {
            assert_eq!(next_frame(&stream[..end], 16), Framing::Incomplete);
        }
    }

    #[test]
    fn a_length_that_cannot_be_breaks_the_stream() {
        let mut stream = ENQUIRE_LINK;
        stream[3] = 15;
        assert_eq!(next_frame(&stream, 64), Framing::Broken { sequence_number: 0 });
        assert_eq!(next_frame(&stream[..4], 64), Framing::Broken { sequence_number: 0 });
        stream[3] = 65;
        assert_eq!(next_frame(&stream, 64), Framing::Broken { sequence_number: 7 });
        assert_eq!(next_frame(&stream[..15], 64), Framing::Broken { sequence_number: 0 });
        stream[3] = 64;
        assert_eq!(next_frame(&stream, 64), Framing::Incomplete);
    }
}
