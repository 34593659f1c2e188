//! Hashes of tables: a keyed one for keys that strangers choose, and a cheap one for our own.

use std::hash::Hasher;

/// The golden ratio's bits: an odd constant that spreads consecutive numbers.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes a number: all its bits reach the low bits of the result. `seed` is random, so that an
/// attacker cannot choose numbers that collide.
#[must_use]
pub fn mix(value: u64, seed: u64) -> u64 {
    // Folded multiplication by an odd constant.
    let product = u128::from(value) * u128::from(GOLDEN ^ (seed & !1));
    product as u64 ^ (product >> 64) as u64
}

/// Hashes receiver indexes. They are random but for their low byte, which is the same for all
/// indexes of a worker, and only we choose them, so that no key is needed. Also hashes addresses of
/// sessions, whose low bits are alike as well.
#[derive(Default)]
pub struct IndexHasher(u64);

impl IndexHasher {
    fn spread(&mut self, number: u64) {
        // A product's low bits depend only on the low bits of its factors, and the table indexes by
        // low bits: fold the upper half, which depends on all bits, over the lower.
        let product = number.wrapping_mul(GOLDEN);
        self.0 = product ^ product >> 32;
    }
}

impl Hasher for IndexHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("indexes and addresses are hashed as one number");
    }

    fn write_u32(&mut self, index: u32) {
        self.spread(index.into());
    }

    fn write_usize(&mut self, address: usize) {
        self.spread(address as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The number of slots of a table of 4,096 that the hashes occupy.
    fn slots(hashers: impl Iterator<Item = IndexHasher>) -> usize {
        hashers.map(|hasher| hasher.finish() % 4096).collect::<HashSet<_>>().len()
    }

    #[test]
    fn equal_low_bits_do_not_share_a_slot() {
        let index = |number: u32| {
            let mut hasher = IndexHasher::default();
            hasher.write_u32(number << 8 | 3);
            hasher
        };
        let address = |number: usize| {
            let mut hasher = IndexHasher::default();
            hasher.write_usize(0x7f00_0000_0000 + number * 128);
            hasher
        };
        assert!(slots((0..4096).map(index)) > 2000);
        assert!(slots((0..4096).map(address)) > 2000);
    }
}
