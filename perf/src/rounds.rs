//! Implementations side by side, in rounds A B C A B C …: what changes on the machine meanwhile
//! meets all alike.
//!
//! 1. Find the programs; one that is missing is a line in the table.
//! 2. Measure in rounds. Each measurement has its JSON line as soon as it is made.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::implementation::{Choice, Program};
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::progress::Progress;
use crate::table::Row;

/// What one measurement gave, whatever was measured.
pub trait Measured {
    /// In a few words, for who waits.
    fn summary(&self) -> String;
    /// For the JSON lines.
    fn record(&self) -> Value;
}

/// An implementation, and what measuring it gave so far.
pub struct Entry<M, P = Program> {
    label: String,
    family: &'static str,
    /// Or why it is not there.
    pub program: Result<P, String>,
    outcomes: Vec<Result<M, Failure>>,
}

impl<M: Measured> Entry<M> {
    /// Looks for the programs of all `choices`.
    pub fn find(
        choices: &[Choice],
        interrupt: &Interrupt,
        lines: &mut Lines,
    ) -> Result<Vec<Entry<M>>, Failure> {
        let mut entries = Vec::new();
        for choice in choices {
            let program = choice.locate(interrupt);
            let family = choice.family();
            let entry = Entry { label: choice.to_string(), family, program, outcomes: Vec::new() };
            interrupt.check()?;
            let mut record = entry.record();
            match &entry.program {
                Ok(program) => {
                    record["path"] = program.path.to_string_lossy().into();
                    record["version"] = program.version.as_str().into();
                }
                Err(why) => record["missing"] = why.as_str().into(),
            }
            lines.write(&record)?;
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl<M: Measured, P> Entry<M, P> {
    /// One that is there.
    pub fn of(label: String, family: &'static str, program: P) -> Entry<M, P> {
        Entry { label, family, program: Ok(program), outcomes: Vec::new() }
    }

    /// Whether a measurement of what is there has failed.
    pub fn has_failed(&self) -> bool {
        self.outcomes.iter().any(Result::is_err)
    }

    /// The measurements that were made.
    pub fn measurements(&self) -> impl Iterator<Item = &M> {
        self.outcomes.iter().flatten()
    }

    /// For the table.
    pub fn row(&self) -> Row<'_, M> {
        let failure = || self.outcomes.iter().rev().find_map(|outcome| outcome.as_ref().err());
        Row {
            label: self.label.clone(),
            family: self.family,
            rounds: self.outcomes.iter().map(|outcome| outcome.as_ref().ok()).collect(),
            trouble: match &self.program {
                Ok(_) => failure().map(ToString::to_string),
                Err(why) => Some(why.clone()),
            },
        }
    }

    /// For the JSON lines.
    pub fn record(&self) -> Value {
        json!({
            "kind": "implementation",
            "implementation": self.label,
            "family": self.family,
        })
    }
}

/// Measures every entry that is there, once a round.
pub fn measure_in_rounds<M: Measured, P>(
    entries: &mut [Entry<M, P>],
    rounds: u32,
    lines: &mut Lines,
    mut measure: impl FnMut(&P) -> Result<M, Failure>,
) -> Result<(), Failure> {
    let there = entries.iter().filter(|entry| entry.program.is_ok()).count() as u64;
    let progress = Progress::new(u64::from(rounds) * there);
    for round in 1..=rounds {
        for entry in &mut *entries {
            let Ok(program) = &entry.program else { continue };
            let step = format!("round {round} of {rounds}: {}", entry.label);
            progress.begin(&step);
            let outcome = match measure(program) {
                Err(Failure::Interrupted) => {
                    progress.break_off();
                    return Err(Failure::Interrupted);
                }
                outcome => outcome,
            };
            let mut record = json!({
                "kind": "measurement",
                "implementation": entry.label,
                "round": round,
            });
            match &outcome {
                Ok(measurement) => {
                    progress.end(&step, &measurement.summary());
                    record["result"] = measurement.record();
                }
                Err(failure) => {
                    progress.end(&step, &format!("failed: {failure}"));
                    record["failure"] = failure.to_string().into();
                }
            }
            lines.write(&record)?;
            entry.outcomes.push(outcome);
        }
    }
    Ok(())
}

/// What the harness ends with: a failure if something failed that is there.
pub fn exit_code<M: Measured, P>(entries: &[Entry<M, P>]) -> ExitCode {
    if entries.iter().any(Entry::has_failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says which program each row is.
pub fn print_programs<M>(entries: &[Entry<M>]) {
    for entry in entries {
        if let Ok(program) = &entry.program {
            let path = program.path.display();
            let place = if program.is_kernel() { String::new() } else { format!(" ({path})") };
            println!("{}: {}{place}", program.label, program.version);
        }
    }
}
