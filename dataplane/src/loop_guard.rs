//! Recent destinations: a worker recognises its own datagrams by them when an endpoint is routed
//! into the tunnel and they come back through the TUN.
//!
//! A small table of hashes, shared by all workers. Two destinations may evict each other: then a
//! loop makes one more round before it is cut.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LOOP_GUARD_ENTRIES;

/// Hashes of the destinations of recent sends.
pub struct LoopGuard {
    slots: Box<[AtomicU64]>,
    hasher: std::hash::RandomState,
}

impl Default for LoopGuard {
    fn default() -> Self {
        let slots = (0..LOOP_GUARD_ENTRIES).map(|_| AtomicU64::new(0)).collect();
        LoopGuard { slots, hasher: std::hash::RandomState::new() }
    }
}

impl LoopGuard {
    /// Records a send to `destination`.
    pub fn note(&self, destination: &SocketAddr) {
        let hash = self.hash(destination);
        let slot = &self.slots[hash as usize % LOOP_GUARD_ENTRIES];
        // Most sends repeat the last destination: do not dirty a cache line that all workers share.
        if slot.load(Ordering::Relaxed) != hash {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether `destination` is recorded, and was not evicted since.
    pub fn contains(&self, destination: &SocketAddr) -> bool {
        let hash = self.hash(destination);
        self.slots[hash as usize % LOOP_GUARD_ENTRIES].load(Ordering::Relaxed) == hash
    }

    fn hash(&self, destination: &SocketAddr) -> u64 {
        self.hasher.hash_one((destination.ip(), destination.port())) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_destination_is_found() {
        let recent = LoopGuard::default();
        let there: SocketAddr = "192.0.2.1:51820".parse().expect("an address");
        let elsewhere: SocketAddr = "192.0.2.1:51821".parse().expect("an address");
        recent.note(&there);
        assert!(recent.contains(&there) && !recent.contains(&elsewhere));
    }
}
