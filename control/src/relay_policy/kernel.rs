//! What is asked of the kernel, in the interface's network namespace.

use std::io;

use wg_bounce_sys::Family;

use crate::netlink::message::{Message, Protocol, Request};

/// The interface, as the kernel names it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its current name.
    pub name: String,
}

/// A hook of tc's BPF programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the interface into the kernel.
    Ingress,
    /// From the kernel to the interface.
    Egress,
}

/// A BPF program linked to a hook of netfilter, in whatever network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetfilterLink {
    /// The link's number.
    pub id: u32,
    /// NFPROTO_IPV4 or NFPROTO_IPV6.
    pub family: u32,
    /// The number of the hook.
    pub hook: u32,
}

/// A table of legacy iptables as the kernel tells it.
#[derive(Clone, Debug, Default)]
pub struct LegacyTable {
    /// `struct ipt_getinfo`.
    pub info: Vec<u8>,
    /// The entries, one after the other.
    pub entries: Vec<u8>,
}

/// The kernel. `Unsupported` is the error of what this kernel does not have; `NotFound` that of
/// a file, a table or an interface which is not there.
pub trait Kernel {
    /// All messages that a netlink request is answered by. They are of one state: a listing that
    /// was disturbed is asked for again.
    ///
    /// # Errors
    /// The refusal; `InvalidData` for an answer that cannot be read.
    fn query(&mut self, protocol: Protocol, request: &Request) -> io::Result<Vec<Message>>;

    /// The content of a file below /proc/sys/net.
    ///
    /// # Errors
    /// Those of reading it.
    fn setting(&mut self, path: &str) -> io::Result<String>;

    /// The content of a file below /proc/net.
    ///
    /// # Errors
    /// Those of reading it.
    fn listing(&mut self, name: &str) -> io::Result<String>;

    /// A table of legacy iptables.
    ///
    /// # Errors
    /// PermissionDenied: CAP_NET_ADMIN is missing.
    fn legacy_table(&mut self, family: Family, table: &str) -> io::Result<LegacyTable>;

    /// How many BPF programs a TCX hook of the interface has.
    ///
    /// # Errors
    /// PermissionDenied: CAP_NET_ADMIN is missing, or bpf(2) is refused.
    fn tcx_programs(&mut self, interface: u32, direction: Direction) -> io::Result<u32>;

    /// All BPF programs linked to netfilter.
    ///
    /// # Errors
    /// PermissionDenied: CAP_SYS_ADMIN is missing, or bpf(2) is refused.
    fn netfilter_links(&mut self) -> io::Result<Vec<NetfilterLink>>;
}
