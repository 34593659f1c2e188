//! AVX2: eight blocks of ChaCha20 at once, and two groups of four packets of Poly1305.

mod chacha;
mod poly;
mod vector;

use std::arch::asm;

pub use self::vector::Avx2;
use self::vector::STRIPE;
use crate::batch::Unit;
use crate::chacha::{Stripe, Words, finish, initial};
use crate::packet::{OneTimeKey, Packet, Tag};
use crate::poly::tags_of_all;

impl Unit<STRIPE> for Avx2 {
    // Measured by `cargo bench --bench aead`: `ring` uses AVX2 too, so lanes across packets pay off
    // only where a packet is too short to fill the lanes alone.
    const PACKETS_MIN: usize = 8;
    const BODY_LEN_MAX: usize = 256;

    fn compute(self, stripe: &Stripe<STRIPE>, packets: &mut [Packet<'_>], keys: &mut [OneTimeKey]) {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { compute(self, stripe, packets, keys) }
    }

    fn tags(self, packets: &[Packet<'_>], order: &[u8], keys: &[OneTimeKey], tags: &mut [Tag]) {
        // SAFETY: `self` proves that the CPU has AVX2.
        unsafe { self::tags(self, packets, order, keys, tags) }
    }

    fn clear(self) {
        // SAFETY: `self` proves that the CPU has AVX2.
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
    // SAFETY: the assembly clears registers, all of which it names.
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
