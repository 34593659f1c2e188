//! The scheduler's parameters of a thread (sched(7), sched_setattr(2)).

use std::io;

use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr, syscall};

/// The shortest time slice that the kernel grants, in nanoseconds (kernel/sched/syscalls.c).
const SLICE_MIN: u64 = 100_000;

/// Asks for the shortest time slice for the calling thread. When it wakes, it preempts threads of
/// its core that have a longer one, instead of waiting for the end of theirs (`PREEMPT_SHORT`,
/// kernel/sched/features.h); its share of the CPU stays the same. Kernels before 6.12 ignore it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`]: the thread's policy is not SCHED_OTHER. EPERM or ENOSYS: a
/// seccomp profile.
pub fn request_short_slice() -> io::Result<()> {
    let mut attributes = own_attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    attributes.sched_runtime = SLICE_MIN;
    // SAFETY: `attributes` is valid for `attributes.size` bytes; 0 is the calling thread.
    let result = unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn own_attributes() -> io::Result<sched_attr> {
    let size = size_of::<sched_attr>() as u32;
    let mut attributes = sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` is valid for `size` bytes; 0 is the calling thread.
    let result = unsafe { syscall(SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_slice_leaves_the_nice_value() {
        let thread = std::thread::spawn(|| {
            // SAFETY: no pointer is passed.
            assert_ne!(unsafe { libc::nice(3) }, -1);
            let before = own_attributes().expect("nothing denies it");
            request_short_slice().expect("nothing denies it");
            let after = own_attributes().expect("nothing denies it");
            assert_eq!((after.sched_policy, after.sched_nice), (0, before.sched_nice));
            // Older kernels report none.
            assert!([0, SLICE_MIN].contains(&after.sched_runtime), "{}", after.sched_runtime);
        });
        thread.join().expect("no panic");
    }
}
