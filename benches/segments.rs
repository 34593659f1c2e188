//! Splitting a received train into datagrams: time per buffer, and datagrams per second. Reads no
//! byte of the datagrams, so this is the cost of the arithmetic alone.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::segments::datagrams;

/// Length of a data message with an inner packet of 1,408 bytes.
const MESSAGE_LEN: usize = 1_440;
/// Messages of that length in the longest train.
const TRAIN: usize = 44;

fn received(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segments");
    group.throughput(Throughput::Elements(TRAIN as u64));
    group.bench_function("datagrams of a received train of 44", |bencher| {
        bencher.iter(|| {
            for datagram in datagrams(black_box(TRAIN * MESSAGE_LEN), black_box(MESSAGE_LEN)) {
                black_box(datagram);
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = received
}
criterion_main!(benches);
