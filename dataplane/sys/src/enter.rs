//! io_uring_enter(2), with or without submission and time limit.

use std::io;
use std::time::Duration;

use io_uring::IoUring;
use io_uring::types::Timespec;

/// IORING_ENTER_GETEVENTS; without it the kernel defers its task work.
const GET_EVENTS: u32 = 1;
/// IORING_ENTER_EXT_ARG (Linux 5.11).
const EXT_ARG: u32 = 1 << 3;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct Argument {
    signal_mask: u64,
    signal_mask_len: u32,
    min_wait: u32,
    limit: u64,
}

/// Submits what was pushed if it `submits`, and waits for `want` completions, at most for `limit`
/// (ETIME).
///
/// # Safety
/// Every pushed entry is sound: memory that it points to outlives the request.
pub(crate) unsafe fn enter(
    ring: &mut IoUring,
    submits: bool,
    want: u32,
    limit: Option<Duration>,
) -> io::Result<usize> {
    let pushed = if submits { ring.submission().len() as u32 } else { 0 };
    let Some(limit) = limit else {
        // SAFETY: the call has no argument, and the caller vouches for the entries.
        return unsafe { ring.submitter().enter::<Argument>(pushed, want, GET_EVENTS, None) };
    };
    let limit = Timespec::from(limit);
    let limit = (&raw const limit).expose_provenance() as u64;
    let argument = Argument { signal_mask: 0, signal_mask_len: 0, min_wait: 0, limit };
    let flags = GET_EVENTS | EXT_ARG;
    // SAFETY: argument and limit live until the call returns, and the caller vouches for the
    // entries.
    unsafe { ring.submitter().enter(pushed, want, flags, Some(&argument)) }
}
