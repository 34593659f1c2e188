//! Floods by somebody without a key, one for each way into the daemon: a legitimate peer still
//! gets in, and the flow of another goes on.

use crate::harness::{
    ALICE, BOB, Backend, Counter, Family, Flood, Forgery, HUB, HUB_PORT, Iperf, IperfServer,
    Options, Relay, eventually, ping_until_answered, seconds,
};

/// Bound for a handshake under load: an initiation, a cookie reply, and the next attempt after
/// REKEY_TIMEOUT (5 s) and its jitter, twice over as the flood may drop one.
const HANDSHAKE_SECONDS_MAX: u64 = 16;

/// Longest time that the flow may stand still.
const PAUSE_SECONDS_MAX: u64 = 2;

/// `index` is where forged receiver indexes point: at worker 0, or anywhere.
fn survives(backend: Backend, forgery: Forgery, index: Option<u8>) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    let _server = IperfServer::start(&relay.lab, &hub.namespace);

    let target = format!("203.0.113.1:{HUB_PORT}").parse().expect("an endpoint");
    let arriving = Counter::new(&hub.namespace, "input", "iifname mallory udp dport 51820");
    let answers = Counter::new(&relay.mallory, "input", "udp sport 51820");
    let mut forge = forgery.maker(&hub.key, index);
    let flood = Flood::start(&relay.mallory, target, move |message| forge(message));
    eventually(seconds(5), "the flood arrives", || arriving.packets() > 10_000);

    let options = "--time 6 --interval 0.5";
    let flow = Iperf::spawn(&relay.lab, &alice.namespace, HUB.inner(Family::V4), options);
    // Bob has not been there before: he needs a handshake in the middle of it.
    bob.set(&format!("peer {} persistent-keepalive 25", hub.key.public()));
    let who = "bob gets in";
    eventually(seconds(HANDSHAKE_SECONDS_MAX), who, || bob.handshake_with(&hub.key) > 0);
    ping_until_answered(&bob.namespace, HUB.inner(Family::V4));
    let flow = Iperf::finish(flow);
    assert!(flow.longest_pause() <= seconds(PAUSE_SECONDS_MAX), "{forgery:?}: {flow:?}");
    assert!(flow.bytes_per_second() > 1e5, "{forgery:?}: {flow:?}");
    assert!(flood.sent() > 20_000, "the flood was none: {}", flood.sent());

    // An initiation with a good mac1 may be answered by a cookie reply; nothing else ever.
    if forgery != Forgery::GoodMac1 {
        assert_eq!(answers.packets(), 0, "{forgery:?} was answered");
    }
    drop(flood);
    // And afterwards everything is as before.
    ping_until_answered(&alice.namespace, BOB.inner(Family::V6));
    ping_until_answered(&hub.namespace, ALICE.inner(Family::V6));
}

fn bad_mac1(backend: Backend) {
    survives(backend, Forgery::BadMac1, None);
}

fn good_mac1(backend: Backend) {
    survives(backend, Forgery::GoodMac1, None);
}

fn responses(backend: Backend) {
    survives(backend, Forgery::Response, None);
}

fn responses_to_one_worker(backend: Backend) {
    survives(backend, Forgery::Response, Some(0));
}

fn cookie_replies_to_one_worker(backend: Backend) {
    survives(backend, Forgery::CookieReply, Some(0));
}

fn unknown_indexes(backend: Backend) {
    survives(backend, Forgery::Data, None);
}

fn unknown_indexes_to_one_worker(backend: Backend) {
    survives(backend, Forgery::Data, Some(0));
}

/// All at once, from both sides: also aimed at a client that waits for its own response.
fn everything_at_once(backend: Backend) {
    let relay = Relay::new(&Options { hub_knows_alice: true, ..Options::new(backend) });
    let (hub, bob) = (&relay.hub, &relay.bob);
    let target = format!("203.0.113.1:{HUB_PORT}").parse().expect("an endpoint");
    let mut makers: Vec<_> =
        Forgery::ALL.iter().map(|forgery| forgery.maker(&hub.key, Some(0))).collect();
    let mut turn = 0;
    let flood = Flood::start(&relay.mallory, target, move |message| {
        turn = (turn + 1) % makers.len();
        makers[turn](message);
    });
    eventually(seconds(5), "the flood runs", || flood.sent() > 10_000);
    bob.set(&format!("peer {} persistent-keepalive 25", hub.key.public()));
    let who = "bob gets in";
    eventually(seconds(HANDSHAKE_SECONDS_MAX), who, || bob.handshake_with(&hub.key) > 0);
    // The hub itself starts a handshake, and its answer has to get through.
    eventually(seconds(HANDSHAKE_SECONDS_MAX), "the hub reaches alice", || {
        hub.namespace.attempt(&format!("ping -c 1 -W 1 {}", ALICE.inner(Family::V4))).is_ok()
    });
}

on_both_backends!(
    bad_mac1,
    good_mac1,
    responses,
    responses_to_one_worker,
    cookie_replies_to_one_worker,
    unknown_indexes,
    unknown_indexes_to_one_worker,
    everything_at_once,
);
