//! Tests under load and over longer times. `scripts/test` leaves them out; `scripts/stress` runs
//! them, each under load for `WG_BOUNCE_STRESS_SECONDS`.

mod edits_in_a_storm;
mod empty_datagrams;
mod floods;
mod handshakes;
mod link;
mod many_peers;
#[cfg(feature = "metrics")]
mod prometheus;
mod queues;
mod refused_offloads;
mod reload;
mod restart;
mod route_churn;
mod routes;
mod rules;
mod scale;
mod soak;
mod storms;

use std::time::Duration;

/// Time under load of each test: `WG_BOUNCE_STRESS_SECONDS`, or three seconds.
pub fn duration() -> Duration {
    let seconds = std::env::var("WG_BOUNCE_STRESS_SECONDS").ok();
    Duration::from_secs(seconds.map_or(3, |text| text.parse().expect("whole seconds")))
}
