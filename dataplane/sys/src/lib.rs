//! The system calls of the packet path, and (beside the AEAD's key and kernels) its only `unsafe`.
//!
//! `uring` and `mmsg` are two backends with one interface ([`Backend`]): wait for what arrived,
//! send trains, write frames. Buffers are handed over as [`memory::Slot`]s, each of which has one
//! owner: the kernel while it is offered, the worker afterwards.

pub mod bpf;
pub mod clock;
pub mod inherit;
pub mod memory;
pub mod message;
pub mod mmsg;
pub mod netlink;
pub mod per_family;
pub mod route;
pub mod socket;
pub mod tun;
pub mod uring;
pub mod xtables;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;

use memory::{Buffer, Slot};

pub use per_family::{Family, PerFamily};

/// The two ends of a UDP path: the remote address, and the local one that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The remote address and port (with a scope for link-local IPv6).
    pub remote: SocketAddr,
    /// The local address that the remote end sent to: replies leave from it while it exists.
    pub source: Option<IpAddr>,
}

/// Datagrams of one sender, as one receive returned them.
pub struct Train {
    /// The buffer; the payload stands at [`message::PAYLOAD_AT`].
    pub buffer: Buffer,
    /// Bytes of payload.
    pub length: usize,
    /// Bytes of every datagram but the last, which may be shorter; zero: one datagram alone.
    pub segment: usize,
    /// Who sent it, and to which of our addresses.
    pub from: Endpoint,
    /// The outer IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
}

/// One read of the TUN: a virtio header of [`tun::HEADER_LEN`] bytes, then an IP packet.
pub struct Frame {
    /// The buffer; the header stands at its beginning.
    pub slot: Slot,
    /// Bytes of header and packet.
    pub length: usize,
}

/// What one wait returned; its vectors keep their room from turn to turn.
#[derive(Default)]
pub struct Ready {
    /// From the UDP sockets.
    pub trains: Vec<Train>,
    /// From the TUN.
    pub frames: Vec<Frame>,
    /// Buffers of datagrams that the kernel truncated, or whose sender it did not tell: the
    /// backend takes them back by itself and counts them in `unreadable`.
    rejected: Vec<Slot>,
    /// How many datagrams were not readable.
    pub unreadable: u64,
    /// A socket that was full has room again ([`Backend::watch_room`]).
    pub has_room: bool,
}

/// One send: a datagram, or a train for the kernel to cut.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to, and from which of our addresses.
    pub to: Endpoint,
    /// The outer IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
    /// Bytes of every datagram but the last; zero: one datagram alone.
    pub segment: usize,
    /// Which of the pieces, one after the other, are its payload.
    pub pieces: Range<usize>,
    /// Sends of one group stand side by side and keep their order: once one is refused, those
    /// behind it are not tried.
    pub group: u32,
}

/// The outcome of a send that was not tried, because one before it in its group was refused.
pub const NOT_TRIED: Errno = libc::ECANCELED;

/// One write to the TUN.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Which of the device's queues to write to.
    pub queue: usize,
    /// Which of the pieces, one after the other, are the frame: virtio header and packet.
    pub pieces: Range<usize>,
}

/// How a send or write ended: zero, or an errno.
pub type Errno = i32;

/// The two ways to do I/O. Every call returns only when the kernel refers to no memory of the
/// caller any more.
pub enum Backend {
    /// One io_uring: multishot receives into provided buffers.
    Uring(Box<uring::Uring>),
    /// epoll, recvmmsg, sendmmsg, readv, writev.
    Mmsg(Box<mmsg::Mmsg>),
}

impl Backend {
    /// Takes what has arrived, up to a bound; if `is_idle`, waits until anything has or the
    /// doorbell rings.
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted. Any other error is a broken invariant.
    pub fn wait(&mut self, ready: &mut Ready, is_idle: bool) -> io::Result<()> {
        match self {
            Backend::Uring(io) => io.wait(ready, is_idle),
            Backend::Mmsg(io) => io.wait(ready, is_idle),
        }
    }

    /// Gives the buffer of a train back.
    pub fn release_train(&mut self, buffer: Buffer) {
        match (self, buffer) {
            (Backend::Uring(io), Buffer::Slot(slot)) => io.release_train(slot),
            (Backend::Mmsg(io), Buffer::Slot(slot)) => io.release_train(slot),
            (_, Buffer::Heap(_)) => {}
        }
    }

    /// Gives the buffer of a frame back.
    pub fn release_frame(&mut self, slot: Slot) {
        match self {
            Backend::Uring(io) => io.release_frame(slot),
            Backend::Mmsg(io) => io.release_frame(slot),
        }
    }

    /// Sends; `outcomes` gets one errno for each, [`NOT_TRIED`] for those behind a refused one of
    /// their group.
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

    /// Writes frames to the TUN in order; `outcomes` gets one errno for each.
    pub fn write(
        &mut self,
        frames: &[Delivery],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        outcomes.clear();
        match self {
            Backend::Uring(io) => io.write(frames, pieces, outcomes),
            Backend::Mmsg(io) => io.write(frames, pieces, outcomes),
        }
    }

    /// Receives on these sockets from now on and closes the old ones.
    pub fn set_sockets(&mut self, v4: Option<OwnedFd>, v6: Option<OwnedFd>) -> io::Result<()> {
        match self {
            Backend::Uring(io) => io.set_sockets(v4, v6),
            Backend::Mmsg(io) => io.set_sockets(v4, v6),
        }
    }

    /// Says for which families the next waits shall also end when a full socket has room again
    /// (half of its buffer; `sock_writeable`, include/net/sock.h).
    pub fn watch_room(&mut self, v4: bool, v6: bool) -> io::Result<()> {
        match self {
            Backend::Uring(io) => {
                io.watch_room(v4, v6);
                Ok(())
            }
            Backend::Mmsg(io) => io.watch_room(v4, v6),
        }
    }

    /// Whether frames are read from the TUN at all; they are until told otherwise. What was read
    /// and not released stays with the caller.
    pub fn read_frames(&mut self, on: bool) -> io::Result<()> {
        match self {
            Backend::Uring(io) => {
                io.read_frames(on);
                Ok(())
            }
            Backend::Mmsg(io) => io.read_frames(on),
        }
    }

    /// The socket for this destination's family, for a single send outside the batch.
    pub fn socket_for(&self, to: &Endpoint) -> Option<&OwnedFd> {
        match self {
            Backend::Uring(io) => io.sockets().of(to),
            Backend::Mmsg(io) => io.sockets().of(to),
        }
    }
}

/// The two sockets of one worker.
#[derive(Default)]
pub struct Sockets {
    /// IPv4.
    pub v4: Option<OwnedFd>,
    /// IPv6 only.
    pub v6: Option<OwnedFd>,
}

impl Sockets {
    /// The socket for this destination's family.
    pub fn of(&self, to: &Endpoint) -> Option<&OwnedFd> {
        if to.remote.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}
