//! Handshakes, cookies and transport data against another implementation, boringtun.

#[path = "simulation/node.rs"]
mod node;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use wg_bounce_dataplane::wire::{COOKIE_REPLY_LEN, DATA_OVERHEAD, INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::Change;

use node::{Node, allowed_ip, peer_change, secret};

const START: Millis = Millis(1_000_000);
const OURS: [u8; 32] = [0x11; 32];
const THEIRS: [u8; 32] = [0x22; 32];
const PSK: [u8; 32] = [0x33; 32];

struct Pair {
    node: Node,
    tunn: Tunn,
    theirs: SocketAddr,
    /// Packets that boringtun has decrypted.
    arrived: Vec<Vec<u8>>,
}

impl Pair {
    /// `load`: the number of messages that boringtun accepts before it demands cookies.
    fn new(our_psk: Option<[u8; 32]>, their_psk: Option<[u8; 32]>, load: Option<u64>) -> Pair {
        let their_secret = x25519::StaticSecret::from(THEIRS);
        let their_public = x25519::PublicKey::from(&their_secret);
        let our_public = x25519::PublicKey::from(node::public_key(&OURS));
        let limiter = load.map(|limit| Arc::new(RateLimiter::new(&their_public, limit)));
        let tunn = Tunn::new(their_secret, our_public, their_psk, None, 7, limiter);
        let mut node = Node::new(OURS, 3, 1);
        let theirs = SocketAddr::from(([192, 0, 2, 2], 2));
        let mut change = peer_change(*their_public.as_bytes());
        change.endpoint = Some(theirs);
        change.preshared_key = our_psk.map(secret);
        change.allowed_ips = vec![allowed_ip("10.0.0.2/32")];
        let key = Change::PrivateKey(Some(secret(OURS)));
        node.set(START, vec![key, Change::Peer(change)]);
        node.link(true, START);
        Pair { node, tunn, theirs, arrived: Vec::new() }
    }

    fn we_send(&mut self, packet: &[u8], now: Millis) {
        self.node.send("10.0.0.2".parse().expect("an address"), packet, now);
        self.node.run(now);
    }

    /// A packet for us as encrypted by boringtun.
    fn they_send(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        match self.tunn.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            _ => panic!("a datagram"),
        }
    }

    fn they_initiate(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        match self.tunn.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            _ => panic!("an initiation"),
        }
    }

    fn we_receive(&mut self, datagram: &[u8], now: Millis) {
        self.node.receive(self.theirs, datagram, false, now);
        self.node.run(now);
    }

    /// Passes one datagram to boringtun; returns its replies.
    fn they_receive(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let from = Some(IpAddr::from([192, 0, 2, 1]));
        let mut replies = Vec::new();
        let mut buffer = vec![0; 2048];
        let mut input = datagram;
        loop {
            match self.tunn.decapsulate(from, input, &mut buffer) {
                TunnResult::WriteToNetwork(reply) => replies.push(reply.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) => {
                    self.arrived.push(packet.to_vec());
                    return replies;
                }
                _ => return replies,
            }
            input = &[];
        }
    }

    /// Exchanges datagrams until neither side has one left.
    fn exchange(&mut self, now: Millis) {
        loop {
            self.node.run(now);
            let sent = std::mem::take(&mut self.node.sent);
            if sent.is_empty() {
                return;
            }
            for datagram in sent {
                for reply in self.they_receive(&datagram.bytes) {
                    self.we_receive(&reply, now);
                }
            }
        }
    }

    fn both_talk(&mut self, now: Millis) {
        self.arrived.clear();
        self.node.received.clear();
        for number in 0..5 {
            self.we_send(&packet(number), now);
            self.exchange(now);
            let datagram = self.they_send(&packet(100 + number));
            self.we_receive(&datagram, now);
            self.exchange(now);
        }
        let ours: Vec<_> = self.node.received.iter().map(|packet| packet.payload.clone()).collect();
        assert_eq!(self.arrived, (0..5).map(packet).collect::<Vec<_>>());
        assert_eq!(ours, (100..105).map(packet).collect::<Vec<_>>());
    }
}

/// An IPv4 packet with a recognisable number.
fn packet(number: u8) -> Vec<u8> {
    let mut packet = vec![number; 32];
    packet[..4].copy_from_slice(&[0x45, 0, 0, 32]);
    packet
}

#[test]
fn we_initiate() {
    for psk in [None, Some(PSK)] {
        let mut pair = Pair::new(psk, psk, None);
        pair.we_send(&packet(1), START);
        assert_eq!(pair.node.sent[0].bytes.len(), INITIATION_LEN);
        pair.exchange(START);
        assert_eq!(pair.arrived, [packet(1)], "the staged packet confirms the session");
        pair.both_talk(START);
        assert_eq!(pair.node.device.counters().sessions_initiated, 1);
    }
}

#[test]
fn they_initiate() {
    for psk in [None, Some(PSK)] {
        let mut pair = Pair::new(psk, psk, None);
        let initiation = pair.they_send(&packet(1));
        assert_eq!(initiation.len(), INITIATION_LEN);
        pair.we_receive(&initiation, START);
        assert_eq!(pair.node.sent[0].bytes.len(), RESPONSE_LEN);
        pair.exchange(START);
        assert_eq!(pair.node.received[0].payload, packet(1));
        pair.both_talk(START);
        assert_eq!(pair.node.device.counters().sessions_confirmed, 1);
    }
}

#[test]
fn different_preshared_keys_fail() {
    let mut pair = Pair::new(Some(PSK), None, None);
    pair.we_send(&packet(1), START);
    pair.exchange(START);
    assert!(pair.arrived.is_empty());
    assert_eq!(pair.node.device.counters().drop_not_authentic, 1);
    let initiation = pair.they_initiate();
    pair.we_receive(&initiation, START + Millis::from_secs(1));
    pair.exchange(START + Millis::from_secs(1));
    assert_eq!(pair.node.device.counters().sessions_confirmed, 0);
}

#[test]
fn a_changed_preshared_key_applies_from_the_next_handshake() {
    let mut pair = Pair::new(None, None, None);
    pair.we_send(&packet(1), START);
    pair.exchange(START);
    let mut change = peer_change(node::public_key(&THEIRS));
    change.preshared_key = Some(secret(PSK));
    pair.node.set(START, vec![Change::Peer(change)]);
    pair.both_talk(START);
    let initiation = pair.they_initiate();
    pair.we_receive(&initiation, START + Millis::from_secs(1));
    pair.exchange(START + Millis::from_secs(1));
    assert_eq!(pair.node.device.counters().sessions_confirmed, 0);
}

#[test]
fn we_use_their_cookie() {
    let mut pair = Pair::new(None, None, Some(0));
    pair.we_send(&packet(1), START);
    let initiation = pair.node.sent.remove(0).bytes;
    assert_eq!(initiation[INITIATION_LEN - 16..], [0; 16], "no cookie, no mac2");
    let replies = pair.they_receive(&initiation);
    assert_eq!(replies[0].len(), COOKIE_REPLY_LEN);
    pair.we_receive(&replies[0], START);
    assert_eq!(pair.node.device.counters().cookies_received, 1);
    let retry = START + Millis::from_secs(6);
    pair.node.run(retry);
    pair.exchange(retry);
    assert_eq!(pair.arrived, [packet(1)]);
}

#[test]
fn they_use_our_cookie() {
    let mut pair = Pair::new(None, None, None);
    let first = pair.they_send(&packet(1));
    pair.node.receive(pair.theirs, &first, true, START);
    let reply = pair.node.sent.remove(0).bytes;
    assert_eq!(reply.len(), COOKIE_REPLY_LEN);
    assert!(pair.they_receive(&reply).is_empty());
    let second = pair.they_initiate();
    pair.node.receive(pair.theirs, &second, true, START);
    assert_eq!(pair.node.sent[0].bytes.len(), RESPONSE_LEN, "mac2 proves the address");
    pair.exchange(START);
    assert_eq!(pair.node.received[0].payload, packet(1));
    let elsewhere = pair.they_initiate();
    let other = SocketAddr::from(([192, 0, 2, 2], 3));
    pair.node.receive(other, &elsewhere, true, START + Millis::from_secs(1));
    assert_eq!(pair.node.sent[0].bytes.len(), COOKIE_REPLY_LEN, "the cookie is bound to the port");
}

#[test]
fn rekeying_from_either_side_loses_nothing() {
    let mut pair = Pair::new(Some(PSK), Some(PSK), None);
    pair.we_send(&packet(1), START);
    pair.exchange(START);
    let mut now = START;
    for round in 0..4 {
        now = now + Millis::from_secs(121);
        // One packet leaves with the old keys and arrives after the rekey.
        let late = pair.they_send(&packet(200));
        // A responder does not rekey by age, so we initiate first.
        if round < 2 {
            pair.we_send(&packet(2), now);
        } else {
            let initiation = pair.they_initiate();
            pair.we_receive(&initiation, now);
        }
        pair.exchange(now);
        pair.node.received.clear();
        pair.we_receive(&late, now);
        assert_eq!(pair.node.received[0].payload, packet(200), "round {round}");
        pair.both_talk(now);
    }
    let counters = pair.node.device.counters();
    assert_eq!((counters.sessions_initiated, counters.sessions_confirmed), (3, 2));
}

#[test]
fn replayed_data_is_dropped_on_both_sides() {
    let mut pair = Pair::new(None, None, None);
    pair.we_send(&packet(1), START);
    pair.exchange(START);
    pair.we_send(&packet(2), START);
    let ours = pair.node.sent.remove(0).bytes;
    assert_eq!(ours.len(), DATA_OVERHEAD + 32);
    pair.they_receive(&ours);
    pair.they_receive(&ours);
    assert_eq!(pair.arrived, [packet(1), packet(2)]);
    let theirs = pair.they_send(&packet(3));
    pair.we_receive(&theirs, START);
    pair.we_receive(&theirs, START);
    assert_eq!(pair.node.received.len(), 1);
}
