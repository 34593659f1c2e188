//! `all`: a plan of runs, and the report of their results.
//!
//! 1. `plan`: the runs, as data.
//! 2. Each runs in a process of its own, one after another, so that its settings (such as its core)
//!    and its failures end with it. A failure is a line in the report, and the next run follows.
//! 3. The report, also of what was measured before a signal.

mod plan;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::failure::{Failure, while_doing};
use crate::implementation::Choice;
use crate::interrupt::{self, POLL};
use crate::process::{end, tied};
use crate::record::Lines;
use crate::report;
use plan::{Run, estimate, plan};

/// Default folder; a number is appended where it is taken.
const FOLDER: &str = "perf-report";

/// A run is ended when it takes this many times its estimate, for slow machines.
const PATIENCE: u32 = 5;

/// Shortest time limit of a run.
const LEAST_PATIENCE: Duration = Duration::from_secs(120);

/// Time that a run has to end its processes.
const END_LIMIT: Duration = Duration::from_secs(15);

/// Options of `all`.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Run everything: all relay modes, topologies, directions and IP versions, more loads and
    /// numbers of peers; takes hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,

    /// Run everything once and short, as a test
    #[arg(long)]
    quick: bool,

    /// Run these subcommands only
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    #[arg(value_parser = ["iperf", "blast", "latency", "storm", "scale"])]
    only: Option<Vec<String>>,

    /// Implementations to measure in every run, instead of the plan's
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    implementations: Option<Vec<Choice>>,

    /// Folder for figures.jsonl and report.html: new, or empty
    /// [default: perf-report, or perf-report-2 …]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    /// Only list the runs, with estimated durations
    #[arg(long)]
    list: bool,
}

impl Options {
    /// The runs that are asked for.
    fn runs(&self) -> Vec<Run> {
        let name = if self.full { "full" } else { "usual" };
        let mut runs = plan(if self.quick { "quick" } else { name });
        if let Some(only) = &self.only {
            runs.retain(|run| only.contains(&run.kind));
        }
        if let Some(choices) = &self.implementations {
            let names: Vec<_> = choices.iter().map(ToString::to_string).collect();
            runs.iter_mut().for_each(|run| run.implementations = names.join(","));
        }
        runs
    }

    /// Creates the folder. A folder with contents is not touched.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let numbered = |number| match number {
            1 => PathBuf::from(FOLDER),
            _ => PathBuf::from(format!("{FOLDER}-{number}")),
        };
        let next =
            || (1..).map(numbered).find(|folder| is_free(folder)).expect("numbers are endless");
        let folder = self.output.clone().unwrap_or_else(next);
        let name = folder.display();
        if !is_free(&folder) {
            let why = format!("{name} is not empty: choose another --output, or remove it");
            return Err(Failure::step(why));
        }
        fs::create_dir_all(&folder).map_err(while_doing(format!("cannot create {name}")))?;
        // The user of sudo may want to remove it. Ignore errors: the figures are there anyway.
        let id = |name: &str| std::env::var(name).ok()?.parse().ok();
        if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
            let _ = chown(&folder, Some(user), Some(group));
        }
        Ok(folder)
    }
}

/// Whether nothing would be overwritten there.
fn is_free(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    }
}

/// Runs the plan. The exit code is a failure if a program that is there failed.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let runs = options.runs();
    let total = format!("{} runs, about {}", runs.len(), minutes(estimate(&runs)));
    if options.list {
        for run in &runs {
            let time = minutes(run.estimate());
            println!("{}, about {time}:\n    {}", run.title, run.words().join(" "));
        }
        println!("{total}");
        return Ok(ExitCode::SUCCESS);
    }
    let folder = options.folder()?;
    let figures = folder.join("figures.jsonl");
    eprintln!("{total}");
    let outcome = run_all(&runs, &figures);
    let page = folder.join("report.html");
    match report::write(std::slice::from_ref(&figures), &page) {
        Ok(()) => println!("figures: {}\nreport:  {}", figures.display(), page.display()),
        // Nothing was measured yet, as the operator knows.
        Err(_) if matches!(outcome, Err(Failure::Interrupted)) => {}
        Err(failure) => return Err(failure),
    }
    Ok(if outcome? { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs one after another; returns whether any failed.
fn run_all(runs: &[Run], figures: &Path) -> Result<bool, Failure> {
    let mut lines = Lines::open(Some(figures))?;
    let mut has_failed = false;
    for (index, run) in runs.iter().enumerate() {
        let (number, all, left) = (index + 1, runs.len(), minutes(estimate(&runs[index..])));
        eprintln!("\n[{number} of {all}] {}: {}; about {left} left", run.kind, run.title);
        let arguments = run.words().join(" ");
        lines.write(&json!({ "kind": "run", "title": run.title, "arguments": arguments }))?;
        let mut fail = |why: String| {
            lines.write(&json!({ "kind": "run_failed", "title": run.title, "why": why }))
        };
        let why = match child(run, figures) {
            Err(Failure::Interrupted) => {
                fail(format!("interrupted; {} more runs were planned", all - number))?;
                return Err(Failure::Interrupted);
            }
            Err(Failure::Step(why)) => Some(why),
            // A run that fails with exit code 1 has written why, also to its JSON lines.
            Ok(status) if matches!(status.code(), Some(0 | 1)) => {
                has_failed |= !status.success();
                None
            }
            Ok(status) => Some(format!("it ended with {status}")),
        };
        if let Some(why) = why {
            eprintln!("{why}");
            fail(why)?;
            has_failed = true;
        }
    }
    Ok(has_failed)
}

/// Runs it to completion in a process of its own, which appends its JSON lines to `figures`.
fn child(run: &Run, figures: &Path) -> Result<ExitStatus, Failure> {
    let program = std::env::current_exe().map_err(while_doing("cannot find this program"))?;
    let mut command = tied(&program.to_string_lossy());
    // Ctrl-C goes to this process only, which then ends the other in order.
    command.args(run.words()).arg("--json").arg(figures).process_group(0);
    let start = while_doing("cannot start `setpriv` (of util-linux)");
    let mut child = command.spawn().map_err(start)?;
    let limit = (run.estimate() * PATIENCE).max(LEAST_PATIENCE);
    let mut ended = None;
    let waited = interrupt::wait_until(POLL, limit, &format!("the end of {}", run.title), || {
        ended = child.try_wait().map_err(while_doing("cannot wait for a run"))?;
        Ok(ended.is_some())
    });
    end(&mut child, END_LIMIT);
    waited.map(|()| ended.expect("the wait ended with it"))
}

fn minutes(time: Duration) -> String {
    match time.as_secs().div_ceil(60) {
        1 => "1 minute".to_owned(),
        minutes if minutes < 120 => format!("{minutes} minutes"),
        minutes => format!("{} hours", minutes.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arguments;

    #[test]
    fn every_command_line_of_a_plan_is_understood() {
        for run in ["quick", "usual", "full"].into_iter().flat_map(plan) {
            let line = run.words().join(" ");
            if let Err(error) = Arguments::from_line(&line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn a_plan_can_be_narrowed() {
        let only = Some(vec!["storm".to_owned(), "scale".to_owned()]);
        let implementations = ["wireguard-go", "boringtun"].map(|it| it.parse().expect("known"));
        let implementations = Some(implementations.to_vec());
        let runs = Options { quick: true, only, implementations, ..Options::default() }.runs();
        let kinds: Vec<_> = runs.iter().map(|run| run.kind.as_str()).collect();
        assert_eq!(kinds, ["storm", "scale"]);
        assert!(runs.iter().all(|run| run.implementations == "wireguard-go,boringtun"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let above = tempfile::tempdir().expect("a temporary folder");
        let output = Some(above.path().join("report"));
        let options = Options { output, ..Options::default() };
        let folder = options.folder().expect("it did not exist");
        options.folder().expect("it is empty");
        fs::write(folder.join("report.html"), "").expect("it exists");
        assert!(options.folder().is_err());
    }
}
