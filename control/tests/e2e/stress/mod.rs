//! Tests under load and over longer times. `scripts/test` leaves them out; `scripts/stress` runs
//! them, each under load for `WG_BOUNCE_STRESS_SECONDS`.
