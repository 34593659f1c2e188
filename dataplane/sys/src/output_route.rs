//! Lookup of the way that our own datagrams take: RTM_GETROUTE (rtnetlink(7)) without an input
//! interface, in the network namespace of the thread that opens the socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{RTA_MARK, RTA_OIF, RTA_SRC, RTN_LOCAL};

use crate::netlink;
use crate::route_message::{Message, RTM_F_FIB_MATCH, Request, ask};

/// Not in libc: the protocol and the ports of the packet (Linux 4.19; older kernels ignore them).
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
/// The properties of our sockets that may decide a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// SO_MARK; zero is none.
    pub mark: u32,
    /// The local UDP port.
    pub port: u16,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The device: the one that a datagram leaves by, or the one that an address belongs to.
    Device(u32),
    /// There is none: no route from that source address, or not an address of this host.
    None,
    /// No reply.
    Unknown,
}

/// Looks up routes of datagrams that this host sends.
pub struct OutputRoutes {
    socket: OwnedFd,
    sequence: u32,
}

impl OutputRoutes {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// Those of [`netlink::open`].
    pub fn open() -> io::Result<OutputRoutes> {
        Ok(OutputRoutes { socket: netlink::open(netlink::Protocol::Route, 0)?, sequence: 0 })
    }

    /// The device by which a datagram from `source` to `remote` leaves. Both are of one family.
    pub fn way(&mut self, source: IpAddr, remote: &SocketAddr, flow: Flow) -> Answer {
        let mut request = Request::new(remote.ip(), 0, 0);
        request.attribute_address(RTA_SRC, source);
        if let SocketAddr::V6(remote) = remote
            && remote.scope_id() != 0
        {
            request.attribute(RTA_OIF, &remote.scope_id().to_ne_bytes());
        }
        if flow.mark != 0 {
            request.attribute(RTA_MARK, &flow.mark.to_ne_bytes());
        }
        request.attribute(RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8]);
        request.attribute(RTA_SPORT, &flow.port.to_be_bytes());
        request.attribute(RTA_DPORT, &remote.port().to_be_bytes());
        match self.ask(request) {
            Reply::Route { device, .. } => Answer::Device(device),
            Reply::Refused => Answer::None,
            Reply::Unknown => Answer::Unknown,
        }
    }

    /// The device that a local address belongs to.
    pub fn home(&mut self, address: IpAddr) -> Answer {
        match self.ask(Request::new(address, 0, RTM_F_FIB_MATCH)) {
            Reply::Route { device, is_local: true } => Answer::Device(device),
            Reply::Route { is_local: false, .. } | Reply::Refused => Answer::None,
            Reply::Unknown => Answer::Unknown,
        }
    }

    fn ask(&mut self, request: Request) -> Reply {
        // Any error (ENOBUFS, ...) means unknown.
        ask(self.socket.as_raw_fd(), &mut self.sequence, request, read).unwrap_or(Reply::Unknown)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Route { device: u32, is_local: bool },
    Refused,
    Unknown,
}

fn read(message: Message<'_>) -> Reply {
    match message {
        Message::Route { kind, mut attributes } => {
            let device = attributes.find(|(kind, _)| *kind == RTA_OIF);
            let device = device.and_then(|(_, value)| value.first_chunk().copied());
            device.map_or(Reply::Unknown, |device| Reply::Route {
                device: u32::from_ne_bytes(device),
                is_local: kind == RTN_LOCAL,
            })
        }
        // No route, a rejecting route, or a source address that is not ours.
        Message::Error(_) => Reply::Refused,
        Message::Unreadable => Reply::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: u32 = 1;

    #[test]
    fn the_loopback_device_is_known() {
        let mut routes = OutputRoutes::open().expect("every kernel has rtnetlink");
        let flow = Flow { mark: 0, port: 51_820 };
        for text in ["127.0.0.1", "::1"] {
            let address: IpAddr = text.parse().expect("an address");
            if routes.home(address) == Answer::None {
                continue; // this host has no IPv6
            }
            let remote = SocketAddr::new(address, 7);
            assert_eq!(routes.way(address, &remote, flow), Answer::Device(LOOPBACK), "{text}");
            assert_eq!(routes.home(address), Answer::Device(LOOPBACK), "{text}");
        }
        let stranger = "192.0.2.77".parse().expect("an address");
        assert_eq!(routes.home(stranger), Answer::None);
        let remote = "127.0.0.1:7".parse().expect("an address");
        assert_eq!(routes.way(stranger, &remote, flow), Answer::None);
    }
}
