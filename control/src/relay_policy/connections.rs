//! Connections whose addresses the kernel translates: it goes on with that after the rule is gone
//! (nf_nat). Their packets between peers stay with the kernel until they end.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use netlink_packet_core::DefaultNla;
use wg_bounce_dataplane::ip;
use wg_bounce_dataplane::pairs::{self, Packets, Pair, Pairs};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_sys::{Family, PerFamily};

use super::kernel::Kernel;
use super::reading::Reading;
use super::reason::{Finding, Reason};
use super::rules::addresses::{Addresses, number};
use crate::limits::TRANSLATED_PAIRS_MAX;
use crate::netlink::attribute::{Attribute, find, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    CT_MSG_DELETE, CT_MSG_GET, CT_MSG_NEW, CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST,
    CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_STATUS,
    CTA_STATUS_MASK, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE,
    IPS_DST_NAT, IPS_SRC_NAT, NFGENMSG_LEN,
};
use crate::netlink::parse::array;

/// Whether the kernel tracks connections in this network namespace. If that cannot be read, it may.
pub fn are_tracked(kernel: &mut impl Kernel) -> bool {
    match kernel.setting("netfilter/nf_conntrack_count") {
        Ok(count) => count.trim() != "0",
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The pairs of peers' addresses that translated connections have, as [`Reading::translated`].
/// Without the peers' addresses, any translated connection may be one.
pub fn translated(kernel: &mut impl Kernel, addresses: Option<&Addresses>) -> io::Result<Reading> {
    let mut reading = Reading::default();
    if !are_tracked(kernel) {
        return Ok(reading);
    }
    for family in Family::BOTH {
        let peers = addresses.map(|all| all.ranges.of(family));
        let (pairs, are_others) = pairs_of(kernel, family, peers)?;
        // One of the others may be between peers after the next change of allowed IPs.
        reading.needs.of_mut(family).addresses = are_others || !pairs.is_empty();
        if pairs.len() > TRANSLATED_PAIRS_MAX || peers.is_none() && !pairs.is_empty() {
            reading.findings.push(Finding::of(family, Reason::Translated));
        } else {
            *reading.translated.of_mut(family) = pairs;
        }
    }
    Ok(reading)
}

/// Keeps those of the pairs with the kernel that rules do not keep there anyway. `rules`: the
/// judgements about them.
pub fn leave_out(reading: &mut Reading, rules: &PerFamily<Vec<Arc<Pairs>>>) {
    for family in Family::BOTH {
        let translated = reading.translated.of(family);
        let is_left =
            |pair: &&Pair| !pairs::between(rules.of(family), &Packets::of_pair(**pair)).least.all;
        let left: Vec<Pair> = translated.iter().filter(is_left).copied().collect();
        let finding = Finding::of(family, Reason::Translated);
        reading.of_pairs.retain(|other| *other != finding);
        reading.pairs.of_mut(family).clear();
        if !left.is_empty() {
            reading.of_pairs.push(finding);
            reading.pairs.of_mut(family).push(Arc::new(Pairs::These(left)));
        }
    }
}

/// A connection of TCP that the kernel tracks, and does not translate.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// The packets of the end that began it.
    pub packets: Packets,
    /// Deletes what the kernel remembers of it.
    pub deletion: Request,
}

/// Connections of TCP that the kernel does not translate, at most `limit`.
///
/// # Errors
/// Those of the kernel; InvalidData: a message is malformed.
pub fn of_tcp(kernel: &mut impl Kernel, family: Family, limit: usize) -> io::Result<Vec<Tcp>> {
    let version = version(family);
    let translated = (IPS_SRC_NAT | IPS_DST_NAT).to_be_bytes().to_vec();
    let attributes =
        [DefaultNla::new(CTA_STATUS, vec![0; 4]), DefaultNla::new(CTA_STATUS_MASK, translated)];
    let request = Request::dump_some(CT_MSG_GET, &[version, 0, 0, 0], &attributes);
    let mut all = Vec::new();
    kernel.query_each(Protocol::Netfilter, &request, &mut |message| {
        if message.kind == CT_MSG_NEW && all.len() < limit {
            all.extend(tcp(message, version, family)?);
        }
        Ok(())
    })?;
    Ok(all)
}

/// A connection, if it is one of TCP that is not translated.
fn tcp(message: &Message, version: u8, family: Family) -> io::Result<Option<Tcp>> {
    let (header, attributes) = message.split(NFGENMSG_LEN)?;
    let status = need(&attributes, CTA_STATUS)?.u32_be()?;
    let original = need(&attributes, CTA_TUPLE_ORIG)?;
    let tuple = original.nested()?;
    let transport = need(&tuple, CTA_TUPLE_PROTO)?.nested()?;
    let protocol = need(&transport, CTA_PROTO_NUM)?.value;
    let is_translated = status & (IPS_SRC_NAT | IPS_DST_NAT) != 0;
    if header[0] != version || is_translated || protocol != [ip::TCP] {
        return Ok(None);
    }
    let port = |kind| Ok::<_, io::Error>(u16::from_be_bytes(array(need(&transport, kind)?.value)?));
    let transport = Transport {
        protocol: ip::TCP.into(),
        source_port: port(CTA_PROTO_SRC_PORT)?,
        destination_port: port(CTA_PROTO_DST_PORT)?,
    };
    let kinds = [CTA_TUPLE_ORIG, CTA_ZONE, CTA_ID];
    let parts = kinds
        .into_iter()
        .filter_map(|kind| Some(DefaultNla::new(kind, find(&attributes, kind)?.value.to_vec())));
    let parts: Vec<_> = parts.collect();
    let deletion = Request::change(CT_MSG_DELETE, &[version, 0, 0, 0], &parts);
    let packets = Packets::of_pair(pair(&original, family)?).with(transport);
    Ok(Some(Tcp { packets, deletion }))
}

fn version(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// Source and destination of both directions of all translated connections between `peers`; one
/// more than [`TRANSLATED_PAIRS_MAX`] at most; any one if the peers are not known. The second value
/// says whether other connections are translated.
fn pairs_of(
    kernel: &mut impl Kernel,
    family: Family,
    peers: Option<&Ranges>,
) -> io::Result<(BTreeSet<Pair>, bool)> {
    let version = version(family);
    let limit = if peers.is_some() { TRANSLATED_PAIRS_MAX } else { 0 };
    let is_of_peers = |(one, other): &Pair| {
        peers.is_none_or(|peers| peers.contain(*one) && peers.contain(*other))
    };
    let (mut pairs, mut are_others) = (BTreeSet::new(), false);
    for status in [IPS_SRC_NAT, IPS_DST_NAT] {
        let attributes = [CTA_STATUS, CTA_STATUS_MASK]
            .map(|kind| DefaultNla::new(kind, status.to_be_bytes().to_vec()));
        let request = Request::dump_some(CT_MSG_GET, &[version, 0, 0, 0], &attributes);
        let result = kernel.query_each(Protocol::Netfilter, &request, &mut |message| {
            if message.kind == CT_MSG_NEW && pairs.len() <= limit {
                let both = pairs_if_translated(message, version, family)?;
                let before = pairs.len();
                pairs.extend(both.iter().flatten().filter(|pair| is_of_peers(pair)));
                are_others |= both.is_some() && pairs.len() == before;
            }
            Ok(())
        });
        match result {
            // This kernel cannot list them (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c).
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            result => result?,
        }
    }
    Ok((pairs, are_others))
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
