//! The ring: arms requests, waits, and takes completions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::sys::eventfd::EventFd;

use super::prepare::{Prepared, receive_header};
use super::provided::Provided;
use super::request::{COMPLETIONS, FRAME_GROUP, SUBMIT_MAX, TRAIN_GROUP, Tag};
use crate::calls;
use crate::io::{Errno, Frame, Ready, Sockets, Train};
use crate::memory::{Buffer, Slot};
use crate::message::{endpoint, read_control};
use crate::per_family::{Family, PerFamily};
use crate::retry::{PAUSE, Retry, time_left};
use crate::send_header::{SendBlock, empty_header};
use crate::tun::Queue;

/// The way frames are read from the TUN.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TunMode {
    /// READ_MULTISHOT into provided buffers (Linux 6.7).
    Multishot,
    /// Poll, then read: on kernels without READ_MULTISHOT.
    Poll,
}

/// The io_uring backend of one worker.
pub struct Uring {
    // Dropped first: closing the ring ends every request before the buffers are freed.
    ring: IoUring,
    trains: Provided,
    frames: Provided,
    pub(super) sockets: Sockets,
    /// Counts socket changes. Completions of an older generation only return their buffers.
    generation: u32,
    pub(super) tun: Queue,
    tun_mode: TunMode,
    /// Whether a multishot read has delivered a frame, so that the kernel supports it.
    is_multishot_proven: bool,
    bell: Arc<EventFd>,
    is_armed: Armed,
    retries: Retries,
    /// The sockets that are watched for room.
    is_watched: PerFamily<bool>,
    reads_frames: bool,
    receive_header: Box<libc::msghdr>,
    /// Headers of the sends of one submission; allocated once, never moved.
    pub(super) send_headers: Box<[libc::msghdr]>,
    pub(super) send_blocks: Box<[SendBlock]>,
    /// Completions taken while waiting for sends, for the next [`Uring::wait`].
    backlog: VecDeque<cqueue::Entry>,
}

// SAFETY: the raw pointers within point to boxed memory that moves along with the backend, and one
// thread at a time uses the ring.
unsafe impl Send for Uring {}

/// The requests that the kernel holds.
#[derive(Default)]
struct Armed {
    receive: PerFamily<bool>,
    /// One-shot polls for room in a socket.
    room: PerFamily<bool>,
    tun: bool,
    bell: bool,
}

/// The requests of [`Armed`] that failed.
#[derive(Default)]
struct Retries {
    receive: PerFamily<Retry>,
    room: PerFamily<Retry>,
    tun: Retry,
    bell: Retry,
}

impl Retries {
    fn all(&mut self) -> [&mut Retry; 6] {
        let Retries { receive, room, tun, bell } = self;
        [&mut receive.v4, &mut receive.v6, &mut room.v4, &mut room.v6, tun, bell]
    }
}

/// Notes in `retry` how a request ended.
fn note(retry: &mut Retry, entry: &cqueue::Entry) {
    if entry.result() < 0 { retry.failed() } else { retry.succeeded() }
}

impl Uring {
    /// Takes the TUN queue and the doorbell; sockets follow by [`Uring::set_sockets`].
    pub fn new(prepared: Prepared, tun: Queue, bell: Arc<EventFd>) -> Uring {
        calls::enlist();
        let Prepared { ring, trains, frames } = prepared;
        Uring {
            ring,
            trains,
            frames,
            sockets: Sockets::default(),
            generation: 0,
            tun,
            tun_mode: TunMode::Multishot,
            is_multishot_proven: false,
            bell,
            is_armed: Armed::default(),
            retries: Retries::default(),
            is_watched: PerFamily::default(),
            reads_frames: true,
            receive_header: Box::new(receive_header()),
            send_headers: vec![empty_header(); SUBMIT_MAX].into(),
            send_blocks: vec![SendBlock::EMPTY; SUBMIT_MAX].into(),
            backlog: VecDeque::with_capacity(COMPLETIONS as usize),
        }
    }

    /// See [`crate::Backend::wait`].
    pub fn wait(&mut self, ready: &mut Ready, is_idle: bool) -> io::Result<()> {
        let limit = time_left(self.retries.all());
        self.arm();
        // Completions that arrived during a send need no further system call.
        let has_some = !self.backlog.is_empty() && self.ring.submission().is_empty();
        if !has_some {
            let must_wait = is_idle && self.backlog.is_empty();
            if must_wait {
                calls::note_idle(self.trains.free(), self.frames.free());
            }
            self.enter(usize::from(must_wait), limit)?;
        }
        while let Some(entry) = self.backlog.pop_front() {
            self.take(&entry, ready)?;
        }
        Ok(())
    }

    /// See [`crate::Backend::release_train`].
    pub fn release_train(&mut self, slot: Slot) {
        self.trains.release(slot);
    }

    /// See [`crate::Backend::release_frame`].
    pub fn release_frame(&mut self, slot: Slot) {
        self.frames.release(slot);
    }

    /// The sockets in use.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// See [`crate::Backend::set_sockets`]. A request holds its socket, and with it the port, so
    /// this waits until the requests have ended: the port is free when control learns of the
    /// change.
    pub fn set_sockets(&mut self, sockets: Sockets) -> io::Result<()> {
        let mut cancels = 0;
        for family in Family::BOTH {
            for (tag, is_armed) in [
                (Tag::Receive(family), *self.is_armed.receive.of(family)),
                (Tag::Room(family), *self.is_armed.room.of(family)),
            ] {
                if is_armed {
                    let cancel = opcode::AsyncCancel::new(tag.data(self.generation));
                    self.push(cancel.build().user_data(Tag::Cancel.data(0)));
                    cancels += 1;
                }
            }
        }
        // ENOENT: the request has ended by itself.
        self.finish(Tag::Cancel, cancels, &mut [0])?;
        self.generation = self.generation.wrapping_add(1);
        let Armed { tun, bell, .. } = self.is_armed;
        self.is_armed = Armed { tun, bell, ..Armed::default() };
        self.retries.receive = PerFamily::default();
        self.retries.room = PerFamily::default();
        self.sockets = sockets;
        Ok(())
    }

    /// See [`crate::Backend::watch_room`].
    pub fn watch_room(&mut self, families: PerFamily<bool>) {
        self.is_watched = families;
    }

    /// See [`crate::Backend::note_room`].
    pub fn note_room(&mut self, family: Family, was_of_use: bool) {
        let retry = self.retries.room.of_mut(family);
        if was_of_use { retry.succeeded() } else { retry.failed() }
    }

    /// See [`crate::Backend::read_frames`].
    pub fn read_frames(&mut self, on: bool) {
        self.reads_frames = on;
    }

    /// Waits until `count` requests with `tag` have completed, so that the kernel no longer refers
    /// to their buffers. Keeps other completions for the next [`Uring::wait`].
    pub(super) fn finish(
        &mut self,
        tag: Tag,
        count: usize,
        outcomes: &mut [Errno],
    ) -> io::Result<()> {
        let mut missing = count;
        while missing > 0 {
            let before = self.backlog.len();
            self.enter(missing, None)?;
            let mut kept = before;
            for next in before..self.backlog.len() {
                let entry = self.backlog[next].clone();
                let (entry_tag, index) = Tag::of(entry.user_data());
                if entry_tag == tag {
                    outcomes[index as usize] = if entry.result() < 0 { -entry.result() } else { 0 };
                    missing -= 1;
                } else {
                    self.backlog.swap(kept, next);
                    kept += 1;
                }
            }
            self.backlog.truncate(kept);
        }
        Ok(())
    }

    /// Submits pushed entries, waits for `want` completions, at most for `limit`, and moves all to
    /// the backlog.
    fn enter(&mut self, want: usize, limit: Option<Duration>) -> io::Result<()> {
        let (mut submits, mut want, mut limit) = (true, want as u32, limit);
        loop {
            // SAFETY: all entries are sound (see `push`).
            let result = unsafe { calls::enter(&mut self.ring, submits, want, limit) };
            let Err(error) = result else { break };
            match error.raw_os_error() {
                Some(libc::EINTR) if limit.is_none() => {} // a signal; try again
                Some(libc::EINTR | libc::ETIME) => break,
                // EBUSY: completions overflowed; taking them makes room. EAGAIN: memory is short;
                // the next call submits the rest. Until then something may complete.
                Some(libc::EBUSY | libc::EAGAIN) if submits && want > 0 => {
                    (submits, want, limit) = (false, 1, Some(PAUSE));
                }
                Some(libc::EBUSY | libc::EAGAIN) => break,
                _ => return Err(error),
            }
        }
        self.backlog.extend(calls::completions(&mut self.ring));
        Ok(())
    }

    pub(super) fn push(&mut self, entry: squeue::Entry) {
        let entry = calls::request(entry);
        loop {
            // SAFETY: memory that the entry points to outlives the request, because multishot
            // requests use buffers and a header that live as long as the ring, and sends and
            // writes complete before their call returns, or are not submitted after an error, which
            // the worker does not survive (see `drop`).
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: submit it.
            let _ = self.ring.submit();
        }
    }

    /// Arms every wanted request that the kernel does not hold and that has buffers. Multishot
    /// requests end on errors, on zero-length datagrams, and when the buffers run out.
    fn arm(&mut self) {
        let header: *const libc::msghdr = &*self.receive_header;
        let receive = |fd| opcode::RecvMsgMulti::new(types::Fd(fd), header, TRAIN_GROUP).build();
        let room = |fd| opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build();
        let (has_trains, has_frames) = (self.trains.has_some(), self.frames.has_some());
        for family in Family::BOTH {
            let Some(fd) = self.sockets.of(family).as_ref().map(AsRawFd::as_raw_fd) else {
                continue;
            };
            let pauses = self.retries.receive.of(family).pauses();
            if has_trains && !self.is_armed.receive.of(family) && !pauses {
                self.push(receive(fd).user_data(Tag::Receive(family).data(self.generation)));
                *self.is_armed.receive.of_mut(family) = true;
            }
            let pauses = self.retries.room.of(family).pauses();
            if *self.is_watched.of(family) && !self.is_armed.room.of(family) && !pauses {
                self.push(room(fd).user_data(Tag::Room(family).data(self.generation)));
                *self.is_armed.room.of_mut(family) = true;
            }
        }
        let pauses = self.retries.tun.pauses();
        if !self.is_armed.tun && self.reads_frames && has_frames && !pauses {
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
        if !self.is_armed.bell && !self.retries.bell.pauses() {
            let fd = types::Fd(self.bell.as_raw_fd());
            let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            self.push(entry.user_data(Tag::Bell.data(0)));
            self.is_armed.bell = true;
        }
    }

    /// Takes one completion.
    fn take(&mut self, entry: &cqueue::Entry, ready: &mut Ready) -> io::Result<()> {
        let (tag, low) = Tag::of(entry.user_data());
        let has_more = cqueue::more(entry.flags());
        match tag {
            Tag::Receive(family) => {
                if low == self.generation {
                    *self.is_armed.receive.of_mut(family) &= has_more;
                    // ENOBUFS of buffers that the worker holds, perhaps from the other socket: it
                    // is busy, and returns them.
                    if entry.result() != -libc::ENOBUFS || !self.trains.are_held() {
                        note(self.retries.receive.of_mut(family), entry);
                    }
                }
                self.take_train(entry, low == self.generation, ready);
                Ok(())
            }
            Tag::Read => {
                self.is_armed.tun = has_more;
                // EINVAL: a frame was consumed.
                if entry.result() != -libc::EINVAL {
                    note(&mut self.retries.tun, entry);
                }
                self.take_frame(entry, ready)
            }
            Tag::Poll => {
                self.is_armed.tun = false;
                let mut slots = self.frames.reclaim();
                if entry.result() < 0 {
                    self.retries.tun.failed();
                }
                let result = self.tun.read_frames(&mut slots, ready, &mut self.retries.tun);
                slots.into_iter().for_each(|slot| self.frames.release(slot));
                result
            }
            Tag::Bell => {
                self.is_armed.bell = has_more;
                note(&mut self.retries.bell, entry);
                let _ = self.bell.read(); // EAGAIN: an earlier read took this ring too
                Ok(())
            }
            Tag::Room(family) => {
                if low == self.generation {
                    *self.is_armed.room.of_mut(family) = false;
                    if entry.result() < 0 {
                        self.retries.room.of_mut(family).failed();
                    }
                }
                *ready.has_room.of_mut(family) = true;
                Ok(())
            }
            Tag::Send | Tag::Write | Tag::Cancel => Ok(()),
        }
    }

    /// Takes a datagram or train: `struct io_uring_recvmsg_out`, name, control, payload.
    fn take_train(&mut self, entry: &cqueue::Entry, is_current: bool, ready: &mut Ready) {
        let Some(id) = cqueue::buffer_select(entry.flags()) else {
            // ENOBUFS: no buffer was left. Others are pending ICMP errors (ECONNREFUSED, ...). The
            // request is armed again before the next wait.
            if entry.result() == -libc::ENOBUFS {
                self.trains.ran_out();
            }
            return;
        };
        let slot = self.trains.take(id);
        match parse_train(slot, entry.result(), &self.receive_header) {
            Ok(train) if is_current => ready.trains.push(train),
            Ok(Train { buffer: Buffer::Slot(slot), .. }) => {
                ready.stale += 1;
                self.trains.release(slot);
            }
            Ok(_) => {}
            Err(slot) => {
                ready.unreadable += 1;
                self.trains.release(slot);
            }
        }
    }

    fn take_frame(&mut self, entry: &cqueue::Entry, ready: &mut Ready) -> io::Result<()> {
        let skipped = self.tun.skipped_len();
        if let Some(id) = cqueue::buffer_select(entry.flags()) {
            let mut slot = self.frames.take(id);
            match usize::try_from(entry.result()) {
                Ok(length) if length > 0 => {
                    slot[..skipped].fill(0);
                    self.is_multishot_proven = true;
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
            // EAGAIN, EINTR, ECANCELED: try again. EIO: the link went down. ENOMEM passes.
            0 | libc::EAGAIN | libc::EINTR | libc::ECANCELED | libc::EIO | libc::ENOMEM => Ok(()),
            // A frame that cannot be read, see `Queue::read_frames`.
            libc::EINVAL if self.is_multishot_proven => {
                ready.unreadable_frames += 1;
                Ok(())
            }
            // No READ_MULTISHOT (before 6.7).
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
    /// Ends every request now. Closing a ring does so later, and until then its requests hold the
    /// port, the device and pointers to the buffers.
    fn drop(&mut self) {
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
        // Requests end and release their files when their task work runs, which is during a wait
        // for a completion. Nothing is submitted: after an error, the queue may hold sends whose
        // memory is gone.
        // SAFETY: no entry is submitted.
        let _ = unsafe { calls::enter(&mut self.ring, false, 1, Some(PAUSE)) };
    }
}

/// The train in a slot; the slot itself if it was truncated or has no sender.
fn parse_train(slot: Slot, result: i32, header: &libc::msghdr) -> Result<Train, Slot> {
    let Ok(filled) = usize::try_from(result) else { return Err(slot) };
    let Ok(out) = types::RecvMsgOut::parse(&slot[..filled], header) else { return Err(slot) };
    if out.is_name_data_truncated() || out.is_payload_truncated() {
        return Err(slot);
    }
    let info = read_control(out.control_data());
    let Some(from) = endpoint(out.name_data(), &info) else { return Err(slot) };
    let length = out.payload_data().len();
    Ok(Train {
        length,
        segment_size: info.segment_size,
        from,
        traffic_class: info.traffic_class,
        buffer: Buffer::Slot(slot),
    })
}
