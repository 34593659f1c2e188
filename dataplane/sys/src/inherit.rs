//! Open descriptors and ignored signals that the parent process has left to this one. For control
//! only.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::SigSet;

/// Takes over the inherited descriptor `number` and makes it close-on-exec.
///
/// Must be called at most once per number, early in the process, with a number that the parent has
/// passed (`WG_TUN_FD`, `WG_UAPI_FD`).
///
/// # Errors
/// EBADF: no such descriptor is open, or it is a standard stream (0 to 2).
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: borrowed for one call, which fails with EBADF if the descriptor is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: the descriptor is open, and inherited, so nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor but the standard streams and `kept`.
///
/// Must be called before this process has opened a descriptor of its own.
///
/// # Errors
/// EPERM, ENOSYS: a seccomp profile refuses close_range(2).
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|&fd| u32::try_from(fd).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and the descriptors have no owner in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the parent has left the signal with this number ignored, as nohup(1) does with SIGHUP
/// and a shell with SIGINT for its background jobs.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: `struct sigaction` is plain data; all zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action, the kernel only fills the structure with the current one.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Lets a program start with no signal blocked: it would inherit those of the calling thread.
pub fn unblock_signals(command: &mut Command) -> &mut Command {
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec, it makes one system call and allocates nothing.
    unsafe { command.pre_exec(unblock) }
}

/// Ends the ignoring of a signal: it has its default effect again.
///
/// # Errors
/// EINVAL: no such signal.
pub fn restore_default(signal: i32) -> io::Result<()> {
    // SAFETY: `struct sigaction` is plain data; all zeros are valid, and mean SIG_DFL.
    let action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel only reads the structure; no handler is installed.
    let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn takes_an_open_descriptor_and_refuses_a_closed_one() {
        let number = std::fs::File::open("/dev/null").expect("readable").into_raw_fd();
        let taken = take(number).expect("open");
        assert_eq!(taken.as_raw_fd(), number);
        assert!(take(1 << 20).is_err(), "not open");
        assert!(take(1).is_err(), "fd 1 must be rejected");
    }

    #[test]
    fn an_ignored_signal_is_recognized() {
        assert!(is_ignored(libc::SIGPIPE), "Rust programs ignore it");
        assert!(!is_ignored(libc::SIGTERM));
        assert!(!is_ignored(-1), "not a signal");
    }
}
