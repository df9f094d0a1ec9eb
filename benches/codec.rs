//! Octets to PDUs and back.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use smppd::pdu::receipt::{MessageState, Receipt};
use smppd::pdu::{
    Address, CommandId, CommandStatus, DataCoding, EsmClass, Framing, Npi, Pdu, RegisteredDelivery,
    ShortMessage, Tag, TlvBuf, Tlvs, Ton, next_frame,
};
use smppd::time::Timestamp;

const PDU_OCTETS_MAX: usize = 80 << 10;
const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const SUBMIT_SM: Pdu<'static> = Pdu::SubmitSm(MESSAGE);
const MESSAGE: ShortMessage<'static> = ShortMessage {
    service_type: b"",
    source: NUMBER,
    destination: Address { digits: b"447700900123", ..NUMBER },
    esm_class: EsmClass::DEFAULT,
    protocol_id: 0,
    priority_flag: 0,
    schedule_delivery_time: b"",
    validity_period: b"",
    registered_delivery: RegisteredDelivery(1),
    replace_if_present_flag: 0,
    data_coding: DataCoding::DEFAULT,
    sm_default_msg_id: 0,
    short_message: &[b'x'; 160],
    tlvs: Tlvs::EMPTY,
};

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    both_ways(&mut criterion, "submit_sm of 160 octets", &SUBMIT_SM);

    let mut text = Vec::new();
    Receipt {
        message_id: b"383361347590553600",
        submitted: 1,
        delivered: 1,
        submit_date: Timestamp::from_millis(1_790_000_000_000),
        done_date: Timestamp::from_millis(1_790_000_060_000),
        state: MessageState::DELIVERED,
        error: 0,
        text: b"hello",
    }
    .put(&mut text);
    let mut tlvs = TlvBuf::with_capacity(64);
    tlvs.put_c_octets(Tag::RECEIPTED_MESSAGE_ID, b"383361347590553600").expect("it fits");
    tlvs.put(Tag::MESSAGE_STATE, &[MessageState::DELIVERED.0]).expect("it fits");
    let receipt = Pdu::DeliverSm(ShortMessage {
        esm_class: EsmClass::RECEIPT,
        registered_delivery: RegisteredDelivery(0),
        short_message: &text,
        tlvs: tlvs.as_tlvs(),
        ..MESSAGE
    });
    both_ways(&mut criterion, "deliver_sm with a receipt", &receipt);

    a_read(&mut criterion);
    criterion.final_summary();
}

fn both_ways(criterion: &mut Criterion, name: &str, pdu: &Pdu<'_>) {
    let mut octets = Vec::new();
    criterion.bench_function(&format!("encode {name}"), |bencher| {
        bencher.iter(|| {
            octets.clear();
            black_box(pdu).encode(CommandStatus::ESME_ROK, 1, &mut octets)
        });
    });
    octets.clear();
    pdu.encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("encodable");
    criterion.bench_function(&format!("decode {name}"), |bencher| {
        bencher.iter(|| {
            let Framing::Frame(frame) = next_frame(black_box(&octets), PDU_OCTETS_MAX) else {
                panic!("a whole PDU")
            };
            assert!(black_box(frame.decode()).is_ok());
        });
    });
}

/// What one read of a busy connection brings.
fn a_read(criterion: &mut Criterion) {
    let mut octets = Vec::new();
    for sequence_number in 1..=100 {
        SUBMIT_SM.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("encodable");
    }
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(100));
    group.bench_function("decode a read of 100 submit_sm", |bencher| {
        bencher.iter(|| {
            let (mut rest, mut count) = (black_box(&octets[..]), 0);
            while let Framing::Frame(frame) = next_frame(rest, PDU_OCTETS_MAX) {
                rest = &rest[frame.header.command_length as usize..];
                assert_eq!(frame.header.command_id, CommandId::SUBMIT_SM);
                count += usize::from(black_box(frame.decode()).is_ok());
            }
            assert_eq!(count, 100);
        });
    });
    group.finish();
}
