//! The harness leaves nothing behind, however it ends.

#![forbid(unsafe_code)]

mod common;

use nix::sys::signal::Signal;

use common::processes::{Running, is_called};
use common::{harness, relays};

// Debian's wireguard-go: any implementation will do, and this one needs no build.
const IPERF: &str = "iperf --rounds 1 --seconds 60 --implementations wireguard-go";
const BLAST: &str = "blast --seconds 30";

/// A running `iperf`: two daemons, the holders of two namespaces, and two iperf3 (one alone may
/// only print its version).
fn iperf() -> Running {
    Running::start(harness(IPERF), 20, |started| {
        let iperf3 = started.iter().filter(|pid| is_called(**pid, "iperf3"));
        started.len() >= 6 && iperf3.count() == 2
    })
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn sigkill_leaves_nothing() {
    iperf().leaves_nothing(Signal::SIGKILL);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_signal_ends_it_in_order() {
    iperf().leaves_nothing(Signal::SIGTERM);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn sigkill_of_blast_leaves_nothing() {
    relays::leaves_nothing(BLAST, Signal::SIGKILL);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_signal_ends_blast_in_order() {
    relays::leaves_nothing(BLAST, Signal::SIGTERM);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_measurement_has_figures_and_the_missing_a_line() {
    let (table, records) = common::run(
        "iperf --rounds 1 --seconds 1 --family 6 --streams 2 \
         --implementations wireguard-go,boringtun@/nonexistent",
    );
    assert!(common::has_line(&table, "boringtun@/nonexistent", "not there: "), "{table}");
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str()).collect();
    let implementation = Some("implementation");
    assert_eq!(kinds, [Some("iperf"), implementation, implementation, Some("measurement")]);
    let result = &records[3]["result"];
    assert!(result["iperf3"]["bits_per_second"].as_f64() > Some(1e6), "{result}");
    for daemon in 0..2 {
        assert!(result["daemons"][daemon]["cpu_seconds"].as_f64() > Some(0.0), "{result}");
    }
}
