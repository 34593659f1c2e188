//! The first backend: one io_uring per worker.
//!
//! Receives and TUN reads are multishot into provided buffers; sends and writes are submitted
//! together and have completed when the call returns. Only the worker's own thread uses the ring.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::sys::eventfd::EventFd;

use super::memory::{Buffer, Slot};
use super::message::{endpoint, read_control};
use super::mmsg::read_frames;
use super::tun::{HEADER_LEN, Queue};
use super::{Errno, Frame, Ready, Sockets, Train};
use provided::Provided;

mod prepare;
mod provided;
mod submit;

pub use prepare::Prepared;
use prepare::receive_header;
use submit::SendBlocks;

/// Submission entries: sends of one call, or writes of one call.
const SUBMIT_MAX: usize = 128;
/// Completion entries: everything that can be outstanding, with room for a burst.
const COMPLETIONS: u32 = 4096;
/// Frame buffers; each holds a super-packet.
const FRAMES: u16 = 32;
/// Buffer groups of the ring.
const TRAIN_GROUP: u16 = 0;
const FRAME_GROUP: u16 = 1;

/// What a completion belongs to; the low bits of `user_data` hold an index or a generation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    V4,
    V6,
    Read,
    Poll,
    Bell,
    Send,
    Write,
    Cancel,
    RoomV4,
    RoomV6,
}

impl Tag {
    const ALL: [Tag; 10] = [
        Tag::V4,
        Tag::V6,
        Tag::Read,
        Tag::Poll,
        Tag::Bell,
        Tag::Send,
        Tag::Write,
        Tag::Cancel,
        Tag::RoomV4,
        Tag::RoomV6,
    ];

    fn data(self, low: u32) -> u64 {
        (self as u64) << 32 | u64::from(low)
    }

    fn of(data: u64) -> (Tag, u32) {
        (Tag::ALL[(data >> 32) as usize], data as u32)
    }
}

/// How frames are read from the TUN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TunMode {
    /// READ_MULTISHOT into provided buffers (Linux 6.7).
    Multishot,
    /// Poll, then read: where multishot reads are missing.
    Poll,
}

/// The io_uring backend of one worker.
pub struct Uring {
    // Dropped first: closing the ring ends every request before the buffers go.
    ring: IoUring,
    trains: Provided,
    frames: Provided,
    sockets: Sockets,
    /// Counts socket changes: completions of an older generation only return their buffers.
    generation: u32,
    tun: Queue,
    tun_mode: TunMode,
    bell: Arc<EventFd>,
    is_armed: Armed,
    /// Which sockets are watched for room, IPv4 and IPv6.
    is_watched: (bool, bool),
    reads_frames: bool,
    receive_header: Box<libc::msghdr>,
    send: SendBlocks,
    /// Completions taken while waiting for sends.
    backlog: VecDeque<cqueue::Entry>,
}

// SAFETY: the raw pointers within are to boxed memory that moves along with the backend; the
// ring is used by one thread at a time.
unsafe impl Send for Uring {}

/// Which multishot requests are in the kernel.
#[derive(Default)]
struct Armed {
    v4: bool,
    v6: bool,
    tun: bool,
    bell: bool,
    /// One-shot polls for room in the sockets.
    room_v4: bool,
    room_v6: bool,
}

impl Uring {
    /// Serves a TUN queue and a doorbell; sockets come later.
    pub fn new(prepared: Prepared, tun: Queue, bell: Arc<EventFd>) -> Uring {
        let Prepared { ring, trains, frames } = prepared;
        Uring {
            ring,
            trains,
            frames,
            sockets: Sockets::default(),
            generation: 0,
            tun,
            tun_mode: TunMode::Multishot,
            bell,
            is_armed: Armed::default(),
            is_watched: (false, false),
            reads_frames: true,
            receive_header: Box::new(receive_header()),
            send: SendBlocks::new(),
            backlog: VecDeque::with_capacity(COMPLETIONS as usize),
        }
    }

    /// See [`super::Backend::wait`].
    pub fn wait(&mut self, ready: &mut Ready, is_idle: bool) -> io::Result<()> {
        self.arm();
        // What came while sends were waited for is taken without another system call.
        let has_some = !self.backlog.is_empty() && self.ring.submission().is_empty();
        if !has_some {
            self.enter(usize::from(is_idle && self.backlog.is_empty()))?;
        }
        while let Some(entry) = self.backlog.pop_front() {
            self.take(&entry, ready)?;
        }
        Ok(())
    }

    /// See [`super::Backend::release_train`].
    pub fn release_train(&mut self, slot: Slot) {
        self.trains.release(slot);
    }

    /// See [`super::Backend::release_frame`].
    pub fn release_frame(&mut self, slot: Slot) {
        self.frames.release(slot);
    }

    /// The sockets in use.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// See [`super::Backend::set_sockets`]. A request holds its socket, and with it the
    /// port: its end is waited for, so that the port is free when control hears of the change.
    pub fn set_sockets(&mut self, v4: Option<OwnedFd>, v6: Option<OwnedFd>) -> io::Result<()> {
        let mut cancels = 0;
        for (tag, armed) in [
            (Tag::V4, self.is_armed.v4),
            (Tag::V6, self.is_armed.v6),
            (Tag::RoomV4, self.is_armed.room_v4),
            (Tag::RoomV6, self.is_armed.room_v6),
        ] {
            if armed {
                let cancel = opcode::AsyncCancel::new(tag.data(self.generation));
                self.push(cancel.build().user_data(Tag::Cancel.data(0)));
                cancels += 1;
            }
        }
        // ENOENT: it ended by itself.
        self.finish(Tag::Cancel, cancels, &mut [0])?;
        self.generation = self.generation.wrapping_add(1);
        let Armed { tun, bell, .. } = self.is_armed;
        self.is_armed = Armed { tun, bell, ..Armed::default() };
        self.sockets = Sockets { v4, v6 };
        Ok(())
    }

    /// See [`super::Backend::watch_room`].
    pub fn watch_room(&mut self, v4: bool, v6: bool) {
        self.is_watched = (v4, v6);
    }

    /// See [`super::Backend::read_frames`].
    pub fn read_frames(&mut self, on: bool) {
        self.reads_frames = on;
    }

    /// Waits until `count` requests with `tag` have completed: then the kernel refers to none of
    /// their buffers. What else completes meanwhile is kept for the next [`Uring::wait`].
    fn finish(&mut self, tag: Tag, count: usize, outcomes: &mut [Errno]) -> io::Result<()> {
        let mut missing = count;
        while missing > 0 {
            let before = self.backlog.len();
            self.enter(missing)?;
            let mut kept = before;
            for at in before..self.backlog.len() {
                let entry = self.backlog[at].clone();
                let (entry_tag, index) = Tag::of(entry.user_data());
                if entry_tag == tag {
                    outcomes[index as usize] = if entry.result() < 0 { -entry.result() } else { 0 };
                    missing -= 1;
                } else {
                    self.backlog.swap(kept, at);
                    kept += 1;
                }
            }
            self.backlog.truncate(kept);
        }
        Ok(())
    }

    /// Submits what was pushed, waits for `want` completions, and takes all into the backlog.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        /// IORING_ENTER_GETEVENTS: without it the kernel defers its own part of the work.
        const GET_EVENTS: u32 = 1;
        // EBUSY: completions overflowed, taking them makes room. EAGAIN: the kernel is short of
        // memory for a moment. ETIME cannot come without a timeout.
        loop {
            let pushed = self.ring.submission().len() as u32;
            // SAFETY: there is no argument; what was pushed is sound, see `push`.
            let result = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(pushed, want as u32, GET_EVENTS, None)
            };
            match result {
                Ok(_) => break,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EBUSY | libc::EAGAIN) => break,
                    _ => return Err(error),
                },
            }
        }
        self.backlog.extend(self.ring.completion());
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: what the entry points to outlives the request: multishot requests use
            // buffers and a header that live as long as the ring, and sends and writes are waited
            // for before their call returns.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it to the kernel.
            let _ = self.ring.submit();
        }
    }

    /// Arms every request that is wanted, is not in the kernel, and has buffers. Multishot ones end
    /// on errors, on zero-length datagrams, and when the buffers run out.
    fn arm(&mut self) {
        let header: *const libc::msghdr = &*self.receive_header;
        let Sockets { v4, v6 } = &self.sockets;
        let (v4, v6) = (v4.as_ref().map(AsRawFd::as_raw_fd), v6.as_ref().map(AsRawFd::as_raw_fd));
        let (watches_v4, watches_v6) = self.is_watched;
        let receive = |fd| opcode::RecvMsgMulti::new(types::Fd(fd), header, TRAIN_GROUP).build();
        let room = |fd| opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        let (has_trains, has_frames) = (self.trains.has_some(), self.frames.has_some());
        if let Some(fd) = v4.filter(|_| !self.is_armed.v4 && has_trains) {
            self.push(receive(fd).user_data(Tag::V4.data(self.generation)));
            self.is_armed.v4 = true;
        }
        if let Some(fd) = v6.filter(|_| !self.is_armed.v6 && has_trains) {
            self.push(receive(fd).user_data(Tag::V6.data(self.generation)));
            self.is_armed.v6 = true;
        }
        if let Some(fd) = v4.filter(|_| watches_v4 && !self.is_armed.room_v4) {
            self.push(room(fd).user_data(Tag::RoomV4.data(self.generation)));
            self.is_armed.room_v4 = true;
        }
        if let Some(fd) = v6.filter(|_| watches_v6 && !self.is_armed.room_v6) {
            self.push(room(fd).user_data(Tag::RoomV6.data(self.generation)));
            self.is_armed.room_v6 = true;
        }
        if !self.is_armed.tun && self.reads_frames && has_frames {
            let fd = types::Fd(self.tun.fd.as_raw_fd());
            let entry = match self.tun_mode {
                TunMode::Multishot => {
                    opcode::ReadMulti::new(fd, 0, FRAME_GROUP).build().user_data(Tag::Read.data(0))
                }
                TunMode::Poll => opcode::PollAdd::new(fd, libc::POLLIN as u32)
                    .build()
                    .user_data(Tag::Poll.data(0)),
            };
            self.push(entry);
            self.is_armed.tun = true;
        }
        if !self.is_armed.bell {
            let fd = types::Fd(self.bell.as_raw_fd());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            self.push(entry.user_data(Tag::Bell.data(0)));
            self.is_armed.bell = true;
        }
    }

    /// Sorts one completion.
    fn take(&mut self, entry: &cqueue::Entry, ready: &mut Ready) -> io::Result<()> {
        let (tag, low) = Tag::of(entry.user_data());
        let has_more = cqueue::more(entry.flags());
        match tag {
            Tag::V4 | Tag::V6 => {
                if low == self.generation && !has_more {
                    match tag {
                        Tag::V4 => self.is_armed.v4 = false,
                        _ => self.is_armed.v6 = false,
                    }
                }
                self.take_train(entry, low == self.generation, ready);
                Ok(())
            }
            Tag::Read => {
                self.is_armed.tun = has_more;
                self.take_frame(entry, ready)
            }
            Tag::Poll => {
                self.is_armed.tun = false;
                let mut slots = self.frames.reclaim();
                let result = read_frames(&self.tun, &mut slots, ready);
                slots.into_iter().for_each(|slot| self.frames.release(slot));
                result
            }
            Tag::Bell => {
                self.is_armed.bell = has_more;
                let _ = self.bell.read(); // EAGAIN: one reading serves several rings
                Ok(())
            }
            Tag::RoomV4 | Tag::RoomV6 => {
                if low == self.generation {
                    match tag {
                        Tag::RoomV4 => self.is_armed.room_v4 = false,
                        _ => self.is_armed.room_v6 = false,
                    }
                }
                ready.has_room = true;
                Ok(())
            }
            Tag::Send | Tag::Write | Tag::Cancel => Ok(()),
        }
    }

    /// A datagram or train: `struct io_uring_recvmsg_out`, name, control, payload.
    fn take_train(&mut self, entry: &cqueue::Entry, is_current: bool, ready: &mut Ready) {
        let Some(id) = cqueue::buffer_select(entry.flags()) else {
            // ENOBUFS, or a pending ICMP error: armed again before the next wait.
            if entry.result() == -libc::ENOBUFS {
                self.trains.ran_out();
            }
            return;
        };
        let slot = self.trains.take(id);
        match parse_train(slot, entry.result(), &self.receive_header) {
            Ok(train) if is_current => ready.trains.push(train),
            Ok(Train { buffer: Buffer::Slot(slot), .. }) => self.trains.release(slot),
            Ok(_) => {}
            Err(slot) => {
                ready.unreadable += 1;
                self.trains.release(slot);
            }
        }
    }

    fn take_frame(&mut self, entry: &cqueue::Entry, ready: &mut Ready) -> io::Result<()> {
        let skipped = if self.tun.has_header { 0 } else { HEADER_LEN };
        if let Some(id) = cqueue::buffer_select(entry.flags()) {
            let mut slot = self.frames.take(id);
            match usize::try_from(entry.result()) {
                Ok(length) if length > 0 => {
                    slot[..skipped].fill(0);
                    ready.frames.push(Frame { slot, length: skipped + length });
                }
                _ => self.frames.release(slot),
            }
            return Ok(());
        }
        match -entry.result() {
            libc::ENOBUFS => {
                self.frames.ran_out();
                Ok(())
            }
            // EAGAIN, EINTR, ECANCELED: try again. EIO: the link went down meanwhile.
            0 | libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::EIO => Ok(()),
            // EINVAL: no READ_MULTISHOT (before 6.7). EBADFD means "deleted", but also comes for
            // a file that cannot be polled; the poll tells the two apart.
            libc::EINVAL if self.tun_mode == TunMode::Multishot => {
                log::info!("{}: multishot read unsupported; polling the TUN", self.tun.name());
                self.tun_mode = TunMode::Poll;
                Ok(())
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Drop for Uring {
    /// Ends every request now: closing a ring does so at some later time, and until then its
    /// requests hold the port and the device, and know where the buffers were.
    fn drop(&mut self) {
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        // The requests end, and let go of their files, when their task work runs: while waiting
        // for a completion. A request of no effect makes sure that there is one.
        self.push(opcode::Nop::new().build().user_data(Tag::Cancel.data(0)));
        let _ = self.enter(1);
    }
}

fn parse_train(slot: Slot, result: i32, header: &libc::msghdr) -> Result<Train, Slot> {
    let Ok(filled) = usize::try_from(result) else { return Err(slot) };
    let Ok(out) = types::RecvMsgOut::parse(&slot[..filled], header) else { return Err(slot) };
    if out.is_name_data_truncated() || out.is_payload_truncated() {
        return Err(slot);
    }
    let told = read_control(out.control_data());
    let Some(from) = endpoint(out.name_data(), &told) else { return Err(slot) };
    let length = out.payload_data().len();
    Ok(Train {
        length,
        segment: told.segment,
        from,
        traffic_class: told.traffic_class,
        buffer: Buffer::Slot(slot),
    })
}
