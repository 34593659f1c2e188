//! The system calls of the packet path that can fail while it runs. With the feature `faults`,
//! which only tests enable, the module `faults` replaces this one.

use io_uring::{IoUring, cqueue, squeue};
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

pub(crate) use crate::enter::enter;
pub(crate) use libc::{recvmmsg, sendmmsg, sendmsg};
pub(crate) use nix::sys::uio::writev;
pub(crate) use nix::unistd::{read, write};

/// epoll_wait(2).
#[inline]
pub(crate) fn epoll_wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> nix::Result<usize> {
    epoll.wait(events, timeout)
}

/// The request that is submitted for `entry`.
#[inline]
pub(crate) fn request(entry: squeue::Entry) -> squeue::Entry {
    entry
}

/// The completions that have arrived.
#[inline]
pub(crate) fn completions(ring: &mut IoUring) -> impl Iterator<Item = cqueue::Entry> {
    ring.completion()
}

/// Marks this thread as a worker's.
#[inline]
pub(crate) fn enlist() {}

/// Notes that a worker is about to wait, with this many buffers for trains and frames that it does
/// not hold.
#[inline]
pub(crate) fn note_idle(_trains: usize, _frames: usize) {}
