//! The replay window: time of one check, which every received message needs.
//!
//! "a gap of n" skips n counters each time, as after loss, so that the window's words in between
//! are cleared (at most all of them).

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::limits::REPLAY_WINDOW;
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
    for gap in [64, 1_024, REPLAY_WINDOW] {
        group.bench_function(format!("a gap of {gap}"), |bencher| {
            let (mut window, mut counter) = (ReplayWindow::default(), 0u64);
            bencher.iter(|| {
                counter += gap;
                assert!(window.accept(black_box(counter)));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = accept
}
criterion_main!(benches);
