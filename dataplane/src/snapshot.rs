//! The configuration that applies to every packet: published whole by control, read once a turn by
//! each worker.

use std::sync::Arc;

use wg_bounce_sys::PerFamily;

use crate::peer::Peer;
use crate::routes::Routes;

/// The configuration as workers see it.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub epoch: u64,
    /// Allowed IPs of all peers.
    pub routes: Routes<Arc<Peer>>,
    /// BLAKE2s key of mac1 for messages to us (§5.4.4); none without a private key.
    pub mac1_key: Option<[u8; 32]>,
    /// Whether the interface is up and the sockets are bound: else nothing is sent or accepted.
    pub is_up: bool,
    /// The interface's MTU (bytes).
    pub mtu: usize,
    /// The UDP port that the sockets are bound to while the interface is up.
    pub listen_port: u16,
    /// The forwarding of packets between peers.
    pub relay: Relay,
}

/// The forwarding of packets between peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The mode of each address family.
    pub mode: PerFamily<DirectRelay>,
    /// The generation of the kernel's routes, rules, links and forwarding settings: earlier answers
    /// to route queries ([`crate::messages::Command::AskRoutes`]) are stale.
    pub routes: u64,
}

/// The condition under which workers relay packets of one family between peers themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectRelay {
    /// Never: every packet goes to the TUN, and the kernel forwards it.
    #[default]
    Never,
    /// If the packet is on the fast path and the kernel's route for it leads back into the
    /// interface; everything else goes to the TUN (`--relay auto` while nothing forbids it).
    IfRoutedBack,
    /// If the packet is on the fast path; any other goes to the TUN where the kernel's route for it
    /// leads back into the interface, and is dropped elsewhere (`--relay direct`).
    Always,
}
