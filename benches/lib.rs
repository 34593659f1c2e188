//! Configuration shared by the benches in this folder.
//!
//! `cargo bench -p wg-bounce-benches` runs all of them in a few minutes, `--bench NAME` a single
//! one. Times are for one core with warm caches, so a call in the daemon costs at least as much.
//! Options for criterion follow `--`: part of a name selects benches, `--measurement-time 10`
//! measures longer.

use std::time::Duration;

use criterion::Criterion;

/// Criterion with short measurements, so that all benches finish within minutes.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}
