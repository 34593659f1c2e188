//! Bounded waits for events.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause between two checks of a condition: short compared with every timeout, and long enough to
/// leave the CPU to the processes under test.
const POLL: Duration = Duration::from_millis(20);

/// Shorthand for a duration in seconds.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The time of a test.
#[expect(clippy::disallowed_methods, reason = "a test's own clock, not protocol time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` holds; panics with `what` if it does not within `limit`.
pub fn eventually(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(within(limit, condition), "timed out after {limit:?} waiting for: {what}");
}

/// Waits until `observe` returns `expected`; panics with `what` and the last value if it does not
/// within `limit`.
#[track_caller]
pub fn becomes<T: PartialEq + Debug>(
    limit: Duration,
    what: &str,
    expected: &T,
    mut observe: impl FnMut() -> T,
) {
    let mut last = None;
    let is_so = within(limit, || last.insert(observe()) == expected);
    assert!(is_so, "after {limit:?}, {what}: {last:?} instead of {expected:?}");
}

/// Waits until `condition` holds; returns whether it did within `limit`.
#[expect(clippy::disallowed_methods, reason = "a test timeout, not protocol time")]
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

/// Checks that `condition` holds throughout `period`; panics with `what` otherwise. For things that
/// must *not* happen and so have no event to wait for.
pub fn holds_for(period: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    assert!(!within(period, || !condition()), "did not hold for {period:?}: {what}");
}
