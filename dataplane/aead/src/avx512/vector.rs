//! The proof that the CPU has AVX-512, its registers, and masked access to memory.

use std::arch::x86_64::*;

/// Blocks of a stripe: two vectors.
pub const STRIPE: usize = 2 * LANES;
/// Blocks of a vector.
pub const LANES: usize = 16;

/// The proof that the CPU has AVX-512 with all extensions used here: Intel since Ice Lake, AMD
/// since Zen 4.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if the CPU has them all and the operating system has enabled them.
    pub fn detect() -> Option<Avx512> {
        let has_all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi2");
        has_all.then_some(Avx512(()))
    }
}

/// AVX-512 instructions, where a token is at hand. They access only registers, whole arrays, and
/// the bytes of a mask.
macro_rules! avx512 {
    ($($instructions:tt)*) => {{
        // SAFETY: a token proves that the CPU has the features of `Avx512::detect`, and each load
        // and store has the length of the array that its pointer was made from, or a mask as long
        // as the slice.
        unsafe { $($instructions)* }
    }};
}
pub(super) use avx512;

/// A 512-bit register.
pub type Vector = __m512i;

/// Reads up to 64 bytes; the rest is zero.
#[inline(always)]
pub fn load_part(bytes: &[u8]) -> Vector {
    avx512!(_mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()))
}

/// Writes the first bytes of a vector to a slice of up to 64.
#[inline(always)]
pub fn store_part(bytes: &mut [u8], vector: Vector) {
    avx512!(_mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), vector));
}

/// The mask of the first `count` bytes, at most 64.
#[inline(always)]
fn first(count: usize) -> __mmask64 {
    if count < 64 { (1 << count) - 1 } else { __mmask64::MAX }
}

/// Transposes four registers of four quarters.
#[inline(always)]
pub fn transpose_quarters([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
    avx512!({
        let (ab_01, ab_23) =
            (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
        let (cd_01, cd_23) =
            (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
        [
            _mm512_shuffle_i64x2::<0x88>(ab_01, cd_01),
            _mm512_shuffle_i64x2::<0xdd>(ab_01, cd_01),
            _mm512_shuffle_i64x2::<0x88>(ab_23, cd_23),
            _mm512_shuffle_i64x2::<0xdd>(ab_23, cd_23),
        ]
    })
}
