//! `storm`: handshakes per second, and how long peers wait that all start at once.
//!
//! 1. `initiators`: the peers, each with an address of its own.
//! 2. `all_at_once`: all handshakes at the same time, on a relay that has just started.
//! 3. Then the relay's rate of handshakes, with a window of them in flight. In each lap every peer
//!    shakes hands once. Initiations are prepared before the clock starts, and sessions derived
//!    after it has stopped.

mod all_at_once;
mod initiators;

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{LossDetector, Network, Peers};
use crate::options::{Common, Cores, Family, within};
use crate::process::STEP_LIMIT;
use crate::run::side_by_side;
use crate::usage::{added, of_daemon};
use crate::{clock, interrupt};
use initiators::Initiators;

/// Longer than a relay asks for cookies after its load has fallen (one second;
/// `wg_receive_handshake_packet` in drivers/net/wireguard/receive.c).
const CALM: Duration = Duration::from_millis(1200);

/// Pause between two laps: a relay drops a peer's initiation that follows another within 20 ms
/// (INITIATIONS_PER_SECOND; messages.h in drivers/net/wireguard).
const LAP_PAUSE: Duration = Duration::from_millis(50);

/// Laps at most, however short they are.
const LAPS_MAX: usize = 100;

/// Silence after which handshakes in flight are lost, if the relay is idle.
const SILENCE: Duration = Duration::from_millis(300);

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
        measure(&network, options).map_err(|failure| failure.or(network.relay.check()))
    })
}

fn measure(network: &Network, options: &Options) -> Result<Value, Failure> {
    let mut peers = Peers::new(options.peers.div_ceil(2), Family::V4);
    peers.ends.truncate(options.peers);
    network.configure(&peers.relay, peers.entries(), STEP_LIMIT)?;
    let keys = peers.ends.iter().map(|(keys, _)| keys);
    let relay = network.relay.pid();
    let mut initiators = Initiators::new(keys, &peers.relay, network.socket_of_many()?)?;
    let patience = Duration::from_secs(options.patience.into());
    let mut record = all_at_once::run(&mut initiators, patience, relay)?;
    sleep(CALM);
    initiators.restart();
    let limit = options.common.duration();
    steady(&mut initiators, options.window, limit, relay, &mut record)?;
    record["told"] = json!(network.relay.told());
    record["peers"] = json!(options.peers);
    Ok(record)
}

/// Totals of the laps.
#[derive(Default)]
struct Steady {
    /// Responses, all authentic.
    completed: u64,
    /// Handshakes without a response.
    lost: u64,
    /// Cookie replies. After its first, a peer retries at once.
    cookies: u64,
    /// From the first initiation to the last response of each lap.
    duration: Duration,
    /// CPU time of the relay; none if it is the kernel.
    relay: Option<Duration>,
}

/// Runs laps with `window` handshakes in flight, for about `limit`, and adds its figures to
/// `record`.
fn steady(
    initiators: &mut Initiators,
    window: usize,
    limit: Duration,
    relay: Option<u32>,
    record: &mut Value,
) -> Result<(), Failure> {
    let mut steady = Steady::default();
    for _ in 0..LAPS_MAX {
        for member in &mut initiators.members {
            interrupt::check()?;
            member.begin();
            member.initiator.prepare();
        }
        sleep(LAP_PAUSE);
        let before = of_daemon(relay)?;
        lap(initiators, window, relay, &mut steady)?;
        steady.relay = added(steady.relay, before, of_daemon(relay)?);
        initiators.verify()?;
        if steady.completed == 0 {
            return Err(Failure::step("the relay answers no handshake"));
        }
        if steady.duration >= limit {
            break;
        }
    }
    let Steady { completed, lost, cookies, duration, relay } = steady;
    let (seconds, relay) = (duration.as_secs_f64(), relay.map(|time| time.as_secs_f64()));
    record["handshakes_per_second"] = json!(completed as f64 / seconds);
    record["cpu_ns_per_handshake"] = json!(relay.map(|time| 1e9 * time / completed as f64));
    record["steady"] = json!({
        "completed": completed,
        "lost": lost,
        "late": initiators.late,
        "cookies": cookies,
        "seconds": seconds,
        "relay_cpu_seconds": relay,
    });
    Ok(())
}

/// One handshake of every peer.
fn lap(
    initiators: &mut Initiators,
    window: usize,
    relay: Option<u32>,
    steady: &mut Steady,
) -> Result<(), Failure> {
    let (start, mut next, mut waiting) = (clock::now(), 0, 0);
    let mut losses = LossDetector::new(SILENCE, relay, start);
    while next < initiators.members.len() || waiting > 0 {
        interrupt::check()?;
        while waiting < window && next < initiators.members.len() {
            initiators.send(next)?;
            next += 1;
            waiting += 1;
        }
        while let Some(arrival) = initiators.receive()? {
            losses.reset(clock::now());
            if !arrival.is_cookie {
                waiting = waiting.saturating_sub(1);
            } else if initiators.members[arrival.member].cookies == 1 {
                initiators.send(arrival.member)?;
            }
        }
        if losses.is_loss(clock::now()) {
            waiting = 0;
        }
    }
    let responses = initiators.members.iter().filter_map(|member| member.response);
    let last = responses.clone().map(|(_, at)| at).max().unwrap_or(start);
    let completed = responses.count() as u64;
    steady.duration += last - start;
    steady.completed += completed;
    steady.lost += initiators.members.len() as u64 - completed;
    steady.cookies += initiators.cookies();
    Ok(())
}
