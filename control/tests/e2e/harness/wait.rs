//! Waiting: always for an event, always bounded.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks at a condition: short beside any bound, long enough to leave the processor
/// to what is waited for.
const POLL: Duration = Duration::from_millis(20);

/// So many seconds.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits until `condition` holds; panics with `what` if it does not within `limit`.
pub fn eventually(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(within(limit, condition), "not within {limit:?}: {what}");
}

/// Tells whether `condition` came to hold within `limit`.
#[expect(clippy::disallowed_methods, reason = "a test's own patience; no protocol time")]
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        sleep(POLL);
    }
}

/// Watches `condition` for all of `period`; panics with `what` as soon as it does not hold.
/// For what must *not* happen: there is no event to wait for.
pub fn holds_for(period: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(!within(period, || !condition()), "within {period:?} it ended: {what}");
}
