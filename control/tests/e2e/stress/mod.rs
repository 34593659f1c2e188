//! Tests under load and over longer times. `scripts/test` leaves them out; `scripts/stress` runs
//! them, each under load for `WG_BOUNCE_STRESS_SECONDS`.

mod route_churn;

use std::time::Duration;

/// The time that each test loads the machine: `WG_BOUNCE_STRESS_SECONDS`, three seconds by default.
pub fn duration() -> Duration {
    let seconds = std::env::var("WG_BOUNCE_STRESS_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3))
}
