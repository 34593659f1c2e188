//! `all`: a plan of runs, and the report of what they gave.
//!
//! 1. `options`, `plan`: which runs, as data, and where the figures go.
//! 2. `child`: each in a process of its own, one after another. What fails is a line in the
//!    report, and the next follows.
//! 3. The report, also of what was measured before a signal came.

mod child;
mod options;
mod plan;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

pub use options::Options;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::report;
use plan::{Run, estimate};

/// Runs what `options` say. The exit code is a failure if something failed that is there.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode, Failure> {
    let runs = options.runs();
    if options.list {
        list(&runs);
        return Ok(ExitCode::SUCCESS);
    }
    let folder = options.folder()?;
    let figures = folder.join("figures.jsonl");
    eprintln!("{} runs, about {}", runs.len(), minutes(estimate(&runs)));
    let outcome = run_all(&runs, &figures, interrupt);
    let page = folder.join("report.html");
    match report::write(std::slice::from_ref(&figures), &page) {
        Ok(()) => println!("figures: {}\nreport:  {}", figures.display(), page.display()),
        // Whoever breaks it off at once knows that nothing was measured.
        Err(_) if matches!(outcome, Err(Failure::Interrupted)) => {}
        Err(failure) => return Err(failure),
    }
    let failed = outcome?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One after another; whether any failed.
fn run_all(runs: &[Run], figures: &Path, interrupt: &Interrupt) -> Result<bool, Failure> {
    let mut lines = Lines::open(Some(figures))?;
    let mut has_failed = false;
    for (index, run) in runs.iter().enumerate() {
        let left = minutes(estimate(&runs[index..]));
        let (number, all) = (index + 1, runs.len());
        eprintln!("\n[{number} of {all}] {}: {}; about {left} to go", run.kind, run.title);
        lines.write(&json!({
            "kind": "run",
            "title": run.title,
            "arguments": run.words().join(" "),
        }))?;
        let mut fail = |why: String| {
            lines.write(&json!({ "kind": "run_failed", "title": run.title, "why": why }))
        };
        match child::run(run, figures, interrupt) {
            Err(Failure::Interrupted) => {
                fail(format!("interrupted; {} more runs were to follow", all - number))?;
                return Err(Failure::Interrupted);
            }
            Err(Failure::Step(why)) => {
                eprintln!("{why}");
                fail(why)?;
                has_failed = true;
            }
            // A run that fails by itself (1) has said why, also in its lines.
            Ok(status) if matches!(status.code(), Some(0 | 1)) => has_failed |= !status.success(),
            Ok(status) => {
                fail(format!("it ended with {status}"))?;
                has_failed = true;
            }
        }
    }
    Ok(has_failed)
}

/// What would be run.
fn list(runs: &[Run]) {
    for run in runs {
        let time = minutes(run.estimate());
        println!("{}, about {time}:\n    {}", run.title, run.words().join(" "));
    }
    println!("{} runs, about {}", runs.len(), minutes(estimate(runs)));
}

/// Those of every plan.
#[cfg(test)]
pub fn command_lines() -> Vec<Vec<String>> {
    use plan::{Size, plan};
    [Size::Quick, Size::Usual, Size::Full].into_iter().flat_map(plan).map(|it| it.words()).collect()
}

fn minutes(time: Duration) -> String {
    match time.as_secs().div_ceil(60) {
        1 => "1 minute".to_owned(),
        minutes if minutes < 120 => format!("{minutes} minutes"),
        minutes => format!("{} hours", minutes.div_ceil(60)),
    }
}
