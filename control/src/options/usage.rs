//! Wrong usage, with the environment variable that it came from.

use std::env;

use clap::error::{ContextKind, ContextValue};

/// Invalid arguments or variables; or a text that was requested.
#[derive(Debug)]
pub struct UsageError {
    error: clap::Error,
    /// The environment variable that the value came from.
    variable: Option<String>,
}

impl UsageError {
    /// The error of `command`, with the environment variable that it came from, if any.
    pub fn new(error: clap::Error, command: &clap::Command) -> UsageError {
        let variable = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => command
                .get_arguments()
                .find(|candidate| candidate.to_string() == *argument)
                .and_then(|candidate| candidate.get_env())
                .filter(|name| env::var_os(name).is_some())
                .map(|name| name.to_string_lossy().into_owned()),
            _ => None,
        };
        UsageError { error, variable }
    }

    /// Prints the text; returns the exit code, which is 2 for wrong usage.
    pub fn print(&self) -> u8 {
        // Ignore write errors; the exit code still tells.
        let _ = self.error.print();
        if let Some(variable) = &self.variable {
            eprintln!("note: the environment variable {variable} is set");
        }
        u8::try_from(self.error.exit_code()).unwrap_or(2)
    }
}
