//! Who forwards from peer to peer: the kernel, or the worker in its place.
//!
//! With `--relay auto` a worker relays exactly what the kernel would have forwarded back into the
//! interface without asking anybody.
//!
//! 1. [`source`] reads, from what the kernel says ([`kernel::Kernel`]), all that could have a say:
//!    one list of [`reason::Finding`]s for each [`source::Source`].
//! 2. [`decision`] decides, by family. What cannot be seen or understood counts as a reason for the
//!    kernel.
//! 3. [`watch`] is the thread that does both again whenever something changes.
//!
//! All but `watch` is pure: it can be tried out with a kernel that does not exist.

pub mod decision;
pub mod interface;
pub mod kernel;
pub mod message;
pub mod netfilter;
pub mod packet_sockets;
pub mod reason;
pub mod routing;
pub mod source;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod xtables;

use clap::ValueEnum;

pub use decision::PolicyDecision;

/// `--relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// direct while no firewall rule, packet capture or traffic shaping applies; else kernel
    Auto,
    /// Inside the daemon; netfilter, tc and packet captures do not see packets between peers
    Direct,
    /// Through the interface and the kernel's IP forwarding
    Kernel,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

/// The interface, where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number in its namespace.
    pub index: u32,
    /// Its present name.
    pub name: String,
}
