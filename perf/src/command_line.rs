//! Options from a command line without the program and the subcommand, as tests have them.

use clap::{Args, Command, Error};

/// The options of a subcommand.
pub fn parse<O: Args>(line: &str) -> Result<O, Error> {
    let words = std::iter::once("subcommand").chain(line.split_whitespace());
    let matches = O::augment_args(Command::new("subcommand")).try_get_matches_from(words)?;
    O::from_arg_matches(&matches)
}
