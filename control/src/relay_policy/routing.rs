//! Forwarding settings, and whether route queries are reliable: a query names only source,
//! destination and traffic class, so nothing else may influence the route of a packet.

use std::io;

use netlink_packet_route::rule::{RuleMessage, RuleMessageBuffer};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use wg_bounce_sys::{Family, PerFamily};

use super::kernel::{Interface, Kernel};
use super::reason::{Families, Finding, Reason};
use crate::netlink::attribute::{attributes, find, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    FIB_RULE_INVERT, FR_ACT_TO_TBL, FRA_DPORT_MASK, FRA_DPORT_RANGE, FRA_DSCP, FRA_DSCP_MASK,
    FRA_DST, FRA_FLOW, FRA_FLOWLABEL, FRA_FLOWLABEL_MASK, FRA_FWMARK, FRA_FWMASK, FRA_GOTO,
    FRA_IIFNAME, FRA_IP_PROTO, FRA_L3MDEV, FRA_OIFNAME, FRA_PAD, FRA_PRIORITY, FRA_PROTOCOL,
    FRA_SPORT_MASK, FRA_SPORT_RANGE, FRA_SRC, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE, FRA_TUN_ID, FRA_UID_RANGE, FRA_UNUSED2, FRA_UNUSED3, FRA_UNUSED4, FRA_UNUSED5,
    RTM_NEWRULE, XFRM_MSG_GETDEFAULT, XFRM_MSG_GETSPDINFO, XFRM_MSG_NEWSPDINFO,
    XFRM_USERPOLICY_BLOCK, XFRMA_SPD_INFO,
};
use crate::netlink::parse::{array, malformed};

/// The least MTU of a link with IPv6 (bytes; RFC 8200 §5).
const MTU_V6_MIN: usize = 1280;

/// Attributes of a rule that a route query covers, that no packet from the interface can match (a
/// mark: only another rule could set it), or that select nothing.
const COVERED: [u16; 21] = [
    FRA_DST,
    FRA_SRC,
    FRA_IIFNAME,
    FRA_GOTO,
    FRA_UNUSED2,
    FRA_PRIORITY,
    FRA_UNUSED3,
    FRA_UNUSED4,
    FRA_UNUSED5,
    FRA_FWMARK,
    FRA_FLOW,
    FRA_SUPPRESS_IFGROUP,
    FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE,
    FRA_FWMASK,
    FRA_OIFNAME,
    FRA_PAD,
    FRA_L3MDEV,
    FRA_PROTOCOL,
    // A route query names the traffic class.
    FRA_DSCP,
    FRA_DSCP_MASK,
];

/// Forwarding, and the selection of next hops.
pub fn settings(
    kernel: &mut impl Kernel,
    at: &Interface,
    family: Family,
) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let off = match family {
        Family::V4 => forwarding_off_v4(kernel, at)?,
        Family::V6 => forwarding_off_v6(kernel, at)?,
    };
    if let Some(setting) = off {
        findings.push(Finding::of(family, Reason::ForwardingOff { setting }));
    }
    let (path, setting) = match family {
        Family::V4 => ("ipv4/fib_multipath_hash_policy", "net.ipv4.fib_multipath_hash_policy"),
        Family::V6 => ("ipv6/fib_multipath_hash_policy", "net.ipv6.fib_multipath_hash_policy"),
    };
    // Without the setting, there are no multipath routes.
    if number(kernel, path)?.unwrap_or(0) != 0 {
        findings.push(Finding::of(family, Reason::MultipathHash { setting }));
    }
    Ok(findings)
}

fn forwarding_off_v4(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Option<String>> {
    let path = format!("ipv4/conf/{}/forwarding", at.name);
    let is_on = number(kernel, &path)?.is_some_and(|value| value != 0);
    Ok((!is_on).then(|| format!("net.ipv4.conf.{}.forwarding (net.ipv4.ip_forward)", at.name)))
}

/// The interface's MTU for IPv6 (bytes), which may be lower than that of its link. If it cannot be
/// read, the lowest that IPv6 allows, so that larger packets are left to the kernel.
pub fn mtu_v6(kernel: &mut impl Kernel, at: &Interface) -> Option<usize> {
    let value = number(kernel, &format!("ipv6/conf/{}/mtu", at.name));
    value.map_or(Some(MTU_V6_MIN), |value| value?.try_into().ok())
}

/// One setting for all interfaces, or (Linux 6.17 and later) one of this interface. IPv6 must not
/// be disabled there, for example by an MTU below its minimum.
fn forwarding_off_v6(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Option<String>> {
    let disabled = number(kernel, &format!("ipv6/conf/{}/disable_ipv6", at.name))?;
    if disabled != Some(0) {
        return Ok(Some(format!("net.ipv6.conf.{}.disable_ipv6", at.name)));
    }
    let all = number(kernel, "ipv6/conf/all/forwarding")?;
    let forced = number(kernel, &format!("ipv6/conf/{}/force_forwarding", at.name))?;
    let is_on = [all, forced].into_iter().flatten().any(|value| value != 0);
    Ok((!is_on).then(|| "net.ipv6.conf.all.forwarding".to_owned()))
}

/// The value of a setting; none if it does not exist.
fn number(kernel: &mut impl Kernel, path: &str) -> io::Result<Option<i64>> {
    match kernel.setting(path) {
        Ok(text) => Ok(Some(text.trim().parse().map_err(io::Error::other)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The routing rules, in their order.
fn listed(kernel: &mut impl Kernel, family: Family) -> io::Result<Vec<Message>> {
    let mut rule = RuleMessage::default();
    rule.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    kernel.query(Protocol::Route, &Request::dump_route(&RouteNetlinkMessage::GetRule(rule)))
}

/// See [`crate::relay_policy::rules::place::Facts::host_first`]; false for other IP versions than
/// `families`.
pub fn host_first(kernel: &mut impl Kernel, families: Families) -> PerFamily<bool> {
    PerFamily::each(|family| families.contain(family) && is_host_first(kernel, family))
}

/// Whether the kernel looks for its own addresses first: the first rule is the usual one for table
/// `local`. If the rules cannot be read, that is not known.
fn is_host_first(kernel: &mut impl Kernel, family: Family) -> bool {
    const SELECT_NOTHING: [u16; 4] =
        [FRA_TABLE, FRA_PRIORITY, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN];
    let is_first = |rules: &[Message]| {
        let payload = rules.first()?.payload.as_slice();
        let header = RuleMessageBuffer::new_checked(payload).ok()?;
        let attributes = attributes(header.payload()).ok()?;
        let is_plain = header.dst_len() == 0
            && header.src_len() == 0
            && header.tos() == 0
            && header.flags() & FIB_RULE_INVERT == 0
            && header.action() == FR_ACT_TO_TBL
            && attributes.iter().all(|one| SELECT_NOTHING.contains(&one.kind));
        let number = |kind| find(&attributes, kind).and_then(|value| value.u32().ok());
        let suppresses = number(FRA_SUPPRESS_PREFIXLEN).is_some_and(|length| length != u32::MAX);
        Some(is_plain && !suppresses && number(FRA_TABLE) == Some(libc::RT_TABLE_LOCAL.into()))
    };
    listed(kernel, family).ok().and_then(|rules| is_first(&rules)).unwrap_or(false)
}

/// Rules with selectors that a route query does not cover.
pub fn rules(kernel: &mut impl Kernel, family: Family) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for message in listed(kernel, family)? {
        let payload = message.payload.as_slice();
        let header = RuleMessageBuffer::new_checked(payload).map_err(|_| malformed())?;
        let attributes = attributes(header.payload())?;
        let uncovered = attributes.iter().find(|attribute| !COVERED.contains(&attribute.kind));
        if message.kind == RTM_NEWRULE
            && let Some(attribute) = uncovered
        {
            let priority = find(&attributes, FRA_PRIORITY).map_or(Ok(0), |value| value.u32())?;
            let selector = selector_name(attribute.kind);
            findings.push(Finding::of(family, Reason::RoutingRule { priority, selector }));
        }
    }
    Ok(findings)
}

fn selector_name(kind: u16) -> String {
    let name = match kind {
        FRA_TUN_ID => "tun_id",
        FRA_UID_RANGE => "uidrange",
        FRA_IP_PROTO => "ipproto",
        FRA_SPORT_RANGE | FRA_SPORT_MASK => "sport",
        FRA_DPORT_RANGE | FRA_DPORT_MASK => "dport",
        FRA_FLOWLABEL | FRA_FLOWLABEL_MASK => "flowlabel",
        _ => return format!("unknown attribute {kind}"),
    };
    name.to_owned()
}

/// IPsec policies for forwarding and for output, which apply to forwarded packets.
pub fn ipsec(kernel: &mut impl Kernel) -> io::Result<Vec<Finding>> {
    let request = Request::get(XFRM_MSG_GETSPDINFO, &[0; 4]);
    let mut findings = Vec::new();
    let reply = kernel.query(Protocol::Xfrm, &request)?;
    let message = reply.iter().find(|message| message.kind == XFRM_MSG_NEWSPDINFO);
    let message = message.ok_or_else(malformed)?;
    let (_, attributes) = message.split(4)?;
    let counts = need(&attributes, XFRMA_SPD_INFO)?.value;
    // struct xfrmu_spdinfo: in, out, forward, then the same for sockets.
    let out = u32::from_ne_bytes(array(counts.get(4..).unwrap_or_default())?);
    let forward = u32::from_ne_bytes(array(counts.get(8..).unwrap_or_default())?);
    let count = out.saturating_add(forward);
    if count != 0 {
        findings.push(Finding::of_both(Reason::IpsecPolicies { count }));
    }
    if blocks_by_default(kernel)? {
        findings.push(Finding::of_both(Reason::IpsecDefault));
    }
    Ok(findings)
}

fn blocks_by_default(kernel: &mut impl Kernel) -> io::Result<bool> {
    match kernel.query(Protocol::Xfrm, &Request::get(XFRM_MSG_GETDEFAULT, &[0; 4])) {
        Ok(reply) => {
            // struct xfrm_userpolicy_default: in, forward, out.
            let message = reply.first().ok_or_else(malformed)?;
            let [_, forward, out] = array(&message.payload)?;
            Ok(forward == XFRM_USERPOLICY_BLOCK || out == XFRM_USERPOLICY_BLOCK)
        }
        // Before Linux 5.15 the default was always to accept.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}
