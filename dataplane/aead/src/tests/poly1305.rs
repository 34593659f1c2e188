//! The vector units' Poly1305 compared with RustCrypto's, under chosen one-time keys: sums at the
//! limits of what the reduction must handle.

use ::poly1305::Poly1305;
use ::poly1305::universal_hash::KeyInit;
use num_bigint::BigUint;

use super::*;
use crate::packet::OneTimeKey;
use crate::poly::{CLAMP, Lanes};

/// A message and its one-time key.
#[derive(Clone, Debug)]
struct Mac {
    key: OneTimeKey,
    body: Vec<u8>,
}

/// The tags computed by the path's vector unit, which processes packets in `order`. `None` if the
/// path has no vector unit.
fn tags(aead: Aead, macs: &mut [Mac], order: &[u8]) -> Option<Vec<Tag>> {
    let keys: Vec<OneTimeKey> = macs.iter().map(|mac| mac.key).collect();
    let mut tags = vec![[0; 16]; macs.len()];
    let mut received = tags.clone();
    let packets: Vec<Packet<'_>> = macs
        .iter_mut()
        .zip(&mut received)
        .map(|(mac, tag)| Packet {
            key: &[0; 8],
            nonce: [0; 3],
            body: &mut mac.body,
            tag,
            aad: &[],
        })
        .collect();
    match aead.implementation {
        Implementation::Avx2(unit) => batch::Unit::tags(unit, &packets, order, &keys, &mut tags),
        Implementation::Avx512(unit) => batch::Unit::tags(unit, &packets, order, &keys, &mut tags),
        Implementation::Ring => return None,
    }
    Some(tags)
}

/// The expected tag: RustCrypto's Poly1305 of the padded body and the lengths (RFC 8439 §2.8).
fn expected(mac: &Mac) -> Tag {
    let mut bytes = mac.body.clone();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes.extend_from_slice(&0_u64.to_le_bytes());
    bytes.extend_from_slice(&(mac.body.len() as u64).to_le_bytes());
    let key: Vec<u8> = mac.key.iter().flat_map(|word| word.to_le_bytes()).collect();
    Poly1305::new_from_slice(&key).unwrap().compute_unpadded(&bytes).into()
}

/// Computes the tags in batches, in order and shuffled, and compares.
fn check(macs: &[Mac]) {
    let mut random = Random::new(20);
    for (path, aead) in paths() {
        for part in macs.chunks(crate::BATCH) {
            let mut part = part.to_vec();
            let mut order: Vec<u8> = (0..part.len() as u8).collect();
            for is_shuffled in [false, true] {
                if is_shuffled {
                    (1..order.len()).for_each(|last| order.swap(last, random.below(last + 1)));
                }
                let Some(tags) = tags(aead, &mut part, &order) else { continue };
                for (mac, tag) in part.iter().zip(tags) {
                    assert_eq!(tag, expected(mac), "{path:?}: {mac:x?}");
                }
            }
        }
    }
}

/// Values of `r` at the ends of its range, with few bits, and a random one.
fn extreme_factors(random: &mut Random) -> Vec<[u64; 2]> {
    let mut factors = vec![CLAMP, [u64::MAX; 2], [0; 2], [1, 0], [2, 0], [4, 0], [5, 0]];
    // One limb of 26 or of 44 bits all ones and the others zero, and the reverse.
    for width in [26, 44] {
        for limb in 0..130_u32.div_ceil(width) {
            let ones = ((1_u128 << width) - 1).checked_shl(limb * width).unwrap_or(0);
            factors.push([ones as u64, (ones >> 64) as u64]);
            factors.push([!ones as u64, (!ones >> 64) as u64]);
        }
    }
    factors.push([random.number(), random.number()]);
    factors
}

#[test]
fn extreme_blocks() {
    let mut random = Random::new(21);
    let mut macs = Vec::new();
    for [low, high] in extreme_factors(&mut random) {
        for pad in [0, 1, u64::MAX] {
            for filling in [0x00, 0xff, 0x80, 0x01] {
                for length in [0, 1, 15, 16, 17, 32, 47, 48, 63, 64, 65, 128, 1023, 1424] {
                    if filling == 0xff || length < 130 {
                        macs.push(Mac { key: [low, high, pad, pad], body: vec![filling; length] });
                    }
                }
            }
        }
    }
    check(&macs.into_iter().step_by(cases(1, 7)).collect::<Vec<_>>());
}

/// With `r` = 1 the result is the sum of the blocks: every value within 40 of 2^130 - 5.
#[test]
fn sums_around_the_modulus() {
    let mut macs = Vec::new();
    // The lengths are a block: its high word is 32 bytes. Each block has its pad bit.
    let length = 32_u128 << 64;
    for distance in -40_i128..=40 {
        for pad in [0, u64::MAX] {
            // 3 * 2^128 + first + second + length = 2^130 - 5 + distance.
            let sum = (distance - 5 - length as i128) as u128;
            for first in [u128::MAX, sum / 2, 1 << 127] {
                let second = sum.wrapping_sub(first);
                let body = [first.to_le_bytes(), second.to_le_bytes()].concat();
                macs.push(Mac { key: [1, 0, pad, pad], body });
            }
        }
    }
    check(&macs);
}

/// Sums whose upper limbs are all ones, so that a carry propagates through all of them.
#[test]
fn long_carries() {
    let mut random = Random::new(22);
    let mut macs = Vec::new();
    for _ in 0..cases(4000, 300) {
        let length = random.below(100);
        let mut body = random.bytes(length);
        // Mostly the smallest and the largest byte.
        for byte in &mut body {
            *byte = [0x00, 0xff, 0xff, *byte][random.below(4)];
        }
        let word = |random: &mut Random| match random.below(4) {
            0 => u64::MAX << random.below(64),
            1 => u64::MAX >> random.below(64),
            2 => 1 << random.below(64),
            _ => random.number(),
        };
        let key = std::array::from_fn(|_| word(&mut random));
        macs.push(Mac { key, body });
    }
    check(&macs);
}

/// Sums that a unit may hold with an excess of 2^130 - 5, and whose lowest limb overflows when it
/// is subtracted: almost zero in the highest and in the lowest limb. The block that leads to such a
/// sum under a random `r` is computed backwards.
#[test]
fn sums_that_carry_twice() {
    let mut random = Random::new(23);
    let one = BigUint::from(1_u8);
    let modulus = (&one << 130_u8) - 5_u8;
    let pad_bit = &one << 128_u8;
    let lengths = &pad_bit + (BigUint::from(16_u8) << 64_u8);
    let mut macs = Vec::new();
    while macs.len() < cases(20_000, 300) {
        let key: OneTimeKey = std::array::from_fn(|_| random.number());
        let r: BigUint =
            BigUint::from(key[0] & CLAMP[0]) + (BigUint::from(key[1] & CLAMP[1]) << 64_u8);
        // Below the highest limb, of 26 or 44 bits.
        let upper = BigUint::from_bytes_le(&random.bytes(10)) << [26, 44][random.below(2)];
        let sum = upper % (&one << (86 + random.below(30))) + random.below(8);
        let inverse = r.modpow(&(&modulus - 2_u8), &modulus);
        // sum = (block * r + lengths) * r
        let before = (sum * &inverse + &modulus - &lengths) % &modulus;
        let block: BigUint = before * inverse % &modulus;
        // It must have the pad bit and no higher one.
        if block.bits() == 129 {
            let mut body = (block - &pad_bit).to_bytes_le();
            body.resize(16, 0);
            macs.push(Mac { key, body });
        }
    }
    check(&macs);
}

/// Poly1305 of whole blocks, without the AEAD's lengths, in every lane.
fn whole_blocks<const P: usize>(unit: impl Lanes<P>, key: &OneTimeKey, message: &[u8]) -> [Tag; P] {
    let (blocks, rest) = message.as_chunks::<16>();
    assert!(rest.is_empty(), "only whole blocks");
    let factor = unit.factor([key; P]);
    let sum = blocks.iter().fold(unit.zero(), |sum, block| {
        let (words, _) = block.as_chunks();
        let [low, high] = std::array::from_fn(|word| [u64::from_le_bytes(words[word]); P]);
        unit.multiply_add(sum, &factor, unit.block(&low, &high))
    });
    unit.tags(unit.multiply_add(sum, &factor, unit.zero()), [key; P])
}

/// RFC 8439, appendix A.3, vectors 5 to 11 (1 is zeros, 2 to 4 end within a block).
#[test]
fn vectors_of_appendix_a_3() {
    let ones = "ffffffffffffffffffffffffffffffff";
    let zeros = "00000000000000000000000000000000";
    let (one, two) = ("01000000000000000000000000000000", "02000000000000000000000000000000");
    let wide = "01000000000000000400000000000000";
    let (a, b) = ("e33594d7505e43b90000000000000000", "3394d7505e4379cd0100000000000000");
    let vectors: [(&str, &str, &[&str], &str); 7] = [
        (two, zeros, &[ones], "03000000000000000000000000000000"),
        (two, ones, &[two], "03000000000000000000000000000000"),
        (
            one,
            zeros,
            &[ones, "f0ffffffffffffffffffffffffffffff", "11000000000000000000000000000000"],
            "05000000000000000000000000000000",
        ),
        (
            one,
            zeros,
            &[ones, "fbfefefefefefefefefefefefefefefe", "01010101010101010101010101010101"],
            zeros,
        ),
        (two, zeros, &["fdffffffffffffffffffffffffffffff"], "faffffffffffffffffffffffffffffff"),
        (wide, zeros, &[a, b, zeros, one], "14000000000000005500000000000000"),
        (wide, zeros, &[a, b, zeros], "13000000000000000000000000000000"),
    ];
    for (path, aead) in paths() {
        for (r, s, message, tag) in vectors {
            let words = hex(&[r, s].concat());
            let (words, _) = words.as_chunks();
            let key = std::array::from_fn(|word| u64::from_le_bytes(words[word]));
            let message = hex(&message.concat());
            let tags = match aead.implementation {
                Implementation::Avx2(unit) => whole_blocks(unit, &key, &message).to_vec(),
                Implementation::Avx512(unit) => whole_blocks(unit, &key, &message).to_vec(),
                Implementation::Ring => continue,
            };
            assert!(tags.iter().all(|found| found[..] == hex(tag)), "{path:?}: {tag}, {tags:x?}");
        }
    }
}
