//! A real engine with two workers, on both backends, each in its own network namespace; and one
//! without an interface, for races that need no privilege.
#![cfg(not(loom))] // which leaves out the engine

mod full_socket;
mod races;
mod relay;
mod support;

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use wg_bounce_dataplane::engine::IoChoice;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_sys::{Endpoint, OuterHeader, socket::send_one, tun::Tun};

use support::{Hub, INNER, Remote, WORKERS, eventually, on_both_backends, run};

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a socket")
}

/// Sends one packet to the application and one back.
#[track_caller]
fn exchange(hub: &Hub, remote: &mut Remote) {
    let message = remote.seal(b"there");
    remote.send(&message, hub.port());
    assert_eq!(hub.app_gets(), b"there");
    hub.app.send_to(b"and back", (remote.inner, 7001)).expect("sent");
    assert_eq!(remote.gets(), b"and back");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn packets_cross_both_ways() {
    on_both_backends(|io| {
        let mut hub = Hub::start(io);
        for worker in 0..WORKERS {
            let mut remote = hub.add_peer(2 + worker as u8, worker, socket());
            (0..10).for_each(|_| exchange(&hub, &mut remote));
            let counters = &remote.peer.counters;
            let (received, sent) = (&counters.received_bytes, &counters.sent_bytes);
            assert_eq!(received.read(), 10 * (48 + 32), "33 bytes, padded");
            eventually(|| sent.read() == 10 * (48 + 32));
        }
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_mixed_train_is_handed_to_both_workers() {
    on_both_backends(|io| {
        const PAIRS: usize = 20;
        let mut hub = Hub::start(io);
        let sender = socket();
        let mut one = hub.add_peer(2, 0, sender.try_clone().expect("a descriptor"));
        let mut two = hub.add_peer(3, 1, sender.try_clone().expect("a descriptor"));
        let mut train = Vec::new();
        for number in 0..PAIRS {
            train.extend(one.seal(&[2, number as u8]));
            train.extend(two.seal(&[3, number as u8]));
        }
        let segment_size = train.len() / (2 * PAIRS);
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, hub.port()));
        let to = Endpoint { remote: to, source: None };
        let pieces = [IoSlice::new(&train)];
        send_one(sender.as_raw_fd(), &to, OuterHeader::default(), segment_size, &pieces)
            .expect("sent");
        let mut next = [0u8; 4];
        for _ in 0..2 * PAIRS {
            let packet = hub.app_gets();
            let expected = &mut next[usize::from(packet[0])];
            assert_eq!(packet[1], *expected, "the packets of each peer stay in order");
            *expected += 1;
        }
        assert_eq!(hub.count("handed_off"), PAIRS as u64);
        assert_eq!(hub.count("drop_unknown_index"), 0);
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_removed_session_stops_at_once() {
    on_both_backends(|io| {
        let mut hub = Hub::start(io);
        let mut remote = hub.add_peer(2, 1, socket());
        exchange(&hub, &mut remote);
        let _old = remote.peer.set_session(None);
        hub.engine.command(1, Command::Forget { index: remote.index });
        hub.snapshot.routes.remove(std::net::IpAddr::V4(remote.inner).into());
        hub.publish();
        let message = remote.seal(b"too late");
        remote.send(&message, hub.port());
        hub.expect_count("drop_unknown_index", 1);
        hub.app.send_to(b"too late", (remote.inner, 7001)).expect("sent");
        hub.expect_count("drop_no_peer", 1);
        // The packet of the exchange, and an ICMP error.
        hub.expect_count("tun_packets_written", 2);
        assert_eq!(hub.count("generated_packets"), 1);
        remote.socket.set_nonblocking(true).expect("an option");
        assert!(remote.socket.recv(&mut [0; 100]).is_err(), "nothing more is sent");
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn unauthenticated_messages_are_counted_and_change_nothing() {
    on_both_backends(|io| {
        let mut hub = Hub::start(io);
        let mut remote = hub.add_peer(2, 0, socket());
        exchange(&hub, &mut remote);
        let port = hub.port();
        let endpoint = remote.peer.endpoint();
        let stranger = socket();
        let inject = |message: &[u8]| {
            stranger.send_to(message, (Ipv4Addr::LOCALHOST, port)).expect("sent");
        };

        let good = remote.seal(b"once");
        for bit in 0..good.len() * 8 {
            let mut broken = good.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            inject(&broken);
        }
        // The type; the index; the counter, ciphertext and tag.
        hub.expect_count("drop_malformed", 32);
        hub.expect_count("drop_unknown_index", 32);
        hub.expect_count("drop_not_authentic", good.len() as u64 * 8 - 64);
        for _ in 0..200 {
            inject(&[]);
        }
        (1..32).for_each(|length| inject(&good[..length]));
        // One that is long enough comes last; the kernel has dropped those before it.
        inject(&[0; 32]);
        hub.expect_count("drop_malformed", 32 + 1);
        assert_eq!(remote.peer.endpoint(), endpoint, "only an authentic message moves an endpoint");

        remote.send(&good, port);
        assert_eq!(hub.app_gets(), b"once");
        (0..3).for_each(|_| inject(&good));
        hub.expect_count("drop_replayed", 3);
        assert_eq!(remote.peer.endpoint(), endpoint, "a replay does not move the endpoint");

        let foreign = remote.seal_packet(&support::udp_packet(Ipv4Addr::new(10, 9, 0, 9), b"no"));
        remote.send(&foreign, port);
        hub.expect_count("drop_source_not_allowed", 1);
        let garbage = remote.seal_packet(&[0; 40]);
        remote.send(&garbage, port);
        hub.expect_count("drop_not_ip", 1);
        exchange(&hub, &mut remote);
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_port_changes_under_traffic_and_is_free_afterwards() {
    on_both_backends(|io| {
        let mut hub = Hub::start(io);
        let mut remote = hub.add_peer(2, 1, socket());
        let ports = [hub.port(), hub.bind(0)];
        let (target, is_over) = (AtomicU16::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let noise = socket();
                while !is_over.load(Ordering::Relaxed) {
                    let port = target.load(Ordering::Relaxed);
                    let _ = noise.send_to(&[4; 64], (Ipv4Addr::LOCALHOST, port.max(1)));
                }
            });
            for round in 0..50 {
                let port = ports[round % 2];
                hub.bind(port);
                target.store(port, Ordering::Relaxed);
                exchange(&hub, &mut remote);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let (name, port) = (hub.name.clone(), hub.port());
        hub.stop();
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a stopped engine holds no port");
        Tun::create(&name, 1, true).expect("a stopped engine holds no interface");
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn staged_packets_leave_in_order_after_refusals() {
    on_both_backends(|io| {
        const PACKETS: u8 = 10;
        let mut hub = Hub::start(io);
        let mut remote = hub.add_peer(2, 0, UdpSocket::bind("[::1]:0").expect("a socket"));
        exchange(&hub, &mut remote);
        let checked = remote.peer.path().as_ref().expect("set").source_state();
        let _none = remote.peer.set_session(None);
        for number in 0..PACKETS {
            hub.app.send_to(&[number; 1392], (remote.inner, 7001)).expect("sent");
        }
        let staged = || remote.peer.staged.load(Ordering::Relaxed);
        eventually(|| staged() == PACKETS.into());
        // Neither the train fits this device, nor is the source address ours.
        run("ip link set lo mtu 1300");
        let to = remote.peer.endpoint().expect("set").remote;
        let source = Some("2001:db8::99".parse().expect("an address"));
        remote.peer.set_endpoint(Endpoint { remote: to, source });
        // It vanishes without a notice: only the refusal tells.
        remote.peer.path().as_ref().expect("set").set_source_state(checked);
        remote.open_session();
        for worker in 0..WORKERS {
            let peer = remote.peer.clone();
            hub.engine.command(worker, Command::SendStaged { peer });
        }
        hub.engine.ring_bells();
        for number in 0..PACKETS {
            assert_eq!(remote.gets(), [number; 1392]);
        }
        assert_eq!(staged(), 0);
        assert_eq!(remote.peer.staged_by.load(Ordering::Relaxed), 0);
        assert_eq!(remote.peer.endpoint(), Some(Endpoint { remote: to, source: None }));
        assert_eq!(hub.count("gso_demotions"), 1);
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_largest_packets_pass_without_ipv6() {
    on_both_backends(|io| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a sysctl");
        let mut hub = Hub::start(io);
        let mut remote = hub.add_peer(2, 0, socket());
        run(&format!("ip link set {} mtu 65535", hub.name));
        for mtu in [0, 65_535] {
            hub.snapshot.mtu = mtu;
            hub.publish();
            let refused = hub.count("drop_send_refused");
            hub.app.send_to(&[1; 65_507], (remote.inner, 7001)).expect("sent");
            hub.expect_count("drop_send_refused", refused + 1);
            hub.app.send_to(&[2; 65_472 - 28], (remote.inner, 7001)).expect("sent");
            assert_eq!(remote.gets(), [2; 65_472 - 28]);
            exchange(&hub, &mut remote);
        }
        let there = remote.peer.endpoint();
        let elsewhere = "[2001:db8::1]:9".parse().expect("an address");
        remote.peer.set_endpoint(Endpoint { remote: elsewhere, source: None });
        let refused = hub.count("drop_send_refused");
        hub.app.send_to(b"nowhere", (remote.inner, 7001)).expect("sent");
        hub.expect_count("drop_send_refused", refused + 1);
        remote.peer.set_endpoint(there.expect("set"));
        exchange(&hub, &mut remote);
        assert_eq!(hub.app.local_addr().expect("bound").port(), INNER.1);
        hub.stop();
    });
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn stopping_is_quick_and_complete() {
    on_both_backends(|io| {
        assert!(matches!(io, IoChoice::Uring | IoChoice::Mmsg));
        for _ in 0..5 {
            let mut hub = Hub::start(io);
            let port = hub.port();
            let mut remote = hub.add_peer(2, 0, socket());
            exchange(&hub, &mut remote);
            let name = hub.name.clone();
            hub.stop();
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
            Tun::create(&name, 1, true).expect("the interface is gone");
        }
    });
}
