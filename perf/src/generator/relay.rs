//! The relay that is measured, here or on another machine, and the sockets that reach it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::network::{Network, Path};
use crate::failure::{Failure, while_doing};

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
        let address = match self {
            Relay::Local(network) => return network.sockets(paths),
            Relay::Remote(address) => address,
        };
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = |_| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(address).map(|()| socket)
        };
        let sockets = paths.iter().map(socket).collect::<io::Result<_>>();
        sockets.map_err(while_doing(format!("cannot connect a socket to {address}")))
    }

    /// Process id; none if the relay is the kernel, or remote.
    pub fn pid(&self) -> Option<u32> {
        self.network().and_then(Network::pid)
    }

    /// Adds to a failure what is known about its cause. A daemon that has ended explains a failure
    /// better than the missing answers do.
    pub fn explain(&mut self, failure: Failure, step: Step) -> Failure {
        let Failure::Step(text) = &failure else { return failure };
        let address = match self {
            Relay::Local(network) => return failure.or(network.check()),
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
