//! Results of commands.

/// A failure, with the exit code.
pub(super) struct Failure {
    /// The exit code.
    pub code: u8,
    /// The reason, for standard error.
    pub reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure { code: 1, reason }
    }
}

/// The output of a command, and the exit code.
pub(super) struct Answer {
    /// The text for standard output.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl From<u8> for Answer {
    fn from(code: u8) -> Answer {
        Answer { text: String::new(), code }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Answer {
        Answer { text, code: 0 }
    }
}
