//! Answers of the kernel to a worker's questions about routes, prepared before they are asked: the
//! sequence numbers are known.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use wg_bounce_sys::route::RouteSocket;

/// The number of the MTU among metrics (linux/rtnetlink.h).
const RTAX_MTU: u16 = 2;
/// The index of the interface.
const INTERFACE: u32 = 7;
/// Answers of each input. The routes of further questions stay unknown.
const ANSWERS: u32 = 24;

/// The answer to every question of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No question can be asked.
    Unasked,
    /// Back into the interface.
    Back,
    /// Back into the interface, with a small MTU.
    BackWithMtu,
    /// Out of another interface.
    Elsewhere,
    /// To the host itself.
    Local,
    /// None.
    NoRoute,
    /// Refused.
    Refused,
    /// Cut short.
    Unreadable,
}

impl Answer {
    /// The answer by number.
    pub fn number(number: u8) -> Answer {
        use Answer::*;
        [Unasked, Back, BackWithMtu, Elsewhere, Local, NoRoute, Refused, Unreadable]
            [usize::from(number & 7)]
    }

    /// A socket that gives this answer, and its other end.
    pub fn socket(self) -> Option<(RouteSocket, OwnedFd)> {
        if self == Answer::Unasked {
            return None;
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, kernel) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .expect("a pair of sockets");
        for sequence in 1..=ANSWERS {
            let message = self.message(sequence);
            send(kernel.as_raw_fd(), &message, MsgFlags::empty()).expect("room in the queue");
        }
        Some((RouteSocket::new(ours, INTERFACE), kernel))
    }

    fn message(self, sequence: u32) -> Vec<u8> {
        let error = match self {
            Answer::NoRoute => Some(libc::ENETUNREACH),
            Answer::Refused => Some(libc::EACCES),
            _ => None,
        };
        let (kind, mut body) = match error {
            Some(errno) => (libc::NLMSG_ERROR as u16, (-errno).to_ne_bytes().to_vec()),
            None => (libc::RTM_NEWROUTE, self.route()),
        };
        let length = 16 + body.len() as u32;
        if self == Answer::Unreadable {
            body.pop();
        }
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 2]);
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        message
    }

    /// `struct rtmsg` and its attributes.
    fn route(self) -> Vec<u8> {
        let mut route = vec![0; 12];
        route[7] = if self == Answer::Local { libc::RTN_LOCAL } else { libc::RTN_UNICAST };
        let interface = if self == Answer::Elsewhere { INTERFACE + 1 } else { INTERFACE };
        attribute(&mut route, libc::RTA_OIF, &interface.to_ne_bytes());
        attribute(&mut route, libc::RTA_PREFSRC, &[10, 9, 0, 1]);
        if self == Answer::BackWithMtu {
            let mut metrics = Vec::new();
            attribute(&mut metrics, RTAX_MTU, &600u32.to_ne_bytes());
            attribute(&mut route, libc::RTA_METRICS, &metrics);
        }
        route
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
}
