//! Firewall marks and policy routing, moving between namespaces, link state.

use std::thread::sleep;

use crate::harness::{
    ALICE, Backend, Counter, Daemon, Family, HUB, Lab, Namespace, Options, Outcome, Program, Relay,
    eventually, holds_for, ping, ping_until_answered, seconds, socket_path,
};

/// All packets are routed into the tunnel except those with the daemon's mark, as wg-quick does for
/// `AllowedIPs = 0.0.0.0/0`.
fn fwmark_keeps_the_outer_packets_out_of_the_tunnel(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    hub.namespace.run("ip address add 203.0.113.77/32 dev lo");
    hub.namespace.run("ip address add 2001:db8:d::77/128 dev lo");
    alice.set(&format!("fwmark 0x77 peer {} allowed-ips 0.0.0.0/0,::/0", hub.key.public()));
    for family in ["-4", "-6"] {
        let default = format!("ip {family} route add default dev {} table 77", alice.interface);
        alice.namespace.run(&default);
        alice.namespace.run(&format!("ip {family} rule add not fwmark 0x77 table 77"));
        alice.namespace.run(&format!("ip {family} rule add table main suppress_prefixlength 0"));
    }
    // Now even the endpoint is routed into the tunnel, unless a packet is marked.
    alice.namespace.run("ip rule del table main suppress_prefixlength 0");
    let marked = Counter::new(&alice.namespace, "output", "meta mark 0x77 udp dport 51820");
    ping_until_answered(&alice.namespace, "203.0.113.77");
    ping_until_answered(&alice.namespace, "2001:db8:d::77");
    assert!(marked.packets() > 0);

    // A change of the mark applies to handshakes and data at once.
    let changed = Counter::new(&alice.namespace, "output", "meta mark 0x78 udp dport 51820");
    for family in ["-4", "-6"] {
        alice.namespace.run(&format!("ip {family} rule add not fwmark 0x78 table 77 priority 9"));
        alice.namespace.run(&format!("ip {family} rule del not fwmark 0x77 table 77"));
    }
    alice.set("fwmark 0x78");
    let before = marked.packets();
    assert_eq!(ping(&alice.namespace, "203.0.113.77", "-c 5 -i 0.05 -W 1"), (5, 5));
    assert_eq!(marked.packets(), before);
    assert!(changed.packets() >= 5);
}

/// A background start returns once the interface can be moved; its sockets stay in the original
/// namespace. (wireguard-go returns early and loses the interface.)
fn an_interface_moves_right_after_start(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let (lab, outside) = (&relay.lab, relay.lab.namespace("outside"));
    let inside = lab.namespace("inside");
    lab.link((&relay.hub.namespace, "moved"), (&outside, "out0"), 1500);
    relay.hub.namespace.run("ip address add 192.168.44.1/24 dev moved");
    outside.run("ip address add 192.168.44.2/24 dev out0");

    let interface = lab.interface("m");
    let start = start_in_background(&outside, backend, &interface);
    outside.run(&format!("ip link set {interface} netns {}", inside.name()));
    assert!(start.is_ok(), "{start:?}");
    let key = relay.alice.key.clone();
    let config = format!(
        "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.0/24\n\
         Endpoint = 192.168.44.1:51820\n",
        key.private(),
        relay.hub.key.public()
    );
    // The control socket is in the file system and does not move.
    inside.run_with(&format!("wg setconf {interface} /dev/stdin"), &config);
    inside.run(&format!("ip address add 10.77.0.2/24 dev {interface}"));
    inside.run(&format!("ip link set {interface} mtu 1420 up"));
    ping_until_answered(&inside, HUB.inner(Family::V4));
    // A changed MTU is noticed there, too: packets of the new size pass.
    inside.run(&format!("ip link set {interface} mtu 1300"));
    assert_eq!(ping(&inside, HUB.inner(Family::V4), "-c 5 -i 0.05 -s 1272"), (5, 5));
    // So is the link state.
    inside.run(&format!("ip link set {interface} down"));
    inside.run(&format!("ip link set {interface} up"));
    ping_until_answered(&inside, HUB.inner(Family::V4));
    inside.run(&format!("ip link del {interface}"));
    eventually(seconds(5), "the daemon exits with its interface", || {
        !socket_path(&interface).exists() && outside.processes().is_empty()
    });
}

fn start_in_background(namespace: &Namespace, backend: Backend, interface: &str) -> Outcome {
    let binary = Program::under_test();
    let line = format!(
        "env WG_BOUNCE_IO={} WG_BOUNCE_WORKERS=2 {} {interface}",
        backend.name(),
        binary.to_str().expect("UTF-8")
    );
    namespace.attempt(&line)
}

/// Nothing is sent while the link is down: no keepalive, no handshake (unlike wireguard-go).
/// Overdue messages are sent as soon as it comes up.
fn nothing_is_sent_while_the_link_is_down(backend: Backend) {
    let relay = Relay::connected(&Options { keepalive: 1, ..Options::new(backend) });
    let (hub, alice) = (&relay.hub, &relay.alice);
    let sent = Counter::new(&alice.namespace, "output", "udp dport 51820");
    eventually(seconds(4), "keepalives are sent", || sent.packets() >= 2);
    alice.namespace.run(&format!("ip link set {} down", alice.interface));
    let before = sent.packets();
    // Two keepalive intervals pass; a configuration change must not send, either.
    alice.set(&format!("peer {} persistent-keepalive 2", hub.key.public()));
    alice.set(&format!("peer {} persistent-keepalive 1", hub.key.public()));
    holds_for(seconds(3), "nothing is sent", || sent.packets() <= before);

    let handshake = hub.handshake_with(&alice.key);
    alice.namespace.run(&format!("ip link set {} up", alice.interface));
    eventually(seconds(1), "a keepalive at once", || sent.packets() > before);
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    assert!(hub.handshake_with(&alice.key) >= handshake);
}

/// A hub whose link is down does not respond.
fn no_response_while_the_link_is_down(backend: Backend) {
    let relay = Relay::new(&Options { keepalive: 1, ..Options::new(backend) });
    relay.hub.namespace.run(&format!("ip link set {} down", relay.hub.interface));
    let answers = Counter::new(&relay.hub.namespace, "output", "udp sport 51820");
    let asked = Counter::new(&relay.hub.namespace, "input", "udp dport 51820");
    let (before, asked_before) = (answers.packets(), asked.packets());
    eventually(seconds(15), "alice and bob initiate", || asked.packets() > asked_before);
    holds_for(seconds(1), "no response", || answers.packets() == before);
}

/// If the private key is set last, the handshake required by a keepalive starts at once.
fn setting_the_key_last_starts_a_handshake(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let daemon = Daemon::start(&relay.lab, &alice.namespace, "late", Program::Ours(backend));
    let hub_config =
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.8/32\n", daemon.key.public());
    hub.configure("addconf", &hub_config);
    daemon.bring_up(1420, &["10.77.0.8/32"]);
    let sent = Counter::new(&alice.namespace, "output", "udp dport 51820");
    daemon.set(&format!(
        "peer {} allowed-ips 10.77.0.0/24 endpoint {} persistent-keepalive 25",
        hub.key.public(),
        ALICE.hub(Family::V4)
    ));
    sleep(seconds(1));
    assert_eq!(sent.packets(), 0, "nothing is sent without a private key");
    daemon.set_private_key();
    eventually(seconds(1), "the handshake is done", || daemon.handshake_with(&hub.key) > 0);
}

/// A configured interface starts its handshake as soon as it comes up.
fn link_up_starts_a_handshake(backend: Backend) {
    let lab = Lab::new();
    let (left, right) = (lab.namespace("left"), lab.namespace("right"));
    lab.link((&left, "out0"), (&right, "out0"), 1500);
    left.run("ip address add 192.0.2.1/24 dev out0");
    right.run("ip address add 192.0.2.2/24 dev out0");
    let one = Daemon::start(&lab, &left, "one", Program::Ours(backend));
    let two = Daemon::start(&lab, &right, "two", Program::Ours(backend));
    let config = |own: &Daemon, other: &Daemon, more: &str| {
        let (own, other) = (own.key.private(), other.key.public());
        format!(
            "[Interface]\nPrivateKey = {own}\nListenPort = 51820\n\
             [Peer]\nPublicKey = {other}\nAllowedIPs = 10.77.0.0/24\n{more}"
        )
    };
    let active = "Endpoint = 192.0.2.2:51820\nPersistentKeepalive = 25\n";
    one.configure("setconf", &config(&one, &two, active));
    two.configure("setconf", &config(&two, &one, ""));
    two.bring_up(1420, &["10.77.0.2/24"]);
    let sent = Counter::new(&left, "output", "udp dport 51820");
    holds_for(seconds(1), "nothing is sent", || sent.packets() == 0);
    one.bring_up(1420, &["10.77.0.1/24"]);
    eventually(seconds(1), "the handshake is done", || one.handshake_with(&two.key) > 0);
}

/// A changed MTU takes effect under traffic.
fn a_changed_mtu_is_noticed(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let alice = &relay.alice;
    for mtu in [1300, 1420, 576, 1400] {
        for daemon in [&relay.hub, alice] {
            // An MTU below 1280 disables IPv6 on the interface, so only IPv4 is tested.
            daemon.namespace.run(&format!("ip link set {} mtu {mtu}", daemon.interface));
        }
        let options = format!("-c 20 -i 0.05 -M do -s {}", mtu - 28);
        let counts = ping(&alice.namespace, HUB.inner(Family::V4), &options);
        assert_eq!(counts, (20, 20), "MTU {mtu}");
        // Padding must not make a message longer than that of a full-size packet.
        let rule = format!("udp dport 51820 udp length > {}", mtu + 8 + 32);
        let longer = Counter::new(&alice.namespace, "output", &rule);
        let options = format!("-c 3 -i 0.05 -M do -s {}", mtu - 29);
        assert_eq!(ping(&alice.namespace, HUB.inner(Family::V4), &options).1, 3);
        assert_eq!(longer.packets(), 0, "MTU {mtu}");
    }
}

on_both_backends!(
    fwmark_keeps_the_outer_packets_out_of_the_tunnel,
    an_interface_moves_right_after_start,
    nothing_is_sent_while_the_link_is_down,
    no_response_while_the_link_is_down,
    setting_the_key_last_starts_a_handshake,
    link_up_starts_a_handshake,
    a_changed_mtu_is_noticed,
);
