//! The effects of a UAPI `set`.

use std::net::SocketAddr;

use wg_bounce_control::device::{LogEvent, Reachable};
use wg_bounce_control::limits::BEGUN_PER_MILLI;
use wg_bounce_dataplane::wire::{DATA_OVERHEAD, INITIATION_LEN};
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{AllowedIp, Change, PeerChange};

use crate::node::{Node, allowed_ip, peer_change, public_key, secret};
use crate::pair::{START, exchange, pair};

fn connected() -> (Node, Node) {
    let (mut a, mut b) = pair();
    talk(&mut a, &mut b, START);
    (a, b)
}

fn talk(a: &mut Node, b: &mut Node, now: Millis) {
    b.received.clear();
    a.send("10.0.0.2".parse().expect("an address"), b"data", now);
    exchange(a, b, now);
    assert_eq!(b.received.len(), 1);
}

fn prefixes(node: &Node, key: &[u8; 32]) -> Vec<String> {
    let peer = node.peer(key).expect("a peer");
    peer.allowed_ips.iter().map(ToString::to_string).collect()
}

fn owner(node: &Node, address: &str) -> Option<[u8; 32]> {
    let address = address.parse().expect("an address");
    node.routes.lookup(address).map(|peer| peer.public_key)
}

fn with_ips(key: [u8; 32], prefixes: &[&str]) -> PeerChange {
    let mut change = peer_change(key);
    change.allowed_ips = prefixes.iter().map(|prefix| allowed_ip(prefix)).collect();
    change
}

fn expect_connected(a: &mut Node, b: &mut Node, handshakes: u64) {
    talk(a, b, START + Millis(100));
    assert_eq!(a.device.counters().initiations_sent, handshakes);
}

#[test]
fn an_edit_keeps_the_session_and_counters() {
    let (mut a, mut b) = connected();
    let before = a.peer(&b.public_key).expect("a peer");
    let mut change = with_ips(b.public_key, &["10.0.0.2/32", "10.9.0.0/16"]);
    change.replace_allowed_ips = true;
    change.update_only = true;
    change.preshared_key = Some(secret([0; 32]));
    change.endpoint = Some(b.address);
    a.set(START, vec![Change::PrivateKey(Some(secret([1; 32]))), Change::Peer(change)]);
    let after = a.peer(&b.public_key).expect("a peer");
    assert_eq!((after.tx_bytes, after.last_handshake), (before.tx_bytes, before.last_handshake));
    expect_connected(&mut a, &mut b, 1);
}

#[test]
fn an_endpoint_change_keeps_the_session() {
    let (mut a, mut b) = connected();
    b.address = SocketAddr::from(([192, 0, 2, 77], 7));
    let mut change = peer_change(b.public_key);
    change.endpoint = Some(b.address);
    a.set(START, vec![Change::Peer(change)]);
    a.send("10.0.0.2".parse().expect("an address"), b"data", START);
    assert_eq!(a.sent.remove(0).to, b.address);
    expect_connected(&mut a, &mut b, 1);
}

#[test]
fn replace_peers_keeps_peers_that_are_set_again() {
    let (mut a, mut b) = connected();
    let other = public_key(&[3; 32]);
    let mut change = peer_change(b.public_key);
    change.preshared_key = Some(secret([5; 32]));
    change.persistent_keepalive = Some(30);
    let both = vec![Change::Peer(change), Change::Peer(with_ips(other, &["10.0.0.3/32"]))];
    a.set(START, both);
    exchange(&mut a, &mut b, START);
    let before = a.peer(&b.public_key).expect("a peer");
    let again = vec![
        Change::ReplacePeers,
        Change::Peer(with_ips(b.public_key, &["10.0.0.2/32", "10.0.0.3/32"])),
    ];
    a.set(START, again);
    assert_eq!(a.device.peers_len(), 1);
    let after = a.peer(&b.public_key).expect("a peer");
    assert_eq!(*after.preshared_key, [0; 32], "settings start from their defaults");
    assert_eq!(after.persistent_keepalive, 0);
    assert_eq!((after.endpoint, after.tx_bytes), (before.endpoint, before.tx_bytes));
    assert_eq!(owner(&a, "10.0.0.3"), Some(b.public_key));
    expect_connected(&mut a, &mut b, 1);
}

#[test]
fn replace_peers_removes_other_peers_and_update_only_adds_none() {
    let (mut a, b) = connected();
    let mut change = peer_change(b.public_key);
    change.update_only = true;
    a.set(START, vec![Change::ReplacePeers, Change::Peer(change)]);
    assert_eq!((a.device.peers_len(), a.held()), (0, (0, 0)));
    assert_eq!(owner(&a, "10.0.0.2"), None);
    a.run(START + Millis::from_secs(1));
    assert_eq!(a.device.next_deadline(), None);
}

#[test]
fn a_removed_peer_leaves_nothing_behind() {
    let (mut a, b) = pair();
    a.send("10.0.0.2".parse().expect("an address"), b"data", START);
    a.run(START);
    assert_eq!(a.held(), (1, 1));
    let mut change = peer_change(b.public_key);
    change.remove = true;
    a.set(START, vec![Change::Peer(change)]);
    assert_eq!((a.held(), a.discarded, a.device.sizes()), ((0, 0), 1, (0, 0, 0)));
    assert!(a.peer(&b.public_key).is_none() && owner(&a, "10.0.0.2").is_none());
}

#[test]
fn a_packet_staged_while_its_peer_is_removed_is_dropped_later() {
    let (mut a, b) = pair();
    let address = "10.0.0.2".parse().expect("an address");
    let routes = a.routes.clone();
    let mut change = peer_change(b.public_key);
    change.remove = true;
    a.set(START, vec![Change::Peer(change)]);
    // A worker whose turn began before the new snapshot still has the old routes.
    a.routes = routes;
    a.send(address, b"data", START);
    assert_eq!(a.held(), (0, 1));
    a.run(START + Millis::from_secs(1));
    assert_eq!((a.held(), a.discarded), ((0, 0), 1));
}

#[test]
fn our_own_key_is_not_added_as_a_peer() {
    let (mut a, _) = pair();
    a.set(START, vec![Change::Peer(with_ips(a.public_key, &["10.0.0.2/32"]))]);
    assert_eq!(a.device.peers_len(), 1);
    assert_ne!(owner(&a, "10.0.0.2"), Some(a.public_key));
}

#[test]
fn a_private_key_removes_the_peer_with_its_public_key_and_ends_sessions() {
    let (mut a, mut b) = connected();
    let future = public_key(&[9; 32]);
    a.set(START, vec![Change::Peer(with_ips(future, &["10.0.0.9/32"]))]);
    a.set(START, vec![Change::PrivateKey(Some(secret([9; 32])))]);
    assert!(a.peer(&future).is_none() && owner(&a, "10.0.0.9").is_none());
    assert_eq!(a.held(), (0, 0), "sessions of the old key are removed");
    b.set(START, vec![Change::Peer(PeerChange { remove: true, ..peer_change(a.public_key) })]);
    let mut change = with_ips(future, &["10.0.0.1/32"]);
    change.endpoint = Some(a.address);
    b.set(START, vec![Change::Peer(change)]);
    expect_connected(&mut a, &mut b, 2);
}

#[test]
fn nothing_is_sent_without_a_private_key() {
    let (mut a, mut b) = connected();
    a.set(START, vec![Change::PrivateKey(None)]);
    assert_eq!((a.held(), a.device.next_deadline()), ((0, 0), None));
    assert!(a.device.private_key().is_none() && a.device.mac1_key().is_none());
    a.send("10.0.0.2".parse().expect("an address"), b"data", START);
    b.link(false, START);
    b.link(true, START);
    b.send("10.0.0.1".parse().expect("an address"), b"data", START);
    b.run(START);
    let initiation = b.sent.remove(0).bytes;
    a.receive(b.address, &initiation, false, START);
    assert!(a.sent.is_empty());
}

#[test]
fn allowed_ips_move_and_are_removed() {
    let (mut a, b) = pair();
    let other = public_key(&[3; 32]);
    a.set(START, vec![Change::Peer(with_ips(other, &["10.0.0.2/32", "10.1.2.3/8", "::1/128"]))]);
    assert_eq!(prefixes(&a, &other), ["10.0.0.2/32", "10.0.0.0/8", "::1/128"], "in order, masked");
    assert!(prefixes(&a, &b.public_key).is_empty());
    assert_eq!(owner(&a, "10.0.0.2"), Some(other));
    let minus = AllowedIp { remove: true, ..allowed_ip("10.0.0.2/32") };
    let mut foreign = peer_change(b.public_key);
    foreign.allowed_ips = vec![minus];
    a.set(START, vec![Change::Peer(foreign)]);
    assert_eq!(owner(&a, "10.0.0.2"), Some(other), "only its owner can lose a prefix");
    let mut change = peer_change(other);
    change.allowed_ips = vec![minus];
    a.set(START, vec![Change::Peer(change)]);
    assert_eq!(prefixes(&a, &other), ["10.0.0.0/8", "::1/128"]);
    let mut change = with_ips(other, &["10.0.0.0/8"]);
    change.replace_allowed_ips = true;
    let published = a.published;
    a.set(START, vec![Change::Peer(change)]);
    assert_eq!((prefixes(&a, &other), a.published), (vec!["10.0.0.0/8".into()], published + 1));
    a.set(START, vec![Change::Peer(with_ips(other, &["10.0.0.0/8"]))]);
    assert_eq!(a.published, published + 1, "an empty change is not published");
}

#[test]
fn a_moved_prefix_keeps_the_session() {
    let (mut a, mut b) = connected();
    a.set(START, vec![Change::Peer(with_ips(public_key(&[3; 32]), &["10.0.0.2/32"]))]);
    a.set(START, vec![Change::Peer(with_ips(b.public_key, &["10.0.0.2/32"]))]);
    expect_connected(&mut a, &mut b, 1);
}

#[test]
fn updating_or_removing_an_unknown_peer_does_not_add_it() {
    let (mut a, _) = pair();
    let key = public_key(&[3; 32]);
    let update = PeerChange { update_only: true, ..with_ips(key, &["10.0.0.2/32"]) };
    let remove = PeerChange { remove: true, ..peer_change(key) };
    a.set(START, vec![Change::Peer(update), Change::Peer(remove)]);
    assert_eq!(a.device.peers_len(), 1);
    assert_ne!(owner(&a, "10.0.0.2"), Some(key));
}

#[test]
fn turning_keepalives_on_sends_one_at_once_and_only_then() {
    let (mut a, mut b) = connected();
    for (seconds, sent) in [(25, 1), (30, 0), (0, 0), (7, 1)] {
        let mut change = peer_change(b.public_key);
        change.persistent_keepalive = Some(seconds);
        a.set(START, vec![Change::Peer(change)]);
        a.run(START);
        let lengths: Vec<usize> = a.sent.iter().map(|datagram| datagram.bytes.len()).collect();
        assert_eq!(lengths, vec![DATA_OVERHEAD; sent], "interval {seconds}");
        exchange(&mut a, &mut b, START);
    }
}

#[test]
fn peers_are_spread_over_workers_and_stay() {
    let mut hub = Node::new([1; 32], 3, 1);
    hub.set(START, vec![Change::PrivateKey(Some(secret([1; 32])))]);
    hub.link(true, START);
    for number in 0..30u8 {
        let mut change = with_ips(public_key(&[100 + number; 32]), &[]);
        change.endpoint = Some(SocketAddr::from(([192, 0, 2, number], 1)));
        change.persistent_keepalive = Some(60);
        hub.set(START, vec![Change::Peer(change)]);
    }
    hub.run(START);
    let workers = |hub: &Node| -> Vec<u8> {
        assert!(hub.sent.iter().all(|datagram| datagram.bytes.len() == INITIATION_LEN));
        hub.sent.iter().map(|datagram| datagram.bytes[4]).collect()
    };
    let mut first: Vec<u8> = workers(&hub);
    assert_eq!(first, (0..30).map(|number| number % 3).collect::<Vec<u8>>());
    hub.sent.clear();
    hub.run(START + Millis::from_secs(6));
    let mut second = workers(&hub);
    first.sort_unstable();
    second.sort_unstable();
    assert_eq!(first, second);
}

#[test]
fn many_idle_peers_need_no_timers() {
    let mut hub = Node::new([1; 32], 2, 1);
    let changes = (0..20_000u32).map(|number| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
        let mut change = with_ips(key, &[&format!("{address}/32")]);
        change.endpoint = Some(SocketAddr::from((address, 1)));
        Change::Peer(change)
    });
    let key = Change::PrivateKey(Some(secret([1; 32])));
    hub.set(START, changes.chain([key]).collect());
    hub.link(true, START);
    assert_eq!((hub.device.peers_len(), hub.device.next_deadline()), (20_000, None));
    hub.set(START, vec![Change::ReplacePeers]);
    assert_eq!(hub.device.peers_len(), 0);
}

#[test]
fn every_peer_is_prepared_once_for_its_first_handshake() {
    let mut hub = Node::new([1; 32], 2, 1);
    let key = |number| public_key(&[number; 32]);
    hub.set(START, (10..20).map(|number| Change::Peer(peer_change(key(number)))).collect());
    assert!(!hub.device.prepare(100), "without a private key");
    let own = |number| Change::PrivateKey(Some(secret([number; 32])));
    hub.set(START, vec![own(1)]);
    let removed = PeerChange { remove: true, ..peer_change(key(10)) };
    hub.set(START, vec![Change::Peer(removed), Change::Peer(peer_change(key(30)))]);
    let calls = |hub: &mut Node| (0..100).take_while(|_| hub.device.prepare(3)).count();
    assert_eq!(calls(&mut hub), 3, "three calls for nine of the ten peers, and there is another");
    assert_eq!(calls(&mut hub), 0);
    hub.set(START, vec![own(2)]);
    assert_eq!(calls(&mut hub), 3, "again with another private key");
    // What was prepared is right.
    let (mut a, mut b) = pair();
    for node in [&mut a, &mut b] {
        assert!(!node.device.prepare(100));
    }
    talk(&mut a, &mut b, START);
}

/// Addresses that the hub has sent an initiation to.
fn initiated(hub: &Node) -> Vec<String> {
    let mut to: Vec<String> = hub.sent.iter().map(|datagram| datagram.to.to_string()).collect();
    assert!(hub.sent.iter().all(|datagram| datagram.bytes.len() == INITIATION_LEN));
    to.sort();
    to
}

/// A peer that had a session `age` ago, and its address.
fn remembered(number: u8, age: Millis) -> Reachable {
    let endpoint = SocketAddr::from(([192, 0, 2, number], 1));
    Reachable { public_key: public_key(&[number; 32]), endpoint, age }
}

#[test]
fn remembered_peers_are_asked_for_a_handshake() {
    let key = |number| public_key(&[number; 32]);
    let own = || vec![Change::PrivateKey(Some(secret([1; 32])))];
    let peers = || {
        let mut eleven = peer_change(key(11));
        eleven.endpoint = Some("192.0.2.99:2".parse().expect("an address and a port"));
        [peer_change(key(10)), eleven, peer_change(key(12))].map(Change::Peer).into()
    };
    let expected = ["192.0.2.10:1", "192.0.2.99:2"]; // the configuration wins
    // The interface may be set up before, and the private key may come last.
    for (is_up_first, is_key_first) in [(false, true), (true, true), (true, false)] {
        let mut hub = Node::new([1; 32], 2, 1);
        let known = [10, 11].map(|number| remembered(number, Millis::ZERO));
        hub.device.remember(known.into_iter(), START);
        let mut changes: Vec<Change> = if is_key_first { own() } else { peers() };
        changes.extend(if is_key_first { peers() } else { own() });
        if is_up_first {
            hub.link(true, START);
        }
        hub.set(START, changes);
        if !is_up_first {
            hub.link(true, START);
        }
        hub.run(START + Millis(10));
        assert_eq!(initiated(&hub), expected);
        // What is not back yet is not forgotten by the next state file.
        assert_eq!(hub.device.reachable(START + Millis::from_secs(1)).len(), 2);
        // Also after the link was down for a moment.
        hub.sent.clear();
        let later = START + Millis::from_secs(20);
        hub.link(false, later);
        hub.link(true, later);
        hub.run(later + Millis(10));
        assert_eq!(initiated(&hub), expected);
        // A peer that is removed and added again has no endpoint.
        hub.sent.clear();
        hub.set(later, vec![Change::ReplacePeers, Change::Peer(peer_change(key(12)))]);
        hub.set(later, vec![Change::Peer(peer_change(key(10)))]);
        hub.run(later + Millis(30));
        assert_eq!(initiated(&hub), [""; 0]);
    }
}

#[test]
fn what_is_remembered_expires() {
    let mut hub = Node::new([1; 32], 2, 1);
    let known =
        [(10, 0), (11, 100)].map(|(number, age)| remembered(number, Millis::from_secs(age)));
    hub.device.remember(known.into_iter(), START);
    let peers = [10, 11].map(|number| Change::Peer(peer_change(public_key(&[number; 32]))));
    let own = Change::PrivateKey(Some(secret([1; 32])));
    hub.set(START, std::iter::once(own).chain(peers).collect());
    let later = START + Millis::from_secs(81);
    hub.link(true, later);
    hub.run(later + Millis(10));
    assert_eq!(initiated(&hub), ["192.0.2.10:1"]);
    let ages: Vec<u64> = hub.device.reachable(later).iter().map(|peer| peer.age.0).collect();
    assert_eq!(ages, [81_000]);
    assert_eq!(hub.device.reachable(later + Millis::from_secs(100)), []);
}

#[test]
fn the_handshakes_of_a_change_are_spread() {
    let peers = || {
        (0..100).map(|number| {
            let mut change = peer_change(public_key(&[number + 10; 32]));
            change.endpoint = Some(SocketAddr::from(([192, 0, 2, number], 1)));
            change.persistent_keepalive = Some(25);
            Change::Peer(change)
        })
    };
    let own = |number| Change::PrivateKey(Some(secret([number; 32])));
    let is_spread = |hub: &mut Node, start: Millis, what: &str| {
        for millis in [0, 1, 10, 49, 100] {
            hub.run(start + Millis(millis));
            let expected = (BEGUN_PER_MILLI * (millis + 1)).min(100);
            assert_eq!(initiated(hub).len(), expected as usize, "{what}: after {millis} ms");
        }
        hub.sent.clear();
    };
    let mut hub = Node::new([1; 32], 2, 1);
    hub.set(START, std::iter::once(own(1)).chain(peers()).collect());
    // Longer than the interval of keepalives.
    let later = START + Millis::from_secs(60);
    hub.link(true, later);
    is_spread(&mut hub, later, "the link comes up");
    let later = later + Millis::from_secs(60);
    hub.link(false, later);
    hub.link(true, later);
    is_spread(&mut hub, later, "the link was down");
    let later = later + Millis::from_secs(60);
    hub.set(later, vec![own(2)]);
    is_spread(&mut hub, later, "another private key");
    let mut hub = Node::new([1; 32], 2, 1);
    hub.link(true, START);
    hub.set(START, peers().chain([own(1)]).collect());
    is_spread(&mut hub, START, "the interface is up before");
}

#[test]
fn a_prefix_that_moves_to_another_peer_is_logged() {
    let (mut a, b) = connected();
    let other = public_key(&[3; 32]);
    let prefixes: Vec<String> = (0..20).map(|third| format!("10.1.{third}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    a.set(START, vec![Change::Peer(with_ips(b.public_key, &prefixes))]);
    a.set(START, vec![Change::Peer(with_ips(b.public_key, &prefixes))]);
    assert!(a.logged.is_empty());
    a.set(START, vec![Change::Peer(with_ips(other, &["10.0.0.2/32"]))]);
    let [LogEvent::PrefixMoved { prefix, from, to }] = &a.logged[..] else {
        panic!("not one line");
    };
    assert_eq!(prefix.to_string(), "10.0.0.2/32");
    assert_eq!((from.public_key, to.public_key), (b.public_key, other));
    // A file that lists a prefix for two peers: the last one gets it.
    a.logged.clear();
    let file = vec![
        Change::ReplacePeers,
        Change::Peer(with_ips(b.public_key, &prefixes)),
        Change::Peer(with_ips(other, &prefixes)),
    ];
    a.set(START, file);
    assert_eq!(a.logged.len(), 9, "eight prefixes and the number of the others");
    assert!(matches!(a.logged[8], LogEvent::MorePrefixesMoved(12)));
    // The former owner is removed in the same `set`.
    a.logged.clear();
    a.set(START, vec![Change::ReplacePeers, Change::Peer(with_ips(b.public_key, &prefixes))]);
    assert!(a.logged.is_empty());
}
