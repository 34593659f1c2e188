//! Signals that end the run, and waits that notice them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::{Failure, while_doing};

/// Pause between two polls. Each poll costs CPU time during a measurement.
const POLL: Duration = Duration::from_millis(50);

/// Whether a signal has asked this process to end. The handlers stay installed: a second signal
/// must not stop the cleanup.
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Set by SIGINT, SIGTERM and SIGHUP.
    pub fn on_signals() -> Result<Interrupt, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .map_err(while_doing("cannot handle signals"))?;
        }
        Ok(Interrupt(flag))
    }

    /// Fails if a signal has arrived.
    pub fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Waits until `condition` holds, a signal arrives, or about `limit` has passed; `what` names
    /// the condition. Counting the pauses is exact enough to give up on a process that hangs.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        for _ in 0..=polls(limit) {
            self.check()?;
            if condition()? {
                return Ok(());
            }
            sleep(POLL);
        }
        Err(Failure::Step(format!("timed out after {} s waiting for: {what}", limit.as_secs())))
    }
}

/// Waits up to about `limit` for `condition`, ignoring signals: for the cleanup.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    (0..=polls(limit)).any(|_| {
        let holds = condition();
        if !holds {
            sleep(POLL);
        }
        holds
    })
}

fn polls(limit: Duration) -> u128 {
    limit.as_millis() / POLL.as_millis()
}
