//! The control plane of wg-bounce, everything that is not done per packet: handshakes, timers,
//! configuration.
//!
//! `start` brings the daemon up and hands over to `runtime`, the control thread's loop. Protocol
//! decisions are made in [`device`], a pure reducer: inputs, the time and randomness go in, outputs
//! come out.

#![forbid(unsafe_code)]

mod address_number;
mod commands;
mod config_file;
pub mod cookie;
mod deferred_drop;
pub mod device;
pub mod limits;
mod link;
mod logging;
#[cfg(feature = "metrics")]
mod metrics;
mod netlink;
pub mod noise;
mod notify;
mod options;
pub mod rate_limit;
mod relay_policy;
mod runtime;
mod short_key;
mod socket_paths;
mod source_prefix;
pub mod start;
mod state_file;
mod status;
pub mod tai64n;
pub mod timer_queue;
pub mod timers;
mod uapi_server;
mod uplinks;
