//! Work in the network namespace of the interface, which may be moved at any time.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sys::stat::fstat;
pub use wg_bounce_sys::namespace::{current, enter};

use crate::netlink::attribute::need;
use crate::netlink::message::{Protocol, Request};
use crate::netlink::numbers::NETNSA_NSID;
use crate::netlink::parse::malformed;
use crate::netlink::socket::NetlinkSocket;

/// Runs `work` in `namespace`: if that is not the calling thread's own, on a short-lived thread,
/// since whatever stays there keeps the namespace alive.
///
/// # Errors
/// Those of setns(2) (EPERM: CAP_SYS_ADMIN is needed to enter another namespace), and of `work`.
pub fn run_in<T: Send>(
    namespace: &OwnedFd,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    if is_current(namespace) {
        return work();
    }
    thread::scope(|scope| {
        let run = || {
            enter(namespace)?;
            work()
        };
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Whether the calling thread is in `namespace`. To enter its own one, a thread needs a capability
/// that a container may lack, so callers check first.
pub fn is_current(namespace: &OwnedFd) -> bool {
    let Ok(current) = fs::metadata("/proc/thread-self/ns/net") else { return false };
    fstat(namespace).is_ok_and(|that| (that.st_dev, that.st_ino) == (current.dev(), current.ino()))
}

/// Lets `sockets` of the calling thread's own namespace receive the events of `namespace`.
///
/// # Errors
/// EPERM: no CAP_NET_BROADCAST, which is needed for another namespace.
pub fn follow(namespace: &OwnedFd, sockets: &mut [&mut NetlinkSocket]) -> io::Result<()> {
    if is_current(namespace) {
        return Ok(());
    }
    let id = id_of(namespace)?;
    sockets.iter_mut().try_for_each(|socket| socket.follow(id))
}

/// The id of `namespace` in the calling thread's own one; it is assigned if there is none yet.
///
/// # Errors
/// EPERM: no CAP_NET_ADMIN. EMFILE, ENFILE: too many open files.
fn id_of(namespace: &OwnedFd) -> io::Result<i32> {
    let message = |id: Option<i32>| {
        let mut message = NsidMessage::default();
        message.attributes.extend(id.map(NsidAttribute::Id));
        message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
        message
    };
    let mut socket = NetlinkSocket::open(Protocol::Route, &[])?;
    let assign = Request::change_route(&RouteNetlinkMessage::NewNsId(message(Some(-1))));
    match socket.request(&assign) {
        // EEXIST: it has one.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let ask = Request::get_route(&RouteNetlinkMessage::GetNsId(message(None)));
    let reply = socket.request(&ask)?;
    let (_, attributes) = reply.messages.first().ok_or_else(malformed)?.split(4)?;
    Ok(need(&attributes, NETNSA_NSID)?.u32()?.cast_signed())
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
    fn our_own_namespace_gets_an_id_once() {
        let namespace = fs::File::open("/proc/thread-self/ns/net").expect("readable").into();
        // Without CAP_NET_ADMIN none is assigned.
        let Ok(id) = id_of(&namespace) else { return };
        assert_eq!(id_of(&namespace).expect("it has one"), id);
    }

    #[test]
    fn errors_of_the_work_come_back() {
        let namespace = fs::File::open("/proc/thread-self/ns/net").expect("readable").into();
        let result: io::Result<()> = run_in(&namespace, || Err(io::Error::other("refused")));
        assert_eq!(result.expect_err("refused").to_string(), "refused");
    }
}
