//! Staging: packets that wait for a session, held by the worker that read them.

use std::collections::{HashMap, VecDeque};

use crate::limits::STAGED_PACKETS_MAX;
use crate::peer::{Peer, PeerId};
use crate::sync::atomic::Ordering;

/// The staged packets of one worker. An empty packet is a keepalive.
pub struct Staging {
    peers: HashMap<PeerId, VecDeque<Box<[u8]>>>,
    /// The number of all packets here, and their bytes.
    len: usize,
    bytes: usize,
    bytes_max: usize,
    worker: usize,
}

impl Staging {
    /// The staging area of worker number `worker`, for packets of `bytes_max` bytes together.
    pub fn new(worker: usize, bytes_max: usize) -> Staging {
        Staging { peers: HashMap::new(), len: 0, bytes: 0, bytes_max, worker }
    }

    /// Stages a packet. Returns the number of packets dropped for it: the oldest one of the peer if
    /// its limit is reached, or this one if the other workers hold all of those, or if this worker
    /// has staged too many bytes for other peers.
    #[must_use]
    pub fn push(&mut self, peer: &Peer, packet: Box<[u8]>) -> u64 {
        if self.bytes + packet.len() > self.bytes_max {
            return 1;
        }
        let queue = self.peers.entry(peer.id).or_default();
        let mut dropped = 0;
        if peer.staged.fetch_add(1, Ordering::Relaxed) >= STAGED_PACKETS_MAX {
            peer.staged.fetch_sub(1, Ordering::Relaxed);
            dropped = 1;
            let Some(oldest) = queue.pop_front() else {
                self.peers.remove(&peer.id);
                return dropped;
            };
            self.len -= 1;
            self.bytes -= oldest.len();
        }
        self.len += 1;
        self.bytes += packet.len();
        queue.push_back(packet);
        // Before the flag that the caller raises: when control takes that, it sees this bit, and
        // commands `SendStaged` if there is a session.
        peer.staged_by.fetch_or(1 << self.worker, Ordering::SeqCst);
        dropped
    }

    /// The number of packets staged here, for all peers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether packets are staged for `peer` here.
    pub fn holds(&self, peer: PeerId) -> bool {
        !self.peers.is_empty() && self.peers.contains_key(&peer)
    }

    /// Removes all packets staged for `peer` here, oldest first.
    pub fn drain(&mut self, peer: &Peer) -> VecDeque<Box<[u8]>> {
        let queue = self.peers.remove(&peer.id).unwrap_or_default();
        if !queue.is_empty() {
            peer.staged_by.fetch_and(!(1 << self.worker), Ordering::SeqCst);
            peer.staged.fetch_sub(queue.len() as u32, Ordering::Relaxed);
            self.len -= queue.len();
            self.bytes -= queue.iter().map(|packet| packet.len()).sum::<usize>();
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    #[test]
    fn the_oldest_packet_makes_room() {
        let peer = Peer::new(PeerId(1), [1; 32]);
        let mut staging = Staging::new(0, BYTES);
        for number in 0..STAGED_PACKETS_MAX {
            assert_eq!(staging.push(&peer, vec![number as u8].into()), 0);
        }
        assert_eq!(staging.push(&peer, vec![200].into()), 1);
        let packets = staging.drain(&peer);
        assert_eq!(packets.len(), STAGED_PACKETS_MAX as usize);
        assert_eq!(packets.front().map(|packet| packet[0]), Some(1));
        assert_eq!(peer.staged.load(Ordering::Relaxed), 0);
        assert_eq!(peer.staged_by.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_bound_holds_over_all_workers() {
        let peer = Peer::new(PeerId(1), [1; 32]);
        let (mut one, mut two) = (Staging::new(0, BYTES), Staging::new(1, BYTES));
        for _ in 0..STAGED_PACKETS_MAX {
            assert_eq!(one.push(&peer, Box::default()), 0);
        }
        assert_eq!(two.push(&peer, Box::default()), 1);
        assert!(!two.holds(peer.id), "it has none to drop, so it drops the new packet");
        assert_eq!(peer.staged_by.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_memory_for_many_peers_is_bounded() {
        let mut staging = Staging::new(0, BYTES);
        let peers: Vec<Peer> =
            (0..BYTES as u32 / 32_768).map(|n| Peer::new(PeerId(n), [1; 32])).collect();
        for peer in &peers {
            assert_eq!(staging.push(peer, vec![0; 32_768].into()), 0);
        }
        assert_eq!(staging.push(&peers[0], vec![0; 1].into()), 1, "full for every peer");
        assert_eq!(staging.drain(&peers[1]).len(), 1);
        assert_eq!(staging.push(&peers[0], vec![0; 1].into()), 0);
        peers.iter().for_each(|peer| drop(staging.drain(peer)));
        assert_eq!((staging.len(), staging.bytes), (0, 0));
    }
}
