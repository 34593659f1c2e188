//! The table against a linear scan, and what its structure promises.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// All prefixes in a list: the longest that contains the address wins.
#[derive(Clone, Default)]
struct Scan(BTreeMap<IpNet, u32>);

impl Scan {
    fn lookup(&self, address: IpAddr) -> Option<&u32> {
        let matching = self.0.iter().filter(|(prefix, _)| prefix.contains(&address));
        matching.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, value)| value)
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Checks both trees; returns the number of values.
fn check<T>(routes: &Routes<T>) -> usize {
    routes.v4.check() + routes.v6.check()
}

#[test]
fn the_longest_prefix_wins() {
    let mut routes = Routes::default();
    let prefixes = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.3/32",
        "128.0.0.0/1",
        "::/0",
        "fd00::/8",
        "fd00::1/128",
    ];
    for (value, prefix) in prefixes.iter().enumerate() {
        assert_eq!(routes.insert(net(prefix), value), None);
    }
    let owner = |at: &str| prefixes[*routes.lookup(address(at)).unwrap()];
    assert_eq!(owner("1.1.1.1"), "0.0.0.0/0");
    assert_eq!(owner("255.255.255.255"), "128.0.0.0/1");
    assert_eq!(owner("10.2.0.0"), "10.0.0.0/8");
    assert_eq!(owner("10.1.2.2"), "10.1.0.0/16");
    assert_eq!(owner("10.1.2.3"), "10.1.2.3/32");
    assert_eq!(owner("::1"), "::/0");
    assert_eq!(owner("fd00::2"), "fd00::/8");
    assert_eq!(owner("fd00::1"), "fd00::1/128");
    assert_eq!(owner("::ffff:10.1.2.3"), "::/0", "a mapped address is IPv6");
    assert_eq!(check(&routes), prefixes.len());
}

#[test]
fn an_empty_table_has_nothing() {
    let mut routes = Routes::<u8>::default();
    assert_eq!(routes.lookup(address("0.0.0.0")), None);
    assert_eq!(routes.lookup(address("::")), None);
    assert_eq!(routes.remove(net("0.0.0.0/0")), None);
    assert_eq!(routes.exact(net("::/0")), None);
}

#[test]
fn host_bits_are_ignored() {
    let mut routes = Routes::default();
    assert_eq!(routes.insert(net("10.1.2.3/8"), 1), None);
    assert_eq!(routes.insert(net("10.9.9.9/8"), 2), Some(1));
    assert_eq!(routes.exact(net("10.255.0.0/8")), Some(&2));
    assert_eq!(routes.remove(net("10.0.0.1/8")), Some(2));
    assert_eq!(check(&routes), 0);
}

#[test]
fn families_do_not_meet() {
    let mut routes = Routes::default();
    routes.insert(net("0.0.0.0/0"), 4);
    assert_eq!(routes.lookup(address("::")), None);
    routes.insert(net("::/0"), 6);
    assert_eq!(routes.remove(net("0.0.0.0/0")), Some(4));
    assert_eq!(routes.lookup(address("0.0.0.0")), None);
    assert_eq!(routes.lookup(address("::")), Some(&6));
}

#[test]
fn removing_what_is_not_there_changes_nothing() {
    let mut routes = Routes::default();
    for prefix in ["10.0.0.0/9", "10.128.0.0/9"] {
        routes.insert(net(prefix), prefix);
    }
    for absent in ["10.0.0.0/8", "10.0.0.0/10", "11.0.0.0/9", "10.0.0.0/32", "0.0.0.0/0"] {
        assert_eq!(routes.remove(net(absent)), None, "{absent}");
        assert_eq!(routes.exact(net(absent)), None, "{absent}");
        assert_eq!(check(&routes), 2);
    }
}

/// A change copies the branches and buckets on its path and shares all others with the older table.
#[test]
fn a_change_copies_only_its_path() {
    let mut routes = Routes::default();
    for index in 0..40_960u32 {
        let prefix = IpNet::new(Ipv4Addr::from_bits(index << 12).into(), 24).unwrap();
        routes.insert(prefix, index);
    }
    let older = routes.clone();
    routes.insert(net("0.77.0.5/32"), 1);
    routes.remove(net("1.99.0.0/24"));
    let (mut before, mut after) = (vec![], vec![]);
    older.v4.parts(&mut before);
    routes.v4.parts(&mut after);
    assert!(before.len() > 2_560, "{} branches and buckets", before.len());
    let before: HashSet<_> = before.into_iter().collect();
    let fresh = after.iter().filter(|part| !before.contains(*part)).count();
    // The new prefix makes a full bucket a branch of 16 others.
    assert!((1..=2 * 6 + 16).contains(&fresh), "{fresh} copied");
}

/// The three IPv4 prefixes of a bucket and its counts fit into a cache line.
#[test]
fn leaves_and_entries_are_small() {
    assert_eq!(size_of::<table::Leaf<u32, Arc<u8>>>(), 16);
    assert_eq!(size_of::<table::Leaf<u128, Arc<u8>>>(), 32);
    assert_eq!(size_of::<Table<u128, Arc<u8>>>(), 24);
}

/// A bucket becomes a branch when it is full, and the branch a bucket when little is left, not at
/// once.
#[test]
fn many_siblings_come_and_go() {
    let mut routes = Routes::default();
    let sibling = |number: u32| IpNet::from(IpAddr::from(Ipv4Addr::from_bits(number << 27)));
    let parts = |routes: &Routes<u32>| {
        let mut all = vec![];
        routes.v4.parts(&mut all);
        all.len()
    };
    for number in 0..16 {
        routes.insert(sibling(number), number);
    }
    assert_eq!(parts(&routes), 1);
    routes.insert(sibling(16), 16);
    assert_eq!(parts(&routes), 1 + 9);
    for number in (9..17).rev() {
        routes.remove(sibling(number));
        assert_eq!(parts(&routes), 1 + number.div_ceil(2) as usize);
    }
    routes.remove(sibling(8));
    assert_eq!(parts(&routes), 1);
    assert_eq!(check(&routes), 8);
}

#[derive(Clone, Debug)]
enum Change {
    Insert(IpNet),
    Remove(IpNet),
}

/// Prefixes of few bits, so that they overlap, at all lengths.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (host_v4(), prop_oneof![Just(0u8), Just(32u8), 0..=32u8])
        .prop_map(|(host, length)| IpNet::new(host.into(), length).unwrap());
    let v6 = (host_v6(), prop_oneof![Just(0u8), Just(128u8), 0..=128u8])
        .prop_map(|(host, length)| IpNet::new(host.into(), length).unwrap());
    prop_oneof![v4, v6]
}

fn host_v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        (0..4u32, 0..4u32).prop_map(|(high, low)| Ipv4Addr::from_bits(high << 30 | low)),
        any::<u32>().prop_map(Ipv4Addr::from_bits),
    ]
}

fn host_v6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        (0..4u128, 0..4u128).prop_map(|(high, low)| Ipv6Addr::from_bits(high << 126 | low)),
        (0..4u128, 0..4u128).prop_map(|(high, low)| Ipv6Addr::from_bits(high << 63 | low)),
        any::<u128>().prop_map(Ipv6Addr::from_bits),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        2 => prefix().prop_map(Change::Insert),
        1 => prefix().prop_map(Change::Remove),
    ];
    prop::collection::vec(change, 1..250)
}

fn probes() -> impl Strategy<Value = Vec<IpAddr>> {
    let probe = prop_oneof![host_v4().prop_map(IpAddr::V4), host_v6().prop_map(IpAddr::V6)];
    prop::collection::vec(probe, 40)
}

fn compare(routes: &Routes<u32>, scan: &Scan, probes: &[IpAddr]) {
    assert_eq!(check(routes), scan.0.len());
    let edges = scan.0.keys().flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
    for probe in edges.chain(probes.iter().copied()) {
        assert_eq!(routes.lookup(probe), scan.lookup(probe), "{probe}");
    }
    for (prefix, value) in &scan.0 {
        assert_eq!(routes.exact(*prefix), Some(value), "{prefix}");
    }
}

proptest! {
    #[test]
    fn equals_a_linear_scan(changes in changes(), probes in probes(), mark in 0..250usize) {
        let (mut routes, mut scan) = (Routes::default(), Scan::default());
        let mut older = None;
        let mut present: Vec<IpNet> = vec![];
        for (value, change) in changes.iter().enumerate() {
            if value == mark {
                older = Some((routes.clone(), scan.clone()));
            }
            match change {
                Change::Insert(prefix) => {
                    let (prefix, value) = (prefix.trunc(), value as u32);
                    present.push(prefix);
                    prop_assert_eq!(routes.insert(prefix, value), scan.0.insert(prefix, value));
                }
                Change::Remove(prefix) => {
                    // Mostly something that is there: the removal of a random prefix rarely hits.
                    let prefix = present.pop().unwrap_or(prefix.trunc());
                    prop_assert_eq!(routes.remove(prefix), scan.0.remove(&prefix));
                    prop_assert_eq!(routes.remove(prefix), None);
                }
            }
        }
        compare(&routes, &scan, &probes);
        if let Some((routes, scan)) = older {
            compare(&routes, &scan, &probes);
        }
        for prefix in scan.0.keys() {
            prop_assert!(routes.remove(*prefix).is_some());
        }
        prop_assert!(matches!((routes.v4, routes.v6), (Table::Nothing, Table::Nothing)));
    }
}
