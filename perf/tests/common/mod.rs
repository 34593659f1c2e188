//! Helpers of the harness's tests.

// Each test uses some of them.
#![allow(dead_code)]

pub mod processes;
pub mod relays;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde_json::Value;

/// The harness with these arguments, which needs root.
pub fn harness(arguments: &str) -> Command {
    assert!(geteuid().is_root(), "it creates network namespaces: run it as root");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wg-bounce-perf"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs the harness to its end, which must be a success: its table, and its JSON lines.
pub fn run(arguments: &str) -> (String, Vec<Value>) {
    let json = tempfile::NamedTempFile::new().expect("a temporary folder");
    let mut command = harness(arguments);
    let output = command.arg("--json").arg(json.path()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = BufReader::new(json.as_file()).lines();
    let record =
        |line: std::io::Result<String>| serde_json::from_str(&line.expect("text")).expect("JSON");
    (String::from_utf8_lossy(&output.stdout).into_owned(), lines.map(record).collect())
}

/// Whether the table has a line of this implementation that begins with `text`.
pub fn has_line(table: &str, label: &str, text: &str) -> bool {
    let mut rests = table.lines().filter_map(|line| line.strip_prefix(label));
    rests.any(|rest| rest.trim_start().starts_with(text))
}
