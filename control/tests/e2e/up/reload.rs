//! A hub with two clients: reloaded, saved, and with a default route.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::hub::Hub;
use super::{Tunnel, assert_same, host_with_uplink};
use crate::harness::{
    Backend, Counter, KeyPair, Lab, Program, Threads, holds_for, ping, ping_until_answered, seconds,
};

/// A reload keeps sessions, counters and flows; a wrong file changes nothing; hooks that go are
/// undone.
fn a_reload_is_not_noticed(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    let _processes = [hub.up(), alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let show = |field: &str| {
        let text = hub.namespace.run(&format!("wg show {} {field}", hub.interface));
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| set.keys.iter().any(|key| line.contains(&key.public())));
        lines.sort();
        lines
    };
    let before = (show("latest-handshakes"), show("endpoints"));
    let guest = KeyPair::new();
    std::thread::scope(|scope| {
        let client = alice.namespace.clone();
        let flow = scope.spawn(move || ping(&client, "10.77.0.3", "-c 1500 -i 0.002 -s 1000"));
        for number in 0..12 {
            let more = match number % 4 {
                0 => format!("Address = 10.78.0.{number}/24\nMTU = 1400\n"),
                1 => "FwMark = 77\nDNS = \n".to_owned(),
                2 => "# wg-bounce: relay = kernel\n".to_owned(),
                _ => String::new(),
            };
            let mut text = set.file(&more);
            if number % 3 == 0 {
                let key = guest.public();
                text += &format!("[Peer]\nPublicKey = {key}\nAllowedIPs = 10.99.{number}.0/24\n");
            }
            hub.write(&text);
            let is_told = hub.run("reload").contains("take effect at the next start");
            assert_eq!(is_told, [2, 3].contains(&(number % 4)), "{text}");
        }
        assert_eq!(flow.join().expect("ping runs"), (1500, 1500), "no packet is lost");
    });
    assert_eq!((show("latest-handshakes"), show("endpoints")), before);

    let state = hub.state();
    hub.write(&set.file("Adress = 10.1.0.1/24\nMTU = x\n"));
    let outcome = hub.attempt("reload");
    let reason = ":5:1: error: unknown setting \"Adress\": did you mean Address? (1 more";
    assert!(!outcome.is_ok() && outcome.stderr.contains(reason), "{outcome:?}");
    // The kernel refuses this address; the rest of the file is not applied either.
    hub.write(&set.file("Address = 10.9.0.1/24, 224.0.0.1/24, ff02::7/64\nMTU = 1300\n"));
    let outcome = hub.attempt("reload");
    let reason = "the earlier configuration is in force";
    assert!(!outcome.is_ok() && outcome.stderr.contains(reason), "{outcome:?}");
    assert_same(&hub.state(), &state, "a wrong file");

    let log = lab.file("hooks");
    let hook = |time: &str, word: &str| format!("{time} = echo {word} >> {}\n", log.display());
    let kept = [hook("PostUp", "kept-up"), hook("PostDown", "kept-down")].concat();
    let first = [hook("PostUp", "first-up"), hook("PostDown", "first-down")].concat();
    let second = [hook("PreUp", "second-pre"), hook("PostUp", "second-up")].concat();
    for (hooks, expected) in [
        (kept.clone() + &first, "kept-up first-up"),
        (kept.clone() + &first, ""),
        (kept.clone() + &second, "second-pre first-down second-up"),
        (kept.clone(), ""),
        (String::new(), "kept-down"),
    ] {
        let _ = fs::remove_file(&log);
        hub.write(&set.file(&hooks));
        hub.run("reload");
        let ran = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(ran.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{hooks}");
    }
}

/// A file that cannot be applied undoes no hook of the earlier one, and its own leave nothing.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_failed_reload_keeps_the_hooks() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Mmsg);
    let hub = &set.hub;
    let log = lab.file("hooks");
    let hook = |time: &str, word: &str| format!("{time} = echo {word} >> {}\n", log.display());
    hub.write(&set.file(&(hook("PostUp", "switch-on") + &hook("PostDown", "switch-off"))));
    let _process = hub.up();
    let new = hook("PreUp", "new-pre") + &hook("PostUp", "new-up") + &hook("PostDown", "new-down");
    // Not the address of a host.
    hub.write(&set.file(&(new.clone() + "Address = ff02::7/64\n")));
    let outcome = hub.attempt("reload");
    assert!(outcome.stderr.contains("the earlier configuration is in force"), "{outcome:?}");
    hub.write(&set.file(&(new + "PreUp = false\n")));
    assert!(!hub.attempt("reload").is_ok());
    let ran = fs::read_to_string(&log).expect("hooks ran");
    let ran = ran.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(ran, "switch-on new-pre new-down new-pre new-down");
    // A hook cannot ask the process that waits for it.
    let program = Program::under_test();
    let ask = format!("PostUp = {} save {}\n", program.display(), hub.file.display());
    hub.write(&set.file(&ask));
    let outcome = hub.attempt("reload");
    assert!(!outcome.is_ok() && outcome.stderr.contains("applied, but PostUp"), "{outcome:?}");
}

/// What was lost meanwhile comes back by a reload: rules, the table against leaks, routes.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_reload_repairs_the_default_route() {
    let lab = Lab::new();
    let host = host_with_uplink(&lab);
    let first = Tunnel::new(&lab, &host, "first", Backend::Mmsg);
    let second = Tunnel::new(&lab, &host, "second", Backend::Mmsg);
    let file = |network: u8, more: &str| {
        format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.{network}.0.1/24\n{more}[Peer]\n\
             PublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.1:9\n",
            KeyPair::new().private(),
            KeyPair::new().public()
        )
    };
    let text = file(1, "");
    first.write(&text);
    let _of_first = first.up();
    let state = first.state();
    let guard = || {
        let rules = host.run("nft list ruleset");
        assert!(rules.contains(&format!("iifname != \"{}\" ip daddr", first.interface)), "{rules}");
    };
    guard();
    for line in [
        "nft flush ruleset",
        "ip -4 rule del table main suppress_prefixlength 0",
        "ip -6 rule del not fwmark 51820 table 51820",
        "ip -4 route del default table 51820",
    ] {
        host.run(line);
        first.run("reload");
        assert_same(&first.state(), &state, line);
        guard();
    }
    // Another tunnel comes and goes: its rules do, and no others.
    second.write(&file(2, ""));
    let before = first.state();
    let _of_second = second.up();
    let way = || host.run("ip route get 192.0.2.77");
    assert!(way().contains("dev out0"), "the uplink's own network: {}", way());
    second.run("down");
    assert_same(&first.state(), &before, "after the second tunnel");

    // With another mark, nothing leaves in the clear meanwhile.
    let leaks = Counter::new(&host, "output", "oifname \"out0\" ip daddr 203.0.113.0/24");
    let socket = host.udp_socket("0.0.0.0:0");
    let mut threads = Threads::default();
    threads.repeat(move || {
        // Without a way, as between two rules, it is refused.
        let _ = socket.send_to(&[0; 64], "203.0.113.9:9");
    });
    for mark in 0..8 {
        first.write(&text.replace("[Peer]", &format!("FwMark = {}\n[Peer]", 60 + mark % 2)));
        first.run("reload");
    }
    drop(threads);
    assert_eq!(leaks.packets(), 0);
}

/// A file with a default route has rules of the firewall against leaks. They do not concern peers:
/// packets between them are relayed directly.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn peers_of_a_hub_with_an_exit_are_relayed_directly() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Uring);
    let exit = format!(
        "[Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0\nPersistentKeepalive = 1\n\
         Endpoint = 192.168.1.77:1\n",
        KeyPair::new().public()
    );
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    hub.write(&(set.file("") + &exit));
    let processes = [hub.up(), alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let answer = hub.namespace.run(&format!(
        "{} explain 10.77.0.2 10.77.0.3 --on {}",
        Program::under_test().display(),
        hub.interface
    ));
    assert!(answer.contains("direct"), "{answer}\n{}", processes[0].output());
    assert!(hub.namespace.run("nft list ruleset").contains("wg-bounce-"));
    // A stranger who sends to the address of the tunnel from outside of it is not answered.
    let stranger = &alice.namespace;
    stranger.run("ip route add 10.77.0.1/32 via 192.168.1.1");
    assert_eq!(ping(stranger, "10.77.0.1", "-c 3 -i 0.05 -W 1 -I 192.168.1.2").1, 0);
    hub.namespace.run(&format!("nft delete table inet wg-bounce-{}", hub.interface));
    assert_eq!(ping(stranger, "10.77.0.1", "-c 3 -i 0.05 -W 1 -I 192.168.1.2").1, 3);
}

/// `save` and SaveConfig write what `wg set` has changed, and keep names and comments.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn saving_keeps_names_and_comments() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Mmsg);
    let (hub, alice) = (&set.hub, &set.clients[0]);
    let mut processes = [hub.up(), alice.up()];
    ping_until_answered(&alice.namespace, "10.77.0.1");
    let text = || fs::read_to_string(&hub.file).expect("a text");
    let endpoint = hub.namespace.run(&format!("wg show {} endpoints", hub.interface));
    let endpoint = endpoint.lines().find(|line| line.contains("192.168.1.2")).expect("of alice");
    let endpoint = endpoint.split('\t').next_back().expect("two words");
    hub.run("save");
    let with_endpoint = set.file("").replace(
        "AllowedIPs = 10.77.0.2/32\n",
        &format!("AllowedIPs = 10.77.0.2/32\nEndpoint = {endpoint}\n"),
    );
    assert_eq!(text(), with_endpoint, "alice has been heard from");
    hub.run("save");
    assert_eq!(text(), with_endpoint, "nothing else to save");
    let [_, alices, _] = &set.keys;
    let roamed = format!("peer {} endpoint 192.168.1.2:7", alices.public());
    hub.namespace.run(&format!("wg set {} {roamed}", hub.interface));
    hub.run("reload");
    let endpoints = hub.namespace.run(&format!("wg show {} endpoints", hub.interface));
    assert!(endpoints.contains("192.168.1.2:7\n"), "the file is as it was saved: {endpoints}");
    let back = roamed.replace("192.168.1.2:7", endpoint);
    hub.namespace.run(&format!("wg set {} {back}", hub.interface));

    hub.write(&with_endpoint.replace("[Interface]\n", "[Interface]\nSaveConfig = true\n"));
    hub.run("reload");
    let new = KeyPair::new().public();
    let [_, _, bob] = &set.keys;
    for line in [
        format!("peer {} remove", bob.public()),
        format!("peer {new} allowed-ips 10.99.0.0/16,fd99::/64 persistent-keepalive 25"),
        "listen-port 51821".to_owned(),
    ] {
        hub.namespace.run(&format!("wg set {} {line}", hub.interface));
    }
    hub.run("down");
    assert_eq!(processes[0].exit_code(), Some(0));
    let saved = text();
    assert!(saved.contains("# The people.\n[Peer]\n# Name = alice\n"), "{saved}");
    assert!(saved.contains("SaveConfig = true\n") && saved.contains("ListenPort = 51821\n"));
    assert!(!saved.contains(&bob.public()), "{saved}");
    let section = format!(
        "[Peer]\nPublicKey = {new}\nAllowedIPs = 10.99.0.0/16, fd99::/64\n\
         PersistentKeepalive = 25\n"
    );
    assert!(saved.ends_with(&section), "{saved}");
    let mode = fs::metadata(&hub.file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    holds_for(seconds(1), "the client stays", || !processes[1].has_ended());
}

on_both_backends!(a_reload_is_not_noticed);
