//! UAPI with many peers: rendering the reply for `wg show`, and parsing the request of `wg
//! setconf`. Time for the whole text, and peers per second. Applying a parsed request and socket
//! I/O are not included.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wg_bounce_uapi::parse::RequestReader;
use wg_bounce_uapi::render::{render_get, render_set};
use wg_bounce_uapi::types::{
    AllowedIp, Change, DeviceState, PeerChange, PeerState, SecretKey, SetRequest,
};

const SIZES: [u32; 3] = [100, 10_000, 100_000];

/// A hub whose peers each have a preshared key, an endpoint and one prefix of each family.
fn device(peers: u32) -> DeviceState {
    let peer = |number: u32| {
        let mut public_key = [0x5a; 32];
        public_key[..4].copy_from_slice(&number.to_be_bytes());
        let v4 = Ipv4Addr::from_bits(0x0a00_0000 + number);
        let v6 = Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(number));
        PeerState {
            public_key,
            preshared_key: SecretKey::new([0xa5; 32]),
            endpoint: Some(SocketAddr::new(v4.into(), 51820)),
            last_handshake: (1_700_000_000, 123_456_789),
            tx_bytes: 1 << 40,
            rx_bytes: 1 << 41,
            persistent_keepalive: 25,
            allowed_ips: vec![
                IpNet::V4(Ipv4Net::new_assert(v4, 32)),
                IpNet::V6(Ipv6Net::new_assert(v6, 128)),
            ],
        }
    };
    DeviceState {
        private_key: Some(SecretKey::new([1; 32])),
        listen_port: 51820,
        fwmark: 0,
        peers: (0..peers).map(peer).collect(),
    }
}

/// The `set` request that creates these peers.
fn request(state: &DeviceState) -> SetRequest {
    let peer = |peer: &PeerState| {
        Change::Peer(PeerChange {
            preshared_key: Some(peer.preshared_key.clone()),
            endpoint: peer.endpoint,
            replace_allowed_ips: true,
            allowed_ips: (peer.allowed_ips.iter())
                .map(|&prefix| AllowedIp { prefix, remove: false })
                .collect(),
            ..PeerChange::new(peer.public_key)
        })
    };
    SetRequest { changes: state.peers.iter().map(peer).collect(), rejected: None }
}

fn uapi(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uapi");
    group.sample_size(10);
    for size in SIZES {
        let state = device(size);
        group.throughput(Throughput::Elements(size.into()));
        group.bench_with_input(BenchmarkId::new("get", size), &state, |bencher, state| {
            bencher.iter(|| render_get(state));
        });
        let text = render_set(&request(&state));
        group.bench_with_input(BenchmarkId::new("set", size), &text, |bencher, text| {
            bencher.iter(|| {
                let mut reader = RequestReader::new();
                let mut parsed = None;
                for mut chunk in text.as_bytes().chunks(64 << 10) {
                    parsed = reader.read(&mut chunk, &|_| None);
                }
                black_box(parsed.expect("a whole request"))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = uapi
}
criterion_main!(benches);
