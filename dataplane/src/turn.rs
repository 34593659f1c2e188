//! One turn of a worker, as the two journeys see it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Millis;
use crate::counters::Counters;
use crate::peer::Peer;
use crate::post::Post;
use crate::recent::Recent;
use crate::snapshot::Snapshot;
use crate::sys::Backend;

/// What the two ways need of the turn that they are in.
pub struct Turn<'a> {
    /// The worker's number.
    pub worker: usize,
    /// The time at which the wait returned.
    pub now: Millis,
    /// What packets are judged by in this turn.
    pub snapshot: &'a Arc<Snapshot>,
    /// Sockets and TUN.
    pub io: &'a mut Backend,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// Where all workers sent to lately.
    pub recent: &'a Recent,
    pub(crate) post: &'a mut Post,
}

impl Turn<'_> {
    /// Whether `source` belongs to `peer` by the longest match over the allowed IPs of all peers.
    pub(crate) fn is_allowed_source(&self, peer: &Arc<Peer>, source: IpAddr) -> bool {
        self.snapshot.routes.lookup(source).is_some_and(|owner| Arc::ptr_eq(owner, peer))
    }

    /// Raises a flag of a peer, and queues the notice if it is due.
    pub(crate) fn raise(&mut self, peer: &Peer, flag: u32) {
        if peer.raise(flag) {
            self.post.notice(peer.id);
        }
    }
}
