//! `set` requests, line by line: accepted lines, rejected lines, and the changes that still apply.

use std::net::SocketAddr;

use wg_bounce_uapi::limits::LINE_LEN_MAX;
use wg_bounce_uapi::parse::{ZoneResolver, parse_set};
use wg_bounce_uapi::types::{Change, Errno, PeerChange, SetRequest};

const KEY_A: &str = "AABBccddeeff00112233445566778899aabbccddeeff0011223344556677889A";
const KEY_B: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ZONES: ZoneResolver<'static> = &|name| (name == "eth0").then_some(7);

fn parse(lines: &[&str]) -> SetRequest {
    parse_set(&lines.join("\n"), ZONES)
}

/// The peer of a request that sets nothing else and has no error.
fn peer(lines: &[&str]) -> PeerChange {
    let mut request = with_peer(lines);
    assert_eq!(request.rejected, None);
    assert_eq!(request.changes.len(), 1);
    let Some(Change::Peer(peer)) = request.changes.pop() else { panic!("no peer") };
    peer
}

fn with_peer(lines: &[&str]) -> SetRequest {
    let key = format!("public_key={KEY_A}");
    parse(&[&[key.as_str()], lines].concat())
}

fn errno(request: &SetRequest) -> Errno {
    request.rejected.as_ref().expect("must be rejected").errno
}

fn reason(request: &SetRequest) -> &str {
    &request.rejected.as_ref().expect("must be rejected").reason
}

#[test]
fn device_lines() {
    let request = parse(&[
        &format!("private_key={KEY_A}"),
        "listen_port=51820",
        "fwmark=51966",
        "replace_peers=true",
    ]);
    assert_eq!(request.rejected, None);
    let [Change::PrivateKey(Some(key)), changes @ ..] = &request.changes[..] else { panic!() };
    assert_eq!((key[0], key[31]), (0xaa, 0x9a));
    assert!(matches!(
        changes,
        [Change::ListenPort(51820), Change::Fwmark(51966), Change::ReplacePeers]
    ));
}

#[test]
fn zeros_clear_the_private_key() {
    let request = parse(&[&format!("private_key={ZERO}")]);
    assert!(matches!(request.changes[..], [Change::PrivateKey(None)]));
}

#[test]
fn the_last_device_line_of_a_kind_wins() {
    let request = parse(&["listen_port=1", "fwmark=1", "listen_port=2"]);
    assert!(matches!(request.changes[..], [Change::Fwmark(1), Change::ListenPort(2)]));
}

#[test]
fn peer_lines() {
    let peer = peer(&[
        "update_only=true",
        "remove=true",
        &format!("preshared_key={KEY_B}"),
        "endpoint=192.0.2.1:51820",
        "persistent_keepalive_interval=25",
        "protocol_version=1",
        "replace_allowed_ips=true",
        "allowed_ip=10.1.2.3/24",
        "allowed_ip=-fd00::1/64",
        "allowed_ip=10.0.0.1",
        "allowed_ip=fd00::1",
        "allowed_ip=0.0.0.0/0",
    ]);
    assert!(peer.update_only);
    assert!(peer.remove);
    assert!(peer.replace_allowed_ips);
    assert_eq!(peer.preshared_key.expect("set")[31], 1);
    assert_eq!(peer.endpoint, Some("192.0.2.1:51820".parse().unwrap()));
    assert_eq!(peer.persistent_keepalive, Some(25));
    let prefixes: Vec<_> =
        peer.allowed_ips.iter().map(|ip| (ip.prefix.to_string(), ip.remove)).collect();
    let expected = [
        ("10.1.2.0/24", false),
        ("fd00::/64", true),
        ("10.0.0.1/32", false),
        ("fd00::1/128", false),
        ("0.0.0.0/0", false),
    ];
    assert_eq!(prefixes, expected.map(|(prefix, remove)| (prefix.to_owned(), remove)));
}

#[test]
fn settings_that_are_not_given_stay_unset() {
    let peer = peer(&[]);
    assert!(peer.preshared_key.is_none());
    assert_eq!(peer.endpoint, None);
    assert_eq!(peer.persistent_keepalive, None);
    assert!(peer.allowed_ips.is_empty());
    assert!(!(peer.replace_allowed_ips | peer.remove | peer.update_only));
}

#[test]
fn a_zero_preshared_key_is_a_change() {
    let peer = peer(&[&format!("preshared_key={ZERO}")]);
    assert!(peer.preshared_key.is_some());
}

#[test]
fn replace_allowed_ips_drops_earlier_ones() {
    let peer = peer(&["allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=::/0"]);
    assert_eq!(peer.allowed_ips.len(), 1);
}

#[test]
fn settings_do_not_leak_into_the_next_peer() {
    let next = format!("public_key={KEY_B}");
    let request = with_peer(&["update_only=true", "endpoint=192.0.2.1:1", &next]);
    let [Change::Peer(first), Change::Peer(second)] = &request.changes[..] else { panic!() };
    assert!(first.update_only);
    assert!(!second.update_only);
    assert_eq!(second.endpoint, None);
}

#[test]
fn endpoints() {
    let cases = [
        ("192.0.2.1:0", "192.0.2.1:0"),
        ("[2001:db8::1]:51820", "[2001:db8::1]:51820"),
        ("[fe80::1%7]:1", "[fe80::1%7]:1"),
        ("[fe80::1%eth0]:1", "[fe80::1%7]:1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1:1"),
    ];
    for (text, expected) in cases {
        let endpoint = peer(&[&format!("endpoint={text}")]).endpoint;
        assert_eq!(endpoint, Some(expected.parse::<SocketAddr>().unwrap()), "{text}");
        assert_eq!(endpoint.unwrap().to_string(), expected);
    }
}

#[test]
fn rejected_device_lines() {
    let cases = [
        ("listen_port", Errno::PROTOCOL),
        ("", Errno::OK), // ends the request
        ("=", Errno::INVALID),
        ("listen_port=", Errno::INVALID),
        ("listen_port=65536", Errno::INVALID),
        ("listen_port=-1", Errno::INVALID),
        ("listen_port=+1", Errno::INVALID),
        ("listen_port= 1", Errno::INVALID),
        ("fwmark=", Errno::INVALID),
        ("fwmark=0x10", Errno::INVALID),
        ("fwmark=4294967296", Errno::INVALID),
        ("replace_peers=false", Errno::INVALID),
        ("replace_peers=", Errno::INVALID),
        ("private_key=", Errno::INVALID),
        ("private_key=00", Errno::INVALID),
        ("public_key=00", Errno::INVALID),
        ("endpoint=192.0.2.1:1", Errno::INVALID), // belongs to a peer
        ("set=1", Errno::INVALID),
    ];
    for (line, expected) in cases {
        let request = parse(&["fwmark=1", line, "fwmark=2"]);
        let found = request.rejected.as_ref().map_or(Errno::OK, |rejection| rejection.errno);
        assert_eq!(found, expected, "{line}");
        assert!(matches!(request.changes[..], [Change::Fwmark(1)]), "{line}");
    }
}

#[test]
fn rejected_peer_lines() {
    let bad_key = format!("preshared_key={}g", &KEY_A[1..]);
    let cases = [
        bad_key.as_str(),
        "remove=1",
        "update_only=false",
        "replace_allowed_ips=TRUE",
        "protocol_version=2",
        "persistent_keepalive_interval=off",
        "persistent_keepalive_interval=65536",
        "endpoint=example.org:51820",
        "endpoint=192.0.2.1",
        "endpoint=192.0.2.1:",
        "endpoint=192.0.2.1:65536",
        "endpoint=192.0.02.1:1",
        "endpoint=2001:db8::1:1",
        "endpoint=[192.0.2.1]:1",
        "endpoint=[2001:db8::1]1",
        "endpoint=[2001:db8::1:1",
        "endpoint=[fe80::1%]:1",
        "endpoint=[fe80::1%eth1]:1",
        "allowed_ip=",
        "allowed_ip=-",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0.0/",
        "allowed_ip=10.0.0.0/+8",
        "allowed_ip=10.0.0.0/-1",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=fd00::/129",
        "allowed_ip=fe80::1%eth0/128",
        "allowed_ip=10.0.0.0/8/8",
        "listen_port=1", // belongs to the device
        "tx_bytes=1",
    ];
    for line in cases {
        let request = with_peer(&["persistent_keepalive_interval=9", line, "remove=true"]);
        assert_eq!(errno(&request), Errno::INVALID, "{line}");
        let [Change::Peer(peer)] = &request.changes[..] else { panic!("{line}") };
        assert_eq!(peer.persistent_keepalive, Some(9), "earlier lines apply: {line}");
        assert!(!peer.remove, "later lines are ignored: {line}");
        assert!(peer.endpoint.is_none() && peer.allowed_ips.is_empty(), "{line}");
    }
}

#[test]
fn a_bad_public_key_keeps_the_peer_before_it() {
    let request = with_peer(&["remove=true", "public_key=xyz", "allowed_ip=10.0.0.0/8"]);
    assert_eq!(errno(&request), Errno::INVALID);
    let [Change::Peer(peer)] = &request.changes[..] else { panic!() };
    assert!(peer.remove && peer.allowed_ips.is_empty());
}

#[test]
fn reasons_contain_no_secret() {
    let secret = "4MdTTfkvHJ/xrDTDHVhIJyhkwSZUkAd7K5FIPfgJ5mo";
    let hex = &KEY_A[..63];
    let lines = [
        format!("private_key={secret}="),
        format!("private_key={hex}"),
        format!("{secret}="),
        secret.to_owned(),
        format!("{hex}=1"),
        hex.to_owned(),
    ];
    for line in lines {
        let request = parse(&[&line]);
        let reason = reason(&request);
        assert!(!reason.contains(&secret[..8]) && !reason.contains(&hex[..8]), "{reason}");
    }
    assert!(reason(&with_peer(&[&format!("preshared_key={hex}")])).contains("preshared_key"));
}

#[test]
fn reasons_are_short_and_printable() {
    let request = parse(&[&format!("fwmark=\u{1b}[31m{}", "é".repeat(LINE_LEN_MAX))]);
    let reason = reason(&request);
    assert!(reason.len() < 400, "{}", reason.len());
    assert!(reason.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{reason}");
}
