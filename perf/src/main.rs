//! The measuring harness: WireGuard daemons side by side, in network namespaces of its own, under
//! load. Each is a black box: a program that takes an interface's name and speaks with `wg`.
//!
//! 1. `implementation`: what there is to measure, as data, and where the programs lie.
//! 2. `namespace`, `process`: places and processes that end with this process, however it ends.
//! 3. `daemon`, `star`: daemons in namespaces, connected and configured.
//! 4. `generator`: all peers of a relay in one, which makes the load by itself.
//! 5. `clock`, `cpu`, `memory`, `machine`: what it costs, and where it was measured.
//! 6. `rounds`, `progress`, `side_by_side`, `statistics`, `table`, `lines`: side by side, and what
//!    it says together.
//! 7. `iperf`, `blast`, `storm`, `scale`, `latency`, `all`, `report`: the subcommands of these
//!    names.

#![forbid(unsafe_code)]

mod all;
mod blast;
mod clock;
#[cfg(test)]
mod command_line;
mod cpu;
mod daemon;
mod failure;
mod generator;
mod implementation;
mod interrupt;
mod iperf;
mod latency;
mod lines;
mod machine;
mod memory;
mod namespace;
mod process;
mod progress;
mod report;
mod rounds;
mod scale;
mod side_by_side;
mod star;
mod statistics;
mod storm;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::unistd::geteuid;
use serde_json::json;

use failure::Failure;
use interrupt::Interrupt;
use lines::Lines;

/// What a shell reports of a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Measures WireGuard daemons side by side, in network namespaces of its own.
///
/// The host's network is left alone, and nothing stays behind, however it ends. Needs root, but
/// for `report` and `blast --remote-config`.
#[derive(Parser)]
#[command(name = "wg-bounce-perf", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Throughput of TCP or UDP through the tunnel, by iperf3, and what it costs
    Iperf(iperf::Options),
    /// Packets per second through a relay, and its CPU time per packet
    Blast(blast::Options),
    /// Handshakes per second, and what becomes of peers that all come at once
    Storm(storm::Options),
    /// What many peers take: to configure, in memory, and per packet
    Scale(scale::Options),
    /// What a relay adds to the time that packets take, at chosen loads
    Latency(latency::Options),
    /// A plan of all these measurements, and its report
    All(all::Options),
    /// A page with plots from the JSON lines of measurements
    Report(report::Options),
}

impl What {
    /// Has the JSON lines say why a run as a whole has failed.
    fn record_failure(&self, failure: &Failure) {
        let json = match self {
            What::Iperf(options) => &options.json,
            What::Blast(options) => &options.json,
            What::Storm(options) => &options.side_by_side.json,
            What::Scale(options) => &options.side_by_side.json,
            What::Latency(options) => &options.side_by_side.json,
            What::All(_) | What::Report(_) => &None,
        };
        let record = json!({ "kind": "run_failed", "why": failure.to_string() });
        // The operator has been told already; that the file cannot be written may be why.
        let _ = Lines::open(json.as_deref()).and_then(|mut lines| lines.write(&record));
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(Failure::Interrupted) => {
            eprintln!("wg-bounce-perf: interrupted; nothing is left behind");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(failure) => {
            eprintln!("wg-bounce-perf: {failure}");
            arguments.what.record_failure(&failure);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.what {
        What::Iperf(options) => iperf::run(options, &ready_to_measure()?),
        What::Blast(options) if options.remote.remote_config => {
            blast::print_config(options).map(|()| ExitCode::SUCCESS)
        }
        What::Blast(options) => blast::run(options, &ready_to_measure()?),
        What::Storm(options) => storm::run(options, &ready_to_measure()?),
        What::Scale(options) => scale::run(options, &ready_to_measure()?),
        What::Latency(options) => latency::run(options, &ready_to_measure()?),
        What::All(options) => all::run(options, &ready_to_measure()?),
        What::Report(options) => report::run(options),
    }
}

/// Measuring makes namespaces, and cleans up when a signal comes.
fn ready_to_measure() -> Result<Interrupt, Failure> {
    if !geteuid().is_root() {
        return Err(Failure::step("needs root, for network namespaces and large socket buffers"));
    }
    Interrupt::on_signals()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_of_a_plan_is_understood() {
        for words in all::command_lines() {
            let line = words.join(" ");
            let words = ["wg-bounce-perf".to_owned()].into_iter().chain(words);
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
