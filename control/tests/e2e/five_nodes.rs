//! A network of five nodes: two public servers that share one list of peers, and a home server, a
//! laptop and a phone, each behind its own NAT.

use crate::harness::{
    Backend, Daemon, Lab, Namespace, Program, eventually, ping, ping_until_answered, seconds,
};

/// Name, address inside the tunnel, and public address (servers only).
const NODES: [(&str, &str, Option<&str>); 5] = [
    ("one", "10.0.0.1", Some("198.51.100.1")),
    ("two", "10.0.0.2", Some("203.0.113.1")),
    ("home", "10.0.0.3", None),
    ("laptop", "10.0.0.4", None),
    ("phone", "10.0.0.5", None),
];
const ONE: usize = 0;
const TWO: usize = 1;
const HOME: usize = 2;
const LAPTOP: usize = 3;
const PHONE: usize = 4;

/// All nodes, configured and up, and the gateways of those behind NATs.
struct Network {
    lab: Lab,
    nodes: Vec<Daemon>,
    /// NAT gateways with the number of their node.
    gateways: Vec<(usize, Namespace)>,
}

/// The public address of a node's gateway.
fn outside(node: usize) -> String {
    format!("198.18.{node}.2")
}

impl Network {
    fn new(backend: Backend) -> Network {
        let lab = Lab::new();
        let internet = lab.namespace("internet");
        internet.sysctl("net.ipv4.ip_forward=1");
        let mut network = Network { lab, nodes: Vec::new(), gateways: Vec::new() };
        for (number, (name, _, public)) in NODES.iter().enumerate() {
            let node = network.lab.namespace(name);
            match public {
                Some(address) => network.attach(&node, &internet, name, address),
                None => {
                    let gateway = network.gateway(name);
                    network.attach(&gateway, &internet, name, &outside(number));
                    network.gateways.push((number, gateway.clone()));
                    network.join(number, &node, &gateway);
                }
            }
            let program = Program::Ours(backend);
            let auto = [("WG_BOUNCE_RELAY", "auto")];
            let daemon = Daemon::start_with(&network.lab, &node, name, program, &auto);
            network.nodes.push(daemon);
        }
        network.configure();
        network
    }

    /// Connects a namespace to the internet, which routes between its links.
    fn attach(&self, inner: &Namespace, internet: &Namespace, name: &str, address: &str) {
        let router = format!("{}254", address.trim_end_matches(|c: char| c != '.'));
        self.lab.link((internet, name), (inner, "out0"), 1500);
        internet.run(&format!("ip address add {router}/24 dev {name}"));
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

    /// The servers share one list of all peers, themselves included; the clients know the servers.
    fn configure(&self) {
        let entry = |number: usize, keepalive: bool| {
            let (_, inner, public) = NODES[number];
            let mut text = format!("[Peer]\nPublicKey = {}\n", self.nodes[number].key.public());
            // The first server is the hub: it gets packets for all other addresses.
            let prefix = if number == ONE { "/24" } else { "/32" };
            text += &format!("AllowedIPs = {inner}{prefix}\n");
            if let Some(address) = public {
                text += &format!("Endpoint = {address}:51820\n");
            }
            text + if keepalive { "PersistentKeepalive = 1\n" } else { "" }
        };
        let all_peers: String = (0..NODES.len()).map(|number| entry(number, false)).collect();
        let servers = entry(ONE, true) + &entry(TWO, true);
        for (number, (_, inner, public)) in NODES.iter().enumerate() {
            let node = &self.nodes[number];
            node.set_private_key();
            if public.is_some() {
                node.set("listen-port 51820");
            }
            node.configure("addconf", if public.is_some() { &all_peers } else { &servers });
            node.bring_up(1420, &[&format!("{inner}/24")]);
        }
        let (one, interface) = (&self.nodes[ONE].namespace, &self.nodes[ONE].interface);
        one.sysctl("net.ipv4.ip_forward=1");
        // A typical firewall of a hub.
        for rule in [
            "-P FORWARD DROP",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            &format!(
                "-A FORWARD -i {interface} -o {interface} -m conntrack --ctstate NEW -j ACCEPT"
            ),
            "-t nat -A POSTROUTING -s 10.0.0.0/24 -o out0 -j MASQUERADE",
        ] {
            one.run(&format!("iptables {rule}"));
        }
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

/// Every node reaches every other: the servers directly, a client behind another NAT through the
/// first server. The laptop roams home and stays connected.
fn clients_behind_nats_talk_through_a_server(backend: Backend) {
    let network = Network::new(backend);
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

    let laptop = &network.nodes[LAPTOP];
    network.join(LAPTOP, &laptop.namespace, network.gateway_of(HOME));
    for server in [ONE, TWO] {
        eventually(seconds(10), "the servers see the laptop at home", || {
            let seen = network.nodes[server].of_peer("endpoints", &laptop.key);
            seen.starts_with(&format!("{}:", outside(HOME)))
        });
    }
    network.expect_connected();
}

/// Two nodes behind NATs that know each other's public address and port open mappings from both
/// sides and no longer need the server.
fn keepalives_punch_holes_into_nats(backend: Backend) {
    let network = Network::new(backend);
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
