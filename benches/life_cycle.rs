//! What keeps the messages that are not over: their table and their deadlines.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use smppd::message::{IdSource, MessageId, MessageTable, PartitionNumber};
use smppd::time::Timestamp;
use smppd::time::timers::Timers;

/// Messages that are not over.
const LIVE: usize = 100_000;
const A_MILLISECOND: u64 = 400;
const BEGIN: u64 = 1_790_000_000_000;
/// As large as what the table of a partition holds.
type Held = [u64; 16];

/// Ids as a busy partition gives them out.
fn ids() -> impl Iterator<Item = MessageId> {
    let mut source = IdSource::new(0, PartitionNumber(0));
    (0..).map(move |number| source.next(Timestamp::from_millis(BEGIN + number / A_MILLISECOND), 1))
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    table(&mut criterion);
    timers(&mut criterion);
    criterion.final_summary();
}

fn table(criterion: &mut Criterion) {
    let ids: Vec<MessageId> = ids().take(LIVE).collect();
    let filled = || {
        let mut table = MessageTable::new();
        ids.iter().for_each(|id| _ = table.insert(*id, Held::default()));
        table
    };
    let mut group = criterion.benchmark_group("a table of 100,000 messages");
    group.throughput(Throughput::Elements(LIVE as u64)).sample_size(20);
    group.bench_function("insert", |bencher| bencher.iter_with_large_drop(filled));
    let table = filled();
    group.bench_function("get", |bencher| {
        bencher.iter(|| ids.iter().for_each(|id| assert!(black_box(table.get(*id)).is_some())));
    });
    group.bench_function("remove", |bencher| {
        let remove = |table: &mut MessageTable<MessageId, Held>| {
            ids.iter().for_each(|id| assert!(black_box(table.remove(*id)).is_some()));
        };
        bencher.iter_batched_ref(filled, remove, BatchSize::PerIteration);
    });
    group.finish();

    // As many come as go.
    let (mut table, mut new, mut old) = (table, self::ids().skip(LIVE), self::ids());
    criterion.bench_function("a message more and one fewer among 100,000", |bencher| {
        bencher.iter(|| {
            table.insert(new.next().expect("an id"), Held::default());
            assert!(table.remove(old.next().expect("an id")).is_some());
        });
    });
}

fn timers(criterion: &mut Criterion) {
    let ids: Vec<MessageId> = ids().take(LIVE).collect();
    // Every message is due within half a second, in no order.
    let due = |number: usize| Timestamp::from_millis(BEGIN + 50 + (number as u64).wrapping_mul(7_919) % 450);
    let new = || {
        let mut timers = Timers::new();
        assert_eq!(timers.pop_due(Timestamp::from_millis(BEGIN)), None);
        timers
    };
    let armed = || {
        let mut timers = new();
        let names = ids.iter().enumerate().map(|(number, id)| timers.arm(due(number), *id)).collect();
        (timers, names)
    };
    let mut group = criterion.benchmark_group("100,000 deadlines");
    group.throughput(Throughput::Elements(LIVE as u64)).sample_size(20);
    group.bench_function("arm", |bencher| bencher.iter_with_large_drop(armed));
    group.bench_function("arm and disarm", |bencher| {
        bencher.iter_with_large_drop(|| {
            let (mut timers, names): (Timers<_, _>, Vec<_>) = armed();
            names.into_iter().for_each(|name| assert!(timers.disarm(name)));
            timers
        });
    });
    group.bench_function("pop", |bencher| {
        let pop = |(timers, _): &mut (Timers<_, _>, Vec<_>)| {
            for millis in 0..500 {
                while timers.pop_due(Timestamp::from_millis(BEGIN + millis)).is_some() {}
            }
            assert!(timers.is_empty());
        };
        bencher.iter_batched_ref(armed, pop, BatchSize::PerIteration);
    });
    group.finish();
}
