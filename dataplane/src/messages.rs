//! Messages between control and workers: commands one way, handshake messages the other.

use std::sync::Arc;

use arrayvec::ArrayVec;
use wg_bounce_sys::route::RouteSocket;
use wg_bounce_sys::{Endpoint, Sockets};

use crate::peer::Peer;
use crate::receive_session::ReceiveSession;
use crate::wire::HANDSHAKE_LEN_MAX;

/// A command from control to one worker. A worker reads its commands after each wait, before the
/// packets that the wait returned.
pub enum Command {
    /// A handshake response or cookie reply for this index is pending.
    Expect {
        /// Our index; its low byte names the worker.
        index: u32,
    },
    /// This session receives from now on; replaces a [`Command::Expect`] of its index.
    Install(Box<ReceiveSession>),
    /// Nothing is received for this index from now on.
    Forget {
        /// Our index.
        index: u32,
    },
    /// A session to send with was published: send the staged packets.
    SendStaged {
        /// The peer that they are for.
        peer: Arc<Peer>,
    },
    /// Drop staged packets and held trains: the handshake was given up, or the peer was removed.
    Discard {
        /// The peer that they are for.
        peer: Arc<Peer>,
    },
    /// Send a keepalive: an empty packet, which waits for a session like any other.
    Keepalive {
        /// The peer.
        peer: Arc<Peer>,
    },
    /// Receive on, and send from, these sockets instead (the listen port changed), or none (the
    /// link went down).
    Sockets(Sockets),
    /// Query the kernel's routes in this way from now on; not at all while the interface cannot be
    /// accessed.
    AskRoutes(Option<RouteSocket>),
}

/// A handshake message of the right type, length and (for initiations and responses) mac1.
#[derive(Clone, Debug)]
pub struct HandshakeMessage {
    /// The whole message.
    pub bytes: ArrayVec<u8, HANDSHAKE_LEN_MAX>,
    /// Its sender, and the local address that it was sent to.
    pub from: Endpoint,
}
