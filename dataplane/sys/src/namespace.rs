//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

/// Names a network namespace without keeping it alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// The id of the namespace behind a descriptor.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(namespace: &OwnedFd) -> io::Result<NamespaceId> {
        let status = fstat(namespace)?;
        Ok(NamespaceId { device: status.st_dev, inode: status.st_ino })
    }
}

/// The namespace of the calling thread.
///
/// # Errors
/// ENOENT: /proc is not mounted. EMFILE, ENFILE: too many open files.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Moves the calling thread into `namespace`.
///
/// # Errors
/// EPERM: no CAP_SYS_ADMIN there.
pub fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?)
}
