//! Hostile datagrams at full rate during a TCP flow, from a sender without a key and from a man in
//! the middle: the flow survives, the sender gets no reply, memory stays flat.

use std::collections::VecDeque;

use crate::harness::{
    ALICE, BOB, Backend, Counter, Daemon, Family, Flood, Forgery, HUB, HUB_PORT, Iperf,
    IperfServer, KeyPair, MALLORY, Options, Proxy, Relay, endpoint, eventually, noise,
    ping_until_answered, seconds, send_segments,
};

/// Largest growth of the daemon's memory under attack (KiB), once warm.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Runs a TCP flow from alice to the hub during `attack`; checks the flow, the absence of replies,
/// and memory.
fn survives_attack(relay: &Relay, attack: impl FnOnce() -> Flood) {
    let (hub, alice) = (&relay.hub, &relay.alice);
    let answers = Counter::new(&relay.mallory, "input", "udp sport 51820");
    let _server = IperfServer::start(&relay.lab, &hub.namespace);
    let flood = attack();
    // The first run warms up the buffers; memory must not grow after it.
    Iperf::run(&alice.namespace, HUB.inner(Family::V4), "--time 1");
    let warm = hub.resident_kib();
    let options = "--time 4 --interval 0.5";
    let flow = Iperf::run(&alice.namespace, HUB.inner(Family::V4), options);
    let grown = hub.resident_kib().saturating_sub(warm);
    assert!(flow.longest_pause() <= seconds(2), "{flow:?}");
    assert!(flow.bytes_per_second() > 1e5, "{flow:?}");
    assert!(flood.sent() > 1000, "the attack was too weak: {}", flood.sent());
    assert_eq!(answers.packets(), 0, "the attacker got a reply");
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    drop(flood);
    ping_until_answered(&alice.namespace, HUB.inner(Family::V6));
    for reason in ["drop_malformed", "drop_bad_mac1", "drop_unknown_index"] {
        assert!(hub.counter(reason) > 0, "{reason} tells nothing of the attack");
    }
}

/// Generates malformed datagrams of all lengths and types.
fn malformed(victim: &KeyPair) -> impl FnMut(&mut Vec<u8>) + Send + use<> {
    let mut noise = noise();
    let mut forgeries: Vec<_> =
        Forgery::UNANSWERED.iter().map(|forgery| forgery.maker(victim, None)).collect();
    move |datagram| {
        let choice = noise();
        let forgery = (choice >> 8) as usize % forgeries.len();
        forgeries[forgery](datagram);
        let length = datagram.len();
        match choice % 8 {
            0 => datagram.clear(),
            1 => datagram.truncate((choice >> 16) as usize % length),
            2 => datagram.resize(length + 1 + (choice >> 16) as usize % 64, 0),
            3 => datagram.resize(1 + (choice >> 16) as usize % 65_000, 0xA5),
            4 => datagram[0] = (choice >> 16) as u8,
            5 => datagram[1 + (choice >> 16) as usize % 3] = 1,
            6 => datagram.iter_mut().for_each(|byte| *byte = (noise() >> 24) as u8),
            // Data with an index that may exist, the largest counter, and no payload.
            _ => {
                datagram.clear();
                datagram.extend([4, 0, 0, 0]);
                datagram.extend((noise() as u32).to_le_bytes());
                datagram.extend(u64::MAX.to_le_bytes());
                datagram.resize(16 + (choice >> 16) as usize % 17, 0);
            }
        }
    }
}

fn malformed_datagrams_are_dropped(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let mut make = malformed(&relay.hub.key);
    survives_attack(&relay, || {
        Flood::start(&relay.mallory, MALLORY.hub(Family::V4), move |datagram| make(datagram))
    });
}

/// Trains with segments of every size and a short last one.
fn malformed_trains_are_dropped(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let key = relay.hub.key.clone();
    let mut noise = noise();
    let mut forgeries: Vec<_> =
        Forgery::UNANSWERED.iter().map(|forgery| forgery.maker(&key, None)).collect();
    let mut message = Vec::new();
    survives_attack(&relay, || {
        Flood::of_trains(&relay.mallory, MALLORY.hub(Family::V4), move |payload| {
            let choice = noise();
            let sizes = [1, 15, 16, 31, 32, 33, 64, 92, 148, 149, 1000, 1452, 1472];
            let segment: u16 = sizes[choice as usize % sizes.len()];
            let count = 2 + (choice >> 8) as usize % 62;
            let tail = (choice >> 16) as usize % usize::from(segment);
            payload.clear();
            let make = (choice >> 32) as usize % forgeries.len();
            while payload.len() < usize::from(segment) * count + tail {
                forgeries[make](&mut message);
                message.resize(usize::from(segment), 0);
                payload.extend(&message);
            }
            payload.truncate(payload.len() - usize::from(segment) + tail);
            payload.truncate(65_000);
            segment
        })
    });
}

/// A man in the middle duplicates, corrupts, truncates and extends datagrams in both directions.
/// TCP continues, and only the authentic sender moves an endpoint.
fn a_flow_survives_tampering(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let proxy = Proxy::start(&alice.namespace, ALICE.hub(Family::V4), || {
        let (mut noise, mut past) = (noise(), VecDeque::new());
        move |datagram: &[u8], send: &dyn Fn(&[u8])| {
            let choice = noise();
            let mut copy = datagram.to_vec();
            let place = (choice >> 8) as usize % copy.len();
            match choice % 4 {
                0 => copy[place] ^= 1 << (choice >> 40 & 7),
                1 => copy.truncate(place),
                2 => copy.extend([0; 16]),
                _ => {}
            }
            send(&copy);
            past.push_back(datagram.to_vec());
            if past.len() > 64 {
                send(&past.pop_front().expect("not empty"));
            }
            true
        }
    });
    alice.set(&format!("peer {} endpoint {}", hub.key.public(), proxy.endpoint));
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    let endpoint = hub.of_peer("endpoints", &alice.key);
    assert_ne!(endpoint, "192.0.2.2:51821", "alice's datagrams arrive through the proxy");

    let _server = IperfServer::start(&relay.lab, &hub.namespace);
    Iperf::run(&alice.namespace, HUB.inner(Family::V4), "--time 1");
    let warm = hub.resident_kib();
    for direction in ["", "--reverse"] {
        let options = format!("--time 3 --interval 0.5 {direction}");
        let flow = Iperf::run(&alice.namespace, HUB.inner(Family::V4), &options);
        assert!(flow.longest_pause() <= seconds(2), "{flow:?}");
        assert!(flow.bytes_per_second() > 1e5, "{flow:?}");
    }
    let grown = hub.resident_kib().saturating_sub(warm);
    assert!(grown < GROWTH_KIB_MAX, "memory grew by {grown} KiB");
    for reason in ["drop_not_authentic", "drop_replayed"] {
        assert!(hub.counter(reason) > 0, "{reason} tells nothing of the man in the middle");
    }
    assert_eq!(hub.of_peer("endpoints", &alice.key), endpoint);
}

/// Recorded handshakes and data are replayed from another address: no reply, no new session, no
/// changed endpoint, no packet delivered twice.
fn replays_are_dropped(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let recorded = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let proxy = {
        let recorded = recorded.clone();
        Proxy::start(&alice.namespace, ALICE.hub(Family::V4), move || {
            let recorded = recorded.clone();
            move |datagram: &[u8], _: &dyn Fn(&[u8])| {
                recorded.lock().expect("no thread panics").push(datagram.to_vec());
                true
            }
        })
    };
    alice.set(&format!("peer {} endpoint {}", hub.key.public(), proxy.endpoint));
    for family in Family::BOTH {
        ping_until_answered(&alice.namespace, HUB.inner(family));
    }
    let recorded = recorded.lock().expect("no thread panics").clone();
    assert!(recorded.iter().any(|datagram| datagram[0] == 1), "an initiation was recorded");
    assert!(recorded.iter().any(|datagram| datagram[0] == 4), "data was recorded");

    let inside = |word: &str| {
        let rule = format!("iifname {} {word}", hub.interface);
        Counter::new(&hub.namespace, "prerouting", &rule)
    };
    let state = || (hub.of_peer("endpoints", &alice.key), hub.handshake_with(&alice.key));
    let (packets, before) = (inside("meta l4proto { icmp, ipv6-icmp }"), state());
    let answers = Counter::new(&relay.mallory, "input", "udp sport 51820");
    let arriving = Counter::new(&hub.namespace, "input", "iifname mallory udp dport 51820");
    let mallory = relay.mallory.udp_socket("0.0.0.0:0");
    let rounds = 20;
    for _ in 0..rounds {
        for datagram in &recorded {
            mallory.send_to(datagram, MALLORY.hub(Family::V4)).expect("the link has room");
        }
    }
    let sent = rounds * recorded.len() as u64;
    eventually(seconds(5), "the replays arrive", || arriving.packets() == sent);
    // A reply to a later packet of alice's proves that the replays have been handled.
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    assert_eq!(packets.packets(), 1, "a replayed packet left the tunnel");
    assert!(hub.counter("drop_replayed") >= rounds, "each round replays accepted data");
    assert_eq!(state(), before);
    assert_eq!(answers.packets(), 0);
}

/// A client drops malformed datagrams, too.
fn a_client_survives_malformed_datagrams(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, bob) = (&relay.hub, &relay.bob);
    let port = bob.show("listen-port");
    let target = format!("198.51.100.2:{}", port.trim()).parse().expect("an endpoint");
    let mut make = malformed(&bob.key);
    let flood = Flood::start(&hub.namespace, target, move |datagram| make(datagram));
    eventually(seconds(5), "the flood runs", || flood.sent() > 10_000);
    let _server = IperfServer::start(&relay.lab, &bob.namespace);
    let options = "--time 3 --interval 0.5";
    let flow = Iperf::run(&relay.alice.namespace, BOB.inner(Family::V4), options);
    assert!(flow.longest_pause() <= seconds(2), "{flow:?}");
}

/// Datagrams that are too short for a message, among them empty ones, never reach a worker.
fn short_datagrams_are_kept_out(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    daemon.set(&format!("listen-port {HUB_PORT}"));
    daemon.set_private_key();
    daemon.bring_up(1420, &[]);
    for (local, hub) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let socket = daemon.namespace.udp_socket(local);
        let to = endpoint(hub, HUB_PORT);
        for length in (0..32).chain([0; 100]) {
            socket.send_to(&[4; 32][..length], to).expect("loopback takes it");
        }
        // A train that is too short as a whole.
        let _ = send_segments(&socket, to, &[4; 11], 2);
        // The shortest message, for each of the two workers.
        for worker in 0..2 {
            let mut message = [0; 32];
            (message[0], message[4]) = (4, worker);
            socket.send_to(&message, to).expect("loopback takes it");
        }
    }
    eventually(seconds(5), "both workers have seen what follows", || {
        daemon.counter("drop_unknown_index") == 4
    });
    assert_eq!(daemon.counter("drop_malformed"), 0);
    assert_eq!(daemon.counter("received_datagrams"), 4);
}

on_both_backends!(
    malformed_datagrams_are_dropped,
    malformed_trains_are_dropped,
    a_flow_survives_tampering,
    replays_are_dropped,
    a_client_survives_malformed_datagrams,
    short_datagrams_are_kept_out,
);
