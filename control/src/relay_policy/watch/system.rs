//! The real kernel, in the network namespace of the calling thread.

use std::fs;
use std::io;
use std::thread;

use wg_bounce_sys::{Family, bpf, xtables};

use super::view::View;
use crate::limits::NFTABLES_ATTEMPT_PAUSE;
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::socket::{self, NetlinkSocket};
use crate::relay_policy::announced::Announced;
use crate::relay_policy::kernel::{Direction, Kernel, NetfilterLink};

/// The kernel of this machine.
#[derive(Default)]
pub(super) struct System<'a> {
    /// The events of nftables: their source, and those that were read already.
    pub announced: Option<(&'a View, &'a mut Announced)>,
}

impl Kernel for System<'_> {
    fn query(&mut self, protocol: Protocol, request: &Request) -> io::Result<Vec<Message>> {
        socket::request(protocol, request)
    }

    fn query_each(
        &mut self,
        protocol: Protocol,
        request: &Request,
        each: &mut dyn FnMut(&Message) -> io::Result<()>,
    ) -> io::Result<()> {
        NetlinkSocket::open(protocol, &[])?.request_each(request, each)
    }

    fn announced(&mut self) -> Announced {
        match &mut self.announced {
            Some((view, announced)) if view.has_all_nftables_events() => {
                // If some were lost, they are incomplete.
                let _ = view.read_announced(announced);
                announced.clone()
            }
            _ => Announced::default(),
        }
    }

    fn pause(&mut self) {
        thread::sleep(NFTABLES_ATTEMPT_PAUSE);
    }

    fn setting(&mut self, path: &str) -> io::Result<String> {
        // In the namespace of the calling thread.
        fs::read_to_string(format!("/proc/sys/net/{path}"))
    }

    fn listing(&mut self, name: &str) -> io::Result<String> {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        match read(name) {
            // Accepted as missing only if /proc/net itself is readable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                read("dev").map_err(|_| io::Error::other("/proc is not mounted"))?;
                Err(error)
            }
            result => result,
        }
    }

    fn legacy_outline(&mut self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        let is_v6 = family == Family::V6;
        Ok(xtables::info(&xtables::open(is_v6)?, is_v6, table)?.to_vec())
    }

    fn legacy_entries(&mut self, family: Family, table: &str, size: u32) -> io::Result<Vec<u8>> {
        let is_v6 = family == Family::V6;
        xtables::entries(&xtables::open(is_v6)?, is_v6, table, size)
    }

    fn tcx_programs(&mut self, interface: u32, direction: Direction) -> io::Result<u32> {
        bpf::tcx_programs(interface, direction)
    }

    fn netfilter_links(&mut self) -> io::Result<Vec<NetfilterLink>> {
        bpf::netfilter_links()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_policy::kernel::Interface;
    use crate::relay_policy::reading::Known;
    use crate::relay_policy::reason::Reason;
    use crate::relay_policy::source::Source;

    /// With any privileges: a reply is parsed, or the request is refused.
    #[test]
    fn every_reply_of_this_kernel_can_be_parsed() {
        let at = Interface { index: 1, name: "lo".to_owned() };
        for source in Source::ALL {
            for finding in source.read(&mut System::default(), &at, Known::default()).findings {
                if let Reason::Unreadable { error, .. } = &finding.reason {
                    assert!(!error.contains("cannot be parsed"), "{source:?}: {error}");
                }
            }
        }
    }
}
