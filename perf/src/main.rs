//! The measuring harness: WireGuard daemons side by side, in network namespaces of its own, under
//! load. Each is a black box: a program that takes an interface's name and is configured with `wg`.
//!
//! 1. `implementation`: what can be measured, as data, and how to find the programs.
//! 2. `namespace`, `process`: namespaces and processes that end with this process, however it ends.
//! 3. `daemon`, `topology`: daemons in namespaces, connected and configured.
//! 4. `generator`: all peers of a relay in one process, which generates the load.
//! 5. `clock`, `usage`, `machine`: CPU time and memory, and the machine.
//! 6. `record`, `columns`, `table`, `statistics`: results, and the tables that show them.
//! 7. `options`, `run`: common options, and the run loop of all subcommands.
//! 8. `iperf`, `blast`, `storm`, `scale`, `latency`, `all`, `report`: the subcommands.

#![forbid(unsafe_code)]

mod all;
mod blast;
mod clock;
mod columns;
mod daemon;
mod failure;
mod generator;
mod implementation;
mod interrupt;
mod iperf;
mod latency;
mod machine;
mod namespace;
mod options;
mod process;
mod record;
mod report;
mod run;
mod scale;
mod statistics;
mod storm;
mod table;
mod topology;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use nix::unistd::geteuid;
use serde_json::json;

use failure::Failure;
use record::Lines;

/// Exit code that a shell reports for a program ended by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Measures WireGuard daemons side by side, in network namespaces of its own.
///
/// The host's network is not changed, and nothing is left behind, however it ends. Needs root,
/// except for `report` and `blast --remote-config`.
#[derive(Parser)]
#[command(name = "wg-bounce-perf", version)]
struct Arguments {
    #[command(subcommand)]
    subcommand: Subcommand,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// Measure throughput of TCP or UDP through the tunnel with iperf3, and its CPU cost
    Iperf(iperf::Options),
    /// Measure packets per second through a relay, and its CPU time per packet
    Blast(blast::Options),
    /// Measure handshakes per second, and how long peers wait that all start at once
    Storm(storm::Options),
    /// Measure set-up time, memory and CPU time per packet with many peers
    Scale(scale::Options),
    /// Measure the latency that a relay adds at given loads
    Latency(latency::Options),
    /// Run a plan of all these measurements and write a report
    All(all::Options),
    /// Write an HTML page with plots from JSON lines
    Report(report::Options),
}

impl Arguments {
    fn command() -> clap::Command {
        options::with_defaults(<Arguments as CommandFactory>::command())
    }
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let Arguments { subcommand } =
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&subcommand) {
        Ok(code) => code,
        Err(Failure::Interrupted) => {
            eprintln!("wg-bounce-perf: interrupted; nothing is left behind");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(failure) => {
            eprintln!("wg-bounce-perf: {failure}");
            let options = matches.subcommand().map(|(_, options)| options);
            let json = options.and_then(|it| it.try_get_one::<PathBuf>("json").ok().flatten());
            let record = json!({ "kind": "run_failed", "why": failure.to_string() });
            // Ignore errors: an unwritable file may be why the run failed, which is printed anyway.
            let lines = Lines::open(json.map(PathBuf::as_path));
            let _ = lines.and_then(|mut lines| lines.write(&record));
            ExitCode::FAILURE
        }
    }
}

fn run(subcommand: &Subcommand) -> Result<ExitCode, Failure> {
    let only_writes = match subcommand {
        Subcommand::Report(_) => true,
        Subcommand::Blast(options) => options.remote_config,
        _ => false,
    };
    if !only_writes && !geteuid().is_root() {
        return Err(Failure::step("must run as root: it creates network namespaces"));
    }
    if !only_writes {
        interrupt::notice_signals()?;
    }
    match subcommand {
        Subcommand::Iperf(options) => iperf::run(options),
        Subcommand::Blast(options) => blast::run(options),
        Subcommand::Storm(options) => storm::run(options),
        Subcommand::Scale(options) => scale::run(options),
        Subcommand::Latency(options) => latency::run(options),
        Subcommand::All(options) => all::run(options),
        Subcommand::Report(options) => report::run(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arguments {
        /// Parses a command line, without the program.
        pub fn from_line(line: &str) -> Result<Subcommand, clap::Error> {
            let words = ["wg-bounce-perf"].into_iter().chain(line.split_whitespace());
            let matches = Arguments::command().try_get_matches_from(words)?;
            Arguments::from_arg_matches(&matches).map(|arguments| arguments.subcommand)
        }
    }

    #[test]
    fn every_subcommand_has_its_defaults() {
        let default = |subcommand: &str, argument: &str| {
            let command = Arguments::command();
            let command = command.find_subcommand(subcommand).expect("it is there").clone();
            let mut arguments = command.get_arguments();
            let argument = arguments.find(|it| it.get_id() == argument).expect("it is there");
            let values = argument.get_default_values().iter();
            values.map(|it| it.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
        };
        for (subcommand, argument, value) in [
            ("iperf", "rounds", "5"),
            ("iperf", "seconds", "5"),
            ("blast", "rounds", "5"),
            ("blast", "train", "44"),
            ("storm", "rounds", "3"),
            ("storm", "window", "64"),
            ("scale", "window", "256"),
            ("scale", "pairs", "4"),
            ("latency", "seconds", "2"),
            ("latency", "implementations", "wg-bounce-uring,wireguard-go,boringtun,gotatun"),
        ] {
            assert_eq!(default(subcommand, argument), value, "{subcommand} --{argument}");
        }
    }
}
