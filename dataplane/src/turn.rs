//! One turn of a worker, as the receive and transmit paths see it.

use std::io;
use std::sync::Arc;

use wg_bounce_sys::clock::Millis;
use wg_bounce_sys::{Backend, Errno, Train};

use crate::channels::Channels;
use crate::counters::{Counters, DropReason};
use crate::nesting::Nested;
use crate::path::Path;
use crate::peer::Peer;
use crate::snapshot::Snapshot;
use crate::source_check::SourceCheck;

/// The state that both paths need during one turn.
pub struct Turn<'a> {
    /// The worker's number.
    pub worker: usize,
    /// The time at which the wait returned.
    pub now: Millis,
    /// The configuration that applies to every packet of this turn.
    pub snapshot: &'a Arc<Snapshot>,
    /// The trains that arrived, in whose buffers packets are decrypted and sealed again.
    pub trains: &'a mut [Train],
    /// Sockets and TUN.
    pub io: &'a mut Backend,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// Channels to control and to the other workers.
    pub channels: &'a mut Channels,
    /// Asks whether source addresses still fit.
    pub sources: &'a mut SourceCheck,
}

impl Turn<'_> {
    /// Counts packets from or to `peer` that were dropped.
    pub fn dropped(&self, peer: &Peer, reason: DropReason, count: u64) {
        self.counters.dropped(reason, count);
        peer.counters.dropped(reason, count);
    }

    /// Counts a write of `packets` IP packets to the TUN by its `outcome`.
    ///
    /// Expected errnos: EIO (the link went down meanwhile), EINVAL (the kernel rejects a GSO
    /// write).
    ///
    /// # Errors
    /// EBADFD: the TUN device was deleted.
    pub fn written(&self, packets: u64, outcome: Errno) -> io::Result<()> {
        match outcome {
            0 => {
                self.counters.tun_frames_written.add(1);
                self.counters.tun_packets_written.add(packets);
            }
            libc::EIO => self.counters.dropped(DropReason::InterfaceDown, packets),
            libc::EBADFD => return Err(io::Error::from_raw_os_error(outcome)),
            _ => self.counters.dropped(DropReason::TunRefused, packets),
        }
        Ok(())
    }

    /// Counts `count` packets to `peer` that were dropped because they carry a `message` in a
    /// circle, and logs the first of them with the reason `why`
    /// ([`crate::limits::LOOP_LOG_AFTER`]).
    pub fn dropped_in_circle(&self, peer: &Peer, message: &Nested, why: &str, count: u64) {
        self.dropped(peer, DropReason::RoutingLoop, count);
        if peer.note_loop(self.now) {
            log::warn!("routing loop: messages to {} {why}; dropping", message.to);
        }
    }

    /// Checks the source address of a path, if routes have changed since it was checked last.
    pub fn check_source(&mut self, path: &Path) {
        self.sources.check(path, self.now);
    }

    /// Raises a flag of a peer, and queues a notice for control if none is queued yet.
    pub fn raise(&mut self, peer: &Peer, flag: u32) {
        if peer.raise(flag) {
            self.channels.notice(peer.id);
        }
    }
}
