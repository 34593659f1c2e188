//! Computations of the control thread for a handshake (§5.4), in both roles. The inverse of a time
//! is an upper limit for the handshakes per second of one thread, which also has to handle sockets,
//! timers, peers and sessions.
//!
//! Each role includes its MACs: it signs its messages and verifies those it receives. The Diffie-
//! Hellman of both static keys is cached for each peer after its first handshake and measured
//! separately. "wrong mac1" is the cost of a message from a sender that does not know our public
//! key, "cookie" that of a message under load from a sender that does.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use wg_bounce_control::cookie::{Checker, CookieSigner, MacState};
use wg_bounce_control::noise::{
    Identity, Initiated, InitiationParams, Secret, SessionKeys, initiate, open_initiation,
};
use wg_bounce_control::tai64n::Timestamp;
use wg_bounce_dataplane::wire::{INITIATION_LEN, RESPONSE_LEN};
use wg_bounce_sys::clock::Millis;

const NOW: Millis = Millis(1);
const SOURCE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 51_820);

/// One end of a handshake, with its state for the other end.
struct End {
    identity: Identity,
    static_static: Secret,
    psk: Secret,
    ephemeral: Secret,
    checker: Checker,
    jar: CookieSigner,
    rng: ChaCha12Rng,
}

impl End {
    /// Uses fixed keys, so that a message made once stays valid.
    fn new(own: u8, other: u8) -> End {
        let identity = Identity::new(&[own; 32]);
        let remote = Identity::new(&[other; 32]);
        End {
            static_static: identity.static_static(remote.public()).expect("a good key"),
            psk: Secret::new([5; 32]),
            ephemeral: Secret::new([own + 1; 32]),
            checker: Checker::new(identity.public()),
            jar: CookieSigner::new(remote.public()),
            identity,
            rng: ChaCha12Rng::seed_from_u64(1),
        }
    }

    fn initiate(&mut self, remote_static: &[u8; 32]) -> (Initiated, [u8; INITIATION_LEN]) {
        let mut message = [0; INITIATION_LEN];
        let invitation = InitiationParams {
            remote_static,
            static_static: &self.static_static,
            ephemeral: &self.ephemeral,
            timestamp: Timestamp([7; 12]),
            local_index: 1,
        };
        let initiated = initiate(&self.identity, &invitation, &mut message).expect("good keys");
        self.jar.sign(&mut message, NOW);
        (initiated, message)
    }

    fn finish(&mut self, initiated: &Initiated, response: &[u8; RESPONSE_LEN]) -> SessionKeys {
        assert_eq!(self.judge(response), MacState::ValidMac1);
        initiated.finish(&self.identity, &self.psk, response).expect("authentic")
    }

    fn respond(&mut self, initiation: &[u8; INITIATION_LEN]) -> (SessionKeys, [u8; RESPONSE_LEN]) {
        assert_eq!(self.judge(initiation), MacState::ValidMac1);
        let claimed = open_initiation(&self.identity, initiation).expect("for us");
        let proven = claimed.prove(&self.static_static).expect("authentic");
        let mut message = [0; RESPONSE_LEN];
        let keys = proven.respond(&self.psk, &self.ephemeral, 2, &mut message).expect("good keys");
        self.jar.sign(&mut message, NOW);
        (keys, message)
    }

    fn judge(&mut self, message: &[u8]) -> MacState {
        self.checker.judge(message, SOURCE, false, NOW, &mut self.rng)
    }
}

fn handshake(criterion: &mut Criterion) {
    let (mut initiator, mut responder) = (End::new(1, 3), End::new(3, 1));
    let remote_static = *responder.identity.public();
    let (_, initiation) = initiator.initiate(&remote_static);
    let (_, response) = responder.respond(&initiation);

    let mut group = criterion.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("initiator: make an initiation, open the response", |bencher| {
        bencher.iter(|| {
            let (initiated, message) = initiator.initiate(black_box(&remote_static));
            black_box(message);
            initiator.finish(&initiated, black_box(&response))
        });
    });
    group.bench_function("responder: open an initiation, make the response", |bencher| {
        bencher.iter(|| responder.respond(black_box(&initiation)));
    });
    group.bench_function("once a peer: DH of the static keys", |bencher| {
        bencher.iter(|| initiator.identity.static_static(black_box(&remote_static)));
    });
    group.bench_function("refuse an initiation with a wrong mac1", |bencher| {
        let mut forged = initiation;
        forged[INITIATION_LEN - 17] ^= 1;
        bencher.iter(|| assert_eq!(responder.judge(black_box(&forged)), MacState::Invalid));
    });
    group.bench_function("under load: answer an initiation with a cookie", |bencher| {
        let End { checker, rng, .. } = &mut responder;
        bencher.iter(|| {
            let message = black_box(&initiation);
            assert_eq!(checker.judge(message, SOURCE, true, NOW, rng), MacState::ValidMac1);
            checker.reply(message, SOURCE, NOW, rng).seal(rng)
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = handshake
}
criterion_main!(benches);
