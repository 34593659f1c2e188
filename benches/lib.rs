//! What the benches beside this file share.
//!
//! `cargo bench -p wg-bounce-benches` runs all of them in a few minutes, `--bench NAME` one. Times
//! are of one core, warm: what one call costs when it is made over and over, which is the least
//! that it costs in the daemon. Options of criterion follow `--`: a part of a name chooses, and
//! `--measurement-time 10` measures longer than we do.

use std::time::Duration;

use criterion::Criterion;

/// Short measurements, so that all benches together end within minutes.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}
