//! Child processes: run to completion with their output, or in the background until dropped. The
//! kernel ends them when this process dies, even by SIGKILL.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::failure::{Failure, while_doing};
use crate::interrupt::{self, POLL};

/// Longest time that a step of the set-up may take.
pub const STEP_LIMIT: Duration = Duration::from_secs(20);

/// Time between SIGTERM and SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Pause between two polls of a process that is timed.
const FINE_POLL: Duration = Duration::from_micros(500);

/// Lines of a failed process's output that its failure quotes.
const QUOTED_LINES_MAX: usize = 5;

/// `program` as a command that the kernel kills when the calling **thread** dies: only the main
/// thread may spawn it. Every program in between must replace itself (exec), so that the process
/// keeps its id.
pub fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// A child process with its output in unnamed files; ended when dropped.
pub struct Process {
    child: Child,
    title: String,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts `command`, which [`tied`] has begun, with `input` on its standard input. Failures
    /// call it `title`.
    pub fn spawn(mut command: Command, title: &str, input: &str) -> Result<Process, Failure> {
        let mut start = || {
            let mut stdin = tempfile::tempfile()?;
            stdin.write_all(input.as_bytes())?;
            stdin.rewind()?;
            let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
            command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
            // Ctrl-C goes to this process only, which then ends its children in order.
            let child = command.process_group(0).spawn()?;
            Ok::<_, std::io::Error>(Process { child, title: title.to_owned(), stdout, stderr })
        };
        start().map_err(while_doing(format!("cannot start {title}")))
    }

    /// Runs `command` to completion and returns its standard output. Fails if it does not end
    /// within `limit`, or with any exit code but 0.
    pub fn run(command: Command, title: &str, limit: Duration) -> Result<String, Failure> {
        let process = Process::spawn(command, title, "")?.complete(POLL, limit)?;
        Ok(whole(&process.stdout))
    }

    /// Like [`Process::run`], but with `input`; returns how long it took, its start included.
    pub fn time(
        command: Command,
        title: &str,
        input: &str,
        limit: Duration,
    ) -> Result<Duration, Failure> {
        let start = clock::now();
        Process::spawn(command, title, input)?.complete(FINE_POLL, limit)?;
        Ok(clock::now() - start)
    }

    /// Waits for its end with exit code 0.
    fn complete(mut self, pause: Duration, limit: Duration) -> Result<Process, Failure> {
        let title = self.title.clone();
        interrupt::wait_until(pause, limit, &title, || Ok(self.has_ended()))?;
        match self.child.wait() {
            Ok(status) if status.success() => Ok(self),
            // A process killed by a signal could not print why.
            Ok(status) if status.code().is_none() => {
                Err(self.failure(&format!("failed ({status})")))
            }
            _ => Err(self.failure("failed")),
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        has_ended(&mut self.child)
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        whole(&self.stderr)
    }

    /// A failure of this process, with the last lines of its output.
    pub fn failure(&self, what: &str) -> Failure {
        let written = self.stderr() + &whole(&self.stdout);
        let lines: Vec<&str> = written.lines().collect();
        let last = lines[lines.len().saturating_sub(QUOTED_LINES_MAX)..].join("; ");
        Failure::Step(format!("{} {what}: {last}", self.title))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child, END_LIMIT);
    }
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

/// Ends a child by SIGTERM, or by SIGKILL after `limit`.
pub fn end(child: &mut Child, limit: Duration) {
    if has_ended(child) {
        return;
    }
    // Not waited for yet, so the id is still this child's.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    let start = clock::now();
    while !has_ended(child) && clock::now() - start < limit {
        sleep(FINE_POLL);
    }
    if !has_ended(child) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// All of a file, from its start: the child that writes shares the position.
fn whole(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).expect("output fits into memory")];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(cannot read its output: {error})"),
    }
}
