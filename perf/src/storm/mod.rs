//! `storm`: handshakes per second, and how long peers wait that all start at once.
//!
//! 1. `initiators`: the peers, each with an address of its own.
//! 2. `all_at_once`: all handshakes at the same time, on a relay that has just started.
//! 3. `steady`: then a window at a time.

mod all_at_once;
mod initiators;
mod steady;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::{Args, value_parser};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::generator::{Network, Peers, Randomness};
use crate::interrupt::Interrupt;
use crate::options::{Common, Cores, Family};
use crate::run::side_by_side;
use initiators::Initiators;

/// Longer than a relay asks for cookies after its load has fallen (one second;
/// `wg_receive_handshake_packet` in drivers/net/wireguard/receive.c).
const CALM: Duration = Duration::from_millis(1200);

/// Options of `storm`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    /// Peers, each with an IPv4 address of its own
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    peers: u32,

    /// Handshakes in flight while the rate is measured
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    window: u32,

    /// Seconds after which a peer without a response counts as never served
    #[arg(long, value_name = "S", default_value_t = 20)]
    #[arg(value_parser = value_parser!(u32).range(1..=90))]
    #[serde(rename = "patience_seconds")]
    patience: u32,

    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,

    #[command(flatten)]
    #[serde(flatten)]
    cores: Cores,
}

/// Measures with these options. The exit code is a failure if a program that is there failed.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.cores.prepare_process()?;
    side_by_side("storm", options, &options.common, interrupt, |program| {
        let core = options.cores.relay_core;
        let mut network = Network::build(program, Family::V4, core, interrupt)?;
        match measure(&network, options, interrupt) {
            // A daemon that has ended explains a failure better than the missing answers do.
            Err(Failure::Step(text)) => network.check().and(Err(Failure::Step(text))),
            outcome => outcome,
        }
    })
}

fn measure(network: &Network, options: &Options, interrupt: &Interrupt) -> Result<Value, Failure> {
    let mut randomness = Randomness::open()?;
    let peers = Peers::single(options.peers as usize, &mut randomness)?;
    network.configure(&peers.relay, peers.entries())?;
    let socket = network.socket_of_many()?;
    let keys = peers.ends.iter().map(|(keys, _)| keys);
    let relay = network.pid();
    let mut initiators = Initiators::new(keys, &peers.relay, &socket)?;
    let patience = Duration::from_secs(options.patience.into());
    let mut record =
        all_at_once::run(&mut initiators, patience, relay, &mut randomness, interrupt)?;
    sleep(CALM);
    initiators.restart();
    let limit = Duration::from_secs(options.common.seconds.into());
    let window = options.window as usize;
    let steady = steady::run(&mut initiators, window, limit, relay, &mut randomness, interrupt)?;
    record["told"] = network.told().into();
    record["peers"] = options.peers.into();
    record["handshakes_per_second"] = steady.rate().into();
    record["cpu_ns_per_handshake"] = steady.nanoseconds_per_handshake().into();
    record["steady"] = steady.record();
    Ok(record)
}
