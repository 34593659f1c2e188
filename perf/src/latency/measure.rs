//! One measurement: the capacity of a relay, the path without it, and the relay at each load.
//!
//! 1. How many packets per second it relays at most: a load in percent is a part of that.
//! 2. The baseline: the same packets, at the lowest of the loads, straight to the receivers.
//! 3. Each load.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, Phase, Relay, Sampler};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::rounds::Measured;
use crate::statistics::percentile;

/// What the JSON lines have of a distribution (percent).
const QUANTILES: [f64; 11] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9];

/// Longest time in which the capacity is looked for.
const CAPACITY_LIMIT: Duration = Duration::from_secs(1);

/// How long packets took at one load.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What `--load` calls it, or "baseline".
    label: String,
    /// Packets per second that arrived.
    pub rate: f64,
    /// Packets that did not.
    pub lost: u64,
    /// From the sender's system call to the arrival, sorted (microseconds).
    microseconds: Vec<f64>,
    /// Less than that is what the relay adds (microseconds at 50 and at 99 percent).
    baseline: (f64, f64),
}

impl Loaded {
    fn new(label: &str, phase: &Phase, baseline: (f64, f64)) -> Loaded {
        let latencies = phase.samples.iter().map(|(_, latency)| latency.as_secs_f64() * 1e6);
        let mut microseconds: Vec<f64> = latencies.collect();
        microseconds.sort_by(f64::total_cmp);
        let (rate, lost) = (phase.rate(), phase.lost());
        Loaded { label: label.to_owned(), rate, lost, microseconds, baseline }
    }

    /// What so many percent of the packets took at most (microseconds).
    pub fn at(&self, percent: f64) -> f64 {
        percentile(&self.microseconds, percent).unwrap_or(f64::NAN)
    }

    /// What the relay and the way back from it add to the median (microseconds).
    pub fn added_p50(&self) -> f64 {
        self.at(50.0) - self.baseline.0
    }

    /// The same of the 99th percentile.
    pub fn added_p99(&self) -> f64 {
        self.at(99.0) - self.baseline.1
    }

    fn record(&self) -> Value {
        json!({
            "load": self.label,
            "pps": self.rate,
            "p50_us": self.at(50.0),
            "p99_us": self.at(99.0),
            "max_us": self.at(100.0),
            "lost": self.lost,
            "samples": self.microseconds.len(),
            "quantiles_us": QUANTILES.map(|percent| [percent, self.at(percent)]),
        })
    }
}

/// What one measurement gave.
pub struct Measurement {
    /// What the relay's log said of how it runs.
    told: Vec<String>,
    /// Packets per second that the relay takes.
    capacity: f64,
    /// Without the relay.
    pub baseline: Loaded,
    /// At each `--load`, in order.
    pub loads: Vec<Loaded>,
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        let loads = self
            .loads
            .iter()
            .map(|load| format!("{:.0}/{:.0} µs at {}", load.at(50.0), load.at(99.0), load.label));
        format!("p50/p99 {}", loads.collect::<Vec<_>>().join(", "))
    }

    fn record(&self) -> Value {
        let all = std::iter::once(&self.baseline).chain(&self.loads);
        json!({
            "told": self.told,
            "capacity_pps": self.capacity,
            "loads": all.map(Loaded::record).collect::<Vec<_>>(),
        })
    }
}

/// Measures `program`.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let mut bench = Bench::build(program, &[options.plan()], &options.setup(), interrupt)?;
    let outcome = phases(&mut bench, options, interrupt);
    bench.explain(outcome)
}

fn phases(
    bench: &mut Bench,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let limit = Duration::from_secs(options.seconds.into());
    let plan = options.plan();
    let window = bench.find_window(0, options.window as usize)?;
    let capacity = bench.closed(0, window, u64::MAX, limit.min(CAPACITY_LIMIT))?.rate();
    let lowest = options.load.iter().map(|load| load.rate(capacity)).fold(f64::MAX, f64::min);
    let alone = bench.open_directly(&plan, &options.setup(), lowest, limit, interrupt)?;
    let baseline = Loaded::new("baseline", &alone, (0.0, 0.0));
    let path = (baseline.at(50.0), baseline.at(99.0));
    let mut loads = Vec::new();
    for load in &options.load {
        let rate = load.rate(capacity);
        let sampler = Sampler::for_latency(rate, limit, plan.train);
        let phase = bench.open(&[(0, rate)], limit, sampler)?;
        loads.push(Loaded::new(&load.label(), &phase, path));
    }
    Ok(Measurement { told: bench.relay.told(), capacity, baseline, loads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_more_than_the_path() {
        let phase = Phase {
            duration: Duration::from_secs(1),
            samples: (1..=1000).map(|micros| (0, Duration::from_micros(micros))).collect(),
            ..Phase::default()
        };
        let loaded = Loaded::new("10%", &phase, (100.0, 200.0));
        assert_eq!((loaded.at(50.0).round(), loaded.at(100.0).round()), (500.0, 1000.0));
        assert_eq!((loaded.added_p50().round(), loaded.added_p99().round()), (400.0, 790.0));
        let quantiles = &loaded.record()["quantiles_us"];
        assert_eq!(quantiles[0][0], 1.0);
        assert_eq!(quantiles.as_array().map(Vec::len), Some(QUANTILES.len()));
    }
}
