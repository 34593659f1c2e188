//! What one turn of a worker lends to the two ways that packets go.

use std::sync::Arc;

use crate::clock::Millis;
use crate::counters::Counters;
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
