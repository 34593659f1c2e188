//! Monitors the interface in its current network namespace: up or down, MTU, name.
//!
//! 1. `open` asks the TUN descriptor for the namespace, subscribes to its events, suppresses the
//!    kernel's own traffic on the interface, and reads its state. A socket in another namespace
//!    would keep that alive, so the events of all namespaces come to a socket in the daemon's own.
//! 2. `read` reads events; without events, it reads the state.
//! 3. When the interface leaves the namespace, `read` opens again. A move and a deletion look the
//!    same on netlink; the TUN descriptor tells them apart (EBADFD: deleted).

pub mod message;
pub mod namespace;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use wg_bounce_sys::namespace::NamespaceId;
use wg_bounce_sys::tun::TunHandle;

use crate::limits::FOLLOW_ATTEMPTS_MAX;
use crate::netlink::message::Protocol;
use crate::netlink::numbers::LINK_GROUP;
use crate::netlink::parse::malformed;
use crate::netlink::socket::{EventsRead, NetlinkSocket};
use message::Event;

pub use message::Link;

/// The monitor of one interface; or an interface that does not exist.
pub struct LinkWatcher {
    link: Link,
    /// None without an interface.
    monitor: Option<Monitor>,
    /// It was down for a while between the last two states.
    was_down: bool,
}

/// The way to the state of an interface.
struct Monitor {
    handle: TunHandle,
    socket: NetlinkSocket,
    sight: Sight,
    /// Its namespace, in which the kernel's own traffic on it was suppressed.
    namespace: NamespaceId,
}

/// The source of later changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Events announce them.
    Events,
    /// There are no events from the interface's namespace.
    Polled,
    /// The last attempt failed.
    Lost,
}

/// Whether the interface still exists.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// It exists; see [`LinkWatcher::link`].
    Present,
    /// It was deleted.
    Deleted,
}

impl LinkWatcher {
    /// Starts to monitor the interface of `handle`.
    ///
    /// # Errors
    /// Those of the system calls. EPERM: the daemon may not enter the interface's namespace;
    /// EBADFD: the interface was deleted.
    pub fn open(handle: TunHandle) -> io::Result<LinkWatcher> {
        let (socket, link, sight, namespace) = subscribe(&handle, None)?;
        let monitor = Some(Monitor { handle, socket, sight, namespace });
        Ok(LinkWatcher { link, monitor, was_down: false })
    }

    /// No interface, but this name. It is down.
    pub fn absent(name: &str) -> LinkWatcher {
        let link = Link { index: 0, name: name.to_owned(), is_up: false, mtu: 0 };
        LinkWatcher { link, monitor: None, was_down: false }
    }

    /// Brings up an interface that does not exist, with this MTU (bytes).
    pub fn bring_up(&mut self, mtu: usize) {
        debug_assert!(self.is_absent());
        (self.link.is_up, self.link.mtu) = (true, mtu);
    }

    /// Whether the interface is missing.
    pub fn is_absent(&self) -> bool {
        self.monitor.is_none()
    }

    /// The last known state of the interface.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Whether the interface went down since the [`LinkWatcher::read`] before the last one, even
    /// if it is up again.
    pub fn was_down(&self) -> bool {
        self.was_down
    }

    /// Whether the interface is in the network namespace of the calling thread.
    pub fn is_in_our_namespace(&self) -> bool {
        let namespace = self.monitor.as_ref().map(|monitor| monitor.handle.namespace());
        namespace.is_some_and(|found| found.is_ok_and(|found| namespace::is_current(&found)))
    }

    /// Whether [`LinkWatcher::read`] must be called from time to time, since events do not
    /// announce every change.
    pub fn must_look(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.sight != Sight::Events)
    }

    /// Whether the last attempt to read the state failed.
    pub fn is_lost(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.sight == Sight::Lost)
    }

    /// Reads the waiting events, or the state; never blocks.
    ///
    /// # Errors
    /// As for [`LinkWatcher::open`], after a move. The next call tries again.
    pub fn read(&mut self) -> io::Result<Presence> {
        let must_look = self.must_look();
        let Some(monitor) = &mut self.monitor else { return Ok(Presence::Present) };
        let index = self.link.index;
        let (mut present, mut is_gone) = (None, false);
        let (mut is_up, mut was_down) = (self.link.is_up, false);
        let result = monitor.socket.read_events(|message| match message::event(message) {
            Some(Event::Present(link)) if link.index == index => {
                was_down |= is_up && !link.is_up;
                is_up = link.is_up;
                present = Some(link);
            }
            Some(Event::Gone { index: gone }) if gone == index => is_gone = true,
            _ => {}
        });
        // A move takes the interface down; lost events may have been about that as well.
        let is_whole = result.is_ok_and(|read| read != EventsRead::Lost);
        self.was_down = was_down || is_gone || !is_whole;
        if is_gone || !is_whole || must_look {
            return monitor.reopen(&mut self.link);
        }
        if let Some(link) = present {
            self.link = link;
        }
        Ok(Presence::Present)
    }

    /// The descriptor that is readable when there are events; none without an interface.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().map(|monitor| monitor.socket.as_fd())
    }
}

impl Monitor {
    fn reopen(&mut self, link: &mut Link) -> io::Result<Presence> {
        match subscribe(&self.handle, Some(self.namespace)) {
            Ok((socket, state, sight, namespace)) => {
                (self.socket, *link) = (socket, state);
                (self.sight, self.namespace) = (sight, namespace);
                Ok(Presence::Present)
            }
            Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                Ok(Presence::Deleted)
            }
            Err(error) => {
                self.sight = Sight::Lost;
                Err(error)
            }
        }
    }
}

/// Subscribes to events of the interface's namespace, then reads the state of the interface: no
/// later change can be missed. Suppresses the kernel's own traffic unless the interface is in the
/// `known` namespace still: later settings are the operator's.
fn subscribe(
    handle: &TunHandle,
    known: Option<NamespaceId>,
) -> io::Result<(NetlinkSocket, Link, Sight, NamespaceId)> {
    let mut attempts = 0;
    loop {
        let namespace = handle.namespace()?;
        let id = NamespaceId::of(&namespace)?;
        let name = handle.name()?;
        let mut socket = open_socket()?;
        let sight = match namespace::follow(&namespace, &mut [&mut socket]) {
            Ok(()) => Sight::Events,
            Err(_) => Sight::Polled,
        };
        let result = namespace::run_in(&namespace, || {
            if known != Some(id) {
                namespace::suppress_link_noise(&name);
            }
            query(&mut open_socket()?, &name)
        });
        attempts += 1;
        match result {
            // The interface was moved or renamed between two of these calls.
            Err(error)
                if error.raw_os_error() == Some(Errno::ENODEV as i32)
                    && attempts < FOLLOW_ATTEMPTS_MAX => {}
            other => return other.map(|link| (socket, link, sight, id)),
        }
    }
}

fn open_socket() -> io::Result<NetlinkSocket> {
    NetlinkSocket::open(Protocol::Route, &[LINK_GROUP])
}

fn query(socket: &mut NetlinkSocket, name: &str) -> io::Result<Link> {
    let reply = socket.request(&message::request(name))?;
    match reply.messages.first().and_then(message::event) {
        Some(Event::Present(link)) => Ok(link),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_answers() {
        let mut socket = open_socket().expect("netlink");
        let link = query(&mut socket, "lo").expect("every namespace has one");
        assert_eq!((link.index, link.name.as_str()), (1, "lo"));
        assert!(link.mtu > 0);
    }

    #[test]
    fn a_missing_interface_is_refused() {
        let mut socket = open_socket().expect("netlink");
        let error = query(&mut socket, "wg-none-such").expect_err("not there");
        assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32));
    }
}
