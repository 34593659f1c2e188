//! The source of ICMP errors, and routes with an MTU or with several next hops.

use super::cases::{Hosts, error, hosts};
use super::judge::{Expect, judge};
use crate::harness::{
    Backend, DF, Draft, Family, MTU, RelayMode, Testbed, TestbedOptions, eventually, forwarded,
    seconds, trim,
};

const MODES: [RelayMode; 3] = [RelayMode::Kernel, RelayMode::Direct, RelayMode::Auto];

/// The kernel's choice of the hub's address towards `target`.
fn source_towards(testbed: &Testbed, target: &str) -> String {
    let route = testbed.hub.namespace.run(&format!("ip route get {target}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "src");
    words.nth(1).unwrap_or_else(|| panic!("no source in {route}")).to_owned()
}

fn unreachable(family: Family, source: &str) -> Expect {
    let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 3) };
    let Expect::Error(mut expected) = error(kind, code, 0, source) else { unreachable!() };
    expected.quotes_forwarded = true;
    Expect::Error(expected)
}

fn time_exceeded(family: Family, source: &str) -> Expect {
    error(if family == Family::V4 { 11 } else { 3 }, 0, 0, source)
}

fn too_big(family: Family, mtu: usize, source: &str) -> Expect {
    let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
    error(kind, code, mtu as u32, source)
}

/// Checks the errors about packets of alice's `from`: all come from the kernel's choice of address.
#[track_caller]
fn expect_source(testbed: &mut Testbed, family: Family, from: &str, expected: &str, text: &str) {
    assert_eq!(source_towards(testbed, from), expected, "{text}");
    let Hosts { bob, carol, unassigned, .. } = hosts(family);
    for (target, hop_limit, answer) in [
        (unassigned, 64, unreachable(family, expected)),
        (carol, 64, unreachable(family, expected)),
        (bob, 1, time_exceeded(family, expected)),
    ] {
        let packet = Draft::udp(from, target, 60).hop_limit(hop_limit).build();
        let seen = testbed.observe(&packet);
        judge(&seen, &packet, &answer)
            .unwrap_or_else(|fault| panic!("{text}, {from} to {target}: {fault}"));
    }
}

/// Several addresses, preferred sources of routes, and an interface without addresses.
pub fn errors_come_from_the_hubs_own_address(backend: Backend) {
    for relay in MODES {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        let interface = testbed.hub.interface.clone();
        let run = |testbed: &Testbed, line: &str| {
            testbed.hub.namespace.run(&line.replace("IF", &interface));
        };
        let text = format!("{relay:?}");
        for family in Family::BOTH {
            let Hosts { hub, alice, alice_too, .. } = hosts(family);
            let (address, prefix) = match family {
                Family::V4 => ("10.99.9.9/32", "10.77.2.0/24"),
                Family::V6 => ("fd99:9::9/128", "fd77:0:0:2::/64"),
            };
            let nodad = if family == Family::V6 { "nodad" } else { "" };
            let second = address.split('/').next().expect("an address");
            run(&testbed, &format!("ip address add {address} dev IF {nodad}"));
            run(&testbed, &format!("ip route replace {prefix} dev IF src {second}"));
            expect_source(&mut testbed, family, alice, hub, &text);
            expect_source(&mut testbed, family, alice_too, second, &text);
        }
        // The hub's addresses move to another device.
        run(&testbed, "ip address flush dev IF");
        for line in [
            "ip address add 10.77.0.1/32 dev lo",
            "ip address add fd77::1/128 dev lo nodad",
            "ip route add 10.77.0.0/16 dev IF",
            "ip route replace fd77::/48 dev IF",
        ] {
            run(&testbed, line);
        }
        testbed.settle();
        for family in Family::BOTH {
            let Hosts { hub, alice, .. } = hosts(family);
            let text = format!("{relay:?}, unnumbered");
            expect_source(&mut testbed, family, alice, hub, &text);
        }
    }
}

/// With `--relay direct` and no kernel route to the peer, the worker answers: the kernel would
/// report its missing route.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn direct_answers_without_kernel_routes() {
    let bob = "10.77.0.3/32,10.99.0.0/16,fd77::3/128,fd99::99/128";
    let options = TestbedOptions::new(Backend::Uring, RelayMode::Direct);
    let mut testbed = Testbed::new(&TestbedOptions { bob, ..options });
    for (family, target) in Family::BOTH.into_iter().zip(["10.99.0.1", "fd99::99"]) {
        let Hosts { hub, alice, .. } = hosts(family);
        let udp = |length| Draft::udp(alice, target, length).fragment(DF);
        let (protocol, kind) = if family == Family::V4 { (1, 3) } else { (58, 1) };
        let body = [kind, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0];
        let icmp = Draft::other(alice, target, protocol, &body);
        for (name, draft, expect) in [
            ("plain", udp(60), Expect::Forwarded),
            ("last hop", udp(60).hop_limit(1), time_exceeded(family, hub)),
            ("too large", udp(1440), too_big(family, MTU, hub)),
            ("too large on its last hop", udp(1440).hop_limit(1), time_exceeded(family, hub)),
            ("an error on its last hop", icmp.hop_limit(1), Expect::Silence),
        ] {
            let packet = draft.build();
            let seen = testbed.observe(&packet);
            judge(&seen, &packet, &expect).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        }
    }
    assert_eq!(testbed.hub.counter("drop_icmp_answered"), 8);
}

/// A route's own MTU holds for packets between peers: what fits passes without padding beyond it,
/// and what does not is refused with that MTU.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_routes_own_mtu_is_kept() {
    const ROUTE_MTU: usize = 1299;
    for relay in MODES {
        let mut testbed = Testbed::new(&TestbedOptions::new(Backend::Uring, relay));
        let interface = testbed.hub.interface.clone();
        for family in Family::BOTH {
            let Hosts { hub, alice, bob, .. } = hosts(family);
            let route = format!("ip route replace {bob} dev {interface} mtu {ROUTE_MTU}");
            testbed.hub.namespace.run(&route);
            let headers = if family == Family::V4 { 28 } else { 48 };
            let sized = |size| Draft::udp(alice, bob, size - headers).fragment(DF).build();
            let large = sized(ROUTE_MTU + 1);
            // IPv6 looks at a route's own MTU after it has decremented the hop limit.
            let Expect::Error(mut refusal) = too_big(family, ROUTE_MTU, hub) else {
                unreachable!()
            };
            refusal.quotes_forwarded = family == Family::V6;
            let refusal = Expect::Error(refusal);
            eventually(seconds(2), &format!("{relay:?} {family:?}: too big"), || {
                let seen = testbed.observe(&large);
                judge(&seen, &large, &refusal).is_ok()
            });
            let before = testbed.frames();
            let packet = sized(ROUTE_MTU);
            testbed.alice.send(&packet);
            let arrived = testbed.bob.receive();
            if relay != RelayMode::Kernel {
                assert_eq!(arrived.len(), ROUTE_MTU, "{relay:?} {family:?}");
                assert_eq!(testbed.frames(), before, "{relay:?} {family:?}: by the worker");
            }
            assert_eq!(trim(arrived), forwarded(&packet), "{relay:?} {family:?}");
        }
    }
}

/// The kernel spreads packets over several next hops, by more than their addresses. One of them
/// leads out of another interface.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn several_next_hops_are_left_to_the_kernel() {
    const COUNT: u64 = 32;
    let mut testbed = Testbed::new(&TestbedOptions::new(Backend::Uring, RelayMode::Auto));
    let interface = testbed.hub.interface.clone();
    let run = |testbed: &Testbed, line: &str| {
        testbed.hub.namespace.run(&line.replace("IF", &interface));
    };
    // Packets of all flow labels and protocols, to many addresses of bob's.
    let relayed = |testbed: &mut Testbed, family| {
        let alice = hosts(family).alice;
        let before = testbed.hub.counter("relayed");
        testbed.observe_all(|peer| {
            for number in 1..=COUNT {
                let target = match family {
                    Family::V4 => format!("10.88.7.{number}"),
                    Family::V6 => format!("fd88::{number:x}"),
                };
                let mut packet = Draft::udp(alice, &target, 60).build();
                if family == Family::V6 {
                    packet[3] = number as u8;
                }
                peer.send(&packet);
            }
        });
        testbed.hub.counter("relayed") - before
    };
    run(&testbed, "ip nexthop add id 1 dev IF");
    run(&testbed, "ip nexthop add id 2 via 198.51.100.2 dev elsewhere onlink");
    run(&testbed, "ip nexthop add id 3 group 1/2");
    run(&testbed, "ip -6 nexthop add id 11 via fd77::3 dev IF");
    run(&testbed, "ip -6 nexthop add id 12 via fe80::2 dev elsewhere");
    run(&testbed, "ip nexthop add id 13 group 11/12");
    let astray = [
        "nexthop dev IF nexthop via 198.51.100.2 dev elsewhere onlink",
        "nexthop via fd77::3 dev IF nexthop via fe80::2 dev elsewhere",
    ];
    let back = [
        "nexthop via 10.77.0.3 dev IF nexthop via 10.77.0.4 dev IF",
        "nexthop via fd77::3 dev IF nexthop via fd77::4 dev IF",
    ];
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let (flag, prefix) = [("-4", "10.88.0.0/16"), ("-6", "fd88::/64")][index];
        for (route, expected) in [
            ("dev IF", COUNT),
            (astray[index], 0),
            (back[index], COUNT),
            (["nhid 3", "nhid 13"][index], 0),
            (["nhid 1", "nhid 11"][index], COUNT),
        ] {
            run(&testbed, &format!("ip {flag} route del {prefix}"));
            run(&testbed, &format!("ip {flag} route add {prefix} {route}"));
            let text = format!("{expected} packets are relayed by {route}");
            eventually(seconds(2), &text, || relayed(&mut testbed, family) == expected);
        }
    }
}

/// The interface's counters do not see relayed packets; SIGUSR1 logs their packets and bytes, those
/// that wait for a session included, with a sum over all workers.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn relayed_packets_and_bytes_are_counted() {
    let options = TestbedOptions::new(Backend::Uring, RelayMode::Direct);
    let mut testbed = Testbed::new(&TestbedOptions { workers: "2", ..options });
    let before = testbed.frames();
    for (family, dave) in Family::BOTH.into_iter().zip(["10.77.0.5", "fd77::5"]) {
        let Hosts { alice, bob, .. } = hosts(family);
        for target in [bob, dave] {
            let headers = if family == Family::V4 { 28 } else { 48 };
            testbed.alice.send(&Draft::udp(alice, target, 1280 - headers).build());
        }
        testbed.bob.receive();
        testbed.dave.receive();
    }
    assert_eq!(testbed.frames(), before, "the interface sees nothing");
    assert_eq!(testbed.hub.counter("relayed"), 4);
    assert_eq!(testbed.hub.counter("relayed_bytes"), 4 * 1280);
    let log = testbed.hub.log();
    let sums = log.lines().rev().find(|line| line.contains(" all workers: counters:"));
    assert!(sums.is_some_and(|line| line.contains(" relayed=4 relayed_bytes=5120")), "{sums:?}");
}
