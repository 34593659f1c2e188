//! Commands: run to completion with captured output, or in the background until dropped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{eventually, seconds, within};

/// The result of a finished command.
#[derive(Debug)]
pub struct Outcome {
    /// The command line.
    pub line: String,
    /// Its exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs `command` with `input` on its standard input.
    pub fn of(mut command: Command, input: &str) -> Outcome {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let line = format!("{} {}", command.get_program().to_string_lossy(), words.join(" "));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
        let mut stdin = child.stdin.take().expect("piped");
        // A command may exit without reading its input: the write error is ignored.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output().expect("a child can be waited for")
        });
        Outcome {
            line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether the command ended with exit code 0.
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The standard output; panics unless the command succeeded.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.is_ok(), "`{}` failed: {self:#?}", self.line);
        self.stdout
    }
}

/// A background process with its output in a file; killed when dropped.
pub struct Background {
    child: Child,
    output: PathBuf,
    title: String,
}

impl Background {
    /// Starts `command` with both outputs in the file `output`.
    pub fn spawn(mut command: Command, title: &str, output: PathBuf) -> Background {
        let file = File::create(&output).expect("the lab's directory is writable");
        let errors = file.try_clone().expect("a file can be duplicated");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {title} ({command:?}): {error}"));
        Background { child, output, title: title.to_owned() }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        read(&self.output)
    }

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("our own child can be signalled");
    }

    /// Waits up to ten seconds for it to exit. Returns its exit code; `None` if a signal killed it.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        eventually(seconds(10), &format!("{} ends", self.title), || self.has_ended());
        self.child.wait().expect("it has ended").code()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::SIGTERM);
            if !within(seconds(3), || self.has_ended()) {
                self.signal(Signal::SIGKILL);
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<_> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- last lines of {}\n{last}\n---", self.title);
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
