//! The topology of most tests: alice and bob, each in a namespace, with a relaying hub between
//! them. Mallory has a link to the hub but no key.
//!
//! ```text
//!   alice ── 192.0.2.0/24, 2001:db8:a::/64 ──── hub ── 198.51.100.0/24, 2001:db8:b::/64 ── bob
//!                                                └─── 203.0.113.0/24, 2001:db8:c::/64 ── mallory
//!   inside: 10.77.0.0/24 and fd77::/64; hub .1, alice .2, bob .3
//! ```

use std::net::SocketAddr;

use super::daemon::{Backend, Daemon, Program, RelayMode};
use super::lab::{Lab, Namespace};
use super::traffic::ping_until_answered;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// Its name in nftables rules.
    pub fn nft(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }
}

/// Addresses of one host: `outer` on its link to the hub, `gateway` at the hub's end of that link,
/// `inner` in the tunnel.
pub struct Host {
    outer: [&'static str; 2],
    gateway: [&'static str; 2],
    inner: [&'static str; 2],
}

/// The UDP port of the hub.
pub const HUB_PORT: u16 = 51820;

/// The UDP port of alice.
pub const ALICE_PORT: u16 = 51821;

/// The hub, with the outer addresses on its link to alice.
pub const HUB: Host = Host {
    outer: ["192.0.2.1", "2001:db8:a::1"],
    gateway: ["192.0.2.1", "2001:db8:a::1"],
    inner: ["10.77.0.1", "fd77::1"],
};

/// The first peer.
pub const ALICE: Host = Host {
    outer: ["192.0.2.2", "2001:db8:a::2"],
    gateway: ["192.0.2.1", "2001:db8:a::1"],
    inner: ["10.77.0.2", "fd77::2"],
};

/// The second peer.
pub const BOB: Host = Host {
    outer: ["198.51.100.2", "2001:db8:b::2"],
    gateway: ["198.51.100.1", "2001:db8:b::1"],
    inner: ["10.77.0.3", "fd77::3"],
};

/// A host without a key.
pub const MALLORY: Host = Host {
    outer: ["203.0.113.2", "2001:db8:c::2"],
    gateway: ["203.0.113.1", "2001:db8:c::1"],
    inner: ["", ""],
};

impl Host {
    /// Its address in the tunnel.
    pub fn inner(&self, family: Family) -> &'static str {
        self.inner[family as usize]
    }

    /// Its address on its link.
    pub fn outer(&self, family: Family) -> &'static str {
        self.outer[family as usize]
    }

    /// The hub's endpoint as seen from this host.
    pub fn hub(&self, family: Family) -> SocketAddr {
        endpoint(self.gateway[family as usize], HUB_PORT)
    }

    /// Its allowed IPs at the hub, in the syntax of `wg`.
    pub fn allowed_ips(&self) -> String {
        format!("{}/32,{}/128", self.inner[0], self.inner[1])
    }
}

/// The endpoint with this address and port.
pub fn endpoint(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Options of a [`Relay`].
pub struct Options {
    /// The IP version of the endpoints.
    pub outer: Family,
    /// MTU of the WireGuard interfaces (bytes).
    pub mtu: u32,
    /// MTU of the links (bytes).
    pub link_mtu: u32,
    /// The hub's implementation.
    pub hub: Program,
    /// Alice's implementation.
    pub alice: Program,
    /// Bob's implementation.
    pub bob: Program,
    /// `persistent-keepalive` of alice and bob (seconds; 0 is off).
    pub keepalive: u16,
    /// A preshared key (base64) of the hub with each peer.
    pub preshared_key: Option<String>,
    /// Whether the hub's configuration has alice's endpoint, so that it can initiate.
    pub hub_knows_alice: bool,
    /// The hub's relay mode.
    pub relay: RelayMode,
    /// More environment variables of all three daemons.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Options {
    /// wg-bounce everywhere, outer IPv4, the MTUs of the internet.
    pub fn new(backend: Backend) -> Options {
        let ours = Program::Ours(backend);
        Options {
            outer: Family::V4,
            mtu: 1420,
            link_mtu: 1500,
            hub: ours,
            alice: ours,
            bob: ours,
            keepalive: 0,
            preshared_key: None,
            hub_knows_alice: false,
            relay: RelayMode::Kernel,
            environment: Vec::new(),
        }
    }
}

/// Three configured daemons with their interfaces up. The daemons are the first fields, so that
/// they end before their namespaces.
pub struct Relay {
    /// The hub.
    pub hub: Daemon,
    /// The first peer.
    pub alice: Daemon,
    /// The second peer.
    pub bob: Daemon,
    /// Mallory's namespace.
    pub mallory: Namespace,
    /// The lab of all namespaces.
    pub lab: Lab,
}

impl Relay {
    /// Builds the topology. Without `keepalive`, nothing has been sent yet.
    pub fn new(options: &Options) -> Relay {
        let lab = Lab::new();
        let hub = lab.namespace("hub");
        hub.sysctl("net.ipv4.ip_forward=1");
        hub.sysctl("net.ipv6.conf.all.forwarding=1");
        let [alice, bob, mallory] = [("alice", ALICE), ("bob", BOB), ("mallory", MALLORY)]
            .map(|(role, host)| attach(&lab, &hub, role, &host, options.link_mtu));

        let environment = &options.environment;
        let mut of_hub = vec![("WG_BOUNCE_RELAY", options.relay.name())];
        of_hub.extend(environment);
        let hub = Daemon::start_with(&lab, &hub, "hub", options.hub, &of_hub);
        let alice = Daemon::start_with(&lab, &alice, "alice", options.alice, environment);
        let bob = Daemon::start_with(&lab, &bob, "bob", options.bob, environment);
        let relay = Relay { hub, alice, bob, mallory, lab };
        relay.hub.configure("setconf", &relay.hub_config(options));
        for (daemon, host) in [(&relay.alice, ALICE), (&relay.bob, BOB)] {
            daemon.configure("setconf", &relay.peer_config(daemon, &host, options));
        }
        for (daemon, host) in [(&relay.hub, HUB), (&relay.alice, ALICE), (&relay.bob, BOB)] {
            let addresses = [format!("{}/24", host.inner[0]), format!("{}/64", host.inner[1])];
            daemon.bring_up(options.mtu, &[&addresses[0], &addresses[1]]);
        }
        relay
    }

    /// Builds the topology and waits until alice and bob reach each other.
    pub fn connected(options: &Options) -> Relay {
        let relay = Relay::new(options);
        relay.connect();
        relay
    }

    /// Waits until alice and bob reach each other in both families.
    #[track_caller]
    pub fn connect(&self) {
        for family in Family::BOTH {
            // Bob must initiate, since the hub does not know his endpoint.
            ping_until_answered(&self.bob.namespace, HUB.inner(family));
            ping_until_answered(&self.alice.namespace, BOB.inner(family));
        }
    }

    /// The hub's configuration file.
    pub fn hub_config(&self, options: &Options) -> String {
        let endpoint = if options.hub_knows_alice {
            format!("Endpoint = {}\n", endpoint(ALICE.outer(options.outer), ALICE_PORT))
        } else {
            String::new()
        };
        format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {HUB_PORT}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = {}\n{endpoint}{preshared}\
             [Peer]\nPublicKey = {}\nAllowedIPs = {}\n{preshared}",
            self.hub.key.private(),
            self.alice.key.public(),
            ALICE.allowed_ips(),
            self.bob.key.public(),
            BOB.allowed_ips(),
            preshared = preshared(options),
        )
    }

    /// The configuration file of alice or bob.
    pub fn peer_config(&self, daemon: &Daemon, host: &Host, options: &Options) -> String {
        let is_alice = daemon.interface == self.alice.interface;
        format!(
            "[Interface]\nPrivateKey = {}\n{}\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.0/24, fd77::/64\nEndpoint = {}\n\
             PersistentKeepalive = {}\n{}",
            daemon.key.private(),
            if is_alice { format!("ListenPort = {ALICE_PORT}\n") } else { String::new() },
            self.hub.key.public(),
            host.hub(options.outer),
            options.keepalive,
            preshared(options),
        )
    }
}

/// Creates the namespace of `role` with its link to the hub.
fn attach(lab: &Lab, hub: &Namespace, role: &str, host: &Host, mtu: u32) -> Namespace {
    let namespace = lab.namespace(role);
    lab.link((hub, role), (&namespace, "out0"), mtu);
    for (index, length) in [(0, 24), (1, 64)] {
        let nodad = if index == 1 { "nodad" } else { "" };
        let near = host.gateway[index];
        hub.run(&format!("ip address add {near}/{length} dev {role} {nodad}"));
        let far = host.outer[index];
        namespace.run(&format!("ip address add {far}/{length} dev out0 {nodad}"));
    }
    namespace
}

fn preshared(options: &Options) -> String {
    let key = options.preshared_key.as_ref();
    key.map(|key| format!("PresharedKey = {key}\n")).unwrap_or_default()
}
