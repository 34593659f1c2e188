//! The topology: a hub with a link to each member, which has a daemon of its own, and one to a
//! crowd of peers without one.
//!
//! ```text
//!   member N ── 192.0.N.0/24, 2001:db8:N::/64 ── hub ── crowd: 198.18.0.0/16
//!   inside: 10.77.0.0/16 and fd77::/64; hub .1, member N .N, the crowd 10.77.100.0/24
//! ```

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::{
    Backend, Daemon, Family, HUB_PORT, Lab, Namespace, Program, RelayMode, counters_sum, endpoint,
    ping, seconds, within,
};

/// Members, by their numbers.
const MEMBERS: std::ops::Range<usize> = 10..14;

/// A prefix that moves between members.
pub const MOVING: &str = "10.77.9.0/24";

/// The preshared key of a peer without one.
const NO_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A peer with a daemon of its own.
pub struct Member {
    pub daemon: Daemon,
    pub number: usize,
    /// The family of the endpoint that it uses.
    pub family: Family,
    /// The last byte of its outer addresses, which changes as it roams.
    pub host: usize,
    /// The preshared key, in base64.
    pub preshared_key: String,
}

/// The hub, its members, and the namespace of the crowd. The daemons come first, so that they end
/// before their namespaces.
pub struct World {
    pub hub: Daemon,
    pub members: Vec<Member>,
    pub crowd: Namespace,
    /// The UDP port of the hub.
    pub port: u16,
    /// Whether a peer was removed from the hub since the books were last balanced.
    pub has_removed: bool,
    /// Datagrams that sockets of the hub's namespace had received before its daemon was started.
    pub received_before: u64,
    backend: Backend,
    environment: Vec<(&'static str, &'static str)>,
    _state: TempDir,
    pub lab: Lab,
}

impl Member {
    /// Its address in the tunnel.
    pub fn inner(&self, family: Family) -> String {
        match family {
            Family::V4 => format!("10.77.0.{}", self.number),
            Family::V6 => format!("fd77::{}", self.number),
        }
    }

    /// Its own prefixes, in the syntax of `wg`.
    pub fn prefixes(&self) -> String {
        format!("{}/32,{}/128", self.inner(Family::V4), self.inner(Family::V6))
    }

    /// The host with this last byte on its link; the hub is 1.
    pub fn outer(&self, family: Family, host: usize) -> String {
        match family {
            Family::V4 => format!("192.0.{}.{host}", self.number),
            Family::V6 => format!("2001:db8:{}::{host}", self.number),
        }
    }

    /// The hub's end of its link.
    pub fn link(&self) -> String {
        format!("member{}", self.number)
    }

    /// The hub's endpoint, as this member sees it.
    pub fn hub(&self, port: u16) -> SocketAddr {
        endpoint(&self.outer(self.family, 1), port)
    }
}

/// With its prefix length, as ip-address(8) takes it.
pub fn with_length(family: Family, address: &str) -> String {
    match family {
        Family::V4 => format!("{address}/24"),
        Family::V6 => format!("{address}/64 nodad"),
    }
}

impl World {
    /// The world, with all interfaces up.
    pub fn new(backend: Backend) -> World {
        let lab = Lab::new();
        let state = tempfile::tempdir().expect("a directory");
        let path: &'static str = state.path().to_str().expect("ASCII").to_owned().leak();
        let (namespace, crowd) = (namespace(&lab, "hub"), namespace(&lab, "crowd"));
        namespace.sysctl("net.ipv4.ip_forward=1");
        namespace.sysctl("net.ipv6.conf.all.forwarding=1");
        lab.link((&namespace, "crowd"), (&crowd, "out0"), 1500);
        namespace.run("ip address add 203.0.113.1/24 dev crowd");
        crowd.run("ip address add 203.0.113.2/24 dev out0");
        namespace.run("ip route add 198.18.0.0/16 via 203.0.113.2");
        crowd.run("ip route add local 198.18.0.0/16 dev lo");
        let environment =
            vec![("LOG_LEVEL", "info"), RelayMode::Auto.variable(), ("WG_BOUNCE_STATE_DIR", path)];
        let program = Program::Ours(backend);
        let hub = Daemon::start_with(&lab, &namespace, "hub", program, &environment);
        let members = MEMBERS.map(|number| member(&lab, &hub, number, backend)).collect();
        let world = World {
            hub,
            members,
            crowd,
            port: HUB_PORT,
            has_removed: false,
            received_before: 0,
            backend,
            environment,
            _state: state,
            lab,
        };
        world.configure_hub();
        // The hub learns their endpoints.
        for member in &world.members {
            is_reached(&member.daemon.namespace, "10.77.0.1");
        }
        world
    }

    /// Kills the hub's daemon, and starts another one with the same configuration.
    pub fn restart_hub(&mut self) {
        self.hub.signal(Signal::SIGKILL);
        assert_eq!(self.hub.exit_code(), None, "killed");
        self.received_before = received(&self.hub.namespace);
        let (namespace, key) = (self.hub.namespace.clone(), self.hub.key.clone());
        let (program, environment) = (Program::Ours(self.backend), &self.environment);
        self.hub = Daemon::start_with(&self.lab, &namespace, "hub", program, environment);
        self.hub.key = key;
        self.configure_hub();
    }

    fn configure_hub(&self) {
        let (private, port) = (self.hub.key.private(), self.port);
        let mut text = format!("[Interface]\nPrivateKey = {private}\nListenPort = {port}\n");
        for (index, member) in self.members.iter().enumerate() {
            let (key, prefixes) = (member.daemon.key.public(), member.prefixes());
            let moving = if index == 0 { format!(",{MOVING}") } else { String::new() };
            let psk = &member.preshared_key;
            text += &format!(
                "[Peer]\nPublicKey = {key}\nAllowedIPs = {prefixes}{moving}\nPresharedKey = {psk}\n"
            );
        }
        self.hub.configure("setconf", &text);
        self.hub.bring_up(1420, &["10.77.0.1/16", "fd77::1/64"]);
    }

    /// Datagrams that the hub's sockets have received since its daemon was started.
    pub fn received(&self) -> u64 {
        received(&self.hub.namespace) - self.received_before
    }

    /// Waits until all reach each other. A member whose session the hub has lost notices it after
    /// fifteen seconds.
    pub fn settle(&self) {
        let hub = &self.hub.namespace;
        for family in Family::BOTH {
            for (index, member) in self.members.iter().enumerate() {
                let next = &self.members[(index + 1) % self.members.len()];
                let inner = match family {
                    Family::V4 => "10.77.0.1",
                    Family::V6 => "fd77::1",
                };
                is_reached(hub, &member.inner(family));
                is_reached(&member.daemon.namespace, inner);
                is_reached(&member.daemon.namespace, &next.inner(family));
            }
        }
    }
}

fn is_reached(from: &Namespace, target: &str) {
    let is_reached = within(seconds(90), || ping(from, target, "-c 1 -W 1").1 == 1);
    assert!(is_reached, "{target} does not answer {} within 90 s", from.name());
}

fn received(namespace: &Namespace) -> u64 {
    counters_sum(namespace, &["UdpInDatagrams", "Udp6InDatagrams"])
}

/// A namespace whose interfaces keep their addresses while they are down, or when another address
/// is removed.
fn namespace(lab: &Lab, role: &str) -> Namespace {
    let namespace = lab.namespace(role);
    namespace.sysctl("net.ipv6.conf.all.keep_addr_on_down=1");
    namespace.sysctl("net.ipv6.conf.default.keep_addr_on_down=1");
    namespace.sysctl("net.ipv4.conf.all.promote_secondaries=1");
    namespace
}

fn member(lab: &Lab, hub: &Daemon, number: usize, backend: Backend) -> Member {
    // Names of interfaces have one character of the role.
    let role = char::from(b'a' + number as u8).to_string();
    let namespace = namespace(lab, &format!("member{number}"));
    let environment = [("LOG_LEVEL", "info")];
    let daemon = Daemon::start_with(lab, &namespace, &role, Program::Ours(backend), &environment);
    let family = Family::BOTH[number % 2];
    let member = Member { daemon, number, family, host: 2, preshared_key: NO_KEY.to_owned() };
    lab.link((&hub.namespace, &member.link()), (&namespace, "out0"), 1500);
    for family in Family::BOTH {
        let near = with_length(family, &member.outer(family, 1));
        hub.namespace.run(&format!("ip address add {near} dev {}", member.link()));
        let far = with_length(family, &member.outer(family, member.host));
        namespace.run(&format!("ip address add {far} dev out0"));
    }
    let keepalive = if number % 4 < 2 { 5 } else { 0 };
    member.daemon.configure(
        "setconf",
        &format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51821\n[Peer]\nPublicKey = {}\n\
             AllowedIPs = 10.77.0.0/16, fd77::/64\nEndpoint = {}\n\
             PersistentKeepalive = {keepalive}\n",
            member.daemon.key.private(),
            hub.key.public(),
            member.hub(HUB_PORT),
        ),
    );
    let addresses = Family::BOTH.map(|family| member.inner(family));
    let [v4, v6] = addresses;
    member.daemon.bring_up(1420, &[&format!("{v4}/16"), &format!("{v6}/64")]);
    member
}
