//! The public peers: each as the hub of ours, and as the client of ours.

use wg_bounce_aead::{Aead, Choice};

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Iperf, IperfServer, KeyPair, Options, Program, Relay,
    RelayMode, ping,
};

/// Small and large packets, and a TCP flow each way, between alice and bob.
fn exchange(relay: &Relay) {
    for family in Family::BOTH {
        let (alice, bob) = (&relay.alice.namespace, &relay.bob.namespace);
        for size in [16, 17, 56, 1371, 1372] {
            let options = format!("-f -c 100 -s {size}");
            assert_eq!(ping(alice, BOB.inner(family), &options), (100, 100), "{size} bytes");
            assert_eq!(ping(bob, HUB.inner(family), &options), (100, 100), "{size} bytes");
            assert_eq!(ping(&relay.hub.namespace, ALICE.inner(family), &options), (100, 100));
        }
        let _server = IperfServer::start(&relay.lab, bob);
        for direction in ["", "--reverse"] {
            let options = format!("--time 1 {direction}");
            let rate = Iperf::run(alice, BOB.inner(family), &options).bytes_per_second();
            assert!(rate > 1e6, "{rate} bytes/s {family:?} {direction}");
        }
        let udp = "--udp --time 1 --bitrate 5M --length 1203";
        let run = Iperf::run(alice, BOB.inner(family), udp);
        assert!(run.lost_percent() < 1.0, "{run:?}");
    }
}

/// We are the hub, they are both clients: they start the handshakes.
fn we_serve(backend: Backend, peer: Program) {
    for outer in Family::BOTH {
        let preshared_key = Some(KeyPair::new().private());
        let options = Options { alice: peer, bob: peer, outer, ..Options::new(backend) };
        exchange(&Relay::connected(&Options { preshared_key, ..options }));
    }
}

/// They are the hub, we are both clients: we start the handshakes.
fn they_serve(backend: Backend, peer: Program) {
    for outer in Family::BOTH {
        let preshared_key = Some(KeyPair::new().private());
        let options = Options { hub: peer, outer, ..Options::new(backend) };
        exchange(&Relay::connected(&Options { preshared_key, ..options }));
    }
}

/// A hub that speaks first to a client whose endpoint it has been told: the roles of the
/// handshake are the other way round.
fn the_hub_initiates(backend: Backend, peer: Program) {
    let ours = Program::Ours(backend);
    for (hub, alice) in [(ours, peer), (peer, ours)] {
        let options = Options::new(backend);
        let relay = Relay::new(&Options { hub, alice, hub_knows_alice: true, ..options });
        let (hub, target) = (&relay.hub.namespace, ALICE.inner(Family::V4));
        crate::harness::ping_until_answered(hub, target);
        assert_eq!(ping(hub, target, "-c 20 -i 0.05"), (20, 20), "{:?}", relay.hub.interface);
    }
}

fn wireguard_go_is_served(backend: Backend) {
    we_serve(backend, Program::WireguardGo);
}

fn wireguard_go_serves(backend: Backend) {
    they_serve(backend, Program::WireguardGo);
}

fn wireguard_go_answers_the_hub(backend: Backend) {
    the_hub_initiates(backend, Program::WireguardGo);
}

fn boringtun_is_served(backend: Backend) {
    we_serve(backend, Program::Boringtun);
}

fn boringtun_serves(backend: Backend) {
    they_serve(backend, Program::Boringtun);
}

fn boringtun_answers_the_hub(backend: Backend) {
    the_hub_initiates(backend, Program::Boringtun);
}

/// One of each behind our hub.
fn a_mixed_network(backend: Backend) {
    let (alice, bob) = (Program::WireguardGo, Program::Boringtun);
    exchange(&Relay::connected(&Options { alice, bob, ..Options::new(backend) }));
}

/// Whatever encrypts at the hub, the public peers understand it, and it them. One that this
/// processor lacks is refused: `start` sees to that.
fn every_aead_is_understood(backend: Backend) {
    let (alice, bob) = (Program::WireguardGo, Program::Boringtun);
    for aead in ["ring", "avx2", "avx512", "auto"].into_iter().filter(|aead| runs_here(aead)) {
        let mut options = Options { alice, bob, ..Options::new(backend) };
        options.relay = RelayMode::Direct;
        options.environment.push(("WG_BOUNCE_AEAD", aead));
        exchange(&Relay::connected(&options));
    }
}

/// Whether this processor has what `--aead` names.
pub fn runs_here(aead: &str) -> bool {
    Aead::new(match aead {
        "avx512" => Choice::Avx512,
        "avx2" => Choice::Avx2,
        _ => Choice::Ring,
    })
    .is_ok()
}

on_both_backends!(
    every_aead_is_understood,
    wireguard_go_is_served,
    wireguard_go_serves,
    wireguard_go_answers_the_hub,
    boringtun_is_served,
    boringtun_serves,
    boringtun_answers_the_hub,
    a_mixed_network,
);
