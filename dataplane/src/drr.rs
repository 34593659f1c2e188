//! Deficit round robin over queues, with those that were empty first (RFC 8290 §4, without its
//! dropping).
//!
//! A worker takes one slice per turn, so that a thin flow waits for one slice at most, however much
//! the others have sent; and a slice takes a quantum of one queue before it goes on to the next, so
//! that messages to one destination stay together.

use std::collections::VecDeque;

use slab::Slab;

use crate::limits::{DRR_ITEMS_KEPT, DRR_QUANTUM, DRR_QUEUES};

/// Queued items, each with its cost.
pub struct DeficitRoundRobin<T> {
    /// The items of all queues: each of these linked lists may have been the longest at some time,
    /// so memory of their own would add up.
    items: Slab<Item<T>>,
    queues: Vec<Queue>,
    /// Queues that were empty and wait for their first turn.
    fresh: VecDeque<usize>,
    /// Queues that had it.
    rest: VecDeque<usize>,
    quantum: i64,
}

struct Item<T> {
    value: T,
    cost: u32,
    /// The key of the next item of its queue; that of the last item means nothing.
    next: usize,
}

#[derive(Clone)]
struct Queue {
    /// The keys of its first and its last item.
    ends: Option<(usize, usize)>,
    /// The sum of the items' costs.
    cost: u64,
    credit: i64,
    /// Whether it is in one of the two lists.
    is_listed: bool,
}

impl<T> Default for DeficitRoundRobin<T> {
    fn default() -> Self {
        DeficitRoundRobin::new(DRR_QUEUES, DRR_QUANTUM)
    }
}

impl<T> DeficitRoundRobin<T> {
    /// `queues` empty queues, each of which may spend a cost of `quantum` in its turn.
    #[must_use]
    pub fn new(queues: usize, quantum: i64) -> Self {
        let queue = Queue { ends: None, cost: 0, credit: 0, is_listed: false };
        DeficitRoundRobin {
            items: Slab::new(),
            queues: vec![queue; queues],
            fresh: VecDeque::with_capacity(queues),
            rest: VecDeque::with_capacity(queues),
            quantum,
        }
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of queued items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Appends to queue `queue`, reduced modulo their number.
    pub fn push(&mut self, queue: usize, item: T, cost: u32) {
        let number = queue % self.queues.len();
        let queue = &mut self.queues[number];
        let key = self.items.insert(Item { value: item, cost, next: 0 });
        queue.append(key, &mut self.items);
        queue.cost += u64::from(cost);
        if !queue.is_listed {
            queue.is_listed = true;
            queue.credit = self.quantum;
            self.fresh.push_back(number);
        }
    }

    /// Removes the next item; returns it with its cost.
    pub fn pop(&mut self) -> Option<(T, u32)> {
        self.pop_where(|_, _| true)
    }

    /// As [`DeficitRoundRobin::pop`], but first drops items at the head of the next queue for
    /// which `keep(item, cost)` is false. A queue keeps its last item, and all while they cost
    /// no more than a quantum.
    pub fn pop_where(&mut self, mut keep: impl FnMut(&T, u32) -> bool) -> Option<(T, u32)> {
        while !self.items.is_empty() {
            let is_fresh = !self.fresh.is_empty();
            let list = if is_fresh { &mut self.fresh } else { &mut self.rest };
            let number = *list.front().expect("a queue with items is listed");
            let queue = &mut self.queues[number];
            if queue.credit <= 0 {
                queue.credit += self.quantum;
            } else if queue.ends.is_some() {
                while let Some((first, last)) = queue.ends
                    && first != last
                    && queue.cost > self.quantum as u64
                    && !keep(&self.items[first].value, self.items[first].cost)
                {
                    queue.pop(&mut self.items);
                }
                let popped = queue.pop(&mut self.items).expect("it is not empty");
                queue.credit -= i64::from(popped.1);
                return Some(popped);
            } else if !is_fresh {
                list.pop_front();
                queue.is_listed = false;
                continue;
            }
            // Moves behind the others: its turn is over, or it is empty but was fresh and must not
            // be so again before they had their turn.
            list.pop_front();
            self.rest.push_back(number);
        }
        if self.items.capacity() > DRR_ITEMS_KEPT {
            self.items.shrink_to_fit();
        }
        None
    }

    /// Removes the oldest item of the queue whose items cost most.
    pub fn pop_from_costliest(&mut self) -> Option<(T, u32)> {
        self.queues.iter_mut().max_by_key(|queue| queue.cost)?.pop(&mut self.items)
    }

    /// Removes the items for which `keep(item, cost)` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T, u32) -> bool) {
        for queue in &mut self.queues {
            let Some((mut key, last)) = queue.ends.take() else { continue };
            loop {
                let Item { value, cost, next } = &self.items[key];
                let (cost, next) = (*cost, *next);
                if keep(value, cost) {
                    queue.append(key, &mut self.items);
                } else {
                    self.items.remove(key);
                    queue.cost -= u64::from(cost);
                }
                if key == last {
                    break;
                }
                key = next;
            }
        }
    }
}

impl Queue {
    fn append<T>(&mut self, key: usize, items: &mut Slab<Item<T>>) {
        if let Some((first, last)) = self.ends {
            items[last].next = key;
            self.ends = Some((first, key));
        } else {
            self.ends = Some((key, key));
        }
    }

    fn pop<T>(&mut self, items: &mut Slab<Item<T>>) -> Option<(T, u32)> {
        let (first, last) = self.ends?;
        let Item { value, cost, next } = items.remove(first);
        self.ends = (first != last).then_some((next, last));
        self.cost -= u64::from(cost);
        Some((value, cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: u32 = 86_000;

    fn all(backlog: &mut DeficitRoundRobin<(usize, u32)>) -> Vec<(usize, u32)> {
        std::iter::from_fn(|| backlog.pop()).map(|(item, _)| item).collect()
    }

    #[test]
    fn one_queue_is_first_in_first_out() {
        let mut backlog = DeficitRoundRobin::default();
        for number in 0..100 {
            backlog.push(7, (7, number), TRAIN);
        }
        assert_eq!(all(&mut backlog), (0..100).map(|number| (7, number)).collect::<Vec<_>>());
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_is_thin_passes_what_is_heavy() {
        let mut backlog = DeficitRoundRobin::default();
        for number in 0..100 {
            backlog.push(1, (1, number), TRAIN);
        }
        assert_eq!(backlog.pop().map(|(item, _)| item), Some((1, 0)));
        assert_eq!(backlog.pop().map(|(item, _)| item), Some((1, 1)));
        for number in 0..10 {
            backlog.push(2, (2, number), 600);
            // The heavy one's turn is over, or soon will be.
            let next: Vec<_> =
                (0..2).filter_map(|_| backlog.pop()).map(|(item, _)| item.0).collect();
            assert!(next.contains(&2), "{next:?} in round {number}");
        }
    }

    #[test]
    fn equals_take_turns_and_keep_their_own_order() {
        let mut backlog = DeficitRoundRobin::default();
        for number in 0..50 {
            for queue in [3, 4, 5] {
                backlog.push(queue, (queue, number), TRAIN / 10);
            }
        }
        let order = all(&mut backlog);
        for queue in [3, 4, 5] {
            let own: Vec<u32> =
                order.iter().filter(|item| item.0 == queue).map(|item| item.1).collect();
            assert_eq!(own, (0..50).collect::<Vec<_>>());
        }
        // About a full train of each, then the next.
        let runs = order.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect::<Vec<_>>();
        assert!(runs.iter().all(|&run| (1..=11).contains(&run)), "{runs:?}");
        let first_done = order.iter().position(|item| item.1 == 49).expect("it is there");
        assert!(first_done > 3 * 40 - 11, "none is far ahead: {first_done}");
    }

    #[test]
    fn a_queue_that_is_always_fresh_starves_no_other() {
        let mut backlog = DeficitRoundRobin::default();
        for number in 0..10 {
            backlog.push(1, (1, number), TRAIN);
        }
        let mut heavy = 0;
        for number in 0..100 {
            // Each time it has been emptied: never more than one waits.
            backlog.push(2, (2, number), TRAIN);
            let (item, _) = backlog.pop().expect("two wait");
            heavy += usize::from(item.0 == 1);
        }
        assert_eq!(heavy, 10);
    }

    #[test]
    fn memory_follows_what_is_queued() {
        let mut backlog = DeficitRoundRobin::default();
        // Each queue is once the longest.
        for queue in 0..DRR_QUEUES {
            for number in 0..4 * DRR_ITEMS_KEPT as u32 {
                backlog.push(queue, (queue, number), 600);
            }
            let items = std::iter::from_fn(|| backlog.pop());
            assert!(items.map(|(item, _)| item.1).eq(0..4 * DRR_ITEMS_KEPT as u32));
            assert!(backlog.items.capacity() <= DRR_ITEMS_KEPT);
        }
    }

    #[test]
    fn the_costliest_queue_pays() {
        let mut backlog = DeficitRoundRobin::new(8, 100);
        for number in 0..4 {
            backlog.push(1, (1, number), 100);
        }
        backlog.push(2, (2, 0), 10);
        assert_eq!(backlog.pop_from_costliest(), Some(((1, 0), 100)));
        // Of what is stale, a quantum stays.
        assert_eq!(backlog.pop_where(|item, _| item.1 > 5), Some(((1, 3), 100)));
        backlog.push(1, (1, 3), 101);
        let last = backlog.pop_where(|_, _| false);
        assert_eq!(last, Some(((2, 0), 10)), "stale, but alone");
        let last = backlog.pop_where(|_, _| false);
        assert_eq!(last, Some(((1, 3), 101)), "more than a quantum, but alone");
        backlog.push(2, (2, 0), 10);
        backlog.push(1, (1, 4), 100);
        backlog.retain(|item, _| item.0 == 2);
        assert_eq!((backlog.pop(), backlog.pop()), (Some(((2, 0), 10)), None));
        for number in 0..6 {
            backlog.push(1, (1, number), 10);
        }
        backlog.retain(|item, _| ![0, 3, 5].contains(&item.1));
        backlog.push(1, (1, 6), 10);
        assert_eq!(all(&mut backlog), [(1, 1), (1, 2), (1, 4), (1, 6)]);
        assert!(backlog.is_empty() && backlog.pop_from_costliest().is_none());
    }
}
