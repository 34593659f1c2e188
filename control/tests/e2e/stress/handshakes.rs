//! Handshakes over slow paths.

use std::time::Duration;

use crate::harness::{
    ALICE, Backend, Family, HUB, Options, Relay, SlowPath, ping, seconds, within,
};

/// A path that adds up to almost REKEY_TIMEOUT to the round trip of each handshake: the first
/// attempt succeeds, and nothing is lost but what did not fit into the queue meanwhile.
fn handshakes_over_slow_paths(backend: Backend) {
    for millis in [500, 2000, 4900] {
        let round_trip = Duration::from_millis(millis);
        let relay = Relay::new(&Options::new(backend));
        let path = SlowPath::start(&relay.alice.namespace, ALICE.hub(Family::V4), round_trip);
        let key = relay.hub.key.public();
        relay.alice.set(&format!("peer {key} endpoint {}", path.endpoint));
        let limit = round_trip.as_secs() + 2;
        let options = format!("-c 1 -W {limit}");
        let alice = &relay.alice.namespace;
        assert_eq!(ping(alice, HUB.inner(Family::V4), &options), (1, 1), "{round_trip:?}");
        let sent = relay.alice.log().matches("sent handshake initiation").count();
        assert_eq!(sent, 1, "{round_trip:?}: the first attempt succeeds");
        assert_eq!(ping(alice, HUB.inner(Family::V6), "-c 20 -i 0.05"), (20, 20), "{round_trip:?}");
    }
}

/// Both sides begin at once, and again and again: jitter does not separate them on a slow path.
fn handshakes_that_cross_on_a_slow_path(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let round_trip = seconds(2);
    let path = SlowPath::start(&relay.alice.namespace, ALICE.hub(Family::V4), round_trip);
    let key = relay.hub.key.public();
    relay.alice.set(&format!("peer {key} endpoint {}", path.endpoint));
    // The hub learns the endpoint from the first handshake, and both forget the session.
    assert_eq!(ping(&relay.alice.namespace, HUB.inner(Family::V4), "-c 1 -W 5"), (1, 1));
    for daemon in [&relay.hub, &relay.alice] {
        daemon.namespace.run(&format!("ip link set {} down", daemon.interface));
    }
    for (daemon, host) in [(&relay.hub, HUB), (&relay.alice, ALICE)] {
        daemon.bring_up(1420, &[&format!("{}/64", host.inner(Family::V6))]);
    }
    let is_answered = within(seconds(60), || {
        std::thread::scope(|scope| {
            let (hub, alice) = (&relay.hub.namespace, &relay.alice.namespace);
            let from_hub = scope.spawn(|| ping(hub, ALICE.inner(Family::V4), "-c 1 -W 1").1);
            let from_alice = ping(alice, HUB.inner(Family::V4), "-c 1 -W 1").1;
            from_hub.join().expect("no panic") + from_alice > 0
        })
    });
    assert!(is_answered, "the handshakes cross forever");
}

on_both_backends!(handshakes_over_slow_paths, handshakes_that_cross_on_a_slow_path);
