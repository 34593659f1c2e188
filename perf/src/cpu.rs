//! CPU time: of a process, and of the whole machine.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A clock tick of `/proc/stat` (USER_HZ, 100 on every architecture that matters; proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// CPU time that a process has used so far, all its threads together, those that have ended too
/// (nanoseconds, whatever the kernel was built with: `schedstat` and the exact fields of
/// `/proc/PID/sched` are options). None if the process is gone.
///
/// This is what ran in the process's own time: veth hands packets to the receiver's network stack
/// in the sender's time, and work that the kernel does in threads of its own is not seen at all.
pub fn of_process(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// CPU time that was not idle so far, all cores together, whoever used it.
pub fn of_machine() -> Option<Duration> {
    parse_stat(&fs::read_to_string("/proc/stat").ok()?, "cpu")
}

/// CPU time of one core that was not idle so far, whoever used it.
pub fn of_core(core: usize) -> Option<Duration> {
    parse_stat(&fs::read_to_string("/proc/stat").ok()?, &format!("cpu{core}"))
}

/// What `name` ("cpu" for all cores) was busy.
fn parse_stat(text: &str, name: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    let ticks: Vec<u64> =
        line.split_whitespace().take(7).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    let busy = u32::try_from(ticks.iter().sum::<u64>() - idle).ok()?;
    Some(TICK * busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let text = "cpu  100 20 30 4000 500 6 44 9000 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_stat(text, "cpu"), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat(text, "cpu0"), Some(Duration::from_millis(190)));
        assert_eq!(parse_stat(text, "cpu1"), None);
        assert_eq!(parse_stat("cpu0 1 2 3", "cpu0"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let pid = std::process::id();
        assert!(of_process(pid).expect("it runs") > Duration::ZERO);
        assert_eq!(of_process(1 << 27), None, "above every process id");
        assert!(of_machine().expect("there is a /proc/stat") > Duration::ZERO);
    }
}
