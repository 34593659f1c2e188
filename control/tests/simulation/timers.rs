//! Protocol timers between two nodes.

use wg_bounce_dataplane::wire::{DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use crate::node::{Node, peer_change, secret};
use crate::pair::{START, exchange, pair};

fn at(seconds: u64) -> Millis {
    START + Millis::from_secs(seconds)
}

fn to_b(a: &mut Node, now: Millis) {
    a.send("10.0.0.2".parse().expect("an address"), b"data", now);
}

/// Sends a packet to b and delivers the resulting initiation.
fn initiate(a: &mut Node, b: &mut Node, now: Millis) {
    to_b(a, now);
    a.run(now);
    let initiation = a.sent.remove(0);
    b.receive(a.address, &initiation.bytes, false, now);
}

/// Runs `node` alone until `until`; returns the time and length of each datagram it sent.
fn alone(node: &mut Node, from: Millis, until: Millis) -> Vec<(Millis, usize)> {
    let mut sent = Vec::new();
    let mut now = from;
    loop {
        node.run(now);
        sent.extend(node.sent.drain(..).map(|datagram| (now, datagram.bytes.len())));
        match node.device.next_deadline() {
            Some(next) if next <= until => now = next,
            _ => return sent,
        }
    }
}

fn connected() -> (Node, Node) {
    let (mut a, mut b) = pair();
    to_b(&mut a, START);
    exchange(&mut a, &mut b, START);
    assert_eq!(b.received.len(), 1);
    (a, b)
}

#[test]
fn the_responder_waits_for_confirmation() {
    let (mut a, mut b) = pair();
    initiate(&mut a, &mut b, START);
    let response = b.sent.remove(0);
    b.send("10.0.0.1".parse().expect("an address"), b"answer", START);
    b.run(START);
    assert!(b.sent.is_empty(), "nothing may be sent before the initiator has confirmed");
    assert_eq!(b.peer(&a.public_key).expect("a peer").last_handshake, (0, 0));
    a.receive(b.address, &response.bytes, false, START);
    assert_eq!(a.sent.len(), 1, "the staged packet confirms the session; no extra keepalive");
    exchange(&mut a, &mut b, START);
    assert_eq!((a.received.len(), b.received.len()), (1, 1));
    assert_ne!(b.peer(&a.public_key).expect("a peer").last_handshake, (0, 0));
}

#[test]
fn an_initiator_with_nothing_to_send_confirms_with_a_keepalive() {
    let (mut a, mut b) = pair();
    let mut change = peer_change(b.public_key);
    change.persistent_keepalive = Some(25);
    a.set(START, vec![Change::Peer(change)]);
    a.run(START);
    assert_eq!(a.sent.len(), 1, "enabling keepalives sends one at once, which needs a session");
    exchange(&mut a, &mut b, START);
    assert_ne!(b.peer(&a.public_key).expect("a peer").last_handshake, (0, 0));
    assert_eq!(alone(&mut a, START, at(24)), []);
    assert_eq!(alone(&mut a, at(24), at(60)), [(at(25), DATA_OVERHEAD), (at(50), DATA_OVERHEAD)]);
}

#[test]
fn a_handshake_is_retried_and_given_up() {
    let (mut a, _) = pair();
    to_b(&mut a, START);
    let sent = alone(&mut a, START, at(2000));
    assert!(sent.iter().all(|&(_, length)| length == INITIATION_LEN));
    for pair in sent.windows(2) {
        let pause = pair[1].0.since(pair[0].0);
        assert!((5000..5333).contains(&pause.0), "REKEY_TIMEOUT and jitter, not {pause:?}");
    }
    let last = sent.last().expect("an attempt").0;
    assert!(last < at(90) && last > at(84), "tried for REKEY_ATTEMPT_TIME: {last:?}");
    assert_eq!((a.discarded, a.device.counters().given_up), (1, 1));
    assert_eq!(a.device.next_deadline(), None);
    assert_eq!((a.device.sizes(), a.held()), ((0, 0, 0), (0, 0)), "no state is left");
    let pauses: std::collections::BTreeSet<_> =
        sent.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert!(pauses.len() > 5, "jitter differs");
}

#[test]
fn new_packets_extend_the_attempts() {
    let (mut a, _) = pair();
    for second in 0..20 {
        to_b(&mut a, at(5 * second));
        alone(&mut a, at(5 * second), at(5 * second + 5));
    }
    let sent = alone(&mut a, at(100), at(2000));
    let last = sent.last().expect("an attempt").0;
    assert!(last > at(95 + 84) && last < at(95 + 90), "90 s from the last packet: {last:?}");
}

#[test]
fn received_data_is_acknowledged_by_one_keepalive_after_ten_seconds() {
    let (mut a, mut b) = connected();
    assert_eq!(alone(&mut b, START, at(170)), [(at(10), DATA_OVERHEAD)]);
    // Data from b acknowledges the data from a.
    to_b(&mut a, at(20));
    let data = a.sent.remove(0);
    b.receive(a.address, &data.bytes, false, at(20));
    b.send("10.0.0.1".parse().expect("an address"), b"answer", at(21));
    let answer = b.sent.remove(0);
    a.receive(b.address, &answer.bytes, false, at(21));
    assert_eq!(alone(&mut b, at(21), at(35)), [], "data acknowledges, so no keepalive is due");
    assert_eq!(alone(&mut a, at(21), at(100)), [(at(31), DATA_OVERHEAD)]);
}

#[test]
fn keepalives_are_not_acknowledged() {
    let (mut a, mut b) = connected();
    let keepalive = loop {
        let next = b.device.next_deadline().expect("b owes a keepalive");
        b.run(next);
        if let Some(datagram) = b.sent.pop() {
            break datagram;
        }
    };
    a.receive(b.address, &keepalive.bytes, false, at(10));
    assert_eq!(alone(&mut a, at(10), at(500)), [], "no keepalive ping-pong, no handshake");
}

#[test]
fn missing_replies_start_a_handshake_after_fifteen_seconds() {
    let (mut a, mut b) = connected();
    exchange(&mut a, &mut b, at(10));
    to_b(&mut a, at(20));
    a.sent.clear();
    let sent = alone(&mut a, at(20), at(36));
    let [(when, length)] = sent[..] else { panic!("one message: {sent:?}") };
    assert_eq!(length, INITIATION_LEN);
    assert!((15_000..15_333).contains(&when.since(at(20)).0), "{when:?}");
}

#[test]
fn only_the_initiator_rekeys_by_age() {
    let (mut a, mut b) = connected();
    exchange(&mut a, &mut b, at(10));
    b.send("10.0.0.1".parse().expect("an address"), b"x", at(119));
    exchange(&mut a, &mut b, at(119));
    to_b(&mut a, at(119));
    b.send("10.0.0.1".parse().expect("an address"), b"x", at(130));
    b.run(at(130));
    assert_eq!(b.sent.len(), 1, "the responder does not rekey");
    exchange(&mut a, &mut b, at(130));
    assert_eq!(a.device.counters().initiations_sent, 1);
    to_b(&mut a, at(131));
    exchange(&mut a, &mut b, at(131));
    assert_eq!(a.device.counters().sessions_initiated, 2, "the initiator rekeys when it sends");
    assert_eq!(a.held().0, 2, "the previous session still receives");
    to_b(&mut a, at(260));
    exchange(&mut a, &mut b, at(260));
    assert_eq!((a.held().0, b.held().0), (2, 2), "only the current and the previous session");
}

#[test]
fn the_last_minute_handshake_is_sent_once() {
    let (mut a, mut b) = connected();
    exchange(&mut a, &mut b, at(10));
    for second in [166, 167, 175] {
        b.send("10.0.0.1".parse().expect("an address"), b"x", at(second));
        let data = b.sent.pop().expect("sent");
        a.receive(b.address, &data.bytes, false, at(second));
        a.run(at(second));
    }
    // The retry at 171 s is the same handshake.
    assert_eq!(a.device.counters().initiations_sent, 2 + 1);
    a.sent.clear();
}

#[test]
fn keys_are_erased_nine_minutes_after_the_last_handshake() {
    let (mut a, mut b) = connected();
    for seconds in [10, 20, 30, 539] {
        exchange(&mut a, &mut b, at(seconds));
    }
    assert_eq!((a.held().0, b.held().0), (1, 1));
    exchange(&mut a, &mut b, at(540));
    assert_eq!((a.held().0, b.held().0), (0, 0));
    assert_eq!((a.device.next_deadline(), b.device.next_deadline()), (None, None));
}

#[test]
fn crossing_handshakes_are_resolved() {
    let (mut a, mut b) = pair();
    to_b(&mut a, START);
    b.send("10.0.0.1".parse().expect("an address"), b"x", START);
    a.run(START);
    b.run(START);
    let mut now = START;
    while a.received.is_empty() || b.received.is_empty() {
        let (from_a, from_b) = (std::mem::take(&mut a.sent), std::mem::take(&mut b.sent));
        from_a.iter().for_each(|datagram| b.receive(a.address, &datagram.bytes, false, now));
        from_b.iter().for_each(|datagram| a.receive(b.address, &datagram.bytes, false, now));
        if from_a.is_empty() && from_b.is_empty() {
            now = now + Millis(1);
        }
        a.run(now);
        b.run(now);
        assert!(now < at(7), "jitter resolves the collision at the first retry");
    }
}

#[test]
fn crossing_handshakes_are_resolved_while_both_sides_send() {
    const DELAY: Millis = Millis(10);
    let (mut a, mut b) = pair();
    let mut in_flight = std::collections::VecDeque::new();
    let mut now = START;
    while a.received.is_empty() || b.received.is_empty() {
        to_b(&mut a, now);
        b.send("10.0.0.1".parse().expect("an address"), b"x", now);
        a.run(now);
        b.run(now);
        in_flight.extend(a.sent.drain(..).map(|datagram| (now + DELAY, true, datagram)));
        in_flight.extend(b.sent.drain(..).map(|datagram| (now + DELAY, false, datagram)));
        while in_flight.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, to_b, datagram) = in_flight.pop_front().expect("looked at");
            let (to, from) = if to_b { (&mut b, a.address) } else { (&mut a, b.address) };
            to.receive(from, &datagram.bytes, false, now);
        }
        now = now + Millis(1);
        assert!(now < at(12), "packets must not cancel the jitter");
    }
}

#[test]
fn a_responder_without_confirmation_initiates() {
    let (mut a, mut b) = pair();
    initiate(&mut a, &mut b, START);
    b.send("10.0.0.1".parse().expect("an address"), b"staged", START);
    b.run(START);
    b.sent.clear();
    // Response and confirmation are lost, and no new packet asks for a handshake.
    let sent = alone(&mut b, START, at(6));
    let [(when, INITIATION_LEN)] = sent[..] else { panic!("one initiation: {sent:?}") };
    assert!((5000..5333).contains(&when.since(START).0), "{when:?}");
}

#[test]
fn a_confirmation_is_handled_before_a_later_initiation() {
    let (mut a, mut b) = pair();
    initiate(&mut a, &mut b, START);
    let response = b.sent.remove(0);
    a.receive(b.address, &response.bytes, false, START);
    let confirmation = a.sent.remove(0);
    a.link(false, at(1));
    a.link(true, at(1));
    to_b(&mut a, at(1));
    a.run(at(1));
    let second = a.sent.remove(0);
    b.receive(a.address, &confirmation.bytes, false, at(1));
    assert_eq!(b.device.counters().sessions_confirmed, 0, "the notice has not been handled yet");
    b.receive(a.address, &second.bytes, false, at(1));
    assert_eq!(b.device.counters().sessions_confirmed, 1);
    assert_eq!(b.held().0, 2, "current and next");
}

#[test]
fn link_down_removes_sessions_and_link_up_starts_due_handshakes() {
    let (mut a, mut b) = connected();
    let mut change = peer_change(b.public_key);
    change.persistent_keepalive = Some(5);
    a.set(at(1), vec![Change::Peer(change)]);
    exchange(&mut a, &mut b, at(1));
    a.link(false, at(2));
    assert_eq!((a.held(), a.device.next_deadline()), ((0, 0), None));
    assert_eq!(alone(&mut a, at(2), at(1000)), []);
    to_b(&mut a, at(1000));
    assert!(a.sent.is_empty());
    a.link(true, at(1001));
    assert_eq!(alone(&mut a, at(1001), at(1001)), [(at(1001), INITIATION_LEN)]);
    a.sent.clear();
}

#[test]
fn setting_the_key_last_starts_due_handshakes() {
    let (mut a, b) = (Node::new([1; 32], 1, 1), Node::new([2; 32], 1, 2));
    let mut change = peer_change(b.public_key);
    change.endpoint = Some(b.address);
    change.persistent_keepalive = Some(25);
    a.set(START, vec![Change::Peer(change)]);
    a.link(true, START);
    assert_eq!(alone(&mut a, START, at(100)), []);
    assert_eq!(a.device.next_deadline(), None);
    a.set(at(100), vec![Change::PrivateKey(Some(secret([1; 32])))]);
    assert_eq!(alone(&mut a, at(100), at(100)), [(at(100), INITIATION_LEN)]);
}

#[test]
fn setting_the_endpoint_last_starts_due_handshakes() {
    let (mut a, b) = (Node::new([1; 32], 1, 1), Node::new([2; 32], 1, 2));
    let mut change = peer_change(b.public_key);
    change.persistent_keepalive = Some(25);
    a.set(START, vec![Change::PrivateKey(Some(secret([1; 32]))), Change::Peer(change)]);
    a.link(true, START);
    assert_eq!(alone(&mut a, START, at(100)), []);
    let mut change = peer_change(b.public_key);
    change.endpoint = Some(b.address);
    a.set(at(100), vec![Change::Peer(change)]);
    assert_eq!(alone(&mut a, at(100), at(100)), [(at(100), INITIATION_LEN)]);
}

#[test]
fn a_wall_clock_that_jumps_back_does_not_block_handshakes() {
    let (mut a, mut b) = connected();
    a.wall = std::time::Duration::from_secs(5);
    a.link(false, at(1));
    a.link(true, at(1));
    initiate(&mut a, &mut b, at(2));
    assert_eq!(b.sent.remove(0).bytes.len(), RESPONSE_LEN);
}

/// A worker's flag that asks for a handshake is older than the initiation that answers it.
#[test]
fn an_initiation_of_the_peer_makes_our_own_superfluous() {
    let (mut a, mut b) = pair();
    b.send("10.0.0.1".parse().expect("an address"), b"data", START);
    initiate(&mut a, &mut b, START);
    let lengths: Vec<_> = b.sent.iter().map(|datagram| datagram.bytes.len()).collect();
    assert_eq!(lengths, [RESPONSE_LEN], "no initiation that the response abandons");
    let response = b.sent.remove(0);
    a.receive(b.address, &response.bytes, false, START);
    exchange(&mut a, &mut b, START);
    assert_eq!((a.received.len(), b.received.len()), (1, 1));
    assert_eq!(b.device.counters().initiations_sent, 0);
}

/// The same for a response that arrives after its handshake was given up.
#[test]
fn a_late_response_makes_another_initiation_superfluous() {
    let (mut a, mut b) = pair();
    to_b(&mut a, START);
    alone(&mut a, START, at(84));
    // The last attempt before the handshake is given up.
    let mut now = at(84);
    let mut last = None;
    while a.device.counters().given_up == 0 {
        now = a.device.next_deadline().expect("it is retried or given up");
        a.run(now);
        last = a.sent.pop().or(last);
    }
    let last = last.expect("an attempt in the last six seconds");
    b.receive(a.address, &last.bytes, false, now);
    let response = b.sent.remove(0);
    // The notice about this packet waits behind the response.
    to_b(&mut a, now);
    a.receive(b.address, &response.bytes, false, now);
    let sent: Vec<_> = a.sent.iter().map(|datagram| datagram.bytes.len()).collect();
    assert!(!sent.contains(&INITIATION_LEN), "no second handshake: {sent:?}");
    exchange(&mut a, &mut b, now);
    assert_eq!(b.received.len(), 1);
}
