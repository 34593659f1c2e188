//! The hub without an interface (`--tun off`): it is the router itself, and answers as a kernel
//! would.

use std::fmt::Write as _;

use wg_bounce_dataplane::ip;
use wg_bounce_sys::clock;

use super::attacks::{mutate, seeds, still_forwards};
use super::cases::{self, Hosts, hosts};
use super::judge::{Case, Expect, is_reply, judge};
use crate::harness::{
    Backend, Draft, FakePeer, Family, RelayMode, Testbed, TestbedOptions, eventually, forwarded,
    hex, noise, seconds, trim,
};

/// The expected result of a packet whose result with a kernel is `case.expect`.
fn expected(case: &Case) -> Expect {
    let packet = &case.packet;
    let has_options = packet[0] >> 4 == 4 && packet[0] != 0x45;
    let has_hop_by_hop = packet[0] >> 4 == 6 && packet.get(6) == Some(&0);
    match &case.expect {
        // Only a kernel knows options.
        _ if has_options || has_hop_by_hop => Expect::Silence,
        // The datagram that carries it is fragmented instead.
        Expect::Fragments => Expect::Forwarded,
        // It is refused before it is forwarded.
        Expect::Error(error) => {
            let mut error = error.clone();
            error.quotes_forwarded = false;
            Expect::Error(error)
        }
        other => other.clone(),
    }
}

/// Packets to peers, to the hub and to unused addresses fare as with a kernel as the relay.
pub fn answers_are_those_of_a_kernel(backend: Backend) {
    let lists = [
        cases::plain(),
        cases::hop_limits(),
        cases::sizes(),
        cases::options(),
        cases::malformed(),
        cases::destinations(),
    ];
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Alone));
    let mut faults = String::new();
    for case in lists.iter().flatten() {
        let expect = expected(case);
        let end = clock::uptime() + seconds(1);
        let fault = loop {
            let seen = testbed.observe(&case.packet);
            // The rate of errors is limited.
            let may_be_limited = matches!(expect, Expect::Error(_)) && seen.alice.is_empty();
            if !may_be_limited || clock::uptime() > end {
                break judge(&seen, &case.packet, &expect).err();
            }
        };
        if let Some(fault) = fault {
            let _ = writeln!(faults, "{}: {fault}\n  sent {}", case.name, hex(&case.packet));
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// Packets for the hub among packets for bob, in one train, and in fragments.
pub fn trains_for_the_hub_and_for_peers(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Alone));
    for family in Family::BOTH {
        let Hosts { alice, bob, hub, unassigned, .. } = hosts(family);
        let [for_bob, for_hub, for_none] =
            [bob, hub, unassigned].map(|target| Draft::echo(alice, target, 7, 60).build());
        for order in [
            [&for_bob, &for_hub, &for_none],
            [&for_hub, &for_bob, &for_hub],
            [&for_none, &for_hub, &for_bob],
        ] {
            let train: Vec<_> = order.into_iter().cycle().take(42).cloned().collect();
            let seen = testbed.observe_all(|alice| alice.send_train(&train));
            let count = |what: &[u8]| train.iter().filter(|packet| **packet == what).count();
            assert_eq!(seen.bob.len(), count(&for_bob), "{family:?}");
            let replies =
                seen.alice.iter().filter(|packet| is_reply(&trim((*packet).clone()), &for_hub));
            assert_eq!(replies.count(), count(&for_hub), "{family:?}");
        }
    }
    // A later fragment may be of a reply, which another hub reflects as well.
    let fragment = Draft::other("10.77.0.2", "10.77.0.1", 1, &[7; 32]).fragment(8);
    for (limit, expected) in [(1, None), (2, Some(1)), (64, Some(63))] {
        let seen = testbed.observe(&fragment.clone().hop_limit(limit).build());
        assert_eq!(seen.alice.first().map(|packet| packet[8]), expected, "hop limit {limit}");
    }
    // All hosts of the network, in both forms.
    for target in ["10.77.0.255", "10.77.0.0"] {
        let packet = Draft::udp("10.77.0.2", target, 60).build();
        judge(&testbed.observe(&packet), &packet, &Expect::Silence).expect("a broadcast");
    }
    // Too long for a train: the datagrams are fragmented, and others go on in trains.
    let long = Draft::udp("10.77.0.2", "10.77.0.3", 9200).build();
    let seen = testbed.observe_all(|alice| (0..32).for_each(|_| alice.send(&long)));
    assert_eq!(seen.bob.len(), 32);
    let sent = |testbed: &Testbed| testbed.hub.counter("sent_trains");
    let before = sent(&testbed);
    let train = vec![Draft::udp("10.77.0.2", "10.77.0.3", 1000).build(); 40];
    let seen = testbed.observe_all(|alice| alice.send_train(&train));
    assert_eq!(seen.bob.len(), 40);
    assert!(sent(&testbed) - before < 20, "{} trains", sent(&testbed) - before);
}

/// Neither the hub's own addresses as sources, nor mutated packets, nor floods make it send to a
/// wrong peer, or more than its limits.
pub fn hostile_packets_change_nothing(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions {
        alice: "10.77.0.0/24,fd77::/64",
        bob: "10.77.0.3/32,fd77::3/128,0.0.0.0/0,::/0",
        ..TestbedOptions::new(backend, RelayMode::Alone)
    });
    for family in Family::BOTH {
        let hosts = hosts(family);
        let before = testbed.hub.counter("drop_source_not_allowed");
        for target in [hosts.bob, hosts.hub, hosts.alice, hosts.far, hosts.unknown] {
            for limit in [1, 64] {
                let packet = Draft::echo(hosts.hub, target, 1, 60).hop_limit(limit).build();
                let seen = testbed.observe(&packet);
                judge(&seen, &packet, &Expect::Silence).expect("its own address");
            }
        }
        assert_eq!(testbed.hub.counter("drop_source_not_allowed") - before, 10);
        // Bob owns the hub's address by 0.0.0.0/0, and does not get its packets.
        let packet = Draft::echo(hosts.alice, hosts.hub, 1, 60).build();
        judge(&testbed.observe(&packet), &packet, &Expect::Reply).expect("a reply");
        let train = vec![Draft::udp(hosts.alice, hosts.bob, 60).hop_limit(1).build(); 250];
        let mut errors = 0;
        eventually(seconds(1), "there is credit for errors", || {
            let send = |alice: &mut FakePeer| (0..20).for_each(|_| alice.send_train(&train));
            errors += testbed.observe_all(send).alice.len();
            errors > 0
        });
        assert!(errors < 200, "{errors}");
    }
    let mut noise = noise();
    let packets = (0..).flat_map(seeds).take(20_000).map(|seed| mutate(&seed, &mut noise));
    let packets: Vec<_> = packets.collect();
    let mut count = 0;
    for part in packets.chunks(200) {
        let seen = testbed.observe_all(|alice| {
            part.iter().for_each(|packet| alice.send_exactly(packet));
        });
        let may_be_forwarded = |packet: &&Vec<u8>| {
            ip::parse(packet).is_some() && packet[if ip::is_v4(packet) { 8 } else { 7 }] > 1
        };
        let sent = part.iter().filter(may_be_forwarded);
        let sent: Vec<_> = sent.map(|packet| forwarded(packet)).collect();
        for packet in seen.bob.into_iter().map(trim) {
            assert!(sent.contains(&packet), "bob got {}", hex(&packet));
            count += 1;
        }
        for packet in seen.alice.into_iter().map(trim) {
            let is_of_hub = packet[..].starts_with(&[0x60]) || packet.len() <= 576;
            assert!(is_of_hub || sent.contains(&packet), "alice got {}", hex(&packet));
        }
    }
    assert!(count > 2_000, "too few packets are forwarded: {count}");
    still_forwards(&mut testbed);
}
