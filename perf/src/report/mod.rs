//! `report`: one HTML page from JSON lines, with plots, that needs nothing else.
//!
//! 1. `model`: the files, read back.
//! 2. `figure`: what is shown of each subcommand's results, as data.
//! 3. `plot`: bars and curves as SVG.
//! 4. `html`, `sections`, `page`: the page.

mod figure;
mod html;
mod model;
mod page;
mod plot;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::failure::{Failure, while_doing};
use model::Figures;

/// What `report` reads and writes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files that `--json` has written
    #[arg(required = true, value_name = "FILE")]
    figures: Vec<PathBuf>,

    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

/// Writes the page that `options` ask for.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    write(&options.figures, &options.output)?;
    println!("{}", options.output.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes a page of what the files hold.
pub fn write(files: &[PathBuf], output: &Path) -> Result<(), Failure> {
    let mut figures = Figures::default();
    for file in files {
        let name = file.display();
        let text = fs::read_to_string(file).map_err(while_doing(format!("reading {name}")))?;
        figures.read(&text).map_err(|why| Failure::step(format!("{name}: {why}")))?;
    }
    if figures.runs.is_empty() && figures.failed.is_empty() {
        return Err(Failure::step("there is no measurement in these files"));
    }
    fs::write(output, page::render(&figures))
        .map_err(while_doing(format!("writing {}", output.display())))
}
