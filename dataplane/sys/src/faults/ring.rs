//! Requests of a ring that fail as planned.
//!
//! A request that must fail is submitted for a bad descriptor, so that the kernel ends it as it
//! ends a failing one, along with those that are linked to it. A multishot request that must end
//! while it is armed is cancelled. The completion then gets the planned errno.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue};

use super::plan::{Call, SIGNAL_INTERVAL, draw, draw_if, is_planned, undo};
use crate::enter as entering;
use crate::io::Errno;
use crate::tun::FRAME_SLOT_LEN;

/// Of the cancellations by this layer; no request of the backend has it.
const CANCEL: u64 = u64::MAX;

/// Requests of one ring, by their `user_data`.
#[derive(Default)]
pub(super) struct Requests {
    /// Multishot requests that the kernel holds.
    armed: BTreeMap<u64, (Call, RawFd)>,
    /// Requests that end as planned: the call, its errno and its descriptor.
    ending: BTreeMap<u64, (Call, Errno, RawFd)>,
    /// Those of `ending` that ended by themselves may complete before their cancellation.
    cancelled: BTreeSet<u64>,
}

thread_local! {
    static REQUESTS: RefCell<Requests> = RefCell::default();
}

/// See `calls`.
pub(crate) fn request(mut entry: squeue::Entry) -> squeue::Entry {
    let (call, is_multishot) = match entry.get_opcode() as u8 {
        opcode::RecvMsgMulti::CODE => (Call::Receive, true),
        opcode::ReadMulti::CODE => (Call::TunRead, true),
        opcode::SendMsg::CODE => (Call::Send, false),
        opcode::Writev::CODE => (Call::TunWrite, false),
        opcode::PollAdd::CODE => (Call::Poll, false),
        _ => return entry,
    };
    let (data, fd) = (entry.get_user_data(), *descriptor(&mut entry));
    let call = match call {
        Call::TunRead if is_planned(Call::TunArm) => Call::TunArm,
        _ => call,
    };
    REQUESTS.with_borrow_mut(|requests| match draw(call) {
        Some(errno) => {
            requests.ending.insert(data, (call, errno, fd));
            *descriptor(&mut entry) = -1;
            entry
        }
        None => {
            if is_multishot {
                requests.armed.insert(data, (call, fd));
            }
            entry
        }
    })
}

/// See `calls`.
///
/// # Safety
/// As there.
pub(crate) unsafe fn enter(
    ring: &mut IoUring,
    submits: bool,
    want: u32,
    limit: Option<Duration>,
) -> io::Result<usize> {
    end_some(ring);
    let pushed = if submits { ring.submission().len() } else { 0 };
    let is_of_submission = |errno| errno != libc::EINTR && pushed > 0;
    if let Some(errno) = draw_if(Call::Wait, is_of_submission) {
        return Err(io::Error::from_raw_os_error(errno));
    }
    if want > 0 && is_planned(Call::Wait) {
        // The kernel looks for signals when it has submitted nothing and too little has completed.
        // SAFETY: the caller vouches for the entries.
        let submitted = unsafe { entering::enter(ring, submits, 0, None) }?;
        if submitted > 0 || ring.completion().len() >= want as usize {
            return Ok(submitted);
        }
        std::thread::sleep(SIGNAL_INTERVAL);
        if let Some(errno) = draw_if(Call::Wait, |errno| errno == libc::EINTR) {
            return Err(io::Error::from_raw_os_error(errno));
        }
    }
    // SAFETY: the caller vouches for the entries.
    unsafe { entering::enter(ring, submits, want, limit) }
}

/// Cancels armed multishot requests that must end now.
fn end_some(ring: &mut IoUring) {
    let ends = REQUESTS.with_borrow_mut(Requests::ends);
    for data in ends {
        let cancel = opcode::AsyncCancel::new(data).build().user_data(CANCEL);
        // SAFETY: the entry points to no memory.
        let pushed = unsafe { ring.submission().push(&cancel) };
        pushed.expect("the ring has room for more than the backend pushes");
    }
}

/// See `calls`.
pub(crate) fn completions(ring: &mut IoUring) -> impl Iterator<Item = cqueue::Entry> {
    let mut taken: Vec<cqueue::Entry> = ring.completion().collect();
    REQUESTS.with_borrow_mut(|requests| requests.end(&mut taken));
    taken.into_iter()
}

impl Requests {
    /// The armed requests that must end now.
    fn ends(&mut self) -> Vec<u64> {
        let mut ends = Vec::new();
        for (&data, &(call, fd)) in &self.armed {
            if !self.ending.contains_key(&data)
                && let Some(errno) = draw(call)
            {
                self.ending.insert(data, (call, errno, fd));
                self.cancelled.insert(data);
                ends.push(data);
            }
        }
        ends
    }

    /// Gives the completions of requests that end as planned their errnos, and removes those of
    /// this layer.
    fn end(&mut self, taken: &mut Vec<cqueue::Entry>) {
        taken.retain(|entry| entry.user_data() != CANCEL);
        for entry in taken.iter_mut().filter(|entry| !cqueue::more(entry.flags())) {
            let data = entry.user_data();
            self.armed.remove(&data);
            let Some((call, errno, fd)) = self.ending.remove(&data) else { continue };
            let ended_by = if self.cancelled.remove(&data) { libc::ECANCELED } else { libc::EBADF };
            // Linked requests after a failing one are cancelled before they are tried.
            if entry.result() == -ended_by {
                let is_lost = call == Call::TunRead && errno == libc::EINVAL;
                let errno = if is_lost { lose_frame(fd) } else { errno };
                *entry = with_result(entry, -errno);
            }
        }
    }
}

/// Reads a frame and loses it: EINVAL, or EAGAIN if there is none.
fn lose_frame(fd: RawFd) -> Errno {
    let mut frame = vec![0u8; FRAME_SLOT_LEN];
    // SAFETY: the kernel writes to the frame, which lives until the call returns.
    let length = unsafe { libc::read(fd, frame.as_mut_ptr().cast(), frame.len()) };
    if length < 0 {
        undo(Call::TunRead, libc::EINVAL);
        return libc::EAGAIN;
    }
    libc::EINVAL
}

/// The descriptor of a request.
fn descriptor(entry: &mut squeue::Entry) -> &mut RawFd {
    /// Offset of `fd` in `struct io_uring_sqe` (bytes).
    const FD_AT: usize = 4;
    // SAFETY: the entry is a `struct io_uring_sqe` (`repr(C)`), whose `fd` is an aligned i32.
    unsafe { &mut *(&raw mut *entry).cast::<u8>().add(FD_AT).cast::<RawFd>() }
}

/// The same completion with another result.
fn with_result(entry: &cqueue::Entry, result: i32) -> cqueue::Entry {
    /// Offset of `res` in `struct io_uring_cqe` (bytes).
    const RESULT_AT: usize = 8;
    let mut entry = entry.clone();
    // SAFETY: the entry is a `struct io_uring_cqe` (`repr(C)`), whose `res` is an i32.
    unsafe { (&raw mut entry).cast::<u8>().add(RESULT_AT).cast::<i32>().write(result) };
    entry
}
