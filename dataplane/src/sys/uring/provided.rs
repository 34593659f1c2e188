//! A ring of provided buffers: the kernel takes one for each completion of a multishot request
//! (Linux 5.19, io_uring/kbuf.c).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::sys::memory::{Pages, Slot};

/// The buffers of one group. A slot is either here, offered to the kernel, or with the worker.
pub(super) struct Provided {
    entries: Pages,
    mask: u16,
    tail: u16,
    skipped: usize,
    offered: Vec<Option<Slot>>,
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
        let mut provided = Provided { entries, mask: count - 1, tail: 0, skipped, offered };
        slots.into_iter().for_each(|slot| provided.offer(slot));
        Ok(provided)
    }

    /// Gives a slot to the kernel.
    pub(super) fn offer(&mut self, mut slot: Slot) {
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
    }

    /// Takes the slot that a completion named.
    pub(super) fn take(&mut self, id: u16) -> Slot {
        self.offered[usize::from(id)].take().expect("the kernel fills only what it was offered")
    }

    /// Takes all slots back, for a request that does not use the group any more.
    pub(super) fn reclaim(&mut self) -> Vec<Slot> {
        self.offered.iter_mut().filter_map(Option::take).collect()
    }
}
