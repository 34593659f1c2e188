//! Problems in configuration files.

use std::fmt;

use super::lines::Place;
use super::quote::printable;

/// A problem, with its remedy. Its text contains no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its place; none if it concerns the whole file.
    pub place: Option<Place>,
    /// Whether the file can be used in spite of it.
    pub severity: Severity,
    /// The fault and the remedy.
    pub text: String,
}

/// The weight of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but it may not mean what was intended.
    Warning,
}

impl Problem {
    /// An error.
    pub fn error(place: Place, text: impl Into<String>) -> Problem {
        Problem { place: Some(place), severity: Severity::Error, text: text.into() }
    }

    /// A warning.
    pub fn warning(place: Place, text: impl Into<String>) -> Problem {
        Problem { place: Some(place), severity: Severity::Warning, text: text.into() }
    }

    /// A problem of the whole file.
    pub fn of_file(severity: Severity, text: impl Into<String>) -> Problem {
        Problem { place: None, severity, text: text.into() }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// `LINE:COLUMN: error: …`, to stand behind the file's name and a colon.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}: {}", self.severity, printable(&self.text))
    }
}
