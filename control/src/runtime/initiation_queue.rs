//! Fair queueing of initiations by source address.
//!
//! The workers' lane is first come, first served: a flood that arrives faster than control can
//! answer fills it, and a peer's initiation would get through by luck only. So control empties the
//! lane as fast as it can copy, into short queues chosen by a hash of the source, which take turns.
//! Against forged sources there are cookies, which every sender then needs.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use wg_bounce_dataplane::messages::HandshakeMessage;

use crate::limits::{INITIATION_QUEUE_MAX, INITIATION_QUEUES};
use crate::source_prefix::SourcePrefix;

/// Initiations that wait for the control thread.
pub(super) struct InitiationQueue {
    queues: Vec<VecDeque<HandshakeMessage>>,
    /// The queues that are not empty, in the order of their turns.
    turns: VecDeque<usize>,
    /// Keyed at random: an attacker cannot choose addresses that share a victim's queue.
    hash: RandomState,
    len: usize,
}

impl Default for InitiationQueue {
    fn default() -> Self {
        InitiationQueue {
            queues: (0..INITIATION_QUEUES).map(|_| VecDeque::new()).collect(),
            turns: VecDeque::with_capacity(INITIATION_QUEUES),
            hash: RandomState::new(),
            len: 0,
        }
    }
}

impl InitiationQueue {
    /// Queues a message. False: the queue of its source is full, and the message is dropped.
    #[must_use]
    pub(super) fn push(&mut self, message: HandshakeMessage) -> bool {
        let source = SourcePrefix::of(message.from.remote.ip());
        let number = self.hash.hash_one(source) as usize % INITIATION_QUEUES;
        let queue = &mut self.queues[number];
        if queue.len() >= INITIATION_QUEUE_MAX {
            return false;
        }
        if queue.is_empty() {
            self.turns.push_back(number);
        }
        queue.push_back(message);
        self.len += 1;
        true
    }

    /// Removes the next message, of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<HandshakeMessage> {
        let number = self.turns.pop_front()?;
        let queue = &mut self.queues[number];
        let message = queue.pop_front();
        if !queue.is_empty() {
            self.turns.push_back(number);
        }
        self.len -= usize::from(message.is_some());
        message
    }

    /// Number of queued messages.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrayvec::ArrayVec;
    use std::net::Ipv4Addr;
    use wg_bounce_sys::Endpoint;

    fn from(source: u32) -> HandshakeMessage {
        let remote = (Ipv4Addr::from_bits(source), 51820).into();
        HandshakeMessage { bytes: ArrayVec::new(), from: Endpoint { remote, source: None } }
    }

    #[test]
    fn one_source_is_bounded_and_keeps_its_order() {
        let mut queue = InitiationQueue::default();
        let taken = (0..1000).filter(|_| queue.push(from(1))).count();
        assert_eq!((taken, queue.len()), (INITIATION_QUEUE_MAX, INITIATION_QUEUE_MAX));
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), INITIATION_QUEUE_MAX);
        assert_eq!(queue.len(), 0);
        assert!(queue.push(from(1)), "there is room again");
    }

    #[test]
    fn a_flood_of_one_source_delays_another_by_one_message() {
        let mut queue = InitiationQueue::default();
        // A source that does not share the flood's queue, whatever the hash's keys.
        let shares = |queue: &InitiationQueue, source: u32| {
            queue.hash.hash_one(SourcePrefix::V4(source)) as usize % INITIATION_QUEUES
        };
        let other = (2..).find(|&source| shares(&queue, source) != shares(&queue, 1));
        let other = from(other.expect("some hash differs"));
        while queue.push(from(1)) {}
        assert!(queue.push(other.clone()));
        let first_two = [queue.pop(), queue.pop()].map(|message| message.expect("waits").from);
        assert!(first_two.contains(&other.from));
    }
}
