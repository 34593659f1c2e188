//! AVX2: eight blocks of ChaCha20 at once, and two times four packets of Poly1305.
//!
//! Poly1305 has numbers of five limbs of 26 bits. [`Lanes::multiply_add`] carries lazily: what it
//! gives is at most [`SUM_MAX`] in each limb. With that as its input no column overflows, and what
//! it gives is within that bound again: `const` assertions below follow it step by step.

use std::arch::x86_64::*;

use super::batch::{OneTimeKey, Packet, Tag, Unit};
use super::chacha::{self, BLOCK_LEN, Stripe, Words};
use super::poly::{self, Lanes};

/// Blocks of a stripe.
pub const STRIPE: usize = 8;

/// A processor that has AVX2.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// If this processor has it, and the operating system lets it be used.
    pub fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

impl Unit<STRIPE> for Avx2 {
    // What `cargo bench --bench aead` says: beside `ring`, which has AVX2 as well, lanes across
    // packets pay where packets are too short to fill lanes by themselves.
    const FEWEST: usize = 8;
    const LONGEST: usize = 256;

    fn compute(self, stripe: &Stripe<STRIPE>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        // SAFETY: there is a token only where the processor has AVX2.
        unsafe { compute(self, stripe, packets, keys) }
    }

    fn tags(self, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
        // SAFETY: there is a token only where the processor has AVX2.
        unsafe { self::tags(self, packets, order, keys, tags) }
    }
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn compute(
    unit: Avx2,
    stripe: &Stripe<STRIPE>,
    packets: &mut [Packet<'_>],
    keys: &mut [OneTimeKey],
) {
    let state = unit.rounds(chacha::initial(unit, stripe, 0, packets));
    chacha::finish(unit, stripe, 0, state, packets, keys);
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn tags(unit: Avx2, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
    poly::tags::<4, 2, Avx2>(unit, packets, order, keys, tags);
}

/// Instructions that a token allows. They work on registers, and on arrays as long as they are.
macro_rules! avx2 {
    ($($instructions:tt)*) => {{
        // SAFETY: they are AVX2's at most, and there is a token only where the processor has that;
        // each load and store has the length of the array that its pointer was made from.
        unsafe { $($instructions)* }
    }};
}

/// A register of 256 bits.
type Vector = __m256i;

impl Words<STRIPE> for Avx2 {
    type Word = Vector;
    type Block = [Vector; 2];

    #[inline(always)]
    fn splat(self, word: u32) -> Vector {
        avx2!(_mm256_set1_epi32(word.cast_signed()))
    }

    #[inline(always)]
    fn load(self, words: &[u32; 8]) -> Vector {
        avx2!(_mm256_loadu_si256(words.as_ptr().cast()))
    }

    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        avx2!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn rounds(self, state: [Vector; 16]) -> [Vector; 16] {
        // SAFETY: there is a token only where the processor has AVX2.
        unsafe { rounds(state) }
    }

    #[inline(always)]
    fn keys(self, keys: [&[u32; 8]; 8]) -> [Vector; 8] {
        let [a, b, c, d, e, f, g, h] = keys;
        transpose8([
            self.load(a),
            self.load(b),
            self.load(c),
            self.load(d),
            self.load(e),
            self.load(f),
            self.load(g),
            self.load(h),
        ])
    }

    #[inline(always)]
    fn blocks(self, state: [Vector; 16]) -> [[Vector; 2]; 8] {
        let [s0, s1, s2, s3, s4, s5, s6, s7, high @ ..] = state;
        let low = transpose8([s0, s1, s2, s3, s4, s5, s6, s7]);
        let high = transpose8(high);
        let mut blocks = [[low[0]; 2]; 8];
        for (lane, block) in blocks.iter_mut().enumerate() {
            *block = [low[lane], high[lane]];
        }
        blocks
    }

    #[inline(always)]
    fn one_time_key(self, [low, _]: [Vector; 2]) -> OneTimeKey {
        to_words(low)
    }

    #[inline(always)]
    fn apply(self, block: [Vector; 2], bytes: &mut [u8; BLOCK_LEN]) {
        let (halves, _) = bytes.as_chunks_mut::<32>();
        for (half, stream) in halves.iter_mut().zip(block) {
            avx2!({
                let sum = _mm256_xor_si256(_mm256_loadu_si256(half.as_ptr().cast()), stream);
                _mm256_storeu_si256(half.as_mut_ptr().cast(), sum);
            });
        }
    }

    #[inline(always)]
    fn apply_part(self, block: [Vector; 2], bytes: &mut [u8]) {
        let mut whole = [0; BLOCK_LEN];
        whole[..bytes.len()].copy_from_slice(bytes);
        self.apply(block, &mut whole);
        bytes.copy_from_slice(&whole[..bytes.len()]);
    }
}

/// Two quarter rounds that do not depend on each other, step by step (RFC 8439 §2.1).
macro_rules! quarter_rounds {
    ($a:literal, $b:literal, $c:literal, $d:literal; $e:literal, $f:literal, $g:literal, $h:literal) => {
        concat!(
            add_xor!($a, $b, $d; $e, $f, $h),
            rotate_bytes!($d, $h, "{rotate_16}"),
            add_xor!($c, $d, $b; $g, $h, $f),
            rotate_bits!($b, $f, "12", "20"),
            add_xor!($a, $b, $d; $e, $f, $h),
            rotate_bytes!($d, $h, "{rotate_8}"),
            add_xor!($c, $d, $b; $g, $h, $f),
            rotate_bits!($b, $f, "7", "25"),
        )
    };
}

/// x += y; z ^= x.
macro_rules! add_xor {
    ($x:literal, $y:literal, $z:literal; $u:literal, $v:literal, $w:literal) => {
        concat!(
            "vpaddd {", $x, "}, {", $x, "}, {", $y, "}\n", "vpaddd {", $u, "}, {", $u, "}, {", $v,
            "}\n", "vpxor {", $z, "}, {", $z, "}, {", $x, "}\n", "vpxor {", $w, "}, {", $w, "}, {",
            $u, "}\n",
        )
    };
}

/// x <<<= 16 or 8, by the order of bytes.
macro_rules! rotate_bytes {
    ($x:literal, $y:literal, $order:literal) => {
        concat!(
            "vpshufb {",
            $x,
            "}, {",
            $x,
            "}, [",
            $order,
            "]\n",
            "vpshufb {",
            $y,
            "}, {",
            $y,
            "}, [",
            $order,
            "]\n",
        )
    };
}

/// x <<<= left.
macro_rules! rotate_bits {
    ($x:literal, $y:literal, $left:literal, $right:literal) => {
        concat!(
            "vpslld {t0}, {",
            $x,
            "}, ",
            $left,
            "\n",
            "vpslld {t1}, {",
            $y,
            "}, ",
            $left,
            "\n",
            "vpsrld {",
            $x,
            "}, {",
            $x,
            "}, ",
            $right,
            "\n",
            "vpsrld {",
            $y,
            "}, {",
            $y,
            "}, ",
            $right,
            "\n",
            "vpor {",
            $x,
            "}, {",
            $x,
            "}, {t0}\n",
            "vpor {",
            $y,
            "}, {",
            $y,
            "}, {t1}\n",
        )
    };
}

/// Two of the four words in the third row change places with the other two.
macro_rules! exchange {
    ($out:literal, $in:literal) => {
        concat!(
            "vmovdqa [{row} + ",
            $out,
            "], {c0}\n",
            "vmovdqa [{row} + ",
            $out,
            " + 32], {c1}\n",
            "vmovdqa {c0}, [{row} + ",
            $in,
            "]\n",
            "vmovdqa {c1}, [{row} + ",
            $in,
            " + 32]\n",
        )
    };
}

#[repr(align(32))]
struct Aligned<T>(T);

static ROTATE_16: Aligned<[u8; 32]> = Aligned([
    2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13, //
    2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
]);
static ROTATE_8: Aligned<[u8; 32]> = Aligned([
    3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, //
    3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,
]);

/// The twenty rounds (RFC 8439 §2.3). By hand, since the compiler moves a hundred registers to
/// memory and back in each double round: here twelve words and two more of the third row stay in
/// registers, and that row's other two are in memory until they are needed, four moves a time.
#[target_feature(enable = "avx2")]
#[inline]
fn rounds(state: [Vector; 16]) -> [Vector; 16] {
    let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3, ..] = state;
    let [.., mut c0, mut c1, c2, c3, mut d0, mut d1, mut d2, mut d3] = state;
    let mut row = [c0, c1, c2, c3];
    // SAFETY: AVX2's instructions, and there is a token only where the processor has it; `row` has
    // the four vectors that are moved, and the two orders are only read.
    unsafe {
        std::arch::asm!(
            "2:",
            quarter_rounds!("a0", "b0", "c0", "d0"; "a1", "b1", "c1", "d1"),
            exchange!("0", "64"),
            quarter_rounds!("a2", "b2", "c0", "d2"; "a3", "b3", "c1", "d3"),
            quarter_rounds!("a0", "b1", "c0", "d3"; "a1", "b2", "c1", "d0"),
            exchange!("64", "0"),
            quarter_rounds!("a2", "b3", "c0", "d1"; "a3", "b0", "c1", "d2"),
            "dec {count:e}",
            "jnz 2b",
            count = inout(reg) 10 => _,
            row = in(reg) row.as_mut_ptr(),
            rotate_16 = in(reg) &ROTATE_16,
            rotate_8 = in(reg) &ROTATE_8,
            a0 = inout(ymm_reg) a0, a1 = inout(ymm_reg) a1,
            a2 = inout(ymm_reg) a2, a3 = inout(ymm_reg) a3,
            b0 = inout(ymm_reg) b0, b1 = inout(ymm_reg) b1,
            b2 = inout(ymm_reg) b2, b3 = inout(ymm_reg) b3,
            c0 = inout(ymm_reg) c0, c1 = inout(ymm_reg) c1,
            d0 = inout(ymm_reg) d0, d1 = inout(ymm_reg) d1,
            d2 = inout(ymm_reg) d2, d3 = inout(ymm_reg) d3,
            t0 = out(ymm_reg) _, t1 = out(ymm_reg) _,
            options(nostack),
        );
    }
    let [_, _, c2, c3] = row;
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
}

/// From eight rows of eight words to its columns.
#[inline(always)]
fn transpose8(rows: [Vector; 8]) -> [Vector; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Names: which rows, which columns (and those four further, in the upper half).
    avx2!({
        let (ab_01, ab_23) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (cd_01, cd_23) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let (ef_01, ef_23) = (_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f));
        let (gh_01, gh_23) = (_mm256_unpacklo_epi32(g, h), _mm256_unpackhi_epi32(g, h));
        let upper = [
            _mm256_unpacklo_epi64(ab_01, cd_01),
            _mm256_unpackhi_epi64(ab_01, cd_01),
            _mm256_unpacklo_epi64(ab_23, cd_23),
            _mm256_unpackhi_epi64(ab_23, cd_23),
        ];
        let lower = [
            _mm256_unpacklo_epi64(ef_01, gh_01),
            _mm256_unpackhi_epi64(ef_01, gh_01),
            _mm256_unpacklo_epi64(ef_23, gh_23),
            _mm256_unpackhi_epi64(ef_23, gh_23),
        ];
        [
            _mm256_permute2x128_si256::<0x20>(upper[0], lower[0]),
            _mm256_permute2x128_si256::<0x20>(upper[1], lower[1]),
            _mm256_permute2x128_si256::<0x20>(upper[2], lower[2]),
            _mm256_permute2x128_si256::<0x20>(upper[3], lower[3]),
            _mm256_permute2x128_si256::<0x31>(upper[0], lower[0]),
            _mm256_permute2x128_si256::<0x31>(upper[1], lower[1]),
            _mm256_permute2x128_si256::<0x31>(upper[2], lower[2]),
            _mm256_permute2x128_si256::<0x31>(upper[3], lower[3]),
        ]
    })
}

/// From four rows of four 64-bit words to its columns.
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

#[inline(always)]
fn to_words(vector: Vector) -> [u64; 4] {
    let mut words = [0; 4];
    avx2!(_mm256_storeu_si256(words.as_mut_ptr().cast(), vector));
    words
}

/// The same 64-bit word in each lane.
#[inline(always)]
fn splat(word: u64) -> Vector {
    avx2!(_mm256_set1_epi64x(word.cast_signed()))
}

/// Bits of a limb.
const LIMB_BITS: i32 = 26;
/// The greatest limb that is carried fully.
const LIMB_MAX: u64 = (1 << LIMB_BITS) - 1;
/// The bit beyond the end of a whole block, 2^128, in its last limb.
const BEYOND: u64 = 1 << (128 - 4 * LIMB_BITS);
/// The greatest limb that is carried lazily.
const SUM_MAX: u64 = LIMB_MAX + (1 << 10);

/// What 2^130 is modulo 2^130 - 5.
const FOLD: u64 = 5;

const _: () = {
    // Multiplications read 32 bits.
    assert!(SUM_MAX < 1 << 32 && FOLD * LIMB_MAX < 1 << 32);
    // A column: a limb of a block, and five products, one with `r`, the others with `5 r` at most.
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

/// A factor of each lane.
#[derive(Clone, Copy)]
pub struct Factor {
    /// Limbs of `r`.
    r: [Vector; 5],
    /// Limbs 1 to 4 of `5 r`: products beyond 2^130 come in again below.
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
            _mm256_and_si256(low, splat(poly::CLAMP[0])),
            _mm256_and_si256(high, splat(poly::CLAMP[1])),
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
    fn above(self, left: &[u64; 4], than: u64) -> Vector {
        avx2!(_mm256_cmpgt_epi64(of_words(left), splat(than)))
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
            // The sum has passed 2^64 where it is below what was added, as numbers without a sign.
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

/// Half of each chunk, by 64-bit words.
#[inline(always)]
fn half(chunks: [&[u8; BLOCK_LEN]; 4], half: usize) -> [Vector; 4] {
    let mut rows = [splat(0); 4];
    for (row, chunk) in rows.iter_mut().zip(chunks) {
        let (halves, _) = chunk.as_chunks::<32>();
        *row = avx2!(_mm256_loadu_si256(halves[half].as_ptr().cast()));
    }
    transpose4(rows)
}

/// A limb of a block, and the products that fall in with it.
#[inline(always)]
fn column(mut sum: Vector, h: [Vector; 5], factors: [Vector; 5]) -> Vector {
    for limb in 0..5 {
        sum = avx2!(_mm256_add_epi64(sum, _mm256_mul_epu32(h[limb], factors[limb])));
    }
    sum
}

/// `a` in the lanes that are meant, `b` in the others.
#[inline(always)]
fn choose(mask: Vector, a: [Vector; 5], b: [Vector; 5]) -> [Vector; 5] {
    let mut chosen = b;
    for limb in 0..5 {
        chosen[limb] = avx2!(_mm256_blendv_epi8(b[limb], a[limb], mask));
    }
    chosen
}

/// A whole block, the bit beyond its end set.
#[inline(always)]
fn block(low: Vector, high: Vector) -> [Vector; 5] {
    let [l0, l1, l2, l3, l4] = limbs(low, high);
    [l0, l1, l2, l3, avx2!(_mm256_or_si256(l4, splat(BEYOND)))]
}

/// Cuts 128 bits into limbs.
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

/// What is above a limb, and the limb.
#[inline(always)]
fn split(column: Vector) -> (Vector, Vector) {
    avx2!((_mm256_srli_epi64::<LIMB_BITS>(column), _mm256_and_si256(column, splat(LIMB_MAX)),))
}

#[inline(always)]
fn add(a: Vector, b: Vector) -> Vector {
    avx2!(_mm256_add_epi64(a, b))
}

/// Five times what is carried out of the last limb, to come in again below.
#[inline(always)]
fn fold(carry: Vector) -> Vector {
    avx2!(_mm256_add_epi64(carry, _mm256_slli_epi64::<2>(carry)))
}

/// Carries lazily, in two chains that do not wait for each other; at most [`SUM_MAX`] stays.
#[inline(always)]
fn carry([d0, d1, d2, d3, d4]: [Vector; 5]) -> [Vector; 5] {
    let ((c0, d0), (c3, d3)) = (split(d0), split(d3));
    let ((c1, d1), (c4, d4)) = (split(add(d1, c0)), split(add(d4, c3)));
    let ((c2, d2), (c0, d0)) = (split(add(d2, c1)), split(add(d0, fold(c4))));
    let (c3, d3) = split(add(d3, c2));
    [d0, add(d1, c0), d2, d3, add(d4, c3)]
}

/// Carries fully, and subtracts 2^130 - 5 from what is not below it.
#[inline(always)]
fn reduce(mut h: [Vector; 5]) -> [Vector; 5] {
    // Once around leaves little above limb 0. If that travels through all limbs again, what limb 0
    // keeps is so small that the second fold stays in it.
    for _ in 0..2 {
        for limb in 0..5 {
            let (carried, kept) = split(h[limb]);
            h[limb] = kept;
            let carried = if limb == 4 { fold(carried) } else { carried };
            h[(limb + 1) % 5] = add(h[(limb + 1) % 5], carried);
        }
    }
    // h + 5 passes 2^130 exactly where h is not below 2^130 - 5; then it is the difference.
    let mut g = h;
    let mut carried = splat(FOLD);
    for limb in &mut g {
        (carried, *limb) = split(add(*limb, carried));
    }
    let is_below = avx2!(_mm256_cmpeq_epi64(carried, splat(0)));
    choose(is_below, h, g)
}
