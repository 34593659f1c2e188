//! Lookup of the way that our own datagrams take: RTM_GETROUTE (rtnetlink(7)) without an input
//! interface, in the network namespace of the thread that opens the socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{RTA_DST, RTA_MARK, RTA_OIF, RTA_SRC, RTM_NEWROUTE, RTN_LOCAL};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::netlink;
use crate::route::{HEADER_LEN, REPLY_LEN_MAX, ROUTE_LEN, Request, next_attribute, u16_at, u32_at};

/// Not in libc: the protocol and the ports of the packet (Linux 4.19; older kernels ignore them).
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
/// Asks for the table's entry instead of the resolved route, which for a local address names the
/// loopback device.
const RTM_F_FIB_MATCH: u32 = 0x2000;

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
        let mut request = self.request(source);
        request.attribute_address(RTA_DST, remote.ip());
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
        // Any error (ENOBUFS, ...) means unknown.
        let reply = self.ask(request).unwrap_or(Reply::Unknown);
        match reply {
            Reply::Route { device, .. } => Answer::Device(device),
            Reply::Refused => Answer::None,
            Reply::Unknown => Answer::Unknown,
        }
    }

    /// The device that a local address belongs to.
    pub fn home(&mut self, address: IpAddr) -> Answer {
        let mut request = self.request(address);
        request.set_flags(RTM_F_FIB_MATCH);
        request.attribute_address(RTA_DST, address);
        match self.ask(request).unwrap_or(Reply::Unknown) {
            Reply::Route { device, is_local: true } => Answer::Device(device),
            Reply::Route { is_local: false, .. } | Reply::Refused => Answer::None,
            Reply::Unknown => Answer::Unknown,
        }
    }

    fn request(&mut self, family_of: IpAddr) -> Request {
        self.sequence = self.sequence.wrapping_add(1);
        Request::new(self.sequence, family_of, 0)
    }

    fn ask(&mut self, mut request: Request) -> io::Result<Reply> {
        send(self.socket.as_raw_fd(), request.finish(), MsgFlags::MSG_DONTWAIT)?;
        let mut bytes = [0u8; REPLY_LEN_MAX];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
            // A reply with another sequence number is a late one to an abandoned request.
            if let Some(reply) = read_reply(&bytes[..length], self.sequence) {
                return Ok(reply);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Route { device: u32, is_local: bool },
    Refused,
    Unknown,
}

/// Reads a reply; `None` if it belongs to another request.
fn read_reply(reply: &[u8], sequence: u32) -> Option<Reply> {
    let header = reply.first_chunk::<HEADER_LEN>()?;
    if u32_at(header, 8) != sequence {
        return None;
    }
    if u16_at(header, 4) != RTM_NEWROUTE {
        // NLMSG_ERROR: no route, a rejecting route, or a source address that is not ours.
        return Some(Reply::Refused);
    }
    let length = (u32_at(header, 0) as usize).min(reply.len());
    let message = reply.get(HEADER_LEN..length).unwrap_or_default();
    let (Some(route), Some(mut rest)) =
        (message.first_chunk::<ROUTE_LEN>(), message.get(ROUTE_LEN..))
    else {
        return Some(Reply::Unknown);
    };
    let device = std::iter::from_fn(|| next_attribute(&mut rest))
        .find(|(kind, _)| *kind == RTA_OIF)
        .and_then(|(_, value)| value.first_chunk().copied().map(u32::from_ne_bytes));
    // struct rtmsg: the type is its eighth byte.
    let is_local = route[7] == RTN_LOCAL;
    Some(device.map_or(Reply::Unknown, |device| Reply::Route { device, is_local }))
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

    #[test]
    fn broken_replies_do_not_panic() {
        let mut reply = vec![0; HEADER_LEN + ROUTE_LEN];
        reply[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        reply[8] = 7;
        for length in 0..=u8::MAX {
            reply[0] = length;
            let expected = Some(Reply::Unknown);
            assert_eq!(read_reply(&reply, 7), expected);
            assert_eq!(read_reply(&reply, 8), None);
        }
        assert_eq!(read_reply(&reply[..HEADER_LEN - 1], 7), None);
    }
}
