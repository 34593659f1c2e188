//! Poly1305 with AVX-512: one limb of eight packets in each register.
//!
//! Numbers have limbs of 44, 44 and 42 bits. An IFMA multiplication reads 52 bits of each of two
//! limbs, and adds the lower or the upper 52 bits of the product: a column has a sum of each.
//! [`Lanes::multiply_add`] carries lazily: it leaves at most [`SUM_MAX`] in limb 0. With such an
//! input nothing overflows, and the result is within the bound again. `const` assertions below
//! follow it step by step.

use std::arch::x86_64::*;

use super::vector::{Avx512, Vector, avx512, load_part, transpose_quarters};
use crate::chacha::BLOCK_LEN;
use crate::packet::{OneTimeKey, Tag};
use crate::poly::{self, BLOCKS, Lanes};

/// Packets of a vector.
const LANES: usize = 8;

/// Bits of limbs 0 and 1.
const LIMB_BITS: u32 = 44;
/// Bits of limb 2.
const TOP_BITS: u32 = 130 - 2 * LIMB_BITS;
/// Maximum of a fully carried limb 0 or 1.
const LIMB_MAX: u64 = (1 << LIMB_BITS) - 1;
/// Maximum of limb 2.
const TOP_MAX: u64 = (1 << TOP_BITS) - 1;
/// The pad bit of a whole block, 2^128, in limb 2.
const PAD_BIT: u64 = 1 << (128 - 2 * LIMB_BITS);
/// Maximum of a lazily carried limb 0.
const SUM_MAX: u64 = (1 << 50) - 1;

/// 2^130 modulo 2^130 - 5.
const FOLD: u64 = 5;
/// Products beyond limb 2 start at 2^132, which is 5 times 2^2.
const FOLD_SHIFT: u32 = 3 * LIMB_BITS - 130;

/// Bits that a multiplication reads of each factor, and adds of the product.
const PRODUCT_BITS: u32 = 52;
/// Weight of the upper half of a product, relative to the next limb: 2^8.
const UPPER_SHIFT: u32 = PRODUCT_BITS - LIMB_BITS;
/// The same for limb 2, relative to 2^130.
const UPPER_SHIFT_TOP: u32 = PRODUCT_BITS - TOP_BITS;

/// The sum of the upper halves of a column's products.
const fn upper(h: [u64; 3], factors: [u64; 3]) -> u64 {
    let mut sum = 0;
    let mut limb = 0;
    while limb < 3 {
        sum += (h[limb] as u128 * factors[limb] as u128) >> PRODUCT_BITS;
        limb += 1;
    }
    assert!(sum < 1 << 64);
    sum as u64
}

const _: () = {
    let h = [SUM_MAX, LIMB_MAX, TOP_MAX];
    // Limb 2 of `r` is shorter, because the upper bits of `r` are clamped.
    let [r0, r1, r2] = [LIMB_MAX, LIMB_MAX, poly::CLAMP[1] >> (2 * LIMB_BITS - 64)];
    let [s1, s2] = [(FOLD * r1) << FOLD_SHIFT, (FOLD * r2) << FOLD_SHIFT];
    let read = 1 << PRODUCT_BITS;
    assert!(SUM_MAX < read && s1 < read && s2 < read);
    // A column: a limb of a block and the lower halves of three products.
    let lower = LIMB_MAX + 3 * (read - 1);
    let upper_0 = upper(h, [r0, s2, s1]);
    let upper_1 = upper(h, [r1, r0, s2]);
    let upper_2 = upper(h, [r2, r1, r0]);
    // The carries of `multiply_add`, step by step. An overflow here is a compile-time error.
    let lower_1 = lower + (upper_0 << UPPER_SHIFT) + (lower >> LIMB_BITS);
    let lower_2 = lower + (upper_1 << UPPER_SHIFT) + (lower_1 >> LIMB_BITS);
    let beyond = (upper_2 << UPPER_SHIFT_TOP) + (lower_2 >> TOP_BITS);
    assert!(LIMB_MAX + FOLD * beyond <= SUM_MAX);
    // Shifts would lose bits silently.
    assert!(upper_0.leading_zeros() >= UPPER_SHIFT && upper_1.leading_zeros() >= UPPER_SHIFT);
    assert!(upper_2.leading_zeros() >= UPPER_SHIFT_TOP);
};

/// The factor of each lane.
#[derive(Clone, Copy)]
pub struct Factor {
    /// Limbs of `r`.
    r: [Vector; 3],
    /// Limbs 1 and 2 of `20 r`, for products beyond limb 2, which wrap around.
    folded: [Vector; 2],
}

impl Lanes<LANES> for Avx512 {
    type Number = [Vector; 3];
    type Factor = Factor;
    type Mask = __mmask8;

    #[inline(always)]
    fn factor(self, keys: [&OneTimeKey; LANES]) -> Factor {
        let [low, high, _, _] = of_keys(keys);
        let r = avx512!(limbs(
            _mm512_and_si512(low, splat(poly::CLAMP[0])),
            _mm512_and_si512(high, splat(poly::CLAMP[1])),
        ));
        Factor { r, folded: [fold_limb(r[1]), fold_limb(r[2])] }
    }

    #[inline(always)]
    fn zero(self) -> [Vector; 3] {
        [splat(0); 3]
    }

    #[inline(always)]
    fn blocks(self, chunks: [&[u8; BLOCK_LEN]; LANES]) -> [[Vector; 3]; BLOCKS] {
        let mut rows = [splat(0); LANES];
        for (row, chunk) in rows.iter_mut().zip(chunks) {
            *row = avx512!(_mm512_loadu_si512(chunk.as_ptr().cast()));
        }
        blocks(rows)
    }

    #[inline(always)]
    fn tails(self, tails: [&[u8]; LANES]) -> [[Vector; 3]; BLOCKS] {
        let mut rows = [splat(0); LANES];
        for (row, tail) in rows.iter_mut().zip(tails) {
            *row = load_part(tail);
        }
        blocks(rows)
    }

    #[inline(always)]
    fn block(self, low: &[u64; LANES], high: &[u64; LANES]) -> [Vector; 3] {
        block(of_words(low), of_words(high))
    }

    #[inline(always)]
    fn multiply_add(self, h: [Vector; 3], factor: &Factor, block: [Vector; 3]) -> [Vector; 3] {
        let [r0, r1, r2] = factor.r;
        let [s1, s2] = factor.folded;
        let (mut lower, mut upper) = (block, [splat(0); 3]);
        // Limb 0 is ready last, so it is multiplied last.
        add_products(&mut lower, &mut upper, h[1], [s2, r0, r1]);
        add_products(&mut lower, &mut upper, h[2], [s1, s2, r0]);
        add_products(&mut lower, &mut upper, h[0], [r0, r1, r2]);
        carry(lower, upper)
    }

    #[inline(always)]
    fn greater_than(self, left: &[u64; LANES], right: u64) -> __mmask8 {
        avx512!(_mm512_cmpgt_epu64_mask(of_words(left), splat(right)))
    }

    #[inline(always)]
    fn select(self, mask: __mmask8, a: [Vector; 3], b: [Vector; 3]) -> [Vector; 3] {
        choose(mask, a, b)
    }

    #[inline(always)]
    fn tags(self, sum: [Vector; 3], keys: [&OneTimeKey; LANES]) -> [Tag; LANES] {
        let [h0, h1, h2] = reduce(sum);
        let [_, _, s_low, s_high] = of_keys(keys);
        let (low, high) = avx512!({
            let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
            let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
            let (low, high) = (add(low, s_low), add(high, s_high));
            // The sum has passed 2^64 where it is less than `s_low`.
            let carried = _mm512_cmplt_epu64_mask(low, s_low);
            (low, _mm512_mask_add_epi64(high, carried, high, splat(1)))
        });
        let (low, high) = (to_words(low), to_words(high));
        let mut tags = [[0; 16]; LANES];
        for (lane, tag) in tags.iter_mut().enumerate() {
            *tag = (u128::from(low[lane]) | u128::from(high[lane]) << 64).to_le_bytes();
        }
        tags
    }
}

/// The same 64-bit word in each lane.
#[inline(always)]
fn splat(word: u64) -> Vector {
    avx512!(_mm512_set1_epi64(word.cast_signed()))
}

#[inline(always)]
fn of_words(words: &[u64; LANES]) -> Vector {
    avx512!(_mm512_loadu_si512(words.as_ptr().cast()))
}

#[inline(always)]
fn to_words(vector: Vector) -> [u64; LANES] {
    let mut words = [0; LANES];
    avx512!(_mm512_storeu_si512(words.as_mut_ptr().cast(), vector));
    words
}

#[inline(always)]
fn of_keys(keys: [&OneTimeKey; LANES]) -> [Vector; 4] {
    let mut rows = [splat(0); LANES];
    for (row, key) in rows.iter_mut().zip(keys) {
        *row = avx512!(_mm512_zextsi256_si512(_mm256_loadu_si256(key.as_ptr().cast())));
    }
    let [r_low, r_high, s_low, s_high, ..] = transpose8(rows);
    [r_low, r_high, s_low, s_high]
}

/// Transposes eight rows of eight 64-bit words.
#[inline(always)]
fn transpose8([a, b, c, d, e, f, g, h]: [Vector; 8]) -> [Vector; 8] {
    avx512!({
        let [c0, c2, c4, c6] = transpose_quarters([
            _mm512_unpacklo_epi64(a, b),
            _mm512_unpacklo_epi64(c, d),
            _mm512_unpacklo_epi64(e, f),
            _mm512_unpacklo_epi64(g, h),
        ]);
        let [c1, c3, c5, c7] = transpose_quarters([
            _mm512_unpackhi_epi64(a, b),
            _mm512_unpackhi_epi64(c, d),
            _mm512_unpackhi_epi64(e, f),
            _mm512_unpackhi_epi64(g, h),
        ]);
        [c0, c1, c2, c3, c4, c5, c6, c7]
    })
}

/// The four blocks of each row.
#[inline(always)]
fn blocks(rows: [Vector; LANES]) -> [[Vector; 3]; BLOCKS] {
    let [a, b, c, d, e, f, g, h] = transpose8(rows);
    [block(a, b), block(c, d), block(e, f), block(g, h)]
}

/// A whole block with its pad bit set.
#[inline(always)]
fn block(low: Vector, high: Vector) -> [Vector; 3] {
    let [l0, l1, l2] = limbs(low, high);
    [l0, l1, avx512!(_mm512_or_si512(l2, splat(PAD_BIT)))]
}

/// Splits 128 bits into limbs.
#[inline(always)]
fn limbs(low: Vector, high: Vector) -> [Vector; 3] {
    let max = splat(LIMB_MAX);
    avx512!([
        _mm512_and_si512(low, max),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), max),
        _mm512_srli_epi64::<24>(high),
    ])
}

/// Adds the lower and upper halves of the products of a limb with three factors, one per column.
#[inline(always)]
fn add_products(
    lower: &mut [Vector; 3],
    upper: &mut [Vector; 3],
    limb: Vector,
    factors: [Vector; 3],
) {
    for column in 0..3 {
        avx512!({
            lower[column] = _mm512_madd52lo_epu64(lower[column], limb, factors[column]);
            upper[column] = _mm512_madd52hi_epu64(upper[column], limb, factors[column]);
        });
    }
}

/// Carries lazily: at most [`SUM_MAX`] stays in limb 0.
#[inline(always)]
fn carry([l0, l1, l2]: [Vector; 3], [u0, u1, u2]: [Vector; 3]) -> [Vector; 3] {
    let (c0, h0) = split::<LIMB_BITS>(l0);
    let (c1, h1) = split::<LIMB_BITS>(add(add(l1, shift::<UPPER_SHIFT>(u0)), c0));
    let (c2, h2) = split::<TOP_BITS>(add(add(l2, shift::<UPPER_SHIFT>(u1)), c1));
    let beyond = add(shift::<UPPER_SHIFT_TOP>(u2), c2);
    [add(add(h0, beyond), shift::<2>(beyond)), h1, h2]
}

/// Carries fully, and subtracts 2^130 - 5 from numbers that are not less.
#[inline(always)]
fn reduce([mut h0, mut h1, mut h2]: [Vector; 3]) -> [Vector; 3] {
    let mut carried;
    // One pass leaves a small carry into limb 0. If it propagates through all limbs again, limb 0
    // is then so small that the second fold does not overflow it.
    for _ in 0..2 {
        (carried, h0) = split::<LIMB_BITS>(h0);
        (carried, h1) = split::<LIMB_BITS>(add(h1, carried));
        (carried, h2) = split::<TOP_BITS>(add(h2, carried));
        h0 = add(h0, fold(carried));
    }
    // h + 5 reaches 2^130 exactly where h is not less than 2^130 - 5; its limbs are then the
    // difference.
    let (carried, g0) = split::<LIMB_BITS>(add(h0, splat(FOLD)));
    let (carried, g1) = split::<LIMB_BITS>(add(h1, carried));
    let (carried, g2) = split::<TOP_BITS>(add(h2, carried));
    let is_below = avx512!(_mm512_cmpeq_epi64_mask(carried, splat(0)));
    choose(is_below, [h0, h1, h2], [g0, g1, g2])
}

/// `a` in the lanes of the mask, `b` in the others.
#[inline(always)]
fn choose(mask: __mmask8, a: [Vector; 3], b: [Vector; 3]) -> [Vector; 3] {
    let mut chosen = b;
    for limb in 0..3 {
        chosen[limb] = avx512!(_mm512_mask_blend_epi64(mask, b[limb], a[limb]));
    }
    chosen
}

/// The carry out of a column, and its limb of `BITS` bits.
#[inline(always)]
fn split<const BITS: u32>(column: Vector) -> (Vector, Vector) {
    avx512!((_mm512_srli_epi64::<BITS>(column), _mm512_and_si512(column, splat((1 << BITS) - 1)),))
}

#[inline(always)]
fn add(a: Vector, b: Vector) -> Vector {
    avx512!(_mm512_add_epi64(a, b))
}

/// Times 2^`BITS`.
#[inline(always)]
fn shift<const BITS: u32>(number: Vector) -> Vector {
    avx512!(_mm512_slli_epi64::<BITS>(number))
}

/// [`FOLD`] times a carry out of limb 2, to be added to limb 0.
#[inline(always)]
fn fold(carried: Vector) -> Vector {
    add(carried, shift::<2>(carried))
}

/// A limb of `20 r`, for products beyond limb 2.
#[inline(always)]
fn fold_limb(limb: Vector) -> Vector {
    shift::<FOLD_SHIFT>(fold(limb))
}
