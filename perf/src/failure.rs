//! Why a measurement was not made.

use std::fmt;

/// Why a step did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// A signal asked this process to end: nothing further is tried.
    Interrupted,
    /// A step failed; the text says which and why, for the operator.
    Step(String),
}

impl Failure {
    /// A step that failed, in words.
    pub fn step(text: impl Into<String>) -> Failure {
        Failure::Step(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Interrupted => formatter.write_str("interrupted"),
            Failure::Step(text) => formatter.write_str(text),
        }
    }
}

/// Says what was being done when the system refused.
pub fn while_doing(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::Step(format!("{what}: {error}"))
}
