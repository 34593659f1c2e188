//! The two backends behind one interface.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use crate::endpoint::Endpoint;
use crate::io::{Errno, Outgoing, Ready, Sockets, TunWrite};
use crate::memory::{Buffer, Slot};
use crate::per_family::{Family, PerFamily};
use crate::{mmsg, uring};

/// The two ways to do I/O. When a call returns, the kernel no longer refers to memory of the
/// caller.
pub enum Backend {
    /// One io_uring: multishot receives into provided buffers.
    Uring(Box<uring::Uring>),
    /// epoll, recvmmsg, sendmmsg, readv, writev.
    Mmsg(Box<mmsg::Mmsg>),
}

impl Backend {
    /// Takes what has arrived, up to a bound. If `is_idle`, waits for an arrival or the doorbell.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted. Any other error is a broken invariant.
    pub fn wait(&mut self, ready: &mut Ready, is_idle: bool) -> io::Result<()> {
        match self {
            Backend::Uring(io) => io.wait(ready, is_idle),
            Backend::Mmsg(io) => io.wait(ready, is_idle),
        }
    }

    /// Returns the buffer of a train.
    pub fn release_train(&mut self, buffer: Buffer) {
        match (self, buffer) {
            (Backend::Uring(io), Buffer::Slot(slot)) => io.release_train(slot),
            (Backend::Mmsg(io), Buffer::Slot(slot)) => io.release_train(slot),
            (_, Buffer::Heap(_)) => {}
        }
    }

    /// Returns the buffer of a frame.
    pub fn release_frame(&mut self, slot: Slot) {
        match self {
            Backend::Uring(io) => io.release_frame(slot),
            Backend::Mmsg(io) => io.release_frame(slot),
        }
    }

    /// Sends all; `outcomes` gets one errno for each send:
    /// - [`NOT_TRIED`](crate::NOT_TRIED): an earlier send of its group was refused; try again;
    /// - EINTR: a signal; try again;
    /// - EAFNOSUPPORT: no socket of this family;
    /// - those of [`send_one`](crate::socket::send_one).
    ///
    /// # Errors
    /// Only of io_uring_enter(2): a broken invariant.
    pub fn send(
        &mut self,
        outgoing: &[Outgoing],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        outcomes.clear();
        match self {
            Backend::Uring(io) => io.send(outgoing, pieces, outcomes),
            Backend::Mmsg(io) => io.send(outgoing, pieces, outcomes),
        }
    }

    /// Writes frames to the TUN in order; `outcomes` gets one errno for each:
    /// - EIO: the interface is down; the frame is lost;
    /// - EINVAL: the kernel rejects the virtio header; write without GSO;
    /// - EBADFD: the device was deleted.
    ///
    /// # Errors
    /// Only of io_uring_enter(2): a broken invariant.
    pub fn write(
        &mut self,
        frames: &[TunWrite],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        outcomes.clear();
        match self {
            Backend::Uring(io) => io.write(frames, pieces, outcomes),
            Backend::Mmsg(io) => io.write(frames, pieces, outcomes),
        }
    }

    /// Switches to these sockets and closes the old ones.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC: epoll cannot watch another socket. Others are broken invariants.
    pub fn set_sockets(&mut self, sockets: Sockets) -> io::Result<()> {
        match self {
            Backend::Uring(io) => io.set_sockets(sockets),
            Backend::Mmsg(io) => io.set_sockets(sockets),
        }
    }

    /// Selects the families whose writability also wakes the next waits: a full socket wakes them
    /// when half of its buffer is free (`sock_writeable`, include/net/sock.h).
    pub fn watch_room(&mut self, families: PerFamily<bool>) {
        match self {
            Backend::Uring(io) => io.watch_room(families),
            Backend::Mmsg(io) => io.watch_room(families),
        }
    }

    /// Records whether anything could be sent when the socket of this family had room. After the
    /// second time that nothing could, its room does not wake waits for 10 ms: layers below the
    /// socket may answer EAGAIN for reasons of their own.
    pub fn note_room(&mut self, family: Family, was_of_use: bool) {
        match self {
            Backend::Uring(io) => io.note_room(family, was_of_use),
            Backend::Mmsg(io) => io.note_room(family, was_of_use),
        }
    }

    /// Turns reading from the TUN on (the initial state) or off. Frames that were read and not
    /// released stay with the caller.
    pub fn read_frames(&mut self, on: bool) {
        match self {
            Backend::Uring(io) => io.read_frames(on),
            Backend::Mmsg(io) => io.read_frames(on),
        }
    }

    /// The socket for this destination's family, for a single send outside the batch.
    pub fn socket_for(&self, to: &Endpoint) -> Option<&OwnedFd> {
        self.socket_of(to.family())
    }

    /// The socket of this family.
    pub fn socket_of(&self, family: Family) -> Option<&OwnedFd> {
        match self {
            Backend::Uring(io) => io.sockets().of(family).as_ref(),
            Backend::Mmsg(io) => io.sockets().of(family).as_ref(),
        }
    }
}
