//! Inputs and outputs of the device.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use ipnet::IpNet;
use wg_bounce_dataplane::messages::{Command, HandshakeMessage};
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::wire::HANDSHAKE_LEN_MAX;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use super::pending_response::PendingResponse;
use crate::cookie::CookieReply;
use crate::noise::Dh;
use crate::timers::Timings;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Time of the boot clock, which all timers use.
    pub monotonic: Millis,
    /// Time since the Unix epoch; may jump. Only timestamps and `last_handshake` use it.
    pub wall: Duration,
}

/// Parameters of a device.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of workers, at least one; the low byte of each index names one.
    pub workers: usize,
    /// The intervals of the protocol.
    pub timings: Timings,
    /// The implementation of X25519.
    pub dh: Dh,
}

/// A peer that has a session, or had one lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// Its public key.
    pub public_key: [u8; 32],
    /// Its last endpoint.
    pub endpoint: SocketAddr,
    /// The time for which it has had no session.
    pub age: Millis,
}

/// An event.
pub enum Input<'a> {
    /// An initiation, response or cookie reply arrived.
    Handshake {
        /// The message and where it came from.
        message: &'a HandshakeMessage,
        /// More messages wait than can be handled in time: senders must prove their address.
        under_load: bool,
    },
    /// The next step of a response was computed: see [`Output::Compute`].
    Computed(Box<PendingResponse>),
    /// A worker queued a notice about this peer.
    Peer(PeerId),
    /// The time of `Device::next_deadline` has come.
    Deadline,
    /// The interface was set up or down.
    Link {
        /// Whether it is up now.
        up: bool,
    },
}

/// An action for the caller. Actions must be carried out in order.
pub enum Output {
    /// Send a command to one worker.
    Command {
        /// The index of the worker.
        worker: usize,
        /// The command.
        command: Command,
    },
    /// Call [`PendingResponse::compute`], in this thread or another one, and report it by
    /// [`Input::Computed`]. Responses may be reported in any order.
    Compute(Box<PendingResponse>),
    /// Publish or withdraw the session used to send to a peer. Control must drop the one that it
    /// replaces, once no worker refers to it.
    SetSession {
        /// The peer.
        peer: Arc<Peer>,
        /// The new session; none to withdraw the old one.
        session: Option<Arc<SendSession>>,
    },
    /// Send a cookie reply, which any thread may seal and send.
    Cookie {
        /// The destination.
        to: Endpoint,
        /// The reply.
        reply: CookieReply,
    },
    /// Send an initiation or response.
    Send {
        /// The peer whose `tx_bytes` count the message.
        peer: Arc<Peer>,
        /// The destination.
        to: Endpoint,
        /// The datagram's payload.
        message: ArrayVec<u8, HANDSHAKE_LEN_MAX>,
    },
    /// Routes, mac1 key or link state changed: publish a snapshot.
    Publish,
    /// Write a line to the log.
    Log(LogEvent),
}

/// An event that the operator must know of.
#[derive(Clone)]
pub enum LogEvent {
    /// An authentic initiation was refused because of its timestamp; once per peer and hour.
    StaleTimestamp {
        /// The peer.
        peer: Arc<Peer>,
        /// The sender of the initiation.
        from: Endpoint,
        /// The span from its timestamp to the greatest one received.
        behind: Duration,
    },
    /// Our wall clock is behind the last timestamp that we sent; once an hour.
    ClockBehind {
        /// The peer that it was sent to.
        peer: Arc<Peer>,
        /// The span from the wall clock to that timestamp.
        behind: Duration,
    },
    /// A peer sends from another address or port; once a second for each.
    Roamed(Arc<Peer>),
    /// An initiation names a key that no peer has; once a second.
    UnknownKey {
        /// The key, which may belong to another sender.
        key: [u8; 32],
        /// Its sender.
        from: Endpoint,
    },
    /// A `set` gave a prefix of one peer to another.
    PrefixMoved {
        /// The prefix.
        prefix: IpNet,
        /// Its former owner.
        from: Arc<Peer>,
        /// Its new owner.
        to: Arc<Peer>,
    },
    /// The same `set` moved this many further prefixes.
    MorePrefixesMoved(usize),
}
