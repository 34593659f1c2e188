//! `wg-bounce events`: what happens to peers and to the relay.

use super::Tunnel;
use super::hub::Hub;
use super::wait_until_up;
use crate::harness::{
    Backend, KeyPair, Lab, Program, eventually, ping, ping_until_answered, seconds,
};

/// Peers that connect, rekey, roam and go, a key that no peer has, and a new firewall rule.
fn events_are_pushed(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    let stranger = Tunnel::new(&lab, &bob.namespace, "stranger", backend);
    stranger.write(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.2/24\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.99.0.0/24\nEndpoint = 192.168.2.1:51820\nPersistentKeepalive = 1\n",
        KeyPair::new().private(),
        set.keys[0].public(),
    ));
    // A session lives for three seconds.
    let mut process = hub.start("WG_BOUNCE_TEST_TIMERS=60 WG_BOUNCE_LOG_LEVEL=debug");
    wait_until_up(&mut process, seconds(10));
    let line = |more: &str| {
        format!("env {} events {} {more}", Program::under_test().display(), hub.interface)
    };
    let mut json = hub.namespace.spawn(&lab, &line("--json"));
    let text = hub.namespace.spawn(&lab, &line(""));
    let wait_for = |expected: &[&str]| {
        eventually(seconds(10), &expected.join(" "), || {
            let has_all = |line: &str| expected.iter().all(|part| line.contains(part));
            json.output().lines().any(has_all)
        });
    };
    let is_served = || {
        let log = process.output();
        log.matches("a client follows the events").count() == 2
    };
    eventually(seconds(5), "both are served", is_served);

    let clients = [alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let key = set.keys[1].public();
    wait_for(&["\"event\":\"connected\"", &key, "\"name\":\"alice\"", "192.168.1.2:"]);
    wait_for(&["\"event\":\"connected\"", "\"name\":\"bob\"", "192.168.2.2:"]);
    alice.namespace.run(&format!("wg set {} listen-port 7777", alice.interface));
    ping(&alice.namespace, "10.77.0.3", "-c 1 -W 1");
    wait_for(&["\"event\":\"roamed\"", "\"name\":\"alice\"", "192.168.1.2:7777"]);
    let traffic = || ping(&alice.namespace, "10.77.0.3", "-c 1 -W 1");
    eventually(seconds(10), "a rekey", || {
        traffic();
        json.output().contains("\"event\":\"rekeyed\"")
    });
    hub.namespace.run("nft add table ip filter");
    hub.namespace.run("nft add chain ip filter forward { type filter hook forward priority 0 ; }");
    hub.namespace.run("nft add rule ip filter forward ip protocol udp counter drop");
    wait_for(&["\"event\":\"relay\"", "by the kernel"]);
    let _stranger = stranger.up();
    wait_for(&["\"event\":\"refused\"", "no peer has this public key", "192.168.2.2:"]);
    bob.run("down");
    wait_for(&["\"event\":\"gone\"", "\"name\":\"bob\""]);
    drop(clients);

    hub.run("down");
    assert_eq!(json.exit_code(), Some(1));
    assert!(json.output().contains("the daemon has ended"), "{}", json.output());
    let text = text.output();
    for expected in [&format!("Z connected alice {key} 192.168.1.2:"), "Z gone bob ", "Z relay: "] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

on_both_backends!(events_are_pushed);
