//! `wg-bounce show`: names, rates, JSON, and the exit code for monitoring.

use std::fs;

use super::hub::Hub;
use crate::harness::{Backend, Lab, Program, ping, ping_until_answered};

/// The state of a hub, as text and as JSON; peers' names in it and in the log.
fn a_hub_is_shown(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    let text = set.file("# wg-bounce: log-level = verbose\n# wg-bounce: relay = direct\n");
    hub.write(&text);
    let process = hub.up();
    let mut clients = [alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let show = |arguments: &str| {
        let line = format!("{} show {arguments}", Program::under_test().display());
        hub.namespace.attempt(&line)
    };
    let [_, key, _] = &set.keys;
    let client = alice.namespace.clone();
    let flow = std::thread::spawn(move || ping(&client, "10.77.0.3", "-c 80 -i 0.02 -s 1000"));
    let text = show(&hub.interface).expect_ok();
    flow.join().expect("ping runs");
    for expected in [
        &format!("interface: {}\n  public key: {}\n", hub.interface, set.keys[0].public()),
        "  listening port: 51820\n  state: up\n",
        "  relay: IPv4 direct, IPv6 dropped (forwarding is off: ",
        "% direct, ",
        &format!("peer: {} (alice)\n  endpoint: 192.168.1.2:", key.public()),
        "  allowed ips: 10.77.0.2/32\n  latest handshake: ",
        "bit/s)",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let json = show(&format!("{} --json", hub.interface)).expect_ok();
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["relay"]["ipv4"], "direct");
    let peers = report["peers"].as_array().expect("a list");
    let names: Vec<_> = peers.iter().map(|peer| peer["name"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["alice", "bob"], "in the order of the file");
    assert!(peers[0]["received"].as_u64() > Some(80_000), "{json}");
    let log = process.output();
    assert!(log.contains(" alice (192.168.1.2:"), "a name in the log: {log}");

    let add = format!(
        "{} add-peer carol --on {} --endpoint 192.168.1.1 --out {}",
        Program::under_test().display(),
        hub.file.display(),
        lab.file("carol").display()
    );
    hub.namespace.run(&add);
    assert!(show(&hub.interface).expect_ok().contains(" (carol)\n"));
    hub.write(&fs::read_to_string(&hub.file).expect("a text").replace("carol", "caroline"));
    hub.run("reload");
    assert!(show(&format!("{} --interval 0", hub.interface)).expect_ok().contains(" (caroline)\n"));
    let all = show("--interval 0").expect_ok();
    for tunnel in [hub, alice, bob] {
        assert!(all.contains(&format!("interface: {}\n", tunnel.interface)), "{all}");
    }

    let check = format!("{} --check", hub.interface);
    assert_eq!(show(&check).expect_ok(), "");
    hub.namespace.run(&format!("ip link set {} down", hub.interface));
    let down = show(&check);
    assert!(!down.is_ok() && down.stderr.contains("is down"), "{down:?}");
    hub.run("down");
    let gone = show(&check);
    assert!(!gone.is_ok() && gone.stderr.contains("does not run"), "{gone:?}");
    assert!(clients.iter_mut().all(|client| !client.has_ended()));
}

on_both_backends!(a_hub_is_shown);
