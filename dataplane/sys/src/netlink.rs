//! Netlink sockets (netlink(7)). A socket stays in the network namespace of the thread that opened
//! it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{NetlinkAddr, bind, setsockopt, sockopt};

/// Receive buffer to request (bytes). An event burst beyond it is lost and needs a new dump.
const BUFFER_LEN: usize = 1 << 20;

/// The netlink family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Links, addresses, routes, rules, queueing disciplines: rtnetlink(7).
    Route,
    /// nftables and the rest of netfilter.
    Netfilter,
    /// IPsec policies.
    Xfrm,
}

/// Opens a non-blocking socket that joins the multicast groups of the mask `groups`.
///
/// # Errors
/// `Unsupported`: this kernel lacks the protocol. EPERM: one of the groups needs CAP_NET_ADMIN.
/// EMFILE, ENFILE: too many open files.
pub fn open(protocol: Protocol, groups: u32) -> io::Result<OwnedFd> {
    let number = match protocol {
        Protocol::Route => libc::NETLINK_ROUTE,
        Protocol::Netfilter => libc::NETLINK_NETFILTER,
        Protocol::Xfrm => libc::NETLINK_XFRM,
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers only.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, number) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        });
    }
    // SAFETY: the descriptor is new, and we are its only owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // Best effort (EPERM without CAP_NET_ADMIN): a lost event is reported as ENOBUFS.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_LEN);
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Lets `socket` receive the events of all namespaces that have an id in its own one; each carries
/// that id as a control message (NETLINK_LISTEN_ALL_NSID).
///
/// # Errors
/// EPERM: no CAP_NET_BROADCAST.
pub fn listen_to_all_namespaces(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let (level, option) = (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID);
    // SAFETY: the kernel reads `length` bytes of `on`, which has that length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watching_links_needs_no_capability() {
        const GROUP_LINK: u32 = 1;
        open(Protocol::Route, GROUP_LINK).expect("every kernel has rtnetlink");
    }
}
