//! When the state file is written: soon after the first session, then once a minute as long as
//! peers have sessions, and at the end.

use std::time::Duration;

use wg_bounce_sys::clock::Millis;

use crate::device::{Device, Reachable};
use crate::limits::{STATE_DELAY, STATE_INTERVAL};
use crate::state_file::StateWriter;

/// The state file, and when it is due.
pub(super) struct ReachablePeers {
    writer: StateWriter,
    /// The time of the next write; none while no peer has a session.
    due: Option<Millis>,
    /// The earliest time of the next write.
    earliest: Millis,
    /// Sessions that had begun when it was last looked at.
    sessions: u64,
}

impl ReachablePeers {
    /// Nothing is written until there is a session.
    pub(super) fn new(writer: StateWriter) -> ReachablePeers {
        ReachablePeers { writer, due: None, earliest: Millis::ZERO, sessions: 0 }
    }

    /// The time at which [`ReachablePeers::keep`] has something to do.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due
    }

    /// Has the file written if it is due.
    pub(super) fn keep(&mut self, device: &Device, now: Millis, wall: Duration) {
        let counters = device.counters();
        let sessions = counters.sessions_confirmed + counters.sessions_initiated;
        if std::mem::replace(&mut self.sessions, sessions) != sessions {
            self.due.get_or_insert(self.earliest.max(now + STATE_DELAY));
        }
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let peers = device.reachable(now);
        self.earliest = now + STATE_INTERVAL;
        // Theirs may roam, and end.
        self.due = (!peers.is_empty()).then_some(self.earliest);
        if !peers.is_empty() {
            self.writer.write(wall, peers);
        }
    }

    /// Writes the file for the last time. An interface that was set down has lost its sessions: the
    /// last file, whose peers expire on their own, is kept then.
    pub(super) fn finish(self, peers: Vec<Reachable>, wall: Duration) {
        self.writer.finish((!peers.is_empty()).then_some((wall, peers)));
    }
}
