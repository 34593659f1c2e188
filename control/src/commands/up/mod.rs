//! `wg-bounce up`: an interface from its configuration file, in the foreground, as wg-quick(8)
//! would set it up, and the requests `down`, `reload` and `save` to it.
//!
//! Two processes: this one keeps its privileges, for hooks, addresses, routes, DNS and the file,
//! and reads no packet; the daemon is its child, which drops privileges as ever ([`daemon`]).
//!
//! [`tunnel`] brings the interface up, reloads it and takes it down; [`plan`] computes its routes
//! and the requests for the daemon, [`host`] (rtnetlink), [`leak_guard`] (nftables), [`dns`] and
//! [`hooks`] change the host, and [`names`] resolves host names.

mod daemon;
mod default_route;
mod dns;
mod hooks;
mod host;
mod leak_guard;
mod names;
mod plan;
mod requests;
mod running;
mod signals;
mod tunnel;

use std::io;
use std::os::fd::AsFd;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use wg_bounce_sys::clock;

use super::answer::Failure;
use super::check;
use super::file::{ConfigFile, Editor};
use crate::config_file::model::Config;
use crate::config_file::quote::printable;
use crate::config_file::read;
use crate::config_file::save::with_running;
use crate::logging;
use crate::notify;
use crate::options::Options;
use crate::socket_paths;
use daemon::DaemonOptions;
use names::Intervals;
use requests::{Requests, Verb};
use signals::Signals;
use tunnel::Tunnel;

pub(crate) use daemon::PARENT;

/// Arguments of `up`.
#[derive(clap::Args)]
pub(crate) struct UpArguments {
    /// Configuration file, or the name of an interface: /etc/wireguard/NAME.conf
    #[arg(value_name = "FILE|NAME")]
    file: String,

    /// Options of the daemon, as wg-bounce --help lists them; they override those in the file
    #[arg(value_name = "OPTION", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Arguments of `down`, `reload` and `save`.
#[derive(clap::Args)]
pub(crate) struct RequestArguments {
    /// Configuration file, or the name of an interface
    #[arg(value_name = "FILE|NAME")]
    file: String,
}

/// Asks the process that runs the interface to take it down; returns once it is down.
pub(super) fn down(arguments: &RequestArguments) -> Result<String, Failure> {
    ask(arguments, Verb::Down)
}

/// Asks the process that runs the interface to apply its file as it is now; returns what changed.
pub(super) fn reload(arguments: &RequestArguments) -> Result<String, Failure> {
    ask(arguments, Verb::Reload)
}

/// Asks the process that runs the interface to write its running configuration to its file.
pub(super) fn save(arguments: &RequestArguments) -> Result<String, Failure> {
    ask(arguments, Verb::Save)
}

fn ask(arguments: &RequestArguments, verb: Verb) -> Result<String, Failure> {
    let (_, interface) = ConfigFile::locate(&arguments.file)?;
    Ok(requests::ask(&interface, verb)?)
}

/// Brings the interface up, and runs until it is to go down. Exit codes: 0 after an orderly end, 1
/// if it could not start or failed.
pub(super) fn run(arguments: &UpArguments) -> Result<u8, Failure> {
    let (file, config) = load(&arguments.file)?;
    let (options, flags) = options(&file, &config, &arguments.options)?;
    if let Some(directory) = &options.socket_dir {
        socket_paths::set_base(directory);
    }
    logging::start(options.level().0, &file.interface);
    let daemon = DaemonOptions { flags, is_alone: options.is_alone() };
    let config = for_daemon(&file, config, daemon.is_alone)?;
    let signals = Signals::block().map_err(|error| format!("cannot block signals: {error}"))?;
    // The private key is in this process too.
    if let Err(errno) = prctl::set_dumpable(false) {
        log::warn!("process: cannot disable core dumps, they may contain keys: {errno}");
    }
    let requests = Requests::listen(&file.interface)?;
    let intervals = Intervals::divided(options.test_timers.unwrap_or(1));
    let mut tunnel = Tunnel::up(&file.interface, config, &daemon, intervals, signals)?;
    notify::notify(notify::READY);
    log::info!("{} is up, from {}", file.interface, printable(&file.path.display().to_string()));
    let ending = serve(&mut tunnel, &requests, &arguments.file);
    notify::notify(notify::STOPPING);
    let result = match ending {
        Ok(Ending::Asked(caller)) => {
            if tunnel.is_saved()
                && let Err(error) = save_file(&mut tunnel, &arguments.file)
            {
                log::error!("SaveConfig: {}", printable(&error));
            }
            tunnel.down();
            if let Some(caller) = caller {
                drop(requests);
                caller.reply(Ok(String::new()));
            }
            return Ok(0);
        }
        Ok(Ending::Daemon(true)) => Ok(0),
        Ok(Ending::Daemon(false)) => Err("the daemon has failed".to_owned().into()),
        Err(error) => Err(format!("cannot wait for requests: {error}").into()),
    };
    tunnel.down();
    result
}

/// The reason to end.
enum Ending {
    /// A signal, or this caller of `down`.
    Asked(Option<requests::Waiting>),
    /// The daemon has ended, in good order or not.
    Daemon(bool),
}

/// Serves requests and signals until one of them asks for the end.
fn serve(tunnel: &mut Tunnel, requests: &Requests, file: &str) -> io::Result<Ending> {
    loop {
        while let Some(signal) = tunnel.signals().next()? {
            match signal {
                Signal::SIGHUP => reload_by_signal(tunnel, file),
                Signal::SIGUSR1 => tunnel.signal_daemon(Signal::SIGUSR1),
                signal => {
                    log::info!("going down ({signal})");
                    return Ok(Ending::Asked(None));
                }
            }
        }
        if let Some(status) = tunnel.daemon_status() {
            return Ok(Ending::Daemon(status.success()));
        }
        while let Some(caller) = requests.next() {
            match caller.verb {
                Verb::Down => return Ok(Ending::Asked(Some(caller))),
                Verb::Reload => caller.reply(reload_file(tunnel, file)),
                Verb::Save => caller.reply(save_file(tunnel, file)),
            }
        }
        tunnel.look_at_names(clock::boot_time());
        wait(tunnel, requests)?;
    }
}

/// Waits for a signal, a request, the daemon, or the time to look at host names.
fn wait(tunnel: &Tunnel, requests: &Requests) -> io::Result<()> {
    let listener = requests.listener().as_fd();
    let descriptors = [tunnel.signals_fd(), listener, tunnel.daemon_fd(), tunnel.names_fd()];
    let mut descriptors = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    let timeout = tunnel.next_look(clock::boot_time());
    let timeout = match timeout {
        _ if tunnel.has_signal() => PollTimeout::ZERO,
        Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    match poll(&mut descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn reload_by_signal(tunnel: &mut Tunnel, file: &str) {
    match reload_file(tunnel, file) {
        Ok(text) => text.lines().for_each(|line| log::info!("reload: {line}")),
        Err(error) => log::error!("reload: {}", printable(&error)),
    }
}

/// Applies the file as it is now. While the file has an error, nothing is changed.
fn reload_file(tunnel: &mut Tunnel, file: &str) -> Result<String, String> {
    let load = || {
        let (file, config) = load(file)?;
        for_daemon(&file, config, tunnel.has_no_interface())
    };
    let config = load().map_err(|failure: Failure| failure.reason)?;
    notify::notify(&notify::reloading(clock::uptime()));
    let result = tunnel.reload(config);
    notify::notify(notify::READY);
    result
}

/// Writes what is running to the file.
fn save_file(tunnel: &mut Tunnel, file: &str) -> Result<String, String> {
    let running = tunnel.running()?;
    let write = || {
        let editor = Editor::open(file)?;
        let config = editor.file.config()?;
        let text = with_running(&editor.file.text, &config, &running);
        if *text != *editor.file.text {
            editor.replace(&text)?;
        }
        Ok(read::read(&text).0)
    };
    let config = write().map_err(|failure: Failure| failure.reason)?;
    tunnel.note_saved(&config);
    Ok(String::new())
}

/// The file, if it has no error.
fn load(file: &str) -> Result<(ConfigFile, Config), Failure> {
    let file = ConfigFile::read(file)?;
    let config = file.config()?;
    let mut problems = Vec::new();
    check::check_options(&config, &mut problems);
    let path = file.path.display();
    if let Some(problem) = problems.first() {
        return Err(format!("{path}:{problem}").into());
    }
    Ok((file, config))
}

/// Leaves out what is about an interface, if there is none, and says so. Refuses hooks that others
/// may have written.
fn for_daemon(file: &ConfigFile, mut config: Config, is_alone: bool) -> Result<Config, Failure> {
    if is_alone {
        let ignored = plan::remove_interface(&mut config);
        if !ignored.is_empty() {
            log::warn!("--tun off: ignored, since they need an interface: {ignored}");
        }
    }
    match config.interface.hooks.first().filter(|_| file.can_others_write()) {
        None => Ok(config),
        Some(hook) => {
            let (path, line) = (file.path.display(), hook.place.line);
            Err(format!(
                "{path}:{line}: hooks are refused, since others can write to this file or its \
                 directory: chown root {path}; chmod 600 {path}"
            )
            .into())
        }
    }
}

/// The options of the daemon, and as flags. Those of the file count if neither a flag nor the
/// environment has them.
fn options(
    file: &ConfigFile,
    config: &Config,
    arguments: &[String],
) -> Result<(Options, Vec<String>), Failure> {
    let wrong = |error: clap::Error| {
        let text = error.to_string();
        Failure { code: 2, reason: text.trim_start_matches("error: ").trim_end().to_owned() }
    };
    let mut command = Options::command();
    let line = |flags: &[String]| {
        let name = ["--".to_owned(), file.interface.clone()];
        [&["wg-bounce".to_owned()], flags, &name].concat()
    };
    let matches = command.try_get_matches_from_mut(line(arguments)).map_err(wrong)?;
    let mut flags = Vec::new();
    for option in &config.options {
        let of_name = command.get_arguments().find(|one| one.get_long() == Some(&option.name));
        let Some(argument) = of_name else { continue };
        let source = matches.value_source(argument.get_id().as_str());
        let is_given = matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        match argument.get_action().takes_values() {
            _ if is_given => {}
            true => flags.push(format!("--{}={}", option.name, option.value)),
            false if option.value == "true" => flags.push(format!("--{}", option.name)),
            false => {}
        }
    }
    flags.extend_from_slice(arguments);
    let matches = command.try_get_matches_from_mut(line(&flags)).map_err(wrong)?;
    let options = Options::from_arg_matches(&matches).map_err(wrong)?;
    options.check_tun().map_err(|reason| Failure { code: 2, reason })?;
    let is_given = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    if is_given("foreground") || is_given("show_options") {
        let reason = "--foreground and --show-options are not for up, which stays in the \
                      foreground; see wg-bounce --show-options NAME";
        return Err(Failure { code: 2, reason: reason.to_owned() });
    }
    if let Some((option, setting)) = check::OF_FILE.iter().find(|(option, _)| is_given(option)) {
        let reason = format!("--{option} is not for up: {setting} = … in the file says it");
        return Err(Failure { code: 2, reason });
    }
    Ok((options, flags))
}
