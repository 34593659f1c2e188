//! Work in the network namespace of the interface, which may be moved at any time.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

/// Runs `work` in `namespace`, on a thread of its own: a thread belongs to one namespace, and the
/// UDP sockets must stay in the one where the daemon was started.
///
/// # Errors
/// Those of setns(2) (EPERM: CAP_SYS_ADMIN is needed to enter another namespace), and of `work`.
pub fn run_in<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let is_ours = is_current(namespace);
    thread::scope(|scope| {
        let run = || {
            if !is_ours {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            }
            work()
        };
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Moves the calling thread into `namespace`, unless it is already there.
///
/// # Errors
/// As for [`run_in`].
pub fn enter(namespace: &OwnedFd) -> io::Result<()> {
    if !is_current(namespace) {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

/// Whether the calling thread is in `namespace`. To enter its own one, a thread needs a capability
/// that a container may lack, so callers check first.
pub fn is_current(namespace: &OwnedFd) -> bool {
    let Ok(current) = fs::metadata("/proc/thread-self/ns/net") else { return false };
    fstat(namespace).is_ok_and(|that| (that.st_dev, that.st_ino) == (current.dev(), current.ino()))
}

/// Keeps the kernel from sending packets of its own into the tunnel: router solicitations and MLD
/// reports of an automatic link-local address, and redirects when it forwards a packet back out of
/// the interface. The kernel module does the same when its interface comes up.
///
/// Must be called in the namespace of the interface. Best effort: /proc/sys may be read-only.
pub fn suppress_link_noise(interface: &str) {
    const ADDR_GEN_MODE_NONE: &str = "1";
    let settings = [
        (format!("/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode"), ADDR_GEN_MODE_NONE),
        (format!("/proc/sys/net/ipv4/conf/{interface}/send_redirects"), "0"),
    ];
    for (path, value) in settings {
        if let Err(error) = fs::write(&path, value) {
            log::debug!("interface {interface}: cannot write {value} to {path}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_needs_no_entering() {
        let namespace = fs::File::open("/proc/thread-self/ns/net").expect("readable").into();
        assert!(is_current(&namespace));
        assert_eq!(run_in(&namespace, || Ok(7)).expect("no setns"), 7);
        let other = fs::File::open("/proc/thread-self/ns/mnt").expect("readable").into();
        assert!(!is_current(&other));
    }

    #[test]
    fn errors_of_the_work_come_back() {
        let namespace = fs::File::open("/proc/thread-self/ns/net").expect("readable").into();
        let result: io::Result<()> = run_in(&namespace, || Err(io::Error::other("refused")));
        assert_eq!(result.expect_err("refused").to_string(), "refused");
    }
}
