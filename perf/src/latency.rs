//! `latency`: latency that a relay adds at given loads.
//!
//! 1. The capacity of the relay, of which a load may be a percentage.
//! 2. The baseline: the same packets, at the lowest of the loads, straight to the receivers.
//! 3. Each load.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::generator::{Bench, Kind, Load, Phase, Setup, Traffic};
use crate::implementation::Program;
use crate::options::{Common, Cores, Family};
use crate::run::side_by_side;

/// Quantiles in the JSON lines (percent).
const QUANTILES: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9];

/// Longest search for the capacity.
const CAPACITY_LIMIT: Duration = Duration::from_secs(1);

/// Memory for packets that are encrypted before the clock starts (MiB).
const POOL: usize = 128;

/// Options of `latency`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Options {
    /// Loads: packets per second, or percent of the implementation's capacity
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', default_value = "10%,50%,80%")]
    load: Vec<Load>,

    /// IP version inside the tunnel
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,

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

/// Measures with these options. The exit code is a failure if a program that is there failed.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    options.traffic.check(Kind::Udp, options.family)?;
    options.cores.prepare_process()?;
    side_by_side("latency", json!(options), &options.common, |program| measure(program, options))
}

fn measure(program: &Program, options: &Options) -> Result<Value, Failure> {
    // UDP: TCP segments would be delayed where a relay's kernel coalesces them.
    let setup = Setup::plain(Kind::Udp, options.cores.relay_core);
    let setup = Setup { family: options.family, ..setup };
    let mut bench = Bench::build(program, &[options.traffic.plan(POOL)], setup)?;
    let (window, limit) = (options.traffic.window, options.common.duration());
    let (_, capacity) = bench.saturate(0, window, u64::MAX, limit.min(CAPACITY_LIMIT))?;
    let capacity = capacity.rate();
    let lowest = options.load.iter().map(|load| load.rate(capacity)).fold(f64::MAX, f64::min);
    let baseline = bench.at_rate_directly(lowest, limit)?;
    let mut loads = vec![record("baseline", &baseline, None)];
    for load in &options.load {
        let phase = bench.at_rate(load.rate(capacity), limit)?;
        loads.push(record(&load.label(), &phase, Some(&baseline)));
    }
    Ok(json!({ "told": bench.told(), "capacity_pps": capacity, "loads": loads }))
}

/// The latency at one load, and what it has in addition to the baseline's.
fn record(label: &str, phase: &Phase, baseline: Option<&Phase>) -> Value {
    let at = |percent| phase.latency(percent);
    let added = |percent| baseline.map(|baseline| at(percent) - baseline.latency(percent));
    json!({
        "load": label,
        "pps": phase.rate(),
        "p50_us": at(50.0),
        "p99_us": at(99.0),
        "max_us": at(100.0),
        "added_p50_us": added(50.0),
        "added_p99_us": added(99.0),
        "lost": phase.count.lost(),
        "samples": phase.samples.len(),
        "quantiles_us": QUANTILES.map(|percent| [percent, at(percent)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_adds_to_the_baseline() {
        let phase = |times: std::ops::RangeInclusive<u64>| Phase {
            duration: Duration::from_secs(1),
            samples: times.map(|micros| (0, Duration::from_micros(micros))).collect(),
            ..Phase::default()
        };
        let record = record("10%", &phase(1..=1000), Some(&phase(100..=200)));
        let figure = |name: &str| record[name].as_f64().expect("a figure").round();
        assert_eq!((figure("p50_us"), figure("max_us")), (500.0, 1000.0));
        assert_eq!((figure("added_p50_us"), figure("added_p99_us")), (350.0, 791.0));
        assert_eq!(record["quantiles_us"][0][0], 1.0);
        assert_eq!(record["quantiles_us"].as_array().map(Vec::len), Some(QUANTILES.len()));
    }
}
