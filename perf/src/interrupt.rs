//! Signals that end the run, and waiting that notices them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, while_doing};

/// Between two looks at a condition. Every look costs CPU beside a measurement that runs.
const POLL: Duration = Duration::from_millis(50);

/// Whether a signal has asked this process to end. The handlers stay: a second signal must not
/// stop the cleaning.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that SIGINT, SIGTERM and SIGHUP set.
    pub fn on_signals() -> Result<Interrupt, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .map_err(while_doing("handling signals"))?;
        }
        Ok(Interrupt(flag))
    }

    /// Fails if a signal has come.
    pub fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Waits until `condition` holds, a signal comes, or about `limit` has passed; `what` says for
    /// what. The limit is patience with something that hangs, so counting the pauses is exact
    /// enough.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        for _ in 0..=looks(limit) {
            self.check()?;
            if condition()? {
                return Ok(());
            }
            sleep(POLL);
        }
        Err(Failure::Step(format!("waited {} s in vain: {what}", limit.as_secs())))
    }
}

/// Waits up to about `limit` for `condition`, whatever signals come: for cleaning up.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..=looks(limit) {
        if condition() {
            return true;
        }
        sleep(POLL);
    }
    false
}

fn looks(limit: Duration) -> u128 {
    limit.as_millis() / POLL.as_millis()
}
