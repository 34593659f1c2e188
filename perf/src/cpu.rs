//! CPU time: of a process, and of the whole machine.

use std::fs;
use std::time::Duration;

/// A clock tick of `/proc/PID/stat` and `/proc/stat` (USER_HZ, 100 on every architecture that
/// matters; proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// CPU time that a process has used so far, all its threads together. Threads that have ended are
/// missing from the exact figure, `schedstat` (nanoseconds); daemons keep theirs. Where the kernel
/// has no `schedstat`: `stat`, in ticks. None if the process is gone.
///
/// This is what ran in the process's own time: veth hands packets to the receiver's network stack
/// in the sender's time, and work that the kernel does in threads of its own is not seen at all.
pub fn of_process(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread that has just ended is no reason to fail.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        total += parse_schedstat(&text)?;
    }
    if total > Duration::ZERO {
        return Some(total);
    }
    parse_process_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// CPU time that was not idle so far, all cores together, whoever used it.
pub fn of_machine() -> Option<Duration> {
    parse_machine_stat(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn parse_process_stat(text: &str) -> Option<Duration> {
    // The name, in parentheses, may hold anything. Fields 14 and 15 are the 12th and 13th after it.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TICK * (user + system))
}

fn parse_machine_stat(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    let ticks: Vec<u64> =
        line.split_whitespace().take(7).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(Duration::from_millis((ticks.iter().sum::<u64>() - idle) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_begins_with_nanoseconds() {
        assert_eq!(parse_schedstat("1500000000 104146 1\n"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn a_name_in_stat_may_look_like_fields() {
        let text = "7 (a) b (c) 1 2) S 1 2 3 4 5 6 7 8 9 10 25 75 0 0 20 0 1";
        assert_eq!(parse_process_stat(text), Some(Duration::from_secs(1)));
        assert_eq!(parse_process_stat("7 (a) S 1"), None);
    }

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let text = "cpu  100 20 30 4000 500 6 44 9000 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_machine_stat(text), Some(Duration::from_secs(2)));
        assert_eq!(parse_machine_stat("cpu0 1 2 3"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let pid = std::process::id();
        assert!(of_process(pid).expect("it runs") > Duration::ZERO);
        assert!(of_machine().expect("there is a /proc/stat") > Duration::ZERO);
    }
}
