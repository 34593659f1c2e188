//! Everything of wg-bounce that is not done for every packet: handshakes, timers, configuration.
//!
//! [`device`] is a pure reducer: inputs, the time and randomness go in, outputs come out.

#![forbid(unsafe_code)]

pub mod cookie;
pub mod device;
pub mod limits;
pub mod noise;
pub mod rate_limit;
pub mod tai64n;
pub mod timer_queue;
pub mod timers;
