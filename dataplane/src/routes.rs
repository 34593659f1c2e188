//! Cryptokey routing: which peer owns an address, by the longest matching allowed IP over all
//! peers (§2).
//!
//! A path-compressed binary trie per family. Nodes are shared between snapshots: a change copies
//! the path from the root to the changed prefix and nothing else, so it costs O(prefix length)
//! whatever the size of the table, and a reader keeps the table that it took.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// An immutable table from prefixes to `T`; cloning costs two reference counts.
#[derive(Clone)]
pub struct Routes<T> {
    v4: Option<Arc<Node<T>>>,
    v6: Option<Arc<Node<T>>>,
}

/// One prefix: `bits` left-aligned in 128 bits, those beyond `length` zero.
#[derive(Clone)]
struct Node<T> {
    bits: u128,
    length: u8,
    value: Option<T>,
    children: [Option<Arc<Node<T>>>; 2],
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Routes { v4: None, v6: None }
    }
}

impl<T: Clone> Routes<T> {
    /// The value of the longest prefix that contains `address`.
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        let (root, bits) = match address {
            IpAddr::V4(v4) => (&self.v4, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        };
        let mut best = None;
        let mut next = root.as_deref();
        while let Some(node) = next {
            if (node.bits ^ bits) & mask(node.length) != 0 {
                break;
            }
            best = node.value.as_ref().or(best);
            next = if node.length < 128 {
                node.children[bit(bits, node.length)].as_deref()
            } else {
                None
            };
        }
        best
    }

    /// Gives `prefix` (host bits ignored) to `value`; returns the one that had exactly it.
    pub fn insert(&mut self, prefix: IpNet, value: T) -> Option<T> {
        let (bits, length) = key(prefix);
        insert(self.root(prefix), bits, length, value)
    }

    /// Removes exactly `prefix`; returns the value that had it.
    pub fn remove(&mut self, prefix: IpNet) -> Option<T> {
        let (bits, length) = key(prefix);
        remove(self.root(prefix), bits, length)
    }

    /// The value of exactly `prefix`.
    pub fn exact(&self, prefix: IpNet) -> Option<&T> {
        let (bits, length) = key(prefix);
        let mut next = match prefix {
            IpNet::V4(_) => self.v4.as_deref(),
            IpNet::V6(_) => self.v6.as_deref(),
        };
        while let Some(node) = next {
            if node.length > length || (node.bits ^ bits) & mask(node.length) != 0 {
                return None;
            }
            if node.length == length {
                return node.value.as_ref();
            }
            next = node.children[bit(bits, node.length)].as_deref();
        }
        None
    }

    fn root(&mut self, prefix: IpNet) -> &mut Option<Arc<Node<T>>> {
        match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

fn insert<T: Clone>(
    slot: &mut Option<Arc<Node<T>>>,
    bits: u128,
    length: u8,
    value: T,
) -> Option<T> {
    let Some(mut arc) = slot.take() else {
        *slot = Some(Arc::new(Node::leaf(bits, length, value)));
        return None;
    };
    let common = common_length(arc.bits, bits, arc.length.min(length));
    if common < arc.length {
        // The new prefix leaves this node's path: a parent for both takes its place.
        let mut parent = Node { bits: bits & mask(common), length: common, ..Node::empty() };
        let side = bit(arc.bits, common);
        parent.children[side] = Some(arc);
        if common == length {
            parent.value = Some(value);
        } else {
            parent.children[1 - side] = Some(Arc::new(Node::leaf(bits, length, value)));
        }
        *slot = Some(Arc::new(parent));
        return None;
    }
    let node = Arc::make_mut(&mut arc);
    let previous = if node.length == length {
        node.value.replace(value)
    } else {
        insert(&mut node.children[bit(bits, node.length)], bits, length, value)
    };
    *slot = Some(arc);
    previous
}

fn remove<T: Clone>(slot: &mut Option<Arc<Node<T>>>, bits: u128, length: u8) -> Option<T> {
    let arc = slot.as_mut()?;
    if arc.length > length || (arc.bits ^ bits) & mask(arc.length) != 0 {
        return None;
    }
    let node = Arc::make_mut(arc);
    let removed = if node.length == length {
        node.value.take()
    } else {
        remove(&mut node.children[bit(bits, node.length)], bits, length)
    };
    // A node without a value exists only to part two children.
    if node.value.is_none() {
        match &mut node.children {
            [None, None] => *slot = None,
            [only @ Some(_), None] | [None, only @ Some(_)] => *slot = only.take(),
            [Some(_), Some(_)] => {}
        }
    }
    removed
}

impl<T> Node<T> {
    fn empty() -> Self {
        Node { bits: 0, length: 0, value: None, children: [None, None] }
    }

    fn leaf(bits: u128, length: u8, value: T) -> Self {
        Node { bits, length, value: Some(value), children: [None, None] }
    }
}

fn key(prefix: IpNet) -> (u128, u8) {
    match prefix {
        IpNet::V4(net) => (u128::from(net.network().to_bits()) << 96, net.prefix_len()),
        IpNet::V6(net) => (net.network().to_bits(), net.prefix_len()),
    }
}

fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) }
}

fn bit(bits: u128, position: u8) -> usize {
    (bits >> (127 - u32::from(position))) as usize & 1
}

fn common_length(a: u128, b: u128, at_most: u8) -> u8 {
    ((a ^ b).leading_zeros() as u8).min(at_most)
}

#[cfg(test)]
mod tests;
