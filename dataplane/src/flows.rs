//! What a worker remembers of the pairs of addresses that it has seen: whose they are, and what
//! the kernel's route between them is.
//!
//! A table of fixed size, sought by hash in sets of [`WAYS`]; a new pair takes the place of an
//! old one. It only saves asking: what is not in it is looked up and asked for again.

use std::net::IpAddr;
use std::sync::Arc;

use wg_bounce_sys::route::Route;

use crate::hash::mix;
use crate::ip::Packet;
use crate::peer::{Peer, PeerId};

/// Pairs that one worker remembers (of about 100 bytes each): more than talk at once through a
/// large hub, and few enough to lie in a shared cache.
const FLOWS_MAX: usize = 1 << 14;
/// Places that a pair may take.
const WAYS: usize = 4;
const _: () = assert!(FLOWS_MAX.is_power_of_two() && FLOWS_MAX.is_multiple_of(WAYS));

/// Source, destination and DSCP of a packet: what a route can depend on.
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

/// What is known of a pair.
#[derive(Clone)]
pub struct Flow {
    /// The pair.
    pub key: FlowKey,
    /// Of the snapshot that `sender` and `receiver` come from.
    pub epoch: u64,
    /// Who owns the source by allowed IPs.
    pub sender: Option<PeerId>,
    /// Who owns the destination.
    pub receiver: Option<Arc<Peer>>,
    /// State of the kernel's routes (see [`crate::snapshot::Relay::routes`]) that `route` is of.
    pub routes: u64,
    /// What the kernel said.
    pub route: Route,
}

/// The pairs of one worker.
pub struct Flows {
    places: Box<[Option<Flow>]>,
    seed: u64,
    /// Which place of a full set is given away next.
    turn: usize,
}

impl Flows {
    /// An empty table; all its memory is taken here. `seed` is random, so that nobody can choose
    /// addresses that share a set.
    #[must_use]
    pub fn new(seed: u64) -> Flows {
        let places = std::iter::repeat_with(|| None).take(FLOWS_MAX).collect();
        Flows { places, seed, turn: 0 }
    }

    /// Where the pair stands.
    #[must_use]
    pub fn find(&self, key: &FlowKey) -> Option<usize> {
        let set = self.set_of(key);
        (set..set + WAYS)
            .find(|&place| self.places[place].as_ref().is_some_and(|flow| flow.key == *key))
    }

    /// The pair in a place that [`Flows::find`] or [`Flows::insert`] gave.
    ///
    /// # Panics
    /// If the place is empty: the caller's bug.
    #[must_use]
    pub fn get(&self, place: usize) -> &Flow {
        self.places[place].as_ref().expect("a pair stands there")
    }

    /// As [`Flows::get`], to be brought up to date.
    #[must_use]
    pub fn get_mut(&mut self, place: usize) -> &mut Flow {
        self.places[place].as_mut().expect("a pair stands there")
    }

    /// Remembers a pair that was not found, and forgets another one if need be.
    pub fn insert(&mut self, flow: Flow) -> usize {
        let set = self.set_of(&flow.key);
        let free = (set..set + WAYS).find(|&place| self.places[place].is_none());
        let place = free.unwrap_or_else(|| {
            self.turn = self.turn.wrapping_add(1);
            set + self.turn % WAYS
        });
        self.places[place] = Some(flow);
        place
    }

    fn set_of(&self, key: &FlowKey) -> usize {
        key.hash(self.seed) as usize % (FLOWS_MAX / WAYS) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn key(number: u32) -> FlowKey {
        FlowKey {
            source: Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
            destination: Ipv4Addr::from_bits(0x0a40_0000 + number).into(),
            dscp: 0,
        }
    }

    fn flow(key: FlowKey) -> Flow {
        Flow { key, epoch: 1, sender: None, receiver: None, routes: 1, route: Route::Back }
    }

    #[test]
    fn what_differs_is_another_flow() {
        let mut flows = Flows::new(7);
        let place = flows.insert(flow(key(1)));
        assert_eq!(flows.find(&key(1)), Some(place));
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
    fn two_thousand_pairs_stay_whatever_the_seed() {
        for seed in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
            let mut flows = Flows::new(seed);
            for number in 0..2_000 {
                flows.insert(flow(key(number)));
            }
            let known = (0..2_000).filter(|&number| flows.find(&key(number)).is_some()).count();
            assert!(known > 1_990, "{known} of 2,000 with {seed:#x}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_newest_is_there() {
        let mut flows = Flows::new(3);
        for number in 0..4 * FLOWS_MAX as u32 {
            let place = flows.insert(flow(key(number)));
            assert_eq!(flows.find(&key(number)), Some(place));
            assert!(flows.get(place).key == key(number));
        }
    }
}
