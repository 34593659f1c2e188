//! The pace of handshakes that one change begins for many peers.

use wg_bounce_sys::clock::Millis;

use crate::limits::BEGUN_PER_MILLI;

/// The times at which handshakes begin that one change calls for: spread, so that the hub neither
/// floods its uplink nor keeps a core busy.
pub(super) struct Spread {
    start: Millis,
    begun: u64,
}

impl Spread {
    /// From `now` on.
    pub(super) fn new(now: Millis) -> Spread {
        Spread { start: now, begun: 0 }
    }

    /// The time of the next one.
    pub(super) fn next(&mut self) -> Millis {
        self.begun += 1;
        self.start + Millis((self.begun - 1) / BEGUN_PER_MILLI)
    }
}
