//! Where we sent to lately: how a worker recognises its own datagrams when an endpoint lies
//! inside the tunnel and they come back through the TUN.
//!
//! A small table of hashes, shared by all workers. Two destinations may displace each other: then
//! a loop runs one round more before it is cut.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

const PLACES: usize = 4096;

/// Hashes of the destinations of the latest sends.
pub struct LoopGuard {
    places: Box<[AtomicU64]>,
    hasher: std::hash::RandomState,
}

impl Default for LoopGuard {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        LoopGuard { places, hasher: std::hash::RandomState::new() }
    }
}

impl LoopGuard {
    /// Notes that we sent to `destination`.
    pub fn note(&self, destination: &SocketAddr) {
        let hash = self.hash(destination);
        let place = &self.places[hash as usize % PLACES];
        // Most sends repeat the last one: do not dirty the cache line that all workers share.
        if place.load(Ordering::Relaxed) != hash {
            place.store(hash, Ordering::Relaxed);
        }
    }

    /// Whether we sent to `destination`, and to nothing in its place since.
    pub fn contains(&self, destination: &SocketAddr) -> bool {
        let hash = self.hash(destination);
        self.places[hash as usize % PLACES].load(Ordering::Relaxed) == hash
    }

    fn hash(&self, destination: &SocketAddr) -> u64 {
        self.hasher.hash_one((destination.ip(), destination.port())) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found() {
        let recent = LoopGuard::default();
        let there: SocketAddr = "192.0.2.1:51820".parse().expect("an address");
        let elsewhere: SocketAddr = "192.0.2.1:51821".parse().expect("an address");
        recent.note(&there);
        assert!(recent.contains(&there) && !recent.contains(&elsewhere));
    }
}
