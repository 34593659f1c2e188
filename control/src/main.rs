//! The daemon `wg-bounce`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    wg_bounce_control::start::main()
}
