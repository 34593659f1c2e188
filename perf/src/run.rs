//! The run loop of every subcommand: implementations in rounds A B C A B C …, so that whatever else
//! happens on the machine affects all of them alike.
//!
//! 1. Find the programs; a missing one is a line in the table.
//! 2. Measure in rounds. Each measurement gets its JSON line at once.
//! 3. Print the table.

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::implementation::Program;
use crate::interrupt;
use crate::machine;
use crate::options::Common;
use crate::record::{Lines, Row, Run};
use crate::table::{render, summary};

/// Measures the implementations of `common` and prints the tables of the subcommand `kind`. The
/// exit code is a failure if a program that is there failed.
pub fn side_by_side(
    kind: &str,
    options: Value,
    common: &Common,
    measure: impl FnMut(&Program) -> Result<Value, Failure>,
) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    for choice in &common.implementations {
        let program = choice.locate();
        interrupt::check()?;
        let row =
            Row { label: choice.to_string(), family: choice.family().into(), ..Row::default() };
        rows.push(match program {
            Ok(it) => {
                let (version, path) = (it.version.clone(), it.path.display().to_string());
                (Row { version: Some(version), path: Some(path), ..row }, Some(it))
            }
            Err(why) => (Row { missing: Some(why), ..row }, None),
        });
    }
    in_rounds(kind, options, common, rows, measure)
}

/// Measures `rows`, each with what has to be measured, if it is there.
pub fn in_rounds<P>(
    kind: &str,
    options: Value,
    common: &Common,
    rows: Vec<(Row, Option<P>)>,
    mut measure: impl FnMut(&P) -> Result<Value, Failure>,
) -> Result<ExitCode, Failure> {
    let mut lines = Lines::open(common.json.as_deref())?;
    let machine = machine::here();
    lines.write(&json!({ "kind": kind, "machine": machine, "options": options }))?;
    let (rows, programs): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    rows.iter().try_for_each(|row| lines.write(&json!(row)))?;
    let mut run = Run { kind: kind.to_owned(), title: None, machine, options, rows };
    let steps = programs.iter().flatten().count() as u64 * u64::from(common.rounds);
    let bar = progress_bar(steps);
    for round in 1..=common.rounds {
        for (index, program) in programs.iter().enumerate() {
            let Some(program) = program else { continue };
            let label = &run.rows[index].label;
            let mut record =
                json!({ "kind": "measurement", "implementation": label, "round": round });
            let step = format!("round {round} of {}: {}", common.rounds, run.rows[index].title());
            bar.set_message(step.clone());
            if bar.is_hidden() {
                eprint!("{step} … ");
            }
            let outcome = match measure(program) {
                Err(Failure::Interrupted) => {
                    if bar.is_hidden() {
                        eprintln!();
                    }
                    return Err(Failure::Interrupted);
                }
                Err(Failure::Step(why)) => {
                    record["failure"] = json!(why);
                    run.rows[index].failures.push(why.clone());
                    format!("failed: {why}")
                }
                Ok(result) => {
                    record["result"] = result.clone();
                    let outcome = summary(&run, &result);
                    run.rows[index].results.push((round.into(), result));
                    outcome
                }
            };
            if bar.is_hidden() {
                eprintln!("{outcome}");
            }
            bar.println(format!("{step} … {outcome}"));
            bar.inc(1);
            lines.write(&record)?;
        }
    }
    bar.finish_and_clear();
    print!("{}", render(&run));
    let sizes = |(_, result): &(u64, Value)| result["sizes"].as_array().cloned();
    let mut sizes = run.rows.iter().flat_map(|row| &row.results).filter_map(sizes).flatten();
    let has_failed = sizes.any(|size| size["failed"] == true)
        || run.rows.iter().any(|row| !row.failures.is_empty());
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The progress of a run: a bar on a terminal, hidden elsewhere. It is drawn when a step ends: a
/// ticking clock would use CPU time during a measurement.
fn progress_bar(steps: u64) -> ProgressBar {
    let style = "{bar:30} {pos} of {len}, {elapsed} elapsed, {eta} left: {msg}";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr()).with_style(style)
}
