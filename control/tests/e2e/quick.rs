//! `wg-quick`, told to use our daemon.

use crate::harness::{
    ALICE, Backend, Family, HUB, Lab, Namespace, Options, Program, Relay, eventually, ping,
    ping_until_answered, seconds, socket_path,
};

/// Runs `wg-quick VERB FILE`; it insists on a file named after the interface.
#[track_caller]
fn wg_quick(namespace: &Namespace, backend: Backend, verb: &str, file: &str) -> String {
    let io = if backend == Backend::Uring { "uring" } else { "mmsg" };
    let binary = Program::under_test();
    let line = format!(
        "env WG_QUICK_USERSPACE_IMPLEMENTATION={} WG_BOUNCE_IO={io} WG_BOUNCE_WORKERS=2 \
         wg-quick {verb} {file}",
        binary.to_str().expect("UTF-8")
    );
    let outcome = namespace.attempt(&line);
    assert!(outcome.is_ok(), "{outcome:#?}");
    outcome.stderr
}

/// A client's file: address and route in both families, MTU, a hook, a table of its own.
fn up_and_down(backend: Backend) {
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
        assert!(mark.exists(), "PostUp has run");
        for family in Family::BOTH {
            ping_until_answered(&client, HUB.inner(family));
        }
        wg_quick(&client, backend, "down", &file);
        assert!(!mark.exists(), "PostDown has run");
        assert!(!client.attempt(&format!("ip link show {interface}")).is_ok());
        eventually(seconds(5), "the daemon ends", || {
            !socket_path(&interface).exists() && client.processes().is_empty()
        });
    }
}

/// `AllowedIPs = 0.0.0.0/0, ::/0`: wg-quick's own policy routing with a mark.
fn everything_through_the_tunnel(backend: Backend) {
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
    let saved = std::fs::read_to_string(&file).expect("it is still there");
    assert!(saved.contains("PersistentKeepalive = 21"), "SaveConfig: {saved}");
    assert!(saved.contains("10.77.0.2/32"), "SaveConfig: {saved}");
}

/// The file that wg-quick wants for `interface`.
fn file(lab: &Lab, interface: &str) -> String {
    let directory = lab.file("quick");
    std::fs::create_dir(&directory).expect("the lab's directory is writable");
    directory.join(format!("{interface}.conf")).to_str().expect("UTF-8").to_owned()
}

on_both_backends!(up_and_down, everything_through_the_tunnel);
