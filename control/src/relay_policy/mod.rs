//! The relay policy: packets between peers are forwarded either by the kernel or directly by the
//! worker that received them.
//!
//! With `--relay auto` a worker relays exactly those packets that the kernel would have forwarded
//! back into the interface unchanged.
//!
//! 1. [`source`] reads from the kernel ([`kernel::Kernel`]) everything that could filter, change or
//!    observe such a packet: one [`reading::Reading`] per [`source::Source`].
//! 2. [`decision`] decides per IP version. Anything that cannot be read or parsed counts as a
//!    reason to leave forwarding to the kernel.
//! 3. [`watch`] is the thread that repeats both steps on every change.
//!
//! All modules but `watch` are pure: tests run them against a fake kernel.

pub mod announced;
pub mod base_chain;
pub mod connections;
pub mod decision;
pub mod explain;
pub mod interface;
pub mod kernel;
pub mod mode;
pub mod netfilter;
pub mod packet_sockets;
pub mod reading;
pub mod reason;
pub mod routing;
pub mod rules;
pub mod settling;
pub mod source;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod xtables;
