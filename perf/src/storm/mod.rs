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

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{Network, Peers};
use crate::options::{Common, Cores, Family, within};
use crate::process::STEP_LIMIT;
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
    #[arg(value_parser = within::<usize>(1..=100_000))]
    peers: usize,

    /// Handshakes in flight while the rate is measured
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = within::<usize>(1..=100_000))]
    window: usize,

    /// Seconds after which a peer without a response counts as never served
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = within::<u32>(1..=90))]
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
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    options.cores.prepare_process()?;
    side_by_side("storm", json!(options), &options.common, |program| {
        let mut network = Network::build(program, Family::V4, options.cores.relay_core)?;
        // A daemon that has ended explains a failure better than the missing answers do.
        measure(&network, options).map_err(|failure| failure.or(network.check()))
    })
}

fn measure(network: &Network, options: &Options) -> Result<Value, Failure> {
    let peers = Peers::single(options.peers);
    network.configure(&peers.relay, peers.entries(), STEP_LIMIT)?;
    let keys = peers.ends.iter().map(|(keys, _)| keys);
    let relay = network.pid();
    let mut initiators = Initiators::new(keys, &peers.relay, network.socket_of_many()?)?;
    let patience = Duration::from_secs(options.patience.into());
    let mut record = all_at_once::run(&mut initiators, patience, relay)?;
    sleep(CALM);
    initiators.restart();
    let limit = options.common.duration();
    steady::run(&mut initiators, options.window, limit, relay, &mut record)?;
    record["told"] = json!(network.told());
    record["peers"] = json!(options.peers);
    Ok(record)
}
