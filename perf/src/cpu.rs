//! CPU time: of a process and its threads, and of the whole machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::{Value, json};

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

/// Whether a thread of a process runs, waits for a core or for a disk, or is stopped: whether the
/// process would do something if it were let. Not if it is gone.
pub fn has_work(pid: u32) -> bool {
    let folders = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = folders.filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
    stats.into_iter().any(|stat| !matches!(parse_state(&stat), Some('S' | 'I' | 'Z' | 'X')))
}

/// CPU time of each thread of a process so far. Threads that have ended are not among them.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<u32, (String, Duration)>);

impl Threads {
    /// Those of `pid`; none if it is gone.
    pub fn of(pid: u32) -> Threads {
        let folders = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let thread = |folder: fs::DirEntry| {
            let id = folder.file_name().to_str()?.parse().ok()?;
            let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
            // An option of the kernel, in nanoseconds; otherwise ticks.
            let exact = read("schedstat").and_then(|text| parse_schedstat(&text));
            let time = exact.or_else(|| parse_thread_stat(&read("stat")?))?;
            Some((id, (read("comm")?.trim().to_owned(), time)))
        };
        Threads(folders.filter_map(thread).collect())
    }

    /// What each used since `before`, those that used nothing left out, the busiest first.
    pub fn since(&self, before: &Threads) -> Vec<(String, Duration)> {
        let spent = |(id, (name, now)): (&u32, &(String, Duration))| {
            let then = before.0.get(id).map_or(Duration::ZERO, |(_, time)| *time);
            (name.clone(), now.saturating_sub(then))
        };
        let mut threads: Vec<_> = self.0.iter().map(spent).collect();
        threads.retain(|(_, time)| !time.is_zero());
        threads.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        threads
    }
}

/// Threads with their CPU time, for the JSON lines.
pub fn record_of_threads(threads: &[(String, Duration)]) -> Value {
    let record = |name: &str, seconds: f64| json!({ "name": name, "cpu_seconds": seconds });
    threads.iter().map(|(name, time)| record(name, time.as_secs_f64())).collect()
}

/// `/proc/PID/task/TID/schedstat`: nanoseconds on a CPU, then what is not needed.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// `/proc/PID/task/TID/stat`: the 14th and 15th fields are user's and system's ticks (proc(5)).
fn parse_thread_stat(text: &str) -> Option<Duration> {
    // The name may hold spaces and parentheses; the third field comes after its last one.
    let (_, fields) = text.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u32>().ok());
    Some(TICK * (ticks.next()? + ticks.next()?))
}

/// `/proc/PID/task/TID/stat`: the third field is its state (proc(5)).
fn parse_state(text: &str) -> Option<char> {
    let (_, fields) = text.rsplit_once(')')?;
    fields.trim_start().chars().next()
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
    fn a_thread_has_nanoseconds_or_ticks() {
        assert_eq!(parse_schedstat("127910 2355377 2\n"), Some(Duration::from_nanos(127_910)));
        let text = "7 (a) b) S 1 7 7 0 -1 0 61 0 0 0 25 75 0 0 20 0 2 0 100 4096 9\n";
        assert_eq!(parse_thread_stat(text), Some(Duration::from_secs(1)));
        assert_eq!(parse_thread_stat("7 (a) S 1"), None);
    }

    #[test]
    fn threads_that_did_nothing_are_left_out() {
        let named = |name: &str, seconds| (name.to_owned(), Duration::from_secs(seconds));
        let before = Threads([(1, named("main", 5)), (2, named("worker-0", 1))].into());
        let after = [(1, named("main", 5)), (2, named("worker-0", 3)), (3, named("late", 4))];
        assert_eq!(Threads(after.into()).since(&before), [named("late", 4), named("worker-0", 2)]);
        let own = Threads::of(std::process::id()).since(&Threads::default());
        assert!(!own.is_empty(), "this thread has used some");
        assert!(Threads::of(1 << 27).0.is_empty(), "above every process id");
    }

    #[test]
    fn this_process_has_used_some() {
        let pid = std::process::id();
        assert!(of_process(pid).expect("it runs") > Duration::ZERO);
        assert_eq!(of_process(1 << 27), None, "above every process id");
        assert!(of_machine().expect("there is a /proc/stat") > Duration::ZERO);
    }
}
