//! Cryptokey routing with tables of several sizes and one host prefix per peer.
//!
//! - lookup: time per lookup of addresses in random order; every relayed packet needs two. With
//!   large tables, most of it is cache misses, which the packets of one train share.
//! - insert, remove: time per change of a table that workers still use, so that the path from the
//!   root to the prefix is copied. Publishing the new table and freeing the old one are not
//!   included.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use wg_bounce_dataplane::routes::Routes;

const SIZES: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
/// Addresses looked up in turn. A longer list would itself cause cache misses.
const ADDRESSES: usize = 1 << 14;

/// The host number of a peer, scattered over 24 bits. The odd multiplier keeps them unique, and the
/// same in every run.
fn scattered(number: usize) -> u32 {
    (number as u32).wrapping_mul(0x9e37_79b1) & 0xff_ffff
}

fn host_v4(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(10 << 24 | scattered(number)).into()
}

fn host_v6(number: usize) -> IpAddr {
    Ipv6Addr::from_bits(0xfd77 << 112 | u128::from(scattered(number))).into()
}

fn table(size: usize, host: fn(usize) -> IpAddr) -> Routes<Arc<usize>> {
    let mut routes = Routes::default();
    for number in 0..size {
        let none = routes.insert(IpNet::from(host(number)), Arc::new(number));
        assert!(none.is_none(), "every peer has its own address");
    }
    routes
}

fn routes(criterion: &mut Criterion) {
    for (family, host) in [("IPv4", host_v4 as fn(usize) -> IpAddr), ("IPv6", host_v6)] {
        for size in SIZES {
            let routes = table(size, host);
            lookup(criterion, &format!("{family}, {size} prefixes"), &routes, size, host);
            if family == "IPv4" {
                change(criterion, &format!("{size} prefixes"), &routes, size, host);
            }
        }
    }
}

fn lookup(
    criterion: &mut Criterion,
    name: &str,
    routes: &Routes<Arc<usize>>,
    size: usize,
    host: fn(usize) -> IpAddr,
) {
    let addresses: Vec<IpAddr> =
        (0..ADDRESSES).map(|step| host(step.wrapping_mul(7_368_787) % size)).collect();
    let mut next = 0;
    let mut group = criterion.benchmark_group("routes/lookup");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            next = (next + 1) % ADDRESSES;
            assert!(black_box(routes.lookup(addresses[next])).is_some());
        });
    });
    group.finish();
}

fn change(
    criterion: &mut Criterion,
    name: &str,
    routes: &Routes<Arc<usize>>,
    size: usize,
    host: fn(usize) -> IpAddr,
) {
    let mut number = 0;
    let mut group = criterion.benchmark_group("routes/insert");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                (routes.clone(), IpNet::from(host(size + number % size)), Arc::new(number))
            },
            |(mut next, prefix, value)| {
                assert!(next.insert(prefix, value).is_none());
                next
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    let mut group = criterion.benchmark_group("routes/remove");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                (routes.clone(), IpNet::from(host(number % size)))
            },
            |(mut next, prefix)| {
                assert!(next.remove(prefix).is_some());
                next
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = routes
}
criterion_main!(benches);
