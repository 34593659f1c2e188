//! Receiver indexes, and the workers that they name.

use std::collections::HashMap;

use rand_core::CryptoRng;
use wg_bounce_dataplane::messages::Command;
use wg_bounce_dataplane::peer::PeerId;

use super::io::Output;
use super::peer_entry::PeerEntry;

/// The receiver indexes in use, and the workers that they name.
pub(super) struct Indexes {
    owners: HashMap<u32, PeerId>,
    /// Peers assigned to each worker.
    peers_per_worker: Vec<u32>,
}

impl Indexes {
    /// No index; `workers` of them, numbered from zero.
    pub(super) fn new(workers: usize) -> Indexes {
        Indexes { owners: HashMap::new(), peers_per_worker: vec![0; workers] }
    }

    /// The peer that `index` was allocated for.
    pub(super) fn owner(&self, index: u32) -> Option<PeerId> {
        self.owners.get(&index).copied()
    }

    /// Indexes in use.
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    /// Allocates an index that names the peer's worker. Random, so that it cannot be guessed and
    /// is not reused while an old message may still carry it.
    pub(super) fn allocate(&mut self, entry: &mut PeerEntry, rng: &mut dyn CryptoRng) -> u32 {
        let worker = *entry.worker.get_or_insert_with(|| {
            let peers = &mut self.peers_per_worker;
            let least = (0..peers.len()).min_by_key(|&worker| peers[worker]);
            let least = least.expect("there is a worker");
            peers[least] += 1;
            least
        });
        loop {
            let index = rng.next_u32() & !0xff | worker as u32;
            if let std::collections::hash_map::Entry::Vacant(slot) = self.owners.entry(index) {
                slot.insert(entry.shared.id);
                return index;
            }
        }
    }

    /// Frees an index, and tells its worker.
    pub(super) fn free(&mut self, index: u32, out: &mut Vec<Output>) {
        let was_there = self.owners.remove(&index).is_some();
        debug_assert!(was_there, "an index is freed once");
        out.push(command(index, Command::Forget { index }));
    }

    /// Frees an index that no worker was told about.
    pub(super) fn free_unannounced(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    /// Ends the assignment of a peer without sessions: its next session may get another worker.
    pub(super) fn release_worker(&mut self, entry: &mut PeerEntry) {
        if let Some(worker) = entry.worker.take() {
            self.peers_per_worker[worker] -= 1;
        }
    }
}

/// A command for the worker that `index` names.
pub(super) fn command(index: u32, command: Command) -> Output {
    Output::Command { worker: (index & 0xff) as usize, command }
}
