//! Everything that touches every packet of a wg-bounce relay.
//!
//! `worker` drives one core: it waits once, takes what arrived, opens all messages as one batch,
//! routes, seals as one batch and sends trains. `inbound` and `outbound` hold the two journeys;
//! the pure modules below them know neither sockets nor clocks. `sys` has the system calls.
//!
//! This crate knows nothing of handshakes or of the configuration protocol: control hands it
//! finished sessions ([`mailbox::Command`]) and published tables ([`snapshot::Snapshot`]).

pub mod aead;
mod backlog;
pub mod checksum;
pub mod clock;
pub mod counters;
mod departures;
mod dispatch;
pub mod engine;
mod flows;
pub mod forwarding;
mod hash;
pub mod icmp;
mod inbound;
mod intake;
pub mod ip;
pub mod limits;
pub mod mailbox;
pub mod offload;
mod outbound;
pub mod peer;
mod post;
mod recent;
mod recycle;
pub mod replay;
mod router;
pub mod routes;
pub mod segments;
pub mod session;
mod sessions;
pub mod snapshot;
mod staging;
pub mod sys;
mod turn;
pub mod wire;
mod worker;
