//! Routes with an MTU or with several next hops.

use super::cases::{Hosts, error, hosts};
use super::judge::{Expect, judge};
use crate::harness::{
    Backend, DF, Draft, Family, RelayMode, Testbed, TestbedOptions, eventually, forwarded, seconds,
    trim,
};

const MODES: [RelayMode; 3] = [RelayMode::Kernel, RelayMode::Direct, RelayMode::Auto];

fn too_big(family: Family, mtu: usize, source: &str) -> Expect {
    let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
    error(kind, code, mtu as u32, source)
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
