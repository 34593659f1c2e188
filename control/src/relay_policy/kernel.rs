//! The questions to the kernel, all in the interface's network namespace.

use std::io;

use wg_bounce_sys::Family;
pub use wg_bounce_sys::bpf::{Direction, NetfilterLink};

use super::announced::Announced;
use crate::netlink::message::{Message, Protocol, Request};

/// The interface, as the kernel names it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its network namespace.
    pub index: u32,
    /// Its current name.
    pub name: String,
}

/// The kernel. The error is `Unsupported` for features that this kernel lacks, and `NotFound` for a
/// missing file, table or interface.
pub trait Kernel {
    /// The messages that answer a netlink request, in one consistent state.
    ///
    /// # Errors
    /// The refusal; `InvalidData` for a reply that cannot be parsed.
    fn query(&mut self, protocol: Protocol, request: &Request) -> io::Result<Vec<Message>>;

    /// Passes the messages that answer a netlink request to `each`. A kernel need not keep them, so
    /// they may be of different states.
    ///
    /// # Errors
    /// As for [`Kernel::query`]; those of `each`.
    fn query_each(
        &mut self,
        protocol: Protocol,
        request: &Request,
        each: &mut dyn FnMut(&Message) -> io::Result<()>,
    ) -> io::Result<()> {
        self.query(protocol, request)?.iter().try_for_each(each)
    }

    /// The events of nftables since its rules were last read as a whole, or since the beginning.
    /// Those of a kernel without events are incomplete.
    fn announced(&mut self) -> Announced {
        Announced::default()
    }

    /// Waits for a change that is being made ([`crate::limits::NFTABLES_ATTEMPT_PAUSE`]).
    fn pause(&mut self);

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

    /// The outline of a table of legacy iptables: `struct ipt_getinfo`.
    ///
    /// # Errors
    /// PermissionDenied: CAP_NET_ADMIN is missing.
    fn legacy_outline(&mut self, family: Family, table: &str) -> io::Result<Vec<u8>>;

    /// The entries of that table, one after the other, which are `size` bytes according to its
    /// outline: the whole table is copied.
    ///
    /// # Errors
    /// As for [`Kernel::legacy_outline`]; WouldBlock: the table has another size.
    fn legacy_entries(&mut self, family: Family, table: &str, size: u32) -> io::Result<Vec<u8>>;

    /// Number of BPF programs attached to a TCX hook of the interface.
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
