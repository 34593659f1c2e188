//! Packets that wait for room in a full socket, in plaintext: queued fairly by peer and flow, and
//! sealed only when they leave, so that a dropped one costs no nonce.
//!
//! What the kernel module leaves to fq_codel at the uplink, which sees the flows of its packets
//! (it keeps their hash) but only one flow for each peer of ours.

use std::sync::Arc;

use wg_bounce_sys::clock::Millis;

use crate::counters::DropReason;
use crate::drr::DeficitRoundRobin;
use crate::ip;
use crate::limits::{
    QUEUE_DROP_INTERVAL, QUEUE_FLOWS, QUEUE_OVERHEAD, QUEUE_PEERS, QUEUE_QUANTUM, QUEUE_TIME_MAX,
};
use crate::peer::{Peer, PeerId};
use crate::turn::Turn;

/// The packets that wait for one socket. An empty packet is a keepalive.
#[derive(Default)]
pub struct FairQueue {
    /// Allocated when the first packet waits.
    flows: Option<DeficitRoundRobin<Waiting>>,
    /// The sum of the costs of all packets.
    bytes: usize,
    /// Packets that left since the last one was dropped for its age.
    left: u32,
}

struct Waiting {
    peer: Arc<Peer>,
    packet: Box<[u8]>,
    since: Millis,
}

impl FairQueue {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.flows.as_ref().is_none_or(DeficitRoundRobin::is_empty)
    }

    /// The number of packets.
    pub fn len(&self) -> usize {
        self.flows.as_ref().map_or(0, DeficitRoundRobin::len)
    }

    /// Bytes of everything that waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a packet. If that makes more than `max` bytes, the oldest packets of the longest
    /// flow are dropped and counted.
    pub fn push(&mut self, peer: &Arc<Peer>, packet: Box<[u8]>, max: usize, turn: &Turn<'_>) {
        let cost = packet.len() + QUEUE_OVERHEAD;
        let flow = ip::flow_hash(&packet) as usize % QUEUE_FLOWS;
        let queue = peer.id.0 as usize % QUEUE_PEERS * QUEUE_FLOWS + flow;
        let waiting = Waiting { peer: Arc::clone(peer), packet, since: turn.now };
        let flows = self.flows.get_or_insert_with(|| {
            DeficitRoundRobin::new(QUEUE_PEERS * QUEUE_FLOWS, QUEUE_QUANTUM)
        });
        flows.push(queue, waiting, cost as u32);
        self.bytes += cost;
        while self.bytes > max
            && let Some((waiting, cost)) = flows.pop_from_costliest()
        {
            self.bytes -= cost as usize;
            turn.dropped(&waiting.peer, DropReason::Congestion, 1);
        }
    }

    /// Removes the next packet. If the one before it in its flow has waited too long, that is
    /// dropped and counted, but only one in [`QUEUE_DROP_INTERVAL`]: TCP needs a sign, and a whole
    /// window lost costs it more. What does not heed the sign meets the bound in bytes.
    pub fn pop(&mut self, turn: &Turn<'_>) -> Option<(Arc<Peer>, Box<[u8]>)> {
        let FairQueue { flows, bytes, left } = self;
        let (waiting, cost) = flows.as_mut()?.pop_where(|waiting, cost| {
            let is_kept =
                turn.now.since(waiting.since) <= QUEUE_TIME_MAX || *left < QUEUE_DROP_INTERVAL;
            if !is_kept {
                *left = 0;
                *bytes -= cost as usize;
                turn.dropped(&waiting.peer, DropReason::Congestion, 1);
            }
            is_kept
        })?;
        *left = left.saturating_add(1);
        *bytes -= cost as usize;
        turn.counters.queued_packets.add(1);
        turn.counters.queued_milliseconds.add(turn.now.since(waiting.since).0);
        Some((waiting.peer, waiting.packet))
    }

    /// Drops all packets: the socket was closed.
    pub fn clear(&mut self, turn: &Turn<'_>) {
        let Some(flows) = &mut self.flows else { return };
        flows.retain(|waiting, _| {
            turn.dropped(&waiting.peer, DropReason::InterfaceDown, 1);
            false
        });
        self.bytes = 0;
    }

    /// Removes all packets for a peer; returns their number.
    pub fn discard(&mut self, peer: PeerId) -> u64 {
        let mut count = 0;
        let FairQueue { flows, bytes, .. } = self;
        let Some(flows) = flows else { return 0 };
        flows.retain(|waiting, cost| {
            let is_kept = waiting.peer.id != peer;
            if !is_kept {
                count += 1;
                *bytes -= cost as usize;
            }
            is_kept
        });
        count
    }
}
