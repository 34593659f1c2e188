//! The hash of tables whose keys strangers may choose: keyed, and cheap.

/// Mixes a number: all its bits reach the low bits of the result. `seed` is random, so that nobody
/// can choose numbers that collide.
#[must_use]
pub fn mix(value: u64, seed: u64) -> u64 {
    // Folded multiplication by an odd constant (the golden ratio's bits).
    let product = u128::from(value) * u128::from(0x9e37_79b9_7f4a_7c15 ^ (seed & !1));
    product as u64 ^ (product >> 64) as u64
}
