//! Zeroes secrets, in a way that the compiler cannot leave out.

use std::mem::MaybeUninit;

/// Bytes below its caller's frame that [`stack`] zeroes: more than the functions of any vector unit
/// take for words that do not fit in registers. A test looks for what would be left.
const STACK: usize = 8 << 10;

/// Zeroes values that nobody needs any more.
pub fn values<T: Copy + Default>(values: &mut [T]) {
    values.fill(T::default());
    look_at(values.as_ptr());
}

/// Zeroes the stack below the caller's frame, where the functions that it has called had theirs.
#[inline(never)]
pub fn stack() {
    let mut frame = MaybeUninit::<[u8; STACK]>::uninit();
    let frame = frame.write([0; STACK]);
    look_at(frame.as_ptr());
}

/// Has the compiler believe that somebody reads the memory there.
#[inline(always)]
fn look_at<T>(memory: *const T) {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {} */", in(reg) memory, options(nostack, preserves_flags)) };
}
