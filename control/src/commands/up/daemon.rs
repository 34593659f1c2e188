//! The daemon as a child process: started, asked, stopped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use std::{env, fs, thread};

use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wg_bounce_sys::{clock, inherit};
use wg_bounce_uapi::render::render_set;
use wg_bounce_uapi::types::{Change, Errno, SetRequest};

use super::plan::Peers;
use super::{requests, running};
use crate::commands::client::{self, Reply};
use crate::config_file::state::State;
use crate::limits::{DAEMON_END_TIME_MAX, NAME_WAIT_MAX, NAME_WAIT_PAUSE};
use crate::notify;
use crate::socket_paths;
use crate::status;
use crate::status::client as client_of_status;
use crate::uapi_server::socket::SocketFile;

/// The environment variable with the process id of the parent, with which the daemon ends.
pub(crate) const PARENT: &str = "WG_BOUNCE_PARENT";

/// Environment variables that are about this process alone.
const OF_CALLER: [&str; 6] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WG_TUN_FD",
    "WG_UAPI_FD",
    "WG_BOUNCE_BACKGROUND_CHILD",
];

/// Messages that are read in one go.
const MESSAGES_MAX: usize = 64;

/// Interval of the checks whether the daemon has failed to start.
const PAUSE: Duration = Duration::from_millis(20);

/// The options of a daemon.
pub(super) struct DaemonOptions {
    /// All of them, for its command line.
    pub flags: Vec<String>,
    /// It has no interface (`--tun off`).
    pub is_alone: bool,
}

/// A running daemon.
pub(super) struct Daemon {
    child: Child,
    interface: String,
    /// Its messages for the service manager.
    messages: UnixDatagram,
    /// The path of that socket.
    path: PathBuf,
}

impl Daemon {
    /// Starts it with these options, and waits until its interface and socket exist.
    ///
    /// # Errors
    /// It cannot be run, or has ended. It has logged the reason.
    pub fn start(interface: &str, options: &[String]) -> Result<Daemon, String> {
        let failed = |error: io::Error| format!("cannot start the daemon: {error}");
        // In a directory of root's own: others could take an abstract address first, or send to it.
        let path = requests::private_path(interface, "notify");
        let _ = fs::remove_file(&path); // of a process that was killed
        let messages = UnixDatagram::bind(&path).map_err(failed)?;
        messages.set_nonblocking(true).map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(env::args_os().next().unwrap_or_else(|| "wg-bounce".into()));
        command.arg("--foreground").args(options).arg("--").arg(interface);
        command.env("NOTIFY_SOCKET", &path);
        command.env(PARENT, std::process::id().to_string());
        command.env("WG_BOUNCE_SOCKET_DIR", socket_paths::base());
        for descriptor in OF_CALLER {
            command.env_remove(descriptor);
        }
        // The terminal's signals are for this process, which then stops the daemon.
        let child = inherit::unblock_signals(command.process_group(0)).spawn().map_err(failed)?;
        let mut daemon = Daemon { child, interface: interface.to_owned(), messages, path };
        while !daemon.read_messages() {
            if daemon.has_ended().is_some() {
                return Err("the daemon did not start".to_owned());
            }
            daemon.pause();
        }
        Ok(daemon)
    }

    /// Reads its messages: passes its status on to the service manager, and returns whether it has
    /// become ready.
    pub fn read_messages(&self) -> bool {
        let mut is_ready = false;
        let mut buffer = [0; 4096];
        for _ in 0..MESSAGES_MAX {
            let Ok(length) = self.messages.recv(&mut buffer) else { break };
            let text = String::from_utf8_lossy(&buffer[..length]);
            for line in text.lines() {
                is_ready |= line == notify::READY;
                if line.starts_with("STATUS=") {
                    notify::notify(line);
                }
            }
        }
        is_ready
    }

    /// Its exit status, if it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_some() {
            return;
        }
        // It may end meanwhile: its number stays its own until it is waited for.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Its state.
    ///
    /// # Errors
    /// It does not answer.
    pub fn state(&self) -> Result<State, String> {
        let reply = self.ask("get=1\n\n")?;
        running::read(&reply.lines)
    }

    /// Changes its configuration.
    ///
    /// # Errors
    /// It does not answer, or refuses. It has logged the reason.
    pub fn change(&self, changes: Vec<Change>) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        let reply = self.ask(&render_set(&SetRequest { changes, rejected: None }))?;
        match reply.errno {
            Errno::OK => Ok(()),
            Errno::DENIED => Err("the daemon may not use this ListenPort: one below 1024 takes \
                                  CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start)"
                .to_owned()),
            Errno::NOT_PERMITTED => Err("the daemon may not set FwMark, which takes \
                                         CAP_NET_ADMIN: remove it from the file"
                .to_owned()),
            Errno::ADDRESS_IN_USE => {
                Err("the UDP port of ListenPort is in use: see ss -lunp".to_owned())
            }
            Errno(number) => {
                let error = io::Error::from_raw_os_error(number.wrapping_neg());
                Err(format!("the daemon refuses the configuration: {error}"))
            }
        }
    }

    /// Tells it the names of the peers, for its log and its reports.
    pub fn name(&self, peers: &Peers<'_>) {
        if let Err(error) = client_of_status::name_peers(&self.interface, peers) {
            log::warn!("the daemon does not learn the names of peers: {error}");
        }
    }

    /// Makes the hub a host with these addresses and this MTU, where it has no interface.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn set_host(&self, addresses: Vec<IpNet>, mtu: u32) -> Result<(), String> {
        let host = status::Host { addresses, mtu: mtu as usize };
        client_of_status::ask(&self.interface, status::Verb::Host(host))
            .map(drop)
            .map_err(|error| format!("the daemon does not take its addresses: {error}"))
    }

    fn ask(&self, request: &str) -> Result<Reply, String> {
        let path = SocketFile::path(&socket_paths::uapi(), &self.interface);
        client::ask(&path, request)
            .map_err(|error| format!("the daemon does not answer: {}: {error}", path.display()))
    }

    /// Stops it and waits for its end; kills it if that takes too long.
    pub fn stop(&mut self) {
        let deadline = clock::uptime() + DAEMON_END_TIME_MAX;
        while self.has_ended().is_none() {
            // Again and again: one that is pending hides another one, and its sender.
            self.signal(Signal::SIGTERM);
            if clock::uptime() > deadline {
                log::error!("the daemon does not end: it is killed");
                self.signal(Signal::SIGKILL);
                let _ = self.child.wait();
                break;
            }
            self.read_messages();
            self.pause();
        }
        let _ = fs::remove_file(&self.path);
    }

    /// Waits for a message, or for a short time.
    fn pause(&self) {
        let mut descriptors = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut descriptors, timeout);
    }
}

/// Waits for a short time until no interface has this name: a process that was killed may be about
/// to free it.
pub(super) fn wait_until_free(interface: &str) -> Result<(), String> {
    let deadline = clock::boot_time() + NAME_WAIT_MAX;
    while if_nametoindex(interface).is_ok() {
        if clock::boot_time() > deadline {
            return Err(format!(
                "an interface {interface} exists already: see ip link show {interface}"
            ));
        }
        thread::sleep(NAME_WAIT_PAUSE);
    }
    Ok(())
}

impl AsFd for Daemon {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.messages.as_fd()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}
