//! `report`: a self-contained HTML page from JSON lines.
//!
//! 1. `page`: the machine, the programs, a comparison at a glance, and what is missing.
//! 2. `sections`: the tables of each subcommand, with bars, and curves.
//! 3. `curves`: curves as SVG. `html`: elements of the page.

mod curves;
mod html;
mod page;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::failure::{Failure, while_doing};
use crate::record::Figures;

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files written by --json
    #[arg(required = true, value_name = "FILE")]
    figures: Vec<PathBuf>,

    /// File for the page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

/// Writes the page that `options` ask for.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    write(&options.figures, &options.output)?;
    println!("{}", options.output.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes a page about the contents of `files`.
pub fn write(files: &[PathBuf], output: &Path) -> Result<(), Failure> {
    let mut figures = Figures::default();
    for file in files {
        let name = file.display();
        let text = fs::read_to_string(file).map_err(while_doing(format!("cannot read {name}")))?;
        figures.read(&text).map_err(|why| Failure::step(format!("{name}: {why}")))?;
    }
    if figures.runs.is_empty() && figures.failed.is_empty() {
        return Err(Failure::step("there is no measurement in these files"));
    }
    fs::write(output, page::render(&figures))
        .map_err(while_doing(format!("cannot write {}", output.display())))
}
