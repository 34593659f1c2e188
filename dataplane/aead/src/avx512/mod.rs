//! AVX-512: two vectors of sixteen blocks of ChaCha20 at once, and two groups of eight packets of
//! Poly1305 with the 52-bit multiplications of IFMA.

mod chacha;
mod poly;
mod vector;

use std::arch::asm;
use std::hint::black_box;

pub use self::vector::Avx512;
use self::vector::{LANES, STRIPE};
use crate::batch::Unit;
use crate::chacha::{Stripe, Words, finish, initial};
use crate::packet::{OneTimeKey, Packet, Tag};
use crate::poly::tags_of_all;

impl Unit<STRIPE> for Avx512 {
    // One or two packets fill few lanes, and wiping costs more than two lanes gain.
    const PACKETS_MIN: usize = 3;
    const BODY_LEN_MAX: usize = usize::MAX;

    fn compute(self, stripe: &Stripe<STRIPE>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        // SAFETY: `self` proves that the CPU has these features.
        unsafe { compute(self, stripe, packets, keys) }
    }

    fn tags(self, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
        // SAFETY: `self` proves that the CPU has these features.
        unsafe { self::tags(self, packets, order, keys, tags) }
    }

    fn clear(self) {
        // SAFETY: `self` proves that the CPU has these features.
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
    if stripe.free_lanes() >= LANES {
        let state = unit.rounds(low);
        finish(unit, stripe, 0, state, packets, keys);
        return;
    }
    let mut high = initial(unit, stripe, LANES, packets);
    chacha::rounds_of_two(&mut low, &mut high);
    // Hide the value from the optimizer, which would keep the initial states in memory otherwise.
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
    // SAFETY: the assembly clears registers, all of which it names.
    unsafe {
        clear!(
            "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9",
            "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15";
            "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24",
            "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31"
        );
    }
}
