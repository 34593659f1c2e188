//! Fuzz target: configuration files. Whatever is read, stripped, saved and edited must agree.

use wg_bounce_fuzz::Target;
use zeroize::Zeroizing;

use crate::config_file::model::{Config, Peer};
use crate::config_file::problem::{Problem, Severity};
use crate::config_file::read::read;
use crate::config_file::save::{Running, with_running};
use crate::config_file::state::{State, peers};
use crate::config_file::strip::strip;
use crate::config_file::{edit, free_address, overlaps};

/// The key of a peer that is added, in base64 and as bytes.
const NEW: &str = "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws=";
const NEW_KEY: [u8; 32] = [11; 32];
/// Free addresses that are looked at, for each network.
const FREE: usize = 8;

#[test]
fn config_files() {
    Target {
        test: concat!(module_path!(), "::config_files"),
        corpus: &[
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/config_file/tests/found"),
            super::CORPUS,
            concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/examples"),
        ],
        words: &[
            b"[Interface]\n",
            b"[Peer]\n",
            b"[Peer] # Name\n",
            b"PrivateKey = ",
            b"PublicKey = ",
            b"AllowedIPs = ",
            b"Address = 10.0.0.1/24\n",
            b"Endpoint = [::1%1]:5\n",
            b"FwMark = 0x",
            b"PersistentKeepalive = off\n",
            b"# wg-bounce: relay = direct\n",
            b"\r\n",
            b"\xef\xbb\xbf",
            b"\xe2\x80\xa8",
            b"\x0c",
            b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n",
            b", fd77::/64",
            b"/32",
        ],
        check: |data| target(&String::from_utf8_lossy(data)),
    }
    .run();
}

fn target(text: &str) {
    let (config, mut problems) = read(text);
    overlaps::check(&config, &mut problems);
    let is_valid = !has_errors(&problems);
    check_strip(text, &config, is_valid);
    check_edit(text, &config);
    check_free(&config);
    if is_valid {
        check_save(text, &config);
    }
}

fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

/// A stripped file means the same to wg(8), and is not stripped of more.
fn check_strip(text: &str, config: &Config, is_valid: bool) {
    let stripped = strip(text);
    assert_eq!(strip(&stripped), stripped, "nothing more to strip");
    let (rest, problems) = read(&stripped);
    assert!(!is_valid || !has_errors(&problems), "no new errors: {problems:?}");
    assert_eq!(rest.interface.private_key, config.interface.private_key);
    let port = |config: &Config| config.interface.listen_port.map(|port| port.value);
    assert_eq!(port(&rest), port(config));
    assert_eq!(rest.interface.fwmark, config.interface.fwmark);
    let is_of_wg = rest.interface.addresses.is_empty() && rest.interface.hooks.is_empty();
    // A byte order mark hides the first heading, as from wg-quick, and is an error.
    assert!(is_of_wg || !is_valid, "only settings of wg(8) are left");
    assert!(rest.options.len() <= config.options.len(), "comments go with their lines");
    assert_eq!(rest.peers.len(), config.peers.len());
    for (one, other) in rest.peers.iter().zip(&config.peers) {
        assert_same_peer(one, other);
    }
}

fn assert_same_peer(one: &Peer, other: &Peer) {
    assert_eq!(one.name, other.name);
    assert_eq!(one.public_key, other.public_key);
    assert_eq!(one.preshared_key, other.preshared_key);
    assert_eq!(one.endpoint, other.endpoint);
    assert_eq!(one.persistent_keepalive, other.persistent_keepalive);
    let networks = |peer: &Peer| peer.allowed_ips.iter().map(|ip| ip.value).collect::<Vec<_>>();
    assert_eq!(networks(one), networks(other));
}

/// A peer that is added is there, at the end, and those that stay after a removal are the others.
fn check_edit(text: &str, config: &Config) {
    let longer = edit::with_section(text, &format!("[Peer]\nPublicKey = {NEW}\n"));
    let (added, _) = read(&longer);
    assert_eq!(added.peers.len(), config.peers.len() + 1);
    assert_eq!(added.peers.last().map(|peer| peer.public_key), Some(NEW_KEY));
    for (one, other) in added.peers.iter().zip(&config.peers) {
        assert_same_peer(one, other);
    }
    for (number, peer) in config.peers.iter().enumerate().take(3) {
        let (left, _) = read(&edit::without_section(text, peer.place));
        assert_eq!(left.peers.len(), config.peers.len() - 1, "one is removed");
        let others = config.peers.iter().enumerate().filter(|(other, _)| *other != number);
        for (one, (_, other)) in left.peers.iter().zip(others) {
            assert_eq!(one.public_key, other.public_key);
            assert_eq!(one.preshared_key, other.preshared_key);
        }
    }
}

/// A free address is in its network, and belongs to no peer and not to the interface.
fn check_free(config: &Config) {
    for network in config.interface.addresses.iter().map(|one| one.value.trunc()).take(3) {
        for free in free_address::free(config, network).take(FREE) {
            assert!(network.contains(&free) && free.addr() != network.network());
            let own = config.interface.addresses.iter().map(|one| one.value.addr());
            assert!(own.into_iter().all(|own| own != free.addr()), "not that of the interface");
            let allowed = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
            let inside = allowed
                .map(|ip| ip.value)
                .filter(|prefix| network.contains(prefix) && *prefix != network);
            assert!(inside.into_iter().all(|prefix| !prefix.contains(&free)), "of no peer");
        }
    }
}

/// A file is left alone while nothing differs from it; and what is saved is what runs.
fn check_save(text: &str, config: &Config) {
    let mut running = running(config);
    assert_eq!(*with_running(text, config, &running), text, "nothing differs");
    running.state.listen_port = 7;
    running.state.fwmark ^= 1;
    running.state.peers.pop_first();
    for peer in running.state.peers.values_mut() {
        peer.preshared_key = Zeroizing::new([9; 32]);
        peer.persistent_keepalive = 25;
        peer.endpoint = Some("192.0.2.7:9".parse().expect("an endpoint"));
        peer.allowed_ips.pop_first();
    }
    running.state.peers.insert(NEW_KEY, Default::default());
    let saved = with_running(text, config, &running);
    let (config, problems) = read(&saved);
    assert!(!has_errors(&problems), "a saved file has no errors: {problems:?}\n{}", *saved);
    let wanted = peers(&config);
    assert!(wanted.keys().eq(running.state.peers.keys()), "the same peers");
    for (key, wanted) in wanted {
        let peer = &running.state.peers[&key];
        assert_eq!(wanted.state.allowed_ips, peer.allowed_ips, "{}", *saved);
        assert_eq!(wanted.state.preshared_key, peer.preshared_key);
        assert_eq!(wanted.state.persistent_keepalive, peer.persistent_keepalive);
        let is_name = wanted.endpoint.is_some_and(|endpoint| endpoint.address().is_none());
        assert!(is_name || wanted.state.endpoint == peer.endpoint);
    }
}

/// The state that a configuration leads to.
fn running(config: &Config) -> Running {
    let state = State {
        private_key: config.interface.private_key.clone(),
        listen_port: config.interface.listen_port.map_or(0, |one| one.value),
        fwmark: config.interface.fwmark.unwrap_or(0),
        peers: peers(config).into_iter().map(|(key, peer)| (key, peer.state)).collect(),
    };
    let addresses = config.interface.addresses.iter().map(|one| one.value).collect();
    Running { state, addresses, own_key: None }
}
