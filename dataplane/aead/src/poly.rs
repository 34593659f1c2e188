//! Poly1305 (RFC 8439 §2.5), one packet a lane: no powers of `r`, so that a short packet costs no
//! preparation, and packets of one length keep all lanes busy to their end.

// Groups, lanes and blocks are numbers that several arrays share.
#![allow(clippy::needless_range_loop)]

use super::batch::{OneTimeKey, Packet, Tag};
use super::chacha::BLOCK_LEN;

/// The bits of `r` that count, as two little-endian words (RFC 8439 §2.5.1).
pub const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

/// Bytes of a block of Poly1305.
const BLOCK: usize = 16;
/// Blocks that are loaded at once from each packet: a line of the cache.
pub const BLOCKS: usize = BLOCK_LEN / BLOCK;

/// A vector unit that sees its registers as `P` lanes of 64 bits, in arithmetic modulo 2^130 - 5.
///
/// Implementations are tokens: who has one has seen that the processor can. Each says how it cuts
/// numbers into limbs, and proves that no limb overflows.
pub trait Lanes<const P: usize>: Copy {
    /// A number for each lane, such as the sum so far.
    type Number: Copy;
    /// `r` of each lane, prepared for multiplications.
    type Factor: Copy;
    /// Which lanes are meant.
    type Mask: Copy;

    /// The factor that the first half of each one-time key is, clamped (RFC 8439 §2.5.1).
    fn factor(self, keys: [&OneTimeKey; P]) -> Self::Factor;
    /// Zero in each lane.
    fn zero(self) -> Self::Number;
    /// The four blocks of each chunk as numbers, each with the bit beyond its end set.
    fn blocks(self, chunks: [&[u8; BLOCK_LEN]; P]) -> [Self::Number; BLOCKS];
    /// As [`Lanes::blocks`] does it, ends of up to [`BLOCK_LEN`] bytes, padded with zeros.
    #[inline(always)]
    fn ends(self, ends: [&[u8]; P]) -> [Self::Number; BLOCKS] {
        let mut padded = [[0; BLOCK_LEN]; P];
        for (padded, end) in padded.iter_mut().zip(ends) {
            padded[..end.len()].copy_from_slice(end);
        }
        self.blocks(padded.each_ref())
    }
    /// A block of two 64-bit words for each lane, the bit beyond its end set.
    fn block(self, low: &[u64; P], high: &[u64; P]) -> Self::Number;
    /// `sum * factor + block`, lazily carried.
    fn multiply_add(
        self,
        sum: Self::Number,
        factor: &Self::Factor,
        block: Self::Number,
    ) -> Self::Number;
    /// The lanes where `left` is above `than`.
    fn above(self, left: &[u64; P], than: u64) -> Self::Mask;
    /// `a` in the lanes that are meant, `b` in the others.
    fn select(self, mask: Self::Mask, a: Self::Number, b: Self::Number) -> Self::Number;
    /// The sum modulo 2^130 - 5, plus the second half of each one-time key, modulo 2^128.
    fn tags(self, sum: Self::Number, keys: [&OneTimeKey; P]) -> [Tag; P];
}

/// The tags of the packets that `order` names, into their places in `tags`. Fast where neighbours
/// in `order` are of equal length.
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
        // Lanes without a packet compute the first one's tag again.
        let mut numbers = [[first; P]; G];
        numbers.as_flattened_mut()[..now.len()].copy_from_slice(now);
        if now.len() > P {
            tags_of_group(m, packets, &numbers, keys, tags);
        } else {
            tags_of_group(m, packets, &[numbers[0]], keys, tags);
        }
    }
}

/// The tags of `G` vectors of packets, whose chains of multiplications do not depend on each other.
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

/// Adds the blocks of `bytes` to the sums: what all lanes have at full speed, then the ends.
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
    // Cut once, so that one comparison for each lane and chunk is enough.
    let whole = shortest / BLOCK_LEN;
    let mut chunks = [[&[][..]; P]; G];
    for (chunks, bytes) in chunks.as_flattened_mut().iter_mut().zip(bytes.as_flattened()) {
        *chunks = &bytes.as_chunks().0[..whole];
    }
    let mut next = 0;
    if is_first && whole > 0 {
        // There is no sum yet that could be multiplied.
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
    let mut at = whole * BLOCK_LEN;
    while at < longest {
        let mut blocks = [[m.zero(); BLOCKS]; G];
        let mut left = [[0; P]; G];
        for g in 0..G {
            let mut ends = [&[][..]; P];
            for lane in 0..P {
                // Of a lane that has ended, its end: masked loads like an address that there is.
                let whole = bytes[g][lane];
                let rest = &whole[at.min(whole.len())..];
                left[g][lane] = rest.len() as u64;
                ends[lane] = &rest[..rest.len().min(BLOCK_LEN)];
            }
            blocks[g] = m.ends(ends);
        }
        for block in 0..BLOCKS {
            if longest - at <= block * BLOCK {
                break;
            }
            for g in 0..G {
                let more = m.multiply_add(sums[g], &factors[g], blocks[g][block]);
                sums[g] = m.select(m.above(&left[g], (block * BLOCK) as u64), more, sums[g]);
            }
        }
        at += BLOCK_LEN;
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

/// Lengths in bytes, which end what is authenticated (RFC 8439 §2.8).
#[inline(always)]
fn lengths<const P: usize>(bytes: &[&[u8]; P]) -> [u64; P] {
    let mut lengths = [0; P];
    for (length, bytes) in lengths.iter_mut().zip(bytes) {
        *length = bytes.len() as u64;
    }
    lengths
}
