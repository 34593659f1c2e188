//! `scale`: what many peers take: to configure, in memory, and per packet.
//!
//! 1. `options`.
//! 2. `configure`: all peers at once, and single ones.
//! 3. `measure`: one measurement.

mod configure;
mod measure;
mod options;

use std::process::ExitCode;

pub use options::Options;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::rounds::print_programs;
use crate::table::{Column, Row, Says, render};
use measure::{Figures, MEBIBYTE, Measurement, measure};

const COLUMNS: &[Column<Figures>] = &[
    Column { title: "setconf s", figure: setconf_seconds, says: Says::Median(3) },
    Column { title: "min–max", figure: setconf_seconds, says: Says::Range(3) },
    Column { title: "MiB", figure: |it| it.resident() / MEBIBYTE, says: Says::Median(1) },
    Column { title: "min–max", figure: |it| it.resident() / MEBIBYTE, says: Says::Range(1) },
    Column {
        title: "add ms",
        figure: |it| it.configured.add.as_secs_f64() * 1e3,
        says: Says::Median(1),
    },
    Column {
        title: "remove ms",
        figure: |it| it.configured.remove.as_secs_f64() * 1e3,
        says: Says::Median(1),
    },
    Column { title: "ns/packet", figure: nanoseconds_per_packet, says: Says::Median(0) },
    Column { title: "min–max", figure: nanoseconds_per_packet, says: Says::Range(0) },
    Column { title: "setconf to the best other", figure: setconf_seconds, says: Says::TimesLowest },
    Column { title: "MiB to the best other", figure: Figures::resident, says: Says::TimesLowest },
    Column {
        title: "ns to the best other",
        figure: nanoseconds_per_packet,
        says: Says::TimesLowest,
    },
];

fn setconf_seconds(figures: &Figures) -> f64 {
    figures.configured.setconf.as_secs_f64()
}

fn nanoseconds_per_packet(figures: &Figures) -> f64 {
    figures.phase.nanoseconds_per_packet()
}

/// Measures what `options` say. The exit code is a failure if something failed that is there; too
/// many peers for it are none.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    let (entries, machine) =
        options.side_by_side.run("scale", options.record(), interrupt, |program| {
            measure(program, options, interrupt)
        })?;
    println!("{}\n{machine}\n", options.title());
    for (number, peers) in options.sizes().into_iter().enumerate() {
        let rows: Vec<_> = entries.iter().map(|entry| row_of_size(entry.row(), number)).collect();
        println!("{peers} peers:\n\n{}", render(&rows, COLUMNS));
    }
    println!(
        "Medians of the rounds. setconf: all peers by one `wg setconf` on a new relay, until it \
         answers; MiB: what the relay then has in memory; add, remove: one peer by `wg set`, the \
         start of `wg` included; ns/packet: CPU time of the relay."
    );
    print_programs(&entries);
    let failed = entries
        .iter()
        .any(|entry| entry.has_failed() || entry.measurements().any(Measurement::has_failed));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The row of one number of peers, with why it has no figures there.
fn row_of_size<'a>(row: Row<'a, Measurement>, number: usize) -> Row<'a, Figures> {
    let outcomes = row.rounds.iter().map(|round| round.map(|it| &it.sizes[number].outcome));
    let trouble = outcomes.clone().rev().flatten().find_map(|outcome| outcome.as_ref().err());
    let trouble = trouble.map(|trouble| trouble.text().to_owned());
    let rounds = outcomes.map(|outcome| outcome.and_then(|it| it.as_ref().ok())).collect();
    Row { label: row.label, family: row.family, rounds, trouble: row.trouble.or(trouble) }
}
