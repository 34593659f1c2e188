//! The flow cache of a worker: for each pair of addresses its owners and the kernel's route.
//!
//! A fixed-size set-associative cache ([`WAYS`]-way); a new pair evicts an old one. It only saves
//! queries: a pair that is missing is looked up and queried again.

use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_sys::route::Reply;

use crate::hash::mix;
use crate::ip::Packet;
use crate::pairs::{Exceptions, Spread};
use crate::peer::{Peer, PeerId};
use crate::transport::Transport;

/// Slots that a pair may occupy.
const WAYS: usize = 4;
const _: () = assert!(WAYS.is_power_of_two());

/// Source, destination and DSCP of a packet: the inputs of a route look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    source: IpAddr,
    destination: IpAddr,
    dscp: u8,
}

impl FlowKey {
    /// The key of a packet with these headers and this traffic class.
    #[must_use]
    pub fn new(ip: &Packet, traffic_class: u8) -> FlowKey {
        let (source, destination) = (ip.source, ip.destination);
        FlowKey { source, destination, dscp: traffic_class & 0xfc }
    }

    /// The source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The DSCP in the upper six bits of a traffic class.
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.dscp
    }

    fn hash(&self, seed: u64) -> u64 {
        let fold = |state: u64, word: u64| mix(state ^ word, seed);
        let words = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u64::from(v4.to_bits()), 4),
            IpAddr::V6(v6) => ((v6.to_bits() >> 64) as u64, v6.to_bits() as u64),
        };
        let ((a, b), (c, d)) = (words(self.source), words(self.destination));
        [b, c, d, u64::from(self.dscp)].into_iter().fold(fold(seed, a), fold)
    }
}

/// The cached facts about a pair.
#[derive(Clone)]
pub struct Flow {
    /// The pair.
    pub key: FlowKey,
    /// The epoch of the snapshot that `sender`, `receiver` and `exceptions` come from.
    pub epoch: u64,
    /// The owner of the source by allowed IPs.
    pub sender: Option<PeerId>,
    /// The owner of the destination.
    pub receiver: Option<Arc<Peer>>,
    /// The packets of the pair that are left to the kernel.
    pub exceptions: Spread,
    /// Those of the last conversations that were looked up, if they depend on these.
    pub of_last: Conversations,
    /// The generation of the kernel's routes (see [`crate::snapshot::Relay::routes`]) that `reply`
    /// comes from.
    pub routes: u64,
    /// The kernel's reply.
    pub reply: Reply,
}

/// Some conversations of a pair, by their ports; a new one evicts an old one.
#[derive(Clone, Copy, Default)]
pub struct Conversations([Option<(Transport, Exceptions)>; 4]);

impl Conversations {
    /// The place of a conversation: it, another one, or none.
    pub fn place(&mut self, transport: Transport) -> &mut Option<(Transport, Exceptions)> {
        let Transport { protocol, source_port, destination_port } = transport;
        let number = usize::from(protocol ^ source_port ^ destination_port);
        &mut self.0[number % self.0.len()]
    }
}

/// The flow cache of one worker.
pub struct Flows {
    slots: Box<[Option<Flow>]>,
    seed: u64,
    /// The slot of a full set that is evicted next.
    next_victim: usize,
}

impl Flows {
    /// An empty cache for `size` pairs, a power of two; all its memory is allocated here. `seed` is
    /// random, so that an attacker cannot choose addresses that share a set.
    #[must_use]
    pub fn new(seed: u64, size: usize) -> Flows {
        let slots = std::iter::repeat_with(|| None).take(size.max(WAYS)).collect();
        Flows { slots, seed, next_victim: 0 }
    }

    /// The slot of a pair.
    #[must_use]
    pub fn find(&self, key: &FlowKey) -> Option<usize> {
        let set = self.set_of(key);
        (set..set + WAYS)
            .find(|&slot| self.slots[slot].as_ref().is_some_and(|flow| flow.key == *key))
    }

    /// The flow in a slot that [`Flows::find`] or [`Flows::insert`] returned.
    ///
    /// # Panics
    /// If the slot is empty: a bug of the caller.
    #[must_use]
    pub fn get_mut(&mut self, slot: usize) -> &mut Flow {
        self.slots[slot].as_mut().expect("the slot is occupied")
    }

    /// Inserts a pair that was not found; evicts another one if its set is full.
    pub fn insert(&mut self, flow: Flow) -> usize {
        let set = self.set_of(&flow.key);
        let free = (set..set + WAYS).find(|&slot| self.slots[slot].is_none());
        let slot = free.unwrap_or_else(|| {
            self.next_victim = self.next_victim.wrapping_add(1);
            set + self.next_victim % WAYS
        });
        self.slots[slot] = Some(flow);
        slot
    }

    fn set_of(&self, key: &FlowKey) -> usize {
        (key.hash(self.seed) as usize & (self.slots.len() / WAYS - 1)) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SIZE: usize = 1 << 14;

    fn key(number: u32) -> FlowKey {
        FlowKey {
            source: Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
            destination: Ipv4Addr::from_bits(0x0a40_0000 + number).into(),
            dscp: 0,
        }
    }

    fn flow(key: FlowKey) -> Flow {
        Flow {
            key,
            epoch: 1,
            sender: None,
            receiver: None,
            exceptions: Spread::NONE,
            of_last: Conversations::default(),
            routes: 1,
            reply: Reply::default(),
        }
    }

    #[test]
    fn any_difference_makes_another_flow() {
        let mut flows = Flows::new(7, SIZE);
        let slot = flows.insert(flow(key(1)));
        assert_eq!(flows.find(&key(1)), Some(slot));
        let mapped = Ipv4Addr::from_bits(0x0a00_0001).to_ipv6_mapped();
        for other in [
            FlowKey { dscp: 0xb8, ..key(1) },
            FlowKey { source: key(2).source, ..key(1) },
            FlowKey { destination: key(2).destination, ..key(1) },
            FlowKey { source: key(1).destination, destination: key(1).source, dscp: 0 },
            FlowKey { source: mapped.into(), ..key(1) },
            FlowKey { source: Ipv6Addr::LOCALHOST.into(), ..key(1) },
        ] {
            assert_eq!(flows.find(&other), None, "{other:?}");
        }
    }

    #[test]
    fn two_thousand_pairs_fit_with_any_seed() {
        for seed in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
            let mut flows = Flows::new(seed, SIZE);
            for number in 0..2_000 {
                flows.insert(flow(key(number)));
            }
            let known = (0..2_000).filter(|&number| flows.find(&key(number)).is_some()).count();
            assert!(known > 1_990, "{known} of 2,000 with {seed:#x}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_newest_pair_is_found() {
        let mut flows = Flows::new(3, SIZE);
        for number in 0..4 * SIZE as u32 {
            let slot = flows.insert(flow(key(number)));
            assert_eq!(flows.find(&key(number)), Some(slot));
            assert!(flows.get_mut(slot).key == key(number));
        }
    }
}
