//! Tunnels in tunnels: peers behind peers, hosts with tunnels of their own behind a peer, circles,
//! and an exit node behind the hub.

use std::time::Duration;

use crate::harness::{
    ALICE, BOB, Backend, Counter, Daemon, Family, HUB, Iperf, IperfServer, KeyPair, Lab, Namespace,
    Options, Program, Relay, endpoint, eventually, holds_for, ping, ping_until_answered, seconds,
};

/// Links `host` to `gateway`, which forwards for it, with these addresses; each of v4 and v6.
fn attach(lab: &Lab, gateway: &Namespace, host: &Namespace, near: [&str; 2], far: [&str; 2]) {
    lab.link((gateway, "inner0"), (host, "out0"), 1500);
    gateway.sysctl("net.ipv4.ip_forward=1");
    gateway.sysctl("net.ipv6.conf.all.forwarding=1");
    for (family, length, nodad) in [(0, 24, ""), (1, 64, "nodad")] {
        gateway.run(&format!("ip address add {}/{length} dev inner0 {nodad}", near[family]));
        host.run(&format!("ip address add {}/{length} dev out0 {nodad}", far[family]));
    }
}

/// Adds a configuration to a daemon's, one peer.
fn add_peer(daemon: &Daemon, key: &KeyPair, lines: &str) {
    daemon.configure("addconf", &format!("[Peer]\nPublicKey = {}\n{lines}\n", key.public()));
}

/// Alice reaches bob's host, her exit, through the hub, her entry: the exit's endpoint is among the
/// entry's allowed IPs.
fn an_exit_behind_an_entry(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (lab, hub, alice) = (&relay.lab, &relay.hub, &relay.alice);
    let exit = Daemon::start(lab, &relay.bob.namespace, "exit", Program::Ours(backend));
    exit.set_private_key();
    exit.set("listen-port 51900");
    exit.bring_up(1420, &["10.99.0.2/24", "fd99::2/64"]);
    add_peer(&exit, &alice.key, "AllowedIPs = 10.99.0.1/32, fd99::1/128");
    // Bob's own tunnel must not take the replies.
    exit.namespace.run("ip route add 10.77.0.2/32 via 198.51.100.1");
    exit.namespace.run("ip route add fd77::2/128 via 2001:db8:b::1");

    let outside = [BOB.outer(Family::V4), BOB.outer(Family::V6)];
    let all = format!("10.77.0.0/24,fd77::/64,{}/32,{}/128", outside[0], outside[1]);
    alice.set(&format!("peer {} allowed-ips {all}", hub.key.public()));
    for address in ["10.99.0.1/24", "fd99::1/64"] {
        alice.namespace.run(&format!("ip address add {address} dev {}", alice.interface));
    }
    for (address, family) in outside.into_iter().zip(Family::BOTH) {
        let route = format!("{address} dev {} src {}", alice.interface, ALICE.inner(family));
        alice.namespace.run(&format!("ip route add {route}"));
    }
    add_peer(alice, &exit.key, "AllowedIPs = 10.99.0.2/32, fd99::2/128");
    for address in outside {
        let exit_endpoint = endpoint(address, 51900);
        alice.set(&format!("peer {} endpoint {exit_endpoint}", exit.key.public()));
        ping_until_answered(&alice.namespace, "10.99.0.2");
        assert_eq!(ping(&alice.namespace, "fd99::2", "-c 4 -i 0.05"), (4, 4), "{exit_endpoint}");
        // Its messages exceed the interface's MTU and are fragmented, over IPv6 once the exit has
        // learnt that MTU.
        let full = "-c 4 -i 0.05 -s 1392";
        eventually(seconds(5), "the path's MTU is learnt", || {
            ping(&alice.namespace, "10.99.0.2", "-c 1 -W 1 -s 1392").1 == 1
        });
        assert_eq!(ping(&alice.namespace, "10.99.0.2", full), (4, 4), "{exit_endpoint}");
        let seen = exit.of_peer("endpoints", &alice.key);
        let is_inner = Family::BOTH.iter().any(|&family| seen.contains(ALICE.inner(family)));
        assert!(is_inner, "{seen} is outside the entry's tunnel");
    }
    let _server = IperfServer::start(lab, &exit.namespace);
    Iperf::run(&alice.namespace, "10.99.0.2", "--bytes 4M");
    assert_eq!(alice.counter("drop_routing_loop"), 0);
}

/// A peer of the hub behind another one of its peers is reached also by what the hub relays.
fn a_relayed_packet_for_a_peer_behind_a_peer(backend: Backend) {
    let mode = match backend {
        Backend::Uring => "direct",
        Backend::Mmsg => "auto",
    };
    let environment = vec![("WG_BOUNCE_RELAY", mode)];
    let relay = Relay::connected(&Options { environment, ..Options::new(backend) });
    let (lab, hub, bob) = (&relay.lab, &relay.hub, &relay.bob);
    let carol = lab.namespace("carol");
    let (near, far) = (["172.16.7.1", "fd07::1"], ["172.16.7.2", "fd07::2"]);
    attach(lab, &bob.namespace, &carol, near, far);
    let carol = Daemon::start(lab, &carol, "carol", Program::Ours(backend));
    carol.set_private_key();
    carol.set("listen-port 51900");
    carol.bring_up(1420, &["10.77.0.4/24", "fd77::4/64"]);
    add_peer(&carol, &hub.key, "AllowedIPs = 10.77.0.0/24, fd77::/64");
    let bobs = format!("{},172.16.7.0/24,fd07::/64", BOB.allowed_ips());
    hub.set(&format!("peer {} allowed-ips {bobs}", bob.key.public()));
    add_peer(hub, &carol.key, "AllowedIPs = 10.77.0.4/32, fd77::4/128");
    for (family, prefix) in [(0, "172.16.7.0/24"), (1, "fd07::/64")] {
        let own = HUB.inner(Family::BOTH[family]);
        carol.namespace.run(&format!("ip route add {own} via {}", near[family]));
        let route = format!("ip route add {prefix} dev {} src {own}", hub.interface);
        hub.namespace.run(&route);
    }
    for address in far {
        let inside = endpoint(address, 51900);
        hub.set(&format!("peer {} endpoint {inside}", carol.key.public()));
        ping_until_answered(&relay.alice.namespace, "10.77.0.4");
        for target in ["10.77.0.4", "fd77::4"] {
            let counts = ping(&relay.alice.namespace, target, "-c 4 -i 0.05");
            assert_eq!(counts, (4, 4), "{target} at {inside} with --relay {mode}");
        }
    }
    assert!(hub.counter("relayed") > 0, "--relay {mode}");
    assert_eq!(hub.counter("drop_routing_loop"), 0);
}

/// A host behind alice has a tunnel to the same hub, with the same port as alice has. Everything
/// goes through alice's tunnel but her own packets, which her mark keeps out.
fn a_tunnel_of_another_host_to_the_same_endpoint(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (lab, hub, alice) = (&relay.lab, &relay.hub, &relay.alice);
    let dave = lab.namespace("dave");
    attach(lab, &alice.namespace, &dave, ["172.16.8.1", "fd08::1"], ["172.16.8.2", "fd08::2"]);
    dave.run("ip route add default via 172.16.8.1");
    let dave = Daemon::start(lab, &dave, "dave", Program::Ours(backend));
    dave.set_private_key();
    dave.set("listen-port 51821");
    dave.bring_up(1340, &["10.77.0.6/24"]);
    let hub_endpoint = ALICE.hub(Family::V4);
    add_peer(&dave, &hub.key, &format!("AllowedIPs = 10.77.0.0/24\nEndpoint = {hub_endpoint}"));
    add_peer(hub, &dave.key, "AllowedIPs = 10.77.0.6/32");
    let alices = format!("{},172.16.8.0/24", ALICE.allowed_ips());
    hub.set(&format!("peer {} allowed-ips {alices}", alice.key.public()));
    hub.namespace.run(&format!("ip route add 172.16.8.0/24 dev {}", hub.interface));
    alice.set(&format!("fwmark 0x77 peer {} allowed-ips 0.0.0.0/0", hub.key.public()));
    alice.namespace.run(&format!("ip route add 192.0.2.1/32 dev {} table 77", alice.interface));
    alice.namespace.run("ip rule add not fwmark 0x77 table 77");
    ping_until_answered(&dave.namespace, HUB.inner(Family::V4));
    assert_eq!(hub.of_peer("endpoints", &dave.key), "172.16.8.2:51821", "through the tunnel");
    assert_eq!(ping(&dave.namespace, HUB.inner(Family::V4), "-c 4 -i 0.05"), (4, 4));
    // A local program of alice's that talks to the hub's port.
    assert_eq!(ping(&alice.namespace, "192.0.2.1", "-c 4 -i 0.05"), (4, 4));
    assert_eq!(alice.counter("drop_routing_loop"), 0);
}

/// Two interfaces of one host, each of which carries the other's messages.
fn two_interfaces_that_carry_each_other(backend: Backend) {
    let lab = Lab::new();
    let (host, far) = (lab.namespace("host"), lab.namespace("far"));
    lab.link((&host, "out0"), (&far, "out0"), 1500);
    for (namespace, last) in [(&host, 1), (&far, 2)] {
        namespace.run(&format!("ip address add 192.0.2.{last}/24 dev out0"));
    }
    // Each interface, its peer, and a prefix that is routed into it.
    let tunnel = |role: &str, peer: &str, net: u8| {
        let near = Daemon::start(&lab, &host, role, Program::Ours(backend));
        let far = Daemon::start(&lab, &far, peer, Program::Ours(backend));
        let port = 51900 + u16::from(net);
        for (daemon, last) in [(&near, 1), (&far, 2)] {
            daemon.set_private_key();
            daemon.bring_up(
                1420,
                &[&format!("10.{net}.0.{last}/24"), &format!("fd0{net}::{last}/64")],
            );
        }
        far.set(&format!("listen-port {port}"));
        add_peer(&far, &near.key, &format!("AllowedIPs = 10.{net}.0.1/32"));
        let lines =
            format!("AllowedIPs = 10.{net}.0.0/16, fd0{net}::/32\nEndpoint = 192.0.2.2:{port}");
        add_peer(&near, &far.key, &lines);
        host.run(&format!("ip route add 10.{net}.9.0/24 dev {}", near.interface));
        host.run(&format!("ip route add fd0{net}:0:9::/48 dev {}", near.interface));
        ping_until_answered(&host, &format!("10.{net}.0.2"));
        (near, far)
    };
    let (one, far_one) = tunnel("one", "peer", 1);
    let (two, far_two) = tunnel("two", "last", 2);
    let sent = || one.transfer_with(&far_one.key).1 + two.transfer_with(&far_two.key).1;
    for [behind_two, behind_one] in [["10.2.9.9", "10.1.9.9"], ["fd02:0:9::9", "fd01:0:9::9"]] {
        let before = sent();
        one.set(&format!("peer {} endpoint {}", far_one.key.public(), endpoint(behind_two, 51901)));
        two.set(&format!("peer {} endpoint {}", far_two.key.public(), endpoint(behind_one, 51902)));
        assert_eq!(ping(&host, "10.1.0.2", "-c 10 -i 0.02 -W 0.3").1, 0, "it leads nowhere");
        let after = sent();
        assert!(after > before && after - before < 100_000, "{} bytes", after - before);
        holds_for(Duration::from_millis(500), "quiet afterwards", || sent() < after + 5_000);
    }
    let drops = one.counter("drop_routing_loop") + two.counter("drop_routing_loop");
    assert!(drops >= 20, "{drops} dropped");
    let logged =
        one.log().matches("routing loop").count() + two.log().matches("routing loop").count();
    assert!((1..=2).contains(&logged), "logged {logged} times");
}

/// Bob is the exit node for alice and for the hub, whose own default route stays outside.
fn an_exit_node_behind_the_hub(backend: Backend) {
    let mode = match backend {
        Backend::Uring => "auto",
        Backend::Mmsg => "direct",
    };
    let environment = vec![("WG_BOUNCE_RELAY", mode)];
    let relay = Relay::connected(&Options { environment, ..Options::new(backend) });
    let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
    let internet = relay.lab.namespace("internet");
    let (near, far) = (["198.18.0.1", "2001:db8:e::1"], ["198.18.0.2", "2001:db8:e::2"]);
    attach(&relay.lab, &bob.namespace, &internet, near, far);
    let all = "0.0.0.0/0,::/0";
    hub.set(&format!("peer {} allowed-ips {},{all}", bob.key.public(), BOB.allowed_ips()));
    alice.set(&format!("peer {} allowed-ips {all}", hub.key.public()));
    let outside = ["203.0.113.2", "2001:db8:c::2"];
    for (index, version) in [(0, "-4"), (1, "-6")] {
        let ip = format!("ip {version}");
        internet.run(&format!("{ip} route add default via {}", near[index]));
        alice.namespace.run(&format!("{ip} route add default dev {}", alice.interface));
        let (hub, device) = (&hub.namespace, &hub.interface);
        hub.run(&format!("{ip} route add default via {} dev mallory", outside[index]));
        hub.run(&format!("{ip} route add default dev {device} table 100"));
        hub.run(&format!("{ip} rule add iif {device} table 100"));
        let own = HUB.inner(Family::BOTH[index]);
        hub.run(&format!("{ip} rule add from {own} table 100"));
    }
    let rule = "meta l4proto { icmp, ipv6-icmp } ip daddr 198.18.0.0/24";
    let clear = Counter::new(&relay.mallory, "prerouting", rule);
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        ping_until_answered(&alice.namespace, far[index]);
        let counts = ping(&alice.namespace, far[index], "-c 4 -i 0.05");
        assert_eq!(counts, (4, 4), "alice, {family:?}, --relay {mode}");
        let options = format!("-c 4 -i 0.05 -I {}", HUB.inner(family));
        let counts = ping(&hub.namespace, far[index], &options);
        assert_eq!(counts, (4, 4), "the hub, {family:?}, --relay {mode}");
    }
    assert_eq!(clear.packets(), 0, "nothing leaves in clear text");
    assert!(hub.counter("relayed") > 0, "--relay {mode}");
    assert_eq!(hub.counter("drop_routing_loop"), 0);
}

on_both_backends!(
    an_exit_behind_an_entry,
    a_relayed_packet_for_a_peer_behind_a_peer,
    a_tunnel_of_another_host_to_the_same_endpoint,
    two_interfaces_that_carry_each_other,
    an_exit_node_behind_the_hub,
);
