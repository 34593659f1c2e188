//! `blast`: packets per second through a relay and its CPU time per packet, under a load that the
//! harness generates itself.
//!
//! 1. `options`: the load.
//! 2. `capacity`: as much as the relay can take, and latency at given loads.
//! 3. `fairness`: a thin flow next to heavy ones, and next to a slow receiver.
//! 4. `remote`: a relay on another machine.

mod capacity;
mod fairness;
mod options;
mod remote;

use std::process::ExitCode;

pub use options::Options;
pub use remote::print_config;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::Common;
use crate::run::side_by_side;

/// Measures with these options. The exit code is a failure if a program that is there failed.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    options.cores.prepare_process()?;
    if let Some(address) = options.remote.remote {
        return remote::run(address, options, interrupt);
    }
    let common = Common { implementations: options.choices(), ..options.common.clone() };
    side_by_side("blast", options, &common, interrupt, |program| match options.fairness {
        true => fairness::measure(program, options, interrupt),
        false => capacity::measure(program, options, interrupt),
    })
}
