//! Source addresses as they are counted against floods.

use std::net::IpAddr;

/// An IPv4 address, or an IPv6 /64: a host with one address of a /64 usually controls all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourcePrefix {
    /// The address.
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl SourcePrefix {
    /// The prefix of `address`; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn of(address: IpAddr) -> SourcePrefix {
        match address.to_canonical() {
            IpAddr::V4(v4) => SourcePrefix::V4(v4.to_bits()),
            IpAddr::V6(v6) => SourcePrefix::V6((v6.to_bits() >> 64) as u64),
        }
    }
}
