//! The five nodes of scripts/examples/five-nodes, by `wg-bounce up` alone: two public servers that
//! share one list of peers, and a home server, a laptop and a phone, each behind its own NAT.

use std::fs;
use std::path::Path;

use crate::harness::{
    Backend, Background, Iperf, IperfServer, KeyPair, Lab, Namespace, eventually, ping,
    ping_until_answered, seconds,
};
use crate::up::Tunnel;

/// Name, address inside the tunnel, and public address (servers only).
const NODES: [(&str, &str, Option<&str>); 5] = [
    ("public-server1", "10.0.0.1", Some("198.51.100.1")),
    ("public-server2", "10.0.0.2", Some("203.0.113.1")),
    ("home-server", "10.0.0.3", None),
    ("laptop", "10.0.0.4", None),
    ("phone", "10.0.0.5", None),
];
const ONE: usize = 0;
const TWO: usize = 1;
const HOME: usize = 2;
const LAPTOP: usize = 3;
const PHONE: usize = 4;

/// A node that is up.
struct Node<'a> {
    tunnel: Tunnel<'a>,
    namespace: Namespace,
    key: KeyPair,
    process: Background,
}

impl Node<'_> {
    fn show(&self, field: &str) -> String {
        self.namespace.run(&format!("wg show {} {field}", self.tunnel.interface))
    }

    fn of_peer(&self, field: &str, peer: &KeyPair) -> String {
        let text = self.show(field);
        let line = text.lines().find(|line| line.starts_with(&peer.public()));
        line.and_then(|line| line.split_once('\t')).map_or("", |(_, value)| value).to_owned()
    }

    fn set(&self, arguments: &str) {
        self.namespace.run(&format!("wg set {} {arguments}", self.tunnel.interface));
    }
}

/// All nodes, and the gateways of those behind NATs.
struct Network<'a> {
    lab: &'a Lab,
    nodes: Vec<Node<'a>>,
    /// NAT gateways with the number of their node.
    gateways: Vec<(usize, Namespace)>,
    internet: Namespace,
}

/// The public address of a node's gateway.
fn outside(node: usize) -> String {
    format!("198.18.{node}.2")
}

impl<'a> Network<'a> {
    fn new(lab: &'a Lab, backend: Backend) -> Network<'a> {
        let internet = lab.namespace("internet");
        internet.sysctl("net.ipv4.ip_forward=1");
        let mut network = Network { lab, nodes: Vec::new(), gateways: Vec::new(), internet };
        let keys = [(); NODES.len()].map(|()| KeyPair::new());
        let directory = lab.file("nodes");
        fs::create_dir(&directory).expect("the lab's directory is writable");
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).expect("the lab's directory is writable");
            path
        };
        write("laptop.key", &keys[LAPTOP].private());
        write("peers.conf", &fill("peers.conf", &keys, &directory));
        let addresses = NODES.iter().filter_map(|(name, _, public)| Some((name, (*public)?)));
        let hosts = addresses.map(|(name, address)| format!("{address} {name}.example-vpn.dev\n"));
        let hosts = write("hosts", &hosts.collect::<String>());
        for ((number, (name, _, public)), key) in NODES.iter().enumerate().zip(keys.clone()) {
            let namespace = network.lab.namespace(name);
            match public {
                Some(address) => network.attach(&namespace, name, address),
                None => {
                    let gateway = network.gateway(name);
                    network.attach(&gateway, name, &outside(number));
                    network.gateways.push((number, gateway.clone()));
                    network.join(number, &namespace, &gateway);
                }
            }
            let tunnel = Tunnel::new(lab, &namespace, &number.to_string(), backend);
            tunnel.write(&fill(&format!("{name}.conf"), &keys, &directory));
            if number == ONE {
                // A usual firewall of a hub, which the file opens.
                namespace.run("iptables -P FORWARD DROP");
            }
            // The servers are found in this file.
            let process = tunnel.up_with(&hosts, "/etc/hosts", "");
            network.nodes.push(Node { tunnel, namespace, key, process });
        }
        network
    }

    /// Connects a namespace to the internet, which routes between its links.
    fn attach(&self, inner: &Namespace, name: &str, address: &str) {
        let (internet, device) = (&self.internet, name.trim_start_matches("public-"));
        let router = format!("{}254", address.trim_end_matches(|c: char| c != '.'));
        self.lab.link((internet, device), (inner, "out0"), 1500);
        internet.run(&format!("ip address add {router}/24 dev {device}"));
        inner.run(&format!("ip address add {address}/24 dev out0"));
        inner.run(&format!("ip route add default via {router}"));
    }

    /// A home NAT, which drops connections from outside.
    fn gateway(&self, name: &str) -> Namespace {
        let gateway = self.lab.namespace(&format!("nat-{name}"));
        gateway.sysctl("net.ipv4.ip_forward=1");
        gateway.run_with(
            "nft -f -",
            "table ip nat {\nchain post {\ntype nat hook postrouting priority srcnat;\n\
             oifname out0 masquerade\n}\n\
             chain in {\ntype filter hook input priority filter;\n\
             iifname out0 ct state new drop\n}\n}\n",
        );
        gateway
    }

    /// Moves a node into the network behind a gateway.
    fn join(&self, number: usize, node: &Namespace, gateway: &Namespace) {
        let device = format!("in{number}");
        node.attempt("ip link del lan");
        self.lab.link((gateway, &device), (node, "lan"), 1500);
        gateway.run(&format!("ip address add 192.168.{number}.1/24 dev {device}"));
        node.run(&format!("ip address add 192.168.{number}.2/24 dev lan"));
        node.run(&format!("ip route replace default via 192.168.{number}.1"));
    }

    fn gateway_of(&self, node: usize) -> &Namespace {
        let found = self.gateways.iter().find(|(number, _)| *number == node);
        &found.expect("it is behind a NAT").1
    }

    /// Checks that every node reaches every other.
    #[track_caller]
    fn expect_connected(&self) {
        for node in &self.nodes {
            for (name, address, _) in NODES {
                if !node.namespace.name().ends_with(name) {
                    ping_until_answered(&node.namespace, address);
                }
            }
        }
    }

    /// Whether two nodes talk directly: with a hop between, a ping with TTL 1 would expire.
    fn is_direct(&self, from: usize, to: usize) -> bool {
        ping(&self.nodes[from].namespace, NODES[to].1, "-t 1 -c 1 -W 1").1 == 1
    }
}

/// A file of the example with its keys, and as a test needs it: the directory, the interface to the
/// internet, and keepalives that come soon.
fn fill(name: &str, keys: &[KeyPair], directory: &Path) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/examples/five-nodes");
    let path = Path::new(folder).join(name);
    let mut text = fs::read_to_string(&path).expect("an example");
    for ((node, ..), key) in NODES.iter().zip(keys) {
        for (kind, key) in [("private", key.private()), ("public", key.public())] {
            text = text.replace(&format!("<{kind} key for {node}.example-vpn.dev>"), &key);
        }
    }
    text.replace("/etc/wireguard", &directory.display().to_string())
        .replace("-o eth0", "-o out0")
        .replace("PersistentKeepalive = 25", "PersistentKeepalive = 1")
}

/// Every node reaches every other: the servers directly, a client behind another NAT through the
/// first server. The laptop roams home and stays connected.
fn clients_behind_nats_talk_through_a_server(backend: Backend) {
    let lab = Lab::new();
    let mut network = Network::new(&lab, backend);
    network.expect_connected();
    for client in [HOME, LAPTOP, PHONE] {
        for server in [ONE, TWO] {
            assert!(network.is_direct(client, server) && network.is_direct(server, client));
        }
    }
    for (from, to) in [(HOME, LAPTOP), (LAPTOP, PHONE), (PHONE, HOME)] {
        assert!(!network.is_direct(from, to), "clients behind NATs talk through the server");
        let counts = ping(&network.nodes[from].namespace, NODES[to].1, "-c 20 -i 0.05");
        assert_eq!(counts, (20, 20));
    }
    let peers = network.nodes[ONE].show("peers");
    assert_eq!(peers.lines().count(), NODES.len() - 1, "the server ignores its own entry");

    // The phone reaches the internet as the first server.
    let phone = &network.nodes[PHONE].namespace;
    let router = "203.0.113.254";
    assert_eq!(ping(phone, router, "-c 5 -i 0.05"), (5, 5));
    let way = phone.run(&format!("ip route get {router}"));
    assert!(way.contains(&network.nodes[PHONE].tunnel.interface), "{way}");
    eventually(seconds(20), "its hooks changed the rules some seconds ago", || {
        network.nodes[ONE].process.output().contains("relay: IPv4 direct")
    });

    // The laptop moves into the network at home in the middle of a transfer.
    let (home, laptop) = (&network.nodes[HOME].namespace, &network.nodes[LAPTOP]);
    let _server = IperfServer::start(&lab, home);
    let transfer = Iperf::spawn(&lab, &laptop.namespace, NODES[HOME].1, "--time 6 --bitrate 20M");
    let received = || laptop.of_peer("transfer", &network.nodes[ONE].key);
    let before = received();
    eventually(seconds(10), "it has begun", || received() != before);
    network.join(LAPTOP, &laptop.namespace, network.gateway_of(HOME));
    for server in [ONE, TWO] {
        eventually(seconds(10), "the servers see the laptop at home", || {
            let seen = network.nodes[server].of_peer("endpoints", &laptop.key);
            seen.starts_with(&format!("{}:", outside(HOME)))
        });
    }
    let report = Iperf::finish(transfer);
    assert!(report.bytes_per_second() > 1e6, "{report:?}");
    network.expect_connected();

    // A reload keeps the peers that the hook has added; down undoes the hooks.
    let one = &mut network.nodes[ONE];
    one.tunnel.run("reload");
    assert_eq!(one.show("peers").lines().count(), NODES.len() - 1);
    one.tunnel.run("down");
    assert_eq!(one.process.exit_code(), Some(0));
    let left = one.namespace.run("iptables-save");
    assert!(!left.contains("-A "), "{left}");
}

/// Two nodes behind NATs that know each other's public address and port open mappings from both
/// sides and no longer need the server.
fn keepalives_punch_holes_into_nats(backend: Backend) {
    let lab = Lab::new();
    let network = Network::new(&lab, backend);
    for (from, to) in [(HOME, PHONE), (PHONE, HOME)] {
        let node = &network.nodes[from];
        node.set("listen-port 12000");
        let (peer, address) = (network.nodes[to].key.public(), NODES[to].1);
        node.set(&format!(
            "peer {peer} allowed-ips {address}/32 endpoint {}:12000 persistent-keepalive 1",
            outside(to)
        ));
    }
    eventually(seconds(20), "both NATs let packets through", || {
        network.is_direct(HOME, PHONE) && network.is_direct(PHONE, HOME)
    });
    let counts = ping(&network.nodes[HOME].namespace, NODES[PHONE].1, "-c 20 -i 0.05");
    assert_eq!(counts, (20, 20));
    network.expect_connected();
}

on_both_backends!(clients_behind_nats_talk_through_a_server, keepalives_punch_holes_into_nats);
