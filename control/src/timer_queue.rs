//! Deadlines of many peers: the next peer that is due, and the next time to wake. O(log n) per
//! operation.

use std::collections::BTreeSet;

use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_sys::clock::Millis;

/// At most one deadline per peer; the peer's own state remembers it (`queued`).
#[derive(Debug, Default)]
pub struct TimerQueue {
    deadlines: BTreeSet<(Millis, PeerId)>,
}

impl TimerQueue {
    /// Moves the deadline of `peer` from `queued` to `wanted`, and stores it in `queued`.
    pub fn set(&mut self, peer: PeerId, queued: &mut Option<Millis>, wanted: Option<Millis>) {
        if *queued == wanted {
            return;
        }
        if let Some(old) = queued.take() {
            let was_there = self.deadlines.remove(&(old, peer));
            debug_assert!(was_there, "`queued` is the deadline in the queue");
        }
        if let Some(new) = wanted {
            self.deadlines.insert((new, peer));
        }
        *queued = wanted;
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Millis> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// The first peer whose deadline is not after `now`.
    pub fn due(&self, now: Millis) -> Option<PeerId> {
        self.deadlines.first().filter(|&&(deadline, _)| deadline <= now).map(|&(_, peer)| peer)
    }

    /// Deadlines in the queue.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether no peer has a deadline.
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_and_removes_deadlines() {
        let mut queue = TimerQueue::default();
        let (mut first, mut second) = (None, None);
        queue.set(PeerId(1), &mut first, Some(Millis(30)));
        queue.set(PeerId(2), &mut second, Some(Millis(20)));
        assert_eq!((queue.next(), queue.due(Millis(19))), (Some(Millis(20)), None));
        assert_eq!(queue.due(Millis(20)), Some(PeerId(2)));
        queue.set(PeerId(1), &mut first, Some(Millis(10)));
        assert_eq!(queue.due(Millis(20)), Some(PeerId(1)));
        queue.set(PeerId(1), &mut first, None);
        assert_eq!((queue.len(), queue.next()), (1, Some(Millis(20))));
        queue.set(PeerId(2), &mut second, None);
        assert!(queue.is_empty());
    }
}
