//! Changes by `wg set` while other threads compute responses that they make stale.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::duration;
use crate::harness::{
    Backend, Daemon, Draft, FakePeer, KeyPair, Lab, Program, forwarded, now, trim,
};

/// Peers that send initiations all the time.
const PEERS: usize = 100;

/// UDP port of the first peer.
const PORT: u16 = 10_000;

fn inner(peer: usize) -> String {
    format!("10.80.0.{}", peer + 1)
}

/// The configuration of a hub with this key and these peers, each with the line `more`.
fn config(key: &KeyPair, peers: &[FakePeer], more: &str) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", key.private());
    for peer in peers {
        let (key, inner) = (peer.key.public(), inner(usize::from(peer.endpoint().port() - PORT)));
        write!(text, "[Peer]\nPublicKey = {key}\nAllowedIPs = {inner}/32\n{more}")
            .expect("a string grows");
    }
    text
}

/// The private key, peers and preshared keys change all the time; in the end, every peer gets a
/// session, and packets pass between all.
fn edits_in_a_storm(backend: Backend) {
    let lab = Lab::new();
    let (namespace, outside) = (lab.namespace("hub"), lab.namespace("outside"));
    lab.link((&namespace, "outside"), (&outside, "out0"), 1500);
    namespace.run("ip address add 192.0.2.1/24 dev outside");
    namespace.sysctl("net.ipv4.ip_forward=1");
    outside.run("ip address add 192.0.2.2/24 dev out0");
    let environment = [
        ("LOG_LEVEL", "info"),
        ("WG_BOUNCE_HANDSHAKE_THREADS", "4"),
        ("WG_BOUNCE_RELAY", "direct"),
    ];
    let hub = Daemon::start_with(&lab, &namespace, "hub", Program::Ours(backend), &environment);
    let address = "192.0.2.1:51820".parse().expect("an address");
    let mut peers: Vec<FakePeer> = (0..PEERS as u16)
        .map(|peer| {
            let local = format!("192.0.2.2:{}", PORT + peer);
            FakePeer::new(&outside, &local, address, &hub.key)
        })
        .collect();
    let config = config(&hub.key, &peers, "");
    let edits = [
        self::config(&KeyPair::new(), &peers, ""),
        config.clone(),
        self::config(&hub.key, &peers[PEERS / 2..], ""),
        config.clone(),
        self::config(&hub.key, &peers, &format!("PresharedKey = {}\n", KeyPair::new().private())),
        config.clone(),
    ];
    hub.configure("setconf", &config);
    hub.bring_up(1420, &["10.80.255.1/16"]);

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                peers.iter_mut().for_each(|peer| drop(peer.initiate()));
            }
        });
        let (end, mut made) = (now() + duration(), 0);
        while now() < end {
            hub.configure("setconf", &edits[made % edits.len()]);
            made += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        eprintln!("{made} edits");
    });
    let helped = hub.cpu_time_of("handshakes-");
    eprintln!("CPU time of the helpers: {helped:?}, of control: {} ms", 10 * hub.control_ticks());
    assert!(helped > Duration::ZERO, "helpers compute as well");

    hub.configure("setconf", &config);
    peers.iter_mut().for_each(FakePeer::connect);
    for (sender, receiver) in (0..PEERS).zip((1..PEERS).chain([0])) {
        let packet = Draft::udp(&inner(sender), &inner(receiver), 60).build();
        peers[sender].send(&packet);
        let received = peers[receiver].receive();
        assert_eq!(trim(received), forwarded(&packet), "from {sender} to {receiver}");
    }
}

on_both_backends!(edits_in_a_storm);
