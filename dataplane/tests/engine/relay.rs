//! Packets between peers: relayed by the workers, or left to the kernel.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use wg_bounce_dataplane::checksum;
use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::snapshot::DirectRelay;
use wg_bounce_sys::socket::send_one;
use wg_bounce_sys::{Endpoint, OuterHeader};

use crate::socket;
use crate::support::{Hub, Remote, eventually, on_both_backends, run, udp_packet_to};

/// A hub that relays, and two peers whose sessions belong to different workers.
fn relay_hub(io: IoChoice, relaying: DirectRelay) -> (Hub, Remote, Remote) {
    let mut hub = Hub::start(io);
    let one = hub.add_peer(2, 0, socket());
    let two = hub.add_peer(3, 1, socket());
    hub.relay(relaying);
    (hub, one, two)
}

fn send_train(from: &Remote, hub: &Hub, train: &[u8], segment_size: usize) {
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port()));
    let to = Endpoint { remote, source: None };
    let outer = OuterHeader::default();
    send_one(from.socket.as_raw_fd(), &to, outer, segment_size, &[IoSlice::new(train)])
        .expect("sent");
}

/// The packet as a router forwards it.
fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Trains of peers that pad to 16 bytes, not at all, or to more.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn trains_are_relayed_in_place() {
    on_both_backends(|io| {
        for relaying in [DirectRelay::IfRoutedBack, DirectRelay::Always] {
            let (hub, mut one, two) = relay_hub(io, relaying);
            let mut relayed = 0;
            for length in (1401..=1420usize).chain([29, 64, 576]) {
                for padded in [length, length.next_multiple_of(16).min(1420), length + 40] {
                    let packets: Vec<Vec<u8>> = (0..43u8)
                        .map(|n| udp_packet_to(one.inner, two.inner, &vec![n; length - 28]))
                        .collect();
                    let train: Vec<u8> =
                        packets.iter().flat_map(|p| one.seal_padded(p, padded)).collect();
                    send_train(&one, &hub, &train, train.len() / packets.len());
                    for packet in &packets {
                        let got = two.gets_plaintext();
                        assert!(got.len() <= padded, "a message never grows");
                        assert_eq!(got[..length], forwarded(packet));
                        assert!(got[length..].iter().all(|&byte| byte == 0), "padding is zero");
                    }
                    relayed += packets.len() as u64;
                }
            }
            hub.expect_count("relayed", relayed);
            assert_eq!(hub.count("tun_packets_written"), 0);
            // One train in, one train out.
            eventually(|| hub.count("sent_trains") == hub.count("received_trains"));
            hub.stop();
        }
    });
}

/// Datagrams that arrive one by one, from two peers to two others, leave in order.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn single_datagrams_keep_their_order() {
    on_both_backends(|io| {
        let (mut hub, mut one, mut two) = relay_hub(io, DirectRelay::IfRoutedBack);
        let three = hub.add_peer(4, 0, socket());
        let four = hub.add_peer(5, 1, socket());
        for number in 0..2_000u32 {
            let size = 100 + (number as usize * 37) % 1200;
            let mut payload = vec![0; size];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            let to = if number % 2 == 0 { three.inner } else { four.inner };
            for from in [&mut one, &mut two] {
                let message = from.seal_packet(&udp_packet_to(from.inner, to, &payload));
                from.send(&message, hub.port());
            }
            if number % 100 == 99 {
                for (receiver, parity) in [(&three, 0), (&four, 1)] {
                    let mut next = [number - 99 + parity; 2];
                    for _ in 0..100 {
                        let packet = receiver.gets_plaintext();
                        let expected = &mut next[usize::from(packet[15]) - 2];
                        assert_eq!(packet[28..32], expected.to_be_bytes());
                        *expected += 2;
                    }
                }
            }
        }
        assert_eq!(hub.count("relayed"), 4_000);
        hub.stop();
    });
}

/// Without a session, a packet waits in the worker and never reaches the kernel.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn without_a_session_packets_wait() {
    on_both_backends(|io| {
        let (mut hub, mut one, two) = relay_hub(io, DirectRelay::Always);
        let _none = two.peer.set_session(None);
        for number in 0..10 {
            let packet = udp_packet_to(one.inner, two.inner, &[number; 100]);
            let message = one.seal_packet(&packet);
            one.send(&message, hub.port());
        }
        eventually(|| two.peer.staged.load(std::sync::atomic::Ordering::Relaxed) == 10);
        two.open_session();
        hub.engine.command(0, Command::SendStaged { peer: two.peer.clone() });
        hub.engine.ring_bells();
        for number in 0..10 {
            let packet = udp_packet_to(one.inner, two.inner, &[number; 100]);
            assert_eq!(two.gets_plaintext()[..128], forwarded(&packet));
        }
        assert_eq!(hub.count("tun_packets_written"), 0);
        hub.stop();
    });
}

/// The kernel is queried once for a route, and again after control has announced a change.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_kernels_route_decides() {
    on_both_backends(|io| {
        let (mut hub, mut one, two) = relay_hub(io, DirectRelay::IfRoutedBack);
        let send = |one: &mut Remote, hub: &Hub, ttl: u8| {
            let mut packet = udp_packet_to(one.inner, two.inner, b"where to?");
            packet[8] = ttl;
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let message = one.seal_packet(&packet);
            one.send(&message, hub.port());
        };
        send(&mut one, &hub, 64);
        assert_eq!(two.gets_plaintext()[28..37], *b"where to?");
        hub.expect_count("relayed", 1);

        // The route leads elsewhere: auto gives the packet to the kernel.
        run("ip link add other0 type veth peer name other1");
        run("ip link set other0 up");
        run("ip link set other1 up");
        run(&format!("ip route add {}/32 dev other0", two.inner));
        hub.routes_changed();
        send(&mut one, &hub, 64);
        hub.expect_count("tun_packets_written", 1);
        assert_eq!(hub.count("relayed"), 1);

        // Direct still relays it, and answers by itself what the kernel would send by that route.
        hub.snapshot.relay.mode.v4 = DirectRelay::Always;
        hub.publish();
        send(&mut one, &hub, 64);
        assert_eq!(two.gets_plaintext()[28..37], *b"where to?");
        send(&mut one, &hub, 1);
        let answer = one.gets_plaintext();
        assert_eq!((&answer[12..16], &answer[20..22]), (&[10, 9, 0, 1][..], &[11, 0][..]));
        hub.expect_count("drop_icmp_answered", 1);
        assert_eq!(hub.count("tun_packets_written"), 1);

        // The route leads back: the kernel answers an expired packet.
        run(&format!("ip route del {}/32 dev other0", two.inner));
        hub.routes_changed();
        send(&mut one, &hub, 1);
        let answer = one.gets_plaintext();
        assert_eq!(answer[20..22], [11, 0], "ICMP time exceeded in transit");
        assert_eq!(answer[28 + 16..28 + 20], two.inner.octets());
        hub.stop();
    });
}

/// A peer can neither spoof another one's address nor replay.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn spoofed_and_replayed_packets_are_not_relayed() {
    on_both_backends(|io| {
        for relaying in [DirectRelay::IfRoutedBack, DirectRelay::Always] {
            let (hub, mut one, two) = relay_hub(io, relaying);
            let spoofed = udp_packet_to(two.inner, two.inner, b"from yourself");
            let message = one.seal_packet(&spoofed);
            one.send(&message, hub.port());
            hub.expect_count("drop_source_not_allowed", 1);
            let message = one.seal_packet(&udp_packet_to(one.inner, two.inner, b"once"));
            for _ in 0..3 {
                one.send(&message, hub.port());
            }
            hub.expect_count("drop_replayed", 2);
            assert_eq!(two.gets_plaintext()[28..32], *b"once");
            assert_eq!(hub.count("relayed"), 1);
            hub.stop();
        }
    });
}
