//! JSON lines: everything that is measured, as soon as it is known, for whoever wants to plot it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::{Failure, while_doing};
use crate::machine::Machine;

/// The JSON lines, if they are wanted.
pub struct Lines(Option<File>);

impl Lines {
    /// At the end of the file at `path`, which is made if it is not there: several runs may be in
    /// one file, each begins with a line that says what it is.
    pub fn open(path: Option<&Path>) -> Result<Lines, Failure> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(while_doing(format!("writing {}", path.display())))
        };
        Ok(Lines(path.map(open).transpose()?))
    }

    /// The same, with the line that a run begins with: the subcommand, the machine, the options.
    pub fn begin(
        path: Option<&Path>,
        kind: &str,
        machine: &Machine,
        options: &Value,
    ) -> Result<Lines, Failure> {
        let mut lines = Lines::open(path)?;
        lines.write(&json!({ "kind": kind, "machine": machine.record(), "options": options }))?;
        Ok(lines)
    }

    /// Writes one.
    pub fn write(&mut self, record: &Value) -> Result<(), Failure> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        // One write a line: a reader who follows the file sees whole lines.
        file.write_all(format!("{record}\n").as_bytes())
            .map_err(while_doing("writing the JSON lines"))
    }
}
