//! WireGuard's cross-platform configuration protocol as values: what a request says, and what
//! an answer must say. Pure: no sockets, no key is ever used here.
//!
//! `parse` cuts a connection's bytes into requests, `render` writes the answers; what passes
//! between them and the daemon is in `types`.

#![forbid(unsafe_code)]

pub mod limits;
pub mod parse;
pub mod render;
pub mod types;
