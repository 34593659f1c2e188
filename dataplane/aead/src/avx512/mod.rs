//! AVX-512: two times sixteen blocks of ChaCha20 at once, and two times eight packets of Poly1305
//! with IFMA's multiplications of 52 bits.

mod chacha;
mod poly;

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

use super::batch::{OneTimeKey, Packet, Tag, Unit};
use super::chacha::{Stripe, Words, finish, initial};
use super::poly::tags_of_all;

/// Blocks of a stripe: of two vectors.
pub const STRIPE: usize = 2 * LANES;
/// Blocks of a vector.
const LANES: usize = 16;

/// A processor that has AVX-512 with all parts that are used here. Intel's have since Ice Lake,
/// AMD's since Zen 4.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// If this processor has it, and the operating system lets it be used.
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

impl Unit<STRIPE> for Avx512 {
    // One or two packets fill few lanes, and what they gain the wiping takes.
    const FEWEST: usize = 3;
    const LONGEST: usize = usize::MAX;

    fn compute(self, stripe: &Stripe<STRIPE>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        // SAFETY: there is a token only where the processor has these features.
        unsafe { compute(self, stripe, packets, keys) }
    }

    fn tags(self, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
        // SAFETY: there is a token only where the processor has these features.
        unsafe { self::tags(self, packets, order, keys, tags) }
    }

    fn clear(self) {
        // SAFETY: there is a token only where the processor has these features.
        unsafe { clear() }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
#[inline(never)]
fn compute(
    unit: Avx512,
    stripe: &Stripe<STRIPE>,
    packets: &mut [Packet<'_>],
    keys: &mut [OneTimeKey],
) {
    let mut low = initial(unit, stripe, 0, packets);
    if stripe.room() >= LANES {
        let state = unit.rounds(low);
        finish(unit, stripe, 0, state, packets, keys);
        return;
    }
    let mut high = initial(unit, stripe, LANES, packets);
    chacha::rounds_of_two(&mut low, &mut high);
    // The compiler shall not know it again: it would have kept the initial states in memory.
    let stripe = black_box(stripe);
    finish(unit, stripe, 0, low, packets, keys);
    finish(unit, stripe, LANES, high, packets, keys);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
#[inline(never)]
fn tags(unit: Avx512, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
    tags_of_all::<8, 2, Avx512>(unit, packets, order, keys, tags);
}

#[target_feature(enable = "avx512f,avx512vl")]
#[inline(never)]
fn clear() {
    macro_rules! clear {
        ($($low:tt),+; $($high:tt),+) => {
            asm!(
                "vzeroall",
                $(concat!("vpxord ", $high, ", ", $high, ", ", $high),)+
                $(out($low) _,)+
                $(out($high) _,)+
                options(nomem, nostack, preserves_flags),
            )
        };
    }
    // SAFETY: it clears registers, all of which it names.
    unsafe {
        clear!(
            "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9",
            "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15";
            "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24",
            "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31"
        );
    }
}

/// Instructions that a token allows. They work on registers, on arrays as long as they are, and on
/// bytes that a mask names.
macro_rules! avx512 {
    ($($instructions:tt)*) => {{
        // SAFETY: they are of the features that `Avx512::detect` asks for, and there is a token
        // only where the processor has these; each load and store has the length of the array that
        // its pointer was made from, or a mask of as many bytes as the slice has.
        unsafe { $($instructions)* }
    }};
}
use avx512;

/// A register of 512 bits.
type Vector = __m512i;

/// Reads up to 64 bytes, and zeros beyond them.
#[inline(always)]
fn load_part(bytes: &[u8]) -> Vector {
    avx512!(_mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()))
}

/// Writes the first bytes of a vector, as many as there are, up to 64.
#[inline(always)]
fn store_part(bytes: &mut [u8], vector: Vector) {
    avx512!(_mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), first(bytes.len()), vector));
}

/// The mask of the first `count` bytes, or of all.
#[inline(always)]
fn first(count: usize) -> __mmask64 {
    if count < 64 { (1 << count) - 1 } else { __mmask64::MAX }
}

/// From four rows of four quarters of a register to its columns.
#[inline(always)]
fn transpose_quarters([a, b, c, d]: [Vector; 4]) -> [Vector; 4] {
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
