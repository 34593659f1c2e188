//! Commands about packets that workers have staged, and about keepalives.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::Peer;

use super::io::Output;
use super::peer_entry::PeerEntry;

/// Tells the workers to send the packets that they have staged for this peer.
pub(super) fn send_staged(entry: &PeerEntry, out: &mut Vec<Output>) {
    for worker in workers_staging(&entry.shared) {
        let peer = Arc::clone(&entry.shared);
        out.push(Output::Command { worker, command: Command::SendStaged { peer } });
    }
}

/// Tells the workers to drop the packets that they have staged for `peer`.
pub(super) fn discard_staged(peer: &Arc<Peer>, out: &mut Vec<Output>) {
    for worker in workers_staging(peer) {
        out.push(Output::Command { worker, command: Command::Discard { peer: Arc::clone(peer) } });
    }
}

/// The workers that have staged packets for `peer`.
pub(super) fn workers_staging(peer: &Peer) -> impl Iterator<Item = usize> + use<> {
    let bits = peer.staged_by.load(Ordering::Relaxed);
    (0..u64::BITS as usize).filter(move |worker| bits >> worker & 1 != 0)
}

/// Tells the peer's worker to send an empty packet.
pub(super) fn send_keepalive(entry: &PeerEntry, out: &mut Vec<Output>) {
    let worker = entry.worker.expect("a peer with a session has a worker");
    let peer = Arc::clone(&entry.shared);
    out.push(Output::Command { worker, command: Command::Keepalive { peer } });
}
