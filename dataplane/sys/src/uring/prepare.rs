//! Set-up of a ring: flags, buffers, restrictions, and a probe for multishot receives.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, types};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::provided::Provided;
use super::request::{
    COMPLETIONS, ENTRY_FLAGS, FRAME_GROUP, FRAMES, OPERATIONS, SUBMIT_MAX, TRAIN_GROUP, Tag,
};
use crate::memory;
use crate::message::{CONTROL_LEN, NAME_LEN, TRAIN_SLOT_LEN};
use crate::per_family::Family;
use crate::send_header::empty_header;
use crate::tun::{FRAME_SLOT_LEN, Queue};

/// A ring with its buffers: everything that the kernel may refuse, set up before the ring takes
/// the TUN queue.
pub struct Prepared {
    // Dropped first, as in `Uring`.
    pub(super) ring: IoUring,
    pub(super) trains: Provided,
    pub(super) frames: Provided,
}

impl Prepared {
    /// Sets up the ring, with `buffers` buffers for trains (64 KiB each) and at most as many for
    /// frames, with the best flags that the kernel supports. Must be called on the
    /// worker's own thread, to which the ring then belongs.
    ///
    /// # Errors
    /// EPERM: refused by seccomp or `kernel.io_uring_disabled`. ENOSYS, EINVAL: the kernel is too
    /// old (before 6.0). ENOMEM: RLIMIT_MEMLOCK is too low, or memory is short. EMFILE, ENFILE: too
    /// many open files.
    pub fn new(tun: &Queue, buffers: u16) -> io::Result<Prepared> {
        let mut ring = build_ring()?;
        let trains = Provided::new(&ring, TRAIN_GROUP, memory::slots(buffers, TRAIN_SLOT_LEN)?, 0)?;
        let slots = memory::slots(FRAMES.min(buffers), FRAME_SLOT_LEN)?;
        let frames = Provided::new(&ring, FRAME_GROUP, slots, tun.skipped_len())?;
        enable(&ring)?;
        probe_multishot(&mut ring)?;
        Ok(Prepared { ring, trains, frames })
    }
}

/// Builds the ring with the flags of Linux 6.1; with fewer where the kernel answers EINVAL. It is
/// disabled at first ([`enable`]).
fn build_ring() -> io::Result<IoUring> {
    let entries = (2 * SUBMIT_MAX) as u32;
    let full = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_cqsize(COMPLETIONS)
        .build(entries);
    match full {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            log::info!("io_uring: IORING_SETUP_SINGLE_ISSUER unsupported; continuing without it");
            IoUring::builder()
                .setup_coop_taskrun()
                .setup_r_disabled()
                .setup_cqsize(COMPLETIONS)
                .build(entries)
        }
        result => result,
    }
}

/// Restricts the ring to what this backend does, for good, and enables it. The kernel answers
/// anything else with EACCES, so that a hijacked worker cannot open files or start programs by its
/// ring.
fn enable(ring: &IoUring) -> io::Result<()> {
    /// IORING_REGISTER_SYNC_CANCEL, for the end of the backend.
    const SYNC_CANCEL: u8 = 24;
    let restrict = |operations: &[u8]| {
        let operations = operations.iter().map(|&operation| Restriction::sqe_op(operation));
        let others = [
            Restriction::sqe_flags_allowed(ENTRY_FLAGS.bits()),
            Restriction::register_op(SYNC_CANCEL),
        ];
        let mut all: Vec<_> = operations.chain(others).collect();
        ring.submitter().register_restrictions(&mut all)
    };
    // EINVAL: the kernel does not know the newest operation (READ_MULTISHOT, Linux 6.7).
    let older = OPERATIONS.split_last().map_or(&[][..], |(_, older)| older);
    if let Err(error) = restrict(&OPERATIONS).or_else(|_| restrict(older)) {
        log::info!("io_uring: cannot restrict the ring ({error}); continuing without restrictions");
    }
    ring.submitter().register_enable_rings()
}

/// Fails with EINVAL where the kernel lacks multishot receives (Linux 6.0): it refuses the request
/// at once, a newer kernel waits.
fn probe_multishot(ring: &mut IoUring) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    let header = Box::new(receive_header());
    let fd = types::Fd(socket.as_raw_fd());
    let receive = opcode::RecvMsgMulti::new(fd, &*header, TRAIN_GROUP).build();
    let cancel = opcode::AsyncCancel::new(Tag::Receive(Family::V4).data(0)).build();
    // SAFETY: the header lives until both requests have completed.
    unsafe {
        let mut queue = ring.submission();
        let entries = [
            receive.user_data(Tag::Receive(Family::V4).data(0)),
            cancel.user_data(Tag::Cancel.data(0)),
        ];
        queue.push_multiple(&entries).expect("the queue is empty");
    }
    let mut missing = 2;
    let mut result = Ok(());
    while missing > 0 {
        match ring.submit_and_wait(missing) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        for entry in ring.completion() {
            missing -= 1;
            if entry.user_data() == Tag::Receive(Family::V4).data(0)
                && entry.result() == -libc::EINVAL
            {
                result = Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
        }
    }
    result
}

/// The space that a multishot receive reserves in each buffer for name and control messages.
pub(super) fn receive_header() -> libc::msghdr {
    let mut header = empty_header();
    header.msg_namelen = NAME_LEN as libc::socklen_t;
    header.msg_controllen = CONTROL_LEN as _;
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::squeue;

    /// The result of one request on a ring of its own; `None` where io_uring is not permitted.
    fn result_of(entry: squeue::Entry) -> Option<i32> {
        let mut ring = build_ring().ok()?;
        enable(&ring).expect("a disabled ring can be enabled");
        // SAFETY: the entries of these tests refer to static memory only.
        unsafe { ring.submission().push(&entry) }.expect("the queue is empty");
        ring.submit_and_wait(1).expect("enabled");
        ring.completion().next().map(|completion| completion.result())
    }

    #[test]
    fn a_ring_does_what_the_backend_needs_and_nothing_else() {
        let refused = |result: Option<i32>| {
            assert!(result.is_none_or(|result| result == -libc::EACCES), "{result:?}");
        };
        // It must not find itself.
        let cancel = || opcode::AsyncCancel::new(1).build().user_data(2);
        let done = result_of(cancel().flags(squeue::Flags::IO_LINK));
        assert!(done.is_none_or(|result| result == -libc::ENOENT), "{done:?}");
        refused(result_of(cancel().flags(squeue::Flags::IO_DRAIN)));
        let path = c"/etc/passwd".as_ptr();
        refused(result_of(opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path).build()));
        refused(result_of(opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build()));

        let Ok(ring) = build_ring() else { return };
        enable(&ring).expect("a disabled ring can be enabled");
        let error = ring.submitter().register_files(&[0]).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        let cancelled = ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        let errno = cancelled.err().and_then(|error| error.raw_os_error());
        assert!(matches!(errno, None | Some(libc::ENOENT)), "{errno:?}");
    }
}
