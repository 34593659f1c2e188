//! The receiving half of a session: it belongs to the worker that its index names.

use std::sync::Arc;

use wg_bounce_aead::Key;

use crate::peer::Peer;
use crate::replay::ReplayWindow;
use crate::session::KeypairInfo;

/// The receiving half, owned by the worker with the number `local_index & 0xff`.
pub struct ReceiveSession {
    /// The key of this direction.
    pub key: Key,
    /// Indexes, age and role.
    pub info: KeypairInfo,
    /// Whether an authentic message has arrived on it: the responder may send only then (§5.4.6).
    pub is_confirmed: bool,
    /// The peer that the session belongs to.
    pub peer: Arc<Peer>,
    /// The counters accepted so far.
    pub window: ReplayWindow,
}

impl ReceiveSession {
    /// A session that has received nothing.
    pub fn new(key: Key, info: KeypairInfo, peer: Arc<Peer>) -> Self {
        ReceiveSession { key, info, is_confirmed: false, peer, window: ReplayWindow::default() }
    }
}
