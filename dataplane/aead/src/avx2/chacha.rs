//! ChaCha20 with AVX2: one word of eight blocks in each register.

use std::arch::x86_64::*;

use super::vector::{Avx2, STRIPE, Vector, avx2, to_words};
use crate::chacha::{BLOCK_LEN, Words};
use crate::packet::OneTimeKey;

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
        // SAFETY: `self` proves that the CPU has AVX2.
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
    (
        $a:literal, $b:literal, $c:literal, $d:literal;
        $e:literal, $f:literal, $g:literal, $h:literal
    ) => {
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

/// x <<<= 16 or 8, as a permutation of bytes.
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

/// Swaps two of the four words of the third row with the other two, which are in memory.
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

/// The twenty rounds (RFC 8439 §2.3). In assembly, because the compiler spills a hundred registers
/// in each double round. Here fourteen of the sixteen words stay in registers, and two of the third
/// row are in memory until they are needed, at four moves per exchange.
#[target_feature(enable = "avx2")]
#[inline]
fn rounds(state: [Vector; 16]) -> [Vector; 16] {
    let [mut a0, mut a1, mut a2, mut a3, mut b0, mut b1, mut b2, mut b3, ..] = state;
    let [.., mut c0, mut c1, c2, c3, mut d0, mut d1, mut d2, mut d3] = state;
    let mut row = [c0, c1, c2, c3];
    // SAFETY: the caller has AVX2, `row` has the four vectors that are moved, and the two static
    // arrays are only read.
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

/// Transposes eight rows of eight words.
#[inline(always)]
fn transpose8(rows: [Vector; 8]) -> [Vector; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Names: rows, then columns (in the upper half: columns plus four).
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
