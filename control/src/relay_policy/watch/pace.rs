//! Times to read the rules of nftables: those that change all the time must not keep a CPU busy.

use wg_bounce_sys::clock::Millis;

use crate::limits::{NFTABLES_PAUSE_MAX, NFTABLES_PAUSES};

/// The earliest times of the next readings.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Millis,
    /// Those of the next two that may take long: two may follow each other at once.
    next_long: [Millis; 2],
}

impl Pace {
    /// The earliest time of the next reading. `may_take_long`: all packets are with the kernel
    /// until then.
    pub fn next(&self, may_take_long: bool) -> Millis {
        if may_take_long { self.next_long[0] } else { self.next }
    }

    /// Notes a reading.
    pub fn note(&mut self, start: Millis, end: Millis, may_take_long: bool) {
        let pause = Millis(NFTABLES_PAUSES * end.since(start).0);
        self.next = end + pause.min(NFTABLES_PAUSE_MAX);
        if may_take_long {
            let [_, later] = self.next_long;
            self.next_long = [later, later.max(end) + pause];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_readings_take_a_ninth_of_the_time() {
        let (mut pace, mut now) = (Pace::default(), Millis(1000));
        for _ in 0..100 {
            now = now.max(pace.next(true));
            pace.note(now, now + Millis(2000), true);
            now = now + Millis(2000);
        }
        assert!(now > Millis(1_700_000) && now < Millis(2_000_000), "{now:?}");
        pace.note(now, now + Millis(50), false);
        assert_eq!(pace.next(false), now + Millis(50) + NFTABLES_PAUSE_MAX);
    }
}
