//! Zeroes secrets with writes that the compiler cannot remove.

use std::mem::MaybeUninit;

/// Bytes below its caller's frame that [`stack`] zeroes: more than any function of a vector unit
/// uses for spilled registers. The tests in `tests::residue` search for leftovers.
const STACK_LEN: usize = 8 << 10;

/// Zeroes values.
pub fn values<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    keep_writes(values.as_ptr());
}

/// Zeroes the stack below the caller's frame, where the functions that it called had their frames.
#[inline(never)]
pub fn stack() {
    let mut frame = MaybeUninit::<[u8; STACK_LEN]>::uninit();
    let frame = frame.write([0; STACK_LEN]);
    keep_writes(frame.as_ptr());
}

/// Makes the compiler assume that the memory is read here.
#[inline(always)]
fn keep_writes<T>(memory: *const T) {
    // SAFETY: the assembly contains only a comment.
    unsafe { std::arch::asm!("/* {} */", in(reg) memory, options(nostack, preserves_flags)) };
}
