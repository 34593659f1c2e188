//! `iperf`: throughput of TCP through the tunnel, implementations side by side.
//!
//! 1. Find the programs; one that is missing is a line in the table.
//! 2. Measure in rounds, A B C A B C …: what changes on the machine meanwhile meets all alike.
//! 3. Print the table. Each measurement has its JSON line as soon as it is made.

mod measure;
mod options;
mod report;
mod table;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

pub use options::Options;

use crate::failure::{Failure, while_doing};
use crate::implementation::{Choice, Program};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use measure::{Measurement, measure};
use options::Topology;
use table::{Figures, Row, render};

/// Measures what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    if options.topology == Topology::Pair && options.clients.is_some() {
        return Err(Failure::step("--clients says something of --topology relay only"));
    }
    let machine = Machine::here();
    let mut lines = Lines::create(options.json.as_deref())?;
    lines.write(&json!({
        "kind": "iperf",
        "machine": machine.record(),
        "options": options.record(),
    }))?;
    let mut entries = Vec::new();
    for choice in options.choices() {
        let entry = Entry::new(&choice, interrupt);
        interrupt.check()?;
        lines.write(&entry.record())?;
        entries.push(entry);
    }
    let client = match options.topology {
        Topology::Pair => None,
        Topology::Relay => Some(client(options, interrupt)?),
    };
    measure_in_rounds(&mut entries, client.as_ref(), options, interrupt, &mut lines)?;
    let rows: Vec<Row> = entries.iter().map(Entry::row).collect();
    println!("{}\n{machine}\n\n{}", options.title(), render(&rows));
    print_notes(&entries, options);
    let failed = entries.iter().any(Entry::has_failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Without its clients the relay topology cannot be measured at all.
fn client(options: &Options, interrupt: &Interrupt) -> Result<Program, Failure> {
    let choice = options.client();
    choice.locate(interrupt).map_err(|why| Failure::step(format!("the clients' {choice}: {why}")))
}

fn measure_in_rounds(
    entries: &mut [Entry],
    client: Option<&Program>,
    options: &Options,
    interrupt: &Interrupt,
    lines: &mut Lines,
) -> Result<(), Failure> {
    for round in 1..=options.rounds {
        for entry in &mut *entries {
            let Ok(program) = &entry.program else { continue };
            eprint!("round {round} of {}: {} … ", options.rounds, program.label);
            let outcome = match measure(program, client.unwrap_or(program), options, interrupt) {
                Err(Failure::Interrupted) => {
                    eprintln!();
                    return Err(Failure::Interrupted);
                }
                outcome => outcome,
            };
            let mut record = json!({
                "kind": "measurement",
                "implementation": program.label,
                "round": round,
            });
            match &outcome {
                Ok(measurement) => {
                    eprintln!("{:.2} Gbit/s", measurement.gigabits());
                    record["result"] = measurement.record();
                }
                Err(failure) => {
                    eprintln!("failed: {failure}");
                    record["failure"] = failure.to_string().into();
                }
            }
            lines.write(&record)?;
            entry.outcomes.push(outcome);
        }
    }
    Ok(())
}

/// What the columns mean, and what was run.
fn print_notes(entries: &[Entry], options: &Options) {
    let measured = match options.topology {
        Topology::Pair => "both daemons",
        Topology::Relay => "the relay",
    };
    println!(
        "Medians of the rounds. CPU s/GB: CPU time of {measured} per 10^9 bytes of payload; \
         machine: of everything that ran."
    );
    for entry in entries {
        if let Ok(program) = &entry.program {
            println!("{}: {} ({})", program.label, program.version, program.path.display());
        }
    }
    let congestion = entries.iter().flat_map(|entry| entry.outcomes.iter().flatten()).next();
    if let Some(measurement) = congestion {
        println!("TCP congestion control: {}", measurement.report.congestion);
    }
}

/// An implementation, and what measuring it gave so far.
struct Entry {
    choice: Choice,
    /// Or why it is not there.
    program: Result<Program, String>,
    outcomes: Vec<Result<Measurement, Failure>>,
}

impl Entry {
    fn new(choice: &Choice, interrupt: &Interrupt) -> Entry {
        let program = choice.locate(interrupt);
        Entry { choice: choice.clone(), program, outcomes: Vec::new() }
    }

    fn has_failed(&self) -> bool {
        self.outcomes.iter().any(Result::is_err)
    }

    fn row(&self) -> Row {
        let figures = |outcome: &Result<Measurement, Failure>| {
            let measurement = outcome.as_ref().ok()?;
            Some(Figures {
                gigabits: measurement.gigabits(),
                // At most 128 streams for an hour: far below 2^53.
                retransmits: measurement.report.retransmits as f64,
                daemon_seconds: measurement.daemon_seconds_per_gigabyte(),
                machine_seconds: measurement.machine_seconds_per_gigabyte(),
            })
        };
        let failure = || self.outcomes.iter().rev().find_map(|outcome| outcome.as_ref().err());
        Row {
            label: self.choice.to_string(),
            family: self.choice.family(),
            rounds: self.outcomes.iter().map(figures).collect(),
            trouble: match &self.program {
                Ok(_) => failure().map(ToString::to_string),
                Err(why) => Some(why.clone()),
            },
        }
    }

    fn record(&self) -> Value {
        let mut record = json!({
            "kind": "implementation",
            "implementation": self.choice.to_string(),
            "family": self.choice.family(),
        });
        match &self.program {
            Ok(program) => {
                record["path"] = program.path.to_string_lossy().into();
                record["version"] = program.version.as_str().into();
            }
            Err(why) => record["missing"] = why.as_str().into(),
        }
        record
    }
}

/// The JSON lines, if they are wanted.
struct Lines(Option<File>);

impl Lines {
    fn create(path: Option<&Path>) -> Result<Lines, Failure> {
        let create = |path: &Path| {
            File::create(path).map_err(while_doing(format!("writing {}", path.display())))
        };
        Ok(Lines(path.map(create).transpose()?))
    }

    fn write(&mut self, record: &Value) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        // One write a line: a reader who follows the file sees whole lines.
        file.write_all(format!("{record}\n").as_bytes())
            .map_err(while_doing("writing the JSON lines"))
    }
}
