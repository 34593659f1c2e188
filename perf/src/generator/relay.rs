//! What the generator has to know of a relay, wherever that is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::network::Path;
use crate::failure::{Failure, while_doing};

/// What was being done when something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Peers shook hands.
    Handshakes,
    /// Packets were sent.
    Packets,
}

/// A relay that knows the generator's peers.
pub trait Relay {
    /// A socket for each of the `paths`, connected with the relay.
    fn sockets(&self, paths: &[Path]) -> Result<Vec<UdpSocket>, Failure>;

    /// Process id; none if the relay is the kernel, or elsewhere.
    fn pid(&self) -> Option<u32>;

    /// The core on which it runs; none if it is elsewhere.
    fn core(&self) -> Option<usize>;

    /// What its log says of how it runs.
    fn told(&self) -> Vec<String>;

    /// Why something failed, as far as the relay explains it.
    fn explain(&mut self, failure: Failure, step: Step) -> Failure;
}

/// A relay on another machine, reached through this one's own network.
#[derive(Clone, Debug)]
pub struct Remote {
    address: SocketAddr,
    /// Its public key.
    pub public: [u8; 32],
}

impl Remote {
    /// The relay at this address and UDP port.
    pub fn new(address: SocketAddr, public: [u8; 32]) -> Remote {
        Remote { address, public }
    }
}

impl Relay for Remote {
    fn sockets(&self, paths: &[Path]) -> Result<Vec<UdpSocket>, Failure> {
        let any = match self.address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = |_: &Path| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(self.address)?;
            Ok(socket)
        };
        let sockets = paths.iter().map(socket).collect::<std::io::Result<_>>();
        sockets.map_err(while_doing(format!("connecting a socket with {}", self.address)))
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn core(&self) -> Option<usize> {
        None
    }

    fn told(&self) -> Vec<String> {
        Vec::new()
    }

    fn explain(&mut self, failure: Failure, step: Step) -> Failure {
        let Failure::Step(text) = failure else { return failure };
        let address = self.address;
        let advice = match step {
            Step::Handshakes => format!(
                "is a relay up at {address}, and its UDP port open? Is --remote-key what \
                 `wg show INTERFACE public-key` prints there? Does it know the peers that \
                 --remote-config prints for the same --keys and at least as many --pairs?"
            ),
            Step::Packets => format!(
                "does the relay at {address} forward (sysctl net.ipv4.ip_forward=1, or \
                 net.ipv6.conf.all.forwarding=1 for --family 6), and has it routes to the peers \
                 (--remote-config prints them)?"
            ),
        };
        Failure::Step(format!("{text}; {advice}"))
    }
}
