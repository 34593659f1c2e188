//! `wg-quick` with wg-bounce as its userspace implementation.

use crate::harness::{
    ALICE, Backend, Family, HUB, KeyPair, Lab, Namespace, Options, Program, Relay, eventually,
    ping, ping_until_answered, seconds, socket_path,
};

/// Runs `wg-quick VERB FILE`; the file must be named after the interface.
#[track_caller]
fn wg_quick(namespace: &Namespace, backend: Backend, verb: &str, file: &str) {
    let line = format!(
        "env WG_QUICK_USERSPACE_IMPLEMENTATION={} WG_BOUNCE_IO={} WG_BOUNCE_WORKERS=2 \
         wg-quick {verb} {file}",
        Program::under_test().to_str().expect("UTF-8"),
        backend.name(),
    );
    namespace.run(&line);
}

/// A client with addresses and routes in both families, an MTU, hooks and its own routing table.
fn a_client_goes_up_and_down(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let hub = &relay.hub;
    let (client, interface) = (relay.lab.namespace("client"), relay.lab.interface("q"));
    relay.lab.link((&hub.namespace, "client"), (&client, "out0"), 1500);
    hub.namespace.run("ip address add 192.168.66.1/24 dev client");
    client.run("ip address add 192.168.66.2/24 dev out0");
    client.run("ip route add default via 192.168.66.1");

    let (file, mark) = (file(&relay.lab, &interface), relay.lab.file("mark"));
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.2/24, fd77::2/64\nMTU = 1380\n\
         Table = 123\nPostUp = touch {mark}\nPostDown = rm {mark}\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.0/24, 10.99.0.0/16, fd77::/64, fd99::/64\n\
         Endpoint = 192.168.66.1:51820\n",
        relay.alice.key.private(),
        hub.key.public(),
        mark = mark.display(),
    );
    std::fs::write(&file, text).expect("the lab's directory is writable");
    for _ in 0..2 {
        wg_quick(&client, backend, "up", &file);
        assert!(client.run(&format!("ip link show {interface}")).contains("mtu 1380"));
        assert!(client.run("ip route show table 123").contains("10.99.0.0/16"));
        assert!(client.run("ip -6 route show table 123").contains("fd99::/64"));
        assert!(mark.exists(), "PostUp ran");
        for family in Family::BOTH {
            ping_until_answered(&client, HUB.inner(family));
        }
        wg_quick(&client, backend, "down", &file);
        assert!(!mark.exists(), "PostDown ran");
        assert!(!client.attempt(&format!("ip link show {interface}")).is_ok());
        eventually(seconds(5), "the daemon exits", || {
            !socket_path(&interface).exists() && client.processes().is_empty()
        });
    }
}

/// `AllowedIPs = 0.0.0.0/0, ::/0`, for which wg-quick sets up policy routing with a mark.
fn all_traffic_through_the_tunnel(backend: Backend) {
    let relay = Relay::new(&Options::new(backend));
    let hub = &relay.hub;
    hub.namespace.run("ip address add 203.0.113.77/32 dev lo");
    hub.namespace.run("ip address add 2001:db8:d::77/128 dev lo");
    let client = &relay.alice.namespace;
    client.run("ip route add default via 192.0.2.1");
    relay.alice.signal(nix::sys::signal::Signal::SIGTERM);
    let interface = relay.lab.interface("q");
    let file = file(&relay.lab, &interface);
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.2/32, fd77::2/128\nSaveConfig = true\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = {}\n",
        relay.alice.key.private(),
        hub.key.public(),
        ALICE.hub(Family::V4),
    );
    std::fs::write(&file, text).expect("the lab's directory is writable");
    wg_quick(client, backend, "up", &file);
    for target in ["203.0.113.77", "2001:db8:d::77", HUB.inner(Family::V4)] {
        ping_until_answered(client, target);
        assert_eq!(ping(client, target, "-c 10 -i 0.05"), (10, 10), "{target}");
    }
    client.run(&format!("wg set {interface} peer {} persistent-keepalive 21", hub.key.public()));
    wg_quick(client, backend, "down", &file);
    let saved = std::fs::read_to_string(&file).expect("wg-quick keeps the file");
    assert!(saved.contains("PersistentKeepalive = 21"), "SaveConfig: {saved}");
    assert!(saved.contains("10.77.0.2/32"), "SaveConfig: {saved}");
}

/// A path for the configuration file of `interface`.
fn file(lab: &Lab, interface: &str) -> String {
    let directory = lab.file("quick");
    std::fs::create_dir(&directory).expect("the lab's directory is writable");
    directory.join(format!("{interface}.conf")).to_str().expect("UTF-8").to_owned()
}

/// The files in scripts/examples, with their placeholders filled in: two clients reach each other
/// through the hub.
fn the_example_files_work(backend: Backend) {
    let lab = Lab::new();
    let [hub, alice, bob] = [(); 3].map(|()| KeyPair::new());
    let hub_file = fill(&example("hub"), &[hub.private(), alice.public(), bob.public()]);
    let client = example("client");
    let bobs = client.replace("10.77.0.2/24, fd77::2/64", "10.77.0.3/24, fd77::3/64");
    assert_ne!(client, bobs, "the example has the addresses of the first client");
    let alice_file = fill(&client, &[alice.private(), hub.public()]);
    let bob_file = fill(&bobs, &[bob.private(), hub.public()]);

    let hub = lab.namespace("hub");
    hub.run("ip address add 192.0.2.1/32 dev lo");
    let [alice, bob] = [("alice", "198.51.100"), ("bob", "203.0.113")].map(|(role, network)| {
        let client = lab.namespace(role);
        lab.link((&hub, role), (&client, "out0"), 1500);
        hub.run(&format!("ip address add {network}.1/24 dev {role}"));
        client.run(&format!("ip address add {network}.2/24 dev out0"));
        client.run(&format!("ip route add default via {network}.1"));
        client
    });
    let nodes = [("hub", &hub, hub_file), ("alice", &alice, alice_file), ("bob", &bob, bob_file)]
        .map(|(role, namespace, text)| {
            let interface = lab.interface(role);
            let file = file(&lab, &interface);
            std::fs::write(&file, text).expect("the lab's directory is writable");
            wg_quick(namespace, backend, "up", &file);
            assert!(socket_path(&interface).exists(), "{role} runs wg-bounce");
            (namespace, file)
        });
    for (from, targets) in [
        (&alice, ["10.77.0.1", "10.77.0.3", "fd77::3"]),
        (&bob, ["fd77::1", "10.77.0.2", "fd77::2"]),
    ] {
        for target in targets {
            ping_until_answered(from, target);
            assert_eq!(ping(from, target, "-c 10 -i 0.05"), (10, 10), "{target}");
        }
    }
    for (namespace, file) in nodes {
        wg_quick(namespace, backend, "down", &file);
    }
}

/// A file in scripts/examples.
fn example(name: &str) -> String {
    let path = format!("{}/../scripts/examples/{name}.conf", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Replaces the placeholders `<...>` outside comments with `keys`, in order.
fn fill(example: &str, keys: &[String]) -> String {
    let mut keys = keys.iter();
    let mut text = String::new();
    for line in example.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once('<') {
            Some((name, _)) => text += &format!("{name}{}", keys.next().expect("a key is left")),
            None => text += line,
        }
        text.push('\n');
    }
    assert_eq!(keys.next(), None, "the example has a placeholder for each key");
    text
}

on_both_backends!(
    a_client_goes_up_and_down,
    all_traffic_through_the_tunnel,
    the_example_files_work
);
