//! `scale` against our own daemon and Debian's wireguard-go.

#![forbid(unsafe_code)]

mod common;

use nix::sys::signal::Signal;
use serde_json::Value;

use common::relays;

const LONG: &str = "scale --peers 10 --seconds 30";

/// Measures for a second at each size: the table, and the results.
fn scale(arguments: &str) -> (String, Vec<Value>) {
    let relay_core = relays::last_core();
    let (table, records) =
        common::run(&format!("scale --seconds 1 --rounds 1 --relay-core {relay_core} {arguments}"));
    assert_eq!(records[0]["kind"], "scale");
    let of_kind = |kind: &'static str| records.iter().filter(move |it| it["kind"] == kind);
    assert!(of_kind("implementation").all(|it| it["missing"].is_null()), "{table}");
    let results = of_kind("measurement").map(|record| record["result"].clone()).collect();
    (table, results)
}

fn assert_plausible(size: &Value) {
    for (name, smallest, largest) in [
        ("setconf_seconds", 0.001, 20.0),
        ("add_seconds", 0.000_1, 1.0),
        ("remove_seconds", 0.000_1, 1.0),
        ("resident_bytes", 1e6, 1e9),
        ("ns_per_packet", 10.0, 1e7),
    ] {
        let figure = size[name].as_f64().unwrap_or_else(|| panic!("no {name}: {size}"));
        assert!((smallest..largest).contains(&figure), "{name}: {size}");
    }
    assert!(size["phase"]["received"].as_u64() > Some(100), "{size}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn more_peers_take_more() {
    let (table, results) = scale("--peers 1000,10 --implementations wg-bounce-mmsg,wireguard-go");
    assert_eq!(results.len(), 2, "{table}");
    for result in results {
        let [few, many] = [&result["sizes"][0], &result["sizes"][1]];
        assert_eq!((&few["peers"], &many["peers"]), (&10.into(), &1000.into()));
        assert_plausible(few);
        assert_plausible(many);
        assert!(many["resident_bytes"].as_u64() > few["resident_bytes"].as_u64(), "{result}");
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_step_that_takes_too_long_is_a_line() {
    // It computes a DH for each peer before it answers.
    let (table, results) =
        scale("--peers 10,100000,200000 --limit 2 --implementations wireguard-go");
    let sizes = &results[0]["sizes"];
    assert_plausible(&sizes[0]);
    assert_eq!(sizes[1]["failure"], "`wg setconf` took longer than 2 s", "{table}");
    assert_eq!(sizes[2]["failure"], "not tried: 100000 peers were too many", "{table}");
    assert!(table.contains("`wg setconf` took longer than 2 s"), "{table}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn sigkill_leaves_nothing() {
    relays::leaves_nothing(LONG, Signal::SIGKILL);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_signal_ends_it_in_order() {
    relays::leaves_nothing(LONG, Signal::SIGTERM);
}
