//! A short `all`: it writes its report even if programs are missing, and leaves nothing behind.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use common::harness;
use common::processes::{Running, is_called};

/// Debian's wireguard-go: any implementation will do.
const BLAST: &str = "all --quick --only blast --implementations wireguard-go";

/// A running plan: a run, a daemon (alone it may only print its version), and two namespaces.
fn start(output: &Path) -> Running {
    let mut command = harness(BLAST);
    command.arg("--output").arg(output);
    Running::start(command, 60, |started| {
        started.len() >= 4 && started.iter().any(|pid| is_called(*pid, "wireguard-go"))
    })
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn the_report_is_written_even_if_programs_are_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
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
#[ignore = "needs root: creates network namespaces"]
fn a_signal_ends_it_in_order_with_a_report() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    start(folder.path()).leaves_nothing(Signal::SIGINT);
    let page = fs::read_to_string(folder.path().join("report.html")).expect("it is written");
    let line = "<li>1 pair, trains of 44: interrupted; 1 more runs were planned</li>";
    assert!(page.contains(line), "{page}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn sigkill_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    start(folder.path()).leaves_nothing(Signal::SIGKILL);
}
