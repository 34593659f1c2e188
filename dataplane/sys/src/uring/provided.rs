//! A ring of provided buffers: the kernel takes one for each completion of a multishot request
//! (Linux 5.19, io_uring/kbuf.c).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::memory::{Pages, Slot};

/// Slots that are offered at least.
const DEPTH_MIN: usize = 8;
/// Completions over which the need for slots is observed.
const WINDOW: u32 = 1024;

/// The buffers of one group. A slot is either offered to the kernel, in reserve, or with the
/// worker.
///
/// The kernel fills what it is offered in a circle. Only as many slots are offered as bursts have
/// been found to need, and of the others the one that was used last comes next: so a few slots
/// serve again and again, and stay in the cache.
pub(super) struct Provided {
    entries: Pages,
    mask: u16,
    tail: u16,
    skipped: usize,
    offered: Vec<Option<Slot>>,
    /// How many of them there are.
    offered_len: usize,
    /// How many there should be.
    depth: usize,
    reserve: Vec<Slot>,
    /// Completions in this window.
    completions: u32,
    /// Slots that were with the worker at once, at most, in this window.
    peak: usize,
}

impl Provided {
    /// Registers the group and offers all slots. The kernel fills a slot from byte `skipped` on.
    pub(super) fn new(
        ring: &IoUring,
        group: u16,
        slots: Vec<Slot>,
        skipped: usize,
    ) -> io::Result<Provided> {
        let count = slots.len().next_power_of_two() as u16;
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the pages stay mapped as long as the ring: `Uring` drops its ring first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.base().as_ptr() as u64,
                count,
                group,
                0,
            )
        }?;
        let offered = slots.iter().map(|_| None).collect();
        let mut provided = Provided {
            entries,
            mask: count - 1,
            tail: 0,
            skipped,
            offered,
            offered_len: 0,
            depth: DEPTH_MIN,
            reserve: slots,
            completions: 0,
            peak: 0,
        };
        provided.fill();
        Ok(provided)
    }

    /// Takes a slot back from the worker.
    pub(super) fn release(&mut self, slot: Slot) {
        self.reserve.push(slot);
        self.fill();
    }

    /// Whether the kernel has a slot to fill.
    pub(super) fn has_some(&self) -> bool {
        self.offered_len > 0
    }

    /// The kernel found no slot: it is to have more.
    pub(super) fn ran_out(&mut self) {
        self.depth = (2 * self.depth).min(self.offered.len());
        self.fill();
    }

    fn fill(&mut self) {
        while self.offered_len < self.depth
            && let Some(slot) = self.reserve.pop()
        {
            self.offer(slot);
        }
    }

    /// Gives a slot to the kernel.
    fn offer(&mut self, mut slot: Slot) {
        let id = slot.id;
        let base = self.entries.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: the masked tail lies within the ring; the kernel reads this entry only after
        // the tail below has moved over it. `tail` points to a u16 within the first entry that
        // the kernel only reads.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail & self.mask));
            entry.set_addr(slot[self.skipped..].as_mut_ptr() as u64);
            entry.set_len((slot.len() - self.skipped) as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
        self.offered[usize::from(id)] = Some(slot);
        self.offered_len += 1;
    }

    /// Takes the slot that a completion named.
    pub(super) fn take(&mut self, id: u16) -> Slot {
        self.offered_len -= 1;
        let slot = self.offered[usize::from(id)].take();
        self.peak = self.peak.max(self.offered.len() - self.offered_len - self.reserve.len());
        self.completions += 1;
        if self.completions == WINDOW {
            self.depth = (2 * self.peak).clamp(DEPTH_MIN, self.offered.len());
            (self.completions, self.peak) = (0, 0);
        }
        self.fill();
        slot.expect("the kernel fills only what it was offered")
    }

    /// Takes all slots back, for a request that does not use the group any more.
    pub(super) fn reclaim(&mut self) -> Vec<Slot> {
        self.offered_len = 0;
        let offered = self.offered.iter_mut().filter_map(Option::take);
        self.reserve.drain(..).chain(offered).collect()
    }
}
