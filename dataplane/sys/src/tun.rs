//! The TUN device: creation, its queues, and what can be asked of it afterwards.
//!
//! Frames carry a virtio header of [`HEADER_LEN`] bytes (`TUNSETVNETHDRSZ`), so that an IP packet
//! lands where a WireGuard data header fits in front of it (Linux, include/uapi/linux/if_tun.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Bytes in front of the IP packet of every frame: ten of virtio header, six of padding.
pub const HEADER_LEN: usize = 16;
/// Bytes of one frame buffer.
pub const FRAME_SLOT_LEN: usize = HEADER_LEN + 65_536 + 48;
/// MTU of a new interface (bytes), as the kernel module sets it: 1500 less the outer IPv6 and UDP
/// headers and the data message's overhead.
pub const DEFAULT_MTU: i32 = 1420;
/// Length of a queue (frames): super-packets of several flows arrive in bursts, and a full queue
/// drops its tail.
const QUEUE_LEN: i32 = 2048;

/// Offloads to ask for, best first: checksum, TSO4, TSO6, USO4 and USO6 (both or none).
const OFFLOADS: [libc::c_uint; 3] = [0x67, 0x07, 0x01];

mod ioctl {
    #![allow(missing_docs, reason = "the macros make public functions without docs")]
    nix::ioctl_write_int!(set_offload, b'T', 208);
    nix::ioctl_write_ptr!(set_header_len, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(set_interface, b'T', 202, libc::c_int);
    nix::ioctl_read!(get_interface, b'T', 210, libc::c_uint);
    nix::ioctl_none_bad!(get_namespace, super::TUNGETDEVNETNS);
    nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_queue_len, libc::SIOCSIFTXQLEN, libc::ifreq);
}

/// `_IO('T', 227)`: opens the network namespace of the device (Linux 5.3).
const TUNGETDEVNETNS: libc::c_int = 0x54e3;
const NAME_LEN: usize = libc::IFNAMSIZ;

/// One queue of the device.
pub struct Queue {
    /// The file.
    pub fd: OwnedFd,
    /// Frames carry the virtio header; without it (a descriptor handed over by an older
    /// program) they are bare IP packets and there are no offloads.
    pub has_header: bool,
    /// All queues of the device, by number, to write to. The kernel sends a flow to the queue
    /// that last wrote a packet of it, of either direction; so both directions are written to
    /// one queue, whichever workers decrypt them, and the flow stays there in order.
    pub writers: Arc<[OwnedFd]>,
}

impl Queue {
    /// The interface's current name, for log lines.
    pub(crate) fn name(&self) -> String {
        name_of(&self.fd).unwrap_or_else(|_| "TUN".to_owned())
    }
}

/// A TUN device with one queue per worker.
pub struct Tun {
    queues: Vec<Queue>,
    offloads: libc::c_uint,
}

/// What stays with control when the queues have gone to the workers.
pub struct TunHandle {
    fd: OwnedFd,
}

impl Tun {
    /// Makes a new interface, `name` may contain `%d`. It is down; its MTU is [`DEFAULT_MTU`].
    ///
    /// # Errors
    /// EPERM: no CAP_NET_ADMIN. ENOENT: no /dev/net/tun. EBUSY: the name is taken.
    /// EINVAL: no name for an interface.
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

    /// Takes over an interface that another program has made (`WG_TUN_FD`): one queue.
    ///
    /// # Errors
    /// EBADFD or ENOTTY: the descriptor is no TUN interface. EINVAL: it is a TAP, or its frames
    /// carry packet information (no `IFF_NO_PI`).
    pub fn from_fd(fd: OwnedFd, offload: bool) -> io::Result<Tun> {
        let file = File::from(fd);
        let mut request = InterfaceRequest::new("")?;
        // SAFETY: TUNGETIFF fills a `struct ifreq`; the request has its size.
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

    fn new(files: Vec<File>, has_header: bool, offloads: libc::c_uint) -> io::Result<Tun> {
        let writers = files.iter().map(|file| file.try_clone().map(OwnedFd::from));
        let writers: Arc<[OwnedFd]> = writers.collect::<io::Result<Vec<OwnedFd>>>()?.into();
        let queue =
            |file: File| Queue { fd: file.into(), has_header, writers: Arc::clone(&writers) };
        Ok(Tun { queues: files.into_iter().map(queue).collect(), offloads })
    }

    /// Whether the kernel takes UDP super-packets from us.
    pub fn has_udp_offload(&self) -> bool {
        self.offloads & 0x60 == 0x60
    }

    /// Whether the kernel takes TCP super-packets from us.
    pub fn has_tcp_offload(&self) -> bool {
        self.offloads & 0x06 == 0x06
    }

    /// Hands the queues to the workers.
    pub fn into_queues(self) -> Vec<Queue> {
        self.queues
    }

    /// Keeps a way to ask for name and namespace.
    pub fn handle(&self) -> io::Result<TunHandle> {
        Ok(TunHandle { fd: self.queues[0].fd.try_clone()? })
    }

    /// The interface's present name.
    pub fn name(&self) -> io::Result<String> {
        name_of(&self.queues[0].fd)
    }
}

impl TunHandle {
    /// The interface's present name: it may have been renamed.
    pub fn name(&self) -> io::Result<String> {
        name_of(&self.fd)
    }

    /// The network namespace that the interface is in: it may have been moved.
    pub fn namespace(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ioctl takes no argument and returns a new descriptor.
        let fd = unsafe { ioctl::get_namespace(self.fd.as_raw_fd()) }?;
        // SAFETY: the descriptor is new and nobody else's.
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
        // Never join an interface that somebody else has made under this name.
        flags |= libc::IFF_TUN_EXCL;
    }
    let mut request = InterfaceRequest::new(name)?;
    request.set_flags(flags as i16);
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`; the request has its size.
    unsafe { ioctl::set_interface(file.as_raw_fd(), request.as_mut_ptr().cast()) }?;
    Ok(file)
}

/// Sets header length and offloads of a queue; returns the offloads granted.
fn prepare(file: &File, offload: bool) -> io::Result<libc::c_uint> {
    let length = HEADER_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl::set_header_len(file.as_raw_fd(), &length) }?;
    let mut refused = None;
    for &offloads in OFFLOADS.iter().filter(|_| offload) {
        // SAFETY: TUNSETOFFLOAD takes its flags by value. EINVAL: the kernel lacks one of them.
        match unsafe { ioctl::set_offload(file.as_raw_fd(), offloads.into()) } {
            Ok(_) => return Ok(offloads),
            Err(errno) => refused = Some(errno),
        }
    }
    if let Some(errno) = refused {
        let name = name_of(file).unwrap_or_else(|_| "TUN".to_owned());
        log::warn!("{name}: TUN offloads unavailable ({errno}); running without TSO/USO");
    }
    Ok(0)
}

/// Sets MTU and queue length of a new interface.
fn configure(name: &str) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = InterfaceRequest::new(name)?;
    request.set_int(DEFAULT_MTU);
    // SAFETY: SIOCSIFMTU reads a `struct ifreq`.
    unsafe { ioctl::set_mtu(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    request.set_int(QUEUE_LEN);
    // SAFETY: SIOCSIFTXQLEN reads a `struct ifreq`.
    unsafe { ioctl::set_queue_len(socket.as_raw_fd(), request.as_mut_ptr()) }?;
    Ok(())
}

fn name_of(file: &impl AsRawFd) -> io::Result<String> {
    let mut request = InterfaceRequest::new("")?;
    // SAFETY: TUNGETIFF fills a `struct ifreq`; the request has its size.
    unsafe { ioctl::get_interface(file.as_raw_fd(), request.as_mut_ptr().cast()) }?;
    Ok(request.name())
}

/// A `struct ifreq`: an interface's name and one argument.
struct InterfaceRequest(libc::ifreq);

impl InterfaceRequest {
    fn new(name: &str) -> io::Result<InterfaceRequest> {
        if name.len() >= NAME_LEN {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        // SAFETY: `struct ifreq` is plain bytes, all zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
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
