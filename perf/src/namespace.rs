//! Network namespaces without a name: each exists as long as a process is inside, and every
//! process inside ends with this one. So nothing can be left behind, and nothing can collide.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, while_doing};
use crate::interrupt::Interrupt;
use crate::process::{Process, STEP_LIMIT, tied};

/// What the process that holds a namespace does. A /run of its own, so that the daemons' control
/// sockets are in nobody's way; `cat` ends when its standard input is closed, which the kernel
/// does when this process dies.
const HOLDER: &str = "mount -t tmpfs -o mode=755 tmpfs /var/run && \
    mkdir -m 700 /var/run/wireguard && ip link set lo up && echo ready && exec cat";

/// Makes a namespace's kernel a router. Redirects: it would tell the senders of a shorter way that
/// does not exist.
pub const FORWARDING: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0";

/// A network namespace with loopback up, and its own /run.
pub struct Namespace {
    role: &'static str,
    holder: Child,
    stdin: Option<ChildStdin>,
    interrupt: Interrupt,
}

impl Namespace {
    /// Makes one; failures call it by its role.
    pub fn new(role: &'static str, interrupt: &Interrupt) -> Result<Namespace, Failure> {
        let mut command = tied("unshare");
        command.args(["--net", "--mount", "sh", "-c", HOLDER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut holder =
            command.spawn().map_err(while_doing("starting `setpriv` (of util-linux)"))?;
        let stdin = holder.stdin.take();
        let stdout = holder.stdout.take().expect("piped");
        let namespace = Namespace { role, holder, stdin, interrupt: interrupt.clone() };
        let mut line = String::new();
        match BufReader::new(stdout).read_line(&mut line) {
            Ok(_) if line == "ready\n" => Ok(namespace),
            _ => Err(Failure::step("cannot make a network namespace: see above")),
        }
    }

    /// What failures call it.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// What ends the waiting inside.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The process that holds it: what `ip` takes for the `netns` of a device.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// `program`, to be run inside. It must be found by its absolute path or on the PATH; its
    /// environment is empty but for the PATH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tied("nsenter");
        command.args(["--net", "--mount", &format!("--target={}", self.pid()), program]);
        command.env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }

    /// Runs a command line (words parted by spaces); its standard output.
    pub fn run(&self, line: &str) -> Result<String, Failure> {
        self.run_with(line, "", STEP_LIMIT)
    }

    /// Runs a command line with `input` on its standard input, for at most `limit`.
    pub fn run_with(&self, line: &str, input: &str, limit: Duration) -> Result<String, Failure> {
        let (command, title) = self.words(line);
        Process::run(command, &title, input, limit, &self.interrupt)
    }

    /// Runs a command line with `input` on its standard input; how long that took (to the
    /// millisecond). None if it has not ended within `limit`.
    pub fn time(
        &self,
        line: &str,
        input: &str,
        limit: Duration,
    ) -> Result<Option<Duration>, Failure> {
        let (command, title) = self.words(line);
        Process::time(command, &title, input, limit, &self.interrupt)
    }

    /// Starts a command line in the background.
    pub fn spawn(&self, line: &str) -> Result<Process, Failure> {
        let (command, title) = self.words(line);
        Process::spawn(command, &title, "")
    }

    /// Waits until a command line succeeds.
    pub fn run_until_ok(&self, line: &str) -> Result<(), Failure> {
        let title = format!("`{line}` succeeds in {}", self.role);
        self.interrupt.wait_until(STEP_LIMIT, &title, || match self.run(line) {
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            outcome => Ok(outcome.is_ok()),
        })
    }

    fn words(&self, line: &str) -> (Command, String) {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program to run"));
        command.args(words);
        (command, format!("`{line}` in {}", self.role))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.holder.wait();
    }
}
