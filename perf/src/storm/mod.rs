//! `storm`: handshakes per second, and what becomes of peers that all come at once.
//!
//! 1. `options`.
//! 2. `crowd`: the peers, each behind an address of its own.
//! 3. `all_at_once`, `steady`: what they do.
//! 4. `measure`: one measurement.

mod all_at_once;
mod crowd;
mod measure;
mod options;
mod steady;

use std::process::ExitCode;

pub use options::Options;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::rounds::{Entry, exit_code, print_programs};
use crate::table::{Column, Row, Says, render};
use measure::{Measurement, measure};

const STEADY: &[Column<Measurement>] = &[
    Column { title: "handshakes/s", figure: |it| it.steady.rate(), says: Says::Median(0) },
    Column { title: "min–max", figure: |it| it.steady.rate(), says: Says::Range(0) },
    Column { title: "CPU µs each", figure: |it| cpu_microseconds(it), says: Says::Median(1) },
    Column { title: "min–max", figure: |it| cpu_microseconds(it), says: Says::Range(1) },
    Column { title: "relay %", figure: |it| it.steady.relay_percent(), says: Says::Median(0) },
    Column { title: "cookies", figure: |it| it.steady.cookies as f64, says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.steady.lost as f64, says: Says::Median(0) },
    Column {
        title: "rate to the best other",
        figure: |it| it.steady.rate(),
        says: Says::TimesHighest,
    },
    Column {
        title: "CPU to the best other",
        figure: |it| cpu_microseconds(it),
        says: Says::TimesLowest,
    },
];

const AT_ONCE: &[Column<Measurement>] = &[
    Column { title: "served", figure: |it| it.storm.answers.len() as f64, says: Says::Median(0) },
    Column { title: "never", figure: |it| it.storm.unserved as f64, says: Says::Median(0) },
    Column { title: "p50 ms", figure: |it| it.storm.answer(50.0) / 1e3, says: Says::Median(1) },
    Column { title: "min–max", figure: |it| it.storm.answer(50.0) / 1e3, says: Says::Range(1) },
    Column { title: "p99 ms", figure: |it| it.storm.answer(99.0) / 1e3, says: Says::Median(1) },
    Column { title: "min–max", figure: |it| it.storm.answer(99.0) / 1e3, says: Says::Range(1) },
    Column { title: "max ms", figure: |it| it.storm.answer(100.0) / 1e3, says: Says::Median(1) },
    Column { title: "cookies", figure: |it| it.storm.cookies as f64, says: Says::Median(0) },
    Column {
        title: "initiations",
        figure: |it| it.storm.initiations as f64,
        says: Says::Median(0),
    },
    Column {
        title: "relay CPU ms",
        figure: |it| it.storm.relay_seconds() * 1e3,
        says: Says::Median(0),
    },
];

fn cpu_microseconds(measurement: &Measurement) -> f64 {
    measurement.steady.nanoseconds_per_handshake() / 1e3
}

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    let (entries, machine) =
        options.side_by_side.run("storm", options.record(), interrupt, |program| {
            measure(program, options, interrupt)
        })?;
    println!("{}\n{machine}\n", options.title());
    print(&entries.iter().map(Entry::row).collect::<Vec<_>>(), options);
    print_programs(&entries);
    Ok(exit_code(&entries))
}

/// A table of the rate, and one of the storm.
fn print(rows: &[Row<'_, Measurement>], options: &Options) {
    println!("All {} at once:\n\n{}", options.peers, render(rows, AT_ONCE));
    println!("Then {} at a time:\n\n{}", options.window, render(rows, STEADY));
    println!(
        "Medians of the rounds. CPU: time of the relay; never: without an answer after {} s; p50, \
         p99, max: from a peer's first initiation to its response. Who gets none, or a cookie, \
         tries again after 5 s, as WireGuard does.",
        options.patience
    );
}
