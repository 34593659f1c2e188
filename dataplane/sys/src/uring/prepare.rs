//! Set-up of a ring: flags, buffers, and a probe for multishot receives.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::provided::Provided;
use super::request::{COMPLETIONS, FRAME_GROUP, FRAMES, SUBMIT_MAX, TRAIN_GROUP, Tag};
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
    /// Sets up the ring with the best flags that the kernel supports. Must be called on the
    /// worker's own thread, to which the ring then belongs.
    ///
    /// # Errors
    /// EPERM: refused by seccomp or `kernel.io_uring_disabled`. ENOSYS, EINVAL: the kernel is too
    /// old (before 6.0). ENOMEM: RLIMIT_MEMLOCK is too low, or memory is short. EMFILE, ENFILE: too
    /// many open files.
    pub fn new(tun: &Queue, buffers: u16) -> io::Result<Prepared> {
        let mut ring = build_ring()?;
        let trains = Provided::new(&ring, TRAIN_GROUP, memory::slots(buffers, TRAIN_SLOT_LEN)?, 0)?;
        probe_multishot(&mut ring)?;
        let slots = memory::slots(FRAMES, FRAME_SLOT_LEN)?;
        let frames = Provided::new(&ring, FRAME_GROUP, slots, tun.skipped_len())?;
        Ok(Prepared { ring, trains, frames })
    }
}

/// Builds the ring with the flags of Linux 6.1; with fewer where the kernel answers EINVAL.
fn build_ring() -> io::Result<IoUring> {
    let entries = (2 * SUBMIT_MAX) as u32;
    let full = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .build(entries);
    match full {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            log::info!("io_uring: IORING_SETUP_SINGLE_ISSUER unsupported; continuing without it");
            IoUring::builder().setup_coop_taskrun().setup_cqsize(COMPLETIONS).build(entries)
        }
        result => result,
    }
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
