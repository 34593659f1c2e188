//! Wall clocks that jump: timestamps, and the lines of the log about them.

use std::time::Duration;

use wg_bounce_control::device::LogEvent;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use crate::node::{Node, peer_change};
use crate::pair::{START, exchange, join, pair};

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Millis {
    START + Millis::from_secs(seconds)
}

/// Ends the sessions of `a` and sends a packet to b; returns whether it arrived.
fn reconnects(a: &mut Node, b: &mut Node, now: Millis) -> bool {
    a.link(false, now);
    a.link(true, now);
    b.received.clear();
    a.send("10.0.0.2".parse().expect("an address"), b"data", now);
    exchange(a, b, now);
    !b.received.is_empty()
}

fn removed(node: &mut Node, other: &Node, now: Millis) {
    let mut change = peer_change(other.public_key);
    change.remove = true;
    node.set(now, vec![Change::Peer(change)]);
}

#[test]
fn a_jump_of_the_clock_concerns_only_the_peers_met_meanwhile() {
    let (mut a, mut b) = pair();
    let mut c = Node::new([3; 32], 1, 3);
    c.address = ([192, 0, 2, 3], 3).into();
    join(&mut a, &c, "10.0.0.3/32");
    join(&mut c, &a, "10.0.0.1/32");
    a.wall += 1000 * HOUR;
    a.send("10.0.0.3".parse().expect("an address"), b"data", START);
    exchange(&mut a, &mut c, START);
    assert_eq!(c.received.len(), 1);
    a.wall -= 1000 * HOUR;
    assert!(reconnects(&mut a, &mut b, at(10)));
    assert!(a.logged.is_empty(), "b was sent no timestamp from the future");
    // A restart forgets everything but the clock.
    let mut restarted = Node::new(a.private_key, 2, 9);
    restarted.address = a.address;
    join(&mut restarted, &b, "10.0.0.2/32");
    assert!(reconnects(&mut restarted, &mut b, at(20)), "b has seen no later timestamp");
}

#[test]
fn a_removed_peer_gets_no_earlier_timestamp_when_it_is_added_again() {
    let (mut a, mut b) = pair();
    a.wall += HOUR;
    assert!(reconnects(&mut a, &mut b, START));
    a.wall -= HOUR;
    removed(&mut a, &b, at(10));
    join(&mut a, &b, "10.0.0.2/32");
    assert!(reconnects(&mut a, &mut b, at(10)));
    assert!(matches!(&a.logged[..], [LogEvent::ClockBehind { behind, .. }]
        if (HOUR - Duration::from_secs(15)..HOUR).contains(behind)));
    assert!(reconnects(&mut a, &mut b, at(20)));
    assert_eq!(a.logged.len(), 1, "one line an hour");
    // Ends what b would begin by itself.
    b.link(false, at(3700));
    b.link(true, at(3700));
    assert!(reconnects(&mut a, &mut b, at(3700)));
    assert_eq!(a.logged.len(), 1, "the clock has caught up");
}

#[test]
fn a_clock_that_steps_both_ways_costs_no_handshake() {
    let (mut a, mut b) = pair();
    let start = a.wall;
    for (number, hours) in [9, 8, 11, 9, 7, 10, 0].into_iter().enumerate() {
        a.wall = start - 9 * HOUR + hours * HOUR;
        assert!(reconnects(&mut a, &mut b, at(10 * number as u64 + 10)), "after step {number}");
    }
    assert_eq!(b.device.counters().drop_replayed, 0);
}

#[test]
fn a_peer_whose_clock_was_set_back_is_logged_once_an_hour() {
    let (a, mut b) = pair();
    let fresh = |wall: Duration, b: &Node| {
        let mut fresh = Node::new(a.private_key, 2, wall.as_secs());
        fresh.address = a.address;
        fresh.wall = wall;
        join(&mut fresh, b, "10.0.0.2/32");
        fresh
    };
    let wall = a.wall;
    assert!(reconnects(&mut fresh(wall, &b), &mut b, START));
    let mut back = fresh(wall - 10 * HOUR, &b);
    for seconds in [10, 20, 3000] {
        assert!(!reconnects(&mut back, &mut b, at(seconds)));
    }
    assert!(matches!(&b.logged[..], [LogEvent::StaleTimestamp { peer, behind, .. }]
        if peer.public_key == a.public_key && *behind > 9 * HOUR));
    assert!(!reconnects(&mut back, &mut b, at(3700)));
    assert_eq!(b.logged.len(), 2);
}

#[test]
fn a_duplicate_of_an_initiation_is_not_logged() {
    let (mut a, mut b) = pair();
    a.send("10.0.0.2".parse().expect("an address"), b"data", START);
    a.run(START);
    let initiation = a.sent.remove(0);
    for _ in 0..2 {
        b.receive(a.address, &initiation.bytes, false, START);
    }
    assert_eq!(b.device.counters().drop_replayed, 1);
    assert!(b.logged.is_empty());
}
