//! Receipts: the text of one, the same read, and the parcel that a message's end makes.

use std::hint::black_box;

use criterion::Criterion;
use smppd::message::{Content, MessageId, ParcelKey, receipt_for};
use smppd::pdu::receipt::{MessageState, ParsedReceipt, Receipt};
use smppd::pdu::{Address, Alphabet, DataCoding, EsmClass, Npi, RegisteredDelivery, Ton};
use smppd::time::Timestamp;

const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
const SUBMITTED: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const DONE: Timestamp = Timestamp::from_millis(1_790_000_060_000);
const RECEIPT: Receipt<'static> = Receipt {
    message_id: b"383361347590553600",
    submitted: 1,
    delivered: 1,
    submit_date: SUBMITTED,
    done_date: DONE,
    state: MessageState::DELIVERED,
    error: 0,
    text: b"twenty characters of",
};

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    let mut text = Vec::new();
    criterion.bench_function("format a receipt", |bencher| {
        bencher.iter(|| {
            text.clear();
            black_box(RECEIPT).put(&mut text);
        });
    });
    text.clear();
    RECEIPT.put(&mut text);
    criterion.bench_function("parse a receipt", |bencher| {
        bencher.iter(|| assert!(ParsedReceipt::parse(black_box(&text)).is_some()));
    });
    let content = Content {
        id: MessageId::from_u64(383_361_347_590_553_600),
        batch_offset: 0,
        batch_count: 1,
        accepted_at: SUBMITTED,
        deliver_at: Timestamp::ZERO,
        expires_at: Timestamp::MAX,
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
    criterion.bench_function("make the receipt of a message", |bencher| {
        let (key, state) = (ParcelKey::FINAL_RECEIPT, MessageState::DELIVERED);
        bencher.iter(|| receipt_for(black_box(&content), key, state, 0, DONE, Alphabet::Ascii));
    });
    criterion.final_summary();
}
