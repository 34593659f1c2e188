//! Descriptors inherited from the parent process. For control only.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

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
}
