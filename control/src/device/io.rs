//! Inputs and outputs of the device.

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use wg_bounce_dataplane::messages::{Command, HandshakeMessage};
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::wire::HANDSHAKE_LEN_MAX;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;

use crate::timers::Timings;

/// The time of an input.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Of the boot clock: what all timers use.
    pub monotonic: Millis,
    /// Since the Unix epoch; may jump. Only timestamps and `last_handshake` use it.
    pub wall: Duration,
}

/// What a device is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Workers, at least one; the low byte of each index names one.
    pub workers: usize,
    /// The spans of the protocol.
    pub timings: Timings,
}

/// Something happened.
pub enum Input<'a> {
    /// An initiation, response or cookie reply arrived.
    Handshake {
        /// The message and where it came from.
        message: &'a HandshakeMessage,
        /// More messages wait than can be handled at once: senders must prove their address.
        under_load: bool,
    },
    /// A worker queued a notice about this peer.
    Peer(PeerId),
    /// [`Device::next_deadline`] has come.
    Deadline,
    /// The interface was set up or down.
    Link {
        /// Whether it is up now.
        up: bool,
    },
}

/// Something is to be done, in the order given.
pub enum Output {
    /// Give this to one worker.
    Command {
        /// The worker's number.
        worker: usize,
        /// The command.
        command: Command,
    },
    /// Publish (or withdraw) the session that a peer is sent to with. The one it replaces is to
    /// be dropped by control, when no worker refers to it any more.
    SetSession {
        /// The peer.
        peer: Arc<Peer>,
        /// The session; none withdraws it.
        session: Option<Arc<SendSession>>,
    },
    /// Send a handshake message.
    Send {
        /// Whose `tx_bytes` count it; none for a cookie reply.
        peer: Option<Arc<Peer>>,
        /// Where to.
        to: Endpoint,
        /// The datagram's payload.
        message: ArrayVec<u8, HANDSHAKE_LEN_MAX>,
    },
    /// Routes, mac1 key or link state changed: publish a snapshot.
    Publish,
}
