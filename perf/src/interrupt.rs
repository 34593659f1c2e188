//! Signals that end the run, and waits that notice them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::clock;
use crate::failure::{Failure, while_doing};

/// Usual pause between two polls. Each poll costs CPU time during a measurement.
pub const POLL: Duration = Duration::from_millis(50);

/// Whether a signal has asked this process to end.
static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Notices SIGINT, SIGTERM and SIGHUP from now on. The handlers stay installed: a second signal
/// must not stop the cleanup.
pub fn notice_signals() -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ASKED))
            .map_err(while_doing("cannot handle signals"))?;
    }
    Ok(())
}

/// Fails if a signal has arrived.
pub fn check() -> Result<(), Failure> {
    if ASKED.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
}

/// Polls with this pause until `condition` holds, a signal arrives, or `limit` has passed; `what`
/// names the wait.
pub fn wait_until(
    pause: Duration,
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let start = clock::now();
    while clock::now() - start <= limit {
        check()?;
        if condition()? {
            return Ok(());
        }
        sleep(pause);
    }
    Err(Failure::Step(format!("{what} took longer than {} s", limit.as_secs())))
}
