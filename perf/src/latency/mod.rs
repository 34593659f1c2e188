//! `latency`: what a relay adds to the time that packets take, at chosen loads.

mod measure;
mod options;

use std::process::ExitCode;

pub use options::Options;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::rounds::{Entry, exit_code, print_programs};
use crate::table::{Column, Row, Says, render};
use measure::{Loaded, Measurement, measure};

const BASELINE: &[Column<Loaded>] = &[
    Column { title: "kpps", figure: |it| it.rate / 1e3, says: Says::Median(1) },
    Column { title: "p50 µs", figure: |it| it.at(50.0), says: Says::Median(0) },
    Column { title: "p99 µs", figure: |it| it.at(99.0), says: Says::Median(0) },
    Column { title: "max µs", figure: |it| it.at(100.0), says: Says::Median(0) },
];

const LOADED: &[Column<Loaded>] = &[
    Column { title: "kpps", figure: |it| it.rate / 1e3, says: Says::Median(1) },
    Column { title: "p50 µs", figure: |it| it.at(50.0), says: Says::Median(0) },
    Column { title: "added", figure: Loaded::added_p50, says: Says::Median(0) },
    Column { title: "min–max", figure: Loaded::added_p50, says: Says::Range(0) },
    Column { title: "p99 µs", figure: |it| it.at(99.0), says: Says::Median(0) },
    Column { title: "added", figure: Loaded::added_p99, says: Says::Median(0) },
    Column { title: "min–max", figure: Loaded::added_p99, says: Says::Range(0) },
    Column { title: "max µs", figure: |it| it.at(100.0), says: Says::Median(0) },
    Column { title: "lost", figure: |it| it.lost as f64, says: Says::Median(0) },
    Column { title: "p50 to the best other", figure: |it| it.at(50.0), says: Says::TimesLowest },
];

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    let (entries, machine) =
        options.side_by_side.run("latency", options.record(), interrupt, |program| {
            measure(program, options, interrupt)
        })?;
    println!("{}\n{machine}\n", options.title());
    print(&entries.iter().map(Entry::row).collect::<Vec<_>>(), options);
    print_programs(&entries);
    Ok(exit_code(&entries))
}

/// A table of the path, and one for each load.
fn print(rows: &[Row<'_, Measurement>], options: &Options) {
    let baseline: Vec<_> = rows.iter().map(|row| row.map(|it| &it.baseline)).collect();
    println!("Without a relay, at the lowest load:\n\n{}", render(&baseline, BASELINE));
    for (number, load) in options.load.iter().enumerate() {
        let rows: Vec<_> = rows.iter().map(|row| row.map(|it| &it.loads[number])).collect();
        println!("At {}:\n\n{}", load.label(), render(&rows, LOADED));
    }
    println!(
        "Medians of the rounds. From the sender's system call to the arrival; added: more than \
         without a relay. A load in percent is of what the same relay takes at most."
    );
}
