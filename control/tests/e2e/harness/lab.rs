//! Network namespaces that live as long as the test.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::command::{Background, Outcome};

/// Labs created by this process; with the process id, this makes names unique.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Timeout of a command (seconds), so that a hanging test shows where it hangs.
const COMMAND_SECONDS_MAX: &str = "120";

/// The namespaces, files and processes of one test; dropping it removes them all.
pub struct Lab {
    prefix: String,
    number: u32,
    namespaces: RefCell<Vec<Namespace>>,
    files: Cell<u32>,
    directory: PathBuf,
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Lab {
        assert!(
            geteuid().is_root(),
            "end-to-end tests create network namespaces; run them as root with `sudo scripts/test`"
        );
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wgb-{}-{number}", std::process::id());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&prefix);
        std::fs::create_dir_all(&directory).expect("the target directory is writable");
        Lab { prefix, number, namespaces: RefCell::default(), files: Cell::new(0), directory }
    }

    /// Creates a namespace with loopback up and without what slows tests down: no duplicate address
    /// detection, no rate limit on ICMP errors, no redirects.
    pub fn namespace(&self, role: &str) -> Namespace {
        let namespace = Namespace { name: format!("{}-{role}", self.prefix) };
        host(&format!("ip netns add {}", namespace.name)).expect_ok();
        self.namespaces.borrow_mut().push(namespace.clone());
        namespace.run("ip link set lo up");
        for setting in [
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
            "net.ipv4.icmp_ratelimit=0",
            "net.ipv6.icmp.ratelimit=0",
        ] {
            namespace.sysctl(setting);
        }
        namespace
    }

    /// Creates a veth pair between two namespaces and brings it up.
    pub fn link(&self, left: (&Namespace, &str), right: (&Namespace, &str), mtu: u32) {
        let ((left, left_device), (right, right_device)) = (left, right);
        left.run(&format!(
            "ip link add {left_device} mtu {mtu} type veth peer name {right_device} mtu {mtu} \
             netns {}",
            right.name
        ));
        left.run(&format!("ip link set {left_device} up"));
        right.run(&format!("ip link set {right_device} up"));
    }

    /// An interface name that is unique among labs, since the control sockets of all namespaces
    /// share one directory. At most 15 characters.
    pub fn interface(&self, role: &str) -> String {
        let initial = &role[..1];
        format!("wb{:x}x{:x}{initial}", std::process::id(), self.number)
    }

    /// Starts a command in the background; its output goes to a file named after `title`.
    pub fn spawn(&self, command: Command, title: &str) -> Background {
        Background::spawn(command, title, self.file(title))
    }

    /// A path for a file that is removed with the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        let number = self.files.replace(self.files.get() + 1);
        self.directory.join(format!("{number}-{name}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces.borrow().iter() {
            for pid in namespace.processes() {
                // It may have exited already.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            host(&format!("ip netns del {}", namespace.name));
        }
        let ours = self.interface("-");
        let ours = ours.trim_end_matches('-');
        let directories = ["/var/run/wireguard", "/var/run/wg-bounce"].map(std::fs::read_dir);
        for entry in directories.into_iter().flatten().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(ours).is_some_and(|role| role.len() == "r.sock".len()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// One network namespace, by name; it belongs to a [`Lab`].
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes it before the lab ends.
    #[track_caller]
    pub fn delete(&self) {
        host(&format!("ip netns del {}", self.name)).expect_ok();
    }

    /// The ids of all processes in it.
    pub fn processes(&self) -> Vec<i32> {
        let text = host(&format!("ip netns pids {}", self.name)).stdout;
        text.lines().filter_map(|pid| pid.trim().parse().ok()).collect()
    }

    /// A command that runs `program` in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command line, split at spaces, and returns its standard output. Panics on failure.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.attempt(line).expect_ok()
    }

    /// Runs a command line that may fail.
    pub fn attempt(&self, line: &str) -> Outcome {
        self.attempt_with(line, "")
    }

    /// As [`Namespace::run`], with `input` on standard input.
    #[track_caller]
    pub fn run_with(&self, line: &str, input: &str) -> String {
        self.attempt_with(line, input).expect_ok()
    }

    /// As [`Namespace::attempt`], with `input` on standard input.
    pub fn attempt_with(&self, line: &str, input: &str) -> Outcome {
        let mut command = self.command("timeout");
        command.args(["--foreground", COMMAND_SECONDS_MAX]).args(line.split_whitespace());
        Outcome::of(command, input)
    }

    /// Starts a command line in the background.
    pub fn spawn(&self, lab: &Lab, line: &str) -> Background {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a program to run");
        let mut command = self.command(program);
        command.args(words);
        Background::spawn(command, line, lab.file(program))
    }

    /// Sets a kernel parameter of this namespace, `name=value`.
    #[track_caller]
    pub fn sysctl(&self, setting: &str) {
        self.run(&format!("sysctl -qw {setting}"));
    }

    /// Runs `work` on a thread in the namespace; sockets it opens stay in that namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace permanently.
    pub fn join(&self) {
        let file = File::open(format!("/var/run/netns/{}", self.name)).expect("made by the lab");
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
    }

    /// A UDP socket bound in the namespace.
    #[track_caller]
    pub fn udp_socket(&self, local: &str) -> UdpSocket {
        let local: SocketAddr = local.parse().expect("an address and a port");
        self.enter(|| UdpSocket::bind(local))
            .unwrap_or_else(|error| panic!("cannot bind {local} in {}: {error}", self.name))
    }
}

/// Runs a command outside all namespaces.
fn host(line: &str) -> Outcome {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program to run"));
    command.args(words);
    Outcome::of(command, "")
}
