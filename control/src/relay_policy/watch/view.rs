//! The location of the interface, and the events of the kernel there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::tun::TunHandle;

use crate::limits::FOLLOW_ATTEMPTS_MAX;
use crate::link::namespace;
use crate::netlink::message::{Message, Protocol};
use crate::netlink::numbers::{FORWARDING_GROUPS, NFTABLES_GROUP};
use crate::netlink::socket::{EventsRead, NetlinkSocket};
use crate::relay_policy::kernel::Interface;
use crate::relay_policy::source::{Change, changed_by_nftables, changed_by_route};

/// The calling thread's view of the interface, from within its namespace.
pub(super) struct View {
    /// The interface, as named there.
    pub interface: Interface,
    route: NetlinkSocket,
    /// None if the kernel has no nftables, or does not allow the subscription.
    nftables: Option<NetlinkSocket>,
}

/// The result of reading the events of one socket.
pub(super) enum Events {
    /// The changes.
    Changes(Vec<Change>),
    /// Some events were lost, or cannot be parsed.
    Lost,
}

impl View {
    /// Moves the calling thread into the interface's namespace and subscribes to events there: no
    /// later change can be missed.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted. EPERM: the daemon may not enter its
    /// namespace.
    pub fn open(handle: &TunHandle) -> io::Result<View> {
        for _ in 0..FOLLOW_ATTEMPTS_MAX {
            namespace::enter(&handle.namespace()?)?;
            let route = NetlinkSocket::open(Protocol::Route, &FORWARDING_GROUPS)?;
            let nftables = NetlinkSocket::open(Protocol::Netfilter, &[NFTABLES_GROUP]);
            let name = handle.name()?;
            let index = match if_nametoindex(name.as_str()) {
                Ok(index) => index,
                // The interface was moved or renamed in the meantime.
                Err(Errno::ENODEV) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let view =
                View { interface: Interface { index, name }, route, nftables: nftables.ok() };
            if view.is_current(handle)? {
                return Ok(view);
            }
        }
        Err(Errno::ENODEV.into())
    }

    /// Whether the interface still has the same namespace and name.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted.
    pub fn is_current(&self, handle: &TunHandle) -> io::Result<bool> {
        Ok(namespace::is_current(&handle.namespace()?) && handle.name()? == self.interface.name)
    }

    /// Whether changes of nftables are announced.
    pub fn has_nftables_events(&self) -> bool {
        self.nftables.is_some()
    }

    /// Opens one socket for route queries per worker.
    ///
    /// # Errors
    /// The process has run out of descriptors.
    pub fn route_query_sockets(&self, workers: usize) -> io::Result<Vec<RouteSocket>> {
        let open = |_| {
            let socket = NetlinkSocket::open(Protocol::Route, &[])?;
            Ok(RouteSocket::new(socket.into(), self.interface.index))
        };
        (0..workers).map(open).collect()
    }

    /// The descriptors to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.route.as_fd()).chain(self.nftables.as_ref().map(AsFd::as_fd))
    }

    /// Reads the waiting events; never blocks.
    pub fn read_events(&self) -> [Events; 2] {
        let route = read(&self.route, |message| changed_by_route(message, &self.interface));
        let nftables = self.nftables.as_ref().map(|socket| read(socket, changed_by_nftables));
        [route, nftables.unwrap_or_else(|| Events::Changes(Vec::new()))]
    }
}

/// The changes announced by the events of one socket; equal ones in a row are merged.
fn read(socket: &NetlinkSocket, change: impl Fn(&Message) -> Change) -> Events {
    let mut changes: Vec<Change> = Vec::new();
    let result = socket.read_events(|message| {
        let change = change(message);
        if changes.last() != Some(&change) {
            changes.push(change);
        }
    });
    match result {
        Ok(EventsRead::All) => Events::Changes(changes),
        Ok(EventsRead::Lost) | Err(_) => Events::Lost,
    }
}
