//! The command line of `all`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::plan::{Run, Size, plan};
use crate::failure::{Failure, while_doing};
use crate::implementation::Choice;

/// The folder, unless told otherwise; a number follows where it is taken.
const FOLDER: &str = "perf-report";

/// What `all` runs, and where it writes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Everything there is: all modes, topologies, directions and families, more loads and sizes.
    /// Takes hours
    #[arg(long, conflicts_with = "quick")]
    full: bool,

    /// Everything once, and short: whether it runs, not how fast
    #[arg(long)]
    quick: bool,

    /// Only the runs of these subcommands
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_enum)]
    only: Option<Vec<Kind>>,

    /// What to measure in every run, with commas, instead of what the plan says
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    implementations: Option<Vec<Choice>>,

    /// Where figures.jsonl and report.html go: a folder that is not there yet, or empty
    /// [default: perf-report, or perf-report-2 …]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    /// Only say what would be run, and how long it would take
    #[arg(long)]
    pub list: bool,
}

/// The subcommands that measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Iperf,
    Blast,
    Latency,
    Storm,
    Scale,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Iperf => "iperf",
            Kind::Blast => "blast",
            Kind::Latency => "latency",
            Kind::Storm => "storm",
            Kind::Scale => "scale",
        }
    }
}

impl Options {
    /// The runs that are wanted.
    pub fn runs(&self) -> Vec<Run> {
        let size = match (self.quick, self.full) {
            (true, _) => Size::Quick,
            (_, true) => Size::Full,
            _ => Size::Usual,
        };
        let mut runs = plan(size);
        if let Some(only) = &self.only {
            runs.retain(|run| only.iter().any(|kind| kind.name() == run.kind));
        }
        if let Some(choices) = &self.implementations {
            let names: Vec<_> = choices.iter().map(ToString::to_string).collect();
            runs.iter_mut().for_each(|run| run.implementations = names.join(","));
        }
        runs
    }

    /// Makes the folder. One in which there is something is left alone.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        let folder = match &self.output {
            Some(folder) if is_free(folder) => folder.clone(),
            Some(folder) => {
                let folder = folder.display();
                return Err(Failure::step(format!(
                    "{folder} is there and not empty: give another --output, or remove it"
                )));
            }
            None => (1..)
                .map(|number| match number {
                    1 => PathBuf::from(FOLDER),
                    _ => PathBuf::from(format!("{FOLDER}-{number}")),
                })
                .find(|folder| is_free(folder))
                .expect("there is always a number more"),
        };
        let making = while_doing(format!("making the folder {}", folder.display()));
        fs::create_dir_all(&folder).map_err(making)?;
        give_to_caller(&folder);
        Ok(folder)
    }
}

/// A folder that root made belongs to who called sudo, who may want to remove it.
fn give_to_caller(folder: &Path) {
    let id = |name: &str| std::env::var(name).ok()?.parse().ok();
    if let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) {
        // Who called may as well be gone: the figures are there nevertheless.
        let _ = chown(folder, Some(user), Some(group));
    }
}

/// Whether nothing would be overwritten there.
fn is_free(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !folder.exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            full: false,
            quick: false,
            only: None,
            implementations: None,
            output: None,
            list: false,
        }
    }

    #[test]
    fn a_plan_can_be_narrowed() {
        let only = Some(vec![Kind::Storm, Kind::Scale]);
        let implementations = Some(Choice::named(&["wireguard-go", "boringtun"]));
        let runs = Options { quick: true, only, implementations, ..options() }.runs();
        let kinds: Vec<_> = runs.iter().map(|run| run.kind).collect();
        assert_eq!(kinds, ["storm", "scale"]);
        assert!(runs.iter().all(|run| run.implementations == "wireguard-go,boringtun"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let above = tempfile::tempdir().expect("a folder for temporary files");
        let output = Some(above.path().join("report"));
        let options = Options { output, ..options() };
        let folder = options.folder().expect("it was not there");
        options.folder().expect("it is empty");
        fs::write(folder.join("report.html"), "").expect("it is there");
        assert!(options.folder().is_err());
    }
}
