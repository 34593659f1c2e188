//! Hostile senders: forged, damaged and replayed messages do not change a device's state.

use std::net::SocketAddr;

use wg_bounce_control::cookie::CookieSigner;
use wg_bounce_control::device::{Counters, Standing};
use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_dataplane::wire::{COOKIE_REPLY_LEN, INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use crate::node::Node;
use crate::pair::{START, join, pair};

const ATTACKER: ([u8; 4], u16) = ([203, 0, 113, 9], 9);

fn attacker() -> SocketAddr {
    SocketAddr::from(ATTACKER)
}

fn begin_handshake(a: &mut Node, now: Millis) -> Vec<u8> {
    a.send("10.0.0.2".parse().expect("an address"), b"hello", now);
    a.run(now);
    let [datagram] = <[_; 1]>::try_from(std::mem::take(&mut a.sent)).expect("one initiation");
    assert_eq!(datagram.bytes.len(), INITIATION_LEN);
    datagram.bytes
}

fn deliver(to: &mut Node, from: SocketAddr, bytes: &[u8], now: Millis) -> Vec<Vec<u8>> {
    to.receive(from, bytes, false, now);
    to.run(now);
    std::mem::take(&mut to.sent).into_iter().map(|datagram| datagram.bytes).collect()
}

/// The observable state of a device, except the counters of dropped messages.
fn state(node: &Node) -> impl PartialEq + std::fmt::Debug + use<> {
    let peers: Vec<_> = node
        .device
        .peer_states()
        .into_iter()
        .map(|peer| (peer.endpoint, peer.last_handshake, peer.tx_bytes, peer.rx_bytes))
        .collect();
    let seen = node.device.counters();
    let counts = (seen.responses_sent, seen.initiations_sent, seen.cookies_received);
    let sessions = (seen.sessions_initiated, seen.sessions_confirmed);
    (peers, node.device.next_deadline(), node.device.sizes(), node.held(), counts, sessions)
}

/// Checks that `node` ignores `message` with any bit of it flipped, also with a valid mac1 (which
/// takes only the public key) from byte `signed_from` on, and with any number of bytes cut off.
fn ignores_damaged(node: &mut Node, message: &[u8], signed_from: usize) {
    let (before, public_key) = (state(node), node.public_key);
    let flip = |bit: usize| {
        let mut damaged = message.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        damaged
    };
    let mut ignores = |damaged: &[u8], text: &str| {
        assert!(deliver(node, attacker(), damaged, START).is_empty(), "{text}");
        assert_eq!(state(node), before, "{text}");
    };
    for bit in 0..8 * (message.len() - 16) {
        ignores(&flip(bit), &format!("bit {bit}"));
    }
    for bit in 8 * signed_from..8 * (message.len() - 32) {
        let mut damaged = flip(bit);
        CookieSigner::new(&public_key).sign(&mut damaged, START);
        ignores(&damaged, &format!("bit {bit}, valid mac1"));
    }
    for length in 0..message.len() {
        ignores(&message[..length], &format!("length {length}"));
    }
}

#[test]
fn damaged_initiations_do_not_change_state() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    ignores_damaged(&mut b, &initiation, 8);
    assert_eq!(deliver(&mut b, a.address, &initiation, START).len(), 1, "the authentic one passes");
}

#[test]
fn damaged_responses_do_not_disturb_the_handshake() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let response = deliver(&mut b, a.address, &initiation, START).remove(0);
    assert_eq!(response.len(), RESPONSE_LEN);
    ignores_damaged(&mut a, &response, 12);
    assert_eq!(deliver(&mut a, b.address, &response, START).len(), 1, "the staged packet is sent");
    let after = state(&a);
    assert!(deliver(&mut a, attacker(), &response, START).is_empty(), "replayed");
    assert_eq!(state(&a), after);
}

#[test]
fn replayed_and_older_initiations_are_dropped() {
    let (mut a, mut b) = pair();
    let first = begin_handshake(&mut a, START);
    let later = START + Millis::from_secs(6);
    a.run(later);
    let second = a.sent.remove(0).bytes;
    assert_eq!(deliver(&mut b, a.address, &second, later).len(), 1);
    let before = state(&b);
    for (old, seconds) in [(&second, 1), (&first, 2), (&second, 3)] {
        let now = later + Millis::from_secs(seconds);
        let before_now = b.device.counters();
        assert!(deliver(&mut b, attacker(), old, now).is_empty());
        assert_eq!(b.device.counters().drop_replayed, before_now.drop_replayed + 1);
        assert_eq!(state(&b), before);
    }
}

#[test]
fn initiations_of_one_peer_are_rate_limited() {
    let (mut a, mut b) = pair();
    let first = begin_handshake(&mut a, START);
    a.link(false, START);
    a.link(true, START);
    a.wall += std::time::Duration::from_secs(1);
    let second = begin_handshake(&mut a, START);
    assert_eq!(deliver(&mut b, a.address, &first, START).len(), 1);
    assert!(deliver(&mut b, a.address, &second, START + Millis(19)).is_empty());
    assert_eq!(b.device.counters().drop_too_soon, 1);
    assert_eq!(deliver(&mut b, a.address, &second, START + Millis(20)).len(), 1);
}

#[test]
fn unknown_peers_get_no_reply() {
    let (mut a, mut b) = pair();
    let mut stranger = Node::new([3; 32], 1, 3);
    join(&mut stranger, &b, "10.0.0.2/32");
    let initiation = begin_handshake(&mut stranger, START);
    let before = state(&b);
    assert!(deliver(&mut b, stranger.address, &initiation, START).is_empty());
    assert_eq!(state(&b), before);
    let for_b = begin_handshake(&mut a, START);
    let mut other = Node::new([4; 32], 1, 4);
    join(&mut other, &a, "10.0.0.1/32");
    assert!(deliver(&mut other, a.address, &for_b, START).is_empty(), "mac1 is for b");
    assert_eq!(other.device.counters().drop_bad_mac1, 1);
}

#[test]
fn messages_with_unknown_indexes_do_not_change_state() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let response = deliver(&mut b, a.address, &initiation, START).remove(0);
    let (mut c, _) = pair();
    let before = (state(&c), c.device.counters().messages_tried);
    let mut cookie = vec![0; COOKIE_REPLY_LEN];
    cookie[0] = 3;
    // Bypasses the fake worker, which would drop them: the device must drop them, too.
    for bytes in [&response, &cookie] {
        for under_load in [false, true] {
            let message = wg_bounce_dataplane::messages::HandshakeMessage {
                bytes: bytes.iter().copied().collect(),
                from: wg_bounce_sys::Endpoint { remote: attacker(), source: None },
            };
            let input =
                wg_bounce_control::device::Input::Handshake { message: &message, under_load };
            c.input(input, START);
        }
    }
    assert!(c.sent.is_empty());
    assert_eq!((state(&c), c.device.counters().messages_tried), before);
}

#[test]
fn under_load_unverified_sources_get_cookies_only() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let before = b.device.counters();
    for count in 0..1000u32 {
        let from = SocketAddr::from(((0xc633_6400u32 + count).to_be_bytes(), 7));
        b.receive(from, &initiation, true, START);
    }
    let after = b.device.counters();
    assert_eq!(
        after,
        Counters { cookie_replies_sent: 1000, ..before },
        "no Diffie-Hellman, only cookie replies"
    );
    assert!(b.sent.iter().all(|datagram| datagram.bytes.len() == COOKIE_REPLY_LEN));
    assert_eq!(b.device.sizes(), (0, 0, 0), "no state is kept for an unverified address");
}

#[test]
fn a_cookie_is_valid_for_its_owner_only() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    b.receive(a.address, &initiation, true, START);
    let cookie = b.sent.remove(0).bytes;
    let endpoint = a.peer(&b.public_key).expect("a peer").endpoint;
    a.receive(attacker(), &cookie, false, START);
    assert_eq!(a.device.counters().cookies_received, 1);
    assert_eq!(a.peer(&b.public_key).expect("a peer").endpoint, endpoint, "no roaming");
    assert!(a.sent.is_empty(), "only the next attempt uses the cookie");
    let later = START + Millis::from_secs(6);
    a.run(later);
    let second = a.sent.remove(0).bytes;
    assert_ne!(second[INITIATION_LEN - 16..], [0; 16]);
    b.receive(attacker(), &second, true, later);
    assert_eq!(b.sent.remove(0).bytes.len(), COOKIE_REPLY_LEN, "mac2 is for another address");
    let mut wrong = second.clone();
    wrong[INITIATION_LEN - 1] ^= 1;
    b.receive(a.address, &wrong, true, later);
    assert_eq!(b.sent.remove(0).bytes.len(), COOKIE_REPLY_LEN, "mac2 is wrong");
    b.receive(a.address, &second, true, later);
    assert_eq!(b.sent.remove(0).bytes.len(), RESPONSE_LEN);
    // Replays from the same source cost one Diffie-Hellman each, up to its rate limit.
    for _ in 0..10 {
        b.receive(a.address, &second, true, later);
    }
    let counters = b.device.counters();
    assert_eq!((counters.messages_tried, counters.drop_rate_limited), (5, 6));
}

/// A response to `initiation` with a valid mac1 that is not authentic.
fn forged_response(response: &[u8], to: &Node) -> Vec<u8> {
    let mut forged = response.to_vec();
    forged[12] ^= 1;
    CookieSigner::new(&to.public_key).sign(&mut forged, START);
    forged
}

fn standing(node: &Node, from: SocketAddr, response: &[u8]) -> Standing {
    node.device.standing(&HandshakeMessage {
        bytes: response.iter().copied().collect(),
        from: Endpoint { remote: from, source: None },
    })
}

#[test]
fn a_response_under_load_needs_no_cookie_within_the_budget() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let response = deliver(&mut b, a.address, &initiation, START).remove(0);
    let forged = forged_response(&response, &a);
    for _ in 0..3 {
        a.receive(attacker(), &forged, true, START);
    }
    assert!(a.sent.is_empty());
    assert_eq!(standing(&a, b.address, &response), Standing::Expected);
    a.receive(b.address, &response, true, START);
    assert_eq!(a.device.counters().sessions_initiated, 1);
    assert_eq!(standing(&a, b.address, &response), Standing::Unexpected);
}

#[test]
fn a_response_beyond_the_budget_needs_a_cookie_under_load() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let response = deliver(&mut b, a.address, &initiation, START).remove(0);
    let forged = forged_response(&response, &a);
    for _ in 0..4 {
        a.receive(attacker(), &forged, false, START);
    }
    let doubtful = |is_from_endpoint| Standing::Doubtful { is_from_endpoint };
    assert_eq!(standing(&a, b.address, &response), doubtful(true));
    assert_eq!(standing(&a, attacker(), &response), doubtful(false));
    let tried = a.device.counters().messages_tried;
    a.receive(b.address, &response, true, START);
    assert_eq!(a.device.counters().messages_tried, tried, "no Diffie-Hellman");
    let cookie = a.sent.remove(0).bytes;
    assert_eq!(cookie.len(), COOKIE_REPLY_LEN);
    b.receive(a.address, &cookie, false, START);
    assert_eq!(b.device.counters().cookies_received, 1, "the responder gets a cookie reply");
    // The next initiation has an index of its own, and the budget with it.
    let later = START + Millis::from_secs(6);
    a.run(later);
    let again = a.sent.remove(0).bytes;
    let response = deliver(&mut b, a.address, &again, later).remove(0);
    assert_eq!(standing(&a, b.address, &response), Standing::Expected);
    let forged = forged_response(&response, &a);
    for _ in 0..4 {
        a.receive(attacker(), &forged, false, later);
    }
    a.receive(b.address, &response, true, later);
    assert_eq!(a.device.counters().sessions_initiated, 1, "this response has a mac2");
}

#[test]
fn forged_responses_leave_the_handshake_waiting() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let response = deliver(&mut b, a.address, &initiation, START).remove(0);
    let forged = forged_response(&response, &a);
    for _ in 0..100 {
        a.receive(b.address, &forged, false, START);
    }
    assert_eq!(deliver(&mut a, b.address, &response, START).len(), 1);
    assert_eq!(a.device.counters().sessions_initiated, 1);
}

#[test]
fn authentic_messages_from_elsewhere_move_the_endpoint() {
    let (mut a, mut b) = pair();
    let initiation = begin_handshake(&mut a, START);
    let moved = SocketAddr::from(([198, 51, 100, 1], 5));
    let response = deliver(&mut b, moved, &initiation, START).remove(0);
    assert_eq!(b.peer(&a.public_key).expect("a peer").endpoint, Some(moved));
    let moved = SocketAddr::from(([198, 51, 100, 2], 5));
    deliver(&mut a, moved, &response, START);
    assert_eq!(a.peer(&b.public_key).expect("a peer").endpoint, Some(moved));
}
