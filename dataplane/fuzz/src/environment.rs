//! Settings of a run, from the environment.

use std::env;
use std::path::PathBuf;

/// The folder for files that runs leave.
pub fn folder() -> PathBuf {
    env::var_os("WG_BOUNCE_FUZZ_DIR").map_or_else(env::temp_dir, PathBuf::from)
}

/// Duration of the mutation (seconds).
pub fn seconds() -> u64 {
    variable("WG_BOUNCE_FUZZ_SECONDS", 1)
}

/// Seed of the mutation.
pub fn seed() -> u64 {
    variable("WG_BOUNCE_FUZZ_SEED", 1)
}

fn variable(name: &str, default: u64) -> u64 {
    let number =
        |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"));
    env::var(name).map_or(default, number)
}
