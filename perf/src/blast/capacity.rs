//! Capacity of a relay, its CPU time per packet, and latency at given loads.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, Phase, Sampler};
use crate::implementation::Program;
use crate::interrupt::Interrupt;

/// Measures `program`.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Value, Failure> {
    let mut bench = Bench::build(program, &[options.plan()], &options.setup(), interrupt)?;
    bench.explained(|bench| phases(bench, options))
}

/// Measures a relay that is connected.
pub fn phases(bench: &mut Bench, options: &Options) -> Result<Value, Failure> {
    let limit = Duration::from_secs(options.common.seconds.into());
    let window = bench.find_window(0, options.traffic.window as usize)?;
    let packets = options.packets.unwrap_or(u64::MAX);
    let capacity = bench.closed(0, window, packets, limit)?;
    let mut loads = Vec::new();
    for load in &options.load {
        let rate = load.rate(capacity.rate());
        let sampler = Sampler::for_latency(rate, limit, options.traffic.train as usize);
        let mut record = bench.open(&[(0, rate)], limit, sampler)?.record();
        record["load"] = json!(load);
        loads.push(record);
    }
    Ok(json!({
        "told": bench.told(),
        "window": window,
        "gigabits_per_second": gigabits(&capacity, options.traffic.size),
        "capacity": capacity.record(),
        "loads": loads,
    }))
}

/// Gbit/s of inner packets.
fn gigabits(phase: &Phase, size: usize) -> f64 {
    phase.rate() * size as f64 * 8.0 / 1e9
}
