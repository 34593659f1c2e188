//! Unnamed network namespaces: each exists as long as a process inside it, and every process inside
//! ends with this one. Nothing can be left behind, and nothing can collide.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::failure::{Failure, while_doing};
use crate::process::{Process, STEP_LIMIT, tied};

/// The process that holds a namespace. It has its own /run for the daemons' control sockets; `cat`
/// ends when its standard input is closed, which the kernel does when this process dies.
const HOLDER: &str = "mount -t tmpfs -o mode=755 tmpfs /var/run && \
    mkdir -m 700 /var/run/wireguard && ip link set lo up && echo ready && exec cat";

/// Turns a namespace's kernel into a router. Without redirects: they would tell the senders of a
/// shorter path that does not exist.
pub const FORWARDING: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0";

/// A network namespace with loopback up, and its own /run.
pub struct Namespace {
    /// Its name in failures and records.
    pub role: &'static str,
    holder: Child,
    stdin: Option<ChildStdin>,
}

impl Namespace {
    /// Creates one; failures call it by its role.
    pub fn new(role: &'static str) -> Result<Namespace, Failure> {
        let mut command = tied("unshare");
        command.args(["--net", "--mount", "sh", "-c", HOLDER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let start = while_doing("cannot start `setpriv` (of util-linux)");
        let mut holder = command.spawn().map_err(start)?;
        let stdin = holder.stdin.take();
        let stdout = holder.stdout.take().expect("piped");
        let namespace = Namespace { role, holder, stdin };
        let mut line = String::new();
        match BufReader::new(stdout).read_line(&mut line) {
            Ok(_) if line == "ready\n" => Ok(namespace),
            _ => Err(Failure::step("cannot create a network namespace: see above")),
        }
    }

    /// The process that holds it: `ip` takes this as the `netns` of a device.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs `program` (an absolute path, or on the PATH) inside. Its environment is
    /// empty except for the PATH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tied("nsenter");
        command.args(["--net", "--mount", &format!("--target={}", self.pid()), program]);
        command.env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }

    /// Runs a command line (words separated by spaces) and returns its standard output.
    pub fn run(&self, line: &str) -> Result<String, Failure> {
        self.run_within(line, STEP_LIMIT)
    }

    /// Runs a command line for at most `limit` and returns its standard output.
    pub fn run_within(&self, line: &str, limit: Duration) -> Result<String, Failure> {
        let (command, title) = self.words(line);
        Process::run(command, &title, limit)
    }

    /// Runs a command line with `input` on its standard input for at most `limit` and returns how
    /// long that took. Failures call it `title`.
    pub fn time(
        &self,
        title: &str,
        line: &str,
        input: &str,
        limit: Duration,
    ) -> Result<Duration, Failure> {
        Process::time(self.words(line).0, title, input, limit)
    }

    /// Starts a command line in the background.
    pub fn spawn(&self, line: &str) -> Result<Process, Failure> {
        let (command, title) = self.words(line);
        Process::spawn(command, &title, "")
    }

    /// Adds a veth pair to another namespace: `name` here, `peer_name` there, each with its
    /// addresses, and brings both ends up.
    pub fn link(
        &self,
        (name, addresses): (&str, &[String]),
        peer: &Namespace,
        (peer_name, peer_addresses): (&str, &[String]),
    ) -> Result<(), Failure> {
        let pid = peer.pid();
        let line = format!("ip link add name {name} type veth peer name {peer_name} netns {pid}");
        self.run(&line)?;
        self.bring_up(name, addresses, "")?;
        peer.bring_up(peer_name, peer_addresses, "")
    }

    /// Gives an interface its addresses (with prefix length) and brings it up, with `more` options.
    pub fn bring_up(&self, name: &str, addresses: &[String], more: &str) -> Result<(), Failure> {
        for address in addresses {
            let more = if address.contains(':') { "nodad" } else { "" };
            self.run(&format!("ip address add {address} dev {name} {more}"))?;
        }
        self.run(&format!("ip link set {name} {more} up")).map(drop)
    }

    /// Opens sockets inside, in a thread that alone enters the namespace.
    pub fn open<S: Send>(&self, open: impl FnOnce() -> io::Result<S> + Send) -> Result<S, Failure> {
        let place = format!("/proc/{}/ns/net", self.pid());
        let enter_and_open = || {
            setns(File::open(&place)?, CloneFlags::CLONE_NEWNET)?;
            open()
        };
        let opened =
            thread::scope(|scope| scope.spawn(enter_and_open).join().expect("it does not panic"));
        opened.map_err(while_doing("cannot open the generator's sockets"))
    }

    fn words(&self, line: &str) -> (Command, String) {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program to run"));
        command.args(words);
        (command, format!("`{}` in {}", line.trim(), self.role))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.holder.wait();
    }
}
