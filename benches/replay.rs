//! The replay window: one verdict per received message.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::replay::ReplayWindow;

fn accept(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(1));
    group.bench_function("in order", |bencher| {
        let (mut window, mut counter) = (ReplayWindow::default(), 0);
        bencher.iter(|| {
            counter += 1;
            assert!(window.accept(black_box(counter)));
        });
    });
    group.bench_function("neighbours swapped", |bencher| {
        let (mut window, mut counter) = (ReplayWindow::default(), 0u64);
        bencher.iter(|| {
            counter += 1;
            assert!(window.accept(black_box(counter ^ 1)));
        });
    });
    group.bench_function("replayed", |bencher| {
        let mut window = ReplayWindow::default();
        assert!(window.accept(7));
        bencher.iter(|| assert!(!window.accept(black_box(7))));
    });
    group.finish();
}

criterion_group!(benches, accept);
criterion_main!(benches);
