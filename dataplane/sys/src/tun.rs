//! The TUN device: creation, its queues, its name and namespace.
//!
//! Frames carry a virtio header of [`HEADER_LEN`] bytes (`TUNSETVNETHDRSZ`), which leaves room for
//! a WireGuard data header in front of the IP packet (Linux, include/uapi/linux/if_tun.h).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::calls;
use crate::io::{Errno, Frame, Ready};
use crate::memory::Slot;
use crate::retry::Retry;

/// Bytes in front of the IP packet of every frame: ten of virtio header, six of padding.
pub const HEADER_LEN: usize = 16;
/// Bytes of one frame buffer.
pub const FRAME_SLOT_LEN: usize = HEADER_LEN + 65_536 + 48;
/// MTU of a new interface (bytes), as in the kernel module: 1500 less the outer IPv6 and UDP
/// headers and the overhead of a data message.
pub const DEFAULT_MTU: i32 = 1420;
/// Smallest MTU of an interface with IPv6 (bytes; RFC 8200 §5).
const IPV6_MTU_MIN: i32 = 1280;
/// Length of a queue (frames). Super-packets of several flows arrive in bursts, and a full queue
/// drops the newest.
const QUEUE_LEN: i32 = 2048;

/// Offloads to request, best first: checksum, TSO4, TSO6, USO4 and USO6 (both or none).
const OFFLOADS: [libc::c_uint; 3] = [0x67, 0x07, 0x01];

mod ioctl {
    #![allow(missing_docs, reason = "the macros generate public functions without docs")]
    /// `_IO('T', 227)`: opens the network namespace of the device (Linux 5.3).
    const TUNGETDEVNETNS: libc::c_int = 0x54e3;
    nix::ioctl_write_int!(set_offload, b'T', 208);
    nix::ioctl_write_ptr!(set_header_len, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(set_interface, b'T', 202, libc::c_int);
    nix::ioctl_read!(get_interface, b'T', 210, libc::c_uint);
    nix::ioctl_none_bad!(get_namespace, TUNGETDEVNETNS);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue_len, libc::SIOCSIFTXQLEN, libc::ifreq);
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
}

const NAME_LEN: usize = libc::IFNAMSIZ;

/// One queue of the device.
pub struct Queue {
    /// Its file descriptor.
    pub fd: OwnedFd,
    /// Frames carry the virtio header. Without it (a descriptor from an older program) they are
    /// bare IP packets, and there are no offloads.
    pub has_header: bool,
    /// All queues of the device, by number, for writes. The kernel sends a flow to the queue that
    /// last wrote a packet of it, in either direction. So both directions are written to one
    /// queue, whichever workers decrypt them, and the flow stays there in order.
    pub writers: Arc<[OwnedFd]>,
}

impl Queue {
    /// The interface's current name, for log lines.
    pub(crate) fn name(&self) -> String {
        log_name(&self.fd)
    }

    /// Bytes at the start of a frame buffer that the kernel does not fill.
    pub(crate) fn skipped_len(&self) -> usize {
        if self.has_header { 0 } else { HEADER_LEN }
    }

    /// Reads frames until none is left or the slots are used up, and notes in `retry` whether a
    /// read failed otherwise.
    ///
    /// # Errors
    /// EBADFD: the device was deleted. Any other error is a broken invariant.
    pub(crate) fn read_frames(
        &self,
        slots: &mut Vec<Slot>,
        ready: &mut Ready,
        retry: &mut Retry,
    ) -> io::Result<()> {
        while let Some(mut slot) = slots.pop() {
            match self.read_frame(&mut slot) {
                Ok(length) => {
                    ready.frames.push(Frame { slot, length });
                    retry.succeeded();
                }
                Err(error) => {
                    slots.push(slot);
                    return match error.raw_os_error() {
                        // EAGAIN: none is left.
                        Some(libc::EAGAIN | libc::EINTR) => Ok(()),
                        // EIO: the link went down during the read. ENOMEM passes.
                        Some(libc::EIO | libc::ENOMEM) => {
                            retry.failed();
                            Ok(())
                        }
                        // A GSO type that has no virtio header (`tun_put_user`, drivers/net/tun.c).
                        Some(libc::EINVAL) => {
                            ready.unreadable_frames += 1;
                            Ok(())
                        }
                        _ => Err(error),
                    };
                }
            }
        }
        Ok(())
    }

    fn read_frame(&self, slot: &mut Slot) -> io::Result<usize> {
        let skipped = self.skipped_len();
        slot[..skipped].fill(0);
        let length = calls::read(&self.fd, &mut slot[skipped..])?;
        Ok(skipped + length)
    }

    /// Writes one frame to queue `queue` of the device; its first piece starts with the virtio
    /// header. Outcomes as for [`Backend::write`](crate::Backend::write).
    pub(crate) fn write_frame(&self, queue: usize, pieces: &[IoSlice<'_>]) -> Errno {
        let written = if self.has_header {
            calls::writev(&self.writers[queue], pieces)
        } else {
            // Without offloads there are no super-packets: the packet is a single piece.
            calls::write(&self.writers[queue], &pieces[0][HEADER_LEN..])
        };
        written.err().map_or(0, |errno| errno as Errno)
    }
}

/// A TUN device with one queue per worker.
pub struct Tun {
    queues: Vec<Queue>,
    offloads: libc::c_uint,
    is_absent: bool,
}

/// Control's handle on the device, once the workers have taken the queues.
pub struct TunHandle {
    fd: OwnedFd,
}

impl Tun {
    /// Creates an interface; `name` may contain `%d`. It is down, its MTU is [`DEFAULT_MTU`].
    ///
    /// # Errors
    /// EPERM: no CAP_NET_ADMIN. ENOENT, ENODEV: no /dev/net/tun, or no driver behind it (load the
    /// module `tun`). EBUSY: the name is taken. EINVAL, ENAMETOOLONG: not a valid interface name.
    pub fn create(name: &str, queues: usize, offload: bool) -> io::Result<Tun> {
        let first = open_queue(name, queues > 1, true)?;
        let name = name_of(&first)?;
        let mut files = vec![first];
        while files.len() < queues {
            files.push(open_queue(&name, true, false)?);
        }
        let mut granted = 0;
        for file in &files {
            granted = prepare(file, offload)?;
        }
        configure(&name)?;
        Tun::new(files, true, granted)
    }

    /// Takes over an interface that another program has created (`WG_TUN_FD`), with one queue.
    ///
    /// # Errors
    /// EBADFD, ENOTTY: the descriptor is not a TUN interface. EINVAL: it is a TAP interface, or its
    /// frames carry packet information (no `IFF_NO_PI`).
    pub fn from_fd(fd: OwnedFd, offload: bool) -> io::Result<Tun> {
        let file = File::from(fd);
        let mut request = InterfaceRequest::new("")?;
        // SAFETY: TUNGETIFF fills a `struct ifreq`, and the request has its size.
        unsafe { ioctl::get_interface(file.as_raw_fd(), request.as_mut_ptr().cast()) }?;
        let kind = libc::IFF_TUN | libc::IFF_NO_PI;
        if i32::from(request.flags()) & kind != kind {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let has_header = request.flags() & libc::IFF_VNET_HDR as i16 != 0;
        let offloads = if has_header { prepare(&file, offload)? } else { 0 };
        Tun::new(vec![file], has_header, offloads)
    }

    /// The queues of a device that does not exist: they never have a frame, and nothing may be
    /// written to them.
    ///
    /// # Errors
    /// EMFILE, ENFILE: too many open files.
    pub fn absent(queues: usize) -> io::Result<Tun> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        // A counter that stays zero is never readable.
        let file = |_| EventFd::from_flags(flags).map(|counter| File::from(OwnedFd::from(counter)));
        let absent = Tun::new((0..queues).map(file).collect::<nix::Result<_>>()?, true, 0)?;
        Ok(Tun { is_absent: true, ..absent })
    }

    fn new(files: Vec<File>, has_header: bool, offloads: libc::c_uint) -> io::Result<Tun> {
        let writers = files.iter().map(|file| file.try_clone().map(OwnedFd::from));
        let writers: Arc<[OwnedFd]> = writers.collect::<io::Result<Vec<OwnedFd>>>()?.into();
        let queue =
            |file: File| Queue { fd: file.into(), has_header, writers: Arc::clone(&writers) };
        let queues = files.into_iter().map(queue).collect();
        Ok(Tun { queues, offloads, is_absent: false })
    }

    /// Whether the device does not exist ([`Tun::absent`]).
    pub fn is_absent(&self) -> bool {
        self.is_absent
    }

    /// Whether the kernel accepts UDP super-packets written to the TUN.
    pub fn has_udp_offload(&self) -> bool {
        self.offloads & 0x60 == 0x60
    }

    /// Whether the kernel accepts TCP super-packets written to the TUN.
    pub fn has_tcp_offload(&self) -> bool {
        self.offloads & 0x06 == 0x06
    }

    /// Hands the queues to the workers.
    pub fn into_queues(self) -> Vec<Queue> {
        self.queues
    }

    /// A handle that outlives [`Tun::into_queues`].
    ///
    /// # Errors
    /// EMFILE, ENFILE: too many open files.
    pub fn handle(&self) -> io::Result<TunHandle> {
        Ok(TunHandle { fd: self.queues[0].fd.try_clone()? })
    }

    /// The interface's current name.
    ///
    /// # Errors
    /// EBADFD: the device was deleted.
    pub fn name(&self) -> io::Result<String> {
        name_of(&self.queues[0].fd)
    }
}

impl TunHandle {
    /// The interface's current name; it may have been renamed.
    ///
    /// # Errors
    /// EBADFD: the device was deleted.
    pub fn name(&self) -> io::Result<String> {
        name_of(&self.fd)
    }

    /// The network namespace that the interface is in; it may have been moved.
    ///
    /// # Errors
    /// EBADFD: the device was deleted. EINVAL, ENOTTY: the kernel is too old (before 5.3). EPERM:
    /// no CAP_NET_ADMIN in that namespace.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ioctl takes no argument and returns a new descriptor.
        let fd = unsafe { ioctl::get_namespace(self.fd.as_raw_fd()) }?;
        // SAFETY: the descriptor is new, and we are its only owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn open_queue(name: &str, is_multi: bool, is_first: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if is_multi {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if is_first {
        // Never join an interface that another program has created under this name.
        flags |= libc::IFF_TUN_EXCL;
    }
    let mut request = InterfaceRequest::new(name)?;
    request.set_flags(flags as i16);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, and the request has its size.
    unsafe { ioctl::set_interface(file.as_raw_fd(), request.as_mut_ptr().cast()) }?;
    Ok(file)
}

/// Sets header length and offloads of a queue; returns the granted offloads.
fn prepare(file: &File, offload: bool) -> io::Result<libc::c_uint> {
    let length = HEADER_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl::set_header_len(file.as_raw_fd(), &length) }?;
    let mut refused = None;
    for &offloads in OFFLOADS.iter().filter(|_| offload) {
        // EINVAL: the kernel lacks one of them; request fewer.
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        match unsafe { ioctl::set_offload(file.as_raw_fd(), offloads.into()) } {
            Ok(_) => return Ok(offloads),
            Err(errno) => refused = Some(errno),
        }
    }
    if let Some(errno) = refused {
        log::warn!(
            "{}: TUN offloads unavailable ({errno}); running without TSO/USO",
            log_name(file)
        );
    }
    Ok(0)
}

/// Sets flags, MTU and queue length of a new interface. Like the kernel module's, it is not
/// multicast: the host's MLD reports, mDNS and LLMNR would wake an idle tunnel.
fn configure(name: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = InterfaceRequest::new(name)?;
    // SAFETY: SIOCGIFFLAGS fills a `struct ifreq`.
    unsafe { ioctl::get_flags(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    request.set_flags(request.flags() & !(libc::IFF_MULTICAST as i16));
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq`.
    unsafe { ioctl::set_flags(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    // A router has joined ff02::2 on the multicast interface, and would report that. With too small
    // an MTU, IPv6 leaves the interface, and then comes back to the one that it is now.
    for mtu in [IPV6_MTU_MIN - 1, DEFAULT_MTU] {
        request.set_int(mtu);
        // SAFETY: SIOCSIFMTU reads a `struct ifreq`.
        unsafe { ioctl::set_mtu(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    }
    request.set_int(QUEUE_LEN);
    // SAFETY: SIOCSIFTXQLEN reads a `struct ifreq`.
    unsafe { ioctl::set_queue_len(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    Ok(())
}

fn name_of(file: &impl AsRawFd) -> io::Result<String> {
    let mut request = InterfaceRequest::new("")?;
    // SAFETY: TUNGETIFF fills a `struct ifreq`, and the request has its size.
    unsafe { ioctl::get_interface(file.as_raw_fd(), request.as_mut_ptr().cast()) }?;
    Ok(request.name())
}

/// The name for log lines: a placeholder where the device is gone.
fn log_name(file: &impl AsRawFd) -> String {
    name_of(file).unwrap_or_else(|_| "TUN".to_owned())
}

/// A `struct ifreq`: an interface's name and one argument.
struct InterfaceRequest(libc::ifreq);

impl InterfaceRequest {
    fn new(name: &str) -> io::Result<InterfaceRequest> {
        if name.len() >= NAME_LEN {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        // SAFETY: `struct ifreq` is plain data; all zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (character, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *character = byte as libc::c_char;
        }
        Ok(InterfaceRequest(request))
    }

    fn as_mut_ptr(&mut self) -> *mut libc::ifreq {
        &mut self.0
    }

    fn set_flags(&mut self, flags: i16) {
        self.0.ifr_ifru.ifru_flags = flags;
    }

    fn set_int(&mut self, value: i32) {
        self.0.ifr_ifru.ifru_mtu = value;
    }

    fn flags(&self) -> i16 {
        // SAFETY: every bit pattern of the union is a valid i16.
        unsafe { self.0.ifr_ifru.ifru_flags }
    }

    fn name(&self) -> String {
        let bytes = self.0.ifr_name.iter().take_while(|&&c| c != 0).map(|&c| c as u8);
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }
}
