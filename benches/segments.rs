//! Trains: which datagrams a received buffer holds, and into which trains messages to one
//! destination are split. Time of one buffer or one turn, and datagrams per second; no byte of them
//! is touched, so this is what the arithmetic alone adds to each.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::segments::{datagrams, trains};

/// Bytes of a data message with an inner packet of 1,408 bytes.
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

fn sent(criterion: &mut Criterion) {
    /// Messages of one turn.
    const MESSAGES: usize = 4 * TRAIN;
    let alike = vec![MESSAGE_LEN; MESSAGES];
    // As a flow of bulk data and its acknowledgements: a train ends at every second message.
    let mixed: Vec<usize> =
        (0..MESSAGES).map(|number| if number % 2 == 0 { MESSAGE_LEN } else { 96 }).collect();
    let mut group = criterion.benchmark_group("segments");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, lengths) in [("alike", &alike), ("long and short by turns", &mixed)] {
        group.bench_function(format!("trains of 176 messages, {name}"), |bencher| {
            bencher.iter(|| {
                for train in trains(black_box(lengths).iter().copied()) {
                    black_box(train);
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = received, sent
}
criterion_main!(benches);
