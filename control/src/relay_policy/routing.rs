//! Whether the kernel forwards at all, and whether a question about a route, which names source,
//! destination and traffic class only, is answered as the packet would be.

use std::io;

use wg_bounce_sys::Family;

use super::kernel::{Interface, Kernel, Protocol};
use super::message::{Request, array, find, need};
use super::reason::{Finding, Reason};

const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
/// Bytes of `struct fib_rule_hdr`; its first is the family.
const RULE_LEN: usize = 12;
const FRA_PRIORITY: u16 = 6;
/// Attributes of a rule (linux/fib_rules.h) that the question answers, that no packet from the
/// interface has (a mark: nothing sets one without a rule of its own), or that select nothing.
const ANSWERED: [u16; 19] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 21];
/// FRA_DSCP and FRA_DSCP_MASK: the question has the traffic class.
const ANSWERED_TOO: [u16; 2] = [25, 30];

const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
const XFRMA_SPD_INFO: u16 = 1;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;
/// XFRM_USERPOLICY_BLOCK.
const BLOCK: u8 = 1;

/// Forwarding, and how next hops are chosen.
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
    // Missing: there are no such routes.
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

/// One setting for all interfaces, or (6.17 and later) one of this interface; and IPv6 must not
/// be off there, by an MTU below its minimum for example.
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

/// The value of a setting; none if there is no such setting.
fn number(kernel: &mut impl Kernel, path: &str) -> io::Result<Option<i64>> {
    match kernel.setting(path) {
        Ok(text) => Ok(Some(text.trim().parse().map_err(io::Error::other)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Rules with selectors that a question cannot answer.
pub fn rules(kernel: &mut impl Kernel, family: Family) -> io::Result<Vec<Finding>> {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let mut header = [0; RULE_LEN];
    header[0] = if family == Family::V4 { AF_INET } else { AF_INET6 };
    let mut findings = Vec::new();
    for message in kernel.ask(Protocol::Route, &Request::all(RTM_GETRULE, &header))? {
        let (_, attributes) = message.parts(RULE_LEN)?;
        let is_answered = |kind| ANSWERED.contains(&kind) || ANSWERED_TOO.contains(&kind);
        let unanswered = attributes.iter().find(|attribute| !is_answered(attribute.kind));
        if message.kind == RTM_NEWRULE
            && let Some(attribute) = unanswered
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
        12 => "tun_id",
        20 => "uidrange",
        22 => "ipproto",
        23 | 28 => "sport",
        24 | 29 => "dport",
        26 | 27 => "flowlabel",
        _ => return format!("unknown attribute {kind}"),
    };
    name.to_owned()
}

/// A forwarded packet meets the policies for forwarding and for output, of either family.
pub fn ipsec(kernel: &mut impl Kernel) -> io::Result<Vec<Finding>> {
    let request = Request::one(XFRM_MSG_GETSPDINFO, &[0; 4]);
    let mut findings = Vec::new();
    let answer = kernel.ask(Protocol::Xfrm, &request)?;
    let message = answer.iter().find(|message| message.kind == XFRM_MSG_NEWSPDINFO);
    let message = message.ok_or_else(super::message::unreadable)?;
    let (_, attributes) = message.parts(4)?;
    let counts = need(&attributes, XFRMA_SPD_INFO)?.value;
    // struct xfrmu_spdinfo: in, out, forward, and the same of sockets.
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
    match kernel.ask(Protocol::Xfrm, &Request::one(XFRM_MSG_GETDEFAULT, &[0; 4])) {
        Ok(answer) => {
            // struct xfrm_userpolicy_default: in, forward, out.
            let message = answer.first().ok_or_else(super::message::unreadable)?;
            let [_, forward, out] = array(&message.payload)?;
            Ok(forward == BLOCK || out == BLOCK)
        }
        // Before 5.15 there was no default but to accept.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}
