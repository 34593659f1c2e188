//! The share of a CPU that a thread gets next to others (sched(7)).

use std::io;

/// Raises the nice value of the calling thread, and of threads that it starts later, by `steps`:
/// it leaves the CPU to others while they need it. Each step is a tenth of the share of a thread
/// that is always ready to run.
///
/// # Errors
/// EPERM, EACCES: refused by a seccomp profile or a security module.
pub fn be_nicer(steps: i32) -> io::Result<()> {
    /// The calling thread: Linux counts threads where POSIX counts processes.
    const THIS: libc::id_t = 0;
    // SAFETY: neither call refers to memory.
    unsafe {
        // It cannot fail: a thread always finds itself.
        let now = libc::getpriority(libc::PRIO_PROCESS, THIS);
        if libc::setpriority(libc::PRIO_PROCESS, THIS, now + steps) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        // SAFETY: the call does not refer to memory.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn only_the_calling_thread_and_its_children_are_nicer() {
        let before = nice();
        let inside = std::thread::spawn(|| {
            be_nicer(2).expect("allowed");
            [nice(), std::thread::spawn(nice).join().expect("no panic")]
        });
        let expected = (before + 2).min(19);
        assert_eq!(inside.join().expect("no panic"), [expected, expected]);
        assert_eq!(nice(), before);
    }
}
