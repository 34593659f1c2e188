//! Two nodes that are peers of each other.

use std::net::SocketAddr;

use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use crate::node::{Node, allowed_ip, peer_change, secret};

/// The time at which tests start.
pub const START: Millis = Millis(1_000_000);

/// Two configured nodes; inside the tunnel the first is 10.0.0.1, the second 10.0.0.2.
pub fn pair() -> (Node, Node) {
    seeded_pair(1)
}

/// As [`pair`], with random numbers from `seed` and the one that follows it.
pub fn seeded_pair(seed: u64) -> (Node, Node) {
    let (mut a, mut b) = (Node::new([1; 32], 2, seed), Node::new([2; 32], 2, seed + 1));
    a.address = SocketAddr::from(([192, 0, 2, 1], 1));
    b.address = SocketAddr::from(([192, 0, 2, 2], 2));
    join(&mut a, &b, "10.0.0.2/32");
    join(&mut b, &a, "10.0.0.1/32");
    (a, b)
}

/// Makes `other` a peer of `node` and brings the link up.
pub fn join(node: &mut Node, other: &Node, prefix: &str) {
    let mut change = peer_change(other.public_key);
    change.endpoint = Some(other.address);
    change.allowed_ips = vec![allowed_ip(prefix)];
    let key = Change::PrivateKey(Some(secret(node.private_key)));
    node.set(START, vec![key, Change::Peer(change)]);
    node.link(true, START);
}

/// Exchanges datagrams between two nodes until neither has one left.
pub fn exchange(a: &mut Node, b: &mut Node, now: Millis) {
    loop {
        a.run(now);
        b.run(now);
        let (from_a, from_b) = (std::mem::take(&mut a.sent), std::mem::take(&mut b.sent));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for datagram in from_a {
            b.receive(a.address, &datagram.bytes, false, now);
        }
        for datagram in from_b {
            a.receive(b.address, &datagram.bytes, false, now);
        }
    }
}
