//! A session at work: a read of submit_sm, each answered.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use smppd::pdu::{
    Address, Bind, CommandStatus, DataCoding, EsmClass, InterfaceVersion, MessageIdResp, Npi, Pdu,
    RegisteredDelivery, ShortMessage, Tlvs, Ton,
};
use smppd::session::{BindMode, Received, Session, SessionSettings, Side};
use smppd::time::Instant;

const NOW: Instant = Instant::from_nanos(1_000_000_000);
const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const BIND: Pdu<'static> = Pdu::BindTransceiver(Bind {
    system_id: b"demo",
    password: b"secret",
    system_type: b"",
    interface_version: InterfaceVersion::V5_0,
    address_range: Address { ton: Ton(0), npi: Npi(0), digits: b"" },
    tlvs: Tlvs::EMPTY,
});
const SUBMIT_SM: Pdu<'static> = Pdu::SubmitSm(ShortMessage {
    service_type: b"",
    source: NUMBER,
    destination: NUMBER,
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
});
const ID: MessageIdResp<'static> = MessageIdResp { message_id: b"383361347590553600", tlvs: Tlvs::EMPTY };

/// A session that is bound.
fn session() -> Session<()> {
    let mut session = Session::new(Side::Mc, SessionSettings::default(), NOW);
    let octets = octets_of(&BIND, 1);
    let Some(Received::Request(header, _)) = session.receive(NOW, &mut &octets[..]) else {
        panic!("a bind is in its place")
    };
    let response = Pdu::SubmitSmResp(ID);
    session
        .accept_bind(BindMode::Transceiver, InterfaceVersion::V5_0, &response, header.sequence_number)
        .expect("it fits");
    session
}

fn octets_of(pdu: &Pdu<'_>, count: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    for sequence_number in 1..=count {
        pdu.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("encodable");
    }
    octets
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let octets = octets_of(&SUBMIT_SM, 100);
    let mut session = session();
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(100));
    group.bench_function("receive and answer 100 submit_sm", |bencher| {
        bencher.iter(|| {
            session.output().clear();
            let (mut rest, mut count) = (black_box(&octets[..]), 0);
            while let Some(received) = session.receive(NOW, &mut rest) {
                let Received::Request(header, Pdu::SubmitSm(_)) = received else { panic!("{received:?}") };
                session.respond(&Pdu::SubmitSmResp(ID), header.sequence_number).expect("it fits");
                count += 1;
            }
            assert_eq!(count, 100);
        });
    });
    group.finish();
    criterion.final_summary();
}
