//! Receive buffers: one mapping per kind and worker, divided into slots of one size.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// An anonymous mapping; unmapped when the last slot is dropped.
struct Mapping {
    base: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping is plain memory, and only its slots give access to it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
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
        // SAFETY: the mapping is ours, and no slot is left, because each holds a reference to it.
        unsafe { libc::munmap(self.base.as_ptr(), self.length) };
    }
}

/// One buffer. A slot owns its bytes: it is neither `Copy` nor `Clone`, and a backend that offers
/// it to the kernel keeps it until the kernel returns it.
pub struct Slot {
    base: NonNull<u8>,
    length: usize,
    /// Its index within its kind.
    pub id: u16,
    _mapping: Arc<Mapping>,
}

// SAFETY: like a `Box<[u8]>`, a slot is the only access to its bytes.
unsafe impl Send for Slot {}

impl Deref for Slot {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes lie within the mapping, which lives as long as the slot, and the kernel
        // writes only to slots that are offered to it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and no other slot covers these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }
}

/// The buffer of a train.
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
///
/// # Errors
/// ENOMEM: out of memory or address space; use fewer or smaller buffers.
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

/// A page-aligned, zeroed block: a buffer ring, which the kernel reads while it is registered.
pub struct Pages {
    mapping: Mapping,
}

impl Pages {
    /// Maps at least `length` bytes.
    ///
    /// # Errors
    /// ENOMEM: out of memory or address space.
    pub fn new(length: usize) -> io::Result<Pages> {
        Ok(Pages { mapping: Mapping::new(length)? })
    }

    /// Its first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base.cast()
    }
}
