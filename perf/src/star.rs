//! A hub and its clients, each a daemon in a namespace of its own, every client connected to the
//! hub by a veth pair:
//!
//! ```text
//!     client 1 ──── 198.18.1.0/24 ──── hub ──── 198.18.2.0/24 ──── client 2
//!     10.77.0.2                     10.77.0.1                     10.77.0.3
//!     fd77::2                        fd77::1                        fd77::3
//! ```

use std::net::IpAddr;

use clap::ValueEnum;

use crate::daemon::{Daemon, INTERFACE, MTU, PORT, configure, key_pair};
use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::namespace::{FORWARDING, Namespace};

/// Roles of the clients, in the order of their addresses.
const CLIENT_ROLES: [&str; 2] = ["client", "client2"];

/// Which IP, as options say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
}

/// A daemon in its namespace.
pub struct Member {
    // Dropped in this order: the daemon ends before its namespace.
    daemon: Daemon,
    /// Where it runs.
    pub namespace: Namespace,
    /// Last byte of its addresses inside the tunnel.
    number: usize,
    private_key: String,
    public_key: String,
}

impl Member {
    /// Its role, for failures and records.
    pub fn role(&self) -> &'static str {
        self.namespace.role()
    }

    /// Process id of the daemon; none if it is the kernel.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// What the daemon's log says of how it runs.
    pub fn told(&self) -> Vec<String> {
        self.daemon.told()
    }

    /// Its address inside the tunnel.
    pub fn address(&self, family: Family) -> IpAddr {
        let (v4, v6) = addresses(self.number);
        if family == Family::V4 { v4 } else { v6 }
    }

    /// If the daemon has ended, which it should not have, that is a failure.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.daemon.check()
    }

    /// Starts `program` in a namespace and waits until it answers `wg`.
    fn start(program: &Program, number: usize, namespace: Namespace) -> Result<Member, Failure> {
        let daemon = Daemon::start(program, &namespace, None)?;
        let (private_key, public_key) = key_pair(namespace.interrupt())?;
        Ok(Member { daemon, namespace, number, private_key, public_key })
    }

    /// Gives it its key, `peers` and addresses, and brings its interface up.
    fn configure(&self, peers: &str) -> Result<(), Failure> {
        configure(&self.namespace, &self.private_key, peers)?;
        let (v4, v6) = addresses(self.number);
        for line in [
            format!("ip address add {v4}/24 dev {INTERFACE}"),
            format!("ip address add {v6}/64 dev {INTERFACE} nodad"),
            format!("ip link set {INTERFACE} mtu {MTU} up"),
        ] {
            self.namespace.run(&line)?;
        }
        Ok(())
    }
}

/// Daemons that are connected: packets pass from the first client to the sink.
pub struct Star {
    /// The hub; with one client, simply the other end.
    pub hub: Member,
    /// One or two.
    pub clients: Vec<Member>,
}

impl Star {
    /// Starts `hub` and so many `clients` of one program, and waits until the first client reaches
    /// the sink.
    pub fn build(
        hub: &Program,
        client: &Program,
        clients: usize,
        interrupt: &Interrupt,
    ) -> Result<Star, Failure> {
        let hub_role = if clients > 1 { "relay" } else { "server" };
        let hub_namespace = Namespace::new(hub_role, interrupt)?;
        if clients > 1 {
            hub_namespace.run(FORWARDING)?;
        }
        let mut namespaces = Vec::new();
        for (index, role) in CLIENT_ROLES.into_iter().enumerate().take(clients) {
            let namespace = Namespace::new(role, interrupt)?;
            link(&hub_namespace, &namespace, index + 1)?;
            namespaces.push(namespace);
        }
        let hub = Member::start(hub, 1, hub_namespace)?;
        let mut clients = Vec::new();
        for (index, namespace) in namespaces.into_iter().enumerate() {
            clients.push(Member::start(client, index + 2, namespace)?);
        }
        let star = Star { hub, clients };
        star.configure()?;
        Ok(star)
    }

    /// Where packets come from.
    pub fn source(&self) -> &Member {
        &self.clients[0]
    }

    /// Where packets go: the last client, or the hub if there is but one.
    pub fn sink(&self) -> &Member {
        if self.clients.len() > 1 { &self.clients[self.clients.len() - 1] } else { &self.hub }
    }

    /// Every daemon.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.hub).chain(&self.clients)
    }

    /// If a daemon has ended, that is a failure.
    pub fn check(&mut self) -> Result<(), Failure> {
        std::iter::once(&mut self.hub).chain(&mut self.clients).try_for_each(Member::check)
    }

    fn configure(&self) -> Result<(), Failure> {
        let peers: Vec<String> = self.clients.iter().map(peer_of_hub).collect();
        self.hub.configure(&peers.concat())?;
        for (index, client) in self.clients.iter().enumerate() {
            let peer = format!(
                "[Peer]\nPublicKey = {}\nEndpoint = 198.18.{}.1:{PORT}\n\
                 AllowedIPs = 10.77.0.0/24, fd77::/64\n",
                self.hub.public_key,
                index + 1
            );
            client.configure(&peer)?;
        }
        // The hub learns where a client is from what the client sends.
        let hub = self.hub.address(Family::V4);
        for client in &self.clients {
            client.namespace.run_until_ok(&format!("ping -n -c 1 -W 1 {hub}"))?;
        }
        for family in [Family::V4, Family::V6] {
            let sink = self.sink().address(family);
            self.source().namespace.run_until_ok(&format!("ping -n -c 1 -W 1 {sink}"))?;
        }
        Ok(())
    }
}

fn peer_of_hub(client: &Member) -> String {
    let (v4, v6) = addresses(client.number);
    format!("[Peer]\nPublicKey = {}\nAllowedIPs = {v4}/32, {v6}/128\n", client.public_key)
}

/// Connects a client's namespace with the hub's, as the network of that number.
fn link(hub: &Namespace, client: &Namespace, number: usize) -> Result<(), Failure> {
    let peer = hub.pid();
    client.run(&format!(
        "ip link add name uplink type veth peer name {} netns {peer}",
        client.role()
    ))?;
    client.run(&format!("ip address add 198.18.{number}.2/24 dev uplink"))?;
    client.run("ip link set uplink up")?;
    hub.run(&format!("ip address add 198.18.{number}.1/24 dev {}", client.role()))?;
    hub.run(&format!("ip link set {} up", client.role()))?;
    Ok(())
}

/// Addresses inside the tunnel.
fn addresses(number: usize) -> (IpAddr, IpAddr) {
    let byte = u8::try_from(number).expect("a handful of members");
    (IpAddr::from([10, 77, 0, byte]), IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(byte)]))
}
