//! Tests under load and over longer times. `scripts/test` leaves them out; `scripts/stress` runs
//! them, each under load for `WG_BOUNCE_STRESS_SECONDS`.

mod queues;

use std::time::Duration;

/// Time that each test keeps up its load: `WG_BOUNCE_STRESS_SECONDS` (3 seconds otherwise).
pub fn duration() -> Duration {
    let seconds = std::env::var("WG_BOUNCE_STRESS_SECONDS").ok();
    Duration::from_secs(seconds.map_or(3, |text| text.parse().expect("a number of seconds")))
}
