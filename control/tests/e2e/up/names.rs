//! Host names in endpoints, with a name server of the test's own.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use super::Tunnel;
use crate::harness::{
    Backend, KeyPair, Lab, Threads, eventually, ping, ping_until_answered, seconds,
};

/// The divisor of all intervals: a handshake is overdue after 6.75 s, an endpoint has 0.75 s.
const DIVISOR: u32 = 20;

/// The addresses of each host; others do not exist. Without the host `.`, the server fails.
type Zone = Arc<Mutex<HashMap<String, Vec<IpAddr>>>>;

/// The response to a DNS query (RFC 1035 §4) for A or AAAA records.
fn respond(query: &[u8], zone: &HashMap<String, Vec<IpAddr>>) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).to_lowercase());
        at += 1 + length;
    }
    let is_v4 = query[at + 1..at + 3] == [0, 1];
    let addresses = zone.get(&labels.join("."));
    let code = match (zone.contains_key("."), addresses) {
        (false, _) => 2,
        (true, None) => 3,
        (true, Some(_)) => 0,
    };
    let addresses: Vec<_> =
        addresses.into_iter().flatten().filter(|one| one.is_ipv4() == is_v4).collect();
    let mut response = query[..at + 5].to_vec();
    // A recursive answer, one question, no further records.
    response[2..12].copy_from_slice(&[
        0x81,
        0x80 | code,
        0,
        1,
        0,
        addresses.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    for address in addresses {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let kind = if is_v4 { 1 } else { 28 };
        // The name of the question; class IN; no time to live.
        response.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, bytes.len() as u8]);
        response.extend(bytes);
    }
    response
}

fn serve(socket: &UdpSocket, zone: &Zone) {
    let mut buffer = [0; 512];
    let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
    let response = respond(&buffer[..length], &zone.lock().expect("not poisoned"));
    let _ = socket.send_to(&response, from);
}

/// `up` starts while the name server fails, takes the address once there is one, goes on to the
/// next one if it is silent, and follows a record that changes, also to the other IP version.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_host_name_is_followed() {
    let backend = Backend::Mmsg;
    let lab = Lab::new();
    let (hub, client) = (lab.namespace("hub"), lab.namespace("client"));
    lab.link((&hub, "client"), (&client, "out0"), 1500);
    for line in ["192.0.2.1/24", "192.0.2.3/24", "2001:db8::1/64"] {
        hub.run(&format!("ip address add {line} dev client"));
    }
    client.run("ip address add 192.0.2.2/24 dev out0");
    client.run("ip address add 2001:db8::2/64 dev out0");
    let keys = [KeyPair::new(), KeyPair::new()];
    let hub = Tunnel::new(&lab, &hub, "hub", backend);
    hub.write(&format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.77.0.1/24\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.2/32\n",
        keys[0].private(),
        keys[1].public()
    ));
    let client = Tunnel::new(&lab, &client, "client", backend);
    client.write(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.2/24\n[Peer] # the hub\nPublicKey = {}\n\
         AllowedIPs = 10.77.0.0/24\nEndpoint = hub.example:51820\nPersistentKeepalive = 1\n",
        keys[1].private(),
        keys[0].public()
    ));
    let zone = Zone::default();
    let set = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|one| one.parse().expect("an address")).collect();
        let hosts = [("hub.example".to_owned(), addresses), (".".to_owned(), Vec::new())];
        *zone.lock().expect("not poisoned") = HashMap::from(hosts);
    };
    let socket = client.namespace.udp_socket("127.0.0.1:53");
    socket.set_read_timeout(Some(seconds(1) / 10)).expect("set");
    let mut threads = Threads::default();
    let of_server = Arc::clone(&zone);
    threads.repeat(move || serve(&socket, &of_server));
    let resolv_conf = lab.file("resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("ours");

    let mut of_hub = hub.start(&format!("WG_BOUNCE_TEST_TIMERS={DIVISOR}"));
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv_conf.display());
    let mut of_client = client.start_under(
        &["unshare", "--mount", "sh", "-c", &script, "sh"],
        &format!("WG_BOUNCE_TEST_TIMERS={DIVISOR}"),
    );
    for process in [&mut of_hub, &mut of_client] {
        eventually(seconds(10), "it is up", || {
            assert!(!process.has_ended(), "it ended: {}", process.output());
            process.output().contains(" is up, from ")
        });
    }
    assert!(of_client.output().contains("the hub: cannot resolve hub.example: "));
    let endpoint = || client.namespace.run(&format!("wg show {} endpoints", client.interface));
    assert!(endpoint().contains("(none)"), "{}", endpoint());

    set(&["192.0.2.1"]);
    ping_until_answered(&client.namespace, "10.77.0.1");
    let log = of_client.output();
    assert_eq!(log.matches("cannot resolve").count(), 1, "said once: {log}");
    // Another record does not matter to a peer that speaks.
    set(&["192.0.2.9"]);
    assert_eq!(ping(&client.namespace, "10.77.0.1", "-c 40 -i 0.2").1, 40);
    assert!(endpoint().contains("192.0.2.1:51820"), "{}", endpoint());

    // The hub moves: of its two addresses the first is silent.
    hub.namespace.run("ip address del 192.0.2.1/24 dev client");
    hub.namespace.run("ip address add 192.0.2.3/24 dev client");
    set(&["192.0.2.9", "192.0.2.3"]);
    let is_at = |address: SocketAddr| {
        eventually(seconds(30), &format!("the hub is found at {address}"), || {
            let is_found = endpoint().contains(&address.to_string());
            is_found && ping(&client.namespace, "10.77.0.1", "-c 1 -W 0.3").1 == 1
        });
    };
    is_at(SocketAddr::from(([192, 0, 2, 3], 51820)));
    hub.namespace.run("ip address del 192.0.2.3/24 dev client");
    set(&["2001:db8::1"]);
    is_at(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 51820)));
}
