//! The proof that the CPU has AVX2, and its registers.

use std::arch::x86_64::*;

/// Blocks of a stripe.
pub const STRIPE: usize = 8;

/// The proof that the CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if the CPU has AVX2 and the operating system has enabled it.
    pub fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

/// AVX2 instructions, where a token is at hand. They access only registers and whole arrays.
macro_rules! avx2 {
    ($($instructions:tt)*) => {{
        // SAFETY: a token proves that the CPU has AVX2, and each load and store has the length of
        // the array that its pointer was made from.
        unsafe { $($instructions)* }
    }};
}
pub(super) use avx2;

/// A 256-bit register.
pub type Vector = __m256i;

/// The four 64-bit words of a register.
#[inline(always)]
pub fn to_words(vector: Vector) -> [u64; 4] {
    let mut words = [0; 4];
    avx2!(_mm256_storeu_si256(words.as_mut_ptr().cast(), vector));
    words
}
