//! The relay that is measured, here or on another machine, and the paths to it. Here it has a
//! namespace, and all its peers another one, with several networks between the two, so that a delay
//! on one path does not affect the others:
//!
//! ```text
//!                  ┌── 198.18.0.0/24, fd18:0::/64 ── senders ───┐
//!     relay (.1)  ─┼── 198.18.1.0/24, fd18:1::/64 ── receivers ─┼─  generator (.2)
//!     10.64.0.1/10 ├── 198.18.2.0/24, fd18:2::/64 ── thin ──────┤
//!     fd77::1/48   └── 198.18.3.0/24, fd18:3::/64 ── slow ──────┘
//! ```
//!
//! Inside the tunnel sender `i` is 10.80.0.1 + i (fd77:0:0:1::1 + i), receiver `i` 10.96.0.1 + i.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use super::keys::Keys;
use crate::daemon::{Daemon, PORT};
use crate::failure::{Failure, while_doing};
use crate::implementation::Program;
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
    /// The relay.
    pub relay: Daemon,
    generator: Namespace,
    outer: Family,
    /// The relay's core.
    pub core: usize,
}

impl Network {
    /// Starts `program` on one core.
    pub fn build(program: &Program, outer: Family, core: usize) -> Result<Network, Failure> {
        let relay = Namespace::new("relay")?;
        relay.run(FORWARDING)?;
        let generator = Namespace::new("generator")?;
        for (path, name) in [
            (Path::Senders, "senders"),
            (Path::Receivers, "receivers"),
            (Path::Thin, "thin"),
            (Path::Slow, "slow"),
        ] {
            let addresses = |host| {
                let [v4, v6] = [Family::V4, Family::V6].map(|family| path.address(host, family));
                [format!("{v4}/24"), format!("{v6}/64")]
            };
            relay.link((name, &addresses(1)), &generator, (name, &addresses(2)))?;
        }
        let relay = Daemon::start(program, relay, Some(core))?;
        Ok(Network { relay, generator, outer, core })
    }

    /// Gives the relay its key and its peers, each a public key and an address inside the tunnel,
    /// with one `wg setconf`, and brings its interface up. Returns how long `wg setconf` took.
    /// Fails if that is longer than `limit`.
    pub fn configure<'a>(
        &self,
        keys: &Keys,
        peers: impl Iterator<Item = (&'a str, IpAddr)>,
        limit: Duration,
    ) -> Result<Duration, Failure> {
        let section = |(public, address): (&str, IpAddr)| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {address}/{length}\n")
        };
        let sections: String = peers.map(section).collect();
        let addresses = ["10.64.0.1/10", "fd77::1/48"].map(str::to_owned);
        self.relay.configure(&keys.private, &sections, &addresses, limit)
    }

    /// Pairs of connected sockets: the sender's end, and the receiver's end in the relay's place.
    pub fn direct_pairs(&self, pairs: usize) -> Result<Vec<[UdpSocket; 2]>, Failure> {
        let bind = |host| move || UdpSocket::bind((Path::Senders.address(host, self.outer), 0));
        let pair = |_| {
            let (sender, receiver) =
                (self.generator.open(bind(2))?, self.relay.namespace.open(bind(1))?);
            let connect = || {
                sender.connect(receiver.local_addr()?)?;
                receiver.connect(sender.local_addr()?)
            };
            connect().map_err(while_doing("cannot connect the ends of a direct path"))?;
            Ok([sender, receiver])
        };
        (0..pairs).map(pair).collect()
    }

    /// Gives the generator all addresses of [`ORIGINS`], and returns one socket that can send from
    /// and receives for all of them.
    pub fn socket_of_many(&self) -> Result<UdpSocket, Failure> {
        let (network, via) = (ORIGINS, Path::Senders.address(2, Family::V4));
        self.generator.run(&format!("ip route add local {network} dev lo"))?;
        self.relay.namespace.run(&format!("ip route add {network} via {via}"))?;
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
        self.relay.namespace.run(&line).map(drop)
    }
}

/// The step during which something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Handshakes of the peers.
    Handshakes,
    /// Packets between the peers.
    Packets,
}

/// A relay that knows the generator's peers.
pub enum Relay {
    /// In a namespace.
    Local(Network),
    /// On another machine, at this address and UDP port.
    Remote(SocketAddr),
}

impl Relay {
    /// Its network, if it is here.
    pub fn network(&self) -> Option<&Network> {
        if let Relay::Local(network) = self { Some(network) } else { None }
    }

    /// A socket for each of the `paths`, connected to the relay.
    pub fn sockets(&self, paths: &[Path]) -> Result<Vec<UdpSocket>, Failure> {
        let connect = |from: IpAddr, to: SocketAddr| {
            let socket = UdpSocket::bind((from, 0))?;
            socket.connect(to).map(|()| socket)
        };
        let address = match self {
            Relay::Remote(address) => address,
            Relay::Local(Network { generator, outer, .. }) => {
                let ends = |path: &Path| [2, 1].map(|host| path.address(host, *outer));
                let ends = paths.iter().map(ends);
                let sockets = ends.map(|[from, to]| connect(from, SocketAddr::new(to, PORT)));
                return generator.open(|| sockets.collect());
            }
        };
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let sockets = paths.iter().map(|_| connect(any, *address)).collect::<io::Result<_>>();
        sockets.map_err(while_doing(format!("cannot connect a socket to {address}")))
    }

    /// Process id; none if the relay is the kernel, or remote.
    pub fn pid(&self) -> Option<u32> {
        self.network().and_then(|network| network.relay.pid())
    }

    /// Adds to a failure what is known about its cause. A daemon that has ended explains a failure
    /// better than the missing answers do.
    pub fn explain(&mut self, failure: Failure, step: Step) -> Failure {
        let Failure::Step(text) = &failure else { return failure };
        let address = match self {
            Relay::Local(network) => return failure.or(network.relay.check()),
            Relay::Remote(address) => address,
        };
        let advice = match step {
            Step::Handshakes => format!(
                "is a relay up at {address}, and its UDP port open? Is --remote-key what \
                 `wg show INTERFACE public-key` prints there? Does it know the peers that \
                 --remote-config prints for the same --keys and at least as many --pairs?"
            ),
            Step::Packets => format!(
                "does the relay at {address} forward (sysctl net.ipv4.ip_forward=1, or \
                 net.ipv6.conf.all.forwarding=1 for --family 6), and does it have routes to the \
                 peers (--remote-config prints them)?"
            ),
        };
        Failure::Step(format!("{text}; {advice}"))
    }
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
