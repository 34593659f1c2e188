//! ICMP errors for undeliverable packets, ECN, DSCP of handshakes, and routing loops.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{
    ALICE, BOB, Backend, Counter, Family, HUB, HUB_PORT, Namespace, Options, Relay, RelayMode,
    endpoint, eventually, holds_for, ping, ping_until_answered, seconds, within,
};

/// Sends datagrams to `target` until the kernel reports host unreachable; returns whether it did.
fn gets_host_unreachable(from: &Namespace, target: &str) -> bool {
    let is_v6 = target.contains(':');
    let socket: UdpSocket = from.udp_socket(if is_v6 { "[::]:0" } else { "0.0.0.0:0" });
    // Host unreachable may be transient, so UDP reports it only on request.
    if is_v6 {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).expect("it is an IPv6 socket");
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("it is an IPv4 socket");
    }
    socket.connect(endpoint(target, 9)).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
    within(seconds(4), || {
        let sent = socket.send(b"hello");
        let heard = socket.recv(&mut [0; 16]);
        [sent, heard]
            .into_iter()
            .any(|result| result.is_err_and(|error| error.kind() == ErrorKind::HostUnreachable))
    })
}

/// A local socket gets an error if no peer owns its destination or the peer's endpoint is unknown,
/// as with the kernel module.
fn a_local_socket_gets_host_unreachable(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let hub = &relay.hub;
    for target in ["10.77.0.99", "fd77::99"] {
        assert!(gets_host_unreachable(&hub.namespace, target), "no peer: {target}");
    }
    // Alice owns all other addresses, also those of the hub: its packets are not hers.
    let all = format!("{},0.0.0.0/0,::/0", ALICE.allowed_ips());
    hub.set(&format!("peer {} allowed-ips {all}", relay.alice.key.public()));
    for family in Family::BOTH {
        let target = BOB.inner(family);
        assert!(gets_host_unreachable(&hub.namespace, target), "no endpoint: {target}");
    }
    // A reachable peer replies with port unreachable instead.
    relay.connect();
    for family in Family::BOTH {
        let target = BOB.inner(family);
        assert!(!gets_host_unreachable(&hub.namespace, target), "{target} is reachable");
    }
}

/// A host behind a peer gets the error too, through the tunnel.
fn a_host_behind_a_peer_gets_host_unreachable(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let lan = relay.lab.namespace("lan");
    relay.lab.link((&alice.namespace, "lan"), (&lan, "out0"), 1500);
    alice.namespace.sysctl("net.ipv4.ip_forward=1");
    alice.namespace.sysctl("net.ipv6.conf.all.forwarding=1");
    for (near, far, length) in [("172.16.5.1", "172.16.5.2", 24), ("fd05::1", "fd05::2", 64)] {
        let nodad = if length == 64 { "nodad" } else { "" };
        alice.namespace.run(&format!("ip address add {near}/{length} dev lan {nodad}"));
        lan.run(&format!("ip address add {far}/{length} dev out0 {nodad}"));
        lan.run(&format!("ip route add default via {near}"));
    }
    let both = "172.16.5.0/24,fd05::/64";
    hub.set(&format!("peer {} allowed-ips {},{both}", alice.key.public(), ALICE.allowed_ips()));
    for prefix in both.split(',') {
        hub.namespace.run(&format!("ip route add {prefix} dev {}", hub.interface));
    }
    for family in Family::BOTH {
        ping_until_answered(&lan, HUB.inner(family));
    }
    for target in ["10.77.0.99", "fd77::99"] {
        assert!(gets_host_unreachable(&lan, target), "{target}");
    }
}

/// A router behind bob reports its smaller MTU to alice, through the tunnel.
fn a_smaller_mtu_behind_a_peer_is_reported(backend: Backend) {
    for relay in [RelayMode::Kernel, RelayMode::Direct] {
        let relay = Relay::connected(&Options { relay, ..Options::new(backend) });
        let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
        let lan = relay.lab.namespace("lan");
        relay.lab.link((&bob.namespace, "lan"), (&lan, "out0"), 1300);
        bob.namespace.sysctl("net.ipv4.ip_forward=1");
        bob.namespace.sysctl("net.ipv6.conf.all.forwarding=1");
        let both = "172.16.5.0/24,fd05::/64";
        for (near, far, length) in [("172.16.5.1", "172.16.5.2", 24), ("fd05::1", "fd05::2", 64)] {
            let nodad = if length == 64 { "nodad" } else { "" };
            bob.namespace.run(&format!("ip address add {near}/{length} dev lan {nodad}"));
            lan.run(&format!("ip address add {far}/{length} dev out0 {nodad}"));
            lan.run(&format!("ip route add default via {near}"));
        }
        hub.set(&format!("peer {} allowed-ips {},{both}", bob.key.public(), BOB.allowed_ips()));
        alice.set(&format!("peer {} allowed-ips 10.77.0.0/24,fd77::/64,{both}", hub.key.public()));
        for prefix in both.split(',') {
            for daemon in [hub, alice] {
                daemon.namespace.run(&format!("ip route add {prefix} dev {}", daemon.interface));
            }
        }
        for target in ["172.16.5.2", "fd05::2"] {
            ping_until_answered(&alice.namespace, target);
            eventually(seconds(5), &format!("alice learns the MTU towards {target}"), || {
                let _ = alice.namespace.attempt(&format!("ping -c 1 -W 1 -M do -s 1360 {target}"));
                let route = alice.namespace.run(&format!("ip route get {target}"));
                route.contains("mtu 1300")
            });
            // Fragments and shorter packets pass.
            assert_eq!(ping(&alice.namespace, target, "-c 2 -i 0.05 -s 1360"), (2, 2));
        }
    }
}

/// ECN crosses the tunnel: the outer packet carries the inner mark, and congestion marked on the
/// outer packet arrives on the inner one. The inner DSCP is not exposed.
fn ecn_is_carried(backend: Backend, outer: Family) {
    let relay = Relay::connected(&Options { outer, ..Options::new(backend) });
    let (hub, alice) = (&relay.hub, &relay.alice);
    let word = outer.nft();
    let leaving = |mark: &str| {
        Counter::new(&alice.namespace, "output", &format!("udp dport {HUB_PORT} {word} {mark}"))
    };
    for family in Family::BOTH {
        let target = HUB.inner(family);
        let inner = family.nft();
        for (tos, mark) in [("0x2", "ect0"), ("0x1", "ect1"), ("0xba", "ect0")] {
            let (marked, dscp) = (leaving(&format!("ecn {mark}")), leaving("dscp != cs0"));
            assert_eq!(ping(&alice.namespace, target, &format!("-Q {tos} -c 5 -i 0.05")), (5, 5));
            assert!(marked.packets() >= 5, "{family:?} in {outer:?}: no {mark} outside");
            assert_eq!(dscp.packets(), 0, "the inner DSCP is visible outside");
        }
        let congested = Counter::acting(
            &alice.namespace,
            "output",
            &format!("udp dport {HUB_PORT} {word} ecn ect0"),
            &format!("{word} ecn set ce"),
        );
        let rule = format!("iifname {} {inner} ecn ce", hub.interface);
        let arrived = Counter::new(&hub.namespace, "prerouting", &rule);
        ping(&alice.namespace, target, "-Q 0x2 -c 5 -i 0.05");
        assert!(congested.packets() >= 5, "the network marks packets");
        assert_eq!(arrived.packets(), 5, "{family:?} in {outer:?}: the mark is lost");
        // A packet without ECN support is not marked.
        drop(congested);
        let before = arrived.packets();
        ping(&alice.namespace, target, "-c 5 -i 0.05");
        assert_eq!(arrived.packets(), before);
    }
}

fn ecn_is_carried_v4(backend: Backend) {
    ecn_is_carried(backend, Family::V4);
}

fn ecn_is_carried_v6(backend: Backend) {
    ecn_is_carried(backend, Family::V6);
}

/// Handshake messages carry DSCP AF41.
fn handshakes_carry_dscp_af41(backend: Backend) {
    for outer in Family::BOTH {
        let relay = Relay::new(&Options { outer, ..Options::new(backend) });
        let word = outer.nft();
        let rule = |port: &str, length| format!("udp {port} 51820 udp length {length} {word}");
        let out = |port, length, mark: &str| {
            let rule = format!("{} dscp {mark}", rule(port, length));
            Counter::new(&relay.alice.namespace, "prerouting", &rule)
        };
        let response = out("sport", 92 + 8, "af41");
        let initiation = Counter::new(
            &relay.alice.namespace,
            "output",
            &format!("{} dscp af41", rule("dport", 148 + 8)),
        );
        ping_until_answered(&relay.alice.namespace, HUB.inner(Family::V4));
        assert!(initiation.packets() >= 1, "initiation, {outer:?}");
        assert!(response.packets() >= 1, "response, {outer:?}");
    }
}

/// With an endpoint inside the tunnel, the daemon's own datagrams return through the TUN and are
/// dropped instead of being encapsulated again.
fn an_endpoint_inside_the_tunnel_makes_no_loop(backend: Backend) {
    for family in Family::BOTH {
        let relay = Relay::connected(&Options::new(backend));
        let (hub, alice) = (&relay.hub, &relay.alice);
        let inside = endpoint(HUB.inner(family), HUB_PORT);
        let entering = Counter::new(
            &alice.namespace,
            "output",
            &format!("oifname {} udp dport {HUB_PORT}", alice.interface),
        );
        alice.set(&format!("peer {} endpoint {inside}", hub.key.public()));
        ping(&alice.namespace, BOB.inner(Family::V4), "-c 20 -i 0.05 -W 1");
        let sent = entering.packets();
        assert!((1..40).contains(&sent), "20 packets became {sent}");
        holds_for(seconds(1), "no loop", || entering.packets() < sent + 10);
        assert!(alice.counter("drop_routing_loop") >= 20, "they are counted");
        assert_eq!(alice.log().matches("routing loop").count(), 1, "and logged once");
        // Correcting the endpoint restores the tunnel.
        alice.set(&format!("peer {} endpoint {}", hub.key.public(), ALICE.hub(Family::V4)));
        ping_until_answered(&alice.namespace, BOB.inner(family));
    }
}

/// A peer roams into the tunnel: its datagrams reach the hub through another peer's tunnel.
fn roaming_into_the_tunnel_makes_no_loop(backend: Backend) {
    let relay = Relay::connected(&Options { keepalive: 1, ..Options::new(backend) });
    let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
    let own = hub.key.public();
    // Alice uses the hub's inner address as its endpoint. Bob is her gateway to it, on a separate
    // link.
    relay.lab.link((&alice.namespace, "wire"), (&bob.namespace, "wire"), 1500);
    alice.namespace.run("ip address add 172.16.9.1/24 dev wire");
    bob.namespace.run("ip address add 172.16.9.2/24 dev wire");
    bob.namespace.sysctl("net.ipv4.ip_forward=1");
    let table = "table ip nat {\nchain post {\ntype nat hook postrouting priority srcnat;\n\
                 ip saddr 172.16.9.1 masquerade\n}\n}\n";
    bob.namespace.run_with("nft -f -", table);
    alice.namespace.run("ip route add 10.77.0.1/32 via 172.16.9.2 dev wire");
    alice.set(&format!("peer {own} endpoint 10.77.0.1:{HUB_PORT}"));
    eventually(seconds(5), "alice is seen inside the tunnel", || {
        hub.of_peer("endpoints", &alice.key).starts_with("10.77.0.3:")
    });
    // She is a peer behind a peer, as long as bob himself is outside.
    let rule = format!("oifname {} udp sport {HUB_PORT}", hub.interface);
    let entering = Counter::new(&hub.namespace, "output", &rule);
    assert_eq!(ping(&hub.namespace, "fd77::2", "-c 10 -i 0.05 -W 1"), (10, 10));
    assert!(entering.packets() > 0, "the hub's datagrams to her enter its own tunnel");
    assert_eq!(hub.counter("drop_routing_loop"), 0);
    // Bob's endpoint moves inside as well: each is now reached through the other.
    hub.set(&format!("peer {} endpoint 10.77.0.2:4444", bob.key.public()));
    let before = entering.packets();
    ping(&hub.namespace, "10.77.0.3", "-c 10 -i 0.05 -W 1");
    holds_for(seconds(2), "no storm", || entering.packets() < before + 200);
    assert!(hub.counter("drop_routing_loop") > 0, "what loops is counted");
    eventually(seconds(5), "bob's next keepalive restores his endpoint", || {
        hub.of_peer("endpoints", &bob.key).starts_with("198.51.100.2:")
    });
    alice.set(&format!("peer {own} endpoint {}", ALICE.hub(Family::V4)));
    ping_until_answered(&hub.namespace, "fd77::2");
}

/// mtr(8) from one peer to another shows the hub, by its own address, and the other peer.
fn mtr_names_the_hub(backend: Backend) {
    for mode in [RelayMode::Kernel, RelayMode::Direct] {
        let relay = Relay::connected(&Options { relay: mode, ..Options::new(backend) });
        for family in Family::BOTH {
            let bob = BOB.inner(family);
            let line = format!("mtr --report --report-cycles 1 --gracetime 0.5 --no-dns {bob}");
            let report = relay.alice.namespace.run(&line);
            let hops: Vec<&str> = report
                .lines()
                .filter_map(|line| line.split_once(".|-- ")?.1.split_whitespace().next())
                .collect();
            assert_eq!(hops, [HUB.inner(family), bob], "{mode:?}: {report}");
        }
    }
}

on_both_backends!(
    mtr_names_the_hub,
    a_local_socket_gets_host_unreachable,
    a_host_behind_a_peer_gets_host_unreachable,
    a_smaller_mtu_behind_a_peer_is_reported,
    ecn_is_carried_v4,
    ecn_is_carried_v6,
    handshakes_carry_dscp_af41,
    an_endpoint_inside_the_tunnel_makes_no_loop,
    roaming_into_the_tunnel_makes_no_loop,
);
