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
}
