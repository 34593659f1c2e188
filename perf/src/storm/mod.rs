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
use crate::generator::{Answer, LossDetector, Network, Peers};
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
    steady(&mut initiators, options, relay, &mut record)?;
    record["told"] = json!(network.relay.told());
    record["peers"] = json!(options.peers);
    Ok(record)
}

/// Runs laps for about the duration in `options`, and adds its figures to `record`.
fn steady(
    initiators: &mut Initiators,
    options: &Options,
    relay: Option<u32>,
    record: &mut Value,
) -> Result<(), Failure> {
    let (mut completed, mut lost, mut cookies) = (0, 0, 0);
    let (mut duration, mut cpu) = (Duration::ZERO, None);
    for _ in 0..LAPS_MAX {
        for member in &mut initiators.members {
            interrupt::check()?;
            member.begin();
            member.initiator.prepare();
        }
        sleep(LAP_PAUSE);
        let before = of_daemon(relay)?;
        duration += lap(initiators, options.window, relay)?;
        cpu = added(cpu, before, of_daemon(relay)?);
        initiators.verify()?;
        let served = initiators.members.iter().filter(|it| it.response.is_some()).count();
        completed += served;
        lost += initiators.members.len() - served;
        cookies += initiators.cookies();
        if completed == 0 {
            return Err(Failure::step("the relay answers no handshake"));
        }
        if duration >= options.common.duration() {
            break;
        }
    }
    let (seconds, cpu) = (duration.as_secs_f64(), cpu.map(|time| time.as_secs_f64()));
    record["handshakes_per_second"] = json!(completed as f64 / seconds);
    record["cpu_ns_per_handshake"] = json!(cpu.map(|time| 1e9 * time / completed as f64));
    record["steady"] = json!({
        "completed": completed,
        "lost": lost,
        "late": initiators.late,
        "cookies": cookies,
        "seconds": seconds,
        "relay_cpu_seconds": cpu,
    });
    Ok(())
}

/// One handshake of every peer, with `window` of them in flight. After its first cookie reply, a
/// peer retries at once. Returns the time from the first initiation to the last response.
fn lap(
    initiators: &mut Initiators,
    window: usize,
    relay: Option<u32>,
) -> Result<Duration, Failure> {
    let (start, mut next, mut waiting) = (clock::now(), 0, 0);
    let mut losses = LossDetector::new(SILENCE, relay, start);
    while next < initiators.members.len() || waiting > 0 {
        interrupt::check()?;
        while waiting < window && next < initiators.members.len() {
            initiators.send(next)?;
            next += 1;
            waiting += 1;
        }
        while let Some((number, answer)) = initiators.receive()? {
            losses.reset(clock::now());
            if answer != Answer::Cookie {
                waiting = waiting.saturating_sub(1);
            } else if initiators.members[number].cookies == 1 {
                initiators.send(number)?;
            }
        }
        if losses.is_loss(clock::now()) {
            waiting = 0;
        }
    }
    let arrivals = initiators.members.iter().filter_map(|member| Some(member.response?.1));
    Ok(arrivals.max().unwrap_or(start) - start)
}
