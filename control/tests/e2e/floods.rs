//! Floods from a sender without a key, one for each kind of message: a legitimate peer can still
//! complete a handshake, and another peer's flow continues.

use crate::harness::{
    ALICE, BOB, Backend, Counter, Family, Flood, Forgery, HUB, Iperf, IperfServer, MALLORY,
    Options, Relay, eventually, ping_until_answered, seconds,
};

/// Longest handshake under load: an initiation, a cookie reply, and a retry after REKEY_TIMEOUT (5
/// s) and its jitter, all doubled because the flood may displace one.
const HANDSHAKE_SECONDS_MAX: u64 = 16;

/// Longest pause of the flow.
const PAUSE_SECONDS_MAX: u64 = 2;

/// `index`: the worker that forged receiver indexes name; random if `None`.
fn survives_a_flood(backend: Backend, forgery: Forgery, index: Option<u8>) {
    let relay = Relay::new(&Options::new(backend));
    let (hub, alice, bob) = (&relay.hub, &relay.alice, &relay.bob);
    ping_until_answered(&alice.namespace, HUB.inner(Family::V4));
    let _server = IperfServer::start(&relay.lab, &hub.namespace);

    let target = MALLORY.hub(Family::V4);
    let arriving = Counter::new(&hub.namespace, "input", "iifname mallory udp dport 51820");
    let answers = Counter::new(&relay.mallory, "input", "udp sport 51820");
    let mut forge = forgery.maker(&hub.key, index);
    let flood = Flood::start(&relay.mallory, target, move |message| forge(message));
    eventually(seconds(5), "the flood arrives", || arriving.packets() > 10_000);

    let options = "--time 6 --interval 0.5";
    let flow = Iperf::spawn(&relay.lab, &alice.namespace, HUB.inner(Family::V4), options);
    // Bob has no session, so he needs a handshake during the flood.
    bob.set(&format!("peer {} persistent-keepalive 25", hub.key.public()));
    let what = "bob completes a handshake";
    eventually(seconds(HANDSHAKE_SECONDS_MAX), what, || bob.handshake_with(&hub.key) > 0);
    ping_until_answered(&bob.namespace, HUB.inner(Family::V4));
    let flow = Iperf::finish(flow);
    assert!(flow.longest_pause() <= seconds(PAUSE_SECONDS_MAX), "{forgery:?}: {flow:?}");
    assert!(flow.bytes_per_second() > 1e5, "{forgery:?}: {flow:?}");
    assert!(flood.sent() > 20_000, "the flood was too weak: {}", flood.sent());

    // Only an initiation with a valid mac1 may be answered, with a cookie reply.
    if forgery != Forgery::GoodMac1 {
        assert_eq!(answers.packets(), 0, "{forgery:?} was answered");
    }
    drop(flood);
    // Everything works after the flood.
    ping_until_answered(&alice.namespace, BOB.inner(Family::V6));
    ping_until_answered(&hub.namespace, ALICE.inner(Family::V6));
}

fn initiations_with_a_bad_mac1(backend: Backend) {
    survives_a_flood(backend, Forgery::BadMac1, None);
}

fn initiations_with_a_valid_mac1(backend: Backend) {
    survives_a_flood(backend, Forgery::GoodMac1, None);
}

fn forged_responses(backend: Backend) {
    survives_a_flood(backend, Forgery::Response, None);
}

fn forged_responses_to_one_worker(backend: Backend) {
    survives_a_flood(backend, Forgery::Response, Some(0));
}

fn forged_cookie_replies_to_one_worker(backend: Backend) {
    survives_a_flood(backend, Forgery::CookieReply, Some(0));
}

fn data_with_unknown_indexes(backend: Backend) {
    survives_a_flood(backend, Forgery::Data, None);
}

fn data_with_unknown_indexes_to_one_worker(backend: Backend) {
    survives_a_flood(backend, Forgery::Data, Some(0));
}

/// All kinds at once, while both the hub and a client initiate handshakes.
fn all_kinds_of_forgery_at_once(backend: Backend) {
    let relay = Relay::new(&Options { hub_knows_alice: true, ..Options::new(backend) });
    let (hub, bob) = (&relay.hub, &relay.bob);
    let target = MALLORY.hub(Family::V4);
    let mut makers: Vec<_> =
        Forgery::ALL.iter().map(|forgery| forgery.maker(&hub.key, Some(0))).collect();
    let mut turn = 0;
    let flood = Flood::start(&relay.mallory, target, move |message| {
        turn = (turn + 1) % makers.len();
        makers[turn](message);
    });
    eventually(seconds(5), "the flood runs", || flood.sent() > 10_000);
    bob.set(&format!("peer {} persistent-keepalive 25", hub.key.public()));
    let what = "bob completes a handshake";
    eventually(seconds(HANDSHAKE_SECONDS_MAX), what, || bob.handshake_with(&hub.key) > 0);
    // The hub initiates too, and the response must get through.
    eventually(seconds(HANDSHAKE_SECONDS_MAX), "the hub reaches alice", || {
        hub.namespace.attempt(&format!("ping -c 1 -W 1 {}", ALICE.inner(Family::V4))).is_ok()
    });
}

on_both_backends!(
    initiations_with_a_bad_mac1,
    initiations_with_a_valid_mac1,
    forged_responses,
    forged_responses_to_one_worker,
    forged_cookie_replies_to_one_worker,
    data_with_unknown_indexes,
    data_with_unknown_indexes_to_one_worker,
    all_kinds_of_forgery_at_once,
);
