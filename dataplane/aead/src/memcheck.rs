//! Client requests to Valgrind's memcheck, for tests (`scripts/constant-time`): secrets are marked
//! as undefined, and memcheck reports branches and addresses that depend on them. Without Valgrind
//! the marks have no effect.

use std::arch::asm;

/// Memcheck's requests (`valgrind/memcheck.h`): 'M' 'C' and a number.
const BASE: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
const MAKE_MEM_UNDEFINED: usize = BASE + 1;
const MAKE_MEM_DEFINED: usize = BASE + 2;

/// Marks memory as secret.
pub fn hide(secret: *const [u8]) {
    request(MAKE_MEM_UNDEFINED, secret);
}

/// Marks memory as public.
pub fn publish<T>(public: *const [T]) {
    request(MAKE_MEM_DEFINED, public);
}

/// The same value, marked as public.
pub fn published<T: Copy>(value: T) -> T {
    let mut copy = [value];
    publish(&raw mut copy[..]);
    copy[0]
}

/// A client request (`valgrind/valgrind.h`): rotations without effect, which Valgrind recognises.
fn request<T>(request: usize, memory: *const [T]) {
    let start = memory.cast::<T>() as usize;
    let arguments = [request, start, memory.len() * size_of::<T>(), 0, 0, 0];
    // SAFETY: the rotations add up to 128 bits and the exchange is with itself, so that only the
    // result register changes.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &arguments,
            inout("rdx") 0_usize => _,
        );
    }
}
