//! What the harness leaves behind: nothing, however it ends. Needs root, as the harness does.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Debian's wireguard-go: what is measured does not matter here, and no build is needed.
fn harness(arguments: &[&str]) -> Command {
    assert!(geteuid().is_root(), "this makes network namespaces: run it as root");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce-perf"));
    command.args(["iperf", "--rounds", "1", "--seconds"]).args(arguments);
    command
}

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

/// Starts a long measurement and waits until both daemons, both namespaces' holders and both
/// iperf3 run; their ids.
fn start_measuring() -> (Child, Vec<u32>) {
    let mut command = harness(&["60", "--implementations", "wireguard-go"]);
    let harness = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let is_iperf = |pid: &u32| {
        let command = fs::read_to_string(format!("/proc/{pid}/comm"));
        command.is_ok_and(|name| name.trim() == "iperf3")
    };
    let mut started = Vec::new();
    eventually("both iperf3 run", || {
        started = children(harness.id());
        started.iter().filter(|pid| is_iperf(pid)).count() == 2
    });
    assert!(started.len() >= 6, "daemons, holders and iperf3: {started:?}");
    (harness, started)
}

fn all_are_gone(pids: &[u32]) -> bool {
    // A process that nobody has waited for yet keeps its folder, but not its command line.
    pids.iter().all(|pid| fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |l| l.is_empty()))
}

#[test]
fn sigkill_leaves_nothing() {
    let (mut harness, started) = start_measuring();
    harness.kill().expect("our own child");
    harness.wait().expect("our own child");
    eventually("everything that it started has ended", || all_are_gone(&started));
}

#[test]
fn a_signal_ends_it_in_order() {
    let (mut harness, started) = start_measuring();
    kill(Pid::from_raw(harness.id().cast_signed()), Signal::SIGTERM).expect("our own child");
    let status = harness.wait().expect("our own child");
    assert_eq!(status.code(), Some(130));
    assert!(all_are_gone(&started), "it waits for what it ends");
}

#[test]
fn a_measurement_has_figures_and_the_missing_a_line() {
    let json = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    let path = json.path().to_str().expect("UTF-8");
    let mut command = harness(&["1", "--family", "6", "--streams", "2", "--json", path]);
    command.args(["--implementations", "wireguard-go,boringtun@/nonexistent"]);
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("\nboringtun@/nonexistent  not there: "), "{table}");

    let mut records = Vec::new();
    for line in BufReader::new(json.as_file()).lines() {
        let line = line.expect("text");
        records.push(serde_json::from_str::<serde_json::Value>(&line).expect("JSON"));
    }
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str()).collect();
    let implementation = Some("implementation");
    assert_eq!(kinds, [Some("iperf"), implementation, implementation, Some("measurement")]);
    let result = &records[3]["result"];
    assert!(result["iperf3"]["bits_per_second"].as_f64() > Some(1e6), "{result}");
    for daemon in 0..2 {
        assert!(result["daemons"][daemon]["cpu_seconds"].as_f64() > Some(0.0), "{result}");
    }
}
