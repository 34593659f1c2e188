//! Watches the interface in whatever network namespace it is: up or down, MTU, name.
//!
//! 1. `open` asks the TUN descriptor for the namespace, subscribes there, quietens the interface
//!    and asks how it is now.
//! 2. `read` takes what the kernel reports.
//! 3. When the interface leaves the namespace, `read` opens anew. A move and a deletion look the
//!    same on netlink; the TUN descriptor tells them apart (EBADFD: deleted).

pub mod message;
pub mod namespace;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};
use wg_bounce_sys::tun::TunHandle;

use message::Event;

use crate::limits::FOLLOW_ATTEMPTS_MAX;

pub use message::Link;

/// The multicast group of link messages (RTMGRP_LINK).
const GROUP_LINK: u32 = 1;

/// Bytes for one datagram; the kernel's link messages are a few KiB at most (NLMSG_GOODSIZE).
const DATAGRAM_MAX: usize = 64 * 1024;

/// The watch over one interface.
pub struct LinkWatcher {
    handle: TunHandle,
    socket: OwnedFd,
    link: Link,
}

/// What became of the interface.
#[derive(Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there; see [`LinkWatcher::link`].
    Present,
    /// It was deleted.
    Deleted,
}

impl LinkWatcher {
    /// Watches the interface of `handle`.
    ///
    /// # Errors
    /// Those of the system calls (EPERM: it is in a namespace that we must not enter; EBADFD: it
    /// was deleted).
    pub fn open(handle: TunHandle) -> io::Result<LinkWatcher> {
        let (socket, link) = subscribe(&handle)?;
        Ok(LinkWatcher { handle, socket, link })
    }

    /// How the interface is, as far as was read.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Takes what the kernel has reported; never blocks.
    ///
    /// # Errors
    /// As for [`LinkWatcher::open`], after a move.
    pub fn read(&mut self) -> io::Result<Presence> {
        loop {
            let events = match receive(&self.socket) {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(Presence::Present),
                Err(Errno::EINTR) => continue,
                // The kernel had more to say than the socket could hold: ask instead.
                Err(Errno::ENOBUFS) => return self.reopen(),
                Err(errno) => return Err(errno.into()),
            };
            for event in events {
                match event {
                    Event::Present { link, .. } if link.index == self.link.index => {
                        self.link = link;
                    }
                    Event::Gone { index } if index == self.link.index => return self.reopen(),
                    _ => {}
                }
            }
        }
    }

    fn reopen(&mut self) -> io::Result<Presence> {
        match subscribe(&self.handle) {
            Ok((socket, link)) => {
                (self.socket, self.link) = (socket, link);
                Ok(Presence::Present)
            }
            Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
                Ok(Presence::Deleted)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for LinkWatcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Subscribes in the interface's namespace, then asks how the interface is: nothing that happens
/// after the answer can be missed.
fn subscribe(handle: &TunHandle) -> io::Result<(OwnedFd, Link)> {
    let mut attempts = 0;
    loop {
        let namespace = handle.namespace()?;
        let name = handle.name()?;
        let result = namespace::run_in(&namespace, || {
            let socket = open_socket()?;
            namespace::suppress_link_noise(&name);
            let link = ask(&socket, &name)?;
            Ok((socket, link))
        });
        attempts += 1;
        match result {
            // It was moved or renamed between two of these calls: follow it.
            Err(error)
                if error.raw_os_error() == Some(Errno::ENODEV as i32)
                    && attempts < FOLLOW_ATTEMPTS_MAX => {}
            other => return other,
        }
    }
}

fn open_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_LINK))?;
    Ok(socket)
}

/// Netlink answers before `send` returns, so that nothing is waited for.
fn ask(socket: &OwnedFd, name: &str) -> io::Result<Link> {
    const SEQUENCE: u32 = 1;
    send(socket.as_raw_fd(), &message::request(name, SEQUENCE), MsgFlags::empty())?;
    loop {
        for event in receive(socket)? {
            match event {
                Event::Present { sequence: SEQUENCE, link } => return Ok(link),
                Event::Refused { sequence: SEQUENCE, errno } => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                // Older than the answer.
                _ => {}
            }
        }
    }
}

fn receive(socket: &OwnedFd) -> nix::Result<Vec<Event>> {
    let mut buffer = vec![0; DATAGRAM_MAX];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    Ok(message::parse(&buffer[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_answers() {
        let socket = open_socket().expect("netlink");
        let link = ask(&socket, "lo").expect("every namespace has one");
        assert_eq!((link.index, link.name.as_str()), (1, "lo"));
        assert!(link.mtu > 0);
    }

    #[test]
    fn a_missing_interface_is_refused() {
        let socket = open_socket().expect("netlink");
        let error = ask(&socket, "wg-none-such").expect_err("not there");
        assert_eq!(error.raw_os_error(), Some(Errno::ENODEV as i32));
    }
}
