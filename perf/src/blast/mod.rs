//! `blast`: what a relay costs per packet, under a load that the harness makes by itself.
//!
//! `generator` makes it; `options` say how, `capacity` and `thin` what is measured, and its table;
//! `remote` measures a relay on another machine.

mod capacity;
mod options;
mod remote;
mod thin;

use std::process::ExitCode;

pub use options::Options;
pub use remote::print_config;

use crate::failure::Failure;
use crate::generator::prepare_process;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::machine::Machine;
use crate::rounds::{Entry, Measured, exit_code, measure_in_rounds, print_programs};
use crate::table::Row;

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    if let Some(address) = options.remote.remote {
        remote::run(address, options, interrupt)
    } else if options.thin {
        side_by_side(options, interrupt, thin::measure, thin::print)
    } else {
        side_by_side(options, interrupt, capacity::measure, capacity::print)
    }
}

fn side_by_side<M: Measured>(
    options: &Options,
    interrupt: &Interrupt,
    measure: fn(&Program, &Options, &Interrupt) -> Result<M, Failure>,
    print: fn(&[Row<'_, M>], &Options),
) -> Result<ExitCode, Failure> {
    let machine = Machine::here();
    prepare_process(options.generator_core)?;
    let mut lines = Lines::begin(options.json.as_deref(), "blast", &machine, &options.record())?;
    let mut entries = Entry::find(&options.choices(), interrupt, &mut lines)?;
    measure_in_rounds(&mut entries, options.rounds, &mut lines, |program| {
        measure(program, options, interrupt)
    })?;
    println!("{}\n{machine}\n", options.title());
    print(&entries.iter().map(Entry::row).collect::<Vec<_>>(), options);
    print_programs(&entries);
    Ok(exit_code(&entries))
}
