//! Latency and loss of a thin flow next to heavy flows, and next to a slow receiver.
//!
//! 1. The relay's capacity for the heavy pairs.
//! 2. The thin pair alone.
//! 3. Next to the heavy pairs, at 90 % of that capacity.
//! 4. Next to a pair whose receiver's path carries far less than is sent to it.

use serde_json::{Value, json};

use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, GroupPlan, Path, Phase, Sampler};
use crate::implementation::Program;

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

/// Measures `program`.
pub fn measure(program: &Program, options: &Options) -> Result<Value, Failure> {
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
        "alone": record(&alone, pair),
        "beside_heavy": record(&beside_heavy, pair),
        "beside_slow": record(&beside_slow, pair),
    }))
}

/// A phase, and the thin flow in it.
fn record(phase: &Phase, pair: usize) -> Value {
    let thin = phase.groups[THIN];
    let mut record = phase.record();
    record["thin"] = json!({
        "sent": thin.sent,
        "lost": thin.lost(),
        "latency_microseconds": phase.latency_of(pair),
    });
    record
}
