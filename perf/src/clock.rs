//! The only clock of the harness.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since an arbitrary moment; never runs backwards (CLOCK_MONOTONIC).
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock").into()
}
