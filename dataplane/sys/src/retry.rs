//! Pauses between tries of what fails again and again, so that an error that lasts does not
//! occupy a CPU.

use std::time::Duration;

use crate::clock;

/// A pause. Tries at that rate cost nothing, and the buffers of sockets and TUN bridge it.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// Failures in a row that begin a pause. The kernel returns a pending error once; it says nothing
/// about the next try.
const FAILURES: u8 = 2;

/// The state of one kind of try. The clock is read only while something fails.
#[derive(Default)]
pub(crate) struct Retry {
    /// In a row.
    failures: u8,
    /// The end of the pause, by [`clock::uptime`].
    until: Option<Duration>,
}

impl Retry {
    /// Whether it must not be tried now.
    pub(crate) fn pauses(&self) -> bool {
        self.until.is_some()
    }

    /// Records a success.
    pub(crate) fn succeeded(&mut self) {
        *self = Retry::default();
    }

    /// Records a failure, after which it could be tried again at once.
    pub(crate) fn failed(&mut self) {
        self.failures = (self.failures + 1).min(FAILURES);
        if self.failures == FAILURES {
            self.until = Some(clock::uptime() + PAUSE);
        }
    }

    fn time_left(&mut self, now: Duration) -> Option<Duration> {
        self.until = self.until.filter(|&until| until > now);
        self.until.map(|until| until - now)
    }
}

/// Ends the pauses that are over. Returns the rest of the shortest other one: the next wait may
/// last as long.
pub(crate) fn time_left<const N: usize>(retries: [&mut Retry; N]) -> Option<Duration> {
    if !retries.iter().any(|retry| retry.pauses()) {
        return None;
    }
    let now = clock::uptime();
    retries.into_iter().filter_map(|retry| retry.time_left(now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_follows_a_second_failure() {
        let (mut retry, mut other) = (Retry::default(), Retry::default());
        assert_eq!(time_left([&mut retry]), None);
        retry.failed();
        retry.succeeded();
        retry.failed();
        assert!(!retry.pauses());
        retry.failed();
        assert!(retry.pauses());
        let until = retry.until.expect("it pauses");
        assert_eq!(retry.time_left(until - PAUSE), Some(PAUSE));
        assert_eq!(other.time_left(until), None);
        assert_eq!(retry.time_left(until), None);
        assert!(!retry.pauses());
        retry.failed();
        assert!(retry.pauses(), "one try between two pauses");
    }
}
