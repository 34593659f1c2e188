//! Configuration with `wg`: settings are shown as set, and an edit keeps the sessions that it does
//! not change.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::harness::{
    ALICE, BOB, Backend, Counter, Daemon, Family, HUB, HUB_PORT, KeyPair, Options, Relay,
    eventually, ping, ping_until_answered, seconds,
};

/// The set of non-empty lines of a configuration file.
fn lines(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

fn every_setting_is_shown(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let [peer, psk] = [KeyPair::new(), KeyPair::new()];
    let text = format!(
        "[Interface]\nListenPort = 41820\nFwMark = 0x77\nPrivateKey = {}\n\
         [Peer]\nPublicKey = {}\nPresharedKey = {}\n\
         AllowedIPs = 10.1.0.0/16, fd00:1::/64, 192.0.2.7/32\n\
         Endpoint = 192.0.2.1:1234\nPersistentKeepalive = 25\n",
        daemon.key.private(),
        peer.public(),
        psk.private(),
    );
    daemon.configure("setconf", &text);
    assert_eq!(daemon.show("listen-port").trim(), "41820");
    assert_eq!(daemon.show("fwmark").trim(), "0x77");
    assert_eq!(daemon.show("private-key").trim(), daemon.key.private());
    assert_eq!(daemon.show("public-key").trim(), daemon.key.public());
    assert_eq!(daemon.of_peer("preshared-keys", &peer), psk.private());
    assert_eq!(daemon.of_peer("endpoints", &peer), "192.0.2.1:1234");
    assert_eq!(daemon.of_peer("persistent-keepalive", &peer), "25");
    let allowed = daemon.of_peer("allowed-ips", &peer);
    let allowed: BTreeSet<_> = allowed.split_whitespace().collect();
    assert_eq!(allowed, BTreeSet::from(["10.1.0.0/16", "fd00:1::/64", "192.0.2.7/32"]));

    let shown = daemon.showconf();
    daemon.configure("setconf", &shown);
    assert_eq!(lines(&daemon.showconf()), lines(&shown), "setconf restores what showconf prints");

    daemon.set(&format!("peer {} endpoint [2001:db8::9]:4321", peer.public()));
    assert_eq!(daemon.of_peer("endpoints", &peer), "[2001:db8::9]:4321");
    daemon.set(&format!("peer {} preshared-key /dev/null", peer.public()));
    assert_eq!(daemon.of_peer("preshared-keys", &peer), "(none)");
    daemon.set(&format!("peer {} persistent-keepalive off", peer.public()));
    assert_eq!(daemon.of_peer("persistent-keepalive", &peer), "off");
    daemon.set("fwmark off");
    assert_eq!(daemon.show("fwmark").trim(), "off");
    daemon.set(&format!("peer {} remove", peer.public()));
    assert_eq!(daemon.show("peers").trim(), "");
    daemon.namespace.run_with(
        &format!("wg set {} private-key /dev/stdin", daemon.interface),
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    assert_eq!(daemon.show("private-key").trim(), "(none)", "a key of zeros clears it");
}

/// Host bits are masked; `addconf` adds, `setconf` replaces, `syncconf` applies differences.
fn setconf_addconf_and_syncconf_work_as_documented(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let [first, second, third] = [KeyPair::new(), KeyPair::new(), KeyPair::new()];
    let peer = |key: &KeyPair, ips: &str| {
        format!("[Peer]\nPublicKey = {}\nAllowedIPs = {ips}\n", key.public())
    };
    daemon.configure("setconf", &peer(&first, "10.1.2.3/16"));
    assert_eq!(daemon.of_peer("allowed-ips", &first), "10.1.0.0/16");
    daemon.configure("addconf", &peer(&second, "10.2.0.0/16"));
    assert_eq!(daemon.show("peers").lines().count(), 2);
    daemon.configure(
        "syncconf",
        &[peer(&second, "10.3.0.0/16"), peer(&third, "10.4.0.0/16")].concat(),
    );
    let peers: BTreeSet<_> = daemon.show("peers").lines().map(str::to_owned).collect();
    assert_eq!(peers, BTreeSet::from([second.public(), third.public()]));
    assert_eq!(daemon.of_peer("allowed-ips", &second), "10.3.0.0/16");
    daemon.configure("setconf", &peer(&first, "::/0"));
    assert_eq!(daemon.show("peers").trim(), first.public());
}

/// `wg syncconf`, a new peer, a changed endpoint or keepalive: the session and its counters stay,
/// and no packet is lost.
fn an_edit_keeps_the_session(backend: Backend) {
    let options = Options::new(backend);
    let relay = Relay::connected(&options);
    let (hub, alice) = (&relay.hub, &relay.alice);
    let initiations = Counter::new(&hub.namespace, "input", "udp dport 51820 udp length 156");
    let before = (hub.handshake_with(&alice.key), hub.transfer_with(&alice.key));
    assert!(before.0 > 0 && before.1.0 > 0 && before.1.1 > 0, "{before:?}");

    let stranger = KeyPair::new();
    let more = format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.9/32\n", stranger.public());
    hub.configure("syncconf", &(relay.hub_config(&options) + &more));
    hub.set(&format!("peer {} persistent-keepalive 60", alice.key.public()));
    let endpoint = hub.of_peer("endpoints", &alice.key);
    hub.set(&format!("peer {} endpoint {endpoint}", alice.key.public()));
    let back = Options { keepalive: 33, ..Options::new(backend) };
    alice.configure("syncconf", &relay.peer_config(alice, &ALICE, &back));
    alice.set(&format!("peer {} endpoint {}", hub.key.public(), ALICE.hub(Family::V6)));
    let counts = ping(&alice.namespace, BOB.inner(Family::V4), "-c 20 -i 0.05");
    assert_eq!(counts, (20, 20), "after the edits");

    let after = (hub.handshake_with(&alice.key), hub.transfer_with(&alice.key));
    assert_eq!(before.0, after.0, "the same session");
    assert!(after.1.0 > before.1.0 && after.1.1 > before.1.1, "{before:?} then {after:?}");
    assert_eq!(initiations.packets(), 0, "no new handshake");
    assert_eq!(hub.show("peers").lines().count(), 3);
}

/// A changed preshared key is used in the next handshake, which fails if the keys differ.
fn a_changed_preshared_key_is_used(backend: Backend) {
    let key = KeyPair::new().private();
    let options = Options { preshared_key: Some(key), ..Options::new(backend) };
    let relay = Relay::connected(&options);
    let bare = Options::new(backend);
    // Removing the peer ends its session and so forces a handshake.
    relay.alice.set(&format!("peer {} remove", relay.hub.key.public()));
    relay.alice.configure("setconf", &relay.peer_config(&relay.alice, &ALICE, &bare));
    assert_eq!(ping(&relay.alice.namespace, HUB.inner(Family::V4), "-c 2 -i 1 -W 1").1, 0);
    relay.alice.configure("setconf", &relay.peer_config(&relay.alice, &ALICE, &options));
    ping_until_answered(&relay.alice.namespace, HUB.inner(Family::V4));
}

fn a_peer_may_have_many_allowed_ips(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let peer = KeyPair::new();
    let mut text = format!("[Peer]\nPublicKey = {}\n", peer.public());
    for (high, low) in (0..=255u32).flat_map(|high| (0..=255u32).map(move |low| (high, low))) {
        if high * 256 + low < 65_000 {
            writeln!(text, "AllowedIPs = 10.{high}.{low}.0/24")
                .expect("writing to a String cannot fail");
        }
    }
    daemon.configure("setconf", &text);
    let shown = daemon.of_peer("allowed-ips", &peer);
    let shown: BTreeSet<_> = shown.split_whitespace().collect();
    assert_eq!(shown.len(), 65_000);
    assert!(shown.contains("10.253.231.0/24"), "the last one");
    daemon.set(&format!("peer {} allowed-ips 10.0.0.0/8", peer.public()));
    assert_eq!(daemon.of_peer("allowed-ips", &peer), "10.0.0.0/8");
}

fn many_peers_are_configured_at_once(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let peers: Vec<_> = (0..40).map(|_| KeyPair::new()).collect();
    let mut text = String::new();
    for (index, peer) in peers.iter().enumerate() {
        let public = peer.public();
        writeln!(text, "[Peer]\nPublicKey = {public}\nEndpoint = 192.0.2.9:{}", 1000 + index)
            .expect("writing to a String cannot fail");
        for host in 0..52 {
            writeln!(text, "AllowedIPs = 10.{index}.{host}.0/24")
                .expect("writing to a String cannot fail");
        }
    }
    daemon.configure("setconf", &text);
    for (index, peer) in peers.iter().enumerate() {
        let allowed = daemon.of_peer("allowed-ips", peer);
        let allowed: Vec<_> = allowed.split_whitespace().collect();
        assert_eq!(allowed.len(), 52);
        let ours = format!("10.{index}.");
        assert!(allowed.iter().all(|prefix| prefix.starts_with(&ours)), "{index}: {allowed:?}");
        let endpoint = daemon.of_peer("endpoints", peer);
        assert_eq!(endpoint, format!("192.0.2.9:{}", 1000 + index));
    }
}

fn own_public_key_is_ignored(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    let (own, other) = (daemon.key.public(), KeyPair::new());
    daemon.set(&format!("peer {own} allowed-ips 10.1.0.0/16"));
    daemon.set(&format!("peer {} allowed-ips 10.2.0.0/16", other.public()));
    daemon.set_private_key();
    assert_eq!(
        daemon.show("peers").trim(),
        other.public(),
        "a new private key removes the peer with its public key"
    );
    daemon.set(&format!("peer {own} allowed-ips 10.2.0.0/24 peer {} ", other.public()));
    assert_eq!(
        daemon.show("peers").trim(),
        other.public(),
        "our own public key is not added as a peer"
    );
    assert_eq!(daemon.of_peer("allowed-ips", &other), "10.2.0.0/16");
}

/// Once `wg` returns, no packet goes to the former owner.
fn a_moved_allowed_ip_takes_effect_at_once(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, moving) = (&relay.hub, "10.77.0.50");
    let counters = [&relay.alice, &relay.bob].map(|daemon| {
        daemon.namespace.run(&format!("ip address add {moving}/32 dev {}", daemon.interface));
        let rule = format!("iifname {} ip daddr {moving}", daemon.interface);
        (daemon, Counter::new(&daemon.namespace, "input", &rule))
    });
    let hosts = [&ALICE, &BOB];
    for round in 0..10 {
        let (to, from) = (round % 2, 1 - round % 2);
        let arrived = counters[from].1.packets();
        let ips = format!("{},{moving}/32", hosts[to].allowed_ips());
        hub.set(&format!("peer {} allowed-ips {ips}", counters[to].0.key.public()));
        let former = hub.of_peer("allowed-ips", &counters[from].0.key);
        assert!(!former.contains(moving), "a prefix has one owner: {former}");
        assert_eq!(ping(&hub.namespace, moving, "-c 2 -i 0.05 -W 1"), (2, 2), "round {round}");
        assert_eq!(counters[from].1.packets(), arrived, "the former owner gets nothing");
    }
}

/// A peer that owns 10.0.0.0/8 must not use the source 10.77.0.3 of another peer: sources are
/// checked by the longest match over all peers, not against the sender's own list.
fn overlapping_prefixes_do_not_allow_spoofing(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    hub.set(&format!(
        "peer {} allowed-ips {},10.0.0.0/8,fd00::/8",
        alice.key.public(),
        ALICE.allowed_ips()
    ));
    for (family, covered) in [(Family::V4, "10.88.0.1"), (Family::V6, "fd88::1")] {
        let spoofed = BOB.inner(family);
        let length = if family == Family::V4 { 32 } else { 128 };
        for address in [covered, spoofed] {
            alice.namespace.run(&format!("ip address add {address}/{length} dev lo"));
        }
        let from = |address: &str| {
            let rule = format!("iifname {} {} saddr {address}", hub.interface, family.nft());
            Counter::new(&hub.namespace, "prerouting", &rule)
        };
        let (allowed, rejected) = (from(covered), from(spoofed));
        let burst = |source: &str| {
            let options = format!("-I {source} -c 10 -i 0.05 -W 1");
            ping(&alice.namespace, HUB.inner(family), &options)
        };
        burst(covered);
        burst(spoofed);
        eventually(seconds(2), "packets from its own prefix arrive", || allowed.packets() == 10);
        assert_eq!(rejected.packets(), 0, "alice used bob's address ({family:?})");
    }
}

/// If the new port is in use by another socket, the old one stays open and traffic continues.
fn a_port_in_use_is_rejected(backend: Backend) {
    let relay = Relay::connected(&Options::new(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    for taken in ["0.0.0.0:4000", "[::]:4001"] {
        let _other = hub.namespace.udp_socket(taken);
        let (_, port) = taken.rsplit_once(':').expect("an address and a port");
        let line = format!("wg set {} listen-port {port}", hub.interface);
        let outcome = hub.namespace.attempt(&line);
        assert!(!outcome.is_ok(), "{taken} is taken: {outcome:?}");
        assert!(outcome.stderr.contains("in use"), "{outcome:?}");
        assert_eq!(hub.show("listen-port").trim(), HUB_PORT.to_string());
        let counts = ping(&alice.namespace, HUB.inner(Family::V4), "-c 10 -i 0.05");
        assert_eq!(counts, (10, 10), "the old port still works");
    }
    hub.set("listen-port 4002");
    assert_eq!(hub.show("listen-port").trim(), "4002");
    assert_eq!(ping(&hub.namespace, ALICE.inner(Family::V4), "-c 5 -i 0.05"), (5, 5));
    let hub_key = hub.key.public();
    assert_eq!(alice.of_peer("endpoints", &hub.key), "192.0.2.1:4002", "{hub_key} has moved");
}

/// `listen_port=0` picks a free port, which `wg show` reports.
fn port_zero_picks_a_free_port(backend: Backend) {
    let (daemon, _lab) = Daemon::alone(backend);
    daemon.set("listen-port 0");
    let port: u16 = daemon.show("listen-port").trim().parse().expect("a port");
    assert_ne!(port, 0);
}

on_both_backends!(
    every_setting_is_shown,
    setconf_addconf_and_syncconf_work_as_documented,
    an_edit_keeps_the_session,
    a_changed_preshared_key_is_used,
    a_peer_may_have_many_allowed_ips,
    many_peers_are_configured_at_once,
    own_public_key_is_ignored,
    a_moved_allowed_ip_takes_effect_at_once,
    overlapping_prefixes_do_not_allow_spoofing,
    a_port_in_use_is_rejected,
    port_zero_picks_a_free_port,
);
