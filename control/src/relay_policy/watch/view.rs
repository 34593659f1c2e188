//! Where the interface is, and what the kernel tells by itself there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{MsgFlags, recv};
use wg_bounce_sys::netlink::{self, Protocol};
use wg_bounce_sys::tun::TunHandle;

use super::system::DATAGRAM_MAX;
use crate::limits::FOLLOW_ATTEMPTS_MAX;
use crate::link::namespace;
use crate::relay_policy::kernel::Interface;
use crate::relay_policy::message::frames;
use crate::relay_policy::source::{Change, changed_by_nftables, changed_by_route};

/// RTNLGRP_* (linux/rtnetlink.h), each the number of a bit from 1: links, traffic control, IPv4
/// addresses, routes and rules, the same of IPv6, forwarding settings of both, next hops.
const ROUTE_GROUPS: [u32; 11] = [1, 4, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// NFNLGRP_NFTABLES.
const NFTABLES_GROUP: u32 = 7;

/// The calling thread's view of the interface: from within its namespace.
pub(super) struct View {
    /// The interface, there.
    pub interface: Interface,
    route: OwnedFd,
    /// None: the kernel has no nftables, or does not tell us.
    nftables: Option<OwnedFd>,
}

/// What the events of one socket come to.
pub(super) enum Events {
    /// These changes.
    Changes(Vec<Change>),
    /// Some were lost, or cannot be read.
    Lost,
}

impl View {
    /// Moves the calling thread into the interface's namespace and subscribes there: nothing that
    /// happens later than this can be missed.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted. EPERM: it is in a namespace that we must not enter.
    pub fn open(handle: &TunHandle) -> io::Result<View> {
        for _ in 0..FOLLOW_ATTEMPTS_MAX {
            namespace::enter(&handle.namespace()?)?;
            let route = netlink::open(Protocol::Route, mask(&ROUTE_GROUPS))?;
            let nftables = netlink::open(Protocol::Netfilter, mask(&[NFTABLES_GROUP]));
            let name = handle.name()?;
            let index = match if_nametoindex(name.as_str()) {
                Ok(index) => index,
                // It was moved or renamed meanwhile: follow it.
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

    /// Whether the interface is still where, and called what, it was.
    ///
    /// # Errors
    /// EBADFD: the interface was deleted.
    pub fn is_current(&self, handle: &TunHandle) -> io::Result<bool> {
        Ok(namespace::is_current(&handle.namespace()?) && handle.name()? == self.interface.name)
    }

    /// Whether nftables' changes are reported.
    pub fn has_nftables_events(&self) -> bool {
        self.nftables.is_some()
    }

    /// Opens a socket to ask for routes for each of so many workers.
    ///
    /// # Errors
    /// Descriptors are short.
    pub fn route_query_sockets(&self, workers: usize) -> io::Result<Vec<OwnedFd>> {
        (0..workers).map(|_| netlink::open(Protocol::Route, 0)).collect()
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.route.as_fd()).chain(self.nftables.as_ref().map(AsFd::as_fd))
    }

    /// Takes what the kernel has reported; never blocks.
    pub fn take(&self) -> [Events; 2] {
        let route = take(&self.route, |message| changed_by_route(message, &self.interface));
        let nftables = self.nftables.as_ref().map(|socket| take(socket, changed_by_nftables));
        [route, nftables.unwrap_or_else(|| Events::Changes(Vec::new()))]
    }
}

fn mask(groups: &[u32]) -> u32 {
    groups.iter().map(|group| 1 << (group - 1)).sum()
}

/// Takes all that waits at a socket, up to a bound: the rest wakes us again.
fn take(
    socket: &OwnedFd,
    read: impl Fn(&crate::relay_policy::message::Message) -> Change,
) -> Events {
    const DATAGRAMS_MAX: usize = 4096;
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut changes: Vec<Change> = Vec::new();
    for _ in 0..DATAGRAMS_MAX {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => continue,
            // ENOBUFS: the kernel had more to say than the socket could hold.
            Err(_) => return Events::Lost,
        };
        let Some(Ok(frames)) = buffer.get(..length).map(frames) else { return Events::Lost };
        for frame in frames {
            let change = read(&frame.message);
            if changes.last() != Some(&change) {
                changes.push(change);
            }
        }
    }
    Events::Changes(changes)
}
