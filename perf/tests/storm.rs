//! `storm` against our own daemon and Debian's wireguard-go: all peers are served.

#![forbid(unsafe_code)]

mod common;

use nix::sys::signal::Signal;

use common::relays;

/// More peers than any relay serves in a moment.
const LONG: &str = "storm --peers 2000 --seconds 60";

#[test]
#[ignore = "needs root: creates network namespaces"]
fn all_peers_of_both_are_served() {
    let relay_core = relays::last_core();
    let (table, records) = common::run(&format!(
        "storm --peers 100 --seconds 1 --patience 30 --rounds 1 --relay-core {relay_core} \
         --implementations wg-bounce-mmsg,wireguard-go"
    ));
    assert_eq!(records[0]["kind"], "storm");
    for record in &records[3..] {
        let result = &record["result"];
        assert_eq!((&result["peers"], &result["completed"]), (&100.into(), &100.into()), "{table}");
        assert_eq!(result["unserved"], 0, "{result}");
        assert!(result["initiations"].as_u64() >= Some(100), "{result}");
        assert!(result["handshakes_per_second"].as_f64() > Some(10.0), "{result}");
        // At least the four DH of a responder, of which each takes tens of microseconds.
        assert!(result["cpu_ns_per_handshake"].as_f64() > Some(40_000.0), "{result}");
        let answer = &result["answer_us"];
        assert!(answer["p50"].as_f64() > Some(0.0), "{result}");
        assert!(answer["p50"].as_f64() <= answer["p99"].as_f64(), "{result}");
        assert!(answer["p99"].as_f64() <= answer["max"].as_f64(), "{result}");
        assert!(result["steady"]["completed"].as_u64() >= Some(100), "{result}");
    }
    assert_eq!(records.len(), 5, "{table}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_cookie_is_used() {
    // boringtun limits itself to a hundred handshakes per second.
    let (table, records) = common::run(&format!(
        "storm --peers 300 --window 300 --seconds 1 --patience 30 --rounds 1 --relay-core {} \
         --implementations boringtun",
        relays::last_core()
    ));
    let Some(record) = records.get(2) else {
        return assert!(common::has_line(&table, "boringtun", "not there: "), "{table}");
    };
    let result = &record["result"];
    let cookies = result["cookies"].as_u64().zip(result["steady"]["cookies"].as_u64());
    assert!(cookies.is_some_and(|(storm, steady)| storm + steady > 100), "{result}");
    assert_eq!(result["completed"], 300, "{result}");
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
