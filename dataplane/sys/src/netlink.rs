//! Netlink sockets (netlink(7)): each belongs to the network namespace of the thread that opens
//! it, whatever becomes of the thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{NetlinkAddr, bind, setsockopt, sockopt};

/// Receive buffer to ask for (bytes): a burst of events that it holds need not be asked for again.
const BUFFER_LEN: usize = 1 << 20;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, rules, queueing disciplines: rtnetlink(7).
    Route,
    /// nftables and other parts of netfilter.
    Netfilter,
    /// IPsec policies.
    Xfrm,
}

/// Opens a socket that never blocks and gets the multicasts of `groups`, a mask.
///
/// # Errors
/// `Unsupported`: this kernel has no such protocol. EPERM: one of the groups needs CAP_NET_ADMIN.
pub fn open(protocol: Protocol, groups: u32) -> io::Result<OwnedFd> {
    let number = match protocol {
        Protocol::Route => libc::NETLINK_ROUTE,
        Protocol::Netfilter => libc::NETLINK_NETFILTER,
        Protocol::Xfrm => libc::NETLINK_XFRM,
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, number) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        });
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Best effort: lost events are noticed (ENOBUFS).
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_LEN);
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_can_be_watched_without_rights() {
        const GROUP_LINK: u32 = 1;
        open(Protocol::Route, GROUP_LINK).expect("every kernel has rtnetlink");
    }
}
