//! BPF programs that see packets, found with bpf(2): at an interface's TCX hooks, and at hooks of
//! netfilter. For control only.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_QUERY: i32 = 16;
const BPF_LINK_GET_FD_BY_ID: i32 = 30;
const BPF_LINK_GET_NEXT_ID: i32 = 31;

const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_LINK_TYPE_NETFILTER: u32 = 10;

/// The part of `union bpf_attr` that BPF_PROG_QUERY uses. All pointers in it are null.
#[repr(C)]
#[derive(Default)]
struct ProgramQuery {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    /// Flags of the programs, links, flags of the links, revision.
    rest: [u64; 4],
}

/// `union bpf_attr` of BPF_LINK_GET_NEXT_ID and BPF_LINK_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct LinkId {
    id: u32,
    next: u32,
    open_flags: u32,
}

/// `union bpf_attr` of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct InfoQuery {
    fd: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_link_info`, with the union's member for netfilter.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    family: u32,
    hook: u32,
    priority: i32,
    flags: u32,
}

/// The direction of a TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the interface into the kernel.
    Ingress,
    /// From the kernel to the interface.
    Egress,
}

/// A BPF program at a netfilter hook. A link does not tell its network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetfilterLink {
    /// The link's ID.
    pub id: u32,
    /// NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10).
    pub family: u32,
    /// The hook: NF_INET_PRE_ROUTING is 0.
    pub hook: u32,
}

/// The number of programs at this hook of the interface with index `interface`, in the thread's
/// network namespace. Zero where the kernel has no TCX (before 6.6).
///
/// # Errors
/// EPERM: no CAP_NET_ADMIN in the initial user namespace, or a seccomp profile. ENODEV: no such
/// interface.
pub fn tcx_programs(interface: u32, direction: Direction) -> io::Result<u32> {
    let attach_type = match direction {
        Direction::Ingress => BPF_TCX_INGRESS,
        Direction::Egress => BPF_TCX_EGRESS,
    };
    let mut query = ProgramQuery { interface, attach_type, ..ProgramQuery::default() };
    match bpf(BPF_PROG_QUERY, &mut query) {
        Ok(_) => Ok(query.count),
        Err(error) => match error.raw_os_error() {
            // EINVAL, EOPNOTSUPP: no TCX. ENOSYS: no bpf(2). ENOENT: nothing is attached.
            Some(libc::EINVAL | libc::ENOSYS | libc::ENOENT | libc::EOPNOTSUPP) => Ok(0),
            _ => Err(error),
        },
    }
}

/// All links of BPF programs to netfilter. Empty where the kernel has no such links (before 6.4).
///
/// # Errors
/// EPERM: no CAP_SYS_ADMIN in the initial user namespace, or a seccomp profile.
pub fn netfilter_links() -> io::Result<Vec<NetfilterLink>> {
    let mut links = Vec::new();
    let mut last = 0;
    loop {
        let mut next = LinkId { id: last, ..LinkId::default() };
        match bpf(BPF_LINK_GET_NEXT_ID, &mut next) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // ENOENT: end of the list. EINVAL: no links. ENOSYS: no bpf(2).
                Some(libc::ENOENT | libc::EINVAL | libc::ENOSYS) => return Ok(links),
                _ => return Err(error),
            },
        }
        last = next.next;
        match link_info(last) {
            Ok(info) if info.kind == BPF_LINK_TYPE_NETFILTER => {
                links.push(NetfilterLink { id: last, family: info.family, hook: info.hook });
            }
            Ok(_) => {}
            // ENOENT: it is gone. EAGAIN: it is being set up or taken down.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAGAIN)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn link_info(id: u32) -> io::Result<LinkInfo> {
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, &mut LinkId { id, ..LinkId::default() })?;
    // SAFETY: the descriptor is new, and we are its only owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = LinkInfo::default();
    let mut query = InfoQuery {
        fd: fd.as_raw_fd().cast_unsigned(),
        length: size_of::<LinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut query)?;
    Ok(info)
}

/// Calls bpf(2). `attribute` is one of the structures above; a pointer in it must be valid for the
/// length next to it.
fn bpf<T>(command: i32, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attribute`, and the only
    // pointer in any of them (`InfoQuery::info`) is valid for `InfoQuery::length` bytes.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use nix::sched::{CloneFlags, unshare};

    const BPF_PROG_LOAD: i32 = 5;
    const BPF_LINK_CREATE: i32 = 28;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    const BPF_PROG_TYPE_NETFILTER: u32 = 32;
    const BPF_NETFILTER: u32 = 45;
    const LOOPBACK: u32 = 1;

    /// `union bpf_attr` of BPF_PROG_LOAD.
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instructions_len: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }

    /// `union bpf_attr` of BPF_LINK_CREATE.
    #[repr(C)]
    #[derive(Default)]
    struct Attach {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        /// For netfilter: family, hook, priority, flags.
        netfilter: [u32; 4],
    }

    fn owned(fd: i32) -> OwnedFd {
        // SAFETY: bpf(2) has just returned the descriptor, and we are its only owner.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    /// Loads a program that returns 1 (netfilter: accept) and links it; it is unloaded with the
    /// link.
    fn link(kind: u32, mut attach: Attach) -> io::Result<OwnedFd> {
        // r0 = 1; exit.
        let instructions: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let license = *b"GPL\0";
        let mut load = Load {
            kind,
            instructions_len: 2,
            instructions: instructions.as_ptr().expose_provenance() as u64,
            license: license.as_ptr().expose_provenance() as u64,
            // Netfilter programs need it at load time, tc programs do not.
            attach_type: if kind == BPF_PROG_TYPE_NETFILTER { attach.attach_type } else { 0 },
            ..Load::default()
        };
        let program = owned(bpf(BPF_PROG_LOAD, &mut load)?);
        attach.program = program.as_raw_fd().cast_unsigned();
        bpf(BPF_LINK_CREATE, &mut attach).map(owned)
    }

    #[test]
    fn a_missing_interface_is_an_error() {
        let error = tcx_programs(u32::MAX, Direction::Egress).map_err(|error| error.raw_os_error());
        // Kernels before 6.6 answer zero for every interface.
        assert!(matches!(error, Ok(0) | Err(Some(libc::ENODEV | libc::EPERM))), "{error:?}");
    }

    /// In its own network namespace. Without the capabilities, or on an older kernel, the test
    /// attaches nothing and passes.
    #[test]
    fn finds_attached_programs() {
        let thread = std::thread::spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let attach =
                Attach { target: LOOPBACK, attach_type: BPF_TCX_EGRESS, ..Attach::default() };
            if let Ok(held) = link(BPF_PROG_TYPE_SCHED_CLS, attach) {
                assert_eq!(tcx_programs(LOOPBACK, Direction::Egress).expect("allowed"), 1);
                assert_eq!(tcx_programs(LOOPBACK, Direction::Ingress).expect("allowed"), 0);
                drop(held);
                assert_eq!(tcx_programs(LOOPBACK, Direction::Egress).expect("allowed"), 0);
            }
            // Family 2 is IPv4; hook 1 is input, which no daemon on this machine evaluates.
            let netfilter = [2, 1, 4711, 0];
            let attach = Attach { attach_type: BPF_NETFILTER, netfilter, ..Attach::default() };
            if let Ok(held) = link(BPF_PROG_TYPE_NETFILTER, attach) {
                let found = netfilter_links().expect("allowed");
                let is_ours = |link: &NetfilterLink| (link.family, link.hook) == (2, 1);
                assert!(found.iter().any(is_ours), "{found:?}");
                drop(held);
            }
        });
        thread.join().expect("the thread does not panic");
    }
}
