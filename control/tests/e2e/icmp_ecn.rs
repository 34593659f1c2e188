//! What a tunnel owes to the packets that it cannot carry, and to those that the network marks.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{
    ALICE, BOB, Backend, Counter, Family, HUB, HUB_PORT, Namespace, Options, Relay, eventually,
    holds_for, ping, ping_until_answered, seconds, within,
};

/// Sends datagrams to `target` until the kernel reports what an ICMP message said.
fn hears_host_unreachable(from: &Namespace, target: &str) -> bool {
    let is_v6 = target.contains(':');
    let target = if is_v6 { format!("[{target}]:9") } else { format!("{target}:9") };
    let socket: UdpSocket = from.udp_socket(if is_v6 { "[::]:0" } else { "0.0.0.0:0" });
    // Host unreachable may pass, so UDP tells only those of it who ask for such errors.
    if is_v6 {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true).expect("it is an IPv6 socket");
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("it is an IPv4 socket");
    }
    socket.connect(&target).expect("there is a route");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
    within(seconds(4), || {
        let sent = socket.send(b"anybody there?");
        let heard = socket.recv(&mut [0; 16]);
        [sent, heard]
            .into_iter()
            .any(|result| result.is_err_and(|error| error.kind() == ErrorKind::HostUnreachable))
    })
}

/// A local socket hears that nobody owns its destination, or that its owner's endpoint is
/// unknown, as it does from the kernel module.
fn a_local_socket_hears_of_it(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let hub = &relay.hub;
    for target in ["10.77.0.99", "fd77::99"] {
        assert!(hears_host_unreachable(&hub.namespace, target), "no peer: {target}");
    }
    for family in Family::BOTH {
        let target = BOB.inner(family);
        assert!(hears_host_unreachable(&hub.namespace, target), "no endpoint: {target}");
    }
    // A peer that can be reached answers in another way: its port is closed.
    relay.connect();
    for family in Family::BOTH {
        let target = BOB.inner(family);
        assert!(!hears_host_unreachable(&hub.namespace, target), "{target} is there");
    }
}

/// A host behind a peer hears it too, through the tunnel.
fn a_remote_host_hears_of_it(backend: Backend) {
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
        assert!(hears_host_unreachable(&lan, target), "{target}");
    }
}

/// Congestion marks cross in both directions: the inner mark is on the outer packet, and what
/// the network marks outside arrives marked inside. The rest of the inner byte stays inside.
fn ecn_is_carried(backend: Backend, outer: Family) {
    let relay = Relay::connected(&Options { outer, ..Options::new(backend) });
    let (hub, alice) = (&relay.hub, &relay.alice);
    let word = if outer == Family::V4 { "ip" } else { "ip6" };
    let leaving = |mark: &str| {
        Counter::new(&alice.namespace, "output", &format!("udp dport {HUB_PORT} {word} {mark}"))
    };
    for family in Family::BOTH {
        let target = HUB.inner(family);
        let inner = if family == Family::V4 { "ip" } else { "ip6" };
        for (tos, mark) in [("0x2", "ect0"), ("0x1", "ect1"), ("0xba", "ect0")] {
            let (marked, dscp) = (leaving(&format!("ecn {mark}")), leaving("dscp != cs0"));
            assert_eq!(ping(&alice.namespace, target, &format!("-Q {tos} -c 5 -i 0.05")), (5, 5));
            assert!(marked.packets() >= 5, "{family:?} in {outer:?}: {mark} stays inside");
            assert_eq!(dscp.packets(), 0, "the inner DSCP must stay inside");
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
        assert!(congested.packets() >= 5, "the network marks");
        assert_eq!(arrived.packets(), 5, "{family:?} in {outer:?}: the mark is lost");
        // A packet that cannot bear marks is not given one.
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

/// Handshake messages carry DSCP AF41, so that they pass where queues are full.
fn handshakes_are_marked(backend: Backend) {
    for outer in Family::BOTH {
        let relay = Relay::new(&Options { outer, ..Options::new(backend) });
        let word = if outer == Family::V4 { "ip" } else { "ip6" };
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

/// An endpoint that lies inside the tunnel: the daemon's own datagrams come back to it from the
/// TUN and are dropped, not wrapped again and again.
fn an_endpoint_inside_the_tunnel_makes_no_loop(backend: Backend) {
    for family in Family::BOTH {
        let relay = Relay::connected(&Options::new(backend));
        let (hub, alice) = (&relay.hub, &relay.alice);
        let inside = HUB.inner(family);
        let endpoint = match family {
            Family::V4 => format!("{inside}:{HUB_PORT}"),
            Family::V6 => format!("[{inside}]:{HUB_PORT}"),
        };
        let entering = Counter::new(
            &alice.namespace,
            "output",
            &format!("oifname {} udp dport {HUB_PORT}", alice.interface),
        );
        alice.set(&format!("peer {} endpoint {endpoint}", hub.key.public()));
        ping(&alice.namespace, BOB.inner(Family::V4), "-c 20 -i 0.05 -W 1");
        let sent = entering.packets();
        assert!(sent < 200, "20 packets became {sent}");
        holds_for(seconds(1), "it is quiet", || entering.packets() < sent + 10);
        // The way out: an operator sets the endpoint right again.
        alice.set(&format!("peer {} endpoint {}", hub.key.public(), ALICE.hub(Family::V4)));
        ping_until_answered(&alice.namespace, BOB.inner(family));
    }
}

/// A peer that roams there by itself: its datagrams reach the hub through the tunnel of another.
fn roaming_into_the_tunnel_makes_no_loop(backend: Backend) {
    let relay = Relay::connected(&Options { keepalive: 1, ..Options::new(backend) });
    let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
    let own = hub.key.public();
    // Alice talks to the hub's inner address, which her own tunnel carries: only the packets
    // that bob forwards for her reach it. Bob is her gateway for it on a wire of their own.
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
    // The hub's own datagrams to her would enter its own tunnel: it drops them.
    let rule = format!("oifname {} udp sport {HUB_PORT}", hub.interface);
    let entering = Counter::new(&hub.namespace, "output", &rule);
    let before = entering.packets();
    assert_eq!(ping(&hub.namespace, "fd77::2", "-c 10 -i 0.05 -W 1").1, 0);
    let entered = entering.packets() - before;
    assert!((1..100).contains(&entered), "10 packets became {entered}");
    // Bob follows her inside: now each is reached through the other, or through itself.
    hub.set(&format!("peer {} endpoint 10.77.0.2:4444", bob.key.public()));
    ping(&hub.namespace, "10.77.0.3", "-c 10 -i 0.05 -W 1");
    let before = entering.packets();
    holds_for(seconds(2), "no storm", || entering.packets() < before + 100);
    eventually(seconds(5), "bob's next keepalive brings him back", || {
        hub.of_peer("endpoints", &bob.key).starts_with("198.51.100.2:")
    });
    alice.set(&format!("peer {own} endpoint {}", ALICE.hub(Family::V4)));
    ping_until_answered(&hub.namespace, "fd77::2");
}

on_both_backends!(
    a_local_socket_hears_of_it,
    a_remote_host_hears_of_it,
    ecn_is_carried_v4,
    ecn_is_carried_v6,
    handshakes_are_marked,
    an_endpoint_inside_the_tunnel_makes_no_loop,
    roaming_into_the_tunnel_makes_no_loop,
);
