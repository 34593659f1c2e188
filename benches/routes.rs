//! Cryptokey routing: lookups in tables of several sizes, and changes to a large one.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use wg_bounce_dataplane::routes::Routes;

const ADDRESSES: usize = 4_096;

/// The table's `number`th prefix: a /32 of 10.0.0.0/8 as a hub's peers have, scattered by an odd
/// multiplier, so that it is the same in every run.
fn host(number: usize) -> Ipv4Addr {
    let scattered = (number as u32).wrapping_mul(0x9e37_79b1) >> 8;
    Ipv4Addr::from_bits(10 << 24 | scattered)
}

fn prefix(number: usize) -> IpNet {
    IpNet::new(host(number).into(), 32).expect("a valid length")
}

fn table(size: usize) -> Routes<Arc<usize>> {
    let mut routes = Routes::default();
    for number in 0..size {
        routes.insert(prefix(number), Arc::new(number));
    }
    routes
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes/lookup");
    group.throughput(Throughput::Elements(1));
    for size in [10, 1_000, 100_000] {
        let routes = table(size);
        let addresses: Vec<IpAddr> =
            (0..ADDRESSES).map(|step| host(step.wrapping_mul(7_919) % size).into()).collect();
        let mut next = 0;
        group.bench_function(format!("{size} prefixes"), |bencher| {
            bencher.iter(|| {
                next = (next + 1) % ADDRESSES;
                assert!(black_box(routes.lookup(addresses[next])).is_some());
            });
        });
    }
    group.finish();
}

/// Each change is made while an older table is still in use, so the path is copied.
fn changes(criterion: &mut Criterion) {
    const SIZE: usize = 100_000;
    let routes = table(SIZE);
    let mut group = criterion.benchmark_group("routes/change");
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    group.bench_function("insert at 100000 prefixes", |bencher| {
        bencher.iter(|| {
            number += 1;
            let mut next = routes.clone();
            next.insert(prefix(SIZE + number % SIZE), Arc::new(number));
            next
        });
    });
    group.bench_function("remove at 100000 prefixes", |bencher| {
        bencher.iter(|| {
            number += 1;
            let mut next = routes.clone();
            assert!(next.remove(prefix(number % SIZE)).is_some());
            next
        });
    });
    group.finish();
}

criterion_group!(benches, lookups, changes);
criterion_main!(benches);
