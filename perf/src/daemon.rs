//! A WireGuard daemon in its namespace, as a black box configured with `wg`.

use std::time::Duration;

use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::{self, POLL};
use crate::namespace::Namespace;
use crate::process::{Process, STEP_LIMIT};

/// Interface name of every daemon: each has a namespace and a /run of its own.
pub const INTERFACE: &str = "wg0";

/// Payload that WireGuard leaves of an Ethernet frame's 1500 bytes, over IPv6 too.
pub const MTU: u32 = 1420;

/// UDP port of every daemon.
pub const PORT: u16 = 51820;

/// A running daemon; it ends when this is dropped.
pub struct Daemon {
    // Dropped in this order: the daemon ends before its namespace.
    /// None if the kernel itself is measured: its interface ends with the namespace.
    process: Option<Process>,
    program: Program,
    /// Its namespace.
    pub namespace: Namespace,
}

impl Daemon {
    /// Starts `program` in a namespace, on one `core` only if given, and waits until it answers
    /// `wg`. The kernel cannot be confined to a core.
    pub fn start(
        program: &Program,
        namespace: Namespace,
        core: Option<usize>,
    ) -> Result<Daemon, Failure> {
        let mut daemon = Daemon { process: None, program: program.clone(), namespace };
        let namespace = &daemon.namespace;
        if program.is_kernel() {
            namespace.run(&format!("ip link add name {INTERFACE} type wireguard"))?;
            return Ok(daemon);
        }
        let path = program.path.to_string_lossy();
        let mut command = namespace.command(if core.is_some() { "taskset" } else { &path });
        if let Some(core) = core {
            command.args(["--cpu-list", &core.to_string(), &path]);
        }
        program.complete(&mut command, INTERFACE);
        let title = format!("{} as {}", program.choice, namespace.role);
        daemon.process = Some(Process::spawn(command, &title, "")?);
        interrupt::wait_until(POLL, STEP_LIMIT, &format!("{title}: its answer to `wg`"), || {
            daemon.check()?;
            Ok(daemon.namespace.run(&format!("wg show {INTERFACE}")).is_ok())
        })?;
        Ok(daemon)
    }

    /// Gives it its private key and peers with `wg setconf`, and brings its interface up, if it has
    /// one, with its addresses. Returns how long `wg setconf` took; fails if it took longer than
    /// `limit`.
    pub fn configure(
        &self,
        private_key: &str,
        peers: &str,
        addresses: &[String],
        limit: Duration,
    ) -> Result<Duration, Failure> {
        let text = format!("[Interface]\nPrivateKey = {private_key}\nListenPort = {PORT}\n{peers}");
        let line = format!("wg setconf {INTERFACE} /dev/stdin");
        let took = self.namespace.time("`wg setconf`", &line, &text, limit)?;
        // With `--tun off` there is none, and the relay needs no addresses.
        if self.namespace.run(&format!("ip link show {INTERFACE}")).is_ok() {
            self.namespace.bring_up(INTERFACE, addresses, &format!("mtu {MTU}"))?;
        }
        Ok(took)
    }

    /// Process id; none if it is the kernel.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The log lines that say how it runs; empty if it prints none.
    pub fn told(&self) -> Vec<String> {
        let log = self.process.as_ref().map(Process::stderr).unwrap_or_default();
        log.lines().filter_map(|line| self.program.told(line)).map(str::to_owned).collect()
    }

    /// Fails if the daemon has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if process.has_ended() { Err(process.failure("ended unexpectedly")) } else { Ok(()) }
    }
}
