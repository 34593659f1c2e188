//! WireGuard's cross-platform configuration protocol as values: what a request says, and what
//! an answer must say. Pure: no sockets, no key is ever used here.

pub mod types;
