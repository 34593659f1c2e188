//! Everything of wg-bounce that is not done for every packet: handshakes, timers, configuration.
//!
//! `start` brings the daemon up and hands over to `runtime`, the control thread's loop: the only
//! place of this crate that reads a clock. What it decides, `device` decides: a pure reducer.

#![forbid(unsafe_code)]

pub mod device;
mod graveyard;
mod link;
mod logging;
mod notify;
mod options;
mod runtime;
pub mod start;
mod uapi_server;
