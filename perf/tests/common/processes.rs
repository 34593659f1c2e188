//! The processes that the harness starts, and their end.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Processes started by the main thread of `parent`, by id; none if it has ended.
pub fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

/// Whether a process exists and has this name.
pub fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

/// Waits for at most `seconds`.
fn eventually(seconds: u32, what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10 * seconds {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("not within {seconds} seconds: {what}");
}

/// The harness while it measures.
pub struct Running {
    /// Time limit for its start and its end (seconds).
    patience: u32,
    harness: Child,
    /// The processes it has started, by id.
    started: Vec<u32>,
}

impl Running {
    /// Starts the harness, and waits until its processes are complete (`is_whole`).
    pub fn start(
        mut command: Command,
        patience: u32,
        mut is_whole: impl FnMut(&[u32]) -> bool,
    ) -> Running {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut harness = command.spawn().expect("it starts");
        let mut started = Vec::new();
        eventually(patience, "what it starts runs", || {
            if let Some(status) = harness.try_wait().expect("our own child") {
                let mut said = String::new();
                let _ = harness.stderr.take().expect("piped").read_to_string(&mut said);
                panic!("it has ended too early, {status}: {said}");
            }
            started = descendants(harness.id());
            is_whole(&started)
        });
        Running { patience, harness, started }
    }

    /// Sends `signal`, after which everything must end: SIGTERM and SIGINT end it in order, and
    /// then it waits for what it ends.
    pub fn leaves_nothing(mut self, signal: Signal) {
        kill(Pid::from_raw(self.harness.id().cast_signed()), signal).expect("our own child");
        let status = self.harness.wait().expect("our own child");
        if signal != Signal::SIGKILL {
            assert_eq!(status.code(), Some(130));
            assert!(all_are_gone(&self.started), "it waits for what it ends");
        }
        let what = "everything that it started has ended";
        eventually(self.patience, what, || all_are_gone(&self.started));
    }
}

/// Its children, and their children: `all` starts the harness again for each run.
fn descendants(parent: u32) -> Vec<u32> {
    children(parent).into_iter().flat_map(|pid| [vec![pid], descendants(pid)].concat()).collect()
}

fn all_are_gone(pids: &[u32]) -> bool {
    // A zombie keeps its folder, but not its command line.
    pids.iter().all(|pid| fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()))
}
