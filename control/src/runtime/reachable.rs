//! When the state file is written: with the first session, then once a minute as long as peers have
//! sessions, and at the end.

use std::time::Duration;

use wg_bounce_sys::clock::Millis;

use crate::device::Device;
use crate::limits::STATE_INTERVAL;
use crate::state_file::StateWriter;

/// The state file, and when it is due.
pub(super) struct ReachablePeers {
    writer: StateWriter,
    /// The earliest time of the next write.
    next: Millis,
    /// Sessions that had begun when it was last written.
    sessions: u64,
    /// The last one had peers: theirs may have roamed, or end.
    had_peers: bool,
}

impl ReachablePeers {
    /// Nothing is written until there is a session.
    pub(super) fn new(writer: StateWriter, now: Millis) -> ReachablePeers {
        ReachablePeers { writer, next: now, sessions: 0, had_peers: false }
    }

    /// The time at which the file is due though nothing happens; none while no peer has a session.
    pub(super) fn due(&self) -> Option<Millis> {
        self.had_peers.then_some(self.next)
    }

    /// Has the file written if it is due.
    pub(super) fn keep(&mut self, device: &Device, now: Millis, wall: Duration) {
        let counters = device.counters();
        let sessions = counters.sessions_confirmed + counters.sessions_initiated;
        if now < self.next || (sessions == self.sessions && !self.had_peers) {
            return;
        }
        let peers = device.reachable(now);
        (self.next, self.sessions) = (now + STATE_INTERVAL, sessions);
        self.had_peers = !peers.is_empty();
        if self.had_peers {
            self.writer.write(wall, peers);
        }
    }

    /// Writes the file for the last time. An interface that was set down has lost its sessions: the
    /// last file, which expires on its own, is kept then.
    pub(super) fn finish(self, device: &Device, now: Millis, wall: Duration) {
        let peers = device.reachable(now);
        self.writer.finish((!peers.is_empty()).then_some((wall, peers)));
    }
}
