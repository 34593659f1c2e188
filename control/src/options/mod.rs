//! The command line and its environment variables. A flag overrides its variable, and our
//! variables override wireguard-go's.

mod choices;
mod inherited;
mod usage;
mod values;

use std::env;
use std::fmt::Write as _;
use std::path::{self, Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches, Parser};
use ipnet::IpNet;
use wg_bounce_dataplane::engine::{self, Sizes};
use wg_bounce_dataplane::limits::WORKERS_MAX;
use wg_bounce_sys::tun::DEFAULT_MTU;

use crate::limits::{HANDSHAKE_THREADS_DEFAULT_MAX, HANDSHAKE_THREADS_MAX};
use crate::logging::LogLevel;
#[cfg(feature = "metrics")]
use crate::metrics::server::Place;
use crate::noise::DhChoice;
use crate::relay_policy::mode::Mode;
pub use choices::{AeadChoice, Io, Switch, TunChoice};
use inherited::Inherited;
pub use usage::UsageError;
use values::{parse_address, parse_name};

/// All options.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "wg-bounce",
    version,
    about = "Userspace WireGuard relay: one process per interface.",
    long_about = "Userspace WireGuard relay: one process per interface.\n\n\
        Creates the interface NAME, and goes to the background once the interface and the \
        socket /var/run/wireguard/NAME.sock exist. Configure it with wg(8) and ip(8). \
        The daemon exits when the interface or the socket is deleted, and on SIGTERM, SIGINT, \
        SIGQUIT or SIGHUP. To reload a configuration file, use wg syncconf. \
        On SIGUSR1 it logs its counters. \
        To use it with wg-quick(8), set WG_QUICK_USERSPACE_IMPLEMENTATION=wg-bounce. \
        An interface that is called like a command needs -- before its name.",
    after_long_help = "The environment variables of wireguard-go are supported too: \
        WG_PROCESS_FOREGROUND=1, LOG_LEVEL (verbose, error or silent), WG_TUN_FD and WG_UAPI_FD \
        (numbers of inherited file descriptors). A flag overrides an environment variable, and a \
        WG_BOUNCE_ variable overrides one of wireguard-go."
)]
pub struct Options {
    /// Interface to create (at most 15 bytes); "%d" is replaced by the first free number
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: String,

    /// Run in the foreground and log to standard error
    #[arg(short, long, env = "WG_BOUNCE_FOREGROUND", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub foreground: bool,

    /// I/O backend
    #[arg(long, value_enum, default_value_t = Io::Auto, env = "WG_BOUNCE_IO")]
    #[arg(hide_env_values = true)]
    pub io: Io,

    /// Worker threads, each with its own sockets, TUN queue and buffers [default: one per CPU]
    #[arg(long, value_name = "N", env = "WG_BOUNCE_WORKERS", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX as i64))]
    pub workers: Option<u16>,

    /// Do not pin workers to CPUs
    #[arg(long, env = "WG_BOUNCE_NO_PIN", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    pub no_pin: bool,

    /// Forwarding of packets between peers
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Auto)]
    #[arg(env = "WG_BOUNCE_RELAY", hide_env_values = true)]
    pub relay: Mode,

    /// Interface; without one, no privilege is needed: the daemon only relays between peers, is
    /// the router itself, and answers at the addresses of --address
    #[arg(long, value_enum, default_value_t = TunChoice::On, env = "WG_BOUNCE_TUN")]
    #[arg(hide_env_values = true)]
    pub tun: TunChoice,

    /// Addresses of the hub with --tun off, with their networks' prefix lengths
    #[arg(long, value_name = "ADDRESS/LENGTH", value_delimiter = ',', env = "WG_BOUNCE_ADDRESS")]
    #[arg(hide_env_values = true, value_parser = parse_address)]
    pub address: Vec<IpNet>,

    /// Largest packet that is relayed with --tun off, in bytes, 1280 to 65535
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MTU as u16)]
    #[arg(env = "WG_BOUNCE_MTU", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1280..))]
    pub mtu: u16,

    /// Directory of the sockets, instead of /var/run
    #[arg(long, value_name = "DIRECTORY", global = true, env = "WG_BOUNCE_SOCKET_DIR")]
    #[arg(hide_env_values = true)]
    pub socket_dir: Option<PathBuf>,

    /// Directory of the state file, by which a restarted daemon finds the peers that had a session
    /// [default: $STATE_DIRECTORY, which systemd sets; without it, none is kept]
    #[arg(long, value_name = "DIRECTORY", env = "WG_BOUNCE_STATE_DIR", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,

    /// AEAD implementation
    #[arg(long, value_enum, value_name = "AEAD", default_value_t = AeadChoice::Auto)]
    #[arg(env = "WG_BOUNCE_AEAD", hide_env_values = true)]
    pub aead: AeadChoice,

    /// X25519 implementation, for handshakes
    #[arg(long, value_enum, value_name = "DH", default_value_t = DhChoice::Auto)]
    #[arg(env = "WG_BOUNCE_DH", hide_env_values = true)]
    pub dh: DhChoice,

    /// Threads that compute handshakes while many wait, at a lower priority
    /// [default: one per CPU, at most 4]
    #[arg(long, value_name = "N", env = "WG_BOUNCE_HANDSHAKE_THREADS", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=HANDSHAKE_THREADS_MAX as i64))]
    pub handshake_threads: Option<u16>,

    /// UDP segmentation offload (UDP_SEGMENT). Turn off if the NIC or its driver corrupts segments
    #[arg(long, value_enum, default_value_t = Switch::On, env = "WG_BOUNCE_GSO")]
    #[arg(hide_env_values = true)]
    pub gso: Switch,

    /// UDP receive offload (UDP_GRO)
    #[arg(long, value_enum, default_value_t = Switch::On, env = "WG_BOUNCE_GRO")]
    #[arg(hide_env_values = true)]
    pub gro: Switch,

    /// Offloads of the TUN interface: TSO, USO and checksums
    #[arg(long, value_enum, default_value_t = Switch::On, env = "WG_BOUNCE_TUN_OFFLOAD")]
    #[arg(hide_env_values = true)]
    pub tun_offload: Switch,

    /// Receive buffers per worker, 64 KiB each, 8 to 16384 [default: 128, fewer if memory is
    /// short]
    #[arg(long, value_name = "N", env = "WG_BOUNCE_BUFFERS", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(8..=16384))]
    pub buffers: Option<u16>,

    /// Receive buffer, and limit of the bytes in flight, of each UDP socket, in MiB, 1 to 256
    /// [default: 16, less if memory is short]
    #[arg(long, value_name = "MIB", env = "WG_BOUNCE_SOCKET_BUFFER", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub socket_buffer: Option<u16>,

    /// Serve metrics for Prometheus by HTTP at this address and TCP port, or UNIX socket; :PORT
    /// means this host alone
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH", env = "WG_BOUNCE_METRICS")]
    #[arg(hide_env_values = true)]
    pub metrics: Option<Place>,

    /// Names of peers as labels of metrics
    #[cfg(feature = "metrics")]
    #[arg(long, value_enum, default_value_t = Switch::On, env = "WG_BOUNCE_METRICS_NAMES")]
    #[arg(hide_env_values = true)]
    pub metrics_names: Switch,

    /// Log level [default: info]
    #[arg(long, value_enum, value_name = "LEVEL", env = "WG_BOUNCE_LOG_LEVEL")]
    #[arg(hide_env_values = true)]
    pub log_level: Option<LogLevel>,

    /// Print each option with its value and source, then exit
    #[arg(long)]
    pub show_options: bool,

    /// Divisor of the protocol's timers, so that tests see rekeys within seconds.
    #[arg(long, hide = true, env = "WG_BOUNCE_TEST_TIMERS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub test_timers: Option<u64>,

    /// Values of wireguard-go's environment variables.
    #[arg(skip)]
    pub inherited: Inherited,

    /// The lines of [`Options::report`] about options that have a value.
    #[arg(skip)]
    set: String,
}

impl Options {
    /// Matches the process's arguments and environment against `command`: these options, and the
    /// program's commands.
    ///
    /// # Errors
    /// Invalid arguments or variables; also `--help` and `--version`.
    pub fn matches(command: &mut Command) -> Result<ArgMatches, UsageError> {
        let matches = command.try_get_matches_from_mut(env::args_os());
        matches.map_err(|error| UsageError::new(error, command))
    }

    /// The options among what `command` matched, and those of wireguard-go's variables.
    ///
    /// # Errors
    /// Invalid variables.
    pub fn new(command: &mut Command, matches: &ArgMatches) -> Result<Options, UsageError> {
        let mut options =
            Options::from_arg_matches(matches).map_err(|error| UsageError::new(error, command))?;
        options.inherited = Inherited::read(|name| env::var(name).ok()).map_err(|reason| {
            UsageError::new(command.error(ErrorKind::ValueValidation, reason), command)
        })?;
        // A start in the background changes to another directory.
        options.state_dir = options.state_dir.map(|it| path::absolute(&it).unwrap_or(it));
        if let Err(reason) = options.check_tun() {
            return Err(UsageError::new(
                command.error(ErrorKind::ArgumentConflict, reason),
                command,
            ));
        }
        options.set = set_options(command, matches);
        Ok(options)
    }

    /// Checks the options that exclude each other.
    ///
    /// # Errors
    /// The first conflict, with the remedy.
    pub fn check_tun(&self) -> Result<(), String> {
        match self.tun {
            TunChoice::On if !self.address.is_empty() => {
                Err("--address is for --tun off: an interface gets its addresses by ip(8) or \
                     wg-bounce up"
                    .to_owned())
            }
            TunChoice::Off if self.inherited.tun_fd.is_some() => {
                Err("--tun off has no interface, but WG_TUN_FD is set".to_owned())
            }
            TunChoice::Off if self.name.contains('%') => {
                Err("--tun off needs a whole name, without %d".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether the interface is missing.
    pub fn is_alone(&self) -> bool {
        self.tun == TunChoice::Off
    }

    /// The directory of the state file, if one is kept.
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref().or(self.inherited.state_dir.as_deref())
    }

    /// Each option with its value and its source, one per line. `engine` and the number of `cpus`
    /// have the defaults that depend on the machine.
    pub fn report(&self, engine: &engine::Options, cpus: usize) -> String {
        let mebibytes = engine.sizes.socket_buffer as f64 / f64::from(1 << 20);
        let unset = [
            ("workers", self.workers.is_none(), engine.workers as f64),
            ("buffers", self.buffers.is_none(), engine.sizes.buffers.into()),
            ("socket-buffer", self.socket_buffer.is_none(), mebibytes),
            (
                "handshake-threads",
                self.handshake_threads.is_none(),
                self.handshake_threads(cpus) as f64,
            ),
        ];
        let unset = unset.into_iter().filter(|(_, is_unset, _)| *is_unset);
        let lines = unset.map(|(name, _, value)| format!("{name} = {value} (default)\n"));
        self.set.clone() + &lines.collect::<String>()
    }

    /// The lines of [`Options::report`] about options that are not at their default.
    pub fn chosen(&self) -> impl Iterator<Item = &str> {
        self.set.lines().filter(|line| !line.ends_with("(default)"))
    }

    /// Whether the process stays in the foreground.
    pub fn stays_in_foreground(&self) -> bool {
        self.foreground || self.inherited.foreground
    }

    /// The log level in effect, and whether it was set explicitly.
    pub fn level(&self) -> (LogLevel, bool) {
        match self.log_level.or(self.inherited.log_level) {
            Some(level) => (level, true),
            None => (LogLevel::Info, false),
        }
    }

    /// The number of threads that compute handshakes on a machine with `cpus` CPUs.
    pub fn handshake_threads(&self, cpus: usize) -> usize {
        match self.handshake_threads {
            Some(threads) => usize::from(threads),
            None => cpus.clamp(1, HANDSHAKE_THREADS_DEFAULT_MAX),
        }
    }

    /// The options of the engine on a machine with `cpus` CPUs, where this process may use `memory`
    /// bytes. An inherited TUN descriptor has one queue, and so there is one worker.
    pub fn engine(&self, cpus: usize, memory: u64) -> engine::Options {
        let workers = match (self.inherited.tun_fd, self.workers) {
            (Some(_), _) => 1,
            (None, Some(workers)) => usize::from(workers),
            (None, None) => cpus.clamp(1, WORKERS_MAX),
        };
        // The other half is for the kernel, and for what does not depend on the workers.
        let mut sizes = Sizes::within(memory / 2 / workers as u64);
        sizes.buffers = self.buffers.unwrap_or(sizes.buffers);
        if let Some(mebibytes) = self.socket_buffer {
            sizes.socket_buffer = usize::from(mebibytes) << 20;
        }
        engine::Options {
            workers,
            pin: !self.no_pin,
            io: self.io.into(),
            aead: self.aead.into(),
            gso: self.gso == Switch::On,
            gro: self.gro == Switch::On,
            tun_offload: self.tun_offload == Switch::On,
            sizes,
        }
    }
}

fn set_options(command: &clap::Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        if id == "show_options" {
            continue;
        }
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line".to_owned(),
            Some(ValueSource::EnvVariable) => {
                format!("${}", argument.get_env().unwrap_or_default().display())
            }
            Some(_) => "default".to_owned(),
            None => continue,
        };
        let value = if argument.get_action().takes_values() {
            let values = matches.get_raw(id).into_iter().flatten();
            values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" ")
        } else {
            matches.get_flag(id).to_string()
        };
        let name = argument.get_long().unwrap_or(id);
        let _ = writeln!(text, "{name} = {value} ({source})");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use wg_bounce_dataplane::engine::IoChoice;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["wg-bounce"].iter().chain(arguments))
    }

    #[test]
    fn the_definition_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn wireguard_go_usage_works() {
        assert!(parse(&["-f", "wg0"]).expect("valid").stays_in_foreground());
        assert!(!parse(&["wg%d"]).expect("valid").stays_in_foreground());
        assert!(parse(&[]).is_err(), "a name is needed");
    }

    #[test]
    fn every_value_reaches_the_engine() {
        let line = "wg0 --io mmsg --workers 3 --no-pin --gso off --gro off --tun-offload off \
            --buffers 64 --aead ring";
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let options = parse(&arguments).expect("valid").engine(8, u64::MAX);
        assert_eq!((options.workers, options.sizes.buffers), (3, 64));
        assert_eq!(options.io, IoChoice::Mmsg);
        assert_eq!(options.aead, wg_bounce_aead::Choice::Ring);
        assert!(!(options.pin || options.gso || options.gro || options.tun_offload));

        let options = parse(&["wg0"]).expect("valid").engine(200, u64::MAX);
        assert_eq!(options.workers, WORKERS_MAX, "one per CPU, up to the limit");
        assert_eq!(options.io, IoChoice::Auto);
        assert_eq!(options.aead, wg_bounce_aead::Choice::Auto);
        assert!(options.pin && options.gso && options.gro && options.tun_offload);
    }

    #[test]
    fn sizes_follow_the_memory_but_for_what_was_asked_for() {
        let sizes = |line: &str, memory| {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            parse(&arguments).expect("valid").engine(2, memory).sizes
        };
        assert_eq!(sizes("wg0", 1 << 30), Sizes::FULL);
        assert_eq!(sizes("wg0 --workers 64", 128 << 20), Sizes::within(1 << 20));
        let chosen = sizes("wg0 --workers 64 --buffers 300 --socket-buffer 2", 128 << 20);
        assert_eq!((chosen.buffers, chosen.socket_buffer), (300, 2 << 20));
    }

    #[test]
    fn bad_values_are_refused_with_their_reason() {
        let cases: [(&[&str], &str); 7] = [
            (&["wg0", "--io", "dpdk"], "uring"),
            (&["wg0", "--workers", "0"], "1..=64"),
            (&["wg0", "--workers", "65"], "1..=64"),
            (&["wg0", "--relay", "ask"], "direct"),
            (&["wg0", "--gso", "maybe"], "on"),
            (&["wg0", "--log-level", "loud"], "verbose"),
            (&["a-name-that-is-too-long"], "15 bytes"),
        ];
        for (arguments, hint) in cases {
            let error = parse(arguments).expect_err("bad").to_string();
            assert!(error.contains(hint), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn wireguard_go_variables_are_read() {
        let inherited = Inherited::read(|name| match name {
            "WG_TUN_FD" => Some("3".into()),
            "WG_PROCESS_FOREGROUND" => Some("1".into()),
            "LOG_LEVEL" => Some("debug".into()),
            _ => None,
        });
        let inherited = inherited.expect("valid");
        assert_eq!((inherited.tun_fd, inherited.uapi_fd), (Some(3), None));
        assert!(inherited.foreground);
        assert_eq!(inherited.log_level, Some(LogLevel::Verbose));
    }

    #[test]
    fn named_descriptors_are_those_meant_for_this_process() {
        let read = |pid: u32| {
            let variable = |name: &str| match name {
                "WG_UAPI_FD" => Some("9".to_owned()),
                "LISTEN_FDS" => Some("2".to_owned()),
                "LISTEN_PID" => Some(pid.to_string()),
                _ => None,
            };
            Inherited::read(variable).expect("valid").descriptors()
        };
        assert_eq!(read(std::process::id()), [9, 3, 4]);
        assert_eq!(read(1), [9], "meant for another process");
    }

    #[test]
    fn foreign_log_levels_are_ignored_and_bad_descriptors_are_not() {
        let with = |wanted: &'static str, value: &'static str| {
            Inherited::read(move |name| (name == wanted).then(|| value.to_owned()))
        };
        assert_eq!(with("LOG_LEVEL", "warn,hyper=trace").expect("ignored").log_level, None);
        assert!(with("WG_TUN_FD", "tun").is_err());
        assert!(with("WG_UAPI_FD", "-1").is_err());
        assert!(with("WG_UAPI_FD", "1").is_err(), "standard output is not a socket");
    }

    #[test]
    fn an_inherited_tun_has_one_queue() {
        let mut options = parse(&["wg0", "--workers", "4"]).expect("valid");
        options.inherited.tun_fd = Some(3);
        assert_eq!(options.engine(8, u64::MAX).workers, 1);
    }
}
