//! Series of packets: trains, order, ECN, peers without a session, and forwarding switched off.

use super::cases::hosts;
use super::judge::modes;
use crate::harness::{
    Backend, Counter, DF, Draft, Family, HUB_PORT, Observed, RelayMode, Testbed, TestbedOptions,
    eventually, forwarded, hex, seconds, trim,
};

/// Waits until bob has received `count` packets.
#[track_caller]
fn receive_at_bob(testbed: &mut Testbed, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| testbed.bob.receive()).collect()
}

/// A hub with two workers, so that a train may reach the wrong one. Sends one packet of each flow
/// in advance: the kernel then knows the TUN queue of the flow and keeps later packets in order.
fn two_workers(backend: Backend, relay: RelayMode) -> Testbed {
    let mut testbed =
        Testbed::new(&TestbedOptions { workers: "2", ..TestbedOptions::new(backend, relay) });
    for family in Family::BOTH {
        let hosts = hosts(family);
        testbed.alice.send(&Draft::udp(hosts.alice, hosts.bob, 1).build());
        testbed.bob.receive();
    }
    testbed
}

/// Compares the packets bob received with those sent. The worker must not let a message grow, since
/// the next message of the train follows its tag.
#[track_caller]
fn expect_forwarded(relay: RelayMode, arrived: Vec<Vec<u8>>, sent: &[Vec<u8>]) {
    assert_eq!(arrived.len(), sent.len());
    for (number, (arrived, sent)) in arrived.into_iter().zip(sent).enumerate() {
        if relay == RelayMode::Direct {
            let (was, is) = (sent.len(), arrived.len());
            assert!(is <= was, "packet {number} grew from {was} bytes to {is}");
        }
        let (arrived, expected) = (trim(arrived), forwarded(sent));
        let differ = || format!("{}, not {}", hex(&arrived), hex(&expected));
        assert!(arrived == expected, "packet {number}, {relay:?}: {}", differ());
    }
}

/// Trains without padding, as boringtun sends them: lengths from 1,401 to 1,420 bytes and short
/// ones, each with a shorter last packet.
pub fn unpadded_trains_are_forwarded(backend: Backend) {
    for relay in modes() {
        let mut testbed = two_workers(backend, relay);
        let before = testbed.frames();
        for family in Family::BOTH {
            let (hosts, headers) = (hosts(family), if family == Family::V4 { 28 } else { 48 });
            for size in (1401..=1420).chain(headers..headers + 18).chain([500, 1025]) {
                let lengths = [size; 25].into_iter().chain([size - size / 7]);
                let packets: Vec<_> = lengths
                    .zip(1..)
                    .map(|(size, number)| {
                        let draft = Draft::udp(hosts.alice, hosts.bob, size.max(headers) - headers);
                        draft.identification(number).build()
                    })
                    .collect();
                testbed.alice.send_train(&packets);
                let arrived = receive_at_bob(&mut testbed, packets.len());
                expect_forwarded(relay, arrived, &packets);
            }
        }
        if relay == RelayMode::Direct {
            assert_eq!(testbed.frames(), before, "relayed packets crossed the TUN");
        }
    }
}

/// UDP with DF where every fourth datagram was lost on its way to the hub.
pub fn identifications_are_kept(backend: Backend) {
    for relay in modes() {
        let mut testbed = two_workers(backend, relay);
        let hosts = hosts(Family::V4);
        let numbers = (1..60).filter(|number| number % 4 != 0);
        let packets: Vec<_> = numbers
            .map(|number| Draft::udp(hosts.alice, hosts.bob, 300).identification(number))
            .map(|draft| draft.fragment(DF).build())
            .collect();
        testbed.alice.send_train(&packets);
        let arrived = receive_at_bob(&mut testbed, packets.len());
        expect_forwarded(relay, arrived, &packets);
    }
}

/// Plaintexts longer than their packets: bytes behind the packet are not passed on.
pub fn padding_is_not_forwarded(backend: Backend) {
    for relay in modes() {
        let mut testbed = two_workers(backend, relay);
        for family in Family::BOTH {
            let hosts = hosts(family);
            for plaintext in [96, 101, 1000, 1420] {
                let mut packets: Vec<_> = (0..40)
                    .map(|number| Draft::udp(hosts.alice, hosts.bob, number).identification(7))
                    .map(|draft| draft.build())
                    .collect();
                for packet in &mut packets {
                    packet.resize(plaintext, 0xee);
                }
                testbed.alice.send_train(&packets);
                let arrived = receive_at_bob(&mut testbed, packets.len());
                expect_forwarded(relay, arrived, &packets);
            }
        }
    }
}

/// Packets of one flow, of all sizes, alone and in trains, arrive in order.
pub fn order_is_kept(backend: Backend) {
    const COUNT: usize = 2000;
    for relay in modes() {
        let mut testbed = two_workers(backend, relay);
        // The interface's kernel queue is shorter than a worker's.
        let at_once = if relay == RelayMode::Direct { COUNT } else { 250 };
        for family in Family::BOTH {
            let hosts = hosts(family);
            let packet = |number: usize| {
                // Runs of 1 to 12 packets of one size.
                let size = [1372, 40, 700, 1371, 0, 1200, 333][number / 12 % 7] + number / 84 % 3;
                let draft = Draft::udp(hosts.alice, hosts.bob, size.min(1372));
                draft.identification(number as u16).class((number / 12 % 3) as u8).build()
            };
            let packets: Vec<_> = (0..COUNT).map(packet).collect();
            for part in packets.chunks(at_once) {
                let mut rest = part;
                while !rest.is_empty() {
                    let alike = rest.iter().take_while(|one| one.len() == rest[0].len()).count();
                    let (train, later) = rest.split_at(alike.min(9));
                    testbed.alice.send_train(train);
                    rest = later;
                }
                let arrived = receive_at_bob(&mut testbed, part.len());
                expect_forwarded(relay, arrived, part);
            }
        }
    }
}

/// The outer packet carries the inner ECN mark, and marks on the outer packet arrive inside.
pub fn ecn_marks_are_merged(backend: Backend) {
    const OUTER: [&str; 4] = ["not-ect", "ect1", "ect0", "ce"];
    // RFC 6040 §4.2, as Linux does it: by inner and outer mark.
    const MERGED: [[u8; 4]; 4] = [[0, 0, 0, 0], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        for (outer, word) in OUTER.into_iter().enumerate() {
            let rule = format!("udp dport {HUB_PORT}");
            let action = format!("ip ecn set {word}");
            let _marks = Counter::acting(&testbed.outside, "output", &rule, &action);
            for (inner, family) in (0..4).zip(Family::BOTH.into_iter().cycle()) {
                let (hosts, dscp) = (hosts(family), 0xb8);
                let draft = Draft::udp(hosts.alice, hosts.bob, 100);
                let sent = draft.clone().class(dscp | inner).build();
                let merged = MERGED[usize::from(inner)][outer];
                // The mark that leaves the hub is that of the merged packet, ECT(0) for CE.
                let leaving = OUTER[usize::from(if merged == 3 { 2 } else { merged })];
                let port = testbed.bob.endpoint().port();
                let rule = format!("udp dport {port} ip dscp cs0 ip ecn {leaving}");
                let left = Counter::new(&testbed.outside, "prerouting", &rule);
                testbed.alice.send(&sent);
                let arrived = trim(testbed.bob.receive());
                let text = format!("{relay:?}: {inner} in {word}, {family:?}");
                assert_eq!(arrived, forwarded(&draft.class(dscp | merged).build()), "{text}");
                eventually(seconds(1), &text, || left.packets() == 1);
            }
        }
    }
}

/// Packets for a peer with an endpoint but without a session are staged during the handshake and
/// arrive in order.
pub fn packets_without_a_session_are_staged(backend: Backend) {
    for relay in modes() {
        for (family, dave) in Family::BOTH.into_iter().zip(["10.77.0.5", "fd77::5"]) {
            let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
            let alice = hosts(family).alice;
            let packets: Vec<_> =
                (1..=20).map(|number| Draft::udp(alice, dave, 100 + number).build()).collect();
            let seen = testbed.observe_all(|alice| {
                for packet in &packets {
                    alice.send(packet);
                }
            });
            assert!(seen.alice.is_empty() && seen.bob.is_empty(), "{relay:?}: {seen:?}");
            if relay == RelayMode::Direct {
                assert_eq!((seen.entered, seen.left), (0, 0), "packets are staged in the worker");
            }
            for packet in &packets {
                assert_eq!(trim(testbed.dave.receive()), forwarded(packet), "{relay:?}");
            }
            // Now dave has a session.
            let before = testbed.frames();
            testbed.alice.send(&packets[0]);
            assert_eq!(trim(testbed.dave.receive()), forwarded(&packets[0]));
            let is_direct = relay == RelayMode::Direct;
            assert_eq!(testbed.frames() == before, is_direct, "{relay:?}");
        }
    }
}

/// The operator can switch forwarding off, for IPv4 on the interface, for IPv6 globally.
pub fn forwarding_can_be_switched_off(backend: Backend) {
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        let interface = testbed.hub.interface.clone();
        let force = format!("net.ipv6.conf.{interface}.force_forwarding");
        let has_force = testbed.hub.namespace.attempt(&format!("sysctl -n {force}")).is_ok();
        let v4 = format!("net.ipv4.conf.{interface}.forwarding");
        let v6 = format!("net.ipv6.conf.{interface}.forwarding");
        let mut steps = vec![
            (format!("{v4}=0"), [false, true]),
            (format!("{v4}=1"), [true, true]),
            ("net.ipv6.conf.all.forwarding=0".to_owned(), [true, false]),
            (format!("{v6}=1"), [true, false]),
            ("net.ipv6.conf.all.forwarding=1".to_owned(), [true, true]),
            (format!("{v6}=0"), [true, true]),
            ("net.ipv4.ip_forward=0".to_owned(), [false, true]),
            ("net.ipv4.ip_forward=1".to_owned(), [true, true]),
        ];
        if has_force {
            steps.push(("net.ipv6.conf.all.forwarding=0".to_owned(), [true, false]));
            steps.push((format!("{force}=1"), [true, true]));
            steps.push((format!("{force}=0"), [true, false]));
        }
        for (setting, expected) in steps {
            testbed.hub.namespace.sysctl(&setting);
            let packets =
                Family::BOTH.map(|family| Draft::udp(hosts(family).alice, hosts(family).bob, 60));
            let packets = packets.map(|draft| draft.build());
            // No ICMP errors while forwarding is off, either.
            let last_hops = Family::BOTH
                .map(|family| Draft::udp(hosts(family).alice, hosts(family).bob, 60).hop_limit(1))
                .map(|draft| draft.build());
            let text = format!("{setting}: {expected:?}, {relay:?}");
            // The daemon is notified by an event.
            eventually(seconds(1), &text, || {
                packets.each_ref().map(|packet| {
                    let Observed { alice, bob, .. } = testbed.observe(packet);
                    assert!(alice.is_empty(), "{text}: {alice:02x?}");
                    !bob.is_empty()
                }) == expected
            });
            let answered = last_hops.each_ref().map(|packet| {
                let Observed { alice, bob, .. } = testbed.observe(packet);
                assert!(bob.is_empty(), "{text}: {bob:02x?}");
                !alice.is_empty()
            });
            assert_eq!(answered, expected, "{text}: time exceeded");
        }
    }
}
