//! A hub and its clients, each a daemon in a namespace of its own, every client connected to the
//! hub by a veth pair:
//!
//! ```text
//!     client 1 ──── 198.18.1.0/24 ──── hub ──── 198.18.2.0/24 ──── client 2
//!     10.77.0.2                     10.77.0.1                     10.77.0.3
//!     fd77::2                        fd77::1                        fd77::3
//! ```

use std::net::IpAddr;

use crate::daemon::{Daemon, PORT};
use crate::failure::Failure;
use crate::generator::Keys;
use crate::implementation::Program;
use crate::interrupt::{self, POLL};
use crate::namespace::{FORWARDING, Namespace};
use crate::options::Family;
use crate::process::STEP_LIMIT;

/// Roles of the clients, in the order of their addresses.
const CLIENT_ROLES: [&str; 2] = ["client", "client2"];

/// A daemon with its place in the tunnel.
pub struct Member {
    /// The daemon.
    pub daemon: Daemon,
    /// Last byte of its addresses inside the tunnel.
    number: u8,
    keys: Keys,
}

impl Member {
    /// Starts `program` in a namespace and waits until it answers `wg`.
    fn start(program: &Program, number: u8, namespace: Namespace) -> Result<Member, Failure> {
        Ok(Member { daemon: Daemon::start(program, namespace, None)?, number, keys: Keys::new() })
    }

    /// Its address inside the tunnel.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => [10, 77, 0, self.number].into(),
            Family::V6 => [0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number)].into(),
        }
    }

    /// Sets its key and `peers`, and brings its interface up with its addresses.
    fn configure(&self, peers: &str) -> Result<(), Failure> {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| self.address(family));
        let addresses = [format!("{v4}/24"), format!("{v6}/64")];
        self.daemon.configure(&self.keys.private, peers, &addresses, STEP_LIMIT).map(drop)
    }

    fn reaches(&self, address: IpAddr) -> Result<(), Failure> {
        let line = format!("ping -n -c 1 -W 1 {address}");
        let namespace = &self.daemon.namespace;
        let title = format!("`{line}` in {}", namespace.role);
        interrupt::wait_until(POLL, STEP_LIMIT, &title, || match namespace.run(&line) {
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            outcome => Ok(outcome.is_ok()),
        })
    }
}

/// Connected daemons, the hub first: packets go from the first client to the last client, or to the
/// hub if there is only one client.
pub struct Topology {
    /// The hub and one or two clients.
    pub members: Vec<Member>,
}

impl Topology {
    /// Starts `hub` and this many `clients` of one program, and waits until the source reaches the
    /// sink.
    pub fn build(hub: &Program, client: &Program, clients: usize) -> Result<Topology, Failure> {
        let role = if clients > 1 { "relay" } else { "server" };
        let namespace = Namespace::new(role)?;
        if clients > 1 {
            namespace.run(FORWARDING)?;
        }
        let mut namespaces = Vec::new();
        for (number, role) in (1..).zip(&CLIENT_ROLES[..clients]) {
            let inside = Namespace::new(role)?;
            let [own, of_hub] = [2, 1].map(|host| [format!("198.18.{number}.{host}/24")]);
            inside.link(("uplink", &own), &namespace, (role, &of_hub))?;
            namespaces.push(inside);
        }
        let mut members = vec![Member::start(hub, 1, namespace)?];
        for (number, namespace) in (2..).zip(namespaces) {
            members.push(Member::start(client, number, namespace)?);
        }
        let topology = Topology { members };
        topology.configure()?;
        Ok(topology)
    }

    /// The source of the packets.
    pub fn source(&self) -> &Member {
        &self.members[1]
    }

    /// The destination of the packets.
    pub fn sink(&self) -> &Member {
        if self.members.len() > 2 { &self.members[2] } else { &self.members[0] }
    }

    /// Fails if a daemon has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.members.iter_mut().try_for_each(|member| member.daemon.check())
    }

    fn configure(&self) -> Result<(), Failure> {
        let (hub, clients) = self.members.split_first().expect("a hub");
        let peer = |client: &Member| {
            let [v4, v6] = [Family::V4, Family::V6].map(|family| client.address(family));
            let public = &client.keys.public;
            format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {v4}/32, {v6}/128\n")
        };
        hub.configure(&clients.iter().map(peer).collect::<String>())?;
        for (number, client) in (1..).zip(clients) {
            let public = &hub.keys.public;
            client.configure(&format!(
                "[Peer]\nPublicKey = {public}\nEndpoint = 198.18.{number}.1:{PORT}\n\
                 AllowedIPs = 10.77.0.0/24, fd77::/64\n"
            ))?;
        }
        // The hub learns a client's endpoint from its packets.
        clients.iter().try_for_each(|client| client.reaches(hub.address(Family::V4)))?;
        let families = [Family::V4, Family::V6].into_iter();
        families
            .map(|family| self.sink().address(family))
            .try_for_each(|sink| self.source().reaches(sink))
    }
}
