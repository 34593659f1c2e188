//! Inputs and outputs of the backends: trains, frames, sends, writes and their outcomes.

use std::ops::Range;
use std::os::fd::OwnedFd;

use crate::endpoint::Endpoint;
use crate::memory::{Buffer, Slot};
use crate::per_family::PerFamily;

/// The outcome of a send or write: zero, or an errno.
pub type Errno = i32;

/// The outcome of a send that was not tried, because an earlier one of its group was refused.
pub const NOT_TRIED: Errno = libc::ECANCELED;

/// Datagrams of one sender, as one receive returned them.
pub struct Train {
    /// The buffer; the payload starts at [`PAYLOAD_AT`](crate::message::PAYLOAD_AT).
    pub buffer: Buffer,
    /// Bytes of payload.
    pub length: usize,
    /// Bytes of every datagram but the last, which may be shorter; zero: a single datagram.
    pub segment_size: usize,
    /// The sender, and the local address it sent to.
    pub from: Endpoint,
    /// The outer IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
}

/// One read of the TUN: a virtio header of [`HEADER_LEN`](crate::tun::HEADER_LEN) bytes, then an
/// IP packet.
pub struct Frame {
    /// The buffer; the header is at its start.
    pub slot: Slot,
    /// Bytes of header and packet.
    pub length: usize,
}

/// The result of one wait. Its vectors are reused from turn to turn.
#[derive(Default)]
pub struct Ready {
    /// Trains from the UDP sockets.
    pub trains: Vec<Train>,
    /// Frames from the TUN.
    pub frames: Vec<Frame>,
    /// Buffers of datagrams that the kernel truncated or delivered without a sender. The backend
    /// takes them back itself and counts them in `unreadable`.
    pub(crate) rejected: Vec<Slot>,
    /// Number of datagrams that were not readable.
    pub unreadable: u64,
    /// Number of frames that the kernel could not hand over (EINVAL): the read has consumed them.
    pub unreadable_frames: u64,
    /// Number of trains that arrived on sockets that were replaced before the wait.
    pub stale: u64,
    /// The full sockets that have room again
    /// ([`Backend::watch_room`](crate::Backend::watch_room)).
    pub has_room: PerFamily<bool>,
}

/// The fields of the outer IP header that a send sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterHeader {
    /// IPv4 TOS or IPv6 traffic class.
    pub traffic_class: u8,
    /// IPv4 TTL or IPv6 hop limit; zero: the system's default.
    pub hop_limit: u8,
}

/// One send: a datagram, or a train for the kernel to segment.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The destination, and the local address to send from.
    pub to: Endpoint,
    /// The outer IP header.
    pub header: OuterHeader,
    /// Bytes of every datagram but the last; zero: a single datagram.
    pub segment_size: usize,
    /// The pieces that make up the payload, in order.
    pub pieces: Range<usize>,
    /// Sends of one group are adjacent and keep their order: after a refused one, the rest of the
    /// group is not tried.
    pub group: u32,
}

/// One write to the TUN.
#[derive(Clone, Debug)]
pub struct TunWrite {
    /// The queue of the device to write to.
    pub queue: usize,
    /// The pieces that make up the frame (virtio header and packet), in order.
    pub pieces: Range<usize>,
}

/// The sockets of one worker; none for a family that the kernel lacks.
pub type Sockets = PerFamily<Option<OwnedFd>>;

/// The errno of the system call that has just failed.
pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
