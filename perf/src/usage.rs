//! CPU time and memory of a process and its threads, and CPU time of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::process::{Process, Task};
use serde_json::{Value, json};

use crate::failure::Failure;

/// A clock tick of `/proc/stat` (USER_HZ, 100 on every architecture that matters; proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// CPU time of a process so far, including threads that have ended. None if the process is gone.
///
/// This is time on the process's own account: veth runs the receiver's network stack on the
/// sender's account, and kernel threads are not included.
fn of_process(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// CPU time of a daemon so far; none if it is the kernel. Fails if it has ended.
pub fn of_daemon(pid: Option<u32>) -> Result<Option<Duration>, Failure> {
    let ended = || Failure::step("a measured daemon has ended");
    pid.map(|pid| of_process(pid).ok_or_else(ended)).transpose()
}

/// Time between two readings, if both are known.
pub fn between(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(after?.saturating_sub(before?))
}

/// A sum of times plus the time between two more readings, if known.
pub fn added(
    sum: Option<Duration>,
    before: Option<Duration>,
    after: Option<Duration>,
) -> Option<Duration> {
    Some(sum.unwrap_or_default() + between(before, after)?)
}

/// Whether a thread of a process is running, runnable, stopped or waiting for a disk: whether the
/// process would make progress if it were scheduled. False if it is gone.
pub fn has_work(pid: u32) -> bool {
    let mut stats = tasks(pid).filter_map(|task| task.stat().ok());
    stats.any(|stat| !matches!(stat.state, 'S' | 'I' | 'Z' | 'X'))
}

/// The threads of a process; none if it is gone.
fn tasks(pid: u32) -> impl Iterator<Item = Task> {
    let tasks = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.tasks().ok());
    tasks.into_iter().flatten().flatten()
}

/// CPU time of each live thread of a process so far, by thread id.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<u32, (String, Duration)>);

impl Threads {
    /// The threads of `pid`; none if it is gone.
    pub fn of(pid: u32) -> Threads {
        let thread = |task: Task| {
            let stat = task.stat().ok()?;
            // schedstat (nanoseconds) is a kernel option; stat has ticks.
            let ticks = u32::try_from(stat.utime + stat.stime).ok()?;
            let exact = task.schedstat().map(|it| Duration::from_nanos(it.sum_exec_runtime));
            Some((task.tid.cast_unsigned(), (stat.comm, exact.unwrap_or(TICK * ticks))))
        };
        Threads(tasks(pid).filter_map(thread).collect())
    }

    /// CPU time of each thread since `before`, busiest first, idle threads left out, as JSON.
    pub fn since(&self, before: &Threads) -> Value {
        let spent = |(id, (name, now)): (&u32, &(String, Duration))| {
            let then = before.0.get(id).map_or(Duration::ZERO, |(_, time)| *time);
            (now.saturating_sub(then), name.clone())
        };
        let mut threads: Vec<_> = self.0.iter().map(spent).filter(|it| !it.0.is_zero()).collect();
        threads.sort_by(|one, other| other.cmp(one));
        let record = |name, seconds| json!({ "name": name, "cpu_seconds": seconds });
        threads.into_iter().map(|(time, name)| record(name, time.as_secs_f64())).collect()
    }
}

/// Resident memory of a process in bytes. None if the process is gone, or a kernel thread.
pub fn resident(pid: u32) -> Option<u64> {
    let status = Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?;
    Some(status.vmrss? * 1024)
}

/// Busy CPU time so far: of one core, or of the whole machine, whichever process used it.
pub fn of_core(core: Option<usize>) -> Option<Duration> {
    let name = core.map_or("cpu".to_owned(), |core| format!("cpu{core}"));
    parse_stat(&fs::read_to_string("/proc/stat").ok()?, &name)
}

/// Busy time of `name` ("cpu" for all cores).
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
    fn idle_iowait_and_steal_are_not_busy() {
        let text = "cpu  100 20 30 4000 500 6 44 9000 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_stat(text, "cpu"), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat(text, "cpu0"), Some(Duration::from_millis(190)));
        assert_eq!(parse_stat(text, "cpu1"), None);
        assert_eq!(parse_stat("cpu0 1 2 3", "cpu0"), None);
    }

    #[test]
    fn idle_threads_are_left_out() {
        let named = |name: &str, seconds| (name.to_owned(), Duration::from_secs(seconds));
        let before = Threads([(1, named("main", 5)), (2, named("worker-0", 1))].into());
        let after = [(1, named("main", 5)), (2, named("worker-0", 3)), (3, named("late", 4))];
        let spent = json!([
            { "name": "late", "cpu_seconds": 4.0 }, { "name": "worker-0", "cpu_seconds": 2.0 }
        ]);
        assert_eq!(Threads(after.into()).since(&before), spent);
        let own = Threads::of(std::process::id()).since(&Threads::default());
        assert_ne!(own, json!([]), "this thread has used some");
        assert!(Threads::of(1 << 27).0.is_empty(), "above every process id");
    }

    #[test]
    fn this_process_uses_cpu_time_and_memory() {
        let pid = std::process::id();
        assert!(of_process(pid).expect("it is running") > Duration::ZERO);
        assert!(of_core(None).expect("there is a /proc/stat") > Duration::ZERO);
        assert!(resident(pid) > Some(100_000));
        assert_eq!(
            (of_process(1 << 27), resident(1 << 27)),
            (None, None),
            "above every process id"
        );
    }
}
