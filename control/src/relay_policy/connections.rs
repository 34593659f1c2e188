//! Connections whose addresses the kernel translates: it goes on with that after the rule is gone
//! (nf_nat). Their packets between peers stay with the kernel until they end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use netlink_packet_core::DefaultNla;
use wg_bounce_dataplane::pairs::{End, Exceptions, Pairs};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::kernel::Kernel;
use super::reason::{Finding, Reading, Reason};
use super::rules::addresses::{Addresses, number};
use crate::limits::TRANSLATED_PAIRS_MAX;
use crate::netlink::attribute::{Attribute, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    CT_MSG_GET, CT_MSG_NEW, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_STATUS,
    CTA_STATUS_MASK, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, IPS_DST_NAT, IPS_SRC_NAT,
    NFGENMSG_LEN,
};

/// Two addresses, by their numbers.
type Pair = (u128, u128);

/// Whether the kernel tracks connections in this network namespace. If that cannot be read, it may.
pub fn are_tracked(kernel: &mut impl Kernel) -> bool {
    match kernel.setting("netfilter/nf_conntrack_count") {
        Ok(count) => count.trim() != "0",
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The pairs of peers' addresses that translated connections have. Without the peers' addresses,
/// any translated connection may be one.
pub fn translated(kernel: &mut impl Kernel, addresses: Option<&Addresses>) -> io::Result<Reading> {
    let mut reading = Reading::default();
    if !are_tracked(kernel) {
        return Ok(reading);
    }
    for family in Family::BOTH {
        let all = pairs_of(kernel, family)?;
        reading.needs.of_mut(family).addresses = !all.is_empty();
        let finding = || Finding::of(family, Reason::Translated);
        let Some(addresses) = addresses else {
            reading.findings.extend((!all.is_empty()).then(finding));
            continue;
        };
        let peers = addresses.ranges.of(family);
        let is_of_peers = |(one, other): &Pair| peers.contain(*one) && peers.contain(*other);
        let pairs: BTreeSet<Pair> = all.into_iter().filter(is_of_peers).collect();
        if pairs.len() > TRANSLATED_PAIRS_MAX {
            reading.findings.push(finding());
        } else if !pairs.is_empty() {
            reading.of_pairs.push(finding());
            reading.pairs.of_mut(family).push(Arc::new(tree(&pairs)));
        }
    }
    Ok(reading)
}

/// Source and destination of both directions of all translated connections.
fn pairs_of(kernel: &mut impl Kernel, family: Family) -> io::Result<Vec<Pair>> {
    let version = match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    };
    let mut pairs = Vec::new();
    for status in [IPS_SRC_NAT, IPS_DST_NAT] {
        let attributes = [CTA_STATUS, CTA_STATUS_MASK]
            .map(|kind| DefaultNla::new(kind, status.to_be_bytes().to_vec()));
        let request = Request::dump_some(CT_MSG_GET, &[version, 0, 0, 0], &attributes);
        let connections = match kernel.query(Protocol::Netfilter, &request) {
            // This kernel cannot list them (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c).
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Vec::new()),
            connections => connections?,
        };
        for message in connections.iter().filter(|message| message.kind == CT_MSG_NEW) {
            pairs.extend(pairs_if_translated(message, version, family)?.into_iter().flatten());
        }
    }
    Ok(pairs)
}

/// The pairs of a connection's two directions; none if it is not translated, which the kernel lists
/// too before Linux 5.18.
fn pairs_if_translated(
    message: &Message,
    version: u8,
    family: Family,
) -> io::Result<Option<[Pair; 2]>> {
    let (header, attributes) = message.split(NFGENMSG_LEN)?;
    let status = need(&attributes, CTA_STATUS)?.u32_be()?;
    if header[0] != version || status & (IPS_SRC_NAT | IPS_DST_NAT) == 0 {
        return Ok(None);
    }
    let of = |kind| pair(&need(&attributes, kind)?, family);
    Ok(Some([of(CTA_TUPLE_ORIG)?, of(CTA_TUPLE_REPLY)?]))
}

fn pair(tuple: &Attribute<'_>, family: Family) -> io::Result<Pair> {
    let tuple = tuple.nested()?;
    let addresses = need(&tuple, CTA_TUPLE_IP)?.nested()?;
    let (source, destination) = match family {
        Family::V4 => (CTA_IP_V4_SRC, CTA_IP_V4_DST),
        Family::V6 => (CTA_IP_V6_SRC, CTA_IP_V6_DST),
    };
    let of = |kind| need(&addresses, kind).map(|address| number(address.value));
    Ok((of(source)?, of(destination)?))
}

/// Workers ask for both directions.
fn tree(pairs: &BTreeSet<Pair>) -> Pairs {
    let mut destinations = BTreeMap::<u128, Vec<(u128, u128)>>::new();
    for (source, destination) in pairs {
        destinations.entry(*source).or_default().push((*destination, *destination));
    }
    const ALL: Pairs = Pairs::Alike(Exceptions::ALL);
    const NONE: Pairs = Pairs::Alike(Exceptions::NONE);
    destinations.into_iter().fold(NONE, |others, (source, destinations)| {
        let ranges = Ranges::new(destinations);
        let of_source = Pairs::split(End::Destination, ranges, ALL, NONE);
        Pairs::split(End::Source, Ranges::new(vec![(source, source)]), of_source, others)
    })
}
