//! Cryptokey routing with tables of several sizes and one host prefix per peer; and with 100,000
//! peers that have two prefixes of each family, at random.
//!
//! - lookup: time per lookup of addresses in random order; every relayed packet needs two. With
//!   large tables, most of it is cache misses, which the packets of one train share.
//! - insert, remove: time per change of a table that workers still use, so that the path from the
//!   root to the prefix is copied. Publishing the new table and freeing the old one are not
//!   included.
//! - build: time for all 400,000 prefixes of the 100,000 peers.

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

/// Peers with four prefixes each.
const PEERS: u64 = 100_000;

/// A random number: the same for the same seed (SplitMix64).
fn random(seed: u64) -> u64 {
    let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// The prefixes of a peer, by number: two of IPv4, two of IPv6; a host and a small network each.
fn random_prefix(peer: u64, number: u64) -> IpNet {
    let high = random(4 * peer + number + 1);
    let unique_local = 0xfd << 120 | (u128::from(high) << 64 | u128::from(random(high))) >> 8;
    let (address, length): (IpAddr, u8) = match number {
        0 => (Ipv4Addr::from_bits(high as u32).into(), 32),
        1 => (Ipv4Addr::from_bits(high as u32).into(), 28),
        2 => (Ipv6Addr::from_bits(unique_local).into(), 128),
        _ => (Ipv6Addr::from_bits(unique_local).into(), 64),
    };
    IpNet::new(address, length).expect("not longer than an address")
}

/// Addresses are computed, not listed: a list would be in the caches, and the table would not.
fn random_prefixes(criterion: &mut Criterion) {
    let owners: Vec<Arc<u64>> = (0..PEERS).map(Arc::new).collect();
    let build = || {
        let mut routes = Routes::default();
        for owner in &owners {
            for number in 0..4 {
                let _none = routes.insert(random_prefix(**owner, number), Arc::clone(owner));
            }
        }
        routes
    };
    criterion.bench_function("routes/build/400000 random prefixes", |bencher| {
        bencher.iter_with_large_drop(build);
    });
    let routes = build();
    for (family, first) in [("IPv4", 0), ("IPv6", 2)] {
        let mut step = 0;
        let name = format!("routes/lookup/{family}, 400000 random prefixes");
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                step += 1;
                let peer = random(step) % PEERS;
                let address = random_prefix(peer, first + step % 2).addr();
                assert!(black_box(routes.lookup(address)).is_some());
            });
        });
    }
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
    targets = routes, random_prefixes
}
criterion_main!(benches);
