//! Rendered text parses back; no input makes the reader panic; chunks do not matter.

mod common;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use common::transcript;
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use wg_bounce_uapi::parse::{Incoming, RequestReader, parse_set};
use wg_bounce_uapi::render::{render_get, render_set};
use wg_bounce_uapi::types::{
    AllowedIp, Change, DeviceState, PeerChange, PeerState, Request, SecretKey, SetRequest,
};

/// A value together with its rendered text, which failure messages show: the types themselves do
/// not implement `Debug`, so that no log can show a key.
struct Shown<T> {
    value: T,
    text: String,
}

impl<T> fmt::Debug for Shown<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn secret() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_map(SecretKey::new)
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128u8).prop_map(|(address, length)| {
        let full = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(full)).expect("within its length").trunc()
    })
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>(), any::<u32>()).prop_map(|(address, port, scope)| match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope))
        }
        address => SocketAddr::new(address.to_canonical(), port),
    })
}

prop_compose! {
    fn peer_change()(
        public_key in any::<[u8; 32]>(),
        (remove, update_only, replace_allowed_ips) in any::<(bool, bool, bool)>(),
        preshared_key in option::of(secret()),
        endpoint in option::of(endpoint()),
        persistent_keepalive in any::<Option<u16>>(),
        allowed_ips in vec((prefix(), any::<bool>()), 0..8),
    ) -> Shown<PeerChange> {
        let allowed_ips =
            allowed_ips.into_iter().map(|(prefix, remove)| AllowedIp { prefix, remove }).collect();
        let value = PeerChange {
            public_key, remove, update_only, preshared_key, endpoint, persistent_keepalive,
            replace_allowed_ips, allowed_ips,
        };
        Shown { value, text: String::new() }
    }
}

prop_compose! {
    fn set_request()(
        private_key in option::of(option::of(secret())),
        listen_port in any::<Option<u16>>(),
        fwmark in any::<Option<u32>>(),
        replace_peers in any::<bool>(),
        peers in vec(peer_change(), 0..20),
    ) -> Shown<SetRequest> {
        let device = [
            private_key.map(Change::PrivateKey),
            listen_port.map(Change::ListenPort),
            fwmark.map(Change::Fwmark),
            replace_peers.then_some(Change::ReplacePeers),
        ];
        let peers = peers.into_iter().map(|peer| Change::Peer(peer.value));
        let changes = device.into_iter().flatten().chain(peers).collect();
        let value = SetRequest { changes, rejected: None };
        Shown { text: render_set(&value).to_string(), value }
    }
}

prop_compose! {
    fn peer_state()(
        public_key in any::<[u8; 32]>(),
        preshared_key in secret(),
        endpoint in option::of(endpoint()),
        last_handshake in any::<(u64, u32)>(),
        (tx_bytes, rx_bytes, persistent_keepalive) in any::<(u64, u64, u16)>(),
        allowed_ips in vec(prefix(), 0..20),
    ) -> Shown<PeerState> {
        let value = PeerState {
            public_key, preshared_key, endpoint, last_handshake, tx_bytes, rx_bytes,
            persistent_keepalive, allowed_ips,
        };
        Shown { value, text: String::new() }
    }
}

prop_compose! {
    fn device_state()(
        private_key in option::of(secret()),
        (listen_port, fwmark) in any::<(u16, u32)>(),
        peers in vec(peer_state(), 0..10),
    ) -> Shown<DeviceState> {
        let peers = peers.into_iter().map(|peer| peer.value).collect();
        let value = DeviceState { private_key, listen_port, fwmark, peers };
        Shown { text: render_get(&value).to_string(), value }
    }
}

/// Bytes similar enough to requests to get past the first line.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"set=1\n".to_vec()),
        Just(b"get=1\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(format!("public_key={}\n", "5a".repeat(32)).into_bytes()),
        Just(b"allowed_ip=".to_vec()),
        Just(b"endpoint=[fe80::1%".to_vec()),
        Just(b"fwmark=".to_vec()),
        Just(b"x".repeat(3000)),
        vec(any::<u8>(), 0..40),
        set_request().prop_map(|request| request.text.into_bytes()),
    ];
    vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

fn assert_same_peer(a: &PeerChange, b: &PeerChange) {
    assert_eq!(a.public_key, b.public_key);
    assert_eq!(a.remove, b.remove);
    assert_eq!(a.update_only, b.update_only);
    assert_eq!(a.preshared_key, b.preshared_key);
    assert_eq!(a.endpoint, b.endpoint);
    assert_eq!(a.persistent_keepalive, b.persistent_keepalive);
    assert_eq!(a.replace_allowed_ips, b.replace_allowed_ips);
    assert_eq!(a.allowed_ips, b.allowed_ips);
}

fn is_zero(key: &SecretKey) -> bool {
    key.iter().all(|&byte| byte == 0)
}

proptest! {
    #[test]
    fn a_rendered_set_parses_back(Shown { value: request, text } in set_request()) {
        let mut input = text.as_bytes();
        let incoming = RequestReader::new().read(&mut input, &|_| None);
        let Some(Incoming::Request(Request::Set(parsed))) = incoming else { panic!("no set") };
        prop_assert!(input.is_empty());
        prop_assert_eq!(parsed.rejected, None);
        prop_assert_eq!(parsed.changes.len(), request.changes.len());
        for (a, b) in request.changes.iter().zip(&parsed.changes) {
            match (a, b) {
                (Change::PrivateKey(a), Change::PrivateKey(b)) => {
                    prop_assert_eq!(a.as_ref().filter(|key| !is_zero(key)), b.as_ref());
                }
                (Change::ListenPort(a), Change::ListenPort(b)) => prop_assert_eq!(a, b),
                (Change::Fwmark(a), Change::Fwmark(b)) => prop_assert_eq!(a, b),
                (Change::ReplacePeers, Change::ReplacePeers) => {}
                (Change::Peer(a), Change::Peer(b)) => assert_same_peer(a, b),
                _ => prop_assert!(false, "the kinds of change differ"),
            }
        }
    }

    /// A `get` response without its statistics is the body of a `set` that restores the device.
    #[test]
    fn a_get_response_parses_back(Shown { value: state, text: response } in device_state()) {
        prop_assert!(response.ends_with("errno=0\n\n"));
        let statistics = ["errno=", "last_handshake_", "tx_bytes=", "rx_bytes="];
        let settings = |line: &&str| !statistics.iter().any(|name| line.starts_with(name));
        let body = response.lines().filter(settings).collect::<Vec<_>>().join("\n");
        let parsed = parse_set(&body, &|_| None);
        prop_assert_eq!(parsed.rejected, None);
        let device = [
            state.private_key.is_some_and(|key| !is_zero(&key)).then_some("private key"),
            (state.listen_port != 0).then_some("port"),
            (state.fwmark != 0).then_some("mark"),
        ];
        let device_len = device.iter().flatten().count();
        prop_assert_eq!(parsed.changes.len(), device_len + state.peers.len());
        for (peer, change) in state.peers.iter().zip(&parsed.changes[device_len..]) {
            let Change::Peer(change) = change else { panic!("not a peer") };
            prop_assert_eq!(peer.public_key, change.public_key);
            prop_assert_eq!(Some(&peer.preshared_key), change.preshared_key.as_ref());
            prop_assert_eq!(peer.endpoint, change.endpoint);
            prop_assert_eq!(Some(peer.persistent_keepalive), change.persistent_keepalive);
            let prefixes: Vec<_> = change.allowed_ips.iter().map(|ip| ip.prefix).collect();
            prop_assert_eq!(&peer.allowed_ips, &prefixes);
        }
    }

    #[test]
    fn chunks_do_not_matter(bytes in bytes(), cuts in vec(any::<prop::sample::Index>(), 0..40)) {
        let whole = transcript(std::iter::once(&bytes[..]));
        prop_assert_eq!(&whole, &transcript(bytes.chunks(1)));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        prop_assert_eq!(&whole, &transcript(chunks));
    }

    #[test]
    fn arbitrary_lines_never_panic(line in vec(any::<u8>(), 0..200), address in any::<Ipv6Addr>()) {
        for key in ["endpoint=", "allowed_ip=", "fwmark=", "preshared_key=", ""] {
            let head = format!("set=1\npublic_key={}\n{key}", "5a".repeat(32));
            let text = [head.as_bytes(), &line, address.to_string().as_bytes(), b"\n\n"].concat();
            transcript(text.chunks(64));
        }
    }
}
