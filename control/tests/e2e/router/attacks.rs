//! A hostile authenticated peer, and forged messages on the path to a relay.

use super::cases::hosts;
use super::judge::{Expect, comparable, judge, modes};
use crate::harness::{
    Backend, DF, Draft, Family, IcmpError, RelayMode, Testbed, TestbedOptions, eventually,
    forwarded, hex, noise, seconds, trim,
};
use wg_bounce_dataplane::ip;

/// Largest growth of the daemon's memory under attack (KiB), once warm.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Checks that the hub still forwards packets.
#[track_caller]
pub fn still_forwards(testbed: &mut Testbed) {
    for family in Family::BOTH {
        let packet = Draft::udp(hosts(family).alice, hosts(family).bob, 60).build();
        let seen = testbed.observe(&packet);
        judge(&seen, &packet, &Expect::Forwarded).expect("the hub still works");
    }
}

/// Messages that are forged, replayed or reordered.
pub fn forged_and_replayed_messages_are_dropped(backend: Backend) {
    const COUNT: u16 = 200;
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        for family in Family::BOTH {
            let hosts = hosts(family);
            let packets: Vec<_> = (0..COUNT)
                .map(|number| Draft::echo(hosts.alice, hosts.bob, number, 60).build())
                .collect();
            let [replayed, forged] =
                ["drop_replayed", "drop_not_authentic"].map(|name| testbed.hub.counter(name));
            let seen = testbed.observe_all(|alice| {
                let messages: Vec<_> = packets.iter().map(|packet| alice.seal(packet)).collect();
                for (number, message) in messages.iter().enumerate().rev() {
                    // An earlier forgery with the same counter must not use up the counter.
                    let mut forgery = message.clone();
                    let at = 16 + number % (message.len() - 16);
                    forgery[at] ^= 1;
                    alice.send_raw(&forgery);
                    alice.send_raw(message);
                    alice.send_raw(message);
                    alice.send_raw(&message[..message.len() - 1 - number % 16]);
                }
                for message in &messages {
                    alice.send_raw(message);
                }
            });
            assert!(seen.alice.is_empty());
            let expected: Vec<_> = packets.iter().rev().map(|packet| forwarded(packet)).collect();
            let arrived: Vec<_> = seen.bob.into_iter().map(trim).collect();
            assert!(arrived == expected, "{} arrived, {family:?} {relay:?}", arrived.len());
            let count = u64::from(COUNT);
            assert_eq!(testbed.hub.counter("drop_replayed"), replayed + 2 * count);
            assert_eq!(testbed.hub.counter("drop_not_authentic"), forged + 2 * count);
        }
        still_forwards(&mut testbed);
    }
}

/// Packets from sources of other peers or of no peer are dropped silently and counted.
pub fn spoofed_sources_are_dropped(backend: Backend) {
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        let before = testbed.hub.counter("drop_source_not_allowed");
        let mut count = 0;
        for family in Family::BOTH {
            let hosts = hosts(family);
            for source in [hosts.bob, hosts.far, hosts.carol, hosts.hub, hosts.unknown] {
                for target in [hosts.bob, hosts.far, hosts.hub, hosts.alice, hosts.unknown] {
                    for hop_limit in [64, 1] {
                        let packet = Draft::echo(source, target, 1, 60).hop_limit(hop_limit);
                        let packet = packet.build();
                        let seen = testbed.observe(&packet);
                        judge(&seen, &packet, &Expect::Silence)
                            .unwrap_or_else(|fault| panic!("{source} to {target}: {fault}"));
                        assert_eq!((seen.entered, seen.left), (0, 0), "{source} to {target}");
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(testbed.hub.counter("drop_source_not_allowed") - before, count);
        still_forwards(&mut testbed);
    }
}

/// Valid packets of all kinds, as seeds for mutation. UDP packets of different `cycle`s are never
/// coalesced: the kernel answers a coalesced packet with a single ICMP error.
pub fn seeds(cycle: u16) -> Vec<Vec<u8>> {
    let udp = |source: &str, target: &str| Draft::udp(source, target, 60).ports(7001 + cycle, 9);
    let mut seeds = Vec::new();
    for family in Family::BOTH {
        let hosts = hosts(family);
        for target in [hosts.bob, hosts.far, hosts.hub, hosts.alice_too] {
            seeds.push(udp(hosts.alice, target));
            seeds.push(Draft::tcp(hosts.alice, target, 1, 60));
            seeds.push(Draft::echo(hosts.alice, target, 1, 60));
            seeds.push(udp(hosts.alice_too, target).hop_limit(2));
            // Not UDP: the two sizes of one flow would be coalesced.
            seeds.push(Draft::other(hosts.alice, target, 253, &[7; 1400]).fragment(DF));
            seeds.push(match family {
                Family::V4 => udp(hosts.alice, target).options(&[7, 7, 4, 0, 0, 0, 0, 0]),
                Family::V6 => udp(hosts.alice, target).extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
            });
        }
    }
    seeds.iter().map(Draft::build).collect()
}

/// Changes, truncates or extends a packet; often fixes the header checksum.
pub fn mutate(seed: &[u8], noise: &mut impl FnMut() -> u64) -> Vec<u8> {
    let mut packet = seed.to_vec();
    for _ in 0..1 + noise() % 3 {
        // Mostly in the headers.
        let range = if noise().is_multiple_of(4) { packet.len() } else { 48.min(packet.len()) };
        let at = (noise() >> 16) as usize % range;
        match noise() % 4 {
            0 => packet[at] ^= 1 << (noise() % 8),
            1 => packet[at] = [0, 1, 0x7f, 0x80, 0xff][(noise() >> 8) as usize % 5],
            _ => packet[at] = (noise() >> 24) as u8,
        }
    }
    match noise() % 16 {
        0 => packet.truncate(1 + (noise() >> 16) as usize % packet.len()),
        1 => packet.extend((0..noise() % 64).map(|byte| byte as u8 | 1)),
        _ => {}
    }
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let is_v4 = packet[0] >> 4 == 4 && header_len >= 20 && header_len <= packet.len();
    if is_v4 && !noise().is_multiple_of(4) {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        ip::set_len(&mut packet, header_len, length);
    }
    packet
}

/// For mutated packets, bob and alice receive exactly what they would with the kernel as the relay.
pub fn mutated_packets_fare_as_with_the_kernel(backend: Backend) {
    const COUNT: usize = 20_000;
    const AT_ONCE: usize = 200;
    let mut noise = noise();
    let seeds = (0..).flat_map(seeds).take(COUNT);
    let packets: Vec<_> = seeds.map(|seed| mutate(&seed, &mut noise)).collect();
    let mut reference: Option<Vec<_>> = None;
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        let rounds = packets.chunks(AT_ONCE).map(|part| {
            let mut seen = testbed.observe_all(|alice| {
                for packet in part {
                    alice.send_exactly(packet);
                }
            });
            seen.alice.retain(|packet| !is_rate_limited(packet));
            let (alice, bob, _) = comparable(&seen);
            let mut all: Vec<_> = alice
                .into_iter()
                .map(|packet| ("alice", hex(&packet)))
                .chain(bob.into_iter().map(|packet| ("bob", hex(&packet))))
                .collect();
            all.sort();
            all
        });
        let rounds: Vec<_> = rounds.collect();
        let count: usize = rounds.iter().map(Vec::len).sum();
        assert!(count > COUNT / 4, "too few packets are forwarded or answered: {count}");
        still_forwards(&mut testbed);
        let Some(reference) = &reference else {
            reference = Some(rounds);
            continue;
        };
        for (number, (by_kernel, seen)) in reference.iter().zip(&rounds).enumerate() {
            let only =
                |these: &[(&'static str, String)], those: &[(&'static str, String)]| -> Vec<_> {
                    these.iter().filter(|one| !those.contains(one)).cloned().collect()
                };
            let (less, more) = (only(by_kernel, seen), only(seen, by_kernel));
            assert!(
                by_kernel == seen,
                "round {number}: kernel only {less:?}; {relay:?} only {more:?}; of {:?}",
                packets[number * AT_ONCE..][..AT_ONCE]
                    .iter()
                    .map(|one| hex(one))
                    .collect::<Vec<_>>()
            );
        }
    }
}

/// Whether this error has its own rate limit: host and address unreachable in the daemon, network
/// unreachable in the kernel (`ip_error` in net/ipv4/route.c).
fn is_rate_limited(packet: &[u8]) -> bool {
    let error = IcmpError::read(packet).map(|error| (error.kind, error.code));
    match packet[0] >> 4 {
        4 => matches!(error, Some((3, 0 | 1))),
        _ => error == Some((1, 3)),
    }
}

/// Floods of packets on their last hop are answered at the kernel's rate and block no one else.
pub fn icmp_errors_are_rate_limited(backend: Backend) {
    const COUNT: usize = 5000;
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        // The kernel's defaults.
        for setting in [
            "ipv4.icmp_ratelimit=1000",
            "ipv4.icmp_ratemask=6168",
            "ipv6.icmp.ratelimit=1000",
            "ipv6.icmp.ratemask=0-1,3-127",
        ] {
            testbed.hub.namespace.sysctl(&format!("net.{setting}"));
        }
        for family in Family::BOTH {
            let hosts = hosts(family);
            let packet = Draft::udp(hosts.alice, hosts.bob, 60).hop_limit(1).build();
            let train = vec![packet; 250];
            let mut answers = 0;
            let mut flood = || {
                let seen = testbed.observe_all(|alice| alice.send_train(&train));
                assert!(seen.bob.is_empty(), "{seen:?}");
                answers += seen.alice.len();
                answers
            };
            for _ in 0..COUNT / train.len() {
                flood();
            }
            // Under the lab's limit of zero, Linux from 6.18.44 on leaves no credit for the first
            // quarter of a second under another one.
            eventually(seconds(5), "the kernel answers", || flood() > 0);
            assert!((1..200).contains(&answers), "{answers} answers, {family:?} {relay:?}");
            // Errors of the daemon itself: alice's flood leaves bob his own.
            let packet = Draft::udp(hosts.alice, hosts.unassigned, 60).build();
            let train = vec![packet; 250];
            let mut answers = 0;
            eventually(seconds(5), "the daemon answers", || {
                answers += testbed.observe_all(|alice| alice.send_train(&train)).alice.len();
                answers > 0
            });
            assert!((1..100).contains(&answers), "{answers} answers, {family:?} {relay:?}");
            testbed.bob.send(&Draft::udp(hosts.bob, hosts.unassigned, 60).build());
            let (_, of_bob) = testbed.settle();
            assert_eq!(of_bob.len(), 1, "{family:?} {relay:?}");
        }
        still_forwards(&mut testbed);
    }
}

/// One packet to every address of bob's network: all are forwarded, and memory stays flat.
pub fn a_scan_takes_bounded_memory(backend: Backend) {
    const AT_ONCE: u32 = 256;
    for relay in modes() {
        let mut testbed = Testbed::new(&TestbedOptions::new(backend, relay));
        still_forwards(&mut testbed);
        let warm = testbed.hub.resident_kib();
        for first in (0..0x1_0000).step_by(AT_ONCE as usize) {
            let targets = first..first + AT_ONCE;
            let packets: Vec<_> = targets
                .map(|low| std::net::Ipv4Addr::from_bits(0x0a58_0000 | low).to_string())
                .map(|target| Draft::udp("10.77.0.2", &target, 30).build())
                .collect();
            testbed.alice.send_train(&packets);
            for packet in &packets {
                let arrived = trim(testbed.bob.receive());
                assert!(arrived == forwarded(packet), "{} {relay:?}", hex(&arrived));
            }
        }
        // Packets that only the kernel can answer. The worker limits its route queries per turn.
        let mut answers = 0;
        for first in (0..4096).step_by(AT_ONCE as usize) {
            let packets: Vec<_> = (first..first + AT_ONCE)
                .map(|low| format!("fd88::{low:x}"))
                .map(|target| Draft::udp("fd77::2", &target, 30).hop_limit(1).build())
                .collect();
            let seen = testbed.observe_all(|alice| alice.send_train(&packets));
            assert!(seen.bob.is_empty(), "{seen:?}");
            answers += seen.alice.len();
        }
        assert!(answers >= 1024, "{answers} answers, {relay:?}");
        if relay == RelayMode::Kernel {
            assert_eq!(answers, 4096);
        }
        still_forwards(&mut testbed);
        let grown = testbed.hub.resident_kib().saturating_sub(warm);
        assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB, {relay:?}");
    }
}
