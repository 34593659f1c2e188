//! The clocks. Only `worker` and the control crate's runtime call this.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::clock::Millis;

/// Time since boot, suspended time included, as the kernel module counts session ages; one
/// millisecond ahead, so that it is never [`Millis::ZERO`].
pub fn boot_time() -> Millis {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists since 2.6.39");
    Millis(now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000 + 1)
}

/// Time since the Unix epoch.
pub fn wall_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the real-time clock exists");
    Duration::new(now.tv_sec().max(0) as u64, now.tv_nsec() as u32)
}
