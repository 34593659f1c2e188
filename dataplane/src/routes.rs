//! Cryptokey routing: the owner of an address, by the longest matching allowed IP over all peers
//! (§2; allowedips.c of the kernel module).
//!
//! A path-compressed trie per family that branches by four bits, so that a lookup visits few nodes
//! of a table that fits into no cache. A branch has about 600 bytes; there are fewer branches than
//! prefixes. Branches are shared between snapshots: a change copies only those from the root to the
//! changed prefix, so that it costs O(prefix length) whatever the size of the table, and a reader
//! keeps the table that it has.

use std::array;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Address bits that one branch resolves.
const STRIDE: u8 = 4;
const FAN_OUT: usize = 1 << STRIDE;

/// An immutable table from prefixes to `T`; cloning costs two reference counts.
#[derive(Clone)]
pub struct Routes<T> {
    v4: Entry<T>,
    v6: Entry<T>,
}

/// `bits` left-aligned in 128 bits, those beyond `length` zero.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Prefix {
    bits: u128,
    length: u8,
}

/// A subtree.
#[derive(Clone)]
enum Entry<T> {
    Nothing,
    /// One prefix, inline, so that an entry has 32 bytes: half a cache line.
    Value {
        bits: u128,
        length: u8,
        value: T,
    },
    /// Several prefixes, with the number of bits that they have in common. The branch knows that
    /// number too; the copy here saves a lookup the wait for the branch's first cache line.
    Branch(u8, Arc<Branch<T>>),
}

/// At least two prefixes with the same first `common.length` bits, a multiple of [`STRIDE`].
#[derive(Clone)]
struct Branch<T> {
    common: Prefix,
    /// Prefixes that end within this stride, unordered; rarely any.
    short: Vec<(Prefix, T)>,
    /// All others, by the bits of this stride.
    entries: [Entry<T>; FAN_OUT],
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Routes { v4: Entry::Nothing, v6: Entry::Nothing }
    }
}

impl<T: Clone> Routes<T> {
    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        let (mut entry, bits) = match address {
            IpAddr::V4(v4) => (&self.v4, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        };
        let mut best = None;
        loop {
            match entry {
                Entry::Nothing => return best,
                Entry::Value { bits: own, length, value } => {
                    let own = Prefix { bits: *own, length: *length };
                    return if own.contains(bits) { Some(value) } else { best };
                }
                Entry::Branch(length, branch) => {
                    if !branch.common.contains(bits) {
                        return best;
                    }
                    best = branch.longest_short(bits).or(best);
                    entry = &branch.entries[stride(bits, *length)];
                }
            }
        }
    }

    /// Sets the value of `prefix` (host bits are ignored); returns the previous one.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        self.root(prefix).insert(prefix.into(), value)
    }

    /// Removes exactly `prefix`; returns its value.
    pub fn remove(&mut self, prefix: IpNet) -> Option<T> {
        self.root(prefix).remove(prefix.into())
    }

    /// The value of exactly `prefix`.
    pub fn exact(&self, prefix: IpNet) -> Option<&T> {
        let mut entry = match prefix {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let prefix = Prefix::from(prefix);
        loop {
            match entry {
                Entry::Nothing => return None,
                Entry::Value { bits, length, value } => {
                    return (Prefix { bits: *bits, length: *length } == prefix).then_some(value);
                }
                Entry::Branch(_, branch) if !branch.common.covers(prefix) => return None,
                Entry::Branch(length, branch) if prefix.length < length + STRIDE => {
                    return branch.short.iter().find(|(own, _)| *own == prefix).map(|(_, it)| it);
                }
                Entry::Branch(length, branch) => {
                    entry = &branch.entries[stride(prefix.bits, *length)];
                }
            }
        }
    }

    fn root(&mut self, prefix: IpNet) -> &mut Entry<T> {
        match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

impl<T: Clone> Entry<T> {
    fn value(Prefix { bits, length }: Prefix, value: T) -> Self {
        Entry::Value { bits, length, value }
    }

    /// The bits that all prefixes of this subtree have in common.
    fn common(&self) -> Option<Prefix> {
        match *self {
            Entry::Nothing => None,
            Entry::Value { bits, length, .. } => Some(Prefix { bits, length }),
            Entry::Branch(_, ref branch) => Some(branch.common),
        }
    }

    fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let Some(common) = self.common() else {
            *self = Entry::value(prefix, value);
            return None;
        };
        match self {
            Entry::Value { value: old, .. } if common == prefix => {
                return Some(mem::replace(old, value));
            }
            Entry::Branch(_, branch) if common.covers(prefix) => {
                return Arc::make_mut(branch).insert(prefix, value);
            }
            _ => {}
        }
        // The new prefix diverges from this subtree: a branch for both replaces it.
        let mut parent = Branch::new(common.strides_alike(prefix));
        match mem::replace(self, Entry::Nothing) {
            Entry::Value { value: old, .. } => {
                let _none = parent.insert(common, old);
            }
            branch => *parent.entry(common) = branch,
        }
        let _none = parent.insert(prefix, value);
        *self = Entry::Branch(parent.common.length, Arc::new(parent));
        None
    }

    fn remove(&mut self, prefix: Prefix) -> Option<T> {
        let common = self.common()?;
        match self {
            Entry::Branch(_, branch) if common.covers(prefix) => {
                let branch = Arc::make_mut(branch);
                let removed = branch.remove(prefix);
                if let Some(only) = branch.take_only() {
                    *self = only;
                }
                removed
            }
            Entry::Value { .. } if common == prefix => match mem::replace(self, Entry::Nothing) {
                Entry::Value { value, .. } => Some(value),
                _ => None,
            },
            _ => None,
        }
    }
}

impl<T: Clone> Branch<T> {
    fn new(common: Prefix) -> Self {
        Branch { common, short: Vec::new(), entries: array::from_fn(|_| Entry::Nothing) }
    }

    fn longest_short(&self, bits: u128) -> Option<&T> {
        let containing = self.short.iter().filter(|(prefix, _)| prefix.contains(bits));
        containing.max_by_key(|(prefix, _)| prefix.length).map(|(_, value)| value)
    }

    fn insert(&mut self, prefix: Prefix, value: T) -> Option<T> {
        if self.reaches_beyond(prefix) {
            return self.entry(prefix).insert(prefix, value);
        }
        match self.short.iter_mut().find(|(own, _)| *own == prefix) {
            Some((_, old)) => Some(mem::replace(old, value)),
            None => {
                self.short.push((prefix, value));
                None
            }
        }
    }

    fn remove(&mut self, prefix: Prefix) -> Option<T> {
        if self.reaches_beyond(prefix) {
            return self.entry(prefix).remove(prefix);
        }
        let at = self.short.iter().position(|(own, _)| *own == prefix)?;
        Some(self.short.swap_remove(at).1)
    }

    /// Whether `prefix` belongs to the entries rather than to the short ones.
    fn reaches_beyond(&self, prefix: Prefix) -> bool {
        prefix.length >= self.common.length + STRIDE
    }

    fn entry(&mut self, prefix: Prefix) -> &mut Entry<T> {
        &mut self.entries[stride(prefix.bits, self.common.length)]
    }

    /// The only subtree left, which replaces this branch.
    fn take_only(&mut self) -> Option<Entry<T>> {
        let mut entries = self.entries.iter_mut().filter(|entry| !matches!(entry, Entry::Nothing));
        match (entries.next(), entries.next(), self.short.len()) {
            (Some(only), None, 0) => Some(mem::replace(only, Entry::Nothing)),
            (None, None, 1) => self.short.pop().map(|(prefix, value)| Entry::value(prefix, value)),
            _ => None,
        }
    }
}

impl Prefix {
    fn contains(self, bits: u128) -> bool {
        (self.bits ^ bits) & mask(self.length) == 0
    }

    fn covers(self, other: Prefix) -> bool {
        self.length <= other.length && self.contains(other.bits)
    }

    /// The longest prefix of whole strides that covers both, and is not all of an address.
    fn strides_alike(self, other: Prefix) -> Prefix {
        let alike = (self.bits ^ other.bits).leading_zeros() as u8;
        let length = alike.min(self.length).min(other.length).min(128 - STRIDE) / STRIDE * STRIDE;
        Prefix { bits: self.bits & mask(length), length }
    }
}

impl From<IpNet> for Prefix {
    fn from(prefix: IpNet) -> Prefix {
        match prefix.network() {
            IpAddr::V4(v4) => {
                Prefix { bits: u128::from(v4.to_bits()) << 96, length: prefix.prefix_len() }
            }
            IpAddr::V6(v6) => Prefix { bits: v6.to_bits(), length: prefix.prefix_len() },
        }
    }
}

fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) }
}

/// The bits of the stride that begins at bit `position`.
fn stride(bits: u128, position: u8) -> usize {
    (bits >> (128 - STRIDE - position)) as usize % FAN_OUT
}

#[cfg(test)]
mod tests;
