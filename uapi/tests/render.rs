//! Replies, byte for byte as wireguard-go renders them.

use ipnet::IpNet;
use wg_bounce_uapi::render::{render_errno, render_get, render_get_part};
use wg_bounce_uapi::types::{DeviceState, Errno, PeerState, SecretKey};

fn device() -> DeviceState {
    DeviceState { private_key: None, listen_port: 0, fwmark: 0, peers: Vec::new() }
}

fn peer(byte: u8) -> PeerState {
    PeerState {
        public_key: [byte; 32],
        preshared_key: SecretKey::default(),
        endpoint: None,
        last_handshake: (0, 0),
        tx_bytes: 0,
        rx_bytes: 0,
        persistent_keepalive: 0,
        allowed_ips: Vec::new(),
    }
}

/// Parts of a reply are the whole when put together.
#[test]
fn parts_make_the_whole() {
    let state = |listen_port, peers| DeviceState { listen_port, peers, ..device() };
    let whole = render_get(&state(51820, vec![peer(1), peer(2)]));
    let first = render_get_part(&state(51820, vec![peer(1)]), false);
    let last = render_get_part(&state(0, vec![peer(2)]), true);
    assert_eq!(format!("{}{}", *first, *last), *whole);
}

#[test]
fn the_reply_for_an_empty_device_has_only_its_errno() {
    assert_eq!(render_get(&device()).as_str(), "errno=0\n\n");
}

#[test]
fn the_reply_to_a_set() {
    assert_eq!(render_errno(Errno::OK), "errno=0\n\n");
    assert_eq!(render_errno(Errno::INVALID), "errno=-22\n\n");
}

#[test]
fn the_reply_for_a_configured_device() {
    let prefixes = ["10.0.0.0/8", "0.0.0.0/0", "fd00::/64", "::/0"];
    let full = PeerState {
        preshared_key: SecretKey::new([0xab; 32]),
        endpoint: Some("[fe80::1%3]:51820".parse().unwrap()),
        last_handshake: (1_700_000_000, 7),
        tx_bytes: u64::MAX,
        rx_bytes: 1,
        persistent_keepalive: 25,
        allowed_ips: prefixes.iter().map(|text| text.parse::<IpNet>().unwrap()).collect(),
        ..peer(0xcd)
    };
    let state = DeviceState {
        private_key: Some(SecretKey::new([0x0f; 32])),
        listen_port: 51820,
        fwmark: 51966,
        peers: vec![full, peer(1)],
    };
    let expected = [
        &format!("private_key={}", "0f".repeat(32)),
        "listen_port=51820",
        "fwmark=51966",
        &format!("public_key={}", "cd".repeat(32)),
        &format!("preshared_key={}", "ab".repeat(32)),
        "protocol_version=1",
        "endpoint=[fe80::1%3]:51820",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=7",
        "tx_bytes=18446744073709551615",
        "rx_bytes=1",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=0.0.0.0/0",
        "allowed_ip=fd00::/64",
        "allowed_ip=::/0",
        &format!("public_key={}", "01".repeat(32)),
        &format!("preshared_key={}", "00".repeat(32)),
        "protocol_version=1",
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        "tx_bytes=0",
        "rx_bytes=0",
        "persistent_keepalive_interval=0",
        "errno=0",
        "\n",
    ];
    assert_eq!(render_get(&state).as_str(), expected.join("\n"));
}
