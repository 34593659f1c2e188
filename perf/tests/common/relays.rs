//! What the tests of measurements of a relay share.

mod processes;

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::harness;
use processes::{children, is_called};

/// A core for the relay: where there is but one, the generator shares it.
pub fn last_core() -> usize {
    available_parallelism().map_or(0, |cores| usize::from(cores) - 1)
}

/// Sends `signal` to the harness while it measures Debian's wireguard-go, with arguments that take
/// long. SIGTERM must end it in order, and after any signal everything must have ended.
pub fn leaves_nothing(arguments: &str, signal: Signal) {
    let (mut harness, started) = start(arguments);
    kill(Pid::from_raw(harness.id().cast_signed()), signal).expect("our own child");
    let status = harness.wait().expect("our own child");
    if signal == Signal::SIGTERM {
        assert_eq!(status.code(), Some(130));
        assert!(all_are_gone(&started), "it waits for what it ends");
    }
    eventually("everything that it started has ended", || all_are_gone(&started));
}

/// A measurement that runs, and what it has started: a daemon, and the holders of two namespaces.
fn start(arguments: &str) -> (Child, Vec<u32>) {
    let mut command = harness(arguments);
    command.args(["--rounds", "1", "--relay-core", "0", "--implementations", "wireguard-go"]);
    let mut harness =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut started = Vec::new();
    eventually("what it starts runs", || {
        if let Some(status) = harness.try_wait().expect("our own child") {
            let mut said = String::new();
            let _ = harness.stderr.take().expect("piped").read_to_string(&mut said);
            panic!("it has ended too early, {status}: {said}");
        }
        started = children(harness.id());
        // One alone may only have been asked for its version.
        started.len() >= 3 && started.iter().any(|pid| is_called(*pid, "wireguard-go"))
    });
    (harness, started)
}

fn all_are_gone(pids: &[u32]) -> bool {
    // A process that nobody has waited for yet keeps its folder, but not its command line.
    pids.iter().all(|pid| fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()))
}

/// Waits up to 20 seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("not within 20 seconds: {what}");
}
