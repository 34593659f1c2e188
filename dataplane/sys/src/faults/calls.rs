//! System calls that fail as planned.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::AsFd;

use nix::errno::Errno as NixErrno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

use super::plan::{Call, SIGNAL_INTERVAL, draw, draw_if, is_planned, random, undo};
use crate::io::Errno;

thread_local! {
    /// The errno of the message that the next sendmmsg(2) begins with.
    static REFUSED: Cell<Option<Errno>> = const { Cell::new(None) };
}

/// See `calls`.
pub(crate) fn epoll_wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: EpollTimeout,
) -> nix::Result<usize> {
    let pause = EpollTimeout::try_from(SIGNAL_INTERVAL).expect("short");
    let can_block = timeout == EpollTimeout::NONE || timeout > pause;
    while is_planned(Call::Wait) && can_block {
        if let Some(errno) = draw_if(Call::Wait, |errno| errno != libc::EINTR) {
            return Err(NixErrno::from_raw(errno));
        }
        // The kernel looks for signals when it has found no event.
        let count = epoll.wait(events, pause)?;
        if count > 0 {
            return Ok(count);
        }
        if let Some(errno) = draw_if(Call::Wait, |errno| errno == libc::EINTR) {
            return Err(NixErrno::from_raw(errno));
        }
    }
    epoll.wait(events, timeout)
}

/// See `recvmmsg` of libc.
///
/// # Safety
/// As there.
pub(crate) unsafe fn recvmmsg(
    socket: libc::c_int,
    headers: *mut libc::mmsghdr,
    count: libc::c_uint,
    flags: libc::c_int,
    timeout: *mut libc::timespec,
) -> libc::c_int {
    if let Some(errno) = draw(Call::Receive) {
        return fail(errno);
    }
    // SAFETY: the caller's arguments.
    unsafe { libc::recvmmsg(socket, headers, count, flags, timeout) }
}

/// See `sendmmsg` of libc. Messages before the one that fails are sent.
///
/// # Safety
/// As there.
pub(crate) unsafe fn sendmmsg(
    socket: libc::c_int,
    headers: *mut libc::mmsghdr,
    count: libc::c_uint,
    flags: libc::c_int,
) -> libc::c_int {
    let refused = REFUSED.take();
    if let Some(errno) = refused.or_else(|| draw(Call::Send)) {
        let before = match refused {
            Some(_) => 0,
            None => random() as u32 % count,
        };
        if before == 0 {
            return fail(errno);
        }
        // SAFETY: the caller's arguments, with fewer headers.
        let sent = unsafe { libc::sendmmsg(socket, headers, before, flags) };
        if sent == before as libc::c_int {
            REFUSED.set(Some(errno));
        }
        return sent;
    }
    // SAFETY: the caller's arguments.
    unsafe { libc::sendmmsg(socket, headers, count, flags) }
}

/// See `sendmsg` of libc.
///
/// # Safety
/// As there.
pub(crate) unsafe fn sendmsg(
    socket: libc::c_int,
    header: *const libc::msghdr,
    flags: libc::c_int,
) -> isize {
    if let Some(errno) = draw(Call::Send) {
        return fail(errno) as isize;
    }
    // SAFETY: the caller's arguments.
    unsafe { libc::sendmsg(socket, header, flags) }
}

/// See `nix`.
pub(crate) fn read(fd: impl AsFd, bytes: &mut [u8]) -> nix::Result<usize> {
    match draw(Call::TunRead) {
        Some(libc::EINVAL) => match nix::unistd::read(fd, bytes) {
            Ok(_) => Err(NixErrno::EINVAL),
            Err(errno) => {
                undo(Call::TunRead, libc::EINVAL);
                Err(errno)
            }
        },
        Some(errno) => Err(NixErrno::from_raw(errno)),
        None => nix::unistd::read(fd, bytes),
    }
}

/// See `nix`.
pub(crate) fn write(fd: impl AsFd, bytes: &[u8]) -> nix::Result<usize> {
    match draw(Call::TunWrite) {
        Some(errno) => Err(NixErrno::from_raw(errno)),
        None => nix::unistd::write(fd, bytes),
    }
}

/// See `nix`.
pub(crate) fn writev(fd: impl AsFd, pieces: &[IoSlice<'_>]) -> nix::Result<usize> {
    match draw(Call::TunWrite) {
        Some(errno) => Err(NixErrno::from_raw(errno)),
        None => nix::sys::uio::writev(fd, pieces),
    }
}

fn fail(errno: Errno) -> libc::c_int {
    NixErrno::from_raw(errno).set();
    -1
}
