//! The processes that the harness starts.

use std::fs;

/// Those that were started by the main thread of `parent`, by id.
pub fn children(parent: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let text = text.expect("a kernel with CONFIG_PROC_CHILDREN");
    text.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
}

/// Whether a process is there and has this name.
pub fn is_called(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}
