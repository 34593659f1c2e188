//! Times to read the rules of nftables: those that change all the time must not keep a CPU busy.

use wg_bounce_sys::clock::Millis;

use crate::limits::{NFTABLES_LONG_PAUSE_MAX, NFTABLES_PAUSE_MAX, NFTABLES_PAUSES};

/// The earliest times of the next readings.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Millis,
    /// The earliest time of the next one that may take long.
    next_long: Millis,
}

impl Pace {
    /// The earliest time of the next reading. `may_take_long`: all packets are with the kernel
    /// until then.
    pub fn next(&self, may_take_long: bool) -> Millis {
        if may_take_long { self.next_long } else { self.next }
    }

    /// Notes a reading.
    pub fn note(&mut self, start: Millis, end: Millis) {
        let pause = Millis(NFTABLES_PAUSES * end.since(start).0);
        self.next = end + pause.min(NFTABLES_PAUSE_MAX);
        self.next_long = end + pause.min(NFTABLES_LONG_PAUSE_MAX);
    }
}
