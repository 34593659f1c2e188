//! A running WireGuard daemon: wg-bounce or another implementation.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::command::{Background, Outcome};
use super::keys::KeyPair;
use super::lab::{Lab, Namespace};
use super::uapi::socket_path;
use super::wait::{eventually, seconds};

/// The I/O backend of wg-bounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `--io uring`.
    Uring,
    /// `--io mmsg`.
    Mmsg,
}

impl Backend {
    /// The value of `--io`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Uring => "uring",
            Backend::Mmsg => "mmsg",
        }
    }
}

/// The relay mode of wg-bounce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayMode {
    /// `--relay kernel`.
    Kernel,
    /// `--relay direct`.
    Direct,
    /// `--relay auto`.
    Auto,
    /// `--tun off`: without an interface.
    Alone,
}

impl RelayMode {
    /// The environment variable that selects it.
    pub fn variable(self) -> (&'static str, &'static str) {
        match self {
            RelayMode::Alone => ("WG_BOUNCE_TUN", "off"),
            mode => ("WG_BOUNCE_RELAY", mode.name()),
        }
    }

    /// The value of `--relay`.
    pub fn name(self) -> &'static str {
        match self {
            RelayMode::Alone => panic!("it is not a value of --relay"),
            RelayMode::Kernel => "kernel",
            RelayMode::Direct => "direct",
            RelayMode::Auto => "auto",
        }
    }
}

/// A WireGuard implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// wg-bounce.
    Ours(Backend),
    /// Debian's wireguard-go.
    WireguardGo,
    /// boringtun-cli, installed by `scripts/peers`.
    Boringtun,
}

impl Program {
    /// The binary under test: `WG_BOUNCE_TEST_BINARY`, or the one built by cargo.
    pub fn under_test() -> PathBuf {
        let other = std::env::var_os("WG_BOUNCE_TEST_BINARY");
        other.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wg-bounce")), PathBuf::from)
    }

    fn path(self) -> PathBuf {
        match self {
            Program::Ours(_) => Program::under_test(),
            Program::WireguardGo => {
                let path = PathBuf::from("/usr/bin/wireguard-go");
                assert!(path.exists(), "no {path:?}: apt-get install wireguard-go");
                path
            }
            Program::Boringtun => {
                let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
                let path = target.join("peers/bin/boringtun-cli");
                assert!(path.exists(), "no {path:?}: run scripts/peers first");
                path
            }
        }
    }

    /// Environment variables set in every test.
    fn environment(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Program::Ours(backend) => {
                // Two workers, so that every test exercises steering and hand-off.
                vec![
                    ("LOG_LEVEL", "verbose"),
                    ("WG_BOUNCE_IO", backend.name()),
                    ("WG_BOUNCE_WORKERS", "2"),
                    ("WG_BOUNCE_RELAY", "kernel"),
                ]
            }
            Program::WireguardGo => vec![("LOG_LEVEL", "error")],
            Program::Boringtun => vec![("WG_LOG_LEVEL", "error")],
        }
    }

    /// Options that keep it in the foreground with its privileges.
    fn options(self) -> &'static [&'static str] {
        match self {
            Program::Ours(_) | Program::WireguardGo => &["-f"],
            Program::Boringtun => &["-f", "--disable-drop-privileges"],
        }
    }
}

/// A daemon in the foreground and its interface; killed when dropped.
pub struct Daemon {
    process: Background,
    /// The namespace it was started in.
    pub namespace: Namespace,
    /// Its interface.
    pub interface: String,
    /// Its key pair; the test decides when to configure the private key.
    pub key: KeyPair,
}

impl Daemon {
    /// Starts `program` for the interface of `role` and waits until both the interface and the
    /// control socket exist.
    #[track_caller]
    pub fn start(lab: &Lab, namespace: &Namespace, role: &str, program: Program) -> Daemon {
        Daemon::start_with(lab, namespace, role, program, &[])
    }

    /// Starts wg-bounce in a lab of its own.
    #[track_caller]
    pub fn alone(backend: Backend) -> (Daemon, Lab) {
        let lab = Lab::new();
        let namespace = lab.namespace("alone");
        let daemon = Daemon::start(&lab, &namespace, "alone", Program::Ours(backend));
        (daemon, lab)
    }

    /// As [`Daemon::start`], with more environment variables.
    #[track_caller]
    pub fn start_with(
        lab: &Lab,
        namespace: &Namespace,
        role: &str,
        program: Program,
        environment: &[(&str, &str)],
    ) -> Daemon {
        Daemon::start_under(&[], lab, namespace, role, program, environment)
    }

    /// As [`Daemon::start_with`], by way of a command that executes the one appended to it.
    #[track_caller]
    pub fn start_under(
        wrapper: &[&str],
        lab: &Lab,
        namespace: &Namespace,
        role: &str,
        program: Program,
        environment: &[(&str, &str)],
    ) -> Daemon {
        let interface = lab.interface(role);
        let path = program.path();
        let mut words = wrapper.iter().copied().chain([path.to_str().expect("UTF-8")]);
        let mut command = namespace.command(words.next().expect("a program"));
        command.args(words).args(program.options()).arg(&interface);
        command.envs(program.environment()).envs(environment.iter().copied());
        let title = format!("{program:?} as {role} ({interface})");
        let process = Background::spawn(command, &title, lab.file(role));
        let key = KeyPair::new();
        let mut daemon = Daemon { process, namespace: namespace.clone(), interface, key };
        eventually(seconds(10), &format!("{title} is ready"), || {
            let code = daemon.process.has_ended().then(|| daemon.process.exit_code());
            assert_eq!(code, None, "{title} exited instead of starting");
            // `wg` deletes a control socket that does not accept connections yet.
            let listens = || UnixStream::connect(socket_path(&daemon.interface)).is_ok();
            let is_alone = environment.contains(&RelayMode::Alone.variable());
            daemon.is_reachable() && listens() && (is_alone || daemon.has_interface())
        });
        daemon
    }

    /// Process id (the daemon stays in the foreground).
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Whether its interface exists in the namespace it was started in.
    pub fn has_interface(&self) -> bool {
        self.namespace.attempt(&format!("ip link show {}", self.interface)).is_ok()
    }

    /// Whether its control socket exists.
    pub fn is_reachable(&self) -> bool {
        socket_path(&self.interface).exists()
    }

    /// Whether it has exited.
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Waits for it to exit. Returns its exit code; `None` if a signal killed it.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// `wg set INTERFACE …`. Panics if it fails.
    #[track_caller]
    pub fn set(&self, arguments: &str) {
        self.namespace.run(&format!("wg set {} {arguments}", self.interface));
    }

    /// Configures the private key of [`Daemon::key`].
    #[track_caller]
    pub fn set_private_key(&self) {
        let line = format!("wg set {} private-key /dev/stdin", self.interface);
        self.namespace.run_with(&line, &self.key.private());
    }

    /// `wg show INTERFACE FIELD`: one line for the interface, or one per peer.
    #[track_caller]
    pub fn show(&self, field: &str) -> String {
        self.namespace.run(&format!("wg show {} {field}", self.interface))
    }

    /// `wg setconf`, `syncconf` or `addconf` with `text` as the file. Panics on failure.
    #[track_caller]
    pub fn configure(&self, verb: &str, text: &str) {
        self.try_configure(verb, text).expect_ok();
    }

    /// As [`Daemon::configure`], without the panic.
    pub fn try_configure(&self, verb: &str, text: &str) -> Outcome {
        let line = format!("wg {verb} {} /dev/stdin", self.interface);
        self.namespace.attempt_with(&line, text)
    }

    /// `wg showconf`.
    #[track_caller]
    pub fn showconf(&self) -> String {
        self.namespace.run(&format!("wg showconf {}", self.interface))
    }

    /// Adds addresses to the interface, sets its MTU and brings it up.
    #[track_caller]
    pub fn bring_up(&self, mtu: u32, addresses: &[&str]) {
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let line = format!("ip address add {address} dev {} {nodad}", self.interface);
            self.namespace.run(&line);
        }
        self.namespace.run(&format!("ip link set {} mtu {mtu} up", self.interface));
    }

    /// The value of `wg show INTERFACE FIELD` for one peer; empty if the peer is unknown.
    #[track_caller]
    pub fn of_peer(&self, field: &str, peer: &KeyPair) -> String {
        let text = self.show(field);
        let public = peer.public();
        let line = text.lines().find_map(|line| line.strip_prefix(&public));
        line.unwrap_or_default().trim().to_owned()
    }

    /// Time of the last handshake with a peer (seconds since the epoch); 0 if never.
    #[track_caller]
    pub fn handshake_with(&self, peer: &KeyPair) -> u64 {
        self.of_peer("latest-handshakes", peer).parse().expect("a number for each peer")
    }

    /// Bytes received from and sent to a peer.
    #[track_caller]
    pub fn transfer_with(&self, peer: &KeyPair) -> (u64, u64) {
        let text = self.of_peer("transfer", peer);
        let (received, sent) = text.split_once('\t').expect("two numbers for each peer");
        (received.parse().expect("a number"), sent.parse().expect("a number"))
    }

    /// A counter summed over all workers, from the report that SIGUSR1 makes the daemon log.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        const LAST: &str = "handshakes: counters:";
        let before = self.log().matches(LAST).count();
        self.signal(Signal::SIGUSR1);
        eventually(seconds(5), "the counters are logged", || {
            self.log().matches(LAST).count() > before
        });
        let log = self.log();
        let mut of_worker = std::collections::BTreeMap::new();
        for line in log.lines() {
            if let Some((head, values)) = line.split_once(": counters:")
                && let Some((_, worker)) = head.split_once(" worker ")
            {
                of_worker.insert(worker, values);
            }
        }
        let values = of_worker.values().flat_map(|values| values.split_whitespace());
        let named = values.filter_map(|value| value.strip_prefix(name)?.strip_prefix('='));
        named.map(|value| value.parse::<u64>().expect("a number")).sum()
    }

    /// CPU time of the control thread, which is the main one (clock ticks, 100 per second).
    pub fn control_ticks(&self) -> u64 {
        let path = format!("/proc/{0}/task/{0}/stat", self.pid());
        let stat = std::fs::read_to_string(path).expect("the daemon runs");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // utime and stime, proc_pid_stat(5).
        [11, 12].map(|field: usize| fields[field].parse::<u64>().expect("a number")).iter().sum()
    }

    /// CPU time of all its threads.
    pub fn cpu_time(&self) -> Duration {
        self.cpu_time_of("")
    }

    /// CPU time of the threads whose names begin with `prefix`.
    pub fn cpu_time_of(&self, prefix: &str) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        let threads = threads.expect("the daemon runs").flatten().filter(|thread| {
            let name = std::fs::read_to_string(thread.path().join("comm"));
            name.expect("a running thread").starts_with(prefix)
        });
        let times = threads.map(|thread| {
            // The first number is the time on the CPU (nanoseconds), proc_pid_schedstat(5).
            let text = std::fs::read_to_string(thread.path().join("schedstat"));
            let text = text.expect("a running thread");
            let number = text.split_whitespace().next().expect("three numbers");
            Duration::from_nanos(number.parse().expect("a number"))
        });
        times.sum()
    }

    /// Resident memory of the process (KiB, `VmRSS`).
    pub fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.expect("a process has memory").split_whitespace().next();
        number.expect("a number and a unit").parse().expect("a number")
    }
}
