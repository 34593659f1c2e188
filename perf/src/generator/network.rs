//! The relay in its namespace, and a namespace for all its peers, with several networks between the
//! two, so that a delay on one path does not affect the others:
//!
//! ```text
//!                  ┌── 198.18.0.0/24, fd18:0::/64 ── senders ───┐
//!     relay (.1)  ─┼── 198.18.1.0/24, fd18:1::/64 ── receivers ─┼─  generator (.2)
//!     10.64.0.1/10 ├── 198.18.2.0/24, fd18:2::/64 ── thin ──────┤
//!     fd77::1/48   └── 198.18.3.0/24, fd18:3::/64 ── slow ──────┘
//! ```
//!
//! Inside the tunnel sender `i` is 10.80.0.1 + i (fd77:0:0:1::1 + i), receiver `i` 10.96.0.1 + i.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::keys::Keys;
use crate::daemon::{Daemon, INTERFACE, MTU, PORT, configure, setconf};
use crate::failure::{Failure, while_doing};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::namespace::{FORWARDING, Namespace};
use crate::options::Family;

/// Addresses of many peers of one relay, one for each (RFC 6598).
pub const ORIGINS: &str = "100.64.0.0/10";

/// Receive buffer of their socket (bytes), large enough for all answers.
const SOCKET_BUFFER: usize = 64 << 20;

/// A network between generator and relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// All senders.
    Senders,
    /// Most receivers.
    Receivers,
    /// The receiver of a thin flow.
    Thin,
    /// A receiver behind a slow link.
    Slow,
}

impl Path {
    const NAMES: [(Path, &str); 4] = [
        (Path::Senders, "senders"),
        (Path::Receivers, "receivers"),
        (Path::Thin, "thin"),
        (Path::Slow, "slow"),
    ];

    /// Address of the relay (1) or of the generator (2) in this network.
    fn address(self, host: u8, family: Family) -> IpAddr {
        let number = self as u8; // in order of declaration
        match family {
            Family::V4 => Ipv4Addr::new(198, 18, number, host).into(),
            Family::V6 => {
                let (number, host) = (number.into(), host.into());
                Ipv6Addr::new(0xfd18, number, 0, 0, 0, 0, 0, host).into()
            }
        }
    }
}

/// A running relay, and the networks around it.
pub struct Network {
    // Dropped in this order: the daemon ends before its namespace.
    daemon: Daemon,
    relay: Namespace,
    generator: Namespace,
    outer: Family,
    core: usize,
}

impl Network {
    /// Starts `program` on one core.
    pub fn build(
        program: &Program,
        outer: Family,
        core: usize,
        interrupt: &Interrupt,
    ) -> Result<Network, Failure> {
        let relay = Namespace::new("relay", interrupt)?;
        relay.run(FORWARDING)?;
        let generator = Namespace::new("generator", interrupt)?;
        for (path, name) in Path::NAMES {
            let addresses = |host| {
                let [v4, v6] = [Family::V4, Family::V6].map(|family| path.address(host, family));
                [format!("{v4}/24"), format!("{v6}/64")]
            };
            relay.link((name, &addresses(1)), &generator, (name, &addresses(2)))?;
        }
        let daemon = Daemon::start(program, &relay, Some(core))?;
        Ok(Network { daemon, relay, generator, outer, core })
    }

    /// Gives the relay its key and its peers, each a public key and an address inside the tunnel,
    /// and brings its interface up.
    pub fn configure<'a>(
        &self,
        keys: &Keys,
        peers: impl Iterator<Item = (&'a str, IpAddr)>,
    ) -> Result<(), Failure> {
        configure(&self.relay, &keys.private, &sections(peers))?;
        self.bring_up()
    }

    /// Gives the relay its key and its peers, and returns how long `wg setconf` took. None if it
    /// took longer than `limit`.
    pub fn set_peers<'a>(
        &self,
        keys: &Keys,
        peers: impl Iterator<Item = (&'a str, IpAddr)>,
        limit: Duration,
    ) -> Result<Option<Duration>, Failure> {
        setconf(&self.relay, &keys.private, &sections(peers), limit)
    }

    /// Runs a shell script in the relay's namespace and returns how long that took. None if it has
    /// not ended within `limit`.
    pub fn time(&self, script: &str, limit: Duration) -> Result<Option<Duration>, Failure> {
        self.relay.time("sh -e", script, limit)
    }

    /// Brings the relay's interface up, with its addresses.
    pub fn bring_up(&self) -> Result<(), Failure> {
        let addresses = ["10.64.0.1/10".to_owned(), "fd77::1/48".to_owned()];
        self.relay.bring_up(INTERFACE, &addresses, &format!("mtu {MTU}"))
    }

    /// Pairs of connected sockets: the senders' ends, and the receivers' ends in the relay's place.
    pub fn direct_pairs(&self, pairs: usize) -> Result<Vec<(UdpSocket, UdpSocket)>, Failure> {
        let bind = |host| move |_| UdpSocket::bind((Path::Senders.address(host, self.outer), 0));
        let senders =
            self.generator.open(|| (0..pairs).map(bind(2)).collect::<Result<Vec<_>, _>>())?;
        let receivers =
            self.relay.open(|| (0..pairs).map(bind(1)).collect::<Result<Vec<_>, _>>())?;
        let ends: Vec<(UdpSocket, UdpSocket)> = senders.into_iter().zip(receivers).collect();
        for (sender, receiver) in &ends {
            let connect = || {
                sender.connect(receiver.local_addr()?)?;
                receiver.connect(sender.local_addr()?)
            };
            connect().map_err(while_doing("cannot connect the ends of a direct path"))?;
        }
        Ok(ends)
    }

    /// Gives the generator all addresses of [`ORIGINS`], and returns one socket that can send from
    /// and receives for all of them.
    pub fn socket_of_many(&self) -> Result<UdpSocket, Failure> {
        let (network, via) = (ORIGINS, Path::Senders.address(2, Family::V4));
        self.generator.run(&format!("ip route add local {network} dev lo"))?;
        self.relay.run(&format!("ip route add {network} via {via}"))?;
        let socket = self.generator.open(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER).map_err(while_doing("SO_RCVBUFFORCE"))?;
        Ok(socket)
    }

    /// The relay's address for [`Network::socket_of_many`].
    pub fn relay_address() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(198, 18, Path::Senders as u8, 1), PORT)
    }

    /// Limits the relay's sending on the slow path (Mbit/s).
    pub fn slow_down(&self, megabits: u32) -> Result<(), Failure> {
        let line = format!(
            "tc qdisc replace dev slow root tbf rate {megabits}mbit burst 64kb latency 50ms"
        );
        self.relay.run(&line).map(drop)
    }

    /// Fails if the relay has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.daemon.check()
    }

    /// A socket of the generator for each of the `paths`, connected to the relay.
    pub fn sockets(&self, paths: &[Path]) -> Result<Vec<UdpSocket>, Failure> {
        self.generator.open(|| {
            let socket = |path: &Path| {
                let socket = UdpSocket::bind((path.address(2, self.outer), 0))?;
                socket.connect(SocketAddr::new(path.address(1, self.outer), PORT))?;
                Ok(socket)
            };
            paths.iter().map(socket).collect()
        })
    }

    /// Process id of the relay; none if it is the kernel.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// The relay's core.
    pub fn core(&self) -> usize {
        self.core
    }

    /// The log lines that say how the relay runs.
    pub fn told(&self) -> Vec<String> {
        self.daemon.told()
    }
}

/// Peers as `wg` takes them.
fn sections<'a>(peers: impl Iterator<Item = (&'a str, IpAddr)>) -> String {
    let section = |(public, address): (&str, IpAddr)| {
        let length = if address.is_ipv4() { 32 } else { 128 };
        format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {address}/{length}\n")
    };
    peers.map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_networks_of_their_own() {
        assert_eq!(Path::Slow.address(2, Family::V4).to_string(), "198.18.3.2");
        assert_eq!(Path::Thin.address(1, Family::V6).to_string(), "fd18:2::1");
    }
}
