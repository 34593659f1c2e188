//! `latency` against our own daemon and Debian's wireguard-go.

#![forbid(unsafe_code)]

mod common;

use nix::sys::signal::Signal;

use common::relays;

const LONG: &str = "latency --seconds 10";

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_relay_adds_to_the_path() {
    let relay_core = relays::last_core();
    let (table, records) = common::run(&format!(
        "latency --seconds 1 --load 1000,20% --rounds 1 --relay-core {relay_core} \
         --implementations wg-bounce-mmsg,wireguard-go"
    ));
    assert_eq!(records[0]["kind"], "latency");
    assert_eq!(records.len(), 5, "{table}");
    for record in &records[3..] {
        let result = &record["result"];
        let loads = result["loads"].as_array().expect("one for each load");
        let labels: Vec<_> = loads.iter().map(|load| load["load"].as_str()).collect();
        assert_eq!(labels, [Some("baseline"), Some("1000 packets/s"), Some("20%")], "{result}");
        for load in loads {
            assert!(load["pps"].as_f64() > Some(100.0), "{load}");
            let quantiles = load["quantiles_us"].as_array().expect("pairs");
            assert!(quantiles.is_sorted_by(|one, next| one[1].as_f64() <= next[1].as_f64()));
            assert!(quantiles[0][1].as_f64() > Some(0.0), "{load}");
            assert_eq!(quantiles[4], serde_json::json!([50.0, load["p50_us"]]), "{load}");
            assert!(load["p99_us"].as_f64() <= load["max_us"].as_f64(), "{load}");
        }
        assert_eq!(loads[0]["lost"], 0, "the path without a relay loses nothing");
        assert!(loads[1]["p50_us"].as_f64() > loads[0]["p50_us"].as_f64(), "{result}");
    }
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
