//! ChaCha20 with AVX-512: one word of sixteen blocks in each register.

use std::arch::asm;
use std::arch::x86_64::*;

use super::vector::{Avx512, LANES, Vector, avx512, load_part, store_part, transpose_quarters};
use crate::chacha::{BLOCK_LEN, Words};
use crate::packet::OneTimeKey;

/// The twenty rounds of two vectors of states. In assembly, because they fill all 32 registers: the
/// compiler, which wants one to move values through, would spill.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn rounds_of_two(s: &mut [Vector; 16], t: &mut [Vector; 16]) {
    /// x += y; z ^= x; z <<<= bits, on four words of both states, so that no instruction depends on
    /// the seven before it.
    macro_rules! step {
        ($bits:literal: $(($x:literal $y:literal $z:literal))+) => {
            concat!(
                $("vpaddd {s", $x, "}, {s", $x, "}, {s", $y, "}\n",)+
                $("vpaddd {t", $x, "}, {t", $x, "}, {t", $y, "}\n",)+
                $("vpxord {s", $z, "}, {s", $z, "}, {s", $x, "}\n",)+
                $("vpxord {t", $z, "}, {t", $z, "}, {t", $x, "}\n",)+
                $("vprold {s", $z, "}, {s", $z, "}, ", $bits, "\n",)+
                $("vprold {t", $z, "}, {t", $z, "}, ", $bits, "\n",)+
            )
        };
    }
    /// Four independent quarter rounds (RFC 8439 §2.1).
    macro_rules! quarter_rounds {
        ($(($a:literal $b:literal $c:literal $d:literal))+) => {
            concat!(
                step!(16: $(($a $b $d))+),
                step!(12: $(($c $d $b))+),
                step!(8: $(($a $b $d))+),
                step!(7: $(($c $d $b))+),
            )
        };
    }
    macro_rules! double_rounds {
        ($($s:ident $t:ident = $word:literal),+) => {
            asm!(
                "2:",
                quarter_rounds!((0 4 8 12) (1 5 9 13) (2 6 10 14) (3 7 11 15)),
                quarter_rounds!((0 5 10 15) (1 6 11 12) (2 7 8 13) (3 4 9 14)),
                "dec {left:e}",
                "jnz 2b",
                left = inout(reg) 10 => _,
                $($s = inout(zmm_reg) s[$word], $t = inout(zmm_reg) t[$word],)+
                options(pure, nomem, nostack),
            )
        };
    }
    // SAFETY: the assembly accesses only registers, all of which it names, and needs AVX-512F.
    unsafe {
        double_rounds!(
            s0 t0 = 0, s1 t1 = 1, s2 t2 = 2, s3 t3 = 3, s4 t4 = 4, s5 t5 = 5, s6 t6 = 6, s7 t7 = 7,
            s8 t8 = 8, s9 t9 = 9, s10 t10 = 10, s11 t11 = 11, s12 t12 = 12, s13 t13 = 13,
            s14 t14 = 14, s15 t15 = 15
        );
    }
}

impl Words<LANES> for Avx512 {
    type Word = Vector;
    type Block = Vector;

    #[inline(always)]
    fn splat(self, word: u32) -> Vector {
        avx512!(_mm512_set1_epi32(word.cast_signed()))
    }

    #[inline(always)]
    fn load(self, words: &[u32; LANES]) -> Vector {
        avx512!(_mm512_loadu_si512(words.as_ptr().cast()))
    }

    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        avx512!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn rounds(self, mut state: [Vector; 16]) -> [Vector; 16] {
        for _ in 0..10 {
            quarter_rounds(
                &mut state,
                [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]],
            );
            quarter_rounds(
                &mut state,
                [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]],
            );
        }
        state
    }

    #[inline(always)]
    fn keys(self, keys: [&[u32; 8]; LANES]) -> [Vector; 8] {
        let mut rows = [self.splat(0); LANES];
        for (row, key) in rows.iter_mut().zip(keys) {
            *row = avx512!(_mm512_zextsi256_si512(_mm256_loadu_si256(key.as_ptr().cast())));
        }
        let [c0, c1, c2, c3, c4, c5, c6, c7, ..] = transpose16(rows);
        [c0, c1, c2, c3, c4, c5, c6, c7]
    }

    #[inline(always)]
    fn blocks(self, state: [Vector; 16]) -> [Vector; LANES] {
        transpose16(state)
    }

    #[inline(always)]
    fn one_time_key(self, block: Vector) -> OneTimeKey {
        let mut key = [0; 4];
        avx512!(_mm256_storeu_si256(key.as_mut_ptr().cast(), _mm512_castsi512_si256(block)));
        key
    }

    #[inline(always)]
    fn apply(self, block: Vector, bytes: &mut [u8; BLOCK_LEN]) {
        avx512!({
            let sum = _mm512_xor_si512(_mm512_loadu_si512(bytes.as_ptr().cast()), block);
            _mm512_storeu_si512(bytes.as_mut_ptr().cast(), sum);
        });
    }

    #[inline(always)]
    fn apply_part(self, block: Vector, bytes: &mut [u8]) {
        store_part(bytes, avx512!(_mm512_xor_si512(load_part(bytes), block)));
    }
}

/// Four independent quarter rounds, interleaved (RFC 8439 §2.1).
#[inline(always)]
fn quarter_rounds(state: &mut [Vector; 16], quarters: [[usize; 4]; 4]) {
    step::<16, 0, 1, 3>(state, quarters);
    step::<12, 2, 3, 1>(state, quarters);
    step::<8, 0, 1, 3>(state, quarters);
    step::<7, 2, 3, 1>(state, quarters);
}

/// x += y; z ^= x; z <<<= `BITS`, where x, y and z are these words of each quarter round.
#[inline(always)]
fn step<const BITS: i32, const X: usize, const Y: usize, const Z: usize>(
    state: &mut [Vector; 16],
    quarters: [[usize; 4]; 4],
) {
    for words in quarters {
        avx512!(state[words[X]] = _mm512_add_epi32(state[words[X]], state[words[Y]]));
    }
    for words in quarters {
        avx512!(state[words[Z]] = _mm512_xor_si512(state[words[Z]], state[words[X]]));
    }
    for words in quarters {
        avx512!(state[words[Z]] = _mm512_rol_epi32::<BITS>(state[words[Z]]));
    }
}

/// Transposes sixteen rows of sixteen words.
#[inline(always)]
fn transpose16(rows: [Vector; 16]) -> [Vector; 16] {
    let mut columns = rows;
    // Quarter q of the register `quads[g][c]` is column 4 q + c of rows 4 g to 4 g + 3.
    let mut quads = [[rows[0]; 4]; 4];
    for (quad, four) in quads.iter_mut().zip(rows.as_chunks::<4>().0) {
        let [a, b, c, d] = *four;
        avx512!({
            let (ab_01, ab_23) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_01, cd_23) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            *quad = [
                _mm512_unpacklo_epi64(ab_01, cd_01),
                _mm512_unpackhi_epi64(ab_01, cd_01),
                _mm512_unpacklo_epi64(ab_23, cd_23),
                _mm512_unpackhi_epi64(ab_23, cd_23),
            ];
        });
    }
    let [a, b, c, d] = quads;
    for column in 0..4 {
        [columns[column], columns[4 + column], columns[8 + column], columns[12 + column]] =
            transpose_quarters([a[column], b[column], c[column], d[column]]);
    }
    columns
}
