//! AVX2: eight blocks of ChaCha20 at once, and two times four packets of Poly1305.

mod chacha;
mod poly;

use std::arch::asm;
use std::arch::x86_64::*;

use super::batch::{OneTimeKey, Packet, Tag, Unit};
use super::chacha::{Stripe, Words, finish, initial};
use super::poly::tags_of_all;

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

    fn clear(self) {
        // SAFETY: there is a token only where the processor has AVX2.
        unsafe { clear() }
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
    let state = unit.rounds(initial(unit, stripe, 0, packets));
    finish(unit, stripe, 0, state, packets, keys);
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn tags(unit: Avx2, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
    tags_of_all::<4, 2, Avx2>(unit, packets, order, keys, tags);
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn clear() {
    // SAFETY: it clears registers, all of which it names.
    unsafe {
        asm!(
            "vzeroall",
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Instructions that a token allows. They work on registers, and on arrays as long as they are.
macro_rules! avx2 {
    ($($instructions:tt)*) => {{
        // SAFETY: they are AVX2's at most, and there is a token only where the processor has that;
        // each load and store has the length of the array that its pointer was made from.
        unsafe { $($instructions)* }
    }};
}
use avx2;

/// A register of 256 bits.
type Vector = __m256i;

#[inline(always)]
fn to_words(vector: Vector) -> [u64; 4] {
    let mut words = [0; 4];
    avx2!(_mm256_storeu_si256(words.as_mut_ptr().cast(), vector));
    words
}
