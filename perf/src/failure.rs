//! Reasons why a measurement was not made.

use std::fmt::{self, Display, Formatter};

/// Why a step did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// A signal asked this process to end: nothing further is tried.
    Interrupted,
    /// A step failed; the text tells the operator which and why.
    Step(String),
}

impl Failure {
    /// A failed step, described by `text`.
    pub fn step(text: impl Into<String>) -> Failure {
        Failure::Step(text.into())
    }

    /// The failure of `check` if it has one, which explains this one better.
    pub fn or(self, check: Result<(), Failure>) -> Failure {
        match self {
            Failure::Interrupted => self,
            Failure::Step(_) => check.err().unwrap_or(self),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Interrupted => formatter.write_str("interrupted"),
            Failure::Step(text) => formatter.write_str(text),
        }
    }
}

/// Prefixes the operating system's error with `what` was being done.
pub fn while_doing<E: Display>(what: impl Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Step(format!("{what}: {error}"))
}
