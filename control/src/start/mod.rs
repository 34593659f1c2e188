//! From the command line to a running daemon, and its end.
//!
//! 1. Read the options; without `--foreground`, hand over to a child in the background and wait
//!    until it is ready (`background`).
//! 2. Close inherited descriptors, harden the process, block the signals that `runtime` reads.
//! 3. Create the interface and the socket, then give up the privileges that are not needed later.
//! 4. Start the threads: workers, link monitor, relay policy; bind a UDP port.
//! 5. Report readiness to the parent and the service manager, and run.

mod background;
mod failure;
mod memory;
mod privileges;
mod process;

use std::env;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::{CommandFactory as _, FromArgMatches as _, Subcommand as _};
use getrandom::SysRng;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use rand_core::UnwrapErr;
use wg_bounce_dataplane::engine::{self, Engine};
use wg_bounce_sys::tun::{Tun, TunHandle};
use wg_bounce_sys::{clock, inherit};

use crate::commands::Command;
use crate::device::{Device, Settings, Timings};
use crate::limits::{NAME_WAIT_MAX, NAME_WAIT_PAUSE};
use crate::link::LinkWatcher;
use crate::logging;
#[cfg(feature = "metrics")]
use crate::metrics::{self, server::Listener, server::Place};
use crate::noise::Dh;
use crate::notify;
use crate::options::Options;
#[cfg(feature = "metrics")]
use crate::options::Switch;
use crate::relay_policy::mode::Mode;
use crate::relay_policy::watch::{self, Lanes};
use crate::runtime::{Components, Ending, Pool, Runtime};
use crate::socket_paths;
use crate::state_file::StateFile;
use crate::status::Host;
use crate::status::server::{self, Asker};
use crate::uapi_server;
use crate::uapi_server::requests::{Limits, RuntimeHandle};
use crate::uapi_server::socket::SocketFile;
use failure::Failure;

/// The program. Exit codes: 0 after an orderly exit, 1 if the daemon could not start or failed, 2
/// for wrong usage.
pub fn main() -> ExitCode {
    let mut command = Command::augment_subcommands(Options::command())
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true);
    let matches = match Options::matches(&mut command) {
        Ok(matches) => matches,
        Err(error) => return ExitCode::from(error.print()),
    };
    let socket_dir = matches.try_get_one::<PathBuf>("socket_dir").ok().flatten();
    let of_command = matches
        .subcommand()
        .and_then(|(_, of_command)| of_command.try_get_one::<PathBuf>("socket_dir").ok().flatten());
    if let Some(directory) = of_command.or(socket_dir) {
        socket_paths::set_base(directory);
    }
    if matches.subcommand().is_some() {
        return match Command::from_arg_matches(&matches) {
            Ok(found) => found.run(command),
            Err(error) => error.exit(),
        };
    }
    let options = match Options::new(&mut command, &matches) {
        Ok(options) => options,
        Err(error) => return ExitCode::from(error.print()),
    };
    let is_command = command.get_subcommands().any(|one| one.get_name() == options.name);
    if is_command && !env::args_os().any(|argument| argument == "--") {
        let name = &options.name;
        eprintln!(
            "wg-bounce: {name} is a command: write it before its options; write -- before an \
             interface called {name}"
        );
        return ExitCode::from(2);
    }
    if options.show_options {
        print!("{}", options.report(&engine_options(&options), cpus()));
        return ExitCode::SUCCESS;
    }
    let is_child = background::is_child();
    let result = if is_child || options.stays_in_foreground() {
        logging::start(options.level().0, &options.name);
        run(&options, is_child)
    } else {
        background::start().map_err(Failure::Background)
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("wg-bounce: {}: {failure}", options.name);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, is_child: bool) -> Result<ExitCode, Failure> {
    // First, while this process has no descriptors of its own.
    process::close_inherited(&options.inherited.descriptors());
    if is_child {
        background::detach().map_err(Failure::Background)?;
    }
    process::harden();
    let signals = process::block_signals().map_err(Failure::system("block signals"))?;
    for line in options.chosen() {
        log::debug!("option set: {line}");
    }

    let dh = Dh::new(options.dh).map_err(Failure::Dh)?;
    let engine_options = engine_options(options);
    let workers = engine_options.workers;
    let (tun, interface) = match options.is_alone() {
        true => (Tun::absent(workers).map_err(Failure::system("create an eventfd"))?, None),
        false => {
            let tun = open_tun(options, workers, engine_options.tun_offload)?;
            let interface = Interface::of(&tun)?;
            (tun, Some(interface))
        }
    };
    let name = interface.as_ref().map_or(&options.name, |interface| &interface.name).clone();
    logging::set_interface(&name);
    let (listener, socket) = open_socket(options, &name)?;
    let status = open_status_socket(&name);
    #[cfg(feature = "metrics")]
    let metrics = options.metrics.as_ref().map(open_metrics).transpose()?;
    let state = options.state_dir().and_then(|directory| open_state(directory, &name));
    // Before the first thread: each thread has privileges of its own.
    privileges::reduce(&socket_paths::uapi());
    let parent = process::end_with_parent().map_err(Failure::system("watch the parent"))?;
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(io::Error::from)
        .map_err(Failure::system("create an eventfd"))?;
    let wake = Arc::new(wake);
    let (engine, events) =
        Engine::start(&engine_options, tun, Arc::clone(&wake)).map_err(Failure::Engine)?;
    let (of_link, of_watch) =
        interface.map(|interface| (interface.of_link, interface.of_watch)).unzip();
    let link = of_link.map_or_else(|| Ok(LinkWatcher::absent(&name)), LinkWatcher::open);
    let link = match link {
        Ok(link) => link,
        // The interface was deleted already: an orderly exit, if an early one.
        Err(error) if error.raw_os_error() == Some(Errno::EBADFD as i32) => {
            engine.stop();
            log::info!("interface {name}: daemon exits ({})", Ending::InterfaceDeleted);
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(Failure::system("monitor the interface")(error)),
    };
    let (handle, requests) = RuntimeHandle::new(Arc::clone(&wake));
    let (asker, reports) = Asker::new(Arc::clone(&wake));

    let mut device = new_device(options, dh, workers);
    if let Some(file) = &state {
        recall(&mut device, file);
    }
    let state_writer = state.map(StateFile::start_writer).transpose();
    let state_writer = state_writer.map_err(Failure::system("spawn a thread"))?;
    let helpers = options.handshake_threads(cpus());
    let pool = Pool::start(helpers, Arc::clone(&wake), engine.cookie_sender());
    let pool = pool.map_err(Failure::system("spawn a thread"))?;
    let watch = |handle| watch_relay_policy(options.relay, handle, workers, &wake);
    let relay_policy = of_watch.map(watch).transpose()?.flatten();
    let relay_mode = options.relay;
    let (status_listener, status_file) = status.unzip();
    let components = Components {
        engine,
        events,
        device,
        pool,
        link,
        relay_mode,
        relay_policy,
        socket,
        requests,
        reports,
        status: status_file,
        state_writer,
        wake,
        parent,
        signals,
    };
    log::info!("interface {name}, {}", components.describe());
    // With `wg-bounce up`, it comes together with the configuration.
    let host = Host { addresses: options.address.clone(), mtu: options.mtu.into() };
    let host = parent.is_none().then_some(host);
    let mut runtime =
        Runtime::new(components, host).map_err(Failure::system("open UDP sockets"))?;
    uapi_server::start(listener, handle, Limits::new(clock::boot_time))
        .map_err(Failure::system("spawn a thread"))?;
    #[cfg(feature = "metrics")]
    if let Some(listener) = metrics {
        let has_names = options.metrics_names == Switch::On;
        metrics::server::start(listener, asker.clone(), has_names)
            .map_err(Failure::system("spawn a thread"))?;
    }
    if let Some(listener) = status_listener {
        server::start(listener, asker).map_err(Failure::system("spawn a thread"))?;
    }

    if is_child {
        let (_, is_level_chosen) = options.level();
        background::announce(is_level_chosen).map_err(Failure::Background)?;
    }
    notify::notify(notify::READY);
    let ending = runtime.run();
    notify::notify(notify::STOPPING);
    let name = runtime.name().to_owned();
    runtime.stop();
    match ending {
        Ending::Failed(reason) => Err(Failure::Ended(reason)),
        orderly => {
            log::info!("interface {name}: daemon exits ({orderly})");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The options of the engine on this machine.
fn engine_options(options: &Options) -> engine::Options {
    let memory = memory::limit();
    let chosen = options.engine(cpus(), memory);
    log::debug!("process: may use {} MiB of memory: {:?}", memory >> 20, chosen.sizes);
    chosen
}

/// The CPUs that this process may use.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The interface's name, and the handles for those who monitor it.
struct Interface {
    name: String,
    of_link: TunHandle,
    of_watch: TunHandle,
}

impl Interface {
    fn of(tun: &Tun) -> Result<Interface, Failure> {
        let name = tun.name().map_err(Failure::system("read the interface's name"))?;
        let keep = || tun.handle().map_err(Failure::system("duplicate the TUN file descriptor"));
        Ok(Interface { name, of_link: keep()?, of_watch: keep()? })
    }
}

fn open_tun(options: &Options, queues: usize, offload: bool) -> Result<Tun, Failure> {
    let Some(number) = options.inherited.tun_fd else {
        let name = &options.name;
        // An interface without a socket is not one of a daemon that ends.
        let may_end = || SocketFile::path(&socket_paths::uapi(), name).exists();
        return wait_for_name(may_end, || {
            Tun::create(name, queues, offload)
                .map_err(|error| Failure::tun(error, privileges::has_net_admin()))
        });
    };
    inherit::take(number)
        .and_then(|fd| Tun::from_fd(fd, offload))
        .map_err(|source| Failure::TunDescriptor { number, source })
}

/// Repeats `attempt` while the name is taken and its holder `may_end`, for a bounded time: a daemon
/// that was just killed, or whose interface was just deleted, is about to free the name.
fn wait_for_name<T>(
    may_end: impl Fn() -> bool,
    attempt: impl Fn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let deadline = clock::boot_time() + NAME_WAIT_MAX;
    loop {
        match attempt() {
            Err(failure)
                if failure.is_name_taken() && clock::boot_time() < deadline && may_end() =>
            {
                thread::sleep(NAME_WAIT_PAUSE);
            }
            result => return result,
        }
    }
}

fn watch_relay_policy(
    mode: Mode,
    handle: TunHandle,
    workers: usize,
    wake: &Arc<EventFd>,
) -> Result<Option<Lanes>, Failure> {
    let start = || watch::start(handle, mode, workers, Arc::clone(wake));
    let started = (mode != Mode::Kernel).then(start).transpose();
    started.map_err(Failure::system("spawn a thread"))
}

fn open_socket(options: &Options, name: &str) -> Result<(UnixListener, SocketFile), Failure> {
    let directory = &socket_paths::uapi();
    let Some(number) = options.inherited.uapi_fd else {
        let listen = || SocketFile::listen(directory, name).map_err(Failure::Socket);
        return wait_for_name(|| true, listen);
    };
    let fd =
        inherit::take(number).map_err(|source| Failure::SocketDescriptor { number, source })?;
    SocketFile::inherit(fd, directory, name).map_err(Failure::Socket)
}

/// The status socket. The daemon works without it, as in a container with a read-only /run.
fn open_status_socket(name: &str) -> Option<(UnixListener, SocketFile)> {
    match SocketFile::listen(&socket_paths::status(), name) {
        Ok(socket) => Some(socket),
        Err(error) => {
            log::warn!("no status socket, so wg-bounce show does not work: {error}");
            None
        }
    }
}

#[cfg(feature = "metrics")]
fn open_metrics(place: &Place) -> Result<Listener, Failure> {
    let listener = Listener::open(place)
        .map_err(|source| Failure::Metrics { place: place.to_string(), source })?;
    log::info!("metrics: {place}");
    Ok(listener)
}

/// The state file. The daemon works without it.
fn open_state(directory: &Path, name: &str) -> Option<StateFile> {
    let file = StateFile::new(directory, name);
    file.inspect_err(|error| {
        log::warn!("state directory {}: cannot create it: {error}", directory.display());
    })
    .ok()
}

/// Lets the device shake hands with the peers in the state file.
fn recall(device: &mut Device, file: &StateFile) {
    match file.read(clock::wall_time()) {
        Ok(peers) if peers.is_empty() => {}
        Ok(peers) => {
            log::info!("state file: peers that had a session: {}", peers.len());
            device.remember(peers.into_iter(), clock::boot_time());
        }
        Err(error) => log::warn!("state file {}: ignored: {error}", file.path().display()),
    }
}

fn new_device(options: &Options, dh: Dh, workers: usize) -> Device {
    let timings = match options.test_timers {
        Some(divisor) => {
            log::warn!("timers: all protocol intervals divided by {divisor} (for tests only)");
            Timings::shortened(divisor)
        }
        None => Timings::default(),
    };
    // The kernel's generator: without it no key can be created, so a failure is fatal.
    let rng = Box::new(UnwrapErr(SysRng));
    Device::new(Settings { workers, timings, dh }, rng)
}
