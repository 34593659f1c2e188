//! Debian's Prometheus scrapes a hub; the alert rules are right, and every query of the dashboard
//! returns data. `scripts/stress` downloads it.

use std::path::{Path, PathBuf};

use crate::harness::{Backend, Lab, eventually, ping, ping_until_answered, seconds};
use crate::up::hub::Hub;

/// A program of Debian's package.
fn program(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    target.join("tools/prometheus/usr/bin").join(name)
}

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging/prometheus").join(name)
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn prometheus_reads_a_hub() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Uring);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    hub.write(&set.file("# wg-bounce: metrics = :9586\n"));
    let _processes = [hub.up(), alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let run = |line: &str| hub.namespace.run(line);
    let promtool = program("promtool");
    let promtool = promtool.display();
    run(&format!("{promtool} check rules {}", packaged("alerts.yml").display()));
    run(&format!("{promtool} check config {}", packaged("prometheus.yml").display()));

    let directory = lab.file("prometheus");
    std::fs::create_dir(&directory).expect("the lab's directory is writable");
    let config = std::fs::read_to_string(packaged("prometheus.yml")).expect("a file");
    let config = config.replace("scrape_interval: 15s", "scrape_interval: 1s");
    std::fs::write(directory.join("prometheus.yml"), config).expect("a writable directory");
    std::fs::copy(packaged("alerts.yml"), directory.join("alerts.yml")).expect("copied");
    let flow = alice.namespace.spawn(&lab, "ping -q -i 0.01 10.77.0.3");
    let line = format!(
        "env {} --config.file={directory}/prometheus.yml --storage.tsdb.path={directory}/data \
         --web.listen-address=127.0.0.1:9090",
        program("prometheus").display(),
        directory = directory.display()
    );
    let _server = hub.namespace.spawn(&lab, &line);
    // A packet that is dropped.
    alice.namespace.run("ip address add 10.66.0.1/32 dev out0");
    let lose = || ping(&alice.namespace, "10.77.0.3", "-c 1 -W 1 -I 10.66.0.1");
    let query = |expression: &str| {
        let mut command = hub.namespace.command(&promtool.to_string());
        let output =
            command.args(["query", "instant", "http://127.0.0.1:9090", expression]).output();
        let output = output.expect("promtool runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    lose();
    eventually(seconds(20), "a scrape", || query("up").contains("=> 1 @"));
    let dashboard = std::fs::read_to_string(packaged("dashboard.json")).expect("a file");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("a list");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("a list"));
    let mut count = 0;
    for target in targets {
        let expression = target["expr"].as_str().expect("a query");
        // As Grafana fills it in.
        let expression = expression
            .replace("$__rate_interval", "10s")
            .replace("=~\"$instance\"", "=~\".+\"")
            .replace("=~\"$interface\"", "=~\".+\"");
        eventually(seconds(20), &expression, || {
            lose();
            query(&expression).contains("=>")
        });
        count += 1;
    }
    assert!(count > 10, "{count} queries");
    assert!(query("wireguard_peer_up{friendly_name=\"alice\"}").contains("=> 1 @"));
    assert!(!query("ALERTS{alertname=\"WgBounceDown\"}").contains("=>"), "no alert");
    drop(flow);
}
