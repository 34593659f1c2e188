//! Memory of a process.

use std::fs;

/// Bytes of a process that are in memory now (VmRSS; proc(5)). None if the process is gone.
pub fn resident(pid: u32) -> Option<u64> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        assert_eq!(parse_status("VmHWM:\t  900 kB\nVmRSS:\t    712 kB\n"), Some(712 * 1024));
        assert_eq!(parse_status("Name:\tkthreadd\n"), None, "a kernel thread has none");
    }

    #[test]
    fn this_process_has_some() {
        assert!(resident(std::process::id()) > Some(100_000));
        assert_eq!(resident(1 << 27), None, "above every process id");
    }
}
