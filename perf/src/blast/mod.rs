//! `blast`: what a relay costs per packet, under a load that the harness makes by itself.
//!
//! 1. `options`.
//! 2. `packet`, `peer`, `pool`: inner packets, the peers that the generator plays, and messages
//!    encrypted before the clock starts.
//! 3. `network`, `bench`: the relay and the paths to it; building, connecting, and the phases.
//! 4. `drive`, `receive`: the loop that sends and receives, and what it counts.
//! 5. `capacity`, `thin`: what is measured, and its table.

mod bench;
mod capacity;
mod drive;
mod network;
mod options;
mod packet;
mod peer;
mod pool;
mod receive;
mod thin;

use std::process::ExitCode;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use serde_json::json;

pub use options::Options;

use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::machine::Machine;
use crate::rounds::{Entry, Measured, measure_in_rounds, print_programs};
use crate::table::Row;

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    options.check()?;
    if options.thin {
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
    prepare_process(options)?;
    let mut lines = Lines::open(options.json.as_deref())?;
    lines.write(&json!({
        "kind": "blast",
        "machine": machine.record(),
        "options": options.record(),
    }))?;
    let mut entries = Entry::find(&options.choices(), interrupt, &mut lines)?;
    measure_in_rounds(&mut entries, options.rounds, &mut lines, |program| {
        measure(program, options, interrupt)
    })?;
    println!("{}\n{machine}\n", options.title());
    print(&entries.iter().map(Entry::row).collect::<Vec<_>>(), options);
    print_programs(&entries);
    let failed = entries.iter().any(Entry::has_failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A core for the generator, and a descriptor for every peer, here and in daemons that use one
/// for each.
fn prepare_process(options: &Options) -> Result<(), Failure> {
    let refused = |what: String| move |errno| Failure::step(format!("{what}: {errno}"));
    let mut cores = CpuSet::new();
    let core = options.generator_core;
    cores.set(core).map_err(refused(format!("core {core}")))?;
    sched_setaffinity(Pid::from_raw(0), &cores).map_err(refused(format!("core {core}")))?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused("descriptors".into()))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(refused("descriptors".into()))
}
