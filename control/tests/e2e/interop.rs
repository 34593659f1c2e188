//! Interoperability: other implementations as the hub and as clients.

use wg_bounce_aead::{Aead, Choice};
use wg_bounce_control::noise::{Dh, DhChoice};

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

/// wg-bounce is the hub, `peer` both clients, which initiate the handshakes.
fn our_hub_serves(backend: Backend, peer: Program) {
    for outer in Family::BOTH {
        let preshared_key = Some(KeyPair::new().private());
        let options = Options { alice: peer, bob: peer, outer, ..Options::new(backend) };
        exchange(&Relay::connected(&Options { preshared_key, ..options }));
    }
}

/// `peer` is the hub, wg-bounce both clients, which initiate the handshakes.
fn its_hub_serves_us(backend: Backend, peer: Program) {
    for outer in Family::BOTH {
        let preshared_key = Some(KeyPair::new().private());
        let options = Options { hub: peer, outer, ..Options::new(backend) };
        exchange(&Relay::connected(&Options { preshared_key, ..options }));
    }
}

/// The hub initiates a handshake with a client whose endpoint it knows.
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

fn wireguard_go_as_clients(backend: Backend) {
    our_hub_serves(backend, Program::WireguardGo);
}

fn wireguard_go_as_the_hub(backend: Backend) {
    its_hub_serves_us(backend, Program::WireguardGo);
}

fn wireguard_go_when_the_hub_initiates(backend: Backend) {
    the_hub_initiates(backend, Program::WireguardGo);
}

fn boringtun_as_clients(backend: Backend) {
    our_hub_serves(backend, Program::Boringtun);
}

fn boringtun_as_the_hub(backend: Backend) {
    its_hub_serves_us(backend, Program::Boringtun);
}

fn boringtun_when_the_hub_initiates(backend: Backend) {
    the_hub_initiates(backend, Program::Boringtun);
}

/// One client of each implementation behind our hub.
fn wireguard_go_talks_to_boringtun(backend: Backend) {
    let (alice, bob) = (Program::WireguardGo, Program::Boringtun);
    exchange(&Relay::connected(&Options { alice, bob, ..Options::new(backend) }));
}

/// Every AEAD implementation of the hub interoperates. Those that this CPU does not support are
/// covered in `start`.
fn every_aead_interoperates(backend: Backend) {
    let (alice, bob) = (Program::WireguardGo, Program::Boringtun);
    for aead in ["ring", "avx2", "avx512", "auto"].into_iter().filter(|aead| is_supported(aead)) {
        let mut options = Options { alice, bob, ..Options::new(backend) };
        options.relay = RelayMode::Direct;
        options.environment.push(("WG_BOUNCE_AEAD", aead));
        exchange(&Relay::connected(&options));
    }
}

/// Every X25519 implementation of the hub interoperates.
fn every_x25519_interoperates(backend: Backend) {
    let (alice, bob) = (Program::WireguardGo, Program::Boringtun);
    for dh in ["graviola", "dalek"] {
        if dh == "graviola" && Dh::new(DhChoice::Graviola).is_err() {
            continue;
        }
        let mut options = Options { alice, bob, ..Options::new(backend) };
        options.environment.push(("WG_BOUNCE_DH", dh));
        exchange(&Relay::connected(&options));
    }
}

/// Whether this CPU supports this value of `--aead`.
pub fn is_supported(aead: &str) -> bool {
    Aead::new(match aead {
        "avx512" => Choice::Avx512,
        "avx2" => Choice::Avx2,
        _ => Choice::Ring,
    })
    .is_ok()
}

on_both_backends!(
    every_aead_interoperates,
    every_x25519_interoperates,
    wireguard_go_as_clients,
    wireguard_go_as_the_hub,
    wireguard_go_when_the_hub_initiates,
    boringtun_as_clients,
    boringtun_as_the_hub,
    boringtun_when_the_hub_initiates,
    wireguard_go_talks_to_boringtun,
);
