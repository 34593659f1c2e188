//! Poly1305 with AVX2: numbers of five 26-bit limbs, of four packets.
//!
//! [`Lanes::multiply_add`] carries lazily: each limb of its result is at most [`SUM_MAX`]. With
//! such an input no column overflows, and the result is within the bound again. `const` assertions
//! follow it step by step.

use std::arch::x86_64::*;

use super::vector::{Avx2, Vector, avx2, to_words};
use crate::chacha::BLOCK_LEN;
use crate::packet::{OneTimeKey, Tag};
use crate::poly::{CLAMP, Lanes};

/// Bits of a limb.
const LIMB_BITS: i32 = 26;
/// Maximum of a fully carried limb.
const LIMB_MAX: u64 = (1 << LIMB_BITS) - 1;
/// The pad bit of a whole block, 2^128, in its last limb.
const PAD_BIT: u64 = 1 << (128 - 4 * LIMB_BITS);
/// Maximum of a lazily carried limb.
const SUM_MAX: u64 = LIMB_MAX + (1 << 10);

/// 2^130 modulo 2^130 - 5.
const FOLD: u64 = 5;

const _: () = {
    // Multiplications read 32 bits.
    assert!(SUM_MAX < 1 << 32 && FOLD * LIMB_MAX < 1 << 32);
    // A column: a limb of a block and five products with limbs of at most `5 r`.
    let column = LIMB_MAX as u128 + 5 * SUM_MAX as u128 * (FOLD * LIMB_MAX) as u128;
    assert!(column < 1 << 63);
    // The carries of `multiply_add`, step by step: (0 to 1, 3 to 4), (1 to 2, 4 to 0), ...
    let column = column as u64;
    let from_0 = column >> LIMB_BITS;
    assert!(column < u64::MAX - from_0);
    let into_next = (column + from_0) >> LIMB_BITS;
    let limb_0 = LIMB_MAX + FOLD * into_next;
    let limb_3 = LIMB_MAX + ((column + into_next) >> LIMB_BITS);
    assert!(LIMB_MAX + (limb_0 >> LIMB_BITS) <= SUM_MAX);
    assert!(LIMB_MAX + (limb_3 >> LIMB_BITS) <= SUM_MAX);
};

/// The factor of each lane.
#[derive(Clone, Copy)]
pub struct Factor {
    /// Limbs of `r`.
    r: [Vector; 5],
    /// Limbs 1 to 4 of `5 r`, for products beyond 2^130, which wrap around.
    folded: [Vector; 4],
}

impl Lanes<4> for Avx2 {
    type Number = [Vector; 5];
    type Factor = Factor;
    type Mask = Vector;

    #[inline(always)]
    fn factor(self, keys: [&OneTimeKey; 4]) -> Factor {
        let [low, high, _, _] = of_keys(keys);
        let r = avx2!(limbs(
            _mm256_and_si256(low, splat(CLAMP[0])),
            _mm256_and_si256(high, splat(CLAMP[1])),
        ));
        Factor { r, folded: [fold(r[1]), fold(r[2]), fold(r[3]), fold(r[4])] }
    }

    #[inline(always)]
    fn zero(self) -> [Vector; 5] {
        [splat(0); 5]
    }

    #[inline(always)]
    fn blocks(self, chunks: [&[u8; BLOCK_LEN]; 4]) -> [[Vector; 5]; 4] {
        let [a, b, c, d] = half(chunks, 0);
        let [e, f, g, h] = half(chunks, 1);
        [block(a, b), block(c, d), block(e, f), block(g, h)]
    }

    #[inline(always)]
    fn block(self, low: &[u64; 4], high: &[u64; 4]) -> [Vector; 5] {
        block(of_words(low), of_words(high))
    }

    #[inline(always)]
    fn multiply_add(self, h: [Vector; 5], factor: &Factor, block: [Vector; 5]) -> [Vector; 5] {
        let [r0, r1, r2, r3, r4] = factor.r;
        let [s1, s2, s3, s4] = factor.folded;
        let [m0, m1, m2, m3, m4] = block;
        carry([
            column(m0, h, [r0, s4, s3, s2, s1]),
            column(m1, h, [r1, r0, s4, s3, s2]),
            column(m2, h, [r2, r1, r0, s4, s3]),
            column(m3, h, [r3, r2, r1, r0, s4]),
            column(m4, h, [r4, r3, r2, r1, r0]),
        ])
    }

    #[inline(always)]
    fn greater_than(self, left: &[u64; 4], right: u64) -> Vector {
        avx2!(_mm256_cmpgt_epi64(of_words(left), splat(right)))
    }

    #[inline(always)]
    fn select(self, mask: Vector, a: [Vector; 5], b: [Vector; 5]) -> [Vector; 5] {
        choose(mask, a, b)
    }

    #[inline(always)]
    fn tags(self, sum: [Vector; 5], keys: [&OneTimeKey; 4]) -> [Tag; 4] {
        let [h0, h1, h2, h3, h4] = reduce(sum);
        let [_, _, s_low, s_high] = of_keys(keys);
        let (low, high) = avx2!({
            let low = _mm256_or_si256(
                _mm256_or_si256(h0, _mm256_slli_epi64::<26>(h1)),
                _mm256_slli_epi64::<52>(h2),
            );
            let high = _mm256_or_si256(
                _mm256_or_si256(_mm256_srli_epi64::<12>(h2), _mm256_slli_epi64::<14>(h3)),
                _mm256_slli_epi64::<40>(h4),
            );
            let low = _mm256_add_epi64(low, s_low);
            // The sum has passed 2^64 where it is less than `s_low`, compared as unsigned numbers.
            let sign = splat(1 << 63);
            let carry =
                _mm256_cmpgt_epi64(_mm256_xor_si256(s_low, sign), _mm256_xor_si256(low, sign));
            (low, _mm256_sub_epi64(_mm256_add_epi64(high, s_high), carry))
        });
        let (low, high) = (to_words(low), to_words(high));
        let mut tags = [[0; 16]; 4];
        for (lane, tag) in tags.iter_mut().enumerate() {
            *tag = (u128::from(low[lane]) | u128::from(high[lane]) << 64).to_le_bytes();
        }
        tags
    }
}

/// Half of each chunk, transposed to 64-bit words of all lanes.
#[inline(always)]
fn half(chunks: [&[u8; BLOCK_LEN]; 4], half: usize) -> [Vector; 4] {
    let mut rows = [splat(0); 4];
    for (row, chunk) in rows.iter_mut().zip(chunks) {
        let (halves, _) = chunk.as_chunks::<32>();
        *row = avx2!(_mm256_loadu_si256(halves[half].as_ptr().cast()));
    }
    transpose4(rows)
}

/// A limb of a block plus the products of the same weight.
#[inline(always)]
fn column(mut sum: Vector, h: [Vector; 5], factors: [Vector; 5]) -> Vector {
    for limb in 0..5 {
        sum = avx2!(_mm256_add_epi64(sum, _mm256_mul_epu32(h[limb], factors[limb])));
    }
    sum
}

/// `a` in the lanes of the mask, `b` in the others.
#[inline(always)]
fn choose(mask: Vector, a: [Vector; 5], b: [Vector; 5]) -> [Vector; 5] {
    let mut chosen = b;
    for limb in 0..5 {
        chosen[limb] = avx2!(_mm256_blendv_epi8(b[limb], a[limb], mask));
    }
    chosen
}

/// A whole block with its pad bit set.
#[inline(always)]
fn block(low: Vector, high: Vector) -> [Vector; 5] {
    let [l0, l1, l2, l3, l4] = limbs(low, high);
    [l0, l1, l2, l3, avx2!(_mm256_or_si256(l4, splat(PAD_BIT)))]
}

/// Splits 128 bits into limbs.
#[inline(always)]
fn limbs(low: Vector, high: Vector) -> [Vector; 5] {
    let max = splat(LIMB_MAX);
    avx2!({
        let (low_1, low_2) = (_mm256_srli_epi64::<26>(low), _mm256_srli_epi64::<52>(low));
        let middle = _mm256_or_si256(low_2, _mm256_slli_epi64::<12>(high));
        [
            _mm256_and_si256(low, max),
            _mm256_and_si256(low_1, max),
            _mm256_and_si256(middle, max),
            _mm256_and_si256(_mm256_srli_epi64::<14>(high), max),
            _mm256_srli_epi64::<40>(high),
        ]
    })
}

/// The carry out of a column, and its limb.
#[inline(always)]
fn split(column: Vector) -> (Vector, Vector) {
    avx2!((_mm256_srli_epi64::<LIMB_BITS>(column), _mm256_and_si256(column, splat(LIMB_MAX)),))
}

#[inline(always)]
fn add(a: Vector, b: Vector) -> Vector {
    avx2!(_mm256_add_epi64(a, b))
}

/// Five times the carry out of the last limb, to be added to limb 0.
#[inline(always)]
fn fold(carry: Vector) -> Vector {
    avx2!(_mm256_add_epi64(carry, _mm256_slli_epi64::<2>(carry)))
}

/// Carries lazily, in two independent chains; at most [`SUM_MAX`] stays in a limb.
#[inline(always)]
fn carry([d0, d1, d2, d3, d4]: [Vector; 5]) -> [Vector; 5] {
    let ((c0, d0), (c3, d3)) = (split(d0), split(d3));
    let ((c1, d1), (c4, d4)) = (split(add(d1, c0)), split(add(d4, c3)));
    let ((c2, d2), (c0, d0)) = (split(add(d2, c1)), split(add(d0, fold(c4))));
    let (c3, d3) = split(add(d3, c2));
    [d0, add(d1, c0), d2, d3, add(d4, c3)]
}

/// Carries fully, and subtracts 2^130 - 5 from numbers that are not less.
#[inline(always)]
fn reduce(mut h: [Vector; 5]) -> [Vector; 5] {
    // One pass leaves a small carry into limb 0. If it propagates through all limbs again, limb 0
    // is then so small that the second fold does not overflow it.
    for _ in 0..2 {
        for limb in 0..5 {
            let (carried, kept) = split(h[limb]);
            h[limb] = kept;
            let carried = if limb == 4 { fold(carried) } else { carried };
            h[(limb + 1) % 5] = add(h[(limb + 1) % 5], carried);
        }
    }
    // h + 5 reaches 2^130 exactly where h is not less than 2^130 - 5; its limbs are then the
    // difference.
    let mut g = h;
    let mut carried = splat(FOLD);
    for limb in &mut g {
        (carried, *limb) = split(add(*limb, carried));
    }
    let is_below = avx2!(_mm256_cmpeq_epi64(carried, splat(0)));
    choose(is_below, h, g)
}

/// The same 64-bit word in each lane.
#[inline(always)]
fn splat(word: u64) -> Vector {
    avx2!(_mm256_set1_epi64x(word.cast_signed()))
}

/// Transposes four rows of four 64-bit words.
#[inline(always)]
fn transpose4([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    avx2!({
        let (ab_0, ab_1) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        let (cd_0, cd_1) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
        [
            _mm256_permute2x128_si256::<0x20>(ab_0, cd_0),
            _mm256_permute2x128_si256::<0x20>(ab_1, cd_1),
            _mm256_permute2x128_si256::<0x31>(ab_0, cd_0),
            _mm256_permute2x128_si256::<0x31>(ab_1, cd_1),
        ]
    })
}

#[inline(always)]
fn of_words(words: &[u64; 4]) -> Vector {
    avx2!(_mm256_loadu_si256(words.as_ptr().cast()))
}

#[inline(always)]
fn of_keys([a, b, c, d]: [&OneTimeKey; 4]) -> [Vector; 4] {
    transpose4([of_words(a), of_words(b), of_words(c), of_words(d)])
}
