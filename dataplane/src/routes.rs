//! Cryptokey routing: the owner of an address, by the longest matching allowed IP over all peers
//! (§2; allowedips.c of the kernel module). One trie per family (`table`), shared between
//! snapshots.

use std::net::IpAddr;

use ipnet::IpNet;

use table::{Prefix, Table};

mod table;

/// An immutable table from prefixes to `T`; cloning costs two reference counts.
#[derive(Clone)]
pub struct Routes<T> {
    v4: Table<u32, T>,
    v6: Table<u128, T>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Routes { v4: Table::Nothing, v6: Table::Nothing }
    }
}

impl<T: Clone> Routes<T> {
    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(v4) => self.v4.lookup(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.lookup(v6.to_bits()),
        }
    }

    /// Sets the value of `prefix` (host bits are ignored); returns the previous one.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        let length = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(v4) => self.v4.insert(Prefix { bits: v4.to_bits(), length }, value),
            IpAddr::V6(v6) => self.v6.insert(Prefix { bits: v6.to_bits(), length }, value),
        }
    }

    /// Removes exactly `prefix`; returns its value.
    pub fn remove(&mut self, prefix: IpNet) -> Option<T> {
        let length = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(v4) => self.v4.remove(Prefix { bits: v4.to_bits(), length }),
            IpAddr::V6(v6) => self.v6.remove(Prefix { bits: v6.to_bits(), length }),
        }
    }

    /// The value of exactly `prefix`.
    pub fn exact(&self, prefix: IpNet) -> Option<&T> {
        let length = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(v4) => self.v4.exact(Prefix { bits: v4.to_bits(), length }),
            IpAddr::V6(v6) => self.v6.exact(Prefix { bits: v6.to_bits(), length }),
        }
    }
}

#[cfg(test)]
mod tests;
