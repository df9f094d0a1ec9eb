//! Records on their way to the disk: put into a batch, which is sealed.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use smppd::journal::{
    BATCH_OCTETS_MAX, Identity, Journal, JournalStart, Position, Record, Ring, SegmentNumber,
};
use smppd::message::{Content, MessageId, PartitionNumber};
use smppd::pdu::{Address, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
use smppd::time::Timestamp;

const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const RECORDS: u64 = 1_000;

/// A journal with a single segment that has no end.
fn journal() -> Journal<()> {
    let start = JournalStart {
        identity: Identity { partition: PartitionNumber(0), salt: 1 },
        ring: Ring::resume(u64::MAX / 2, BATCH_OCTETS_MAX, &[], SegmentNumber(0), 1),
        last: Position(0),
    };
    Journal::resume(start, Box::new(|octets| Box::new(vec![0; octets])))
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let accepted_at = Timestamp::from_millis(1_790_000_000_000);
    let content = Content {
        id: MessageId::from_u64(383_361_347_590_553_600),
        batch_offset: 0,
        batch_count: 1,
        accepted_at,
        deliver_at: Timestamp::ZERO,
        expires_at: Timestamp::from_millis(1_790_000_000_000 + 72 * 3_600_000),
        segments: 1,
        registered_delivery: RegisteredDelivery(1),
        esm_class: EsmClass::DEFAULT,
        protocol_id: 0,
        priority_flag: 0,
        data_coding: DataCoding::DEFAULT,
        system_id: b"demo",
        service_type: b"",
        source: NUMBER,
        destination: NUMBER,
        user_data: &[b'x'; 160],
        tlvs: b"",
    };
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(1));
    group.bench_function("the content of a message", |bencher| {
        bencher.iter(|| black_box(&content).to_octets());
    });
    let octets = content.to_octets();
    let mut journal = journal();
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("1,000 accepted, in a batch that is sealed", |bencher| {
        bencher.iter(|| {
            for _ in 0..RECORDS {
                journal.append(&Record::Accepted { attempt: Some(0), content: black_box(&octets) });
            }
            let batch = journal.take_batch().expect("a batch");
            assert!(!journal.has_batch(), "all of them are in it");
            journal.commit(batch.position(), batch.payload_octets(), Some(batch.into_buffer()));
        });
    });
    group.finish();
    criterion.final_summary();
}
