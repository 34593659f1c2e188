//! `blast` against our own daemon: all packets arrive, intact and in order.

#![forbid(unsafe_code)]

mod common;

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use common::{processes, relays};

/// Arguments for measuring our daemon from the same build.
fn arguments(more: &str) -> String {
    let relay_core = relays::last_core();
    format!(
        "blast --rounds 1 --seconds 1 --relay-core {relay_core} --window 128 --pool 32 \
         --check-every 4 --implementations wg-bounce-kernel-mmsg {more}"
    )
}

/// The result of a measurement.
fn blast(more: &str) -> Value {
    let (table, records) = common::run(&arguments(more));
    let missing = &records[1]["missing"];
    assert!(missing.is_null(), "{missing}: build all of the workspace");
    assert_eq!(records[2]["kind"], "measurement", "{table}");
    records[2]["result"].clone()
}

/// All packets of a phase arrived, in order. The sampled ones were right: a wrong one fails the
/// measurement.
fn assert_whole(phase: &Value) {
    for nothing in ["lost", "reordered", "reordered_samples"] {
        assert_eq!(phase[nothing], 0, "{phase}");
    }
    assert!(phase["sent"].as_u64() > Some(1000), "{phase}");
    assert!(phase["samples"].as_u64() > Some(10), "{phase}");
    assert!(phase["nanoseconds_per_packet"].as_f64() > Some(0.0), "{phase}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn trains_of_tcp_arrive_whole_and_at_a_rate_too() {
    let result = blast("--pairs 3 --load 5000");
    assert_whole(&result["capacity"]);
    assert_whole(&result["loads"][0]);
    let latency = &result["loads"][0]["latency_microseconds"];
    assert!(latency["p50"].as_f64() > Some(0.0), "{latency}");
    assert!(latency["p50"].as_f64() <= latency["p99"].as_f64(), "{latency}");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn short_unpadded_trains_of_udp_in_ipv6_in_ipv6_arrive_whole() {
    let arguments = "--pairs 2 --train 3 --size 1401 --kind udp --family 6 --outer 6 --unpadded";
    assert_whole(&blast(arguments)["capacity"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn single_small_packets_arrive_whole() {
    assert_whole(&blast("--pairs 2 --train 1 --size 64 --family 6")["capacity"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_stopped_relay_loses_nothing() {
    let json = tempfile::NamedTempFile::new().expect("a temporary folder");
    let mut command = common::harness(&arguments(""));
    let command = command.arg("--json").arg(json.path()).stdout(Stdio::null());
    let mut harness = command.stderr(Stdio::piped()).spawn().expect("it starts");
    // Each stop is longer than the silence after which an idle relay has lost packets.
    let mut stops = 0;
    while harness.try_wait().expect("our own child").is_none() {
        let started = processes::children(harness.id());
        for relay in started.into_iter().filter(|pid| processes::is_called(*pid, "wg-bounce")) {
            let send = |signal| kill(Pid::from_raw(relay.cast_signed()), signal).is_ok();
            stops += u32::from(send(Signal::SIGSTOP));
            sleep(Duration::from_millis(300));
            send(Signal::SIGCONT);
        }
        sleep(Duration::from_millis(150));
    }
    let output = harness.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stops > 2, "{stops}");
    let text = std::fs::read_to_string(json.path()).expect("written");
    let last = text.lines().last().expect("a measurement");
    let record: Value = serde_json::from_str(last).expect("JSON");
    assert_whole(&record["result"]["capacity"]);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_thin_flow_is_measured_next_to_others() {
    let result = blast("--fairness --slow 5");
    for phase in ["alone", "beside_heavy", "beside_slow"] {
        let thin = &result[phase]["thin"];
        assert!(thin["sent"].as_u64() > Some(50), "{phase}: {thin}");
        assert!(thin["latency_microseconds"]["p99"].as_f64() > Some(0.0), "{phase}: {thin}");
    }
    let heavy = &result["beside_heavy"];
    assert!(heavy["sent"].as_u64() > Some(1000), "{heavy}");
    let slow = &result["beside_slow"];
    assert!(
        slow["lost"].as_u64() > Some(100),
        "packets beyond the rate of the path are lost: {slow}"
    );
}
