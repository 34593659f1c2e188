//! `iperf`: throughput of TCP or UDP through the tunnel, implementations side by side.

mod measure;
mod options;
mod report;

use std::process::ExitCode;

pub use options::Options;

use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::machine::Machine;
use crate::rounds::{Entry, exit_code, measure_in_rounds, print_programs};
use crate::table::{Column, Says, render};
use measure::{Measurement, measure};
use options::Topology;

const GIGABITS: [Column<Measurement>; 2] = [
    Column { title: "Gbit/s", figure: Measurement::gigabits, says: Says::Median(2) },
    Column { title: "min–max", figure: Measurement::gigabits, says: Says::Range(2) },
];

/// Of TCP only.
const TCP: [Column<Measurement>; 1] =
    [Column { title: "retransmits", figure: Measurement::retransmits, says: Says::Median(0) }];

/// Of UDP only.
const UDP: [Column<Measurement>; 3] = [
    Column { title: "sent Gbit/s", figure: Measurement::gigabits_sent, says: Says::Median(2) },
    Column { title: "lost %", figure: Measurement::lost_percent, says: Says::Median(2) },
    Column { title: "min–max", figure: Measurement::lost_percent, says: Says::Range(2) },
];

const COST: [Column<Measurement>; 3] = [
    Column {
        title: "CPU s/GB",
        figure: Measurement::daemon_seconds_per_gigabyte,
        says: Says::Median(2),
    },
    Column {
        title: "machine s/GB",
        figure: Measurement::machine_seconds_per_gigabyte,
        says: Says::Median(2),
    },
    Column { title: "to the best other", figure: Measurement::gigabits, says: Says::TimesHighest },
];

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    if options.topology == Topology::Pair && options.clients.is_some() {
        return Err(Failure::step("--clients says something of --topology relay only"));
    }
    let machine = Machine::here();
    let mut lines = Lines::begin(options.json.as_deref(), "iperf", &machine, &options.record())?;
    let mut entries = Entry::find(&options.choices(), interrupt, &mut lines)?;
    let client = match options.topology {
        Topology::Pair => None,
        Topology::Relay => Some(client(options, interrupt)?),
    };
    measure_in_rounds(&mut entries, options.rounds, &mut lines, |program| {
        measure(program, client.as_ref().unwrap_or(program), options, interrupt)
    })?;
    let rows: Vec<_> = entries.iter().map(Entry::row).collect();
    let columns: Vec<_> = match options.udp {
        None => GIGABITS.into_iter().chain(TCP).chain(COST).collect(),
        Some(_) => GIGABITS.into_iter().chain(UDP).chain(COST).collect(),
    };
    println!("{}\n{machine}\n\n{}", options.title(), render(&rows, &columns));
    print_notes(&entries, options);
    Ok(exit_code(&entries))
}

/// Without its clients the relay topology cannot be measured at all.
fn client(options: &Options, interrupt: &Interrupt) -> Result<Program, Failure> {
    let choice = options.client();
    choice.locate(interrupt).map_err(|why| Failure::step(format!("the clients' {choice}: {why}")))
}

/// What the columns mean, and what was run.
fn print_notes(entries: &[Entry<Measurement>], options: &Options) {
    let measured = match options.topology {
        Topology::Pair => "both daemons",
        Topology::Relay => "the relay",
    };
    println!(
        "Medians of the rounds. CPU s/GB: CPU time of {measured} per 10^9 bytes of payload; \
         machine: of everything that ran."
    );
    print_programs(entries);
    let mut measurements = entries.iter().flat_map(Entry::measurements);
    let congestion = measurements.next().map(|it| it.report.congestion.as_str());
    if let Some(congestion) = congestion.filter(|name| !name.is_empty()) {
        println!("TCP congestion control: {congestion}");
    }
}
