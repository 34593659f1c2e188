//! What control and workers say to each other: commands one way, events the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use wg_bounce_sys::Endpoint;

use crate::peer::Peer;
use crate::session::ReceiveSession;
use crate::wire::HANDSHAKE_LEN_MAX;

/// From control to one worker. A worker reads its mailbox after each wait, before the packets
/// that the wait returned.
pub enum Command {
    /// A handshake response or cookie reply for this index is awaited.
    Expect {
        /// Our index; its low byte names the worker.
        index: u32,
    },
    /// This session receives from now on; takes the place of an [`Command::Expect`] of its index.
    Install(Box<ReceiveSession>),
    /// Nothing is received for this index any more.
    Forget {
        /// Our index.
        index: u32,
    },
    /// A session to send with was published: send what is staged.
    Flush {
        /// For whom.
        peer: Arc<Peer>,
    },
    /// Drop what is staged: the handshake was given up, or the peer was removed.
    Discard {
        /// Whose packets.
        peer: Arc<Peer>,
    },
    /// Send a keepalive: an empty packet, which waits for a session like any other.
    Keepalive {
        /// To whom.
        peer: Arc<Peer>,
    },
    /// Receive on, and send from, these sockets instead (the listen port changed).
    Sockets {
        /// The IPv4 member of the group.
        v4: Option<OwnedFd>,
        /// The IPv6 member of the group.
        v6: Option<OwnedFd>,
    },
    /// Ask the kernel for its routes here from now on.
    AskRoutes {
        /// A NETLINK_ROUTE socket in the interface's network namespace, for this worker alone.
        socket: OwnedFd,
        /// The interface's number in that namespace.
        interface: u32,
    },
}

/// A handshake message of the right type, length and (for initiations and responses) mac1.
#[derive(Clone, Debug)]
pub struct HandshakeMessage {
    /// The whole message.
    pub bytes: ArrayVec<u8, HANDSHAKE_LEN_MAX>,
    /// Where it came from, and which of our addresses it was sent to.
    pub from: Endpoint,
}
