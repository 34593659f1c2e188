//! Why the daemon could not start: what happened, and what to do about it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;
use wg_bounce_dataplane::engine::StartError;

use crate::uapi_server::socket::SocketError;

/// A start that failed, or a daemon that could not go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// No CAP_NET_ADMIN.
    NotPrivileged,
    /// /dev/net/tun is missing.
    NoTunDevice,
    /// /dev/net/tun is there, but closed to us.
    TunDenied(io::Error),
    /// An interface of this name exists.
    NameTaken,
    /// The kernel refused the interface for another reason.
    Tun(io::Error),
    /// `WG_TUN_FD` is not usable.
    TunDescriptor {
        /// Its value.
        number: RawFd,
        /// Why.
        source: io::Error,
    },
    /// `WG_UAPI_FD` is not usable.
    SocketDescriptor {
        /// Its value.
        number: RawFd,
        /// Why.
        source: io::Error,
    },
    /// The configuration socket.
    Socket(SocketError),
    /// The workers.
    Engine(StartError),
    /// Another system call failed.
    System {
        /// What it was for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The child in the background.
    Background(io::Error),
    /// The daemon ran, and then could not go on.
    Ended(String),
}

impl Failure {
    /// What an error of making the interface means.
    pub(super) fn tun(error: io::Error, has_net_admin: bool) -> Failure {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) if !has_net_admin => Failure::NotPrivileged,
            Some(Errno::EPERM | Errno::EACCES) => Failure::TunDenied(error),
            // ENODEV, ENXIO: the file is there and the driver is not.
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => Failure::NoTunDevice,
            // EINVAL: an interface that is no TUN has the name; the name itself was checked.
            Some(Errno::EBUSY | Errno::EEXIST | Errno::EINVAL) => Failure::NameTaken,
            _ => Failure::Tun(error),
        }
    }

    /// For errors of system calls that nobody expects.
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
        move |source| Failure::System { what, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotPrivileged => f.write_str(
                "not permitted to make an interface: run as root, or with CAP_NET_ADMIN",
            ),
            Failure::NoTunDevice => f.write_str(
                "there is no /dev/net/tun: load the module (modprobe tun); \
                 for a container, add --device /dev/net/tun",
            ),
            Failure::TunDenied(source) => write!(
                f,
                "/dev/net/tun refuses us ({source}): for a container, add --device /dev/net/tun \
                 --cap-add NET_ADMIN; else see the rules of the security module"
            ),
            Failure::NameTaken => f.write_str(
                "an interface of this name exists: delete it (ip link delete) or choose another \
                 name",
            ),
            Failure::Tun(source) => write!(f, "cannot make the interface: {source}"),
            Failure::TunDescriptor { number, source } => {
                write!(f, "WG_TUN_FD={number} is no usable TUN descriptor: {source}")
            }
            Failure::SocketDescriptor { number, source } => {
                write!(f, "WG_UAPI_FD={number} is no usable listening socket: {source}")
            }
            Failure::Socket(error) => error.fmt(f),
            Failure::Engine(error) => engine(error, f),
            Failure::System { what, source } => write!(f, "cannot {what}: {source}"),
            Failure::Background(source) => {
                write!(f, "cannot start in the background: {source}; --foreground works without")
            }
            Failure::Ended(reason) => f.write_str(reason),
        }
    }
}

fn engine(error: &StartError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let source = match error {
        StartError::AeadUnavailable(error) => {
            return write!(f, "{error}: --aead auto takes what there is");
        }
        StartError::UringRefused(source) => source,
        StartError::Resources(source) => {
            return write!(f, "cannot start the workers: {source}; fewer --workers need less");
        }
    };
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEM) => write!(
            f,
            "too little locked memory for io_uring ({source}): raise the limit (ulimit -l; \
             systemd: LimitMEMLOCK=), lower --buffers, or use --io mmsg"
        ),
        Some(Errno::EPERM | Errno::EACCES) => write!(
            f,
            "io_uring is refused ({source}): see the sysctl kernel.io_uring_disabled and the \
             container's seccomp profile, or use --io mmsg"
        ),
        _ => write!(f, "this kernel's io_uring does not suffice ({source}): use --io mmsg"),
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
            (Errno::ENOMEM, true, "cannot make the interface"),
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
            (Errno::ENOSYS, "does not suffice"),
            (Errno::EINVAL, "does not suffice"),
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
