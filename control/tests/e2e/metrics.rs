//! `--metrics`: what Prometheus reads.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use crate::harness::{Backend, Lab, Namespace, ping_until_answered};
use crate::up::hub::Hub;

const ADDRESS: &str = "127.0.0.1:9586";

/// The response of the daemon in this namespace to a request.
fn ask(namespace: &Namespace, request: &str) -> String {
    let mut stream =
        namespace.enter(|| TcpStream::connect(ADDRESS)).expect("the daemon serves metrics");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it closes the connection");
    response
}

/// The value of a sample whose line begins like this.
fn value(metrics: &str, start: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no {start} in {metrics}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// A scrape has the peers by name, with the counters that `wg show` has, and the relay.
fn a_hub_is_measured(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    hub.write(&set.file("# wg-bounce: metrics = :9586\n"));
    let _processes = [hub.up(), alice.up(), bob.up()];
    for _ in 0..20 {
        ping_until_answered(&alice.namespace, "10.77.0.3");
    }
    let shown = || -> u64 {
        let text = hub.namespace.run(&format!("wg show {} transfer", hub.interface));
        let line = text.lines().find(|line| line.contains(&set.keys[1].public())).expect("alice");
        line.split('\t').nth(1).expect("received").parse().expect("a number")
    };
    let before = shown();
    let scrape = "GET /metrics HTTP/1.1\r\nHost: hub\r\n\r\n";
    let response = ask(&hub.namespace, scrape);
    let (head, metrics) = response.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0"));
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let labels = format!(
        "interface=\"{}\",public_key=\"{}\",allowed_ips=\"10.77.0.2/32\",friendly_name=\"alice\"",
        hub.interface,
        set.keys[1].public()
    );
    let received = value(metrics, &format!("wireguard_received_bytes_total{{{labels}}}"));
    assert!(received >= 20 * 128, "{received}");
    assert!((before..=shown()).contains(&received), "as wg shows it: {received}");
    assert_eq!(value(metrics, &format!("wireguard_peer_up{{{labels}}}")), 1);
    let handshake = hub.namespace.run(&format!("wg show {} latest-handshakes", hub.interface));
    let latest = value(metrics, &format!("wireguard_latest_handshake_seconds{{{labels}}}"));
    assert!(handshake.contains(&latest.to_string()), "{handshake}");
    assert!(metrics.contains("ip=\"4\",mode=\"direct\",reason=\"IPv4 direct"), "{metrics}");
    let relayed: u64 = (0..2)
        .map(|worker| {
            let labels = format!("interface=\"{}\",worker=\"{worker}\"", hub.interface);
            value(metrics, &format!("wg_bounce_relayed_packets_total{{{labels}}}"))
        })
        .sum();
    assert!(relayed >= 40, "echoes and replies: {relayed}");

    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("nonsense\r\n\r\n", "400"),
        (&format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(10_000)), "431"),
    ] {
        let response = ask(&hub.namespace, request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
    }
    // Clients that say nothing hold up the others as long as there are few of them.
    let silent: Vec<_> = (0..15)
        .map(|_| hub.namespace.enter(|| TcpStream::connect(ADDRESS)).expect("connected"))
        .collect();
    assert!(ask(&hub.namespace, scrape).starts_with("HTTP/1.1 200 OK\r\n"));
    drop(silent);
}

/// On a UNIX socket, without names. A place in use is a clear error.
fn another_place(backend: Backend) {
    let lab = Lab::new();
    let set = Hub::new(&lab, backend);
    let hub = &set.hub;
    let path = lab.file("metrics");
    let place = format!("# wg-bounce: metrics = unix:{}\n", path.display());
    hub.write(&set.file(&(place + "# wg-bounce: metrics-names = off\n")));
    let process = hub.up();
    let mut stream = UnixStream::connect(&path).expect("the daemon serves metrics");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it closes the connection");
    assert!(response.contains("wireguard_peer_up{") && !response.contains("friendly_name"));
    drop(process);

    let _taken = hub.namespace.enter(|| std::net::TcpListener::bind(ADDRESS)).expect("free");
    hub.write(&set.file("# wg-bounce: metrics = :9586\n"));
    let outcome = hub.attempt("up");
    let reason = "cannot serve metrics at http://127.0.0.1:9586/metrics: Address already in use";
    assert!(!outcome.is_ok() && outcome.stderr.contains(reason), "{outcome:?}");
}

on_both_backends!(a_hub_is_measured, another_place);
