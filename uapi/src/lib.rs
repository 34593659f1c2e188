//! WireGuard's cross-platform configuration protocol (UAPI): a parser and a renderer. Pure: the
//! crate opens no socket and does nothing with keys except to read and write them.
//!
//! `parse` cuts a connection's bytes into requests, `render` writes the replies, and `types` holds
//! the values that both exchange with the daemon.

#![forbid(unsafe_code)]

pub mod limits;
pub mod parse;
pub mod render;
pub mod types;
