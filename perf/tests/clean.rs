//! What the harness leaves behind: nothing, however it ends. Needs root, as the harness does.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::harness;

// Debian's wireguard-go: what is measured does not matter here, and no build is needed.
const IPERF: &str = "iperf --rounds 1 --seconds 60 --implementations wireguard-go";
const BLAST: &str = "blast --rounds 1 --seconds 30 --relay-core 0 --implementations wireguard-go";

/// The processes that were started by `parent`, by id.
fn children(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name in parentheses: the state, and the parent.
        let after_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    children
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

/// Starts a long measurement, and waits until `all` processes that it starts run, `number` of them
/// called `name` (one alone may only have been asked for its version); all of them, by id.
fn start(arguments: &str, name: &str, number: usize, all: usize) -> (Child, Vec<u32>) {
    let mut command = harness(arguments);
    let mut harness =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let has_name = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/comm"));
        command.is_ok_and(|it| it.trim() == name)
    };
    let mut started = Vec::new();
    eventually("what it starts runs", || {
        if let Some(status) = harness.try_wait().expect("our own child") {
            let mut said = String::new();
            let _ = harness.stderr.take().expect("piped").read_to_string(&mut said);
            panic!("it has ended too early, {status}: {said}");
        }
        started = children(harness.id());
        started.len() >= all && started.iter().filter(|pid| has_name(pid)).count() == number
    });
    (harness, started)
}

/// An `iperf` that runs: two daemons, the holders of two namespaces, and two iperf3.
fn start_iperf() -> (Child, Vec<u32>) {
    start(IPERF, "iperf3", 2, 6)
}

/// A `blast` that runs: a daemon, and the holders of two namespaces.
fn start_blast() -> (Child, Vec<u32>) {
    start(BLAST, "wireguard-go", 1, 3)
}

fn all_are_gone(pids: &[u32]) -> bool {
    // A process that nobody has waited for yet keeps its folder, but not its command line.
    pids.iter().all(|pid| fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()))
}

fn assert_sigkill_leaves_nothing((mut harness, started): (Child, Vec<u32>)) {
    harness.kill().expect("our own child");
    harness.wait().expect("our own child");
    eventually("everything that it started has ended", || all_are_gone(&started));
}

fn assert_a_signal_ends_it_in_order((mut harness, started): (Child, Vec<u32>)) {
    kill(Pid::from_raw(harness.id().cast_signed()), Signal::SIGTERM).expect("our own child");
    let status = harness.wait().expect("our own child");
    assert_eq!(status.code(), Some(130));
    assert!(all_are_gone(&started), "it waits for what it ends");
}

#[test]
fn sigkill_leaves_nothing() {
    assert_sigkill_leaves_nothing(start_iperf());
}

#[test]
fn a_signal_ends_it_in_order() {
    assert_a_signal_ends_it_in_order(start_iperf());
}

#[test]
fn sigkill_of_blast_leaves_nothing() {
    assert_sigkill_leaves_nothing(start_blast());
}

#[test]
fn a_signal_ends_blast_in_order() {
    assert_a_signal_ends_it_in_order(start_blast());
}

#[test]
fn a_measurement_has_figures_and_the_missing_a_line() {
    let (table, records) = common::run(
        "iperf --rounds 1 --seconds 1 --family 6 --streams 2 \
         --implementations wireguard-go,boringtun@/nonexistent",
    );
    assert!(table.contains("\nboringtun@/nonexistent  not there: "), "{table}");
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str()).collect();
    let implementation = Some("implementation");
    assert_eq!(kinds, [Some("iperf"), implementation, implementation, Some("measurement")]);
    let result = &records[3]["result"];
    assert!(result["iperf3"]["bits_per_second"].as_f64() > Some(1e6), "{result}");
    for daemon in 0..2 {
        assert!(result["daemons"][daemon]["cpu_seconds"].as_f64() > Some(0.0), "{result}");
    }
}
