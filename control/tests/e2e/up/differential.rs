//! The same files by `wg-quick` and by `wg-bounce up`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::{Tunnel, assert_same, host_with_uplink};
use crate::harness::{Backend, KeyPair, Lab, eventually, seconds, socket_path};

/// The same without the lines about endpoints.
fn without_endpoints(state: &[String]) -> Vec<String> {
    let of_section = |section: &String| {
        let lines = section.lines().filter(|line| !line.starts_with("Endpoint"));
        lines.collect::<Vec<_>>().join("\n")
    };
    state.iter().map(of_section).collect()
}

/// Files without hooks. `wg-quick` and `wg-bounce up` set the same up from each, and leave the same
/// behind, and `reload` from one to the next gives the same too.
fn files() -> Vec<String> {
    let keys = [(); 4].map(|()| KeyPair::new());
    let [own, alice, bob, carol] = &keys;
    let (private, secret) = (own.private(), KeyPair::new().private());
    let [alice, bob, carol] = [alice, bob, carol].map(KeyPair::public);
    let interface = |settings: &str| {
        format!("[Interface]\nPrivateKey = {private}\nListenPort = 51820\n{settings}\n")
    };
    vec![
        // Routes within the networks of the addresses and beyond; servers for names.
        interface("Address = 10.7.0.1/24, fd07::1/64\nDNS = 10.7.0.53, fd07::53, example.org")
            + &format!(
                "[Peer]\nPublicKey = {alice}\nAllowedIPs = 10.7.0.2/32, 10.9.0.0/16, fd07::2/128\n\
                 Endpoint = 198.51.100.7:51820\n[Peer]\nPublicKey = {bob}\n\
                 AllowedIPs = 10.9.3.0/24, fd09::/48\nPersistentKeepalive = 25\n"
            ),
        // A table, an MTU, a preshared key; one address fewer and one more.
        interface(
            "Address = 10.7.0.1/24\nAddress = 10.8.0.1/32, fd08::1/128\nMTU = 1380\nTable = 123",
        ) + &format!(
            "[Peer]\nPublicKey = {alice}\nPresharedKey = {secret}\n\
                 AllowedIPs = 10.7.0.0/24, 10.9.0.0/16, 0.0.0.0/0\n\
                 [Peer]\nPublicKey = {carol}\nAllowedIPs = fd09::/48\n"
        ),
        // All traffic, with a table of its own.
        interface("Address = 10.7.0.1/32, fd07::1/128\nDNS = 9.9.9.9")
            + &format!(
                "[Peer]\nPublicKey = {bob}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
                 Endpoint = [2001:db8::7]:51820\nPersistentKeepalive = 21\n\
                 [Peer]\nPublicKey = {alice}\nAllowedIPs = 10.7.0.2/32, fd07::2/128\n"
            ),
        // No routes, and a mark.
        interface("Address = 10.7.0.1/24\nTable = off\nFwMark = 0x99")
            + &format!("[Peer]\nPublicKey = {bob}\nAllowedIPs = 0.0.0.0/0, ::/0\n"),
        // All IPv4 traffic, with a chosen mark; no address of IPv6.
        interface("Address = 10.7.0.1/24\nFwMark = 51")
            + &format!(
                "[Peer]\nPublicKey = {carol}\nAllowedIPs = 0.0.0.0/0\nEndpoint = 203.0.113.9:9\n"
            ),
        // Two sections of one key, and a prefix of two peers.
        interface("Address = 10.7.0.1/24")
            + &format!(
                "[Peer]\nPublicKey = {alice}\nAllowedIPs = 10.1.0.0/16\nPersistentKeepalive = 9\n\
                 Endpoint = 192.0.2.77:9\n[Peer]\nPublicKey = {bob}\n\
                 AllowedIPs = 10.2.0.0/16, 10.3.0.0/16\n\
                 [Peer]\nPublicKey = {alice}\nAllowedIPs = 10.3.0.0/16\n"
            ),
        // Nothing but a key.
        interface(""),
    ]
}

/// Records what `resolvconf` is asked for.
const RESOLVCONF: &str = "#!/bin/sh\n(echo \"$@\"; [ \"$1\" = -d ] || cat) >> \"$0.log\"\n";

#[test]
#[ignore = "needs root: creates network namespaces"]
fn wg_quick_sets_the_same_up() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    let tunnel = Tunnel::new(&lab, &host, "up", Backend::Uring);
    let resolvconf = tunnel.programs.join("resolvconf");
    fs::write(&resolvconf, RESOLVCONF).expect("the lab's directory is writable");
    fs::set_permissions(&resolvconf, Permissions::from_mode(0o755)).expect("our own file");
    let log = resolvconf.with_extension("log");
    let asked = || fs::read_to_string(&log).inspect(|_| fs::remove_file(&log).expect("there"));
    // wg-quick leaves this setting behind too.
    host.sysctl("net.ipv4.conf.all.src_valid_mark=1");
    let before = tunnel.state();
    let files = files();
    let mut expected = Vec::new();
    for (number, text) in files.iter().enumerate() {
        tunnel.write(text);
        tunnel.wg_quick("up");
        let state = tunnel.state();
        tunnel.wg_quick("down");
        eventually(seconds(5), "the daemon ends", || !socket_path(&tunnel.interface).exists());
        let of_wg_quick = asked().ok();

        let mut process = tunnel.up();
        assert_same(&tunnel.state(), &state, &format!("file {number}"));
        tunnel.run("down");
        assert_eq!(process.exit_code(), Some(0));
        assert_eq!(asked().ok(), of_wg_quick, "file {number}");
        assert_same(&tunnel.state(), &before, &format!("after file {number}"));
        assert!(!host.run("nft list ruleset").contains("wg-bounce"), "file {number}");
        expected.push(state);
    }
    tunnel.write(&files[0]);
    let _process = tunnel.up();
    // Forth and back.
    let order: Vec<usize> = (0..files.len()).chain((0..files.len()).rev()).collect();
    for number in order {
        tunnel.write(&files[number]);
        for what in ["reload", "second reload"] {
            let before = asked().ok();
            tunnel.run("reload");
            let (state, expected) = (tunnel.state(), &expected[number]);
            let what = format!("{what} of file {number}");
            // A daemon cannot forget an endpoint without forgetting the session too.
            assert_same(&without_endpoints(&state), &without_endpoints(expected), &what);
            let mut endpoints = expected.iter().filter(|one| one.contains("Endpoint"));
            assert!(endpoints.all(|one| state.contains(one)), "{what}: {state:#?}");
            let is_second = what.starts_with("second");
            assert!(!is_second || asked().is_err(), "nothing for resolvconf after {before:?}");
        }
    }
}
