//! Route lookup in the kernel: RTM_GETROUTE (rtnetlink(7)).
//!
//! The kernel replies before `send` returns and does not take its configuration lock
//! (`inet_rtm_getroute` in net/ipv4/route.c, `inet6_rtm_getroute` in net/ipv6/route.c of Linux). So
//! a worker can ask during a turn; it caches the replies.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use libc::{
    RTA_DST, RTA_IIF, RTA_METRICS, RTA_MULTIPATH, RTA_OIF, RTA_PREFSRC, RTA_SRC, RTM_GETROUTE,
    RTM_NEWROUTE, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST,
};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::namespace::{self, NamespaceId};
use crate::netlink::{self, Protocol};
use crate::tun::TunHandle;

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// Not in libc for every C library.
const RTA_ENCAP: u16 = 22;
/// Within RTA_METRICS: the route's own MTU.
const RTAX_MTU: u16 = 2;
/// Flag of a request (linux/rtnetlink.h, Linux 4.13): reply with the route as it was configured,
/// all its next hops included. The other replies name only the next hop of the request's own flow;
/// packets of one address pair may take different ones, by flow label, next header or, for ICMP
/// errors, the quoted addresses (`rt6_multipath_hash`, `ip_multipath_l3_keys`).
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// Bytes of `struct nlmsghdr`, of `struct rtmsg`, of an attribute's header, and of `struct
/// rtnexthop`.
const HEADER_LEN: usize = 16;
const ROUTE_LEN: usize = 12;
const ATTRIBUTE_LEN: usize = 4;
const NEXT_HOP_LEN: usize = 8;
/// Two addresses and an interface.
const REQUEST_LEN_MAX: usize = HEADER_LEN + ROUTE_LEN + 2 * (ATTRIBUTE_LEN + 16) + 8;
/// Upper limit of a reply (bytes). A route has few attributes and next hops; a longer reply is
/// truncated and reads as unknown.
const REPLY_LEN_MAX: usize = 4096;

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
    /// Forward it out of another interface, or along a route that may lead there or has an
    /// encapsulation.
    Elsewhere,
    /// No reply.
    #[default]
    Unknown,
}

/// The kernel's route for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Where it leads.
    pub route: Route,
    /// The route's own MTU (bytes); none: that of the interface.
    pub mtu: Option<u32>,
}

/// Looks up routes for packets of one interface.
pub struct RouteSocket {
    access: Access,
    interface: u32,
    sequence: u32,
}

/// The place of the socket.
enum Access {
    Here(OwnedFd),
    /// In another namespace, which the socket keeps alive: so it is open within one turn only.
    Elsewhere(Elsewhere, Option<OwnedFd>),
}

/// The way to an interface that is not in the daemon's own network namespace.
pub struct Elsewhere {
    /// The interface.
    pub device: Arc<TunHandle>,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// The daemon's own namespace.
    pub home: Arc<OwnedFd>,
}

impl Elsewhere {
    /// Opens a socket in the interface's namespace, if it is still the same.
    fn open(&self) -> io::Result<OwnedFd> {
        let namespace = self.device.namespace()?;
        if NamespaceId::of(&namespace)? != self.namespace {
            return Err(io::ErrorKind::NotFound.into());
        }
        namespace::enter(&namespace)?;
        let socket = netlink::open(Protocol::Route, 0);
        namespace::enter(&self.home)?;
        socket
    }
}

impl RouteSocket {
    /// Looks up routes through this NETLINK_ROUTE socket, for packets that arrive from the
    /// interface with index `interface` of its namespace.
    pub fn new(socket: OwnedFd, interface: u32) -> RouteSocket {
        RouteSocket { access: Access::Here(socket), interface, sequence: 0 }
    }

    /// As [`RouteSocket::new`], for an interface in another namespace. The calling thread enters
    /// it for each turn in which it asks.
    pub fn elsewhere(way: Elsewhere, interface: u32) -> RouteSocket {
        RouteSocket { access: Access::Elsewhere(way, None), interface, sequence: 0 }
    }

    /// Closes a socket that keeps another namespace alive.
    pub fn end_turn(&mut self) {
        if let Access::Elsewhere(_, socket) = &mut self.access {
            *socket = None;
        }
    }

    fn socket(&mut self) -> io::Result<RawFd> {
        Ok(match &mut self.access {
            Access::Here(socket) | Access::Elsewhere(_, Some(socket)) => socket.as_raw_fd(),
            Access::Elsewhere(way, socket) => socket.insert(way.open()?).as_raw_fd(),
        })
    }

    /// Looks up the route of a packet that arrives from the interface. Source and destination are
    /// of one family; `dscp` is in the upper six bits, as in a traffic class.
    pub fn ask(&mut self, source: IpAddr, destination: IpAddr, dscp: u8) -> Reply {
        let mut request = Request::new(destination, dscp, RTM_F_FIB_MATCH);
        request.attribute_address(RTA_SRC, source);
        request.attribute(RTA_IIF, &self.interface.to_ne_bytes());
        // Any error (ENOBUFS, or EAGAIN while the namespace is torn down) means unknown.
        let read = |message: Message<'_>, interface| message.forwarding(interface);
        self.query(request, read).unwrap_or_default()
    }

    /// The source address of the host's own packets to `destination` out of the interface; none
    /// without a route or an address.
    pub fn source_address(&mut self, destination: IpAddr) -> Option<IpAddr> {
        let mut request = Request::new(destination, 0, 0);
        request.attribute(RTA_OIF, &self.interface.to_ne_bytes());
        self.query(request, |message, interface| message.source_address(interface)).ok()?
    }

    fn query<T>(
        &mut self,
        mut request: Request,
        read: impl FnOnce(Message<'_>, u32) -> T,
    ) -> io::Result<T> {
        self.sequence = self.sequence.wrapping_add(1);
        let socket = self.socket()?;
        send(socket, request.finish(self.sequence), MsgFlags::MSG_DONTWAIT)?;
        let mut reply = [0u8; REPLY_LEN_MAX];
        loop {
            let length = recv(socket, &mut reply, MsgFlags::MSG_DONTWAIT)?;
            // A reply with another sequence number is a late one to an abandoned request.
            if let Some(message) = Message::read(&reply[..length], self.sequence) {
                return Ok(read(message, self.interface));
            }
        }
    }
}

struct Request {
    bytes: [u8; REQUEST_LEN_MAX],
    length: usize,
}

impl Request {
    fn new(destination: IpAddr, dscp: u8, flags: u32) -> Request {
        let mut bytes = [0u8; REQUEST_LEN_MAX];
        bytes[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
        bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        let (family, bits) = match destination {
            IpAddr::V4(_) => (libc::AF_INET as u8, 32),
            IpAddr::V6(_) => (libc::AF_INET6 as u8, 128),
        };
        // struct rtmsg: family, lengths of destination and source, traffic class; the flags last.
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&[family, bits, bits, dscp]);
        bytes[HEADER_LEN + 8..HEADER_LEN + ROUTE_LEN].copy_from_slice(&flags.to_ne_bytes());
        let mut request = Request { bytes, length: HEADER_LEN + ROUTE_LEN };
        request.attribute_address(RTA_DST, destination);
        request
    }

    fn attribute_address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.attribute(kind, &v4.octets()),
            IpAddr::V6(v6) => self.attribute(kind, &v6.octets()),
        }
    }

    /// Appends an attribute; all used here have aligned lengths.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = ATTRIBUTE_LEN + value.len();
        let attribute = &mut self.bytes[self.length..self.length + length];
        attribute[..2].copy_from_slice(&(length as u16).to_ne_bytes());
        attribute[2..4].copy_from_slice(&kind.to_ne_bytes());
        attribute[ATTRIBUTE_LEN..].copy_from_slice(value);
        self.length += length;
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        self.bytes[..4].copy_from_slice(&(self.length as u32).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes[..self.length]
    }
}

/// A reply of the kernel.
enum Message<'a> {
    /// RTM_NEWROUTE: the route's type and its attributes.
    Route { kind: u8, attributes: Attributes<'a> },
    /// NLMSG_ERROR: the error.
    Error(i32),
    /// Anything else, or cut short.
    Unreadable,
}

impl<'a> Message<'a> {
    /// Reads a reply; `None` if it belongs to another request.
    fn read(reply: &'a [u8], sequence: u32) -> Option<Message<'a>> {
        let header = reply.first_chunk::<HEADER_LEN>()?;
        if u32_at(header, 8) != sequence {
            return None;
        }
        let Some(payload) = reply.get(HEADER_LEN..u32_at(header, 0) as usize) else {
            return Some(Message::Unreadable);
        };
        Some(match u16_at(header, 4) {
            // struct rtmsg: the type is its eighth byte.
            RTM_NEWROUTE => match payload.split_first_chunk::<ROUTE_LEN>() {
                Some((route, rest)) => {
                    Message::Route { kind: route[7], attributes: Attributes(rest) }
                }
                None => Message::Unreadable,
            },
            _ => match payload.first_chunk() {
                Some(bytes) => Message::Error(-i32::from_ne_bytes(*bytes)),
                None => Message::Unreadable,
            },
        })
    }

    fn forwarding(self, interface: u32) -> Reply {
        let (kind, attributes) = match self {
            Message::Route { kind, attributes } => (kind, attributes),
            Message::Error(errno) => return Reply { route: read_error(errno), mtu: None },
            Message::Unreadable => return Reply::default(),
        };
        let (mut hops, mut foreign_hops, mut mtu) = (0, 0, None);
        let mut count = |hop: Option<u32>| {
            hops += 1;
            foreign_hops += usize::from(hop != Some(interface));
        };
        for (kind, value) in attributes {
            match kind {
                RTA_OIF => count(value.first_chunk().copied().map(u32::from_ne_bytes)),
                RTA_MULTIPATH => NextHops(value).for_each(&mut count),
                RTA_ENCAP => count(None),
                RTA_METRICS => mtu = route_mtu(value),
                _ => {}
            }
        }
        // Local, broadcast, anycast and multicast are consecutive.
        let route = match kind {
            RTN_LOCAL..=RTN_MULTICAST => Route::Local,
            RTN_UNICAST if hops > 0 && foreign_hops == 0 => Route::Back,
            _ => Route::Elsewhere,
        };
        Reply { route, mtu }
    }

    fn source_address(self, interface: u32) -> Option<IpAddr> {
        let Message::Route { kind: RTN_UNICAST, attributes } = self else { return None };
        let (mut is_ours, mut source) = (false, None);
        for (kind, value) in attributes {
            match kind {
                RTA_OIF => is_ours = value.first_chunk() == Some(&interface.to_ne_bytes()),
                RTA_PREFSRC => source = address(value),
                _ => {}
            }
        }
        source.filter(|_| is_ours)
    }
}

/// The meaning of an error:
/// - ENETUNREACH: no route;
/// - EHOSTUNREACH: an "unreachable" route, forwarding is off, or the limited broadcast;
/// - EACCES: a "prohibit" route;
/// - EINVAL: a "blackhole" route, or a martian;
/// - EXDEV: a failed reverse-path check;
/// - others (ENOBUFS, ...) say nothing about the route.
fn read_error(errno: i32) -> Route {
    match errno {
        libc::ENETUNREACH => Route::None,
        libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EXDEV => Route::Refused,
        _ => Route::Unknown,
    }
}

/// The route's own MTU in its metrics (bytes).
fn route_mtu(metrics: &[u8]) -> Option<u32> {
    let (_, value) = Attributes(metrics).find(|(kind, _)| *kind == RTAX_MTU)?;
    value.first_chunk().copied().map(u32::from_ne_bytes)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk().map(|bytes| Ipv4Addr::from(*bytes).into()),
        16 => bytes.first_chunk().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

/// Attributes in a row: type and value of each.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let length = usize::from(u16_at(bytes.first_chunk::<ATTRIBUTE_LEN>()?, 0));
        let value = bytes.get(ATTRIBUTE_LEN..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        Some((u16_at(bytes, 2) & 0x3fff, value))
    }
}

/// The next hops of a multipath route: the interface of each; none for one that is encapsulated
/// or cut short.
struct NextHops<'a>(&'a [u8]);

impl Iterator for NextHops<'_> {
    type Item = Option<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        // struct rtnexthop: length, flags, weight, interface; then attributes.
        let length = bytes.first_chunk::<2>().map_or(0, |bytes| usize::from(u16_at(bytes, 0)));
        let Some(attributes) = bytes.get(NEXT_HOP_LEN..length) else { return Some(None) };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let is_encapsulated = Attributes(attributes).any(|(kind, _)| kind == RTA_ENCAP);
        Some((!is_encapsulated).then(|| u32_at(bytes, 4)))
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_ne_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}
