//! How much a relay can take, what a packet costs it, and how long packets take at a given load.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::options::Options;
use crate::failure::Failure;
use crate::generator::{Bench, GroupPlan, Keys, Path, Phase, Relay, Remote, Sampler};
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::rounds::Measured;
use crate::table::{Column, Row, Says, render};

const CAPACITY: &[Column<Measurement>] = &[
    Column { title: "kpps", figure: |it| it.capacity.rate() / 1e3, says: Says::Median(1) },
    Column { title: "min–max", figure: |it| it.capacity.rate() / 1e3, says: Says::Range(1) },
    Column { title: "Gbit/s", figure: Measurement::gigabits, says: Says::Median(2) },
    Column {
        title: "ns/packet",
        figure: |it| it.capacity.nanoseconds_per_packet(),
        says: Says::Median(0),
    },
    Column {
        title: "min–max",
        figure: |it| it.capacity.nanoseconds_per_packet(),
        says: Says::Range(0),
    },
    Column { title: "relay %", figure: |it| it.capacity.relay_percent(), says: Says::Median(0) },
    Column { title: "core %", figure: |it| it.capacity.core_percent(), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.capacity.lost() as f64, says: Says::Median(0) },
    Column { title: "late", figure: |it| it.capacity.late() as f64, says: Says::Median(0) },
    Column { title: "train", figure: |it| it.capacity.train(), says: Says::Median(1) },
    Column { title: "window", figure: |it| it.window as f64, says: Says::Median(0) },
    Column {
        title: "ns to the best other",
        figure: |it| it.capacity.nanoseconds_per_packet(),
        says: Says::TimesLowest,
    },
    Column {
        title: "pps to the best other",
        figure: |it| it.capacity.rate(),
        says: Says::TimesHighest,
    },
];

const LOADED: &[Column<Phase>] = &[
    Column { title: "kpps", figure: |it| it.rate() / 1e3, says: Says::Median(1) },
    Column { title: "p50 µs", figure: |it| it.latency(None, 50.0), says: Says::Median(0) },
    Column { title: "min–max", figure: |it| it.latency(None, 50.0), says: Says::Range(0) },
    Column { title: "p99 µs", figure: |it| it.latency(None, 99.0), says: Says::Median(0) },
    Column { title: "min–max", figure: |it| it.latency(None, 99.0), says: Says::Range(0) },
    Column { title: "max µs", figure: |it| it.latency(None, 100.0), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.lost() as f64, says: Says::Median(0) },
    Column { title: "ns/packet", figure: Phase::nanoseconds_per_packet, says: Says::Median(0) },
    Column { title: "relay %", figure: Phase::relay_percent, says: Says::Median(0) },
];

/// Prints the table, and one for each load.
pub fn print(rows: &[Row<'_, Measurement>], options: &Options) {
    println!("{}", render(rows, CAPACITY));
    for (number, load) in options.load.iter().enumerate() {
        let rows: Vec<Row<'_, Phase>> =
            rows.iter().map(|row| row.map(|it| &it.loads[number])).collect();
        println!("At {}:\n\n{}", load.label(), render(&rows, LOADED));
    }
    println!(
        "Medians of the rounds. ns/packet: CPU time of the relay per packet; relay: how much of \
         its core it used; core: how much was used by whoever; late: packets that arrived after \
         a later one; train: packets per train that a receiver got; window: packets on their way."
    );
}

/// What one measurement gave.
pub struct Measurement {
    /// Bytes of an inner packet.
    size: usize,
    /// Packets that were on their way at a time.
    window: usize,
    /// As many packets as the relay can take.
    capacity: Phase,
    /// At each `--load`.
    loads: Vec<Phase>,
    /// What the relay's log said of how it runs.
    told: Vec<String>,
}

impl Measurement {
    /// Gbit/s of inner packets.
    fn gigabits(&self) -> f64 {
        self.capacity.rate() * self.size as f64 * 8.0 / 1e9
    }
}

impl Measured for Measurement {
    fn summary(&self) -> String {
        let (rate, cost) = (self.capacity.rate() / 1e3, self.capacity.nanoseconds_per_packet());
        let cost = if cost.is_nan() { String::new() } else { format!("{cost:.0} ns/packet, ") };
        format!("{rate:.1} kpps, {cost}{} lost", self.capacity.lost())
    }

    fn record(&self) -> Value {
        json!({
            "told": self.told,
            "window": self.window,
            "gigabits_per_second": self.gigabits(),
            "capacity": self.capacity.record(),
            "loads": self.loads.iter().map(Phase::record).collect::<Vec<_>>(),
        })
    }
}

/// Measures `program`.
pub fn measure(
    program: &Program,
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let mut bench = Bench::build(program, &[plan(options)], &options.setup(), interrupt)?;
    let outcome = phases(&mut bench, options);
    bench.explain(outcome)
}

/// Measures a relay on another machine, which knows the `ends` of all pairs.
pub fn measure_remote(
    relay: &Remote,
    ends: &[(Keys, IpAddr)],
    options: &Options,
    interrupt: &Interrupt,
) -> Result<Measurement, Failure> {
    let (relay, public) = (relay.clone(), &relay.public);
    let plans = [plan(options)];
    let mut bench = Bench::connect(relay, public, ends, &plans, &options.setup(), interrupt)?;
    let outcome = phases(&mut bench, options);
    bench.explain(outcome)
}

fn plan(options: &Options) -> GroupPlan {
    GroupPlan {
        pairs: options.pairs as usize,
        path: Path::Receivers,
        size: options.size,
        train: options.train as usize,
        pool: (options.pool as usize) << 20,
    }
}

fn phases<R: Relay>(bench: &mut Bench<R>, options: &Options) -> Result<Measurement, Failure> {
    let limit = Duration::from_secs(options.seconds.into());
    let window = bench.find_window(0, options.window as usize)?;
    let packets = options.packets.unwrap_or(u64::MAX);
    let capacity = bench.closed(0, window, packets, limit)?;
    let mut loads = Vec::new();
    for load in &options.load {
        let rate = load.rate(capacity.rate());
        let sampler = Sampler::for_latency(rate, limit, options.train as usize);
        loads.push(bench.open(&[(0, rate)], limit, sampler)?);
    }
    let told = bench.relay.told();
    Ok(Measurement { size: options.size, window, capacity, loads, told })
}
