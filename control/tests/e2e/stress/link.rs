//! The interface or the uplink goes down and up without pause, and the daemon is killed, while
//! peers send.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::duration;
use crate::harness::{
    ALICE, BOB, Backend, Daemon, Family, HUB, Options, Program, Relay, ping_until_answered,
};

/// More workers than cores, so that some always lag behind.
const MANY_WORKERS: (&str, &str) = ("WG_BOUNCE_WORKERS", "16");

fn options(backend: Backend) -> Options {
    Options {
        hub_knows_alice: true,
        environment: vec![MANY_WORKERS, ("WG_BOUNCE_BUFFERS", "64")],
        ..Options::new(backend)
    }
}

/// Runs `round` for the time of a stress test, while alice and bob flood the hub and each other.
#[expect(clippy::disallowed_methods, reason = "the time of a test, not protocol time")]
fn under_traffic(backend: Backend, mut round: impl FnMut(&mut Relay)) {
    let mut relay = Relay::connected(&options(backend));
    let flood =
        |from: &Daemon, to| from.namespace.spawn(&relay.lab, &format!("ping -f -q -s 1300 {to}"));
    let (alice, bob) = (ALICE.inner(Family::V4), BOB.inner(Family::V4));
    let _traffic = [
        flood(&relay.alice, bob),
        flood(&relay.bob, alice),
        flood(&relay.alice, HUB.inner(Family::V4)),
    ];
    let (start, mut rounds) = (Instant::now(), 0);
    while rounds == 0 || start.elapsed() < duration() {
        round(&mut relay);
        rounds += 1;
        // If the hub has lost its sessions, it begins a handshake.
        ping_until_answered(&relay.hub.namespace, alice);
    }
    eprintln!("{rounds} rounds");
}

fn down_and_up(backend: Backend) {
    under_traffic(backend, |relay| {
        let interface = &relay.hub.interface;
        let both = format!("link set {interface} down\nlink set {interface} up\n");
        relay.hub.namespace.run_with("ip -batch -", &both.repeat(10));
        let log = relay.hub.log();
        let error = log.lines().find(|line| line.contains("ERROR"));
        assert_eq!(error, None, "the port is free as soon as the link is up again");
    });
}

/// The hub's link to alice, and its address there, are taken away and put back.
fn uplink_and_address_come_back(backend: Backend) {
    under_traffic(backend, |relay| {
        let address = "192.0.2.1/24 dev alice";
        let link = "link set alice down\nlink set alice up\n";
        let both = format!("address del {address}\naddress add {address}\n{link}");
        relay.hub.namespace.run_with("ip -batch -", &both.repeat(10));
    });
}

fn killed_and_restarted(backend: Backend) {
    let config = options(backend);
    let environment = config.environment.clone();
    under_traffic(backend, |relay| {
        let interface = &relay.hub.interface;
        relay.hub.namespace.run(&format!("ip link set {interface} down"));
        relay.hub.signal(Signal::SIGKILL);
        assert_eq!(relay.hub.exit_code(), None, "killed");
        let (program, namespace) = (Program::Ours(backend), relay.hub.namespace.clone());
        let key = relay.hub.key.clone();
        relay.hub = Daemon::start_with(&relay.lab, &namespace, "hub", program, &environment);
        relay.hub.key = key;
        relay.hub.configure("setconf", &relay.hub_config(&config));
        relay.hub.bring_up(1420, &["10.77.0.1/24"]);
    });
}

on_both_backends!(down_and_up, uplink_and_address_come_back, killed_and_restarted);
