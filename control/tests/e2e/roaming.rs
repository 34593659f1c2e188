//! Changing endpoints: roaming peers, NATs, and source addresses that appear and vanish.

use std::net::SocketAddr;

use crate::harness::{
    ALICE, BOB, Backend, Counter, Family, HUB, HUB_PORT, Iperf, IperfServer, Options, Relay,
    endpoint, eventually, ping, ping_until_answered, seconds,
};

/// Alice roams between IPv4 and IPv6: the hub follows without loss and without a handshake.
fn a_peer_roams_between_v4_and_v6(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let handshake = hub.handshake_with(&alice.key);
    for outer in [Family::V6, Family::V4, Family::V6, Family::V4] {
        alice.set(&format!("peer {} endpoint {}", hub.key.public(), ALICE.hub(outer)));
        let counts = ping(&alice.namespace, BOB.inner(Family::V4), "-c 20 -i 0.05");
        assert_eq!(counts, (20, 20), "over {outer:?}");
        let seen = hub.of_peer("endpoints", &alice.key);
        let address = seen.rsplit_once(':').expect("an address and a port").0;
        assert_eq!(address.trim_matches(['[', ']']), ALICE.outer(outer));
        let counts = ping(&hub.namespace, ALICE.inner(Family::V6), "-c 20 -i 0.05");
        assert_eq!(counts, (20, 20), "from the hub over {outer:?}");
    }
    assert_eq!(hub.handshake_with(&alice.key), handshake, "the same session");
}

/// Keepalives alone update the endpoint, as `wg show` reports.
fn keepalives_update_the_endpoint(backend: Backend) {
    let relay = Relay::connected(&Options { keepalive: 1, ..Options::new(backend) });
    let (hub, alice) = (&relay.hub, &relay.alice);
    alice.set("listen-port 43210");
    eventually(seconds(4), "the hub sees alice's new port", || {
        hub.of_peer("endpoints", &alice.key) == "192.0.2.2:43210"
    });
}

/// Behind a NAT whose mappings expire after two seconds, alice is reachable only with a keepalive
/// of one second.
fn keepalives_keep_a_nat_mapping_open(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let gateway = relay.lab.namespace("nat");
    gateway.sysctl("net.ipv4.ip_forward=1");
    // The gateway takes alice's link and address on the hub's network; alice moves behind it.
    let gateway_name = gateway.name();
    alice.namespace.run(&format!("ip link set out0 netns {gateway_name}"));
    gateway.run("ip address add 192.0.2.2/24 dev out0");
    gateway.run("ip link set out0 up");
    relay.lab.link((&gateway, "inside"), (&alice.namespace, "out1"), 1500);
    gateway.run("ip address add 192.168.9.1/24 dev inside");
    alice.namespace.run("ip address add 192.168.9.2/24 dev out1");
    alice.namespace.run("ip route add default via 192.168.9.1");
    gateway.run_with(
        "nft -f -",
        "table ip nat {\nchain post {\ntype nat hook postrouting priority srcnat;\n\
         oifname out0 masquerade random\n}\n}\n",
    );
    gateway.sysctl("net.netfilter.nf_conntrack_udp_timeout=2");
    gateway.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream=2");

    let mappings = || gateway.run("conntrack -L -p udp").lines().count();
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    assert!(mappings() > 0, "the gateway translates");
    eventually(seconds(20), "the mapping expires", || mappings() == 0);
    let (_, received) = ping(&hub.namespace, ALICE.inner(Family::V4), "-c 1 -W 1");
    assert_eq!(received, 0, "alice is unreachable without a mapping");

    let own = hub.key.public();
    let before = hub.of_peer("endpoints", &alice.key);
    alice.set(&format!("peer {own} persistent-keepalive 1"));
    // Enabling keepalives sends one at once, which opens a new mapping.
    eventually(seconds(1), "the hub sees the new mapping", || {
        hub.of_peer("endpoints", &alice.key) != before
    });
    for _ in 0..3 {
        std::thread::sleep(seconds(3));
        let counts = ping(&hub.namespace, ALICE.inner(Family::V4), "-c 2 -i 0.1 -W 1");
        assert_eq!(counts, (2, 2), "three idle seconds later");
    }
}

/// Replies use the address that the peer sent to, also in bulk, until that address is removed.
fn sticky_source(backend: Backend, family: Family) {
    let relay = Relay::connected(&Options { outer: family, ..Options::new(backend) });
    let (hub, alice) = (&relay.hub, &relay.alice);
    let (prefix, second) = use_second_address(&relay, family);
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));

    let first = HUB.outer(family);
    let rule = format!("{} saddr {first} udp sport {HUB_PORT}", family.nft());
    let strays = Counter::new(&alice.namespace, "input", &rule);
    let _server = IperfServer::start(&relay.lab, &hub.namespace);
    Iperf::run(&alice.namespace, HUB.inner(Family::V4), "--time 1 --bidir");
    assert_eq!(ping(&hub.namespace, ALICE.inner(Family::V6), "-c 10 -i 0.05"), (10, 10));
    assert_eq!(strays.packets(), 0, "all replies come from {second}");
    assert_eq!(alice.of_peer("endpoints", &hub.key), second.to_string());

    hub.namespace.run(&format!("ip address del {prefix} dev alice"));
    ping_until_answered(&hub.namespace, ALICE.inner(Family::V4));
    assert!(strays.packets() > 0, "now from {first}");
    assert_eq!(alice.of_peer("endpoints", &hub.key), endpoint(first, HUB_PORT).to_string());
}

/// Adds an address to the hub that its kernel would not choose by default (secondary in IPv4,
/// deprecated in IPv6), and makes alice use it. Returns its prefix and the endpoint.
fn use_second_address(relay: &Relay, family: Family) -> (&'static str, SocketAddr) {
    let (prefix, options) = match family {
        Family::V4 => ("192.0.2.10/24", ""),
        Family::V6 => ("2001:db8:a::10/64", "nodad preferred_lft 0"),
    };
    relay.hub.namespace.run(&format!("ip address add {prefix} dev alice {options}"));
    let (address, _) = prefix.split_once('/').expect("a prefix");
    let endpoint = endpoint(address, HUB_PORT);
    relay.alice.set(&format!("peer {} endpoint {endpoint}", relay.hub.key.public()));
    (prefix, endpoint)
}

fn sticky_source_v4(backend: Backend) {
    sticky_source(backend, Family::V4);
}

fn sticky_source_v6(backend: Backend) {
    sticky_source(backend, Family::V6);
}

/// The handshake response, too, uses the address that the initiation was sent to.
fn handshake_responses_use_a_sticky_source(backend: Backend) {
    for family in Family::BOTH {
        let relay = Relay::new(&Options { outer: family, ..Options::new(backend) });
        let (_, second) = use_second_address(&relay, family);
        let rule = format!("{} saddr != {} udp sport {HUB_PORT}", family.nft(), second.ip());
        let strays = Counter::new(&relay.alice.namespace, "input", &rule);
        ping_until_answered(&relay.alice.namespace, HUB.inner(family));
        assert_eq!(strays.packets(), 0, "{family:?}");
    }
}

/// A peer that restarts with another port can complete a handshake at once.
fn a_restarted_peer_reconnects(backend: Backend) {
    let options = Options::new(backend);
    let mut relay = Relay::connected(&options);
    relay.alice.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(relay.alice.exit_code(), Some(0));
    let key = relay.alice.key.clone();
    let namespace = relay.alice.namespace.clone();
    relay.alice = crate::harness::Daemon::start(&relay.lab, &namespace, "alice", options.alice);
    relay.alice.key = key;
    let config = relay.peer_config(&relay.alice, &ALICE, &options);
    relay.alice.configure("setconf", &config);
    relay.alice.bring_up(1420, &["10.77.0.2/24", "fd77::2/64"]);
    ping_until_answered(&relay.alice.namespace, BOB.inner(Family::V4));
}

on_both_backends!(
    a_peer_roams_between_v4_and_v6,
    keepalives_update_the_endpoint,
    keepalives_keep_a_nat_mapping_open,
    sticky_source_v4,
    sticky_source_v6,
    handshake_responses_use_a_sticky_source,
    a_restarted_peer_reconnects,
);
