//! The internet checksum (RFC 1071): sums, folding, pseudo headers, incremental update.
//!
//! A sum is the plain sum of 16-bit big-endian words in a `u64`, so sums of parts are added
//! before they are folded. Every part but the last must have an even length.

/// Adds up the 16-bit words of `bytes`; an odd last byte counts as the high half of a word.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    // The one's complement sum does not depend on the byte order it is computed in (RFC 1071
    // §2B), nor on the width of its words. 32-bit words in 64-bit lanes need no carries and let
    // the compiler use vector registers; 65,535 bytes cannot overflow a lane.
    let mut total = 0;
    let mut rest = bytes;
    // For a header alone the set-up of the lanes would cost more than it gains.
    if bytes.len() >= 64 {
        let mut lanes = [0u64; 8];
        let mut blocks = bytes.chunks_exact(32);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes(word.try_into().expect("four bytes")));
            }
        }
        total = lanes.iter().sum();
        rest = blocks.remainder();
    }
    let mut words = rest.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes(word.try_into().expect("four bytes")));
    }
    let mut last = [0u8; 4];
    let tail = words.remainder();
    last[..tail.len()].copy_from_slice(tail);
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// Folds a sum to 16 bits with its carries; not complemented.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field's value for a sum over everything else that it covers.
#[must_use]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Tells whether a sum over everything, the checksum field included, is that of intact data.
#[must_use]
pub fn is_valid(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// The sum of a pseudo header (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1): source and destination
/// address one after the other as in the IP header, protocol, and length of header and payload
/// of the upper layer (bytes).
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    sum(addresses) + u64::from(protocol) + length as u64
}

/// The checksum after one covered 16-bit word went from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow_checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
    }

    #[test]
    fn all_ones_at_full_length_do_not_overflow() {
        let bytes = [0xff; 65_535];
        assert_eq!(finish(sum(&bytes)), slow_checksum(&bytes));
        assert_eq!(finish(u64::MAX), 0, "folding takes any sum");
    }

    proptest! {
        #[test]
        fn equals_the_word_by_word_sum(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(finish(sum(&bytes)), slow_checksum(&bytes));
        }

        #[test]
        fn parts_add_up(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0..150usize,
        ) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(fold(sum(head) + sum(tail)), fold(sum(&bytes)));
        }

        #[test]
        fn update_equals_recomputing(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..60),
            new in any::<u16>(),
        ) {
            // RFC 1624 holds for data that is not all zero, as every header is.
            bytes[2] |= 0x45;
            let before = finish(sum(&bytes));
            let old = u16::from_be_bytes([bytes[0], bytes[1]]);
            bytes[..2].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), finish(sum(&bytes)));
        }
    }
}
