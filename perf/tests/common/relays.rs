//! Helpers of the tests that measure a relay.

use std::thread::available_parallelism;

use nix::sys::signal::Signal;

use super::harness;
use super::processes::{Running, is_called};

/// A core for the relay; if there is only one, the generator shares it.
pub fn last_core() -> usize {
    available_parallelism().map_or(0, |cores| usize::from(cores) - 1)
}

/// Sends `signal` to the harness while it measures Debian's wireguard-go, with arguments that make
/// it take long.
pub fn leaves_nothing(arguments: &str, signal: Signal) {
    let mut command = harness(arguments);
    command.args(["--rounds", "1", "--relay-core", "0", "--implementations", "wireguard-go"]);
    // A daemon (alone it may only print its version), and two namespaces.
    let running = Running::start(command, 20, |started| {
        started.len() >= 3 && started.iter().any(|pid| is_called(*pid, "wireguard-go"))
    });
    running.leaves_nothing(signal);
}
