//! The options of the workers, and the reasons why they may not start.

use std::io;

use crate::sizes::Sizes;

/// The I/O backend to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the kernel allows it, else epoll and recvmmsg.
    Auto,
    /// io_uring; fail where the kernel refuses it.
    Uring,
    /// epoll and recvmmsg.
    Mmsg,
}

/// The operator's choices.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers, each with a TUN queue; 1 to [`crate::limits::WORKERS_MAX`].
    pub workers: usize,
    /// Pin each worker to a core.
    pub pin: bool,
    /// The backend.
    pub io: IoChoice,
    /// The AEAD implementation.
    pub aead: wg_bounce_aead::Choice,
    /// Send trains (UDP_SEGMENT).
    pub gso: bool,
    /// Receive trains (UDP_GRO).
    pub gro: bool,
    /// Exchange super-packets with the TUN.
    pub tun_offload: bool,
    /// The sizes of each worker's buffers and queues.
    pub sizes: Sizes,
}

/// The reason why the workers could not start.
#[derive(Debug)]
pub enum StartError {
    /// The CPU lacks the instruction set of the requested AEAD implementation.
    AeadUnavailable(wg_bounce_aead::Unavailable),
    /// io_uring was requested and the kernel refuses it.
    UringRefused(io::Error),
    /// Memory, file descriptors or threads are exhausted.
    Resources(io::Error),
}
