//! Route lookup in the kernel: RTM_GETROUTE (rtnetlink(7)).
//!
//! The kernel replies before `send` returns and does not take its configuration lock
//! (`inet_rtm_getroute` in net/ipv4/route.c, `inet6_rtm_getroute` in net/ipv6/route.c of Linux). So
//! a worker can ask during a turn; it caches the replies.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{
    RTA_DST, RTA_IIF, RTA_METRICS, RTA_OIF, RTA_SRC, RTM_GETROUTE, RTM_NEWROUTE, RTN_LOCAL,
    RTN_MULTICAST, RTN_UNICAST,
};
use nix::sys::socket::{MsgFlags, recv, send};

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// Not in libc for every C library.
const RTA_ENCAP: u16 = 22;
/// Within RTA_METRICS: the route has its own or a learned MTU.
const RTAX_MTU: u16 = 2;

/// Bytes of `struct nlmsghdr`, of `struct rtmsg`, and of an attribute's header.
pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const ROUTE_LEN: usize = 12;
const ATTRIBUTE_LEN: usize = 4;
/// Two addresses, and five numbers of at most four bytes.
const REQUEST_LEN_MAX: usize = HEADER_LEN + ROUTE_LEN + 2 * (ATTRIBUTE_LEN + 16) + 5 * 8;
/// Upper limit of a reply (bytes). One route has a few attributes; a longer reply is truncated and
/// reads as unknown.
pub(crate) const REPLY_LEN_MAX: usize = 4096;

/// The kernel's decision about a packet that arrives from the interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Forward it back out of the interface, unchanged.
    Back,
    /// Deliver it locally: the host's own address, or a broadcast.
    Local,
    /// Reject it: a martian, a failed reverse-path check, or a rejecting route.
    Refused,
    /// No route.
    None,
    /// Forward it out of another interface, or along a route with an MTU or an encapsulation.
    Elsewhere,
    /// No reply.
    #[default]
    Unknown,
}

/// Looks up routes for packets of one interface.
pub struct RouteSocket {
    socket: OwnedFd,
    interface: u32,
    sequence: u32,
}

impl RouteSocket {
    /// Looks up routes through this NETLINK_ROUTE socket, for packets that arrive from the
    /// interface with index `interface` of its namespace.
    pub fn new(socket: OwnedFd, interface: u32) -> RouteSocket {
        RouteSocket { socket, interface, sequence: 0 }
    }

    /// Looks up the route of a packet. Source and destination are of one family; `dscp` is in the
    /// upper six bits, as in a traffic class.
    pub fn ask(&mut self, source: IpAddr, destination: IpAddr, dscp: u8) -> Route {
        // Any error (ENOBUFS, or EAGAIN while the namespace is torn down) means unknown.
        self.query(source, destination, dscp).unwrap_or(Route::Unknown)
    }

    fn query(&mut self, source: IpAddr, destination: IpAddr, dscp: u8) -> io::Result<Route> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Request::new(self.sequence, source, dscp);
        request.attribute_address(RTA_DST, destination);
        request.attribute_address(RTA_SRC, source);
        request.attribute(RTA_IIF, &self.interface.to_ne_bytes());
        send(self.socket.as_raw_fd(), request.finish(), MsgFlags::MSG_DONTWAIT)?;
        let mut reply = [0u8; REPLY_LEN_MAX];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut reply, MsgFlags::MSG_DONTWAIT)?;
            // A reply with another sequence number is a late one to an abandoned request.
            if let Some(route) = read_reply(&reply[..length], self.sequence, self.interface) {
                return Ok(route);
            }
        }
    }
}

pub(crate) struct Request {
    bytes: [u8; REQUEST_LEN_MAX],
    length: usize,
}

impl Request {
    pub(crate) fn new(sequence: u32, source: IpAddr, dscp: u8) -> Request {
        let mut bytes = [0u8; REQUEST_LEN_MAX];
        bytes[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
        bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let (family, bits) = match source {
            IpAddr::V4(_) => (libc::AF_INET as u8, 32),
            IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
        };
        // struct rtmsg: family, lengths of destination and source, traffic class.
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&[family, bits, bits, dscp]);
        Request { bytes, length: HEADER_LEN + ROUTE_LEN }
    }

    pub(crate) fn attribute_address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_LEN + value.len();
        let attribute = &mut self.bytes[self.length..self.length + length];
        attribute[..2].copy_from_slice(&(length as u16).to_ne_bytes());
        attribute[2..4].copy_from_slice(&kind.to_ne_bytes());
        attribute[ATTRIBUTE_LEN..].copy_from_slice(value);
        self.length += length.next_multiple_of(4);
    }

    pub(crate) fn set_flags(&mut self, flags: u32) {
        // struct rtmsg ends with its flags.
        self.bytes[HEADER_LEN + ROUTE_LEN - 4..HEADER_LEN + ROUTE_LEN]
            .copy_from_slice(&flags.to_ne_bytes());
    }

    pub(crate) fn finish(&mut self) -> &[u8] {
        self.bytes[..4].copy_from_slice(&(self.length as u32).to_ne_bytes());
        &self.bytes[..self.length]
    }
}

/// Reads a reply; `None` if it belongs to another request.
fn read_reply(reply: &[u8], sequence: u32, interface: u32) -> Option<Route> {
    let header = reply.first_chunk::<HEADER_LEN>()?;
    if u32_at(header, 8) != sequence {
        return None;
    }
    if u16_at(header, 4) != RTM_NEWROUTE {
        return Some(read_error(&reply[HEADER_LEN..]));
    }
    let length = (u32_at(header, 0) as usize).min(reply.len());
    let message = &reply[HEADER_LEN..length];
    let (Some(route), Some(mut rest)) =
        (message.first_chunk::<ROUTE_LEN>(), message.get(ROUTE_LEN..))
    else {
        return Some(Route::Unknown);
    };
    let mut output_interface = None;
    let mut is_special = false;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            RTA_OIF => output_interface = value.first_chunk().copied().map(u32::from_ne_bytes),
            RTA_METRICS => is_special |= has_mtu(value),
            RTA_ENCAP => is_special = true,
            _ => {}
        }
    }
    // struct rtmsg: the type is its eighth byte. Local, broadcast, anycast and multicast are
    // consecutive.
    Some(match route[7] {
        RTN_LOCAL..=RTN_MULTICAST => Route::Local,
        RTN_UNICAST if output_interface == Some(interface) && !is_special => Route::Back,
        _ => Route::Elsewhere,
    })
}

/// Reads an NLMSG_ERROR:
/// - ENETUNREACH: no route;
/// - EHOSTUNREACH: an "unreachable" route, or forwarding is off;
/// - EACCES: a "prohibit" route;
/// - EINVAL: a "blackhole" route, or a martian;
/// - EXDEV: a failed reverse-path check;
/// - others (ENOBUFS, ...) say nothing about the route.
fn read_error(payload: &[u8]) -> Route {
    let errno = payload.first_chunk().map_or(0, |bytes| -i32::from_ne_bytes(*bytes));
    match errno {
        libc::ENETUNREACH => Route::None,
        libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EXDEV => Route::Refused,
        _ => Route::Unknown,
    }
}

fn has_mtu(mut metrics: &[u8]) -> bool {
    std::iter::from_fn(|| next_attribute(&mut metrics)).any(|(kind, _)| kind == RTAX_MTU)
}

pub(crate) fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let bytes = *rest;
    let length = usize::from(u16_at(bytes.first_chunk::<ATTRIBUTE_LEN>()?, 0));
    let value = bytes.get(ATTRIBUTE_LEN..length)?;
    *rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    // The upper two bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
    Some((u16_at(bytes, 2) & 0x3fff, value))
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}
