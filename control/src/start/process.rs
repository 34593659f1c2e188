//! Settings of the whole process: descriptors, signals, resource limits, protection of its memory.

use std::env;
use std::io;
use std::os::fd::RawFd;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::getppid;
use wg_bounce_sys::inherit;

use crate::commands::PARENT;

/// Protects the keys in memory from core dumps and debuggers, and raises resource limits to their
/// maximum. None of this is required to run: failures are logged.
pub(super) fn harden() {
    // A start in the background executes /proc/self/exe; ps(1) must still show the program.
    if let Err(errno) = prctl::set_name(c"wg-bounce") {
        log::debug!("process: cannot set the name: {errno}");
    }
    match prctl::set_dumpable(false) {
        Ok(()) => log::debug!("process: core dumps and debuggers disabled (PR_SET_DUMPABLE)"),
        Err(errno) => {
            log::warn!("process: cannot disable core dumps, they may contain keys: {errno}")
        }
    }
    // Rings and their buffers count against MEMLOCK, descriptors of workers and clients against
    // NOFILE.
    for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NOFILE] {
        let raised = getrlimit(resource).and_then(|(soft, hard)| {
            setrlimit(resource, hard, hard)?;
            Ok((soft, hard))
        });
        match raised {
            Ok((soft, hard)) if soft == hard => {}
            Ok((soft, hard)) => log::debug!("process: {resource:?} raised from {soft} to {hard}"),
            Err(errno) => log::debug!("process: cannot raise {resource:?}: {errno}"),
        }
    }
}

/// Lets this process end with `wg-bounce up`, if that has started it: what it has set up would be
/// left behind. A change of privileges would undo this, so they must be reduced first. Returns the
/// parent's process id.
///
/// # Errors
/// The parent has ended already.
pub(super) fn end_with_parent() -> io::Result<Option<u32>> {
    let Some(parent) = env::var_os(PARENT) else { return Ok(None) };
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    let pid = getppid();
    match pid.to_string().as_str() == parent {
        true => Ok(u32::try_from(pid.as_raw()).ok()),
        false => Err(io::Error::other("it has ended")),
    }
}

/// Closes every inherited descriptor but the standard streams and `kept`: the daemon outlives its
/// caller, and must not hold the caller's locks and pipes.
pub(super) fn close_inherited(kept: &[RawFd]) {
    if let Err(error) = inherit::close_all_but(kept) {
        log::warn!("process: cannot close inherited file descriptors: {error}");
    }
}

/// Blocks the signals that stop the daemon, and the one that requests its counters, in this and all
/// later threads. Returns the descriptor that reports them.
///
/// Signals of the terminal that the caller has set to be ignored stay so: SIGHUP under nohup(1),
/// SIGINT and SIGQUIT in a background job of a script. A blocked signal would be reported even if
/// it is ignored.
pub(super) fn block_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGUSR1);
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
        if inherit::is_ignored(signal as i32) {
            log::debug!("process: {signal} is ignored, as the caller has set it");
        } else {
            signals.add(signal);
        }
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
