//! The packet path of a wg-bounce relay: everything that touches every packet.
//!
//! `worker` drives one core: it waits once, takes what arrived, opens all messages as one batch,
//! routes them, seals what leaves as one batch and sends trains. `receive` and `transmit` are the
//! two paths, `send` is the one way out to peers; the pure modules below them know neither sockets
//! nor clocks. System calls are in [`wg_bounce_sys`], encryption in [`wg_bounce_aead`].
//!
//! This crate knows nothing of handshakes or of the configuration protocol: control hands it
//! finished sessions ([`messages::Command`]) and published tables ([`snapshot::Snapshot`]).

#![forbid(unsafe_code)]
// The engine joins all modules, and takes its eventfds from the kernel: loom cannot run it.
#![cfg_attr(loom, allow(dead_code))]

mod channels;
pub mod checksum;
pub mod counters;
mod drr;
#[cfg(not(loom))]
pub mod engine;
mod flows;
mod hash;
pub mod icmp;
mod icmp_errors;
mod index_table;
pub mod ip;
pub mod ip_forward;
pub mod limits;
pub mod mac1;
pub mod messages;
#[cfg(all(loom, test))]
mod models;
mod nesting;
pub mod offload;
pub mod own_host;
pub mod pairs;
pub mod path;
pub mod peer;
pub mod ranges;
mod receive;
pub mod receive_session;
mod recycle;
pub mod replay;
mod router;
pub mod routes;
mod rx_queue;
pub mod segments;
mod send;
pub mod session;
mod sizes;
pub mod snapshot;
mod source_check;
mod sync;
pub mod token_bucket;
mod transmit;
pub mod transport;
mod turn;
pub mod wire;
mod worker;
