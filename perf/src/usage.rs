//! CPU time and memory of a process and its threads, and CPU time of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
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
    let mut stats = threads(pid).filter_map(|folder| fs::read_to_string(folder.join("stat")).ok());
    stats.any(|stat| !matches!(parse_state(&stat), Some('S' | 'I' | 'Z' | 'X')))
}

fn threads(pid: u32) -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    folders.map(|folder| folder.path())
}

/// CPU time of each live thread of a process so far, by thread id.
#[derive(Clone, Debug, Default)]
pub struct Threads(BTreeMap<u32, (String, Duration)>);

impl Threads {
    /// The threads of `pid`; none if it is gone.
    pub fn of(pid: u32) -> Threads {
        let thread = |folder: PathBuf| {
            let id = folder.file_name()?.to_str()?.parse().ok()?;
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            // schedstat (nanoseconds) is a kernel option; stat has ticks.
            let exact = read("schedstat").and_then(|text| parse_schedstat(&text));
            let time = exact.or_else(|| parse_thread_stat(&read("stat")?))?;
            Some((id, (read("comm")?.trim().to_owned(), time)))
        };
        Threads(threads(pid).filter_map(thread).collect())
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

/// `/proc/PID/task/TID/schedstat`: nanoseconds on a CPU, then fields that are not needed.
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// `/proc/PID/task/TID/stat`: fields 14 and 15 are user and system ticks (proc(5)).
fn parse_thread_stat(text: &str) -> Option<Duration> {
    // The name may hold spaces and parentheses; the third field follows its last parenthesis.
    let (_, fields) = text.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map_while(|field| field.parse::<u32>().ok());
    Some(TICK * (ticks.next()? + ticks.next()?))
}

/// `/proc/PID/task/TID/stat`: the third field is the state (proc(5)).
fn parse_state(text: &str) -> Option<char> {
    let (_, fields) = text.rsplit_once(')')?;
    fields.trim_start().chars().next()
}

/// Resident memory of a process in bytes (VmRSS; proc(5)). None if the process is gone.
pub fn resident(pid: u32) -> Option<u64> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
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
    fn a_thread_has_nanoseconds_or_ticks() {
        assert_eq!(parse_schedstat("127910 2355377 2\n"), Some(Duration::from_nanos(127_910)));
        let text = "7 (a) b) S 1 7 7 0 -1 0 61 0 0 0 25 75 0 0 20 0 2 0 100 4096 9\n";
        assert_eq!(parse_thread_stat(text), Some(Duration::from_secs(1)));
        assert_eq!(parse_thread_stat("7 (a) S 1"), None);
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
    fn kibibytes_become_bytes() {
        assert_eq!(parse_status("VmHWM:\t  900 kB\nVmRSS:\t    712 kB\n"), Some(712 * 1024));
        assert_eq!(parse_status("Name:\tkthreadd\n"), None, "a kernel thread has none");
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
