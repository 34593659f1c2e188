//! Buffers that the kernel fills: one mapping per kind and worker, cut into slots of one size.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// An anonymous mapping; unmapped when the last slot is dropped.
struct Mapping {
    base: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping is plain memory; who may touch which part is decided by the slots.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` itself gives no access to the memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(length: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh anonymous mapping aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: NonNull::new(base).expect("mmap never returns null"), length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slot is left: each holds a reference to it.
        unsafe { libc::munmap(self.base.as_ptr(), self.length) };
    }
}

/// One buffer. Whoever holds it owns its bytes: it is neither `Copy` nor `Clone`, and a backend
/// that offers it to the kernel keeps it until the kernel gives it back.
pub struct Slot {
    base: NonNull<u8>,
    length: usize,
    /// Its number within its kind.
    pub id: u16,
    _mapping: Arc<Mapping>,
}

// SAFETY: a slot is the only access to its bytes, like a `Box<[u8]>`.
unsafe impl Send for Slot {}

impl Deref for Slot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes lie within the mapping, which lives as long as the slot; the kernel
        // does not write to a slot that is not offered to it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; no other slot covers these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }
}

/// Where the datagrams of a train lie.
pub enum Buffer {
    /// As the kernel delivered them.
    Slot(Slot),
    /// Handed over by another worker.
    Heap(Box<[u8]>),
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Buffer::Slot(slot) => slot,
            Buffer::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Slot(slot) => slot,
            Buffer::Heap(bytes) => bytes,
        }
    }
}

/// Maps `count` slots of `length` bytes each, numbered from zero.
pub fn slots(count: u16, length: usize) -> io::Result<Vec<Slot>> {
    let mapping = Arc::new(Mapping::new(usize::from(count) * length)?);
    Ok((0..count)
        .map(|id| {
            // SAFETY: `id * length` stays within the mapping of `count * length` bytes.
            let base = unsafe { mapping.base.cast::<u8>().add(usize::from(id) * length) };
            Slot { base, length, id, _mapping: Arc::clone(&mapping) }
        })
        .collect())
}

/// A page-aligned, zeroed block that the kernel reads as long as it lives: a buffer ring.
pub struct Pages {
    mapping: Mapping,
}

impl Pages {
    /// Maps at least `length` bytes.
    pub fn new(length: usize) -> io::Result<Pages> {
        Ok(Pages { mapping: Mapping::new(length)? })
    }

    /// Where it begins.
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base.cast()
    }
}
