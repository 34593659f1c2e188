//! Super-packets on the TUN: [`Cut`] segments those that the kernel sends, and [`Coalescer`] builds
//! those that it receives, so that its stack is traversed once for many packets.
//!
//! Every packet on the TUN has a virtio-net header in front of it, here of [`VNET_HEADER_LEN`]
//! bytes (`TUNSETVNETHDRSZ`), in the byte order of the host.

mod candidate;
mod coalesce;
mod cut;
#[cfg(test)]
mod tests;
mod virtio;

pub use candidate::CoalescerOptions;
pub use coalesce::{Coalescer, Full, Group, Member};
pub use cut::{Cut, CutError};
pub use virtio::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN, VirtioHeader,
};
