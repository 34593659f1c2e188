//! `all` in small: it writes its report whatever is missing, and leaves nothing behind. Needs root,
//! as the harness does.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Debian's wireguard-go: what is measured does not matter here.
const BLAST: &str = "all --quick --only blast --implementations wireguard-go";

/// The harness with these arguments.
fn harness(arguments: &str) -> Command {
    assert!(geteuid().is_root(), "this makes network namespaces: run it as root");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce-perf"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// The processes that were started by the main thread of `parent`, and by theirs.
fn descendants(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let children = text.unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().expect("a process id"));
    children.flat_map(|pid| [vec![pid], descendants(pid)].concat()).collect()
}

fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

fn all_are_gone(pids: &[u32]) -> bool {
    // A process that nobody has waited for yet keeps its folder, but not its command line.
    pids.iter().all(|pid| fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()))
}

/// Waits up to 60 seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("not within 60 seconds: {what}");
}

/// A plan that runs, and what it has started: a run of its own, a daemon, and two namespaces.
fn start(output: &Path) -> (Child, Vec<u32>) {
    let mut command = harness(BLAST);
    let command = command.arg("--output").arg(output).stdout(Stdio::null()).stderr(Stdio::null());
    let harness = command.spawn().expect("it starts");
    let mut started = Vec::new();
    eventually("the first run measures", || {
        started = descendants(harness.id());
        // One alone may only have been asked for its version.
        started.len() >= 4 && started.iter().any(|pid| is_called(*pid, "wireguard-go"))
    });
    (harness, started)
}

#[test]
fn the_report_is_written_whatever_is_missing() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let all = || {
        let mut command = harness(
            "all --quick --only iperf --implementations wireguard-go,boringtun@/nonexistent",
        );
        command.arg("--output").arg(folder.path()).output().expect("it starts")
    };
    let output = all();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("[2 of 2] iperf: UDP at 100 Mbit/s"), "{said}");
    assert!(!said.contains('\u{1b}'), "plain lines where there is no terminal: {said}");
    let page = fs::read_to_string(folder.path().join("report.html")).expect("it is written");
    for text in [
        "<h3>TCP, 1 stream</h3>",
        "<h3>UDP at 100 Mbit/s</h3>",
        "<li>boringtun@/nonexistent: not there: no program /nonexistent",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let figures = fs::read_to_string(folder.path().join("figures.jsonl")).expect("it is written");
    let measurements = figures.lines().filter(|line| line.contains("\"kind\":\"measurement\""));
    assert_eq!(measurements.count(), 2, "{figures}");
    let again = all();
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(!again.status.success() && said.contains("not empty"), "{said}");
}

#[test]
fn a_signal_ends_it_in_order_with_a_report() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (mut harness, started) = start(folder.path());
    kill(Pid::from_raw(harness.id().cast_signed()), Signal::SIGINT).expect("our own child");
    let status = harness.wait().expect("our own child");
    assert_eq!(status.code(), Some(130));
    eventually("everything that it started has ended", || all_are_gone(&started));
    let page = fs::read_to_string(folder.path().join("report.html")).expect("it is written");
    let line = "<li>1 pair, trains of 44: interrupted; 1 more runs were to follow</li>";
    assert!(page.contains(line), "{page}");
}

#[test]
fn sigkill_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (mut harness, started) = start(folder.path());
    harness.kill().expect("our own child");
    harness.wait().expect("our own child");
    eventually("everything that it started has ended", || all_are_gone(&started));
}
