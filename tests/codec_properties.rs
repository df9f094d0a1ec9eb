//! What holds for every PDU: it survives the wire, nothing a peer sends makes the codec panic, and
//! another implementation reads it as we do.

use std::fs;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength;
use rusmpp_core::encode::{Encode, Length};
use rusmpp_core::pdus::owned as theirs;
use rusmpp_core::tlvs::owned::Tlv as TheirTlv;
use rusmpp_core::values::owned::DestAddress as TheirDestAddress;
use smppd::pdu::{
    Address, AlertNotification, Bind, BindResp, BroadcastSm, CancelBroadcastSm, CancelSm, CommandId,
    CommandStatus, DataCoding, DataSm, DestAddress, DestAddresses, EsmClass, FieldTooLong, Frame, Framing,
    InterfaceVersion, MessageIdResp, Npi, Outbind, Pdu, QuerySm, QuerySmResp, RegisteredDelivery, ReplaceSm,
    ShortMessage, SubmitMulti, SubmitMultiResp, Tag, Tlvs, Ton, UnsuccessSme, UnsuccessSmes, next_frame,
    put_tlv,
};

const PDU_OCTETS_MAX: usize = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pdu_survives_the_wire(values in values(1..=255), status: u32, sequence_number: u32) {
        for pdu in values.pdus() {
            // Of a response with an error, the body does not count.
            let is_error = matches!(pdu, Pdu::StatusOnly { .. });
            let status = if is_error { CommandStatus(status.max(1)) } else { CommandStatus::ESME_ROK };
            let mut out = Vec::new();
            prop_assert_eq!(pdu.encode(status, sequence_number, &mut out), Ok(()));
            let frame = frame(&out);
            prop_assert_eq!(frame.header.command_length as usize, out.len());
            prop_assert_eq!(frame.header.command_id, pdu.command_id());
            prop_assert_eq!(frame.header.command_status, status);
            prop_assert_eq!(frame.header.sequence_number, sequence_number);
            prop_assert_eq!(frame.decode(), Ok(pdu));
        }
    }

    #[test]
    fn a_value_that_does_not_fit_leaves_no_trace(values in values(1..=255)) {
        let mut with_nul = values.text_64.clone();
        with_nul.push(0);
        let too_long = [b'7'; 256];
        for wrong in [&too_long[..], &with_nul[..]] {
            let source = Address { digits: wrong, ..values.source() };
            let refused = [
                (Pdu::BindReceiver(Bind { system_id: wrong, ..values.bind() }), "system_id"),
                (Pdu::SubmitSm(ShortMessage { source, ..values.short_message() }), "source_addr"),
                (Pdu::DataSm(DataSm { source, ..values.data_sm() }), "source_addr"),
                (Pdu::SubmitSmResp(MessageIdResp { message_id: wrong, tlvs: Tlvs::EMPTY }), "message_id"),
            ];
            for (pdu, field) in refused {
                let mut out = b"before".to_vec();
                prop_assert_eq!(pdu.encode(CommandStatus::ESME_ROK, 1, &mut out), Err(FieldTooLong { field }));
                prop_assert_eq!(&out[..], b"before");
            }
        }
        let long_text = ShortMessage { short_message: &too_long, ..values.short_message() };
        let written = Pdu::DeliverSm(long_text).encode(CommandStatus::ESME_ROK, 1, &mut Vec::new());
        prop_assert_eq!(written, Err(FieldTooLong { field: "short_message" }));
    }

    #[test]
    fn they_read_what_we_write_and_we_read_what_they_write(values in values(0x20..=0x7E), sequence_number: u32) {
        cross_check(&values, sequence_number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_octets_are_answered_or_read(octets in vec(any::<u8>(), 0..600), known in 0..COMMANDS.len()) {
        read_all(&octets);
        // The same behind a header that leads to each decoder.
        let mut pdu = Vec::new();
        smppd::pdu::put_header_only(COMMANDS[known], CommandStatus::ESME_ROK, 1, &mut pdu);
        pdu.extend_from_slice(&octets);
        fix_length(&mut pdu);
        read_all(&pdu);
    }

    #[test]
    fn mutated_pdus_are_answered_or_read(
        vector in any::<prop::sample::Index>(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cuts: bool,
    ) {
        let vectors = VECTORS.with(Clone::clone);
        let mut octets = vector.get(&vectors).clone();
        for (position, octet) in mutations {
            let position = position.index(octets.len());
            octets[position] = octet;
        }
        if cuts {
            octets.truncate(16 + cut.index(octets.len() - 15));
        }
        read_all(&octets);
        fix_length(&mut octets);
        read_all(&octets);
    }
}

/// Reads a stream to its end. What decodes must also encode to the same octets.
fn read_all(mut octets: &[u8]) {
    while let Framing::Frame(frame) = next_frame(octets, PDU_OCTETS_MAX) {
        let (this, rest) = octets.split_at(frame.header.command_length as usize);
        octets = rest;
        let decoded = frame.decode();
        assert!(!format!("{decoded:?}").is_empty());
        let Ok(pdu) = decoded else {
            assert!(!frame.header.command_id.is_response(), "a response cannot be answered");
            continue;
        };
        let mut out = Vec::new();
        pdu.encode(frame.header.command_status, frame.header.sequence_number, &mut out)
            .expect("it was decoded");
        if out.len() > 16 {
            assert_eq!(out, this);
        } else {
            assert_eq!(out[4..16], this[4..16], "only what is behind the header may be ignored");
        }
    }
}

fn frame(octets: &[u8]) -> Frame<'_> {
    match next_frame(octets, PDU_OCTETS_MAX) {
        Framing::Frame(frame) => frame,
        Framing::Incomplete | Framing::Broken { .. } => panic!("not a whole PDU: {octets:02x?}"),
    }
}

fn fix_length(pdu: &mut [u8]) {
    let length = pdu.len() as u32;
    pdu[..4].copy_from_slice(&length.to_be_bytes());
}

thread_local! {
    static VECTORS: std::rc::Rc<Vec<Vec<u8>>> = std::rc::Rc::new(vectors());
}

/// The valid vectors that are not too long to be mutated usefully.
fn vectors() -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/valid.jsonl");
    let text = fs::read_to_string(path).expect("the vectors are part of the project");
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("hex has hex digits") as u8;
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"))
        .map(|vector| vector["hex"].as_str().expect("hex is text").to_owned())
        .map(|hex| hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
        .filter(|octets: &Vec<u8>| octets.len() < 2000)
        .collect()
}

const COMMANDS: [CommandId; 17] = [
    CommandId::BIND_RECEIVER,
    CommandId::BIND_TRANSMITTER_RESP,
    CommandId::OUTBIND,
    CommandId::SUBMIT_SM,
    CommandId::SUBMIT_SM_RESP,
    CommandId::SUBMIT_MULTI,
    CommandId::SUBMIT_MULTI_RESP,
    CommandId::DATA_SM,
    CommandId::QUERY_SM,
    CommandId::QUERY_SM_RESP,
    CommandId::CANCEL_SM,
    CommandId::REPLACE_SM,
    CommandId::ALERT_NOTIFICATION,
    CommandId::BROADCAST_SM,
    CommandId::QUERY_BROADCAST_SM,
    CommandId::CANCEL_BROADCAST_SM,
    CommandId::UNBIND,
];

/// Values for the fields of every PDU, named by how long they may be.
#[derive(Clone, Debug)]
struct Values {
    text_5: Vec<u8>,
    text_8: Vec<u8>,
    text_12: Vec<u8>,
    text_15: Vec<u8>,
    text_20: [Vec<u8>; 2],
    text_40: Vec<u8>,
    text_64: Vec<u8>,
    times: [Vec<u8>; 2],
    numbers: [u8; 16],
    short_message: Vec<u8>,
    tlvs: Vec<u8>,
    number_of_dests: u8,
    dest_address: Vec<u8>,
    unsuccess_sme: Vec<u8>,
}

prop_compose! {
    /// Values whose characters are in `octets`.
    fn values(octets: std::ops::RangeInclusive<u8>)(
        (text_5, text_8, text_12, text_15) in
            (text(&octets, 5), text(&octets, 8), text(&octets, 12), text(&octets, 15)),
        text_20 in [text(&octets, 20), text(&octets, 20)],
        (text_40, text_64) in (text(&octets, 40), text(&octets, 64)),
        times in [time(&octets), time(&octets)],
        numbers: [u8; 16],
        short_message in vec(any::<u8>(), 0..=255),
        tlvs in vec(tlv(), 0..5),
        lists in vec((any::<bool>(), any::<u8>(), any::<u8>(), text(&octets, 20), any::<u32>()), 1..10),
    ) -> Values {
        let mut tlv_octets = Vec::new();
        for (tag, value) in tlvs {
            put_tlv(tag, &value, &mut tlv_octets).expect("the value is short");
        }
        let (mut dest_address, mut unsuccess_sme) = (Vec::new(), Vec::new());
        for (is_list, ton, npi, digits, status) in &lists {
            let destination = Address { ton: Ton(*ton), npi: Npi(*npi), digits };
            let dest = if *is_list { DestAddress::DistributionList(digits) } else { DestAddress::Sme(destination) };
            dest.put(&mut dest_address).expect("the digits fit");
            let sme = UnsuccessSme { destination, error_status_code: CommandStatus(*status) };
            sme.put(&mut unsuccess_sme).expect("the digits fit");
        }
        Values {
            text_5, text_8, text_12, text_15, text_20, text_40, text_64, times, numbers, short_message,
            tlvs: tlv_octets, number_of_dests: lists.len() as u8, dest_address, unsuccess_sme,
        }
    }
}

fn text(octets: &std::ops::RangeInclusive<u8>, max: usize) -> impl Strategy<Value = Vec<u8>> + use<> {
    vec(octets.clone(), 0..=max)
}

fn time(octets: &std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Vec<u8>> + use<> {
    prop_oneof![Just(Vec::new()), vec(octets.clone(), 16)]
}

/// TLVs that may stand in any PDU, with a length every implementation takes.
fn tlv() -> impl Strategy<Value = (Tag, Vec<u8>)> {
    let of_length = |tag: Tag, length: usize| vec(any::<u8>(), length).prop_map(move |value| (tag, value));
    prop_oneof![
        of_length(Tag::USER_MESSAGE_REFERENCE, 2),
        of_length(Tag::SOURCE_PORT, 2),
        of_length(Tag::SAR_TOTAL_SEGMENTS, 1),
        of_length(Tag::QOS_TIME_TO_LIVE, 4),
        vec(any::<u8>(), 0..700).prop_map(|value| (Tag::MESSAGE_PAYLOAD, value)),
        (0x1400..=0x3FFF_u16, vec(any::<u8>(), 0..40)).prop_map(|(tag, value)| (Tag(tag), value)),
    ]
}

impl Values {
    fn source(&self) -> Address<'_> {
        Address { ton: Ton(self.numbers[0]), npi: Npi(self.numbers[1]), digits: &self.text_20[0] }
    }

    fn destination(&self) -> Address<'_> {
        Address { ton: Ton(self.numbers[2]), npi: Npi(self.numbers[3]), digits: &self.text_20[1] }
    }

    fn long_address(&self) -> Address<'_> {
        Address { ton: Ton(self.numbers[4]), npi: Npi(self.numbers[5]), digits: &self.text_64 }
    }

    fn tlvs(&self) -> Tlvs<'_> {
        Tlvs::read(&self.tlvs, CommandId::DATA_SM).expect("the lengths are right")
    }

    fn bind(&self) -> Bind<'_> {
        Bind {
            system_id: &self.text_15,
            password: &self.text_8,
            system_type: &self.text_12,
            interface_version: InterfaceVersion(self.numbers[6]),
            address_range: Address {
                ton: Ton(self.numbers[0]),
                npi: Npi(self.numbers[1]),
                digits: &self.text_40,
            },
            tlvs: self.tlvs(),
        }
    }

    fn short_message(&self) -> ShortMessage<'_> {
        self.message_to(self.destination())
    }

    fn message_to<D>(&self, destination: D) -> ShortMessage<'_, D> {
        ShortMessage {
            service_type: &self.text_5,
            source: self.source(),
            destination,
            esm_class: EsmClass(self.numbers[7]),
            protocol_id: self.numbers[8],
            priority_flag: self.numbers[9],
            schedule_delivery_time: &self.times[0],
            validity_period: &self.times[1],
            registered_delivery: RegisteredDelivery(self.numbers[10]),
            replace_if_present_flag: self.numbers[11],
            data_coding: DataCoding(self.numbers[12]),
            sm_default_msg_id: self.numbers[13],
            short_message: &self.short_message,
            tlvs: self.tlvs(),
        }
    }

    fn submit_multi(&self) -> SubmitMulti<'_> {
        let destinations = DestAddresses::new(self.number_of_dests, &self.dest_address).expect("we wrote it");
        self.message_to(destinations)
    }

    fn submit_multi_resp(&self) -> SubmitMultiResp<'_> {
        SubmitMultiResp {
            message_id: &self.text_64,
            unsuccess_sme: UnsuccessSmes::new(self.number_of_dests, &self.unsuccess_sme)
                .expect("we wrote it"),
            tlvs: self.tlvs(),
        }
    }

    fn data_sm(&self) -> DataSm<'_> {
        DataSm {
            service_type: &self.text_5,
            source: self.source(),
            destination: self.destination(),
            esm_class: EsmClass(self.numbers[7]),
            registered_delivery: RegisteredDelivery(self.numbers[10]),
            data_coding: DataCoding(self.numbers[12]),
            tlvs: self.tlvs(),
        }
    }

    fn message_id_resp(&self) -> MessageIdResp<'_> {
        MessageIdResp { message_id: &self.text_64, tlvs: self.tlvs() }
    }

    fn query_sm_resp(&self) -> QuerySmResp<'_> {
        QuerySmResp {
            message_id: &self.text_64,
            final_date: &self.times[0],
            message_state: self.numbers[14],
            error_code: self.numbers[15],
            tlvs: self.tlvs(),
        }
    }

    /// One of every kind.
    fn pdus(&self) -> Vec<Pdu<'_>> {
        let (tlvs, message_id, service_type) = (self.tlvs(), &self.text_64[..], &self.text_5[..]);
        let (source, destination) = (self.source(), self.destination());
        let bind_resp = BindResp { system_id: &self.text_15, tlvs };
        let long = self.long_address();
        let pdus = vec![
            Pdu::BindReceiver(self.bind()),
            Pdu::BindReceiverResp(bind_resp),
            Pdu::BindTransmitter(self.bind()),
            Pdu::BindTransmitterResp(bind_resp),
            Pdu::BindTransceiver(self.bind()),
            Pdu::BindTransceiverResp(bind_resp),
            Pdu::Outbind(Outbind { system_id: &self.text_15, password: &self.text_8, tlvs }),
            Pdu::Unbind,
            Pdu::UnbindResp,
            Pdu::EnquireLink,
            Pdu::EnquireLinkResp,
            Pdu::GenericNack,
            Pdu::SubmitSm(self.short_message()),
            Pdu::SubmitSmResp(self.message_id_resp()),
            Pdu::SubmitMulti(self.submit_multi()),
            Pdu::SubmitMultiResp(self.submit_multi_resp()),
            Pdu::DeliverSm(self.short_message()),
            Pdu::DeliverSmResp(self.message_id_resp()),
            Pdu::DataSm(DataSm { source: long, destination: long, ..self.data_sm() }),
            Pdu::DataSmResp(self.message_id_resp()),
            Pdu::QuerySm(QuerySm { message_id, source, tlvs }),
            Pdu::QuerySmResp(self.query_sm_resp()),
            Pdu::CancelSm(CancelSm { service_type, message_id, source, destination, tlvs }),
            Pdu::CancelSmResp,
            Pdu::ReplaceSm(ReplaceSm {
                message_id,
                source,
                schedule_delivery_time: &self.times[0],
                validity_period: &self.times[1],
                registered_delivery: RegisteredDelivery(self.numbers[10]),
                sm_default_msg_id: self.numbers[13],
                short_message: &self.short_message,
                tlvs,
            }),
            Pdu::ReplaceSmResp,
            Pdu::AlertNotification(AlertNotification { source: long, esme: long, tlvs }),
            Pdu::BroadcastSm(BroadcastSm {
                service_type,
                source,
                message_id,
                priority_flag: self.numbers[9],
                schedule_delivery_time: &self.times[0],
                validity_period: &self.times[1],
                replace_if_present_flag: self.numbers[11],
                data_coding: DataCoding(self.numbers[12]),
                sm_default_msg_id: self.numbers[13],
                tlvs,
            }),
            Pdu::BroadcastSmResp(self.message_id_resp()),
            Pdu::QueryBroadcastSm(QuerySm { message_id, source, tlvs }),
            Pdu::QueryBroadcastSmResp(self.message_id_resp()),
            Pdu::CancelBroadcastSm(CancelBroadcastSm { service_type, message_id, source, tlvs }),
            Pdu::CancelBroadcastSmResp,
            Pdu::StatusOnly { command_id: CommandId::SUBMIT_SM_RESP },
        ];
        assert_eq!(pdus.len(), 33 + 1);
        pdus
    }
}

/// rusmpp-core reads each of our PDUs to the same fields, and writes them back as we read them.
fn cross_check(values: &Values, sequence_number: u32) {
    // rusmpp-core has no TLVs for these three, and keeps addresses of data_sm to 20 characters.
    let bind = Bind { tlvs: Tlvs::EMPTY, ..values.bind() };
    let bind_resp = BindResp { system_id: &values.text_15, tlvs: Tlvs::EMPTY };
    let query_sm_resp = QuerySmResp { tlvs: Tlvs::EMPTY, ..values.query_sm_resp() };
    let ours = [
        Pdu::BindTransceiver(bind),
        Pdu::BindTransceiverResp(bind_resp),
        Pdu::SubmitSm(values.short_message()),
        Pdu::SubmitSmResp(values.message_id_resp()),
        Pdu::DeliverSm(values.short_message()),
        Pdu::SubmitMulti(values.submit_multi()),
        Pdu::SubmitMultiResp(values.submit_multi_resp()),
        Pdu::DataSm(values.data_sm()),
        Pdu::QuerySmResp(query_sm_resp),
    ];
    for pdu in ours {
        let mut octets = Vec::new();
        pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("the values fit");

        let mut body = BytesMut::from(&octets[4..]);
        let (command, read) = Command::decode(&mut body, octets.len() - 4).expect("rusmpp-core reads it");
        assert_eq!(read, octets.len() - 4);
        assert_eq!(u32::from(command.id()), pdu.command_id().0);
        assert_eq!(command.sequence_number(), sequence_number);
        same_fields(&pdu, command.pdu().expect("there is a body"));

        let mut written = vec![0; 4 + command.length()];
        let length = written.len() as u32;
        written[..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(command.encode(&mut written[4..]), command.length());
        assert_eq!(frame(&written).decode(), Ok(pdu), "{written:?}\n{octets:?}");
    }
}

/// Compares what submit_sm, deliver_sm and submit_multi have in common.
macro_rules! same_message {
    ($ours:ident, $theirs:ident) => {
        same($ours.service_type, $theirs.service_type.value().as_str());
        assert_eq!($ours.source.ton.0, u8::from($theirs.source_addr_ton));
        assert_eq!($ours.source.npi.0, u8::from($theirs.source_addr_npi));
        same($ours.source.digits, $theirs.source_addr.as_str());
        assert_eq!($ours.esm_class.0, u8::from($theirs.esm_class));
        assert_eq!($ours.protocol_id, $theirs.protocol_id);
        assert_eq!($ours.priority_flag, u8::from($theirs.priority_flag));
        same($ours.schedule_delivery_time, $theirs.schedule_delivery_time.as_str());
        same($ours.validity_period, $theirs.validity_period.as_str());
        assert_eq!($ours.registered_delivery.0, u8::from($theirs.registered_delivery));
        assert_eq!($ours.replace_if_present_flag, u8::from($theirs.replace_if_present_flag));
        assert_eq!($ours.data_coding.0, u8::from($theirs.data_coding));
        assert_eq!($ours.sm_default_msg_id, $theirs.sm_default_msg_id);
        assert_eq!($ours.short_message.len(), usize::from($theirs.sm_length()));
        assert_eq!($ours.short_message, $theirs.short_message().as_ref());
        same_tlvs($ours.tlvs, $theirs.tlvs());
    };
}

/// Compares the destination of a PDU that has one.
macro_rules! same_destination {
    ($ours:ident, $theirs:ident) => {
        assert_eq!($ours.destination.ton.0, u8::from($theirs.dest_addr_ton));
        assert_eq!($ours.destination.npi.0, u8::from($theirs.dest_addr_npi));
        same($ours.destination.digits, $theirs.destination_addr.as_str());
    };
}

fn same_fields(ours: &Pdu<'_>, theirs: &theirs::Pdu) {
    match (ours, theirs) {
        (Pdu::BindTransceiver(ours), theirs::Pdu::BindTransceiver(theirs)) => {
            same(ours.system_id, theirs.system_id.as_str());
            same(ours.password, theirs.password.as_str());
            same(ours.system_type, theirs.system_type.as_str());
            assert_eq!(ours.interface_version.0, u8::from(theirs.interface_version));
            assert_eq!(ours.address_range.ton.0, u8::from(theirs.addr_ton));
            assert_eq!(ours.address_range.npi.0, u8::from(theirs.addr_npi));
            same(ours.address_range.digits, theirs.address_range.as_str());
        }
        (Pdu::BindTransceiverResp(ours), theirs::Pdu::BindTransceiverResp(theirs)) => {
            same(ours.system_id, theirs.system_id.as_str());
        }
        (Pdu::SubmitSm(ours), theirs::Pdu::SubmitSm(theirs)) => {
            same_message!(ours, theirs);
            same_destination!(ours, theirs);
        }
        (Pdu::DeliverSm(ours), theirs::Pdu::DeliverSm(theirs)) => {
            same_message!(ours, theirs);
            same_destination!(ours, theirs);
        }
        (Pdu::SubmitSmResp(ours), theirs::Pdu::SubmitSmResp(theirs)) => {
            same(ours.message_id, theirs.message_id().as_str());
            same_tlvs(ours.tlvs, theirs.tlvs());
        }
        (Pdu::SubmitMulti(ours), theirs::Pdu::SubmitMulti(theirs)) => {
            same_message!(ours, theirs);
            assert_eq!(ours.destination.number_of_dests(), theirs.number_of_dests());
            assert_eq!(ours.destination.iter().count(), theirs.dest_address().len());
            for (ours, theirs) in ours.destination.iter().zip(theirs.dest_address()) {
                same_dest_address(ours, theirs);
            }
        }
        (Pdu::SubmitMultiResp(ours), theirs::Pdu::SubmitMultiResp(theirs)) => {
            same(ours.message_id, theirs.message_id.as_str());
            assert_eq!(ours.unsuccess_sme.no_unsuccess(), theirs.no_unsuccess());
            assert_eq!(ours.unsuccess_sme.iter().count(), theirs.unsuccess_sme().len());
            for (ours, theirs) in ours.unsuccess_sme.iter().zip(theirs.unsuccess_sme()) {
                assert_eq!(ours.destination.ton.0, u8::from(theirs.dest_addr_ton));
                assert_eq!(ours.destination.npi.0, u8::from(theirs.dest_addr_npi));
                same(ours.destination.digits, theirs.destination_addr.as_str());
                assert_eq!(ours.error_status_code.0, u32::from(theirs.error_status_code));
            }
            same_tlvs(ours.tlvs, theirs.tlvs());
        }
        (Pdu::DataSm(ours), theirs::Pdu::DataSm(theirs)) => {
            same(ours.service_type, theirs.service_type.value().as_str());
            assert_eq!(ours.source.ton.0, u8::from(theirs.source_addr_ton));
            assert_eq!(ours.source.npi.0, u8::from(theirs.source_addr_npi));
            same(ours.source.digits, theirs.source_addr.as_str());
            same_destination!(ours, theirs);
            assert_eq!(ours.esm_class.0, u8::from(theirs.esm_class));
            assert_eq!(ours.registered_delivery.0, u8::from(theirs.registered_delivery));
            assert_eq!(ours.data_coding.0, u8::from(theirs.data_coding));
            same_tlvs(ours.tlvs, theirs.tlvs());
        }
        (Pdu::QuerySmResp(ours), theirs::Pdu::QuerySmResp(theirs)) => {
            same(ours.message_id, theirs.message_id.as_str());
            same(ours.final_date, theirs.final_date.as_str());
            assert_eq!(ours.message_state, u8::from(theirs.message_state));
            assert_eq!(ours.error_code, theirs.error_code);
        }
        (ours, theirs) => panic!("{ours:?} was read as {theirs:?}"),
    }
}

/// Compares C-Octet Strings; rusmpp-core keeps the NUL in some of its views.
fn same(ours: &[u8], theirs: &str) {
    assert_eq!(ours, theirs.trim_end_matches('\0').as_bytes());
}

fn same_dest_address(ours: DestAddress<'_>, theirs: &TheirDestAddress) {
    match (ours, theirs) {
        (DestAddress::Sme(ours), TheirDestAddress::SmeAddress(theirs)) => {
            assert_eq!(ours.ton.0, u8::from(theirs.dest_addr_ton));
            assert_eq!(ours.npi.0, u8::from(theirs.dest_addr_npi));
            same(ours.digits, theirs.destination_addr.as_str());
        }
        (DestAddress::DistributionList(ours), TheirDestAddress::DistributionListName(theirs)) => {
            same(ours, theirs.dl_name.as_str());
        }
        (ours, theirs) => panic!("{ours:?} was read as {theirs:?}"),
    }
}

fn same_tlvs(ours: Tlvs<'_>, theirs: &[TheirTlv]) {
    assert_eq!(ours.iter().count(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.tag.0, u16::from(theirs.tag()));
        let mut value = vec![0; ours.value.len()];
        assert_eq!(usize::from(theirs.value_length()), value.len());
        theirs.value().map(|theirs| theirs.encode(&mut value));
        assert_eq!(ours.value, value);
    }
}
