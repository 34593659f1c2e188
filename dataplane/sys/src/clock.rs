//! The clocks, and the unit of time. Only the packet path's `worker` and the control crate's
//! `runtime` read a clock; elsewhere time is an argument.

use std::ops::{Add, Sub};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point in time or a span, in milliseconds. [`boot_time`] is never zero, so zero can mean
/// "never" in the atomics of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The empty span; as a point in time: never.
    pub const ZERO: Millis = Millis(0);

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Millis {
        Millis(seconds * 1000)
    }

    /// The span from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Millis;
    fn add(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }
}

impl Sub for Millis {
    type Output = Millis;
    fn sub(self, span: Millis) -> Millis {
        Millis(self.0.saturating_sub(span.0))
    }
}

/// Time since boot, suspended time included, as the kernel module counts session ages. One
/// millisecond is added, so that it is never [`Millis::ZERO`].
pub fn boot_time() -> Millis {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists since 2.6.39");
    Millis(now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000 + 1)
}

/// CPU time of the calling thread in microseconds, to measure work: unlike a wall clock it stands
/// still while other threads have the core.
pub fn thread_micros() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("exists since 2.6.12");
    now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
}

/// Time since boot, suspended time excluded, for intervals shorter than a millisecond.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the monotonic clock exists");
    Duration::new(now.tv_sec() as u64, now.tv_nsec() as u32)
}

/// Time since the Unix epoch.
pub fn wall_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the real-time clock exists");
    Duration::new(now.tv_sec().max(0) as u64, now.tv_nsec() as u32)
}
