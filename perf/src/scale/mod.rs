//! `scale`: set-up time, memory and CPU time per packet of a relay with many peers.
//!
//! For each number of peers a new relay, its configuration (`configure`), and packets between a few
//! of the peers.

mod configure;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, value_parser};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{Bench, Kind, Network, Peers, Randomness, Relay, Setup, Traffic};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::options::{Common, Cores, Family};
use crate::run::side_by_side;
use configure::{PEERS_MAX, configure};

/// Peers that `--full` adds.
const FULL: u32 = 100_000;

/// Memory for packets that are encrypted before the clock starts (MiB).
const POOL: usize = 64;

/// Options of `scale`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    /// Numbers of peers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    #[arg(value_parser = value_parser!(u32).range(2..=i64::from(PEERS_MAX)))]
    #[serde(skip)]
    peers: Vec<u32>,

    /// Add 100,000 peers to the numbers
    #[arg(long)]
    #[serde(skip)]
    full: bool,

    /// Seconds that a step of the configuration may take; an implementation that takes longer, or
    /// refuses, is not tried with more peers
    #[arg(long, value_name = "S", default_value_t = 60)]
    #[arg(value_parser = value_parser!(u32).range(1..=3600))]
    #[serde(rename = "limit_seconds")]
    limit: u32,

    #[command(flatten)]
    #[serde(flatten)]
    traffic: Traffic,

    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,

    #[command(flatten)]
    #[serde(flatten)]
    cores: Cores,
}

impl Options {
    /// Numbers of peers, ascending.
    fn sizes(&self) -> Vec<u32> {
        let mut sizes = self.peers.clone();
        sizes.extend(self.full.then_some(FULL));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Fails if the options exclude each other.
    fn check(&self) -> Result<(), Failure> {
        let (pairs, ends) = (self.traffic.pairs, 2 * self.traffic.pairs);
        if let Some(size) = self.sizes().into_iter().find(|size| *size < ends) {
            let why = format!("--peers {size}: fewer than the {ends} of --pairs {pairs}");
            return Err(Failure::step(why));
        }
        self.traffic.check(Kind::Tcp, Family::V4)
    }
}

/// The options and the numbers of peers.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    options: &'a Options,
    peers: Vec<u32>,
}

/// Measures with these options. The exit code is a failure if a program that is there failed; too
/// many peers are not a failure.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    options.cores.prepare_process()?;
    let record = Record { options, peers: options.sizes() };
    side_by_side("scale", &record, &options.common, interrupt, |program| {
        let sizes = options.sizes();
        let sizes = until_too_many(&sizes, |peers| with_peers(program, peers, options, interrupt))?;
        Ok(json!({ "sizes": sizes }))
    })
}

/// Result with one number of peers: the figures, or why there are too many peers for the relay.
type Outcome = Result<Value, String>;

/// Measures all sizes. After too many peers no more are tried; a failure is recorded as such.
fn until_too_many(
    sizes: &[u32],
    mut measure: impl FnMut(u32) -> Result<Outcome, Failure>,
) -> Result<Vec<Value>, Failure> {
    let mut too_many = None;
    let mut records = Vec::new();
    for &peers in sizes {
        let outcome = match too_many {
            Some(fewer) => Ok(Err(format!("not tried: {fewer} peers were too many"))),
            None => measure(peers),
        };
        let mut record = match outcome {
            Ok(Ok(figures)) => figures,
            Ok(Err(why)) => {
                too_many = too_many.or(Some(peers));
                json!({ "failure": why })
            }
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(Failure::Step(why)) => json!({ "failure": why, "failed": true }),
        };
        record["peers"] = json!(peers);
        records.push(record);
    }
    Ok(records)
}

fn with_peers(
    program: &Program,
    number: u32,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Outcome, Failure> {
    let setup = Setup::plain(Kind::Tcp, options.cores.relay_core);
    let mut network = Network::build(program, setup.outer, setup.relay_core, interrupt)?;
    let pairs = options.traffic.pairs as usize;
    let peers = Peers::new(pairs, setup.family, &mut Randomness::open()?)?;
    let mut figures = match configure(&network, &peers, number, options.limit) {
        Ok(Ok(figures)) => figures,
        Ok(Err(late)) => return Ok(Err(late)),
        // A relay that is still running has refused; one that has ended has failed.
        Err(Failure::Step(text)) => return network.check().map(|()| Err(text)),
        Err(failure) => return Err(failure),
    };
    let (public, plans) = (peers.relay.identity.public(), [options.traffic.plan(POOL)]);
    let relay = Relay::Local(network);
    let mut bench = Bench::connect(relay, public, &peers.ends, &plans, &setup, interrupt)?;
    let phase = bench.explained(|bench| {
        let window = bench.find_window(0, options.traffic.window as usize)?;
        bench.closed(0, window, u64::MAX, Duration::from_secs(options.common.seconds.into()))
    })?;
    figures["phase"] = phase.record();
    figures["ns_per_packet"] = figures["phase"]["nanoseconds_per_packet"].clone();
    Ok(Ok(figures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Subcommand};

    fn parse(line: &str) -> Options {
        match Arguments::from_line(&format!("scale {line}")) {
            Ok(Subcommand::Scale(options)) => options,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn sizes_ascend() {
        let options = parse("");
        options.check().expect("they go together");
        assert_eq!(options.sizes(), [10, 1000, 10_000]);
        let full = parse("--full --peers 100000,20,8");
        assert_eq!(full.sizes(), [8, 20, 100_000]);
        full.check().expect("they go together");
    }

    #[test]
    fn pairs_are_peers() {
        let Err(why) = parse("--pairs 6").check() else { panic!("12 peers are more than 10") };
        assert_eq!(why.to_string(), "--peers 10: fewer than the 12 of --pairs 6");
    }

    #[test]
    fn too_many_peers_are_not_a_failure() {
        let sizes = until_too_many(&[1, 2, 3, 4], |peers| match peers {
            1 => Err(Failure::step("it ended unexpectedly")),
            2 => Ok(Ok(json!({}))),
            _ => Ok(Err("late".to_owned())),
        });
        let sizes = sizes.expect("no signal");
        assert_eq!(sizes[0]["failed"], true);
        assert_eq!(sizes[1], json!({ "peers": 2 }));
        assert_eq!(sizes[2], json!({ "peers": 3, "failure": "late" }));
        assert_eq!(sizes[3]["failure"], "not tried: 3 peers were too many");
    }
}
