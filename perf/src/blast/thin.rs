//! Whether a thin flow suffers from what a heavy one, or one behind a slow link, does beside it.
//!
//! 1. How much the relay takes of the heavy pairs.
//! 2. The thin pair alone.
//! 3. Beside the heavy pairs, at 90 % of that.
//! 4. Beside a pair whose receiver's path carries far less than is sent to it.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, GroupPlan, Path, Phase, Sampler};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::rounds::Measured;
use crate::table::{Column, Row, Says, render};

/// The thin flow: packets per second, and bytes of each.
const THIN_RATE: f64 = 100.0;
const THIN_SIZE: usize = 100;

/// Bytes of the thin flow's pool: more packets than a slice can take.
const THIN_POOL: usize = 1 << 20;

/// What the heavy pairs send of what the relay has taken from them.
const HEAVY_SHARE: f64 = 0.9;

/// How many times what the slow link carries is sent to it.
const SLOW_EXCESS: f64 = 10.0;

/// Groups, in the order of their plans.
const HEAVY: usize = 0;
const THIN: usize = 1;
const SLOW: usize = 2;

const COLUMNS: &[Column<Measurement>] = &[
    Column { title: "heavy kpps", figure: |it| it.heavy_rate / 1e3, says: Says::Median(1) },
    Column { title: "alone p50 µs", figure: |it| it.alone(50.0), says: Says::Median(0) },
    Column { title: "p99", figure: |it| it.alone(99.0), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.lost(&it.alone), says: Says::Median(0) },
    Column { title: "by heavy p50", figure: |it| it.by_heavy(50.0), says: Says::Median(0) },
    Column { title: "p99", figure: |it| it.by_heavy(99.0), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.lost(&it.by_heavy), says: Says::Median(0) },
    Column {
        title: "p99 × alone",
        figure: |it| it.by_heavy(99.0) / it.alone(99.0),
        says: Says::Range(1),
    },
    Column { title: "by slow p50", figure: |it| it.by_slow(50.0), says: Says::Median(0) },
    Column { title: "p99", figure: |it| it.by_slow(99.0), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.lost(&it.by_slow), says: Says::Median(0) },
    Column {
        title: "p99 × alone",
        figure: |it| it.by_slow(99.0) / it.alone(99.0),
        says: Says::Range(1),
    },
];

/// What one measurement gave.
pub struct Measurement {
    /// Number of the thin pair.
    pair: usize,
    /// Packets per second that were sent beside it.
    heavy_rate: f64,
    alone: Phase,
    by_heavy: Phase,
    by_slow: Phase,
}

impl Measurement {
    /// Latency of the thin flow (microseconds).
    fn alone(&self, percent: f64) -> f64 {
        self.alone.latency(Some(self.pair), percent)
    }

    fn by_heavy(&self, percent: f64) -> f64 {
        self.by_heavy.latency(Some(self.pair), percent)
    }

    fn by_slow(&self, percent: f64) -> f64 {
        self.by_slow.latency(Some(self.pair), percent)
    }

    /// Packets that the thin flow lost.
    fn lost(&self, phase: &Phase) -> f64 {
        phase.groups[THIN].lost() as f64
    }
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        let [alone, by_heavy, by_slow] =
            [self.alone(99.0), self.by_heavy(99.0), self.by_slow(99.0)];
        format!(
            "p99 {alone:.0} µs alone, {by_heavy:.0} by a heavy flow, {by_slow:.0} by a slow one"
        )
    }

    fn record(&self) -> Value {
        let phase = |phase: &Phase| {
            let latency = |percent| phase.latency(Some(self.pair), percent);
            let mut record = phase.record();
            record["thin"] = json!({
                "sent": phase.groups[THIN].sent,
                "lost": phase.groups[THIN].lost(),
                "latency_microseconds": {
                    "p50": latency(50.0),
                    "p99": latency(99.0),
                    "max": latency(100.0),
                },
            });
            record
        };
        json!({
            "heavy_packets_per_second": self.heavy_rate,
            "alone": phase(&self.alone),
            "beside_heavy": phase(&self.by_heavy),
            "beside_slow": phase(&self.by_slow),
        })
    }
}

/// Prints the table.
pub fn print(rows: &[Row<'_, Measurement>], options: &Options) {
    println!("{}", render(rows, COLUMNS));
    println!(
        "A flow of {THIN_RATE} packets/s of {THIN_SIZE} bytes: alone; beside flows at {:.0} % of \
         what the relay takes; beside one that sends {SLOW_EXCESS} times the {} Mbit/s of its \
         path. Medians of the rounds, and smallest and largest.",
        HEAVY_SHARE * 100.0,
        options.slow
    );
}

/// Measures `program`.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let pool = (options.pool as usize) << 20;
    let (size, train) = (options.size, options.train as usize);
    let plan = |pairs, path| GroupPlan { pairs, path, size, train, pool };
    let plans = [
        plan(options.pairs as usize, Path::Receivers),
        GroupPlan { pairs: 1, path: Path::Thin, size: THIN_SIZE, train: 1, pool: THIN_POOL },
        plan(1, Path::Slow),
    ];
    let mut bench = Bench::build(program, &plans, &options.setup(), interrupt)?;
    let outcome = phases(&mut bench, options);
    bench.explain(outcome)
}

fn phases(bench: &mut Bench, options: &Options) -> Result<Measurement, Failure> {
    let pair = options.pairs as usize; // after the heavy ones
    let limit = Duration::from_secs(options.seconds.into());
    let sampler = || Sampler::new(options.check_every as usize).with_every_train_of(pair);
    let window = bench.find_window(HEAVY, options.window as usize)?;
    let heavy_rate = HEAVY_SHARE * bench.closed(HEAVY, window, u64::MAX, limit)?.rate();
    let thin = (THIN, THIN_RATE);
    let alone = bench.open(&[thin], limit, sampler())?;
    let by_heavy = bench.open(&[thin, (HEAVY, heavy_rate)], limit, sampler())?;
    bench.relay.slow_down(Path::Slow, options.slow)?;
    let bits = 8.0 * options.size as f64;
    let slow_rate = SLOW_EXCESS * f64::from(options.slow) * 1e6 / bits;
    let by_slow = bench.open(&[thin, (SLOW, slow_rate)], limit, sampler())?;
    Ok(Measurement { pair, heavy_rate, alone, by_heavy, by_slow })
}
