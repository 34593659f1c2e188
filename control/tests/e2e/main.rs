//! End-to-end tests: the real binary and real interfaces, in network namespaces that each test
//! creates and removes. They need root and are ignored by default: run `sudo scripts/test`, or as
//! root `cargo test -p wg-bounce-control --test e2e -- --include-ignored`.
//!
//! `WG_BOUNCE_TEST_BINARY` puts another implementation under test, such as wireguard-go, to show
//! that a test can fail.
#![forbid(unsafe_code)]

#[macro_use]
mod harness;

mod commands;
mod config;
mod explain;
mod five_nodes;
mod floods;
mod forged_frames;
mod handshakes;
mod hostile;
mod icmp_ecn;
mod interop;
mod lifecycle;
mod link;
mod memory;
mod metrics;
mod nested;
mod packaging;
mod path_mtu;
mod process;
mod queues;
mod quick;
mod recipes;
mod rekey;
mod relay_auto;
mod relay_direct;
mod relay_pairs;
mod relay_ports;
mod relay_returns;
mod relay_rule_changes;
mod relay_rules;
mod roaming;
mod router;
mod routing;
mod send_refused;
mod source;
mod start;
mod state_file;
mod stress;
mod traffic;
mod uapi;
mod up;
mod watch;
