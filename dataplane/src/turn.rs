//! One turn of a worker, as the two journeys see it.

use std::sync::Arc;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Backend, Train};

use crate::channels::Channels;
use crate::counters::{Counters, DropReason};
use crate::loop_guard::LoopGuard;
use crate::peer::Peer;
use crate::snapshot::Snapshot;

/// What the two ways need of the turn that they are in.
pub struct Turn<'a> {
    /// The worker's number.
    pub worker: usize,
    /// The time at which the wait returned.
    pub now: Millis,
    /// What packets are judged by in this turn.
    pub snapshot: &'a Arc<Snapshot>,
    /// The trains that arrived, in whose buffers packets are decrypted and sealed again.
    pub trains: &'a mut [Train],
    /// Sockets and TUN.
    pub io: &'a mut Backend,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// Where all workers sent to lately.
    pub recent: &'a LoopGuard,
    pub(crate) post: &'a mut Channels,
}

impl Turn<'_> {
    /// Counts packets from or to `peer` that were dropped.
    pub(crate) fn dropped(&self, peer: &Peer, reason: DropReason, count: u64) {
        self.counters.dropped(reason, count);
        peer.counters.dropped(reason, count);
    }

    /// Raises a flag of a peer, and queues the notice if it is due.
    pub(crate) fn raise(&mut self, peer: &Peer, flag: u32) {
        if peer.raise(flag) {
            self.post.notice(peer.id);
        }
    }
}
