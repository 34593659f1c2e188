//! Start-up errors: the failed operation, and the remedy.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;
use wg_bounce_dataplane::engine::StartError;

use crate::noise::Unavailable;
use crate::uapi_server::socket::SocketError;

/// A failed start, or a fatal error of the running daemon.
#[derive(Debug)]
pub(super) enum Failure {
    /// No CAP_NET_ADMIN.
    NotPrivileged,
    /// /dev/net/tun is missing.
    NoTunDevice,
    /// /dev/net/tun exists, but access to it is denied.
    TunDenied(io::Error),
    /// An interface with this name exists.
    NameTaken,
    /// The kernel refused to create the interface for another reason.
    Tun(io::Error),
    /// `WG_TUN_FD` is not usable.
    TunDescriptor {
        /// Its value.
        number: RawFd,
        /// The error.
        source: io::Error,
    },
    /// `WG_UAPI_FD` is not usable.
    SocketDescriptor {
        /// Its value.
        number: RawFd,
        /// The error.
        source: io::Error,
    },
    /// The UAPI socket cannot be used.
    Socket(SocketError),
    /// Metrics cannot be served.
    #[cfg(feature = "metrics")]
    Metrics {
        /// The place where they should be.
        place: String,
        /// The error.
        source: io::Error,
    },
    /// The workers cannot be started.
    Engine(StartError),
    /// The implementation of X25519 does not run here.
    Dh(Unavailable),
    /// Another system call failed.
    System {
        /// The failed operation, as an infinitive.
        what: &'static str,
        /// The error.
        source: io::Error,
    },
    /// The child in the background failed.
    Background(io::Error),
    /// The running daemon failed.
    Ended(String),
}

impl Failure {
    /// The failure behind an error of creating the interface.
    pub(super) fn tun(error: io::Error, has_net_admin: bool) -> Failure {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) if !has_net_admin => Failure::NotPrivileged,
            Some(Errno::EPERM | Errno::EACCES) => Failure::TunDenied(error),
            // ENODEV, ENXIO: the file exists, but the driver is missing.
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Failure::NoTunDevice,
            // EINVAL: an interface that is not a TUN has the name; the name itself was checked.
            Some(Errno::EBUSY | Errno::EEXIST | Errno::EINVAL) => Failure::NameTaken,
            _ => Failure::Tun(error),
        }
    }

    /// Whether another process holds the interface's name or its socket.
    pub(super) fn is_name_taken(&self) -> bool {
        matches!(self, Failure::NameTaken | Failure::Socket(SocketError::InUse(_)))
    }

    /// For errors of system calls that are not expected to fail.
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
        move |source| Failure::System { what, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotPrivileged => f.write_str(
                "not permitted to create an interface: run as root or with CAP_NET_ADMIN",
            ),
            Failure::NoTunDevice => f.write_str(
                "/dev/net/tun does not exist: load the kernel module (modprobe tun); \
                 in a container, add --device /dev/net/tun",
            ),
            Failure::TunDenied(source) => write!(
                f,
                "cannot open /dev/net/tun: {source}; in a container, add --device /dev/net/tun \
                 --cap-add NET_ADMIN, otherwise check the SELinux or AppArmor policy"
            ),
            Failure::NameTaken => f.write_str(
                "an interface with this name exists: delete it (ip link delete) or choose another \
                 name",
            ),
            Failure::Tun(source) => write!(f, "cannot create the interface: {source}"),
            Failure::TunDescriptor { number, source } => {
                write!(f, "WG_TUN_FD={number} is not a usable TUN file descriptor: {source}")
            }
            Failure::SocketDescriptor { number, source } => {
                write!(f, "WG_UAPI_FD={number} is not a usable listening socket: {source}")
            }
            Failure::Socket(error) => error.fmt(f),
            #[cfg(feature = "metrics")]
            Failure::Metrics { place, source } => {
                write!(f, "cannot serve metrics at {place}: {source}")
            }
            Failure::Engine(error) => engine(error, f),
            Failure::Dh(error) => write!(f, "{error}; use --dh auto to pick a supported one"),
            Failure::System { what, source } => write!(f, "cannot {what}: {source}"),
            Failure::Background(source) => {
                write!(f, "cannot daemonize: {source}; try --foreground")
            }
            Failure::Ended(reason) => f.write_str(reason),
        }
    }
}

fn engine(error: &StartError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let source = match error {
        StartError::AeadUnavailable(error) => {
            return write!(f, "{error}; use --aead auto to pick a supported one");
        }
        StartError::UringRefused(source) => source,
        StartError::Resources(source) => {
            return write!(f, "cannot start the workers: {source}; try fewer --workers");
        }
    };
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEM) => write!(
            f,
            "not enough locked memory for io_uring ({source}): raise the limit (ulimit -l; \
             systemd: LimitMEMLOCK=), lower --buffers, or use --io mmsg"
        ),
        Some(Errno::EPERM | Errno::EACCES) => write!(
            f,
            "io_uring is not permitted ({source}): check the sysctl kernel.io_uring_disabled and \
             the container's seccomp profile, or use --io mmsg"
        ),
        _ => write!(f, "this kernel's io_uring is too old ({source}): use --io mmsg"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_interface_says_what_to_do() {
        let cases = [
            (Errno::EPERM, false, "run as root"),
            (Errno::EACCES, false, "CAP_NET_ADMIN"),
            (Errno::EPERM, true, "--device /dev/net/tun"),
            (Errno::ENOENT, true, "modprobe tun"),
            (Errno::ENODEV, true, "modprobe tun"),
            (Errno::EBUSY, true, "choose another name"),
            (Errno::EINVAL, true, "ip link delete"),
            (Errno::ENOMEM, true, "cannot create the interface"),
        ];
        for (errno, has_net_admin, hint) in cases {
            let text = Failure::tun(errno.into(), has_net_admin).to_string();
            assert!(text.contains(hint), "{errno}: {text}");
        }
    }

    #[test]
    fn refusals_of_io_uring_say_what_to_do() {
        let cases = [
            (Errno::ENOMEM, "ulimit -l"),
            (Errno::EPERM, "io_uring_disabled"),
            (Errno::ENOSYS, "too old"),
            (Errno::EINVAL, "too old"),
        ];
        for (errno, hint) in cases {
            let text = Failure::Engine(StartError::UringRefused(errno.into())).to_string();
            assert!(text.contains(hint) && text.contains("--io mmsg"), "{errno}: {text}");
        }
        let text = Failure::Engine(StartError::Resources(Errno::EMFILE.into())).to_string();
        assert!(text.contains("--workers"), "{text}");
    }

    #[test]
    fn descriptors_are_named_by_their_variable() {
        let source = || io::Error::from(Errno::EBADF);
        let tun = Failure::TunDescriptor { number: 7, source: source() }.to_string();
        assert!(tun.starts_with("WG_TUN_FD=7"), "{tun}");
        let socket = Failure::SocketDescriptor { number: 8, source: source() }.to_string();
        assert!(socket.starts_with("WG_UAPI_FD=8"), "{socket}");
    }
}
