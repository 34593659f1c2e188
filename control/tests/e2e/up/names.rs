//! Host names in endpoints, with a name server of the test's own.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use super::Tunnel;
use crate::harness::{
    Backend, Background, KeyPair, Lab, Namespace, Threads, eventually, ping, ping_until_answered,
    seconds,
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

/// A name server.
struct Server {
    zone: Zone,
    _threads: Threads,
}

impl Server {
    /// Starts one that fails, on this address.
    fn start(namespace: &Namespace, address: &str) -> Server {
        let socket = namespace.udp_socket(&format!("{address}:53"));
        socket.set_read_timeout(Some(seconds(1) / 10)).expect("set");
        let (zone, mut threads) = (Zone::default(), Threads::default());
        let of_thread = Arc::clone(&zone);
        threads.repeat(move || {
            let mut buffer = [0; 512];
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            let response = respond(&buffer[..length], &of_thread.lock().expect("not poisoned"));
            let _ = socket.send_to(&response, from);
        });
        Server { zone, _threads: threads }
    }

    /// From now on, `hub.example` has these addresses, and no other host exists.
    fn set(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|one| one.parse().expect("an address")).collect();
        let hosts = [("hub.example".to_owned(), addresses), (".".to_owned(), Vec::new())];
        *self.zone.lock().expect("not poisoned") = HashMap::from(hosts);
    }
}

/// Starts `wg-bounce up` with this name server, and waits until it is up.
fn up(lab: &Lab, tunnel: &Tunnel<'_>, server: &str) -> Background {
    let path = lab.file("resolv.conf");
    let text = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
    fs::write(&path, text).expect("the lab's directory is writable");
    let timers = format!("WG_BOUNCE_TEST_TIMERS={DIVISOR}");
    tunnel.up_with(&path, "/etc/resolv.conf", &timers)
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
    let server = Server::start(&client.namespace, "127.0.0.1");
    let set = |addresses: &[&str]| server.set(addresses);
    let _of_hub = up(&lab, &hub, "127.0.0.1");
    let of_client = up(&lab, &client, "127.0.0.1");
    assert!(of_client.output().contains("the hub: cannot resolve hub.example: "));
    let endpoint = || client.namespace.run(&format!("wg show {} endpoints", client.interface));
    assert!(endpoint().contains("(none)"), "{}", endpoint());

    set(&["192.0.2.1"]);
    ping_until_answered(&client.namespace, "10.77.0.1");
    let log = of_client.output();
    // The server may have changed between two questions of one look-up.
    assert!(log.matches("cannot resolve").count() <= 2, "each error is said once: {log}");
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

/// A default route waits for the address of its peer: the name server is beyond the uplink.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_default_route_waits_for_an_address() {
    let lab = Lab::new();
    let (client, router) = (lab.namespace("client"), lab.namespace("router"));
    lab.link((&client, "out0"), (&router, "client"), 1500);
    client.run("ip address add 192.0.2.2/24 dev out0");
    client.run("ip route add default via 192.0.2.1");
    router.run("ip address add 192.0.2.1/24 dev client");
    router.run("ip address add 198.51.100.53/32 dev lo");
    let client = Tunnel::new(&lab, &client, "up", Backend::Mmsg);
    client.write(&format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.2/24\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 0.0.0.0/0\nEndpoint = hub.example:51820\n",
        KeyPair::new().private(),
        KeyPair::new().public()
    ));
    let server = Server::start(&router, "198.51.100.53");
    let process = up(&lab, &client, "198.51.100.53");
    let warning = "the default route wait for the address of hub.example";
    assert!(process.output().contains(warning), "{}", process.output());
    let way = || client.namespace.run("ip route get 203.0.113.9");
    assert!(way().contains("dev out0"), "{}", way());
    server.set(&["203.0.113.1"]);
    let is_up = || way().contains(&format!("dev {}", client.interface));
    eventually(seconds(10), "the default route is there", is_up);
    client.run("down");
    assert!(way().contains("dev out0"), "{}", way());
}
