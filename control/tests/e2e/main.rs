//! End-to-end tests: the real binary, real interfaces, network namespaces made and removed by each
//! test. Run as root: `sudo scripts/test`, or `cargo test -p wg-bounce-control --test e2e`.
//!
//! `WG_BOUNCE_TEST_BINARY` names another implementation to put under test (wireguard-go, say):
//! a test that no implementation can fail proves nothing.
#![forbid(unsafe_code)]

#[macro_use]
mod harness;

mod config;
mod five_nodes;
mod floods;
mod hostile;
mod icmp_ecn;
mod interop;
mod lifecycle;
mod quick;
mod rekey;
mod relay_auto;
mod roaming;
mod router;
mod routing;
mod start;
mod traffic;
mod uapi;
