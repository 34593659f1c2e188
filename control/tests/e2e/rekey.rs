//! Rekeying under traffic, with shortened protocol timers.

use std::collections::BTreeSet;

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Iperf, IperfServer, Options, Relay, RelayMode, eventually,
    ping, ping_until_answered, seconds, within,
};

/// Divisor of the timers: REKEY_AFTER_TIME becomes 2 s, REJECT_AFTER_TIME 3 s.
const DIVISOR: &str = "60";

/// Duration of the traffic (seconds): several sessions.
const DURATION: u64 = 12;

fn options(backend: Backend) -> Options {
    Options { environment: vec![("WG_BOUNCE_TEST_TIMERS", DIVISOR)], ..Options::new(backend) }
}

fn no_packet_is_lost_over_a_rekey(backend: Backend) {
    every_packet_arrives(&options(backend));
}

/// With `--relay direct`, packets without a session are staged in the worker.
fn no_packet_is_lost_over_a_rekey_with_direct_relay(backend: Backend) {
    every_packet_arrives(&Options { relay: RelayMode::Direct, ..options(backend) });
}

/// Every packet arrives in both directions while sessions are rekeyed.
fn every_packet_arrives(options: &Options) {
    let relay = Relay::connected(options);
    let (hub, alice) = (&relay.hub, &relay.alice);
    let mut handshakes = BTreeSet::new();
    let count = DURATION * 200;
    let options = format!("-c {count} -i 0.005 -W 2");
    std::thread::scope(|scope| {
        let from_alice = scope.spawn(|| ping(&alice.namespace, BOB.inner(Family::V4), &options));
        let from_bob =
            scope.spawn(|| ping(&relay.bob.namespace, ALICE.inner(Family::V6), &options));
        let (done_a, done_b) = (&from_alice, &from_bob);
        let is_done = within(seconds(DURATION * 3), || {
            handshakes.insert(hub.handshake_with(&alice.key));
            done_a.is_finished() && done_b.is_finished()
        });
        assert!(is_done, "ping does not exit");
        assert_eq!(from_alice.join().expect("no panic"), (count, count), "from alice to bob");
        assert_eq!(from_bob.join().expect("no panic"), (count, count), "from bob to alice");
    });
    assert!(handshakes.len() >= 3, "too few handshakes in {DURATION} s: {handshakes:?}");
}

/// Rekeying disturbs neither UDP at a steady rate nor TCP at full speed.
fn streams_continue_over_a_rekey(backend: Backend) {
    let relay = Relay::connected(&options(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    let _server = IperfServer::start(&relay.lab, &relay.bob.namespace);
    let before = hub.handshake_with(&alice.key);
    let udp = "--udp --time 6 --bitrate 20M --length 1200";
    let run = Iperf::run(&alice.namespace, BOB.inner(Family::V4), udp);
    assert!(run.lost_percent() < 0.5, "{run:?}");
    let run = Iperf::run(&alice.namespace, BOB.inner(Family::V6), "--time 6 --interval 0.5");
    assert!(run.longest_pause() < seconds(1), "{run:?}");
    let after = hub.handshake_with(&alice.key);
    assert!(after >= before + 4, "no new handshakes: {before} {after}");
}

/// After an idle session has expired, the next packet is staged until a new one exists.
fn an_idle_session_is_replaced_on_demand(backend: Backend) {
    let relay = Relay::connected(&options(backend));
    let (hub, alice) = (&relay.hub, &relay.alice);
    for _ in 0..2 {
        let before = hub.handshake_with(&alice.key);
        // REJECT_AFTER_TIME passes without a packet, so no event can be awaited.
        std::thread::sleep(seconds(5));
        assert_eq!(hub.handshake_with(&alice.key), before, "an idle peer does not rekey");
        // Either side may initiate.
        assert_eq!(ping(&hub.namespace, ALICE.inner(Family::V4), "-c 5 -i 0.2"), (5, 5));
        assert!(hub.handshake_with(&alice.key) > before);
        std::thread::sleep(seconds(5));
        assert_eq!(ping(&alice.namespace, BOB.inner(Family::V4), "-c 5 -i 0.2"), (5, 5));
    }
}

/// Peers of a restarted hub notice that it lost their sessions and start new handshakes.
fn peers_reconnect_to_a_restarted_hub(backend: Backend) {
    let options = Options { keepalive: 1, ..options(backend) };
    let mut relay = Relay::connected(&options);
    relay.hub.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(relay.hub.exit_code(), Some(0));
    let (namespace, key) = (relay.hub.namespace.clone(), relay.hub.key.clone());
    relay.hub = crate::harness::Daemon::start_with(
        &relay.lab,
        &namespace,
        "hub",
        options.hub,
        &options.environment,
    );
    relay.hub.key = key;
    let config = relay.hub_config(&options);
    relay.hub.configure("setconf", &config);
    relay.hub.bring_up(1420, &["10.77.0.1/24", "fd77::1/64"]);
    eventually(seconds(30), "alice completes a new handshake", || {
        relay.hub.handshake_with(&relay.alice.key) > 0
    });
    eventually(seconds(30), "bob completes a new handshake", || {
        relay.hub.handshake_with(&relay.bob.key) > 0
    });
    ping_until_answered(&relay.alice.namespace, BOB.inner(Family::V4));
    ping_until_answered(&relay.bob.namespace, HUB.inner(Family::V6));
}

on_both_backends!(
    no_packet_is_lost_over_a_rekey,
    no_packet_is_lost_over_a_rekey_with_direct_relay,
    streams_continue_over_a_rekey,
    an_idle_session_is_replaced_on_demand,
    peers_reconnect_to_a_restarted_hub,
);
