//! `blast`: packets per second through a relay and its CPU time per packet, under a load that the
//! harness generates itself.
//!
//! 1. `options`: the load.
//! 2. As much as the relay can take, and latency at given loads; the relay may be on another
//!    machine, over this machine's own network.
//! 3. A thin flow next to heavy ones, and next to a slow receiver.

mod options;

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::{Value, json};

pub use options::Options;

use crate::failure::Failure;
use crate::generator::{Bench, GroupPlan, Path, Phase, Relay, Sampler, Seed};
use crate::implementation::Program;
use crate::options::Common;
use crate::record::Row;
use crate::run::{in_rounds, side_by_side};

/// The thin flow: packets per second, and bytes of each.
const THIN_RATE: f64 = 100.0;
const THIN_SIZE: usize = 100;

/// Bytes of the thin flow's pool: more packets than a slice can take.
const THIN_POOL: usize = 1 << 20;

/// Load of the heavy pairs, as a part of the capacity.
const HEAVY_SHARE: f64 = 0.9;

/// Load of the slow path, in multiples of its rate.
const SLOW_EXCESS: f64 = 10.0;

/// Groups, in the order of their plans.
const HEAVY: usize = 0;
const THIN: usize = 1;
const SLOW: usize = 2;

/// Measures with these options, or prints the peers' configuration. The exit code is a failure if a
/// program that is there failed.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.remote_config {
        return print_config(options);
    }
    options.check()?;
    options.cores.prepare_process()?;
    if let Some(address) = options.remote {
        return run_remote(address, options);
    }
    let common = Common { implementations: options.choices(), ..options.common.clone() };
    side_by_side("blast", json!(options), &common, |program| match options.fairness {
        true => measure_fairness(program, options),
        false => {
            let bench = Bench::build(program, &[options.plan()], options.setup())?;
            if let (Some(rules), Some(network)) = (&options.rules, bench.relay.network()) {
                network.relay.namespace.run(&format!("nft -f {}", rules.display()))?;
            }
            measure(bench, options)
        }
    })
}

/// Measures the relay at `address`, in rounds.
fn run_remote(address: SocketAddr, options: &Options) -> Result<ExitCode, Failure> {
    let (public, path) = options.remote_key.zip(options.keys.as_deref()).expect("required");
    let ends = Seed::read(path)?.ends(options.traffic.pairs, options.family);
    let mut record = json!(options);
    record["relay_core"] = Value::Null;
    record["outer"] = json!(if address.is_ipv4() { 4 } else { 6 });
    let row = Row { label: address.to_string(), family: "remote".into(), ..Row::default() };
    in_rounds("blast", record, &options.common, vec![(row, Some(address))], |address| {
        let (relay, plans) = (Relay::Remote(*address), [options.plan()]);
        measure(Bench::connect(relay, &public, &ends, &plans, options.setup())?, options)
    })
}

/// Prints the configuration for a relay on another machine.
fn print_config(options: &Options) -> Result<ExitCode, Failure> {
    let path = options.keys.as_deref().expect("required");
    let pairs = options.traffic.pairs;
    let sections = Seed::read_or_create(path)?.sections(pairs);
    print!(
        "# {pairs} pairs of peers of `wg-bounce-perf blast --remote`. On the relay, as root:\n\
         #   wg addconf wg0 THIS-FILE\n\
         #   ip route replace 10.64.0.0/10 dev wg0\n\
         #   ip -6 route replace fd77::/48 dev wg0\n\
         #   sysctl net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n{sections}"
    );
    Ok(ExitCode::SUCCESS)
}

/// Measures the capacity of a connected relay, and latency at the loads.
fn measure(mut bench: Bench, options: &Options) -> Result<Value, Failure> {
    let limit = options.common.duration();
    let packets = options.packets.unwrap_or(u64::MAX);
    let (window, capacity) = bench.saturate(0, options.traffic.window, packets, limit)?;
    let mut loads = Vec::new();
    for load in &options.load {
        let mut record = bench.at_rate(load.rate(capacity.rate()), limit)?.record();
        record["load"] = json!(load);
        loads.push(record);
    }
    Ok(json!({
        "told": bench.told(),
        "window": window,
        "gigabits_per_second": capacity.rate() * options.traffic.size as f64 * 8.0 / 1e9,
        "capacity": capacity.record(),
        "loads": loads,
    }))
}

/// Measures latency and loss of a thin flow.
///
/// 1. The relay's capacity for the heavy pairs.
/// 2. The thin pair alone.
/// 3. Next to the heavy pairs, at 90 % of that capacity.
/// 4. Next to a pair whose receiver's path carries far less than is sent to it.
fn measure_fairness(program: &Program, options: &Options) -> Result<Value, Failure> {
    let heavy = options.plan();
    let plans = [
        heavy,
        GroupPlan { pairs: 1, path: Path::Thin, size: THIN_SIZE, train: 1, pool: THIN_POOL },
        GroupPlan { pairs: 1, path: Path::Slow, ..heavy },
    ];
    let mut bench = Bench::build(program, &plans, options.setup())?;
    let pair = heavy.pairs; // follows the heavy ones
    let limit = options.common.duration();
    let sampler = || Sampler::new(options.check_every).with_every_train_of(pair);
    let (_, capacity) = bench.saturate(HEAVY, options.traffic.window, u64::MAX, limit)?;
    let heavy_rate = HEAVY_SHARE * capacity.rate();
    let thin = (THIN, THIN_RATE);
    let alone = bench.at_rates(&[thin], limit, sampler())?;
    let beside_heavy = bench.at_rates(&[thin, (HEAVY, heavy_rate)], limit, sampler())?;
    let network = bench.relay.network().expect("--remote excludes --fairness");
    network.slow_down(options.slow)?;
    let slow_rate = SLOW_EXCESS * f64::from(options.slow) * 1e6 / (8.0 * heavy.size as f64);
    let beside_slow = bench.at_rates(&[thin, (SLOW, slow_rate)], limit, sampler())?;
    Ok(json!({
        "told": bench.told(),
        "heavy_packets_per_second": heavy_rate,
        "alone": with_thin(&alone, pair),
        "beside_heavy": with_thin(&beside_heavy, pair),
        "beside_slow": with_thin(&beside_slow, pair),
    }))
}

/// A phase, and the thin flow in it.
fn with_thin(phase: &Phase, pair: usize) -> Value {
    let thin = phase.groups[THIN];
    let mut record = phase.record();
    record["thin"] = json!({
        "sent": thin.sent,
        "lost": thin.lost(),
        "latency_microseconds": phase.latency_of(pair),
    });
    record
}
