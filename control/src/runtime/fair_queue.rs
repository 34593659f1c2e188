//! Fair queueing of handshake messages by source address.
//!
//! The workers' lanes are first come, first served: a flood that arrives faster than control can
//! answer fills them, and a peer's message would get through by luck only. So control empties the
//! lanes as fast as it can copy, into one queue per source, and the queues take turns. Against
//! forged sources there are cookies, which every sender then needs.

use std::collections::{HashMap, VecDeque};

use wg_bounce_dataplane::messages::HandshakeMessage;
use wg_bounce_sys::clock::Millis;

use crate::source_prefix::SourcePrefix;

/// Handshake messages of one kind that wait for the control thread.
pub(super) struct FairQueue {
    /// The queues, none of them empty. The hash is keyed at random: an attacker cannot choose
    /// addresses that collide.
    sources: HashMap<SourcePrefix, VecDeque<Waiting>>,
    /// The sources in the order of their turns.
    turns: VecDeque<SourcePrefix>,
    len: usize,
    max: usize,
}

/// A message, and the time from which on it has waited.
pub(super) struct Waiting {
    pub(super) message: HandshakeMessage,
    pub(super) since: Millis,
}

/// The reason why a message found no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The queue of its source is full.
    Source,
    /// All queues together are full.
    Memory,
}

impl FairQueue {
    /// An empty queue for at most `max` messages.
    pub(super) fn new(max: usize) -> FairQueue {
        FairQueue { sources: HashMap::new(), turns: VecDeque::new(), len: 0, max }
    }

    /// Queues a message, unless `per_source_max` of its source wait already.
    pub(super) fn push(
        &mut self,
        message: HandshakeMessage,
        per_source_max: usize,
        now: Millis,
    ) -> Result<(), Full> {
        let source = SourcePrefix::of(message.from.remote.ip());
        self.room(source, per_source_max)?;
        // One message at first: in a flood from forged addresses, no source has a second.
        let queue = self.sources.entry(source).or_insert_with(|| VecDeque::with_capacity(1));
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(Waiting { message, since: now });
        self.len += 1;
        Ok(())
    }

    /// Whether `push` has a place for a message of this source. One source may have at most as many
    /// messages as there are free places: a few sources do not take the places of all others.
    pub(super) fn room(&self, source: SourcePrefix, per_source_max: usize) -> Result<(), Full> {
        let of_source = self.sources.get(&source).map_or(0, VecDeque::len);
        if self.len >= self.max {
            Err(Full::Memory)
        } else if of_source >= per_source_max.min(self.places()) {
            Err(Full::Source)
        } else {
            Ok(())
        }
    }

    /// Removes the next message, of the source whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let source = self.turns.pop_front()?;
        let queue = self.sources.get_mut(&source)?;
        let message = queue.pop_front();
        if queue.is_empty() {
            self.sources.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        self.len -= usize::from(message.is_some());
        if self.len == 0 {
            // Frees the memory after a flood.
            *self = FairQueue::new(self.max);
        }
        message
    }

    /// Number of messages that still have a place.
    pub(super) fn places(&self) -> usize {
        self.max - self.len
    }

    /// Number of sources that have queued messages.
    pub(super) fn sources(&self) -> usize {
        self.turns.len()
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
    fn one_source_is_bounded_and_another_is_not_affected() {
        let mut queue = FairQueue::new(100);
        assert_eq!((0..50).filter(|_| queue.push(from(1), 32, Millis(1)).is_ok()).count(), 32);
        assert_eq!(queue.push(from(1), 32, Millis(1)), Err(Full::Source));
        assert_eq!(queue.push(from(2), 32, Millis(1)), Ok(()));
        let first_two =
            [queue.pop(), queue.pop()].map(|message| message.expect("waits").message.from);
        assert!(first_two.contains(&from(2).from), "a flood delays another by one message");
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 31);
        assert_eq!((queue.len(), queue.sources.len()), (0, 0));
        assert_eq!(queue.push(from(1), 32, Millis(1)), Ok(()), "there is room again");
    }

    #[test]
    fn a_few_sources_leave_places_for_others() {
        let mut queue = FairQueue::new(100);
        for source in (0..16).cycle().take(1600) {
            let _ = queue.push(from(source), 32, Millis(1));
        }
        assert!(queue.len() > 80 && queue.places() > 3, "{} wait", queue.len());
        assert_eq!(queue.push(from(99), 32, Millis(1)), Ok(()));
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let mut queue = FairQueue::new(100);
        assert_eq!(
            (0..200).filter(|&source| queue.push(from(source), 32, Millis(1)).is_ok()).count(),
            100
        );
        assert_eq!(queue.push(from(1000), 32, Millis(1)), Err(Full::Memory));
        assert_eq!(queue.len(), 100);
    }
}
