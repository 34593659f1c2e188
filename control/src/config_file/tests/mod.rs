//! Files with problems, and what is said about them.

mod fuzz;

use std::fs;
use std::path::Path;

use super::lines::Place;
use super::model::{HookTime, Placed, Table};
use super::overlaps;
use super::problem::Severity;
use super::read::read;
use super::strip::strip;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config_file/tests/corpus");

/// The problems of each file are those in its comments `#!`.
#[test]
fn files_have_the_problems_that_they_name() {
    let mut files: Vec<_> = fs::read_dir(Path::new(CORPUS))
        .expect("the folder is there")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).expect("a text");
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let (config, mut problems) = read(&text);
        overlaps::check(&config, &mut problems);
        problems.sort_by_key(|problem| problem.place);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let path = path.display();
        assert_eq!(found, expected, "{path}:\n{}", found.join("\n"));
    }
}

#[test]
fn every_setting_is_read() {
    let text = fs::read_to_string(format!("{CORPUS}/hub.conf")).expect("a text");
    let (config, problems) = read(&text);
    assert_eq!(problems, []);
    let interface = &config.interface;
    assert_eq!(interface.name.as_deref(), Some("public-server1.example-vpn.tld"));
    assert!(interface.private_key.is_some());
    assert_eq!(interface.listen_port.map(|port| port.value), Some(51820));
    assert_eq!((interface.fwmark, interface.mtu), (Some(0xca6c), Some(1420)));
    let networks = |list: &[Placed<ipnet::IpNet>]| {
        list.iter().map(|one| one.value.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(networks(&interface.addresses), "10.0.0.1/24 fd77::1/64");
    assert_eq!(interface.dns.len(), 2);
    assert_eq!(interface.search_domains, ["example.org"]);
    assert_eq!((interface.table, interface.save), (Table::Auto, false));
    let hooks: Vec<_> =
        interface.hooks.iter().map(|hook| (hook.at, hook.command.as_str())).collect();
    assert_eq!(hooks[0], (HookTime::PreUp, "sysctl -w net.ipv4.ip_forward=1"));
    assert_eq!(
        hooks[1],
        (HookTime::PostUp, "iptables -A FORWARD -i %i -o %i -j ACCEPT; echo \"a = b\"")
    );
    assert_eq!(hooks.len(), 3);
    let option = &config.options[0];
    assert_eq!((option.name.as_str(), option.value.as_str()), ("relay", "direct"));
    assert_eq!(option.place, Place { line: 6, column: 14 });

    let peers: Vec<_> = config
        .peers
        .iter()
        .map(|peer| (peer.name.as_deref().unwrap_or_default(), networks(&peer.allowed_ips)))
        .collect();
    let expected = [
        ("home-server.example-vpn.dev", "10.0.0.3/32 192.168.0.0/24"),
        ("laptop", "10.0.0.4/32 fd77::4/128"),
        ("phone of Bob", "0.0.0.0/0 ::/0"),
    ];
    assert_eq!(peers, expected.map(|(name, networks)| (name, networks.to_owned())));
    let endpoints = config.peers.iter().map(|peer| peer.endpoint.clone());
    let endpoints: Vec<_> = endpoints.flatten().map(|one| (one.host, one.port)).collect();
    let name = "home-server.example-vpn.dev".to_owned();
    assert_eq!(endpoints, [(name, 51820), ("2001:db8::1".to_owned(), 51820)]);
    let keepalives = config.peers.iter().map(|peer| peer.persistent_keepalive);
    assert_eq!(keepalives.collect::<Vec<_>>(), [None, Some(25), Some(0)]);
    assert!(config.peers[1].preshared_key.is_some());
}

#[test]
fn what_is_not_of_wg_is_left_out() {
    let text = "# one\n[interface] # two\nListenPort = 1\n address=10.0.0.1/24\nPostUp = a = b\n\
                [Peer]\nMTU = 3\n[Interface]\nSaveConfig = true\nFwMark = 2";
    let left = "# one\n[interface] # two\nListenPort = 1\n[Peer]\nMTU = 3\n[Interface]\n\
                FwMark = 2\n";
    assert_eq!(strip(text), left);
}

/// No text makes the reader panic, and no problem quotes a key.
#[test]
fn broken_texts_are_read_to_the_end() {
    let whole = fs::read_to_string(format!("{CORPUS}/hub.conf")).expect("a text");
    let key = whole.lines().find_map(|line| line.strip_prefix("PrivateKey = ")).expect("a key");
    for at in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
        for change in ["", "=", "#", "\n", "[", "ä", "/", ":", "\u{feff}"] {
            let text = format!("{}{change}{}", &whole[..at], &whole[at + 1..]);
            for problem in read(&text).1 {
                assert!(!problem.text.contains(&key[8..20]), "{}", problem.text);
            }
        }
        let (_, problems) = read(&whole[..at]);
        assert!(problems.iter().filter(|one| one.severity == Severity::Error).count() <= 2);
    }
}
