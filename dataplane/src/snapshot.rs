//! What every packet is judged by: published whole by control, read once a turn by each worker.

use std::sync::Arc;

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
    /// The interface is up: nothing is sent, and nothing taken, while it is down.
    pub is_up: bool,
    /// The interface's MTU (bytes).
    pub mtu: usize,
    /// The UDP port that the sockets are bound to.
    pub listen_port: u16,
    /// Who forwards from peer to peer.
    pub relay: Relay,
}

/// Who forwards packets from one peer to another, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// IPv4 packets.
    pub v4: DirectRelay,
    /// IPv6 packets.
    pub v6: DirectRelay,
    /// Counts up with every change of the kernel's routes, rules, links or forwarding: what it
    /// answered about a route before ([`crate::messages::Command::AskRoutes`]) is void.
    pub routes: u64,
}

/// Who forwards the packets of one family from peer to peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectRelay {
    /// The kernel: every packet goes to the TUN.
    #[default]
    Never,
    /// The worker, if the packet is plain and the kernel's route for it leads back into the
    /// interface; everything else goes to the TUN (`--relay auto` while nothing stands against).
    IfRoutedBack,
    /// The worker, if the packet is plain; what is not goes to the TUN where the kernel's route
    /// for it leads back into the interface, and is dropped elsewhere (`--relay direct`).
    Always,
}
