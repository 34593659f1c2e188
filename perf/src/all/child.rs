//! A run of a subcommand, in a process of its own: what it changes of its process, such as the
//! core that a generator keeps, ends with it, and so does whatever goes wrong in it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::Run;
use crate::failure::{Failure, while_doing};
use crate::interrupt::{Interrupt, within};
use crate::process::tied;

/// How much longer than estimated a run may take before it is broken off, for slow machines.
const PATIENCE: u32 = 5;

/// What every run may take.
const LEAST_PATIENCE: Duration = Duration::from_secs(120);

/// How long a run has to end what it has started.
const END_LIMIT: Duration = Duration::from_secs(15);

/// The process; it ends when this is dropped.
struct Running(Child);

/// Runs it to its end, with its JSON lines at the end of `figures`; its table and its progress
/// are where those of this process are.
pub fn run(run: &Run, figures: &Path, interrupt: &Interrupt) -> Result<ExitStatus, Failure> {
    let program = std::env::current_exe().map_err(while_doing("finding this program"))?;
    let mut command = tied(&program.to_string_lossy());
    // Ctrl-C is for this process, which then ends the other in order.
    command.args(run.words()).arg("--json").arg(figures).process_group(0);
    let child = command.spawn().map_err(while_doing("starting `setpriv` (of util-linux)"))?;
    let mut running = Running(child);
    let limit = (run.estimate() * PATIENCE).max(LEAST_PATIENCE);
    let mut ended = None;
    interrupt.wait_until(limit, &format!("{} ends", run.title), || {
        ended = running.0.try_wait().map_err(while_doing("waiting for a run"))?;
        Ok(ended.is_some())
    })?;
    Ok(ended.expect("the waiting ended with it"))
}

impl Drop for Running {
    fn drop(&mut self) {
        let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if has_ended(&mut self.0) {
            return;
        }
        // Not waited for yet, so the id is still this child's.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        if !within(END_LIMIT, || has_ended(&mut self.0)) {
            // What it has started, the kernel ends with it.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
