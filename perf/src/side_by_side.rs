//! What the subcommands with a relay on a core of its own have in common: options, and the way
//! from them to measured entries.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::failure::Failure;
use crate::generator::prepare_process;
use crate::implementation::{Choice, Program};
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::machine::Machine;
use crate::rounds::{Entry, Measured, measure_in_rounds};

/// What is measured unless told otherwise.
const DEFAULT: [&str; 4] = ["wg-bounce-uring", "wireguard-go", "boringtun", "gotatun"];

/// What is measured side by side, where, and how often.
#[derive(Args, Clone, Debug)]
pub struct SideBySide {
    /// Rounds; in each, every implementation is measured once, after one another
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,

    /// Core of the relay: all its threads run there
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub relay_core: usize,

    /// Core of the generator
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub generator_core: usize,

    /// What to measure, with commas: each a name, or NAME@PATH for a program that lies elsewhere
    /// [default: wg-bounce-uring,wireguard-go,boringtun,gotatun]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub implementations: Option<Vec<Choice>>,

    /// Also write everything as JSON lines at the end of this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl SideBySide {
    /// What to measure, in order.
    fn choices(&self) -> Vec<Choice> {
        self.implementations.clone().unwrap_or_else(|| Choice::named(&DEFAULT))
    }

    /// Rounds and cores, in words.
    pub fn title(&self) -> String {
        let SideBySide { rounds, relay_core, generator_core, .. } = self;
        let plural = if *rounds == 1 { "" } else { "s" };
        format!(
            "{rounds} round{plural}; relay on core {relay_core}, generator on core {generator_core}"
        )
    }

    /// Measures every program that is there, in rounds, with a JSON line for each step; `kind` is
    /// the subcommand, and `options` its own. The entries, and the machine at the start.
    pub fn run<M: Measured>(
        &self,
        kind: &str,
        mut options: Value,
        interrupt: &Interrupt,
        measure: impl FnMut(&Program) -> Result<M, Failure>,
    ) -> Result<(Vec<Entry<M>>, Machine), Failure> {
        let machine = Machine::here();
        prepare_process(self.generator_core)?;
        options["rounds"] = self.rounds.into();
        options["relay_core"] = self.relay_core.into();
        options["generator_core"] = self.generator_core.into();
        let mut lines = Lines::begin(self.json.as_deref(), kind, &machine, &options)?;
        let mut entries = Entry::find(&self.choices(), interrupt, &mut lines)?;
        measure_in_rounds(&mut entries, self.rounds, &mut lines, measure)?;
        Ok((entries, machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::parse;

    #[test]
    fn without_arguments_four_are_measured_in_three_rounds() {
        let options: SideBySide = parse("").expect("all have defaults");
        let names: Vec<_> = options.choices().iter().map(ToString::to_string).collect();
        assert_eq!(names, DEFAULT);
        assert_eq!(options.title(), "3 rounds; relay on core 1, generator on core 0");
    }
}
