//! Reasons why a measurement was not made.

use std::fmt::Display;

use thiserror::Error;

/// Why a step did not succeed.
#[derive(Debug, Error)]
pub enum Failure {
    /// A signal asked this process to end: nothing further is tried.
    #[error("interrupted")]
    Interrupted,
    /// A step failed; the text tells the operator which and why.
    #[error("{0}")]
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

/// Prefixes the operating system's error with `what` was being done.
pub fn while_doing<E: Display>(what: impl Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Step(format!("{what}: {error}"))
}
