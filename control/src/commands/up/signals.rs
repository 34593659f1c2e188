//! The signals of this process, and children that it waits for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitStatus};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use wg_bounce_sys::inherit;

/// The blocked signals.
pub(super) struct Signals {
    descriptor: SignalFd,
    /// Those that were read while a child was waited for.
    waiting: VecDeque<Signal>,
}

impl Signals {
    /// Blocks the signals that this process acts on. Those of the terminal that the caller has set
    /// to be ignored stay so. SIGCHLD must not be ignored, else the kernel keeps no exit codes.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn block() -> io::Result<Signals> {
        inherit::restore_default(Signal::SIGCHLD as i32)?;
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGUSR1] {
            signals.add(signal);
        }
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
            if !inherit::is_ignored(signal as i32) {
                signals.add(signal);
            }
        }
        signals.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&signals, flags)?;
        Ok(Signals { descriptor, waiting: VecDeque::new() })
    }

    /// The next signal but SIGCHLD; never blocks.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn next(&mut self) -> io::Result<Option<Signal>> {
        match self.waiting.pop_front() {
            Some(signal) => Ok(Some(signal)),
            None => self.read(),
        }
    }

    /// Whether there is one that the descriptor reports no more.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn read(&mut self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.descriptor.read_signal()? {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(signal) => return Ok(Some(signal)),
            }
        }
        Ok(None)
    }

    /// Waits until a child has ended. A signal that ends this process ends the child too, so that
    /// one that hangs does not hold everything up.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn wait(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        loop {
            // First, so that no SIGCHLD is lost that comes after the look at the child.
            while let Some(signal) = self.read()? {
                if ![Signal::SIGHUP, Signal::SIGUSR1].contains(&signal) {
                    // It has not been waited for, so its number is still its own.
                    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                }
                self.waiting.push_back(signal);
            }
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
