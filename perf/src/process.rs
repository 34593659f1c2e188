//! Child processes: run to the end with their output, or in the background until dropped. The
//! kernel ends them when this process dies, even by SIGKILL.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;
use crate::failure::{Failure, while_doing};
use crate::interrupt::{Interrupt, within};

/// Longest time that a step of the set-up may take.
pub const STEP_LIMIT: Duration = Duration::from_secs(20);

/// How long a process has between SIGTERM and SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Between two looks at a process that is timed.
const FINE_POLL: Duration = Duration::from_micros(500);

/// Lines of a failed process's output that its failure quotes.
const QUOTED_LINES_MAX: usize = 5;

/// `program` as a command that the kernel kills when the calling **thread** dies: to be spawned by
/// the main thread. Every program in between must replace itself (exec), so that the process
/// keeps its id.
pub fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// A child process with its output in files that have no name; ended when dropped.
pub struct Process {
    child: Child,
    title: String,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts `command`, which [`tied`] has begun, with `input` on its standard input. `title` is
    /// what failures call it.
    pub fn spawn(mut command: Command, title: &str, input: &str) -> Result<Process, Failure> {
        let mut start = || {
            let mut stdin = tempfile::tempfile()?;
            stdin.write_all(input.as_bytes())?;
            stdin.rewind()?;
            let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
            command
                .stdin(stdin)
                .stdout(Stdio::from(stdout.try_clone()?))
                .stderr(Stdio::from(stderr.try_clone()?))
                // Ctrl-C is for this process, which then ends the others in order.
                .process_group(0);
            let child = command.spawn()?;
            Ok(Process { child, title: title.to_owned(), stdout, stderr })
        };
        start().map_err(while_doing(format!("starting {title}")))
    }

    /// Runs `command` to its end; its standard output. Failing to end within `limit`, and any
    /// exit code but 0, is a failure.
    pub fn run(
        command: Command,
        title: &str,
        input: &str,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<String, Failure> {
        let mut process = Process::spawn(command, title, input)?;
        interrupt.wait_until(limit, title, || Ok(process.has_ended()))?;
        process.check_success()?;
        Ok(process.stdout())
    }

    /// Runs `command` to its end; how long that took (to the millisecond), its start included.
    /// None if it has not ended within `limit`. Any exit code but 0 is a failure.
    pub fn time(
        command: Command,
        title: &str,
        input: &str,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Option<Duration>, Failure> {
        let start = clock::now();
        let mut process = Process::spawn(command, title, input)?;
        while !process.has_ended() {
            interrupt.check()?;
            if clock::now() - start > limit {
                return Ok(None);
            }
            sleep(FINE_POLL);
        }
        let took = clock::now() - start;
        process.check_success()?;
        Ok(Some(took))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails unless it has ended with exit code 0.
    fn check_success(&mut self) -> Result<(), Failure> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            // Whom a signal has ended could not say why.
            Ok(status) if status.code().is_none() => {
                Err(self.failure(&format!("failed ({status})")))
            }
            _ => Err(self.failure("failed")),
        }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        whole(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        whole(&self.stderr)
    }

    /// A failure of this process, with the last lines that it wrote.
    pub fn failure(&self, what: &str) -> Failure {
        let written = self.stderr() + &self.stdout();
        let lines: Vec<&str> = written.lines().collect();
        let last = lines[lines.len().saturating_sub(QUOTED_LINES_MAX)..].join("; ");
        Failure::Step(format!("{} {what}: {last}", self.title))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // Not waited for yet, so the id is still this child's.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        if !within(END_LIMIT, || self.has_ended()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// All of a file, from its start: the position is shared with the child that writes.
fn whole(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).expect("output fits into memory")];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(its output cannot be read: {error})"),
    }
}
