//! Start in the background: the process runs itself again as a child in a session of its own, and
//! exits once the child reports that the interface and the socket exist.
//!
//! The child's standard output is a pipe to the parent: one line means ready. Its standard error
//! is inherited, so that the operator sees why it failed.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};

/// Environment variable that marks the child.
const CHILD_MARK: &str = "WG_BOUNCE_BACKGROUND_CHILD";
/// The line that the child writes when it is ready.
const READY: &str = "ready";

/// Whether this process is the child.
pub(super) fn is_child() -> bool {
    env::var_os(CHILD_MARK).is_some()
}

/// Starts the child and waits until it is ready or has failed; returns the exit code.
///
/// # Errors
/// The child could not be run, or was killed.
pub(super) fn start() -> io::Result<ExitCode> {
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(program) = arguments.next() {
        command.arg0(program);
    }
    command.args(arguments).env(CHILD_MARK, "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut line)?;
    }
    if line.trim_end() == READY {
        return Ok(ExitCode::SUCCESS);
    }
    // The child has reported the reason on standard error, unless it was killed.
    let status = match child.wait() {
        Ok(status) => status,
        // The caller ignores SIGCHLD: the kernel keeps no exit code.
        Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error),
    };
    match (status.code(), status.signal()) {
        (Some(code), _) if code != 0 => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        (_, Some(signal)) => {
            Err(io::Error::other(format!("the daemon was killed by signal {signal}")))
        }
        _ => Err(io::Error::other("the daemon exited before it was ready")),
    }
}

/// Leaves the session, and with it the terminal, and the current directory. The child calls this
/// first.
pub(super) fn detach() -> io::Result<()> {
    setsid()?;
    env::set_current_dir("/")
}

/// Tells the parent that everything exists, and closes standard output. Standard error is kept only
/// if a log level was chosen (as with wireguard-go): a caller that reads the output of the start
/// would otherwise wait until the daemon exits.
///
/// # Errors
/// The parent exited: abort start-up.
pub(super) fn announce(keeps_stderr: bool) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    if !keeps_stderr {
        dup2_stderr(&null)?;
    }
    Ok(())
}
