//! The under-load state, in which initiators must prove their address with a cookie (§5.3).

use wg_bounce_dataplane::limits::REKEY_TIMEOUT;
use wg_bounce_sys::clock::Millis;

use crate::limits::{
    ARRIVAL_WINDOW, HANDSHAKE_MICROS_DEFAULT, HANDSHAKE_MICROS_MAX, HANDSHAKE_MICROS_MIN,
    SOURCE_WORK_MICROS, UNDER_LOAD_ARRIVING_MICROS, UNDER_LOAD_TIME, UNDER_LOAD_WAIT,
    UNDER_LOAD_WORK_MICROS, WAITING_PER_SOURCE_MAX,
};

/// Messages whose CPU time makes half of the average: a single one, with cold caches, takes several
/// times as long as one of many.
const SMOOTHING: u64 = 64;

/// Remembers when the daemon was last under load (kernel: `under_load`, wireguard-go:
/// `IsUnderLoad`), and the CPU time that a message takes. Load is a matter of time, not of numbers:
/// a thousand peers that reconnect at once are served before any of them would retry.
pub(super) struct UnderLoad {
    last: Option<Millis>,
    /// Messages that have arrived since the begin of the window.
    arrived: u64,
    window: Millis,
    /// Average CPU time of a message that costs a DH (microseconds).
    message_micros: u64,
    /// Threads that share the work.
    threads: u64,
}

impl UnderLoad {
    /// Not under load; `threads` share the work.
    pub(super) fn new(threads: usize) -> UnderLoad {
        UnderLoad {
            last: None,
            arrived: 0,
            window: Millis::ZERO,
            message_micros: HANDSHAKE_MICROS_DEFAULT,
            threads: threads.max(1) as u64,
        }
    }

    /// Whether the daemon is under load, given the number of messages that wait, and whether some
    /// found the memory full.
    pub(super) fn sample(&mut self, waiting: usize, is_full: bool, now: Millis) -> bool {
        if is_full || waiting as u64 * self.message_micros > UNDER_LOAD_WORK_MICROS * self.threads {
            self.last = Some(now);
        }
        let window = now.since(self.window);
        if window >= ARRIVAL_WINDOW {
            let micros = self.arrived * self.message_micros * 1000 / window.0;
            // A flood that is answered with cookies leaves little to wait.
            if micros > UNDER_LOAD_ARRIVING_MICROS * self.threads && self.is_load(now) {
                self.last = Some(now);
            }
            (self.arrived, self.window) = (0, now);
        }
        self.is_load(now)
    }

    fn is_load(&self, now: Millis) -> bool {
        self.last.is_some_and(|last| now.since(last) < UNDER_LOAD_TIME)
    }

    /// Notes that a message has arrived, whether it found a place or not.
    pub(super) fn arrived(&mut self) {
        self.arrived += 1;
    }

    /// Notes that a message has waited. A long time is load too: another thread may keep the CPU
    /// busy. Returns whether it is too late to answer it: its sender has sent another one.
    pub(super) fn waited(&mut self, wait: Millis, now: Millis) -> bool {
        if wait > UNDER_LOAD_WAIT {
            self.last = Some(now);
        }
        wait >= REKEY_TIMEOUT
    }

    /// Learns the CPU time that the messages of a turn took (microseconds for all).
    pub(super) fn measured(&mut self, micros: u64, messages: u64) {
        let micros = micros.clamp(HANDSHAKE_MICROS_MIN * messages, HANDSHAKE_MICROS_MAX * messages);
        self.message_micros = (self.message_micros * SMOOTHING + micros) / (SMOOTHING + messages);
    }

    /// Messages of one source that may wait: no single source can put the daemon under load.
    pub(super) fn per_source_max(&self) -> usize {
        let by_time = SOURCE_WORK_MICROS * self.threads / self.message_micros.max(1);
        WAITING_PER_SOURCE_MAX.min(by_time as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_seconds_of_work_are_load() {
        let mut load = UnderLoad::new(1);
        let waiting = (UNDER_LOAD_WORK_MICROS / HANDSHAKE_MICROS_DEFAULT) as usize;
        assert!(!load.sample(waiting, false, Millis(5)));
        assert!(load.sample(waiting + 1, false, Millis(5)));
        let mut load = UnderLoad::new(4);
        assert!(!load.sample(4 * waiting, false, Millis(5)));
        assert!(load.sample(4 * waiting + 1, false, Millis(5)));
    }

    #[test]
    fn no_single_source_is_load() {
        for micros in [0, 50, 300, 1000, 10_000] {
            let mut load = UnderLoad::new(1);
            for _ in 0..1000 {
                load.measured(16 * micros, 16);
            }
            assert!(load.per_source_max() >= 100, "{micros}");
            assert!(!load.sample(2 * load.per_source_max(), false, Millis(5)), "{micros}");
        }
    }

    #[test]
    fn a_single_slow_message_says_nothing_about_many() {
        let mut load = UnderLoad::new(1);
        load.measured(5000, 1);
        assert!(!load.sample(10_000, false, Millis(5)));
    }

    #[test]
    fn a_long_wait_is_load_and_the_longest_in_vain() {
        let mut load = UnderLoad::new(1);
        assert!(!load.waited(UNDER_LOAD_WAIT, Millis(5)) && !load.sample(1, false, Millis(5)));
        let longer = UNDER_LOAD_WAIT + Millis(1);
        assert!(!load.waited(longer, Millis(5)) && load.sample(1, false, Millis(5)));
        assert!(load.waited(REKEY_TIMEOUT, Millis(5)));
    }

    #[test]
    fn full_memory_is_load() {
        assert!(UnderLoad::new(1).sample(1, true, Millis(5)));
    }

    #[test]
    fn a_flood_that_gets_cookies_stays_load() {
        let mut load = UnderLoad::new(1);
        let flood = |load: &mut UnderLoad, millis: std::ops::Range<u64>, per_millisecond| {
            millis.fold(false, |_, now| {
                (0..per_millisecond).for_each(|_| load.arrived());
                load.sample(0, false, Millis(now))
            })
        };
        assert!(!flood(&mut load, 1..3000, 100), "nothing waits");
        assert!(load.sample(20_000, false, Millis(3000)));
        assert!(flood(&mut load, 3000..9000, 100), "what arrives would fill more than a core");
        assert!(!flood(&mut load, 9000..11_500, 1), "it is less than a core now");
    }

    #[test]
    fn load_is_remembered_for_a_second() {
        let mut load = UnderLoad::new(1);
        assert!(load.sample(20_000, false, Millis(100)));
        assert!(load.sample(0, false, Millis(1099)));
        assert!(!load.sample(0, false, Millis(1100)));
    }
}
