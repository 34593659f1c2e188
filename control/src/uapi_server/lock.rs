//! The lock under which a socket's file is replaced: of two starts that find the same stale socket,
//! only one may replace it.
//!
//! It is a file of its own that only its owner can open. The directory itself will not do: any user
//! can hold a lock on it where it is readable for all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use wg_bounce_sys::clock::{self, Millis};

use crate::limits::UAPI_LOCK_PAUSE;

/// The lock of one interface's name; dropping it releases it and removes its file.
pub(super) struct NameLock {
    path: PathBuf,
    _file: Flock<File>,
}

impl NameLock {
    /// The path of the lock of `name`.
    pub(super) fn path(directory: &Path, name: &str) -> PathBuf {
        directory.join(format!(".{name}.lock"))
    }

    /// Waits for the lock of `name`, for at most `patience`. The file of a process that was killed
    /// is used again: the kernel has released its lock.
    ///
    /// # Errors
    /// `TimedOut`: another process holds it. Others are those of opening the file.
    pub(super) fn acquire(directory: &Path, name: &str, patience: Millis) -> io::Result<NameLock> {
        let path = NameLock::path(directory, name);
        let deadline = clock::boot_time() + patience;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Otherwise the last holder has removed this file: it locks nothing.
                Ok(file) if is_at(&file, &path)? => return Ok(NameLock { path, _file: file }),
                Ok(_) | Err((_, Errno::EAGAIN | Errno::EINTR)) => {}
                Err((_, errno)) => return Err(errno.into()),
            }
            if clock::boot_time() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(UAPI_LOCK_PAUSE);
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // While it is still locked, so that it is not another process's.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    let that = fs::symlink_metadata(path);
    Ok(that.is_ok_and(|that| (that.dev(), that.ino()) == (ours.dev(), ours.ino())))
}
