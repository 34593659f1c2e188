//! The location of the interface, and the events of the kernel there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use wg_bounce_sys::namespace::NamespaceId;
use wg_bounce_sys::route::{Elsewhere, RouteSocket};
use wg_bounce_sys::tun::TunHandle;

use crate::limits::FOLLOW_ATTEMPTS_MAX;
use crate::link::namespace;
use crate::netlink::message::{Message, Protocol};
use crate::netlink::numbers::{FORWARDING_GROUPS, NFTABLES_GROUP};
use crate::netlink::socket::{EventsRead, NetlinkSocket};
use crate::relay_policy::announced::Announced;
use crate::relay_policy::kernel::Interface;
use crate::relay_policy::source::{Change, Source, changed_by_route};

/// The place of the interface.
pub(super) struct View {
    /// The interface, as named there.
    pub interface: Interface,
    namespace: NamespaceId,
    /// Whether its namespace is the daemon's own.
    is_home: bool,
    /// Whether the sockets receive the events of its namespace.
    has_events: bool,
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
    /// Finds the interface and subscribes to events of its namespace: no later change can be
    /// missed.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted. EPERM: the daemon may not enter its
    /// namespace.
    pub fn open(handle: &TunHandle) -> io::Result<View> {
        for _ in 0..FOLLOW_ATTEMPTS_MAX {
            let namespace = handle.namespace()?;
            let mut route = NetlinkSocket::open(Protocol::Route, &FORWARDING_GROUPS)?;
            let mut nftables = NetlinkSocket::open(Protocol::Netfilter, &[NFTABLES_GROUP]).ok();
            let mut sockets: Vec<&mut NetlinkSocket> = nftables.iter_mut().collect();
            sockets.push(&mut route);
            let has_events = namespace::follow(&namespace, &mut sockets).is_ok();
            let name = handle.name()?;
            // The interface was moved or renamed in the meantime.
            let Some(index) = index(&namespace, &name)? else { continue };
            let view = View {
                interface: Interface { index, name },
                namespace: NamespaceId::of(&namespace)?,
                is_home: namespace::is_current(&namespace),
                has_events,
                route,
                nftables,
            };
            drop(namespace);
            if view.is_current(handle)? {
                return Ok(view);
            }
        }
        Err(Errno::ENODEV.into())
    }

    /// Whether the interface still has the same namespace, name and index.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted.
    pub fn is_current(&self, handle: &TunHandle) -> io::Result<bool> {
        let (namespace, name) = (handle.namespace()?, handle.name()?);
        Ok(NamespaceId::of(&namespace)? == self.namespace
            && name == self.interface.name
            && index(&namespace, &name)? == Some(self.interface.index))
    }

    /// Runs `work` in the interface's namespace.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted. ENODEV: it was moved.
    pub fn run<T: Send>(
        &self,
        handle: &TunHandle,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        let namespace = handle.namespace()?;
        if NamespaceId::of(&namespace)? != self.namespace {
            return Err(Errno::ENODEV.into());
        }
        namespace::run_in(&namespace, || Ok(work()))
    }

    /// Whether changes are announced.
    pub fn has_events(&self) -> bool {
        self.has_events
    }

    /// Whether changes of nftables are announced.
    pub fn has_nftables_events(&self) -> bool {
        self.has_events && self.nftables.is_some()
    }

    /// Whether the kernel also says which of them it could not announce: in another namespace it
    /// does not.
    pub fn has_all_nftables_events(&self) -> bool {
        self.has_nftables_events() && self.is_home
    }

    /// Opens one socket for route queries per worker.
    ///
    /// # Errors
    /// The process has run out of descriptors. EPERM: a worker that enters the interface's
    /// namespace could not return.
    pub fn route_query_sockets(
        &self,
        handle: &Arc<TunHandle>,
        workers: usize,
    ) -> io::Result<Vec<RouteSocket>> {
        let index = self.interface.index;
        if self.is_home {
            let open = |_| {
                let socket = NetlinkSocket::open(Protocol::Route, &[])?;
                Ok(RouteSocket::new(socket.into(), index))
            };
            return (0..workers).map(open).collect();
        }
        let home = Arc::new(namespace::current()?);
        self.run(handle, || namespace::enter(&home))??;
        let way = |_| {
            let (device, home) = (Arc::clone(handle), Arc::clone(&home));
            let way = Elsewhere { device, namespace: self.namespace, home };
            RouteSocket::elsewhere(way, index)
        };
        Ok((0..workers).map(way).collect())
    }

    /// The descriptors to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.route.as_fd()).chain(self.nftables.as_ref().map(AsFd::as_fd))
    }

    /// Reads the waiting events; never blocks. Those of nftables are added to `announced`.
    /// `asks_for_elements`: see [`Announced::concern_rules`].
    pub fn read_events(&self, announced: &mut Announced, asks_for_elements: bool) -> [Events; 2] {
        let route = read(&self.route, |message| changed_by_route(message, &self.interface));
        let nftables = match self.read_announced(announced) {
            Some(true) if announced.concern_rules(asks_for_elements) => {
                let sources = vec![Source::Nftables];
                Events::Changes(vec![Change { sources, ..Change::default() }])
            }
            Some(_) => Events::Changes(Vec::new()),
            None => Events::Lost,
        };
        [route, nftables]
    }

    /// Adds the waiting events of nftables. Returns whether one ends a transaction; none: some were
    /// lost.
    pub fn read_announced(&self, announced: &mut Announced) -> Option<bool> {
        let Some(socket) = &self.nftables else { return Some(false) };
        let mut has_ended = false;
        match socket.read_events(|event| has_ended |= announced.add(event)) {
            Ok(EventsRead::All) => Some(has_ended),
            Ok(EventsRead::Lost) | Err(_) => {
                announced.lose();
                None
            }
        }
    }
}

/// The index of an interface; none if there is none of this name.
fn index(namespace: &OwnedFd, name: &str) -> io::Result<Option<u32>> {
    namespace::run_in(namespace, || match if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    })
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
