//! UDP sockets: one group per family, one member per worker, steered by receiver index.
//!
//! The first member is bound without SO_REUSEPORT, so that a port in use is refused even to a
//! second process of the same user. Then it gets the option, and the other members join.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Once;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, getsockopt, setsockopt,
    socket, sockopt,
};

use crate::calls;
use crate::endpoint::Endpoint;
use crate::io::{Errno, OuterHeader, last_errno};
use crate::per_family::PerFamily;
use crate::send_header::{SendBlock, empty_header};

/// Excess over the bound that [`send_over_limit`] allows (bytes in flight).
const EXCESS_LEN: usize = 4 << 20;

/// One group: the members of all workers for one family.
pub type Group = Vec<OwnedFd>;

/// The sockets of one listen port.
pub struct Bound {
    /// The port, the same for both families.
    pub port: u16,
    /// The members, one per worker; none for a family that the kernel lacks.
    pub groups: PerFamily<Option<Group>>,
}

/// A kind of message whose receiver index names the worker that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct SteeringRule {
    /// Their first byte.
    pub message_type: u8,
    /// Offset of the byte that holds the worker's number (bytes).
    pub worker_at: u8,
}

/// Options of the sockets of a group.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// The messages that are steered to a member by number.
    pub steering: &'static [SteeringRule],
    /// Bytes of the shortest message: shorter datagrams are dropped by the kernel.
    pub length_min: usize,
    /// Sockets per family.
    pub members: usize,
    /// SO_MARK; zero is none.
    pub fwmark: u32,
    /// Whether to receive trains (UDP_GRO).
    pub gro: bool,
    /// Receive buffer to request (bytes).
    pub buffer: usize,
    /// Bytes in flight at most, see [`bound_in_flight`].
    pub in_flight: usize,
}

/// Random ports to try: another process may hold a port in the other family.
const RANDOM_PORT_TRIES: usize = 32;

/// Binds both families to `port`; zero lets the kernel choose one that is free in both.
///
/// # Errors
/// EADDRINUSE: another process holds the port. EACCES: a port below 1024 needs
/// CAP_NET_BIND_SERVICE. EPERM: a mark needs CAP_NET_ADMIN. EAFNOSUPPORT: the kernel has neither
/// IPv4 nor IPv6. EMFILE, ENFILE: too many open files.
pub fn bind_groups(port: u16, options: &GroupOptions) -> io::Result<Bound> {
    for _ in 0..RANDOM_PORT_TRIES {
        let v4 = absent_is_none(bind_group(Ipv4Addr::UNSPECIFIED.into(), port, options))?;
        let chosen = match &v4 {
            Some((_, chosen)) => *chosen,
            None => port,
        };
        match absent_is_none(bind_group(Ipv6Addr::UNSPECIFIED.into(), chosen, options)) {
            Err(error) if port == 0 && error.raw_os_error() == Some(libc::EADDRINUSE) => continue,
            Err(error) => return Err(error),
            Ok(v6) => {
                let port = v6.as_ref().map_or(chosen, |(_, port)| *port);
                let groups = PerFamily { v4, v6 }.map(|bound| bound.map(|(group, _)| group));
                let all = || groups.v4.iter().chain(&groups.v6);
                if all().next().is_none() {
                    return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
                }
                if options.fwmark != 0 {
                    set_mark(all().flatten(), options.fwmark)?;
                }
                return Ok(Bound { port, groups });
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::EADDRINUSE))
}

/// Sets SO_MARK on all sockets.
///
/// # Errors
/// EPERM: no CAP_NET_ADMIN.
pub fn set_mark<'a>(sockets: impl Iterator<Item = &'a OwnedFd>, fwmark: u32) -> io::Result<()> {
    for socket in sockets {
        setsockopt(socket, sockopt::Mark, &fwmark)?;
    }
    Ok(())
}

/// `None` where the host lacks the family. EAFNOSUPPORT: the kernel lacks it. EADDRNOTAVAIL: it is
/// disabled (`net.ipv6.conf.all.disable_ipv6`). Everything else is an error.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => Ok(None),
            _ => Err(error),
        },
    }
}

fn bind_group(address: IpAddr, port: u16, options: &GroupOptions) -> io::Result<(Group, u16)> {
    let mut group = Group::with_capacity(options.members);
    let mut port = port;
    for member in 0..options.members {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Datagram, flags, None)?;
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        if member > 0 {
            setsockopt(&socket, sockopt::ReusePort, &true)?;
        }
        let local = SockaddrStorage::from(SocketAddr::new(address, port));
        bind(socket.as_raw_fd(), &local)?;
        if member == 0 {
            setsockopt(&socket, sockopt::ReusePort, &true)?;
            port = local_port(&socket)?;
        }
        configure(&socket, SocketAddr::new(address, port), options)?;
        group.push(socket);
    }
    if options.members > 1 {
        steer(&group[0], options.steering)?;
    }
    Ok((group, port))
}

fn local_port(socket: &OwnedFd) -> io::Result<u16> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(|a| a.port());
    let port = v4.or_else(|| address.as_sockaddr_in6().map(|a| a.port()));
    port.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

fn configure(socket: &OwnedFd, local: SocketAddr, options: &GroupOptions) -> io::Result<()> {
    grow(socket, local, options.buffer);
    bound_in_flight(socket, options.in_flight);
    let one: libc::c_int = 1;
    if local.is_ipv4() {
        set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, one)?;
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, one)?;
        // DF stays clear and a learned path MTU is ignored, as in the kernel module: a forged
        // "fragmentation needed" must not stop trains to a destination.
        set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
    } else {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, one)?;
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, one)?;
        // Routers do not fragment IPv6, so a learned path MTU counts, and this host fragments, as
        // in the kernel module. Explicit, since a kernel may have other defaults.
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT)?;
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
    }
    if options.gro
        && let Err(error) = set_int(socket, libc::SOL_UDP, libc::UDP_GRO, one)
    {
        log::warn!("{local}: cannot enable UDP_GRO ({error}); receiving datagrams one by one");
    }
    keep_out_short(socket, options.length_min)
}

/// Requests a large buffer: beyond the sysctl limit with CAP_NET_ADMIN, up to it without (EPERM).
fn grow(socket: &OwnedFd, local: SocketAddr, buffer: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &buffer).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &buffer);
    }
    let granted = getsockopt(socket, sockopt::RcvBuf).unwrap_or(0);
    // The kernel doubles the requested size, to account for its own overhead.
    log::debug!("{local}: receive buffer of {granted} bytes");
    // One line for all sockets.
    static WARNED: Once = Once::new();
    if granted < buffer {
        WARNED.call_once(|| {
            log::warn!(
                "receive buffers of only {granted} bytes, not {buffer}: bursts may be dropped; \
                 run with CAP_NET_ADMIN or raise net.core.rmem_max to {buffer}"
            );
        });
    }
}

/// Bytes that were sent and that the device has not released yet (SIOCOUTQ), in the kernel's own
/// unit (`truesize`: buffers, with their overhead). Zero for a device that takes over a packet at
/// once, such as veth without a queueing discipline.
pub fn in_flight(socket: &OwnedFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which lives until the call returns.
    unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    usize::try_from(bytes).unwrap_or(0)
}

/// Refuses sends (EAGAIN) while `bytes` or more are in flight, in the unit of [`in_flight`]. The
/// socket is writable again below half of that (`sock_writeable`, include/net/sock.h). Up to the
/// sysctl limit without CAP_NET_ADMIN.
pub fn bound_in_flight(socket: &OwnedFd, bytes: usize) {
    let half = bytes / 2; // the kernel doubles it
    if setsockopt(socket, sockopt::SndBufForce, &half).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &half);
    }
}

/// Instructions of classic BPF. A load out of bounds makes a program return 0.
mod bpf {
    const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }

    pub(super) const fn load_byte(at: u32) -> libc::sock_filter {
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, at)
    }
    pub(super) const LOAD_LENGTH: libc::sock_filter =
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0, 0, 0);
    /// Skips `skipped` instructions unless the loaded value is `value`.
    pub(super) const fn if_equal(value: u32, skipped: u8) -> libc::sock_filter {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skipped, value)
    }
    /// Skips `skipped` instructions unless the loaded value is at least `value`.
    pub(super) const fn if_at_least(value: u32, skipped: u8) -> libc::sock_filter {
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, skipped, value)
    }
    pub(super) const fn answer(value: u32) -> libc::sock_filter {
        step(libc::BPF_RET | libc::BPF_K, 0, 0, value)
    }
    pub(super) const ANSWER_LOADED: libc::sock_filter = step(libc::BPF_RET | 0x10, 0, 0, 0);
}

/// Attaches a classic BPF program that steers each message matched by a rule to the member that it
/// names. The kernel's hash distributes everything else (initiations, garbage).
fn steer(member: &OwnedFd, rules: &[SteeringRule]) -> io::Result<()> {
    // Offset 0 is the first byte of the UDP payload.
    let mut program = vec![bpf::load_byte(0)];
    for rule in rules {
        program.push(bpf::if_equal(rule.message_type.into(), 2));
        program.push(bpf::load_byte(rule.worker_at.into()));
        program.push(bpf::ANSWER_LOADED);
    }
    program.push(bpf::answer(u32::MAX)); // not a member: use the hash
    attach(member, libc::SO_ATTACH_REUSEPORT_CBPF, &mut program)
}

/// Attaches a classic BPF program that drops what is too short to be a message, before it takes
/// room in the socket: an empty datagram ends the multishot receive of a ring.
///
/// A train passes the program once, as a whole. Its total length is all that may be judged: a rule
/// about its first datagram would let a forged one take the others along.
fn keep_out_short(socket: &OwnedFd, length_min: usize) -> io::Result<()> {
    const UDP_HEADER_LEN: usize = 8; // part of the length that the program sees
    let mut program = [
        bpf::LOAD_LENGTH,
        bpf::if_at_least((UDP_HEADER_LEN + length_min) as u32, 1),
        bpf::answer(u32::MAX), // keep all bytes
        bpf::answer(0),        // drop
    ];
    attach(socket, libc::SO_ATTACH_FILTER, &mut program)
}

fn attach(socket: &OwnedFd, option: i32, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(socket, libc::SOL_SOCKET, option, &program)
}

fn set_int(socket: &OwnedFd, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    set_option(socket, level, option, &value)
}

fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`, and the BPF program that a
    // `sock_fprog` points to lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a send may have been refused because its source address has vanished. To find out, retry
/// without the source address.
/// - IPv6: EINVAL (`ip6_datagram_send_ctl`), or EADDRNOTAVAIL.
/// - IPv4: ENETUNREACH (`ip_route_output_key_hash_rcu`), or EINVAL on older kernels.
pub fn may_be_source(errno: Errno) -> bool {
    matches!(errno, libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL)
}

/// Sends like [`send_one`], but may exceed the bound of bytes in flight by up to 4 MiB.
///
/// # Errors
/// EAGAIN: the excess is used up too, or CAP_NET_ADMIN is missing. Others as for [`send_one`].
pub fn send_over_limit(
    socket: &OwnedFd,
    to: &Endpoint,
    outer: OuterHeader,
    payload: &[IoSlice<'_>],
) -> Result<(), Errno> {
    // Accepted race: a worker may change the bound meanwhile. It then restores an old one, until
    // the worker sets the next; at worst one send finds the socket full after all.
    let bound = getsockopt(socket, sockopt::SndBuf).map_err(|_| libc::EAGAIN)?;
    bound_in_flight(socket, bound + EXCESS_LEN);
    let result = send_one(socket.as_raw_fd(), to, outer, 0, payload);
    bound_in_flight(socket, bound);
    result
}

/// Sends one datagram or train outside a batch: a handshake message, or a retry after a refusal.
///
/// # Errors
/// - EAGAIN: the socket buffer is full; wait for room.
/// - EINVAL: the source address has vanished, or the device rejects GSO; retry without.
/// - EIO: the device cannot checksum, which GSO needs; retry without GSO.
/// - EMSGSIZE: longer than the path MTU.
/// - ENETUNREACH: no route, or the source address has vanished.
/// - EHOSTUNREACH: no route.
/// - EPERM: dropped by netfilter's output hook.
/// - ENOBUFS, ENOMEM: the device queue is full, or memory is short.
pub fn send_one(
    socket: RawFd,
    to: &Endpoint,
    outer: OuterHeader,
    segment_size: usize,
    payload: &[IoSlice<'_>],
) -> Result<(), Errno> {
    let mut block = SendBlock::EMPTY;
    let mut header = empty_header();
    block.fill(&mut header, to, outer, segment_size, payload);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: block and payload, to which the header points, live until the call returns.
        let sent = unsafe { calls::sendmsg(socket, &header, flags) };
        if sent >= 0 {
            return Ok(());
        }
        let errno = last_errno();
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
}
