//! Notices that routes, links, addresses or rules have changed around the UDP sockets, in the
//! network namespace where the daemon was started.

use std::os::fd::{AsFd, BorrowedFd};

use wg_bounce_sys::clock::Millis;

use crate::limits::UPLINK_LOOK_INTERVAL;
use crate::netlink::message::Protocol;
use crate::netlink::numbers::UPLINK_GROUPS;
use crate::netlink::socket::NetlinkSocket;

/// The subscription to changes.
pub struct UplinkWatch {
    /// None if netlink is refused: the start of the workers logs the consequence.
    socket: Option<NetlinkSocket>,
    /// Events accumulate until then, so that a full routing table that churns wakes the control
    /// thread a bounded number of times.
    next_look: Millis,
}

impl UplinkWatch {
    /// Subscribes in the network namespace of this thread.
    pub fn open() -> UplinkWatch {
        let socket = NetlinkSocket::open(Protocol::Route, &UPLINK_GROUPS)
            .inspect_err(|error| log::warn!("cannot monitor routes: {error}"))
            .ok();
        UplinkWatch { socket, next_look: Millis::ZERO }
    }

    /// The descriptor to wait for; none until [`UplinkWatch::resumes_in`].
    pub fn descriptor(&self, now: Millis) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| self.next_look <= now).map(AsFd::as_fd)
    }

    /// The time after which to wait for the descriptor again; none if it is waited for.
    pub fn resumes_in(&self, now: Millis) -> Option<Millis> {
        (self.next_look > now).then(|| self.next_look.since(now))
    }

    /// Discards the waiting events, each of which means that something has changed; so do lost
    /// ones, and an error.
    pub fn take_events(&mut self, now: Millis) {
        if let Some(socket) = &self.socket {
            let _ = socket.read_events(|_| {});
        }
        self.next_look = now + UPLINK_LOOK_INTERVAL;
    }
}
