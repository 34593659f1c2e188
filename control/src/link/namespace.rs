//! Work in the network namespace of the interface, which may be moved at any time.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread;

use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sys::stat::fstat;
pub use wg_bounce_sys::namespace::{current, enter};

use crate::netlink::attribute::need;
use crate::netlink::message::{Protocol, Request};
use crate::netlink::numbers::{IFLA_INET_CONF, IPV4_DEVCONF_SEND_REDIRECTS, NETNSA_NSID};
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
/// Must be called in the namespace of the interface. Best effort. It uses netlink, because in many
/// containers /proc/sys is read-only.
pub fn suppress_link_noise(interface: &str) {
    let send_redirects = DefaultNla::new(IPV4_DEVCONF_SEND_REDIRECTS, vec![0; 4]);
    let mut settings = vec![0; send_redirects.buffer_len()];
    send_redirects.emit(&mut settings);
    let settings = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF, settings));
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    // Two requests: without IPv6 on the interface, the kernel refuses the second one.
    for family in [AfSpecUnspec::Inet(vec![settings]), AfSpecUnspec::Inet6(vec![none])] {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(interface.to_owned()));
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![family]));
        let request = Request::change_route(&RouteNetlinkMessage::SetLink(link));
        let result = NetlinkSocket::open(Protocol::Route, &[])
            .and_then(|mut socket| socket.request(&request));
        if let Err(error) = result {
            log::debug!("interface {interface}: cannot keep the kernel silent: {error}");
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
