//! The wire format of SMPP: octets to values and back.
//!
//! [`next_frame`] finds a PDU in the stream, [`Frame::decode`] reads it without copying,
//! [`Pdu::encode`] appends it to a buffer.

pub mod address;
pub mod bind;
pub mod broadcast;
pub mod coding;
pub mod command;
pub mod data;
pub mod frame;
pub mod link;
pub mod manage;
pub mod multi;
pub mod receipt;
pub mod segment;
pub mod short_message;
pub mod tlv;
pub mod udh;
pub mod wire;

pub use address::{Address, Npi, Ton};
pub use bind::{Bind, BindResp, Outbind};
pub use broadcast::{BroadcastSm, CancelBroadcastSm};
pub use coding::{Alphabet, DataCoding, Unmappable};
pub use command::{CommandId, CommandStatus, InterfaceVersion};
pub use data::DataSm;
pub use frame::{Answer, Frame, Framing, HEADER_OCTETS, Header, Unreadable, next_frame, put_header_only};
pub use link::AlertNotification;
pub use manage::{CancelSm, QuerySm, QuerySmResp, ReplaceSm};
pub use multi::{DestAddress, DestAddresses, SubmitMulti, SubmitMultiResp, UnsuccessSme, UnsuccessSmes};
pub use short_message::{
    EsmClass, MessageIdResp, MessagingMode, ReceiptRequest, RegisteredDelivery, ShortMessage,
};
pub use tlv::{Tag, Tlv, TlvBuf, Tlvs, put_tlv};
pub use udh::{Concatenation, InvalidUdh, Reference, Udh};
pub use wire::FieldTooLong;

/// A PDU without its header: the operation and its fields, borrowed from the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the variants are the specification's operations")]
pub enum Pdu<'a> {
    BindReceiver(Bind<'a>),
    BindReceiverResp(BindResp<'a>),
    BindTransmitter(Bind<'a>),
    BindTransmitterResp(BindResp<'a>),
    BindTransceiver(Bind<'a>),
    BindTransceiverResp(BindResp<'a>),
    Outbind(Outbind<'a>),
    Unbind,
    UnbindResp,
    EnquireLink,
    EnquireLinkResp,
    GenericNack,
    SubmitSm(ShortMessage<'a>),
    SubmitSmResp(MessageIdResp<'a>),
    SubmitMulti(SubmitMulti<'a>),
    SubmitMultiResp(SubmitMultiResp<'a>),
    DeliverSm(ShortMessage<'a>),
    DeliverSmResp(MessageIdResp<'a>),
    DataSm(DataSm<'a>),
    DataSmResp(MessageIdResp<'a>),
    QuerySm(QuerySm<'a>),
    QuerySmResp(QuerySmResp<'a>),
    CancelSm(CancelSm<'a>),
    CancelSmResp,
    ReplaceSm(ReplaceSm<'a>),
    ReplaceSmResp,
    AlertNotification(AlertNotification<'a>),
    BroadcastSm(BroadcastSm<'a>),
    BroadcastSmResp(MessageIdResp<'a>),
    QueryBroadcastSm(QuerySm<'a>),
    QueryBroadcastSmResp(MessageIdResp<'a>),
    CancelBroadcastSm(CancelBroadcastSm<'a>),
    CancelBroadcastSmResp,
    /// A response that says no more than its command_status: because it is an error, because the
    /// body is missing or cannot be read, or because the operation is unknown.
    StatusOnly {
        command_id: CommandId,
    },
}

impl<'a> Pdu<'a> {
    /// The operation.
    pub const fn command_id(&self) -> CommandId {
        match self {
            Self::BindReceiver(_) => CommandId::BIND_RECEIVER,
            Self::BindReceiverResp(_) => CommandId::BIND_RECEIVER_RESP,
            Self::BindTransmitter(_) => CommandId::BIND_TRANSMITTER,
            Self::BindTransmitterResp(_) => CommandId::BIND_TRANSMITTER_RESP,
            Self::BindTransceiver(_) => CommandId::BIND_TRANSCEIVER,
            Self::BindTransceiverResp(_) => CommandId::BIND_TRANSCEIVER_RESP,
            Self::Outbind(_) => CommandId::OUTBIND,
            Self::Unbind => CommandId::UNBIND,
            Self::UnbindResp => CommandId::UNBIND_RESP,
            Self::EnquireLink => CommandId::ENQUIRE_LINK,
            Self::EnquireLinkResp => CommandId::ENQUIRE_LINK_RESP,
            Self::GenericNack => CommandId::GENERIC_NACK,
            Self::SubmitSm(_) => CommandId::SUBMIT_SM,
            Self::SubmitSmResp(_) => CommandId::SUBMIT_SM_RESP,
            Self::SubmitMulti(_) => CommandId::SUBMIT_MULTI,
            Self::SubmitMultiResp(_) => CommandId::SUBMIT_MULTI_RESP,
            Self::DeliverSm(_) => CommandId::DELIVER_SM,
            Self::DeliverSmResp(_) => CommandId::DELIVER_SM_RESP,
            Self::DataSm(_) => CommandId::DATA_SM,
            Self::DataSmResp(_) => CommandId::DATA_SM_RESP,
            Self::QuerySm(_) => CommandId::QUERY_SM,
            Self::QuerySmResp(_) => CommandId::QUERY_SM_RESP,
            Self::CancelSm(_) => CommandId::CANCEL_SM,
            Self::CancelSmResp => CommandId::CANCEL_SM_RESP,
            Self::ReplaceSm(_) => CommandId::REPLACE_SM,
            Self::ReplaceSmResp => CommandId::REPLACE_SM_RESP,
            Self::AlertNotification(_) => CommandId::ALERT_NOTIFICATION,
            Self::BroadcastSm(_) => CommandId::BROADCAST_SM,
            Self::BroadcastSmResp(_) => CommandId::BROADCAST_SM_RESP,
            Self::QueryBroadcastSm(_) => CommandId::QUERY_BROADCAST_SM,
            Self::QueryBroadcastSmResp(_) => CommandId::QUERY_BROADCAST_SM_RESP,
            Self::CancelBroadcastSm(_) => CommandId::CANCEL_BROADCAST_SM,
            Self::CancelBroadcastSmResp => CommandId::CANCEL_BROADCAST_SM_RESP,
            Self::StatusOnly { command_id } => *command_id,
        }
    }

    /// Appends the whole PDU. If a value does not fit its field, `out` stays as it was.
    ///
    /// A response with an error is a [`Pdu::StatusOnly`]; other bodies are written whatever `status` is.
    pub fn encode(
        &self,
        status: CommandStatus,
        sequence_number: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), FieldTooLong> {
        let begin = out.len();
        put_header_only(self.command_id(), status, sequence_number, out);
        let written = self.put_body(out).and_then(|()| put_command_length(begin, out));
        if written.is_err() {
            out.truncate(begin);
        }
        written
    }

    fn put_body(&self, out: &mut Vec<u8>) -> Result<(), FieldTooLong> {
        match self {
            Self::BindReceiver(body) | Self::BindTransmitter(body) | Self::BindTransceiver(body) => {
                body.put(out)
            }
            Self::BindReceiverResp(body)
            | Self::BindTransmitterResp(body)
            | Self::BindTransceiverResp(body) => body.put(out),
            Self::Outbind(body) => body.put(out),
            Self::SubmitSm(body) | Self::DeliverSm(body) => body.put(out),
            Self::SubmitSmResp(body)
            | Self::DeliverSmResp(body)
            | Self::DataSmResp(body)
            | Self::BroadcastSmResp(body)
            | Self::QueryBroadcastSmResp(body) => body.put(out),
            Self::SubmitMulti(body) => body.put(out),
            Self::SubmitMultiResp(body) => body.put(out),
            Self::DataSm(body) => body.put(out),
            Self::QuerySm(body) | Self::QueryBroadcastSm(body) => body.put(out),
            Self::QuerySmResp(body) => body.put(out),
            Self::CancelSm(body) => body.put(out),
            Self::ReplaceSm(body) => body.put(out),
            Self::AlertNotification(body) => body.put(out),
            Self::BroadcastSm(body) => body.put(out),
            Self::CancelBroadcastSm(body) => body.put(out),
            Self::Unbind
            | Self::UnbindResp
            | Self::EnquireLink
            | Self::EnquireLinkResp
            | Self::GenericNack
            | Self::CancelSmResp
            | Self::ReplaceSmResp
            | Self::CancelBroadcastSmResp
            | Self::StatusOnly { .. } => Ok(()),
        }
    }

    /// Decodes a request. Octets behind one that has no body are ignored.
    fn read_request(id: CommandId, body: &'a [u8]) -> Result<Self, Unreadable> {
        match id {
            CommandId::SUBMIT_SM => ShortMessage::read(body, id).map(Self::SubmitSm),
            CommandId::DELIVER_SM => ShortMessage::read(body, id).map(Self::DeliverSm),
            CommandId::DATA_SM => DataSm::read(body, id).map(Self::DataSm),
            CommandId::SUBMIT_MULTI => SubmitMulti::read(body, id).map(Self::SubmitMulti),
            CommandId::ENQUIRE_LINK => Ok(Self::EnquireLink),
            CommandId::UNBIND => Ok(Self::Unbind),
            CommandId::BIND_RECEIVER => Bind::read(body, id).map(Self::BindReceiver),
            CommandId::BIND_TRANSMITTER => Bind::read(body, id).map(Self::BindTransmitter),
            CommandId::BIND_TRANSCEIVER => Bind::read(body, id).map(Self::BindTransceiver),
            CommandId::OUTBIND => Outbind::read(body, id).map(Self::Outbind),
            CommandId::QUERY_SM => QuerySm::read(body, id).map(Self::QuerySm),
            CommandId::CANCEL_SM => CancelSm::read(body, id).map(Self::CancelSm),
            CommandId::REPLACE_SM => ReplaceSm::read(body, id).map(Self::ReplaceSm),
            CommandId::ALERT_NOTIFICATION => AlertNotification::read(body, id).map(Self::AlertNotification),
            CommandId::BROADCAST_SM => BroadcastSm::read(body, id).map(Self::BroadcastSm),
            CommandId::QUERY_BROADCAST_SM => QuerySm::read(body, id).map(Self::QueryBroadcastSm),
            CommandId::CANCEL_BROADCAST_SM => CancelBroadcastSm::read(body, id).map(Self::CancelBroadcastSm),
            _ => Err(Unreadable::unknown_command()),
        }
    }

    /// Decodes a response, or leaves it at its status.
    fn read_response(header: &Header, body: &'a [u8]) -> Self {
        let id = header.command_id;
        let status_only = Self::StatusOnly { command_id: id };
        match id {
            CommandId::ENQUIRE_LINK_RESP => return Self::EnquireLinkResp,
            CommandId::UNBIND_RESP => return Self::UnbindResp,
            CommandId::GENERIC_NACK => return Self::GenericNack,
            CommandId::CANCEL_SM_RESP => return Self::CancelSmResp,
            CommandId::REPLACE_SM_RESP => return Self::ReplaceSmResp,
            CommandId::CANCEL_BROADCAST_SM_RESP => return Self::CancelBroadcastSmResp,
            _ if header.command_status != CommandStatus::ESME_ROK || body.is_empty() => return status_only,
            _ => {}
        }
        let response = match id {
            CommandId::DELIVER_SM_RESP => MessageIdResp::read(body, id).map(Self::DeliverSmResp),
            CommandId::SUBMIT_SM_RESP => MessageIdResp::read(body, id).map(Self::SubmitSmResp),
            CommandId::DATA_SM_RESP => MessageIdResp::read(body, id).map(Self::DataSmResp),
            CommandId::SUBMIT_MULTI_RESP => SubmitMultiResp::read(body, id).map(Self::SubmitMultiResp),
            CommandId::BIND_RECEIVER_RESP => BindResp::read(body, id).map(Self::BindReceiverResp),
            CommandId::BIND_TRANSMITTER_RESP => BindResp::read(body, id).map(Self::BindTransmitterResp),
            CommandId::BIND_TRANSCEIVER_RESP => BindResp::read(body, id).map(Self::BindTransceiverResp),
            CommandId::QUERY_SM_RESP => QuerySmResp::read(body, id).map(Self::QuerySmResp),
            CommandId::BROADCAST_SM_RESP => MessageIdResp::read(body, id).map(Self::BroadcastSmResp),
            CommandId::QUERY_BROADCAST_SM_RESP => {
                MessageIdResp::read(body, id).map(Self::QueryBroadcastSmResp)
            }
            _ => return status_only,
        };
        response.unwrap_or(status_only)
    }
}

/// Writes the length of the PDU that begins at `begin` into its header.
fn put_command_length(begin: usize, out: &mut [u8]) -> Result<(), FieldTooLong> {
    let command_length =
        u32::try_from(out.len() - begin).map_err(|_| FieldTooLong { field: "command_length" })?;
    out[begin..begin + 4].copy_from_slice(&command_length.to_be_bytes());
    Ok(())
}
