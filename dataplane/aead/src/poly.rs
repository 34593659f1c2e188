//! Poly1305 (RFC 8439 §2.5), one packet per lane. Without powers of `r`, short packets need no
//! preparation; packets of one length keep all lanes busy until the end.

// Several arrays share the indices of groups, lanes and blocks.
#![allow(clippy::needless_range_loop)]

use crate::chacha::BLOCK_LEN;
use crate::packet::{OneTimeKey, Packet, Tag};

/// The mask that clamps `r`, as two little-endian words (RFC 8439 §2.5.1).
pub const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// Bytes of a block of Poly1305.
const BLOCK: usize = 16;
/// Blocks loaded at once from each packet: a cache line.
pub const BLOCKS: usize = BLOCK_LEN / BLOCK;

/// A vector unit with registers of `P` 64-bit lanes, in arithmetic modulo 2^130 - 5.
///
/// Implementations are tokens: holding one proves CPU support. Each defines its limbs, and proves
/// that no limb overflows.
pub trait Lanes<const P: usize>: Copy {
    /// A number for each lane, such as the accumulator.
    type Number: Copy;
    /// `r` of each lane, prepared for multiplication.
    type Factor: Copy;
    /// A set of lanes.
    type Mask: Copy;

    /// The factor `r`: the first half of each one-time key, clamped (RFC 8439 §2.5.1).
    fn factor(self, keys: [&OneTimeKey; P]) -> Self::Factor;
    /// Zero in each lane.
    fn zero(self) -> Self::Number;
    /// The four blocks of each chunk as numbers, each with its pad bit 2^128 set.
    fn blocks(self, chunks: [&[u8; BLOCK_LEN]; P]) -> [Self::Number; BLOCKS];
    /// Like [`Lanes::blocks`], for tails of up to [`BLOCK_LEN`] bytes, padded with zeros.
    #[inline(always)]
    fn tails(self, tails: [&[u8]; P]) -> [Self::Number; BLOCKS] {
        let mut padded = [[0; BLOCK_LEN]; P];
        for (padded, tail) in padded.iter_mut().zip(tails) {
            padded[..tail.len()].copy_from_slice(tail);
        }
        self.blocks(padded.each_ref())
    }
    /// A block of two 64-bit words for each lane, with its pad bit 2^128 set.
    fn block(self, low: &[u64; P], high: &[u64; P]) -> Self::Number;
    /// `sum * factor + block`, carried lazily.
    fn multiply_add(
        self,
        sum: Self::Number,
        factor: &Self::Factor,
        block: Self::Number,
    ) -> Self::Number;
    /// The lanes where `left` is greater than `right`.
    fn greater_than(self, left: &[u64; P], right: u64) -> Self::Mask;
    /// `a` in the lanes of the mask, `b` in the others.
    fn select(self, mask: Self::Mask, a: Self::Number, b: Self::Number) -> Self::Number;
    /// The sum modulo 2^130 - 5, plus the second half of each one-time key, modulo 2^128.
    fn tags(self, sum: Self::Number, keys: [&OneTimeKey; P]) -> [Tag; P];
}

/// Writes the tags of the packets in `order` to `tags`, both indexed by packet. Fast where
/// neighbours in `order` have equal length.
#[inline(always)]
pub fn tags_of_all<const P: usize, const G: usize, M: Lanes<P>>(
    m: M,
    packets: &[Packet<'_>],
    order: &[u8],
    keys: &[OneTimeKey],
    tags: &mut [Tag],
) {
    let mut rest = order;
    while let Some(&first) = rest.first() {
        let (now, later) = rest.split_at(rest.len().min(P * G));
        rest = later;
        // Lanes without a packet compute the tag of the first packet again.
        let mut numbers = [[first; P]; G];
        numbers.as_flattened_mut()[..now.len()].copy_from_slice(now);
        if now.len() > P {
            tags_of_group(m, packets, &numbers, keys, tags);
        } else {
            tags_of_group(m, packets, &[numbers[0]], keys, tags);
        }
    }
}

/// Writes the tags of `G` vectors of packets, which are independent chains of multiplications.
#[inline(always)]
fn tags_of_group<const P: usize, const G: usize, M: Lanes<P>>(
    m: M,
    packets: &[Packet<'_>],
    numbers: &[[u8; P]; G],
    keys: &[OneTimeKey],
    tags: &mut [Tag],
) {
    let mut bodies = [[&[][..]; P]; G];
    let mut aads = [[&[][..]; P]; G];
    let mut one_time_keys = [[&keys[0]; P]; G];
    for g in 0..G {
        for lane in 0..P {
            let number = usize::from(numbers[g][lane]);
            bodies[g][lane] = &*packets[number].body;
            aads[g][lane] = packets[number].aad();
            one_time_keys[g][lane] = &keys[number];
        }
    }
    let mut sums = [m.zero(); G];
    let mut factors = [m.factor(one_time_keys[0]); G];
    for g in 1..G {
        factors[g] = m.factor(one_time_keys[g]);
    }
    let has_aad = aads.as_flattened().iter().any(|aad| !aad.is_empty());
    if has_aad {
        sums = absorb(m, sums, &factors, &aads, true);
    }
    sums = absorb(m, sums, &factors, &bodies, !has_aad);
    for g in 0..G {
        let last = m.block(&lengths(&aads[g]), &lengths(&bodies[g]));
        sums[g] = m.multiply_add(sums[g], &factors[g], last);
        sums[g] = m.multiply_add(sums[g], &factors[g], m.zero());
        for (number, tag) in numbers[g].into_iter().zip(m.tags(sums[g], one_time_keys[g])) {
            tags[usize::from(number)] = tag;
        }
    }
}

/// Adds the blocks of `bytes` to the sums: at full speed the chunks that all lanes have, then the
/// tails.
#[inline(always)]
fn absorb<const P: usize, const G: usize, M: Lanes<P>>(
    m: M,
    mut sums: [M::Number; G],
    factors: &[M::Factor; G],
    bytes: &[[&[u8]; P]; G],
    is_first: bool,
) -> [M::Number; G] {
    let (mut shortest, mut longest) = (usize::MAX, 0);
    for bytes in bytes.as_flattened() {
        shortest = shortest.min(bytes.len());
        longest = longest.max(bytes.len());
    }
    // Sliced once, so that each lane and chunk needs a single bounds check.
    let whole = shortest / BLOCK_LEN;
    let mut chunks = [[&[][..]; P]; G];
    for (chunks, bytes) in chunks.as_flattened_mut().iter_mut().zip(bytes.as_flattened()) {
        *chunks = &bytes.as_chunks().0[..whole];
    }
    let mut next = 0;
    if is_first && whole > 0 {
        // The sums are zero: nothing to multiply.
        let blocks = whole_chunks(m, &chunks, 0);
        for g in 0..G {
            sums[g] = blocks[g][0];
        }
        for block in 1..BLOCKS {
            for g in 0..G {
                sums[g] = m.multiply_add(sums[g], &factors[g], blocks[g][block]);
            }
        }
        next = 1;
    }
    for next in next..whole {
        let blocks = whole_chunks(m, &chunks, next);
        for block in 0..BLOCKS {
            for g in 0..G {
                sums[g] = m.multiply_add(sums[g], &factors[g], blocks[g][block]);
            }
        }
    }
    let mut offset = whole * BLOCK_LEN;
    while offset < longest {
        let mut blocks = [[m.zero(); BLOCKS]; G];
        let mut left = [[0; P]; G];
        for g in 0..G {
            let mut tails = [&[][..]; P];
            for lane in 0..P {
                // Empty for a lane that has ended, but at a valid address: masked loads from
                // unmapped pages are slow.
                let whole = bytes[g][lane];
                let rest = &whole[offset.min(whole.len())..];
                left[g][lane] = rest.len() as u64;
                tails[lane] = &rest[..rest.len().min(BLOCK_LEN)];
            }
            blocks[g] = m.tails(tails);
        }
        for block in 0..BLOCKS {
            if longest - offset <= block * BLOCK {
                break;
            }
            for g in 0..G {
                let more = m.multiply_add(sums[g], &factors[g], blocks[g][block]);
                sums[g] = m.select(m.greater_than(&left[g], (block * BLOCK) as u64), more, sums[g]);
            }
        }
        offset += BLOCK_LEN;
    }
    sums
}

/// The blocks of a chunk of each lane.
#[inline(always)]
fn whole_chunks<const P: usize, const G: usize, M: Lanes<P>>(
    m: M,
    chunks: &[[&[[u8; BLOCK_LEN]]; P]; G],
    number: usize,
) -> [[M::Number; BLOCKS]; G] {
    let mut blocks = [[m.zero(); BLOCKS]; G];
    for g in 0..G {
        let mut rows = [&[0; BLOCK_LEN]; P];
        for (row, chunks) in rows.iter_mut().zip(chunks[g]) {
            *row = &chunks[number];
        }
        blocks[g] = m.blocks(rows);
    }
    blocks
}

/// Lengths in bytes, for the last authenticated block (RFC 8439 §2.8).
#[inline(always)]
fn lengths<const P: usize>(bytes: &[&[u8]; P]) -> [u64; P] {
    let mut lengths = [0; P];
    for (length, bytes) in lengths.iter_mut().zip(bytes) {
        *length = bytes.len() as u64;
    }
    lengths
}
