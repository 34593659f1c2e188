//! A hub that is started again, with many peers that had a session.

use std::fmt::Write;
use std::fs;
use std::net::UdpSocket;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{setsockopt, sockopt};
use wg_bounce_control::cookie::{CookieSigner, mac1_key};
use wg_bounce_control::noise::{Identity, Secret, open_initiation};
use wg_bounce_dataplane::mac1;
use wg_bounce_dataplane::wire::{INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::clock::Millis;

use crate::harness::{Backend, Daemon, KeyPair, Lab, Program, eventually, random_bytes, seconds};

/// Peers that had a session.
const PEERS: usize = 1000;

/// The peers, which share an address and a port as behind a proxy. They answer, and never begin.
struct Peers {
    /// With the key of mac1 in messages to each, by which an initiation is told.
    identities: Vec<(Identity, [u8; 32])>,
    socket: UdpSocket,
    hub: [u8; 32],
}

impl Peers {
    /// Answers initiations until every peer has answered one.
    fn answer_all(&mut self) {
        let mut message = [0; INITIATION_LEN];
        while !self.identities.is_empty() {
            let (length, from) = self.socket.recv_from(&mut message).expect("an initiation");
            if length != INITIATION_LEN {
                continue; // the keepalive of a session
            }
            let addressee =
                self.identities.iter().position(|(_, key)| mac1::is_valid(&message, key));
            // A retry, which crossed the answer.
            let Some(addressee) = addressee else { continue };
            let (identity, _) = self.identities.swap_remove(addressee);
            let claimed = open_initiation(&identity, &message).expect("it is for this peer");
            let static_static = identity.static_static(&self.hub).expect("a good key");
            let proven = claimed.prove(&static_static).expect("the hub's own");
            let mut response = [0; RESPONSE_LEN];
            let ephemeral = Secret::new(random_bytes());
            let index = self.identities.len() as u32;
            proven
                .respond(&Secret::default(), &ephemeral, index, &mut response)
                .expect("good keys");
            CookieSigner::new(&self.hub).sign(&mut response, Millis(1));
            self.socket.send_to(&response, from).expect("the hub listens");
        }
    }
}

/// All of a thousand peers have a session two seconds after the hub's interface is up.
#[expect(clippy::disallowed_methods, reason = "a test's own clock, not protocol time")]
fn a_thousand_peers_talk_again_within_two_seconds(backend: Backend) {
    let lab = Lab::new();
    let (namespace, outside) = (lab.namespace("hub"), lab.namespace("outside"));
    lab.link((&namespace, "outside"), (&outside, "out0"), 1500);
    namespace.run("ip address add 192.0.2.1/24 dev outside");
    outside.run("ip address add 192.0.2.2/24 dev out0");
    let socket = outside.udp_socket("192.0.2.2:51820");
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).expect("root may");
    socket.set_read_timeout(Some(seconds(10))).expect("not zero");

    let keys: Vec<KeyPair> = (0..PEERS).map(|_| KeyPair::new()).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let time = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let peers: Vec<_> = keys
        .iter()
        .map(|key| {
            let key = key.public();
            serde_json::json!({ "public_key": key, "endpoint": "192.0.2.2:51820", "time": time })
        })
        .collect();
    let state = serde_json::json!({ "version": 1, "peers": peers });
    let file = directory.path().join(format!("{}.json", lab.interface("hub")));
    fs::write(file, state.to_string()).expect("writable");
    let path: &'static str = directory.path().to_str().expect("ASCII").to_owned().leak();
    let environment = [("LOG_LEVEL", "info"), ("WG_BOUNCE_STATE_DIR", path)];
    let hub = Daemon::start_with(&lab, &namespace, "hub", Program::Ours(backend), &environment);
    let mut config =
        format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", hub.key.private());
    for (number, key) in keys.iter().enumerate() {
        let (third, fourth) = (number / 250, number % 250 + 1);
        let key = key.public();
        write!(config, "[Peer]\nPublicKey = {key}\nAllowedIPs = 10.80.{third}.{fourth}/32\n")
            .expect("a string grows");
    }
    hub.configure("setconf", &config);
    let identities = keys.iter().map(|key| {
        let identity = Identity::new(&key.private_bytes());
        let mac1_key = mac1_key(identity.public());
        (identity, mac1_key)
    });
    let mut peers = Peers { identities: identities.collect(), socket, hub: hub.key.public_bytes };

    let (start, ticks) = (Instant::now(), hub.control_ticks());
    hub.bring_up(1420, &["10.80.255.1/16"]);
    peers.answer_all();
    let mut took = start.elapsed();
    eventually(seconds(5), "the hub has a session with each", || {
        took = start.elapsed();
        let shown = hub.show("latest-handshakes");
        shown.lines().filter(|line| !line.ends_with("\t0")).count() == PEERS
    });
    let cpu = (hub.control_ticks() - ticks) * 10;
    eprintln!("{PEERS} peers after {took:?}, {cpu} ms of control's CPU time");
    assert!(took < seconds(2), "{PEERS} peers after {took:?}");
}

on_both_backends!(a_thousand_peers_talk_again_within_two_seconds);
