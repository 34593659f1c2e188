//! The sources of findings, and the events that announce their changes.

use std::io;

use netlink_packet_route::tc::TcHeader;
use wg_bounce_sys::Family;

use super::kernel::{Interface, Kernel};
use super::reading::{Known, Reading};
use super::reason::{Families, Finding, Reason};
use super::{connections, interface, netfilter, packet_sockets, routing, xtables};
use crate::netlink::message::Message;
use crate::netlink::numbers::{
    RTM_DELCHAIN, RTM_DELLINK, RTM_DELNETCONF, RTM_DELRULE, RTM_DELTFILTER, RTM_NEWCHAIN,
    RTM_NEWLINK, RTM_NEWNETCONF, RTM_NEWQDISC, RTM_NEWRULE,
};

/// A source of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Forwarding and multipath settings.
    Settings(Family),
    /// Routing rules.
    Rules(Family),
    /// IPsec policies.
    Ipsec,
    /// Rules, policies and flowtables of nftables.
    Nftables,
    /// Tables of legacy iptables.
    LegacyTables(Family),
    /// Connections whose addresses are translated.
    Connections,
    /// IPVS.
    VirtualServices,
    /// BPF programs linked to netfilter.
    NetfilterPrograms,
    /// XDP programs, master device, promiscuous mode.
    Link,
    /// Queueing disciplines and filters.
    TrafficControl,
    /// BPF programs attached to the TCX hooks.
    TcxPrograms,
    /// Packet sockets.
    Captures,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 15] = [
        Source::Settings(Family::V4),
        Source::Settings(Family::V6),
        Source::Rules(Family::V4),
        Source::Rules(Family::V6),
        Source::Nftables,
        Source::LegacyTables(Family::V4),
        Source::LegacyTables(Family::V6),
        Source::Connections,
        Source::VirtualServices,
        Source::NetfilterPrograms,
        Source::Link,
        Source::TrafficControl,
        Source::TcxPrograms,
        Source::Captures,
        Source::Ipsec,
    ];

    /// Reads the source. A source that cannot be read is a finding too.
    pub fn read(self, kernel: &mut impl Kernel, at: &Interface, known: Known<'_>) -> Reading {
        let result = match self {
            Source::Nftables => netfilter::tables(kernel, at, known),
            Source::LegacyTables(family) => xtables::tables(kernel, at, known, family),
            Source::Connections => connections::translated(kernel, known.addresses),
            Source::Settings(family) => routing::settings(kernel, at, family).map(Reading::from),
            Source::Rules(family) => routing::rules(kernel, family).map(Reading::from),
            Source::Ipsec => routing::ipsec(kernel).map(Reading::from),
            Source::VirtualServices => netfilter::virtual_services(kernel).map(Reading::from),
            Source::NetfilterPrograms => netfilter::programs(kernel).map(Reading::from),
            Source::Link => interface::link(kernel, at).map(Reading::from),
            Source::TrafficControl => interface::traffic_control(kernel, at).map(Reading::from),
            Source::TcxPrograms => interface::tcx(kernel, at).map(Reading::from),
            Source::Captures => packet_sockets::captures(kernel, at).map(Reading::from),
        };
        result.unwrap_or_else(|error| self.unreadable_source(&error).into())
    }

    /// Whether the source must be polled, because the kernel does not announce all its changes. (It
    /// announces links, but not an XDP program attached by a BPF link.) Connections matter only
    /// where rules have changed.
    pub fn is_polled(self) -> bool {
        !matches!(
            self,
            Source::Rules(_) | Source::Nftables | Source::TrafficControl | Source::Connections
        )
    }

    /// Whether the source is a firewall.
    pub fn is_firewall(self) -> bool {
        matches!(self, Source::Nftables | Source::LegacyTables(_))
    }

    fn unreadable_source(self, error: &io::Error) -> Vec<Finding> {
        let is_absent = error.kind() == io::ErrorKind::Unsupported
            || error.raw_os_error() == Some(libc::EAFNOSUPPORT);
        if is_absent {
            return Vec::new();
        }
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let reason = Reason::Unreadable {
            what: self.name(),
            error: error.to_string(),
            capability: self.capability().filter(|_| is_denied),
            hides_forwarding: matches!(self, Source::Settings(_)),
        };
        vec![Finding { families: self.families(), reason }]
    }

    fn families(self) -> Families {
        match self {
            Source::Settings(family) | Source::Rules(family) | Source::LegacyTables(family) => {
                Families::only(family)
            }
            _ => Families::BOTH,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Source::Settings(_) => "the forwarding settings",
            Source::Rules(_) => "routing rules",
            Source::Ipsec => "IPsec policies",
            Source::Nftables => "nftables",
            Source::LegacyTables(Family::V4) => "iptables-legacy tables",
            Source::LegacyTables(Family::V6) => "ip6tables-legacy tables",
            Source::Connections => "tracked connections",
            Source::VirtualServices => "IPVS",
            Source::NetfilterPrograms => "netfilter BPF programs",
            Source::Link => "the interface's state",
            Source::TrafficControl => "tc",
            Source::TcxPrograms => "TCX programs of the interface",
            Source::Captures => "packet sockets",
        }
    }

    fn capability(self) -> Option<&'static str> {
        match self {
            Source::Ipsec | Source::Nftables | Source::LegacyTables(_) | Source::Connections => {
                Some("CAP_NET_ADMIN")
            }
            Source::TcxPrograms => Some("CAP_NET_ADMIN, and CAP_BPF where seccomp guards bpf(2)"),
            Source::NetfilterPrograms => Some("CAP_SYS_ADMIN"),
            _ => None,
        }
    }
}

/// The consequence of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Routes may have changed.
    pub routes: bool,
    /// Sources to be read again.
    pub sources: Vec<Source>,
    /// The interface may have been moved or renamed.
    pub presence: bool,
}

/// In place of an interface index: the filter is in a shared block.
const SHARED_BLOCK: u32 = TcHeader::TCM_IFINDEX_MAGIC_BLOCK;

/// Offset of the interface index in both `struct ifinfomsg` and `struct tcmsg`.
const INDEX_AT: usize = 4;

/// The consequence of a message of rtnetlink for this interface.
pub fn changed_by_route(message: &Message, at: &Interface) -> Change {
    let index = message.payload.get(INDEX_AT..).and_then(|bytes| bytes.first_chunk().copied());
    let index = index.map(u32::from_ne_bytes);
    let is_ours = index.is_none_or(|index| index == at.index);
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK if is_ours => Change {
            routes: true,
            sources: vec![Source::Link, Source::TrafficControl],
            presence: true,
        },
        RTM_NEWRULE | RTM_DELRULE => Change {
            routes: true,
            // Which rule is the first matters for firewalls as well.
            sources: Family::BOTH
                .map(Source::Rules)
                .into_iter()
                .chain(Family::BOTH.map(Source::LegacyTables))
                .chain([Source::Nftables])
                .collect(),
            ..Change::default()
        },
        RTM_NEWQDISC..=RTM_DELTFILTER | RTM_NEWCHAIN | RTM_DELCHAIN => {
            let concerns_us = is_ours || index == Some(SHARED_BLOCK);
            let sources = concerns_us.then_some(Source::TrafficControl).into_iter().collect();
            Change { sources, ..Change::default() }
        }
        RTM_NEWNETCONF | RTM_DELNETCONF => Change {
            routes: true,
            sources: Family::BOTH.map(Source::Settings).to_vec(),
            ..Change::default()
        },
        // Routes, addresses, next hops, other links.
        _ => Change { routes: true, ..Change::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Interface {
        Interface { index: 7, name: "wg0".into() }
    }

    fn about(kind: u16, index: u32) -> Message {
        let mut payload = vec![0; 4];
        payload.extend(index.to_ne_bytes());
        payload.extend([0; 12]);
        Message { kind, payload }
    }

    #[test]
    fn a_route_invalidates_answers_and_nothing_else() {
        let change = changed_by_route(&about(24, 0), &at());
        assert_eq!(change, Change { routes: true, ..Change::default() });
    }

    #[test]
    fn traffic_control_matters_on_our_interface_and_in_shared_blocks() {
        for (index, expected) in [(7, 1), (8, 0), (SHARED_BLOCK, 1)] {
            let change = changed_by_route(&about(44, index), &at());
            assert_eq!(change.sources.len(), expected, "{index}");
            assert!(!change.routes);
        }
    }

    #[test]
    fn our_link_is_read_and_others_invalidate_answers() {
        assert!(changed_by_route(&about(RTM_DELLINK, 7), &at()).presence);
        let other = changed_by_route(&about(RTM_NEWLINK, 8), &at());
        assert_eq!(other, Change { routes: true, ..Change::default() });
    }
}
