//! The state of the control thread.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_channel::Receiver;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use wg_bounce_dataplane::engine::{Engine, Events};
use wg_bounce_dataplane::peer::Peer;
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_dataplane::wire::HANDSHAKE_LEN_MAX;
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::{self, Millis};

use super::events::Announcer;
use super::handshake_queues::Handshakes;
use super::pending_replies::PendingReplies;
use super::pool::Pool;
use super::reachable::ReachablePeers;
use super::relay::RelayState;
use crate::deferred_drop::DeferredDrop;
use crate::device::{Device, Now, Output, PendingResponse};
use crate::link::LinkWatcher;
use crate::relay_policy::mode::Mode;
use crate::relay_policy::watch::Lanes;
use crate::state_file::StateWriter;
use crate::status::server::StatusRequest;
use crate::uapi_server::requests::UapiRequest;
use crate::uapi_server::socket::SocketFile;
use crate::uplinks::UplinkWatch;

/// Everything that the loop works on.
pub struct Components {
    /// The workers.
    pub engine: Engine,
    /// Events reported by the workers.
    pub events: Events,
    /// The protocol state.
    pub device: Device,
    /// Threads that help with handshakes.
    pub pool: Pool,
    /// The monitor of the interface.
    pub link: LinkWatcher,
    /// The operator's choice (`--relay`).
    pub relay_mode: Mode,
    /// The relay policy's thread; none with `--relay kernel`.
    pub relay_policy: Option<Lanes>,
    /// The UAPI socket's file.
    pub socket: SocketFile,
    /// Requests of UAPI clients.
    pub requests: Receiver<UapiRequest>,
    /// Requests of clients of the status socket.
    pub reports: Receiver<StatusRequest>,
    /// The status socket's file; none if it could not be created.
    pub status: Option<SocketFile>,
    /// Writes the state file, if there is one.
    pub state_writer: Option<StateWriter>,
    /// Written with every event, epoch and request.
    pub wake: Arc<EventFd>,
    /// The process of `wg-bounce up`, if that has started this one: it alone ends it by a signal.
    pub parent: Option<u32>,
    /// Reports the blocked signals: those that end the daemon, and SIGUSR1.
    pub signals: SignalFd,
}

impl Components {
    /// The implementations in use: of I/O, offloads, AEAD and X25519.
    pub fn describe(&self) -> String {
        format!("{}; DH: {}", self.engine.describe(), self.device.dh())
    }
}

/// The reason for which the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// A signal arrived.
    Signal(Signal),
    /// The interface was deleted.
    InterfaceDeleted,
    /// The socket was deleted.
    SocketDeleted,
    /// The workers, or the loop, failed.
    Failed(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Signal(Signal::SIGHUP) => {
                f.write_str("SIGHUP; to reload a configuration, use `wg syncconf`")
            }
            Ending::Signal(signal) => write!(f, "{signal}"),
            Ending::InterfaceDeleted => f.write_str("interface deleted"),
            Ending::SocketDeleted => f.write_str("UAPI socket deleted"),
            Ending::Failed(reason) => f.write_str(reason),
        }
    }
}

/// The control thread.
pub struct Runtime {
    pub(super) components: Components,
    /// Filled by the device, emptied by `execute`; kept to reuse its allocation.
    pub(super) outputs: Vec<Output>,
    /// A response of which the next step is to be computed.
    pub(super) response: Option<Box<PendingResponse>>,
    /// Handshake messages of this turn.
    pub(super) unsent: Vec<Unsent>,
    pub(super) handshakes: Handshakes,
    pub(super) replies: PendingReplies,
    pub(super) withdrawn: DeferredDrop<SendSession>,
    pub(super) relay: RelayState,
    pub(super) announcer: Announcer,
    pub(super) uplinks: UplinkWatch,
    pub(super) listener: Listener,
    /// The UDP port that the sockets are bound to while the link is up; zero until one is chosen.
    pub(super) listen_port: u16,
    pub(super) fwmark: u32,
    pub(super) mtu: usize,
    /// The time to look at the interface again, while no events announce its changes.
    pub(super) next_look: Millis,
    /// The state file; none without a directory for it.
    pub(super) reachable: Option<ReachablePeers>,
    /// The epoch of the last published snapshot.
    pub(super) epoch: u64,
}

/// A handshake message with its destination, and the peer whose `tx_bytes` count it.
pub(super) type Unsent = (Arc<Peer>, Endpoint, ArrayVec<u8, HANDSHAKE_LEN_MAX>);

/// The state of the UDP sockets beyond [`Device::is_up`], which says whether they are bound.
#[derive(Default)]
pub(super) struct Listener {
    pub(super) is_link_up: bool,
    /// The epoch that all workers must have reached: then the port of closed sockets is free.
    pub(super) free_at: u64,
    /// The port is taken; the next attempt is due at this time.
    pub(super) retry_at: Option<Millis>,
}

/// The current time of both clocks.
pub(super) fn now() -> Now {
    Now { monotonic: clock::boot_time(), wall: clock::wall_time() }
}
