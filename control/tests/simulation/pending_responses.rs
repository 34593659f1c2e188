//! Responses that other threads compute while the device changes.

use std::time::Duration;

use wg_bounce_control::device::PendingResponse;
use wg_bounce_dataplane::wire::RESPONSE_LEN;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use crate::node::{Node, allowed_ip, peer_change, secret};
use crate::pair::{START, exchange, pair};

/// A pair whose second node has helpers.
fn helped_pair() -> (Node, Node) {
    let (a, mut b) = pair();
    b.is_helped = true;
    (a, b)
}

/// Lets `a` send an initiation to `b`; returns the response that `b` begins.
fn begin(a: &mut Node, b: &mut Node, now: Millis) -> PendingResponse {
    a.send("10.0.0.2".parse().expect("an address"), b"hello", now);
    a.run(now);
    let initiation = a.sent.pop().expect("an initiation");
    b.receive(a.address, &initiation.bytes, false, now);
    b.pending.pop().expect("a response begins")
}

/// Takes the first step: the peer is known after it.
fn look_up(b: &mut Node, response: PendingResponse, now: Millis) -> PendingResponse {
    b.complete(response, now);
    b.pending.pop().expect("the initiation claims to be from a peer")
}

/// Lets `a` start over, as after a restart with a later clock.
fn start_over(a: &mut Node, now: Millis) {
    a.link(false, now);
    a.link(true, now);
    a.wall += Duration::from_secs(1);
}

fn responses(node: &Node) -> u64 {
    node.device.counters().responses_sent
}

/// `b` keeps nothing of a response, and both can connect.
fn expect_nothing_left(a: &mut Node, b: &mut Node, now: Millis) {
    assert!(b.pending.is_empty() && b.sent.is_empty(), "nothing is sent");
    assert_eq!((b.device.sizes().0, b.held().0), (0, 0), "no index is left");
    b.is_helped = false;
    start_over(a, now);
    a.send("10.0.0.2".parse().expect("an address"), b"hello", now);
    exchange(a, b, now);
    assert_eq!(b.received.last().map(|packet| &packet.payload[..]), Some(&b"hello"[..]));
}

#[test]
fn a_response_takes_two_steps() {
    let (mut a, mut b) = helped_pair();
    let response = begin(&mut a, &mut b, START);
    let response = look_up(&mut b, response, START);
    assert!(b.sent.is_empty());
    b.complete(response, START);
    let [sent] = <[_; 1]>::try_from(std::mem::take(&mut b.sent)).expect("one response");
    assert_eq!(sent.bytes.len(), RESPONSE_LEN);
    a.receive(b.address, &sent.bytes, false, START);
    exchange(&mut a, &mut b, START);
    assert_eq!(b.received.len(), 1);
}

#[test]
fn a_new_private_key_ends_a_response_at_each_step() {
    for steps in [0, 1] {
        let (mut a, mut b) = helped_pair();
        let mut response = begin(&mut a, &mut b, START);
        if steps == 1 {
            response = look_up(&mut b, response, START);
        }
        for key in [[7; 32], b.private_key] {
            b.set(START, vec![Change::PrivateKey(Some(secret(key)))]);
        }
        b.complete(response, START);
        assert_eq!(b.device.counters().drop_bad_mac1, 1, "of the key before, though it is back");
        expect_nothing_left(&mut a, &mut b, START);
    }
}

#[test]
fn a_removed_peer_gets_no_response() {
    for is_added_again in [false, true] {
        let (mut a, mut b) = helped_pair();
        let response = begin(&mut a, &mut b, START);
        let response = look_up(&mut b, response, START);
        let mut removal = peer_change(a.public_key);
        removal.remove = true;
        b.set(START, vec![Change::Peer(removal)]);
        let add = |b: &mut Node| {
            let mut addition = peer_change(a.public_key);
            addition.allowed_ips = vec![allowed_ip("10.0.0.1/32")];
            b.set(START, vec![Change::Peer(addition)]);
        };
        if is_added_again {
            add(&mut b);
        }
        b.complete(response, START);
        assert_eq!((responses(&b), b.device.counters().drop_not_authentic), (0, 1));
        if !is_added_again {
            add(&mut b);
        }
        expect_nothing_left(&mut a, &mut b, START);
    }
}

#[test]
fn a_response_has_the_preshared_key_of_its_time() {
    let (mut a, mut b) = helped_pair();
    let response = begin(&mut a, &mut b, START);
    let response = look_up(&mut b, response, START);
    for node in [&mut a, &mut b] {
        let [peer] = <[_; 1]>::try_from(node.device.peer_states()).ok().expect("one peer");
        let mut change = peer_change(peer.public_key);
        change.preshared_key = Some(secret([9; 32]));
        node.set(START, vec![Change::Peer(change)]);
    }
    let response = look_up(&mut b, response, START);
    assert_eq!(responses(&b), 0, "the one computed is stale");
    b.is_helped = false;
    b.complete(response, START);
    exchange(&mut a, &mut b, START);
    assert_eq!((responses(&b), b.received.len()), (1, 1));
}

#[test]
fn a_link_that_went_down_gets_no_response() {
    let (mut a, mut b) = helped_pair();
    let response = begin(&mut a, &mut b, START);
    let response = look_up(&mut b, response, START);
    b.link(false, START);
    b.complete(response, START);
    assert_eq!(b.device.counters().drop_inactive, 1);
    b.link(true, START);
    expect_nothing_left(&mut a, &mut b, START);
}

#[test]
fn an_overtaken_response_is_dropped() {
    let (mut a, mut b) = helped_pair();
    let older = begin(&mut a, &mut b, START);
    let older = look_up(&mut b, older, START);
    let later = START + Millis(100);
    start_over(&mut a, later);
    let newer = begin(&mut a, &mut b, later);
    let newer = look_up(&mut b, newer, later);
    b.complete(newer, later);
    assert_eq!(responses(&b), 1);
    let much_later = later + Millis(100);
    b.complete(older, much_later);
    assert_eq!((responses(&b), b.device.counters().drop_replayed), (1, 1));
    exchange(&mut a, &mut b, much_later);
    assert_eq!(b.received.len(), 1, "the newer one has the session");
}

#[test]
fn copies_get_one_response() {
    let (mut a, mut b) = helped_pair();
    a.send("10.0.0.2".parse().expect("an address"), b"hello", START);
    a.run(START);
    let initiation = a.sent.pop().expect("an initiation");
    for _ in 0..10 {
        b.receive(a.address, &initiation.bytes, false, START);
    }
    for _ in 0..2 {
        for response in std::mem::take(&mut b.pending) {
            b.complete(response, START);
        }
    }
    assert_eq!((responses(&b), b.device.counters().drop_replayed), (1, 9));
    assert_eq!(b.device.sizes().0, 1, "one index");
}

#[test]
fn initiations_too_soon_after_another_get_no_response() {
    let (mut a, mut b) = helped_pair();
    let first = begin(&mut a, &mut b, START);
    let first = look_up(&mut b, first, START);
    start_over(&mut a, START);
    let second = begin(&mut a, &mut b, START);
    let second = look_up(&mut b, second, START);
    b.complete(first, START);
    b.complete(second, START);
    assert_eq!((responses(&b), b.device.counters().drop_too_soon), (1, 1));
}
