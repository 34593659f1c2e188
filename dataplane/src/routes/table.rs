//! The trie of one address family.
//!
//! A *bucket* is a list of a few prefixes, compared one by one. More prefixes are parted by a
//! *branch* into 16 subtrees, by the first four bits in which they differ; one whose length ends
//! within these four bits stays in a list of the branch. A lookup follows the bits of its address
//! and compares prefixes only in such lists and in the bucket at the end. Of a branch it reads one
//! entry. For an address that differs in bits that were skipped, nothing matches in the end.
//!
//! Branches and buckets are shared between snapshots: a change copies only those from the root to
//! the changed prefix, so that it costs O(prefix length) whatever the size of the table, and a
//! reader keeps the table that it has.

use std::array;
use std::iter;
use std::mem;
use std::sync::Arc;

/// Address bits that one branch resolves.
const STRIDE: u8 = 4;
const FAN_OUT: usize = 1 << STRIDE;

/// Prefixes in a bucket at most: as many as a branch has entries, so that consecutive addresses
/// fill buckets. Fewer are not faster, and branches take more memory.
const BUCKET: usize = FAN_OUT;

/// Prefixes below a branch at which they become a bucket again: few enough that it does not become
/// a branch with the next change.
const MERGED: usize = BUCKET / 2;

/// A subtree; the table is one.
#[derive(Clone)]
pub enum Table<B, T> {
    Nothing,
    /// At most [`BUCKET`] prefixes, unordered.
    Bucket(Arc<[Leaf<B, T>]>),
    /// More prefixes. Position and flag are copies of the branch's own, so that a lookup waits for
    /// one entry of it only.
    Branch {
        /// First bit of the stride.
        position: u8,
        has_short: bool,
        branch: Arc<Branch<B, T>>,
    },
}

/// A prefix and its value.
#[derive(Clone)]
pub struct Leaf<B, T> {
    bits: B,
    length: u8,
    value: T,
}

/// Prefixes with the same first `common.length` bits, a multiple of [`STRIDE`].
#[derive(Clone)]
pub struct Branch<B, T> {
    common: Prefix<B>,
    /// Prefixes that end within this stride, unordered; rarely any.
    short: Vec<Leaf<B, T>>,
    /// All others, by the bits of this stride.
    entries: [Table<B, T>; FAN_OUT],
}

/// A prefix; its bits beyond `length` are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefix<B> {
    pub bits: B,
    pub length: u8,
}

/// An address as a number.
pub trait Bits: Copy + Eq {
    /// Bits of an address.
    const WIDTH: u8;

    /// Number of first bits that both have in common.
    fn alike(self, other: Self) -> u8;

    /// The first `length` bits, not all; the others zero.
    fn first(self, length: u8) -> Self;

    /// The bits of the stride that begins at bit `position`.
    fn stride(self, position: u8) -> usize;
}

macro_rules! bits {
    ($($number:ty),*) => { $(
        impl Bits for $number {
            const WIDTH: u8 = <$number>::BITS as u8;

            fn alike(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn first(self, length: u8) -> Self {
                self & !(Self::MAX >> length)
            }

            fn stride(self, position: u8) -> usize {
                (self >> (Self::WIDTH - STRIDE - position)) as usize % FAN_OUT
            }
        }
    )* };
}

bits!(u32, u128);

impl<B: Bits, T: Clone> Table<B, T> {
    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: B) -> Option<&T> {
        let (mut table, mut best) = (self, None);
        loop {
            match table {
                Table::Nothing => return best,
                Table::Bucket(leaves) => return longest(leaves, address).or(best),
                Table::Branch { position, has_short, branch } => {
                    if *has_short {
                        best = longest(&branch.short, address).or(best);
                    }
                    table = &branch.entries[address.stride(*position)];
                }
            }
        }
    }

    /// The value of exactly `prefix`.
    pub fn exact(&self, prefix: Prefix<B>) -> Option<&T> {
        let mut table = self;
        let leaves = loop {
            match table {
                Table::Nothing => return None,
                Table::Bucket(leaves) => break &leaves[..],
                Table::Branch { branch, .. } if !branch.reaches_beyond(prefix) => {
                    break &branch.short[..];
                }
                Table::Branch { position, branch, .. } => {
                    table = &branch.entries[prefix.bits.stride(*position)];
                }
            }
        };
        leaves.iter().find(|leaf| leaf.prefix() == prefix).map(|leaf| &leaf.value)
    }

    /// Sets the value of `prefix`; returns the previous one.
    pub fn insert(&mut self, prefix: Prefix<B>, value: T) -> Option<T> {
        let mut parent = match self {
            Table::Nothing => {
                *self = Table::Bucket(Arc::new([Leaf::new(prefix, value)]));
                return None;
            }
            Table::Bucket(leaves) => {
                if let Some(at) = leaves.iter().position(|leaf| leaf.prefix() == prefix) {
                    return Some(mem::replace(&mut Arc::make_mut(leaves)[at].value, value));
                }
                if leaves.len() < BUCKET {
                    let leaf = Leaf::new(prefix, value);
                    *leaves = leaves.iter().cloned().chain(iter::once(leaf)).collect();
                    return None;
                }
                let prefixes = leaves.iter().map(Leaf::prefix);
                let mut parent = Branch::new(prefixes.fold(prefix, Prefix::strides_alike));
                for leaf in leaves.iter().cloned() {
                    let _none = parent.insert(leaf.prefix(), leaf.value);
                }
                parent
            }
            Table::Branch { has_short, branch, .. } if branch.common.covers(prefix) => {
                let branch = Arc::make_mut(branch);
                let previous = branch.insert(prefix, value);
                *has_short = !branch.short.is_empty();
                return previous;
            }
            Table::Branch { branch, .. } => {
                let common = branch.common;
                let mut parent = Branch::new(common.strides_alike(prefix));
                *parent.entry(common) = mem::replace(self, Table::Nothing);
                parent
            }
        };
        // A branch parts the new prefix from this subtree.
        let _none = parent.insert(prefix, value);
        *self = parent.into();
        None
    }

    /// Removes exactly `prefix`; returns its value.
    pub fn remove(&mut self, prefix: Prefix<B>) -> Option<T> {
        let value = self.exact(prefix)?.clone();
        self.remove_present(prefix);
        Some(value)
    }

    fn remove_present(&mut self, prefix: Prefix<B>) {
        match self {
            Table::Nothing => {}
            Table::Bucket(leaves) => {
                *self = leaves.iter().filter(|leaf| leaf.prefix() != prefix).cloned().collect();
            }
            Table::Branch { has_short, branch, .. } => {
                let branch = Arc::make_mut(branch);
                branch.remove_present(prefix);
                *has_short = !branch.short.is_empty();
                if let Some(merged) = branch.take_merged() {
                    *self = merged;
                }
            }
        }
    }
}

impl<B, T> FromIterator<Leaf<B, T>> for Table<B, T> {
    fn from_iter<I: IntoIterator<Item = Leaf<B, T>>>(leaves: I) -> Self {
        let leaves: Arc<[Leaf<B, T>]> = leaves.into_iter().collect();
        if leaves.is_empty() { Table::Nothing } else { Table::Bucket(leaves) }
    }
}

impl<B, T> From<Branch<B, T>> for Table<B, T> {
    fn from(branch: Branch<B, T>) -> Self {
        let (position, has_short) = (branch.common.length, !branch.short.is_empty());
        Table::Branch { position, has_short, branch: Arc::new(branch) }
    }
}

impl<B, T> Branch<B, T> {
    /// Whether `prefix` belongs to the entries rather than to the short ones.
    fn reaches_beyond(&self, prefix: Prefix<B>) -> bool {
        prefix.length >= self.common.length + STRIDE
    }
}

impl<B: Bits, T: Clone> Branch<B, T> {
    fn new(common: Prefix<B>) -> Self {
        Branch { common, short: Vec::new(), entries: array::from_fn(|_| Table::Nothing) }
    }

    fn insert(&mut self, prefix: Prefix<B>, value: T) -> Option<T> {
        if self.reaches_beyond(prefix) {
            return self.entry(prefix).insert(prefix, value);
        }
        match self.short.iter_mut().find(|leaf| leaf.prefix() == prefix) {
            Some(leaf) => Some(mem::replace(&mut leaf.value, value)),
            None => {
                self.short.push(Leaf::new(prefix, value));
                None
            }
        }
    }

    fn remove_present(&mut self, prefix: Prefix<B>) {
        if self.reaches_beyond(prefix) {
            self.entry(prefix).remove_present(prefix);
        } else {
            self.short.retain(|leaf| leaf.prefix() != prefix);
        }
    }

    fn entry(&mut self, prefix: Prefix<B>) -> &mut Table<B, T> {
        &mut self.entries[prefix.bits.stride(self.common.length)]
    }

    /// The subtree that replaces this branch: its only one, or a bucket of what little is left.
    fn take_merged(&mut self) -> Option<Table<B, T>> {
        let is_used = |entry: &&mut Table<B, T>| !matches!(entry, Table::Nothing);
        let mut used = self.entries.iter_mut().filter(is_used);
        if self.short.is_empty()
            && let (Some(only), None) = (used.next(), used.next())
        {
            return Some(mem::replace(only, Table::Nothing));
        }
        let sizes = self.entries.iter().map(|entry| match entry {
            Table::Nothing => 0,
            Table::Bucket(leaves) => leaves.len(),
            Table::Branch { .. } => MERGED + 1,
        });
        if self.short.len() + sizes.sum::<usize>() > MERGED {
            return None;
        }
        let buckets = self.entries.iter().flat_map(|entry| match entry {
            Table::Bucket(leaves) => &leaves[..],
            _ => &[],
        });
        Some(self.short.iter().chain(buckets).cloned().collect())
    }
}

impl<B: Bits, T> Leaf<B, T> {
    fn new(Prefix { bits, length }: Prefix<B>, value: T) -> Self {
        Leaf { bits, length, value }
    }

    fn prefix(&self) -> Prefix<B> {
        Prefix { bits: self.bits, length: self.length }
    }
}

fn longest<B: Bits, T>(leaves: &[Leaf<B, T>], address: B) -> Option<&T> {
    let containing = leaves.iter().filter(|leaf| leaf.bits.alike(address) >= leaf.length);
    containing.max_by_key(|leaf| leaf.length).map(|leaf| &leaf.value)
}

impl<B: Bits> Prefix<B> {
    fn covers(self, other: Self) -> bool {
        self.length <= other.length && self.bits.alike(other.bits) >= self.length
    }

    /// The longest prefix of whole strides that covers both, and is not all of an address.
    fn strides_alike(self, other: Self) -> Self {
        let alike = self.bits.alike(other.bits).min(self.length).min(other.length);
        let length = alike.min(B::WIDTH - STRIDE) / STRIDE * STRIDE;
        Prefix { bits: self.bits.first(length), length }
    }
}

#[cfg(test)]
impl<B: Bits, T> Table<B, T> {
    /// Checks that no branch could be spared, and that each prefix lies where it belongs. Returns
    /// the number of values.
    pub fn check(&self) -> usize {
        let branch = match self {
            Table::Nothing => return 0,
            Table::Bucket(leaves) => {
                assert!((1..=BUCKET).contains(&leaves.len()), "{} in a bucket", leaves.len());
                return leaves.len();
            }
            Table::Branch { position, has_short, branch } => {
                assert_eq!(*position, branch.common.length);
                assert_eq!(*has_short, !branch.short.is_empty());
                branch
            }
        };
        assert_eq!(branch.common.length % STRIDE, 0);
        for leaf in &branch.short {
            assert!(branch.common.covers(leaf.prefix()) && !branch.reaches_beyond(leaf.prefix()));
        }
        let (mut values, mut parted) = (branch.short.len(), branch.short.len());
        let mut has_branches = false;
        for (number, entry) in branch.entries.iter().enumerate() {
            values += entry.check();
            parted += usize::from(!matches!(entry, Table::Nothing));
            has_branches |= matches!(entry, Table::Branch { .. });
            for prefix in entry.prefixes() {
                assert!(branch.common.covers(prefix) && branch.reaches_beyond(prefix));
                assert_eq!(prefix.bits.stride(branch.common.length), number);
            }
        }
        assert!(parted >= 2, "a branch that parts nothing");
        assert!(has_branches || values > MERGED, "a branch of {values}");
        values
    }

    /// The prefixes that show where this subtree lies.
    fn prefixes(&self) -> Vec<Prefix<B>> {
        match self {
            Table::Nothing => vec![],
            Table::Bucket(leaves) => leaves.iter().map(Leaf::prefix).collect(),
            Table::Branch { branch, .. } => vec![branch.common],
        }
    }

    /// The addresses of all its branches and buckets, added to `all`.
    pub fn parts(&self, all: &mut Vec<*const ()>) {
        match self {
            Table::Nothing => {}
            Table::Bucket(leaves) => all.push(leaves.as_ptr().cast()),
            Table::Branch { branch, .. } => {
                all.push(Arc::as_ptr(branch).cast());
                branch.entries.iter().for_each(|entry| entry.parts(all));
            }
        }
    }
}
