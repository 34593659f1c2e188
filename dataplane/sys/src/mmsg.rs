//! The fallback backend: epoll, recvmmsg, sendmmsg, read, writev.
//!
//! For kernels before 6.0 and where io_uring is refused (container seccomp profiles,
//! `kernel.io_uring_disabled`). Same buffers, same order, same results as `uring`.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::calls;
use crate::io::{Errno, NOT_TRIED, Outgoing, Ready, Sockets, Train, TunWrite, last_errno};
use crate::memory::{self, Buffer, Slot};
use crate::message::{
    CONTROL_LEN, NAME_LEN, OUT_LEN, PAYLOAD_AT, TRAIN_SLOT_LEN, endpoint, read_control,
};
use crate::per_family::{Family, PerFamily};
use crate::retry::{Retry, time_left};
use crate::send_header::{SendBlock, empty_header};
use crate::tun::{FRAME_SLOT_LEN, Queue};

/// Messages of one recvmmsg or sendmmsg call.
const CALL_MAX: usize = 64;
/// Upper limit of frames read from the TUN in one turn, so that UDP is served too.
const FRAMES_MAX: u16 = 32;

const V4: u64 = 0;
const V6: u64 = 1;
const TUN: u64 = 2;
const BELL: u64 = 3;

/// The epoll key of a family's socket.
fn key_of(family: Family) -> u64 {
    match family {
        Family::V4 => V4,
        Family::V6 => V6,
    }
}

/// The epoll backend of one worker.
pub struct Mmsg {
    epoll: Epoll,
    sockets: Sockets,
    tun: Queue,
    bell: Arc<EventFd>,
    trains: Vec<Slot>,
    /// Buffers that one socket may fill in one turn; the rest is left to the other socket.
    share: usize,
    /// Whether the IPv4 and the IPv6 socket are watched for room.
    is_watched: PerFamily<bool>,
    reads_frames: bool,
    /// The events that epoll watches for.
    registered: PerFamily<EpollFlags>,
    tun_registered: EpollFlags,
    receives: PerFamily<Retry>,
    rooms: PerFamily<Retry>,
    tun_reads: Retry,
    frames: Vec<Slot>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    send_blocks: Vec<SendBlock>,
}

// SAFETY: the raw pointers in `headers` and `iovecs` are written before each system call and not
// used between calls.
unsafe impl Send for Mmsg {}

impl Mmsg {
    /// Registers the TUN queue and the doorbell, with `buffers` buffers for trains (64 KiB each)
    /// and at most as many for frames; sockets follow by [`Mmsg::set_sockets`].
    ///
    /// # Errors
    /// EMFILE, ENFILE: too many open files. ENOMEM, ENOSPC: out of memory or epoll watches.
    pub fn new(tun: Queue, bell: Arc<EventFd>, buffers: u16) -> io::Result<Mmsg> {
        calls::enlist();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&tun.fd, EpollEvent::new(EpollFlags::EPOLLIN, TUN))?;
        epoll.add(&*bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let header = libc::mmsghdr { msg_hdr: empty_header(), msg_len: 0 };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Ok(Mmsg {
            epoll,
            sockets: Sockets::default(),
            tun,
            bell,
            trains: memory::slots(buffers, TRAIN_SLOT_LEN)?,
            share: usize::from(buffers).div_ceil(2).min(CALL_MAX),
            frames: memory::slots(FRAMES_MAX.min(buffers), FRAME_SLOT_LEN)?,
            is_watched: PerFamily::default(),
            reads_frames: true,
            registered: PerFamily { v4: EpollFlags::empty(), v6: EpollFlags::empty() },
            tun_registered: EpollFlags::EPOLLIN,
            receives: PerFamily::default(),
            rooms: PerFamily::default(),
            tun_reads: Retry::default(),
            headers: vec![header; CALL_MAX],
            iovecs: vec![iovec; CALL_MAX],
            send_blocks: vec![SendBlock::EMPTY; CALL_MAX],
        })
    }

    /// See [`crate::Backend::wait`].
    pub fn wait(&mut self, ready: &mut Ready, is_idle: bool) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 4];
        if is_idle {
            calls::note_idle(self.trains.len(), self.frames.len());
        }
        let Mmsg { receives, rooms, tun_reads, .. } = self;
        let retries = [&mut receives.v4, &mut receives.v6, &mut rooms.v4, &mut rooms.v6, tun_reads];
        let limit = time_left(retries);
        self.register()?;
        let timeout = match (is_idle, limit) {
            (false, _) => EpollTimeout::ZERO,
            (true, None) => EpollTimeout::NONE,
            // Rounded up to a millisecond.
            (true, Some(limit)) => EpollTimeout::from(limit.as_millis() as u16 + 1),
        };
        let count = match calls::epoll_wait(&self.epoll, &mut events, timeout) {
            Err(nix::Error::EINTR) => 0,
            result => result?,
        };
        for event in &events[..count] {
            match event.data() {
                key @ (V4 | V6) => {
                    let family = if key == V4 { Family::V4 } else { Family::V6 };
                    *ready.has_room.of_mut(family) |= event.events().contains(EpollFlags::EPOLLOUT);
                    receive(
                        self.sockets.of(family),
                        &mut self.trains,
                        self.share,
                        &mut self.headers,
                        &mut self.iovecs,
                        ready,
                        self.receives.of_mut(family),
                    );
                }
                // While paused, only EPOLLERR and EPOLLHUP arrive, which cannot be masked: the
                // device was deleted, and the read reports it.
                TUN => {
                    self.tun.read_frames(&mut self.frames, ready, &mut self.tun_reads)?;
                }
                _ => {
                    let _ = self.bell.read(); // EAGAIN: an earlier read took this ring too
                }
            }
        }
        Ok(())
    }

    /// Makes epoll watch for what is wanted now.
    fn register(&mut self) -> io::Result<()> {
        let flag = |on: bool, flag: EpollFlags| if on { flag } else { EpollFlags::empty() };
        for family in Family::BOTH {
            let Some(socket) = self.sockets.of(family) else { continue };
            let events = flag(!self.receives.of(family).pauses(), EpollFlags::EPOLLIN)
                | flag(
                    *self.is_watched.of(family) && !self.rooms.of(family).pauses(),
                    EpollFlags::EPOLLOUT,
                );
            if *self.registered.of(family) != events {
                self.epoll.modify(socket, &mut EpollEvent::new(events, key_of(family)))?;
                *self.registered.of_mut(family) = events;
            }
        }
        let events = flag(self.reads_frames && !self.tun_reads.pauses(), EpollFlags::EPOLLIN);
        if self.tun_registered != events {
            self.epoll.modify(&self.tun.fd, &mut EpollEvent::new(events, TUN))?;
            self.tun_registered = events;
        }
        Ok(())
    }

    /// See [`crate::Backend::release_train`].
    pub fn release_train(&mut self, slot: Slot) {
        self.trains.push(slot);
    }

    /// See [`crate::Backend::release_frame`].
    pub fn release_frame(&mut self, slot: Slot) {
        self.frames.push(slot);
    }

    /// The sockets in use.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// See [`crate::Backend::set_sockets`].
    pub fn set_sockets(&mut self, sockets: Sockets) -> io::Result<()> {
        for old in [&self.sockets.v4, &self.sockets.v6].into_iter().flatten() {
            self.epoll.delete(old)?;
        }
        for family in Family::BOTH {
            if let Some(socket) = sockets.of(family) {
                self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, key_of(family)))?;
            }
        }
        self.sockets = sockets;
        self.is_watched = PerFamily::default();
        self.receives = PerFamily::default();
        self.rooms = PerFamily::default();
        self.registered = PerFamily { v4: EpollFlags::EPOLLIN, v6: EpollFlags::EPOLLIN };
        Ok(())
    }

    /// See [`crate::Backend::watch_room`].
    pub fn watch_room(&mut self, families: PerFamily<bool>) {
        self.is_watched = families;
    }

    /// See [`crate::Backend::note_room`].
    pub fn note_room(&mut self, family: Family, was_of_use: bool) {
        let retry = self.rooms.of_mut(family);
        if was_of_use { retry.succeeded() } else { retry.failed() }
    }

    /// See [`crate::Backend::read_frames`].
    pub fn read_frames(&mut self, on: bool) {
        self.reads_frames = on;
    }

    /// See [`crate::Backend::send`]. sendmmsg stops at the first refused send: it gets its errno,
    /// and the next call starts after its group, so that each header is filled once.
    pub fn send(
        &mut self,
        outgoing: &[Outgoing],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        while outcomes.len() < outgoing.len() {
            let rest = &outgoing[outcomes.len()..];
            let family = rest[0].to.family();
            let count =
                rest.iter().take(CALL_MAX).take_while(|out| out.to.family() == family).count();
            let Some(socket) = self.sockets.of(family).as_ref().map(AsRawFd::as_raw_fd) else {
                outcomes.extend(std::iter::repeat_n(libc::EAFNOSUPPORT, count));
                continue;
            };
            self.fill(&rest[..count], pieces);
            let mut done = 0;
            while done < count {
                // SAFETY: `fill` has written `count` headers, whose pointers stay valid for the
                // call.
                let sent = unsafe {
                    calls::sendmmsg(
                        socket,
                        self.headers[done..count].as_mut_ptr(),
                        (count - done) as libc::c_uint,
                        libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                    )
                };
                if let Ok(sent) = usize::try_from(sent) {
                    outcomes.extend(std::iter::repeat_n(0, sent));
                    done += sent;
                    continue;
                }
                let errno = last_errno();
                if errno != libc::EINTR {
                    outcomes.push(errno);
                    let (group, later) = (rest[done].group, &rest[done + 1..]);
                    let later = later.iter().take_while(|out| out.group == group).count();
                    outcomes.extend(std::iter::repeat_n(NOT_TRIED, later));
                    done += 1 + later;
                }
            }
        }
        Ok(())
    }

    /// See [`crate::Backend::write`].
    pub fn write(
        &mut self,
        frames: &[TunWrite],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        for frame in frames {
            outcomes.push(self.tun.write_frame(frame.queue, &pieces[frame.pieces.clone()]));
        }
        Ok(())
    }

    /// Fills one header per send.
    fn fill(&mut self, outgoing: &[Outgoing], pieces: &[IoSlice<'_>]) {
        for (index, out) in outgoing.iter().enumerate() {
            let header = &mut self.headers[index].msg_hdr;
            let Outgoing { to, header: outer, segment_size, .. } = out;
            let payload = &pieces[out.pieces.clone()];
            self.send_blocks[index].fill(header, to, *outer, *segment_size, payload);
        }
    }
}

/// Receives from one socket into at most `share` buffers, and notes in `retry` whether that failed.
fn receive(
    socket: &Option<OwnedFd>,
    slots: &mut Vec<Slot>,
    share: usize,
    headers: &mut [libc::mmsghdr],
    iovecs: &mut [libc::iovec],
    ready: &mut Ready,
    retry: &mut Retry,
) {
    let Some(socket) = socket else { return };
    let count = slots.len().min(share);
    let first = slots.len() - count;
    for (index, slot) in slots[first..].iter_mut().enumerate() {
        let base = slot.as_mut_ptr();
        let header = &mut headers[index].msg_hdr;
        // SAFETY: name, control and payload are at these offsets within the slot.
        unsafe {
            header.msg_name = base.add(OUT_LEN).cast();
            header.msg_control = base.add(OUT_LEN + NAME_LEN).cast();
            iovecs[index].iov_base = base.add(PAYLOAD_AT).cast();
        }
        header.msg_namelen = NAME_LEN as libc::socklen_t;
        header.msg_controllen = CONTROL_LEN as _;
        iovecs[index].iov_len = slot.len() - PAYLOAD_AT;
        header.msg_iov = &mut iovecs[index];
        header.msg_iovlen = 1;
        header.msg_flags = 0;
    }
    // SAFETY: the first `count` headers were just filled, and the slots stay ours for the call.
    let received = unsafe {
        calls::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let Ok(received) = usize::try_from(received) else {
        // EAGAIN: nothing has arrived. Any other is a pending ICMP error (ECONNREFUSED,
        // EHOSTUNREACH, ...), which the call has consumed, or ENOMEM, which passes.
        if !matches!(last_errno(), libc::EAGAIN | libc::EINTR) {
            retry.failed();
        }
        return;
    };
    retry.succeeded();
    // In order of arrival: the first message is in slot `first`.
    for (index, slot) in slots.drain(first..first + received).enumerate() {
        let length = headers[index].msg_len as usize;
        match train(slot, &headers[index].msg_hdr, length) {
            Ok(train) => ready.trains.push(train),
            Err(slot) => ready.rejected.push(slot),
        }
    }
    ready.unreadable += ready.rejected.len() as u64;
    slots.append(&mut ready.rejected);
}

/// The train in a slot; the slot itself if it was truncated or has no sender.
fn train(slot: Slot, header: &libc::msghdr, length: usize) -> Result<Train, Slot> {
    let name = &slot[OUT_LEN..OUT_LEN + (header.msg_namelen as usize).min(NAME_LEN)];
    let control_len = header.msg_controllen.min(CONTROL_LEN);
    let info = read_control(&slot[OUT_LEN + NAME_LEN..OUT_LEN + NAME_LEN + control_len]);
    match endpoint(name, &info) {
        Some(from) if header.msg_flags & libc::MSG_TRUNC == 0 => Ok(Train {
            length,
            segment_size: info.segment_size,
            from,
            traffic_class: info.traffic_class,
            buffer: Buffer::Slot(slot),
        }),
        _ => Err(slot),
    }
}
