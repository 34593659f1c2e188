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
    RTA_IIF, RTA_METRICS, RTA_MULTIPATH, RTA_OIF, RTA_PREFSRC, RTA_SRC, RTN_LOCAL, RTN_MULTICAST,
    RTN_UNICAST,
};

use crate::namespace::{self, NamespaceId};
use crate::netlink::{self, Protocol};
use crate::route_message::{
    Attributes, Message, NextHops, RTA_ENCAP, RTM_F_FIB_MATCH, Request, ask,
};
use crate::tun::TunHandle;

/// Within RTA_METRICS: the route's own MTU.
const RTAX_MTU: u16 = 2;

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
        self.query(request, read_forwarding).unwrap_or_default()
    }

    /// The source address of the host's own packets to `destination` out of the interface; none
    /// without a route or an address.
    pub fn source_address(&mut self, destination: IpAddr) -> Option<IpAddr> {
        let mut request = Request::new(destination, 0, 0);
        request.attribute(RTA_OIF, &self.interface.to_ne_bytes());
        self.query(request, read_source_address).ok()?
    }

    fn query<T>(
        &mut self,
        request: Request,
        read: impl FnOnce(Message<'_>, u32) -> T,
    ) -> io::Result<T> {
        let (socket, interface) = (self.socket()?, self.interface);
        ask(socket, &mut self.sequence, request, |message| read(message, interface))
    }
}

fn read_forwarding(message: Message<'_>, interface: u32) -> Reply {
    let (kind, attributes) = match message {
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

fn read_source_address(message: Message<'_>, interface: u32) -> Option<IpAddr> {
    let Message::Route { kind: RTN_UNICAST, attributes } = message else { return None };
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

#[cfg(test)]
mod tests {
    mod fuzz;
}
