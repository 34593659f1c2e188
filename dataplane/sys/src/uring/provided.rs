//! A ring of provided buffers: the kernel fills one for each completion of a multishot request
//! (Linux 5.19, io_uring/kbuf.c).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::memory::{Pages, Slot};

/// Minimum of offered slots.
const DEPTH_MIN: usize = 8;
/// Completions per measurement of how many slots are in use at once.
const WINDOW: u32 = 1024;

/// The buffers of one group. A slot is either offered to the kernel, in reserve, or held by the
/// worker.
///
/// The kernel fills offered slots in turn. To keep them in the CPU cache, only as many are offered
/// as recent bursts have needed, and the most recently used one of the reserve is offered next.
pub(super) struct Provided {
    entries: Pages,
    mask: u16,
    tail: u16,
    /// Bytes at the start of a slot that the kernel does not fill.
    skipped: usize,
    /// By slot.
    offered: Vec<Option<Slot>>,
    /// Number of offered slots.
    offered_len: usize,
    /// Wanted number of offered slots.
    depth: usize,
    reserve: Vec<Slot>,
    /// Completions in the current window.
    completions: u32,
    /// Most slots that the worker held at once in the current window.
    peak: usize,
}

impl Provided {
    /// Registers the group and offers the first slots. The kernel fills a slot from offset
    /// `skipped` on (bytes).
    ///
    /// # Errors
    /// EINVAL: no buffer rings (before 5.19). ENOMEM: memory is short.
    pub(super) fn new(
        ring: &IoUring,
        group: u16,
        slots: Vec<Slot>,
        skipped: usize,
    ) -> io::Result<Provided> {
        let count = slots.len().next_power_of_two() as u16;
        let entries = Pages::new(usize::from(count) * size_of::<BufRingEntry>())?;
        // SAFETY: the pages outlive the ring, because `Uring` and `Prepared` drop their ring first.
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

    /// The number of slots that the worker does not hold.
    pub(super) fn free(&self) -> usize {
        self.offered_len + self.reserve.len()
    }

    /// Whether the worker holds a slot.
    pub(super) fn are_held(&self) -> bool {
        self.free() < self.offered.len()
    }

    /// Doubles the number of offered slots: the kernel found none.
    pub(super) fn ran_out(&mut self) {
        self.depth = (2 * self.depth).min(self.offered.len());
        self.fill();
    }

    /// Offers slots of the reserve up to `depth`.
    fn fill(&mut self) {
        while self.offered_len < self.depth
            && let Some(slot) = self.reserve.pop()
        {
            self.offer(slot);
        }
    }

    /// Offers a slot to the kernel.
    fn offer(&mut self, mut slot: Slot) {
        let id = slot.id;
        let base = self.entries.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: the masked tail lies within the ring, the kernel reads the entry only after the
        // release store below, and it never writes the u16 in the first entry that is the tail.
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

    /// Takes all slots back. No request may use the group after that.
    pub(super) fn reclaim(&mut self) -> Vec<Slot> {
        self.offered_len = 0;
        let offered = self.offered.iter_mut().filter_map(Option::take);
        self.reserve.drain(..).chain(offered).collect()
    }
}
