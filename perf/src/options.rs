//! Options that subcommands have in common.

use std::ops::RangeBounds;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Command, ValueEnum};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde::{Serialize, Serializer};

use crate::failure::{Failure, while_doing};
use crate::implementation::Choice;

/// The implementations to measure, and how often and how long.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Common {
    /// Rounds; each measures every implementation once, one after another
    #[arg(long, value_name = "N", default_value = "3", value_parser = within::<u32>(1..=1000))]
    pub rounds: u32,

    /// Seconds of each measurement
    #[arg(long, value_name = "S", default_value = "1", value_parser = within::<u32>(1..=30))]
    pub seconds: u32,

    /// Implementations to measure: NAME, or NAME@PATH to use another program
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    #[arg(default_value = "wg-bounce-uring,wireguard-go,boringtun,gotatun")]
    #[serde(skip)]
    pub implementations: Vec<Choice>,

    /// Append all results to this file as JSON lines
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

impl Common {
    /// Duration of each measurement.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

/// A parser of numbers in this range.
pub fn within<T: TryFrom<u64>>(range: impl RangeBounds<u64>) -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(range)
}

/// Defaults that differ between subcommands: subcommand, argument, value.
const DEFAULTS: [(&str, &str, &str); 10] = [
    ("iperf", "rounds", "5"),
    ("iperf", "seconds", "5"),
    ("iperf", "implementations", "wg-bounce-uring,wg-bounce-mmsg,wireguard-go,boringtun,gotatun"),
    ("blast", "rounds", "5"),
    ("blast", "seconds", "2"),
    ("blast", "pairs", "1"),
    ("blast", "train", "44"),
    ("latency", "seconds", "2"),
    ("scale", "window", "256"),
    ("storm", "window", "64"),
];

/// Longest measurements that differ from 30 seconds: subcommand, seconds.
const SECONDS_MAX: [(&str, u64); 3] = [("iperf", 3600), ("storm", 60), ("latency", 10)];

/// Gives each subcommand of `command` its own defaults.
pub fn with_defaults(mut command: Command) -> Command {
    for (subcommand, argument, value) in DEFAULTS {
        command = command
            .mut_subcommand(subcommand, |it| it.mut_arg(argument, |it| it.default_value(value)));
    }
    for (subcommand, most) in SECONDS_MAX {
        command = command.mut_subcommand(subcommand, |it| {
            it.mut_arg("seconds", |it| it.value_parser(within::<u32>(1..=most)))
        });
    }
    command
}

/// The cores of relay and generator.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Cores {
    /// Core for all threads of the relay
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub relay_core: usize,

    /// Core for the load generator
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub generator_core: usize,
}

impl Cores {
    /// Moves this process to the generator's core, and lets it and the daemons that it starts open
    /// a socket for every peer.
    pub fn prepare_process(&self) -> Result<(), Failure> {
        let refused = || while_doing(format!("cannot use core {}", self.generator_core));
        let mut cores = CpuSet::new();
        cores.set(self.generator_core).map_err(refused())?;
        sched_setaffinity(Pid::from_raw(0), &cores).map_err(refused())?;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(while_doing("getrlimit"))?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(while_doing("setrlimit"))
    }
}

/// An IP version, as options give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(if *self == Family::V4 { 4 } else { 6 })
    }
}
