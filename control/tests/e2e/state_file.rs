//! The state file: a hub that is started again finds the peers that had a session.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;

use crate::harness::{
    ALICE, BOB, Backend, Daemon, Family, Options, Program, Relay, eventually, ping, seconds,
};

/// Shakes hands with roaming peers, though neither its configuration nor a packet of theirs says
/// where they are: after `signal` has ended it.
fn finds_its_peers_after(signal: Signal, backend: Backend) {
    let directory = tempfile::tempdir().expect("a directory");
    let path: &'static str = directory.path().to_str().expect("ASCII").to_owned().leak();
    let environment = vec![("WG_BOUNCE_STATE_DIR", path)];
    let options = Options { environment: environment.clone(), ..Options::new(backend) };
    let mut relay = Relay::connected(&options);
    let file = directory.path().join(format!("{}.json", relay.hub.interface));
    // Bob was the first, and the next file comes a minute later.
    let bob = format!("\"{}\"", relay.hub.of_peer("endpoints", &relay.bob.key));
    eventually(seconds(5), "the file has bob's endpoint", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&bob))
    });
    let mode = fs::metadata(&file).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    relay.hub.signal(signal);
    let _code = relay.hub.exit_code();
    let (namespace, key) = (relay.hub.namespace.clone(), relay.hub.key.clone());
    let program = Program::Ours(backend);
    relay.hub = Daemon::start_with(&relay.lab, &namespace, "hub", program, &environment);
    relay.hub.key = key;
    relay.hub.configure("setconf", &relay.hub_config(&options));
    relay.hub.bring_up(1420, &["10.77.0.1/24"]);
    let mut known = vec![(&relay.bob, BOB)];
    if signal == Signal::SIGTERM {
        known.push((&relay.alice, ALICE));
    }
    for (peer, host) in known {
        eventually(seconds(5), "the hub has a session with the peer", || {
            relay.hub.handshake_with(&peer.key) != 0
        });
        assert_eq!(ping(&namespace, host.inner(Family::V4), "-c 1 -W 2"), (1, 1));
    }
}

fn a_killed_hub_finds_its_first_peer(backend: Backend) {
    finds_its_peers_after(Signal::SIGKILL, backend);
}

fn a_stopped_hub_finds_all_its_peers(backend: Backend) {
    finds_its_peers_after(Signal::SIGTERM, backend);
}

on_both_backends!(a_killed_hub_finds_its_first_peer, a_stopped_hub_finds_all_its_peers);
